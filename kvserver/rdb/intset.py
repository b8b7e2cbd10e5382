"""Intsets (intset.c), small sets of integers: only to read.

bytes of an integer u32 (2, 4 or 8) | integers u32 | integers, ascending      (little-endian)
"""

from __future__ import annotations

import struct
from typing import Final

from kvserver.rdb.errors import BadFormat
from kvserver.rdb.types import STEP, Steps

_HEADER: Final = 8
_FORMATS: Final = {2: "<h", 4: "<i", 8: "<q"}


def decode(data: bytes, most: int) -> Steps[list[bytes]]:
    """The members as text; more than `most` are refused."""
    width = int.from_bytes(data[:4], "little")
    count = int.from_bytes(data[4:_HEADER], "little")
    form = _FORMATS.get(width)
    if form is None or count == 0 or _HEADER + width * count != len(data):
        raise BadFormat("an intset has another size than it says")
    if count > most:
        raise BadFormat("an intset has too many members")
    members: list[bytes] = []
    last: int | None = None
    for (number,) in struct.iter_unpack(form, memoryview(data)[_HEADER:]):
        if last is not None and number <= last:
            raise BadFormat("an intset isn't ascending")
        last = number
        members.append(b"%d" % number)
        if len(members) % STEP == 0:
            yield
    return members
