"""The cases that go from file to marts, and their tables."""
import functools
import os
import shutil

import load
import server
from pipeline import Warehouse, Seed, measure_checks, measured, prepare_history, systems
from report import count, median, median_range, megabytes, ratio
from rounds import Outcome, Subject, interleave

HEAD = ["subject", "s, median (min-max)", "events/s", "vs seed", "vs COPY", "WAL B/event", "blocks/event", "stored B/event", "private MB",
        "end state"]


def row(subject, events, seed, copy=None):
    taken = median(subject.seconds())
    per_event = lambda of, digits=0: ratio(median(subject.values(of)), events, digits)
    return [subject.name, median_range(subject.seconds()), count(events / taken) if taken else "", ratio(median(seed.seconds()), taken),
            ratio(median(copy.seconds()), taken) if copy else "", per_event(lambda o: o.wal), per_event(lambda o: o.blocks, 1),
            per_event(lambda o: o.heap), megabytes(max(subject.values(lambda o: o.memory), default=None)), subject.verdict()]


def steps_of(report, subjects):
    for subject in subjects:
        names = list(subject.outcomes[0].steps) if subject.outcomes else []
        if names:
            report.add("- %s: %s" % (subject.name, ", ".join(
                "%s %.2f" % (name, median([outcome.steps[name] for outcome in subject.outcomes])) for name in names)))


def tell(report, subjects, events, copy=None):
    """The table of subjects that did the same work; the seed is among them."""
    seed = next(subject for subject in subjects if subject.name == "seed")
    rows = [row(subject, events, seed, copy) for subject in ([copy] if copy else []) + subjects]
    shown = [column for column in range(len(HEAD)) if any(cells[column] for cells in rows)]
    report.table([HEAD[column] for column in shown], [[cells[column] for column in shown] for cells in rows])
    report.add("Seconds by step, medians:", "")
    steps_of(report, subjects)
    report.add("")


def compared(subjects):
    """All of them must end as the first does."""
    for subject in subjects[1:]:
        subject.expects = subjects[0]
    return subjects


