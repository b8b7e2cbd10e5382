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


def _redis_benchmark(port: int, load: Load) -> dict[str, str]:
    command = ["redis-benchmark", "-p", str(port), "--csv", "-t", load.test]
    command += ["-n", str(load.requests), "-P", str(load.pipeline), "-c", str(load.clients)]
    command += ["-d", str(load.value_bytes), "-r", str(load.keys)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line for line in run.stdout.splitlines() if line.startswith('"')]
    return next(csv.DictReader(lines))
