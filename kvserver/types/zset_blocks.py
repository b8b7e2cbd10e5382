"""How many elements of a large sorted set come before a place: ranks without walking to them.

It must not know scores, RESP or commands. A place is what index rows are ordered by. The rows,
under a set's prefix:

    C | end     elements u32 | blocks u16 | begin     a group of blocks
    c | end     elements u32 | begin                  a block: its elements are in [begin, end)
    s | place                                         an element (types/zsets.py)

A block begins where the one before it ends (of whatever group), a group where the group before it
ends, the first ones at the empty place. Invariants:
- The last group and the last block end at LAST, above every place; a group's end is that of its
  last block.
- A block without elements is the last of its group, a group without elements the last of all.
- An end is no longer than it must be to tell the places on its two sides apart.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from struct import Struct
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection, MutableCollection

GROUP: Final = b"C"
BLOCK: Final = b"c"
INDEX: Final = b"s"
#: Above every row of blocks, and below all other rows of a set.
ROWS_END: Final = b"d"
#: Above every place: these begin with an ordered score, at most 0xfff0...
LAST: Final = b"\xff\xff"

#: A block with more elements is split, and a group with more blocks. In between a walk through one
#: block takes some 100 us, and a million elements have about as many groups as a group has blocks.
MOST_ELEMENTS: Final = 256
MOST_BLOCKS: Final = 64
#: How many are put together where many are known at once: that leaves room for some more.
_ELEMENTS: Final = 192
_BLOCKS: Final = 48
#: How many stay below when the last block is split: sets often grow at their upper end.
_LOWER_PART: Final = 240

#: Where the end begins in the whole key of a row.
_END_AT: Final = ELEMENT_PREFIX_LEN + 1
_GROUP_HEAD: Final = Struct(">IH")
#: Where the beginning is in the row of a block, and of a group.
_BLOCK_BEGIN_AT: Final = 4
_GROUP_BEGIN_AT: Final = 6

#: What is kept of guesses, in bytes, each with so much more than its end.
_GUESSES_BYTES: Final = 8 << 20
_GUESS_OVERHEAD: Final = 90


class _Guesses:
    """Ends that blocks and groups have or had, so that who adds an element need not walk to its
    block. A row tells whether a guess is right, since it has both ends of what it stands for: so
    nobody need be told when rows change, whoever changed them."""

    def __init__(self) -> None:
        #: The prefix and tag of rows -> ends in order.
        self._ends: dict[bytes, list[bytes]] = {}
        self._bytes = 0

    def guess(self, name: bytes, place: bytes) -> bytes | None:
        """The first known end above a place."""
        ends = self._ends.get(name)
        if ends is None:
            return None
        at = bisect_right(ends, place)
        return ends[at] if at < len(ends) else None

    def learn(self, name: bytes, end: bytes) -> None:
        """There is such an end."""
        if self._bytes > _GUESSES_BYTES:
            self._ends = {}
            self._bytes = 0
        ends = self._ends.setdefault(name, [])
        at = bisect_left(ends, end)
        if at == len(ends) or ends[at] != end:
            ends.insert(at, end)
            self._bytes += len(end) + _GUESS_OVERHEAD

    def forget(self, name: bytes, end: bytes) -> None:
        """There is no such end."""
        ends = self._ends[name]
        del ends[bisect_left(ends, end)]
        self._bytes -= len(end) + _GUESS_OVERHEAD


_guesses: Final = _Guesses()


class _Group:
    """A group of blocks that is changed."""

    def __init__(self, begin: bytes, end: bytes, elements: int, blocks: int) -> None:
        self.begin = begin
        self.end = end
        self.elements = elements
        self.blocks = blocks


def before(rows: Collection, place: bytes, low: bytes) -> tuple[bytes, int]:
    """(where the block of a place begins, how many elements are below that). No element is below
    `low`."""
    begin, elements = b"", 0
    upper = place + b"\0"
    if low < upper:
        for key, row in rows.scan(GROUP + low, GROUP + upper):
            begin = key[_END_AT:]
            elements += int.from_bytes(row[:4], "big")
        for key, row in rows.scan(BLOCK + max(begin + b"\0", low), BLOCK + upper):
            begin = key[_END_AT:]
            elements += int.from_bytes(row[:4], "big")
    return begin, elements


def find(rows: Collection, rank: int, low: bytes) -> tuple[bytes, bytes, int, int]:
    """The block with the element of a rank, which is there: (where it begins, its end, how many
    elements are below it, how many it has)."""
    begin, elements = b"", 0
    for key, row in rows.scan(GROUP + low, BLOCK):
        count = int.from_bytes(row[:4], "big")
        if elements + count > rank:
            break
        begin = key[_END_AT:]
        elements += count
    for key, row in rows.scan(BLOCK + max(begin + b"\0", low), ROWS_END):
        count = int.from_bytes(row[:4], "big")
        if elements + count > rank:
            return begin, key[_END_AT:], elements, count
        begin = key[_END_AT:]
        elements += count
    raise AssertionError("the blocks have fewer elements than the set")


def build(rows: MutableCollection, places: Iterable[bytes]) -> None:
    """Write the rows for all places, which come in order; there are none yet."""
    last = begin = b""
    group = _Group(b"", LAST, 0, 0)
    count = 0
    for place in places:
        if count == _ELEMENTS:
            end = _between(last, place)
            _put_block(rows, group, begin, end, count)
            begin, count = end, 0
            if group.blocks == _BLOCKS:
                group.end = end
                _put_group(rows, group)
                group = _Group(end, LAST, 0, 0)
        count += 1
        last = place
    _put_block(rows, group, begin, LAST, count)
    _put_group(rows, group)


def drop(rows: MutableCollection) -> None:
    """Delete all rows."""
    for key, _ in list(rows.scan(GROUP, ROWS_END)):
        rows.delete(key[ELEMENT_PREFIX_LEN:])


def change(rows: MutableCollection, changes: dict[bytes, int]) -> None:
    """Places came (1) or went (-1); the index rows say so already."""
    places = sorted(changes)
    at = 0
    while at < len(places):
        group = _group_of(rows, places[at])
        was = group.elements, group.blocks
        while at < len(places) and places[at] < group.end:
            end, row = _row_of(rows, BLOCK, places[at], _BLOCK_BEGIN_AT, group.end)
            added = 0
            while at < len(places) and places[at] < end:
                added += changes[places[at]]
                at += 1
            if added:
                group.elements += added
                count = int.from_bytes(row[:4], "big") + added
                _change_block(rows, group, row[_BLOCK_BEGIN_AT:], end, count)
        if was != (group.elements, group.blocks):
            _change_group(rows, group)


def _group_of(rows: MutableCollection, place: bytes) -> _Group:
    end, row = _row_of(rows, GROUP, place, _GROUP_BEGIN_AT, LAST)
    elements, blocks = _GROUP_HEAD.unpack_from(row)
    return _Group(row[_GROUP_BEGIN_AT:], end, elements, blocks)


def _row_of(
    rows: MutableCollection, tag: bytes, place: bytes, begin_at: int, most: bytes
) -> tuple[bytes, bytes]:
    """(end, row) of the block or group with a place; `most` is an end that it doesn't pass."""
    name = rows.prefix + tag
    guess = _guesses.guess(name, place)
    if guess is not None:
        found = rows.peek(tag + guess)
        if found is None:
            _guesses.forget(name, guess)
        elif found[begin_at:] <= place:
            return guess, found
    for key, row in rows.scan(tag + place + b"\0", tag + most + b"\0"):
        end = key[_END_AT:]
        _guesses.learn(name, end)
        return end, row
    raise AssertionError("no block for a place")


