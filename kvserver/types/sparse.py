"""Strings that are changed in part: long ones are kept in fragments, so that a bit at the end of
512 MB is one small row, and so is a change in the middle of a megabyte.

It must not know RESP or commands. Rows of a string in fragments (codec.SPARSE), under its prefix:

    index u32     bytes index * 4096 up to (index + 1) * 4096, trailing zeros left off

Invariants:
- The header's count is the string's length; it adds the number of rows (u32).
- Bytes without a row are zero. A row is never empty and never ends with a zero, and none reaches
  beyond the length.
- A string becomes one in fragments when it is changed in part, not when it is set, and only when it
  is then longer than LIMIT; it never becomes shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kvserver import codec, errors
from kvserver.codec import ELEMENT_PREFIX_LEN, SPARSE, TYPE_MASK
from kvserver.collection import Collection, MutableCollection

if TYPE_CHECKING:
    from kvserver.database import Reader, Writer

FRAGMENT: Final = 4096
#: The longest string that is kept in one row when it is changed in part.
LIMIT: Final = 16 * 1024
#: Bytes that a walk over a string in one row gives at a time.
CHUNK: Final = 64 * 1024
#: What indices of 32 bits reach: more than any string, whatever `proto-max-bulk-len` allows.
_LONGEST: Final = FRAGMENT << 32
#: So many fragments are looked up one by one; more are walked.
_FEW: Final = 4
_ZEROS: Final = bytes(FRAGMENT)


def size(row: bytes) -> int:
    """The length of a string, from its row."""
    if row[0] & TYPE_MASK == SPARSE:
        return codec.collection_count(row)
    return len(row) - codec.value_offset(row)


def fragment_count(row: bytes) -> int:
    """How many fragments a string in fragments has, from its row."""
    return int.from_bytes(codec.collection_extras(row), "big")


def sub(index: int) -> bytes:
    """The type's part of a fragment's key."""
    return index.to_bytes(4, "big")


def index_of(key: bytes) -> int:
    """The index, from a fragment's whole key."""
    return int.from_bytes(key[ELEMENT_PREFIX_LEN:], "big")


# -- reading ---------------------------------------------------------------------------------------


def join(rows: Collection) -> bytes:
    """The whole string, in one go, however long it is: as Redis sends it."""
    return read(rows, 0, rows.count)


def read(rows: Collection, start: int, end: int) -> bytes:
    """The bytes [start, end), which must be within the length."""
    if start >= end:
        return b""
    first, last = start // FRAGMENT, (end - 1) // FRAGMENT
    parts = _fetch(rows, first, last) if last - first < _FEW else _walk(rows, first, last)
    parts[-1] = parts[-1][: end - last * FRAGMENT]
    parts[0] = parts[0][start - first * FRAGMENT :]
    return b"".join(parts)


def _fetch(rows: Collection, first: int, last: int) -> list[bytes]:
    """Whole fragments, looked up."""
    found = [rows.get(sub(index)) for index in range(first, last + 1)]
    return [_ZEROS if row is None else row.ljust(FRAGMENT, b"\0") for row in found]


def _walk(rows: Collection, first: int, last: int) -> list[bytes]:
    """The same, walked. What is missing is one object, however much of it there is."""
    parts: list[bytes] = []
    at = first
    for key, row in rows.scan(sub(first), sub(last + 1)):
        index = index_of(key)
        parts.extend([_ZEROS] * (index - at))
        parts.append(row.ljust(FRAGMENT, b"\0"))
        at = index + 1
    parts.extend([_ZEROS] * (last + 1 - at))
    return parts


