"""Real RocksDB under the simulation: `engine.Store`'s and `MemoryEngine`'s interface over
`storage.engine.Engine` and a directory.

kill -9 is a copy of the directory while RocksDB is open; a power cut also cuts the log files to the
length that they had when they were last fsynced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from kvserver.config import Config
from kvserver.directives import default_config
from kvserver.storage.engine import Engine, EngineError, EngineStalled
from kvserver.storage.wal import archive_path, log_numbers, log_path
from sim.engine import FAMILIES, Rows, digest_of

_END = b"\xff" * 40


@cache
def _config() -> Config:
    return default_config()


class RealStore:
    """A data directory."""

    _inodes = 0

    def __init__(self, path: Path) -> None:
        self.path = self._base = str(path)
        self._lives = 0
        self.engine: RealEngine | None = None
        self._rows: Rows = [{} for _ in range(FAMILIES)]
        self._synced: dict[str, int] = {}
        self._renew()

    def _renew(self) -> None:
        RealStore._inodes += 1
        self.inode = RealStore._inodes

    @property
    def rows(self) -> Rows:
        """What RocksDB holds; what it held last if it is closed."""
        engine = self.engine
        if engine is not None and not engine.closed:
            self._rows = [dict(engine.scan(cf, b"", _END)) for cf in range(FAMILIES)]
        return self._rows

    @property
    def digest(self) -> int:
        """The digest of the rows."""
        return digest_of(self.rows)

    @property
    def sequence(self) -> int:
        """0 for a data set that was never opened."""
        return 1 if os.path.exists(f"{self.path}/CURRENT") else 0

    def new_file(self) -> None:
        """Opening it begins one."""

    def synced(self) -> None:
        """Everything in the log is on the disk."""
        self._synced = {
            f"{number:06d}.log": os.path.getsize(log_path(self.path, number))
            for number in log_numbers(self.path)
        }

    def die(self) -> None:
        """kill -9: what the kernel has is left. It gets a new path, because whoever holds an
        iterator of the dead process keeps RocksDB's lock of the old one."""
        engine, self.engine = self.engine, None
        if engine is not None and not engine.closed:
            left = self._copy(engine)
            engine.close()
            shutil.rmtree(self.path)
            self.path = left

    def _copy(self, engine: RealEngine) -> str:
        """Copy the open directory; a background thread may delete files meanwhile."""
        self._rows = [dict(engine.scan(cf, b"", _END)) for cf in range(FAMILIES)]
        self._lives += 1
        left = f"{self._base}.{self._lives}"
        while True:
            try:
                shutil.copytree(self.path, left)
                return left
            except (shutil.Error, FileNotFoundError):
                shutil.rmtree(left)

    def power_cut(self) -> int:
        """After `die`: cut the log to what is on the disk; how many files that changed."""
        cut = 0
        for number in log_numbers(self.path):
            path = log_path(self.path, number)
            size = self._synced.get(os.path.basename(path), 0)
            cut += size < os.path.getsize(path)
            os.truncate(path, min(size, os.path.getsize(path)))
        return cut

    def files_of(self) -> dict[str, bytes]:
        """A checkpoint's files."""
        assert self.engine is not None
        path = f"{self.path}.checkpoint"
        self.engine.checkpoint(path)
        files = {name: Path(path, name).read_bytes() for name in sorted(os.listdir(path))}
        shutil.rmtree(path)
        return files

    def become(self, files: dict[str, bytearray]) -> RealStore:
        """Another data set takes the place of this one, which is closed."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.makedirs(self.path)
        for name, data in files.items():
            Path(self.path, name).write_bytes(data)
        self.synced()
        self._renew()
        return self

    def purgeable(self) -> list[int]:
        """Numbers of the archived log files, oldest first."""
        return sorted(log_numbers(archive_path(self.path)))

    def delete(self, number: int) -> None:
        """Delete an archived log file."""
        os.unlink(log_path(archive_path(self.path), number))


class RealEngine(Engine):
    """RocksDB, with the faults of the simulation."""

    def __init__(self, store: RealStore) -> None:
        self.store = store
        store.engine = self
        self.stalled = self.failing = self.loses = False
        self.on_write: Callable[[str], None] = lambda _label: None
        os.makedirs(store.path, exist_ok=True)
        super().__init__(store.path, _config())
        store.synced()  # opening it wrote what it found to data files

    def write(self, batch: Any) -> None:
        self.on_write("before")
        if self.failing:
            raise EngineError("IO error: No space left on device")
        if self.stalled:
            raise EngineStalled("Result incomplete: Write stall")
        super().write(batch)
        self.on_write("after")

    def sync_wal(self) -> None:
        super().sync_wal()
        self.store.synced()

    def flush(self) -> None:
        super().flush()
        self.store.synced()

    def reopen(self) -> None:
        loses = self.failing and self.loses
        self.failing = self.loses = False
        if loses:
            path = self.path
            self.store.die()
            os.rename(self.store.path, path)
            self.store.path, self.store.engine = path, self
            self.store.power_cut()
        super().reopen()
        self.store.synced()

    def replace(self, _store: RealStore) -> None:
        """Open the data set that took the place of the closed one."""
        self.failing = self.loses = False
        super().reopen()
        self.store.synced()

    def stopped(self) -> bool:
        return self.stalled
