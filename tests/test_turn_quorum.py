"""Replies that wait until enough replicas have their position, and positions that go back."""

from __future__ import annotations

import pytest
from faulty_core import MISCONF, NIL, OK, REASON, Node, bulk, run
from faulty_core import node as node

from kvserver.codec import STAMP, STAMP_KEY
from kvserver.errors import RedisError
from kvserver.storage.commitlog import LOG
from kvserver.storage.wal_batch import PUT, Record

GIVEN_UP = RedisError("NOREPLICAS nobody has it")
NOREPLICAS = b"-NOREPLICAS nobody has it\r\n"
DEMOTED = RedisError("UNBLOCKED by a change of roles")
UNBLOCKED = b"-UNBLOCKED by a change of roles\r\n"


@pytest.fixture
def quorate(node: Node) -> Node:
    """A node whose replies wait for a replica."""
    node.log.set_quorum(1)
    return node


def acknowledge(node: Node, seq: int) -> None:
    """The replica has everything up to `seq`."""
    node.log.acknowledged(seq)
    node.turn.released()


def rewind(node: Node, seq: int, *records: Record) -> None:
    """A primary takes back what came after `seq`."""
    node.log.install([*records, (PUT, LOG, STAMP_KEY, STAMP.pack(node.log.epoch, seq + 1, seq, 0))])
    node.turn.rewound(DEMOTED)


def test_replies_wait_for_the_acknowledgement_that_covers_them(quorate: Node) -> None:
    first, second, reader, other = (quorate.client() for _ in range(4))
    run(first, "SET", "a", "1")
    quorate.end()
    run(second, "SET", "b", "1")
    quorate.end()
    run(reader, "GET", "b")
    run(other, "GET", "c")
    quorate.end()
    assert other.take() == NIL
    acknowledge(quorate, 1)
    assert (first.take(), second.take(), reader.take()) == (OK, b"", b"")
    acknowledge(quorate, 2)
    assert (second.take(), reader.take()) == (OK, bulk(b"1"))
    run(reader, "DBSIZE")
    quorate.end()
    assert reader.take() == b":2\r\n"


def test_an_fsync_is_not_begun_for_a_quorum(quorate: Node) -> None:
    asked: list[int] = []
    quorate.turn.on_unsynced = lambda: asked.append(quorate.log.committed_seq)
    run(quorate.client(), "SET", "a", "1")
    quorate.end()
    assert asked == []
    quorate.log.set_wait_for_sync(True)
    run(quorate.client(), "SET", "a", "1")
    quorate.end()
    assert asked == [2]


def test_replies_wait_for_both_fsync_and_quorum(quorate: Node) -> None:
    quorate.log.set_wait_for_sync(True)
    client = quorate.client()
    run(client, "SET", "a", "1")
    quorate.end()
    quorate.sync()()
    assert client.take() == b""
    run(client, "SET", "a", "2")
    quorate.end()
    acknowledge(quorate, 2)
    assert client.take() == OK
    quorate.sync()()
    assert client.take() == OK


def test_who_waited_too_long_gets_an_error_and_nobody_else(quorate: Node) -> None:
    first, second, reader, running = (quorate.client() for _ in range(4))
    run(first, "SET", "a", "1")
    quorate.end()
    run(reader, "GET", "a")
    quorate.end()
    run(second, "SET", "b", "1")
    quorate.end()
    run(running, "SET", "c", "1")  # its turn hasn't ended
    quorate.turn.fail_unreleased(1, GIVEN_UP)
    quorate.log.give_up(1)
    quorate.turn.released()
    assert (first.take(), reader.take(), second.take()) == (NOREPLICAS, NOREPLICAS, b"")
    run(reader, "GET", "a")
    quorate.end()
    assert reader.take() == bulk(b"1"), "what was given up is there, and waits no more"
    acknowledge(quorate, 3)
    assert (second.take(), running.take()) == (OK, OK)


def test_what_was_given_up_still_waits_for_its_fsync(quorate: Node) -> None:
    quorate.log.set_wait_for_sync(True)
    client = quorate.client()
    run(client, "SET", "a", "1")
    quorate.end()
    quorate.turn.fail_unreleased(1, GIVEN_UP)
    quorate.log.give_up(1)
    quorate.turn.released()
    assert client.take() == b""
    quorate.sync()()
    assert client.take() == NOREPLICAS


