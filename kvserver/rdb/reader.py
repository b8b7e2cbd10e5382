"""Reads lengths, strings and numbers from the body of a payload, within its bounds.

Invariants: it never reads beyond the body, and what has been decoded never takes more than the
caller allows, ELEMENT_BYTES for each string included. All that is wrong is BadFormat.
"""

from __future__ import annotations

import struct
from typing import Final

from kvserver.rdb import lzf, types
from kvserver.rdb.errors import BadFormat
from kvserver.rdb.types import Steps

#: What a string takes besides its bytes, about.
ELEMENT_BYTES: Final = 40
#: Longer compressed strings are decompressed in steps.
_AT_ONCE: Final = 1024

_DOUBLE: Final = struct.Struct("<d")
_INTEGER_SIZES: Final = {types.INT8: 1, types.INT16: 2, types.INT32: 4}


class Reader:
    """A place in a payload. `work` counts what was read since the last yield."""

    def __init__(self, data: bytes, pos: int, end: int, max_bytes: int) -> None:
        self._data = data
        self._pos = pos
        self._end = end
        self._left = max_bytes
        self._compressed = b""
        self._size = 0
        self.work = 0

    @property
    def position(self) -> int:
        """Where it stands in the payload."""
        return self._pos

    def tired(self) -> bool:
        """Whether it is time to give way."""
        if self.work < types.STEP:
            return False
        self.work = 0
        return True

    def close(self) -> None:
        """Nothing may be left."""
        if self._pos != self._end:
            raise BadFormat("something follows the value")

    def charge(self, size: int, elements: int = 1) -> None:
        """Count what was decoded against the limit."""
        self._left -= size + ELEMENT_BYTES * elements
        if self._left < 0:
            raise BadFormat("the value is too large")

    def room(self) -> int:
        """How many strings there may still be."""
        return self._left // ELEMENT_BYTES

    def byte(self) -> int:
        if self._pos >= self._end:
            raise BadFormat("the value ends too early")
        self._pos += 1
        return self._data[self._pos - 1]

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self._pos
        if size > self._end - start:
            raise BadFormat("the value ends too early")
        self._pos = start + size
        self.work += size >> types.WORK_SHIFT
        return self._data[start : self._pos]

    def length(self) -> int:
        """A length, or any other unsigned number of 64 bits (rdbLoadLen)."""
        return self._length(self.byte())

    def _length(self, first: int) -> int:
        if first < 0x40:
            return first
        if first < 0x80:
            return (first & 0x3F) << 8 | self.byte()
        if first == types.LENGTH_32BIT:
            return int.from_bytes(self.take(4), "big")
        if first == types.LENGTH_64BIT:
            return int.from_bytes(self.take(8), "big")
        raise BadFormat("a length has no known encoding")

    def count(self, least: int) -> int:
        """The number of items of at least so many bytes each that follow."""
        count = self.length()
        if count * least > self._end - self._pos:
            raise BadFormat("the value ends too early")
        return count

    def elements(self, least: int) -> int:
        """The same for what Redis doesn't keep when it is empty."""
        count = self.count(least)
        if count == 0:
            raise BadFormat("the value is empty")
        return count

    def milliseconds(self) -> int:
        """A time, signed."""
        return int.from_bytes(self.take(8), "little", signed=True)

    def double(self) -> float:
        """A double in binary."""
        value: float = _DOUBLE.unpack(self.take(8))[0]
        return value

    def string(self) -> bytes | None:
        """An element; None if it is long and compressed: `expand` gives it then."""
        value = self.blob()
        if value is not None:
            self.charge(len(value))
        return value

    def expand(self) -> Steps[bytes]:
        """The element that `string` had no time for."""
        value = yield from self.expand_blob()
        self.charge(len(value))
        return value

    def text(self) -> Steps[bytes]:
        """An element, where there are few."""
        value = self.string()
        return (yield from self.expand()) if value is None else value

    def blob(self) -> bytes | None:
        """As `string`, for what holds elements and is itself not one."""
        self.work += 1
        first = self.byte()
        if first >> 6 != types.ENCODED:
            return self.take(self._length(first))
        encoding = first & 0x3F
        size = _INTEGER_SIZES.get(encoding)
        if size is not None:
            return b"%d" % int.from_bytes(self.take(size), "little", signed=True)
        if encoding != types.LZF:
            raise BadFormat("a string has no known encoding")
        return self._decompress()

    def expand_blob(self) -> Steps[bytes]:
        """What `blob` had no time for."""
        compressed, self._compressed = self._compressed, b""
        return (yield from lzf.decompress(compressed, self._size))

    def large(self) -> Steps[bytes]:
        """What holds elements, where there is no hurry."""
        value = self.blob()
        return (yield from self.expand_blob()) if value is None else value

    def _decompress(self) -> bytes | None:
        compressed_size = self.length()
        self._size = self.length()
        if self._size > self._left:
            raise BadFormat("the value is too large")
        self._compressed = self.take(compressed_size)
        if compressed_size > _AT_ONCE:
            return None
        self.work += compressed_size // 8
        return types.run(self.expand_blob())
