"""Turn and CommitLog over a real RocksDB whose writes and fsyncs fail, or stall, on demand.

The tests play the event loop: they run commands through the dispatcher, end the turn, and finish
fsyncs, so that each order of events can be set up exactly. What the edge does with real
processes and a real full disk is in test_recovery.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from core import Client, Core

from kvserver import codec, errors
from kvserver.state.dispatch import FAILED, STALLED
from kvserver.state.session import REPLY_OFF
from kvserver.storage.commitlog import BATCH_CUT_BYTES, EngineError, EngineStalled

REASON = "IO error: No space left on device"
MISCONF = b"-MISCONF Errors writing to the AOF file: " + REASON.encode() + b"\r\n"
OK = b"+OK\r\n"
NIL = b"$-1\r\n"


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


class Node(Core):
    """A core that reacts to stalls and failures as the edge does, but doesn't recover."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stalls = 0
        self.failures: list[str] = []
        self.turn.on_stall = self._stalled
        self.turn.on_failure = self._failed
        self._write = self.engine.write

    def _stalled(self) -> None:
        self.stalls += 1
        self.dispatcher.raise_gate(STALLED)

    def _failed(self, reason: str) -> None:
        self.failures.append(reason)
        self.log.failed = True
        self.dispatcher.failure = reason
        self.dispatcher.raise_gate(FAILED)

    def next_writes(self, *faults: Exception) -> None:
        """The next writes to RocksDB raise these; those after them work."""
        left = list(faults)

        def write(batch: object) -> None:
            if left:
                raise left.pop(0)
            self._write(batch)  # type: ignore[arg-type]

        self.engine.write = write  # type: ignore[method-assign]

    def fail(self) -> None:
        self.next_writes(EngineError(REASON))

    def stall(self) -> None:
        self.next_writes(EngineStalled("Result incomplete: Write stall"))

    def end(self) -> None:
        """End the turn, and go on as long as walks have something to do."""
        self.end_turn()
        while self.dispatcher.walks:
            self.dispatcher.step_walks(1_000_000_000)
            self.end_turn()

    def sync(self) -> Callable[[], None]:
        """Begin an fsync; the returned function is its success."""
        seq = self.log.begin_sync()
        assert seq is not None

        def finish() -> None:
            self.log.end_sync(seq)
            self.turn.released()

        return finish


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path / "db") as node:
        yield node


def run(client: Client, *words: bytes | str) -> None:
    """Execute a command in the running turn."""
    client.call(*(word if isinstance(word, bytes) else word.encode() for word in words))


# -- a failed commit --------------------------------------------------------------------------


def test_only_replies_that_depend_on_the_failed_batch_become_errors(node: Node) -> None:
    writer, reader, other = node.client(), node.client(), node.client()
    run(writer, "SET", "old", "1")
    node.end()
    assert writer.take() == OK
    node.fail()
    run(other, "GET", "old")
    run(writer, "SET", "new", "2")
    run(reader, "GET", "old")
    run(reader, "GET", "new")
    run(reader, "GET", "missing")
    run(reader, "PING")
    node.end()
    assert writer.take() == MISCONF
    assert reader.take() == bulk(b"1") + MISCONF + NIL + b"+PONG\r\n"
    assert other.take() == bulk(b"1")
    assert node.failures == [REASON]


def test_rows_counts_and_expiry_go_back_to_the_last_commit(node: Node) -> None:
    client = node.client()
    run(client, "SET", "kept", "1")
    run(client, "SET", "timed", "1", "EX", "1000")
    node.end()
    before = [db.figures() for db in node.server.keyspace.databases]
    client.take()
    node.fail()
    run(client, "SET", "kept", "2")
    run(client, "DEL", "timed")
    run(client, "SET", "new", "1", "PX", "5000")
    run(client, "SELECT", "1")
    run(client, "SET", "new", "1")
    run(client, "FLUSHALL")
    run(client, "SELECT", "0")
    node.end()
    node.dispatcher.lower_gate(FAILED)
    client.take()
    assert [db.figures() for db in node.server.keyspace.databases] == before
    for command, reply in (
        (("GET", "kept"), bulk(b"1")),
        (("TTL", "timed"), b":1000\r\n"),
        (("EXISTS", "new"), b":0\r\n"),
        (("DBSIZE",), b":2\r\n"),
    ):
        run(client, *command)
        node.end()
        assert client.take() == reply, command
    index = list(node.log.expiry.scan(b"\0", b"\xff"))
    assert [codec.user_key(codec.split_expiry_key(key)[1]) for key, _ in index] == [b"timed"]


