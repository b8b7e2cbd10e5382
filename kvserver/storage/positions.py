"""The write-ahead log by position: frames from any position on, and what was written since one.

RocksDB numbers records, kvserver numbers commands; the stamp at the end of each batch ties them.
It must not know links or what rows mean. Invariants:
- Between two rewinds positions rise with RocksDB's sequences, so files and blocks are bisected.
- A rewind makes positions go back, with the first of its batches; they are no frames, and all of
  them have the row `~u`. Position p is in the newest part of the log whose rewind went
  back to before p; what an older part says of p and later was discarded.
- A cursor yields no frame above the committed position, and never half a frame. It doesn't
  survive a rewind: what it has yielded may be discarded.
- What is read of files is kept by number: their beginning never changes. `forget` is called
  whenever positions may have gone back or the files are others.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from kvserver.codec import EVENTS_KEY, LOCAL_PREFIX, REWINDS_KEY, STAMP, STAMP_KEY, UNTIL_KEY
from kvserver.frames import DATA, Frame
from kvserver.storage.commitlog import LOG, CommitLog
from kvserver.storage.wal import WalDirectory, WalReader
from kvserver.storage.wal_batch import (
    BATCH_HEADER,
    DELETE_RANGE,
    Batch,
    WalError,
    tail_record,
)
from kvserver.storage.wal_extent import WalExtent
from kvserver.storage.wal_file import BLOCK, LogFile

#: Rewinds that are remembered. What came before the first is lost when there are as many.
MAX_REWINDS: Final = 64

#: What an entry of the list of rows that a rewind asks for counts at least: an empty key takes
#: memory, too.
WANTED_BYTES: Final = 24

_REWIND: Final = struct.Struct(">QQ")
_NEVER: Final = 1 << 64
#: Files whose size is asked for; more are estimated.
_SIZES: Final = 50


class LogGone(Exception):
    """The log doesn't reach back to that position, never had it, or can't be read there."""


class InsideFrame(Exception):
    """That position is in the middle of a frame, `first_seq`..`last_seq`."""

    def __init__(self, first_seq: int, last_seq: int) -> None:
        super().__init__(f"inside a frame, {first_seq} to {last_seq}")
        self.first_seq = first_seq
        self.last_seq = last_seq


class TooMuch(Exception):
    """More was written than a rewind may take back."""


class Touched:
    """What a part of the log wrote: keys of each column family, ranges (cf, begin, end), and the
    frames that a rewind discards, in order. `size`: bytes of all that; `wanted`: those of keys and
    ranges as the primary counts them."""

    def __init__(self) -> None:
        self.keys: list[dict[bytes, None]] = [{}, {}, {}, {}]
        self.ranges: list[tuple[int, bytes, bytes]] = []
        self.frames: list[Frame] = []
        self.size = self.wanted = 0

    def add(self, batch: Batch) -> None:
        """What this batch wrote."""
        for op, cf, key, value in batch.records():
            if cf == LOG and (key in (STAMP_KEY, EVENTS_KEY) or key.startswith(LOCAL_PREFIX)):
                continue
            if op == DELETE_RANGE:
                self.ranges.append((cf, key, value))
                self.size += len(key) + len(value)
                self.wanted += max(len(key) + len(value), WANTED_BYTES)
            elif key not in self.keys[cf]:
                self.keys[cf][key] = None
                self.size += len(key)
                self.wanted += max(len(key), WANTED_BYTES)

    def add_frame(self, frame: Frame) -> None:
        """A frame that is to be discarded."""
        self.frames.append(frame)
        self.size += len(frame.payload)

    def discard(self, fork: int) -> None:
        """A rewind to this position has discarded the frames after it already."""
        while self.frames and self.frames[-1].last_seq > fork:
            self.size -= len(self.frames.pop().payload)


def pack_rewinds(rewinds: list[tuple[int, int]]) -> bytes:
    """The row `~r`: (RocksDB sequence of the rewind's batch, fork), oldest first, at most
    MAX_REWINDS."""
    return b"".join(_REWIND.pack(*rewind) for rewind in rewinds)


def unpack_rewinds(row: bytes) -> list[tuple[int, int]]:
    """What `pack_rewinds` packed."""
    return [(sequence, fork) for sequence, fork in _REWIND.iter_unpack(row)]


class PositionLog:
    """Finds positions in the log of an open data set. For the thread that commits, except for
    `collect`."""

    def __init__(self, path: str, log: CommitLog) -> None:
        self._path = path
        self.log = log
        self.forget()

    def forget(self) -> None:
        """Positions went back, or the files are others now."""
        self._directory = WalDirectory(self._path)
        self.extent = WalExtent(self.log.engine)
        #: Sequence and first position of the first stamped batch of each file, once it has one.
        self._firsts: dict[int, tuple[int, int]] = {}
        self.rewinds = unpack_rewinds(self.log.meta.get(REWINDS_KEY) or b"")

    def first_position(self) -> int:
        """The lowest position from which on the log can be read."""
        return self._first_position(self._directory.numbers())

    def reach(self) -> tuple[int, int]:
        """The lowest position and the bytes of the log, as they were a second ago, or later:
        without looking at the disk."""
        return self._first_position(self.extent.found.numbers), self.extent.size

    def _first_position(self, numbers: list[int]) -> int:
        following = self.log.committed_seq + 1
        oldest = self._first_of(numbers)
        if oldest is None:
            return following
        sequence, first = oldest
        part = bisect_right(self.rewinds, (sequence, _NEVER))
        lowest = min((fork + 1 for _, fork in self.rewinds[part:]), default=following)
        if self._is_lost(part):
            return lowest
        return min(lowest, max(first, 1))  # the genesis is position 0

    def open(self, seq: int) -> FrameCursor:
        """A cursor at the frame that begins with position `seq`, which may be the next one to
        come. Raises LogGone, InsideFrame."""
        return FrameCursor(self, seq)

    def reader(self, seq: int) -> tuple[WalReader, int]:
        """A reader placed at that frame, and the last position that it is good for."""
        with _log_gone():
            if seq == self.log.committed_seq + 1:
                return self._reader_at_end(), _NEVER
            number, batch, first, last = self._find(seq)
            good_until = min((f for s, f in self.rewinds if s > batch.sequence), default=_NEVER)
            if last > good_until:
                raise LogGone(f"a rewind has cut the frame with position {seq}")
            if first != seq:
                raise InsideFrame(first, last)
            reader = WalReader(self._path, number)
            reader.place(batch.offset, batch.sequence)
            return reader, good_until

    def sequence_of(self, seq: int) -> int:
        """RocksDB's sequence where the frame that covers position `seq` begins, or will begin."""
        if seq == self.log.committed_seq + 1:
            return self.log.engine.rocksdb_sequence() + 1
        with _log_gone():
            return self._find(seq)[1].sequence

    def bytes_after(self, seq: int) -> int:
        """About how many bytes of log follow position `seq`: all there are if it is gone."""
        if seq >= self.log.committed_seq:
            return 0
        numbers = self._directory.numbers()
        try:
            with _log_gone():
                number, batch, _, _ = self._find(seq + 1)
        except LogGone:
            return self._size_of(numbers)
        size = self._directory.size(number) - batch.offset
        return size + self._size_of([later for later in numbers if later > number])

    def collect(self, start: int, fork: int, max_bytes: int) -> Touched:
        """What was written from RocksDB's sequence `start` on, and the frames above position
        `fork` that were not discarded before. Blocks on the disk: for a worker thread, while
        nothing is committed. Raises LogGone, TooMuch."""
        forks = dict(self.rewinds)
        end = self.log.engine.rocksdb_sequence()
        touched = Touched()
        with _log_gone(), closing(WalReader(self._path)) as reader:
            reader.seek(start)
            while (batch := reader.read()) is not None:
                touched.add(batch)
                if batch.sequence in forks:
                    touched.discard(forks[batch.sequence])
                elif (frame := frame_of(batch)) is not None and frame.last_seq > fork:
                    touched.add_frame(frame)
                if touched.size > max_bytes:
                    raise TooMuch(f"more than {max_bytes} bytes were written since then")
            if (reader.next_sequence or 0) <= end:
                raise LogGone(f"the log ends before sequence {reader.next_sequence}, not {end + 1}")
        return touched

    # -- inside ------------------------------------------------------------------------------

    def _reader_at_end(self) -> WalReader:
        reader = WalReader(self._path, next(reversed(self._directory.numbers()), None))
        try:
            reader.seek(self.log.engine.rocksdb_sequence() + 1)
        except (WalError, OSError):
            reader.close()
            raise
        return reader

    def _find(self, seq: int) -> tuple[int, Batch, int, int]:
        """The number of the file with the frame that covers position `seq`; its batch, its first
        and last position. Raises LogGone, WalError."""
        last = self.log.committed_seq
        if not 0 < seq <= last:
            raise LogGone(f"position {seq} is not in the log: the last one is {last}")
        low, high = self._part_of(seq)
        numbers = self._directory.numbers()

        def rank(found: tuple[int, int] | None) -> int:
            if found is None or found[0] >= high:
                return _NEVER
            return found[1] if found[0] > low else -1

        def rank_of_file(index: int) -> int:
            return rank(self._first_of(numbers[index:]))

        index = bisect_right(range(len(numbers)), seq, key=rank_of_file)
        if not index:
            raise LogGone(f"position {seq} isn't in the log any more")
        number = numbers[index - 1]
        with closing(self._directory.open(number)) as file:

            def rank_of_block(block: int) -> int:
                return rank(_first_stamped(file, file.first_batch_from(block)))

            blocks = range(-(-file.size() // BLOCK))
            beyond = bisect_right(blocks, seq, key=rank_of_block)
            batch = file.first_batch_from(max(beyond - 1, 0))
            while batch is not None and batch.sequence < high:
                stamp = stamp_of(batch)
                if stamp is not None and batch.sequence > low:
                    _, first, last, _ = stamp
                    if first <= seq <= last:
                        return number, batch, first, last
                    if first > seq:
                        break
                batch = file.read()
        raise LogGone(f"position {seq} isn't in the log any more")

    def _part_of(self, seq: int) -> tuple[int, int]:
        """The sequences between which position `seq` is: those of two rewinds."""
        high = _NEVER
        for sequence, fork in reversed(self.rewinds):
            if fork < seq:
                return sequence, high
            high = sequence
        if self._is_lost(0):
            raise LogGone(f"position {seq} is before too many rewinds")
        return -1, high

    def _is_lost(self, part: int) -> bool:
        """Whether rewinds may have been forgotten that were in this part of the log."""
        return part == 0 and len(self.rewinds) >= MAX_REWINDS

    def _first_of(self, numbers: list[int]) -> tuple[int, int] | None:
        """Sequence and position of the first stamped batch in these files."""
        for number in numbers:
            found = self._firsts.get(number) or self._first_in(number)
            if found is not None:
                return found
        return None

    def _first_in(self, number: int) -> tuple[int, int] | None:
        try:
            with closing(self._directory.open(number)) as file:
                found = _first_stamped(file, file.read())
        except (WalError, OSError):
            return None  # deleted just now: the next one is the oldest; or who reads it will tell
        if found is not None:
            self._firsts[number] = found
        return found

    def _size_of(self, numbers: list[int]) -> int:
        """Bytes of these files, from some of them if they are many."""
        some = numbers[:: -(-len(numbers) // _SIZES) or 1]
        return sum(map(self._directory.size, some)) * len(numbers) // max(len(some), 1)


class FrameCursor:
    """Reads frames in order, also while the log grows."""

    def __init__(self, index: PositionLog, seq: int) -> None:
        self._index = index
        self.next_seq = seq
        self._reader, self._good_until = index.reader(seq)
        self._rewinds = index.rewinds
        self._held: Batch | None = None

    def close(self) -> None:
        """Let the file go."""
        self._reader.close()

    @property
    def file_number(self) -> int:
        """The log file that it reads: this one and all newer ones are needed."""
        return self._reader.file_number

    def read(self) -> Frame | None:
        """The next frame that is committed; None if there is no more yet. Raises LogGone."""
        frame = self.peek()
        if frame is not None:
            self._held = None
            self.next_seq = frame.last_seq + 1
        return frame

    def peek(self) -> Frame | None:
        """What `read` returns next. Raises LogGone."""
        if self._rewinds is not self._index.rewinds:
            self._check_rewinds()
        while True:
            if self.next_seq > self._good_until:
                self._jump()
            batch = self._held or self._next_batch()
            if batch is None:
                return None
            self._held = None
            frame = frame_of(batch)
            if frame is None:
                continue
            if frame.first_seq != self.next_seq or frame.last_seq > self._good_until:
                found = f"{frame.first_seq} to {frame.last_seq}"
                raise LogGone(f"position {self.next_seq} was due in the log, {found} is there")
            self._held = batch
            return frame if frame.last_seq <= self._index.log.committed_seq else None

    def _next_batch(self) -> Batch | None:
        try:
            return self._reader.read()
        except (WalError, OSError) as error:
            raise LogGone(str(error)) from None

    def _check_rewinds(self) -> None:
        if self._index.rewinds != self._rewinds:
            raise LogGone("positions went back")
        self._rewinds = self._index.rewinds

    def _jump(self) -> None:
        """What follows here was discarded: go on behind the rewind."""
        try:
            reader, good_until = self._index.reader(self.next_seq)
        except InsideFrame as error:
            raise LogGone(f"position {self.next_seq} is {error}") from None
        self._reader.close()
        self._reader, self._good_until = reader, good_until


@contextmanager
def _log_gone() -> Iterator[None]:
    """A log that can't be read is as good as none."""
    try:
        yield
    except (WalError, OSError) as error:
        raise LogGone(str(error)) from None


def _first_stamped(file: LogFile, batch: Batch | None) -> tuple[int, int] | None:
    """Sequence and first position of this batch, or of the first after it that has a stamp."""
    while batch is not None:
        stamp = stamp_of(batch)
        if stamp is not None:
            return batch.sequence, stamp[1]
        batch = file.read()
    return None


def stamp_of(batch: Batch) -> tuple[int, int, int, int] | None:
    """(epoch, first_seq, last_seq, unix_ms); None for a batch that RocksDB wrote by itself."""
    record = tail_record(batch.payload, len(STAMP_KEY), STAMP.size)
    if record is None or record[1] != LOG or record[2] != STAMP_KEY:
        return None
    epoch, first, last, unix_ms = STAMP.unpack(record[3])
    return epoch, first, last, unix_ms


def frame_of(batch: Batch) -> Frame | None:
    """The batch as a frame; None if it is none: RocksDB's own, or a rewind's."""
    stamp = stamp_of(batch)
    if stamp is None:
        return None
    epoch, first, last, unix_ms = stamp
    if first > last and _is_of_rewind(batch):
        return None
    return Frame(DATA, epoch, first, last, batch.count, unix_ms, batch.payload[BATCH_HEADER:])


def _is_of_rewind(batch: Batch) -> bool:
    """Whether a rewind wrote this batch. Padding may have no position in its stamp either."""
    return any(cf == LOG and key == UNTIL_KEY for _, cf, key, _ in batch.records())
