"""Ranges of a sorted set, by rank, score or member: ZRANGE and its older forms, ZRANGESTORE, and
ZREMRANGEBYRANK, ZREMRANGEBYSCORE, ZREMRANGEBYLEX.

Source: Redis 7.4's t_zset.c, zrangeGenericCommand and zremrangeGenericCommand.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from kvserver import errors
from kvserver.args import Cursor, parse_int
from kvserver.codec import ZSET
from kvserver.collection import Collection
from kvserver.commands import zset_walks, zsets
from kvserver.commands.zset_bounds import LexRange, ScoreRange
from kvserver.registry import DENYOOM, READONLY, WALK, WRITE, KeySpec, command, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.storage.overlay import Entry
from kvserver.types.zsets import MutableSortedSet, SortedSet, member_of, pair

_CATEGORIES: Final = ("sortedset",)

# What a range is of.
_AUTO: Final = 0
_RANK: Final = 1
_SCORE: Final = 2
_LEX: Final = 3

_FORWARD: Final = 1
_REVERSE: Final = 2


class _Query:
    """The arguments of a command of ZRANGE's family after the key. `kind` and `direction` are
    those of the command, _AUTO where options say them."""

    def __init__(
        self, words: tuple[bytes, ...], kind: int, direction: int, store: bool = False
    ) -> None:
        self.kind = kind
        self.direction = direction
        self.with_scores = False
        self.offset = 0
        self.limit = -1
        self._parse(words, store)
        self.kind = self.kind or _RANK
        self.reverse = self.direction == _REVERSE
        if self.limit != -1 and self.kind == _RANK:
            raise errors.error(
                "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
            )
        if self.with_scores and self.kind == _LEX:
            raise errors.error("syntax error, WITHSCORES not supported in combination with BYLEX")
        first, last = words[0], words[1]
        if self.kind == _RANK:
            self.start, self.stop = parse_int(first), parse_int(last)
            return
        if self.reverse:
            first, last = last, first
        self.range: ScoreRange | LexRange = (
            ScoreRange(first, last) if self.kind == _SCORE else LexRange(first, last)
        )

    def _parse(self, words: tuple[bytes, ...], store: bool) -> None:
        options = Cursor(words, 2)
        while options.more():
            if not store and options.flag(b"WITHSCORES"):
                self.with_scores = True
            elif options.remaining() > 2 and options.flag(b"LIMIT"):
                self.offset = parse_int(options.next())
                self.limit = parse_int(options.next())
            elif self.direction == _AUTO and options.flag(b"REV"):
                self.direction = _REVERSE
            elif self.kind == _AUTO and options.flag(b"BYLEX"):
                self.kind = _LEX
            elif self.kind == _AUTO and options.flag(b"BYSCORE"):
                self.kind = _SCORE
            else:
                raise errors.syntax()

    def entries(self, found: SortedSet) -> Iterator[Entry]:
        """The index rows in the range."""
        if self.kind == _RANK:
            first, count = span(self.start, self.stop, found.count)
            return islice(found.scan_from(first, self.reverse), count) if count else iter(())
        if self.offset < 0 or self.limit == 0:
            return iter(())
        entries = self.range.entries(found, self.reverse, self.offset)
        return entries if self.limit < 0 else islice(entries, min(self.limit, found.count))


def span(start: int, stop: int, size: int) -> tuple[int, int]:
    """(rank of the first, how many) of the elements from one rank to another; negative ones count
    from the end."""
    if start < 0:
        start = max(start + size, 0)
    if stop < 0:
        stop += size
    stop = min(stop, size - 1)
    return start, max(stop - start + 1, 0)


def _range(
    ctx: ReadContext, name: bytes, words: tuple[bytes, ...], kind: int, direction: int
) -> Any:
    query = _Query(words, kind, direction)
    found = zsets.look_up(ctx, name)
    if found is None:
        return []
    entries = query.entries(found)
    if query.with_scores:
        return zset_walks.reply(map(pair, entries), with_scores=True)
    return zset_walks.reply_members(map(member_of, entries))


@command(
    "zrange",
    -4,
    READONLY | WALK,
    group="sorted-set",
    since="1.2.0",
    summary="Returns members in a sorted set within a range of indexes.",
    complexity="O(log(N)+M) with N being the number of elements in the sorted set and M the number "
    "of elements returned.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    history=(("6.2.0", "Added the `REV`, `BYSCORE`, `BYLEX` and `LIMIT` options."),),
)
def zrange(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    return _range(ctx, name, words, _AUTO, _AUTO)


@command(
    "zrevrange",
    -4,
    READONLY | WALK,
    group="sorted-set",
    since="1.2.0",
    summary="Returns members in a sorted set within a range of indexes in reverse order.",
    complexity="O(log(N)+M) with N being the number of elements in the sorted set and M the number "
    "of elements returned.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    deprecated=("6.2.0", "`ZRANGE` with the `REV` argument"),
)
def zrevrange(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    return _range(ctx, name, words, _RANK, _REVERSE)


_BY_SCORE_COMPLEXITY: Final = (
    "O(log(N)+M) with N being the number of elements in the sorted set and M the number of "
    "elements being returned. If M is constant (e.g. always asking for the first 10 elements with "
    "LIMIT), you can consider it O(log(N))."
)


@command(
    "zrangebyscore",
    -4,
    READONLY | WALK,
    group="sorted-set",
    since="1.0.5",
    summary="Returns members in a sorted set within a range of scores.",
    complexity=_BY_SCORE_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    history=(("2.0.0", "Added the `WITHSCORES` modifier."),),
    deprecated=("6.2.0", "`ZRANGE` with the `BYSCORE` argument"),
)
def zrangebyscore(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    return _range(ctx, name, words, _SCORE, _FORWARD)


@command(
    "zrevrangebyscore",
    -4,
    READONLY | WALK,
    group="sorted-set",
    since="2.2.0",
    summary="Returns members in a sorted set within a range of scores in reverse order.",
    complexity=_BY_SCORE_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    history=(("2.1.6", "`min` and `max` can be exclusive."),),
    deprecated=("6.2.0", "`ZRANGE` with the `REV` and `BYSCORE` arguments"),
)
def zrevrangebyscore(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    return _range(ctx, name, words, _SCORE, _REVERSE)


@command(
    "zrangebylex",
    -4,
    READONLY | WALK,
    group="sorted-set",
    since="2.8.9",
    summary="Returns members in a sorted set within a lexicographical range.",
    complexity=_BY_SCORE_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    deprecated=("6.2.0", "`ZRANGE` with the `BYLEX` argument"),
)
def zrangebylex(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    return _range(ctx, name, words, _LEX, _FORWARD)


@command(
    "zrevrangebylex",
    -4,
    READONLY | WALK,
    group="sorted-set",
    since="2.8.9",
    summary="Returns members in a sorted set within a lexicographical range in reverse order.",
    complexity=_BY_SCORE_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    deprecated=("6.2.0", "`ZRANGE` with the `REV` and `BYLEX` arguments"),
)
def zrevrangebylex(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    return _range(ctx, name, words, _LEX, _REVERSE)


@command(
    "zrangestore",
    -5,
    WRITE | DENYOOM,
    group="sorted-set",
    since="6.2.0",
    summary="Stores a range of members from sorted set in a key.",
    complexity="O(log(N)+M) with N being the number of elements in the sorted set and M the number "
    "of elements stored into the destination key.",
    keys=(KeySpec(1, 1, 1, ("OW", "UPDATE")), KeySpec(2, 2, 1, ("RO", "ACCESS"))),
    categories=_CATEGORIES,
)
def zrangestore(ctx: WriteContext, destination: bytes, name: bytes, *words: bytes) -> int:
    query = _Query(words, _AUTO, _AUTO, store=True)
    rows = source(ctx, name)
    pairs = [] if rows is None else list(map(pair, query.entries(SortedSet(rows))))
    if not pairs:
        ctx.store_nothing(destination)
        return 0
    target = MutableSortedSet(ctx.db.new(destination, ZSET), ctx.server.encodings.zsets)
    # Redis expects as many elements as it knows of in advance (zrangeResultBeginStore).
    target.expect(len(pairs) if query.kind == _RANK else 0, 0)
    for member, score in pairs:
        target.add(member, score)
    target.save()
    ctx.notify(notify.ZSET, b"zrangestore", destination)
    return len(pairs)


def source(ctx: WriteContext, name: bytes) -> Collection | None:
    """A sorted set that a command which writes another only reads."""
    return ctx.keyspace.readers[ctx.session.db].collection(name, ZSET)


_REMOVE_COMPLEXITY: Final = (
    "O(log(N)+M) with N being the number of elements in the sorted set and M the number of "
    "elements removed by the operation."
)


@command(
    "zremrangebyrank",
    4,
    WRITE,
    group="sorted-set",
    since="2.0.0",
    summary="Removes members in a sorted set within a range of indexes. Deletes the sorted set if "
    "all members were removed.",
    complexity=_REMOVE_COMPLEXITY,
    keys=key("RW", "DELETE"),
    categories=_CATEGORIES,
)
def zremrangebyrank(ctx: WriteContext, name: bytes, start: bytes, stop: bytes) -> int:
    return _remove_range(ctx, name, _Query((start, stop), _RANK, _FORWARD), b"zremrangebyrank")


@command(
    "zremrangebyscore",
    4,
    WRITE,
    group="sorted-set",
    since="1.2.0",
    summary="Removes members in a sorted set within a range of scores. Deletes the sorted set if "
    "all members were removed.",
    complexity=_REMOVE_COMPLEXITY,
    keys=key("RW", "DELETE"),
    categories=_CATEGORIES,
)
def zremrangebyscore(ctx: WriteContext, name: bytes, least: bytes, most: bytes) -> int:
    return _remove_range(ctx, name, _Query((least, most), _SCORE, _FORWARD), b"zremrangebyscore")


@command(
    "zremrangebylex",
    4,
    WRITE,
    group="sorted-set",
    since="2.8.9",
    summary="Removes members in a sorted set within a lexicographical range. Deletes the sorted "
    "set if all members were removed.",
    complexity=_REMOVE_COMPLEXITY,
    keys=key("RW", "DELETE"),
    categories=_CATEGORIES,
)
def zremrangebylex(ctx: WriteContext, name: bytes, least: bytes, most: bytes) -> int:
    return _remove_range(ctx, name, _Query((least, most), _LEX, _FORWARD), b"zremrangebylex")


def _remove_range(ctx: WriteContext, name: bytes, query: _Query, event: bytes) -> int:
    found = zsets.mutable(ctx, name)
    if found is None:
        return 0
    entries = list(query.entries(found))
    if len(entries) == found.count:
        zsets.emptied(ctx, name, found, event)
    elif entries:
        found.remove_all(entries)
        zsets.removed(ctx, name, found, event)
    return len(entries)
