"""The rows of a list that changes: chunks at its ends and between them, blocks, dropped ranges.

The layout is in lists.py, what is done to a list in list_writer.py. Nothing is written of the
header before `save`; `count` and `size` are the caller's.
"""

from __future__ import annotations

from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import MutableCollection
from kvserver.types import list_chunks
from kvserver.types.list_chunks import CHUNK, CHUNK_BITS, FLAG, LARGE, MARKER, MASK, MOST_ENTRIES
from kvserver.types.lists import (
    BLOCK_BITS,
    EXTRAS,
    EXTRAS_LARGE,
    LARGE_ROWS,
    PLAIN,
    START,
    UNEVEN,
    ListReader,
    block_sub,
    large_sub,
    number_of,
    sub_of,
)

#: A longer fraction makes those of its number be spread anew.
MAX_FRACTION: Final = 16
#: As many elements are removed with single deletions; more are dropped as a range.
SINGLE_DELETIONS: Final = 256


class ListRows(ListReader):
    """The rows of a list to be changed."""

    def __init__(self, rows: MutableCollection) -> None:
        super().__init__(rows)
        self.changing = rows
        #: All elements are gone, but not yet their rows.
        self.remains = False

    def save(self) -> None:
        """Write the header, or delete the key if the list is empty."""
        rows = self.changing
        rows.count = self.count
        if not self.count and self.remains:
            writer = rows.writer
            writer.remove(rows.row_key, rows.row, rows.key)
        elif not rows.save_open():
            rows.save_typed(self, self.extras)

    def extras(self) -> bytes:
        """What it adds to the header."""
        size = max(self.size, 0)
        if self.large:
            return EXTRAS_LARGE.pack(
                self.encoding, self.head, self.tail, size, self.blocks, self.large
            )
        return EXTRAS.pack(self.encoding, self.head, self.tail, size, self.blocks)

    # -- entries ---------------------------------------------------------------------------------

    def entry_for(self, value: bytes, number: int, front: bool) -> bytes:
        """The entry of an element that goes to a chunk with this number; a large one is written."""
        if len(value) < LARGE:
            return list_chunks.entry_of(value)
        self.large += 1
        ident = START - self.large if front else START + self.large
        item = list_chunks.marker(ident, len(value))
        self.changing.put(large_sub(sub_of(number), item), value)
        return item

    def take_large(self, sub: bytes, item: bytes) -> bytes:
        """Remove the row of a large element, from its chunk and its marker: the element."""
        key = large_sub(sub, item)
        element = self.changing.peek(key)
        assert element is not None, "a marker without an element"
        self.changing.delete(key)
        return element

    def drop_large(self, sub: bytes, row: bytes, begin: int, end: int) -> None:
        """Delete the rows of the large elements among the entries [begin, end) of a chunk."""
        if row[0] >= FLAG:
            for item in list_chunks.entries(row, begin, end):
                if item[0] == MARKER:
                    self.changing.delete(large_sub(sub, item))

    def chunk(self, sub: bytes) -> bytes:
        """A chunk that is there."""
        row = self.changing.peek(sub)
        assert row is not None, "no chunk at its place"
        return row

    def _lay(self, position: int, found: list[bytes], source: int) -> None:
        """Write entries at positions that follow each other, without fractions. They come from
        a chunk with the number `source`: large elements go with those that leave it."""
        at = 0
        while at < len(found):
            number = position >> CHUNK_BITS
            stop = min(at + CHUNK - (position & MASK), len(found))
            some = found[at:stop]
            if number != source:
                for item in some:
                    if item[0] == MARKER:
                        element = self.take_large(sub_of(source), item)
                        self.changing.put(large_sub(sub_of(number), item), element)
            self.changing.put(sub_of(number), list_chunks.build(position & MASK, some))
            position += stop - at
            at = stop

    def rewrite(self, sub: bytes, found: list[bytes], before: int) -> None:
        """A chunk with `before` live entries gets others: at an end of the list at least one."""
        number = number_of(sub)
        if sub == self.first_sub():
            if sub != self.last_sub():
                self.head = ((number + 1) << CHUNK_BITS) - len(found)
                self._lay(self.head, found, number)
                return
            self.tail = self.head + len(found)
            self._lay(self.head, found, number)
        elif sub == self.last_sub():
            self.tail = (number << CHUNK_BITS) + len(found)
            self._lay(number << CHUNK_BITS, found, number)
        elif len(found) > MOST_ENTRIES:
            self._split(sub, found, before)
        else:
            if found:
                self.changing.put(sub, list_chunks.build(0, found))
            else:
                self.changing.delete(sub)
            self._note_chunk(sub, before, len(found))

    # -- where a list begins and ends ------------------------------------------------------------

    def begin_with(self, sub: bytes, at: int, gone: int) -> None:
        """Let the element with an index within a chunk be the first: `gone` are before it."""
        row, number = self.chunk(sub), number_of(sub)
        sub, row, begin, end = self.live(sub, row)
        start = at - (row[0] & MASK)
        if sub != self.first_sub():
            before = self.head >> CHUNK_BITS
            counted = self._counted_before(sub) if self.blocks else (0, 0)
            self._delete_chunks(self.first_sub(), sub, gone)
            block = number >> BLOCK_BITS
            self._forget_blocks(before >> BLOCK_BITS, block)
            self._note(block, -counted[0], -counted[1])
            if sub != self.last_sub() and (len(sub) > PLAIN or row[1] != CHUNK):
                self.drop_large(sub, row, begin, start)
                found = list_chunks.entries(row, start, end)
                self.changing.delete(sub)
                self.head = ((number + 1) << CHUNK_BITS) - len(found)
                self._lay(self.head, found, number)
                return
        self.drop_large(sub, row, begin, start)
        self.head = (number << CHUNK_BITS) + at

    def end_with(self, sub: bytes, at: int, gone: int) -> None:
        """Let the element with an index within a chunk be the last: `gone` are after it."""
        row, number = self.chunk(sub), number_of(sub)
        sub, row, begin, end = self.live(sub, row)
        stop = at + 1 - (row[0] & MASK)
        if sub != self.last_sub():
            last = self.tail - 1 >> CHUNK_BITS
            counted = self._counted_from(sub) if self.blocks else (0, 0)
            after = sub + b"\0" if self.blocks else sub_of(number + 1)
            self._delete_chunks(after, sub_of(last + 1), gone)
            block = number >> BLOCK_BITS
            self._forget_blocks(block + 1, (last >> BLOCK_BITS) + 1)
            self._note(block, -counted[0], -counted[1])
            if len(sub) > PLAIN or at >= CHUNK:
                self.drop_large(sub, row, stop, end)
                to = number + 1 if len(sub) > PLAIN else number
                found = list_chunks.entries(row, begin, stop)
                self.changing.delete(sub)
                self.tail = (to << CHUNK_BITS) + len(found)
                self._lay(to << CHUNK_BITS, found, number)
                return
        self.drop_large(sub, row, stop, end)
        self.tail = (number << CHUNK_BITS) + at + 1

    def begin_after(self, sub: bytes, gone: int) -> None:
        """Let the chunk after one be the first."""
        key, row = next(self.rows.scan(sub + b"\0", self.last_sub() + b"\0"))
        self.begin_with(key[ELEMENT_PREFIX_LEN:], row[0] & MASK, gone)

    def end_before(self, sub: bytes, gone: int) -> None:
        """Let the chunk before one be the last."""
        key, row = next(self.rows.scan(self.first_sub(), sub, True))
        sub, row, _, end = self.live(key[ELEMENT_PREFIX_LEN:], row)
        self.end_with(sub, (row[0] & MASK) + end - 1, gone)

    # -- deleting chunks -------------------------------------------------------------------------

    def _delete_chunks(self, lower: bytes, upper: bytes, gone: int) -> None:
        """Delete the chunks in [lower, upper), which have `gone` elements."""
        begin, end = number_of(lower), number_of(upper)
        even = not self.blocks and not self.large
        if gone <= SINGLE_DELETIONS or (even and end - begin <= SINGLE_DELETIONS):
            self._delete_singly(lower, upper)
            return
        if len(lower) > PLAIN:
            begin += 1
            self._delete_singly(lower, min(sub_of(begin), upper))
        if len(upper) > PLAIN:
            self._delete_singly(max(lower, sub_of(end)), upper)
        if begin < end:
            self._drop_range(begin, end)

    def delete_all(self) -> None:
        """Delete all rows, which are few, one by one."""
        first, last = self.head >> CHUNK_BITS, self.tail - 1 >> CHUNK_BITS
        self._delete_singly(sub_of(first), sub_of(last + 1))
        self._forget_blocks(first >> BLOCK_BITS, (last >> BLOCK_BITS) + 1)

    def _delete_singly(self, lower: bytes, upper: bytes) -> None:
        """Delete the chunks in [lower, upper), and their large elements, one by one."""
        if self.blocks:
            for key, row in list(self.rows.scan(lower, upper)):
                self._delete_chunk(key[ELEMENT_PREFIX_LEN:], row)
            return
        for number in range(number_of(lower), number_of(upper)):
            sub = sub_of(number)
            if self.large:
                self._delete_chunk(sub, self.chunk(sub))
            else:
                self.changing.delete(sub)

    def _delete_chunk(self, sub: bytes, row: bytes) -> None:
        sub, row, begin, end = self.live(sub, row)
        self.drop_large(sub, row, begin, end)
        self.changing.delete(sub)

    def _drop_range(self, begin: int, end: int) -> None:
        """Drop the chunks with the numbers [begin, end), and their large elements. These numbers
        may be written again before the commit, when all that is stored still shows: chunks with
        fractions go one by one, also those that were deleted before in the same batch."""
        lower, upper = sub_of(begin), sub_of(end)
        data, (first, stop) = self.changing.data, self.changing.bounds(lower, upper)
        fractions: list[bytes] = []
        for key, row in data.pending.items():
            if row is None and len(key) > ELEMENT_PREFIX_LEN + PLAIN and first <= key < stop:
                fractions.append(key)
        if self.blocks:
            for block, _ in self.uneven_blocks(False):
                low = max(begin, block << BLOCK_BITS)
                high = min(end, (block + 1) << BLOCK_BITS)
                if low < high:
                    for key, _ in self.rows.scan(sub_of(low), sub_of(high)):
                        if len(key) > ELEMENT_PREFIX_LEN + PLAIN:
                            fractions.append(key)
        self.changing.delete_range(lower, upper)
        for key in fractions:
            data.delete(key)
        if self.large:
            self.changing.delete_range(LARGE_ROWS + lower[1:], LARGE_ROWS + upper[1:])

    # -- uneven blocks ---------------------------------------------------------------------------

    def _counted_before(self, sub: bytes) -> tuple[int, int]:
        """What the chunks of a block up to one, itself included, add to the block's row."""
        number = number_of(sub)
        low = max(number >> BLOCK_BITS << BLOCK_BITS, self.head >> CHUNK_BITS)
        high = min(number + 1, self.tail - 1 >> CHUNK_BITS)
        return self._counted(sub_of(low), sub + b"\0", low, high)

    def _counted_from(self, sub: bytes) -> tuple[int, int]:
        """What those from one on add."""
        number, last = number_of(sub), self.tail - 1 >> CHUNK_BITS
        end = ((number >> BLOCK_BITS) + 1) << BLOCK_BITS
        low = number if len(sub) == PLAIN else number + 1
        return self._counted(sub, sub_of(min(end, last + 1)), low, min(end, last))

    def _counted(self, lower: bytes, upper: bytes, low: int, high: int) -> tuple[int, int]:
        """What the chunks in [lower, upper) add that have a fraction, and those with the numbers
        [low, high) without one, be they there or not. The first chunk adds nothing."""
        low = max(low, (self.head >> CHUNK_BITS) + 1)
        uneven = max(high - low, 0)
        surplus = -CHUNK * uneven
        for key, row in self.rows.scan(lower, upper):
            sub = key[ELEMENT_PREFIX_LEN:]
            if len(sub) > PLAIN:
                uneven += 1
                surplus += row[1]
            elif low <= number_of(sub) < high:
                if row[1] == CHUNK:
                    uneven -= 1
                surplus += row[1]
        return uneven, surplus

    def _note_chunk(self, sub: bytes, before: int, after: int) -> None:
        """A chunk between the first and the last had some elements and has some now; 0: it isn't
        there."""
        block = number_of(sub) >> BLOCK_BITS
        if len(sub) > PLAIN:
            self._note(block, (after > 0) - (before > 0), after - before)
        else:
            self._note(block, (after != CHUNK) - (before != CHUNK), after - before)

    def _note(self, block: int, uneven: int, surplus: int) -> None:
        """A block has so many more uneven chunks, and elements beyond its positions."""
        if not uneven and not surplus:
            return
        sub = block_sub(block)
        row = self.changing.peek(sub)
        if row is None:
            self.blocks += 1
        else:
            had_uneven, had_surplus = UNEVEN.unpack(row)
            uneven, surplus = uneven + had_uneven, surplus + had_surplus
        if uneven:
            self.changing.put(sub, UNEVEN.pack(uneven, surplus))
        else:
            self.blocks -= 1
            self.changing.delete(sub)

    def _forget_blocks(self, begin: int, end: int) -> None:
        """The blocks [begin, end) have no chunk."""
        if self.blocks and begin < end:
            for key in [key for key, _ in self.block_rows(begin, end)]:
                self.changing.delete(key[ELEMENT_PREFIX_LEN:])
                self.blocks -= 1

    # -- fractions -------------------------------------------------------------------------------

    def _split(self, sub: bytes, found: list[bytes], before: int) -> None:
        """Put the second half of a chunk's new entries into another one."""
        self.changing.put(sub, list_chunks.build(0, found[:CHUNK]))
        self._note_chunk(sub, before, CHUNK)
        row = list_chunks.build(0, found[CHUNK:])
        after = next(self.rows.scan(sub + b"\0", sub_of(number_of(sub) + 1)), None)
        right = b"" if after is None else after[0][ELEMENT_PREFIX_LEN + PLAIN :]
        fraction = between(sub[PLAIN:], right)
        if len(fraction) > MAX_FRACTION:
            self._spread(sub, row)
        else:
            self.changing.put(sub[:PLAIN] + fraction, row)
        self._note_chunk(sub[:PLAIN] + fraction, 0, row[1])

    def _spread(self, left: bytes, added: bytes) -> None:
        """Put a chunk after another one, and give all fractions of its number anew."""
        plain = left[:PLAIN]
        rows = [added] if left == plain else []
        for key, row in list(self.rows.scan(plain + b"\0", sub_of(number_of(plain) + 1))):
            sub = key[ELEMENT_PREFIX_LEN:]
            rows.append(row)
            if sub == left:
                rows.append(added)
            self.changing.delete(sub)
        width = len(rows).bit_length() // 8 + 2
        step = 256**width // (len(rows) + 1)
        for number, row in enumerate(rows, 1):
            fraction = (number * step).to_bytes(width, "big").rstrip(b"\0")
            self.changing.put(plain + fraction, row)


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
