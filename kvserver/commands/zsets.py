"""Commands on the members of one sorted set: ZADD, ZINCRBY, ZREM, ZSCORE, ZMSCORE, ZCARD, ZRANK,
ZREVRANK, ZCOUNT, ZLEXCOUNT.

How a sorted set is kept is in types/zsets.py. Source: Redis 7.4's t_zset.c.
"""

from __future__ import annotations

import math
from typing import Any, Final

from kvserver import errors, numbers
from kvserver.codec import ZSET
from kvserver.commands.zset_bounds import LexRange, ScoreRange
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, command, key
from kvserver.resp import NULL_ARRAY
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import zset_memory
from kvserver.types.zsets import MutableSortedSet, SortedSet, ordered

_CATEGORIES: Final = ("sortedset",)

# ZADD's options, as bits.
_NX: Final = 1
_XX: Final = 2
_GT: Final = 4
_LT: Final = 8
_CH: Final = 16
_INCR: Final = 32
#: So many digits are a number without any doubt.
_FEW_DIGITS: Final = 300
_OPTIONS: Final = {b"NX": _NX, b"XX": _XX, b"GT": _GT, b"LT": _LT, b"CH": _CH, b"INCR": _INCR}


def look_up(ctx: ReadContext, name: bytes) -> SortedSet | None:
    """A sorted set to be read."""
    rows = ctx.db.collection(name, ZSET)
    return None if rows is None else SortedSet(rows)


def mutable(ctx: WriteContext, name: bytes) -> MutableSortedSet | None:
    """A sorted set to be changed."""
    rows = ctx.db.mutable(name, ZSET)
    return None if rows is None else MutableSortedSet(rows, ctx.server.encodings.zsets)


def mutable_or_opened(ctx: WriteContext, name: bytes) -> MutableSortedSet | None:
    """The same, perhaps as the command before left it: for commands that save what they change."""
    found = ctx.db.opened(name, ZSET)
    if found is None:
        return mutable(ctx, name)
    assert isinstance(found, MutableSortedSet)
    found.resume(ctx.server.encodings.zsets)
    return found


def parse_score(text: bytes) -> float:
    """A score; error if it is no number."""
    if text.isdigit() and len(text) <= _FEW_DIGITS:
        return float(text)
    score = numbers.parse_double(text)
    if score is None:
        raise errors.not_float()
    return score


def removed(ctx: WriteContext, name: bytes, found: MutableSortedSet, event: bytes) -> None:
    """Members went: write what is left, and tell."""
    found.save()
    ctx.notify(notify.ZSET, event, name)
    if not found.count:
        ctx.notify(notify.GENERIC, b"del", name)


def emptied(ctx: WriteContext, name: bytes, found: MutableSortedSet, event: bytes) -> None:
    """All members go at once: drop the key, and tell."""
    zset_memory.forget(found.rows)
    ctx.db.delete(name)
    ctx.notify(notify.ZSET, event, name)
    ctx.notify(notify.GENERIC, b"del", name)


@command(
    "zadd",
    -4,
    WRITE | DENYOOM | FAST,
    group="sorted-set",
    since="1.2.0",
    summary="Adds one or more members to a sorted set, or updates their scores. Creates the key if "
    "it doesn't exist.",
    complexity="O(log(N)) for each item added, where N is the number of elements in the sorted "
    "set.",
    keys=key("RW", "UPDATE"),
    categories=_CATEGORIES,
    history=(
        ("2.4.0", "Accepts multiple elements."),
        ("3.0.2", "Added the `XX`, `NX`, `CH` and `INCR` options."),
        ("6.2.0", "Added the `GT` and `LT` options."),
    ),
)
def zadd(ctx: WriteContext, name: bytes, *words: bytes) -> Any:
    return _add(ctx, name, words, 0)


@command(
    "zincrby",
    4,
    WRITE | DENYOOM | FAST,
    group="sorted-set",
    since="1.2.0",
    summary="Increments the score of a member in a sorted set.",
    complexity="O(log(N)) where N is the number of elements in the sorted set.",
    keys=key("RW", "ACCESS", "UPDATE"),
    categories=_CATEGORIES,
)
def zincrby(ctx: WriteContext, name: bytes, increment: bytes, member: bytes) -> Any:
    # ZADD's options are taken here too, and then there is no pair left.
    return _add(ctx, name, (increment, member), _INCR)


def _add(ctx: WriteContext, name: bytes, words: tuple[bytes, ...], options: int) -> Any:
    """zaddGenericCommand."""
    at = 0
    while at < len(words):
        option = _OPTIONS.get(words[at].upper(), 0)
        if not option:
            break
        options |= option
        at += 1
    size = (len(words) - at) // 2
    _check_options(options, len(words) - at)
    scores = [parse_score(text) for text in words[at::2]]
    found = mutable_or_opened(ctx, name)
    if found is None:
        if options & _XX:
            return None if options & _INCR else 0
        found = MutableSortedSet(ctx.db.new(name, ZSET), ctx.server.encodings.zsets)
    found.expect(size, len(words[at + 1]))
    if options & _INCR:
        return _increment(ctx, name, found, words[at + 1], scores[0], options)
    added = updated = 0
    for score in scores:
        member = words[at + 1]
        at += 2
        before = found.peek(member)
        if before is None:
            if not options & _XX:
                found.add(member, score)
                added += 1
        elif score != before and _wanted(options, before, score):
            found.move(member, before, score)
            updated += 1
    if added or updated:
        found.save()
        ctx.notify(notify.ZSET, b"zadd", name)
    return added + updated if options & _CH else added


