"""What several sorted sets, or sets, have: ZUNION, ZINTER, ZDIFF, their STORE forms, ZINTERCARD.

Worked out in one go: a reply is in the order of scores, which are known at the end. Source: Redis
7.4's t_zset.c, zunionInterDiffGenericCommand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from kvserver import codec, errors
from kvserver.args import Cursor, parse_int, parse_int_in
from kvserver.codec import SET, ZSET
from kvserver.collection import Collection
from kvserver.commands import zset_walks
from kvserver.database import Reader
from kvserver.numbers import INT64_MAX, parse_double
from kvserver.registry import (
    DENYOOM,
    MOVABLE_KEYS,
    READONLY,
    WALK,
    WRITE,
    KeySpec,
    command,
    numbered_keys,
)
from kvserver.state import notify
from kvserver.state.context import Context, ReadContext, WriteContext
from kvserver.types import sets
from kvserver.types.zsets import MutableSortedSet, Pair, SortedSet, ordered, pair

_CATEGORIES: Final = ("sortedset",)
_STORED: Final = (
    KeySpec(1, 1, 1, ("OW", "UPDATE")),
    KeySpec(2, -1, 1, ("RO", "ACCESS"), numbered=True),
)
_SUM: Final = b"SUM"
_MIN: Final = b"MIN"
_MAX: Final = b"MAX"


class _Source:
    """One of the keys: a set, whose members have the score 1, a sorted set, or nothing."""

    def __init__(self, db: Reader, name: bytes) -> None:
        row = db.row(name)
        kind = codec.MISSING if row is None else codec.row_type(row)
        self.weight = 1.0
        self._rows: Collection | None = None
        self._sorted: SortedSet | None = None
        if row is not None:
            if kind not in (SET, ZSET):
                raise errors.wrong_type()
            self._rows = Collection(db.data, db.db.prefix, row)
            if kind == ZSET:
                self._sorted = SortedSet(self._rows)

    @property
    def count(self) -> int:
        """How many members it has."""
        return 0 if self._rows is None else self._rows.count

    def pairs(self) -> Iterator[Pair]:
        """The members and their scores."""
        if self._sorted is not None:
            return map(pair, self._sorted.scan())
        if self._rows is not None:
            return map(_with_one, sets.iterate(self._rows))
        return iter(())

    def score(self, member: bytes) -> float | None:
        """A member's score."""
        if self._sorted is not None:
            return self._sorted.score(member)
        if self._rows is not None and sets.contains(self._rows, member):
            return 1.0
        return None


def _with_one(member: bytes) -> Pair:
    return member, 1.0


class _Query:
    """The arguments: the number of keys, the keys, then options. `name` is the command's."""

    def __init__(
        self, ctx: Context, name: str, words: tuple[bytes, ...], *, weighs: bool, shows: bool
    ) -> None:
        size = parse_int(words[0])
        if size < 1:
            raise errors.error(f"at least 1 input key is needed for '{name}' command")
        if size > len(words) - 1:
            raise errors.syntax()
        db = ctx.keyspace.readers[ctx.session.db]
        self.sources = [_Source(db, key) for key in words[1 : size + 1]]
        self.aggregate = _SUM
        self.with_scores = False
        self.limit = 0
        options = Cursor(words, size + 1)
        while options.more():
            if not self._option(options, weighs, shows, name == "zintercard"):
                raise errors.syntax()

    def _option(self, options: Cursor, weighs: bool, shows: bool, counts: bool) -> bool:
        """Take an option; False if there is none that the command knows."""
        if weighs and options.remaining() > len(self.sources) and options.flag(b"WEIGHTS"):
            for source in self.sources:
                weight = parse_double(options.next())
                if weight is None:
                    raise errors.error("weight value is not a float")
                source.weight = weight
            return True
        if weighs and (text := options.value(b"AGGREGATE")) is not None:
            self.aggregate = text.upper()
            return self.aggregate in (_SUM, _MIN, _MAX)
        if shows and options.flag(b"WITHSCORES"):
            self.with_scores = True
            return True
        if counts and (text := options.value(b"LIMIT")) is not None:
            self.limit = parse_int_in(text, 0, INT64_MAX, "LIMIT can't be negative")
            return True
        return False

    def union(self) -> dict[bytes, float]:
        """What any of them has."""
        found: dict[bytes, float] = {}
        for source in self._by_size():
            weight = source.weight
            for member, score in source.pairs():
                score = _number(weight * score)
                before = found.get(member)
                found[member] = score if before is None else self._together(before, score)
        return found

    def intersection(self) -> dict[bytes, float]:
        """What all of them have."""
        first, *others = self._by_size()
        found: dict[bytes, float] = {}
        for member, score in first.pairs():
            total = _number(first.weight * score)
            for other in others:
                value = other.score(member)
                if value is None:
                    break
                total = self._together(total, other.weight * value)
            else:
                found[member] = total
        return found

    def difference(self) -> dict[bytes, float]:
        """What the first has and no other."""
        first, *others = self.sources
        others = [other for other in others if other.count]
        return {
            member: score
            for member, score in first.pairs()
            if all(other.score(member) is None for other in others)
        }

    def cardinality(self) -> int:
        """How many members all of them have, counted up to the limit."""
        first, *others = self._by_size()
        count = 0
        for member, _ in first.pairs():
            if all(other.score(member) is not None for other in others):
                count += 1
                if count == self.limit:
                    break
        return count

    def _by_size(self) -> list[_Source]:
        return sorted(self.sources, key=_count)

    def _together(self, score: float, other: float) -> float:
        """Two scores of a member (zunionInterAggregate)."""
        if self.aggregate == _SUM:
            return _number(score + other)
        if self.aggregate == _MIN:
            return other if other < score else score
        return other if other > score else score


