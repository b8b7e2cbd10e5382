"""Taking members from the ends of sorted sets: ZPOPMIN, ZPOPMAX, ZMPOP, and the forms that wait for
them.

Source: Redis 7.4's t_zset.c, genericZpopCommand and blockingGenericZpopCommand.
"""

from __future__ import annotations

from typing import Any, Final

from kvserver import errors
from kvserver.args import Cursor, parse_int_in, parse_timeout_seconds
from kvserver.codec import ZSET
from kvserver.commands import zsets
from kvserver.numbers import INT64_MAX
from kvserver.registry import (
    BLOCKING,
    FAST,
    MOVABLE_KEYS,
    WALK,
    WRITE,
    command,
    key,
    keys,
    numbered_keys,
)
from kvserver.resp import NULL_ARRAY, Pairs
from kvserver.state.context import WriteContext, wait_for_keys
from kvserver.types.zsets import MutableSortedSet, Pair, pair

_CATEGORIES: Final = ("sortedset",)
_POP_COMPLEXITY: Final = (
    "O(log(N)*M) with N being the number of elements in the sorted set, and M being the number of "
    "elements popped."
)
_WAIT_COMPLEXITY: Final = "O(log(N)) with N being the number of elements in the sorted set."
_MPOP_COMPLEXITY: Final = (
    "O(K) + O(M*log(N)) where K is the number of provided keys, N being the number of elements in "
    "the sorted set, and M being the number of elements popped."
)
_SECONDS: Final = (("6.0.0", "`timeout` is interpreted as a double instead of an integer."),)


def _pop(
    ctx: WriteContext, name: bytes, found: MutableSortedSet, count: int, highest: bool
) -> list[Pair]:
    """Take members from an end, and tell."""
    event = b"zpopmax" if highest else b"zpopmin"
    if count < found.count:
        pairs = found.pop(count, highest)
        zsets.removed(ctx, name, found, event)
    else:
        pairs = list(map(pair, found.scan(reverse=highest)))
        zsets.emptied(ctx, name, found, event)
    return pairs


def _first(ctx: WriteContext, names: tuple[bytes, ...]) -> tuple[bytes, MutableSortedSet | None]:
    """The first key that there is, which must be a sorted set."""
    for name in names:
        found = zsets.mutable(ctx, name)
        if found is not None:
            return name, found
    return b"", None


def _pop_one_key(ctx: WriteContext, name: bytes, words: tuple[bytes, ...], highest: bool) -> Any:
    """zpopMinMaxCommand."""
    if len(words) > 1:
        raise errors.syntax()
    count = 1
    if words:
        count = parse_int_in(words[0], 0, INT64_MAX, "value is out of range, must be positive")
    found = zsets.mutable_or_opened(ctx, name)
    if found is None or count == 0:
        return []
    pairs = _pop(ctx, name, found, count, highest)
    return Pairs(pairs) if words else list(pairs[0])


@command(
    "zpopmin",
    -2,
    WRITE | FAST,
    group="sorted-set",
    since="5.0.0",
    summary="Returns the lowest-scoring members from a sorted set after removing them. Deletes the "
    "sorted set if the last member was popped.",
    complexity=_POP_COMPLEXITY,
    keys=key("RW", "ACCESS", "DELETE"),
    categories=_CATEGORIES,
)
def zpopmin(ctx: WriteContext, name: bytes, *words: bytes) -> Any:
    return _pop_one_key(ctx, name, words, False)


@command(
    "zpopmax",
    -2,
    WRITE | FAST,
    group="sorted-set",
    since="5.0.0",
    summary="Returns the highest-scoring members from a sorted set after removing them. Deletes "
    "the sorted set if the last member was popped.",
    complexity=_POP_COMPLEXITY,
    keys=key("RW", "ACCESS", "DELETE"),
    categories=_CATEGORIES,
)
def zpopmax(ctx: WriteContext, name: bytes, *words: bytes) -> Any:
    return _pop_one_key(ctx, name, words, True)