def pipeline(report, events, rounds):
    report.add("## Pipeline: %s events from a file to checked marts, first load" % count(events), "")
    path = server.generate("pipeline.jsonl", events=events, users=max(events // 20, 100), products=2000)
    all_systems = systems()
    subjects = compared([Subject(s.name, "first load", measured(s, s.begin, path, 1)) for s in all_systems])
    copy = Subject("COPY into jsonb, nothing else", "first load", functools.partial(load.copy_lines, path, "jsonb"))
    interleave([copy] + subjects, rounds)
    tell(report, subjects, events, copy)
    for system in all_systems:
        system.forget()
    os.remove(path)


def split(name, history, batch, late=0):
    """A log of both as three files: all, history, and the batch, of which that many events lie in the history's time."""
    path = server.generate(name + ".jsonl", events=history + batch, users=max(history // 20, 100), products=2000)
    parts = [os.path.join(server.FILES, "%s_%s.jsonl" % (name, part)) for part in ("history", "batch")]
    every = history // late if late else 0
    with open(path, "rb") as lines, open(parts[0], "wb") as old, open(parts[1], "wb") as new:
        kept = []
        for number, line in enumerate(lines):
            if number < history + late and not (every and number % every == every // 2 and len(kept) < late):
                old.write(line)
            elif number < history + late:
                kept.append(line)
            else:
                new.write(line)
        new.writelines(kept)
    for part in parts:
        os.chmod(part, 0o644)
    return (path, *parts)


def joined(name, *paths):
    """Files one after another as one."""
    whole = os.path.join(server.FILES, name)
    with open(whole, "wb") as out:
        for path in paths:
            with open(path, "rb") as part:
                shutil.copyfileobj(part, out, 1 << 22)
    os.chmod(whole, 0o644)
    return whole


def truth(path):
    """What the marts must hold after history and batch: one clean load of all."""
    whole = Warehouse()
    whole.begin()
    whole.take(path, 1)
    expected = Subject("one load of all", "", None)
    expected.outcomes.append(Outcome(0, whole.state()))
    whole.forget()
    return expected


def grown(chosen, rounds, about, again=False):
    """Measures each system's batch on its history, and where asked the same batch once more; returns both lists of subjects.

    chosen: pairs of a system and its files: all of it in one, one or more of the history, and the batch. All are prepared
    first, and share one log or each have their own.
    """
    expected = {whole: truth(whole) for whole in {paths[0] for _, paths in chosen}}
    for system, paths in chosen:
        prepare_history(system, *paths[1:-1])
    first = [Subject(s.name, about, measured(s, s.go_back, paths[-1], len(paths) - 1), expected[paths[0]]) for s, paths in chosen]
    second = [Subject(s.name, about + ", again", measured(s, lambda: None, paths[-1], len(paths)), expected[paths[0]])
              for s, paths in chosen] if again else []
    interleave([subject for pair in zip(first, second) for subject in pair] if again else first, rounds)
    for system, _ in chosen:
        system.forget()
    return first, second


def remove(*paths):
    for path in set(paths):
        os.remove(path)


def increment(report, events, rounds):
    batch = events // 2
    report.add("## Increment: %s events on %s" % (count(batch), count(events)), "",
               "Each round goes back to a copy of the same history.")
    paths = split("increment", events, batch)
    first, second = grown([(system, paths) for system in systems()], rounds, "increment", again=True)
    tell(report, first, batch)
    report.add("The same file again:")
    tell(report, second, batch)
    remove(*paths)


def growth_row(history, subject, smallest, batch):
    """The figures of a batch on a history, and divided by those on the smallest one."""
    figures = [lambda o: o.seconds, lambda o: o.wal, lambda o: o.blocks]
    taken, wal, blocks = [median(subject.values(of)) if subject.seconds() else None for of in figures]
    base = [median(smallest.values(of)) for of in figures]
    return [count(history), median_range(subject.seconds()), ratio(taken, base[0]), ratio(wal, batch, 0), ratio(wal, base[1]),
            ratio(blocks, batch, 1), ratio(blocks, base[2]), subject.verdict()]


def growth_steps(report, table):
    """What becomes of each step."""
    first = table[0][1].outcomes
    names = list(first[0].steps) if first else []
    rows = []
    for history, subject in table:
        steps = [(median([o.steps[name] for o in subject.outcomes]), median([o.steps[name] for o in first])) for name in names if subject.outcomes]
        rows.append([count(history)] + ["%.2f (%s)" % (taken, ratio(taken, base)) for taken, base in steps])
    report.add("Seconds by step, and how many times those on the smallest history:")
    report.table(["history"] + names, rows)


def growth(report, events, rounds, large):
    """The history becomes longer, not denser: months of N/2 events of the same users, and the batch is the month after them."""
    batch, users = events // 2, max(events // 20, 100)
    report.add("## Growth: the same %s events on histories of several sizes" % count(batch), "",
               "A month is %s events of %s users, a file, and a load; a history is one or more of them, and the batch is the next one."
               " `of the first`: divided by what it is on the smallest history." % (count(batch), count(users)), "")

    def month(back):
        """The month that lies so many before the batch; of its 30 days one is quiet, so that no session reaches into the next."""
        return server.generate("growth_%d.jsonl" % back, events=batch, users=users, products=2000, days=29, seed=1 + back,
                               start_at="timestamptz '2025-01-01Z' - %d * interval '30 days'" % back)

    months, table = [month(0)], []
    for history in [events // 2, events, 5 * events] + ([10 * events] if large else []):
        while (len(months) - 1) * batch < history:
            months.insert(0, month(len(months)))
        whole = joined("growth.jsonl", *months)
        first, _ = grown([(Warehouse(), (whole, *months))], rounds, "on %s" % count(history))
        table.append((history, first[0]))
        remove(whole)
    report.table(["history", "s, median (min-max)", "of the first", "WAL B/event", "of the first", "blocks/event", "of the first", "end state"],
                 [growth_row(history, subject, table[0][1], batch) for history, subject in table])
    growth_steps(report, table)
    remove(*months)


def checks(report, events, rounds):
    batch = events // 2
    report.add("## Checks alone: %s events on %s" % (count(batch), count(events)), "",
               "The seed's four look at everything whatever the batch; the warehouse's are those in ops.quality_checks.")
    paths = split("checks", events, batch)
    ours, seed = Warehouse(), Seed()
    for system in (ours, seed):
        prepare_history(system, *paths[1:])
    subjects = [Subject("dwh, last load", "checks", functools.partial(measure_checks, ours, False)),
                Subject("dwh, everything", "checks", functools.partial(measure_checks, ours, True)),
                Subject("seed", "checks", functools.partial(measure_checks, seed, True))]
    interleave(compared(subjects), rounds)
    report.table(["subject", "s, median (min-max)", "vs seed", "verdicts"],
                 [[s.name, median_range(s.seconds(), 3), ratio(median(subjects[-1].seconds()), median(s.seconds())),
                   s.verdict() if s.state() is None else s.state()[0]] for s in subjects])
    for system in (ours, seed):
        system.forget()
    remove(*paths)


def late(report, events, rounds):
    batch = events // 2
    report.add("## Late: %s events on %s, 1 %% and 10 %% of them older than what is there" % (count(batch), count(events)), "",
               "`in order` is the same batch without late events. The late ones lie anywhere in the history, and come last. The seed's design has"
               " no answer to them: it is there in order, to compare times with.")
    kinds = [("in order", 0), ("1 % late", batch // 100), ("10 % late", batch // 10)]
    logs = [split("late_%d" % number, events, batch, late) for number, (_, late) in enumerate(kinds)]
    chosen = [(Warehouse(kind=kind), paths) for (kind, _), paths in zip(kinds, logs)] + [(Seed(), logs[0])]
    first, _ = grown(chosen, rounds, "late")
    tell(report, first, batch)
    for subject in first[1:-1]:
        if subject.seconds():
            report.add("- %s takes %s of in order." % (subject.name, ratio(median(subject.seconds()), median(first[0].seconds()))))
    report.add("")
    remove(*(path for paths in logs for path in paths))
