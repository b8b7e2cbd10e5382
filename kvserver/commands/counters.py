"""Strings as numbers: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT.

How numbers are read, added and printed is kvserver/numbers.py's business. Source: Redis 7.4's
t_string.c, incrDecrCommand and incrbyfloatCommand. A counter keeps its time to expire.
"""

from __future__ import annotations

from kvserver import codec, errors, numbers
from kvserver.args import parse_int
from kvserver.registry import DENYOOM, FAST, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import WriteContext

_FLAGS = WRITE | DENYOOM | FAST
_KEY = key("RW", "ACCESS", "UPDATE")


def _add(ctx: WriteContext, key: bytes, increment: int) -> int:
    db = ctx.db
    row_key = db.row_key(key)
    row = db.current_at(row_key)
    total = increment if row is None else parse_int(db.string_of(row)) + increment
    if not numbers.fits_int64(total):
        raise errors.integer_overflow()
    text = b"%d" % total
    expire = 0 if row is None else codec.row_expire(row)
    db.put_at(row_key, key, codec.string_row(text, expire))
    ctx.notify(notify.STRING, b"incrby", key)
    return total


@command(
    "incr",
    2,
    _FLAGS,
    group="string",
    since="1.0.0",
    summary="Increments the integer value of a key by one. Uses 0 as initial value if the key "
    "doesn't exist.",
    keys=_KEY,
    categories=("string",),
)
def incr(ctx: WriteContext, key: bytes) -> int:
    return _add(ctx, key, 1)


@command(
    "decr",
    2,
    _FLAGS,
    group="string",
    since="1.0.0",
    summary="Decrements the integer value of a key by one. Uses 0 as initial value if the key "
    "doesn't exist.",
    keys=_KEY,
    categories=("string",),
)
def decr(ctx: WriteContext, key: bytes) -> int:
    return _add(ctx, key, -1)


@command(
    "incrby",
    3,
    _FLAGS,
    group="string",
    since="1.0.0",
    summary="Increments the integer value of a key by a number. Uses 0 as initial value if the "
    "key doesn't exist.",
    keys=_KEY,
    categories=("string",),
)
def incrby(ctx: WriteContext, key: bytes, increment: bytes) -> int:
    return _add(ctx, key, parse_int(increment))


@command(
    "decrby",
    3,
    _FLAGS,
    group="string",
    since="1.0.0",
    summary="Decrements a number from the integer value of a key. Uses 0 as initial value if "
    "the key doesn't exist.",
    keys=_KEY,
    categories=("string",),
)
def decrby(ctx: WriteContext, key: bytes, decrement: bytes) -> int:
    number = parse_int(decrement)
    if number == numbers.INT64_MIN:
        raise errors.decrement_overflow()
    return _add(ctx, key, -number)


@command(
    "incrbyfloat",
    3,
    _FLAGS,
    group="string",
    since="2.6.0",
    summary="Increment the floating point value of a key by a number. Uses 0 as initial value "
    "if the key doesn't exist.",
    keys=_KEY,
    categories=("string",),
)
def incrbyfloat(ctx: WriteContext, key: bytes, increment: bytes) -> bytes:
    old, expire = ctx.db.current_string(key)
    total = numbers.add_float_human(b"0" if old is None else old, increment)
    ctx.db.put_string(key, total, expire)
    ctx.notify(notify.STRING, b"incrbyfloat", key)
    return total
