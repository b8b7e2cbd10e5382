"""The composition root: builds the server's parts, starts them, stops them.

Nothing imports it but the command line. Order of a stop: no new connections, what is
running is committed and answered, the log is fsynced, RocksDB is flushed and closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop

import kvserver.commands  # noqa: F401  (declares the commands)
from kvserver import __version__, systemd
from kvserver.config import Config
from kvserver.edge import files, settings, slices
from kvserver.edge.backup import Backups
from kvserver.edge.busy import BusyServer
from kvserver.edge.checkpoint import Checkpoints
from kvserver.edge.clients import Clients
from kvserver.edge.cold import ColdReader
from kvserver.edge.cron import Cron
from kvserver.edge.durability import Durability
from kvserver.edge.listeners import Listeners
from kvserver.edge.migrate import Migrator
from kvserver.edge.reclaim import Reclaimer
from kvserver.edge.recovery import Recovery
from kvserver.edge.replication.replicator import DataSet, Replicator
from kvserver.edge.shutdown import Shutdown
from kvserver.edge.walks import Walks
from kvserver.state.admission import SUSPENDED
from kvserver.state.dispatch import Dispatcher
from kvserver.state.migrations import Migration
from kvserver.state.server import Server
from kvserver.state.turn import Turn
from kvserver.storage.commitlog import CommitLog, EngineError

logger = logging.getLogger("kvserver")


class App:
    """One running server; also what commands reach as `server.edge`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(2, "worker")
        data = DataSet(config)
        self.log = CommitLog(data.engine)
        self.turn = Turn(self.log, self._schedule_end)
        self.server = Server(config, self.log, self.turn, self)
        self.server.dispatcher = Dispatcher(self.server)
        self._clients = Clients(self.server)
        self._durability = Durability(config, self.log, self.turn)
        self._listeners = Listeners(config, self._clients)
        BusyServer(self._clients, self._listeners)
        engine_lock = asyncio.Lock()
        reclaimer = Reclaimer(self.server, self._worker, engine_lock)
        checkpoints = Checkpoints(self.turn)
        self._replicator = Replicator(self.server, data, self._durability, checkpoints, engine_lock)
        node = self._replicator.node
        self._clients.on_drained = self._replicator.verbs.drained
        self._clients.on_gone = self._replicator.verbs.gone
        self._cron = Cron(
            self.server, self._clients, self._durability, reclaimer, self._worker, node
        )
        self._recovery = Recovery(self.server, self._durability, self._worker, engine_lock)
        self._recovery.before_reopen, self._recovery.reopened = node.before_reopen, node.reopened
        self._backups = Backups(self.server, checkpoints, self._worker, engine_lock)
        self._walks = Walks(self.server.waiting)
        self._cold = ColdReader(self.server.cold, self.log.engine)
        self._migrator = Migrator(self.server)
        self._shutdown = Shutdown(self.server)
        settings.follow(config, self.server)

    def _schedule_end(self) -> None:
        self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self.turn.end()
        self._replicator.host.end_turn()
        if self.server.waiting.walks:
            self._walks.start()
        if self.server.cold.waiting:
            self._cold.start()

    # -- running -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until SHUTDOWN or a signal; raises ListenError."""
        slices.shorten()
        self._replicator.start()
        await self._listeners.open()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as Redis: it outlives its terminal
        self._cron.start()
        keys = self.server.keyspace.total_keys()
        logger.info("kvserver %s, %d keys in %s", __version__, keys, self.log.engine.path)
        logger.info("Ready to accept connections on %s", ", ".join(self._listeners.names))
        if self._config.get_str("supervised") != "no":
            systemd.notify(systemd.READY)
        flush = await self._shutdown.stopping
        if self._config.get_str("supervised") != "no":
            systemd.notify(systemd.STOPPING)
        await self._stop(flush)

    async def _stop(self, flush: bool) -> None:
        """Stop serving, then close what is below, from the top down."""
        self._listeners.close()
        await self._recovery.stop()  # first: they lower the gate when they are done
        await self._migrator.stop()
        await self._replicator.stop_following()
        self.server.dispatcher.raise_gate(SUSPENDED)
        await self._cron.stop()
        await self._backups.stop()
        await self._settle()
        await self._clients.close_all()
        await self._replicator.stop()
        await self._cold.stop()
        await self._close_engine(flush)
        logger.info("kvserver is now ready to exit, bye bye...")

    async def _settle(self) -> None:
        """Commit what is pending and fsync it, so that its replies leave. A batch that RocksDB
        still stalls after a while is dropped: nobody was told that it was written."""
        deadline = self._loop.time() + self._config.get_int("shutdown-timeout")
        self.turn.end()
        while self.log.pending and not self.log.failed and self._loop.time() < deadline:
            await asyncio.sleep(0.003)
            self.turn.commit()
        await self._durability.finish()
        self.turn.end()

    async def _close_engine(self, flush: bool) -> None:
        if flush and not self.log.failed:
            try:
                await self._loop.run_in_executor(self._worker, self.log.engine.flush)
            except EngineError as error:
                logger.warning("memtables not flushed, the log has their rows: %s", error)
        self._worker.shutdown()
        self.log.engine.close()
        self._replicator.mark_clean()

    def _on_signal(self, number: int) -> None:
        """A second SIGINT doesn't wait for replicas."""
        insists = number == signal.SIGINT and self._shutdown.waits
        logger.info("Received %s scheduling shutdown...", signal.Signals(number).name)
        self.shutdown(flush=True, now=insists, aborted=_nothing)

    # -- Edge ----------------------------------------------------------------------------------

    def shutdown(self, *, flush: bool, now: bool, aborted: Callable[[], None]) -> None:
        self._shutdown.begin(flush=flush, now=now, aborted=aborted)

    def abort_shutdown(self) -> bool:
        return self._shutdown.abort()

    def save(self, done: Callable[[str | None], None]) -> None:
        self._backups.start(done)

    def migrate(self, migration: Migration) -> None:
        self._migrator.start(migration)

    def call_later(self, seconds: float, callback: Any, *args: Any) -> Any:
        return self._loop.call_later(seconds, callback, *args)


def run(config: Config) -> None:
    """Serve until told to stop. Raises EngineError or ListenError when it can't start."""

    async def main() -> None:
        files.adjust_limit(config)
        app = App(config)
        app.server.collector.start()
        with _pid_file(config.get_str("pidfile")):
            await app.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _nothing() -> None:
    return None


@contextlib.contextmanager
def _pid_file(path: str) -> Iterator[None]:
    """The file that `pidfile` names, while the server runs."""
    if not path:
        yield
        return
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


__all__ = ["App", "EngineError", "run"]
