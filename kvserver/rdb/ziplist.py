"""Ziplists (ziplist.c) and zipmaps (zipmap.c), which listpacks have replaced: only to read.

    ziplist  total bytes u32 | place of the last entry u32 | entries u16 (65535: count them)
             | entry ... | 0xff
    zipmap   fields u8 (254: count them) | (length, field, length, unused u8, value, unused
             bytes) ... | 0xff

A ziplist's entry begins with the size of the one before: u8, or 254 and u32; the lengths of a
zipmap are written the same way. Numbers are little-endian, but lengths of strings are big-endian.
"""

from __future__ import annotations

from typing import Final

from kvserver.rdb.errors import BadFormat
from kvserver.rdb.types import STEP, Steps

_HEADER: Final = 10
_EOF: Final = 0xFF
_UNKNOWN_COUNT: Final = 0xFFFF
_BIG: Final = 254
#: Bytes of the integers by the first byte of their entry.
_INTEGER_SIZES: Final = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}


def decode(data: bytes, most: int) -> Steps[list[bytes]]:
    """The entries of a ziplist; more than `most` are refused."""
    end = len(data) - 1
    if end < _HEADER or int.from_bytes(data[:4], "little") != end + 1 or data[end] != _EOF:
        raise BadFormat("a ziplist has another size than it says")
    entries: list[bytes] = []
    pos = last = _HEADER
    while pos < end:
        before = pos - last
        last = pos
        pos = _read(data, pos, end, before, entries)
        if len(entries) > most:
            raise BadFormat("a ziplist has too many entries")
        if len(entries) % STEP == 0:
            yield
    count = int.from_bytes(data[8:_HEADER], "little")
    if count not in (_UNKNOWN_COUNT, len(entries)):
        raise BadFormat("a ziplist has another number of entries than it says")
    if int.from_bytes(data[4:8], "little") != last:
        raise BadFormat("a ziplist's last entry is elsewhere than it says")
    return entries


def _read(data: bytes, pos: int, end: int, before: int, entries: list[bytes]) -> int:
    """Append the entry at `pos`, after one of `before` bytes; returns where it ends."""
    size, pos = _length(data, pos)
    if size != before or pos >= end:
        raise BadFormat("a ziplist's entry knows another size of the one before")
    head = data[pos]
    start = pos + 1
    if head < 0xC0:
        start, after = _string(data, pos, head)
        entry = data[start:after]
    elif 0xF1 <= head <= 0xFD:
        after = start
        entry = b"%d" % (head - 0xF1)
    else:
        width = _INTEGER_SIZES.get(head)
        if width is None:
            raise BadFormat("a ziplist's entry has no known encoding")
        after = start + width
        entry = b"%d" % int.from_bytes(data[start:after], "little", signed=True)
    if after > end:
        raise BadFormat("a ziplist's entry passes its end")
    entries.append(entry)
    return after


def _string(data: bytes, pos: int, head: int) -> tuple[int, int]:
    """Where the text of an entry begins and ends."""
    if head < 0x40:
        start, size = pos + 1, head
    elif head < 0x80:
        start, size = pos + 2, (head & 0x3F) << 8 | data[pos + 1]
    else:
        start = pos + 5
        size = int.from_bytes(data[pos + 1 : start], "big")
    return start, start + size


def decode_zipmap(data: bytes, most: int) -> Steps[list[bytes]]:
    """The fields and values of a zipmap in turn; more than `most` together are refused."""
    end = len(data) - 1
    if end < 1 or data[end] != _EOF:
        raise BadFormat("a zipmap has no end")
    entries: list[bytes] = []
    pos = 1
    while pos < end:
        pos = _read_pair(data, pos, end, entries)
        if len(entries) > most:
            raise BadFormat("a zipmap has too many entries")
        if len(entries) % STEP == 0:
            yield
    if data[0] != _BIG and 2 * data[0] != len(entries):
        raise BadFormat("a zipmap has another number of entries than it says")
    return entries


def _read_pair(data: bytes, pos: int, end: int, entries: list[bytes]) -> int:
    """Append the field at `pos` and its value; returns where they end."""
    size, start = _length(data, pos)
    pos = start + size
    if pos >= end:
        raise BadFormat("a zipmap's field passes its end")
    field = data[start:pos]
    size, start = _length(data, pos)
    if start >= end:
        raise BadFormat("a zipmap's value passes its end")
    unused = data[start]
    start += 1
    pos = start + size
    if pos + unused > end:
        raise BadFormat("a zipmap's value passes its end")
    entries += (field, data[start:pos])
    return pos + unused


def _length(data: bytes, pos: int) -> tuple[int, int]:
    """The length at `pos`, and what is after it."""
    first = data[pos]
    if first < _BIG:
        return first, pos + 1
    if first == _EOF:
        raise BadFormat("a ziplist or zipmap ends before its end")
    return int.from_bytes(data[pos + 1 : pos + 5], "little"), pos + 5
