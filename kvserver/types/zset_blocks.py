"""How many elements of a large sorted set come before a place: ranks without walking to them.

It must not know scores, RESP or commands. A place is what index rows are ordered by. The rows,
under a set's prefix:

    C | end     elements u32 | elements of each block u16         a group of blocks, which are in
    c | end     size u32 | begin | (size u32 | end of a block)    order; the last one ends with it
    s | place                                                     an element (types/zsets.py)

A block's elements are those in [begin, end). It begins where the one before it ends, a group where
the group before it ends, the first ones at the empty place. Two rows, since a count changes with
every element and an end seldom. Invariants:
- The last group ends at LAST, above every place.
- A block without elements is the last of its group, a group without elements the last of all.
- An end is no longer than it must be to tell the places on its two sides apart.
- What `Groups` has of a set is what its rows say: whatever changes them does both.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from struct import Struct, unpack_from
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection, MutableCollection

GROUP: Final = b"C"
BLOCK_ENDS: Final = b"c"
INDEX: Final = b"s"
#: Above every row of blocks, and below all other rows of a set.
ROWS_END: Final = b"d"
#: Above every place: these begin with an ordered score, at most 0xfff0...
LAST: Final = b"\xff\xff"

#: A block with more elements is split, and a group with more blocks, or with longer ends. In
#: between a walk through half a block takes some 20 us, a million elements have about as many
#: groups as a group has blocks, and a count is part of a row of some 200 bytes.
MOST_ELEMENTS: Final = 128
MOST_BLOCKS: Final = 128
MOST_BYTES: Final = 8192
#: How many are put together where many are known at once: that leaves room for some more.
_ELEMENTS: Final = 96
#: How many stay below when the last block is split: sets often grow at their upper end.
_LOWER_PART: Final = 120
#: So many changes at a time: a block then has fewer than 1 << 16 elements even before it is split.
MOST_CHANGES: Final = 8192

#: Where the end begins in the whole key of a row.
_END_AT: Final = ELEMENT_PREFIX_LEN + 1
_HEAD_LEN: Final = 4
_SIZE: Final = Struct(">I")
#: The bytes of a count.
_COUNTS: Final = [count.to_bytes(2, "big") for count in range(MOST_ELEMENTS + 1)]


class Group:
    """A group of blocks."""

    def __init__(self, begin: bytes, ends: list[bytes], elements: int, counts: bytes) -> None:
        self.begin = begin
        #: Where its blocks end, and at last the group.
        self.ends = ends
        self.elements = elements
        #: How many elements each block has, as in the row.
        self.counts = counts
        #: It isn't as the row says.
        self.is_changed = False
        #: A block has too many elements or none.
        self.is_uneven = False

    @property
    def end(self) -> bytes:
        """Where it ends."""
        return self.ends[-1]

    def add(self, place: bytes, added: int) -> bool:
        """An element came (1) or went (-1). Returns whether it went at an end of the set, from
        the first block or the last."""
        ends = self.ends
        index = bisect_right(ends, place)
        at = 2 * index
        counts = self.counts
        count = (counts[at] << 8 | counts[at + 1]) + added
        packed = _COUNTS[count] if count <= MOST_ELEMENTS else count.to_bytes(2, "big")
        self.counts = b"%b%b%b" % (counts[:at], packed, counts[at + 2 :])
        self.elements += added
        self.is_changed = True
        is_last = index == len(ends) - 1
        if count > MOST_ELEMENTS or (count == 0 and not is_last):
            self.is_uneven = True
        if added > 0:
            return False
        return (index == 0 and not self.begin) or (is_last and ends[index] == LAST)

    def numbers(self, blocks: int) -> tuple[int, ...]:
        """How many elements the first of its blocks have."""
        return unpack_from(f">{blocks}H", self.counts)

    def put_counts(self, rows: MutableCollection) -> None:
        """Write how many elements the blocks have."""
        key = b"%b%b%b" % (rows.prefix, GROUP, self.ends[-1])
        rows.data.put(key, b"%b%b" % (self.elements.to_bytes(4, "big"), self.counts))
        self.is_changed = False

    def put_ends(self, rows: MutableCollection) -> None:
        """Write where the blocks end."""
        parts: list[bytes] = []
        for end in (self.begin, *self.ends[:-1]):
            parts += (_SIZE.pack(len(end)), end)
        rows.put(BLOCK_ENDS + self.ends[-1], b"".join(parts))


def _group(end: bytes, counts: bytes, ends: bytes) -> Group:
    """A group from its rows."""
    found: list[bytes] = []
    at = 0
    while at < len(ends):
        begin = at + _HEAD_LEN
        at = begin + int.from_bytes(ends[at:begin], "big")
        found.append(ends[begin:at])
    found.append(end)
    elements = int.from_bytes(counts[:_HEAD_LEN], "big")
    return Group(found[0], found[1:], elements, counts[_HEAD_LEN:])


class Budget:
    """How many groups are in memory, of all sets together."""

    def __init__(self) -> None:
        self.groups = 0


class Groups:
    """The groups of a set that are in memory."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        #: Where they end, in order.
        self._ends: list[bytes] = []
        self._groups: list[Group] = []

    def of(self, rows: Collection, place: bytes) -> Group:
        """The group of a place."""
        at = bisect_right(self._ends, place)
        if at < len(self._groups):
            group = self._groups[at]
            if group.begin <= place:
                return group
        for key, row in rows.scan(GROUP + place + b"\0", GROUP + LAST + b"\0"):
            end = key[_END_AT:]
            ends = rows.get(BLOCK_ENDS + end)
            assert ends is not None
            group = _group(end, row, ends)
            self.insert(group)
            return group
        raise AssertionError("no group for a place")

    def insert(self, group: Group) -> None:
        """A group is as its rows say."""
        at = bisect_left(self._ends, group.end)
        if at < len(self._ends) and self._ends[at] == group.end:
            self._groups[at] = group
            return
        self._ends.insert(at, group.end)
        self._groups.insert(at, group)
        self._budget.groups += 1

    def remove(self, group: Group) -> None:
        """A group is gone."""
        at = bisect_left(self._ends, group.end)
        del self._ends[at]
        del self._groups[at]
        self._budget.groups -= 1

    def forget(self) -> None:
        """There are no groups any more, or they are to be read anew."""
        self._budget.groups -= len(self._groups)
        self._ends = []
        self._groups = []

    def before(self, rows: Collection, group: Group, low: bytes) -> int:
        """How many elements the groups before one have. No element is below `low`."""
        if not group.begin:
            return 0
        end, elements = b"", 0
        for known in self._groups:
            if known is group and known.begin == end:
                return elements
            if known.begin != end:
                break
            end = known.end
            elements += known.elements
        elements = 0
        for _, row in rows.scan(GROUP + low, GROUP + group.begin + b"\0"):
            elements += int.from_bytes(row[:_HEAD_LEN], "big")
        return elements

    def find(self, rows: Collection, rank: int, low: bytes) -> tuple[Group, int]:
        """(the group of the element with a rank, how many are before the group)."""
        end, elements = b"", 0
        for known in self._groups:
            if known.begin != end:
                break
            if elements + known.elements > rank:
                return known, elements
            end = known.end
            elements += known.elements
        end, elements = b"", 0
        for key, row in rows.scan(GROUP + low, BLOCK_ENDS):
            count = int.from_bytes(row[:_HEAD_LEN], "big")
            if elements + count > rank:
                break
            end = key[_END_AT:]
            elements += count
        return self.of(rows, end), elements


