"""Subjects side by side: round by round every subject once, so that a slow spell of the machine meets them all."""
import sys

from server import SqlError


class Subject:
    """What is measured: a name, the input it is about, and a function that measures it once.

    The function returns an Outcome; SqlError becomes the subject's verdict.
    """

    def __init__(self, name, about, measure, expects=None):
        self.name, self.about, self.measure = name, about, measure
        self.expects = expects      # the subject whose end state this one must have; None = it is the reference itself
        self.outcomes, self.failure = [], None

    def values(self, of):
        """One figure of every outcome, those left out that do not have it."""
        return [value for value in map(of, self.outcomes) if value is not None]

    def seconds(self):
        return self.values(lambda outcome: outcome.seconds) if self.verdict() in ("same", "reference") else []

    def state(self):
        """The end state that every round had, or None."""
        states = {outcome.state for outcome in self.outcomes}
        return states.pop() if len(states) == 1 else None

    def verdict(self):
        """same, reference, or what is wrong. A subject with another end state has no time."""
        if self.failure:
            return self.failure
        if not self.outcomes:
            return "not run"
        if self.state() is None:
            return "WRONG: differs from round to round"
        if self.expects is None:
            return "reference"
        if self.expects.state() is None:
            return "nothing to compare with"
        return "same" if self.state() == self.expects.state() else \
            "WRONG: %s, not %s" % (" / ".join(self.state()), " / ".join(self.expects.state()))


class Outcome:
    """One measurement: seconds, a comparable end state (a tuple of texts), and what else was seen."""

    def __init__(self, seconds, state, steps=None, wal=None, memory=None, heap=None, blocks=None):
        self.seconds, self.state, self.steps = seconds, state, steps or {}
        self.wal, self.memory, self.heap, self.blocks = wal, memory, heap, blocks


def interleave(subjects, rounds):
    """Measures all subjects, round by round. One that failed is not tried again."""
    for number in range(1, rounds + 1):
        for subject in subjects:
            if subject.failure:
                continue
            try:
                outcome = subject.measure()
            except SqlError as error:
                lines = [line for line in str(error).splitlines() if "ERROR" in line or "CONTEXT" in line] or ["failed"]
                subject.failure = "stops: " + "; ".join(lines).replace("|", " ").encode("ascii", "ignore").decode()[:160]
                print("   round %d: %s, %s: %s" % (number, subject.name, subject.about, subject.failure), file=sys.stderr, flush=True)
                continue
            subject.outcomes.append(outcome)
            print("   round %d: %s, %s: %.2f s" % (number, subject.name, subject.about, outcome.seconds), file=sys.stderr, flush=True)
