"""Lengths, strings and the footer of a payload, as rdbSaveLen and rdbSaveRawString write them."""

from __future__ import annotations

from typing import Final

from kvserver.numbers import parse_int64
from kvserver.rdb import types
from kvserver.rdb.crc64 import crc64

_ENCODED: Final = types.ENCODED << 6


class Output:
    """A payload in the making; the checksum goes along, so that the end is no long step."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._chunks: list[bytes] = []
        self._crc = 0
        self._work = 0

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self._work += 1 + (len(part) >> types.WORK_SHIFT)

    def string(self, text: bytes) -> None:
        """A string, as an integer when it is one of 32 bits at most (rdbTryIntegerEncoding)."""
        if len(text) <= 11:
            number = parse_int64(text)
            if number is not None and -1 << 31 <= number < 1 << 31:
                self.add(_integer(number))
                return
        self._parts.append(length(len(text)))
        self.add(text)

    def tired(self) -> bool:
        """Whether it is time to give way."""
        if self._work < types.STEP:
            return False
        self._work = 0
        self._flush()
        return True

    def payload(self, version: int) -> bytes:
        """The whole, with its footer."""
        self.add(version.to_bytes(2, "little"))
        self._flush()
        self._chunks.append(self._crc.to_bytes(8, "little"))
        return b"".join(self._chunks)

    def _flush(self) -> None:
        chunk = b"".join(self._parts)
        self._parts.clear()
        self._crc = crc64(chunk, self._crc)
        self._chunks.append(chunk)


def length(number: int) -> bytes:
    """A length, or any other unsigned number of 64 bits."""
    if number < 0x40:
        return bytes([number])
    if number < 0x4000:
        return (types.LENGTH_14BIT << 14 | number).to_bytes(2, "big")
    if number < 1 << 32:
        return bytes([types.LENGTH_32BIT]) + number.to_bytes(4, "big")
    return bytes([types.LENGTH_64BIT]) + number.to_bytes(8, "big")


def _integer(number: int) -> bytes:
    if -128 <= number < 128:
        return bytes([_ENCODED | types.INT8, number & 0xFF])
    if -32768 <= number < 32768:
        return bytes([_ENCODED | types.INT16]) + number.to_bytes(2, "little", signed=True)
    return bytes([_ENCODED | types.INT32]) + number.to_bytes(4, "little", signed=True)
