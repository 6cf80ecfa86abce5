"""First inputs for the fuzz targets, small and hostile; what the mutator finds from there is kept in corpus/.

usage: seeds.py target directory
"""
import json
import os
import sys

EVENT = {"event_id": "11111111-2222-4333-8444-555555555555", "event_time": "2025-01-10T12:30:15Z", "event_type": "purchase",
         "user_id": "u1", "session_id": "s1", "product_id": "p1", "device": "mobile", "country": "KR", "category": "books",
         "brand": "acme", "price": 12.50, "quantity": 2, "revenue": 25}


def event(**changes):
    """An event with these fields changed; None takes one away."""
    fields = {**EVENT, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not None}).encode()


def lines():
    yield from (b"\n", b"\r\n", b"\r\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b"\xef\xbb\n", b"\xef\xbb\xbf\xef\xbb\xbfa\n", b" \t\n \n\t", b"a\nb", b"a\r", b"\x00\n\xff\n")
    for size in (1, 31, 39, 40, 41, 57, 58, 59, 60, 62, 63, 64, 65, 66, 68, 69, 70, 84, 85, 90, 104, 200):
        for start in (b"", b"\xef\xbb\xbf", b"b\n"):
            for end in (b"", b"\n", b"\r\n", b"\rz\n", b"\r\r\n\n"):
                yield start + b"x" * size + end


def events():
    yield event()
    yield event(event_id=None)
    yield event(event_id=None, extra={"b": [1.50, True, None, {"": "é"}], "a": "\x01\"\\/\n"}, other=-0.0)
    for name in EVENT:
        for value in (None, "", "1", "é", 0, -1, 1.50, True, [], {}):
            yield event(**{name: value})
    for time in ("2024-02-29 23:59:60.1234567+15:59", "2023-02-29T00:00:00Z", "0000-01-01t00:00:00+15:59", "9999-12-31T23:59:59.999999-15:59", "2025-01-10T24:00:00Z", "2025-01-10",
                 "2025-01-10T12:30:15.z"):
        yield event(event_time=time)
        yield time.encode()
    for number in (b"0", b"-0", b"-0.00", b"00", b"1.", b".5", b"1e5", b"1E+05", b"-1.50e-2", b"1e131071", b"1e131072", b"0.1e131072", b"1e-16383", b"1e-16384", b"0e-16383", b"9e1073741823", b"9e99999999999",
                   b"999999999999999999", b"1000000000000000000", b"1" + b"0" * 100, b"0." + b"0" * 100 + b"1", b"2147483647.0", b"2147483648"):
        yield number
        yield b'{"k":' + number + b"}"
        yield event(event_id=None, price=None, quantity=None)[:-1] + b',"price":' + number + b',"quantity":' + number + b',"x":' + number + b"}"
    for string in (b"\\u0000", b"\\\\u0000", b"\\ud83d\\ude00", b"\\ud83d", b"\\ude00", b"\\ude00\\ud83d", b"\\ud83dx\\u0000", b"\\ud83d\\ud83d\\ude00", b"\\\\ud83d", b"\\u00g0", b"\\x", b"\x1f", b"\x7f", b"\x00",
                   b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xff", b"\xe2\x82", b"\\b\\f\\n\\r\\t\\/\\\"\\\\"):
        yield b'{"k":"' + string + b'"}'
        yield b'{"' + string + b'":[]}'
        yield b'{"user_id":"' + b"\xc3\xa9" * 60 + string + b'"}'
    yield from (b"", b" ", b"{}", b" {}\t", b"{}x", b"{},", b"[]", b"1", b'""', b"null", b"{", b"}", b'{"a":1,}', b'{"a"}', b'{"a":1,"a":2,"b":3,"\\u0061":4}', b"\xef\xbb\xbf{}", b"{}\x00", b"{}\r")
    for depth in (3, 999, 1000, 1001):
        yield b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        yield b'{"a":' * depth + b"{}" + b"}" * depth
        yield b'{"a":"' + b"[{" * depth + b'"}'
        yield b"[" * depth
    yield b'{"' + b'":1,"'.join(b"%d" % i for i in range(70)) + b'":1}'
    for length in (1023, 1024, 1025):
        yield event(user_id="u" * length)


target, directory = sys.argv[1:]
for number, seed in enumerate({"lines": lines, "event": events}[target]()):
    with open(os.path.join(directory, "%04d" % number), "wb") as f:
        f.write(seed)