class Text:
    """A string that is read in part, however it is kept; no key is an empty one."""

    def __init__(self, db: Reader, row: bytes | None) -> None:
        """`row` is a string's."""
        self.rows: Collection | None = None
        self._row = b"" if row is None else row
        self._at = 0
        if row is None:
            self.size = 0
        elif row[0] & TYPE_MASK == SPARSE:
            self.rows = Collection(db.data, db.db.prefix, row)
            self.size = self.rows.count
        else:
            self._at = codec.value_offset(row)
            self.size = len(row) - self._at

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end), as far as they are there."""
        end = min(end, self.size)
        if start >= end:
            return b""
        if self.rows is not None:
            return read(self.rows, start, end)
        return self._row[self._at + start : self._at + end]

    def byte(self, at: int) -> int:
        """One byte; beyond the end is 0."""
        if at >= self.size:
            return 0
        if self.rows is None:
            return self._row[self._at + at]
        row = self.rows.get(sub(at // FRAGMENT))
        at %= FRAGMENT
        return 0 if row is None or at >= len(row) else row[at]

    def chunks(self, start: int, end: int, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
        """(place, bytes) of [start, end) in order, `size` bytes at a time, or those of a fragment;
        what is left out is zero. The view is pinned by the first step."""
        end = min(end, self.size)
        if self.rows is None:
            for at in range(start, end, size):
                yield at, self.read(at, min(at + size, end))
            return
        if start >= end:
            return
        for key, row in self.rows.scan(sub(start // FRAGMENT), sub((end - 1) // FRAGMENT + 1)):
            at = index_of(key) * FRAGMENT
            stop = min(end - at, len(row))
            skip = max(start - at, 0)
            if skip < stop:
                yield at + skip, row[skip:stop]


# -- writing ---------------------------------------------------------------------------------------


class Edit:
    """A string that is changed in part. Nothing shows before `save`, which must follow: the
    rows of fragments are written at once."""

    def __init__(self, db: Writer, key: bytes, row: bytes | None, end: int) -> None:
        """`row` is the key's, a string's or None; the string becomes `end` long at least."""
        if end > _LONGEST:
            raise errors.string_too_long()
        self._db = db
        self._key = key
        self._expire_ms = 0 if row is None else codec.row_expire(row)
        self._rows: MutableCollection | None = None
        self._plain = bytearray()
        if row is not None and row[0] & TYPE_MASK == SPARSE:
            self._rows = MutableCollection(db, key, db.row_key(key), SPARSE, row, False)
            self._fragments = fragment_count(row)
            self._rows.count = max(self._rows.count, end)
            return
        self._fragments = 0
        value = b"" if row is None else codec.row_value(row)
        length = max(len(value), end)
        if length <= LIMIT:
            self._plain += value.ljust(length, b"\0")
            return
        self._rows = db.new(key, SPARSE, self._expire_ms)
        self._rows.count = length
        self.write(0, value)

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end), which must be within the length."""
        if self._rows is None:
            return bytes(self._plain[start:end])
        return read(self._rows, start, end)

    def write(self, start: int, data: bytes) -> None:
        """Put bytes in the place of those there, within the length."""
        if self._rows is None:
            self._plain[start : start + len(data)] = data
            return
        at = 0
        while at < len(data):
            index, skip = divmod(start + at, FRAGMENT)
            stop = min(at + FRAGMENT - skip, len(data))
            self._write_part(self._rows, index, skip, data[at:stop])
            at = stop

    def _write_part(self, rows: MutableCollection, index: int, skip: int, part: bytes) -> None:
        """Change one fragment."""
        name = sub(index)
        old = rows.peek(name)
        new = part
        if old is not None:
            rest = min(skip + len(part), len(old))
            new = b"".join((old[:skip].ljust(skip, b"\0"), part, old[rest:]))
        elif skip:
            new = bytes(skip) + part
        new = new.rstrip(b"\0")
        if new:
            rows.put(name, new)
            if old is None:
                self._fragments += 1
        elif old is not None:
            rows.delete(name)
            self._fragments -= 1

    def save(self) -> None:
        """Write what is left to be written; those who observe the key are told."""
        rows = self._rows
        if rows is None:
            self._db.put_string(self._key, bytes(self._plain), self._expire_ms)
            return
        rows.extras = self._fragments.to_bytes(4, "big")
        rows.save()


def store(db: Writer, key: bytes, length: int, fragments: Iterator[tuple[int, bytes]]) -> None:
    """Replace what is under a key by a string in fragments, (index, bytes) in any order; one may be
    all zeros, and trailing zeros may be there."""
    rows = db.new(key, SPARSE)
    count = 0
    for index, data in fragments:
        part = data.rstrip(b"\0")
        if part:
            rows.put_unread(sub(index), part)
            count += 1
    rows.count = length
    rows.extras = count.to_bytes(4, "big")
    rows.save()
