"""WAIT and WAITAOF, with acknowledgements and fsyncs that come when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from core import Client
from harness import Server
from replicated_core import OK, ReplicatedCore

UNBLOCKED = (
    b"-UNBLOCKED force unblock from blocking operation, instance state changed "
    b"(master -> replica?)\r\n"
)


@pytest.fixture
def core(tmp_path: Path) -> Iterator[ReplicatedCore]:
    with ReplicatedCore(tmp_path / "db") as core:
        yield core


@pytest.fixture
def client(core: ReplicatedCore) -> Client:
    return core.client()


@pytest.mark.parametrize("words", ["0 0", "x 0", "1 x", "1 -1", "-1 0", "1 10"])
def test_wait_without_replicas_as_by_redis(
    words: str, core: ReplicatedCore, client: Client, oracle: Server
) -> None:
    ours = client.ask(b"WAIT", *words.encode().split())
    if not ours:
        core.run_later()
        ours = client.take()
    assert ours == oracle.conn().ask("WAIT", *words.split())


def test_wait_ends_with_the_acknowledgement(core: ReplicatedCore, client: Client) -> None:
    first, second = core.add_replica(7001), core.add_replica(7002)
    client.ask(b"SET", b"a", b"1")
    seq = core.log.committed_seq
    assert client.ask(b"WAIT", b"2", b"0") == b""
    core.verbs.acknowledge(first, seq)
    core.run_later()
    assert client.take() == b""
    core.verbs.acknowledge(second, seq)
    core.run_later()
    assert client.take() == b":2\r\n"
    assert core.verbs.on_ack == []


def test_wait_looks_at_the_sessions_own_writes(core: ReplicatedCore, client: Client) -> None:
    replica = core.add_replica()
    client.ask(b"SET", b"a", b"1")
    replica.acked_seq = core.log.committed_seq
    core.client().ask(b"SET", b"b", b"1")
    client.ask(b"GET", b"b")
    assert client.ask(b"WAIT", b"1", b"0") == b":1\r\n"


def test_wait_in_the_turn_of_the_write(core: ReplicatedCore, client: Client) -> None:
    replica = core.add_replica()
    replica.acked_seq = core.log.committed_seq
    client.call(b"SET", b"a", b"1")
    client.call(b"WAIT", b"1", b"0")
    core.end_turn()
    assert client.take() == OK
    core.verbs.acknowledge(replica, core.log.committed_seq)
    core.run_later()
    assert client.take() == b":1\r\n"


def test_wait_after_a_time_out_tells_how_many(core: ReplicatedCore, client: Client) -> None:
    core.add_replica(7001).acked_seq = 1 << 40
    core.add_replica(7002)
    client.ask(b"SET", b"a", b"1")
    assert client.ask(b"WAIT", b"2", b"100") == b""
    core.run_later()
    assert client.take() == b":1\r\n"
    assert core.verbs.on_ack == []


def test_wait_in_a_transaction_answers_at_once(core: ReplicatedCore, client: Client) -> None:
    client.ask(b"MULTI")
    client.ask(b"SET", b"a", b"1")
    client.ask(b"WAIT", b"1", b"0")
    client.ask(b"WAITAOF", b"1", b"1", b"0")
    assert client.ask(b"EXEC") == b"*3\r\n+OK\r\n:0\r\n*2\r\n:0\r\n:0\r\n"


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (b"2 0 0", b"value is out of range, value must between 0 and 1"),
        (b"x 0 0", b"value is not an integer or out of range"),
        (b"1 -1 0", b"value is out of range, must be positive"),
        (b"1 0 x", b"timeout is not an integer or out of range"),
        (b"1 0 -1", b"timeout is negative"),
    ],
)
def test_bad_arguments_of_waitaof(words: bytes, reply: bytes, client: Client) -> None:
    assert client.ask(b"WAITAOF", *words.split()) == b"-ERR " + reply + b"\r\n"


def test_waitaof_waits_for_the_disks(core: ReplicatedCore, client: Client) -> None:
    replica = core.add_replica()
    client.ask(b"SET", b"a", b"1")
    seq = core.log.committed_seq
    assert client.ask(b"WAITAOF", b"1", b"1", b"0") == b""
    core.verbs.acknowledge(replica, seq, seq)
    core.run_later()
    assert client.take() == b""
    synced = core.log.begin_sync()
    assert synced is not None
    core.log.end_sync(synced)
    core.verbs.acknowledge(replica, seq, seq)
    core.run_later()
    assert client.take() == b"*2\r\n:1\r\n:1\r\n"


def test_waitaof_on_a_replica(core: ReplicatedCore, client: Client) -> None:
    core.become_replica()
    assert client.ask(b"WAITAOF", b"0", b"0", b"0") == (
        b"-ERR WAITAOF cannot be used with replica instances. Please also note that writes to "
        b"replicas are just local and are not propagated.\r\n"
    )


def test_demotion_ends_what_waits(core: ReplicatedCore, client: Client) -> None:
    client.ask(b"SET", b"a", b"1")
    assert client.ask(b"WAIT", b"1", b"0") == b""
    core.client().ask(b"REPLICAOF", b"h", b"1")
    core.run_later()
    assert client.take() == UNBLOCKED
    assert client.closed
    assert core.verbs.on_ack == []
