"""Lists: their rows, and what is done with them.

It must not know RESP or commands. Rows under a list's prefix:

    b | block u64                       holes u32 | inserted u32
    e | position u64 | fraction         element

    header: head u64 | tail u64 | size u64 | blocks u32 | encoding u8

The first element has position `head`, the last one position `tail - 1`; both move as elements are
pushed and popped, and no row is outside of them, so that no walk steps over what was popped. `size`
is what the elements would take in a listpack, an estimate once many were trimmed, and `encoding`
the encoding that Redis would use (t_list.c).

A list is even as long as it has exactly the rows `head` .. `tail - 1`, without fractions: then the
place of an element follows from its index. What is removed in the middle leaves a hole, and what is
inserted there fills one or gets a fraction: a row after that position and before the next. Which
blocks of 128 positions have any of it, and how much, is told by a row for each of them; `blocks` is
their number. So the place of an element is found by the rows of uneven blocks, and a walk within
one block. A fraction never ends in a zero byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from struct import Struct
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection, MutableCollection
from kvserver.types.list_nodes import entry_bytes, exceeds, is_small

ELEMENT: Final = b"e"
BLOCK: Final = b"b"
#: Positions in a block, as a power of two.
BLOCK_BITS: Final = 7
#: Where a list begins: there is room for ever in both directions.
START: Final = 1 << 63
EXTRAS: Final = Struct(">QQQIB")
UNEVEN: Final = Struct(">II")
_POSITION: Final = Struct(">cQ")
#: The length of the type's part of the key of a row without a fraction.
PLAIN: Final = 9

#: A longer fraction makes those of its position be spread anew.
MAX_FRACTION: Final = 16
#: In a list that is even, what is removed or inserted so near to an end moves the elements
#: between: the list stays even.
NEAR: Final = 16
#: As many elements are looked up one by one; more are walked.
_FEW: Final = 8
#: As many rows are deleted one by one; more are dropped as a range.
SINGLE_DELETIONS: Final = 256

LISTPACK: Final = 0
QUICKLIST: Final = 1
ENCODINGS: Final = {LISTPACK: b"listpack", QUICKLIST: b"quicklist"}

#: The key of a row, or the type's part of it, and the row.
Found = tuple[bytes, bytes]


def encoding(extras: bytes) -> bytes:
    """The name of the encoding that Redis would use, from what the header adds."""
    return ENCODINGS[extras[-1]]


def sub_of(position: int) -> bytes:
    """The type's part of the key of a position's row."""
    return _POSITION.pack(ELEMENT, position)


def position_of(sub: bytes) -> int:
    """The position of a row."""
    return int.from_bytes(sub[1:PLAIN], "big")


def _block_sub(block: int) -> bytes:
    return _POSITION.pack(BLOCK, block)


class ListReader:
    """A list to be read."""

    def __init__(self, rows: Collection) -> None:
        self.rows = rows
        self.count = rows.count
        self.head = self.tail = START
        self.size = self.blocks = 0
        self.encoding = LISTPACK
        if rows.extras:
            unpacked = EXTRAS.unpack(rows.extras)
            self.head, self.tail, self.size, self.blocks, self.encoding = unpacked

    def at(self, index: int) -> bytes:
        """The element with an index from 0 to below the count."""
        value = self.rows.get(self.place(index))
        assert value is not None, "no element at its place"
        return value

    def place(self, index: int) -> bytes:
        """Its place: the type's part of its key."""
        if not self.blocks:
            return sub_of(self.head + index)
        after = self.count - 1 - index
        if index < NEAR:
            return self._nth(self.head, self.tail, index, False)
        if after < NEAR:
            return self._nth(self.head, self.tail, after, True)
        return self._place_among_blocks(index)

    def _place_among_blocks(self, index: int) -> bytes:
        position, left = self.head, index
        for key, row in self.block_rows(self.head, self.tail):
            holes, inserted = UNEVEN.unpack(row)
            block = int.from_bytes(key[ELEMENT_PREFIX_LEN + 1 :], "big")
            begin = max(block << BLOCK_BITS, self.head)
            if left < begin - position:
                break
            left -= begin - position
            position = min((block + 1) << BLOCK_BITS, self.tail)
            elements: int = position - begin - holes + inserted
            if left < elements:
                return self._nth(begin, position, left, False)
            left -= elements
        return sub_of(position + left)

    def _nth(self, begin: int, end: int, n: int, reverse: bool) -> bytes:
        """The place of the n-th row among positions [begin, end), or from their end."""
        rows = self.rows.scan(sub_of(begin), sub_of(end), reverse)
        key, _ = next(islice(rows, n, None))
        return key[ELEMENT_PREFIX_LEN:]

    def block_rows(self, begin: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """The rows of the uneven blocks that have any of the positions [begin, end)."""
        first, last = begin >> BLOCK_BITS, (end - 1) >> BLOCK_BITS
        return self.rows.scan(_block_sub(first), _block_sub(last + 1))

    def walk(self, reverse: bool = False) -> Iterator[Found]:
        """(whole key, element) of all, from the first on or from the last."""
        return self.rows.scan(sub_of(self.head), sub_of(self.tail), reverse)

    def span(self, first: int, count: int, reverse: bool = False) -> Iterator[Found]:
        """The same for `count` elements, at least one, from index `first` on; in reverse the last
        of them comes first."""
        if not self.blocks:
            begin = self.head + first
            return self.rows.scan(sub_of(begin), sub_of(begin + count), reverse)
        if reverse:
            upper = self.place(first + count - 1) + b"\0"
            found = self.rows.scan(sub_of(self.head), upper, True)
        else:
            found = self.rows.scan(self.place(first), sub_of(self.tail))
        return islice(found, count)

    def values(self, first: int, count: int) -> list[bytes]:
        """`count` elements from index `first` on."""
        if count > _FEW or self.blocks:
            return [value for _, value in self.span(first, count)] if count else []
        return [self.at(first + n) for n in range(count)]


def all_rows(rows: Collection) -> Iterator[Found]:
    """(whole key, row) of all that a list has: a walk through everything under its prefix would
    step over what was popped."""
    items = ListReader(rows)
    if not items.blocks:
        return items.walk()
    return chain(items.block_rows(items.head, items.tail), items.walk())


class ListWriter(ListReader):
    """A list to be changed. Nothing is written of the header before `save`."""

    def __init__(self, rows: MutableCollection) -> None:
        super().__init__(rows)
        self.changing = rows
        #: All elements are gone, but not yet their rows.
        self._remains = False

    def save(self) -> None:
        """Write the header, or delete the key if the list is empty."""
        rows = self.changing
        rows.count = self.count
        if self.count or not self._remains:
            rows.extras = EXTRAS.pack(
                self.head, self.tail, max(self.size, 0), self.blocks, self.encoding
            )
            rows.save()
        else:
            writer = rows.writer
            writer.remove(writer.row_key(rows.key), rows.row, rows.key)

    # -- at the ends -----------------------------------------------------------------------------

    def push(self, values: Sequence[bytes], front: bool) -> None:
        """Add elements at an end, one after the other."""
        put, at = self.changing.put, self.head if front else self.tail
        for value in values:
            if front:
                at -= 1
            put(sub_of(at), value)
            if not front:
                at += 1
            self.size += entry_bytes(value)
        if front:
            self.head = at
        else:
            self.tail = at
        self.count += len(values)

    def pop(self, count: int, front: bool) -> list[bytes]:
        """Remove elements, not more than there are, from an end: those, the outermost first."""
        values = self.values(0 if front else self.count - count, count)
        if not front:
            values.reverse()
        for value in values:
            self.size -= entry_bytes(value)
        self._drop(count, front)
        return values

    def trim(self, front: int, back: int) -> None:
        """Remove so many elements, together not more than there are, from the ends."""
        left = self.count - front - back
        if not left:
            self.clear()
            return
        self.size = self._trimmed_size(front, back, left)
        if front:
            self._drop(front, True)
        if back:
            self._drop(back, False)

    def _trimmed_size(self, front: int, back: int, left: int) -> int:
        """The size when so many are gone: exact if not too many rows have to be read."""
        if front + back <= SINGLE_DELETIONS:
            gone = self.values(0, front) + self.values(self.count - back, back)
            return self.size - sum([entry_bytes(value) for value in gone])
        if left <= SINGLE_DELETIONS:
            return sum([entry_bytes(value) for value in self.values(front, left)])
        return self.size * left // self.count

    def clear(self) -> None:
        """Remove all elements."""
        if self.count > SINGLE_DELETIONS:
            self._remains = True
        elif self.blocks:
            self._delete_rows(sub_of(self.head), sub_of(self.tail), self.count)
            self._forget_blocks(self.head, self.tail)
        else:
            self._delete_positions(self.head, self.tail)
        self.count = self.size = self.blocks = 0
        self.head = self.tail

    def _drop(self, count: int, front: bool) -> None:
        """Remove the rows of `count` elements at an end."""
        if count == self.count:
            self.clear()
            return
        if self.blocks:
            if front:
                self._begin_with(self.place(count), count)
            else:
                self._end_with(self.place(self.count - count - 1), count)
        elif front:
            self._delete_positions(self.head, self.head + count)
            self.head += count
        else:
            self._delete_positions(self.tail - count, self.tail)
            self.tail -= count
        self.count -= count

    def _delete_positions(self, begin: int, end: int) -> None:
        if end - begin > SINGLE_DELETIONS:
            self._drop_range(sub_of(begin), sub_of(end), [])
            return
        for position in range(begin, end):
            self.changing.delete(sub_of(position))

    def _begin_with(self, first: bytes, gone: int) -> None:
        """Let the element at a place be the first. `gone` are before it."""
        position = position_of(first)
        block = position >> BLOCK_BITS
        begin = max(block << BLOCK_BITS, self.head)
        plain, inserted = self._census(sub_of(begin), first)
        self._delete_rows(sub_of(self.head), first, gone)
        if len(first) > PLAIN:
            self.changing.delete(sub_of(position))  # a range leaves it to be seen
        self._forget_blocks(self.head, block << BLOCK_BITS)
        self._note(block, plain - (position - begin), -inserted)
        self.head = position

    def _end_with(self, last: bytes, gone: int) -> None:
        """Let the element at a place be the last. `gone` are after it."""
        tail = position_of(last) + 1
        block = (tail - 1) >> BLOCK_BITS
        end = min((block + 1) << BLOCK_BITS, self.tail)
        after = last + b"\0"
        plain, inserted = self._census(after, sub_of(end))
        self._delete_rows(after, sub_of(self.tail), gone)
        self._forget_blocks((block + 1) << BLOCK_BITS, self.tail)
        self._note(block, plain - (end - tail), -inserted)
        self.tail = tail

    def _census(self, lower: bytes, upper: bytes) -> tuple[int, int]:
        """How many rows in [lower, upper) have no fraction, and how many have one."""
        plain = inserted = 0
        for key, _ in self.rows.scan(lower, upper):
            if len(key) == ELEMENT_PREFIX_LEN + PLAIN:
                plain += 1
            else:
                inserted += 1
        return plain, inserted

    def _delete_rows(self, lower: bytes, upper: bytes, count: int) -> None:
        """Delete the `count` rows in [lower, upper)."""
        if not count:
            return
        if count <= SINGLE_DELETIONS:
            for sub in [key[ELEMENT_PREFIX_LEN:] for key, _ in self.rows.scan(lower, upper)]:
                self.changing.delete(sub)
            return
        fractions: list[bytes] = []
        for key, row in self.block_rows(position_of(lower), position_of(upper) + 1):
            if UNEVEN.unpack(row)[1]:
                block = int.from_bytes(key[ELEMENT_PREFIX_LEN + 1 :], "big")
                begin, end = sub_of(block << BLOCK_BITS), sub_of((block + 1) << BLOCK_BITS)
                found = self.rows.scan(max(lower, begin), min(upper, end))
                fractions += [key for key, _ in found if len(key) > ELEMENT_PREFIX_LEN + PLAIN]
        self._drop_range(lower, upper, fractions)

    def _drop_range(self, lower: bytes, upper: bytes, fractions: list[bytes]) -> None:
        """Drop a range that has rows with these fractions. Its positions may be written again
        before the commit, when all that is stored still shows: fractions go one by one, also those
        that were deleted before in the same batch."""
        data, (begin, end) = self.changing.data, self.changing.bounds(lower, upper)
        for key, row in data.pending.items():
            if row is None and len(key) > ELEMENT_PREFIX_LEN + PLAIN and begin <= key < end:
                fractions.append(key)
        self.changing.delete_range(lower, upper)
        for key in fractions:
            data.delete(key)

    # -- in the middle ---------------------------------------------------------------------------

    def equal(self, value: bytes, most: int, reverse: bool) -> list[Found]:
        """The places, and the elements at them, of those that are equal to a value, at most `most`
        (0: all), from the first on or from the last."""
        found: list[Found] = []
        for key, element in self.walk(reverse):
            if element == value:
                found.append((key[ELEMENT_PREFIX_LEN:], element))
                if len(found) == most:
                    break
        return found

    def around(self, pivot: bytes, before: bool) -> tuple[bytes, bytes] | None:
        """The places on both sides of where the first element that is equal to `pivot` begins, or
        ends; empty where the list does. None if there is no such element."""
        last = b""
        walk = self.walk()
        for key, element in walk:
            if element == pivot:
                place = key[ELEMENT_PREFIX_LEN:]
                if before:
                    return last, place
                following = next(walk, None)
                return place, b"" if following is None else following[0][ELEMENT_PREFIX_LEN:]
            if before:
                last = key[ELEMENT_PREFIX_LEN:]
        return None

    def replace(self, index: int, value: bytes) -> None:
        """Another element takes the place of the one with this index."""
        place = self.place(index)
        old = self.changing.peek(place)
        assert old is not None, "no element at its place"
        self.size += entry_bytes(value) - entry_bytes(old)
        self.changing.put(place, value)

    def remove(self, found: list[Found]) -> None:
        """Remove elements: their places, and what they are."""
        if len(found) == self.count:
            self.clear()
            return
        for _, value in found:
            self.size -= entry_bytes(value)
        if not (len(found) == 1 and not self.blocks and self._close(position_of(found[0][0]))):
            self._leave_holes([sub for sub, _ in found])

    def _leave_holes(self, places: list[bytes]) -> None:
        changes: dict[int, tuple[int, int]] = {}
        for sub in places:
            block = position_of(sub) >> BLOCK_BITS
            holes, inserted = changes.get(block, (0, 0))
            plain = len(sub) == PLAIN
            changes[block] = (holes + 1, inserted) if plain else (holes, inserted - 1)
            self.changing.delete(sub)
        for block, (holes, inserted) in changes.items():
            self._note(block, holes, inserted)
        self.count -= len(places)
        first = self._nth(self.head, self.tail, 0, False)
        if position_of(first) != self.head:
            self._begin_with(first, 0)
        last = self._nth(self.head, self.tail, 0, True)
        if position_of(last) != self.tail - 1:
            self._end_with(last, 0)

    def _close(self, position: int) -> bool:
        """Remove an element of a list that is even by moving those before it or after it, if they
        are few; returns whether they were."""
        if position - self.head <= NEAR:
            self._move(range(position - 1, self.head - 1, -1), 1)
            self.changing.delete(sub_of(self.head))
            self.head += 1
        elif self.tail - 1 - position <= NEAR:
            self._move(range(position + 1, self.tail), -1)
            self.tail -= 1
            self.changing.delete(sub_of(self.tail))
        else:
            return False
        self.count -= 1
        return True

    def _move(self, positions: range, by: int) -> None:
        for position in positions:
            value = self.changing.peek(sub_of(position))
            assert value is not None, "no element at its place"
            self.changing.put(sub_of(position + by), value)

    def insert(self, left: bytes, right: bytes, value: bytes) -> None:
        """Insert an element between the places of two that follow each other."""
        self.count += 1
        self.size += entry_bytes(value)
        if not self.blocks and self._make_room(position_of(left), value):
            return
        before, after = position_of(left), position_of(right)
        if after - before > 1:
            middle = (before + after) // 2
            self.changing.put(sub_of(middle), value)
            self._note(middle >> BLOCK_BITS, -1, 0)
            return
        fraction = between(left[PLAIN:], right[PLAIN:] if after == before else b"")
        if len(fraction) > MAX_FRACTION:
            self._spread(before, left, value)
        else:
            self.changing.put(left[:PLAIN] + fraction, value)
        self._note(before >> BLOCK_BITS, 0, 1)

    def _make_room(self, left: int, value: bytes) -> bool:
        """Insert an element after a position of a list that is even by moving those before it or
        after it, if they are few; returns whether they were."""
        if left - self.head < NEAR:
            self._move(range(self.head, left + 1), -1)
            self.head -= 1
            self.changing.put(sub_of(left), value)
        elif self.tail - left <= NEAR:
            self._move(range(self.tail - 1, left, -1), 1)
            self.tail += 1
            self.changing.put(sub_of(left + 1), value)
        else:
            return False
        return True

    def _spread(self, position: int, left: bytes, value: bytes) -> None:
        """Insert an element after a place, and give all fractions of its position anew."""
        plain = sub_of(position)
        values = [value] if left == plain else []
        for key, row in self.rows.scan(plain + b"\0", sub_of(position + 1)):
            sub = key[ELEMENT_PREFIX_LEN:]
            values.append(row)
            if sub == left:
                values.append(value)
            self.changing.delete(sub)
        width = len(values).bit_length() // 8 + 2
        step = 256**width // (len(values) + 1)
        for number, row in enumerate(values, 1):
            fraction = (number * step).to_bytes(width, "big").rstrip(b"\0")
            self.changing.put(plain + fraction, row)

    # -- uneven blocks ---------------------------------------------------------------------------

    def _note(self, block: int, holes: int, inserted: int) -> None:
        """So many more holes and inserted elements are in a block."""
        if not holes and not inserted:
            return
        sub = _block_sub(block)
        row = self.changing.peek(sub)
        if row is None:
            self.blocks += 1
        else:
            had_holes, had_inserted = UNEVEN.unpack(row)
            holes, inserted = holes + had_holes, inserted + had_inserted
        if holes or inserted:
            self.changing.put(sub, UNEVEN.pack(holes, inserted))
        else:
            self.blocks -= 1
            self.changing.delete(sub)

    def _forget_blocks(self, begin: int, end: int) -> None:
        """The blocks of positions [begin, end), whole ones but for the list's ends, are empty."""
        if begin < end:
            for key in [key for key, _ in self.block_rows(begin, end)]:
                self.changing.delete(key[ELEMENT_PREFIX_LEN:])
                self.blocks -= 1

    # -- encodings -------------------------------------------------------------------------------

    def grow(self, values: Sequence[bytes], limit: int) -> None:
        """Elements are to come: Redis may convert to a quicklist (listTypeTryConversionAppend)."""
        if self.encoding == LISTPACK:
            size = self.size + sum([len(value) for value in values])
            if exceeds(limit, size, self.count + len(values)):
                self.encoding = QUICKLIST

    def shrink(self, limit: int) -> None:
        """Elements went: Redis may convert to a listpack (listTypeTryConversion). It does so only
        when all are in one node, which isn't known here."""
        if self.encoding == QUICKLIST and is_small(limit, self.size, self.count):
            self.encoding = LISTPACK


def between(left: bytes, right: bytes) -> bytes:
    """A fraction between two; no bytes are 0 on the left and 1 on the right."""
    width = max(len(left), len(right)) + 1
    low = int.from_bytes(left.ljust(width, b"\0"), "big")
    high = int.from_bytes(right.ljust(width, b"\0"), "big") if right else 256**width
    middle = ((low + high) // 2).to_bytes(width, "big")
    for length in range(1, width):
        shorter = middle[:length].rstrip(b"\0")
        if shorter > left:
            return shorter
    return middle.rstrip(b"\0")
