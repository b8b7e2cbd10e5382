"""Values and times of a hash's fields at once: HGETEX, HSETEX, HGETDEL.

Source: Redis 8.0's t_hash.c, hgetexCommand, hsetexCommand and hgetdelCommand; the order of checks
and events is theirs.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kvserver import errors
from kvserver.args import INT_MAX, parse_int_in
from kvserver.codec import HASH
from kvserver.collection import MutableCollection
from kvserver.commands.hashes import CATEGORIES, deleted_last
from kvserver.commands.hashes_expiry import (
    COMPLEXITY,
    DELETED,
    DONE,
    SECOND,
    UPDATES,
    expire_field,
    parse_expire,
    parse_fields,
    persist_field,
)
from kvserver.registry import DENYOOM, FAST, WRITE, KeySpec, command, key
from kvserver.state import notify
from kvserver.state.context import WriteContext
from kvserver.types import hashes
from kvserver.types.hashes import FIELD

#: Each option's unit in ms, and whether the time counts from now on.
_TIMES: Final[dict[bytes, tuple[int, bool]]] = {
    b"EX": (SECOND, True),
    b"PX": (1, True),
    b"EXAT": (SECOND, False),
    b"PXAT": (1, False),
}


@command(
    "hgetdel",
    -5,
    WRITE | FAST,
    group="hash",
    since="8.0.0",
    summary="Returns the value of a field and deletes it from the hash.",
    complexity=COMPLEXITY,
    keys=key("RW", "ACCESS", "DELETE"),
    categories=CATEGORIES,
)
def hgetdel(ctx: WriteContext, name: bytes, *rest: bytes) -> list[bytes | None]:
    fields = ctx.db.mutable(name, HASH)
    names = parse_fields(rest)
    if fields is None:
        return [None] * len(names)
    values: list[bytes | None] = []
    removed = expired = 0
    for field in names:
        value = hashes.value_of(fields.peek(FIELD + field), ctx.now)
        values.append(value)
        if hashes.remove(fields, field):
            removed += value is not None
            expired += value is None
    _tell(ctx, fields, name, expired, b"hdel" if removed else b"")
    return values


def _tell(
    ctx: WriteContext, fields: MutableCollection, name: bytes, expired: int, event: bytes
) -> None:
    """Save what changed, and tell: `expired` fields were found past their time and removed, and
    then there was an event."""
    if not expired and not event:
        return
    fields.save()
    if expired:
        ctx.notify(notify.HASH, b"hexpired", name)
    if event:
        ctx.notify(notify.HASH, event, name)
    deleted_last(ctx, fields, name)


@command(
    "hgetex",
    -5,
    WRITE | FAST,
    group="hash",
    since="8.0.0",
    summary="Get the value of one or more fields of a given hash key, and optionally set their "
    "expiration.",
    complexity=COMPLEXITY,
    keys=(
        KeySpec(1, 1, 1, ("RW", "ACCESS", "UPDATE"), "RW and UPDATE because it changes the TTL"),
    ),
    categories=CATEGORIES,
)
def hgetex(ctx: WriteContext, name: bytes, *rest: bytes) -> list[bytes | None]:
    fields = ctx.db.mutable(name, HASH)
    option, expire_ms = rest[0].upper(), 0
    if option in _TIMES:
        unit, relative = _TIMES[option]
        expire_ms = parse_expire("hgetex", rest[1], unit, ctx.now if relative else 0)
        rest = rest[2:]
    elif option == b"PERSIST":
        rest = rest[1:]
    else:
        option = b""
    names = parse_fields(rest)
    if fields is None:
        return [None] * len(names)
    values: list[bytes | None] = []
    expired = 0
    done = set()
    for field in names:
        value = hashes.value_of(fields.peek(FIELD + field), ctx.now)
        values.append(value)
        if value is None:
            expired += hashes.remove(fields, field)
        elif option == b"PERSIST":
            done.add(persist_field(fields, field, ctx.now))
        elif option:
            done.add(expire_field(fields, field, b"", expire_ms, ctx.now))
    event = b""
    if DONE in done:
        event = b"hpersist" if option == b"PERSIST" else b"hexpire"
    elif DELETED in done:
        event = b"hdel"
    _tell(ctx, fields, name, expired, event)
    return values


@command(
    "hsetex",
    -6,
    WRITE | DENYOOM | FAST,
    group="hash",
    since="8.0.0",
    summary="Set the value of one or more fields of a given hash key, and optionally set their "
    "expiration.",
    complexity="O(N) where N is the number of fields being set.",
    keys=UPDATES,
    categories=CATEGORIES,
)
def hsetex(ctx: WriteContext, name: bytes, *rest: bytes) -> int:
    order = _parse_set(rest, ctx.now)
    found = ctx.db.mutable(name, HASH)
    if not _may_set(found, order, ctx.now):
        return 0
    fields = found or ctx.db.new(name, HASH)
    expired = _set_fields(ctx, fields, order)
    fields.save()
    if expired and order.condition:
        ctx.notify(notify.HASH, b"hexpired", name)
    ctx.notify(notify.HASH, b"hset", name)
    if order.expire_ms is not None:
        past = order.expire_ms <= ctx.now
        ctx.notify(notify.HASH, b"hdel" if past else b"hexpire", name)
    deleted_last(ctx, fields, name)
    return 1


class _Set(NamedTuple):
    """What HSETEX is to do. `condition`: FXX, FNX or empty; `expire_ms`: None without a time."""

    condition: bytes
    expire_ms: int | None
    keeps: bool
    pairs: tuple[bytes, ...]


def _parse_set(words: tuple[bytes, ...], now: int) -> _Set:
    """The options in any order, then `FIELDS numfields` and pairs (hsetexParseArgs)."""
    condition, expire_ms, keeps = b"", None, False
    at = 0
    while at < len(words):
        option = words[at].upper()
        at += 1
        if option == b"FIELDS":
            return _Set(condition, expire_ms, keeps, _parse_pairs(words[at:]))
        if option in _TIMES or option == b"KEEPTTL":
            if keeps or expire_ms is not None:
                raise errors.error(
                    "Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"
                )
            if option == b"KEEPTTL":
                keeps = True
                continue
            if at == len(words):
                raise errors.error("missing expire time")
            unit, relative = _TIMES[option]
            expire_ms = parse_expire("hsetex", words[at], unit, now if relative else 0)
            at += 1
        elif option in (b"FXX", b"FNX"):
            if condition:
                raise errors.error("Only one of FXX or FNX arguments can be specified")
            condition = option
        else:
            raise errors.unknown_argument(words[at - 1])
    raise errors.wrong_arity("hsetex")


def _parse_pairs(words: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The pairs after their number."""
    if len(words) < 3:
        raise errors.wrong_arity("hsetex")
    count = parse_int_in(words[0], 1, INT_MAX, "invalid number of fields")
    if len(words) - 1 != 2 * count:
        raise errors.wrong_arity("hsetex")
    return words[1:]


