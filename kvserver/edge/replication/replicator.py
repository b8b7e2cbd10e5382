"""Replication of one server, composed: the core, and the world around it.

Invariants:
- A primary that can't be sure to have all that its replicas have begins a new era before it serves
  anybody (docs/replication.md, R5); that it can is what the marker of a clean stop says.
- The marker is written last, when everything is on disk and RocksDB is closed.
"""

from __future__ import annotations

import asyncio
import logging
import os

from kvserver.config import Config
from kvserver.edge.checkpoint import Checkpoints
from kvserver.edge.durability import Durability
from kvserver.edge.replication.directories import Directories
from kvserver.edge.replication.files import WorkerFiles
from kvserver.edge.replication.host import LoopTimers, ServerHost
from kvserver.edge.replication.swap import Swap
from kvserver.edge.replication.verbs import Verbs
from kvserver.replication.node import Node
from kvserver.state.server import Server
from kvserver.storage.commitlog import EngineError
from kvserver.storage.engine import Engine
from kvserver.storage.positions import PositionLog

logger = logging.getLogger("kvserver")

#: Engine's text when another process serves the directory: nothing of it may be touched.
LOCKED = "another process"


class DataSet:
    """The data set in `dir`, opened after whatever a crash interrupted was finished."""

    def __init__(self, config: Config) -> None:
        self.directories = Directories(config.get_str("dir"))
        if not self.directories.lock():
            raise EngineError(f"can't open {self.directories.db}: {LOCKED} has it open")
        self.directories.settle()
        #: (epoch, last position) of the clean stop; read before RocksDB changes the directory.
        self.marker = self.directories.take_marker()
        #: It holds nothing that a replica might have had.
        self.is_new = not os.path.exists(os.path.join(self.directories.db, "CURRENT"))
        self.engine = self._open(config)

    def _open(self, config: Config) -> Engine:
        try:
            return Engine(self.directories.db, config)
        except EngineError as error:
            if LOCKED in str(error) or not self.directories.undo():
                raise
            logger.error("The data set of the last full sync is given up: %s", error)
            return Engine(self.directories.db, config)


class Replicator:
    """The node with its host, files and timers."""

    def __init__(
        self,
        server: Server,
        data: DataSet,
        durability: Durability,
        checkpoints: Checkpoints,
        engine_lock: asyncio.Lock,
    ) -> None:
        self._server = server
        self._directories = directories = data.directories
        self._is_new, self._marker = data.is_new, data.marker
        log = server.log
        directories.step = lambda label: log.step(label) if log.step is not None else None
        self._index = PositionLog(log.engine.path, log)
        self._files = WorkerFiles(directories, log, self._index, checkpoints, engine_lock)
        self._swap = Swap(server, directories, self._files, durability, engine_lock)
        self.host = ServerHost(server, durability)
        self.node = self.host.node = Node(
            server.config,
            log,
            self._index,
            server.replication,
            self.host,
            self._files,
            LoopTimers(),
            server.run_id,
        )
        self.verbs = Verbs(self.node)
        server.replication.verbs = self.verbs
        server.replication.index = self._index
        durability.on_synced = self.node.synced
        server.config.on_change("replica-ack-quorum", self.host.role_changed)
        server.config.on_change("notify-keyspace-events", self.node.wishes.update)
        server.config.on_change(("masterauth", "masteruser"), self.node.credentials_changed)

    def start(self) -> None:
        """Before anybody is served: take up the role."""
        log, config = self._server.log, self._server.config
        primary = config.value("replicaof")
        if primary is not None:
            self.node.follow(*primary)
        elif not self._is_new and self._marker != (log.epoch, log.committed_seq):
            logger.info("The last stop was not a clean one of a primary")
            self.node.begin_era()
        self.host.role_changed()
        self._files.start(self._files.in_worker(self._directories.forget_old))

    async def stop_following(self) -> None:
        """Nothing comes in any more; a data set that is being put in place is waited for."""
        self.node.stop()
        await self._swap.idle()

    async def stop(self) -> None:
        """End the work, before RocksDB is closed."""
        self.node.cut_all()
        await self.host.dialing.stop()
        await self._files.stop()

    def mark_clean(self) -> None:
        """RocksDB is closed, with everything on disk. The next start of a primary need not
        begin an era."""
        server = self._server
        log = server.log
        if server.replication.is_replica or log.failed or log.sync_failed or log.pending:
            return
        try:
            self._directories.mark_clean(log.epoch, log.committed_seq)
        except OSError as error:
            logger.warning("the stop can't be marked as a clean one: %s", error)
