"""Hashes: their rows, and what is done with them.

It must not know RESP or commands. Rows under a hash's prefix:

    f | field                  0 | value                 a field
                               1 | expire_ms u64 | value
    e | expire_ms u64 | field  (empty)                   each field that expires, ordered by time

The header adds nothing, or one byte (the encoding), or, while fields expire,

    field_due u64 | how many fields expire u64 | encoding u8

The encoding is the one that Redis would use (t_hash.c), which only ever grows. Invariants:
- The count is that of all fields, those past their time included until they are deleted (as HLEN
  in Redis). Such a field reads as missing.
- No field expires before `field_due` (codec.field_due): scans of the `e` rows start there, and
  not among those that are deleted already.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection, MutableCollection
from kvserver.storage.overlay import Entry

FIELD: Final = b"f"
#: After the last field: they are the last rows of a hash.
FIELD_END: Final = b"g"
DUE: Final = b"e"
#: Where the field begins in the whole key of its row, and of the row in the order of time.
FIELD_AT: Final = ELEMENT_PREFIX_LEN + 1
_DUE_FIELD_AT: Final = ELEMENT_PREFIX_LEN + 9

#: The latest time, in unix ms, that a field can expire at (HFE_MAX_ABS_TIME_MSEC).
MAX_EXPIRE: Final = (1 << 46) - 1

LISTPACK: Final = 0
LISTPACK_EX: Final = 1
HASHTABLE: Final = 2
ENCODINGS: Final = (b"listpack", b"listpackex", b"hashtable")

_PLAIN: Final = b"\0"
_EXPIRING: Final = b"\1"
_EXTRAS: Final = struct.Struct(">QQB")


class Limits:
    """Up to where Redis uses a listpack: so many fields, of at most so many bytes."""

    def __init__(self, entries: int, value: int) -> None:
        self.entries = entries
        self.value = value


# -- the header ------------------------------------------------------------------------------------


def unpack(extras: bytes) -> tuple[int, int, int]:
    """(field_due, how many fields expire, encoding) from what the header adds."""
    if len(extras) <= 1:
        return 0, 0, extras[0] if extras else LISTPACK
    due_ms, expiring, encoding = _EXTRAS.unpack(extras)
    return due_ms, expiring, encoding


def _pack(due_ms: int, expiring: int, encoding: int) -> bytes:
    if expiring:
        return _EXTRAS.pack(due_ms, expiring, encoding)
    return bytes((encoding,)) if encoding else b""


def encoding(extras: bytes) -> int:
    """The encoding that Redis would use, from what the header adds."""
    return extras[-1] if extras else LISTPACK


def is_small(fields: Collection) -> bool:
    """Whether Redis would have the hash in one piece."""
    return encoding(fields.extras) != HASHTABLE


def set_encoding(fields: MutableCollection, number: int) -> None:
    """Redis would use this encoding now, if it doesn't use a larger one."""
    due_ms, expiring, now = unpack(fields.extras)
    if number > now:
        fields.extras = _pack(due_ms, expiring, number)


def _count_expiring(fields: MutableCollection, change: int, expire_ms: int) -> None:
    """A field expires (1) at a time, or no longer does (-1)."""
    due_ms, expiring, number = unpack(fields.extras)
    if change > 0:
        due_ms = min(due_ms, expire_ms) if expiring else expire_ms
        number = max(number, LISTPACK_EX)
    fields.extras = _pack(due_ms, expiring + change, number)


def save(fields: MutableCollection) -> None:
    """Write the header of a hash with fields, or leave it open."""
    if not fields.save_open() and fields.save() and len(fields.extras) <= 1:  # no field expires
        fields.leave_open(fields)


# -- one field -------------------------------------------------------------------------------------


def expire_of(row: bytes) -> int:
    """When a field expires, in unix ms, from its row; 0: never."""
    return int.from_bytes(row[1:9], "big") if row[0] else 0


def is_live(row: bytes | None, now: int) -> bool:
    """Whether a field is there, and not past its time."""
    return row is not None and (row[0] == 0 or int.from_bytes(row[1:9], "big") > now)


def value_of(row: bytes | None, now: int) -> bytes | None:
    """The value of a field; None if it isn't there, or past its time."""
    if row is None:
        return None
    if row[0] == 0:
        return row[1:]
    return row[9:] if int.from_bytes(row[1:9], "big") > now else None


def get(fields: Collection, field: bytes, now: int) -> bytes | None:
    """The value of a field; None if it isn't there, or past its time."""
    return value_of(fields.get(FIELD + field), now)


