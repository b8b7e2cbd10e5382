"""What may look at all of a list: LPOS, and LRANGE of many elements.

Large ones are walked in steps, over a view of the beginning. Source: Redis 7.4's t_list.c.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, NamedTuple

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int_in
from kvserver.commands import lists as list_commands
from kvserver.commands.replies import Array, Steps, begin, collect
from kvserver.numbers import INT64_MAX
from kvserver.registry import READONLY, WALK, command, key
from kvserver.state.context import ReadContext
from kvserver.types.lists import ListReader

#: Chunks that are looked at between two yields.
STEPS: Final = 64
#: Bytes that are read between two yields, and those that a chunk counts for beside its own.
STEP_WORK: Final = 1 << 18
CHUNK_WORK: Final = STEP_WORK // STEPS


def range_in_steps(items: ListReader, first: int, count: int) -> Generator[None, None, resp.Forms]:
    """LRANGE of many elements, or large ones. The view is pinned by the first step."""
    parts, size, large = [b"*%d\r\n" % count], 0, items.large_rows(True)
    for piece in items.walk(first, count):
        some = large.bulks(piece)
        parts += some
        size += CHUNK_WORK + sum(map(len, some))
        if size > STEP_WORK:
            size = 0
            yield
    return resp.Forms(parts, parts)


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
    skipped, left = abs(wanted.rank) - 1, 1 if wanted.matches is None else wanted.matches
    left = left or items.count
    most = min(wanted.most, items.count) if wanted.most else items.count
    pieces = items.walk(items.count - most if reverse else 0, most, reverse)
    large, walked = items.large_rows(True), 0
    found: list[int] = []
    for steps, (sub, row, first, end) in enumerate(pieces, 1):
        for number in _in_order(large.matches((sub, row, first, end), value), reverse):
            if skipped:
                skipped -= 1
                continue
            before = walked + (end - 1 - number if reverse else number - first)
            found.append(items.count - 1 - before if reverse else before)
            left -= 1
            if not left:
                return found
        walked += end - first
        if not steps % STEPS:
            yield found
            found = []
    return found


def _in_order(numbers: list[int], reverse: bool) -> list[int]:
    return numbers[::-1] if reverse else numbers
