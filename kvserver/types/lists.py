"""Lists: their rows, and how they are read. list_rows.py and list_writer.py change them.

It must not know commands. Rows under a list's prefix:

    b | block u64                   uneven u32 | surplus i64
    c | number u64 | fraction       a chunk: some elements (list_chunks.py)
    l | number u64 | id u64         a large element of a chunk with that number

    header: encoding u8 | head u64 | tail u64 | size u64 | blocks u32 [| large u64]

The first element has position `head`, the last one position `tail - 1`; both move as elements are
pushed and popped. A chunk has 16 positions, and its number is a sixteenth of theirs. So a push
writes one row of at most some kilobytes, a pop none, and a hundred elements are read with seven
look-ups. `size` is what the elements would take in a listpack, an estimate once many were trimmed,
and `encoding` the encoding that Redis would use (t_list.c). `large` counts the large elements that
there ever were: their ids are START plus that at the back, and minus that at the front, so that
those of a chunk are mostly in order.

In the first and the last chunk there may be entries outside of [head, tail). They are dead: their
elements were popped. What is pushed over them removes them, a chunk without any other is deleted.
So no walk steps over what was popped, and all rows are within the numbers of `head` and `tail - 1`.

A list is even as long as each number between the first and the last has one chunk of 16 elements:
then the place of an element follows from its index. What is removed or inserted in the middle makes
a chunk of fewer elements, or more. One of none goes; one of more than 32 is split, and the other
half gets a fraction: it comes after that number and before the next. The first chunk and the last
one have no fraction, and their elements have the positions up to the next number, or from theirs
on: when a chunk becomes the first or the last, it is laid out anew.

Which blocks of 128 numbers aren't even is told by a row for each of them: how many of their chunks
(those with a fraction, those that are missing, and those without exactly 16 elements), and how many
elements the block has beyond its positions in [head, tail). `blocks` is the number of these rows.
So the place of an element is found by the rows of uneven blocks, and a walk within one block. A
fraction never ends in a zero byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection
from kvserver.storage.overlay import Entry, Walk
from kvserver.types import list_chunks
from kvserver.types.list_chunks import CHUNK_BITS, CRLF, FLAG, MARKER, MASK

BLOCK: Final = b"b"
CHUNKS: Final = b"c"
LARGE_ROWS: Final = b"l"
#: Numbers of chunks in a block, as a power of two.
BLOCK_BITS: Final = 7
#: Where a list begins: there is room for ever in both directions.
START: Final = 1 << 61
EXTRAS: Final = Struct(">BQQQI")
EXTRAS_BYTES: Final = 29
EXTRAS_LARGE: Final = Struct(">BQQQIQ")
UNEVEN: Final = Struct(">Iq")
#: The length of the type's part of the key of a chunk without a fraction.
PLAIN: Final = 9
#: That of a large element's row.
LARGE_KEY_LEN: Final = 17
#: Of an even list as many elements are looked up, a chunk at a time; more are walked.
FEW: Final = 1024

LISTPACK: Final = 0
QUICKLIST: Final = 1
ENCODINGS: Final = {LISTPACK: b"listpack", QUICKLIST: b"quicklist"}

#: The entries [begin, end) of a chunk: the type's part of its key, its row, begin and end.
Piece = tuple[bytes, bytes, int, int]


def encoding(extras: bytes) -> bytes:
    """The name of the encoding that Redis would use, from what the header adds."""
    return ENCODINGS[extras[0]]


def sub_of(number: int) -> bytes:
    """The type's part of the key of a chunk without a fraction."""
    return CHUNKS + number.to_bytes(8, "big")


def number_of(sub: bytes) -> int:
    """The number of a chunk."""
    return int.from_bytes(sub[1:PLAIN], "big")


def block_sub(block: int) -> bytes:
    """The type's part of the key of a block's row."""
    return BLOCK + block.to_bytes(8, "big")


