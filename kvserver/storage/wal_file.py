"""One file of RocksDB's write-ahead log: its blocks and records, read also while it grows.

Knows nothing of other files. Sources of truth: RocksDB's db/log_format.h and log_reader.cc.

A file is blocks of 32 KiB, filled with fragments `crc32c (masked) u32, length u16,
type u8, body`, little-endian; less than 7 bytes at the end of a block is a trailer. A `full`
fragment, or `first middle* last`, is a record; a record is one WriteBatch: `sequence u64, count
u32`, then tagged entries. Any other type of fragment is refused by name.

A file stops at its end, at a zero header (space allocated in advance), at a record cut short, or
at a damaged one (a wrong checksum, an impossible header). Which of these is "no more yet", which is
the end and which is corruption, only the other files tell: see wal.py.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from typing import Final

from crc32c import crc32c

from kvserver.storage.wal_batch import (
    BATCH,
    BATCH_HEADER,
    Batch,
    WalCorruption,
    WalNotFound,
    WalUnsupported,
)

BLOCK: Final = 32 * 1024
FRAGMENT_HEADER: Final = 7
_FRAGMENT: Final = struct.Struct("<IHB")
_FULL: Final = 1
_FIRST: Final = 2
_LAST: Final = 4

_CHUNK: Final = 8 * BLOCK  # read at once; more than any fragment
NEVER: Final = 1 << 64  # above every sequence

_UNSUPPORTED_FRAGMENTS: Final = {
    5: "recyclable full",
    6: "recyclable first",
    7: "recyclable middle",
    8: "recyclable last",
    9: "set compression type",
    10: "user-defined timestamp size",
    11: "recyclable user-defined timestamp size",
    33: "predecessor WAL information",
    34: "recyclable predecessor WAL information",
}
# These have the log's number (u32) after the header: in the checksum, not in the length.
_RECYCLABLE: Final = frozenset((5, 6, 7, 8, 11, 34))


class Stop(Exception):
    """No whole record here; `damaged` if an unfinished write doesn't explain it."""

    def __init__(self, reason: str, offset: int, damaged: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.damaged = damaged


class LogFile:
    """Reads the records of one open file, also while it grows.

    `offset` is where the next record begins; it moves by whole records. `stop` is why the last
    `read` found none.
    """

    def __init__(self, fd: int, number: int, path: str) -> None:
        self.number = number
        self.path = path
        self.offset = 0
        self.stop = Stop("nothing read yet", 0)
        self._fd = fd
        self._forget()

    def close(self) -> None:
        os.close(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self) -> Batch | None:
        """The next batch; None, with `stop` set, if there is no whole one."""
        while True:
            fresh = not self._data
            try:
                return self._record()
            except Stop as stop:
                self._forget()  # it may have been read while it was being written
                if fresh:
                    self.stop = stop.with_traceback(None)  # whose frames refer to us
                    return None

    def seek(self, sequence: int) -> int | None:
        """Moves to the batch that holds `sequence`, or to the end if that is the next one due.

        Returns the sequence due there, None if the file holds no batch. Bisects the blocks by
        the first batch that begins in each: about ten reads in a file of 64 MB.
        """
        blocks = range(-(-self.size() // BLOCK))
        beyond = bisect_right(blocks, sequence, key=self._first_sequence_from)
        due = None
        batch = self.first_batch_from(max(beyond - 1, 0))
        while batch is not None:
            due = batch.sequence + batch.count
            if due > sequence:
                self.offset = batch.offset
                self._forget()
                return batch.sequence
            batch = self.read()
        if due is not None and due != sequence:
            if self.stop.damaged:
                raise WalCorruption(self.stop.reason, self.path, self.stop.offset)
            raise WalNotFound(f"sequence {sequence} isn't in the log: {due} comes next", self.path)
        return due

    def _first_sequence_from(self, block: int) -> int:
        batch = self.first_batch_from(block)
        return NEVER if batch is None else batch.sequence

    def first_batch_from(self, block: int) -> Batch | None:
        """The first batch that begins in this block or after it; moves past it."""
        offset = block * BLOCK
        try:
            kind, _, after = self._fragment(offset)
            while kind > _FIRST:
                offset = after
                kind, _, after = self._fragment(offset)
            self.offset = offset
            return self._record()
        except Stop:
            return None

    def _forget(self) -> None:
        self._base = 0
        self._data = b""
        self._view = memoryview(b"")

    def _record(self) -> Batch:
        """Joins the fragments of the record at `offset` and moves past it."""
        kind, body, after = self._fragment(self.offset)
        if kind != _FULL:
            if kind != _FIRST:
                raise Stop("a fragment out of order", self.offset, damaged=True)
            parts = [body]
            while kind != _LAST:
                offset = after
                kind, body, after = self._fragment(offset)
                if kind <= _FIRST:
                    raise Stop("a fragment out of order", offset, damaged=True)
                parts.append(body)
            body = b"".join(parts)
        if len(body) < BATCH_HEADER:
            raise WalCorruption("a record shorter than a batch's header", self.path, self.offset)
        sequence, count = BATCH.unpack_from(body)
        batch = Batch(sequence, count, body, self.path, self.offset)
        self.offset = after
        return batch

    def _fragment(self, offset: int) -> tuple[int, bytes, int]:
        """Type and body of the fragment at `offset`, and where the next one begins."""
        pos = offset - self._base
        if pos < 0 or pos + FRAGMENT_HEADER > len(self._data):
            pos = self._load(offset, FRAGMENT_HEADER)
        crc, length, kind = _FRAGMENT.unpack_from(self._data, pos)
        if not _FULL <= kind <= _LAST:
            self._refuse(offset, crc, length, kind)
        size = FRAGMENT_HEADER + length
        left = BLOCK - offset % BLOCK - size
        if left < 0:
            raise Stop("a fragment longer than its block", offset, damaged=True)
        if pos + size > len(self._data):
            pos = self._load(offset, size)
        end = pos + size
        if crc != _masked_crc(self._view[pos + 6 : end]):  # of type and body
            raise Stop("a wrong checksum", offset, damaged=True)
        after = offset + size
        if left < FRAGMENT_HEADER:
            after += left  # the block's trailer
        return kind, self._data[pos + FRAGMENT_HEADER : end], after

    def _load(self, offset: int, size: int) -> int:
        """Buffers the file from `offset` on and returns 0, its index; at least `size` bytes."""
        self._data = os.pread(self._fd, _CHUNK, offset)
        self._view = memoryview(self._data)
        self._base = offset
        if len(self._data) < size:
            raise Stop("a fragment cut short" if self._data else "the end of the file", offset)
        return 0

    def _refuse(self, offset: int, crc: int, length: int, kind: int) -> None:
        """Raises what a header of another type is: the end, refused by name, or damage."""
        if crc == length == kind == 0:
            raise Stop("a zero header", offset)
        self._load(offset, FRAGMENT_HEADER)
        end = FRAGMENT_HEADER + length + (4 if kind in _RECYCLABLE else 0)
        if crc != _masked_crc(self._view[6:end]):
            raise Stop("a wrong checksum", offset, damaged=True)
        name = _UNSUPPORTED_FRAGMENTS.get(kind, "unknown")
        raise WalUnsupported(f"record type {kind} ({name}) is not supported", self.path, offset)


def _masked_crc(data: memoryview) -> int:
    """As it is stored, so that a crc of crcs stays sound (util/crc32c.h, Mask)."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
