"""A replica that sends its primary anything at all, and what acknowledgements, positions and the
marker of a clean stop rest on."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import struct
import time
from pathlib import Path

import pytest
from cluster import LOOPBACK, Cluster, assert_equal, position, replication, wait_synced
from harness import Server, encode_command, free_port, wait_until
from hostile_peers import (
    FakePrimary,
    ask_psync,
    assert_calm,
    data_frame,
    mutated,
    own_history,
    psync_words,
    put,
    unharmed,
)
from hostile_peers import cluster as cluster
from hostile_peers import primary as primary

from kvserver import frames, history
from kvserver.edge.replication.directories import Directories

# -- the fake replica ------------------------------------------------------------------------------


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
