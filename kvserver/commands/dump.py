"""DUMP, RESTORE and RESTORE-ASKING: a key's value as bytes that any Redis takes, and back.

The format is kvserver/rdb, the rows are kvserver/types/values.py. Source: Redis 7.4's cluster.c.
OBJECT IDLETIME and FREQ tell what the row cache knows, so RESTORE's IDLETIME and FREQ are checked
and have no effect.
"""

from __future__ import annotations

from typing import Any, Final

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int
from kvserver.commands.replies import begin
from kvserver.rdb.decode import decode_steps
from kvserver.rdb.errors import BadFormat, WrongFooter
from kvserver.rdb.types import run
from kvserver.rdb.values import Value
from kvserver.registry import ASKING, DENYOOM, READONLY, WALK, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import values

_TO_CREATE: Final = (
    "O(1) to create the new key and additional O(N*M) to reconstruct the serialized value, where N "
    "is the number of Redis objects composing the value and M their average size. For small string "
    "values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1). However for "
    "sorted set values the complexity is O(N*M*log(N)) because inserting values into sorted sets "
    "is O(log(N))."
)
_HISTORY: Final = (
    ("3.0.0", "Added the `REPLACE` modifier."),
    ("5.0.0", "Added the `ABSTTL` modifier."),
    ("5.0.0", "Added the `IDLETIME` and `FREQ` options."),
)
_CATEGORIES: Final = ("keyspace", "dangerous")

#: A value may take so many times the longest string (proto-max-bulk-len): compressed strings may
#: declare any size.
_LARGER: Final = 4
_U64: Final = 1 << 64
_SIGN: Final = 1 << 63


@command(
    "dump",
    2,
    READONLY | WALK,
    group="generic",
    since="2.6.0",
    summary="Returns a serialized representation of the value stored at a key.",
    complexity="O(1) to access the key and additional O(N*M) to serialize it, where N is the "
    "number of Redis objects composing the value and M their average size. For small string "
    "values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1).",
    keys=key("RO", "ACCESS"),
    categories=("keyspace",),
    tips=("nondeterministic_output",),
)
def dump(ctx: ReadContext, name: bytes) -> Any:
    row = ctx.db.row(name)
    return None if row is None else begin(values.payload(ctx.db, row))


# -- RESTORE ---------------------------------------------------------------------------------------


@command(
    "restore",
    -4,
    WRITE | DENYOOM,
    group="generic",
    since="2.6.0",
    summary="Creates a key from the serialized representation of a value.",
    complexity=_TO_CREATE,
    keys=key("OW", "UPDATE"),
    categories=_CATEGORIES,
    history=_HISTORY,
)
def restore(
    ctx: WriteContext, name: bytes, ttl: bytes, payload: bytes, *words: bytes
) -> resp.Simple:
    return _restore(ctx, name, ttl, payload, words)


@command(
    "restore-asking",
    -4,
    WRITE | DENYOOM | ASKING,
    group="server",
    since="3.0.0",
    summary="An internal command for migrating keys in a cluster.",
    complexity=_TO_CREATE,
    keys=key("OW", "UPDATE"),
    categories=_CATEGORIES,
    history=_HISTORY,
    system=True,
)
def restore_asking(
    ctx: WriteContext, name: bytes, ttl: bytes, payload: bytes, *words: bytes
) -> resp.Simple:
    return _restore(ctx, name, ttl, payload, words)


def _restore(
    ctx: WriteContext, name: bytes, ttl: bytes, payload: bytes, words: tuple[bytes, ...]
) -> resp.Simple:
    """All at once, however large the payload is, as in Redis (restoreCommand)."""
    replace, absolute = _options(words)
    db = ctx.db
    if not replace and db.current(name) is not None:
        raise errors.busy_key()
    expire_ms = parse_int(ttl)
    if expire_ms < 0:
        raise errors.error("Invalid TTL value, must be >= 0")
    value = _decode(ctx, payload)
    deleted = replace and db.delete(name)
    if expire_ms and not absolute:
        expire_ms = _wrapped(expire_ms + ctx.now)
    if expire_ms and expire_ms <= ctx.now:
        if deleted:
            ctx.notify(notify.GENERIC, b"del", name)
        return resp.OK
    values.write(db, name, value, expire_ms, ctx.server.encodings)
    ctx.notify(notify.GENERIC, b"restore", name)
    return resp.OK


def _options(words: tuple[bytes, ...]) -> tuple[bool, bool]:
    """(REPLACE, ABSTTL)."""
    replace = absolute = idle = frequent = False
    options = Cursor(words)
    while options.more():
        if options.flag(b"REPLACE"):
            replace = True
        elif options.flag(b"ABSTTL"):
            absolute = True
        elif not frequent and (text := options.value(b"IDLETIME")) is not None:
            idle = True
            if parse_int(text) < 0:
                raise errors.error("Invalid IDLETIME value, must be >= 0")
        elif not idle and (text := options.value(b"FREQ")) is not None:
            frequent = True
            if not 0 <= parse_int(text) <= 255:
                raise errors.error("Invalid FREQ value, must be >= 0 and <= 255")
        else:
            raise errors.syntax()
    return replace, absolute


def _wrapped(number: int) -> int:
    """As C computes it in 64 bits: a time beyond them has passed."""
    number %= _U64
    return number - _U64 if number >= _SIGN else number


def _decode(ctx: WriteContext, payload: bytes) -> Value:
    most = _LARGER * ctx.server.config.get_int("proto-max-bulk-len")
    try:
        return run(decode_steps(payload, most))
    except WrongFooter:
        raise errors.error("DUMP payload version or checksum are wrong") from None
    except BadFormat:
        raise errors.error("Bad data format") from None
