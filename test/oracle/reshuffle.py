"""The lines of a log in another order, in several files, some of them twice. Works on bytes: only LF ends a line.

usage: reshuffle.py log directory files seed

A BOM at byte 0 and an unfinished last line belong to their places in a file and are left out. One file is written twice
under another name, and about one line in fifty comes twice, in the same file or another one. Prints the number of lines
and of repeated ones.
"""
import os
import random
import sys

log, directory, files, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
with open(log, "rb") as source:
    content = source.read()
if content.startswith(b"\xef\xbb\xbf"):
    content = content[3:]
lines = content.split(b"\n")[:-1]
repeated = [line for line in lines if rng.random() < .02 and len(line) < 1 << 20]
shuffled = lines + repeated
rng.shuffle(shuffled)
os.makedirs(directory, exist_ok=True)
for i in range(files):
    part = b"".join(line + b"\n" for line in shuffled[i::files])
    for name in ["part_%d.jsonl" % i] + (["again_%d.jsonl" % i] if i == 1 else []):
        with open(os.path.join(directory, name), "wb") as out:
            out.write(part)
print(len(lines), len(repeated))
