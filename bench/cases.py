"""The cases that go from file to marts, and their tables."""
import functools
import os

import load
import server
from pipeline import Warehouse, Seed, measure_checks, measured, prepare_history, systems
from report import count, median, median_range, megabytes, ratio
from rounds import Outcome, Subject, interleave

HEAD = ["subject", "s, median (min-max)", "events/s", "vs seed", "vs COPY", "WAL B/event", "stored B/event", "private MB", "end state"]


def row(subject, events, seed, copy=None):
    taken = median(subject.seconds())
    per_event = lambda of: count(median(subject.values(of)) / events) if subject.values(of) else ""
    return [subject.name, median_range(subject.seconds()), count(events / taken) if taken else "", ratio(median(seed.seconds()), taken),
            ratio(median(copy.seconds()), taken) if copy else "", per_event(lambda o: o.wal), per_event(lambda o: o.heap),
            megabytes(max(subject.values(lambda o: o.memory), default=None)), subject.verdict()]


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

    chosen: pairs of a system and its files (split). All are prepared first, and share one log or each have their own.
    """
    expected = {paths[0]: truth(paths[0]) for paths in {tuple(paths) for _, paths in chosen}}
    for system, paths in chosen:
        prepare_history(system, paths[1])
    first = [Subject(s.name, about, measured(s, s.go_back, paths[2], 2), expected[paths[0]]) for s, paths in chosen]
    second = [Subject(s.name, about + ", again", measured(s, lambda: None, paths[2], 3), expected[paths[0]]) for s, paths in chosen] if again else []
    interleave([subject for pair in zip(first, second) for subject in pair] if again else first, rounds)
    for system, _ in chosen:
        system.forget()
    for path in {path for _, paths in chosen for path in paths}:
        os.remove(path)
    return first, second


def increment(report, events, rounds):
    batch = events // 2
    report.add("## Increment: %s events on %s" % (count(batch), count(events)), "",
               "Each round goes back to a copy of the same history.")
    paths = split("increment", events, batch)
    first, second = grown([(system, paths) for system in systems()], rounds, "increment", again=True)
    tell(report, first, batch)
    report.add("The same file again:")
    tell(report, second, batch)


def growth(report, events, rounds, large):
    batch = events // 2
    report.add("## Growth: the same %s events on histories of several sizes" % count(batch), "",
               "`of the first`: time divided by the time on the smallest history.")
    rows, base = [], {}
    for history in [events // 2, events, 5 * events] + ([10 * events] if large else []):
        paths = split("growth", history, batch)
        first, _ = grown([(system, paths) for system in systems(peers=False)], rounds, "on %s" % count(history))
        seed = first[-1]
        for subject in first:
            taken = median(subject.seconds())
            base.setdefault(subject.name, taken)
            wal = subject.values(lambda o: o.wal)
            rows.append([count(history), subject.name, median_range(subject.seconds()), ratio(taken, base[subject.name]),
                         ratio(median(seed.seconds()), taken), count(median(wal) / batch) if wal else "", subject.verdict()])
    report.table(["history", "subject", "s, median (min-max)", "of the first", "vs seed", "WAL B/event", "end state"], rows)


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
    for path in paths:
        os.remove(path)


def late(report, events, rounds):
    batch = events // 2
    report.add("## Late: %s events on %s, 10 %% of them older than what is there" % (count(batch), count(events)), "",
               "`in order` is the same batch without late events, for comparison. The seed's design has no answer to late events: its end"
               " state is expected to differ, so it has no time.")
    shuffled, sorted_ = split("late", events, batch, late=batch // 10), split("in_order", events, batch)
    chosen = [(Warehouse(kind="in order"), sorted_)] + [(system, shuffled) for system in systems(peers=False)]
    first, _ = grown(chosen, rounds, "late")
    tell(report, first, batch)
    for subject in first[1:-1]:
        if subject.seconds():
            report.add("- %s: 10 %% late takes %s of in order with one worker." % (
                subject.name, ratio(median(subject.seconds()), median(first[0].seconds()))))
