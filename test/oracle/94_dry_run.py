"""Changes a directory of small random logs: 94_dry_run.py DIRECTORY ROUND.

Files are made, grown, rewritten, copied under another name, cut off, compressed, emptied, spoilt. Events come from a small
pool of ids, so most rounds repeat some, and contradict some.
"""
import gzip
import json
import os
import random
import sys

directory, number = sys.argv[1], int(sys.argv[2])
random.seed(number * 7919 + 94)


def event():
    """A line: mostly an event of the pool, as it was first sent, or otherwise."""
    name = random.randrange(400)
    pool = random.Random(name)
    day = pool.randrange(1, 29) if pool.random() < 0.7 else random.randrange(1, 29)
    said = {"event_id": "e%d" % name, "event_type": pool.choice(["view", "purchase"]), "user_id": "u%d" % pool.randrange(20),
            "event_time": "2025-%02d-%02dT%02d:00:00Z" % (pool.randrange(1, 4), day, pool.randrange(24)),
            "price": pool.randrange(5), "note": {"a": [1, 2.50]}}
    if pool.random() < 0.5:
        said["product_id"] = "p%d" % pool.randrange(9)
    if random.random() < 0.1:
        said["price"] = 77
    if random.random() < 0.1:
        del said["event_id"]
    text = json.dumps(said)
    if random.random() < 0.2:
        text = text.replace("2.5", "2.500").replace('"note"', '"note" ')     # the same value
    return text


def dirty():
    return random.choice(["", "  ", "{", "[1]", '{"event_time": "2025-01-01T00:00:00Z"}', '{"user_id": 5, "event_type": "view"}',
                          '{"user_id": "u3", "event_type": "view", "event_time": "2999-01-01T00:00:00Z"}', "nonsense",
                          '{"user_id": "u2", "event_type": "view", "event_time": 5}', '{"a": "\\u0000"}'])


def lines(share):
    return [dirty() if random.random() < share else event() for _ in range(random.choice([1, 3, 8, 15]))]


def content():
    share = random.choice([0, 0, 0, 0.05, 0.05, 0.3, 0.9])
    text = "\n".join(lines(share))
    return (text + random.choice(["\n", "\n", "\n", "\r\n", "", "\n{\"half", "\n" + event()])).encode()


def put(name, data):
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


def plain_files():
    return sorted(n for n in os.listdir(directory) if n.endswith(".jsonl") and os.path.isfile(os.path.join(directory, n)))


def read(name):
    with open(os.path.join(directory, name), "rb") as file:
        return file.read()


def change():
    known = plain_files()
    name = "%s%d.jsonl" % (random.choice("abcxyz"), random.randrange(30))
    kind = random.choice(["new", "new", "new", "grown", "grown", "grown", "copy", "rewritten", "gone", "gzip", "cut", "bad", "empty",
                          "blank", "grown copy", "swap"])
    old = random.choice(known) if known else None
    if kind == "new" or old is None:
        put(name, content())
    elif kind == "grown":
        put(old, read(old) + random.choice([b"", b"\n"]) + content())
    elif kind == "copy":
        put(name, read(old))
    elif kind == "grown copy":
        first = content()
        put("m1.jsonl", first)
        put("m2.jsonl", first + content())
    elif kind == "rewritten":
        put(old, content() + read(old))
    elif kind == "gone":
        os.remove(os.path.join(directory, old))
    elif kind == "gzip":
        put(name + ".gz", gzip.compress(read(old) + random.choice([b"", content()]), mtime=0))
    elif kind == "cut":
        data = gzip.compress(content() * 3, mtime=0)
        put("cut.jsonl.gz", data[: random.randrange(12, len(data))])
    elif kind == "bad":
        data = bytearray(gzip.compress(content(), mtime=0))
        data[len(data) // 2] ^= 255
        put("bad.jsonl.gz", bytes(data))
    elif kind == "empty":
        put("empty.jsonl", b"")
    elif kind == "blank":
        put("blank.jsonl", b"\n \n\t\n")
    elif kind == "swap":
        other = random.choice(known)
        first, second = read(old), read(other)
        put(old, second)
        put(other, first)


if number == 0:
    os.makedirs(os.path.join(directory, "folder.jsonl"))     # no regular file: it fails, the others do not
for _ in range(random.choice([0, 1, 2, 4, 7])):
    change()
