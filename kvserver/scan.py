"""Walks over the keys of a database, and the numbers that stand for a place in one: SCAN, KEYS.

It must not know RESP, sessions or who asks. Keys are walked in the order of their rows, by slot
and then by key. Invariants:

- A key that is there during a whole iteration is returned by it, whatever else changes. After
  the table of places forgot one, or the server was restarted, keys may be returned again.
- A cursor is below 2**53, so that clients whose only numbers are doubles can carry it.
- A walk gives way (yields) every few hundred steps, and then goes on with the view of its
  beginning.

A place is `slot u16 | user key`: where to go on, at this key or after it. It is good in every
database, and after FLUSHDB and SWAPDB. A cursor is `slot << 38 | id`: id 0 is the beginning of
the slot, any other names a place in the table. On a database with fewer keys than slots nearly
all cursors need no table.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Generator
from typing import Final

from kvserver import codec, glob
from kvserver.codec import DB_PREFIX_LEN, ROW_PREFIX_LEN, SLOT_BYTES, SLOTS
from kvserver.database import Reader

#: Keys and jumps between two yields: some hundred microseconds when the blocks are in memory.
STEPS: Final = 256
#: A pattern's prefix is sought slot by slot in a database with more keys than this, on average,
#: in a slot; below, walking costs less than seeking (a seek costs as much as six steps).
DENSE: Final = 8
#: As many jumps are allowed for each key that COUNT asks for (db.c, scanGenericCommand: ten
#: empty buckets).
JUMPS_PER_KEY: Final = 10

_ID_BITS: Final = 38
_ID_MASK: Final = (1 << _ID_BITS) - 1

#: Keys found in each step, and in the last one.
Keys = Generator[list[bytes], None, list[bytes]]
#: The same, and at the end where to go on, None after the last key.
KeysAndPlace = Generator[list[bytes], None, tuple[list[bytes], bytes | None]]


class Cursors:
    """The places that unfinished iterations go on from, the least recently used forgotten."""

    def __init__(self, limit: int = 65536, limit_bytes: int = 16 << 20) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._places: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        # Anywhere, so that a cursor from before a restart isn't taken for one of this run.
        self._last_id = random.getrandbits(_ID_BITS)

    def number(self, place: bytes | None) -> int:
        """The cursor for a place that isn't the very beginning; 0 for None, the end."""
        if place is None:
            return 0
        slot = int.from_bytes(place[:2], "big")
        return slot << _ID_BITS | (self._remember(place) if len(place) > 2 else 0)

    def place(self, number: int) -> bytes | None:
        """Where a cursor goes on: the beginning of its slot if its place is forgotten; None
        when there is no such slot."""
        slot = number >> _ID_BITS
        if slot >= SLOTS:
            return None
        number &= _ID_MASK
        place = self._places.get(number)
        if place is None or place[:2] != SLOT_BYTES[slot]:
            return SLOT_BYTES[slot]
        self._places.move_to_end(number)
        return place

    def _remember(self, place: bytes) -> int:
        self._last_id = self._last_id % _ID_MASK + 1  # never 0
        self._places[self._last_id] = place
        self._bytes += len(place)
        while len(self._places) > self._limit or self._bytes > self._limit_bytes:
            if len(self._places) == 1:
                break
            self._bytes -= len(self._places.popitem(last=False)[1])
        return self._last_id


def pattern_slot(pattern: bytes) -> int | None:
    """The one slot of all keys that match; None if they may be in any. There is one when the
    pattern has no wildcard, or a whole hash tag before the first."""
    prefix = glob.literal_prefix(pattern)
    if glob.is_literal(pattern):
        return codec.slot_of(prefix)
    start = prefix.find(b"{")
    if start >= 0 and prefix.find(b"}", start) > start + 1:
        return codec.slot_of(prefix)
    return None


class _Span:
    """The rows of a database that a pattern can match, from a place on, visited in order."""

    def __init__(
        self, reader: Reader, pattern: bytes, place: bytes, kind: bytes | None, delete: bool
    ) -> None:
        db = reader.db
        lower, upper = reader.bounds()
        lower += place
        self._db_prefix = db.prefix
        self._prefix = glob.literal_prefix(pattern)
        self._matches = None if pattern == b"*" else glob.compile(pattern)
        slot = pattern_slot(pattern)
        if slot is not None:
            start = db.prefix + SLOT_BYTES[slot] + self._prefix
            lower, upper = max(lower, start), codec.prefix_end(start)
        self._jumps = slot is None and self._prefix != b"" and db.keys > DENSE * SLOTS
        self._reader = reader
        self._kind = kind
        self._looks = kind is not None or db.expires != 0
        self._delete = reader.keyspace.writers[db.index].current if delete else None
        self.walk = reader.rows.walk(lower, max(lower, upper))
        self.walked = self.jumped = 0

    def visit(self, row_key: bytes) -> bytes | None:
        """Look at the row where the walk stands, and move it on; the key if it is wanted."""
        walk = self.walk
        key = row_key[ROW_PREFIX_LEN:]
        if self._jumps and not key.startswith(self._prefix):
            walk.seek(self._target(row_key))
            self.jumped += 1
            return None
        wanted = (self._matches is None or self._matches(key)) and (
            not self._looks or self._look(key)
        )
        walk.next()
        self.walked += 1
        return key if wanted else None

    def _target(self, row_key: bytes) -> bytes:
        """Where to go from a key without the prefix: the next one that can have it."""
        slot = row_key[DB_PREFIX_LEN:ROW_PREFIX_LEN]
        if row_key[ROW_PREFIX_LEN:] > self._prefix:
            slot = (int.from_bytes(slot, "big") + 1).to_bytes(2, "big")
        return self._db_prefix + slot + self._prefix

    def _look(self, key: bytes) -> bool:
        """Whether the row is of the right type and not past its time."""
        row = self.walk.value()
        if self._reader.expired(row):
            if self._delete is not None:
                self._delete(key)
            return False
        return self._kind is None or codec.TYPE_NAMES[codec.row_type(row)] == self._kind


def keys(reader: Reader, pattern: bytes) -> Keys:
    """All keys that match, those past their time left out, some in each step."""
    span = _Span(reader, pattern, b"", None, delete=False)
    found: list[bytes] = []
    steps = 0
    while (row_key := span.walk.key()) is not None:
        key = span.visit(row_key)
        if key is not None:
            found.append(key)
        steps += 1
        if steps % STEPS == 0:
            yield found
            found = []
    span.walk.check()
    return found


def scan(
    reader: Reader, place: bytes, count: int, pattern: bytes = b"*", kind: bytes | None = None
) -> KeysAndPlace:
    """The keys that match among the next `count` from a place on, some in each step; then where
    to go on, None at the end. `kind` is the name of the type to return, None for all. Expired
    keys that match are deleted, as Redis does."""
    span = _Span(reader, pattern, place, kind, delete=True)
    found: list[bytes] = []
    last = b""
    while (row_key := span.walk.key()) is not None:
        if span.walked >= count or span.jumped >= JUMPS_PER_KEY * count:
            same_slot = row_key[:ROW_PREFIX_LEN] == last[:ROW_PREFIX_LEN]
            return found, row_key[DB_PREFIX_LEN : None if same_slot else ROW_PREFIX_LEN]
        key = span.visit(row_key)
        if key is not None:
            found.append(key)
        last = row_key
        if (span.walked + span.jumped) % STEPS == 0:
            yield found
            found = []
    span.walk.check()
    return found, None
