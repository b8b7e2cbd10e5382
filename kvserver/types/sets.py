"""Sets: their rows, and what is done with them.

It must not know RESP or commands. A set is a hash table on disk: members whose hashes are close
share a row, a bucket. Under a set's prefix:

    m | start u32     length | member | length | member ...

A length is one byte; 255 says that four bytes with it follow. The bucket has the members whose hash
(32 bits) is at `start` or above and below the next bucket's; one without members has no row. The
header adds

    encoding u8 | level u8 | split u32 | weight u64 | modulus u32

There are 2**level buckets of the same width, of which the first `split` are halved (linear
hashing), so the start of a member's bucket needs no directory. One is halved when a bucket would
hold more than BUCKET bytes on average, and the last two halves are joined when it would hold less
than half of that. So SADD, SREM and SPOP read and write one row, a member at random is a point
read, and all members are a few rows.

The encoding is the one that Redis would use (t_set.c), which only ever grows. Invariants:
- `weight` is the sum of the weights of the members (`set_buckets.weigh`), and the count theirs.
- The hash depends on `modulus`, which is chosen at random with the second bucket: nobody can make
  up members that all belong into one bucket. It is 0, and nothing is hashed, before that.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Final

from kvserver.collection import Collection, MutableCollection
from kvserver.numbers import parse_int64
from kvserver.types.set_buckets import (
    BUCKET,
    HASH_BITS,
    MEMBERS,
    MEMBERS_END,
    MODULUS_BITS,
    ONLY,
    bounds,
    bucket_at,
    bucket_of,
    count_in,
    find,
    hash_of,
    nth,
    packed,
    packed_size,
    sub_key,
    unpack,
    weigh,
)

INTSET: Final = 0
LISTPACK: Final = 1
HASHTABLE: Final = 2
ENCODINGS: Final = (b"intset", b"listpack", b"hashtable")

_STATE: Final = struct.Struct(">BBIQI")
#: There are no more buckets than 2 to the power of this.
_MOST_LEVELS: Final = 30
#: To draw a member costs as much as so many steps of a walk.
_FEW: Final = 10
#: So many more places than members on average are drawn from in a bucket: see `_draw`.
_SPARE: Final = 4


class Limits:
    """Up to where Redis uses the small encodings."""

    def __init__(self, intset_entries: int, listpack_entries: int, listpack_value: int) -> None:
        self.intset_entries = intset_entries
        self.listpack_entries = listpack_entries
        self.listpack_value = listpack_value


#: The header's numbers, in the order of `_STATE`.
_State = tuple[int, int, int, int, int]


def _unpack(extras: bytes) -> _State:
    """What the header adds; that of a new set is empty."""
    if not extras:
        return INTSET, 0, 0, 0, 0
    state: _State = _STATE.unpack(extras)
    return state


def encoding(extras: bytes) -> int:
    """The encoding that Redis would use, from what the header adds."""
    return extras[0]


# -- one set -------------------------------------------------------------------------------------


class Set:
    """A set to be read."""

    def __init__(self, rows: Collection) -> None:
        self.rows = rows
        self.count = rows.count
        self.encoding, self.level, self.split, self.weight, self.modulus = _unpack(rows.extras)
        self.buckets = (1 << self.level) + self.split

    def has(self, member: bytes) -> bool:
        """Whether it has the member."""
        row = self._row(self.bucket_of(member))
        return row is not None and find(row, member) >= 0

    def at_random(self) -> bytes:
        """A member at random, all as likely, of a set that isn't empty."""
        _, row, at = self._draw()
        begin, end = bounds(row, at)
        return row[begin:end]

    def bucket_of(self, member: bytes) -> bytes:
        """The type's part of the key of a member's bucket."""
        return bucket_of(member, self.level, self.split, self.modulus)

    def bucket(self, number: int) -> bytes:
        """The same for a hash."""
        return bucket_at(number, self.level, self.split)

    def _row(self, sub: bytes) -> bytes | None:
        return self.rows.get(sub)

    def _draw(self) -> tuple[bytes, bytes, int]:
        """(bucket, its row, where the member begins in it) of a member at random. Each bucket has
        twice as many places as it would have members on average, and some more; a place at random
        of all is a member, or another is drawn. A bucket with even more members has no more
        places than those."""
        if self.buckets == 1:
            row = self._row(ONLY)
            assert row is not None, "a set without members"
            return ONLY, row, nth(row, int(random.random() * self.count))
        halved = 2 * (self.count >> self.level + 1) + _SPARE
        while True:
            number: int = random.getrandbits(HASH_BITS)
            sub = self.bucket(number)
            row = self._row(sub)
            if row is None:
                continue
            is_half = number >> HASH_BITS - self.level < self.split
            places, members = halved if is_half else 2 * halved, count_in(row)
            place = int(random.random() * (places if places > members else members))
            if place < members:
                return sub, row, nth(row, place)


