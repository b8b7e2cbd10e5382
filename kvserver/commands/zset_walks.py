"""Long replies of members and scores, in steps; ZSCAN and ZRANDMEMBER.

Source: Redis 7.4's t_zset.c and db.c, scanGenericCommand.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, Final

from kvserver import errors, glob, resp
from kvserver.args import parse_int_in
from kvserver.codec import ZSET
from kvserver.collection import Collection
from kvserver.commands import element_scan, replies, scan_options, zsets
from kvserver.commands.element_scan import EMPTY
from kvserver.commands.scan_options import Options
from kvserver.numbers import INT64_MAX, format_double
from kvserver.registry import READONLY, WALK, command, key
from kvserver.state.context import ReadContext
from kvserver.types.zsets import MEMBER, SKIPLIST, Pair, SortedSet, pair, unpack

#: Elements of a reply that are put together at a time.
STEPS: Final = 256
#: ZRANDMEMBER with a negative count gives members again and again: how many at most. Redis sets no
#: limit, and a client could ask for all of the memory with one command.
MAX_RANDOM: Final = 1 << 24
#: So many members at random are looked up one by one, at once, if not more than one in _SPARSE is
#: wanted. For more of them all elements are walked.
_FEW: Final = 128
_SPARSE: Final = 16


def reply(pairs: Iterator[Pair], with_scores: bool) -> Any:
    """The reply of a walk, at once if it is short."""
    first = list(islice(pairs, STEPS))
    return _short(first, with_scores) if len(first) < STEPS else _steps(first, pairs, with_scores)


def reply_members(members: Iterator[bytes]) -> Any:
    """The same without scores, from the members."""
    first = list(islice(members, STEPS))
    return first if len(first) < STEPS else _member_steps(first, members)


def _member_steps(
    first: list[bytes], members: Iterator[bytes]
) -> Generator[None, None, resp.Forms]:
    array = replies.Array()
    found = first
    while found:
        array.add(found)
        yield
        found = list(islice(members, STEPS))
    return array.reply()


def _short(pairs: list[Pair], with_scores: bool) -> Any:
    return resp.Pairs(pairs) if with_scores else [member for member, _ in pairs]


def _steps(
    first: list[Pair], pairs: Iterator[Pair], with_scores: bool
) -> Generator[None, None, resp.Forms]:
    array = replies.Pairs() if with_scores else replies.Array()
    found = first
    while found:
        if with_scores:
            array.add([part for one in found for part in one])
        else:
            array.add([member for member, _ in found])
        yield
        found = list(islice(pairs, STEPS))
    return array.reply()


# -- ZSCAN -----------------------------------------------------------------------------------------


class _Shape:
    """What ZSCAN shows of a member that Redis would hold in a skip list."""

    tag = MEMBER

    def add(self, found: list[bytes], member: bytes, row: bytes) -> None:
        found += (member, b"%.17g" % unpack(row))


@command(
    "zscan",
    -3,
    READONLY | WALK,
    group="sorted-set",
    since="2.8.0",
    summary="Iterates over members and scores of a sorted set.",
    complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls "
    "for the cursor to return back to 0. N is the number of elements inside the collection.",
    keys=key("RO", "ACCESS"),
    categories=("sortedset",),
    tips=("nondeterministic_output",),
)
def zscan(ctx: ReadContext, name: bytes, cursor: bytes, *words: bytes) -> Any:
    number = scan_options.parse_cursor(cursor)
    rows = ctx.db.collection(name, ZSET)
    if rows is None:
        return EMPTY
    options = scan_options.parse(words, ZSET)
    if SortedSet(rows).flags & SKIPLIST:
        return element_scan.scan(
            ctx.server.cursors(ctx.session), rows, number, options, _Shape(), False
        )
    return replies.begin(_whole(rows, options))


def _whole(rows: Collection, options: Options) -> Generator[None, None, list[Any]]:
    """All that matches, by score: Redis returns a listpack whole and in its order."""
    matches = None if options.pattern == b"*" else glob.compile(options.pattern)
    array = replies.Array()
    pairs = map(pair, SortedSet(rows).scan())
    while found := list(islice(pairs, STEPS)):
        wanted = [one for one in found if matches is None or matches(one[0])]
        array.add([part for member, score in wanted for part in (member, format_double(score))])
        if len(found) == STEPS:
            yield
    return [b"0", array.reply()]


# -- ZRANDMEMBER -----------------------------------------------------------------------------------


@command(
    "zrandmember",
    -2,
    READONLY | WALK,
    group="sorted-set",
    since="6.2.0",
    summary="Returns one or more random members from a sorted set.",
    complexity="O(N) where N is the number of members returned",
    keys=key("RO", "ACCESS"),
    categories=("sortedset",),
    tips=("nondeterministic_output",),
)
def zrandmember(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    if not words:
        found = zsets.look_up(ctx, name)
        if found is None:
            return None
        return _at(found, random.randrange(found.count))[0]
    count = parse_int_in(words[0], -INT64_MAX, INT64_MAX)
    if len(words) > 2 or (len(words) == 2 and words[1].upper() != b"WITHSCORES"):
        raise errors.syntax()
    with_scores = len(words) == 2
    if with_scores and not -(INT64_MAX // 2) <= count <= INT64_MAX // 2:
        raise errors.error("value is out of range")
    if count < -MAX_RANDOM:
        raise errors.error("value is out of range")
    found = zsets.look_up(ctx, name)
    if found is None or count == 0:
        return []
    if count >= found.count:
        return reply(map(pair, found.scan(reverse=True)), with_scores)
    if abs(count) <= _FEW and abs(count) * _SPARSE <= found.count:
        return reply(iter(_few(found, count)), with_scores)
    return replies.begin(_many(found, count, with_scores))


def _few(found: SortedSet, count: int) -> list[Pair]:
    """Different members, or with a negative count any, as often as it says."""
    ranks = range(found.count)
    chosen = random.sample(ranks, count) if count > 0 else random.choices(ranks, k=-count)
    return [_at(found, rank) for rank in chosen]


def _many(found: SortedSet, count: int, with_scores: bool) -> Generator[None, None, Any]:
    """The same for more of them, in steps: all elements are looked at."""
    kept: list[Pair] = []
    wanted, left = count, found.count
    for entry in found.scan():
        # With a positive count each has the chance that the rest of them need.
        if count < 0 or random.random() * left < wanted - len(kept):
            kept.append(pair(entry))
        left -= 1
        if left and left % STEPS == 0:
            yield
    pairs = iter(kept) if count > 0 else (random.choice(kept) for _ in range(-count))
    first = list(islice(pairs, STEPS))
    if len(first) < STEPS:
        return _short(first, with_scores)
    return (yield from _steps(first, pairs, with_scores))


def _at(found: SortedSet, rank: int) -> Pair:
    return pair(next(found.scan_from(rank)))
