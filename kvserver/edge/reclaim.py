"""Gives the disk space of emptied databases back.

FLUSHALL only marks a range as deleted; the rows stay in their files until a compaction comes by,
which may be never. Here the range is compacted, in slices, so that a stop or a reopened RocksDB
never waits long. It must not know commands or clients.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from itertools import pairwise
from typing import Final

from kvserver import codec
from kvserver.state.server import Server
from kvserver.storage.commitlog import DATA, EXPIRY
from kvserver.storage.engine import EngineError

logger = logging.getLogger("kvserver")

ROWS: Final = 0
#: Slots that are compacted at once.
SLICE: Final = 256

Range = tuple[int, bytes, bytes]


class Reclaimer:
    """Compacts what `Keyspace.flush` dropped. `engine_lock` keeps RocksDB open meanwhile."""

    def __init__(self, server: Server, worker: Executor, engine_lock: asyncio.Lock) -> None:
        self._keyspace = server.keyspace
        self._engine = server.log.engine
        self._worker = worker
        self._engine_lock = engine_lock

    async def run(self) -> None:
        """Compact all that was dropped until now; to be called now and then."""
        while self._keyspace.dropped:
            prefix = self._keyspace.dropped.pop(0)
            try:
                for piece in slices(prefix):
                    await self._compact(piece)
            except EngineError as error:
                logger.warning("the space of an emptied database is not reclaimed: %s", error)

    async def _compact(self, piece: Range) -> None:
        loop = asyncio.get_running_loop()
        async with self._engine_lock:
            await loop.run_in_executor(self._worker, self._engine.compact, *piece)


def slices(prefix: bytes) -> list[Range]:
    """(column family, begin, end) of all rows, elements and expiry entries of a database id."""
    starts = [slot.to_bytes(2, "big") for slot in range(0, codec.SLOTS + SLICE, SLICE)]
    rows = pairwise(starts)
    return [
        (EXPIRY, prefix, codec.prefix_end(prefix)),
        (DATA, prefix, codec.prefix_end(prefix)),
        *((ROWS, prefix + begin, prefix + end) for begin, end in rows),
    ]
