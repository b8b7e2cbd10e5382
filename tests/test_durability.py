"""The fsyncs of `appendfsync always`: on the loop while the disk is quick, else in a worker, with
whatever is written meanwhile in one batch after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faulty_core import MISCONF, OK, REASON, Node, run
from faulty_core import node as node

from kvserver.edge.durability import QUICK, Durability
from kvserver.storage.commitlog import EngineError


class Disk:
    """Counts fsyncs, and lets them take as long as the test wants."""

    def __init__(self, node: Node) -> None:
        self.syncs = 0
        self.threads: set[int] = set()
        self.may_end = threading.Event()
        self.may_end.set()
        self.error: EngineError | None = None
        node.engine.sync_wal = self.sync  # type: ignore[method-assign]

    def sync(self) -> None:
        self.syncs += 1
        self.threads.add(threading.get_ident())
        assert self.may_end.wait(10)
        if self.error:
            raise self.error


@pytest.fixture
def disk(node: Node) -> Disk:
    return Disk(node)


def with_durability(node: Node, scenario: Callable[[Durability], Any]) -> None:
    """Run a scenario on an event loop, with `appendfsync always`."""
    config: Any = SimpleNamespace(get_str=lambda _: "always", on_change=lambda *_: None)

    async def main() -> None:
        durability = Durability(config, node.log, node.turn)
        await scenario(durability)
        await durability.finish()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_a_quick_disk_is_waited_for_on_the_loop(node: Node, disk: Disk) -> None:
    client = node.client()

    async def scenario(durability: Durability) -> None:
        run(client, "SET", "a", "1")
        node.end()
        assert client.take() == b"", "nothing is known of the disk yet: the worker asks it"
        await until(lambda: node.log.synced_seq == 1)
        assert client.take() == OK
        disk.threads.clear()
        for number in range(2, 5):
            run(client, "INCR", "a")
            node.end()
            assert client.take() == b":%d\r\n" % number
            assert node.log.synced_seq == number
        assert disk.threads == {threading.get_ident()}
        assert disk.syncs == 4

    with_durability(node, scenario)


def test_a_slow_disk_gets_one_batch_for_all_that_came_meanwhile(node: Node, disk: Disk) -> None:
    writer, other, reader = node.client(), node.client(), node.client()

    async def scenario(durability: Durability) -> None:
        disk.may_end.clear()
        run(writer, "SET", "a", "1")
        node.end()
        await until(lambda: disk.syncs == 1)
        for number in range(5):
            run(other, "SET", f"b{number}", "1")
            node.end()
            run(reader, "GET", "none")
            node.end()
            assert reader.take() == b"$-1\r\n", "reads don't wait"
        assert node.log.committed_seq == 1
        assert writer.take() + other.take() == b""
        await asyncio.sleep(2 * QUICK)
        disk.may_end.set()
        await until(lambda: node.log.synced_seq == 1)
        assert (writer.take(), other.take()) == (OK, b"")
        node.end()
        await until(lambda: node.log.synced_seq == 6)
        assert other.take() == OK * 5
        assert disk.syncs == 2
        assert threading.get_ident() not in disk.threads

    with_durability(node, scenario)


@pytest.mark.parametrize("quick", [True, False])
def test_an_fsync_fails(node: Node, disk: Disk, quick: bool) -> None:
    client = node.client()

    async def scenario(durability: Durability) -> None:
        if quick:
            run(client, "SET", "a", "1")
            node.end()
            await until(lambda: node.log.synced_seq == 1)
            assert client.take() == OK
        disk.error = EngineError(REASON)
        run(client, "SET", "a", "2")
        node.end()
        await until(lambda: bool(node.failures))
        assert client.take() == MISCONF
        assert node.failures == [REASON]
        assert not node.turn.gathering

    with_durability(node, scenario)
