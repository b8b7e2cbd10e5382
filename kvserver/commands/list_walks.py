"""Commands that may look at all of a list: LRANGE and LPOS.

Large ones are walked in steps, over a view of the beginning. Source: Redis 7.4's t_list.c.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple

from kvserver import errors
from kvserver.args import Cursor, parse_int, parse_int_in
from kvserver.codec import LIST
from kvserver.commands import lists as list_commands
from kvserver.commands.replies import Array, Steps, begin, collect
from kvserver.numbers import INT64_MAX
from kvserver.registry import READONLY, WALK, command, key
from kvserver.state.context import ReadContext
from kvserver.types.lists import Found, ListReader

#: Elements that are looked at between two yields.
STEPS: Final = 256


@command(
    "lrange",
    4,
    READONLY | WALK,
    group="list",
    since="1.0.0",
    summary="Returns a range of elements from a list.",
    complexity="O(S+N) where S is the distance of start offset from HEAD for small lists, from "
    "nearest end (HEAD or TAIL) for large lists; and N is the number of elements in the specified "
    "range.",
    keys=key("RO", "ACCESS"),
    categories=("list",),
)
def lrange(ctx: ReadContext, name: bytes, start: bytes, stop: bytes) -> Any:
    low, high = parse_int(start), parse_int(stop)
    rows = ctx.db.collection(name, LIST)
    if rows is None:
        return []
    items = ListReader(rows)
    first, end = list_commands.bounds(low, high, items.count)
    if end - first <= STEPS:
        return items.values(first, end - first)
    return begin(_range(items.span(first, end - first)))


def _range(found: Iterator[Found]) -> Generator[None, None, Any]:
    array = Array()
    array.add((yield from collect(_values(found), array)))
    return array.reply()


def _values(found: Iterator[Found]) -> Steps[list[bytes]]:
    values: list[bytes] = []
    for _, value in found:
        values.append(value)
        if len(values) == STEPS:
            yield values
            values = []
    return values


class _Wanted(NamedTuple):
    """What LPOS looks for: from the `rank`-th match on, from the end if that is negative; `matches`
    of them, None for one that isn't in an array, 0 for all; among `most` elements, 0 for all."""

    rank: int
    matches: int | None
    most: int


@command(
    "lpos",
    -3,
    READONLY | WALK,
    group="list",
    since="6.0.6",
    summary="Returns the index of matching elements in a list.",
    complexity="O(N) where N is the number of elements in the list, for the average case. When "
    "searching for elements near the head or the tail of the list, or when the MAXLEN option is "
    "provided, the command may run in constant time.",
    keys=key("RO", "ACCESS"),
    categories=("list",),
)
def lpos(ctx: ReadContext, name: bytes, value: bytes, *words: bytes) -> Any:
    wanted = _options(words)
    items = list_commands.find(ctx, name)
    if items is None:
        return None if wanted.matches is None else []
    return begin(_positions(items, value, wanted))


def _options(words: tuple[bytes, ...]) -> _Wanted:
    rank, count, most = 1, None, 0
    options = Cursor(words)
    while options.more():
        if (text := options.value(b"RANK")) is not None:
            rank = parse_int_in(text, -INT64_MAX, INT64_MAX)
            if rank == 0:
                raise errors.error(
                    "RANK can't be zero: use 1 to start from the first match, 2 from the second "
                    "... or use negative to start from the end of the list"
                )
        elif (text := options.value(b"COUNT")) is not None:
            count = parse_int_in(text, 0, INT64_MAX, "COUNT can't be negative")
        elif (text := options.value(b"MAXLEN")) is not None:
            most = parse_int_in(text, 0, INT64_MAX, "MAXLEN can't be negative")
        else:
            raise errors.syntax()
    return _Wanted(rank, count, most)


def _positions(items: ListReader, value: bytes, wanted: _Wanted) -> Generator[None, None, Any]:
    array = Array()
    found = yield from collect(_matches(items, value, wanted), array)
    if wanted.matches is None:
        return found[0] if found else None
    array.add(found)
    return array.reply()


def _matches(items: ListReader, value: bytes, wanted: _Wanted) -> Steps[list[int]]:
    """The indices of the elements that are equal to a value, in the order of the walk."""
    reverse = wanted.rank < 0
    skipped, count = abs(wanted.rank) - 1, 1 if wanted.matches is None else wanted.matches
    found: list[int] = []
    left = count or items.count
    for walked, (_, element) in enumerate(items.walk(reverse)):
        if walked == wanted.most > 0:
            break
        if walked % STEPS == STEPS - 1:
            yield found
            found = []
        if element == value:
            if skipped:
                skipped -= 1
                continue
            found.append(items.count - 1 - walked if reverse else walked)
            left -= 1
            if not left:
                break
    return found
