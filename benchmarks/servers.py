"""The two servers side by side, each with its data on disk."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.admin import Admin
from benchmarks.measure import Figures, Load, cpu_seconds, measure, prepare, sized, trial
from benchmarks.report import Row, combine
from tests.harness import KVSERVER, REDIS, Directive, Program, Server

#: What redis-server is given: its data survives it, as kvserver's does.
AOF: Mapping[str, Directive] = {"appendonly": True, "repl-diskless-sync-delay": 0}
START_SECONDS = 600.0
SETTLE_SECONDS = 120.0
SETTLE_SAMPLE_SECONDS = 0.5
#: A server that uses less of a core than this has nothing to do.
IDLE_SHARE = 0.1


def program(path: str | None) -> Program:
    """kvserver as it is installed there; or its source."""
    command = (path,) if path else KVSERVER.command
    return Program("kvserver", command, KVSERVER.directives)


def server(
    directory: Path, chosen: Program, directives: Mapping[str, Directive] | None = None
) -> Server:
    """One of the two, not yet started. An installed program must not import the source."""
    extra = AOF if chosen is REDIS else {}
    return Server(
        directory, {**extra, **(directives or {})}, program=chosen, env={"PYTHONPATH": ""}
    )


def end_by_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, and the servers with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextmanager
def both(ours: Program, directives: Mapping[str, Directive]) -> Iterator[list[Server]]:
    """kvserver and redis-server with these directives, in this order."""
    with running([ours, REDIS], [directives, directives]) as servers:
        yield servers


@contextmanager
def running(
    programs: list[Program], directives: list[Mapping[str, Directive]]
) -> Iterator[list[Server]]:
    """These servers, started, in a temporary directory."""
    end_by_sigterm()
    with tempfile.TemporaryDirectory(prefix="kvserver-bench-") as directory:
        servers = [
            server(Path(directory) / f"{n}-{chosen.name}", chosen, extra)
            for n, (chosen, extra) in enumerate(zip(programs, directives, strict=True))
        ]
        try:
            for one in servers:
                one.start(START_SECONDS)
            yield servers
        finally:
            for one in servers:
                one.close()


class Contender(NamedTuple):
    """A server, and the load that it gets."""

    server: Server
    load: Load

    def once(self) -> Figures:
        """Prepare and measure."""
        prepare(self.server.port, self.load)
        return measure(self.server.port, self.server.pid, self.load)


def calibrated(contenders: Sequence[Contender], seconds: float) -> list[Contender]:
    """Warm the servers up, and give their loads so many requests that they take about so long."""
    rates = [c._replace(load=trial(c.load)).once().rate for c in contenders]
    return [c._replace(load=sized(c.load, rates, seconds)) for c in contenders]


def rounds(contenders: Sequence[Contender], count: int) -> list[list[Figures]]:
    """Measure them one right after the other, so often; who begins changes each time."""
    samples: list[list[Figures]] = [[] for _ in contenders]
    order = list(range(len(contenders)))
    for _ in range(count):
        for index in order:
            samples[index].append(contenders[index].once())
        order.reverse()
    return samples


def compared(contenders: Sequence[Contender], seconds: float, count: int) -> Row:
    """One row of a table: kvserver first, redis-server second."""
    contenders = calibrated(contenders, seconds)
    ours, theirs = rounds(contenders, count)
    return Row(contenders[0].load, combine(ours), combine(theirs))


def settle(one: Server) -> None:
    """Wait until it has nothing left to do: compactions, rewriting the append-only file."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(one.pid)
        time.sleep(SETTLE_SAMPLE_SECONDS)
        busy = cpu_seconds(one.pid) - before > SETTLE_SAMPLE_SECONDS * IDLE_SHARE
        admin = Admin(one.port)
        rewriting = admin.info("persistence").get("aof_rewrite_in_progress") == "1"
        admin.close()
        if not busy and not rewriting:
            return
