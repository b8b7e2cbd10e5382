"""Hashes, one field or a few at a time: HSET, HGET and their relatives.

What reads all fields is in hashes_walks.py, when fields expire in hashes_expiry.py and
hashes_getex.py, and what the rows are in kvserver/types/hashes.py. Source: Redis 7.4's t_hash.c.
A field past its time reads as missing; a write command that comes upon one deletes it, which is an
event of its own.
"""

from __future__ import annotations

from typing import Final

from kvserver import errors, numbers, resp
from kvserver.args import parse_int
from kvserver.codec import HASH
from kvserver.collection import MutableCollection
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import hashes
from kvserver.types.hashes import FIELD

CATEGORIES: Final = ("hash",)
_WRITES: Final = WRITE | DENYOOM | FAST
_RELAYED: Final = key("RW", "ACCESS", "UPDATE")


def deleted_last(ctx: WriteContext, fields: MutableCollection, key: bytes) -> None:
    """Tell that the key went, if the fields that were removed were its last."""
    if fields.count == 0:
        ctx.notify(notify.GENERIC, b"del", key)


# -- writing -----------------------------------------------------------------------------------


@command(
    "hset",
    -4,
    _WRITES,
    group="hash",
    since="2.0.0",
    summary="Creates or modifies the value of a field in a hash.",
    complexity="O(1) for each field/value pair added, so O(N) to add N field/value pairs when the "
    "command is called with multiple field/value pairs.",
    keys=key("RW", "UPDATE"),
    categories=CATEGORIES,
    history=(("4.0.0", "Accepts multiple `field` and `value` arguments."),),
)
def hset(ctx: WriteContext, key: bytes, *pairs: bytes) -> int:
    if len(pairs) % 2:
        raise errors.wrong_arity("hset")
    return _set(ctx, key, pairs)


@command(
    "hmset",
    -4,
    _WRITES,
    group="hash",
    since="2.0.0",
    summary="Sets the values of multiple fields.",
    complexity="O(N) where N is the number of fields being set.",
    keys=key("RW", "UPDATE"),
    categories=CATEGORIES,
    deprecated=("4.0.0", "`HSET` with multiple field-value pairs"),
)
def hmset(ctx: WriteContext, key: bytes, *pairs: bytes) -> resp.Simple:
    if len(pairs) % 2:
        raise errors.wrong_arity("hmset")
    _set(ctx, key, pairs)
    return resp.OK


def _opened_or_new(ctx: WriteContext, key: bytes) -> MutableCollection:
    """A hash to be changed, perhaps as the command before left it: for commands that save what they
    change, with `hashes.save`. A new one if there is none."""
    found = ctx.db.opened(key, HASH)
    if found is None:
        return ctx.db.mutable_or_new(key, HASH)
    assert isinstance(found, MutableCollection)
    return found


def _set(ctx: WriteContext, key: bytes, pairs: tuple[bytes, ...]) -> int:
    """Set fields; returns how many are new."""
    fields = _opened_or_new(ctx, key)
    bounds = ctx.server.encodings.hashes
    if len(pairs) > 2 * bounds.entries:
        hashes.set_encoding(fields, hashes.HASHTABLE)
    created = 0
    for at in range(0, len(pairs), 2):
        created += hashes.put(fields, pairs[at], pairs[at + 1], bounds)
    hashes.save(fields)
    ctx.notify(notify.HASH, b"hset", key)
    return created


@command(
    "hsetnx",
    4,
    _WRITES,
    group="hash",
    since="2.0.0",
    summary="Sets the value of a field in a hash only when the field doesn't exist.",
    keys=key("RW", "INSERT"),
    categories=CATEGORIES,
)
def hsetnx(ctx: WriteContext, key: bytes, field: bytes, value: bytes) -> int:
    fields = _opened_or_new(ctx, key)
    row = fields.peek(FIELD + field)
    if hashes.is_live(row, ctx.now):
        return 0
    _store(ctx, fields, field, row, value, b"hset")
    return 1


def _store(
    ctx: WriteContext,
    fields: MutableCollection,
    field: bytes,
    row: bytes | None,
    value: bytes,
    event: bytes,
) -> None:
    """Set one field, whose row is `row` so far, and tell. Its time stays, unless it has passed."""
    expire_ms = 0
    if row is not None:
        if hashes.is_live(row, ctx.now):
            expire_ms = hashes.expire_of(row)
        else:
            ctx.notify(notify.HASH, b"hexpired", fields.key)
    hashes.put(fields, field, value, ctx.server.encodings.hashes, expire_ms)
    hashes.save(fields)
    ctx.notify(notify.HASH, event, fields.key)