class MutableSet(Set):
    """A set to be changed."""

    def __init__(self, rows: MutableCollection, limits: Limits) -> None:
        super().__init__(rows)
        self.target = rows
        self.limits = limits

    def save(self) -> None:
        """Write the header, or delete the key if no member is left; tell who observes it."""
        target = self.target
        target.count = self.count
        if not target.save_open():
            target.save_typed(self, self.extras)

    def extras(self) -> bytes:
        """What it adds to the header."""
        return _STATE.pack(self.encoding, self.level, self.split, self.weight, self.modulus)

    def add(self, member: bytes) -> bool:
        """Add a member; returns whether it wasn't there."""
        sub = self.bucket_of(member)
        row = self.target.peek(sub)
        if row is None:
            row = packed(member)
        elif find(row, member) >= 0:
            return False
        else:
            row += packed(member)
        if self.encoding != HASHTABLE:
            self.encoding = self._encoding_with(member)
        self.target.put(sub, row)
        self.count += 1
        self.weight += weigh(len(member))
        while self.weight > BUCKET * self.buckets and self.level < _MOST_LEVELS:
            self._halve()
        return True

    def remove(self, member: bytes) -> bool:
        """Remove a member; returns whether it was there."""
        sub = self.bucket_of(member)
        row = self.target.peek(sub)
        at = -1 if row is None else find(row, member)
        if row is None or at < 0:
            return False
        self._cut(sub, row, at, len(member))
        return True

    def pop(self) -> bytes:
        """Remove a member at random from a set that isn't empty."""
        sub, row, at = self._draw()
        begin, end = bounds(row, at)
        member = row[begin:end]
        self._cut(sub, row, at, len(member))
        return member

    def _row(self, sub: bytes) -> bytes | None:
        return self.target.peek(sub)

    def _cut(self, sub: bytes, row: bytes, at: int, size: int) -> None:
        """Take a member of this size out of its bucket's row, where it begins at `at`."""
        end = at + packed_size(size)
        if end - at == len(row):
            self.target.delete(sub)
        else:
            self.target.put(sub, row[:at] + row[end:])
        self.count -= 1
        self.weight -= weigh(size)
        while self.count and self.buckets > 1 and 2 * self.weight < BUCKET * self.buckets:
            self._join()

    # -- buckets -----------------------------------------------------------------------------

    def _halve(self) -> None:
        """Halve the first bucket that is whole."""
        if not self.modulus:
            self.modulus = random.getrandbits(MODULUS_BITS) | 1 << MODULUS_BITS - 1 | 1
        bit = 1 << HASH_BITS - 1 - self.level
        start = self.split << HASH_BITS - self.level
        row = self.target.peek(sub_key(start))
        if row is not None:
            stay: list[bytes] = []
            go: list[bytes] = []
            for member in unpack(row):
                found = go if hash_of(member, self.modulus) & bit else stay
                found.append(packed(member))
            if go:
                self.target.put(sub_key(start | bit), b"".join(go))
                if stay:
                    self.target.put(sub_key(start), b"".join(stay))
                else:
                    self.target.delete(sub_key(start))
        self.buckets += 1
        self.split += 1
        if self.split == 1 << self.level:
            self.level += 1
            self.split = 0

    def _join(self) -> None:
        """Join the halves of the bucket that was halved last."""
        if not self.split:
            self.level -= 1
            self.split = 1 << self.level
        self.split -= 1
        self.buckets -= 1
        bit = 1 << HASH_BITS - 1 - self.level
        start = self.split << HASH_BITS - self.level
        go = self.target.peek(sub_key(start | bit))
        if go is not None:
            stay = self.target.peek(sub_key(start))
            self.target.put(sub_key(start), go if stay is None else stay + go)
            self.target.delete(sub_key(start | bit))

    # -- encodings ---------------------------------------------------------------------------

    def begin_encoding(self, first: bytes, expected: int) -> None:
        """It is new, and is to have about `expected` members, this one first (setTypeCreate)."""
        limits = self.limits
        if expected <= limits.intset_entries and parse_int64(first) is not None:
            self.encoding = INTSET
        else:
            self.encoding = LISTPACK if expected <= limits.listpack_entries else HASHTABLE

    def expect(self, added: int) -> None:
        """So many members may come at once (setTypeMaybeConvert)."""
        limits = self.limits
        most = limits.intset_entries if self.encoding == INTSET else limits.listpack_entries
        if added > most:
            self.encoding = HASHTABLE

    def _encoding_with(self, member: bytes) -> int:
        """The encoding once a member is added (setTypeAddAux)."""
        count, limits = self.count, self.limits
        if self.encoding == INTSET and parse_int64(member) is not None:
            return INTSET if count < limits.intset_entries else HASHTABLE
        small = count < limits.listpack_entries and len(member) <= limits.listpack_value
        return LISTPACK if small else HASHTABLE


