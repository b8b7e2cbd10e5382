"""Whether names are distinct, for a million of them in short steps.

One set of a million would stop the loop for 100 ms when it grows, and for 10 ms when it is freed:
they are spread over many sets, which grow one by one.
"""

from __future__ import annotations

from typing import Final

from kvserver.rdb.errors import BadFormat
from kvserver.rdb.types import Steps

#: Names in a set, about.
_EACH: Final = 4096


class Distinct:
    """The names seen so far; there will be `count` of them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._mask = (1 << (count // _EACH).bit_length()) - 1
        self._sets: list[set[bytes]] = [set() for _ in range(self._mask + 1)]

    def add(self, name: bytes) -> None:
        self._sets[hash(name) & self._mask].add(name)

    def check(self) -> Steps[None]:
        """BadFormat if one of them was there twice. Nothing is kept."""
        found = 0
        while self._sets:
            found += len(self._sets.pop())
            if self._sets:
                yield
        if found != self._count:
            raise BadFormat("a name is there twice")
