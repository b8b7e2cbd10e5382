"""`python -m benchmarks.cost`: where the CPU time of an operation goes, with perf(1).

A compiled kvserver is sampled under a load, with call stacks. Each sample belongs to the first
stage of `STAGES` one of whose functions is on its stack; the shares are of the CPU time per
operation of a run without perf. redis-server gets the same load beside it, without perf. It writes
the table of the cost model in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.admin import ask
from benchmarks.measure import TESTS, Figures, Load, cpu_seconds, measure, prepare
from benchmarks.servers import Contender, both, calibrated, program, settle
from tests.harness import Server

#: Tests, pipelines and, if it isn't everysec, appendfsync.
CASES = (
    *("get:1", "set:1", "set:1:always", "ping_mbulk:16", "get:16", "set:16", "set:16:always"),
    *("incr:16", "mset:16", "lpush:16", "lpop:16", "sadd:16", "spop:16", "hset:16", "xadd:16"),
    *("zadd:16", "zpopmin:16"),
)
EVERYSEC = "everysec"
SECONDS = 1.0
#: On a machine that others use too it may take long until the server had so much time.
SAMPLED_CPU_SECONDS = 2.0
#: A sample copies so much of the stack; fewer samples and less stack disturb less.
PERF = ("perf", "record", "-q", "-F", "799", "--call-graph", "dwarf,8192")
KERNEL = "[kernel"
BACKGROUND = "RocksDB's threads: flush, compaction"
OTHERS = "other threads: fsync"
FSYNC = "end of the turn: fsync"
REST = "the rest of the main thread"


class Stage(NamedTuple):
    """A name, and what is on the stack during it."""

    name: str
    functions: re.Pattern[str]
    #: Whether the kernel must be at work (or must not), if that matters.
    kernel: bool | None = None

    def has(self, stack: list[str]) -> bool:
        """Whether a stack, innermost first, belongs to it."""
        if self.kernel is not None and self.kernel != stack[0].endswith(KERNEL):
            return False
        return any(self.functions.search(frame) for frame in stack)


_SEND = r"uv_try_write|uv__write|tcp_sendmsg|_exec_queued_writes|UVStream|Connection___write"
#: In this order: what is called comes before what calls it.
STAGES = (
    Stage("RocksDB: memtable", re.compile("MemTableInserter|MemTable::Add")),
    Stage("RocksDB: log", re.compile("WriteToWAL|ConcurrentWriteToWAL|log::Writer")),
    Stage("RocksDB: rest of a write", re.compile("rocksdb_write$|Rdict::__pymethod_write")),
    Stage(FSYNC, re.compile("flush_wal|FlushWAL|fdatasync|SyncWAL")),
    Stage("RocksDB: read", re.compile(r"rocksdb_get|Rdict::(get|__pymethod_(get|__getitem__))")),
    Stage("send: kernel", re.compile(_SEND), True),
    Stage("send: uvloop", re.compile(_SEND), False),
    Stage("end of the turn: batch", re.compile("CommitLog___commit")),
    Stage("end of the turn: rest", re.compile("Turn___(end|commit)")),
    Stage("dispatch and handler", re.compile("Dispatcher___execute")),
    Stage("parse", re.compile("CPyDef_request___")),
    Stage("connection", re.compile("CPyDef_connection___")),
    Stage("receive: kernel", re.compile("uv__read|uv__stream_io"), True),
    Stage("receive: uvloop", re.compile("uv__read|uv__stream_io")),
    Stage("wait for events: kernel", re.compile("epoll_wait|epoll_pwait|uv__io_poll"), True),
)
#: The rows of the table, in the order of an operation.
ROWS = (
    *("wait for events: kernel", "receive: kernel", "receive: uvloop", "connection", "parse"),
    *("dispatch and handler", "RocksDB: read", "end of the turn: batch", "RocksDB: log"),
    *("RocksDB: memtable", "RocksDB: rest of a write", FSYNC, "end of the turn: rest"),
    *("send: uvloop", "send: kernel", REST, BACKGROUND, OTHERS),
)
#: What is RocksDB's: its batch is made by rocksdict.
ROCKSDB = {*(name for name in ROWS if name.startswith("RocksDB")), "end of the turn: batch"}


class Profile(NamedTuple):
    """One load: figures without perf, and the share of each stage; redis-server's figures."""

    load: Load
    appendfsync: str
    figures: Figures
    shares: dict[str, float]
    theirs: Figures

    @property
    def title(self) -> str:
        """The load in words."""
        words = [self.load.test.upper(), f"pipeline {self.load.pipeline}"]
        return ", ".join(words if self.appendfsync == EVERYSEC else [*words, self.appendfsync])

    @property
    def rocksdb(self) -> float:
        """What RocksDB takes of an operation, in us, with the batch that it is given."""
        return self.figures.cpu * sum(self.shares.get(name, 0) for name in ROCKSDB)

    @property
    def busy(self) -> float:
        """The share of a core that the main thread used."""
        others = self.shares.get(BACKGROUND, 0) + self.shares.get(OTHERS, 0)
        return self.figures.rate * self.figures.cpu * (1 - others) / 1e6


def stage_of(is_main: bool, thread: str, stack: list[str]) -> str:
    """The stage of one sample; frames are "function dso"."""
    if not is_main:
        return BACKGROUND if thread.startswith("rocksdb") else OTHERS
    return next((stage.name for stage in STAGES if stage.has(stack)), REST)


