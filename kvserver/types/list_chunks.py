"""Chunks: the rows that hold the elements of a list, as values.

It must not know where they are kept, or commands. A chunk's row:

    first u8 | count u8 | length u8 of each entry | the entries

An entry is an element as RESP's bulk string, so that what LRANGE sends is a slice of the row. An
element of LARGE bytes or more has a row of its own, so that a push never writes much that was there
before; its entry is a marker instead:

    "@" | id u64 | size u32

The low bits of `first` are the index of the first entry among the chunk's positions. FLAG is set if
there may be markers. Entries are numbered from 0 on in the row, whatever `first` is.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

#: Positions in a chunk, as a power of two.
CHUNK_BITS: Final = 4
CHUNK: Final = 1 << CHUNK_BITS
MASK: Final = CHUNK - 1
#: More entries aren't put into a chunk.
MOST_ENTRIES: Final = 2 * CHUNK
#: An element with so many bytes has a row of its own: the length of any other entry is one byte.
LARGE: Final = 248
#: There may be markers.
FLAG: Final = 0x80
MARKER: Final = 0x40
CRLF: Final = b"\r\n"

_MARKER: Final = Struct(">cQI")
#: Where the lengths begin.
_LENGTHS: Final = 2
_HEADERS: Final[list[bytes]] = [b"$%d\r\n" % size for size in range(LARGE)]
_BYTES: Final[list[bytes]] = [bytes((n,)) for n in range(256)]


# -- entries -------------------------------------------------------------------------------------


def entry_of(value: bytes) -> bytes:
    """The entry of an element that isn't large."""
    return b"%b%b\r\n" % (_HEADERS[len(value)], value)


def marker(number: int, size: int) -> bytes:
    """The entry of a large element with an id."""
    return _MARKER.pack(b"@", number, size)


def marked_id(entry: bytes) -> bytes:
    """The 8 bytes of the id in a marker."""
    return entry[1:9]


def marked_size(entry: bytes) -> int:
    """The size of the large element that a marker stands for."""
    return int.from_bytes(entry[9:13], "big")


def is_marker(entry: bytes) -> bool:
    """Whether an entry stands for a large element."""
    return entry[0] == MARKER


def value_of(entry: bytes) -> bytes:
    """The element of an entry that is no marker."""
    size = len(entry)
    return entry[4 if size < 16 else 5 if size < 107 else 6 : size - 2]


# -- reading a chunk -----------------------------------------------------------------------------


def _offset(row: bytes, number: int) -> int:
    """Where an entry begins; the row's end for the one after the last."""
    end = _LENGTHS + row[1]
    if number <= row[1] >> 1:
        at = end
        for n in range(_LENGTHS, _LENGTHS + number):
            at += row[n]
        return at
    at = len(row)
    for n in range(_LENGTHS + number, end):
        at -= row[n]
    return at


def entry(row: bytes, number: int) -> bytes:
    """An entry."""
    at = _offset(row, number)
    return row[at : at + row[_LENGTHS + number]]


def part(row: bytes, begin: int, end: int) -> bytes:
    """The entries [begin, end) in one piece; end is greater than begin."""
    count = row[1]
    if begin == 0 and end == count:
        return row[_LENGTHS + count :]
    return row[_offset(row, begin) : _offset(row, end)]


def entries(row: bytes, begin: int, end: int) -> list[bytes]:
    """The entries [begin, end)."""
    at = _offset(row, begin)
    found: list[bytes] = []
    for n in range(_LENGTHS + begin, _LENGTHS + end):
        stop = at + row[n]
        found.append(row[at:stop])
        at = stop
    return found


def values(row: bytes, begin: int, end: int) -> list[bytes]:
    """The elements of the entries [begin, end), among which is no marker."""
    at = _offset(row, begin)
    found: list[bytes] = []
    for n in range(_LENGTHS + begin, _LENGTHS + end):
        size = row[n]
        stop = at + size
        found.append(row[at + (4 if size < 16 else 5 if size < 107 else 6) : stop - 2])
        at = stop
    return found


def numbers_of(row: bytes, begin: int, end: int, wanted: bytes) -> list[int]:
    """The numbers of the entries in [begin, end) that are equal to one."""
    found: list[int] = []
    if row.find(wanted) < 0:
        return found
    at, size = _offset(row, begin), len(wanted)
    for n in range(begin, end):
        length = row[_LENGTHS + n]
        if length == size and row[at : at + length] == wanted:
            found.append(n)
        at += length
    return found


# -- making one ----------------------------------------------------------------------------------


def build(first: int, found: list[bytes]) -> bytes:
    """A chunk with these entries, the first of them at an index."""
    lengths: list[int] = []
    for item in found:
        lengths.append(len(item))
        if item[0] == MARKER:
            first |= FLAG
    return b"%b%b%b%b" % (_BYTES[first], _BYTES[len(found)], bytes(lengths), b"".join(found))


def single(index: int, item: bytes) -> bytes:
    """A chunk with one entry."""
    if item[0] == MARKER:
        index |= FLAG
    return b"%b\1%b%b" % (_BYTES[index], _BYTES[len(item)], item)


def append(row: bytes, index: int, item: bytes) -> bytes:
    """A chunk with one entry more, at an index: those that were there or after it go."""
    if index - (row[0] & MASK) < row[1]:
        row = cut(row, 0, index - (row[0] & MASK))
    first, count = row[0], row[1]
    if item[0] == MARKER:
        first |= FLAG
    at = _LENGTHS + count
    return b"%b%b%b%b%b%b" % (
        _BYTES[first],
        _BYTES[count + 1],
        row[_LENGTHS:at],
        _BYTES[len(item)],
        row[at:],
        item,
    )


def prepend(row: bytes, index: int, item: bytes) -> bytes:
    """A chunk with one entry more, before an index: those before that index go."""
    if index > row[0] & MASK:
        row = cut(row, index - (row[0] & MASK), row[1])
    first, count = row[0] - 1, row[1]
    if item[0] == MARKER:
        first |= FLAG
    at = _LENGTHS + count
    return b"%b%b%b%b%b%b" % (
        _BYTES[first],
        _BYTES[count + 1],
        _BYTES[len(item)],
        row[_LENGTHS:at],
        item,
        row[at:],
    )


def cut(row: bytes, begin: int, end: int) -> bytes:
    """A chunk with nothing but the entries [begin, end), where they are."""
    return b"%b%b%b%b" % (
        _BYTES[row[0] + begin],
        _BYTES[end - begin],
        row[_LENGTHS + begin : _LENGTHS + end],
        row[_offset(row, begin) : _offset(row, end)],
    )


def replace(row: bytes, number: int, item: bytes) -> bytes:
    """A chunk with another entry in the place of one."""
    first = row[0]
    if item[0] == MARKER:
        first |= FLAG
    at = _offset(row, number)
    return b"%b%b%b%b%b%b" % (
        _BYTES[first],
        row[1 : _LENGTHS + number],
        _BYTES[len(item)],
        row[_LENGTHS + number + 1 : _LENGTHS + row[1]] + row[_LENGTHS + row[1] : at],
        item,
        row[at + row[_LENGTHS + number] :],
    )