def before(rows: Collection, groups: Groups, place: bytes, low: bytes) -> tuple[bytes, int]:
    """(where the block of a place begins, how many elements are below that). No element is below
    `low`."""
    rows.data.log.note_scan()
    group = groups.of(rows, place)
    elements = groups.before(rows, group, low)
    index = bisect_right(group.ends, place)
    if not index:
        return group.begin, elements
    return group.ends[index - 1], elements + sum(group.numbers(index))


def find(rows: Collection, groups: Groups, rank: int, low: bytes) -> tuple[bytes, bytes, int, int]:
    """The block with the element of a rank, which is there: (where it begins, its end, how many
    elements are below it, how many it has)."""
    rows.data.log.note_scan()
    group, elements = groups.find(rows, rank, low)
    begin = group.begin
    for index, count in enumerate(group.numbers(len(group.ends))):
        if elements + count > rank:
            return begin, group.ends[index], elements, count
        begin = group.ends[index]
        elements += count
    raise AssertionError("the blocks have fewer elements than the set")


def build(rows: MutableCollection, places: Iterable[bytes]) -> None:
    """Write the rows for all places, which come in order; there are none yet."""
    last = b""
    ends: list[bytes] = []
    counts: list[int] = []
    count = 0
    for place in places:
        if count == _ELEMENTS:
            ends.append(_between(last, place))
            counts.append(count)
            count = 0
        count += 1
        last = place
    ends.append(LAST)
    counts.append(count)
    for group in _divided(b"", ends, counts):
        group.put_counts(rows)
        group.put_ends(rows)


