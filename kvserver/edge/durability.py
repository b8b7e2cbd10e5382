"""fsync of the log: at once (`appendfsync always`), every second, or never.

Many commits share one fsync: while one runs in the worker the loop goes on committing, and
the next covers all of them. It must not know commands or clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kvserver.config import Config
from kvserver.state.turn import Turn
from kvserver.storage.commitlog import CommitLog

logger = logging.getLogger("kvserver")


class Durability:
    """Runs fsyncs in a worker and releases what waited for them."""

    def __init__(self, config: Config, log: CommitLog, turn: Turn) -> None:
        self._config = config
        self._log = log
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, "fsync")
        self._running: asyncio.Future[None] | None = None
        self._always = False
        #: Called after each fsync.
        self.on_synced: Callable[[], None] = _nothing
        turn.on_unsynced = self._start
        config.on_change("appendfsync", self.configure)
        self.configure()

    def configure(self) -> None:
        """Take `appendfsync` over."""
        self._always = self._config.get_str("appendfsync") == "always"
        self._log.set_wait_for_sync(self._always)
        # Not at once: this may be in the middle of CONFIG SET.
        self._loop.call_soon(self._turn.released)

    def installed(self) -> None:
        """A primary's batch was installed."""
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

    def _start(self) -> None:
        if self._running is not None:
            return
        seq = self._log.begin_sync()
        if seq is None:
            return
        self._running = self._loop.run_in_executor(self._worker, self._log.engine.sync_wal)
        self._running.add_done_callback(lambda done: self._done(seq, done))

    def _done(self, seq: int, done: asyncio.Future[None]) -> None:
        self._running = None
        error = done.exception()
        if error is None:
            self._log.end_sync(seq)
            self._turn.released()
            self.on_synced()
            if self._always:
                self._start()
        else:
            logger.error("fsync failed: %s", error)
            self._turn.fail_sync(str(error))


def _nothing() -> None:
    return None