def _wait_to_pop(ctx: WriteContext, words: tuple[bytes, ...], highest: bool) -> Any:
    timeout_ms = parse_timeout_seconds(words[-1], ctx.now)
    names = words[:-1]
    name, found = _first(ctx, names)
    if found is None:
        return wait_for_keys(names, (ZSET,), timeout_ms, NULL_ARRAY)
    ((member, score),) = _pop(ctx, name, found, 1, highest)
    return [name, member, score]


@command(
    "bzpopmin",
    -3,
    WRITE | FAST | BLOCKING | WALK,
    group="sorted-set",
    since="5.0.0",
    summary="Removes and returns the member with the lowest score from one or more sorted sets. "
    "Blocks until a member is available otherwise. Deletes the sorted set if the last element was "
    "popped.",
    complexity=_WAIT_COMPLEXITY,
    keys=keys("RW", "ACCESS", "DELETE", last=-2),
    categories=_CATEGORIES,
    history=_SECONDS,
)
def bzpopmin(ctx: WriteContext, *words: bytes) -> Any:
    return _wait_to_pop(ctx, words, False)


@command(
    "bzpopmax",
    -3,
    WRITE | FAST | BLOCKING | WALK,
    group="sorted-set",
    since="5.0.0",
    summary="Removes and returns the member with the highest score from one or more sorted sets. "
    "Blocks until a member available otherwise.  Deletes the sorted set if the last element was "
    "popped.",
    complexity=_WAIT_COMPLEXITY,
    keys=keys("RW", "ACCESS", "DELETE", last=-2),
    categories=_CATEGORIES,
    history=_SECONDS,
)
def bzpopmax(ctx: WriteContext, *words: bytes) -> Any:
    return _wait_to_pop(ctx, words, True)


class _Request:
    """The arguments of ZMPOP: how many keys, the keys, which end, and COUNT."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        size = parse_int_in(words[0], 1, INT64_MAX, "numkeys should be greater than 0")
        self.names = words[1 : size + 1]
        end = words[size + 1].upper() if size + 1 < len(words) else b""
        if end not in (b"MIN", b"MAX"):
            raise errors.syntax()
        self.highest = end == b"MAX"
        self.count = 1
        options = Cursor(words, size + 2)
        if options.more():
            text = options.value(b"COUNT")
            if text is None:
                raise errors.syntax()
            self.count = parse_int_in(text, 1, INT64_MAX, "count should be greater than 0")
        options.end()

    def pop(self, ctx: WriteContext) -> Any:
        """The reply; None if no key has members."""
        name, found = _first(ctx, self.names)
        if found is None:
            return None
        pairs = _pop(ctx, name, found, self.count, self.highest)
        return [name, [list(one) for one in pairs]]


@command(
    "zmpop",
    -4,
    WRITE | MOVABLE_KEYS,
    group="sorted-set",
    since="7.0.0",
    summary="Returns the highest- or lowest-scoring members from one or more sorted sets after "
    "removing them. Deletes the sorted set if the last member was popped.",
    complexity=_MPOP_COMPLEXITY,
    keys=numbered_keys("RW", "ACCESS", "DELETE"),
    categories=_CATEGORIES,
)
def zmpop(ctx: WriteContext, *words: bytes) -> Any:
    reply = _Request(words).pop(ctx)
    return NULL_ARRAY if reply is None else reply


@command(
    "bzmpop",
    -5,
    WRITE | BLOCKING | MOVABLE_KEYS | WALK,
    group="sorted-set",
    since="7.0.0",
    summary="Removes and returns a member by score from one or more sorted sets. Blocks until a "
    "member is available otherwise. Deletes the sorted set if the last element was popped.",
    complexity=_MPOP_COMPLEXITY,
    keys=numbered_keys("RW", "ACCESS", "DELETE", at=2),
    categories=_CATEGORIES,
)
def bzmpop(ctx: WriteContext, timeout: bytes, *words: bytes) -> Any:
    request = _Request(words)
    timeout_ms = parse_timeout_seconds(timeout, ctx.now)
    reply = request.pop(ctx)
    if reply is None:
        return wait_for_keys(request.names, (ZSET,), timeout_ms, NULL_ARRAY)
    return reply
