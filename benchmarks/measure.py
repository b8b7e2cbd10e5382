"""One measurement: a load on a running server, with the server's CPU time.

The load comes from redis-benchmark, or from `generator` where redis-benchmark can't make it. It
must not know which server it measures. Load and server share the machine, so absolute figures say
little; ratios of two servers measured in turn, and CPU per operation, do.
"""

from __future__ import annotations

import csv
import os
import subprocess
import time
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from benchmarks import workload
from benchmarks.admin import ask
from benchmarks.generator import drive

TICKS = os.sysconf("SC_CLK_TCK")
TIMEOUT_SECONDS = 300
TRIAL_REQUESTS = 2000
TRIAL_BYTES = 64 << 20
_LRANGES = (100, 300, 500, 600)
#: The tests of redis-benchmark, in its order, and what the issue of speed is about besides.
TESTS = (
    *("ping_inline", "ping_mbulk", "set", "get", "mixed", "incr", "mset"),
    *("lpush", "rpush", "lpop", "rpop", "sadd", "spop", "hset", "zadd", "zpopmin", "xadd"),
    *(f"lrange_{n}" for n in _LRANGES),
)
READS = {"ping_inline", "ping_mbulk", "get", *(f"lrange_{n}" for n in _LRANGES)}
#: Loads that redis-benchmark has no test for, or whose test would fill the list each time.
COMMANDS = {
    **{f"lrange_{n}": ["LRANGE", "mylist", "0", str(n - 1)] for n in _LRANGES},
    "xadd": ["XADD", "mystream", "*", "field", "__rand_int__"],
}
#: The collection that a test works on.
COLLECTIONS = {
    **dict.fromkeys(("lpush", "rpush", "lpop", "rpop"), "mylist"),
    **{f"lrange_{n}": "mylist" for n in _LRANGES},
    "sadd": "myset",
    "spop": "myset",
    "hset": "myhash",
    "zadd": "myzset",
    "zpopmin": "myzset",
    "xadd": "mystream",
}
#: What must be in it: (the command that adds an element, how many). Pops take what they need.
FILLED_BY = {
    "lpop": ("lpush", None),
    "rpop": ("lpush", None),
    "spop": ("sadd", None),
    "zpopmin": ("zadd", None),
    **{f"lrange_{n}": ("lpush", 1000) for n in _LRANGES},
}


class Load(NamedTuple):
    """What is to be done; `wait` puts WAIT behind writes (`workload`)."""

    test: str
    pipeline: int
    requests: int
    clients: int = 50
    value_bytes: int = 64
    keys: int = 100_000
    wait: str = ""
    generated: bool = False

    @property
    def in_flight(self) -> int:
        """How many requests are under way at once."""
        return self.pipeline * self.clients

    @property
    def mark(self) -> str:
        """A key that says that its other keys are there."""
        return f"filled:{self.keys}:{self.value_bytes}"


class Figures(NamedTuple):
    """Operations a second, latency in ms, server CPU (all threads) per operation in us."""

    rate: float
    p50: float
    p99: float
    cpu: float


def cpu_seconds(pid: int) -> float:
    """CPU time used by a process, user and system, all threads, and by children that ended.

    The first part has nanoseconds: it is the process's CPU clock (clock_getcpuclockid(3)); ticks of
    10 ms would be too coarse for short runs.
    """
    own = time.clock_gettime((~pid << 3) | 2)
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / TICKS


def forget_peak(pid: int) -> None:
    """Let `peak_bytes` begin anew (proc(5), /proc/pid/clear_refs)."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process had (proc(5), /proc/pid/status)."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmHWM"].split()[0]) * 1024


def measure(port: int, pid: int, load: Load) -> Figures:
    """Run the load once."""
    run = _generated if load.generated or load.wait or load.test == "mixed" else _redis_benchmark
    before = cpu_seconds(pid)
    rate, p50, p99 = run(port, load)
    spent = cpu_seconds(pid) - before
    return Figures(rate, p50, p99, spent / load.requests * 1e6)


def prepare(port: int, load: Load) -> None:
    """Bring about what the load reads, pops from or adds to; not measured."""
    if load.test in COLLECTIONS:
        ask(port, "UNLINK", COLLECTIONS[load.test])
    if load.test in FILLED_BY:
        filler, count = FILLED_BY[load.test]
        workload.fill_collection(port, filler, count or load.requests, load.value_bytes)
    elif load.test in ("get", "mixed") and ask(port, "SETNX", load.mark, ""):
        workload.fill_keys(port, 0, load.keys, load.value_bytes)


def sized(load: Load, rates: Sequence[float], seconds: float) -> Load:
    """The load with as many requests as take about so long, in the geometric mean of servers with
    these rates: all of them get the same number, or collections would grow differently."""
    mean = prod(rates) ** (1 / len(rates))
    pipelines = max(2 * load.clients, round(mean * seconds / load.pipeline))
    return load._replace(requests=pipelines * load.pipeline)


def trial(load: Load) -> Load:
    """A short run of it, to warm up and to see the rate."""
    enough = min(TRIAL_REQUESTS, TRIAL_BYTES // load.value_bytes) // load.pipeline * load.pipeline
    return load._replace(requests=max(load.in_flight, enough))


def _generated(port: int, load: Load) -> tuple[float, float, float]:
    batches = workload.batches(
        load.test, load.pipeline, load.requests, load.keys, load.value_bytes, load.wait
    )
    run = drive(port, batches, load.clients)
    return load.requests / run.seconds, run.percentile(0.5), run.percentile(0.99)


def _redis_benchmark(port: int, load: Load) -> tuple[float, float, float]:
    command = ["redis-benchmark", "-p", str(port), "--csv"]
    command += ["-n", str(load.requests), "-P", str(load.pipeline), "-c", str(load.clients)]
    command += ["-d", str(load.value_bytes), "-r", str(load.keys)]
    command += COMMANDS.get(load.test) or ["-t", load.test]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith('"')]
    row = next(csv.DictReader(lines))
    return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])
