"""Sorted sets: their rows, and how they are read and changed.

It must not know RESP or commands. Rows under a set's prefix:

    m | member                    score, a big-endian double
    s | ordered score | member    empty; `-` for a score of -0.0     the index
    C | ..., c | ...              of large sets: types/zset_blocks.py

An ordered score is a double whose bytes order as numbers do: -0.0 as 0.0. It and the member are an
element's *place*. The header adds, from the first byte that isn't 0 on:

    flags u8 | length of low u8 | low | high

Invariants:
- The index has one row for each member, and no other.
- No place is below `low`, and all are below `high`, if that isn't empty: walks start there. RocksDB
  steps over deleted rows one by one, and sets are popped from their ends.
- A set with more than MOST_ELEMENTS has blocks, one with fewer than FEW_ELEMENTS has none.
- What Redis would hold in a listpack has no -0.0 (t_zset.c, zzlInsertAt writes an integer).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from struct import Struct
from typing import Final, NamedTuple

from kvserver.codec import ELEMENT_PREFIX_LEN, prefix_end
from kvserver.collection import Collection, MutableCollection
from kvserver.storage.overlay import Entry
from kvserver.types import zset_blocks
from kvserver.types.zset_blocks import INDEX, LAST, MOST_ELEMENTS

MEMBER: Final = b"m"
#: Where place and member begin in the whole key of an index row.
PLACE_AT: Final = ELEMENT_PREFIX_LEN + 1
MEMBER_AT: Final = PLACE_AT + 8

#: Redis would hold the set in a skip list.
SKIPLIST: Final = 1
#: There are rows of blocks.
BLOCKS: Final = 2

FEW_ELEMENTS: Final = MOST_ELEMENTS // 2
#: How much of a place `low` and `high` keep.
_BOUND_LEN: Final = 64
#: After about so many deletions here and there it is looked up where the index begins and ends.
_TRIM_AFTER: Final = 64

_DOUBLE: Final = Struct(">d")
_ZERO: Final = b"\x80" + bytes(7)
_NEGATIVE_ZERO: Final = b"-"
#: A byte with its first bit turned, and all its bits.
_SIGN: Final = [bytes((byte ^ 0x80,)) for byte in range(256)]
_TURNED: Final = bytes(reversed(range(256)))

#: A member and its score.
Pair = tuple[bytes, float]


class Limits(NamedTuple):
    """Up to where Redis uses listpacks."""

    entries: int
    value: int


def ordered(score: float) -> bytes:
    """A score's bytes, in the order of numbers."""
    if score == 0.0:
        return _ZERO
    packed = _DOUBLE.pack(score)
    return _SIGN[packed[0]] + packed[1:] if score > 0.0 else packed.translate(_TURNED)


def pair(entry: Entry) -> Pair:
    """The member and the score of an index row."""
    key, row = entry
    if row:
        return key[MEMBER_AT:], -0.0
    first = key[PLACE_AT]
    if first & 0x80:
        packed = _SIGN[first] + key[PLACE_AT + 1 : MEMBER_AT]
    else:
        packed = key[PLACE_AT:MEMBER_AT].translate(_TURNED)
    score: float = _DOUBLE.unpack(packed)[0]
    return key[MEMBER_AT:], score


def unpack(row: bytes) -> float:
    """The score in a member's row."""
    score: float = _DOUBLE.unpack(row)[0]
    return score


def is_skiplist(extras: bytes) -> bool:
    """Whether Redis would hold the set in a skip list, from what the header adds."""
    return extras != b"" and extras[0] & SKIPLIST != 0


