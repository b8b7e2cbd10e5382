"""Sorted sets: their rows, and how they are read and changed.

It must not know RESP or commands. Rows under a set's prefix:

    m | member                    score, a big-endian double
    s | ordered score | member    empty; `-` for a score of -0.0     the index
    C | ..., c | ...              of large sets: types/zset_blocks.py

What is kept of them in memory: types/zset_memory.py.

An ordered score is a double whose bytes order as numbers do: -0.0 as 0.0. It and the member are an
element's *place*. The header adds, from the first byte that isn't 0 on:

    flags u8 | length of low u8 | low | high

Invariants:
- The index has one row for each member, and no other.
- No place is below `low`, and all are below `high`, if that isn't empty: walks start there. RocksDB
  steps over deleted rows one by one, and sets are popped from their ends.
- A set with more than MOST_UNCOUNTED elements has blocks, one with fewer than FEWEST_COUNTED has
  none.
- What Redis would hold in a listpack has no -0.0 (t_zset.c, zzlInsertAt writes an integer).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from struct import Struct
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN, prefix_end
from kvserver.collection import Collection, MutableCollection
from kvserver.storage.overlay import Entry, Walk
from kvserver.types import zset_blocks, zset_memory
from kvserver.types.zset_blocks import INDEX, LAST, MOST_CHANGES

MEMBER: Final = b"m"
#: Where place and member begin in the whole key of an index row.
PLACE_AT: Final = ELEMENT_PREFIX_LEN + 1
MEMBER_AT: Final = PLACE_AT + 8
_SCORE_LEN: Final = 8

#: Redis would hold the set in a skip list.
SKIPLIST: Final = 1
#: There are rows of blocks.
BLOCKS: Final = 2

MOST_UNCOUNTED: Final = 256
FEWEST_COUNTED: Final = 128
#: A walk from an end to such a rank costs no more than to look up where it is.
_NEAR: Final = 64
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


class Limits:
    """Up to where Redis uses listpacks: so many members, of at most so many bytes."""

    def __init__(self, entries: int, value: int) -> None:
        self.entries = entries
        self.value = value


def ordered(score: float) -> bytes:
    """A score's bytes, in the order of numbers."""
    return _in_order(score, _DOUBLE.pack(score))


def _in_order(score: float, packed: bytes) -> bytes:
    if score > 0.0:
        return _SIGN[packed[0]] + packed[1:]
    return packed.translate(_TURNED) if score < 0.0 else _ZERO


def pair(entry: Entry) -> Pair:
    """The member and the score of an index row."""
    key, row = entry
    if row:
        return key[MEMBER_AT:], -0.0
    return key[MEMBER_AT:], score_of(key[PLACE_AT:MEMBER_AT])


def member_of(entry: Entry) -> bytes:
    """The member of an index row."""
    return entry[0][MEMBER_AT:]


def score_of(place: bytes) -> float:
    """The score of a place: 0.0 for -0.0."""
    first = place[0]
    if first & 0x80:
        packed = _SIGN[first] + place[1:_SCORE_LEN]
    else:
        packed = place[:_SCORE_LEN].translate(_TURNED)
    score: float = _DOUBLE.unpack(packed)[0]
    return score


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
        if reverse:
            return self.rows.scan(INDEX + lower, INDEX + upper, reverse=True)
        return _entries(self.rows.walk(INDEX + lower, INDEX + upper))

    def scan_from(self, rank: int, reverse: bool = False) -> Iterator[Entry]:
        """All index rows from a rank on, which counts from the end when `reverse`."""
        if not self.flags & BLOCKS or rank < _NEAR:
            return islice(self.scan(reverse=reverse), min(rank, self.rows.count), None)
        count = self.rows.count
        if rank >= count:
            return iter(())
        index = count - 1 - rank if reverse else rank
        groups = zset_memory.get_or_new(self.rows).groups
        begin, end, below, inside = zset_blocks.find(self.rows, groups, index, self.low)
        if reverse:
            return islice(self.scan(upper=end, reverse=True), below + inside - 1 - index, None)
        return islice(self.scan(begin), index - below, None)

    def scan_between(
        self, lower: bytes, upper: bytes, offset: int, reverse: bool
    ) -> Iterator[Entry]:
        """The index rows with a place in [lower, upper), in order or reversed, but for the first
        `offset` of them."""
        if not self.flags & BLOCKS or offset < _NEAR:
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
            groups = zset_memory.get_or_new(self.rows).groups
            begin, count = zset_blocks.before(self.rows, groups, place, self.low)
        begin = max(begin, self.low)
        if self.high:
            place = min(place, self.high)
        if begin < place:
            count += _count(self.rows.walk(INDEX + begin, INDEX + place))
        return count

    def between(self, lower: bytes, upper: bytes) -> int:
        """How many elements have a place in [lower, upper)."""
        if lower >= upper:
            return 0
        if not self.flags & BLOCKS:
            return sum([1 for _ in self.scan(lower, upper)])
        return self.below(upper) - self.below(lower)


