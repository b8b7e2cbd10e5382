"""When keys expire: EXPIRE, TTL and their kin, PERSIST.

Source: Redis 7.4's expire.c.
"""

from __future__ import annotations

from typing import Final

from kvserver import codec, errors
from kvserver.args import parse_int
from kvserver.numbers import INT64_MAX, INT64_MIN
from kvserver.registry import FAST, READONLY, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext

_SECOND: Final = 1000
_OPTIONS: Final = (b"NX", b"XX", b"GT", b"LT")
_CATEGORIES: Final = ("keyspace",)
_OPTIONS_HISTORY: Final = (("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`."),)
_TTL_HISTORY: Final = (("2.8.0", "Added the -2 reply."),)


@command(
    "expire",
    -3,
    WRITE | FAST,
    group="generic",
    since="1.0.0",
    summary="Sets the expiration time of a key in seconds.",
    keys=key("RW", "UPDATE"),
    categories=_CATEGORIES,
    history=_OPTIONS_HISTORY,
)
def expire(ctx: WriteContext, name: bytes, seconds: bytes, *options: bytes) -> int:
    return _expire(ctx, "expire", name, seconds, options, _SECOND, ctx.now)


@command(
    "pexpire",
    -3,
    WRITE | FAST,
    group="generic",
    since="2.6.0",
    summary="Sets the expiration time of a key in milliseconds.",
    keys=key("RW", "UPDATE"),
    categories=_CATEGORIES,
    history=_OPTIONS_HISTORY,
)
def pexpire(ctx: WriteContext, name: bytes, milliseconds: bytes, *options: bytes) -> int:
    return _expire(ctx, "pexpire", name, milliseconds, options, 1, ctx.now)


@command(
    "expireat",
    -3,
    WRITE | FAST,
    group="generic",
    since="1.2.0",
    summary="Sets the expiration time of a key to a Unix timestamp.",
    keys=key("RW", "UPDATE"),
    categories=_CATEGORIES,
    history=_OPTIONS_HISTORY,
)
def expireat(ctx: WriteContext, name: bytes, seconds: bytes, *options: bytes) -> int:
    return _expire(ctx, "expireat", name, seconds, options, _SECOND, 0)


@command(
    "pexpireat",
    -3,
    WRITE | FAST,
    group="generic",
    since="2.6.0",
    summary="Sets the expiration time of a key to a Unix milliseconds timestamp.",
    keys=key("RW", "UPDATE"),
    categories=_CATEGORIES,
    history=_OPTIONS_HISTORY,
)
def pexpireat(ctx: WriteContext, name: bytes, milliseconds: bytes, *options: bytes) -> int:
    return _expire(ctx, "pexpireat", name, milliseconds, options, 1, 0)


def _expire(
    ctx: WriteContext,
    command_name: str,
    name: bytes,
    amount: bytes,
    options: tuple[bytes, ...],
    unit: int,
    base_ms: int,
) -> int:
    """`amount` counts units of `unit` ms from `base_ms` on."""
    conditions = _conditions(options)
    expire_ms = parse_int(amount) * unit
    if not INT64_MIN <= expire_ms <= INT64_MAX - base_ms:
        raise errors.invalid_expire(command_name)
    expire_ms += base_ms
    row = ctx.db.current(name)
    if row is None or not _allowed(conditions, codec.row_expire(row), expire_ms):
        return 0
    if expire_ms <= ctx.now:
        ctx.db.delete(name)
        ctx.notify(notify.GENERIC, b"del", name)
    else:
        ctx.db.put(name, codec.with_expire(row, expire_ms))
        ctx.notify(notify.GENERIC, b"expire", name)
    return 1


def _conditions(options: tuple[bytes, ...]) -> set[bytes]:
    """The options in capitals."""
    found = set()
    for option in options:
        name = option.upper()
        if name not in _OPTIONS:
            raise errors.unsupported_option(option)
        found.add(name)
    if b"NX" in found and len(found) > 1:
        raise errors.error("NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in found and b"LT" in found:
        raise errors.error("GT and LT options at the same time are not compatible")
    return found


def _allowed(conditions: set[bytes], before: int, after: int) -> bool:
    """Whether a key's expiry may change from `before` (0: never) to `after`, in unix ms."""
    return not conditions or not (
        (b"NX" in conditions and before)
        or (b"XX" in conditions and not before)
        or (b"GT" in conditions and (not before or after <= before))
        or (b"LT" in conditions and before and after >= before)
    )


@command(
    "persist",
    2,
    WRITE | FAST,
    group="generic",
    since="2.2.0",
    summary="Removes the expiration time of a key.",
    keys=key("RW", "UPDATE"),
    categories=_CATEGORIES,
)
def persist(ctx: WriteContext, name: bytes) -> int:
    row = ctx.db.current(name)
    if row is None or not codec.row_expire(row):
        return 0
    ctx.db.put(name, codec.with_expire(row, 0))
    ctx.notify(notify.GENERIC, b"persist", name)
    return 1


# -- asking ------------------------------------------------------------------------------------


@command(
    "ttl",
    2,
    READONLY | FAST,
    group="generic",
    since="1.0.0",
    summary="Returns the expiration time in seconds of a key.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    tips=("nondeterministic_output",),
    history=_TTL_HISTORY,
)
def ttl(ctx: ReadContext, name: bytes) -> int:
    return _seconds(_expiry(ctx, name, ctx.now))


@command(
    "pttl",
    2,
    READONLY | FAST,
    group="generic",
    since="2.6.0",
    summary="Returns the expiration time in milliseconds of a key.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    tips=("nondeterministic_output",),
    history=_TTL_HISTORY,
)
def pttl(ctx: ReadContext, name: bytes) -> int:
    return _expiry(ctx, name, ctx.now)


@command(
    "expiretime",
    2,
    READONLY | FAST,
    group="generic",
    since="7.0.0",
    summary="Returns the expiration time of a key as a Unix timestamp.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def expiretime(ctx: ReadContext, name: bytes) -> int:
    return _seconds(_expiry(ctx, name, 0))


@command(
    "pexpiretime",
    2,
    READONLY | FAST,
    group="generic",
    since="7.0.0",
    summary="Returns the expiration time of a key as a Unix milliseconds timestamp.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def pexpiretime(ctx: ReadContext, name: bytes) -> int:
    return _expiry(ctx, name, 0)


def _expiry(ctx: ReadContext, name: bytes, base_ms: int) -> int:
    """Milliseconds from `base_ms` on; -1: it doesn't expire, -2: there is no such key."""
    row = ctx.db.row(name)
    if row is None:
        return -2
    expire_ms = codec.row_expire(row)
    return expire_ms - base_ms if expire_ms else -1


def _seconds(milliseconds: int) -> int:
    """Rounded to whole seconds; negative codes stay."""
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // _SECOND