def test_a_failed_commit_leaves_what_is_committed_to_the_quorum(quorate: Node) -> None:
    first, second = quorate.client(), quorate.client()
    run(first, "SET", "a", "1")
    quorate.end()
    quorate.fail()
    run(second, "SET", "b", "1")
    quorate.end()
    quorate.engine.reopen()
    assert quorate.turn.reload() == 0
    assert (first.take(), second.take()) == (b"", b"")
    acknowledge(quorate, 1)
    assert (first.take(), second.take()) == (OK, MISCONF)


def test_a_failed_fsync_ends_the_waiting(quorate: Node) -> None:
    client = quorate.client()
    run(client, "SET", "a", "1")
    quorate.end()
    quorate.turn.fail_sync(REASON)
    assert client.take() == MISCONF
    assert not quorate.log.unsettled


def test_turning_the_quorum_off_releases_what_waits(quorate: Node) -> None:
    client = quorate.client()
    run(client, "SET", "a", "1")
    quorate.end()
    quorate.log.set_quorum(0)
    quorate.turn.released()
    assert client.take() == OK


# -- positions that go back ------------------------------------------------------------------------


def test_who_waits_for_a_position_that_is_gone_gets_an_error(quorate: Node) -> None:
    first, second = quorate.client(), quorate.client()
    for client, key in ((first, "a"), (second, "b")):
        run(client, "SET", key, "1")
        quorate.end()
    rewind(quorate, 1)
    assert (first.take(), second.take()) == (OK, UNBLOCKED)
    for client in (first, second):
        run(client, "PING")
        quorate.end()
        assert client.take() == b"+PONG\r\n"


def test_a_walk_that_saw_what_is_gone_fails(quorate: Node) -> None:
    client, walker = quorate.client(), quorate.client()
    for number in range(2000):
        run(client, "SET", f"key{number}", "1")
    quorate.end()
    run(walker, "KEYS", "*")
    quorate.server.waiting.step_walks(1)
    assert quorate.server.waiting.walks, "it takes several steps"
    rewind(quorate, 0)
    quorate.end()
    assert client.take() == UNBLOCKED * 2000
    assert walker.take() == UNBLOCKED


def test_nobody_depends_on_a_position_that_is_gone(node: Node) -> None:
    client = node.client()
    for number in range(5):
        run(client, "SET", "a", str(number))
        node.end()
    assert client.take() == OK * 5
    assert client.session.depends == 5
    rewind(node, 2)
    run(client, "PING")
    node.end()
    assert client.take() == b"+PONG\r\n"
    node.log.set_quorum(1)
    run(client, "SET", "a", "again")
    node.end()
    assert client.take() == b""
    acknowledge(node, 3)
    assert client.take() == OK


def test_an_era_waits_for_nobody(quorate: Node) -> None:
    """And no reply waits for it, but one that follows it."""
    client = quorate.client()
    quorate.log.begin_epoch()
    run(client, "GET", "a")
    assert quorate.turn.commit()
    quorate.end()
    assert client.take() == NIL
    run(client, "SET", "a", "1")
    quorate.end()
    assert client.take() == b""
    acknowledge(quorate, 2)
    assert client.take() == OK


def test_emptying_what_is_empty_waits_for_what_emptied_it(quorate: Node) -> None:
    """Otherwise it would be answered with OK, and the keys be there again after a promotion."""
    first, second = quorate.client(), quorate.client()
    run(first, "SET", "a", "1")
    quorate.end()
    acknowledge(quorate, 1)
    assert first.take() == OK
    run(first, "FLUSHDB")
    quorate.end()
    run(second, "FLUSHALL")
    quorate.end()
    assert (first.take(), second.take()) == (b"", b"")
    quorate.turn.fail_unreleased(2, DEMOTED)
    quorate.log.give_up(2)
    quorate.turn.released()
    assert (first.take(), second.take()) == (UNBLOCKED, UNBLOCKED)
