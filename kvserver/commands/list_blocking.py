"""Commands on lists that take the first of several keys, or wait for one: LMPOP, BLPOP, BRPOP,
BLMPOP, BLMOVE, BRPOPLPUSH.

How a command waits is in state/waiting.py. Source: Redis 7.4's t_list.c.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int_in, parse_timeout_seconds
from kvserver.codec import LIST
from kvserver.commands import lists as list_commands
from kvserver.commands.lists import MOVED_KEYS
from kvserver.numbers import INT64_MAX
from kvserver.registry import (
    BLOCKING,
    DENYOOM,
    MOVABLE_KEYS,
    WALK,
    WRITE,
    command,
    keys,
    numbered_keys,
)
from kvserver.state.context import Blocked, WriteContext, wait_for_keys

_TAKEN: Final = ("RW", "ACCESS", "DELETE")
_DOUBLE: Final = (("6.0.0", "`timeout` is interpreted as a double instead of an integer."),)

#: A key and what was popped there.
Popped = list[object]


def _pop_first(
    ctx: WriteContext, names: tuple[bytes, ...], front: bool, count: int
) -> tuple[bytes, list[bytes]] | None:
    """Pop from the first of the keys that is there (mpopGenericCommand)."""
    for name in names:
        items = list_commands.current(ctx, name)
        if items is not None:
            return name, list_commands.pop(ctx, items, count, front)
    return None


def _wait(names: tuple[bytes, ...], timeout_ms: int) -> Blocked:
    return wait_for_keys(names, (LIST,), timeout_ms, resp.NULL_ARRAY)


def _pop_or_wait(ctx: WriteContext, words: tuple[bytes, ...], front: bool) -> Popped | Blocked:
    names, timeout_ms = words[:-1], parse_timeout_seconds(words[-1], ctx.now)
    popped = _pop_first(ctx, names, front, 1)
    if popped is None:
        return _wait(names, timeout_ms)
    name, values = popped
    return [name, values[0]]


@command(
    "blpop",
    -3,
    WRITE | BLOCKING | WALK,
    group="list",
    since="2.0.0",
    summary="Removes and returns the first element in a list. Blocks until an element is available "
    "otherwise. Deletes the list if the last element was popped.",
    complexity="O(N) where N is the number of provided keys.",
    keys=keys(*_TAKEN, last=-2),
    categories=("list",),
    history=_DOUBLE,
)
def blpop(ctx: WriteContext, *words: bytes) -> Popped | Blocked:
    return _pop_or_wait(ctx, words, True)


@command(
    "brpop",
    -3,
    WRITE | BLOCKING | WALK,
    group="list",
    since="2.0.0",
    summary="Removes and returns the last element in a list. Blocks until an element is available "
    "otherwise. Deletes the list if the last element was popped.",
    complexity="O(N) where N is the number of provided keys.",
    keys=keys(*_TAKEN, last=-2),
    categories=("list",),
    history=_DOUBLE,
)
def brpop(ctx: WriteContext, *words: bytes) -> Popped | Blocked:
    return _pop_or_wait(ctx, words, False)


# -- LMPOP ---------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What LMPOP and BLMPOP are asked for."""

    names: tuple[bytes, ...]
    front: bool
    amount: int


def _asked(number: bytes, words: tuple[bytes, ...]) -> _Asked:
    """The arguments from the number of keys on (lmpopGenericCommand)."""
    several = parse_int_in(number, 1, INT64_MAX, "numkeys should be greater than 0")
    if several >= len(words):
        raise errors.syntax()
    front, count = list_commands.side(words[several]), None
    options = Cursor(words, several + 1)
    while options.more():
        text = options.value(b"COUNT") if count is None else None
        if text is None:
            raise errors.syntax()
        count = parse_int_in(text, 1, INT64_MAX, "count should be greater than 0")
    return _Asked(words[:several], front, count or 1)


@command(
    "lmpop",
    -4,
    WRITE | MOVABLE_KEYS,
    group="list",
    since="7.0.0",
    summary="Returns multiple elements from a list after removing them. Deletes the list if the "
    "last element was popped.",
    complexity="O(N+M) where N is the number of provided keys and M is the number of elements "
    "returned.",
    keys=numbered_keys(*_TAKEN),
    categories=("list",),
)
def lmpop(ctx: WriteContext, number: bytes, *words: bytes) -> Popped | resp.NullArray:
    popped = _pop_first(ctx, *_asked(number, words))
    return resp.NULL_ARRAY if popped is None else list(popped)


@command(
    "blmpop",
    -5,
    WRITE | BLOCKING | MOVABLE_KEYS | WALK,
    group="list",
    since="7.0.0",
    summary="Pops the first element from one of multiple lists. Blocks until an element is "
    "available otherwise. Deletes the list if the last element was popped.",
    complexity="O(N+M) where N is the number of provided keys and M is the number of elements "
    "returned.",
    keys=numbered_keys(*_TAKEN, at=2),
    categories=("list",),
)
def blmpop(ctx: WriteContext, timeout: bytes, number: bytes, *words: bytes) -> Popped | Blocked:
    asked = _asked(number, words)
    timeout_ms = parse_timeout_seconds(timeout, ctx.now)
    popped = _pop_first(ctx, *asked)
    return _wait(asked.names, timeout_ms) if popped is None else list(popped)


# -- BLMOVE --------------------------------------------------------------------------------------


def _move_or_wait(
    ctx: WriteContext, source: bytes, destination: bytes, sides: tuple[bool, bool], timeout_ms: int
) -> bytes | Blocked | None:
    """Where nothing may block the reply isn't that of a time-out (blmoveGenericCommand)."""
    value = list_commands.move(ctx, source, destination, *sides)
    if value is None and not ctx.deny_blocking:
        return _wait((source,), timeout_ms)
    return value


@command(
    "blmove",
    6,
    WRITE | DENYOOM | BLOCKING | WALK,
    group="list",
    since="6.2.0",
    summary="Pops an element from a list, pushes it to another list and returns it. Blocks until "
    "an element is available otherwise. Deletes the list if the last element was moved.",
    keys=MOVED_KEYS,
    categories=("list",),
)
def blmove(
    ctx: WriteContext,
    source: bytes,
    destination: bytes,
    wherefrom: bytes,
    whereto: bytes,
    timeout: bytes,
) -> bytes | Blocked | None:
    sides = (list_commands.side(wherefrom), list_commands.side(whereto))
    timeout_ms = parse_timeout_seconds(timeout, ctx.now)
    return _move_or_wait(ctx, source, destination, sides, timeout_ms)


@command(
    "brpoplpush",
    4,
    WRITE | DENYOOM | BLOCKING | WALK,
    group="list",
    since="2.2.0",
    summary="Pops an element from a list, pushes it to another list and returns it. Block until an "
    "element is available otherwise. Deletes the list if the last element was popped.",
    keys=MOVED_KEYS,
    categories=("list",),
    history=_DOUBLE,
    deprecated=("6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments"),
)
def brpoplpush(
    ctx: WriteContext, source: bytes, destination: bytes, timeout: bytes
) -> bytes | Blocked | None:
    timeout_ms = parse_timeout_seconds(timeout, ctx.now)
    return _move_or_wait(ctx, source, destination, (False, True), timeout_ms)
