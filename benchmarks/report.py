"""The measurements as tables, and docs/benchmarks.md with the date and the machine."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.measure import READS, Figures, Load

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
#: Where the pages of docs/ keep plots and what was measured for them.
DATA = DOCUMENT.with_suffix("")

COLUMNS = (
    "kvserver ops/s | redis-server ops/s | ratio "
    "| CPU us/op | redis CPU us/op | p50 ms | p99 ms | redis p50 | redis p99 |"
)
HEADER = f"| test | pipeline | {COLUMNS}\n" + "|---" * 11 + "|"
SUMMARY = "| goal | rows | reached | not reached |\n|---|---|---|---|"


class Row(NamedTuple):
    """One load on both servers."""

    load: Load
    ours: Figures
    theirs: Figures

    @property
    def ratio(self) -> float:
        """Our throughput by theirs."""
        return self.ours.rate / self.theirs.rate


class Goal(NamedTuple):
    """What the rows of one kind are to reach."""

    fsync: str
    pipeline: int
    reads: bool
    ratio: float

    def covers(self, fsync: str, load: Load) -> bool:
        """Whether the load is of this kind."""
        kind = (fsync, load.pipeline, load.test in READS)
        return kind == (self.fsync, self.pipeline, self.reads)

    @property
    def title(self) -> str:
        kind = "reads" if self.reads else "writes"
        return f"`{self.fsync}`, pipeline {self.pipeline}, {kind}: {self.ratio}"


#: With everysec nothing may be below `FLOOR`, whatever the pipeline.
FLOOR = 0.5
GOALS = (
    Goal("everysec", 1, True, 1.0),
    Goal("everysec", 1, False, 0.9),
    Goal("everysec", 16, True, 1.0),
    Goal("everysec", 16, False, 0.7),
    Goal("always", 1, False, 1.3),
    Goal("always", 16, False, 0.7),
)


def combine(samples: list[Figures]) -> Figures:
    """The median of each figure."""
    return Figures(*(median(column) for column in zip(*samples, strict=True)))


def cells(row: Row) -> str:
    """The columns of `COLUMNS`."""
    ours, theirs = row.ours, row.theirs
    return (
        f"{ours.rate:,.0f} | {theirs.rate:,.0f} "
        f"| **{row.ratio:.2f}** | {ours.cpu:.1f} | {theirs.cpu:.1f} "
        f"| {ours.p50:.2f} | {ours.p99:.2f} | {theirs.p50:.2f} | {theirs.p99:.2f} |"
    )


def line(row: Row) -> str:
    """One row of the table."""
    return f"| {row.load.test.upper()} | {row.load.pipeline} | {cells(row)}"


def summary(rows: list[tuple[str, Row]]) -> str:
    """How many rows reach each goal, and which don't: a table. Rows come with their appendfsync."""
    kinds = [
        (goal.title, [row for fsync, row in rows if goal.covers(fsync, row.load)], goal.ratio)
        for goal in GOALS
    ]
    everysec = [row for fsync, row in rows if fsync == "everysec"]
    kinds.append((f"`everysec`, every row: {FLOOR}", everysec, FLOOR))
    return "\n".join([SUMMARY, *(_goal_line(*kind) for kind in kinds if kind[1])]) + "\n"


def _goal_line(title: str, rows: list[Row], ratio: float) -> str:
    # A ratio counts as it is printed.
    missed = [row for row in rows if round(row.ratio, 2) < ratio]
    named = ", ".join(f"{r.load.test.upper()} {r.load.pipeline}: {r.ratio:.2f}" for r in missed)
    return f"| {title} | {len(rows)} | {len(rows) - len(missed)} | {named} |"


def machine() -> str:
    """The machine in one line."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    name = model[1] if model else platform.machine()
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    version = re.search(r"v=(\S+)", redis)
    return (
        f"{os.cpu_count()} x {name}, Linux {platform.release()}, "
        f"CPython {platform.python_version()}, redis-server {version[1] if version else '?'}"
    )


def measured() -> str:
    """The day and the machine, as a sentence."""
    return f"Measured on {datetime.date.today().isoformat()}: {machine()}."


def section(title: str, rows: list[Row]) -> str:
    """A heading and its table."""
    return f"### {title}\n\n{HEADER}\n" + "\n".join(map(line, rows)) + "\n"


def replaced(text: str, name: str, body: str) -> str:
    """The page with another body between the markers of this name."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no place for {name}")
    return f"{head}{begin}\n\n{body.strip()}\n\n{end}{tail}"


def write(name: str, body: str) -> None:
    """Put this into docs/benchmarks.md, at the markers of this name."""
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(), name, body))
