"""XRANGE and XREVRANGE, and how entries are replied. Source: Redis 7.4's t_stream.c."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from kvserver import errors, resp
from kvserver.args import parse_int
from kvserver.codec import STREAM
from kvserver.commands.replies import Array
from kvserver.commands.streams import CATEGORIES
from kvserver.registry import READONLY, WALK, command, key
from kvserver.state.context import ReadContext
from kvserver.types import stream_ids as ids
from kvserver.types.streams import Entry, Stream, fields_of

#: Entries that a walk takes in one step.
STEP: Final = 200

_COMPLEXITY: Final = (
    "O(N) with N being the number of elements being returned. If N is constant (e.g. always asking "
    "for the first 10 elements with COUNT), you can consider it O(1)."
)
_HISTORY: Final = (("6.2.0", "Added exclusive ranges."),)


def entry_reply(entry_id: bytes, row: bytes) -> list[Any]:
    """An entry as clients see it."""
    return [ids.text(entry_id), fields_of(row)]


def entry_replies(entries: Iterable[Entry]) -> list[list[Any]]:
    """Some entries."""
    return [entry_reply(entry_id, row) for entry_id, row in entries]


def add_all(array: Array, entries: Iterator[Entry]) -> Generator[None, None, None]:
    """Add all entries in steps."""
    while part := entry_replies(islice(entries, STEP)):
        array.add(part)
        if len(part) < STEP:
            return
        yield


@command(
    "xrange",
    -4,
    READONLY | WALK,
    group="stream",
    since="5.0.0",
    summary="Returns the messages from a stream within a range of IDs.",
    complexity=_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    history=_HISTORY,
)
def xrange(ctx: ReadContext, name: bytes, start: bytes, end: bytes, *words: bytes) -> Any:
    lower = ids.parse_start(start)
    return _range(ctx, name, lower, ids.parse_end(end), words, False)


@command(
    "xrevrange",
    -4,
    READONLY | WALK,
    group="stream",
    since="5.0.0",
    summary="Returns the messages from a stream within a range of IDs in reverse order.",
    complexity="O(N) with N being the number of elements returned. If N is constant (e.g. always "
    "asking for the first 10 elements with COUNT), you can consider it O(1).",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    history=_HISTORY,
)
def xrevrange(ctx: ReadContext, name: bytes, end: bytes, start: bytes, *words: bytes) -> Any:
    lower = ids.parse_start(start)
    return _range(ctx, name, lower, ids.parse_end(end), words, True)


def _range(
    ctx: ReadContext,
    name: bytes,
    lower: bytes,
    upper: bytes,
    words: tuple[bytes, ...],
    reverse: bool,
) -> Any:
    count = _parse_count(words)
    rows = ctx.db.collection(name, STREAM)
    if rows is None:
        return []
    if count == 0:
        return resp.NULL_ARRAY
    entries = Stream(rows).scan(lower, upper, reverse)
    if count is not None and count < rows.count:
        entries = islice(entries, count)
    first = entry_replies(islice(entries, STEP))
    return first if len(first) < STEP else _large(first, entries)


def _parse_count(words: tuple[bytes, ...]) -> int | None:
    """COUNT; None: all."""
    count: int | None = None
    for at in range(0, len(words), 2):
        if words[at].upper() != b"COUNT" or at + 1 == len(words):
            raise errors.syntax()
        count = max(parse_int(words[at + 1]), 0)
    return count


def _large(first: list[list[Any]], entries: Iterator[Entry]) -> Generator[None, None, resp.Forms]:
    array = Array()
    array.add(first)
    yield
    yield from add_all(array, entries)
    return array.reply()
