"""`python -m benchmarks.failover`: planned failovers back and forth between two nodes under load.

A steady load of writes (10,000 a second with 2 KB each, 20 MB/s) goes on while FAILOVER moves the
role of the primary from one node to the other, again and again. The stall of a failover is the
longest time without an acknowledged write around it, as the writers see it. In the end what was
acknowledged is compared with what the primary holds. redis-server does the same beside it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.admin import Admin
from benchmarks.report import machine
from benchmarks.writers import Load, Shape
from tests.harness import KVSERVER, REDIS, Program, Server

HEADER = (
    "| server | failovers | stall p50 ms | stall max ms | without failover: p50 | max "
    "| writes/s | acknowledged | lost or doubled | full syncs |\n" + "|---" * 10 + "|"
)
WARM_UP_SECONDS = 2.0
#: How long after a failover a gap still counts as its own; then how long until the next one.
AFTER_SECONDS = 0.05
BETWEEN_SECONDS = 0.5
SYNC_TIMEOUT_MS = 1000
PATIENCE_SECONDS = 30.0


class Result(NamedTuple):
    """Of one server: the stall of each failover, and the longest gap of a time without one (both
    in ms); and what the writers found."""

    name: str
    stalls: list[float]
    quiet: list[float]
    rate: float
    acked: int
    faults: list[str]
    full_syncs: int

    def line(self) -> str:
        """One row of the table."""
        return (
            f"| {self.name} | {len(self.stalls)} | **{median(self.stalls):.1f}** "
            f"| **{max(self.stalls):.1f}** | {median(self.quiet):.1f} | {max(self.quiet):.1f} "
            f"| {self.rate:,.0f} "
            f"| {self.acked:,} | {len(self.faults)} | {self.full_syncs} |"
        )


class Failovers(threading.Thread):
    """Moves the primary to and fro while the load goes on in another thread."""

    def __init__(self, servers: list[Server], load: Load, count: int) -> None:
        super().__init__(daemon=True)
        self._servers = servers
        self._load = load
        self._count = count
        self._admins = [Admin(server.port) for server in servers]
        self.primary = 0
        self.stalls: list[float] = []
        self.called_off = 0
        self.quiet: list[float] = []
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            time.sleep(WARM_UP_SECONDS)
            while len(self.stalls) < self._count:
                time.sleep(BETWEEN_SECONDS)
                self.quiet.append(self._measure(lambda: None))
                before = self.primary
                stall = self._measure(self._failover)
                if self.primary != before:
                    self.stalls.append(stall)
                    print(f"  {len(self.stalls)}: {stall:.1f} ms", file=sys.stderr, flush=True)
                else:
                    self._called_off(stall)
        except BaseException as problem:
            self.problem = problem
        for admin in self._admins:
            admin.close()

    def _called_off(self, stall: float) -> None:
        self.called_off += 1
        print(f"  called off after {stall:.1f} ms", file=sys.stderr, flush=True)
        if self.called_off > self._count:
            raise RuntimeError("too many failovers were called off; the logs say why")

    def _measure(self, action: object) -> float:
        assert callable(action)
        self._load.reset_gap()
        action()
        time.sleep(AFTER_SECONDS)
        return self._load.longest_gap * 1000

    def _failover(self) -> None:
        old, new = self._admins[self.primary], self._admins[1 - self.primary]
        self._await(lambda: new.info().get("master_link_status") == "up", "the link is up")
        target = str(self._servers[1 - self.primary].port)
        old.ask("FAILOVER", "TO", "127.0.0.1", target, "TIMEOUT", str(SYNC_TIMEOUT_MS))
        asked = time.monotonic()

        def is_over() -> bool:  # ROLE is cheaper than INFO, but can't tell that it was called off
            late = time.monotonic() - asked > SYNC_TIMEOUT_MS / 1000
            return _role(old) == "slave" or (
                late and old.info()["master_failover_state"] == "no-failover"
            )

        self._await(is_over, "the failover is over")
        if _role(old) == "slave":
            self.primary = 1 - self.primary

    @staticmethod
    def _await(condition: object, what: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not in time: {what}")
            time.sleep(0.01)


def _role(admin: Admin) -> object:
    reply = admin.ask("ROLE")
    assert isinstance(reply, list)
    return reply[0]


def measure(program: Program, directory: Path, count: int, shape: Shape) -> Result:
    """Start two nodes and fail over between them."""
    extra = {"appendonly": True, "repl-diskless-sync-delay": 0} if program is REDIS else {}
    servers = [
        Server(directory / f"{program.name}-{n}", extra, program=program, env={"PYTHONPATH": ""})
        for n in range(2)
    ]
    try:
        for server in servers:
            server.start()
        follow(servers[1], servers[0])
        return _measure(program.name, servers, count, shape)
    finally:
        for server in servers:
            server.close()


def follow(replica: Server, primary: Server) -> None:
    """Make it a replica, and wait until its link is up."""
    admin = Admin(replica.port)
    admin.ask("REPLICAOF", "127.0.0.1", str(primary.port))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while admin.info().get("master_link_status") != "up":
        if time.monotonic() > deadline:
            raise TimeoutError("the replica doesn't get its link up")
        time.sleep(0.01)
    admin.close()


def _full_syncs(servers: list[Server]) -> int:
    found = 0
    for server in servers:
        admin = Admin(server.port)
        found += int(admin.info("stats")["sync_full"])
        admin.close()
    return found


def _measure(name: str, servers: list[Server], count: int, shape: Shape) -> Result:
    before = _full_syncs(servers)
    load = Load([server.port for server in servers], shape)
    failovers = Failovers(servers, load, count)
    failovers.start()
    began = time.perf_counter()
    while failovers.is_alive():
        load.run(0.2)
    rate = load.acked / (time.perf_counter() - began)
    load.drain()
    if failovers.problem is not None:
        raise failovers.problem
    faults = load.check(servers[failovers.primary].port)
    load.close()
    syncs = _full_syncs(servers) - before
    result = Result(name, failovers.stalls, failovers.quiet, rate, load.acked, faults, syncs)
    for fault in faults:
        print(f"{name}: {fault}", file=sys.stderr)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument("--failovers", type=int, default=20)
    parser.add_argument("--rate", type=int, default=Shape().rate, help="writes a second")
    parser.add_argument("--value-bytes", type=int, default=Shape().value_bytes)
    parser.add_argument("--kvserver", help="the installed program to measure; default: the source")
    parser.add_argument("--only", choices=["kvserver", "redis-server"])
    options = parser.parse_args()
    command = (options.kvserver,) if options.kvserver else KVSERVER.command
    programs = [Program("kvserver", command, KVSERVER.directives), REDIS]
    shape = Shape(options.rate, options.value_bytes)
    sys.setswitchinterval(0.0005)
    print(f"{machine()}\n\n{HEADER}", flush=True)
    sound = True
    for program in programs:
        if options.only in (None, program.name):
            with tempfile.TemporaryDirectory(prefix="kvserver-bench-") as directory:
                result = measure(program, Path(directory), options.failovers, shape)
            print(result.line(), flush=True)
            sound = sound and not (program is not REDIS and (result.faults or result.full_syncs))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