def put(
    fields: MutableCollection, field: bytes, value: bytes, limits: Limits, expire_ms: int = 0
) -> bool:
    """Create a field or replace it, its time too; returns whether it wasn't there (one past its
    time still is: hashTypeSet)."""
    key, data = fields.prefix + FIELD + field, fields.data
    old = data.peek(key)
    if old is None:
        fields.count += 1
    if expire_ms or (old is not None and old[0]):
        _put_expiring(fields, field, value, 0 if old is None else expire_of(old), expire_ms)
    else:
        data.put(key, _PLAIN + value)
    extras = fields.extras
    if not extras or extras[-1] != HASHTABLE:
        most = limits.value
        if len(field) > most or len(value) > most or fields.count > limits.entries:
            set_encoding(fields, HASHTABLE)
    return old is None


def _put_expiring(
    fields: MutableCollection, field: bytes, value: bytes, before: int, expire_ms: int
) -> None:
    """Write a field that expires, or that did (`before`; 0: it didn't)."""
    if before != expire_ms:
        if before:
            _forget_due(fields, field, before)
        if expire_ms:
            fields.put_unread(DUE + _ms(expire_ms) + field, b"")
            _count_expiring(fields, 1, expire_ms)
    if expire_ms:
        fields.put(FIELD + field, _EXPIRING + _ms(expire_ms) + value)
    else:
        fields.put(FIELD + field, _PLAIN + value)


def _forget_due(fields: MutableCollection, field: bytes, expire_ms: int) -> None:
    fields.delete(DUE + _ms(expire_ms) + field)
    _count_expiring(fields, -1, 0)


def set_expire(fields: MutableCollection, field: bytes, row: bytes, expire_ms: int) -> None:
    """Give a field that is there, with this row, another time; 0: it no longer expires."""
    before = expire_of(row)
    _put_expiring(fields, field, row[9:] if before else row[1:], before, expire_ms)


def remove(fields: MutableCollection, field: bytes) -> bool:
    """Remove a field; returns whether it was there, perhaps past its time."""
    sub = FIELD + field
    old = fields.peek(sub)
    if old is None:
        return False
    if old[0]:
        _forget_due(fields, field, expire_of(old))
    fields.delete(sub)
    fields.count -= 1
    return True


# -- all fields ------------------------------------------------------------------------------------


def scan(fields: Collection) -> Iterator[Entry]:
    """The rows of all fields in order, those past their time too: see FIELD_AT, `value_of`."""
    return fields.scan(FIELD, FIELD_END)


def pairs(fields: Collection, now: int) -> list[tuple[bytes, bytes]]:
    """All (field, value): for a hash that isn't large."""
    found = []
    for key, row in scan(fields):
        value = value_of(row, now)
        if value is not None:
            found.append((key[FIELD_AT:], value))
    return found


# -- what is past its time -------------------------------------------------------------------------


def due(fields: Collection, now: int, start: bytes) -> Iterator[Entry]:
    """The `e` rows of what is past its time, the oldest first. `start` is the whole key that an
    earlier walk, perhaps of another hash, came to: at the same time there may be many deleted rows
    before it."""
    due_ms, expiring, _ = unpack(fields.extras)
    if not expiring or due_ms > now:
        return iter(())
    lower, upper = fields.bounds(DUE + _ms(due_ms), DUE + _ms(now + 1))
    return fields.data.scan(start if start.startswith(lower) else lower, upper)


def remove_due(fields: MutableCollection, rows: list[Entry]) -> None:
    """Remove the fields that `due` gave next. What remains isn't due before the last of them."""
    for key, _ in rows:
        fields.delete(FIELD + key[_DUE_FIELD_AT:])
        fields.delete(key[ELEMENT_PREFIX_LEN:])
    due_ms, expiring, number = unpack(fields.extras)
    if rows:
        due_ms = int.from_bytes(rows[-1][0][FIELD_AT:_DUE_FIELD_AT], "big")
    fields.count -= len(rows)
    fields.extras = _pack(due_ms, expiring - len(rows), number)


def settle_due(fields: MutableCollection, now: int) -> None:
    """All that `due` gave is removed: find out when the next field is due."""
    _, expiring, number = unpack(fields.extras)
    if not expiring:
        return
    for key, _ in fields.scan(DUE + _ms(now + 1), FIELD):
        due_ms = int.from_bytes(key[FIELD_AT:_DUE_FIELD_AT], "big")
        fields.extras = _pack(due_ms, expiring, number)
        return


def _ms(unix_ms: int) -> bytes:
    return unix_ms.to_bytes(8, "big")
