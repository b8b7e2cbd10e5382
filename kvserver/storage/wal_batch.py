"""RocksDB's WriteBatch, as the log holds it and replication carries it: decoded, never encoded.

A batch is `sequence u64, count u32`, little-endian, then tagged entries; sources of truth are
RocksDB's db/write_batch.cc and db/dbformat.h. Pure: bytes in, records out. The errors of reading
the log are here too, because everything that reads it needs them.
"""

from __future__ import annotations

import struct
from typing import Final


class WalError(Exception):
    """Why the log can't be read; `file` and byte `offset` tell where ("" if there is no file)."""

    def __init__(self, reason: str, file: str = "", offset: int = 0) -> None:
        super().__init__(reason, file, offset)
        self.reason = reason
        self.file = file
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.file} at offset {self.offset}: {self.reason}" if self.file else self.reason


class WalCorruption(WalError):
    """These are not the bytes, or not the batches, that RocksDB wrote and kept."""


class WalUnsupported(WalError):
    """A part of the format that kvserver never makes RocksDB write."""


class WalNotFound(WalError):
    """The log doesn't hold this file or sequence: not any more, or not yet."""


# What a record does: RocksDB's ValueType, the same with and without a column family.
DELETE: Final = 0x0
PUT: Final = 0x1
MERGE: Final = 0x2
LOG_DATA: Final = 0x3
SINGLE_DELETE: Final = 0x7
NOOP: Final = 0xD
DELETE_RANGE: Final = 0xF

#: (operation, column family id, key, value): DELETE_RANGE has the end key as its value, LOG_DATA
#: its blob; what an operation doesn't have is b"".
Record = tuple[int, int, bytes, bytes]

BATCH_HEADER: Final = 12
BATCH: Final = struct.Struct("<QI")

# What follows a tag, as flags below the operation; 0 for a tag that is not supported.
_CF: Final = 1
_KEY: Final = 2
_VALUE: Final = 4
_COUNTED: Final = 8  # in the batch's count; log data and no-ops are not
_KNOWN: Final = 16
_OP_SHIFT: Final = 5
_PUT_CF_TAG: Final = 0x5


def _shapes() -> list[int]:
    shapes = [0] * 256
    parts = {DELETE: _KEY, SINGLE_DELETE: _KEY}
    for plain, with_cf in ((0x0, 0x4), (0x1, 0x5), (0x2, 0x6), (0x7, 0x8), (0xF, 0xE)):
        shape = plain << _OP_SHIFT | _KNOWN | _COUNTED | parts.get(plain, _KEY | _VALUE)
        shapes[plain] = shape
        shapes[with_cf] = shape | _CF
    shapes[LOG_DATA] = LOG_DATA << _OP_SHIFT | _KNOWN | _VALUE
    shapes[NOOP] = NOOP << _OP_SHIFT | _KNOWN
    return shapes


_SHAPES: Final = _shapes()

_UNSUPPORTED_TAGS: Final = {
    **dict.fromkeys((0x09, 0x0A, 0x0B, 0x0C, 0x12, 0x13, 0x15), "transaction"),
    **dict.fromkeys((0x10, 0x11), "blob index"),
    0x14: "deletion with timestamp",
    **dict.fromkeys((0x16, 0x17), "wide-column entity"),
    **dict.fromkeys((0x18, 0x19), "timed put"),
}


class Batch:
    """One WriteBatch of the log.

    `sequence` is that of the first counted record; the next batch has `sequence + count`. An
    empty batch is legal. `payload` is the whole batch with its header of 12 bytes; `file` and
    `offset` tell where it begins.
    """

    __slots__ = ("count", "file", "offset", "payload", "sequence")

    def __init__(self, sequence: int, count: int, payload: bytes, file: str, offset: int) -> None:
        self.sequence = sequence
        self.count = count
        self.payload = payload
        self.file = file
        self.offset = offset

    def records(self) -> list[Record]:
        """Decodes the records, in order. Raises WalCorruption, WalUnsupported."""
        try:
            return decode_records(self.payload, self.count, BATCH_HEADER)
        except WalError as error:
            raise type(error)(error.reason, self.file, self.offset) from None


def decode_records(entries: bytes, count: int, start: int = 0) -> list[Record]:
    """Decodes the tagged entries in `entries[start:]`, `count` of them counted by RocksDB.

    Raises WalCorruption if they are not whole records in just that number, WalUnsupported for a
    tag that kvserver doesn't use. Hostile lengths cost nothing: a slice ends where its data ends.
    """
    records: list[Record] = []
    uncounted = 0
    pos = start
    end = len(entries)
    try:
        while pos < end:
            tag = entries[pos]
            shape = _SHAPES[tag]
            pos += 1
            if not shape & _COUNTED:
                uncounted += 1
                if not shape:
                    raise _refused_tag(tag)
            cf_id = 0
            key = value = b""
            # Lengths of one byte are read in place: a call for each would double the time.
            if shape & _CF:
                cf_id = entries[pos]
                pos += 1
                if cf_id > 0x7F:
                    cf_id, pos = _varint32(entries, pos - 1)
            if shape & _KEY:
                size = entries[pos]
                pos += 1
                if size > 0x7F:
                    size, pos = _varint32(entries, pos - 1)
                key = entries[pos : pos + size]
                pos += size
            if shape & _VALUE:
                size = entries[pos]
                pos += 1
                if size > 0x7F:
                    size, pos = _varint32(entries, pos - 1)
                value = entries[pos : pos + size]
                pos += size
            records.append((shape >> _OP_SHIFT, cf_id, key, value))
    except IndexError:
        pos = end + 1
    if pos != end:  # a slice past the end is silently short, but the position tells
        raise WalCorruption("a record runs past the end of its batch")
    if len(records) - uncounted != count:
        raise WalCorruption(f"{len(records) - uncounted} records in a batch that counts {count}")
    return records


def tail_record(payload: bytes, key_len: int, value_len: int) -> Record | None:
    """The last record, of a batch known to end in a put with a key and a value of these lengths.

    Found from the end, without decoding what precedes it; so in a batch that ends otherwise, a
    value may look like it. The put has a column family; id and both lengths are below 128. None:
    the batch surely ends in something else.
    """
    key_at = len(payload) - value_len - 1 - key_len
    value_at = len(payload) - value_len
    if key_at - 3 < BATCH_HEADER or payload[key_at - 3] != _PUT_CF_TAG:
        return None
    cf_id = payload[key_at - 2]
    if cf_id > 0x7F or payload[key_at - 1] != key_len or payload[value_at - 1] != value_len:
        return None
    return PUT, cf_id, payload[key_at : value_at - 1], payload[value_at:]


def _refused_tag(tag: int) -> WalError:
    if tag in _UNSUPPORTED_TAGS:
        return WalUnsupported(f"record tag {tag:#04x} ({_UNSUPPORTED_TAGS[tag]}) is not supported")
    return WalCorruption(f"unknown record tag {tag:#04x}")


def _varint32(data: bytes, pos: int) -> tuple[int, int]:
    """The varint32 at `pos` and the position after it; IndexError if it is cut short."""
    value = 0
    for shift in range(0, 35, 7):
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return value, pos
    raise WalCorruption("a number of more than 5 bytes")
