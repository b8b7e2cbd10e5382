"""Flow control seen from the inside: when a session stops, and that only the right event makes it
go on. What a client sees of it is in test_protocol.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from core import LaterCore

from kvserver.edge.clients import Clients
from kvserver.state.pause import WRITES
from kvserver.state.session import BLOCKED, OUTPUT_FULL, TURN_OUTPUT_BYTES

MIB = 1 << 20


@pytest.fixture
def core(tmp_path: Path) -> Iterator[LaterCore]:
    with LaterCore(tmp_path / "db") as core:
        yield core


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[LaterCore]:
    """With replies that wait for an fsync."""
    with LaterCore(tmp_path / "db", appendfsync="always") as core:
        core.log.set_wait_for_sync(True)
        yield core


def test_a_large_reply_lets_the_others_have_their_turn(core: LaterCore) -> None:
    client = core.client()
    client.ask(b"SET", b"k", bytes(TURN_OUTPUT_BYTES))
    client.call(b"GET", b"k")
    assert client.session.stop == OUTPUT_FULL
    core.end_turn()
    assert client.session.stop == 0
    assert client.resumed == 1


def test_messages_do_not_wake_who_waits(core: LaterCore) -> None:
    """However large they are."""
    client = core.client(resp3=True)
    core.server.pauses.pause("client", core.server.keyspace.now + 100_000, WRITES)
    client.call(b"SET", b"k", b"v")
    client.session.send(bytes(2 * MIB))
    assert client.session.stop == BLOCKED | OUTPUT_FULL
    core.end_turn()
    assert len(client.take()) == 2 * MIB
    assert client.session.stop == BLOCKED
    assert client.resumed == 0
    core.server.pauses.unpause("client")
    core.run_later()
    assert client.take() == b"+OK\r\n"
    assert client.session.stop == 0
    assert client.resumed == 1


def test_replies_that_wait_for_an_fsync_stop_their_session(strict: LaterCore) -> None:
    """The client could go on sending while the disk is slow."""
    client = strict.client()
    client.call(b"SET", b"k", bytes(300_000))
    turns = 0
    while not client.session.stop:
        client.call(b"GET", b"k")
        strict.end_turn()
        turns += 1
        assert turns < 10
    assert client.session.stop == OUTPUT_FULL
    assert client.take() == b""
    sync(strict)
    assert client.session.stop == 0
    assert client.resumed == 1
    assert client.take() == b"+OK\r\n" + (b"$300000\r\n" + bytes(300_000) + b"\r\n") * turns


def sync(core: LaterCore) -> None:
    """An fsync of everything ends."""
    seq = core.log.begin_sync()
    assert seq is not None
    core.log.end_sync(seq)
    core.turn.released()


def test_output_that_waits_counts_for_its_limit(strict: LaterCore) -> None:
    strict.server.config.set_many([("client-output-buffer-limit", "normal 1mb 0 0")])
    clients, client = Clients(strict.server), strict.client()
    client.call(b"SET", b"k", bytes(600_000))
    for _ in range(2):
        assert not client.closed
        client.call(b"GET", b"k")
        strict.end_turn()
    assert client.closed
    assert clients.server.stats.output_buffer_disconnections == 1


def test_a_session_that_is_gone_is_sent_nothing(core: LaterCore) -> None:
    clients, client = Clients(core.server), core.client()
    client.call(b"PING")
    clients.unregister(client.session)
    core.end_turn()
    assert client.take() == b""
    assert not core.server.sessions
