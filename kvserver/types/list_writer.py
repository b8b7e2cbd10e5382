"""What is done to a list: pushing, popping, trimming; inserting, removing, replacing.

The layout is in lists.py, what keeps the rows in order in list_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kvserver.types import list_chunks
from kvserver.types.list_chunks import CHUNK_BITS, MARKER, MASK
from kvserver.types.list_nodes import MOST_SMALL_BYTES, entry_bytes, exceeds, is_small
from kvserver.types.list_rows import SINGLE_DELETIONS, ListRows
from kvserver.types.lists import LISTPACK, QUICKLIST, Piece, number_of, sub_of

#: A chunk, and the numbers of some of its entries.
Found = tuple[bytes, list[int]]

#: Of as many elements that go, or stay, the size is counted.
_COUNTED: Final = 256


class ListWriter(ListRows):
    """A list to be changed. Nothing is written of the header before `save`."""

    # -- at the ends -----------------------------------------------------------------------------

    def push(self, values: Sequence[bytes], front: bool) -> None:
        """Add elements at an end, one after the other."""
        if len(values) == 1:
            self.push_one(values[0], front)
            return
        if front:
            self._push_front(values)
        else:
            self._push_back(values)
        self.count += len(values)
        for value in values:
            self.size += entry_bytes(value)

    def push_one(self, value: bytes, front: bool) -> None:
        """Add an element at an end."""
        position = self.head - 1 if front else self.tail
        number, index = position >> CHUNK_BITS, position & MASK
        item = self.entry_for(value, number, front)
        data, key = self.changing.data, self.changing.prefix + sub_of(number)
        if not self.count or index == (MASK if front else 0):
            data.put(key, list_chunks.single(index, item))
        else:
            row = data.peek(key)
            assert row is not None, "no chunk at its place"
            if front:
                data.put(key, list_chunks.prepend(row, index + 1, item))
            else:
                data.put(key, list_chunks.append(row, index, item))
        if front:
            self.head = position
        else:
            self.tail = position + 1
        self.count += 1
        self.size += entry_bytes(value)

    def _push_back(self, values: Sequence[bytes]) -> None:
        at, row = self.tail, b""
        if at & MASK and self.count:
            row = self.chunk(sub_of(at >> CHUNK_BITS))
        for value in values:
            item = self.entry_for(value, at >> CHUNK_BITS, False)
            index = at & MASK
            if row:
                row = list_chunks.append(row, index, item)
            else:
                row = list_chunks.single(index, item)
            at += 1
            if not at & MASK:
                self.changing.put(sub_of((at - 1) >> CHUNK_BITS), row)
                row = b""
        if row:
            self.changing.put(sub_of(at >> CHUNK_BITS), row)
        self.tail = at

    def _push_front(self, values: Sequence[bytes]) -> None:
        at, row = self.head, b""
        if at & MASK and self.count:
            row = self.chunk(sub_of(at >> CHUNK_BITS))
        for value in values:
            at -= 1
            item = self.entry_for(value, at >> CHUNK_BITS, True)
            index = at & MASK
            if row:
                row = list_chunks.prepend(row, index + 1, item)
            else:
                row = list_chunks.single(index, item)
            if not at & MASK:
                self.changing.put(sub_of(at >> CHUNK_BITS), row)
                row = b""
        if row:
            self.changing.put(sub_of(at >> CHUNK_BITS), row)
        self.head = at

    def pop_one(self, front: bool) -> bytes:
        """Remove the element at an end: that."""
        position = self.head if front else self.tail - 1
        sub = sub_of(position >> CHUNK_BITS)
        row = self.chunk(sub)
        item = list_chunks.entry(row, (position & MASK) - (row[0] & MASK))
        large = item[0] == MARKER
        value = self.take_large(sub, item) if large else list_chunks.value_of(item)
        self.size -= entry_bytes(value)
        self.count -= 1
        emptied = position & MASK == (MASK if front else 0)
        if not self.count:
            self.changing.delete(sub)
            self.head = self.tail
        elif emptied and self.blocks:
            if front:
                self.begin_after(sub, 1)
            else:
                self.end_before(sub, 1)
        else:
            if emptied:
                self.changing.delete(sub)
            if front:
                self.head = position + 1
            else:
                self.tail = position
        return value

    def pop(self, count: int, front: bool) -> list[bytes]:
        """Remove elements, not more than there are, from an end: those, the outermost first."""
        if count == 1:
            return [self.pop_one(front)]
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
        """The size when so many are gone: exact if not too many have to be read."""
        if front + back <= _COUNTED:
            gone = self.values(0, front) + self.values(self.count - back, back)
            return self.size - sum([entry_bytes(value) for value in gone])
        if left <= _COUNTED:
            return sum([entry_bytes(value) for value in self.values(front, left)])
        return self.size * left // self.count

    def clear(self) -> None:
        """Remove all elements."""
        if self.count > SINGLE_DELETIONS:
            self.remains = True
        else:
            self.delete_all()
        self.count = self.size = self.blocks = 0
        self.head = self.tail

    def _drop(self, count: int, front: bool) -> None:
        """Remove the rows of `count` elements at an end."""
        if count == self.count:
            self.clear()
            return
        if front:
            sub, at = self.place(count)
            self.begin_with(sub, at, count)
        else:
            sub, at = self.place(self.count - count - 1)
            self.end_with(sub, at, count)
        self.count -= count

    # -- by value --------------------------------------------------------------------------------

    def _all(self, reverse: bool) -> Iterator[Piece]:
        """All elements."""
        if self.blocks or not self.is_few(self.count):
            return self.walk(0, self.count, reverse)
        found = self.pieces(0, self.count)
        return reversed(found) if reverse else iter(found)

    def equal(self, value: bytes, most: int, reverse: bool) -> list[Found]:
        """Where the elements are that are equal to a value, at most `most` of them (0: all), from
        the first on or from the last."""
        found: list[Found] = []
        large, left = self.large_rows(False), most or self.count
        for piece in self._all(reverse):
            numbers = large.matches(piece, value)
            if numbers:
                if len(numbers) > left:
                    numbers = numbers[-left:] if reverse else numbers[:left]
                found.append((piece[0], numbers))
                left -= len(numbers)
                if not left:
                    break
        return found

    def around(self, pivot: bytes, before: bool) -> tuple[bytes, int] | None:
        """Where the first element that is equal to `pivot` begins, or ends: its chunk, and the
        number of the entry that has the place. None if there is no such element."""
        large = self.large_rows(False)
        for piece in self._all(False):
            numbers = large.matches(piece, pivot)
            if numbers:
                return piece[0], numbers[0] if before else numbers[0] + 1
        return None

    def insert(self, sub: bytes, number: int, value: bytes) -> None:
        """Insert an element before the entry with a number in a chunk, or after its last."""
        sub, row, begin, end = self.live(sub, self.chunk(sub))
        found = list_chunks.entries(row, begin, end)
        found.insert(number - begin, self.entry_for(value, number_of(sub), False))
        self.count += 1
        self.size += entry_bytes(value)
        self.rewrite(sub, found, end - begin)

    def remove(self, found: list[Found], value: bytes) -> int:
        """Remove elements, which are equal to `value`; returns how many."""
        gone = sum([len(numbers) for _, numbers in found])
        if gone == self.count:
            self.clear()
            return gone
        self.size -= gone * entry_bytes(value)
        ends: list[Found] = []
        first, last = self.first_sub(), self.last_sub()
        for sub, numbers in found:
            if sub in (first, last):
                ends.append((sub, numbers))
            else:
                self._remove_entries(sub, numbers)
        ends.sort(reverse=True)  # the last chunk may become the first, but not otherwise
        for sub, numbers in ends:
            self._remove_entries(sub, numbers)
        self.count -= gone
        return gone

    def _remove_entries(self, sub: bytes, numbers: list[int]) -> None:
        sub, row, begin, end = self.live(sub, self.chunk(sub))
        if len(numbers) == end - begin and sub == self.last_sub():
            self.end_before(sub, end - begin)
        elif len(numbers) == end - begin and sub == self.first_sub():
            self.begin_after(sub, end - begin)
        else:
            for number in numbers:
                self.drop_large(sub, row, number, number + 1)
            items = list_chunks.entries(row, begin, end)
            left = [item for n, item in enumerate(items, begin) if n not in numbers]
            self.rewrite(sub, left, end - begin)

    def replace(self, index: int, value: bytes) -> None:
        """Another element takes the place of the one with this index."""
        sub, at = self.place(index)
        row = self.chunk(sub)
        number = at - (row[0] & MASK)
        old = list_chunks.entry(row, number)
        if old[0] == MARKER:
            self.size -= entry_bytes(self.take_large(sub, old))
        else:
            self.size -= entry_bytes(list_chunks.value_of(old))
        self.size += entry_bytes(value)
        item = self.entry_for(value, number_of(sub), False)
        self.changing.put(sub, list_chunks.replace(row, number, item))

    # -- encodings -------------------------------------------------------------------------------

    def grow(self, values: Sequence[bytes], limit: int) -> None:
        """Elements are to come: Redis may convert to a quicklist (listTypeTryConversionAppend)."""
        if self.encoding == LISTPACK:
            size = self.size + sum([len(value) for value in values])
            if exceeds(limit, size, self.count + len(values)):
                self.encoding = QUICKLIST

    def may_shrink(self) -> bool:
        """Whether `shrink` could change anything, whatever the limit is."""
        return self.encoding == QUICKLIST and self.size <= MOST_SMALL_BYTES

    def shrink(self, limit: int) -> None:
        """Elements went: Redis may convert to a listpack (listTypeTryConversion). It does so only
        when all are in one node, which isn't known here."""
        if self.encoding == QUICKLIST and is_small(limit, self.size, self.count):
            self.encoding = LISTPACK