def drop(rows: MutableCollection) -> None:
    """Delete all rows."""
    for key, _ in list(rows.scan(GROUP, ROWS_END)):
        rows.delete(key[ELEMENT_PREFIX_LEN:])


def change(rows: MutableCollection, groups: Groups, changes: dict[bytes, int], low: bytes) -> int:
    """Places came (1) or went (-1), up to MOST_CHANGES; the index rows say so already. Returns how
    many went from the first block and the last."""
    at_ends = 0
    changed: list[Group] = []
    for place, added in changes.items():
        if added:
            group = groups.of(rows, place)
            if not group.is_changed:
                changed.append(group)
            if group.add(place, added):
                at_ends += 1
    for group in changed:
        if group.is_uneven or not group.elements:
            _mend(rows, groups, group, low)
        else:
            group.put_counts(rows)
    return at_ends


def _mend(rows: MutableCollection, groups: Groups, group: Group, low: bytes) -> None:
    """Write a group in which a block has too many elements or none."""
    if group.elements == 0 and group.end != LAST:
        _remove(rows, groups, group)
        return
    ends: list[bytes] = []
    counts: list[int] = []
    begin = group.begin
    for end, count in zip(group.ends, group.numbers(len(group.ends)), strict=True):
        if count == 0 and end != group.end:
            continue  # the next one begins where it began
        if count > MOST_ELEMENTS:
            count = _split(rows, max(begin, low), end, count, ends, counts)
        ends.append(end)
        counts.append(count)
        begin = end
    groups.remove(group)
    for part in _divided(group.begin, ends, counts):
        part.put_counts(rows)
        part.put_ends(rows)
        groups.insert(part)


def _remove(rows: MutableCollection, groups: Groups, group: Group) -> None:
    """Delete a group without elements, which isn't the last: the next one begins where it began."""
    groups.remove(group)
    rows.delete(GROUP + group.end)
    rows.delete(BLOCK_ENDS + group.end)
    following = groups.of(rows, group.end)
    following.begin = group.begin
    following.put_ends(rows)


def _split(
    rows: MutableCollection,
    begin: bytes,
    end: bytes,
    count: int,
    ends: list[bytes],
    counts: list[int],
) -> int:
    """Divide a block with so many elements: adds parts of it, and returns how many elements are
    left to the last of them, which isn't added."""
    most = _LOWER_PART if end == LAST else MOST_ELEMENTS // 2
    last, inside = b"", 0
    walk = rows.walk(INDEX + begin, INDEX + end)
    key = walk.key()
    while key is not None:
        if inside == most:
            ends.append(_between(last[_END_AT:], key[_END_AT:]))
            counts.append(inside)
            count -= inside
            if count <= MOST_ELEMENTS:
                break
            inside = 0
        inside += 1
        last = key
        walk.next()
        key = walk.key()
    walk.check()
    return count


def _divided(begin: bytes, ends: list[bytes], counts: list[int]) -> list[Group]:
    """The blocks as groups: one if it isn't too large, or several that have room for some more."""
    most, most_bytes = MOST_BLOCKS, MOST_BYTES
    if len(ends) > most or sum(map(len, ends)) > most_bytes:
        most, most_bytes = MOST_BLOCKS // 2, MOST_BYTES // 2
    groups: list[Group] = []
    first = size = 0
    for index, end in enumerate(ends):
        size += len(end)
        if index + 1 == len(ends) or index + 1 - first == most or size > most_bytes:
            part = counts[first : index + 1]
            packed = Struct(f">{len(part)}H").pack(*part)
            groups.append(Group(begin, ends[first : index + 1], sum(part), packed))
            begin, first, size = end, index + 1, 0
    return groups


def _between(lower: bytes, upper: bytes) -> bytes:
    """The shortest end that is above `lower` and not above `upper`."""
    size = 0
    for left, right in zip(lower, upper, strict=False):
        size += 1
        if left != right:
            return upper[:size]
    return upper[: size + 1]
