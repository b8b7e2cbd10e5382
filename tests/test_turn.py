"""A turn of the loop whose commit fails or stalls: which replies become errors, what is undone."""

from __future__ import annotations

import pytest
from faulty_core import MISCONF, NIL, OK, REASON, Node, bulk, run
from faulty_core import node as node

from kvserver import codec
from kvserver.state.admission import FAILED, STALLED
from kvserver.state.session import REPLY_OFF
from kvserver.storage.commitlog import BATCH_CUT_BYTES, EngineError, EngineStalled

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


def test_replies_between_those_of_a_failed_batch_stay(node: Node) -> None:
    client = node.client()
    node.fail()
    for words in ("SET a 1", "INCR b", "GET none", "PING", "SET c 1", "GET c", "GET none"):
        run(client, *words.split())
    node.end()
    assert client.take() == MISCONF * 2 + NIL + b"+PONG\r\n" + MISCONF * 2 + NIL


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
    node.server.notifier.configure("KEAmn")
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