@command(
    "hincrby",
    4,
    _WRITES,
    group="hash",
    since="2.0.0",
    summary="Increments the integer value of a field in a hash by a number. Uses 0 as initial "
    "value if the field doesn't exist.",
    keys=_RELAYED,
    categories=CATEGORIES,
)
def hincrby(ctx: WriteContext, key: bytes, field: bytes, increment: bytes) -> int:
    change = parse_int(increment)
    fields = _opened_or_new(ctx, key)
    row = fields.peek(FIELD + field)
    text = hashes.value_of(row, ctx.now)
    old = 0 if text is None else numbers.parse_int64(text)
    if old is None:
        raise errors.error("hash value is not an integer")
    total = old + change
    if not numbers.fits_int64(total):
        raise errors.integer_overflow()
    _store(ctx, fields, field, row, b"%d" % total, b"hincrby")
    return total


@command(
    "hincrbyfloat",
    4,
    _WRITES,
    group="hash",
    since="2.6.0",
    summary="Increments the floating point value of a field by a number. Uses 0 as initial value "
    "if the field doesn't exist.",
    keys=_RELAYED,
    categories=CATEGORIES,
)
def hincrbyfloat(ctx: WriteContext, key: bytes, field: bytes, increment: bytes) -> bytes:
    change = numbers.parse_long_double(increment)
    if change is None:
        raise errors.not_float()
    if change.infinite:
        raise errors.error("value is NaN or Infinity")
    fields = _opened_or_new(ctx, key)
    row = fields.peek(FIELD + field)
    text = hashes.value_of(row, ctx.now)
    old = numbers.parse_long_double(b"0" if text is None else text)
    if old is None:
        raise errors.error("hash value is not a float")
    total = numbers.add_long_double(old, change)
    if total is None:
        raise errors.nan_or_infinity()
    shown = numbers.format_human(total)
    _store(ctx, fields, field, row, shown, b"hincrbyfloat")
    return shown


@command(
    "hdel",
    -3,
    WRITE | FAST,
    group="hash",
    since="2.0.0",
    summary="Deletes one or more fields and their values from a hash. Deletes the hash if no "
    "fields remain.",
    complexity="O(N) where N is the number of fields to be removed.",
    keys=key("RW", "DELETE"),
    categories=CATEGORIES,
    history=(("2.4.0", "Accepts multiple `field` arguments."),),
)
def hdel(ctx: WriteContext, key: bytes, *names: bytes) -> int:
    fields = ctx.db.mutable(key, HASH)
    if fields is None:
        return 0
    removed = 0
    for field in names:
        removed += hashes.remove(fields, field)
    if removed:
        fields.save()
        ctx.notify(notify.HASH, b"hdel", key)
        deleted_last(ctx, fields, key)
    return removed


# -- reading -----------------------------------------------------------------------------------


@command(
    "hget",
    3,
    READONLY | FAST,
    group="hash",
    since="2.0.0",
    summary="Returns the value of a field in a hash.",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
)
def hget(ctx: ReadContext, key: bytes, field: bytes) -> bytes | None:
    fields = ctx.db.collection(key, HASH)
    return None if fields is None else hashes.get(fields, field, ctx.now)


@command(
    "hmget",
    -3,
    READONLY | FAST,
    group="hash",
    since="2.0.0",
    summary="Returns the values of all fields in a hash.",
    complexity="O(N) where N is the number of fields being requested.",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
)
def hmget(ctx: ReadContext, key: bytes, *names: bytes) -> list[bytes | None]:
    fields = ctx.db.collection(key, HASH)
    if fields is None:
        return [None] * len(names)
    now = ctx.now
    return [hashes.get(fields, field, now) for field in names]


@command(
    "hlen",
    2,
    READONLY | FAST,
    group="hash",
    since="2.0.0",
    summary="Returns the number of fields in a hash.",
    keys=key("RO"),
    categories=CATEGORIES,
)
def hlen(ctx: ReadContext, key: bytes) -> int:
    """Those past their time count until they are deleted, as in Redis."""
    fields = ctx.db.collection(key, HASH)
    return 0 if fields is None else fields.count


@command(
    "hstrlen",
    3,
    READONLY | FAST,
    group="hash",
    since="3.2.0",
    summary="Returns the length of the value of a field.",
    keys=key("RO"),
    categories=CATEGORIES,
)
def hstrlen(ctx: ReadContext, key: bytes, field: bytes) -> int:
    fields = ctx.db.collection(key, HASH)
    value = None if fields is None else hashes.get(fields, field, ctx.now)
    return 0 if value is None else len(value)


@command(
    "hexists",
    3,
    READONLY | FAST,
    group="hash",
    since="2.0.0",
    summary="Determines whether a field exists in a hash.",
    keys=key("RO"),
    categories=CATEGORIES,
)
def hexists(ctx: ReadContext, key: bytes, field: bytes) -> int:
    fields = ctx.db.collection(key, HASH)
    if fields is None:
        return 0
    return 1 if hashes.is_live(fields.get(FIELD + field), ctx.now) else 0
