"""Python's collector: nothing that a client does leaves cyclic garbage, so it has little to do; and
it runs when kvserver/state/collector.py says so, never by itself."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FreshServer
from group import follows, info
from harness import KVSERVER, Conn, Program, Server, encode_command, wait_until
from test_tls import Certificates, StartTLS, certificates, start

from kvserver.state import collector, process
from kvserver.state.collector import BUSY_GROWTH, COUNT_EVERY, IDLE_GROWTH, YOUNG_MOST, Collector

__all__ = ["certificates", "start"]  # fixtures

MIB = 1 << 20
ROUNDS = 10
LAUNCHER = str(Path(__file__).parent / "collector_launcher.py")

Kind = Callable[[Server], None]


def memory(server: Server) -> dict[str, str]:
    """INFO memory; waits for it, unlike `info`."""
    with server.conn() as conn:
        lines = conn.ask("INFO", "memory").decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


def found(server: Server) -> int:
    """Objects of cyclic garbage, found until now; none is left."""
    with server.conn() as conn:
        assert conn.ask("MEMORY", "PURGE") == b"+OK\r\n"
    return int(memory(server)["python_gc_garbage"])


def alone(server: Server) -> bool:
    """Whether nobody is connected but who asks."""
    return info(server, "clients").get("connected_clients") == "1"


def leaves(server: Server, kind: Kind) -> int:
    """How many objects of cyclic garbage a kind of connection leaves, ten times."""
    server.close_clients()
    kind(server)  # the first time may import something
    wait_until(lambda: alone(server))
    before = found(server)
    for _ in range(ROUNDS):
        kind(server)
    wait_until(lambda: alone(server))
    return found(server) - before


# -- what clients do -----------------------------------------------------------------------------


def asks(*commands: str) -> Kind:
    """A client that gets all its replies."""

    def run(server: Server) -> None:
        with server.conn() as conn:
            for command in commands:
                conn.ask(*command.split())

    return run


def sends(data: bytes, *, reset: bool = False) -> Kind:
    """A client that sends this and goes, without reading."""

    def run(server: Server) -> None:
        with server.conn() as conn:
            conn.send(data)
            if reset:
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return run


def pair(first: str, second: str) -> Kind:
    """A client that waits for something, and one that does it."""

    def run(server: Server) -> None:
        with server.conn() as waiting, server.conn() as acting:
            for command in first.split(";"):
                waiting.send(encode_command(*command.split()))
                waiting.sock.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    waiting.reply()
            acting.ask(*second.split())
            waiting.sock.settimeout(5)
            waiting.reply()

    return run


def unread(server: Server) -> None:
    with server.conn() as conn:
        conn.ask("SET", "large", "x" * MIB)
        conn.send(encode_command("GET", "large") * 20)
        time.sleep(0.01)


def is_killed(server: Server) -> None:
    with server.conn() as victim, server.conn() as killer:
        victim.ask("BLPOP", "nothing", "0.01")
        killer.ask("CLIENT", "KILL", "ID", victim.ask("CLIENT", "ID")[1:].strip())
        assert victim.read_to_end() == b""


def ends_its_side(server: Server) -> None:
    with server.conn() as conn:
        conn.send(encode_command("PING"))
        conn.sock.shutdown(socket.SHUT_WR)
        assert conn.read_to_end() == b"+PONG\r\n"


def is_redirected(server: Server) -> None:
    with server.conn() as first, server.conn() as second:
        number = first.ask("CLIENT", "ID")[1:].strip()
        second.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number)
        second.ask("GET", "key")
        first.close()
        second.ask("SET", "key", "value")


SCRIPT = "return {redis.pcall('lpush',KEYS[1],1),redis.call('get',KEYS[1])}"
KINDS: dict[str, Kind] = {
    "strings": asks("SET key value", "GET key", "EXPIRE key 100", "DUMP key", "DEL key"),
    "collections": asks(
        "HSET h a 1 b 2",
        "HGETALL h",
        "HPEXPIRE h 1 FIELDS 1 a",
        "RPUSH l 1 2",
        "LPOP l",
        "SADD s 1 2 3",
        "SPOP s",
        "SINTER s s",
        "ZADD z 1 a 2 b",
        "ZRANGE z 0 -1",
        "ZUNIONSTORE y 1 z",
        "XADD x * a b",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g c STREAMS x >",
        "SORT l",
        "FLUSHDB",
    ),
    "walks": asks("KEYS *", "SCAN 0 COUNT 1000", "DBSIZE", "RANDOMKEY", "DEBUG DIGEST"),
    "errors": asks("SET a", "INCR", "SET a b", "LPUSH a b", "NOSUCH", "AUTH x y", "HELLO 9"),
    "transaction": asks("WATCH a", "MULTI", "SET a 1", "GET a", "EXEC", "MULTI", "X", "EXEC"),
    "transaction left": asks("WATCH a", "MULTI", "SET a 1"),
    "introspection": asks("INFO everything", "CONFIG GET *", "COMMAND", "CLIENT LIST"),
    "users": asks("ACL SETUSER u on >p +@all ~*", "AUTH u p", "ACL WHOAMI", "ACL DELUSER u"),
    "configuration": asks("CONFIG SET hz 20", "CONFIG SET hz 10", "CONFIG SET nosuch 1"),
    "script": asks(f"EVAL {SCRIPT} 1 key", "EVAL } 0", "SCRIPT FLUSH"),
    "waits": asks("SET a 1", "WAIT 1 5", "BLPOP nothing 0.01"),
    "pause": asks("CLIENT PAUSE 5", "SET a 1"),
    "migrate": asks("SET a 1", "MIGRATE 127.0.0.1 1 a 0 50"),
    "quit": asks("QUIT"),
    "partial command": sends(b"*3\r\n$3\r\nSET\r\n$1"),
    "reset": sends(b"*3\r\n$3\r\nSET\r\n$1", reset=True),
    "reset at once": sends(b"", reset=True),
    "not RESP": sends(b"*x\r\n"),
    "blocked": sends(encode_command("BLPOP", "nothing", "0")),
    "blocked, for a time": sends(encode_command("XREAD", "BLOCK", 9999, "STREAMS", "x", "$")),
    "monitor": pair("MONITOR", "PING"),
    "subscriber": pair("SUBSCRIBE ch", "PUBLISH ch x"),
    "subscriber by pattern": pair("HELLO 3;PSUBSCRIBE c*", "PUBLISH ch x"),
    "tracking": pair("HELLO 3;CLIENT TRACKING ON;GET key", "SET key x"),
    "served after waiting": pair("BLPOP q 0", "RPUSH q 1"),
    "replica": sends(encode_command("REPLCONF", "capa", "x") + encode_command("PSYNC", "?", "-1")),
    "unread output": unread,
    "killed": is_killed,
    "half closed": ends_its_side,
    "redirected": is_redirected,
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_connection_leaves_cyclic_garbage(server: Server, kind: str) -> None:
    assert leaves(server, KINDS[kind]) == 0


def test_nor_does_tls(start: StartTLS, certificates: Certificates) -> None:
    server, port = start()
    context = ssl.create_default_context(cafile=certificates.ca)

    def connect(_server: Server) -> None:
        sock = socket.create_connection(("localhost", port))
        with Conn(context.wrap_socket(sock, server_hostname="localhost")) as conn:
            assert conn.ask("PING") == b"+PONG\r\n"

    def no_handshake(_server: Server) -> None:
        with Conn(socket.create_connection(("localhost", port))) as conn:
            conn.send(b"PING\r\n")
            conn.read_to_end()

    assert leaves(server, connect) == 0
    assert leaves(server, no_handshake) == 0


def test_nor_does_a_unix_socket(fresh_server: FreshServer, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = fresh_server(unixsocket=path)

    def connect(_server: Server) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        with Conn(sock) as conn:
            assert conn.ask("PING") == b"+PONG\r\n"

    assert leaves(server, connect) == 0


def test_nor_does_replication(fresh_server: FreshServer) -> None:
    """A replica that comes and goes, at both ends of the link."""
    primary, replica = fresh_server(), fresh_server()
    primary.client().set("key", "value")

    def come_and_go() -> None:
        replica.client().replicaof("127.0.0.1", primary.port)
        wait_until(lambda: follows(replica, primary), 20)
        replica.client().replicaof("NO", "ONE")

    come_and_go()
    before = found(primary), found(replica)
    for _ in range(ROUNDS):
        come_and_go()
    assert (found(primary), found(replica)) == before


def test_a_client_that_has_reset_its_connection_is_no_fault(server: Server) -> None:
    """It is gone before the server could ask who it is; nor does it leave a descriptor."""
    descriptors = Path(f"/proc/{server.pid}/fd")
    server.close_clients()
    wait_until(lambda: alone(server))
    before = len(list(descriptors.iterdir()))
    for _ in range(200):
        sends(b"", reset=True)(server)
    wait_until(lambda: alone(server))
    assert len(list(descriptors.iterdir())) < before + 20
    assert "Traceback" not in server.log_tail()


# -- memory --------------------------------------------------------------------------------------


def resident(server: Server) -> int:
    with open(f"/proc/{server.pid}/statm") as file:
        return int(file.read().split()[1]) * process.PAGE_BYTES


def test_memory_of_connections_comes_back(fresh_server: FreshServer) -> None:
    """That of half a command too, and without the collector's help."""
    server = fresh_server()
    half = encode_command("SET", "key", bytes(4 * MIB))[: 3 * MIB]
    start = resident(server)
    for _ in range(3):
        conns = [server.conn() for _ in range(50)]
        for conn in conns:
            conn.send(half)
        wait_until(lambda: resident(server) > start + 140 * MIB)
        for conn in conns:
            conn.close()
        wait_until(lambda: alone(server))
    wait_until(lambda: resident(server) < start + 30 * MIB)
    assert memory(server)["python_gc_garbage"] == "0"


