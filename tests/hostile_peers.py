"""Peers that send what no kvserver sends: a fake primary and a fake replica, over real sockets,
against real servers. Whatever they send, the server lives, answers its other clients, keeps its
data, logs no traceback and ends the link.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest
from cluster import LOOPBACK, Cluster, position, replication
from harness import Conn, Server, encode_command
from replicas import cluster as cluster

from kvserver import frames, history
from kvserver.codec import STAMP, STAMP_KEY

LOG = 3


SECONDS = 10.0


# -- the fake primary ------------------------------------------------------------------------------


class Peer(Conn):
    """The connection of a replica, which introduced itself."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.replid, self.last, self.known = "", 0, b""
        while True:
            words = self.request()
            if words[0] == b"PSYNC":
                self.replid, self.last = words[1].decode(), int(words[2])
                self.known = bytes.fromhex(words[4].decode())
                return
            self.send(b"+OK\r\n")

    def request(self) -> list[bytes]:
        """The next command."""
        count = int(self.read_line()[1:])
        words = []
        for _ in range(count):
            size = int(self.read_line()[1:])
            words.append(self.read_exactly(size + 2)[:-2])
        return words

    def await_request(self, *words: bytes) -> None:
        """Skip acknowledgements and the like until this one has come."""
        while self.request()[: len(words)] != list(words):
            pass

    def answer(self, kind: str, seq: int | None = None) -> None:
        """PSYNC's answer."""
        at = self.last if seq is None else seq
        self.send(f"+{kind} {self.replid} {at}\r\n".encode())


class FakePrimary:
    """Listens where a replica is told to connect."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(SECONDS)
        self.port = self._listener.getsockname()[1]

    def accept(self) -> Peer:
        return Peer(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.close()


def put(cf: int, key: bytes, value: bytes) -> bytes:
    """A record as RocksDB's log has it; everything shorter than 128 bytes."""
    return bytes([5, cf, len(key)]) + key + bytes([len(value)]) + value


def data_frame(
    first: int, last: int, records: bytes = b"", count: int = 0, epoch: int = 1, stamp: bytes = b""
) -> bytes:
    """A frame of these records and its stamp."""
    mark = stamp or STAMP.pack(epoch, first, last, 5)
    payload = records + put(LOG, STAMP_KEY, mark)
    return frames.encode(frames.Frame(frames.DATA, epoch, first, last, count + 1, 5, payload))


def files_frame(*files: tuple[bytes, int]) -> bytes:
    fields: list[bytes] = []
    for name, size in files:
        fields += [name, size.to_bytes(8, "big")]
    return frames.control(frames.FILES, 0, 0, frames.pack_fields(fields))


def raw_header(kind: int, size: int) -> bytes:
    """A frame's header that promises `size` bytes."""
    return struct.pack(">BBHQQQIQII", 1, kind, 0, 0, 0, 0, 0, 0, size, 0)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cluster = Cluster(tmp_path_factory.mktemp("hostile"))
    server = cluster.start()
    for number in range(10):
        server.client().set(f"key:{number}", number)
    yield server
    cluster.close()


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """The server keeps its data, serves others, and has no traceback to show."""
    with server.conn() as conn:
        text, before = server.log_text(), position(server)
        yield
        assert conn.ask("PING") == b"+PONG\r\n"
        assert conn.ask("GET", "key:3") == b"$1\r\n3\r\n"
    assert server.alive
    assert position(server) == before
    assert_calm(server.log_text()[len(text) :])


def assert_calm(log: str) -> None:
    for words in (
        "Traceback",
        "unexpectedly",
        "never retrieved",
        "Exception in",
        "\nfake log line",
    ):
        assert words not in log


@contextlib.contextmanager
def fake_primary_of(server: Server) -> Iterator[Peer]:
    """A replica that was told to follow us."""
    primary = FakePrimary()
    server.client().replicaof(LOOPBACK, primary.port)
    peer = primary.accept()
    try:
        yield peer
    finally:
        peer.close()
        primary.close()


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randint(1, 20)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randint(1, 20))
            case 3:
                changed[at:at] = changed[at : at + rng.randint(1, 60)]
        if not changed:
            return b"\0"
    return bytes(changed)


# -- the fake replica ------------------------------------------------------------------------------


@pytest.fixture
def primary(cluster: Cluster) -> Server:
    server = cluster.start()
    for number in range(10):
        server.client().set(f"key:{number}", number)
    return server


def own_history(server: Server) -> bytes:
    """A history that shares the server's first era."""
    replid = replication(server)["master_replid"]
    return history.History((history.Era(1, replid, 0),)).encode()


def psync_words(
    server: Server, last: int | None = None, flags: str = "r", known: bytes | None = None
) -> list[str]:
    at = position(server) if last is None else last
    eras = own_history(server) if known is None else known
    return ["PSYNC", "?", str(at), "KV1", eras.hex(), "0", flags]


def ask_psync(conn: Conn, words: list[str], port: int = 0) -> bytes:
    assert conn.ask("REPLCONF", "listening-port", port) == b"+OK\r\n"
    conn.send(encode_command(*words))
    return conn.read_line()