def _change_block(
    rows: MutableCollection, group: _Group, begin: bytes, end: bytes, count: int
) -> None:
    """A block of the group has so many elements now."""
    if count == 0 and end != group.end:
        rows.delete(BLOCK + end)
        group.blocks -= 1
        _begin_next(rows, BLOCK, begin, end, _BLOCK_BEGIN_AT)
    elif count > MOST_ELEMENTS:
        _split_block(rows, group, begin, end)
    else:
        rows.put(BLOCK + end, count.to_bytes(4, "big") + begin)


def _begin_next(
    rows: MutableCollection, tag: bytes, begin: bytes, end: bytes, begin_at: int
) -> None:
    """What came before a block or group is gone: it begins there now."""
    for key, row in rows.scan(tag + end + b"\0", tag + LAST + b"\0"):
        rows.put(key[ELEMENT_PREFIX_LEN:], row[:begin_at] + begin)
        break


def _split_block(rows: MutableCollection, group: _Group, begin: bytes, end: bytes) -> None:
    """Divide a block's elements."""
    most = _LOWER_PART if end == LAST else MOST_ELEMENTS // 2
    group.blocks -= 1
    last, count = b"", 0
    for key, _ in rows.scan(INDEX + begin, INDEX + end):
        place = key[_END_AT:]
        if count == most:
            group.elements -= count  # _put_block counts them anew
            middle = _between(last, place)
            _put_block(rows, group, begin, middle, count)
            begin, count = middle, 0
        count += 1
        last = place
    group.elements -= count
    _put_block(rows, group, begin, end, count)


def _change_group(rows: MutableCollection, group: _Group) -> None:
    """Write a changed group, in several if it has many blocks."""
    if group.elements == 0 and group.end != LAST:
        rows.delete(BLOCK + group.end)
        rows.delete(GROUP + group.end)
        _begin_next(rows, BLOCK, group.begin, group.end, _BLOCK_BEGIN_AT)
        _begin_next(rows, GROUP, group.begin, group.end, _GROUP_BEGIN_AT)
        return
    if group.blocks > MOST_BLOCKS:
        part = _Group(group.begin, group.end, 0, 0)
        for key, row in rows.scan(BLOCK + group.begin + b"\0", BLOCK + group.end + b"\0"):
            if part.blocks == MOST_BLOCKS // 2:
                _put_group(rows, part)
                part = _Group(part.end, group.end, 0, 0)
            part.end = key[_END_AT:]
            part.blocks += 1
            part.elements += int.from_bytes(row[:4], "big")
        group = part
    _put_group(rows, group)


def _put_block(
    rows: MutableCollection, group: _Group, begin: bytes, end: bytes, count: int
) -> None:
    """Write a block that is new in the group."""
    rows.put(BLOCK + end, count.to_bytes(4, "big") + begin)
    group.elements += count
    group.blocks += 1


def _put_group(rows: MutableCollection, group: _Group) -> None:
    head = _GROUP_HEAD.pack(group.elements, group.blocks)
    rows.put(GROUP + group.end, head + group.begin)


def _between(lower: bytes, upper: bytes) -> bytes:
    """The shortest end that is above `lower` and not above `upper`."""
    size = 0
    for left, right in zip(lower, upper, strict=False):
        size += 1
        if left != right:
            return upper[:size]
    return upper[: size + 1]
