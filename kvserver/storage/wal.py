"""Reads RocksDB's write-ahead log (WAL): the files that are kvserver's replication log.

It knows nothing of what kvserver keeps in the log, and not rocksdict. It only reads, while RocksDB
in this process writes. One file is wal_file.py's, its batches are wal_batch.py's. Source of truth
for what recovery makes of a damaged log: RocksDB's db/db_impl/db_impl_open.cc.

**Where the log ends.** A file stops at its end, at a zero header (space allocated in advance), at
a record cut short, or at a damaged one (a wrong checksum, an impossible header).

- In the newest file a stop means "no more yet", and damage is corruption.
- In an older file the sequences decide. RocksDB numbers batches without a gap. After a crash or a
  failed write it drops the tail that it can't read, and a new file goes on with the number after
  the last good batch (recovery writes an empty batch there to say so). So a stop of any kind
  lost nothing exactly if the next file begins with the sequence that was due; if not, it is
  corruption, with the file and offset of the stop. Damage before any batch was read can't be
  judged so, and is corruption.
- If the next file doesn't fit because retention deleted some between, it is WalNotFound.

**Moving files.** RocksDB renames `<db>/N.log` to `<db>/archive/N.log` at any time. A reader keeps
its descriptor, and finds a file by number in `<db>`, then in the archive; nothing moves back.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from contextlib import closing
from typing import Final

from kvserver.storage.wal_batch import Batch, WalCorruption, WalError, WalNotFound
from kvserver.storage.wal_file import NEVER, LogFile, Stop

_GONE: Final = -1  # below every sequence: retention deletes the oldest files first
_AT_REST_NS: Final = 1_000_000_000


def archive_path(db_path: str) -> str:
    return os.path.join(db_path, "archive")


def log_path(directory: str, number: int) -> str:
    return os.path.join(directory, f"{number:06d}.log")


def log_numbers(directory: str) -> list[int]:
    """The numbers of the log files in a directory, unsorted; none if it doesn't exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdecimal()]


class WalDirectory:
    """Finds a database's log files by number, live or archived."""

    def __init__(self, db_path: str) -> None:
        self._live = db_path
        self._archive = archive_path(db_path)
        self._known: list[int] = []
        self._known_at = 0

    def numbers(self) -> list[int]:
        """Ascending. Lists the live files first, so that one that moves meanwhile isn't missed."""
        live = log_numbers(self._live)
        return sorted({*live, *log_numbers(self._archive)})

    def after(self, number: int) -> int | None:
        """The number of the next newer file; one stat as long as the directory is at rest."""
        changed_at = os.stat(self._live).st_mtime_ns
        if changed_at != self._known_at:
            self._known = self.numbers()
            # A directory's time moves in ticks of milliseconds: after a change just now, another
            # may leave it the same.
            at_rest = time.time_ns() - changed_at > _AT_REST_NS
            self._known_at = changed_at if at_rest else 0
        index = bisect_right(self._known, number)
        return self._known[index] if index < len(self._known) else None

    def open(self, number: int) -> LogFile:
        """Raises WalNotFound if the file has been deleted."""
        for directory in (self._live, self._archive):
            path = log_path(directory, number)
            try:
                return LogFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), number, path)
            except FileNotFoundError:
                continue
        raise WalNotFound(f"log file {number:06d} has been deleted")

    def size(self, number: int) -> int:
        """A file's bytes; 0 if it is gone."""
        try:
            with closing(self.open(number)) as log:
                return log.size()
        except (WalNotFound, OSError):
            return 0

    def has_begun(self, number: int) -> bool:
        """Whether the writer has turned to this file, and so is done with those before it.

        RocksDB creates a file before it writes the last buffered bytes of the one before: only
        the first byte in it, or a still newer file, proves it.
        """
        with closing(self.open(number)) as log:
            return log.size() > 0 or self.after(number) is not None

    def find(self, sequence: int) -> int:
        """The number of the file that holds `sequence`, or will if it is the next one due.

        Raises WalNotFound if the log begins after it.
        """
        numbers = self.numbers()

        def first_sequence(index: int) -> int:
            return self._first_sequence_in(numbers[index:])

        index = bisect_right(range(len(numbers)), sequence, key=first_sequence)
        if index:
            return numbers[index - 1]
        if numbers and first_sequence(0) == NEVER:
            return numbers[-1]
        raise WalNotFound(f"sequence {sequence} isn't in the log any more")

    def _first_sequence_in(self, numbers: list[int]) -> int:
        """The sequence of the first batch in these files, where some may be without one."""
        for number in numbers:
            try:
                log = self.open(number)
            except WalNotFound:
                return _GONE
            with closing(log):
                batch = log.read()
            if batch is not None:
                return batch.sequence
        return NEVER


