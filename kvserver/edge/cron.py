"""The server's timers: each a small periodic duty on the event loop.

It must not know commands. Duties are short (a millisecond or two); what blocks goes to the
worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

from kvserver.config import Config
from kvserver.edge.clients import Clients
from kvserver.edge.durability import Durability
from kvserver.edge.reclaim import Reclaimer
from kvserver.edge.tidy import Tidy
from kvserver.expiry import expire_cycle
from kvserver.replication.node import Node
from kvserver.state.admission import SUSPENDED
from kvserver.state.server import Server
from kvserver.state.writers import Forgetting
from kvserver.storage import wal_retention

logger = logging.getLogger("kvserver")

#: An expiry cycle may take this long; it runs `hz` times a second, and again at once while
#: keys remain due.
EXPIRE_BUDGET_NS: Final = 2_000_000
RETENTION_SECONDS: Final = 10.0


class Cron:
    """Starts the timers and ends them."""

    def __init__(
        self,
        server: Server,
        clients: Clients,
        durability: Durability,
        reclaimer: Reclaimer,
        worker: Executor,
        node: Node,
    ) -> None:
        self._server = server
        self._config: Config = server.config
        self._clients = clients
        self._durability = durability
        self._reclaimer = reclaimer
        self._worker = worker
        self._node = node
        self._writers = Forgetting(server.keyspace)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start every timer."""
        hz = self._config.get_int("hz")
        self._every(1 / hz, self._expire)
        self._every(1.0, self._forget_writers)
        self._every(0.1, self._sample)
        self._every(1.0, self._each_second)
        self._every(1.0, self._reclaimer.run)
        self._every(1.0, Tidy(self._server, self._worker).run)
        self._every(1.0, self._measure)
        self._every(RETENTION_SECONDS, self._retain)

    async def stop(self) -> None:
        """Cancel the timers and wait until none runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _every(self, seconds: float, duty: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await duty()
                except Exception:  # a damaged row must not end expiry, or fsyncs, for good
                    logger.exception("%s failed; it is tried again", duty.__name__)

        self._tasks.append(asyncio.create_task(run()))

    async def _expire(self) -> None:
        server = self._server
        while server.active_expire and server.keyspace.may_expire:
            server.keyspace.now = int(time.time() * 1000)
            before, start = server.log.last_seq, time.perf_counter_ns()
            more = expire_cycle(server.keyspace, EXPIRE_BUDGET_NS)
            server.stats.expire_ns += time.perf_counter_ns() - start
            server.stats.expire_cut_short += more
            if server.log.last_seq != before:
                server.turn.arm()
            if not more:
                return
            await asyncio.sleep(0)

    async def _forget_writers(self) -> None:
        server = self._server
        while not server.dispatcher.gate:
            server.keyspace.now = int(time.time() * 1000)
            before = server.log.last_seq
            lifetime_ms = self._config.get_int("writer-id-expiration") * 1000
            more = self._writers.cycle(lifetime_ms, EXPIRE_BUDGET_NS)
            if server.log.last_seq != before:
                server.turn.arm()
            if not more:
                return
            await asyncio.sleep(0)

    async def _sample(self) -> None:
        now = time.monotonic()
        server = self._server
        server.stats.ops.sample(now, sum(e.calls for e in server.table.all()))
        server.stats.input.sample(now, server.stats.net_input)
        server.stats.output.sample(now, server.stats.net_output)

    async def _each_second(self) -> None:
        self._durability.every_second()
        self._clients.every_second()
        if not self._server.dispatcher.gate & SUSPENDED:
            self._node.tick()
        server = self._server
        paused_ns = server.collector.tick(server.stats.reads)
        server.latency.note("python-gc", paused_ns // 1_000_000)

    async def _measure(self) -> None:
        """The figures of the log for INFO."""
        if not self._server.dispatcher.gate & SUSPENDED:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._worker, self._node.index.extent.measure)

    async def _retain(self) -> None:
        if self._server.dispatcher.gate & SUSPENDED:
            return  # RocksDB may be closed
        loop = asyncio.get_running_loop()
        pinned = self._node.pinned_file()
        await loop.run_in_executor(self._worker, self._delete_archived, pinned)

    def _delete_archived(self, pinned: int | None) -> None:
        number = self._config.get_int
        limits = wal_retention.Limits(
            number("rocksdb.wal_size_limit_mb"), number("rocksdb.wal_ttl_seconds")
        )
        try:
            wal_retention.trim_archive(self._server.log.engine.path, limits, time.time(), pinned)
        except OSError as error:
            logger.warning("archived log files can't be deleted: %s", error)
