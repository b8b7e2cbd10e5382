"""The log files of an engine in memory, as `storage.wal` sees files: its reader runs over them.

Offsets count batches, so a file is less than one block. A file that was deleted can be read on by
whoever has it open.
"""

from __future__ import annotations

from kvserver.storage import wal
from kvserver.storage.wal import WalDirectory, WalReader
from kvserver.storage.wal_batch import BATCH, Batch, WalNotFound
from kvserver.storage.wal_file import Stop
from sim.engine import LogFile, MemoryEngine


class EnginePath(str):
    """The path of a data set that is in memory: `positions` opens its log by it."""

    engine: MemoryEngine


class MemoryFile:
    """`wal_file.LogFile`."""

    def __init__(self, file: LogFile) -> None:
        self.number = file.number
        self.path = f"{file.number:06d}.log"
        self.offset = 0
        self.stop = Stop("nothing read yet", 0)
        self._batches = file.batches

    def close(self) -> None:
        pass

    def size(self) -> int:
        return len(self._batches)

    def read(self) -> Batch | None:
        if self.offset >= len(self._batches):
            self.stop = Stop("the end of the file", self.offset)
            return None
        sequence, payload = self._batches[self.offset]
        count = BATCH.unpack_from(payload)[1]
        self.offset += 1
        return Batch(sequence, count, payload, self.path, self.offset - 1)

    def seek(self, sequence: int) -> int | None:
        due = None
        self.offset = 0
        while (batch := self.read()) is not None:
            due = batch.sequence + batch.count
            if due > sequence:
                self.offset -= 1
                return batch.sequence
        if due is not None and due != sequence:
            raise WalNotFound(f"sequence {sequence} isn't in the log: {due} comes next", self.path)
        return due

    def first_batch_from(self, block: int) -> Batch | None:
        self.offset = 0 if block == 0 else len(self._batches)
        return self.read()


class MemoryDirectory(WalDirectory):
    """`WalDirectory` of an engine in memory."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    def numbers(self) -> list[int]:
        return [file.number for file in self._engine.store.files]

    def after(self, number: int) -> int | None:
        for file in self._engine.store.files:
            if file.number > number:
                return file.number
        return None

    def open(self, number: int) -> MemoryFile:  # type: ignore[override]
        for file in self._engine.store.files:
            if file.number == number:
                return MemoryFile(file)
        raise WalNotFound(f"log file {number:06d} has been deleted")


class MemoryReader(WalReader):
    """`WalReader` of an engine in memory."""

    def __init__(self, engine: MemoryEngine, start_file: int | None = None) -> None:
        self._directory = MemoryDirectory(engine)
        number = self._directory.numbers()[0] if start_file is None else start_file
        self._log = self._directory.open(number)  # type: ignore[assignment]
        self._due = None
        self._left = None


def directory(path: str) -> WalDirectory:
    """`WalDirectory` of either kind of path."""
    return MemoryDirectory(path.engine) if isinstance(path, EnginePath) else wal.WalDirectory(path)


def reader(path: str, start_file: int | None = None) -> WalReader:
    """`WalReader` of either kind of path."""
    if isinstance(path, EnginePath):
        return MemoryReader(path.engine, start_file)
    return wal.WalReader(path, start_file)