class MutableSortedSet(SortedSet):
    """A sorted set to be changed. `save` ends a command that changed it."""

    def __init__(self, rows: MutableCollection, limits: Limits) -> None:
        super().__init__(rows)
        self._rows = rows
        self._limits = limits
        #: What is in memory of it.
        self._known = None if rows.is_new else zset_memory.get(rows)
        #: How many went that may have been the first or the last.
        self._removed = 0
        #: The header's part is to be written.
        self._is_changed = False
        #: Places that came (1) and went (-1), while there are blocks.
        self._changes: dict[bytes, int] = {}

    def resume(self, limits: Limits) -> None:
        """Another command goes on with it. What was in memory may be forgotten meanwhile, or kept
        of another object."""
        self._limits = limits
        self._known = zset_memory.get(self._rows)

    def expect(self, size: int, first_len: int) -> None:
        """A command with so many elements, the first member so long, is about to add them
        (zsetTypeCreate and zsetTypeMaybeConvert)."""
        if size > self._limits.entries or (self._rows.is_new and first_len > self._limits.value):
            self._set_flag(SKIPLIST)

    def peek(self, member: bytes) -> float | None:
        """`score` for a command that goes on to write."""
        rows = self._rows
        row = rows.data.peek(b"%b%b%b" % (rows.prefix, MEMBER, member))
        return None if row is None else unpack(row)

    def add(self, member: bytes, score: float) -> None:
        """Add a member that isn't there."""
        rows = self._rows
        if not self.flags & SKIPLIST and (
            rows.count >= self._limits.entries or len(member) > self._limits.value
        ):
            self._set_flag(SKIPLIST)
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
        rows = self._rows
        places = self._first(count, highest)
        pairs: list[Pair] = []
        for place in places:
            member = place[_SCORE_LEN:]
            pairs.append((member, self._score_of(place, member)))
            rows.data.delete(b"%b%b%b" % (rows.prefix, MEMBER, member))
            self._drop(place)
        rows.count -= count
        self._removed -= count  # no need to look for where the others begin
        last = places[-1]
        if highest:
            self.high = last if len(last) <= _BOUND_LEN else _above(last)
        else:
            self.low = last[:_BOUND_LEN]
        self._is_changed = True
        return pairs

    def fill(self, scores: dict[bytes, float]) -> None:
        """Give a new set its members, as Redis does when it has them all at once
        (zsetConvertToListpackIfNeeded)."""
        limits = self._limits
        if len(scores) > limits.entries or max(map(len, scores)) > limits.value:
            self._set_flag(SKIPLIST)
        for member, score in scores.items():
            self._put(member, score)
        self._rows.count = len(scores)
        if len(scores) > MOST_UNCOUNTED:
            places = sorted([ordered(score) + member for member, score in scores.items()])
            zset_blocks.build(self._rows, places)
            self._set_flag(BLOCKS)

    def save(self) -> None:
        """Write what concerns the set as a whole."""
        rows = self._rows
        if not (self._is_settled() and rows.save_open()):
            rows.close()
            rows.save_typed(self, self.extras)

    def _is_settled(self) -> bool:
        """Whether it has blocks, or none, as it should with its count."""
        count = self._rows.count
        if self.flags & BLOCKS:
            return count >= FEWEST_COUNTED
        return count <= MOST_UNCOUNTED

    def extras(self) -> bytes:
        """Write the rows of blocks: what it adds to the header."""
        rows = self._rows
        if self.flags & BLOCKS:
            self._save_blocks()
        elif rows.count > MOST_UNCOUNTED:
            zset_blocks.build(rows, [key[PLACE_AT:] for key, _ in self.scan()])
            self._set_flag(BLOCKS)
        if not rows.count:
            zset_memory.forget(rows)
        elif self._removed > 0 and random.random() * _TRIM_AFTER < self._removed:
            self._trim()
        if not self._is_changed:
            return rows.extras
        self._is_changed = False
        if self.low or self.high:
            head = bytes((self.flags, len(self.low)))
            return b"%b%b%b" % (head, self.low, self.high)
        return bytes((self.flags,)) if self.flags else b""

    def _set_flag(self, flag: int) -> None:
        self.flags |= flag
        self._is_changed = True

    def _save_blocks(self) -> None:
        """The set has blocks: keep their counts, or drop them when there are few elements left."""
        rows = self._rows
        if rows.count >= FEWEST_COUNTED:
            self._count_changes()
            return
        zset_blocks.drop(rows)
        # This command may have been the first to ask for a rank.
        known = self._known or zset_memory.get(rows)
        if known is not None:
            known.groups.forget()
        self._changes = {}
        self.flags &= ~BLOCKS
        self._is_changed = True

    def _count_changes(self) -> None:
        """Keep the blocks' counts."""
        if self._changes:
            known = self._known
            if known is None:
                known = self._known = zset_memory.get_or_new(self._rows)
            changes, self._changes = self._changes, {}
            self._removed += zset_blocks.change(self._rows, known.groups, changes, self.low)

    def _first(self, count: int, highest: bool) -> list[bytes]:
        """The lowest places, or the highest ones, from the end on."""
        if count <= zset_memory.MOST_PLACES:
            known = self._known
            if known is None:
                known = self._known = zset_memory.get_or_new(self._rows)
            end = known.high if highest else known.low
            if len(end.places) < count:
                end.fill(self.scan(reverse=highest), count)
            if len(end.places) >= count:
                return end.places[: -count - 1 : -1] if highest else end.places[:count]
        return [key[PLACE_AT:] for key, _ in islice(self.scan(reverse=highest), count)]

    def _score_of(self, place: bytes, member: bytes) -> float:
        """The score of an element."""
        if place.startswith(_ZERO):  # or is it -0.0?
            score = self.peek(member)
            return 0.0 if score is None else score
        return score_of(place)

    def _put(self, member: bytes, score: float) -> None:
        sign = b""
        if score == 0.0:
            if not self.flags & SKIPLIST:
                score = 0.0
            elif _DOUBLE.pack(score)[0]:
                sign = _NEGATIVE_ZERO
        packed = _DOUBLE.pack(score)
        place = _in_order(score, packed) + member
        rows = self._rows
        rows.data.put(b"%b%b%b" % (rows.prefix, MEMBER, member), packed)
        rows.data.put_unread(b"%b%b%b" % (rows.prefix, INDEX, place), sign)
        if place < self.low:
            self.low = place[:_BOUND_LEN]
            self._is_changed = True
        if self.high and place >= self.high:
            self.high = _above(place)
            self._is_changed = True
        known = self._known
        if known is not None:
            known.low.came(place)
            known.high.came(place)
        if self.flags & BLOCKS:
            self._note(place, 1)

    def _drop(self, place: bytes) -> None:
        rows = self._rows
        rows.data.delete(b"%b%b%b" % (rows.prefix, INDEX, place))
        known = self._known
        if known is not None:
            known.low.went(place)
            known.high.went(place)
        if self.flags & BLOCKS:
            self._note(place, -1)
        else:
            self._removed += 1

    def _note(self, place: bytes, added: int) -> None:
        """A place came (1) or went (-1)."""
        changes = self._changes
        changes[place] = changes.get(place, 0) + added
        if len(changes) == MOST_CHANGES:
            self._count_changes()

    def _trim(self) -> None:
        """Find where the index begins and ends."""
        for key, _ in self.scan():
            self.low = key[PLACE_AT : PLACE_AT + _BOUND_LEN]
            break
        for key, _ in self.scan(reverse=True):
            self.high = _above(key[PLACE_AT:])
            break
        self._is_changed = True


def _entries(walk: Walk) -> Iterator[Entry]:
    """The index rows of a walk. Most are known to be empty."""
    key = walk.key()
    while key is not None:
        yield key, walk.value() if key[PLACE_AT:MEMBER_AT] == _ZERO else b""
        walk.next()
        key = walk.key()
    walk.check()


def _count(walk: Walk) -> int:
    """How many entries a walk has."""
    count = 0
    while walk.key() is not None:
        count += 1
        walk.next()
    walk.check()
    return count


def _above(place: bytes) -> bytes:
    """A bound above a place, as short as it must be."""
    return place + b"\0" if len(place) < _BOUND_LEN else prefix_end(place[:_BOUND_LEN])
