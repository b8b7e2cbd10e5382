"""Commands on one set, but for those that give all of it: SADD, SREM, SISMEMBER, SMISMEMBER, SCARD,
SPOP, SRANDMEMBER, SMOVE.

How a set is kept is in types/sets.py. Source: Redis 7.4's t_set.c.
"""

from __future__ import annotations

from typing import Final

from kvserver import errors
from kvserver.args import parse_int_in
from kvserver.codec import SET
from kvserver.collection import Collection
from kvserver.numbers import INT64_MAX
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, KeySpec, command, key
from kvserver.resp import Members
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import sets
from kvserver.types.sets import MutableSet, Set

#: SRANDMEMBER with a negative count gives members again and again: how many at most. Redis sets no
#: limit, and a client could ask for all of the memory with one command.
MAX_RANDOM: Final = 1 << 24

_SEVERAL: Final = (("2.4.0", "Accepts multiple `member` arguments."),)


def find(ctx: WriteContext, name: bytes) -> MutableSet | None:
    """A set to be changed; None if there is none."""
    rows = ctx.db.mutable(name, SET)
    return None if rows is None else MutableSet(rows, ctx.server.encodings.sets)


def _find_or_opened(ctx: WriteContext, name: bytes) -> MutableSet | None:
    """The same, perhaps as the command before left it: for commands that save what they change."""
    found = ctx.db.opened(name, SET)
    if found is None:
        return find(ctx, name)
    assert isinstance(found, MutableSet)
    found.limits = ctx.server.encodings.sets
    return found


def new_set(ctx: WriteContext, name: bytes, first: bytes, expected: int) -> MutableSet:
    """A set that replaces what is there; to be saved when it has members, `first` the first of
    about so many."""
    members = MutableSet(ctx.db.new(name, SET), ctx.server.encodings.sets)
    members.begin_encoding(first, expected)
    return members


@command(
    "sadd",
    -3,
    WRITE | DENYOOM | FAST,
    group="set",
    since="1.0.0",
    summary="Adds one or more members to a set. Creates the key if it doesn't exist.",
    complexity="O(1) for each element added, so O(N) to add N elements when the command is called "
    "with multiple arguments.",
    keys=key("RW", "INSERT"),
    categories=("set",),
    history=_SEVERAL,
)
def sadd(ctx: WriteContext, name: bytes, *members: bytes) -> int:
    found = _find_or_opened(ctx, name)
    if found is None:
        found = new_set(ctx, name, members[0], len(members))
    elif found.encoding != sets.HASHTABLE:
        found.expect(len(members))
    added = 0
    for member in members:
        if found.add(member):
            added += 1
    if added:
        found.save()
        ctx.notify(notify.SET, b"sadd", name)
    return added


@command(
    "srem",
    -3,
    WRITE | FAST,
    group="set",
    since="1.0.0",
    summary="Removes one or more members from a set. Deletes the set if the last member was "
    "removed.",
    complexity="O(N) where N is the number of members to be removed.",
    keys=key("RW", "DELETE"),
    categories=("set",),
    history=_SEVERAL,
)
def srem(ctx: WriteContext, name: bytes, *members: bytes) -> int:
    found = _find_or_opened(ctx, name)
    if found is None:
        return 0
    removed = 0
    for member in members:
        if found.remove(member):
            removed += 1
    if removed:
        _saved(ctx, name, found, b"srem")
    return removed


def _saved(ctx: WriteContext, name: bytes, members: MutableSet, event: bytes) -> None:
    """Members went: write what is left, and tell."""
    members.save()
    ctx.notify(notify.SET, event, name)
    if not members.count:
        ctx.notify(notify.GENERIC, b"del", name)


@command(
    "smove",
    4,
    WRITE | FAST,
    group="set",
    since="1.0.0",
    summary="Moves a member from one set to another.",
    keys=(KeySpec(1, 1, 1, ("RW", "ACCESS", "DELETE")), KeySpec(2, 2, 1, ("RW", "INSERT"))),
    categories=("set",),
)
def smove(ctx: WriteContext, name: bytes, destination: bytes, member: bytes) -> int:
    for either in (name, destination):
        ctx.db.current(either)  # past its time it goes, whatever the other one is
    source = find(ctx, name)
    if source is None:
        return 0
    target = find(ctx, destination)
    if name == destination:
        return int(source.has(member))
    if not source.remove(member):
        return 0
    _saved(ctx, name, source, b"srem")
    if target is None:
        target = new_set(ctx, destination, member, 1)
    if target.add(member):
        target.save()
        ctx.notify(notify.SET, b"sadd", destination)
    return 1


