"""Case load: lines of a file -> raw, beside COPY. Case memory: private memory by size of the file."""
import functools
import gzip
import json
import os
import shutil

import server
from report import count, median, median_range, megabytes, ratio
from rounds import Outcome, Subject, interleave
from server import SqlError, literal

# One line, one value, whatever the line holds: the delimiters are bytes that JSON text cannot have.
COPY = "COPY lines (line) FROM %s (FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01')"
MAX_LINE, MAX_LEVELS, REFUSED = 16 << 20, 1000, b"over a limit"
SUM = "count(*), coalesce(sum(jsonb_hash_extended(%s, 0)::numeric), 0)"


def heap_bytes(database, table):
    return int(server.query("SELECT pg_relation_size('%s')" % table, database)[0][0])


def copy_lines(path, kind, source=None):
    """COPY into one logged column and nothing else."""
    server.new_database("bench_load", "bench_empty")
    server.query("CREATE TABLE lines (line %s)" % kind, "bench_load")
    server.settle(path)
    piece = server.measure("bench_load", [("copy", COPY % (source or literal(path)))])
    state = server.query("SELECT %s FROM lines" % SUM % "line::jsonb", "bench_load")[0]
    return Outcome(piece.seconds, tuple(state), wal=piece.wal, memory=piece.memory, heap=heap_bytes("bench_load", "lines"))


def load_call(path, workers):
    return "SELECT status, lines, loaded, rejected, blank FROM dwh.load_jsonl(%s%s)" % (
        literal(path), ", workers => %d" % workers if workers > 1 else "")


def raw_state():
    """Rows and checksum of raw; a ledger that does not add up is an end state of its own."""
    state = server.query("SELECT %s FROM raw.user_events" % SUM % "payload", "bench_load")[0]
    kept = server.query("SELECT count(*) FROM ops.rejects", "bench_load")[0][0]
    broken = server.query("SELECT count(*) FROM ops.loads WHERE lines <> loaded + rejected + blank", "bench_load")[0][0]
    return tuple(state + (["%s rejects kept" % kept] if kept != "0" else []) + (["ledger broken"] if broken != "0" else []))


def load_lines(path, workers, before=None):
    """dwh.load_jsonl, where before was loaded first, untimed."""
    server.new_database("bench_load", "bench_empty")
    if before:
        server.query(load_call(before, 1), "bench_load")
    server.settle(path)
    piece = server.measure("bench_load", [("load", load_call(path, workers))])
    return Outcome(piece.seconds, raw_state(), wal=piece.wal, memory=piece.memory, heap=heap_bytes("bench_load", "raw.user_events"))


def lines_of(path):
    """The lines that a load must judge: no BOM, no CR, no blank ones, no half of a last one; REFUSED for what is over a limit."""
    with open(path, "rb") as file:
        lines = file.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    try:
        json.loads(lines[-1])
    except ValueError:
        lines.pop()     # held back, or nothing
    for line in lines:
        line = line.removesuffix(b"\r").strip(b" \t")
        if line:
            yield REFUSED if len(line) > MAX_LINE or line.count(b"[") + line.count(b"{") > MAX_LEVELS else line


def dirty_reference(path):
    """Not a competitor: the state that a dirty log must end in, line by line by the server's own ::jsonb."""
    server.new_database("bench_load", "bench_empty")
    plain = path + ".hex"
    with open(plain, "wb") as file:
        file.writelines(b"\\\\x%s\n" % line.hex().encode() for line in lines_of(path))
    os.chmod(plain, 0o644)
    with server.Session("bench_load") as session:
        session.run("""
            CREATE FUNCTION object_of(line bytea) RETURNS jsonb LANGUAGE plpgsql AS $$
            DECLARE
                value jsonb := convert_from(line, 'UTF8')::jsonb;
            BEGIN
                RETURN CASE WHEN jsonb_typeof(value) = 'object' THEN value END;
            END $$;
            CREATE FUNCTION object_or_null(line bytea) RETURNS jsonb LANGUAGE plpgsql AS $$
            BEGIN
                RETURN object_of(line);
            EXCEPTION WHEN OTHERS THEN
                RETURN NULL;
            END $$;
            CREATE TABLE lines (line bytea)""")
        session.run("COPY lines FROM %s" % literal(plain))
        state = session.run("SELECT count(o), coalesce(sum(jsonb_hash_extended(o, 0)::numeric), 0),"
                            " count(*) FILTER (WHERE o IS NULL) || ' rejects kept' FROM lines CROSS JOIN LATERAL object_or_null(line) AS o")[0]
    os.remove(plain)
    return Outcome(0, tuple(state))