def large_sub(sub: bytes, marker: bytes) -> bytes:
    """The type's part of the key of a large element, from that of its chunk and its marker."""
    return LARGE_ROWS + sub[1:PLAIN] + list_chunks.marked_id(marker)


class LargeRows:
    """Reads large elements: as they are now, or from a view that is pinned when this is made."""

    def __init__(self, rows: Collection, view: Walk | None) -> None:
        self._rows = rows
        self._view = view

    def get(self, sub: bytes, marker: bytes) -> bytes:
        """The element that a marker in a chunk stands for."""
        key, view = large_sub(sub, marker), self._view
        if view is None:
            row = self._rows.get(key)
            assert row is not None, "a marker without an element"
            return row
        key = self._rows.prefix + key
        if view.key() is not None and view.key() != key:
            view.next()
        if view.key() != key:
            view.seek(key)
        assert view.key() == key, "a marker without an element"
        return view.value()

    def values(self, piece: Piece) -> list[bytes]:
        """The elements of a piece."""
        sub, row, begin, end = piece
        if row[0] < FLAG:
            return list_chunks.values(row, begin, end)
        found: list[bytes] = []
        for item in list_chunks.entries(row, begin, end):
            large = item[0] == MARKER
            found.append(self.get(sub, item) if large else list_chunks.value_of(item))
        return found

    def bulks(self, piece: Piece) -> list[bytes]:
        """They as bulk strings, in parts."""
        sub, row, begin, end = piece
        if row[0] < FLAG:
            return [list_chunks.part(row, begin, end)]
        found: list[bytes] = []
        for item in list_chunks.entries(row, begin, end):
            if item[0] == MARKER:
                element = self.get(sub, item)
                found += [b"$%d\r\n" % len(element), element, CRLF]
            else:
                found.append(item)
        return found

    def matches(self, piece: Piece, value: bytes) -> list[int]:
        """The numbers of the entries in a piece whose elements are equal to a value."""
        sub, row, begin, end = piece
        if len(value) < list_chunks.LARGE:
            return list_chunks.numbers_of(row, begin, end, list_chunks.entry_of(value))
        found: list[int] = []
        if row[0] < FLAG:
            return found
        for number, item in enumerate(list_chunks.entries(row, begin, end), begin):
            if (
                item[0] == MARKER
                and list_chunks.marked_size(item) == len(value)
                and self.get(sub, item) == value
            ):
                found.append(number)
        return found