class WalReader:
    """Reads the log batch by batch, from the oldest file or `start_file` on, and follows it.

    For one thread at a time. After an error it can only be closed, or moved by `seek`.
    """

    def __init__(self, db_path: str, start_file: int | None = None) -> None:
        self._directory = WalDirectory(db_path)
        if start_file is None:
            numbers = self._directory.numbers()
            if not numbers:
                raise WalNotFound("there is no log file", db_path)
            start_file = numbers[0]
        self._log = self._directory.open(start_file)
        self._due: int | None = None
        self._left: tuple[int, str, Stop] | None = None  # where a gap would be

    def close(self) -> None:
        self._log.close()

    @property
    def file_number(self) -> int:
        """The file that it reads: retention must keep this one and all after it."""
        return self._log.number

    @property
    def next_sequence(self) -> int | None:
        """The sequence that the next batch must have; None before the first batch."""
        return self._due

    def read(self) -> Batch | None:
        """The next batch, None if there is no more yet.

        Raises WalCorruption, WalUnsupported, or WalNotFound if the log was deleted up to beyond
        this point.
        """
        batch = self._log.read()
        while batch is None:
            following = self._following()
            if following is None:
                return None
            batch = self._log.read()  # it may have been completed just before the next file began
            if batch is None:
                self._go_on_in(following)
                batch = self._log.read()
        if batch.sequence != self._due and self._due is not None:
            raise self._gap(batch)
        self._due = batch.sequence + batch.count
        self._left = None
        return batch

    def place(self, offset: int, sequence: int) -> None:
        """Moves within the file to the batch at `offset`, whose sequence is `sequence`."""
        self._log.offset = offset
        self._due = sequence
        self._left = None

    def seek(self, sequence: int) -> None:
        """Moves to the batch that holds `sequence`, or to the end if that is the next one due.

        Raises WalNotFound, and stays where it is, if the log doesn't have it any more or yet.
        """
        log = self._directory.open(self._directory.find(sequence))
        try:
            due = log.seek(sequence)
        except WalError:
            log.close()
            raise
        self._log.close()
        self._log = log
        self._due = sequence if due is None else due
        self._left = None

    def _following(self) -> int | None:
        """The number of the next file once this one is final; raises for damage in the newest."""
        number = self._directory.after(self._log.number)
        if number is not None and self._directory.has_begun(number):
            return number
        stop = self._log.stop
        if stop.damaged:
            raise WalCorruption(stop.reason, self._log.path, stop.offset)
        return None

    def _go_on_in(self, number: int) -> None:
        stop = self._log.stop
        if stop.damaged and self._due is None:
            raise WalCorruption(stop.reason, self._log.path, stop.offset)
        if self._left is None or self._log.offset < self._log.size():  # bytes that nobody read
            self._left = self._log.number, self._log.path, stop
        log = self._directory.open(number)
        self._log.close()
        self._log = log

    def _gap(self, batch: Batch) -> WalError:
        if self._left is None:
            reason = f"a batch with sequence {batch.sequence}, where {self._due} was due"
            return WalCorruption(reason, batch.file, batch.offset)
        number, path, stop = self._left
        if number not in self._directory.numbers():
            return WalNotFound(f"sequence {self._due} isn't in the log any more")
        reason = f"{batch.file} begins with sequence {batch.sequence}, not {self._due}"
        return WalCorruption(f"{stop.reason}, and {reason}", path, stop.offset)