def test_the_next_commit_takes_the_position_of_the_failed_one(node: Node) -> None:
    client = node.client()
    node.fail()
    run(client, "SET", "a", "1")
    node.end()
    assert (node.log.committed_seq, node.log.last_seq) == (0, 0)
    node.dispatcher.lower_gate(FAILED)
    run(client, "SET", "a", "2")
    node.end()
    assert client.take() == MISCONF + OK
    assert (node.log.committed_seq, node.log.released_seq) == (1, 1)
    assert node.turn.reload() == 0
    run(client, "GET", "a")
    node.end()
    assert client.take() == bulk(b"2")


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1"])
def test_a_read_after_an_emptied_database_depends_on_that(node: Node, command: str) -> None:
    client, reader = node.client(), node.client()
    run(client, "SET", "a", "1")
    node.end()
    client.take()
    node.fail()
    run(client, *command.split())
    run(reader, "GET", "a")
    node.end()
    assert (client.take(), reader.take()) == (MISCONF, MISCONF)
    run(reader, "GET", "a")
    node.end()
    assert reader.take() == bulk(b"1")


def test_a_transaction_fails_as_a_whole(node: Node) -> None:
    client = node.client()
    node.fail()
    for command in ("MULTI", "SET a 1", "INCR b", "EXEC", "PING"):
        run(client, *command.split())
    node.end()
    assert client.take() == OK + b"+QUEUED\r\n" * 2 + MISCONF + b"+PONG\r\n"
    run(client, "GET", "b")
    node.end()
    assert client.take() == NIL


def test_messages_of_a_failed_write_are_not_delivered(node: Node) -> None:
    node.server.notifier.flags = -1
    client, subscriber = node.client(), node.client()
    run(subscriber, "PSUBSCRIBE", "*")
    node.end()
    subscriber.take()
    node.fail()
    run(client, "SET", "a", "1")
    run(client, "PUBLISH", "news", "told")
    node.end()
    assert client.take() == MISCONF + b":1\r\n"
    words = (b"pmessage", b"*", b"news", b"told")
    assert subscriber.take() == b"*4\r\n" + b"".join(map(bulk, words))


def test_a_muted_reply_stays_muted(node: Node) -> None:
    client = node.client()
    client.session.gate |= REPLY_OFF
    node.fail()
    run(client, "SET", "a", "1")
    node.end()
    assert client.take() == b""


def test_a_walk_that_saw_the_failed_batch_fails(node: Node) -> None:
    client, walker = node.client(), node.client()
    run(client, "SET", "old", "1")
    node.end()
    client.take()
    node.fail()
    run(client, "SET", "new", "1")
    run(walker, "KEYS", "*")
    node.end()
    assert (client.take(), walker.take()) == (MISCONF, MISCONF)
    run(walker, "KEYS", "*")
    node.end()
    assert walker.take() == b"*1\r\n" + bulk(b"old")


def test_a_cut_batch_fails_in_the_middle_of_a_turn(node: Node) -> None:
    client, other = node.client(), node.client()
    node.fail()
    run(client, "SET", "large", b"x" * (BATCH_CUT_BYTES + 1))
    assert node.failures == [REASON]
    run(client, "SET", "small", "1")
    run(other, "GET", "large")
    node.end()
    assert client.take() == MISCONF + MISCONF
    assert other.take() == NIL


def test_a_batch_that_cannot_be_built_is_dropped(node: Node) -> None:
    client, other = node.client(), node.client()
    run(client, "SET", "a", "1")
    node.log.rows.pending[b"not bytes"] = 7  # type: ignore[assignment]
    run(other, "PING")
    node.end()
    assert client.take() == b"-ERR internal error\r\n"
    assert other.take() == b"+PONG\r\n"
    assert node.failures == []
    run(client, "SET", "a", "1")
    node.end()
    assert client.take() == OK


# -- a stall ------------------------------------------------------------------------------------


def test_a_stall_holds_writers_and_their_readers_back_and_nobody_else(node: Node) -> None:
    writer, reader, other = node.client(), node.client(), node.client()
    node.stall()
    run(writer, "SET", "a", "1")
    run(reader, "GET", "a")
    run(reader, "PING")
    run(other, "GET", "b")
    node.end()
    assert (writer.take(), reader.take(), other.take()) == (b"", b"", NIL)
    run(other, "INCR", "a")
    run(other, "PING")  # its INCR is parked: a connection would not execute this yet
    node.end()
    assert other.take() == b"+PONG\r\n"
    assert node.stalls == 1, "a turn without a retry doesn't try to write"
    assert node.turn.commit()
    node.dispatcher.lower_gate(STALLED)
    node.dispatcher.run_parked()
    node.end()
    assert writer.take() == OK
    assert reader.take() == bulk(b"1") + b"+PONG\r\n"
    assert other.take() == b":2\r\n"


