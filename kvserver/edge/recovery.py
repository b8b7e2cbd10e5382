"""What happens when RocksDB stalls or fails: hold writers back, or refuse them and come back.

It must not know commands. Measured behaviour of RocksDB 9.8 (docs/design.md, "When writing
fails"): after any failed append, fsync or flush every later write fails at once, reads go on;
RocksDB heals by itself only from some cases of a full disk, and one more fsync makes even
those final. Closing and opening again always heals, and loses nothing acknowledged, so:

- a stall (`no_slowdown`) keeps the batch, holds writers back and tries again;
- a failure turns writes into -MISCONF, probes the disk every second in a worker, and opens
  RocksDB again when there is room. Meanwhile only what was committed before is fsynced.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final, TypeVar

from kvserver import errors
from kvserver.edge.durability import Durability
from kvserver.state.admission import FAILED, STALLED, SUSPENDED
from kvserver.state.dispatch import Dispatcher
from kvserver.state.server import Server
from kvserver.storage.commitlog import EngineError
from kvserver.storage.engine import MIB
from kvserver.storage.wal_retention import Limits, archived_logs, trim_archive

logger = logging.getLogger("kvserver")
T = TypeVar("T")

STALL_RETRY_SECONDS: Final = 0.003
PROBE_SECONDS: Final = 1.0
#: The longest wait after opening again was of no avail; it begins with a second and doubles.
REOPEN_SECONDS: Final = 30.0
#: Writing works if it does for so long.
STEADY_SECONDS: Final = 10.0
#: A stall is logged at most this often: RocksDB may stall hundreds of times a second.
STALL_LOG_SECONDS: Final = 10.0
#: Opening RocksDB replays the log into files: what that may need beside the log's size.
REOPEN_MARGIN: Final = 16 * MIB


class Recovery:
    """Follows the turn's stalls and failures."""

    def __init__(
        self, server: Server, durability: Durability, worker: Executor, engine_lock: asyncio.Lock
    ) -> None:
        self._server = server
        self._dispatcher: Dispatcher = server.dispatcher
        self._durability = durability
        self._worker = worker
        self._engine_lock = engine_lock
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._stall_logged = -STALL_LOG_SECONDS
        self._delay = PROBE_SECONDS
        self._recovered = -STEADY_SECONDS
        #: Called before RocksDB is closed, and when it has been opened for writing.
        self.before_reopen: Callable[[], None] = _nothing
        self.reopened: Callable[[], None] = _nothing
        server.turn.on_stall = self._stalled
        server.turn.on_failure = self._failed

    async def stop(self) -> None:
        """The server stops: try no more."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- stalls --------------------------------------------------------------------------------

    def _stalled(self) -> None:
        if self._dispatcher.gate & STALLED:
            return
        if self._loop.time() - self._stall_logged > STALL_LOG_SECONDS:
            self._stall_logged = self._loop.time()
            logger.warning("RocksDB stalls writes until it has flushed or compacted")
        self._dispatcher.raise_gate(STALLED)
        self._loop.call_later(STALL_RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        server = self._server
        if server.log.pending and not server.log.engine.stopped():
            server.turn.commit()
        if server.log.pending:
            self._loop.call_later(STALL_RETRY_SECONDS, self._retry)
            return
        self._dispatcher.lower_gate(STALLED)
        server.turn.released()
        self._dispatcher.run_parked()

    # -- failures --------------------------------------------------------------------------------

    def _failed(self, reason: str) -> None:
        self._server.log.failed = True
        self._dispatcher.failure = reason
        self._dispatcher.raise_gate(FAILED)
        if self._task is None:
            logger.error("writing failed, the server is read-only: %s", reason)
            if not self._stopped:
                self._task = self._loop.create_task(self._recover())

    async def _recover(self) -> None:
        """Until writing works: probe the disk, and open RocksDB again when there is room."""
        if self._loop.time() - self._recovered > STEADY_SECONDS:
            self._delay = PROBE_SECONDS
        while self._server.log.failed:
            await asyncio.sleep(self._delay)
            try:
                if await self._in_worker(self._has_room):
                    self._delay = min(2 * self._delay, REOPEN_SECONDS)
                    async with self._engine_lock:
                        await self._reopen()
            except Exception:  # to give up would leave the server read-only for ever
                logger.exception("recovery failed; it is tried again")
                self._let_go()
        self._task = None
        self._recovered = self._loop.time()
        logger.info("writing works again")

    async def _in_worker(self, function: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._worker, function)

    def _has_room(self) -> bool:
        path = self._server.log.engine.path
        buffer = self._server.config.get_int("rocksdb.write_buffer_size") * MIB
        try:
            _probe(path, _log_bytes(path) + buffer + REOPEN_MARGIN)
        except OSError as error:
            logger.debug("still no room to write: %s", error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                _shrink_archive(path)
            return False
        return True

    async def _reopen(self) -> None:
        """Close RocksDB and open it again while every command waits."""
        dispatcher, log = self._dispatcher, self._server.log
        dispatcher.raise_gate(SUSPENDED)
        await self._durability.idle()
        self._server.waiting.abort_walks(errors.misconf(dispatcher.failure))
        self.before_reopen()
        try:
            await self._in_worker(log.engine.reopen)
        except EngineError as error:
            logger.error("RocksDB can't be opened again yet: %s", error)
        else:
            log.failed = log.sync_failed = False
            dispatcher.lower_gate(FAILED)
        if not log.engine.closed:
            self._reload()
        if not log.failed:
            self.reopened()
        self._let_go()

    def _let_go(self) -> None:
        self._dispatcher.lower_gate(SUSPENDED)
        self._dispatcher.run_parked()

    def _reload(self) -> None:
        missing = self._server.turn.reload()
        if missing:
            logger.critical("the last %d positions that were acknowledged are gone", missing)


def _nothing() -> None:
    return None


def _probe(path: str, size: int) -> None:
    """Reserve `size` bytes, write and fsync a block; OSError if that fails."""
    probe = os.path.join(path, "probe.tmp")
    fd = os.open(probe, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    try:
        os.unlink(probe)  # at once: the room comes back even if the process is killed here
        os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, bytes(4096), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _shrink_archive(path: str) -> None:
    """Delete the older half of the archived log: it only spares replicas a full copy."""
    with suppress(FileNotFoundError):  # the retention timer was there first
        size = sum(log.size for log in archived_logs(path))
        deleted = trim_archive(path, Limits(max(size // 2 // MIB, 1), 0), time.time())
        if deleted:
            logger.warning("the disk is full: deleted %d archived log files", len(deleted))


def _log_bytes(path: str) -> int:
    with os.scandir(path) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.name.endswith(".log"))
