"""Bits of strings: how they are counted, found and combined.

It must not know RESP, commands or how strings are kept (sparse.py gives their bytes). Bit 0 is the
highest of the first byte, as in Redis. Whole ranges are taken as long integers, some kilobytes
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import reduce
from heapq import merge
from itertools import groupby
from operator import and_, itemgetter, or_, xor
from typing import TYPE_CHECKING, Final

from kvserver.types import sparse
from kvserver.types.sparse import CHUNK, FRAGMENT, Text

if TYPE_CHECKING:
    from kvserver.database import Writer

#: A walk gives way after so many bytes; what it costs to get at a chunk counts as some.
_STEP_BYTES: Final = 256 * 1024
_CHUNK_COST: Final = 512

#: By the bit that is sought: a byte without it, and a chunk of such bytes.
_WITHOUT: Final = (b"\xff", b"\0")
_CHUNKS_WITHOUT: Final = (b"\xff" * CHUNK, bytes(CHUNK))

AND: Final = b"AND"
NOT: Final = b"NOT"
_OPERATORS: Final = {AND: and_, b"OR": or_, b"XOR": xor}
OPERATIONS: Final = (*_OPERATORS, NOT)

#: A walk that tells a number of bits, or the place of one.
Steps = Generator[None, None, int]
#: Some bytes, and where they are.
Part = tuple[int, bytes]
_PLACE: Final = itemgetter(0)
_NO_PART: Final[Part] = (-1, b"")


class _Pace:
    """Tells when it is time to give way."""

    def __init__(self) -> None:
        self._work = 0

    def tired(self, chunk: bytes) -> bool:
        """A chunk was looked at."""
        self._work += _CHUNK_COST + len(chunk)
        if self._work < _STEP_BYTES:
            return False
        self._work = 0
        return True


def bit_of(byte: int, offset: int) -> int:
    """The bit of a byte that the offset of a bit means."""
    return byte >> (7 - (offset & 7)) & 1


# -- counting --------------------------------------------------------------------------------------


def count(text: Text, first: int, last: int) -> Steps:
    """How many bits of first .. last are set; both must be within the string."""
    start, end = first >> 3, last >> 3
    total = -(text.byte(start) & _before(first)).bit_count()
    total -= (text.byte(end) & _after(last)).bit_count()
    pace = _Pace()
    for _, chunk in text.chunks(start, end + 1):
        total += int.from_bytes(chunk, "little").bit_count()
        if pace.tired(chunk):
            yield
    return total


def _before(offset: int) -> int:
    """The bits before this one in its byte."""
    return 0xFF & ~(0xFF >> (offset & 7))


def _after(offset: int) -> int:
    """The bits after this one in its byte."""
    return 0x7F >> (offset & 7)


# -- finding ---------------------------------------------------------------------------------------


def find(text: Text, bit: int, first: int, last: int) -> Steps:
    """The first bit of first .. last that is like this one, -1 if none is; both must be within
    the string."""
    start, end = first >> 3, last >> 3
    outside = _before(first) | (_after(last) if start == end else 0)
    found = _in_byte(text.byte(start), bit, outside)
    if found >= 0:
        return start * 8 + found
    if start == end:
        return -1
    at = yield from _find_byte(text, bit, start + 1, end)
    if at >= 0:
        return at * 8 + _in_byte(text.byte(at), bit, 0)
    found = _in_byte(text.byte(end), bit, _after(last))
    return end * 8 + found if found >= 0 else -1


def _in_byte(byte: int, bit: int, outside: int) -> int:
    """The first such bit in a byte, those `outside` left out; -1 if there is none."""
    wanted = (byte if bit else byte ^ 0xFF) & ~outside
    return 8 - wanted.bit_length() if wanted else -1


def _find_byte(text: Text, bit: int, start: int, end: int) -> Steps:
    """The first byte of [start, end) with such a bit; -1 if there is none."""
    without, whole = _WITHOUT[bit], _CHUNKS_WITHOUT[bit]
    pace = _Pace()
    expected = start
    for at, chunk in text.chunks(start, end):
        if at > expected and not bit:
            return expected
        if chunk != whole[: len(chunk)]:
            rest = len(chunk.lstrip(without))
            if rest:
                return at + len(chunk) - rest
        expected = at + len(chunk)
        if pace.tired(chunk):
            yield
    return expected if expected < end and not bit else -1


# -- combining -------------------------------------------------------------------------------------


def combine(db: Writer, key: bytes, operation: bytes, texts: list[Text]) -> int:
    """Store what AND, OR, XOR or NOT make of the strings, which are as long as the longest of them,
    the others continued with zeros; returns that length. It isn't 0.

    All in one go: the 512 MB that NOT makes of a string with one bit at its end take seconds."""
    length = max(text.size for text in texts)
    if all(text.rows is None for text in texts):
        value = bytearray(length)
        for at, part in _combined(operation, texts, CHUNK):
            value[at : at + len(part)] = part
        db.put_string(key, bytes(value))
    else:
        parts = _combined(operation, texts, FRAGMENT)
        sparse.store(db, key, length, ((at // FRAGMENT, part) for at, part in parts))
    return length


def _combined(operation: bytes, texts: list[Text], size: int) -> Iterator[Part]:
    """The parts of the result, of so many bytes and aligned; what is left out is zero."""
    numbers = (
        _inverted(texts[0], size)
        if operation == NOT
        else _joined(_OPERATORS[operation], texts, size, operation == AND)
    )
    for at, number in numbers:
        yield at, number.to_bytes((number.bit_length() + 7) // 8, "little")


def _joined(
    operator: Callable[[int, int], int], texts: list[Text], size: int, by_all: bool
) -> Iterator[tuple[int, int]]:
    """The parts as integers, the first byte lowest; `by_all`: where one is missing, the result is
    zero."""
    parts = merge(*(text.chunks(0, text.size, size) for text in texts), key=_PLACE)
    for at, group in groupby(parts, key=_PLACE):
        numbers = [int.from_bytes(part, "little") for _, part in group]
        if len(numbers) == len(texts) or not by_all:
            yield at, reduce(operator, numbers)


def _inverted(text: Text, size: int) -> Iterator[tuple[int, int]]:
    parts = text.chunks(0, text.size, size)
    there, part = next(parts, _NO_PART)
    full = (1 << 8 * size) - 1
    for at in range(0, text.size, size):
        number = full if at + size <= text.size else (1 << 8 * (text.size - at)) - 1
        if at == there:
            number ^= int.from_bytes(part, "little")
            there, part = next(parts, _NO_PART)
        yield at, number