def test_memory_of_emptied_databases_is_used_again(fresh_server: FreshServer) -> None:
    """The cache lets go of their rows, though nothing else pushes them out."""
    server = fresh_server(appendfsync="no", **{"rocksdb.block_cache_size": 8})
    client = server.client()
    full = []
    for _ in range(3):
        for begin in range(0, 200_000, 1000):
            client.mset({f"key:{n}": "x" * 100 for n in range(begin, begin + 1000)})
        client.hset("hash", mapping={str(n): "x" * 100 for n in range(10_000)})
        full.append(resident(server))
        assert int(memory(server)["row_cache_bytes"]) > 50 * MIB
        client.flushall()
        wait_until(lambda: memory(server)["row_cache_bytes"] == "0")
    assert full[-1] < full[0] + 20 * MIB


# -- when it runs --------------------------------------------------------------------------------


def test_it_never_runs_unasked(fresh_server: FreshServer) -> None:
    server = fresh_server(program=Program("kvserver", (sys.executable, LAUNCHER), {**DEBUG}))
    conns = [server.conn() for _ in range(500)]
    for conn in conns:
        conn.ask("SUBSCRIBE", *(f"channel:{n}" for n in range(100)))
    pipeline = server.client().pipeline()  # a MULTI of some 60,000 lists
    for n in range(20_000):
        pipeline.rpush("list", n)
    pipeline.execute()
    wait_until(lambda: memory(server)["python_gc_passes"] != "0")
    server.terminate()
    assert "unasked: 0" in server.log_text()