class ListReader:
    """A list to be read."""

    def __init__(self, rows: Collection) -> None:
        self.rows = rows
        self.count = rows.count
        self.head = self.tail = START
        self.size = self.blocks = self.large = 0
        self.encoding = LISTPACK
        extras = rows.extras
        if len(extras) == EXTRAS_BYTES:
            self.encoding, self.head, self.tail, self.size, self.blocks = EXTRAS.unpack(extras)
        elif extras:
            unpacked = EXTRAS_LARGE.unpack(extras)
            self.encoding, self.head, self.tail, self.size, self.blocks, self.large = unpacked

    # -- places ----------------------------------------------------------------------------------

    def at(self, index: int) -> bytes:
        """The element with an index from 0 to below the count."""
        sub, at = self.place(index)
        row = self.rows.get(sub)
        assert row is not None, "no chunk at its place"
        item = list_chunks.entry(row, at - (row[0] & MASK))
        if item[0] != MARKER:
            return list_chunks.value_of(item)
        element = self.rows.get(large_sub(sub, item))
        assert element is not None, "a marker without an element"
        return element

    def place(self, index: int) -> tuple[bytes, int]:
        """Where it is: the type's part of its chunk's key, and the index within the chunk."""
        position = self.head + index
        if self.blocks:
            after = self.count - 1 - index
            if after <= (self.tail - 1) & MASK:
                position = self.tail - 1 - after
            elif position > self.head | MASK:
                if index <= after:
                    return self._place_from_head(index)
                return self._place_from_tail(after)
        return sub_of(position >> CHUNK_BITS), position & MASK

    def _place_from_head(self, left: int) -> tuple[bytes, int]:
        position = self.head
        for block, surplus in self.uneven_blocks(False):
            begin = max(block << BLOCK_BITS + CHUNK_BITS, self.head)
            if left < begin - position:
                break
            left -= begin - position
            position = min((block + 1) << BLOCK_BITS + CHUNK_BITS, self.tail)
            elements = position - begin + surplus
            if left < elements:
                return self._place_within(begin, position, left)
            left -= elements
        position += left
        return sub_of(position >> CHUNK_BITS), position & MASK

    def _place_from_tail(self, left: int) -> tuple[bytes, int]:
        """The same by the number of elements after it."""
        position = self.tail
        for block, surplus in self.uneven_blocks(True):
            end = min((block + 1) << BLOCK_BITS + CHUNK_BITS, self.tail)
            if left < position - end:
                break
            left -= position - end
            position = max(block << BLOCK_BITS + CHUNK_BITS, self.head)
            elements = end - position + surplus
            if left < elements:
                return self._place_within(position, end, elements - 1 - left)
            left -= elements
        position -= left + 1
        return sub_of(position >> CHUNK_BITS), position & MASK

    def _place_within(self, begin: int, end: int, left: int) -> tuple[bytes, int]:
        """The place of an element among those of the positions [begin, end), which are a block."""
        lower, upper = sub_of(begin >> CHUNK_BITS), sub_of(((end - 1) >> CHUNK_BITS) + 1)
        for key, row in self.rows.scan(lower, upper):
            sub, row, first, stop = self.live(key[ELEMENT_PREFIX_LEN:], row)
            if left < stop - first:
                return sub, (row[0] & MASK) + first + left
            left -= stop - first
        raise AssertionError("a block has fewer elements than its row says")

    def uneven_blocks(self, reverse: bool) -> Iterator[tuple[int, int]]:
        """The uneven blocks, and how many elements each has beyond its positions."""
        shift = BLOCK_BITS + CHUNK_BITS
        for key, row in self.block_rows(self.head >> shift, (self.tail - 1 >> shift) + 1, reverse):
            _, surplus = UNEVEN.unpack(row)
            yield int.from_bytes(key[ELEMENT_PREFIX_LEN + 1 :], "big"), surplus

    def block_rows(self, begin: int, end: int, reverse: bool = False) -> Iterator[Entry]:
        """The rows of the uneven blocks in [begin, end)."""
        return self.rows.scan(block_sub(begin), block_sub(end), reverse)

    # -- elements --------------------------------------------------------------------------------

    def first_sub(self) -> bytes:
        """The type's part of the key of the first chunk."""
        return sub_of(self.head >> CHUNK_BITS)

    def last_sub(self) -> bytes:
        """That of the last one."""
        return sub_of((self.tail - 1) >> CHUNK_BITS)

    def live(self, sub: bytes, row: bytes) -> Piece:
        """The entries of a chunk that aren't dead."""
        begin, end = 0, row[1]
        if len(sub) == PLAIN:
            number = number_of(sub)
            if number == self.head >> CHUNK_BITS:
                begin = (self.head & MASK) - (row[0] & MASK)
            if number == (self.tail - 1) >> CHUNK_BITS:
                end = ((self.tail - 1) & MASK) + 1 - (row[0] & MASK)
        return sub, row, begin, end

    def is_few(self, count: int) -> bool:
        """Whether so many elements can be read in one go."""
        return count <= FEW and self.size * count <= self.count << 20

    def pieces(self, first: int, count: int) -> list[Piece]:
        """`count` elements from index `first` on, which are few."""
        if self.blocks:
            return list(self.walk(first, count)) if count else []
        found: list[Piece] = []
        position = self.head + first
        end = position + count
        while position < end:
            sub = sub_of(position >> CHUNK_BITS)
            row = self.rows.get(sub)
            assert row is not None, "no chunk at its place"
            stop = min((position | MASK) + 1, end)
            begin = (position & MASK) - (row[0] & MASK)
            found.append((sub, row, begin, begin + stop - position))
            position = stop
        return found

    def add_bulks(self, parts: list[bytes], first: int, count: int) -> None:
        """Add the same as bulk strings to the parts of a reply."""
        if self.blocks or self.large:
            large = self.large_rows(False)
            for piece in self.pieces(first, count):
                parts += large.bulks(piece)
            return
        position = self.head + first
        end = position + count
        while position < end:
            row = self.rows.get(sub_of(position >> CHUNK_BITS))
            assert row is not None, "no chunk at its place"
            stop = min((position | MASK) + 1, end)
            begin = (position & MASK) - (row[0] & MASK)
            parts.append(list_chunks.part(row, begin, begin + stop - position))
            position = stop

    def walk(self, first: int, count: int, reverse: bool = False) -> Iterator[Piece]:
        """`count` elements, at least one, from index `first` on; in reverse the last chunk comes
        first. The view is pinned by the call."""
        if reverse:
            sub, at = self.place(first + count - 1)
            found = self.rows.scan(self.first_sub(), sub + b"\0", True)
        else:
            sub, at = self.place(first)
            found = self.rows.scan(sub, self.last_sub() + b"\0")
        return self._taken(found, at, count, reverse)

    def _taken(self, found: Iterator[Entry], at: int, left: int, reverse: bool) -> Iterator[Piece]:
        """The pieces with `left` elements from the index `at` in the first chunk on."""
        for key, row in found:
            sub, row, begin, end = self.live(key[ELEMENT_PREFIX_LEN:], row)
            if at >= 0:
                at -= row[0] & MASK
                if reverse:
                    end = at + 1
                else:
                    begin = at
                at = -1
            if end - begin > left:
                if reverse:
                    begin = end - left
                else:
                    end = begin + left
            yield sub, row, begin, end
            left -= end - begin
            if not left:
                return

    def large_rows(self, pinned: bool) -> LargeRows:
        """What reads the large elements."""
        if not pinned or not self.large:
            return LargeRows(self.rows, None)
        lower = LARGE_ROWS + self.first_sub()[1:]
        upper = LARGE_ROWS + sub_of((self.tail - 1 >> CHUNK_BITS) + 1)[1:]
        return LargeRows(self.rows, self.rows.walk(lower, upper))

    def values(self, first: int, count: int) -> list[bytes]:
        """`count` elements from index `first` on, in one go."""
        if count > FEW:
            return list(self.elements(first, count))
        large = self.large_rows(False)
        found: list[bytes] = []
        for piece in self.pieces(first, count):
            found += large.values(piece)
        return found

    def elements(self, first: int, count: int, reverse: bool = False) -> Iterator[bytes]:
        """The same in steps, in reverse from the last one on. The view is pinned by the call."""
        if not count:
            return iter(())
        return _elements(self.walk(first, count, reverse), self.large_rows(True), reverse)


def _elements(found: Iterator[Piece], large: LargeRows, reverse: bool) -> Iterator[bytes]:
    for piece in found:
        values = large.values(piece)
        if reverse:
            values.reverse()
        yield from values


def all_keys(rows: Collection) -> Iterator[bytes]:
    """The whole keys of all rows that a list has: a walk through everything under its prefix would
    step over what was popped."""
    items, prefix = ListReader(rows), rows.prefix
    if items.blocks:
        shift = BLOCK_BITS + CHUNK_BITS
        for key, _ in items.block_rows(items.head >> shift, (items.tail - 1 >> shift) + 1):
            yield key
    if not items.blocks and not items.large:
        for number in range(items.head >> CHUNK_BITS, (items.tail - 1 >> CHUNK_BITS) + 1):
            yield prefix + sub_of(number)
        return
    for sub, row, begin, end in items.walk(0, items.count):
        yield prefix + sub
        if row[0] >= FLAG:
            for item in list_chunks.entries(row, begin, end):
                if item[0] == MARKER:
                    yield prefix + large_sub(sub, item)
