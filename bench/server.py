"""The server under measurement: sessions, databases, memory, WAL.

What a session is given is timed around the whole answer, commit included; connecting is not. Sessions are psql
processes, so the benchmark needs nothing but Python's own library.
"""
import os
import subprocess
import tempfile
import threading
import time

PSQL = os.path.join(os.environ["BENCH_BIN"], "psql")
DATA = os.environ["BENCH_DATA"]
FILES = os.environ["BENCH_FILES"]
SETTLE = float(os.environ.get("BENCH_SETTLE", "2"))


class SqlError(Exception):
    """What psql said when it ended."""


class Session:
    """One backend; a new one for each measured piece, so that no memory or cached plan is inherited."""

    END = "-- end of answer --"

    def __init__(self, database="postgres"):
        self.said = tempfile.TemporaryFile("w+")
        self.psql = subprocess.Popen([PSQL, "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=self.said, text=True, bufsize=1)
        self.run("SET client_min_messages = error")

    def run(self, sql):
        """Runs statements; returns the rows as lists of texts."""
        try:
            self.psql.stdin.write("%s\n;\n\\echo '%s'\n" % (sql.rstrip().rstrip(";"), self.END))
            self.psql.stdin.flush()
        except BrokenPipeError:
            pass
        rows = []
        for line in self.psql.stdout:
            if line.rstrip("\n") == self.END:
                return [row.split("|") for row in rows]
            rows.append(line.rstrip("\n"))
        self.psql.wait()
        self.said.seek(0)
        raise SqlError(self.said.read().strip())

    def value(self, sql):
        return self.run(sql)[0][0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.psql.stdin.close()
        self.psql.stdout.close()
        self.psql.wait()
        self.said.close()


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def query(sql, database="postgres"):
    with Session(database) as session:
        return session.run(sql)


def new_database(name, template="template1"):
    query("DROP DATABASE IF EXISTS %s WITH (FORCE)" % name)
    query("CREATE DATABASE %s TEMPLATE %s STRATEGY file_copy" % (name, template))


def database_bytes(name):
    return int(query("SELECT pg_database_size(%s)" % literal(name))[0][0])


def drop_database(name):
    query("DROP DATABASE IF EXISTS %s WITH (FORCE)" % name)


def settle(*paths):
    """Writes back what earlier pieces left dirty, and reads the inputs into the page cache."""
    query("CHECKPOINT")
    os.sync()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 22):
                pass
    time.sleep(SETTLE)


def backends():
    """The server's processes."""
    with open(os.path.join(DATA, "postmaster.pid")) as file:
        postmaster = file.readline().strip()
    with open("/proc/%s/task/%s/children" % (postmaster, postmaster)) as file:
        return set(file.read().split())


def private_bytes(pid):
    """Anonymous memory of a process; 0 where it has gone. Shared buffers do not count."""
    try:
        with open("/proc/%s/status" % pid) as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


class PeakMemory:
    """Samples, every 10 ms, the private memory of every backend that is not among the known ones, workers included."""

    def __init__(self, known):
        self.known, self.peak, self.ended = known, 0, threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)

    def sample(self):
        while not self.ended.is_set():
            self.peak = max(self.peak, sum(private_bytes(pid) for pid in backends() - self.known))
            self.ended.wait(0.01)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


class Piece:
    """What one measured piece cost: seconds by step, WAL, blocks, peak of private memory; and the rows that each step answered."""

    def __init__(self, steps, answers, wal=None, memory=None, blocks=None):
        self.seconds = sum(steps.values())
        self.steps, self.answers, self.wal, self.memory, self.blocks = steps, answers, wal, memory, blocks


# What this session has counted reaches the views with the next transaction's end only if it is asked for.
FLUSH = "SELECT pg_stat_force_next_flush()"
BLOCKS = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"


def measure(database, steps):
    """Runs named statements, one after another, in a new session of that database."""
    known = backends()
    with Session(database) as session:
        lsn = session.value("SELECT pg_current_wal_insert_lsn()")
        session.run(FLUSH)
        blocks = int(session.value(BLOCKS))
        with PeakMemory(known) as memory:
            taken, answers = {}, {}
            for name, sql in steps:
                began = time.perf_counter()
                answers[name] = session.run(sql)
                taken[name] = time.perf_counter() - began
        wal = int(session.value("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '%s')::bigint" % lsn))
        session.run(FLUSH)
        blocks = int(session.value(BLOCKS)) - blocks
    return Piece(taken, answers, wal, memory.peak, blocks)


def generate(name, **options):
    """A log of dwh.generate_events() in the files' directory; returns its path."""
    path = os.path.join(FILES, name)
    arguments = "".join(", %s => %s" % option for option in options.items())
    with Session("bench_empty") as session:
        session.run("SELECT dwh.generate_events(%s%s)" % (literal(path), arguments))
    return path


def make_empty_warehouse():
    """The template of every measured database: the extension and an empty warehouse."""
    drop_database("bench_empty")
    query("CREATE DATABASE bench_empty")
    query("CREATE EXTENSION dwh_ext; SELECT dwh.create_warehouse()", "bench_empty")


def takes_workers(verb):
    """Whether a function of dwh has the argument workers."""
    return query("SELECT coalesce(bool_or('workers' = ANY (p.proargnames)), false) FROM pg_proc AS p"
                 " WHERE p.pronamespace = 'dwh'::regnamespace AND p.proname = %s" % literal(verb), "bench_empty")[0][0] == "t"