@command(
    "sismember",
    3,
    READONLY | FAST,
    group="set",
    since="1.0.0",
    summary="Determines whether a member belongs to a set.",
    keys=key("RO"),
    categories=("set",),
)
def sismember(ctx: ReadContext, name: bytes, member: bytes) -> int:
    members = ctx.db.collection(name, SET)
    return 1 if members is not None and sets.contains(members, member) else 0


@command(
    "smismember",
    -3,
    READONLY | FAST,
    group="set",
    since="6.2.0",
    summary="Determines whether multiple members belong to a set.",
    complexity="O(N) where N is the number of elements being checked for membership",
    keys=key("RO", "ACCESS"),
    categories=("set",),
)
def smismember(ctx: ReadContext, name: bytes, *asked: bytes) -> list[int]:
    members = ctx.db.collection(name, SET)
    if members is None:
        return [0] * len(asked)
    found = Set(members)
    return [1 if found.has(member) else 0 for member in asked]


@command(
    "scard",
    2,
    READONLY | FAST,
    group="set",
    since="1.0.0",
    summary="Returns the number of members in a set.",
    keys=key("RO"),
    categories=("set",),
)
def scard(ctx: ReadContext, name: bytes) -> int:
    members = ctx.db.collection(name, SET)
    return 0 if members is None else members.count


# -- at random -----------------------------------------------------------------------------------


@command(
    "spop",
    -2,
    WRITE | FAST,
    group="set",
    since="1.0.0",
    summary="Returns one or more random members from a set after removing them. Deletes the set "
    "if the last member was popped.",
    complexity="Without the count argument O(1), otherwise O(N) where N is the value of the "
    "passed count.",
    keys=key("RW", "ACCESS", "DELETE"),
    categories=("set",),
    tips=("nondeterministic_output",),
    history=(("3.2.0", "Added the `count` argument."),),
)
def spop(ctx: WriteContext, name: bytes, *words: bytes) -> bytes | Members | None:
    if len(words) > 1:
        raise errors.syntax()
    if words:
        return _pop_several(ctx, name, words[0])
    members = _find_or_opened(ctx, name)
    if members is None:
        return None
    popped = members.pop()
    _saved(ctx, name, members, b"spop")
    return popped


def _pop_several(ctx: WriteContext, name: bytes, text: bytes) -> Members:
    count = parse_int_in(text, 0, INT64_MAX, "value is out of range, must be positive")
    members = find(ctx, name)
    if members is None or count == 0:
        return Members()
    rows = members.rows
    if count >= members.count:
        ctx.db.row(name)  # all of it is read by SUNION, which counts as a look-up
        popped = list(sets.iterate(rows))
        ctx.db.remove(ctx.db.row_key(name), rows.row, name)
        ctx.notify(notify.SET, b"spop", name)
        ctx.notify(notify.GENERIC, b"del", name)
        return Members(popped)
    popped = sets.pick(rows, count)
    for member in popped:
        members.remove(member)
    _saved(ctx, name, members, b"spop")
    return Members(popped)


@command(
    "srandmember",
    -2,
    READONLY,
    group="set",
    since="1.0.0",
    summary="Get one or multiple random members from a set",
    complexity="Without the count argument O(1), otherwise O(N) where N is the absolute value of "
    "the passed count.",
    keys=key("RO", "ACCESS"),
    categories=("set",),
    tips=("nondeterministic_output",),
    history=(("2.6.0", "Added the optional `count` argument."),),
)
def srandmember(ctx: ReadContext, name: bytes, *words: bytes) -> bytes | list[bytes] | None:
    if len(words) > 1:
        raise errors.syntax()
    if words:
        count = parse_int_in(words[0], -INT64_MAX, INT64_MAX)
        members = ctx.db.collection(name, SET)
        return [] if members is None or count == 0 else _random_members(members, count)
    members = ctx.db.collection(name, SET)
    return None if members is None else Set(members).at_random()


def _random_members(members: Collection, count: int) -> list[bytes]:
    if count > 0:
        return list(sets.iterate(members)) if count >= members.count else sets.pick(members, count)
    if -count > MAX_RANDOM:
        raise errors.error("value is out of range")
    return sets.draw(members, -count)