def samples(lines: Iterable[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Thread name, thread id and stack of each sample, from `perf script`."""
    thread, number, stack = "", 0, list[str]()
    for line in lines:
        if not line.strip():
            if stack:
                yield thread, number, stack
            stack = []
        elif line[0].isspace() and re.match(r"\s+[0-9a-f]+ ", line):
            _, function, dso = _frame(line)
            stack.append(f"{function} {dso}")
        else:
            thread, _, tid = line.strip().rpartition(" ")
            thread, number = thread.strip(), int(tid)
    if stack:
        yield thread, number, stack


def _frame(line: str) -> tuple[str, str, str]:
    """Address, function and file of a line such as `  1f2e uv__read (/usr/lib/x.so)`."""
    address, _, rest = line.strip().partition(" ")
    function, _, dso = rest.rpartition(" (")
    return address, function, KERNEL if dso.startswith(KERNEL) else dso.rstrip(")")


def profile(servers: list[Server], load: Load, appendfsync: str) -> Profile:
    """Run the load on both servers, and once more on kvserver with perf."""
    for server in servers:
        ask(server.port, "CONFIG", "SET", "appendfsync", appendfsync)
    ours, theirs = calibrated([Contender(server, load) for server in servers], SECONDS)
    their_figures = theirs.once()
    settle(ours.server)
    figures = ours.once()
    text = _sampled(ours)
    pid = ours.server.pid
    found = Counter(stage_of(t == pid, name, s) for name, t, s in samples(text.splitlines()))
    shares = {name: count / found.total() for name, count in found.items()}
    return Profile(ours.load, appendfsync, figures, shares, their_figures)


class Sampler:
    """perf, which samples a process while it is told to."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._data = directory / "perf.data"
        fifos = [directory / "commands", directory / "answers"]
        for fifo in fifos:
            os.mkfifo(fifo)
        control = f"--control=fifo:{fifos[0]},{fifos[1]}"
        command = [*PERF, "-D", "-1", control, "-p", str(pid), "-o", str(self._data)]
        self._process = subprocess.Popen(command)
        # For reading, too: to open a fifo waits for its other end otherwise.
        self._commands, self._answers = (os.open(fifo, os.O_RDWR) for fifo in fifos)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample during this."""
        self._tell(b"enable\n")
        yield
        self._tell(b"disable\n")

    def _tell(self, what: bytes) -> None:
        os.write(self._commands, what)
        while not os.read(self._answers, 64).endswith(b"ack\n\0"):
            pass

    def text(self) -> str:
        """End; what `perf script` has to say."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        command = ["perf", "script", "-i", str(self._data), "-F", "comm,tid,ip,sym,dso"]
        command.append("--no-inline")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _sampled(contender: Contender) -> str:
    """What `perf script` has to say of the server under this load: of the load alone, and not of
    what it needs to be there."""
    server, load = contender
    with tempfile.TemporaryDirectory(prefix="kvserver-perf-") as directory:
        sampler = Sampler(Path(directory), server.pid)
        spent = 0.0
        while spent < SAMPLED_CPU_SECONDS:
            prepare(server.port, load)
            before = cpu_seconds(server.pid)
            with sampler.sampling():
                measure(server.port, server.pid, load)
            spent += cpu_seconds(server.pid) - before
        return sampler.text()


def table(profiles: list[Profile]) -> str:
    """Stages down, loads across, in us per operation."""
    lines = [["us per operation", *(p.title for p in profiles)], ["---"] * (len(profiles) + 1)]
    for name in ROWS:
        cells = [f"{p.shares.get(name, 0) * p.figures.cpu:.2f}" for p in profiles]
        if any(cell != "0.00" for cell in cells):
            lines.append([name, *("" if cell == "0.00" else cell for cell in cells)])
    lines.append(["**together**", *(f"**{p.figures.cpu:.2f}**" for p in profiles)])
    lines.append(["of which RocksDB", *(f"{p.rocksdb:.2f}" for p in profiles)])
    lines.append(["**redis-server, together**", *(f"**{p.theirs.cpu:.2f}**" for p in profiles)])
    lines.append(["operations a second", *(f"{p.figures.rate:,.0f}" for p in profiles)])
    lines.append(["redis-server's", *(f"{p.theirs.rate:,.0f}" for p in profiles)])
    lines.append(["main thread's share of a core", *(f"{p.busy:.0%}" for p in profiles)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--tests", nargs="+", default=list(CASES), help="such as set:16:always")
    parser.add_argument("--kvserver", required=True, help="the installed program, compiled")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    options = parser.parse_args()
    cases = [(*name.split(":"), EVERYSEC)[:3] for name in options.tests]
    if unknown := [case[0] for case in cases if len(case) < 3 or case[0] not in TESTS]:
        parser.error(f"no such test: {' '.join(unknown)}")
    with both(program(options.kvserver), {"appendfsync": EVERYSEC}) as servers:
        profiles = [
            profile(servers, Load(test, int(pipeline), 0), fsync) for test, pipeline, fsync in cases
        ]
    found = table(profiles)
    print(found)
    if options.write:
        report.write("cost", f"{report.measured()}\n\n{found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