def test_a_stall_that_ends_in_a_failure_answers_those_held_back(node: Node) -> None:
    writer, reader = node.client(), node.client()
    node.stall()
    run(writer, "SET", "a", "1")
    run(reader, "GET", "a")
    node.end()
    node.next_writes(EngineStalled(""), EngineError(REASON))
    assert not node.turn.commit()
    assert not node.turn.commit()
    assert (writer.take(), reader.take()) == (MISCONF, MISCONF)
    assert not node.log.pending


# -- waiting for fsync ----------------------------------------------------------------------------


@pytest.fixture
def strict(node: Node) -> Node:
    """A node with `appendfsync always`."""
    node.log.set_wait_for_sync(True)
    return node


def test_replies_wait_for_the_fsync_that_covers_them(strict: Node) -> None:
    first, second = strict.client(), strict.client()
    run(first, "SET", "a", "1")
    strict.end()
    finish = strict.sync()
    run(second, "SET", "b", "1")
    strict.end()
    assert first.take() == b""
    finish()
    assert (first.take(), second.take()) == (OK, b"")
    strict.sync()()
    assert second.take() == OK


def test_a_read_waits_only_for_rows_that_it_saw(strict: Node) -> None:
    writer, reader, other = strict.client(), strict.client(), strict.client()
    run(other, "SET", "b", "1")
    strict.end()
    strict.sync()()
    assert other.take() == OK
    run(writer, "SET", "a", "1")
    strict.end()
    for _ in range(2):  # before and during the fsync
        run(reader, "GET", "a")
        run(other, "GET", "b")
        run(other, "EXISTS", "c")
        strict.end()
        assert (reader.take(), other.take()) == (b"", bulk(b"1") + b":0\r\n")
        if not strict.log._syncing:
            finish = strict.sync()
    finish()
    assert reader.take() == bulk(b"1") * 2
    assert writer.take() == OK


@pytest.mark.parametrize("command", ["FLUSHALL", "SWAPDB 0 1"])
def test_a_read_waits_for_an_emptied_database(strict: Node, command: str) -> None:
    client, reader = strict.client(), strict.client()
    run(client, "SET", "a", "1")
    strict.end()
    strict.sync()()
    client.take()
    run(client, *command.split())
    strict.end()
    run(reader, "GET", "a")
    strict.end()
    assert reader.take() == b""
    strict.sync()()
    assert (client.take(), reader.take()) == (OK, NIL)
    run(reader, "GET", "a")
    strict.end()
    assert reader.take() == NIL


def test_replies_of_a_client_stay_in_order(strict: Node) -> None:
    client = strict.client()
    run(client, "SET", "a", "1")
    run(client, "PING")
    strict.end()
    run(client, "GET", "b")
    strict.end()
    assert client.take() == b""
    finish = strict.sync()
    run(client, "SET", "b", "2")
    run(client, "GET", "b")
    strict.end()
    finish()
    assert client.take() == OK + b"+PONG\r\n" + NIL
    strict.sync()()
    assert client.take() == OK + bulk(b"2")


def test_a_failed_fsync_tells_everybody_who_waited(strict: Node) -> None:
    first, second, reader, other = (strict.client() for _ in range(4))
    run(first, "SET", "a", "1")
    strict.end()
    strict.sync()
    run(second, "SET", "b", "1")
    strict.end()
    run(reader, "GET", "a")
    run(other, "GET", "c")
    strict.end()
    run(second, "SET", "c", "1")  # its turn hasn't ended
    strict.turn.fail_sync(REASON)
    strict.end()
    assert first.take() == MISCONF
    assert second.take() == MISCONF * 2
    assert reader.take() == MISCONF
    assert other.take() == NIL
    assert strict.log.begin_sync() is None, "a second fsync would lie"
    run(reader, "GET", "a")
    run(reader, "DBSIZE")
    strict.end()
    assert reader.take() == bulk(b"1") + b":2\r\n", "reads go on, with what is committed"


def test_a_failed_commit_leaves_what_is_committed_to_its_fsync(strict: Node) -> None:
    first, second, reader = strict.client(), strict.client(), strict.client()
    run(first, "SET", "a", "1")
    strict.end()
    finish = strict.sync()
    run(first, "SET", "b", "1")
    strict.end()
    run(reader, "GET", "a")
    strict.end()
    strict.fail()
    run(second, "SET", "c", "1")
    strict.end()
    assert (first.take(), second.take(), reader.take()) == (b"", b"", b"")
    finish()
    assert first.take() == OK
    strict.sync()()
    assert (first.take(), second.take(), reader.take()) == (OK, MISCONF, bulk(b"1"))
    assert strict.log.released_seq == strict.log.committed_seq == 2


