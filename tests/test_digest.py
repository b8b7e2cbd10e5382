"""REPLDIGEST: what is in a digest is worked out here once more, from the log and from backups."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import datadir
import pytest
from core import Client, Core, LaterCore
from faults import FileSizeLimit
from faulty_core import Node
from faulty_core import node as node
from harness import Conn, Server, encode_command, wait_until
from load import Load

from kvserver import digest, frames
from kvserver.codec import LOCAL_PREFIX, STAMP, UNTIL, UNTIL_KEY
from kvserver.errors import misconf
from kvserver.frames import Frame
from kvserver.storage.commitlog import HISTORY_KEY, LOG, STAMP_KEY
from kvserver.storage.engine import COLUMN_FAMILIES
from kvserver.storage.wal import WalReader
from kvserver.storage.wal_batch import BATCH_HEADER, DELETE_RANGE, PUT

FreshServer = Callable[..., Server]
Families = list[dict[bytes, bytes]]
LOADING = b"-LOADING "
NULL = b"*-1\r\n"


class Reply(NamedTuple):
    position: int
    epoch: int
    replid: bytes
    digest: bytes
    keys: int


def parse(reply: bytes) -> Reply:
    assert reply.startswith(b"*5\r\n"), reply
    _, position, epoch, _, replid, _, digest, keys, _ = reply.split(b"\r\n")
    return Reply(int(position[1:]), int(epoch[1:]), replid, digest, int(keys[1:]))


def ask(conn: Conn, *words: str | int) -> Reply:
    return parse(conn.ask("REPLDIGEST", *words))


def ask_ahead(conn: Conn, ahead: int) -> tuple[int, Reply]:
    """(a position that was yet to come, the reply): the wait for one may come too late."""
    while True:
        wanted = ask(conn).position + ahead
        answer = conn.ask("REPLDIGEST", "AT", wanted, "TIMEOUT", 10_000)
        if not answer.startswith(b"-ERR position %d has passed" % wanted):
            return wanted, parse(answer)
        ahead *= 2


def reference(families: Families) -> bytes:
    """The digest in hexadecimal of these rows, by the definition in docs/replication.md."""
    hashed = hashlib.blake2b(digest_size=16)
    for cf, rows in enumerate(families):
        for key, row in sorted(rows.items()):
            if cf == LOG and (key in (STAMP_KEY, HISTORY_KEY) or key.startswith(LOCAL_PREFIX)):
                continue
            header = bytes([cf]) + len(key).to_bytes(8, "big") + len(row).to_bytes(8, "big")
            hashed.update(header + key + row)
    return hashed.hexdigest().encode()


def families_in(path: Path) -> Families:
    """The rows of a data directory."""
    found = datadir.read(path)
    return [found[name] for name in COLUMN_FAMILIES]


def batches(db_path: Path) -> Iterator[tuple[Any, Families]]:
    """Every batch in the log from its beginning, with the rows that are there after it."""
    families: Families = [{} for _ in COLUMN_FAMILIES]
    with closing(WalReader(str(db_path))) as reader:
        while (batch := reader.read()) is not None:
            for op, cf, key, value in batch.records():
                if op == PUT:
                    families[cf][key] = value
                elif op == DELETE_RANGE:
                    families[cf] = {k: v for k, v in families[cf].items() if not key <= k < value}
                else:
                    families[cf].pop(key, None)
            yield batch, families


def digests_by_log(db_path: Path, positions: set[int]) -> dict[int, tuple[bytes, int]]:
    """{position: (digest, keys)}, for those of `positions` that are ends of batches."""
    found = {}
    for _, families in batches(db_path):
        last = STAMP.unpack(families[LOG][STAMP_KEY])[2]
        if last in positions:
            found[last] = reference(families), len(families[0])
    return found


def ends_of_batches(db_path: Path) -> list[tuple[int, int]]:
    """(first, last) position of each batch."""
    return [STAMP.unpack(rows[LOG][STAMP_KEY])[1:3] for _, rows in batches(db_path)]


def fill(server: Server, count: int, prefix: str = "key") -> None:
    """Keys, a part of them expiring, with one client, so in one order."""
    with server.conn() as conn:
        for number in range(count):
            conn.send(encode_command("SET", f"{prefix}:{number}", "value" * (number % 7)))
            conn.send(encode_command("SET", f"{prefix}:t{number}", 1, "PXAT", 4_000_000_000_000))
            conn.read_exactly(len(b"+OK\r\n") * 2)


# -- what is in it -----------------------------------------------------------------------------


def test_digests_under_writes_are_those_of_the_log(fresh_server: FreshServer) -> None:
    """Each digest that was taken while clients wrote is that of the log up to its position."""
    server = fresh_server()
    load = Load(server, "digest")
    taken: list[Reply] = []
    with server.conn() as conn:
        load.start()
        try:
            wait_until(lambda: load.acked > 100, what="writers write")
            for _ in range(10):
                taken.append(ask(conn))
                taken.append(ask_ahead(conn, 25)[1])
        finally:
            load.stop()
    known = digests_by_log(server.directory / "db", {reply.position for reply in taken})
    assert len(known) > 10
    for reply in taken:
        assert known[reply.position] == (reply.digest, reply.keys)


def test_the_position_is_the_end_of_the_batch_that_covers_it(fresh_server: FreshServer) -> None:
    server = fresh_server()
    load = Load(server, "covers")
    taken: list[tuple[int, Reply]] = []
    with server.conn() as conn:
        load.start()
        try:
            wait_until(lambda: load.acked > 100, what="writers write")
            taken += [ask_ahead(conn, ahead) for ahead in range(1, 20)]
        finally:
            load.stop()
    ends = ends_of_batches(server.directory / "db")
    for wanted, reply in taken:
        assert reply.position == min(last for _, last in ends if last >= wanted)


def test_a_backup_has_the_same_digest(fresh_server: FreshServer) -> None:
    server = fresh_server()
    fill(server, 1000)
    with server.conn() as conn:
        conn.send(encode_command("SET", "large", b"x" * 3_000_000) + encode_command("FLUSHDB"))
        conn.send(encode_command("SELECT", 3) + encode_command("SET", "large", b"y" * 3_000_000))
        conn.read_exactly(len(b"+OK\r\n") * 4)
        fill(server, 100, "again")
        reply = ask(conn)
        assert conn.ask("SAVE") == b"+OK\r\n"
    (backup,) = (server.directory / "backups").iterdir()
    families = families_in(backup / "db")
    assert (reply.digest, reply.keys) == (reference(families), 201)
    assert STAMP.unpack(families[LOG][STAMP_KEY])[:3:2] == (reply.epoch, reply.position)


def test_two_servers_with_the_same_data(fresh_server: FreshServer) -> None:
    """Where the data is the same so is the digest, whatever the times and the replication ids."""
    one, other = fresh_server(), fresh_server(**{"rocksdb.write_buffer_size": 1})
    for server in (one, other):
        fill(server, 2000)
    with one.conn() as first, other.conn() as second:
        here, there = ask(first), ask(second)
        assert here.replid != there.replid
        assert here._replace(replid=b"") == there._replace(replid=b"")
        assert second.ask("SET", "key:7", "other") == b"+OK\r\n"
        assert ask(second).digest != here.digest
        assert second.ask("SET", "key:7", b"") == b"+OK\r\n"
        assert second.ask("PEXPIREAT", "key:t7", 4_000_000_000_001) == b":1\r\n"
        assert ask(second).digest != here.digest
        assert second.ask("PEXPIREAT", "key:t7", 4_000_000_000_000) == b":1\r\n"
        assert ask(second).digest == here.digest
        assert second.ask("DEL", "key:8") == b":1\r\n"
        gone = ask(second)
        assert (gone.digest != here.digest, gone.keys) == (True, here.keys - 1)


def test_it_stays_through_a_restart(fresh_server: FreshServer) -> None:
    server = fresh_server()
    fill(server, 100)
    with server.conn() as conn:
        before = ask(conn)
    server.kill9()
    server.start()
    with server.conn() as conn:
        after = ask(conn)
    assert (after.digest, after.keys) == (before.digest, before.keys)


def test_a_client_sees_its_own_writes(server: Server) -> None:
    with server.conn() as conn:
        digests = set()
        for number in range(5):
            conn.send(encode_command("SET", "own", number) + encode_command("REPLDIGEST"))
            assert conn.reply() == b"+OK\r\n"
            digests.add(parse(conn.reply()).digest)
        assert len(digests) == 5


# -- AT ----------------------------------------------------------------------------------------


def test_at_the_present_position_and_a_passed_one(server: Server) -> None:
    with server.conn() as conn:
        assert conn.ask("SET", "a", 1) == b"+OK\r\n"
        now = ask(conn)
        assert ask(conn, "AT", now.position) == now
        assert conn.ask("SET", "a", 2) == b"+OK\r\n"
        passed = b"-ERR position %d has passed, this server is at %d\r\n"
        answer = conn.ask("REPLDIGEST", "at", now.position)
        assert answer == passed % (now.position, now.position + 1)


def test_at_waits_for_the_position(server: Server) -> None:
    with server.conn() as conn, server.conn() as writer:
        position = ask(conn).position
        conn.send(encode_command("REPLDIGEST", "AT", position + 2, "TIMEOUT", 0))
        wait_until(lambda: b"blocked_clients:1" in writer.ask("INFO", "clients"))
        assert writer.ask("SET", "a", 1) == b"+OK\r\n"
        assert b"blocked_clients:1" in writer.ask("INFO", "clients")
        assert writer.ask("SET", "a", 2) == b"+OK\r\n"
        assert writer.ask("SET", "a", 3) == b"+OK\r\n"
        reply = parse(conn.reply())
        assert reply.position == position + 2
        assert ask(writer).digest != reply.digest
        assert writer.ask("SET", "a", 2) == b"+OK\r\n"
        assert ask(writer).digest == reply.digest
        assert conn.ask("PING") == b"+PONG\r\n"


def test_time_is_up(server: Server) -> None:
    with server.conn() as conn:
        position = ask(conn).position
        assert conn.ask("REPLDIGEST", "AT", position + 1, "TIMEOUT", 20) == NULL
        assert conn.ask("SET", "a", 1) == b"+OK\r\n"
        assert ask(conn).position == position + 1


def test_client_unblock_and_a_lost_connection(server: Server) -> None:
    with server.conn() as conn, server.conn() as lost, server.conn() as admin:
        client_id = conn.ask("CLIENT", "ID")[1:-2]
        position = ask(conn).position
        for one in (conn, lost):
            one.send(encode_command("REPLDIGEST", "AT", position + 1))
        wait_until(lambda: b"blocked_clients:2" in admin.ask("INFO", "clients"))
        lost.close()
        assert admin.ask("CLIENT", "UNBLOCK", client_id, "ERROR") == b":1\r\n"
        assert conn.reply().startswith(b"-UNBLOCKED ")
        wait_until(lambda: b"blocked_clients:0" in admin.ask("INFO", "clients"))
        assert admin.ask("SET", "a", 1) == b"+OK\r\n"
        assert ask(admin).position == position + 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("AT", b"-ERR syntax error"),
        ("NOW", b"-ERR syntax error"),
        ("TIMEOUT 5", b"-ERR syntax error"),
        ("TIMEOUT 5 AT 1", b"-ERR syntax error"),
        ("AT 1 TIMEOUT", b"-ERR syntax error"),
        ("AT x", b"-ERR position is not an integer or out of range"),
        ("AT -1", b"-ERR position is not an integer or out of range"),
        ("AT 1 TIMEOUT x", b"-ERR timeout is not an integer or out of range"),
        ("AT 1 TIMEOUT -1", b"-ERR timeout is negative"),
    ],
)
def test_arguments(server: Server, words: str, error: bytes) -> None:
    with server.conn() as conn:
        assert conn.ask("REPLDIGEST", *words.split()) == error + b"\r\n"


def test_not_in_a_transaction(server: Server) -> None:
    with server.conn() as conn:
        assert conn.ask("MULTI") == b"+OK\r\n"
        refused = b"-ERR Command not allowed inside a transaction\r\n"
        assert conn.ask("REPLDIGEST") == refused
        assert conn.ask("EXEC").startswith(b"-EXECABORT")


# -- when RocksDB is opened again ------------------------------------------------------------------


def test_rocksdb_is_opened_again(fresh_server: FreshServer) -> None:
    """Walks under way end with the error; who waits for a position goes on waiting."""
    server = fresh_server(**{"rocksdb.write_buffer_size": 1, "loglevel": "debug"})
    fill(server, 10_000)
    load, fault = Load(server, "reopen", 1), FileSizeLimit()
    with server.conn() as waiter, server.conn() as first, server.conn() as second:
        refused: list[bytes] = []

        def walk(conn: Conn) -> None:
            conn.send(encode_command("REPLDIGEST") * 1000)
            while not (reply := conn.reply()).startswith(b"-"):
                assert reply.startswith(b"*5\r\n")
            refused.append(reply)

        load.start()
        wait_until(lambda: load.acked > 100, what="writers write")
        fault.begin(server)
        wait_until(lambda: "the server is read-only" in server.log_text(), what="it failed")
        wanted = ask(waiter).position + 100
        waiter.send(encode_command("REPLDIGEST", "AT", wanted))
        walks = [threading.Thread(target=walk, args=(conn,)) for conn in (first, second)]
        for thread in walks:
            thread.start()
        fault.end(server)
        reply = parse(waiter.reply())
        load.stop()
        for thread in walks:
            thread.join()
        # One of the two may have been between two walks.
        assert any(error.startswith(b"-MISCONF ") for error in refused)
    known = digests_by_log(server.directory / "db", {reply.position})
    assert known == {reply.position: (reply.digest, reply.keys)}
    assert reply.position >= wanted


def test_a_walk_that_is_ended_lets_go_of_rocksdb(tmp_path: Path) -> None:
    """Or the iterators would keep the directory locked."""
    with LaterCore(tmp_path / "db") as core:
        client = core.client()
        for begun in (False, True):
            client.ask(b"SET", b"a", b"1")
            client.call(b"REPLDIGEST")
            core.end_turn()
            if begun:
                core.server.waiting.step_walks(1)
            core.server.waiting.abort_walks(misconf("test"))
            core.end_turn()
            assert client.take().startswith(b"-MISCONF ")
            core.engine.reopen()
            core.turn.reload()


# -- what a reply depends on -----------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_reply_waits_for_the_fsync_of_what_it_saw(node: Node, ahead: int) -> None:
    node.log.set_wait_for_sync(True)
    client, writer = node.client(), node.client()
    if ahead:
        client.call(b"REPLDIGEST", b"AT", b"%d" % (node.log.committed_seq + 1))
        node.end()
    writer.call(b"SET", b"a", b"1")
    if not ahead:
        client.call(b"REPLDIGEST")
    node.end()
    assert (client.take(), writer.take()) == (b"", b"")
    node.sync()()
    node.end()
    assert parse(client.take()).position == node.log.committed_seq
    assert writer.take() == b"+OK\r\n"


def test_a_failed_commit_reaches_no_position(node: Node) -> None:
    client, writer = node.client(), node.client()
    wanted = node.log.committed_seq + 1
    client.call(b"REPLDIGEST", b"AT", b"%d" % wanted)
    node.fail()
    writer.call(b"SET", b"a", b"1")
    node.end()
    assert client.take() == b""
    node.dispatcher.lower_gate(-1)
    node.log.failed = False
    writer.call(b"SET", b"a", b"2")
    node.end()
    assert parse(client.take()).position == wanted


def test_the_view_is_that_of_the_position_though_the_turn_goes_on(node: Node) -> None:
    """Batches are cut within a turn: the position may be followed by others before it ends."""
    client, writer = node.client(), node.client()
    wanted = node.log.committed_seq + 1
    client.call(b"REPLDIGEST", b"AT", b"%d" % wanted)
    writer.call(b"SET", b"a", b"x" * (2 << 20))
    for number in range(3):
        writer.call(b"SET", b"b", b"%d" % number)
    assert node.log.committed_seq == wanted < node.log.last_seq
    node.end()
    assert parse(client.take())[::4] == (wanted, 1)


# -- on a replica ----------------------------------------------------------------------------------


def sent(db_path: Path) -> Iterator[Frame]:
    """What a primary sends of its log."""
    for batch, families in batches(db_path):
        epoch, first, last, unix_ms = STAMP.unpack(families[LOG][STAMP_KEY])
        payload = batch.payload[BATCH_HEADER:]
        yield Frame(frames.DATA, epoch, first, last, batch.count, unix_ms, payload)


def finished(core: Core, client: Client) -> bytes:
    core.end_turn()
    while core.server.waiting.walks:
        core.server.waiting.step_walks(1_000_000_000)
        core.end_turn()
    return client.take()


def test_frames_bring_the_position(tmp_path: Path) -> None:
    """Primary and replica, asked for the same position, digest the same batch; and the digest of
    either is that of the other."""
    with LaterCore(tmp_path / "primary") as primary, LaterCore(tmp_path / "replica") as replica:
        writer, reader = primary.client(), replica.client()
        position = primary.log.committed_seq
        asked = [primary.client() for _ in range(10)]
        waiting = [replica.client() for _ in range(10)]
        for number, client in enumerate([*asked, *waiting]):
            client.call(b"REPLDIGEST", b"AT", b"%d" % (position + 1 + number % 10))
        for number in range(5):
            for key in (b"a", b"b", b"c"):
                writer.call(b"SET", key, b"%d" % number, b"PX", b"100000")
            finished(primary, writer)
        writer.ask(b"FLUSHALL")
        theirs = [parse(finished(primary, client)) for client in asked]
        for frame in sent(tmp_path / "primary"):
            replica.log.apply(frame)
        assert [parse(finished(replica, client)) for client in waiting] == theirs
        assert [reply.position - position for reply in theirs] == [3, 3, 3, 6, 6, 6, 9, 9, 9, 12]
        for core, client in ((primary, writer), (replica, reader)):
            client.take()
            client.call(b"REPLDIGEST")
            theirs.append(parse(finished(core, client)))
        assert theirs[-1] == theirs[-2]
        assert theirs[-1].keys == 0


def test_a_rewound_data_set_has_no_digest_until_it_is_its_primarys(tmp_path: Path) -> None:
    with LaterCore(tmp_path / "db") as core:
        writer, client = core.client(), core.client()
        writer.ask(b"SET", b"a", b"1")
        position = core.log.committed_seq
        core.log.install(
            [
                (PUT, LOG, UNTIL_KEY, UNTIL.pack(position + 2, 0)),
                (PUT, LOG, STAMP_KEY, STAMP.pack(core.log.epoch, position + 1, position, 1)),
            ]
        )
        assert client.ask(b"REPLDIGEST").startswith(LOADING)
        clients = [core.client(), core.client()]
        for ahead, one in enumerate(clients):
            one.call(b"REPLDIGEST", b"AT", b"%d" % (position + 1 + ahead))
        writer.ask(b"SET", b"a", b"2")
        core.run_later()
        assert clients[0].take().startswith(LOADING)
        writer.ask(b"SET", b"a", b"3")
        assert parse(finished(core, clients[1])).position == position + 2


def test_a_position_that_another_data_set_is_beyond(tmp_path: Path) -> None:
    """A full sync brings a data set in one go: the position may be passed without its batch."""
    with LaterCore(tmp_path / "db") as core:
        client, other, writer = core.client(), core.client(), core.client()
        position = core.log.committed_seq
        client.call(b"REPLDIGEST", b"AT", b"%d" % (position + 2))
        other.call(b"REPLDIGEST", b"AT", b"%d" % (position + 5))
        batch = core.engine.batch()
        stamp = STAMP.pack(1, position + 4, position + 7, 1)
        core.engine.batch_put(batch, LOG, STAMP_KEY, stamp)
        core.engine.write(batch)
        core.turn.reload()
        core.run_later()
        assert client.take().startswith(b"-ERR position %d has passed" % (position + 2))
        assert parse(finished(core, other)).position == position + 7
        assert writer.ask(b"PING") == b"+PONG\r\n"


# -- how it is walked ------------------------------------------------------------------------------


def test_steps_are_short(tmp_path: Path) -> None:
    """Neither many rows nor a large one are hashed in one step."""
    with LaterCore(tmp_path / "db") as core:
        client = core.client()
        for number in range(1000):
            client.call(b"SET", b"%d" % number, b"x")
        client.call(b"SET", b"large", b"x" * (8 * digest.STEP_BYTES))
        core.end_turn()
        steps = list(digest.View(core.engine).digest())
        assert len(steps) > 1000 // digest.STEP_ROWS + 8
