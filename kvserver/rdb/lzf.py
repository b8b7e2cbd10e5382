"""LZF as Redis compresses strings with it (lzf_d.c), only to decompress.

A control byte below 32 is followed by so many bytes, and one, as they are; any other begins a
reference: a length in its upper three bits (7: a byte more), a distance back in the others and the
next byte. The output never grows beyond what the caller allows.
"""

from __future__ import annotations

from typing import Final

from kvserver.rdb.errors import BadFormat
from kvserver.rdb.types import Steps

#: Control bytes between two yields.
_OPERATIONS: Final = 512


def decompress(data: bytes, size: int) -> Steps[bytes]:
    """The `size` bytes that `data` stands for."""
    out = bytearray()
    pos = 0
    while pos < len(data):
        pos = _expand(data, pos, size, out)
        if pos < len(data):
            yield
    if len(out) != size:
        raise BadFormat("a compressed string is shorter than it says")
    return bytes(out)


def _expand(data: bytes, pos: int, size: int, out: bytearray) -> int:
    """Carry out some operations from `pos` on; returns where to go on."""
    end = len(data)
    for _ in range(_OPERATIONS):
        if pos >= end:
            break
        control = data[pos]
        pos += 1
        if control < 32:
            length = control + 1
            if pos + length > end:
                raise BadFormat("a compressed string ends within a run")
            out += data[pos : pos + length]
            pos += length
        else:
            length = control >> 5
            if pos + (length == 7) >= end:
                raise BadFormat("a compressed string ends within a reference")
            if length == 7:
                length += data[pos]
                pos += 1
            _copy(out, ((control & 31) << 8 | data[pos]) + 1, length + 2)
            pos += 1
        if len(out) > size:
            raise BadFormat("a compressed string is longer than it says")
    return pos


def _copy(out: bytearray, distance: int, length: int) -> None:
    """Append `length` bytes from `distance` back; they may overlap what is appended."""
    start = len(out) - distance
    if start < 0:
        raise BadFormat("a compressed string refers to before its beginning")
    if distance >= length:
        out += out[start : start + length]
    else:
        pattern = out[start:]
        out += (pattern * (length // distance + 1))[:length]
