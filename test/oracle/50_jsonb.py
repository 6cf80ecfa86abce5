"""Lines that try where JSON ends and jsonb begins.

usage: 50_jsonb.py out.bin seed max-line-bytes corpus [json-test-suite.tar.gz] [jsonb-cases.jsonl]

Writes the lines to out.bin, each followed by LF, the first one plain (only there a BOM would be none of the line's). Cases
that hold an LF cannot be one line: they are left out. Every case goes in bare, as a value inside an object, and, where it
begins as a string, as a key; the same line once. The longest lines come as they are. corpus: a directory of inputs, one
case a file. Prints the number of lines, then for each source its name, cases, and cases left out.
"""
import base64
import json
import os
import random
import sys
import tarfile

out, rng, longest, corpus, public = sys.argv[1], random.Random(int(sys.argv[2])), int(sys.argv[3]), sys.argv[4], sys.argv[5:]
cases = {}


def numbers():
    yield from (b"0 -0 0.0 -0.0 -0.00 0e0 -0e5 0e200000 0e-200000 -0e-16383 0e-16384 0.0e-16383 00 01 -01 +1 .5 5. 1.e1 1e 1e+ 1e- 1E5 1e05 "
                b"1e+05 0x10 1_000 1,000 Infinity -Infinity NaN nan 1e1 1.0e1 1.00e1 1.5e-3 100e-2 1e-1 123456789012345678901234567890 "
                b"0.1 0.10 0.100 1.000000000000000000000000000000000000001 9223372036854775807 9223372036854775808 -9223372036854775808 "
                b"18446744073709551615 18446744073709551616 1e308 1e309 4.9e-324 1e-400 2147483648 0.30000000000000004 1e99999999999 "
                b"1e-99999999999 0e99999999999 1e2147483647 1e2147483648 1e-2147483648 1e1073741823 1e1073741822 0e1073741823 0e1073741822 "
                b"0e-1073741823 -e1 - 1-1 1e1.5 1ee1 --1 1f 1d 1L \xd9\xa1 1\xc2\xa0").split(b" ")
    for exponent in (131068, 131069, 131070, 131071, 131072, 131073, 131075, 131076, 262144, 16380, 16381, 16382, 16383, 16384, 16385, 32767):
        for digits in (b"1", b"9", b"10", b"9999", b"10000", b"0.1", b"0.0001", b"0.00001", b"1.5", b"0.9999", b"12345.678", b"-1", b"-0.1", b"0", b"0.0", b"1.0"):
            yield digits + b"e%d" % exponent
            yield digits + b"E+%d" % exponent
            yield digits + b"e-%d" % exponent
    for length in (1000, 16382, 16383, 16384, 16385, 131071, 131072, 131073):
        yield b"9" * length
        yield b"1" + b"0" * length
        yield b"0." + b"0" * (length - 1) + b"1"
        yield b"0." + b"0" * length
        yield b"1." + b"9" * length
        yield b"1" + b"0" * length + b"e-%d" % length
        yield b"0." + b"0" * length + b"1e%d" % length
    for whole in range(1, 18):              # numeric keeps four digits in one place: every alignment of point and digits
        for fraction in range(0, 10):
            yield b"9" * whole + b"." * (fraction > 0) + b"10000000"[:fraction]
            yield b"-" + b"1" + b"0" * (whole - 1) + b"." * (fraction > 0) + b"00000000"[:fraction] + b"9" * (fraction > 8)
    for leading in (b"", b"-"):
        yield from (leading + zeros + digits for zeros in (b"0", b"00", b"000000000") for digits in (b"", b"1", b".5", b"e1", b".0e00"))
    for _ in range(2000):
        text = rng.choice([b"", b"-"]) + str(rng.getrandbits(rng.choice([1, 8, 31, 63, 70, 200]))).encode()
        if rng.random() < .6:
            text += b"." + bytes(rng.choice(b"0123456789") for _ in range(rng.randint(1, 30))) + b"0" * rng.randint(0, 5)
        if rng.random() < .6:
            text += rng.choice([b"e", b"E"]) + rng.choice([b"", b"+", b"-"]) + str(rng.randint(0, rng.choice([3, 30, 400, 20000, 140000]))).encode()
        yield text


