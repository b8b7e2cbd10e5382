"""The measurements as a table, and docs/benchmarks.md with the date and the machine."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from statistics import median

from benchmarks.measure import Figures, Load

Row = tuple[Load, Figures, Figures]

BEGIN = "<!-- begin: written by `make bench` -->"
END = "<!-- end -->"
HEADER = (
    "| test | pipeline | kvserver ops/s | redis-server ops/s | ratio "
    "| CPU us/op | redis CPU us/op | p50 ms | p99 ms | redis p50 | redis p99 |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def combine(samples: list[Figures]) -> Figures:
    """The median of each figure."""
    return Figures(*(median(column) for column in zip(*samples, strict=True)))


def line(row: Row) -> str:
    """One row of the table."""
    load, ours, theirs = row
    return (
        f"| {load.test.upper()} | {load.pipeline} | {ours.rate:,.0f} | {theirs.rate:,.0f} "
        f"| **{ours.rate / theirs.rate:.2f}** | {ours.cpu:.1f} | {theirs.cpu:.1f} "
        f"| {ours.p50:.2f} | {ours.p99:.2f} | {theirs.p50:.2f} | {theirs.p99:.2f} |"
    )


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


def section(title: str, rows: list[Row]) -> str:
    """A heading and its table."""
    return f"### {title}\n\n{HEADER}\n" + "\n".join(map(line, rows)) + "\n"


def write(path: Path, sections: list[str]) -> None:
    """Replace what stands between the markers in docs/benchmarks.md."""
    text = path.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    today = datetime.date.today().isoformat()
    body = f"{BEGIN}\n\nMeasured on {today}: {machine()}.\n\n" + "\n".join(sections)
    path.write_text(f"{head}{body}\n{END}{tail}")
