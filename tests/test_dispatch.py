"""Dispatch from the inside: walks, and commands that fail unexpectedly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core import Core

from kvserver import errors


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db") as core:
        yield core


def replace_handler(core: Core, name: bytes, handler: Any) -> None:
    core.server.table.names[name].handler = handler


def crash(*_args: Any) -> None:
    raise ZeroDivisionError("a defect")


def test_a_crash_drops_the_pending_batch_and_tells_who_waits_for_it(core: Core) -> None:
    first, second, reader = core.client(), core.client(), core.client()
    second.ask(b"SET", b"kept", b"1")

    def half_done(ctx: Any, key: bytes, *_rest: bytes) -> None:
        ctx.db.put_string(key, b"half")
        crash()

    replace_handler(core, b"APPEND", half_done)
    first.call(b"SET", b"a", b"1")
    reader.call(b"GET", b"kept")
    second.call(b"APPEND", b"b", b"x")
    core.end_turn()
    assert first.take() == second.take() == b"-ERR internal error\r\n"
    assert reader.take() == b"$1\r\n1\r\n"
    assert reader.ask(b"MGET", b"a", b"b") == b"*2\r\n$-1\r\n$-1\r\n"
    assert core.log.last_seq == core.log.committed_seq == 1


def test_a_crash_without_a_write_drops_nothing(core: Core) -> None:
    first, second = core.client(), core.client()
    replace_handler(core, b"ECHO", crash)
    first.call(b"SET", b"a", b"1")
    second.call(b"ECHO", b"x")
    core.end_turn()
    assert first.take() == b"+OK\r\n"
    assert second.take() == b"-ERR internal error\r\n"
    assert core.server.stats.errors["ERR"] == 1


def walk(*steps: Any) -> Any:
    """A handler that walks: each step is None, an exception to raise, or the reply."""

    def generate() -> Iterator[None]:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if step is not None:
                return step
            yield
        return None

    return lambda ctx, *args: generate()


@pytest.mark.parametrize(
    ("last", "reply"),
    [
        (b"done", b"$4\r\ndone\r\n"),
        (errors.syntax(), b"-ERR syntax error\r\n"),
        (ZeroDivisionError("a defect"), b"-ERR internal error\r\n"),
    ],
)
def test_a_walk_ends_with_its_reply_or_its_error(last: Any, reply: bytes, core: Core) -> None:
    client = core.client()
    replace_handler(core, b"KEYS", walk(None, None, last))
    client.call(b"KEYS", b"*")
    assert client.session.stop
    while core.server.waiting.step_walks(1_000_000):
        pass
    core.end_turn()
    assert client.take() == reply
    assert not client.session.stop
    assert client.ask(b"PING") == b"+PONG\r\n"


def test_what_a_walk_wrote_before_it_began_takes_its_own_position(core: Core) -> None:
    client, other = core.client(), core.client()
    client.ask(b"SET", b"old", b"1", b"PX", b"1")
    core.server.keyspace.now += 10

    def begin(ctx: Any, *_args: Any) -> Any:
        assert ctx.db.row(b"old") is None  # which deletes it
        return walk(None, b"done")(ctx)

    replace_handler(core, b"KEYS", begin)
    client.call(b"KEYS", b"*")
    assert core.log.last_seq == 2
    other.call(b"SET", b"a", b"1")
    assert core.log.last_seq == 3
    core.end_turn()
    assert other.take() == b"+OK\r\n"
    assert other.ask(b"DBSIZE") == b":1\r\n"