def subjects_of(events):
    users = max(events // 20, 100)
    clean = server.generate("clean.jsonl", events=events, users=users)
    dirty = server.generate("dirty.jsonl", events=events, users=users, dirty_rate=0.01)
    other = os.path.join(server.FILES, "other.jsonl")
    packed = os.path.join(server.FILES, "packed.jsonl.gz")
    shutil.copy(clean, other)
    with open(clean, "rb") as plain, gzip.open(packed, "wb", compresslevel=6) as file:
        shutil.copyfileobj(plain, file, 1 << 20)
    for path in (other, packed):
        os.chmod(path, 0o644)
    counts = [1, 2] if server.takes_workers("load_jsonl") else [1]

    def load(about, path, expects, before=None, workers=None):
        return [Subject("load_jsonl, %d worker%s" % (n, "s" * (n > 1)), about,
                        functools.partial(load_lines, path, n, before), expects) for n in workers or counts]

    jsonb = Subject("COPY into jsonb", "clean", functools.partial(copy_lines, clean, "jsonb"))
    text = Subject("COPY into text", "clean", functools.partial(copy_lines, clean, "text"), jsonb)
    unpacked = Subject("COPY into jsonb", "gzip",
                       functools.partial(copy_lines, packed, "jsonb", "PROGRAM " + literal("gzip -dc '%s'" % packed)), jsonb)
    stops = Subject("COPY into jsonb", "1 % dirty", functools.partial(copy_lines, dirty, "jsonb"), jsonb)
    truth = Subject("", "", None)
    truth.outcomes.append(dirty_reference(dirty))
    return [jsonb, text, *load("clean", clean, jsonb), stops, *load("1 % dirty", dirty, truth), unpacked, *load("gzip", packed, jsonb),
            *load("same file again", clean, jsonb, before=clean, workers=[1]), *load("other name", other, jsonb, before=clean, workers=[1])]


def run(report, events, rounds):
    report.add("## Load: %s lines to raw" % count(events), "", "Raw of the warehouse has a primary key and where each line stood; COPY fills one"
               " column without a key. `vs COPY`: COPY's time divided by the subject's, on the same input; more is faster.")
    subjects = subjects_of(events)
    interleave(subjects, rounds)
    copies = {s.about: s for s in subjects if s.name == "COPY into jsonb"}
    rows = []
    for s in subjects:
        copy = copies[s.about] if s.about == "gzip" else copies["clean"]
        new = s.about not in ("same file again", "other name") and s.seconds()
        rows.append([s.about, s.name, median_range(s.seconds(), 2 if new else 4), count(events / median(s.seconds())) if new else "",
                     ratio(median(copy.seconds()), median(s.seconds())),
                     count(median(s.values(lambda o: o.wal)) / events) if new else "",
                     count(median(s.values(lambda o: o.heap)) / events) if new else "",
                     megabytes(max(s.values(lambda o: o.memory), default=None)), s.verdict()])
    report.table(["input", "subject", "s, median (min-max)", "lines/s", "vs COPY", "WAL B/line", "heap B/line", "private MB", "end state"], rows)
    for s in (s for s in subjects if s.about == "1 % dirty"):
        for clean in (c for c in subjects if c.about == "clean" and c.name == s.name and s.seconds()):
            report.add("- %s: 1 %% dirty takes %s of clean." % (s.name, ratio(median(s.seconds()), median(clean.seconds()), 3)))
    server.drop_database("bench_load")


def run_memory(report, sizes):
    """Each size once: what is asked is whether the peak grows with the file."""
    report.add("## Memory: peak of private memory while loading", "",
               "Sampled every 10 ms, workers included; shared buffers do not count. A session that has done nothing has 1 to 2 MB.")
    rows = []
    for events in sizes:
        path = server.generate("memory.jsonl", events=events, users=max(events // 20, 100))
        for workers in [1, 2] if server.takes_workers("load_jsonl") else [1]:
            try:
                outcome = load_lines(path, workers)
                rows.append([count(events), str(workers), count(os.path.getsize(path) / 1e6), "%.1f" % (outcome.memory / 1e6), "%.2f" % outcome.seconds])
            except SqlError as error:
                rows.append([count(events), str(workers), "", "", str(error).splitlines()[0]])
        os.remove(path)
    report.table(["lines", "workers", "file MB", "private MB", "s (once)"], rows)
    server.drop_database("bench_load")
