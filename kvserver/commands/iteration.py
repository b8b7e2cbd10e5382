"""KEYS and SCAN. Their walks are in scan.py; here are the options and the replies.

A reply of millions of keys is encoded as they are found: all at once it would hold up the loop.
Source: Redis 7.4's db.c, keysCommand and scanGenericCommand.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from kvserver import codec, errors, resp, scan
from kvserver.args import Cursor, parse_int
from kvserver.registry import READONLY, WALK, command
from kvserver.state.context import ReadContext

_TYPE_CODES: Final = {name: code for code, name in codec.TYPE_NAMES.items()}
_NO_TYPE: Final = -1
_MAX_CURSOR: Final = (1 << 64) - 1

T = TypeVar("T")
#: A walk that gives its keys in steps, and something at the end.
Steps = Generator[list[bytes], None, T]


class _Array:
    """A reply's array of bulk strings, encoded bit by bit."""

    def __init__(self) -> None:
        self._count = 0
        self._parts = resp.Encoded([b""])

    def add(self, values: list[bytes]) -> None:
        """Add elements."""
        self._count += len(values)
        self._parts.append(b"".join([resp.encode(value, False) for value in values]))

    def reply(self) -> resp.Encoded:
        """The whole array."""
        self._parts[0] = b"*%d\r\n" % self._count
        return self._parts


def _collect(walk: Steps[T], array: _Array) -> Generator[None, None, T]:
    """Take a walk's steps, its keys into the array; returns what is left at the end."""
    while True:
        try:
            found = next(walk)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        array.add(found)
        yield


def _begin(reply: Generator[None, None, Any]) -> Any:
    """Take the first step: a reply that needs no more is given at once."""
    try:
        next(reply)
    except StopIteration as done:
        return done.value
    return reply


@command(
    "keys",
    2,
    READONLY | WALK,
    group="generic",
    since="1.0.0",
    summary="Returns all key names that match a pattern.",
    complexity="O(N) with N being the number of keys in the database, under the assumption that "
    "the key names in the database and the given pattern have limited length.",
    categories=("keyspace", "dangerous"),
    tips=("request_policy:all_shards", "nondeterministic_output_order"),
)
def keys(ctx: ReadContext, pattern: bytes) -> Any:
    return _begin(_keys(scan.keys(ctx.db, pattern)))


def _keys(walk: Steps[list[bytes]]) -> Generator[None, None, resp.Encoded]:
    array = _Array()
    array.add((yield from _collect(walk, array)))
    return array.reply()


@dataclass(frozen=True, slots=True)
class _Options:
    """SCAN's options; `kind` is a type's code, None: any."""

    pattern: bytes
    count: int
    kind: int | None


@command(
    "scan",
    -2,
    READONLY | WALK,
    group="generic",
    since="2.8.0",
    summary="Iterates over the key names in the database.",
    complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls "
    "for the cursor to return back to 0. N is the number of elements inside the collection.",
    categories=("keyspace",),
    tips=("nondeterministic_output", "request_policy:special", "response_policy:special"),
    history=(("6.0.0", "Added the `TYPE` subcommand."),),
)
def scan_(ctx: ReadContext, cursor: bytes, *words: bytes) -> Any:
    number = parse_cursor(cursor)
    options = _scan_options(words)
    place = ctx.server.cursors.place(number)
    if place is None:
        return [b"0", []]
    walk = scan.scan(ctx.db, place, options.count, options.pattern, options.kind)
    return _begin(_scan(walk, ctx.server.cursors))


def _scan(
    walk: Steps[tuple[list[bytes], bytes | None]], cursors: scan.Cursors
) -> Generator[None, None, list[object]]:
    array = _Array()
    found, place = yield from _collect(walk, array)
    array.add(found)
    return [b"%d" % cursors.number(place), array.reply()]


def parse_cursor(text: bytes) -> int:
    """A cursor as the SCAN family takes it: an unsigned 64-bit integer in decimal."""
    if not text.isdigit() or len(text) > 20 or (number := int(text)) > _MAX_CURSOR:
        raise errors.invalid_cursor()
    return number


def _scan_options(words: tuple[bytes, ...]) -> _Options:
    pattern, count, kind = b"*", 10, None
    options = Cursor(words)
    while options.more():
        if (text := options.value(b"COUNT")) is not None:
            count = parse_int(text)
            if count < 1:
                raise errors.syntax()
        elif (text := options.value(b"MATCH")) is not None:
            pattern = text
        elif (text := options.value(b"TYPE")) is not None:
            kind = _TYPE_CODES.get(text.lower(), _NO_TYPE)
        elif options.flag(b"NOVALUES"):
            raise errors.error("NOVALUES option can only be used in HSCAN")
        else:
            raise errors.syntax()
    return _Options(pattern, count, kind)
