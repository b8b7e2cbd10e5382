"""Checkpoints of the running data set, made in a worker thread.

It must not know what they are for. RocksDB flushes what was written before a checkpoint, and
rocksdict holds the GIL meanwhile: the loop would stand still for tens of milliseconds. So all is
flushed before, and while the rest is flushed and the files are linked nothing is committed. Who
writes is answered a moment later (Turn.copying).
"""

from __future__ import annotations

import asyncio

from kvserver.state.turn import Turn


class Checkpoints:
    """Makes checkpoints. RocksDB must stay open meanwhile."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._loop = asyncio.get_running_loop()

    def make(self, path: str) -> None:
        """A consistent copy in `path`, which must not exist. Blocks; raises EngineError."""
        engine = self._turn.log.engine
        engine.flush_until_quick()
        self._turn.copying = True
        try:
            engine.flush()
            engine.checkpoint(path)
        finally:
            self._turn.copying = False
            self._loop.call_soon_threadsafe(self._turn.arm)