def _count(source: _Source) -> int:
    return source.count


def _number(score: float) -> float:
    """0 for NaN: infinities that cancel each other, or are weighted with 0."""
    return 0.0 if math.isnan(score) else score


def _place(item: Pair) -> tuple[bytes, bytes]:
    return ordered(item[1]), item[0]


def _reply(scores: dict[bytes, float], with_scores: bool) -> Any:
    return zset_walks.reply(iter(sorted(scores.items(), key=_place)), with_scores)


def _store(ctx: WriteContext, destination: bytes, scores: dict[bytes, float], event: bytes) -> int:
    if not scores:
        ctx.store_nothing(destination)
        return 0
    target = MutableSortedSet(ctx.db.new(destination, ZSET), ctx.server.encodings.zsets)
    target.fill(scores)
    target.save()
    ctx.notify(notify.ZSET, event, destination)
    return len(scores)


_UNION_STORE_COMPLEXITY: Final = (
    "O(N)+O(M log(M)) with N being the sum of the sizes of the input sorted sets, and M being the "
    "number of elements in the resulting sorted set."
)
_UNION_COMPLEXITY: Final = (
    "O(N)+O(M*log(M)) with N being the sum of the sizes of the input sorted sets, and M being the "
    "number of elements in the resulting sorted set."
)
_INTER_COMPLEXITY: Final = (
    "O(N*K)+O(M*log(M)) worst case with N being the smallest input sorted set, K being the number "
    "of input sorted sets and M being the number of elements in the resulting sorted set."
)
_DIFF_COMPLEXITY: Final = (
    "O(L + (N-K)log(N)) worst case where L is the total number of elements in all the sets, N is "
    "the size of the first set, and K is the size of the result set."
)


@command(
    "zunion",
    -3,
    READONLY | MOVABLE_KEYS | WALK,
    group="sorted-set",
    since="6.2.0",
    summary="Returns the union of multiple sorted sets.",
    complexity=_UNION_COMPLEXITY,
    keys=numbered_keys("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zunion(ctx: ReadContext, *words: bytes) -> Any:
    query = _Query(ctx, "zunion", words, weighs=True, shows=True)
    return _reply(query.union(), query.with_scores)


@command(
    "zinter",
    -3,
    READONLY | MOVABLE_KEYS | WALK,
    group="sorted-set",
    since="6.2.0",
    summary="Returns the intersect of multiple sorted sets.",
    complexity=_INTER_COMPLEXITY,
    keys=numbered_keys("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zinter(ctx: ReadContext, *words: bytes) -> Any:
    query = _Query(ctx, "zinter", words, weighs=True, shows=True)
    return _reply(query.intersection(), query.with_scores)


@command(
    "zdiff",
    -3,
    READONLY | MOVABLE_KEYS | WALK,
    group="sorted-set",
    since="6.2.0",
    summary="Returns the difference between multiple sorted sets.",
    complexity=_DIFF_COMPLEXITY,
    keys=numbered_keys("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zdiff(ctx: ReadContext, *words: bytes) -> Any:
    query = _Query(ctx, "zdiff", words, weighs=False, shows=True)
    return _reply(query.difference(), query.with_scores)


@command(
    "zintercard",
    -3,
    READONLY | MOVABLE_KEYS,
    group="sorted-set",
    since="7.0.0",
    summary="Returns the number of members of the intersect of multiple sorted sets.",
    complexity="O(N*K) worst case with N being the smallest input sorted set, K being the number "
    "of input sorted sets.",
    keys=numbered_keys("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def zintercard(ctx: ReadContext, *words: bytes) -> int:
    return _Query(ctx, "zintercard", words, weighs=False, shows=False).cardinality()


@command(
    "zunionstore",
    -4,
    WRITE | DENYOOM | MOVABLE_KEYS,
    group="sorted-set",
    since="2.0.0",
    summary="Stores the union of multiple sorted sets in a key.",
    complexity=_UNION_STORE_COMPLEXITY,
    keys=_STORED,
    categories=_CATEGORIES,
)
def zunionstore(ctx: WriteContext, destination: bytes, *words: bytes) -> int:
    query = _Query(ctx, "zunionstore", words, weighs=True, shows=False)
    return _store(ctx, destination, query.union(), b"zunionstore")


@command(
    "zinterstore",
    -4,
    WRITE | DENYOOM | MOVABLE_KEYS,
    group="sorted-set",
    since="2.0.0",
    summary="Stores the intersect of multiple sorted sets in a key.",
    complexity=_INTER_COMPLEXITY,
    keys=_STORED,
    categories=_CATEGORIES,
)
def zinterstore(ctx: WriteContext, destination: bytes, *words: bytes) -> int:
    query = _Query(ctx, "zinterstore", words, weighs=True, shows=False)
    return _store(ctx, destination, query.intersection(), b"zinterstore")


@command(
    "zdiffstore",
    -4,
    WRITE | DENYOOM | MOVABLE_KEYS,
    group="sorted-set",
    since="6.2.0",
    summary="Stores the difference of multiple sorted sets in a key.",
    complexity=_DIFF_COMPLEXITY,
    keys=_STORED,
    categories=_CATEGORIES,
)
def zdiffstore(ctx: WriteContext, destination: bytes, *words: bytes) -> int:
    query = _Query(ctx, "zdiffstore", words, weighs=False, shows=False)
    return _store(ctx, destination, query.difference(), b"zdiffstore")
