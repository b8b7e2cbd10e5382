"""A walk over a collection's elements with a cursor: what HSCAN, SSCAN and ZSCAN share.

It must not know what the rows of a hash or sorted set mean: a `Shape` says so. The rows that are
walked have the parts of keys `tag + member`, so they are in the order of members. The rows of a set
hold several members, in the order of their hashes. Invariants:
- An element that is there during a whole iteration is returned by it, whatever else changes. When
  the table of places forgot where it was, it begins again, and elements are returned again.
- A cursor is below 2**53 (kvserver/scan.py, Cursors). Whatever number a client sends is harmless.
- What Redis would hold in one piece (a listpack, an intset) is returned whole, whatever COUNT says
  (db.c, scanGenericCommand): clients rely on it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, Protocol

from kvserver import codec, glob
from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection
from kvserver.commands.replies import Array, Steps, begin, collect
from kvserver.commands.scan_options import Options
from kvserver.scan import STEPS, Cursors
from kvserver.types import set_buckets, sets
from kvserver.types.sets import Set

#: The reply when there is no such key, or nothing is left.
EMPTY: Final[list[Any]] = [b"0", []]
#: Precedes the places of elements in the table of places, where those of keys have their slot.
_SLOT: Final = b"\0\0"
#: COUNT for what is returned whole: a longer one wouldn't be in one piece.
_WHOLE: Final = 1 << 62


class Shape(Protocol):
    """What a type's rows are in a reply."""

    #: What precedes a member in its part of the key.
    tag: bytes

    def add(self, found: list[bytes], member: bytes, row: bytes) -> None:
        """Add what the reply says of an element to `found`; nothing if it isn't to be seen."""


def scan(
    cursors: Cursors, found: Collection, cursor: int, options: Options, shape: Shape, whole: bool
) -> Any:
    """The reply of a scan that goes on at `cursor`. `whole`: in Redis the collection would be in
    one piece."""
    place = _place(cursors, cursor, whole)
    if place is None:
        return EMPTY
    count = _WHOLE if whole else options.count
    return begin(_reply(_walk(found, place, count, options.pattern, shape), cursors))


def scan_set(cursors: Cursors, found: Set, cursor: int, options: Options) -> Any:
    """The same of a set."""
    whole = found.encoding != sets.HASHTABLE
    place = _place(cursors, cursor, whole)
    if place is None:
        return EMPTY
    count = _WHOLE if whole else options.count
    return begin(_reply(_walk_set(found, place, count, options.pattern), cursors))


def _place(cursors: Cursors, cursor: int, whole: bool) -> bytes | None:
    """Where a scan goes on; None for a cursor that no scan gives."""
    if not cursor or whole:
        return b""
    known = cursors.place(cursor)
    if known is None:
        return None
    return known[len(_SLOT) :] if known.startswith(_SLOT) else b""


def _reply(
    walk: Steps[tuple[list[bytes], bytes | None]], cursors: Cursors
) -> Generator[None, None, list[object]]:
    array = Array()
    found, place = yield from collect(walk, array)
    array.add(found)
    return [b"%d" % cursors.number(None if place is None else _SLOT + place), array.reply()]


def _walk(
    collection: Collection, place: bytes, count: int, pattern: bytes, shape: Shape
) -> Steps[tuple[list[bytes], bytes | None]]:
    """What is found among the next `count` elements from a place on, some in each step; then where
    to go on, None at the end."""
    prefix = shape.tag + glob.literal_prefix(pattern)
    matches = None if pattern == b"*" else glob.compile(pattern)
    found: list[bytes] = []
    upper = prefix + b"\0" if glob.is_literal(pattern) else codec.prefix_end(prefix)
    elements = collection.scan(min(max(place, prefix), upper), upper)
    for walked, (key, row) in enumerate(elements):
        sub = key[ELEMENT_PREFIX_LEN:]
        if walked >= count:
            return found, sub
        if walked % STEPS == STEPS - 1:
            yield found
            found = []
        member = sub[len(shape.tag) :]
        if matches is None or matches(member):
            shape.add(found, member, row)
    return found, None


def _walk_set(
    found: Set, place: bytes, count: int, pattern: bytes
) -> Steps[tuple[list[bytes], bytes | None]]:
    """The same of a set. The place is where a bucket began: by now its members may be in one that
    begins before it, which is returned as a whole."""
    matches = None if pattern == b"*" else glob.compile(pattern)
    start = set_buckets.MEMBERS
    if place.startswith(start) and len(place) == set_buckets.SUB_LEN:
        start = found.bucket(set_buckets.start_of(place))
    members: list[bytes] = []
    walked = stepped = 0
    for key, row in found.rows.scan(start, set_buckets.MEMBERS_END):
        if walked >= count:
            return members, key[ELEMENT_PREFIX_LEN:]
        if walked - stepped >= STEPS:
            yield members
            members = []
            stepped = walked
        bucket = set_buckets.unpack(row)
        walked += len(bucket)
        members += bucket if matches is None else filter(matches, bucket)
    return members, None
