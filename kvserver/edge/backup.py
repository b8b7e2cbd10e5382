"""SAVE and BGSAVE: an online backup as a RocksDB checkpoint in `dir`/backups.

It must not know commands. A backup is a directory that `dir` can be pointed at: it is made
under a temporary name and renamed when it is whole, so what has a final name is a backup.
The checkpoint is of hard links: it costs no copy, and takes room only as the files of the
running data set are compacted away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor

from kvserver.edge.checkpoint import Checkpoints
from kvserver.state.server import Server
from kvserver.storage.commitlog import EngineError

logger = logging.getLogger("kvserver")


class Backups:
    """Makes backups, one at a time. `engine_lock` keeps RocksDB open meanwhile."""

    def __init__(
        self,
        server: Server,
        checkpoints: Checkpoints,
        worker: Executor,
        engine_lock: asyncio.Lock,
    ) -> None:
        self._server = server
        self._checkpoints = checkpoints
        self._worker = worker
        self._engine_lock = engine_lock
        self._task: asyncio.Task[None] | None = None

    def start(self, done: Callable[[str | None], None]) -> None:
        """Begin a backup; `done` is called with None, or why it failed."""
        self._server.backups.begin()
        self._task = asyncio.get_running_loop().create_task(self._run(done))

    async def stop(self) -> None:
        """Wait for the backup under way."""
        if self._task is not None:
            await self._task

    async def _run(self, done: Callable[[str | None], None]) -> None:
        status, log = self._server.backups, self._server.log
        name = time.strftime("%Y%m%d-%H%M%S")
        root = os.path.join(self._server.config.get_str("dir"), "backups")
        failure: str | None = None
        seq: int | None = None
        async with self._engine_lock:
            loop = asyncio.get_running_loop()
            try:
                seq = log.committed_seq
                path = await loop.run_in_executor(self._worker, make, self._checkpoints, root, name)
                logger.info("Background saving terminated with success: %s", path)
            except (EngineError, OSError) as error:
                failure, seq = str(error), None
                logger.error("Background saving error: %s", failure)
        status.end(seq)
        self._task = None
        done(failure)


def make(checkpoints: Checkpoints, root: str, name: str) -> str:
    """Make the checkpoint `root`/`name`/db and return `root`/`name`. Blocks."""
    os.makedirs(root, exist_ok=True)
    final = _free_name(os.path.join(root, name))
    unfinished = final + ".tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.mkdir(unfinished)
    try:
        checkpoints.make(os.path.join(unfinished, "db"))
        os.rename(unfinished, final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    fd = os.open(root, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return final


def _free_name(path: str) -> str:
    """The path, or with a number when there was a backup in the same second."""
    name, number = path, 1
    while os.path.exists(name):
        number += 1
        name = f"{path}-{number}"
    return name