class SortedSet:
    """A sorted set to be read."""

    def __init__(self, rows: Collection) -> None:
        self.rows = rows
        extras = rows.extras
        self.flags = extras[0] if extras else 0
        self.low = self.high = b""
        if len(extras) > 1:
            split = 2 + extras[1]
            self.low = extras[2:split]
            self.high = extras[split:]

    @property
    def count(self) -> int:
        """How many elements it has."""
        return self.rows.count

    def score(self, member: bytes) -> float | None:
        """A member's score."""
        row = self.rows.get(MEMBER + member)
        return None if row is None else unpack(row)

    def scan(
        self, lower: bytes = b"", upper: bytes = LAST, reverse: bool = False
    ) -> Iterator[Entry]:
        """The index rows with a place in [lower, upper), for `pair`. The view is pinned."""
        lower = max(lower, self.low)
        if self.high:
            upper = min(upper, self.high)
        if lower >= upper:
            return iter(())
        return self.rows.scan(INDEX + lower, INDEX + upper, reverse)

    def scan_from(self, rank: int, reverse: bool = False) -> Iterator[Entry]:
        """All index rows from a rank on, which counts from the end when `reverse`."""
        if not self.flags & BLOCKS or rank < FEW_ELEMENTS:
            return islice(self.scan(reverse=reverse), min(rank, self.rows.count), None)
        count = self.rows.count
        if rank >= count:
            return iter(())
        index = count - 1 - rank if reverse else rank
        begin, end, below, inside = zset_blocks.find(self.rows, index, self.low)
        if reverse:
            return islice(self.scan(upper=end, reverse=True), below + inside - 1 - index, None)
        return islice(self.scan(begin), index - below, None)

    def scan_between(
        self, lower: bytes, upper: bytes, offset: int, reverse: bool
    ) -> Iterator[Entry]:
        """The index rows with a place in [lower, upper), in order or reversed, but for the first
        `offset` of them."""
        if not self.flags & BLOCKS or offset < FEW_ELEMENTS:
            return islice(self.scan(lower, upper, reverse), min(offset, self.rows.count), None)
        first, last = self.below(lower), self.below(upper)
        if offset >= last - first:
            return iter(())
        begin = self.rows.count - last if reverse else first
        return islice(self.scan_from(begin + offset, reverse), last - first - offset)

    def below(self, place: bytes) -> int:
        """How many elements have a lower place."""
        begin, count = b"", 0
        if self.flags & BLOCKS:
            begin, count = zset_blocks.before(self.rows, place, self.low)
        for _ in self.scan(begin, place):
            count += 1
        return count

    def between(self, lower: bytes, upper: bytes) -> int:
        """How many elements have a place in [lower, upper)."""
        if lower >= upper:
            return 0
        if not self.flags & BLOCKS:
            return sum(1 for _ in self.scan(lower, upper))
        return self.below(upper) - self.below(lower)


