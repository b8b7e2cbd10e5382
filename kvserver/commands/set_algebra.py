"""Commands that give all of a set, or what several sets have: SMEMBERS, SSCAN, SINTER, SUNION,
SDIFF, their STORE forms, SINTERCARD.

What is only read is walked in steps, over views that are all of the same instant; what is stored is
worked out in one go. Source: Redis 7.4's t_set.c.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int_in
from kvserver.codec import SET
from kvserver.collection import Collection
from kvserver.commands import element_scan, replies, scan_options
from kvserver.commands import sets as set_commands
from kvserver.numbers import INT64_MAX
from kvserver.registry import (
    DENYOOM,
    MOVABLE_KEYS,
    READONLY,
    WALK,
    WRITE,
    KeySpec,
    command,
    key,
    keys,
    numbered_keys,
)
from kvserver.state import notify
from kvserver.state.context import Context, ReadContext, WriteContext
from kvserver.types import sets

#: Members that are looked at between two yields.
STEPS: Final = 256

#: What is found among several sets; None for a member that was looked at and isn't in the result.
Found = Iterator[bytes | None]
#: From the sets, None for a key that is missing, to what they have.
Operation = Callable[[list[Collection | None]], Found]

_UNORDERED: Final = ("nondeterministic_output_order",)
_STORED: Final = (KeySpec(1, 1, 1, ("OW", "UPDATE")), KeySpec(2, -1, 1, ("RO", "ACCESS")))


def intersection(found: list[Collection | None]) -> Found:
    """What all have: nothing, if one is missing."""
    there = _present(found)
    return sets.intersect(there) if len(there) == len(found) else iter(())


def union(found: list[Collection | None]) -> Found:
    """What any has."""
    return sets.unite(_present(found))


def difference(found: list[Collection | None]) -> Found:
    """What the first has and no other."""
    first = found[0]
    return iter(()) if first is None else sets.subtract(first, _present(found[1:]))


def _present(found: list[Collection | None]) -> list[Collection]:
    return [members for members in found if members is not None]


def _look_up(ctx: Context, names: tuple[bytes, ...]) -> list[Collection | None]:
    """The sets; WRONGTYPE if any key is of another type, whatever else is missing."""
    db = ctx.keyspace.readers[ctx.session.db]
    return [db.collection(name, SET) for name in names]


def _steps(found: Found) -> replies.Steps[list[Any]]:
    """The members that are found, some in each step."""
    members: list[Any] = []
    for looked, member in enumerate(found, 1):
        if member is not None:
            members.append(member)
        if looked % STEPS == 0:
            yield members
            members = []
    return members


def _reply(found: Found) -> Any:
    return replies.begin(_set_of(_steps(found)))


def _set_of(walk: replies.Steps[list[Any]]) -> Generator[None, None, resp.Forms]:
    reply = replies.Set()
    reply.add((yield from replies.collect(walk, reply)))
    return reply.reply()


@command(
    "smembers",
    2,
    READONLY | WALK,
    group="set",
    since="1.0.0",
    summary="Returns all members of a set.",
    complexity="O(N) where N is the set cardinality.",
    keys=key("RO", "ACCESS"),
    categories=("set",),
    tips=_UNORDERED,
)
def smembers(ctx: ReadContext, name: bytes) -> Any:
    members = ctx.db.collection(name, SET)
    if members is None:
        return resp.Members()
    if members.count <= STEPS:
        return resp.Members(sets.iterate(members))
    return _reply(sets.iterate(members))


@command(
    "sscan",
    -3,
    READONLY | WALK,
    group="set",
    since="2.8.0",
    summary="Iterates over members of a set.",
    complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls "
    "for the cursor to return back to 0. N is the number of elements inside the collection.",
    keys=key("RO", "ACCESS"),
    categories=("set",),
    tips=("nondeterministic_output",),
)
def sscan(ctx: ReadContext, name: bytes, cursor: bytes, *words: bytes) -> Any:
    number = scan_options.parse_cursor(cursor)
    members = ctx.db.collection(name, SET)
    if members is None:
        return element_scan.EMPTY
    options = scan_options.parse(words, SET)
    return element_scan.scan_set(
        ctx.server.cursors(ctx.session), sets.Set(members), number, options
    )


@command(
    "sinter",
    -2,
    READONLY | WALK,
    group="set",
    since="1.0.0",
    summary="Returns the intersect of multiple sets.",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the "
    "number of sets.",
    keys=keys("RO", "ACCESS"),
    categories=("set",),
    tips=_UNORDERED,
)
def sinter(ctx: ReadContext, *names: bytes) -> Any:
    return _reply(intersection(_look_up(ctx, names)))


@command(
    "sunion",
    -2,
    READONLY | WALK,
    group="set",
    since="1.0.0",
    summary="Returns the union of multiple sets.",
    complexity="O(N) where N is the total number of elements in all given sets.",
    keys=keys("RO", "ACCESS"),
    categories=("set",),
    tips=_UNORDERED,
)
def sunion(ctx: ReadContext, *names: bytes) -> Any:
    return _reply(union(_look_up(ctx, names)))


@command(
    "sdiff",
    -2,
    READONLY | WALK,
    group="set",
    since="1.0.0",
    summary="Returns the difference of multiple sets.",
    complexity="O(N) where N is the total number of elements in all given sets.",
    keys=keys("RO", "ACCESS"),
    categories=("set",),
    tips=_UNORDERED,
)
def sdiff(ctx: ReadContext, *names: bytes) -> Any:
    return _reply(difference(_look_up(ctx, names)))


@command(
    "sintercard",
    -3,
    READONLY | MOVABLE_KEYS | WALK,
    group="set",
    since="7.0.0",
    summary="Returns the number of members of the intersect of multiple sets.",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the "
    "number of sets.",
    keys=numbered_keys("RO", "ACCESS"),
    categories=("set",),
)
def sintercard(ctx: ReadContext, number: bytes, *words: bytes) -> Any:
    count = parse_int_in(number, 1, INT64_MAX, "numkeys should be greater than 0")
    if count > len(words):
        raise errors.error("Number of keys can't be greater than number of args")
    limit = 0
    options = Cursor(words, count)
    while options.more():
        text = options.value(b"LIMIT")
        if text is None:
            raise errors.syntax()
        limit = parse_int_in(text, 0, INT64_MAX, "LIMIT can't be negative")
    found = intersection(_look_up(ctx, words[:count]))
    return replies.begin(_counted(found, limit))


def _counted(found: Found, limit: int) -> Generator[None, None, int]:
    """How many there are, up to a limit; 0: no limit."""
    count = 0
    for looked, member in enumerate(found, 1):
        if member is not None:
            count += 1
            if count == limit:
                break
        if looked % STEPS == 0:
            yield
    return count


# -- stored --------------------------------------------------------------------------------------


def _store(
    ctx: WriteContext, operation: Operation, destination: bytes, names: tuple[bytes, ...]
) -> int:
    """Replace a key with the result; an empty one deletes it."""
    target = None
    for member in operation(_look_up(ctx, names)):
        if member is not None:
            if target is None:
                target = set_commands.new_set(ctx, destination, member, 1)
            target.add(member)
    if target is None:
        ctx.store_nothing(destination)
        return 0
    target.save()
    return target.count


@command(
    "sinterstore",
    -3,
    WRITE | DENYOOM,
    group="set",
    since="1.0.0",
    summary="Stores the intersect of multiple sets in a key.",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the "
    "number of sets.",
    keys=(KeySpec(1, 1, 1, ("RW", "UPDATE")), _STORED[1]),
    categories=("set",),
)
def sinterstore(ctx: WriteContext, destination: bytes, *names: bytes) -> int:
    stored = _store(ctx, intersection, destination, names)
    if stored:
        ctx.notify(notify.SET, b"sinterstore", destination)
    return stored


@command(
    "sunionstore",
    -3,
    WRITE | DENYOOM,
    group="set",
    since="1.0.0",
    summary="Stores the union of multiple sets in a key.",
    complexity="O(N) where N is the total number of elements in all given sets.",
    keys=_STORED,
    categories=("set",),
)
def sunionstore(ctx: WriteContext, destination: bytes, *names: bytes) -> int:
    stored = _store(ctx, union, destination, names)
    if stored:
        ctx.notify(notify.SET, b"sunionstore", destination)
    return stored


@command(
    "sdiffstore",
    -3,
    WRITE | DENYOOM,
    group="set",
    since="1.0.0",
    summary="Stores the difference of multiple sets in a key.",
    complexity="O(N) where N is the total number of elements in all given sets.",
    keys=_STORED,
    categories=("set",),
)
def sdiffstore(ctx: WriteContext, destination: bytes, *names: bytes) -> int:
    stored = _store(ctx, difference, destination, names)
    if stored:
        ctx.notify(notify.SET, b"sdiffstore", destination)
    return stored