def _may_set(fields: MutableCollection | None, order: _Set, now: int) -> bool:
    """Whether all the fields are there (FXX), or none (FNX)."""
    if not order.condition:
        return True
    wanted = order.condition == b"FXX"
    if fields is None:
        return not wanted
    for field in order.pairs[::2]:
        if hashes.is_live(fields.peek(FIELD + field), now) != wanted:
            return False
    return True


def _set_fields(ctx: WriteContext, fields: MutableCollection, order: _Set) -> int:
    """Set the fields; a time in the past deletes them. Returns how many were past their time."""
    bounds, now, pairs = ctx.server.encodings.hashes, ctx.now, order.pairs
    if len(pairs) > 2 * bounds.entries:
        hashes.set_encoding(fields, hashes.HASHTABLE)
    expired = 0
    for at in range(0, len(pairs), 2):
        field = pairs[at]
        row = fields.peek(FIELD + field)
        live = hashes.is_live(row, now)
        expired += row is not None and not live
        if order.expire_ms is not None and order.expire_ms <= now:
            hashes.remove(fields, field)
            continue
        expire_ms = order.expire_ms or 0
        if order.keeps and row is not None and live:
            expire_ms = hashes.expire_of(row)
        hashes.put(fields, field, pairs[at + 1], bounds, expire_ms)
    return expired
