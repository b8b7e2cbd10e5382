"""Peers that send what no kvserver sends: a fake primary and a fake replica, over real sockets,
against real servers. Whatever they send, the server lives, answers its other clients, keeps its
data, logs no traceback and ends the link.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rocksdict
from cluster import LOOPBACK, Cluster, assert_equal, position, promote, replication, wait_synced
from crc32c import crc32c
from harness import Conn, Server, encode_command, free_port, wait_until

from kvserver import frames, history
from kvserver.codec import HISTORY_KEY, STAMP, STAMP_KEY
from kvserver.edge.replication.directories import Directories
from kvserver.storage.engine import COLUMN_FAMILIES

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


Script = Callable[[Peer], None]


def after_continue(make: Callable[[Peer], bytes]) -> Script:
    def script(peer: Peer) -> None:
        peer.answer("CONTINUE")
        peer.send(make(peer))

    return script


def after_full(*parts: bytes, asked: bool = False) -> Script:
    def script(peer: Peer) -> None:
        peer.answer("FULLRESYNC")
        peer.send(parts[0])
        if asked:
            peer.await_request(b"REPLCONF", b"END")
        peer.send(b"".join(parts[1:]))

    return script


def rewind_with(make: Callable[[Peer], bytes]) -> Script:
    """A rewind to where the replica is, answered with nonsense."""

    def script(peer: Peer) -> None:
        peer.answer("REWIND")
        peer.await_request(b"REPLCONF", b"END")
        peer.send(make(peer))

    return script


ONE = files_frame((b"CURRENT", 4))

SCRIPTS: dict[str, Script] = {
    "no answer of ours": lambda peer: peer.send(b"HTTP/1.1 200 OK\r\n"),
    "an endless line": lambda peer: peer.send(b"+" + b"x" * 200_000),
    "a long position": lambda peer: peer.send(b"+CONTINUE x " + b"9" * 5000 + b"\r\n"),
    "a position of 100 digits": lambda peer: peer.send(b"+CONTINUE x " + b"9" * 100 + b"\r\n"),
    "a negative position": lambda peer: peer.send(b"+CONTINUE x -1\r\n"),
    "another position": lambda peer: peer.answer("CONTINUE", peer.last + 7),
    "an error for the terminal": lambda peer: peer.send(b"-ERR \x1b[2J\x07\nfake log line\r\n"),
    "empty lines, then nonsense": lambda peer: peer.send(b"\r\n" * 300_000 + b"nonsense\r\n"),
    "a fork to come": lambda peer: peer.answer("REWIND", peer.last + 5),
    "garbage": after_continue(lambda peer: b"\xff" * 100),
    "another version": after_continue(lambda peer: b"\x02" + bytes(60)),
    "a kind that doesn't exist": after_continue(lambda peer: raw_header(99, 0)),
    "a wrong checksum": after_continue(lambda peer: raw_header(frames.HEARTBEAT, 0)),
    "an endless heartbeat": after_continue(lambda peer: raw_header(frames.HEARTBEAT, 1 << 31)),
    "an endless piece": after_continue(lambda peer: raw_header(frames.CHUNK, 1 << 31)),
    "an empty frame": after_continue(lambda peer: data_frame(0, 0)[:-1] + b"\0"),
    "a gap": after_continue(lambda peer: data_frame(peer.last + 3, peer.last + 3)),
    "a frame that leads back": after_continue(lambda peer: data_frame(peer.last + 1, 0)),
    "another stamp": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, stamp=STAMP.pack(1, 5, 5, 5))
    ),
    "a row of another family": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(9, b"a", b"b"), 1)
    ),
    "a row of the sender's own": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(LOG, b"~u", bytes(16)), 1)
    ),
    "a wrong number of records": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(0, b"a", b"b"), 7)
    ),
    "a history that is none": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(LOG, HISTORY_KEY, b"x"), 1)
    ),
    "a merge": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, b"\x06\x00\x01a\x01b", 1)
    ),
    "padding unasked": after_continue(
        lambda peer: frames.control(frames.PADDING, peer.last + 1, peer.last + 9, peer.known)
    ),
    "a message of one field": after_continue(
        lambda peer: frames.control(frames.PUBSUB, payload=frames.pack_fields([b"message"]))
    ),
    "fields cut short": after_continue(
        lambda peer: frames.control(frames.HEARTBEAT, payload=b"\0\0\1\0abc")
    ),
    "rows unasked": after_continue(lambda peer: frames.control(frames.VALUES)),
    "files unasked": after_continue(lambda peer: ONE),
    "data in a full sync": after_full(data_frame(1, 1)),
    "the end of the files at once": after_full(frames.control(frames.SYNC_END)),
    "a piece at once": after_full(frames.control(frames.CHUNK, 0, 0, b"abcd")),
    "a piece before it was asked for": after_full(
        ONE, frames.control(frames.CHUNK, 0, 0, b"abcd"), frames.control(frames.SYNC_END)
    ),
    "no files": after_full(files_frame()),
    "a path": after_full(files_frame((b"../CURRENT", 4), (b"CURRENT", 4))),
    "an absolute path": after_full(files_frame((b"/tmp/x", 4), (b"CURRENT", 4))),
    "a hidden file": after_full(files_frame((b".x", 4), (b"CURRENT", 4))),
    "a name of 200 bytes": after_full(files_frame((b"a" * 200, 4), (b"CURRENT", 4))),
    "the same file twice": after_full(files_frame((b"CURRENT", 4), (b"CURRENT", 5))),
    "no CURRENT": after_full(files_frame((b"000007.sst", 4))),
    "a list of odd length": after_full(
        frames.control(frames.FILES, payload=frames.pack_fields([b"CURRENT"]))
    ),
    "the list twice": after_full(ONE, ONE, asked=True),
    "a piece of another file": after_full(
        ONE, frames.control(frames.CHUNK, 7, 0, b"a"), asked=True
    ),
    "a piece elsewhere": after_full(ONE, frames.control(frames.CHUNK, 0, 2, b"ab"), asked=True),
    "a piece too long": after_full(ONE, frames.control(frames.CHUNK, 0, 0, b"abcde"), asked=True),
    "an early end": after_full(ONE, frames.control(frames.FILE_END, 0, 0), asked=True),
    "a wrong checksum of a file": after_full(
        ONE,
        frames.control(frames.CHUNK, 0, 0, b"abcd"),
        frames.control(frames.FILE_END, 0, 1),
        asked=True,
    ),
    "rows of a family that doesn't exist": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"\x09a", b"b"]))
    ),
    "rows of an odd number of fields": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"\x00a"]))
    ),
    "a row without a family": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"", b""]))
    ),
    "a row of our own": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"\x03s", b""]))
    ),
    "the end of rows without a history": rewind_with(
        lambda peer: frames.control(frames.VALUES_END, 0, 5)
    ),
    "a file amidst rows": rewind_with(lambda peer: ONE),
}


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


@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_primary(victim: Server, name: str) -> None:
    with unharmed(victim), fake_primary_of(victim) as peer:
        SCRIPTS[name](peer)
        peer.read_to_end()


def test_padding_that_leads_back(cluster: Cluster) -> None:
    server = cluster.start(**{"replication-enable-sequence-padding": True})
    server.client().set("key:3", 3)
    with unharmed(server), fake_primary_of(server) as peer:
        peer.answer("CONTINUE")
        peer.send(frames.control(frames.PADDING, peer.last + 1, 0, peer.known))
        peer.read_to_end()


def test_frames_after_a_stall_or_pause_are_checked_as_well(victim: Server) -> None:
    """Those that wait for the next turn are taken by a timer, which must end the link, too."""
    big = frames.control(
        frames.PUBSUB, payload=frames.pack_fields([b"message", b"c", bytes(300_000)])
    )
    with unharmed(victim), fake_primary_of(victim) as peer:
        peer.answer("CONTINUE")
        peer.send(big + data_frame(peer.last + 9, peer.last + 9))
        peer.read_to_end()


def send_files(peer: Peer, files: dict[str, bytes]) -> None:
    """A full sync with these files."""
    peer.answer("FULLRESYNC")
    peer.send(files_frame(*((name.encode(), len(data)) for name, data in files.items())))
    peer.await_request(b"REPLCONF", b"END")
    for index, data in enumerate(files.values()):
        for at in range(0, len(data), 1 << 18):
            peer.send(frames.control(frames.CHUNK, index, at, data[at : at + (1 << 18)]))
        peer.send(frames.control(frames.FILE_END, index, crc32c(data)))
    peer.send(frames.control(frames.SYNC_END))


def strange_data_set(path: Path, rows: dict[bytes, bytes]) -> dict[str, bytes]:
    """The files of a RocksDB with these rows in the column family of the log."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    db = rocksdict.Rdict(str(path), options)
    views = [db.create_column_family(name, options) for name in COLUMN_FAMILIES[1:]]
    for key, row in rows.items():
        views[LOG - 1][key] = row
    for view in views:
        view.flush()
    del views, view
    db.close()
    names = [file for file in path.iterdir() if file.is_file() and file.name != "LOCK"]
    return {file.name: file.read_bytes() for file in names if not file.name.startswith("LOG")}


