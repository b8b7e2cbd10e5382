"""Replies that wait for an fsync, an fsync that fails, and RocksDB opened again after that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faulty_core import MISCONF, NIL, OK, REASON, Node, bulk, run
from faulty_core import node as node

from kvserver import errors
from kvserver.state.admission import STALLED
from kvserver.storage.commitlog import EngineError

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
    finish = None
    for _ in range(2):  # before and during the fsync
        run(reader, "GET", "a")
        run(other, "GET", "b")
        run(other, "EXISTS", "c")
        strict.end()
        assert (reader.take(), other.take()) == (b"", bulk(b"1") + b":0\r\n")
        if finish is None:
            finish = strict.sync()
    assert finish is not None
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
    assert first.session.held_bytes == 0
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
    node.server.waiting.step_walks(1)
    assert node.server.waiting.walks, "it takes several steps"
    node.server.waiting.abort_walks(errors.misconf(REASON))
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