def strings():
    yield from (b'""', b'"a"', b'"\\u0000"', b'"\\\\u0000"', b'"\\\\\\u0000"', b'"a\\u0000b"', b'"\\u0001\\u001f\\u007f"', b'"\x7f"',
                b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\udc00"', b'"\\ud83d\\ude00"', b'"\\uD83D\\uDE00"', b'"\\ude00\\ud83d"',
                b'"\\ud800\\ud800"', b'"\\ud800x"', b'"\\ud800\\n"', b'"\\ud800\\u0041"', b'"\\udbff\\udfff"', b'"\\ud800\\\\udc00"',
                b'"\\u00e9"', b'"\\u00E9"', b'"\\u20ac"', b'"\\uffff"', b'"\\ufffe"', b'"\\ufeff"', b'"\\u2028"', b'"\xe2\x80\xa8"', b'"\\u0022"', b'"\\u005c"', b'"\\/"', b'"/"',
                b'"\\b\\f\\n\\r\\t"', b'"\\a"', b'"\\x41"', b'"\\u12"', b'"\\u12g4"', b'"\\u 123"', b'"\\u+123"', b'"\\u-123"', b'"\\U0041"', b'"\\', b'"\\"', b'"abc', b"'a'", b'"a""b"',
                b'"\\u0041\\u0042"', b'"\\u0080"', b'"\\u0800"', b'"\\ud7ff"', b'"\\ue000"', b'"\xef\xbb\xbf"', b'\xef\xbb\xbf"a"')
    for byte in range(0, 128):              # every escape of one byte, known or not
        yield b'"\\u00%02x"' % byte
        yield b'"a\\u00%02Xb"' % byte
        if byte != 10:
            yield b'"\\' + bytes([byte]) + b'"'
    edges = (b"0000", b"0041", b"d7ff", b"D800", b"dbff", b"DC00", b"dFFf", b"e000", b"ffff")
    for first in edges:
        for second in edges:
            yield b'"\\u' + first + b"\\u" + second + b'"'
            yield b'"\\u' + first + b"x\\u" + second + b"\\u" + first + b'"'
    for byte in list(range(0, 32)) + [127]:
        if byte != 10:
            yield b'"a' + bytes([byte]) + b'b"'
            yield bytes([byte]) + b'1'                # outside of a string
            yield b'1' + bytes([byte])
    # UTF-8: each length's first and last character, overlong forms, surrogates, beyond U+10FFFF, cut and stray bytes
    for text in (b"\xc2\x80", b"\xdf\xbf", b"\xe0\xa0\x80", b"\xef\xbf\xbf", b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xed\x9f\xbf", b"\xee\x80\x80",
                 b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80",
                 b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff", b"\x80", b"\xbf", b"\xc2", b"\xe2\x82", b"\xf0\x9f\x98",
                 b"\xc2\x41", b"\xe2\x28\xa1", b"\xe2\x82\x28", b"\xf0\x28\x8c\xbc", b"\xf0\x90\x28\xbc", b"\xf0\x28\x8c\x28", b"\xc3\xa9\xc3", b"\xe9"):
        yield b'"' + text + b'"'
        yield b'"a' + text + b'b"'
        yield b'"\\' + text + b'"'
        yield b'"\\u00' + text + b'"'
        yield text
    for size in (126, 127, 128, 254, 255, 256, 257, 4095, 32767, 32768, 65535, 65536, 1 << 20):
        yield b'"' + b"x" * size + b'"'
        yield b'"' + b"\xf0\x9f\x98\x80" * (size // 4) + b'"'
        yield b'"' + b"\\u00e9" * (size // 16) + b'"'
    pieces = [b"a", b"\\n", b"\\\\", b'\\"', b"\\u0041", b"\\u0000", b"\\ud83d\\ude00", b"\\ud83d", b"\\ude00", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8",
              b" ", b"\t", b"\\/", b"u0000", b"\\", b"\xff", b"\\u000a", b"\x7f", b"{", b"]", b",", b":"]
    weights = [8, 3, 3, 3, 3, 1, 3, 1, 1, 3, 3, 2, 2, 1, 2, 2, 1, 1, 2, 1, 2, 2, 2, 2]
    for _ in range(3000):
        yield b'"' + b"".join(rng.choices(pieces, weights)[0] for _ in range(rng.randint(0, 7))) + b'"'


def random_value(depth):
    kind = rng.randrange(8 if depth < 5 else 6)
    blank = rng.choice([b"", b"", b"", b" ", b"\t", b"\r", b"  "])
    if kind == 0:
        return rng.choice([b"true", b"false", b"null"]) + blank
    if kind < 3:
        return rng.choice([b"0", b"1", b"-1.50", b"1e3", b"2.50e-2", b"12345678901234567890", b"-0.0"]) + blank
    if kind < 6:
        return b'"' + rng.choice([b"", b"a", b"\\u0061", b"\xc3\xa9", b"\\\\", b"long " * 30]) + b'"' + blank
    if kind == 6:
        return b"[" + blank + b",".join(random_value(depth + 1) for _ in range(rng.randint(0, 4))) + b"]"
    return random_object(depth + 1)


KEYS = [b"", b"a", b"b", b"ab", b"ba", b"abc", b"B", b"\\u0061", b"\xc3\xa9", b"\\u00e9", b"z", b"aa", b"longer key", b"\xf0\x9f\x98\x80", b"\\ud83d\\ude00", b"\\n", b" a", b"a ", b"~", b"key" * 50]


def random_object(depth=1):
    blank = rng.choice([b"", b"", b" ", b"\t "])
    return b"{" + blank + (b"," + blank).join(
        b'"' + rng.choice(KEYS) + b'"' + blank + b":" + random_value(depth) for _ in range(rng.randint(0, 7))) + b"}" + blank


def members(count):
    """Keys of every length and lead byte, in no order, and values whose place in jsonb is aligned or not."""
    keys = [(b"%d" % i)[-1:] * (i % 9) + rng.choice([b"", b"~", b"\x7f", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\\u00e9", b"\\t"]) + b"%d" % i for i in range(count)]
    rng.shuffle(keys)
    values = [rng.choice([b"null", b"true", b'""', b'"abc"', b"1", b"-0.5", b"1e20", b"[]", b"{}", b'[1,"b"]', b'{"z":1,"y":{"x":2}}']) for _ in keys]
    return keys, values


def structures():
    for count in (0, 1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 1000):      # jsonb keeps an offset, not a length, in every 32nd entry
        keys, values = members(count)
        yield b"{" + b",".join(b'"' + key + b'":' + value for key, value in zip(keys, values)) + b"}"
        yield b"[" + b",".join(values) + b"]"
        # each key twice, the first and then the second half of them between
        yield b"{" + b",".join(b'"' + key + b'":' + value for key, value in zip(keys + keys[::-1], values + values)) + b"}"
        yield b"{" + b",".join(b'"a":' + value for value in values) + b"}"
    for level in range(1, 7):               # equal keys at that level
        yield b'{"a":' * (level - 1) + b'{"b":1,"a":2,"b":{"c":1,"c":2},"a":[{"d":1,"d":null}]}' + b"}" * (level - 1)
        yield b'{"a":1,"a":' * level + b"2" + b"}" * level
        yield b'{"a":' * level + b"2" + b',"a":3}' * level
    for size in (1, 126, 127, 128, 254, 255, 256, 257, 65535, 65536, 1 << 20):
        yield b'{"' + b"k" * size + b'":1,"' + b"k" * (size - 1) + b'":2,"' + b"k" * (size - 1) + b'j":3}'
    for depth in (1, 2, 100, 998, 999, 1000, 1001, 1002, 50000):
        yield b"[" * depth + b"]" * depth
        yield b'{"a":' * depth + b"1" + b"}" * depth
        yield b'{"a":[' * (depth // 2) + b"1" + b"]}" * (depth // 2)
        yield b'{"a":["' + b"[" * depth + b'"]}'
        yield b'{"a":["\\"' + b"{" * depth + b'"]}'
    # many values and little depth, many siblings of depth
    yield b'{"a":[' + b",".join(b"[[]]" for _ in range(1500)) + b"]}"
    yield b'{' + b",".join(b'"k%d":%d' % (i, i) for i in range(3000)) + b"}"
    yield b'{' + b",".join(b'"k%d":%d' % (i % 7, i) for i in range(3000)) + b"}"
    yield b'{"' + b"k" * 70000 + b'":1}'
    yield from (b"{}", b"[]", b"{} ", b" {}", b"\t{}\t", b"{}\r", b"\r{}", b"\r", b"\r\r", b" ", b"\t", b" \t ", b" \r", b"", b"\x0b", b"\x0c{}", b"{}{}", b"{},", b"{}\x00", b"\x00", b"\x00{}",
                b"{} {}", b"{}}", b"{", b"}", b"{]", b"[}", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b'{"a":1,}', b'{,"a":1}', b'{"a"}', b'{"a":}', b'{"a" 1}', b'{a:1}', b"{1:1}", b'{"a"::1}',
                b'{"a":1 "b":2}', b"{null:1}", b'{"a":1}//x', b'{"a":1}/*x*/', b'/**/{}', b'{"a":1}#', b"True", b"TRUE", b"nul", b"nulll", b"undefined", b"tru", b"truefalse",
                b"[true,false,null]", b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"a":{"a":1},"a":{"b":1,"b":2}}', b'{"b":1,"a":2,"aa":3,"":4}', b'{"":{"":{"":[]}}}', b'{"\\u0000":1}', b'{"\\ud800":1}',
                b'{"\xff":1}', b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e131072}', b'{"a":1e131071}', b'\xef\xbb\xbf{}', b'\xff\xfe{\x00}\x00', b"\xc2\xa0{}", b"\xe3\x80\x80{}", b"{}\xc2\xa0", b"\xe2\x80\xa8{}")
    tokens = (b"{ } [ ] , : \" \\ true false null 0 1 -1 1.5 1e5 \"a\" \"b\" \"a\":1 {\"a\": \"\\u0000\" \"\\ud800\" {} [] [1] \xff \x01 \t \r \xef\xbb\xbf").split(b" ")
    for _ in range(1500):
        yield b"".join(rng.choices(tokens, k=rng.randint(1, 7)))
    for _ in range(2500):
        yield random_object()
    for _ in range(2500):                   # one byte of a good object changed, taken out or added
        text = bytearray(random_object())
        at = rng.randrange(len(text))
        how = rng.randrange(3)
        byte = rng.choice(b'{}[]",:\\ 0-.eutfn\x00\x80\xff\r\t')
        if how == 0:
            text[at] = byte
        elif how == 1:
            del text[at]
        else:
            text.insert(at, byte)
        yield bytes(text)


cases["numbers"], cases["strings"], cases["structures"] = list(numbers()), list(strings()), list(structures())
cases["kept by the fuzz targets"] = [open(os.path.join(corpus, name), "rb").read() for name in sorted(os.listdir(corpus))]
for path in public:
    if path.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            cases["JSONTestSuite"] = [tar.extractfile(member).read() for member in tar.getmembers() if member.name.endswith(".json")]
    else:
        with open(path, encoding="utf-8") as f:
            rows = [json.loads(line) for line in f]
        cases["PostgreSQL's own"] = [base64.b64decode(row["text_b64"]) if "text_b64" in row else row["text"].encode() for row in rows]

lines = [b'{"first": "line"}']
report = []
for source, texts in cases.items():
    left_out = 0
    for text in texts:
        if b"\n" in text:
            left_out += 1
            continue
        lines += [text, b'{"k": ' + text + b"}", b'{"x":1,"k":[true,' + text + b'],"k2":"\xc3\xa9"}']
        if text.startswith(b'"'):
            lines.append(b"{" + text + b": 1}")
    report.append("%s|%d|%d" % (source, len(texts), left_out))
lines = list(dict.fromkeys(lines))

# Strings of some MB, and lines at the limit and one byte beyond.
lines += [b'{"k":"' + b"x" * 15000000 + b'"}', b'{"k":"' + b"\\u00e9\xc3\xa9" * 1000000 + b'"}', b'"' + b"x" * 15000000 + b'"',
          b'{"' + b"k" * 3000000 + b'":1}', b'{"k":"' + b"x" * (longest - 8) + b'"}', b'{"k":"' + b"x" * (longest - 7) + b'"}', b"{}" + b" " * (longest - 2) + b"\r", b"{}" + b" " * (longest - 1)]
with open(out, "wb") as f:
    f.write(b"".join(line + b"\n" for line in lines))
# for COPY: number and bytes of each line
with open(out + ".tsv", "w") as f:
    f.writelines("%d\t\\\\x%s\n" % (n, line.hex()) for n, line in enumerate(lines, 1))
print(len(lines))
print("\n".join(report))