DEBUG = KVSERVER.directives


class Fake:
    """Stands for the module `gc`."""

    def __init__(self) -> None:
        self.young = self.frozen = 0
        self.calls: list[Any] = []
        self.garbage = 0

    def get_count(self) -> tuple[int, int, int]:
        return self.young, 0, 0

    def get_freeze_count(self) -> int:
        return self.frozen

    def freeze(self) -> None:
        self.frozen += self.young
        self.young = 0

    def unfreeze(self) -> None:
        self.calls.append("unfreeze")

    def disable(self) -> None:
        self.calls.append("disable")

    def collect(self, generation: int = 2) -> int:
        self.calls.append(generation)
        if generation == 2:
            self.frozen -= self.garbage
        return self.garbage


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(collector, "gc", made)
    return made


def started(fake: Fake, objects: int) -> Collector:
    """One that has begun with so many objects."""
    made = Collector()
    fake.young = objects
    made.start()
    assert fake.calls == ["disable", 2]
    fake.calls.clear()
    return made


def test_few_new_objects_are_looked_at(fake: Fake) -> None:
    collector = started(fake, 1000)
    fake.young = YOUNG_MOST
    collector.tick(1)
    assert fake.calls == [0] and fake.frozen == 1000 + YOUNG_MOST
    fake.young = YOUNG_MOST + 1
    collector.tick(2)
    assert fake.calls == [0] and fake.young == 0, "many are not: that would take its time"


def ticks(collector: Collector, *, busy: bool) -> None:
    for n in range(COUNT_EVERY):
        collector.tick(n if busy else 0)


@pytest.mark.parametrize(
    ("objects", "busy", "growth"),
    [
        (1000, False, IDLE_GROWTH),
        (IDLE_GROWTH * 40, False, IDLE_GROWTH * 10),
        (1000, True, BUSY_GROWTH),
        (BUSY_GROWTH * 2, True, BUSY_GROWTH * 2),
    ],
)
def test_all_objects_are_looked_at_when_they_are_many_more(
    fake: Fake, objects: int, busy: bool, growth: int
) -> None:
    collector = started(fake, objects)
    fake.young = growth
    ticks(collector, busy=busy)
    assert 2 not in fake.calls
    fake.young, fake.garbage = 1, growth
    ticks(collector, busy=busy)
    assert fake.calls[-2:] == ["unfreeze", 2]
    assert collector.full_passes == 1 and collector.objects == objects + 1
    fake.young, fake.garbage = growth - 1, 0
    ticks(collector, busy=busy)
    assert fake.calls.count(2) == 1, "it counts from what was left"


def test_objects_that_went_count_as_room_no_more(fake: Fake) -> None:
    """Else garbage could take the place of connections that are closed."""
    collector = started(fake, 10 * BUSY_GROWTH)
    fake.frozen = 1000
    ticks(collector, busy=True)
    fake.young = BUSY_GROWTH + 1
    ticks(collector, busy=True)
    assert fake.calls[-2:] == ["unfreeze", 2]


class Link:
    """Refers to itself."""

    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def enabled() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_it_finds_garbage_of_every_age(enabled: None) -> None:
    collector = Collector()
    collector.start()
    assert not gc.isenabled()
    Link()
    collector.tick(1)
    assert collector.found >= 1
    before, old = collector.found, Link()
    collector.tick(2)
    del old  # frozen meanwhile
    collector.tick(3)
    assert collector.found == before
    collector.collect()
    assert collector.found > before
    assert collector.passes == 4 and collector.longest_ns > 0
