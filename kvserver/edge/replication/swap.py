"""A full sync's data set takes the place of the present one, while every command waits.

It must not know frames or links. The order (`directories` says what a crash leaves): the received
files are made durable; commands are set aside, fsyncs end, walks are ended; RocksDB is closed; the
directories change places; RocksDB is opened; everything in memory is read anew, positions from the
stamp in the new data, which is the exact boundary; the commands run. If the new data set can't be
opened the old one comes back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kvserver import errors
from kvserver.codec import HISTORY_KEY
from kvserver.edge.durability import Durability
from kvserver.edge.replication.directories import Directories
from kvserver.edge.replication.files import WorkerFiles
from kvserver.state.admission import SUSPENDED
from kvserver.state.server import Server
from kvserver.storage.commitlog import LOG, STAMP_KEY, EngineError

logger = logging.getLogger("kvserver")


class Swap:
    """Puts received data sets in place."""

    def __init__(
        self,
        server: Server,
        directories: Directories,
        files: WorkerFiles,
        durability: Durability,
        engine_lock: asyncio.Lock,
    ) -> None:
        self._server = server
        self._directories = directories
        self._files = files
        self._durability = durability
        self._engine_lock = engine_lock
        #: Set while none is under way.
        self._idle = asyncio.Event()
        self._idle.set()
        files.swap = self.begin

    def begin(self, done: Callable[[str], None]) -> None:
        """`ports.Files.install`."""
        self._idle.clear()
        self._files.start(self._guarded(done))

    async def idle(self) -> None:
        """Wait for what is under way."""
        await self._idle.wait()

    async def _guarded(self, done: Callable[[str], None]) -> None:
        try:
            await self._run(done)
        finally:
            self._idle.set()

    async def _run(self, done: Callable[[str], None]) -> None:
        try:
            await self._files.in_worker(self._directories.complete)
        except OSError as error:
            done(str(error))
            return
        dispatcher = self._server.dispatcher
        async with self._engine_lock:
            dispatcher.raise_gate(SUSPENDED)
            try:
                await self._durability.idle()
                self._server.waiting.abort_walks(errors.loading())
                failure = await self._exchange()
                done(failure)
            finally:
                dispatcher.lower_gate(SUSPENDED)
                dispatcher.run_parked()
        if not failure:
            await self._files.in_worker(self._directories.forget_old)

    async def _exchange(self) -> str:
        """Close, swap, open, read; why that failed. If nothing can be opened the server goes on as
        after any failure of RocksDB."""
        server = self._server
        try:
            failure = await self._files.in_worker(self._change_places)
            if not failure and (failure := self._unreadable()):
                await self._files.in_worker(self._go_back)
        except (EngineError, OSError) as error:
            failure = str(error)
            server.turn.on_failure(failure)
        if failure and not server.log.engine.closed:
            self._reload()
        return failure

    def _change_places(self) -> str:
        """In the worker. Why the new data set can't be served, if so; then the old one is open."""
        engine, directories = self._server.log.engine, self._directories
        engine.close()
        try:
            directories.swap()
        except OSError as error:
            directories.settle()
            engine.reopen()
            return str(error)
        try:
            engine.reopen()
            if engine.get(LOG, STAMP_KEY) is None or engine.get(LOG, HISTORY_KEY) is None:
                raise EngineError("it is no data set of kvserver's")
        except EngineError as error:
            self._go_back()
            return str(error)
        return ""

    def _go_back(self) -> None:
        """In the worker. To the data set before."""
        engine = self._server.log.engine
        engine.close()
        self._directories.undo()
        engine.reopen()

    def _unreadable(self) -> str:
        """Read the new data set's records; why that failed."""
        try:
            self._reload()
        except Exception as error:  # rows that somebody else wrote: anything may be wrong with them
            logger.warning("The received data set can't be read", exc_info=True)
            return f"its records can't be read: {error}"
        return ""

    def _reload(self) -> None:
        """Forget all that was read from the data set before."""
        server = self._server
        server.turn.reload()
        server.keyspace.load()
        server.keyspace.dropped.clear()
        for index, key in list(server.watches.by_key):
            server.watches.touch(index, key)
        server.tracking.flush()
