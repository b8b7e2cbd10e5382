"""Hashes, all fields or some at random: HGETALL, HKEYS, HVALS, HSCAN, HRANDFIELD.

A large hash is walked in steps. Source: Redis 7.4's t_hash.c, genericHgetallCommand and
hrandfieldWithCountCommand. Fields past their time are left out, and stay where they are.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from kvserver import errors, resp
from kvserver.args import parse_int_in
from kvserver.codec import HASH
from kvserver.collection import Collection
from kvserver.commands import element_scan, scan_options
from kvserver.commands.hashes import CATEGORIES
from kvserver.commands.replies import Array, Map, Pairs, begin, collect
from kvserver.numbers import INT64_MAX
from kvserver.registry import READONLY, WALK, command, key
from kvserver.scan import STEPS
from kvserver.state.context import ReadContext
from kvserver.types import hash_samples, hashes
from kvserver.types.hashes import FIELD_AT

_TIPS: Final = ("nondeterministic_output_order",)
#: As much HRANDFIELD sends: with repetitions it may be any multiple of the hash.
_MOST_BYTES: Final = 1 << 30
_FIELDS: Final = 1
_VALUES: Final = 2


# -- everything --------------------------------------------------------------------------------


@command(
    "hgetall",
    2,
    READONLY | WALK,
    group="hash",
    since="2.0.0",
    summary="Returns all fields and values in a hash.",
    complexity="O(N) where N is the size of the hash.",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    tips=_TIPS,
)
def hgetall(ctx: ReadContext, key: bytes) -> Any:
    fields = ctx.db.collection(key, HASH)
    if fields is None:
        return {}
    if fields.count <= STEPS:
        return dict(hashes.pairs(fields, ctx.now))
    return _all(fields, ctx.now, _FIELDS | _VALUES, Map())


@command(
    "hkeys",
    2,
    READONLY | WALK,
    group="hash",
    since="2.0.0",
    summary="Returns all fields in a hash.",
    complexity="O(N) where N is the size of the hash.",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    tips=_TIPS,
)
def hkeys(ctx: ReadContext, key: bytes) -> Any:
    fields = ctx.db.collection(key, HASH)
    if fields is None:
        return []
    if fields.count <= STEPS:
        return [field for field, _ in hashes.pairs(fields, ctx.now)]
    return _all(fields, ctx.now, _FIELDS, Array())


@command(
    "hvals",
    2,
    READONLY | WALK,
    group="hash",
    since="2.0.0",
    summary="Returns all values in a hash.",
    complexity="O(N) where N is the size of the hash.",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    tips=_TIPS,
)
def hvals(ctx: ReadContext, key: bytes) -> Any:
    fields = ctx.db.collection(key, HASH)
    if fields is None:
        return []
    if fields.count <= STEPS:
        return [value for _, value in hashes.pairs(fields, ctx.now)]
    return _all(fields, ctx.now, _VALUES, Array())


def _all(fields: Collection, now: int, what: int, array: Array) -> Any:
    """The reply of a large hash. The view is pinned here."""
    return begin(_all_steps(hashes.scan(fields), now, what, array))


def _all_steps(rows: Any, now: int, what: int, array: Array) -> Generator[None, None, resp.Forms]:
    found: list[bytes] = []
    for number, (name, row) in enumerate(rows, 1):
        value = hashes.value_of(row, now)
        if value is not None:
            if what & _FIELDS:
                found.append(name[FIELD_AT:])
            if what & _VALUES:
                found.append(value)
        if number % STEPS == 0:
            array.add(found)
            found = []
            yield
    array.add(found)
    return array.reply()


# -- with a cursor -----------------------------------------------------------------------------


class _Fields:
    """Fields in the reply of HSCAN."""

    tag = hashes.FIELD

    def __init__(self, now: int, with_values: bool) -> None:
        self._now = now
        self._with_values = with_values

    def add(self, found: list[bytes], member: bytes, row: bytes) -> None:
        """The field, and its value if that is wanted."""
        value = hashes.value_of(row, self._now)
        if value is not None:
            found.append(member)
            if self._with_values:
                found.append(value)


@command(
    "hscan",
    -3,
    READONLY | WALK,
    group="hash",
    since="2.8.0",
    summary="Iterates over fields and values of a hash.",
    complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls "
    "for the cursor to return back to 0. N is the number of elements inside the collection.",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    tips=("nondeterministic_output",),
)
def hscan(ctx: ReadContext, key: bytes, cursor: bytes, *words: bytes) -> Any:
    number = scan_options.parse_cursor(cursor)
    fields = ctx.db.collection(key, HASH)
    if fields is None:
        return element_scan.EMPTY
    options = scan_options.parse(words, HASH)
    shape = _Fields(ctx.now, not options.novalues)
    whole = hashes.is_small(fields)
    return element_scan.scan(ctx.server.cursors(ctx.session), fields, number, options, shape, whole)


# -- at random ---------------------------------------------------------------------------------


@command(
    "hrandfield",
    -2,
    READONLY | WALK,
    group="hash",
    since="6.2.0",
    summary="Returns one or more random fields from a hash.",
    complexity="O(N) where N is the number of fields returned",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    tips=("nondeterministic_output",),
)
def hrandfield(ctx: ReadContext, key: bytes, *options: bytes) -> Any:
    if not options:
        fields = ctx.db.collection(key, HASH)
        found = None if fields is None else hash_samples.one(fields, ctx.now)
        return None if found is None else found[0]
    count = parse_int_in(options[0], -INT64_MAX, INT64_MAX)
    with_values = len(options) > 1
    if len(options) > 2 or (with_values and options[1].upper() != b"WITHVALUES"):
        raise errors.syntax()
    if with_values and not -(INT64_MAX // 2) <= count <= INT64_MAX // 2:
        raise errors.error("value is out of range")
    fields = ctx.db.collection(key, HASH)
    if fields is None or count == 0:
        return []
    if count < -hash_samples.MAX_DRAWN:
        raise errors.error("value is out of range")
    array = Pairs() if with_values else Array()
    return begin(_random(fields, ctx.now, count, array))


def _random(
    fields: Collection, now: int, count: int, array: Array
) -> Generator[None, None, resp.Forms]:
    if count > 0:
        walk = hash_samples.choose(fields, now, count)
    else:
        walk = hash_samples.draw(fields, now, -count)
    with_values = type(array) is Pairs
    yield from collect(_flat(walk, with_values), array)
    return array.reply()


def _flat(
    walk: Generator[list[hash_samples.Pair], None, None], with_values: bool
) -> Generator[list[bytes], None, None]:
    size = 0
    for pairs in walk:
        if with_values:
            found = [part for pair in pairs for part in pair]
        else:
            found = [field for field, _ in pairs]
        size += sum(map(len, found))
        if size > _MOST_BYTES:
            raise errors.error("value is out of range")
        yield found
