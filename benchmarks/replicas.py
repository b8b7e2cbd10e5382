"""`python -m benchmarks.replicas`: what replication costs, and whether a replica keeps up.

SETs from redis-benchmark go to a server alone, with a replica, and with `replica-ack-quorum 1`;
redis-server does the first two beside it. While they go on the replica's lag in positions is
sampled: a replica that is slower than its primary falls behind more and more. (A replica of Redis
acknowledges once a second, so its primary can't tell.)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from benchmarks.failover import Admin, follow
from benchmarks.measure import Figures, Load, cpu_seconds, measure
from benchmarks.report import machine
from tests.harness import KVSERVER, REDIS, Directive, Program, Server

HEADER = (
    "| server | pipeline | ops/s | p50 ms | p99 ms | CPU us/op | replica's CPU us/op "
    "| lag: first half, max | second half, max |\n" + "|---" * 9 + "|"
)
SAMPLE_SECONDS = 0.05
LOADS = (Load("set", 1, 150_000), Load("set", 16, 1_000_000))


class Case(NamedTuple):
    """A server, with what beside it."""

    name: str
    program: Program
    directives: dict[str, Directive]
    replica: bool
    quorum: int = 0


class Lag(threading.Thread):
    """Samples how far the replica is behind."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._admin = Admin(port)
        self._over = threading.Event()
        self.samples: list[int] = []

    def run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            info = self._admin.info()
            fields = dict(pair.split("=") for pair in info["slave0"].split(","))
            self.samples.append(int(info["master_repl_offset"]) - int(fields["offset"]))

    def stop(self) -> tuple[int, int]:
        """The largest lag of the first half of the time, and of the second."""
        self._over.set()
        self.join()
        half = len(self.samples) // 2
        return max(self.samples[:half], default=0), max(self.samples[half:], default=0)


def run_case(case: Case, directory: Path) -> list[str]:
    """The rows of one case."""
    env = {"PYTHONPATH": ""}
    servers = [
        Server(directory / name, case.directives, program=case.program, env=env)
        for name in (("primary", "replica") if case.replica else ("primary",))
    ]
    try:
        for server in servers:
            server.start()
        if case.replica:
            follow(servers[1], servers[0])
        if case.quorum:
            Admin(servers[0].port).ask("CONFIG", "SET", "replica-ack-quorum", str(case.quorum))
        return [_row(case, servers, load) for load in LOADS]
    finally:
        for server in servers:
            server.close()


def _row(case: Case, servers: list[Server], load: Load) -> str:
    lag = Lag(servers[0].port) if case.replica and case.program is not REDIS else None
    before = cpu_seconds(servers[-1].pid)
    if lag is not None:
        lag.start()
    figures: Figures = measure(servers[0].port, servers[0].pid, load)
    spent = (cpu_seconds(servers[-1].pid) - before) / load.requests * 1e6
    first, second = lag.stop() if lag is not None else (0, 0)
    beside = [f"{spent:.1f}" if case.replica else ""]
    beside += [f"{first:,}", f"{second:,}"] if lag is not None else ["", ""]
    return (
        f"| {case.name} | {load.pipeline} | {figures.rate:,.0f} | {figures.p50:.2f} "
        f"| {figures.p99:.2f} | {figures.cpu:.1f} | {' | '.join(beside)} |"
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--kvserver", help="the installed program to measure; default: the source")
    options = parser.parse_args()
    command = (options.kvserver,) if options.kvserver else KVSERVER.command
    ours = Program("kvserver", command, KVSERVER.directives)
    aof = {"appendonly": True, "repl-diskless-sync-delay": 0}
    cases = [
        Case("kvserver", ours, {}, False),
        Case("kvserver, a replica", ours, {}, True),
        Case("kvserver, replica-ack-quorum 1", ours, {}, True, 1),
        Case("redis-server", REDIS, aof, False),
        Case("redis-server, a replica", REDIS, aof, True),
    ]
    print(machine(), "", HEADER, sep="\n", flush=True)
    for case in cases:
        with tempfile.TemporaryDirectory() as directory:
            for row in run_case(case, Path(directory)):
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
