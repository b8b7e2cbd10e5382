"""The core's slow work in one worker thread: checkpoints, files of full syncs, logs of rewinds.

It must not know frames or links. Invariants (`ports.Files` has the interface):
- One thing happens after the other, in the order of the calls, off the event loop; answers come on
  the loop, after the call has returned.
- What `cancel` was called for is not answered any more.
- RocksDB is not closed while a checkpoint is made, nor a checkpoint made while it is closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from kvserver import frames
from kvserver.edge.checkpoint import Checkpoints
from kvserver.edge.replication.directories import Directories, sizes, sync_path
from kvserver.edge.replication.incoming import IncomingFiles, file_checksum
from kvserver.frames import Frame
from kvserver.replication.ports import Snapshot
from kvserver.storage.commitlog import CommitLog, EngineError
from kvserver.storage.positions import LogGone, PositionLog, TooMuch, Touched
from kvserver.storage.wal_batch import WalError

logger = logging.getLogger("kvserver")
T = TypeVar("T")
Done = Callable[[Any], None]

#: What ends work with an answer instead of an exception.
FAILURES: Final = (OSError, EngineError, LogGone, TooMuch, WalError)


class WorkerFiles:
    """`ports.Files` over a directory. `install` is left to `swap`, which the composition sets."""

    def __init__(
        self,
        directories: Directories,
        log: CommitLog,
        index: PositionLog,
        checkpoints: Checkpoints,
        engine_lock: asyncio.Lock,
    ) -> None:
        self._directories = directories
        self._checkpoints = checkpoints
        self._log = log
        self._index = index
        self._engine_lock = engine_lock
        self._loop = asyncio.get_running_loop()
        self.worker = ThreadPoolExecutor(1, "replication")
        self._incoming = IncomingFiles(directories.incoming)
        #: Rises with each `cancel`: what was called before is of no interest.
        self._generation = 0
        self._last_snapshot = 0
        self._tasks: set[asyncio.Task[None]] = set()
        #: Puts the received data set in place; called with what is to be told.
        self.swap: Callable[[Callable[[str], None]], None] = _no_swap

    async def stop(self) -> None:
        """Wait for what is under way."""
        self._generation += 1
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._loop.run_in_executor(None, self.worker.shutdown)
        shutil.rmtree(self._directories.snapshots, ignore_errors=True)

    async def in_worker(self, function: Callable[..., T], *args: Any) -> T:
        """Run it after everything that was called before."""
        return await self._loop.run_in_executor(self.worker, function, *args)

    def _run(
        self, done: Done, failed: Callable[[str], Any], work: Callable[..., Any], *args: Any
    ) -> None:
        """Call `done` with what `work` returns, or with what `failed` makes of its failure."""

        async def run() -> None:
            try:
                result = await self.in_worker(work, *args)
            except FAILURES as error:
                result = failed(str(error))
            done(result)

        self.start(run())

    def start(self, work: Any) -> None:
        """Let a coroutine run, and `stop` wait for it."""
        task = self._loop.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _current(self, done: Done) -> Done:
        """`done`, unless `cancel` is called before."""
        generation = self._generation

        def call(result: Any) -> None:
            if generation == self._generation:
                done(result)

        return call

    def cancel(self) -> None:
        self._generation += 1

    # -- outgoing ------------------------------------------------------------------------------

    def make_snapshot(self, done: Callable[[Snapshot | str], None]) -> None:
        self.start(self._make_snapshot(done))

    async def _make_snapshot(self, done: Callable[[Snapshot | str], None]) -> None:
        result: Snapshot | str
        async with self._engine_lock:
            seq = self._log.committed_seq
            try:
                path, files = await self.in_worker(self._checkpoint)
                result = Snapshot(path, seq, time.monotonic(), files)
            except FAILURES as error:
                result = str(error)
        done(result)

    def _checkpoint(self) -> tuple[str, list[tuple[str, int]]]:
        root = self._directories.snapshots
        os.makedirs(root, exist_ok=True)
        self._last_snapshot += 1
        path = os.path.join(root, str(self._last_snapshot))
        self._checkpoints.make(path)
        return path, sizes(path)

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        self._run(_ignore, _ignore, lambda: shutil.rmtree(snapshot.path, ignore_errors=True))

    def read(
        self, snapshot: Snapshot, name: str, offset: int, size: int, done: Callable[[bytes], None]
    ) -> None:
        path = os.path.join(snapshot.path, name)
        self._run(done, lambda _: b"", _read, path, offset, size)

    def checksum(self, snapshot: Snapshot, name: str, done: Callable[[int], None]) -> None:
        path = os.path.join(snapshot.path, name)
        self._run(done, lambda _: -1, file_checksum, path)

    # -- incoming ------------------------------------------------------------------------------

    def begin_incoming(
        self, files: list[tuple[str, int]], done: Callable[[list[tuple[str, int]] | str], None]
    ) -> None:
        self._run(self._current(done), str, self._incoming.begin, files)

    def write(self, name: str, offset: int, data: bytes, done: Callable[[str], None]) -> None:
        work = self._incoming.write
        self._run(self._current(done), str, lambda: work(name, offset, data) or "")

    def end_file(self, name: str, crc: int, done: Callable[[str], None]) -> None:
        self._run(self._current(done), str, self._incoming.end, name, crc)

    def install(self, done: Callable[[str], None]) -> None:
        self.swap(done)

    # -- rewinds -------------------------------------------------------------------------------

    def collect(
        self, start: int, fork: int, max_bytes: int, done: Callable[[Touched | str], None]
    ) -> None:
        self._run(self._current(done), str, self._index.collect, start, fork, max_bytes)

    def save_discarded(self, frames: list[Frame], done: Callable[[str], None]) -> None:
        self._run(self._current(done), str, self._save, frames)

    def _save(self, discarded: list[Frame]) -> str:
        self._label("rewind.collected")
        if discarded:
            root = self._directories.rewound
            os.makedirs(root, exist_ok=True)
            # Whole, or not there at all under its name.
            unfinished = os.path.join(root, "unfinished")
            with open(unfinished, "wb") as file:
                for frame in discarded:
                    file.write(frames.encode(frame))
                self._label("rewind.saving")
                file.flush()
                os.fsync(file.fileno())
            path = _free_name(root, discarded[0].first_seq, discarded[-1].last_seq)
            os.rename(unfinished, path)
            sync_path(root)
            sync_path(self._directories.root)
            logger.warning("The writes that are taken back were saved to %s", path)
        self._label("rewind.saved")
        return ""

    def _label(self, label: str) -> None:
        if self._log.step is not None:
            self._log.step(label)


def _free_name(root: str, first: int, last: int) -> str:
    """A name for these positions that no earlier rewind has taken, though it be of this second."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    name = f"{moment}-{first}-{last}"
    number = 1
    while os.path.exists(path := os.path.join(root, f"{name}.frames")):
        number += 1
        name = f"{moment}-{first}-{last}-{number}"
    return path


def _read(path: str, offset: int, size: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        parts = []
        while size and (piece := file.read(size)):
            parts.append(piece)
            size -= len(piece)
    return b"".join(parts)


async def _logged(work: Any) -> None:
    """No failure of a callback may go unseen."""
    try:
        await work
    except Exception:
        logger.exception("replication: work failed unexpectedly")


def _ignore(_result: Any) -> None:
    return None


def _no_swap(_done: Callable[[str], None]) -> None:
    raise RuntimeError("no swap")