GENESIS = history.genesis().encode()


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        {STAMP_KEY: STAMP.pack(1, 1, 1, 1)},
        {STAMP_KEY: STAMP.pack(1, 1, 1, 1), HISTORY_KEY: b"nonsense"},
        {STAMP_KEY: b"nonsense", HISTORY_KEY: GENESIS},
    ],
    ids=["no RocksDB", "empty", "no history", "bad history", "bad stamp"],
)
def test_full_sync_of_no_data_set(
    victim: Server, tmp_path: Path, rows: dict[bytes, bytes] | None
) -> None:
    files = {"CURRENT": b"nonsense"} if rows is None else strange_data_set(tmp_path / "db", rows)
    before = position(victim)
    with fake_primary_of(victim) as peer:
        send_files(peer, files)
        peer.read_to_end()
    assert victim.client().get("key:3") == b"3"
    assert position(victim) == before
    promote(victim)
    assert victim.client().set("key:3", 3)


def test_mutated_frames(victim: Server) -> None:
    """Whole sessions, with some bytes changed, left out or doubled."""
    rng = random.Random(7)
    with contextlib.ExitStack() as stack:
        stack.enter_context(unharmed(victim))
        for _ in range(40):
            with fake_primary_of(victim) as peer:
                peer.answer("CONTINUE")
                parts = [
                    frames.control(frames.HEARTBEAT, 1, peer.last, frames.pack_fields([b"a" * 40])),
                    frames.control(
                        frames.PUBSUB, payload=frames.pack_fields([b"message", b"c", b"m"])
                    ),
                    data_frame(peer.last + 5, peer.last + 6, put(0, b"a", b"b"), 1),
                ]
                rng.shuffle(parts)
                peer.send(mutated(rng, b"".join(parts)))
                peer.sock.shutdown(socket.SHUT_WR)
                peer.read_to_end()


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
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


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


