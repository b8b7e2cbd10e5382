"""One measurement: redis-benchmark against a running server, with the server's CPU time.

It must not know which server it measures. redis-benchmark and the server share the machine,
so absolute figures say little; ratios of two servers measured in turn, and CPU per
operation, do.
"""

from __future__ import annotations

import csv
import os
import subprocess
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
#: Loads that redis-benchmark has no test for, or whose test would fill the list each time.
COMMANDS = {
    **{f"lrange_{n}": ["LRANGE", "mylist", "0", str(n - 1)] for n in (100, 300, 500, 600)},
    "xadd": ["XADD", "mystream", "*", "field", "__rand_int__"],
}
#: What must be there for a test to do any work: (the test that fills it, how often). Pops take
#: what they need.
FILLED_BY = {
    "rpop": ("lpush", None),
    "spop": ("sadd", None),
    "zpopmin": ("zadd", None),
    **{f"lrange_{n}": ("lpush", 1000) for n in (100, 300, 500, 600)},
}


class Load(NamedTuple):
    """What redis-benchmark is to do."""

    test: str
    pipeline: int
    requests: int
    clients: int = 50
    value_bytes: int = 64
    keys: int = 100_000


class Figures(NamedTuple):
    """Operations a second, latency in ms, server CPU (all threads) per operation in us."""

    rate: float
    p50: float
    p99: float
    cpu: float


def cpu_seconds(pid: int) -> float:
    """CPU time used by a process, user and system, all threads (proc(5), /proc/pid/stat)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(port: int, pid: int, load: Load) -> Figures:
    """Run redis-benchmark once."""
    before = cpu_seconds(pid)
    row = _redis_benchmark(port, load)
    spent = cpu_seconds(pid) - before
    return Figures(
        float(row["rps"]),
        float(row["p50_latency_ms"]),
        float(row["p99_latency_ms"]),
        spent / load.requests * 1e6,
    )


def prepare(port: int, load: Load) -> None:
    """Fill what the load reads or pops from; not measured."""
    if load.test in FILLED_BY:
        filler, times = FILLED_BY[load.test]
        _redis_benchmark(port, load._replace(test=filler, requests=times or load.requests))


def _redis_benchmark(port: int, load: Load) -> dict[str, str]:
    command = ["redis-benchmark", "-p", str(port), "--csv"]
    command += ["-n", str(load.requests), "-P", str(load.pipeline), "-c", str(load.clients)]
    command += ["-d", str(load.value_bytes), "-r", str(load.keys)]
    command += COMMANDS.get(load.test) or ["-t", load.test]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line for line in run.stdout.splitlines() if line.startswith('"')]
    return next(csv.DictReader(lines))
