"""Listpacks (listpack.c): small collections, and the nodes of lists and streams, as one string.

    total bytes u32 | entries u16 (65535: count them) | entry ... | 0xff

An entry is its encoding, with its length or value, and then its size once more, readable from
the right. Numbers are little-endian. An integer is read as the text that stands for it.
"""

from __future__ import annotations

from typing import Final

from kvserver.numbers import parse_int64
from kvserver.rdb.errors import BadFormat
from kvserver.rdb.types import STEP, Steps

_HEADER: Final = 6
_EOF: Final = 0xFF
_UNKNOWN_COUNT: Final = 0xFFFF
#: The texts of 0..127, each of which is an entry of one byte.
_SMALL: Final = [b"%d" % number for number in range(128)]
#: Bytes of the integers whose entries begin with 0xf1 and above.
_INTEGER_SIZES: Final = [2, 3, 4, 8]


def decode(data: bytes, most: int) -> Steps[list[bytes]]:
    """The entries; more than `most` are refused."""
    end = len(data) - 1
    if end < _HEADER or int.from_bytes(data[:4], "little") != end + 1 or data[end] != _EOF:
        raise BadFormat("a listpack has another size than it says")
    entries: list[bytes] = []
    pos = _HEADER
    while pos < end:
        pos = _read(data, pos, end, entries)
        if len(entries) > most:
            raise BadFormat("a listpack has too many entries")
        if pos < end:
            yield
    count = int.from_bytes(data[4:_HEADER], "little")
    if count not in (_UNKNOWN_COUNT, len(entries)):
        raise BadFormat("a listpack has another number of entries than it says")
    return entries


def _read(data: bytes, pos: int, end: int, entries: list[bytes]) -> int:
    """Append some entries from `pos` on; returns where to go on."""
    for _ in range(STEP):
        if pos >= end:
            break
        head = data[pos]
        if head < 0x80:
            after = pos + 1
            entry = _SMALL[head]
        elif head < 0xC0:
            after = pos + 1 + (head & 0x3F)
            entry = data[pos + 1 : after]
        else:
            after, entry = _read_wide(data, pos, head)
        if after >= end:
            raise BadFormat("a listpack's entry passes its end")
        size = after - pos
        if size < 128:
            pos = after + 1
            right = data[after] == size
        else:
            back = _size_bytes(size)
            pos = after + len(back)
            right = data[after:pos] == back
        if not right or pos > end:
            raise BadFormat("a listpack's entry is of two sizes")
        entries.append(entry)
    return pos


def _read_wide(data: bytes, pos: int, head: int) -> tuple[int, bytes]:
    """(where it ends, text) of an entry whose encoding isn't a single byte."""
    if head < 0xE0:
        number = (head & 0x1F) << 8 | data[pos + 1]
        return pos + 2, b"%d" % (number - 0x2000 if number & 0x1000 else number)
    if head < 0xF0:
        start = pos + 2
        after = start + ((head & 0x0F) << 8 | data[pos + 1])
        return after, data[start:after]
    if head == 0xF0:
        start = pos + 5
        after = start + int.from_bytes(data[pos + 1 : start], "little")
        return after, data[start:after]
    if head > 0xF4:
        raise BadFormat("a listpack's entry has no known encoding")
    after = pos + 1 + _INTEGER_SIZES[head - 0xF1]
    return after, b"%d" % int.from_bytes(data[pos + 1 : after], "little", signed=True)


def encode(entries: list[bytes]) -> bytes:
    """The listpack of entries that `entry` and `integer` made."""
    body = b"".join(entries)
    size = _HEADER + len(body) + 1
    count = min(len(entries), _UNKNOWN_COUNT)
    return b"%b%b%b\xff" % (size.to_bytes(4, "little"), count.to_bytes(2, "little"), body)


def entry(text: bytes) -> bytes:
    """The entry of a text; of an integer, when that is what it says."""
    number = parse_int64(text)
    if number is not None:
        return integer(number)
    size = len(text)
    if size < 64:
        return b"%c%b%c" % (0x80 | size, text, size + 1)
    if size < 4096:
        return _closed(b"%c%c%b" % (0xE0 | size >> 8, size & 0xFF, text))
    return _closed(b"\xf0%b%b" % (size.to_bytes(4, "little"), text))


def integer(number: int) -> bytes:
    """The entry of a 64-bit integer."""
    if 0 <= number < 128:
        return b"%c\x01" % number
    if -4096 <= number < 4096:
        return b"%c%c\x02" % (0xC0 | (number & 0x1FFF) >> 8, number & 0xFF)
    head = 0xF1
    for size in _INTEGER_SIZES:
        limit = 1 << 8 * size - 1
        if -limit <= number < limit:
            break
        head += 1
    return b"%c%b%c" % (head, number.to_bytes(size, "little", signed=True), size + 1)


def _closed(start: bytes) -> bytes:
    return start + _size_bytes(len(start))


def _size_bytes(size: int) -> bytes:
    """An entry's size as it stands behind it: seven bits a byte, the highest bit set in all but
    the first (lpEncodeBacklen)."""
    out = bytearray()
    while size > 127:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    out.reverse()
    return bytes(out)
