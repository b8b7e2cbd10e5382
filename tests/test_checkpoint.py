"""Checkpoints: nothing is committed while one is made, and nobody but writers waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from core import Core
from store import Store

from kvserver.edge.checkpoint import Checkpoints
from kvserver.storage.engine import EngineError


def during(core: Core, check: Callable[[], None], path: Path) -> None:
    """Make a checkpoint in a thread; the loop goes on to `check` when RocksDB is asked for it."""
    engine = core.engine
    checkpoint, flush = engine.checkpoint, engine.flush_until_quick
    begun, checked = threading.Event(), threading.Event()
    steps: list[str] = []

    def flushed() -> None:
        assert not core.turn.copying, "writers needn't wait for the first flush"
        steps.append("flush")
        flush()

    def made(target: str) -> None:
        begun.set()
        assert checked.wait(20)
        steps.append("checkpoint")
        checkpoint(target)

    async def run() -> None:
        core.turn._schedule = lambda: asyncio.get_running_loop().call_soon(core.turn.end)
        checkpoints = Checkpoints(core.turn)
        work = asyncio.get_running_loop().run_in_executor(None, checkpoints.make, str(path))
        while not begun.is_set():
            await asyncio.sleep(0)
        try:
            check()
        finally:
            checked.set()
            await asyncio.wait([work])
            while core.turn._armed:
                await asyncio.sleep(0)
            work.result()

    engine.checkpoint, engine.flush_until_quick = made, flushed  # type: ignore[method-assign]
    try:
        asyncio.run(run())
    finally:
        del engine.checkpoint, engine.flush_until_quick
    assert steps == ["flush", "checkpoint"]


def test_what_is_written_meanwhile_is_not_in_it_and_answered_later(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client, other = core.client(), core.client()
        client.ask(b"SET", b"k", b"before")
        position = core.log.committed_seq

        def check() -> None:
            client.call(b"SET", b"k", b"after")
            other.call(b"PING")
            core.turn.end()
            assert client.take() == b"", "it isn't committed"
            assert other.take() == b"+PONG\r\n"
            assert core.log.committed_seq == position

        during(core, check, tmp_path / "copy")
        assert client.take() == b"+OK\r\n"
        assert core.log.committed_seq == position + 1
    copy = Store(tmp_path / "copy")
    assert copy.log.committed_seq == position
    assert copy[0].string(b"k") == b"before"
    copy.engine.close()


def test_a_checkpoint_that_fails_lets_the_writers_go_on(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        (tmp_path / "there").mkdir()

        def check() -> None:
            client.call(b"SET", b"k", b"v")
            core.turn.end()
            assert client.take() == b""

        with pytest.raises(EngineError):
            during(core, check, tmp_path / "there")
        assert not core.turn.copying
        assert client.take() == b"+OK\r\n"
