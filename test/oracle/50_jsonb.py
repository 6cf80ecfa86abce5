"""Lines that try where JSON ends and jsonb begins.

usage: 50_jsonb.py out.bin seed [json-test-suite.tar.gz] [jsonb-cases.jsonl]

Writes the lines to out.bin, each followed by LF, the first one plain (only there a BOM would be none of the line's). Cases
that hold an LF cannot be one line: they are left out. Every case goes in bare, as a value inside an object, and, where it
begins as a string, as a key. Prints the number of lines, then for each source its name, cases, and cases left out.
"""
import base64
import json
import os
import random
import sys
import tarfile

out, rng, public = sys.argv[1], random.Random(int(sys.argv[2])), sys.argv[3:]
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
    for _ in range(600):
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
        yield text
    for size in (126, 127, 128, 255, 256, 4095, 65535, 65536, 1 << 20):
        yield b'"' + b"x" * size + b'"'
        yield b'"' + b"\xf0\x9f\x98\x80" * (size // 4) + b'"'
        yield b'"' + b"\\u00e9" * (size // 16) + b'"'
    pieces = [b"a", b"\\n", b"\\\\", b'\\"', b"\\u0041", b"\\u0000", b"\\ud83d\\ude00", b"\\ud83d", b"\\ude00", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8",
              b" ", b"\t", b"\\/", b"u0000", b"\\", b"\xff", b"\\u000a", b"\x7f", b"{", b"]", b",", b":"]
    weights = [8, 3, 3, 3, 3, 1, 3, 1, 1, 3, 3, 2, 2, 1, 2, 2, 1, 1, 2, 1, 2, 2, 2, 2]
    for _ in range(1500):
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


def structures():
    for depth in (1, 2, 100, 998, 999, 1000, 1001, 1002):
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
    for _ in range(1500):
        yield random_object()
    for _ in range(1500):                   # one byte of a good object changed, taken out or added
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
with open(out, "wb") as f:
    f.write(b"".join(line + b"\n" for line in lines))
# for COPY: number and bytes of each line
with open(out + ".tsv", "w") as f:
    f.writelines("%d\t\\\\x%s\n" % (n, line.hex()) for n, line in enumerate(lines, 1))
print(len(lines))
print("\n".join(report))
