"""When fields of a hash expire: HEXPIRE, HTTL and their kin, HPERSIST.

Source: Redis 7.4's t_hash.c, hexpireGenericCommand and httlGenericCommand; the order of checks and
events is theirs.
"""

from __future__ import annotations

from typing import Final

from kvserver import errors
from kvserver.args import parse_int, parse_int_in
from kvserver.codec import HASH
from kvserver.collection import MutableCollection
from kvserver.commands.hashes import CATEGORIES, deleted_last
from kvserver.numbers import INT64_MAX
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import hashes
from kvserver.types.hashes import FIELD, MAX_EXPIRE

SECOND: Final = 1000
COMPLEXITY: Final = "O(N) where N is the number of specified fields"
UPDATES: Final = key("RW", "UPDATE")
_READS: Final = key("RO", "ACCESS")
_TIPS: Final = ("nondeterministic_output",)

# What is said of each field.
_NO_FIELD: Final = -2
_NO_TIME: Final = -1
_NOT_MET: Final = 0
DONE: Final = 1
DELETED: Final = 2

_CONDITIONS: Final = (b"NX", b"XX", b"GT", b"LT")


def parse_expire(name: str, text: bytes, unit: int, base_ms: int) -> int:
    """A time in unix ms (parseExpireTime); `name` is the command's."""
    amount = parse_int(text)
    if amount < 0:
        raise errors.error("invalid expire time, must be >= 0")
    expire_ms = amount * unit + base_ms
    if expire_ms > MAX_EXPIRE:
        raise errors.invalid_expire(name)
    return expire_ms


def parse_fields(
    words: tuple[bytes, ...], message: str = "Number of fields must be a positive integer"
) -> tuple[bytes, ...]:
    """The fields after `FIELDS numfields`; `message` is for a wrong number."""
    if not words or words[0].upper() != b"FIELDS":
        raise errors.error("Mandatory argument FIELDS is missing or not at the right position")
    count = parse_int_in(words[1] if len(words) > 1 else b"", 1, INT64_MAX, message)
    if count != len(words) - 2:
        raise errors.error("The `numfields` parameter must match the number of arguments")
    return words[2:]


# -- setting a time ----------------------------------------------------------------------------


@command(
    "hexpire",
    -6,
    WRITE | DENYOOM | FAST,
    group="hash",
    since="7.4.0",
    summary="Set expiry for hash field using relative time to expire (seconds)",
    complexity=COMPLEXITY,
    keys=UPDATES,
    categories=CATEGORIES,
)
def hexpire(ctx: WriteContext, name: bytes, seconds: bytes, *rest: bytes) -> list[int]:
    return _expire(ctx, "hexpire", name, seconds, rest, SECOND, ctx.now)


@command(
    "hpexpire",
    -6,
    WRITE | DENYOOM | FAST,
    group="hash",
    since="7.4.0",
    summary="Set expiry for hash field using relative time to expire (milliseconds)",
    complexity=COMPLEXITY,
    keys=UPDATES,
    categories=CATEGORIES,
)
def hpexpire(ctx: WriteContext, name: bytes, milliseconds: bytes, *rest: bytes) -> list[int]:
    return _expire(ctx, "hpexpire", name, milliseconds, rest, 1, ctx.now)


@command(
    "hexpireat",
    -6,
    WRITE | DENYOOM | FAST,
    group="hash",
    since="7.4.0",
    summary="Set expiry for hash field using an absolute Unix timestamp (seconds)",
    complexity=COMPLEXITY,
    keys=UPDATES,
    categories=CATEGORIES,
)
def hexpireat(ctx: WriteContext, name: bytes, seconds: bytes, *rest: bytes) -> list[int]:
    return _expire(ctx, "hexpireat", name, seconds, rest, SECOND, 0)


@command(
    "hpexpireat",
    -6,
    WRITE | DENYOOM | FAST,
    group="hash",
    since="7.4.0",
    summary="Set expiry for hash field using an absolute Unix timestamp (milliseconds)",
    complexity=COMPLEXITY,
    keys=UPDATES,
    categories=CATEGORIES,
)
def hpexpireat(ctx: WriteContext, name: bytes, milliseconds: bytes, *rest: bytes) -> list[int]:
    return _expire(ctx, "hpexpireat", name, milliseconds, rest, 1, 0)


def _expire(
    ctx: WriteContext,
    command_name: str,
    name: bytes,
    amount: bytes,
    rest: tuple[bytes, ...],
    unit: int,
    base_ms: int,
) -> list[int]:
    """`amount` counts units of `unit` ms from `base_ms` on."""
    fields = ctx.db.mutable(name, HASH)
    expire_ms = parse_expire(command_name, amount, unit, base_ms)
    condition = rest[0].upper()
    if condition in _CONDITIONS:
        rest = rest[1:]
    else:
        condition = b""
    names = parse_fields(rest, "Parameter `numFields` should be greater than 0")
    if fields is None:
        return [_NO_FIELD] * len(names)
    done = [expire_field(fields, field, condition, expire_ms, ctx.now) for field in names]
    if DONE in done or DELETED in done:
        fields.save()
        ctx.notify(notify.HASH, b"hdel" if DELETED in done else b"hexpire", name)
        deleted_last(ctx, fields, name)
    return done


