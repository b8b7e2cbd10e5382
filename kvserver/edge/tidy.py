"""Gives memory back that nobody uses: rows that were dropped from the cache, those of emptied
databases, and what malloc keeps. It must not know commands or clients."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from typing import Final

from kvserver.state import process
from kvserver.state.server import Server

#: Rows are freed for so long at once, and so many between two looks at the clock.
BUDGET_NS: Final = 1_000_000
ROWS: Final = 500
REST_SECONDS: Final = 0.02
#: So many calls in a row without activity are an idle moment.
IDLE_CALLS: Final = 5
#: malloc may keep so much.
KEPT_BYTES: Final = 32 << 20


class Tidy:
    """To be called once a second."""

    def __init__(self, server: Server, worker: Executor) -> None:
        self._server = server
        self._worker = worker
        self._activity = -1
        self._idle = 0

    async def run(self) -> None:
        """Free what can be freed; in small pieces, or in an idle moment."""
        server = self._server
        if not server.keyspace.total_keys():
            for table in (server.log.rows, server.log.data):
                if table.cache.cached_bytes:
                    table.cache.clear()  # their databases have gone
        while self._free_rows():
            await asyncio.sleep(REST_SECONDS)
        activity = server.stats.reads
        self._idle = self._idle + 1 if activity == self._activity else 0
        self._activity = activity
        if self._idle == IDLE_CALLS:
            await self._trim()

    def _free_rows(self) -> bool:
        """Free rows for a moment; whether some are left."""
        begun = time.perf_counter_ns()
        for table in (self._server.log.rows, self._server.log.data):
            while table.cache.free_dropped(ROWS):
                if time.perf_counter_ns() - begun > BUDGET_NS:
                    return True
        return False

    async def _trim(self) -> None:
        """Once in an idle time, since it takes malloc's locks."""
        found = process.allocator()
        if found.active - found.allocated > KEPT_BYTES:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._worker, process.trim_allocator)
