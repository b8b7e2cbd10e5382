"""Replies of many elements, built in steps while a walk finds them, in the forms of both protocols.

All at once they would hold up the loop. It must not know commands or what is walked. Invariant:
nothing is counted in advance; a header is written when all elements are there.

    def big(ctx: ReadContext, key: bytes) -> Any:
        return begin(_steps(...))            # the first step at once; no more is needed: the reply

    def _steps(...) -> Generator[None, None, resp.Forms]:
        array = Array()
        array.add((yield from collect(walk, array)))
        return array.reply()
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeVar

from kvserver import resp

T = TypeVar("T")
#: A part of a reply is at least so long: each takes a call to send it, which with the steps of a
#: walk over a million elements were 16 ms together.
PART_BYTES: Final = 1 << 16
#: A walk that gives what it finds in steps, and something at the end.
Steps = Generator[list[Any], None, T]


class Array:
    """An array. `plain` elements are bytes or integers, which look the same in RESP2 and RESP3;
    others are encoded for both."""

    def __init__(self, plain: bool = True) -> None:
        self._plain = plain
        self._count = 0
        self._resp2 = [b""]
        self._resp3 = [b""]
        #: Is to become the next part of each.
        self._next2: list[bytes] = []
        self._next3: list[bytes] = []
        self._next_bytes = 0

    def add(self, values: list[Any]) -> None:
        """Add elements."""
        self._count += len(values)
        part = b"".join([resp.encode(value, False) for value in values])
        self._append(part, None if self._plain else [resp.encode(value, True) for value in values])

    def _append(self, part: bytes, others: list[bytes] | None) -> None:
        """Add elements as RESP2 and RESP3 have them; None: both alike."""
        self._next2.append(part)
        if others is not None:
            self._next3.append(b"".join(others))
        self._next_bytes += len(part)
        if self._next_bytes >= PART_BYTES:
            self._end_part()

    def _end_part(self) -> None:
        part = b"".join(self._next2)
        self._resp2.append(part)
        self._resp3.append(b"".join(self._next3) if self._next3 else part)
        self._next2, self._next3, self._next_bytes = [], [], 0

    def headers(self, count: int) -> tuple[bytes, bytes]:
        """What precedes so many elements in RESP2 and RESP3."""
        header = b"*%d\r\n" % count
        return header, header

    def reply(self) -> resp.Forms:
        """The whole reply."""
        self._end_part()
        self._resp2[0], self._resp3[0] = self.headers(self._count)
        return resp.Forms(self._resp2, self._resp3)


class Set(Array):
    """A set: `~` under RESP3, an array under RESP2."""

    def headers(self, count: int) -> tuple[bytes, bytes]:
        return b"*%d\r\n" % count, b"~%d\r\n" % count


class Map(Array):
    """A map: `%` under RESP3, a flat array under RESP2. Names and values are added by turns."""

    def headers(self, count: int) -> tuple[bytes, bytes]:
        return b"*%d\r\n" % count, b"%%%d\r\n" % (count // 2)


class Pairs(Array):
    """An array of pairs, which is flat under RESP2. First and second are added by turns."""

    def add(self, values: list[Any]) -> None:
        self._count += len(values)
        parts = [resp.encode(value, True) for value in values]
        parts[::2] = [b"*2\r\n" + part for part in parts[::2]]
        self._append(b"".join([resp.encode(value, False) for value in values]), parts)

    def headers(self, count: int) -> tuple[bytes, bytes]:
        return b"*%d\r\n" % count, b"*%d\r\n" % (count // 2)


def collect(walk: Steps[T], array: Array) -> Generator[None, None, T]:
    """Take a walk's steps, what they find into the array; returns what is left at the end."""
    while True:
        try:
            found = next(walk)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        array.add(found)
        yield


def begin(reply: Generator[None, None, Any]) -> Any:
    """Take the first step: a reply that needs no more is given at once."""
    try:
        next(reply)
    except StopIteration as done:
        return done.value
    return reply
