"""The whole way from a file to checked marts, by four systems: the subjects of the cases pipeline, increment, growth, checks, late.

A system knows how to begin empty, to go back to a kept history, to take one batch, and to say what its marts hold.
"""
import functools
import json
import os
import re
import shutil
import subprocess

import server
from rounds import Outcome
from server import SqlError, literal

HERE = os.path.dirname(os.path.abspath(__file__))

# One line of text for each fact, version and product, the same in every system, and a sum over the first 60 bits of its MD5.
# Ids that were computed are left out: each system has its own way to make them (a version 5 UUID tells).
DIGEST = "SELECT count(*), coalesce(sum(('x' || left(md5(concat_ws('|', %s)), 15))::bit(60)::bigint::numeric), 0) FROM %s"
MICROS = "(extract(epoch FROM %s) * 1000000)::bigint"
CENTS = "(%s * 100)::bigint"


def digest(source, *columns):
    return DIGEST % (", ".join("coalesce((%s)::text, '')" % column for column in columns), source)


def marts_state(database, fact, users, products, is_product):
    state = []
    for sql in (
            digest("%s AS f JOIN %s AS u USING (user_key) LEFT JOIN %s AS p ON p.product_key = f.product_key" % (fact, users, products),
                   "CASE WHEN substr(f.event_id::text, 15, 1) <> '5' THEN f.event_id END", MICROS % "f.event_time", "f.event_type", "f.session_id",
                   "f.quantity", CENTS % "f.price", CENTS % "f.revenue", "u.user_id", MICROS % "u.valid_from", "p.product_id"),
            digest(users, "user_id", "device", "country", MICROS % "valid_from", MICROS % "valid_to"),
            digest(products + " WHERE " + is_product, "product_id", "category", "brand", CENTS % "price")):
        state += server.query(sql, database)[0]
    return tuple(state)


class Warehouse:
    """dwh.run_pipeline(): one transaction, the checks included."""

    def __init__(self, workers=1, kind=""):
        self.workers = workers
        self.name = "dwh, %d worker%s%s" % (workers, "s" * (workers > 1), kind and ", " + kind)
        self.database = "bench_dwh_%d%s" % (workers, re.sub(r"\W+", "_", kind))

    def begin(self):
        server.new_database(self.database, "bench_empty")

    def keep(self):
        server.query("VACUUM ANALYZE", self.database)
        server.new_database(self.database + "_kept", self.database)

    def go_back(self):
        server.new_database(self.database, self.database + "_kept")

    def forget(self):
        server.drop_database(self.database)
        server.drop_database(self.database + "_kept")

    def take(self, path, batch):
        workers = ", workers => %d" % self.workers if self.workers > 1 else ""
        piece = server.measure(self.database, [
            ("run", "SELECT step, extract(epoch FROM elapsed) FROM dwh.run_pipeline(%s%s)" % (literal(path), workers))])
        return piece, {step: float(seconds) for step, seconds in piece.answers["run"]}

    def check(self, full):
        """The checks alone, of the last load or of everything; False where one fails."""
        which = '"full" => true' if full else "(SELECT max(load_id) FROM ops.loads)"
        piece = server.measure(self.database, [("checks", "SELECT status FROM dwh.run_quality_checks(%s)" % which)])
        return piece, all(status == "pass" for status, in piece.answers["checks"])

    def state(self):
        return marts_state(self.database, "marts.fact_user_events", "marts.dim_user", "marts.dim_product", "product_key <> 0")

    def bytes(self):
        return server.database_bytes(self.database) - server.database_bytes("bench_empty")


class Seed(Warehouse):
    """The user's design in plain SQL: bench/seed, one statement a step, each committed."""

    def __init__(self):
        self.name, self.database = "seed", "bench_seed"
        with open(os.path.join(HERE, "seed", "batch.sql")) as file:
            parts = re.split(r"^-- step (\w+)\n", file.read(), flags=re.M)
        self.steps = list(zip(parts[1::2], parts[2::2]))

    def begin(self):
        server.new_database(self.database, "bench_empty")
        with open(os.path.join(HERE, "seed", "tables.sql")) as file:
            server.query(file.read(), self.database)

    def take(self, path, batch):
        variables = "\\set file %s\n\\set batch %d\n" % (literal(path), batch)
        piece = server.measure(self.database, [(name, variables + sql) for name, sql in self.steps])
        return piece, piece.steps

    def check(self, full):
        """It has but one way: all of it."""
        piece = server.measure(self.database, [self.steps[-1]])
        return piece, [row[0] for row in piece.answers["checks"]] == ["0", "t", "0", "0"]

    def state(self):
        return marts_state(self.database, "seed.fact_user_events", "seed.dim_user", "seed.dim_product", "true")


class Peer:
    """Another system, in a process of its own that measures itself (bench/peers)."""

    def __init__(self, name, script, flavour):
        self.name, self.script, self.flavour = name, script, flavour
        self.place = os.path.join(os.path.dirname(server.FILES), "peer_%s_%s" % (script, flavour))
        self.answer = None

    def clear(self, place):
        for path in (place, place + ".wal"):
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)

    def copy(self, source, target):
        self.clear(target)
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy(source, target)

    def begin(self):
        self.clear(self.place)

    def keep(self):
        self.copy(self.place, self.place + "_kept")

    def go_back(self):
        self.copy(self.place + "_kept", self.place)

    def forget(self):
        self.clear(self.place)
        self.clear(self.place + "_kept")

    def take(self, path, batch):
        command = [os.environ["BENCH_PYTHON"], os.path.join(HERE, "peers", self.script + ".py"), self.place, self.flavour, str(batch), path]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SqlError("ERROR: " + (done.stderr.strip().splitlines() or ["ended with %d" % done.returncode])[-1])
        self.answer = json.loads(done.stdout.splitlines()[-1])
        return server.Piece(self.answer["steps"], {}), self.answer["steps"]

    def state(self):
        return tuple(self.answer["state"])

    def bytes(self):
        if not os.path.isdir(self.place):
            return os.path.getsize(self.place) if os.path.exists(self.place) else 0
        return sum(os.lstat(os.path.join(root, file)).st_blocks * 512 for root, _, files in os.walk(self.place) for file in files)


def systems(peers=True):
    """The warehouse first: what the others' end states are compared with is made by it."""
    found = [Warehouse()] + [Warehouse(2)] * server.takes_workers("run_pipeline") + [Seed()]
    if peers:
        found += [Peer("DuckDB, keys enforced", "duckdb_peer", "keys"), Peer("DuckDB, no keys", "duckdb_peer", "nokeys"),
                  Peer("ClickHouse engine", "chdb_peer", "nokeys")]
    return found


def measure(system, place, path, batch):
    """One outcome: place is what brings the system into the state before (begin, go_back, or nothing)."""
    place()
    server.settle(path)
    before = system.bytes()
    piece, steps = system.take(path, batch)
    return Outcome(piece.seconds, system.state(), steps, piece.wal, piece.memory, system.bytes() - before, piece.blocks)


def measured(system, place, path, batch):
    return functools.partial(measure, system, place, path, batch)


def measure_checks(system, full):
    system.go_back()
    server.settle()
    piece, passed = system.check(full)
    return Outcome(piece.seconds, ("all checks pass" if passed else "a check fails",), piece.steps)


def prepare_history(system, *paths):
    """Loads files one after another, untimed, and keeps the result to go back to."""
    system.begin()
    for batch, path in enumerate(paths, 1):
        system.take(path, batch)
    system.keep()
