"""`python -m benchmarks.replicas`: what replication costs, and what an acknowledgement does.

With one replica each: the tests of `make bench` on kvserver and redis-server; then writes that wait
for the replica, which kvserver does by itself with `replica-ack-quorum 1`, and a client of
redis-server by a WAIT behind each write, or behind each pipeline. Primaries and replicas keep their
data on disk, appendfsync everysec. `scale` has the same with 0, 1 and 2 replicas.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import report
from benchmarks.admin import Admin, ask
from benchmarks.failover import follow
from benchmarks.measure import Figures, Load, cpu_seconds
from benchmarks.points import Point
from benchmarks.servers import (
    START_SECONDS,
    Contender,
    calibrated,
    compared,
    end_by_sigterm,
    program,
    server,
)
from benchmarks.workload import EACH, LAST
from tests.harness import REDIS, Program, Server

SAMPLE_SECONDS = 0.05
CATCH_UP_MS = 60_000
#: `get` and `mixed` tell what reads pay for replication: nothing, but for the second core.
TESTS = ("set", "get", "mixed", "incr", "mset", "lpush", "hset", "zadd", "xadd")
QUORUM_TESTS = ("set", "incr", "mset", "lpush", "hset", "zadd", "xadd")
PIPELINES = (1, 16)
SECONDS = 0.3
ROUNDS = 3
#: Long enough to see whether a replica falls behind more and more.
SCALE_SECONDS = 1.5


class Lag(threading.Thread):
    """Samples how far a kvserver's first replica is behind. (A replica of Redis acknowledges once a
    second, so its primary can't tell.)"""

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
        self._admin.close()
        half = len(self.samples) // 2
        return max(self.samples[:half], default=0), max(self.samples[half:], default=0)


@contextmanager
def group(chosen: Program, replicas: int) -> Iterator[list[Server]]:
    """A primary and its replicas."""
    end_by_sigterm()
    with tempfile.TemporaryDirectory(prefix="kvserver-bench-") as directory:
        servers = [server(Path(directory) / str(n), chosen) for n in range(replicas + 1)]
        try:
            for one in servers:
                one.start(START_SECONDS)
            for replica in servers[1:]:
                follow(replica, servers[0])
            yield servers
        finally:
            for one in servers:
                one.close()


def catch_up(primary: Server, replicas: int = 1) -> None:
    """Wait until the replicas have everything."""
    admin = Admin(primary.port)
    admin.ask("SET", "caught-up", "")  # WAIT is about this connection's last write
    if admin.ask("WAIT", str(replicas), str(CATCH_UP_MS)) != replicas:
        raise TimeoutError("a replica doesn't catch up")
    admin.close()


class Led(Contender):
    """A primary, whose replica must have caught up before it is measured."""

    def once(self) -> Figures:
        catch_up(self.server)
        return super().once()


def tables(ours: Program) -> list[str]:
    """All tables with one replica; rows are printed as they are found."""
    with group(ours, 1) as own, group(REDIS, 1) as other:
        primaries = [own[0], other[0]]
        attached = [Load(test, p, 0) for p in PIPELINES for test in TESTS]
        sections = [_section("A replica attached to both", primaries, attached, attached)]
        ask(own[0].port, "CONFIG", "SET", "replica-ack-quorum", "1")
        for wait, what, pipelines in ((EACH, "write", PIPELINES), (LAST, "pipeline", (16,))):
            title = f"`replica-ack-quorum 1`, and redis-server with `WAIT 1 0` after each {what}"
            loads = [Load(test, p, 0, generated=True) for p in pipelines for test in QUORUM_TESTS]
            waiting = [load._replace(wait=wait) for load in loads]
            sections.append(_section(title, primaries, loads, waiting))
        return sections


def _section(title: str, primaries: list[Server], ours: list[Load], theirs: list[Load]) -> str:
    """A table, each row with our load on kvserver and theirs on redis-server."""
    print(f"\n{title}\n\n{report.HEADER}", flush=True)
    rows = []
    for loads in zip(ours, theirs, strict=True):
        contenders = [Led(one, load) for one, load in zip(primaries, loads, strict=True)]
        rows.append(compared(contenders, SECONDS, ROUNDS))
        print(report.line(rows[-1]), flush=True)
    return report.section(title, rows)


def scaled(ours: Program) -> list[Point]:
    """SET with 0, 1 and 2 replicas, for `scale`."""
    points = []
    for count in range(3):
        for chosen in (ours, REDIS):
            with group(chosen, count) as servers:
                for pipeline in PIPELINES:
                    load = Load("set", pipeline, 0)
                    load = calibrated([Contender(servers[0], load)], SCALE_SECONDS)[0].load
                    found = [_followed(servers, load) for _ in range(ROUNDS)]
                    points.append(sorted(found, key=lambda point: point.figures.rate)[ROUNDS // 2])
    return points


def _followed(servers: list[Server], load: Load) -> Point:
    """One measurement, with an eye on the replicas."""
    primary, replica, count = servers[0], servers[-1], len(servers) - 1
    catch_up(primary, count)
    lag = Lag(primary.port) if count and primary.program is not REDIS else None
    before = cpu_seconds(replica.pid)
    if lag is not None:
        lag.start()
    figures = Contender(primary, load).once()
    behind = lag.stop() if lag is not None else None
    catch_up(primary, count)
    spent = (cpu_seconds(replica.pid) - before) / load.requests * 1e6 if count else 0.0
    return Point(
        primary.program.name,
        load.test,
        load.pipeline,
        count,
        figures,
        replica_cpu=spent,
        lag=behind,
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--kvserver", help="the installed program to measure; default: the source")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    options = parser.parse_args()
    print(report.measured(), flush=True)
    sections = tables(program(options.kvserver))
    if options.write:
        report.write("replicas", "\n".join([report.measured(), "", *sections]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
