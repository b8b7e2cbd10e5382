"""`python -m benchmarks.larger`: data larger than memory, and how long it holds up others.

A server with small caches is loaded with strings, hashes, a set of a million and a second database,
in a cgroup whose memory limit counts the page cache too, so that reads go to the disk. Then loads
run in turn, some beside what else can keep a server busy. All the time another process sends a PING
each millisecond, whether the last one is answered or not: its latency is the lag of the event loop.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import select
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import machine
from tests.harness import Conn, Program, Server, encode_command

VALUE_BYTES = 1000
FIELDS = 100
SET_MEMBERS = 1_000_000
MIB = 1 << 20
#: How much of the data are hashes, and how much stands in a second database.
HASH_SHARE, SECOND_SHARE = 0.2, 0.05
DIRECTIVES = {
    "rocksdb.block_cache_size": 128,
    "row-cache-size": "128mb",
    "appendfsync": "everysec",
    "bind": "127.0.0.1",
}
HEADER = "| load | beside it | ops/s | PING p50 ms | p99 | p99.9 | max |\n" + "|---" * 7 + "|"


class Data(NamedTuple):
    """How much there is of everything."""

    strings: int
    hashes: int
    second: int

    @staticmethod
    def of(size: int) -> Data:
        """So much that it takes `size` bytes."""
        values = size // VALUE_BYTES
        hashes = int(values * HASH_SHARE) // FIELDS
        second = int(values * SECOND_SHARE)
        return Data(values - hashes * FIELDS - second, hashes, second)


class Load(NamedTuple):
    """What the clients do."""

    command: str
    zipf: bool = False
    clients: int = 16
    pipeline: int = 1

    def title(self) -> str:
        """As the table has it."""
        pipeline = f", pipeline {self.pipeline}" if self.pipeline > 1 else ""
        return f"{self.command.upper()} {'Zipf' if self.zipf else 'uniform'}{pipeline}"


class Lag(NamedTuple):
    """Latencies of PING, in milliseconds."""

    p50: float
    p99: float
    p999: float
    most: float


# -- a limit for memory ------------------------------------------------------------------------


class Cage:
    """A cgroup with a memory limit. Both versions charge the page cache to who read first."""

    def __init__(self, limit: int) -> None:
        name = f"kvserver-bench-{os.getpid()}"
        self._path: Path | None = None
        for parent, directive in (
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ):
            path = Path(parent) / name
            try:
                path.mkdir()
                self._path = path
                (path / directive).write_text(str(limit))
                return
            except OSError:
                self.close()

    @property
    def works(self) -> bool:
        """Whether there is a limit."""
        return self._path is not None

    def take(self, pid: int) -> None:
        """The process' memory counts from now on."""
        if self._path is not None:
            (self._path / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Remove it; nobody may be left in it."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.rmdir()
            self._path = None


# -- loading -----------------------------------------------------------------------------------


class Feeder:
    """Sends commands, with some on their way."""

    WINDOW = 32

    def __init__(self, conn: Conn) -> None:
        self._conn = conn
        self._sent = 0
        self._noise = os.urandom(MIB)

    def value(self) -> bytes:
        """A value that doesn't compress."""
        at = random.randrange(MIB - VALUE_BYTES)
        return self._noise[at : at + VALUE_BYTES]

    def send(self, *args: bytes) -> None:
        """Send a command; its reply is read some time."""
        self._conn.send(encode_command(*args))
        self._sent += 1
        if self._sent > self.WINDOW:
            self._read()

    def _read(self) -> None:
        reply = self._conn.reply()
        assert not reply.startswith(b"-"), reply
        self._sent -= 1

    def finish(self) -> None:
        """Read all replies."""
        while self._sent:
            self._read()


def string_key(number: int) -> bytes:
    return b"key:%010d" % number


def fill(server: Server, data: Data) -> None:
    """Load everything."""
    feeder = Feeder(server.conn())
    _feed_strings(feeder, data.strings)
    for number in range(data.hashes):
        words = [w for field in range(FIELDS) for w in (b"field:%d" % field, feeder.value())]
        feeder.send(b"HSET", b"hash:%08d" % number, *words)
    for first in range(0, SET_MEMBERS, 1000):
        members = [b"member:%012d" % number for number in range(first, first + 1000)]
        feeder.send(b"SADD", b"a million", *members)
    feeder.send(b"SELECT", b"1")
    _feed_strings(feeder, data.second)
    feeder.finish()


def _feed_strings(feeder: Feeder, count: int) -> None:
    """In no order, as keys come in life."""
    starts = list(range(0, count, 100))
    random.shuffle(starts)
    for start in starts:
        words = [
            word
            for number in range(start, min(start + 100, count))
            for word in (string_key(number), feeder.value())
        ]
        feeder.send(b"MSET", *words)


# -- the load and the pings, each a process of its own -------------------------------------------


def _chooser(load: Load, data: Data) -> Callable[[], bytes]:
    """Makes requests. Every reply of a load has one length."""
    count = data.hashes * FIELDS if load.command == "hget" else data.strings
    value = os.urandom(VALUE_BYTES)

    def choose() -> int:
        if not load.zipf:
            return random.randrange(count)
        # Zipf's law with exponent 1; neighbours in rank are no neighbours on disk.
        return int(count ** random.random()) * 2_654_435_761 % count

    def request() -> bytes:
        number = choose()
        if load.command == "hget":
            key, field = divmod(number, FIELDS)
            return encode_command("HGET", b"hash:%08d" % key, b"field:%d" % field)
        if load.command == "set":
            return encode_command("SET", string_key(number), value)
        return encode_command("GET", string_key(number))

    return request


def _reply_bytes(command: str) -> int:
    return len(b"+OK\r\n") if command == "set" else len(b"$%d\r\n\r\n" % VALUE_BYTES) + VALUE_BYTES


def work(port: int, load: Load, data: Data, seconds: float, done: multiprocessing.Queue) -> None:
    """Send requests for some seconds; puts how many were answered in a second."""
    request = _chooser(load, data)
    size = load.pipeline * _reply_bytes(load.command)
    poll, clients = select.epoll(), {}
    for _ in range(load.clients):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients[sock.fileno()] = [sock, 0]
        poll.register(sock, select.EPOLLIN)
        sock.sendall(b"".join(request() for _ in range(load.pipeline)))
    begun, answered = time.perf_counter(), 0
    while time.perf_counter() < begun + seconds:
        for fd, _ in poll.poll(0.1):
            client = clients[fd]
            client[1] += len(client[0].recv(MIB))
            if client[1] >= size:
                client[1] -= size
                answered += load.pipeline
                client[0].sendall(b"".join(request() for _ in range(load.pipeline)))
    done.put(answered / (time.perf_counter() - begun))


def ping(port: int, seconds: float, done: multiprocessing.Queue) -> None:
    """Send a PING each millisecond; puts the latencies, in order of size."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent: deque[float] = deque()
    latencies: list[float] = []
    tick = begun = time.perf_counter()
    while tick < begun + seconds or sent:
        now = time.perf_counter()
        if now >= tick and tick < begun + seconds:
            sock.send(b"PING\r\n")
            sent.append(now)
            tick = max(tick + 0.001, now)
        wait = tick - time.perf_counter() if tick < begun + seconds else 0.1
        if select.select([sock], [], [], max(wait, 0))[0]:
            now = time.perf_counter()
            for _ in range(len(sock.recv(4096)) // len(b"+PONG\r\n")):
                latencies.append(1000 * (now - sent.popleft()))
    done.put(sorted(latencies))


# -- what goes on beside ---------------------------------------------------------------------------


class Beside(threading.Thread):
    """Does something now and then while a load runs."""

    def __init__(self, act: Callable[[], None], pause: float) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._pause = pause
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self._act()
            self._over.wait(self._pause)

    def stop(self) -> None:
        """Let it end."""
        self._over.set()
        self.join()


def asking(server: Server, *args: str) -> Callable[[], None]:
    """Sends a command and reads the reply, however long."""

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", server.port), 300) as sock:
            sock.sendall(encode_command(*args))
            head = b""
            while b"\n" not in head:
                head += sock.recv(MIB)
            # No element has a line break.
            lines = 2 * int(head[1 : head.index(b"\r")]) + 1 if head.startswith(b"*") else 1
            lines -= head.count(b"\n")
            while lines > 0:
                lines -= sock.recv(MIB).count(b"\n")

    return ask


def syncing(primary: Server, replica: Server) -> Callable[[], None]:
    """Lets a replica take a full copy."""

    def sync() -> None:
        shutil.rmtree(replica.directory, ignore_errors=True)
        replica.start()
        admin = replica.client()
        admin.replicaof("127.0.0.1", primary.port)
        while admin.info("replication").get("master_link_status") != "up":
            time.sleep(0.1)
        replica.close()

    return sync


# -- the phases --------------------------------------------------------------------------------


class Bench:
    """A loaded server, and its phases."""

    def __init__(self, server: Server, data: Data, seconds: float) -> None:
        self._server = server
        self._data = data
        self._seconds = seconds

    def phase(self, load: Load, name: str = "", act: Callable[[], None] | None = None) -> None:
        """Run a load, with something beside it, and print its row."""
        beside = Beside(act, self._seconds / 3) if act is not None else None
        if beside is not None:
            beside.start()
        rate, lag = self._measure(load)
        if beside is not None:
            beside.stop()
        cells = [load.title(), name, f"{rate:,.0f}", *(f"{value:.2f}" for value in lag)]
        print(f"| {' | '.join(cells)} |", flush=True)

    def _measure(self, load: Load) -> tuple[float, Lag]:
        rates: multiprocessing.Queue = multiprocessing.Queue()
        pings: multiprocessing.Queue = multiprocessing.Queue()
        port = self._server.port
        processes = [
            multiprocessing.Process(
                target=work, args=(port, load, self._data, self._seconds, rates)
            ),
            multiprocessing.Process(target=ping, args=(port, self._seconds, pings)),
        ]
        for process in processes:
            process.start()
        patience = self._seconds + 60
        rate, latencies = rates.get(timeout=patience), pings.get(timeout=patience)
        for process in processes:
            process.join()
        count = len(latencies)
        at = [latencies[int(share * count)] for share in (0.5, 0.99, 0.999)]
        return rate, Lag(*at, latencies[-1])


def run(bench: Bench, server: Server, replica: Server) -> None:
    """All phases."""
    print(HEADER, flush=True)
    for load in (
        Load("get"),
        Load("get", pipeline=16),
        Load("get", zipf=True),
        Load("hget"),
        Load("hget", zipf=True),
        Load("set"),  # compactions run from here on
        Load("set", zipf=True),
    ):
        bench.phase(load)
    zipf = Load("get", zipf=True)
    bench.phase(zipf, "KEYS \\*", asking(server, "KEYS", "*"))
    bench.phase(zipf, "SMEMBERS of a million", asking(server, "SMEMBERS", "a million"))
    bench.phase(Load("set"), "BGSAVE", asking(server, "BGSAVE"))
    bench.phase(zipf, "a full sync", syncing(server, replica))
    bench.phase(zipf, "FLUSHDB of a second database", _flush_second(server))
    bench.phase(Load("set"), "FLUSHALL", asking(server, "FLUSHALL"))


def _flush_second(server: Server) -> Callable[[], None]:
    """Empties the second database; there is something to be emptied once."""

    def flush() -> None:
        with server.conn() as conn:
            conn.ask("SELECT", "1")
            conn.ask("FLUSHDB")

    return flush


@contextlib.contextmanager
def loaded(args: argparse.Namespace, directory: Path) -> Iterator[tuple[Bench, Server, Server]]:
    """A server in its cage, with data, and one that can become its replica."""
    command = (args.kvserver,) if args.kvserver else (sys.executable, "-m", "kvserver")
    program = Program("kvserver", command, DIRECTIVES)
    env = {"PYTHONPATH": ""} if args.kvserver else {}
    server = Server(directory / "primary", program=program, env=env)
    replica = Server(directory / "replica", program=program, env=env)
    cage = Cage(args.memory * MIB)
    try:
        server.start()
        cage.take(server.pid)
        data = Data.of(int(args.gigabytes * 1e9))
        begun = time.monotonic()
        fill(server, data)
        limit = f"{args.memory} MiB with its page cache" if cage.works else "no limit"
        print(
            f"{machine()}\n\n{args.gigabytes} GB loaded in {time.monotonic() - begun:.0f} s; "
            f"memory of the server: {limit}.\n",
            flush=True,
        )
        yield Bench(server, data, args.seconds), server, replica
    finally:
        server.close()
        replica.close()
        cage.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.larger", description=__doc__)
    parser.add_argument("--kvserver", help="the program; default: this tree, not compiled")
    parser.add_argument("--gigabytes", type=float, default=5.0, help="how much data")
    parser.add_argument("--memory", type=int, default=1024, help="the cgroup's limit in MiB")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each load runs")
    parser.add_argument("--directory", help="where the data go; default: a temporary directory")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kvserver-larger-", dir=args.directory) as directory,
        loaded(args, Path(directory)) as (bench, server, replica),
    ):
        run(bench, server, replica)
    return 0


if __name__ == "__main__":
    sys.exit(main())
