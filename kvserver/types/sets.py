"""Sets: their rows, and what is done with them.

It must not know RESP or commands. Rows under a set's prefix:

    m | member        index u64
    i | index u64     member

The indices are exactly 0 .. count - 1, so that a random member is a point read, and popping leaves
no gap: the last member takes the place of the one that goes. The header adds one byte: the encoding
that Redis would use (t_set.c), which only ever grows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection, MutableCollection
from kvserver.numbers import parse_int64

MEMBER: Final = b"m"
INDEX: Final = b"i"
#: Where the member begins in the whole key of its row.
MEMBER_AT: Final = ELEMENT_PREFIX_LEN + 1

INTSET: Final = b"\0"
LISTPACK: Final = b"\1"
HASHTABLE: Final = b"\2"
ENCODINGS: Final = {INTSET: b"intset", LISTPACK: b"listpack", HASHTABLE: b"hashtable"}


class Limits(NamedTuple):
    """Up to where Redis uses the small encodings."""

    intset_entries: int
    listpack_entries: int
    listpack_value: int


# -- one set -------------------------------------------------------------------------------------


def contains(members: Collection, member: bytes) -> bool:
    """Whether it has the member."""
    return members.get(MEMBER + member) is not None


def member_at(members: Collection, index: int) -> bytes:
    """The member with an index below the count."""
    member = members.get(INDEX + index.to_bytes(8, "big"))
    assert member is not None, "an index without a member"
    return member


def iterate(members: Collection) -> Iterator[bytes]:
    """All members in the order of their bytes. The view is pinned by the call."""
    return map(_member, members.scan(MEMBER, INDEX_END))


def _member(entry: tuple[bytes, bytes]) -> bytes:
    return entry[0][MEMBER_AT:]


#: The end of the members' rows: they are the last of a set.
INDEX_END: Final = bytes((MEMBER[0] + 1,))


def add(members: MutableCollection, member: bytes, limits: Limits) -> bool:
    """Add a member; returns whether it wasn't there."""
    sub = MEMBER + member
    if members.peek(sub) is not None:
        return False
    if members.extras != HASHTABLE:
        members.extras = _encoding_with(members, member, limits)
    index = members.count.to_bytes(8, "big")
    members.put(sub, index)
    members.put(INDEX + index, member)
    members.count += 1
    return True


def remove(members: MutableCollection, member: bytes) -> bool:
    """Remove a member; returns whether it was there."""
    sub = MEMBER + member
    index = members.peek(sub)
    if index is None:
        return False
    members.count -= 1
    last = INDEX + members.count.to_bytes(8, "big")
    if last[1:] != index:
        moved = members.peek(last)
        assert moved is not None, "an index without a member"
        members.put(INDEX + index, moved)
        members.put(MEMBER + moved, index)
    members.delete(last)
    members.delete(sub)
    return True


def pick(members: Collection, count: int) -> list[bytes]:
    """Different members at random, at most `count`."""
    indices = random.sample(range(members.count), min(count, members.count))
    return [member_at(members, index) for index in indices]


def pop_one(members: MutableCollection) -> bytes:
    """Remove a member at random from a set that isn't empty."""
    member = member_at(members, random.randrange(members.count))
    remove(members, member)
    return member


# -- encodings -----------------------------------------------------------------------------------


def first_encoding(member: bytes, expected: int, limits: Limits) -> bytes:
    """That of a new set which is to have about `expected` members, this one first
    (setTypeCreate)."""
    if expected <= limits.intset_entries and parse_int64(member) is not None:
        return INTSET
    return LISTPACK if expected <= limits.listpack_entries else HASHTABLE


def expect(members: MutableCollection, added: int, limits: Limits) -> None:
    """So many members may come at once (setTypeMaybeConvert)."""
    most = limits.intset_entries if members.extras == INTSET else limits.listpack_entries
    if added > most:
        members.extras = HASHTABLE


def _encoding_with(members: MutableCollection, member: bytes, limits: Limits) -> bytes:
    """The encoding once a member is added (setTypeAddAux)."""
    count = members.count
    if members.extras == INTSET and parse_int64(member) is not None:
        return INTSET if count < limits.intset_entries else HASHTABLE
    small = count < limits.listpack_entries and len(member) <= limits.listpack_value
    return LISTPACK if small else HASHTABLE


# -- several sets --------------------------------------------------------------------------------
# Sources are opened by the call, all at one instant; each step gives a member or, for one that
# isn't in the result, None. A missing set is None.


def intersect(sets: list[Collection]) -> Iterator[bytes | None]:
    """The members that all have."""
    by_size = sorted(sets, key=_count)
    others = [_Sought(members) for members in by_size[1:]]
    return _intersected(iterate(by_size[0]), others)


def subtract(first: Collection, others: list[Collection]) -> Iterator[bytes | None]:
    """The members of the first that no other has."""
    return _subtracted(iterate(first), [_Sought(members) for members in others])


def unite(sets: list[Collection]) -> Iterator[bytes]:
    """The members that any has, each once, in order."""
    return _united([_Sought(members) for members in sets])


def _count(members: Collection) -> int:
    return members.count


class _Sought:
    """A set in which members are looked for in ascending order."""

    def __init__(self, members: Collection) -> None:
        self._prefix = members.prefix + MEMBER
        self._walk = members.walk(MEMBER, INDEX_END)

    @property
    def member(self) -> bytes | None:
        """The member that it stands at; None at the end."""
        key = self._walk.key()
        if key is None:
            self._walk.check()
            return None
        return key[MEMBER_AT:]

    def next(self) -> None:
        """Go to the member after this one."""
        self._walk.next()

    def has(self, member: bytes) -> bool:
        """Go to a member, or to the one after it; whether it is there."""
        key = self._walk.key()
        wanted = self._prefix + member
        if key is not None and key < wanted:
            self._walk.next()  # sets of about the same size: it may be the next
            key = self._walk.key()
            if key is not None and key < wanted:
                self._walk.seek(wanted)
                key = self._walk.key()
        if key is None:
            self._walk.check()
        return key == wanted


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
        found: bytes | None = member
        for other in others:
            if other.has(member):
                found = None
                break
        yield found


def _united(sources: list[_Sought]) -> Iterator[bytes]:
    while True:
        least: bytes | None = None
        for source in sources:
            member = source.member
            if member is not None and (least is None or member < least):
                least = member
        if least is None:
            return
        yield least
        for source in sources:
            if source.member == least:
                source.next()