def test_psync_that_is_none(primary: Server) -> None:
    good = psync_words(primary)
    with unharmed(primary), primary.conn() as conn:
        for at, word in [
            (2, "-1"),
            (2, "99999999999999999999999"),
            (2, "x"),
            (3, "KV9"),
            (4, "zz"),
            (4, "00"),
            (4, "00" * 36 * 300),
            (4, (struct.pack(">Q20sQ", 5, bytes(20), 9) * 2).hex()),
            (5, "1e5"),
        ]:
            words = [*good]
            words[at] = word
            assert conn.ask(*words)[:1] == b"-"
        assert conn.ask(*good, "NONSENSE")[:1] == b"-"
        assert conn.ask("PSYNC", "?", "-1").startswith(b"-ERR PSYNC: only kvserver")
        for words in (["HAVE", "a", "1"], ["KEYS", "0", "a"], ["RANGE", "0", "a", "b"], ["END"]):
            assert conn.ask("REPLCONF", *words)[:1] == b"-"
        assert replication(primary)["connected_slaves"] == "0"


def test_refused_psync_leaves_nothing(primary: Server) -> None:
    """The connection is any client's again."""
    run_id = primary.client().info("server")["run_id"]
    with unharmed(primary), primary.conn() as conn:
        assert conn.ask("REPLCONF", "run-id", run_id) == b"+OK\r\n"
        assert ask_psync(conn, psync_words(primary), 7).startswith(b"-ERR refusing to replicate")
        assert replication(primary)["connected_slaves"] == "0"
        assert conn.ask("FAILOVER") == b"-ERR FAILOVER requires connected replicas.\r\n"
        assert conn.ask("GET", "key:1") == b"$1\r\n1\r\n"


def test_psync_in_a_transaction_and_without_a_password(cluster: Cluster) -> None:
    server = cluster.start(requirepass="secret")
    with server.conn() as conn:
        words = ["PSYNC", "?", "0", "KV1", "00", "0", "-"]
        assert conn.ask(*words)[:7] == b"-NOAUTH"
        assert conn.ask("AUTH", "secret") == b"+OK\r\n"
        assert conn.ask("MULTI") == b"+OK\r\n"
        assert conn.ask(*words).startswith(b"-ERR Command not allowed inside a transaction")
        assert conn.ask("EXEC")[:10] == b"-EXECABORT"