def expire_field(
    fields: MutableCollection, field: bytes, condition: bytes, expire_ms: int, now: int
) -> int:
    """Give a field another time; what is said of it."""
    row = fields.peek(FIELD + field)
    if row is None or not hashes.is_live(row, now):
        return _NO_FIELD
    if condition and not _allowed(condition, hashes.expire_of(row), expire_ms):
        return _NOT_MET
    if expire_ms <= now:
        hashes.remove(fields, field)
        return DELETED
    hashes.set_expire(fields, field, row, expire_ms)
    return DONE


def _allowed(condition: bytes, before: int, after: int) -> bool:
    """Whether a field's time may change from `before` (0: never) to `after`, in unix ms."""
    if not before:
        return condition not in (b"XX", b"GT")
    if condition == b"NX":
        return False
    return condition == b"XX" or (after > before if condition == b"GT" else after < before)


@command(
    "hpersist",
    -5,
    WRITE | FAST,
    group="hash",
    since="7.4.0",
    summary="Removes the expiration time for each specified field",
    complexity=COMPLEXITY,
    keys=UPDATES,
    categories=CATEGORIES,
)
def hpersist(ctx: WriteContext, name: bytes, *rest: bytes) -> list[int]:
    fields = ctx.db.mutable(name, HASH)
    names = parse_fields(rest)
    if fields is None:
        return [_NO_FIELD] * len(names)
    done = [persist_field(fields, field, ctx.now) for field in names]
    if DONE in done:
        fields.save()
        ctx.notify(notify.HASH, b"hpersist", name)
    return done


def persist_field(fields: MutableCollection, field: bytes, now: int) -> int:
    """Take a field's time away; what is said of it."""
    row = fields.peek(FIELD + field)
    if row is None or not hashes.is_live(row, now):
        return _NO_FIELD
    if not hashes.expire_of(row):
        return _NO_TIME
    hashes.set_expire(fields, field, row, 0)
    return DONE


# -- asking ------------------------------------------------------------------------------------


@command(
    "httl",
    -5,
    READONLY | FAST,
    group="hash",
    since="7.4.0",
    summary="Returns the TTL in seconds of a hash field.",
    complexity=COMPLEXITY,
    keys=_READS,
    categories=CATEGORIES,
    tips=_TIPS,
)
def httl(ctx: ReadContext, name: bytes, *rest: bytes) -> list[int]:
    return [_seconds(time) for time in _times(ctx, name, rest, ctx.now)]


@command(
    "hpttl",
    -5,
    READONLY | FAST,
    group="hash",
    since="7.4.0",
    summary="Returns the TTL in milliseconds of a hash field.",
    complexity=COMPLEXITY,
    keys=_READS,
    categories=CATEGORIES,
    tips=_TIPS,
)
def hpttl(ctx: ReadContext, name: bytes, *rest: bytes) -> list[int]:
    return _times(ctx, name, rest, ctx.now)


@command(
    "hexpiretime",
    -5,
    READONLY | FAST,
    group="hash",
    since="7.4.0",
    summary="Returns the expiration time of a hash field as a Unix timestamp, in seconds.",
    complexity=COMPLEXITY,
    keys=_READS,
    categories=CATEGORIES,
)
def hexpiretime(ctx: ReadContext, name: bytes, *rest: bytes) -> list[int]:
    return [_seconds(time) for time in _times(ctx, name, rest, 0)]


@command(
    "hpexpiretime",
    -5,
    READONLY | FAST,
    group="hash",
    since="7.4.0",
    summary="Returns the expiration time of a hash field as a Unix timestamp, in msec.",
    complexity=COMPLEXITY,
    keys=_READS,
    categories=CATEGORIES,
)
def hpexpiretime(ctx: ReadContext, name: bytes, *rest: bytes) -> list[int]:
    return _times(ctx, name, rest, 0)


def _times(ctx: ReadContext, name: bytes, rest: tuple[bytes, ...], base_ms: int) -> list[int]:
    """Milliseconds from `base_ms` on, or what is said of a field that isn't there or stays."""
    fields = ctx.db.collection(name, HASH)
    names = parse_fields(rest)
    if fields is None:
        return [_NO_FIELD] * len(names)
    now = ctx.now
    return [_time(fields.get(FIELD + field), now, base_ms) for field in names]


def _time(row: bytes | None, now: int, base_ms: int) -> int:
    if row is None or not hashes.is_live(row, now):
        return _NO_FIELD
    expire_ms = hashes.expire_of(row)
    return expire_ms - base_ms if expire_ms else _NO_TIME


def _seconds(milliseconds: int) -> int:
    """Rounded up to whole seconds; negative codes stay."""
    return milliseconds if milliseconds < 0 else (milliseconds + 999) // SECOND