def iterate(rows: Collection) -> Iterator[bytes]:
    """All members, in no order that means anything. The view is pinned by the call."""
    return chain.from_iterable(map(_members, rows.scan(MEMBERS, MEMBERS_END)))


def buckets_of(extras: bytes, members: list[bytes]) -> list[bytes]:
    """The type's part of the keys of the buckets that members belong in, for who has the header
    alone."""
    _, level, split, _, modulus = _unpack(extras)
    return [bucket_of(member, level, split, modulus) for member in members]


def contains(rows: Collection, member: bytes) -> bool:
    """Whether a set has the member."""
    return Set(rows).has(member)


def pick(rows: Collection, count: int) -> list[bytes]:
    """Different members at random, at most `count`, in random order."""
    found = Set(rows)
    if found.buckets == 1 or count > found.count // _FEW:
        members = list(iterate(rows))
        return random.sample(members, min(count, len(members)))
    # A dictionary, and not a set: the order is that of the draws.
    chosen: dict[bytes, None] = {}
    while len(chosen) < count:
        chosen[found.at_random()] = None
    return list(chosen)


def draw(rows: Collection, count: int) -> list[bytes]:
    """So many members at random, some perhaps more than once."""
    found = Set(rows)
    if found.buckets == 1 or count > found.count // _FEW:
        return random.choices(list(iterate(rows)), k=count)
    return [found.at_random() for _ in range(count)]


def _members(entry: tuple[bytes, bytes]) -> list[bytes]:
    return unpack(entry[1])


# -- several sets --------------------------------------------------------------------------------
# Sources are opened by the call, all at one instant; each step gives a member or, for one that
# isn't in the result, None. A missing set is None.


def intersect(sets: list[Collection]) -> Iterator[bytes | None]:
    """The members that all have."""
    by_size = sorted(sets, key=_size)
    others = [_Sought(rows) for rows in by_size[1:]]
    return _intersected(iterate(by_size[0]), others)


def subtract(first: Collection, others: list[Collection]) -> Iterator[bytes | None]:
    """The members of the first that no other has."""
    return _subtracted(iterate(first), [_Sought(rows) for rows in others])


def unite(sets: list[Collection]) -> Iterator[bytes | None]:
    """The members that any has, each once."""
    sources = [iterate(rows) for rows in sets]
    return _united(sources, [_Sought(rows) for rows in sets[:-1]])


def _size(rows: Collection) -> int:
    return rows.count


class _Sought:
    """A set in which members are looked for. The view is pinned when this is made."""

    def __init__(self, rows: Collection) -> None:
        self._set = Set(rows)
        self._prefix = rows.prefix
        self._walk = rows.walk(MEMBERS, MEMBERS_END)
        #: The bucket that was looked into last, and its members.
        self._sub = b""
        self._members: frozenset[bytes] = frozenset()

    def has(self, member: bytes) -> bool:
        """Whether it has the member."""
        sub = self._set.bucket_of(member)
        if sub != self._sub:
            key = self._prefix + sub
            self._walk.seek(key)
            found = self._walk.key()
            if found is None:
                self._walk.check()
            self._members = frozenset(unpack(self._walk.value()) if found == key else ())
            self._sub = sub
        return member in self._members


def _intersected(first: Iterator[bytes], others: list[_Sought]) -> Iterator[bytes | None]:
    for member in first:
        found: bytes | None = member
        for other in others:
            if not other.has(member):
                found = None
                break
        yield found


def _subtracted(first: Iterator[bytes], others: list[_Sought]) -> Iterator[bytes | None]:
    for member in first:
        yield None if _any_has(others, member) else member


def _united(sources: list[Iterator[bytes]], sought: list[_Sought]) -> Iterator[bytes | None]:
    for number, source in enumerate(sources):
        for member in source:
            yield None if _any_has(sought[:number], member) else member


def _any_has(sets: list[_Sought], member: bytes) -> bool:
    return any(one.has(member) for one in sets)