NONSENSE: dict[str, list[list[str | bytes]]] = {
    "PSYNC again": [["PSYNC"]],
    "a file": [["REPLCONF", "HAVE", "CURRENT", "1"]],
    "keys": [["REPLCONF", "KEYS", "0", "a"]],
    "a range": [["REPLCONF", "RANGE", "0", "a", "b"]],
    "a family that doesn't exist": [["REPLCONF", "KEYS", "4", "a"]],
    "a family that is none": [["REPLCONF", "KEYS", "x", "a"]],
    "a name of other bytes": [["REPLCONF", "HAVE", b"\xff", "1"]],
    "the end twice": [["REPLCONF", "END"], ["REPLCONF", "END"]],
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_from_an_online_replica(primary: Server, name: str) -> None:
    with unharmed(primary), primary.conn() as conn:
        words = psync_words(primary)
        assert ask_psync(conn, words).startswith(b"+CONTINUE")
        for command in NONSENSE[name]:
            conn.send(encode_command(*(words if command == ["PSYNC"] else command)))
        conn.read_to_end()
        wait_until(lambda: replication(primary)["connected_slaves"] == "0")


@pytest.mark.parametrize("name", [name for name in NONSENSE if name not in ("keys", "a range")])
def test_nonsense_in_a_rewind(primary: Server, name: str) -> None:
    known = history.decode(own_history(primary)).branched("ab" * 20, 5).encode()
    with unharmed(primary), primary.conn() as conn:
        words = psync_words(primary, 9, known=known)
        assert ask_psync(conn, words).startswith(b"+REWIND")
        commands = NONSENSE[name]
        for command in commands * 2 if commands == NONSENSE["the end twice"] else commands:
            conn.send(encode_command(*(words if command == ["PSYNC"] else command)))
        conn.read_to_end()


def test_ranges_of_a_rewind(primary: Server) -> None:
    """The wrong way round, empty, beyond everything; rows of the server's own are never sent."""
    known = history.decode(own_history(primary)).branched("ab" * 20, 5).encode()
    with unharmed(primary), primary.conn() as conn:
        assert ask_psync(conn, psync_words(primary, 9, known=known)).startswith(b"+REWIND")
        for words in (
            ["RANGE", "0", "b", "a"],
            ["RANGE", "0", "", ""],
            ["RANGE", "3", "", b"\xff" * 9],
            ["RANGE", "2", b"\xff", b"\xff\xff"],
            ["KEYS", "3", "s", "~u", "~r", "h"],
            ["KEYS", "0", "", "", ""],
            ["END"],
        ):
            conn.send(encode_command("REPLCONF", *words))
        parser, rows, ended = frames.FrameParser(), {}, False
        while not ended:
            for frame in parser.feed(conn.sock.recv(65536)):
                if frame.kind == frames.VALUES:
                    fields = frames.unpack_fields(frame.payload)
                    rows.update(zip(fields[::2], fields[1::2], strict=True))
                ended = frame.kind == frames.VALUES_END
        assert b"\x03h" in rows
        assert not [key for key in rows if key[:2] == b"\x03~" or key == b"\x03s"]


def test_flood_of_empty_keys(cluster: Cluster) -> None:
    server = cluster.start(**{"replication-rewind-max-bytes": 1 << 20})
    for number in range(10):
        server.client().set(f"key:{number}", number)
    known = history.decode(own_history(server)).branched("ab" * 20, 5).encode()
    flood = encode_command("REPLCONF", "KEYS", "0", *[""] * 1000) * 100
    with unharmed(server), server.conn() as conn:
        assert ask_psync(conn, psync_words(server, 9, known=known)).startswith(b"+REWIND")
        with contextlib.suppress(ConnectionError):
            conn.send(flood)
        conn.read_to_end()
        assert "asks for too much" in server.log_text()


def test_names_that_are_no_text(primary: Server) -> None:
    """What a replica calls itself is shown by INFO and ROLE."""
    with unharmed(primary), primary.conn() as conn:
        assert conn.ask("REPLCONF", "ip-address", b"\xff\xfe") == b"+OK\r\n"
        assert conn.ask("REPLCONF", "ip-address", "a" * 300)[:4] == b"-ERR"
        assert conn.ask("REPLCONF", "run-id", "a" * 3000)[:4] == b"-ERR"
        assert ask_psync(conn, psync_words(primary), 1 << 40).startswith(b"+CONTINUE")
        with primary.conn() as other:
            assert other.ask("ROLE").startswith(b"*3\r\n$6\r\nmaster")
            assert b"connected_slaves:1" in other.ask("INFO", "replication")
            # A port that can't be dialled, without a time-out.
            assert other.ask("FAILOVER") == b"+OK\r\n"
        wait_until(lambda: replication(primary)["master_failover_state"] == "no-failover")


@pytest.mark.parametrize("host", [b"\xff\xfe", b"a\0b", b"a" * 300, b"a..b", b""])
def test_hosts_that_are_none(cluster: Cluster, host: bytes) -> None:
    primary, replica = cluster.start(), cluster.start()
    with replica.conn() as conn:
        assert conn.ask("REPLICAOF", host, primary.port) == b"+OK\r\n"
        wait_until(lambda: b"master_link_status:down" in conn.ask("INFO", "replication"))
        assert conn.ask("ROLE")[:2] == b"*5"
        assert conn.ask("REPLICAOF", LOOPBACK, primary.port) == b"+OK\r\n"
    assert_equal(primary, replica)
    assert_calm(replica.log_text())


def test_mutated_commands(primary: Server) -> None:
    rng = random.Random(11)
    words = psync_words(primary)
    with unharmed(primary):
        for _ in range(150):
            parts = [
                encode_command("REPLCONF", "listening-port", 7, "run-id", "ab" * 20),
                encode_command(*words),
                encode_command("REPLCONF", "ACK", position(primary), "FACK", 3),
                encode_command("REPLCONF", "KEYS", "0", "a", "b"),
                encode_command("REPLCONF", "END"),
            ]
            with primary.conn() as conn, contextlib.suppress(ConnectionError):
                conn.send(mutated(rng, b"".join(parts)))
                conn.sock.shutdown(socket.SHUT_WR)
                conn.read_to_end()
        wait_until(lambda: replication(primary)["connected_slaves"] == "0")


# -- what acknowledgements and positions rest on ---------------------------------------------------


def test_acknowledgements_are_heard_during_a_pause(cluster: Cluster) -> None:
    """CLIENT PAUSE ALL doesn't stop replicas: WAIT, a quorum and FAILOVER need them."""
    primary = cluster.start(repl_timeout=2)
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    with primary.conn() as conn:
        started = time.monotonic()
        assert conn.ask("CLIENT", "PAUSE", 4000, "ALL") == b"+OK\r\n"
        assert conn.ask("PING") == b"+PONG\r\n"  # parked until the pause is over
        assert time.monotonic() - started >= 3.9
    assert "timedout replica" not in primary.log_text()
    assert replication(primary)["connected_slaves"] == "1"


def test_demotion_tells_who_waits_for_the_quorum(cluster: Cluster) -> None:
    """Also those whose write isn't committed yet: nobody has it, and it will be taken back."""
    server = cluster.start(**{"replica-ack-quorum": 1, "replica-ack-timeout": 0})
    with server.conn() as conn:
        conn.send(
            encode_command("SET", "a", 1) + encode_command("REPLICAOF", LOOPBACK, free_port())
        )
        assert conn.reply().startswith(b"-UNBLOCKED")
        assert conn.reply() == b"+OK\r\n"


def test_target_that_answers_for_another_position(cluster: Cluster) -> None:
    """It has taken over, so this server follows it; but it takes no frames on that word."""
    server, target = cluster.start(), FakePrimary()
    server.client().set("key:3", 3)
    with unharmed(server), server.conn() as link, server.conn() as conn:
        words = psync_words(server)
        assert ask_psync(link, words, target.port).startswith(b"+CONTINUE")
        assert conn.ask("FAILOVER", "TO", LOOPBACK, target.port) == b"+OK\r\n"
        peer = target.accept()
        peer.answer("CONTINUE", peer.last + 1)
        peer.send(data_frame(peer.last + 1, peer.last + 1, put(0, b"a", b"b"), 1, epoch=2))
        peer.read_to_end()
        assert replication(server)["role"] == "slave"
        again = target.accept()
        assert again.last == peer.last
        again.close()
        peer.close()
    target.close()


# -- the marker of a clean stop --------------------------------------------------------------------


def test_marker_tells_a_copy(tmp_path: Path) -> None:
    directories = Directories(str(tmp_path / "one"))
    (tmp_path / "one" / "db").mkdir(parents=True)
    directories.mark_clean(3, 77)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert Directories(str(tmp_path / "two")).take_marker() is None
    assert directories.take_marker() == (3, 77)
    assert directories.take_marker() is None


def test_marker_tells_what_a_backup_brought_back(tmp_path: Path) -> None:
    """Even where the directory has its former number again."""
    directories = Directories(str(tmp_path))
    (tmp_path / "db").mkdir()
    directories.mark_clean(3, 77)
    (tmp_path / "db" / "CURRENT").write_text("")
    assert directories.take_marker() is None


def test_clean_restart_goes_on_in_its_era(primary: Server) -> None:
    before = replication(primary)["master_replid"]
    primary.terminate()
    primary.start()
    assert replication(primary)["master_replid"] == before
