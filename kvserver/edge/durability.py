"""fsync of the log: at once (`appendfsync always`), every second, or never.

All that a turn commits shares one fsync. With `always` a quick disk is waited for on the loop, as
Redis does: handing 0.2 ms of work to a thread and back costs more than it takes, and batches get
smaller. A slow one is waited for in a worker: the loop goes on with reads, and what is written
meanwhile shares the next commit and fsync. It must not know commands or clients.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from kvserver.config import Config
from kvserver.state.turn import Turn
from kvserver.storage.commitlog import CommitLog, EngineError

logger = logging.getLogger("kvserver")

#: The loop waits for a disk whose fsyncs take less, in seconds, on average.
QUICK: Final = 0.001
#: The weight of the last fsync in the average: one of 10 ms is enough to leave the loop.
_WEIGHT: Final = 0.125


class Durability:
    """Runs fsyncs in a worker and releases what waited for them."""

    def __init__(self, config: Config, log: CommitLog, turn: Turn) -> None:
        self._config = config
        self._log = log
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, "fsync")
        self._running: asyncio.Future[EngineError | None] | None = None
        self._always = False
        #: What an fsync takes, in seconds, on average.
        self._seconds = QUICK
        #: Called after each fsync.
        self.on_synced: Callable[[], None] = _nothing
        turn.on_unsynced = self._committed
        config.on_change("appendfsync", self.configure)
        self.configure()

    def configure(self) -> None:
        """Take `appendfsync` over."""
        self._always = self._config.get_str("appendfsync") == "always"
        self._log.set_wait_for_sync(self._always)
        # Not at once: this may be in the middle of CONFIG SET.
        self._loop.call_soon(self._turn.released)

    def installed(self) -> None:
        """A primary's batch was installed. Several come in one piece: the worker's next fsync
        covers all of them."""
        if self._always:
            self._start()

    def every_second(self) -> None:
        """The timer of `appendfsync everysec`."""
        if self._config.get_str("appendfsync") != "no":
            self._start()

    async def finish(self) -> None:
        """Sync what is left and stop; called before RocksDB is closed."""
        await self.idle()
        self._worker.shutdown()

    async def idle(self) -> None:
        """Sync what is left and wait until no fsync runs."""
        self._start()
        while self._running is not None:
            await asyncio.wait([self._running])
            self._start()

    def _committed(self) -> None:
        """Replies wait for what was committed."""
        if self._running is not None:
            return
        if self._seconds >= QUICK:
            self._start()
            return
        seq = self._log.begin_sync()
        if seq is not None:
            self._ended(seq, self._sync())

    def _start(self) -> None:
        """fsync in the worker."""
        if self._running is not None:
            return
        seq = self._log.begin_sync()
        if seq is None:
            return
        self._turn.gathering = self._always
        self._running = self._loop.run_in_executor(self._worker, self._sync)
        self._running.add_done_callback(lambda done: self._done(seq, done))

    def _sync(self) -> EngineError | None:
        """fsync, and note how long it took; returns what went wrong."""
        start = time.perf_counter()
        try:
            self._log.engine.sync_wal()
        except EngineError as error:
            return error
        self._seconds += (time.perf_counter() - start - self._seconds) * _WEIGHT
        return None

    def _done(self, seq: int, done: asyncio.Future[EngineError | None]) -> None:
        self._running = None
        self._turn.gathering = False
        error = done.result()
        self._ended(seq, error)
        if self._always and error is None:
            self._start()
            self._turn.arm()  # what was written meanwhile is to be committed

    def _ended(self, seq: int, error: EngineError | None) -> None:
        if error is None:
            self._log.end_sync(seq)
            self._turn.released()
            self.on_synced()
        else:
            logger.error("fsync failed: %s", error)
            self._turn.fail_sync(str(error))


def _nothing() -> None:
    return None
