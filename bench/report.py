"""Medians, ratios, and the report in Markdown."""
import os
import statistics


def median_range(values, digits=2):
    if not values:
        return ""
    low, mid, high = min(values), statistics.median(values), max(values)
    return "%.*f (%.*f-%.*f)" % (digits, mid, digits, low, digits, high)


def median(values):
    return statistics.median(values) if values else None


def ratio(value, reference, digits=2):
    return "" if not value or not reference else "%.*f" % (digits, value / reference)


def count(value):
    return "" if value is None else format(round(value), ",")


def megabytes(value):
    return "" if value is None else "%.0f" % (value / 1e6)


class Report:
    """Lines of Markdown: shown as they come, written whole at the end."""

    def __init__(self):
        self.lines = []

    def add(self, *lines):
        for line in lines:
            self.lines.append(line)
            print(line, flush=True)

    def table(self, head, rows):
        self.add("", "| " + " | ".join(head) + " |", "|" + "---|" * len(head))
        self.add(*("| " + " | ".join(row) + " |" for row in rows))
        self.add("")

    def write(self, path):
        with open(path, "w") as file:
            file.write("\n".join(self.lines) + "\n")


def machine():
    """What a reader needs to judge the figures, and nothing that names the machine."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 1048576
    return "%s, %d cores, %.0f GiB, Linux %s" % (models[0] if models else os.uname().machine, os.cpu_count(), memory,
                                               os.uname().release.split("-")[0])