def _check_options(options: int, rest: int) -> None:
    """Of ZADD's options some exclude each other; `rest` is the number of words after them."""
    if rest % 2 or not rest:
        raise errors.syntax()
    if options & _NX and options & _XX:
        raise errors.error("XX and NX options at the same time are not compatible")
    conditions = bool(options & _GT) + bool(options & _LT) + bool(options & _NX)
    if conditions > 1:
        raise errors.error("GT, LT, and/or NX options at the same time are not compatible")
    if options & _INCR and rest > 2:
        raise errors.error("INCR option supports a single increment-element pair")


def _wanted(options: int, before: float, score: float) -> bool:
    """Whether a member that is there gets a score."""
    if options & _NX:
        return False
    return not (options & _LT and score >= before) and not (options & _GT and score <= before)


def _increment(
    ctx: WriteContext,
    name: bytes,
    found: MutableSortedSet,
    member: bytes,
    increment: float,
    options: int,
) -> float | None:
    """Add to a member's score; the new one, None if nothing is done."""
    before = found.peek(member)
    if before is None:
        if options & _XX:
            return None
        found.add(member, increment)
    else:
        if options & _NX:
            return None
        total = before + increment
        if math.isnan(total):
            raise errors.error("resulting score is not a number (NaN)")
        if not _wanted(options, before, total):
            return None
        if total == before:
            return total
        found.move(member, before, total)
        increment = total
    found.save()
    ctx.notify(notify.ZSET, b"zincr", name)
    return increment


@command(
    "zrem",
    -3,
    WRITE | FAST,
    group="sorted-set",
    since="1.2.0",
    summary="Removes one or more members from a sorted set. Deletes the sorted set if all members "
    "were removed.",
    complexity="O(M*log(N)) with N being the number of elements in the sorted set and M the number "
    "of elements to be removed.",
    keys=key("RW", "DELETE"),
    categories=_CATEGORIES,
    history=(("2.4.0", "Accepts multiple elements."),),
)
def zrem(ctx: WriteContext, name: bytes, *members: bytes) -> int:
    found = mutable(ctx, name)
    if found is None:
        return 0
    count = 0
    for member in members:
        score = found.peek(member)
        if score is not None:
            found.remove(member, score)
            count += 1
    if count:
        removed(ctx, name, found, b"zrem")
    return count


@command(
    "zscore",
    3,
    READONLY | FAST,
    group="sorted-set",
    since="1.2.0",
    summary="Returns the score of a member in a sorted set.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zscore(ctx: ReadContext, name: bytes, member: bytes) -> float | None:
    found = look_up(ctx, name)
    return None if found is None else found.score(member)


@command(
    "zmscore",
    -3,
    READONLY | FAST,
    group="sorted-set",
    since="6.2.0",
    summary="Returns the score of one or more members in a sorted set.",
    complexity="O(N) where N is the number of members being requested.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zmscore(ctx: ReadContext, name: bytes, *members: bytes) -> list[float | None]:
    found = look_up(ctx, name)
    if found is None:
        return [None] * len(members)
    return [found.score(member) for member in members]


@command(
    "zcard",
    2,
    READONLY | FAST,
    group="sorted-set",
    since="1.2.0",
    summary="Returns the number of members in a sorted set.",
    keys=key("RO"),
    categories=_CATEGORIES,
)
def zcard(ctx: ReadContext, name: bytes) -> int:
    found = look_up(ctx, name)
    return 0 if found is None else found.count


_RANK_HISTORY: Final = (("7.2.0", "Added the optional `WITHSCORE` argument."),)


@command(
    "zrank",
    -3,
    READONLY | FAST,
    group="sorted-set",
    since="2.0.0",
    summary="Returns the index of a member in a sorted set ordered by ascending scores.",
    complexity="O(log(N))",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    history=_RANK_HISTORY,
)
def zrank(ctx: ReadContext, name: bytes, member: bytes, *words: bytes) -> Any:
    return _rank(ctx, "zrank", name, member, words)


@command(
    "zrevrank",
    -3,
    READONLY | FAST,
    group="sorted-set",
    since="2.0.0",
    summary="Returns the index of a member in a sorted set ordered by descending scores.",
    complexity="O(log(N))",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    history=_RANK_HISTORY,
)
def zrevrank(ctx: ReadContext, name: bytes, member: bytes, *words: bytes) -> Any:
    return _rank(ctx, "zrevrank", name, member, words)


def _rank(
    ctx: ReadContext, command_name: str, name: bytes, member: bytes, words: tuple[bytes, ...]
) -> Any:
    if len(words) > 1:
        raise errors.wrong_arity(command_name)
    if words and words[0].upper() != b"WITHSCORE":
        raise errors.syntax()
    found = look_up(ctx, name)
    score = None if found is None else found.score(member)
    if found is None or score is None:
        return NULL_ARRAY if words else None
    rank = found.below(ordered(score) + member)
    if command_name == "zrevrank":
        rank = found.count - 1 - rank
    return [rank, score] if words else rank


@command(
    "zcount",
    4,
    READONLY | FAST,
    group="sorted-set",
    since="2.0.0",
    summary="Returns the count of members in a sorted set that have scores within a range.",
    complexity="O(log(N)) with N being the number of elements in the sorted set.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zcount(ctx: ReadContext, name: bytes, least: bytes, most: bytes) -> int:
    wanted = ScoreRange(least, most)
    found = look_up(ctx, name)
    return 0 if found is None else wanted.count(found)


@command(
    "zlexcount",
    4,
    READONLY | FAST,
    group="sorted-set",
    since="2.8.9",
    summary="Returns the number of members in a sorted set within a lexicographical range.",
    complexity="O(log(N)) with N being the number of elements in the sorted set.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zlexcount(ctx: ReadContext, name: bytes, least: bytes, most: bytes) -> int:
    wanted = LexRange(least, most)
    found = look_up(ctx, name)
    return 0 if found is None else wanted.count(found)