def test_an_fsync_that_ends_after_a_failure_takes_nothing_back(strict: Node) -> None:
    client, reader = strict.client(), strict.client()
    run(client, "SET", "a", "1")
    strict.end()
    finish = strict.sync()
    run(client, "SET", "b", "1")
    strict.end()
    strict.turn.fail_sync(REASON)
    finish()
    run(reader, "DBSIZE")
    strict.end()
    assert reader.take() == b":2\r\n"
    assert strict.log.released_seq == 2


def test_turning_always_off_releases_what_waits(strict: Node) -> None:
    client = strict.client()
    run(client, "SET", "a", "1")
    strict.end()
    assert client.take() == b""
    strict.log.set_wait_for_sync(False)
    strict.turn.released()
    assert client.take() == OK


def test_sessions_that_wait_for_nothing_are_not_stuck_after_a_failure(strict: Node) -> None:
    """A walk's session has no output, and yet depends on a position that becomes void."""
    client, walker = strict.client(), strict.client()
    run(client, "SET", "a", "1")
    strict.end()
    strict.sync()()
    strict.fail()
    run(client, "SET", "b", "1")
    run(walker, "SCAN", "0")
    strict.end()
    assert walker.session.depends <= strict.log.released_seq
    walker.take()
    run(walker, "PING")
    run(walker, "GET", "a")
    strict.end()
    assert walker.take() == MISCONF + bulk(b"1")


# -- fsync in RocksDB's failed state ----------------------------------------------------------


def test_the_log_is_synced_after_a_failed_write_too(tmp_path: Path) -> None:
    node = Node(tmp_path / "db")
    calls: list[bool] = []

    class Refusing:
        def flush_wal(self, sync: bool) -> None:
            calls.append(sync)
            raise Exception("IO error: Writer has previous error.")

        def write(self, batch: object, options: object) -> None:
            raise Exception("IO error: While fdatasync: 000004.log: Input/output error")

    db, node.engine._db = node.engine._db, Refusing()
    node.engine.sync_wal()
    assert calls == [True]
    with pytest.raises(EngineError):
        node.engine.write(node.engine.batch())
    with pytest.raises(EngineError):
        node.engine.sync_wal()
    node.engine._db = db
    node.engine.close()


def test_a_closed_engine_answers_with_an_error(node: Node) -> None:
    node.engine.close()
    assert node.engine.closed
    assert node.engine.property_sum("rocksdb.num-immutable-mem-table") == 0
    assert not node.engine.stopped()
    with pytest.raises(EngineError, match="closed"):
        node.engine.get(0, b"a")
    node.engine.reopen()
    assert node.engine.get(0, b"a") is None


# -- opening again ------------------------------------------------------------------------------


def test_writers_held_back_are_run_in_order_of_arrival(node: Node) -> None:
    clients = [node.client() for _ in range(5)]
    node.stall()
    run(clients[0], "SET", "log", "0")
    node.end()
    for number in (3, 1, 4, 2):
        run(clients[number], "APPEND", "log", str(number))
    node.end()
    assert node.turn.commit()
    node.dispatcher.lower_gate(STALLED)
    node.dispatcher.run_parked()
    run(clients[0], "GET", "log")
    node.end()
    assert clients[0].take() == OK + bulk(b"03142")
    assert [client.take() for client in clients[1:]] == [b":3\r\n", b":5\r\n", b":2\r\n", b":4\r\n"]


def test_walks_let_go_of_rocksdb_before_it_is_opened_again(node: Node) -> None:
    client, walker = node.client(), node.client()
    for number in range(2000):
        run(client, "SET", f"key{number}", "1")
    node.end()
    run(walker, "KEYS", "*")
    node.dispatcher.step_walks(1)
    assert node.dispatcher.walks, "it takes several steps"
    node.dispatcher.abort_walks(errors.misconf(REASON))
    node.engine.reopen()
    assert node.turn.reload() == 0
    node.end()
    assert walker.take() == MISCONF
    run(walker, "DBSIZE")
    node.end()
    assert walker.take() == b":2000\r\n"


def test_positions_that_the_disk_lost_are_counted(tmp_path: Path) -> None:
    with Node(tmp_path / "db") as node:
        client = node.client()
        for number in range(10):
            run(client, "SET", f"key{number}", "1")
            node.end()
            if number == 6:
                shutil.copytree(tmp_path / "db", tmp_path / "copy")
        node.engine.close()
        shutil.rmtree(tmp_path / "db")
        (tmp_path / "copy").rename(tmp_path / "db")
        node.engine.reopen()
        assert node.turn.reload() == 3
        client.take()
        run(client, "DBSIZE")
        node.end()
        assert client.take() == b":7\r\n"