class MutableSortedSet(SortedSet):
    """A sorted set to be changed. `save` ends a command that changed it."""

    def __init__(self, rows: MutableCollection, limits: Limits) -> None:
        super().__init__(rows)
        self._rows = rows
        self._limits = limits
        self._removed = 0
        #: Places that came (1) and went (-1), while there are blocks.
        self._changes: dict[bytes, int] = {}

    def expect(self, size: int, first_len: int) -> None:
        """A command with so many elements, the first member so long, is about to add them
        (zsetTypeCreate and zsetTypeMaybeConvert)."""
        if size > self._limits.entries or (self._rows.is_new and first_len > self._limits.value):
            self.flags |= SKIPLIST

    def peek(self, member: bytes) -> float | None:
        """`score` for a command that goes on to write."""
        row = self._rows.peek(MEMBER + member)
        return None if row is None else unpack(row)

    def add(self, member: bytes, score: float) -> None:
        """Add a member that isn't there."""
        rows = self._rows
        if not self.flags & SKIPLIST and (
            rows.count >= self._limits.entries or len(member) > self._limits.value
        ):
            self.flags |= SKIPLIST
        rows.count += 1
        self._put(member, score)

    def move(self, member: bytes, before: float, score: float) -> None:
        """Give a member another score."""
        self._drop(ordered(before) + member)
        self._put(member, score)

    def remove(self, member: bytes, score: float) -> None:
        """Remove a member that is there."""
        self._rows.delete(MEMBER + member)
        self._drop(ordered(score) + member)
        self._rows.count -= 1

    def remove_all(self, entries: Iterable[Entry]) -> None:
        """Remove the members of index rows."""
        for key, _ in entries:
            self._rows.delete(MEMBER + key[MEMBER_AT:])
            self._drop(key[PLACE_AT:])
            self._rows.count -= 1

    def pop(self, count: int, highest: bool) -> list[Pair]:
        """Remove members with the lowest scores, or the highest, and not all of them."""
        entries = list(islice(self.scan(reverse=highest), count))
        self.remove_all(entries)
        self._removed -= len(entries)  # no need to look for where the others begin
        last = entries[-1][0][PLACE_AT:]
        if highest:
            self.high = last if len(last) <= _BOUND_LEN else _above(last)
        else:
            self.low = last[:_BOUND_LEN]
        return list(map(pair, entries))

    def fill(self, scores: dict[bytes, float]) -> None:
        """Give a new set its members, as Redis does when it has them all at once
        (zsetConvertToListpackIfNeeded)."""
        limits = self._limits
        if len(scores) > limits.entries or max(map(len, scores)) > limits.value:
            self.flags |= SKIPLIST
        for member, score in scores.items():
            self._put(member, score)
        self._rows.count = len(scores)
        if len(scores) > MOST_ELEMENTS:
            places = sorted([ordered(score) + member for member, score in scores.items()])
            zset_blocks.build(self._rows, places)
            self.flags |= BLOCKS

    def save(self) -> None:
        """Write what concerns the set as a whole."""
        rows = self._rows
        self._save_blocks()
        if rows.count and self._removed and random.randrange(_TRIM_AFTER) < self._removed:
            self._trim()
        extras = bytes((self.flags, len(self.low))) + self.low + self.high
        rows.extras = extras if len(extras) > 2 else extras.rstrip(b"\0")
        rows.save()

    def _save_blocks(self) -> None:
        rows = self._rows
        if self.flags & BLOCKS:
            if rows.count < FEW_ELEMENTS:
                zset_blocks.drop(rows)
                self.flags &= ~BLOCKS
            elif self._changes:
                zset_blocks.change(rows, self._changes)
        elif rows.count > MOST_ELEMENTS:
            zset_blocks.build(rows, [key[PLACE_AT:] for key, _ in self.scan()])
            self.flags |= BLOCKS
        self._changes = {}

    def _put(self, member: bytes, score: float) -> None:
        sign = b""
        if score == 0.0:
            if not self.flags & SKIPLIST:
                score = 0.0
            elif _DOUBLE.pack(score)[0]:
                sign = _NEGATIVE_ZERO
        place = ordered(score) + member
        self._rows.put(MEMBER + member, _DOUBLE.pack(score))
        self._rows.put_unread(INDEX + place, sign)
        if place < self.low:
            self.low = place[:_BOUND_LEN]
        if self.high and place >= self.high:
            self.high = _above(place)
        if self.flags & BLOCKS:
            self._changes[place] = self._changes.get(place, 0) + 1

    def _drop(self, place: bytes) -> None:
        self._rows.delete(INDEX + place)
        self._removed += 1
        if self.flags & BLOCKS:
            self._changes[place] = self._changes.get(place, 0) - 1

    def _trim(self) -> None:
        """Find where the index begins and ends."""
        for key, _ in self.scan():
            self.low = key[PLACE_AT : PLACE_AT + _BOUND_LEN]
            break
        for key, _ in self.scan(reverse=True):
            self.high = _above(key[PLACE_AT:])
            break


def _above(place: bytes) -> bytes:
    """A bound above a place, as short as it must be."""
    return place + b"\0" if len(place) < _BOUND_LEN else prefix_end(place[:_BOUND_LEN])
