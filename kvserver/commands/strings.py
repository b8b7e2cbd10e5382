"""Strings as whole values: GET, SET and their relatives.

Parts of strings are in substrings.py, numbers in counters.py, LCS in lcs.py. Source: Redis 7.4's
t_string.c; the order of checks, look-ups and events is that of setGenericCommand, getexCommand
and parseExtendedStringArgumentsOrReply. GET and SET without options are the hot path of most
servers: what they do not need stays out of their way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvserver import codec, errors, resp
from kvserver.args import parse_int
from kvserver.codec import STRING, STRING_HEADER
from kvserver.numbers import INT64_MAX
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, Key, KeySpec, command, key, keys
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext

# Options as bits.
_NX: Final = 1
_XX: Final = 2
_GET: Final = 4
_KEEPTTL: Final = 8
_PERSIST: Final = 16
_EX: Final = 32
_PX: Final = 64
_EXAT: Final = 128
_PXAT: Final = 256
_SECONDS: Final = _EX | _EXAT
_RELATIVE: Final = _EX | _PX
_EXPIRES: Final = _EX | _PX | _EXAT | _PXAT
_TTL: Final = _EXPIRES | _KEEPTTL | _PERSIST

#: Each option's bit, and the bits that it excludes. An option may be repeated.
_Options = dict[bytes, tuple[int, int]]
_TIMES: Final[_Options] = {
    b"EX": (_EX, _TTL ^ _EX),
    b"PX": (_PX, _TTL ^ _PX),
    b"EXAT": (_EXAT, _TTL ^ _EXAT),
    b"PXAT": (_PXAT, _TTL ^ _PXAT),
}
_SET_OPTIONS: Final[_Options] = {
    **_TIMES,
    b"NX": (_NX, _XX),
    b"XX": (_XX, _NX),
    b"GET": (_GET, 0),
    b"KEEPTTL": (_KEEPTTL, _TTL ^ _KEEPTTL),
}
_GETEX_OPTIONS: Final[_Options] = {**_TIMES, b"PERSIST": (_PERSIST, _TTL ^ _PERSIST)}

_SET_KEY: Final = KeySpec(
    1,
    1,
    1,
    ("RW", "ACCESS", "UPDATE", "VARIABLE_FLAGS"),
    "RW and ACCESS due to the optional `GET` argument",
)
_GETEX_KEY: Final = KeySpec(
    1, 1, 1, ("RW", "ACCESS", "UPDATE"), "RW and UPDATE because it changes the TTL"
)


def _parse_options(args: tuple[bytes, ...], options: _Options) -> tuple[int, bytes]:
    """The bits of the options in `args`, and the text of the time to expire if one is there."""
    seen = 0
    time = b""
    at = 0
    while at < len(args):
        bit, excluded = options.get(args[at].upper(), (0, 0))
        if not bit or seen & excluded:
            raise errors.syntax()
        seen |= bit
        if bit & _EXPIRES:
            at += 1
            if at == len(args):
                raise errors.syntax()
            time = args[at]
        at += 1
    return seen, time


def _expire_ms(name: str, bits: int, time: bytes, now: int) -> int:
    """When a key expires, in unix ms, perhaps in the past; `name` is the command's."""
    expire = parse_int(time)
    if bits & _SECONDS:
        expire *= 1000
    if expire <= 0 or expire > INT64_MAX - (now if bits & _RELATIVE else 0):
        raise errors.invalid_expire(name)
    return expire + now if bits & _RELATIVE else expire


def expire_option(name: str, options: tuple[bytes, ...], now: int) -> int:
    """When `EX seconds` and its kin make a key expire, in unix ms; 0 without an option. `name` is
    the command's."""
    bits, time = _parse_options(options, _TIMES)
    return _expire_ms(name, bits, time, now) if bits else 0


@command(
    "get",
    2,
    READONLY | FAST,
    group="string",
    since="1.0.0",
    summary="Returns the string value of a key.",
    keys=key("RO", "ACCESS"),
    categories=("string",),
)
def get(ctx: ReadContext, key: bytes) -> bytes | None:
    row = ctx.db.row(key)
    if row is None:
        return None
    if row[0] == STRING:
        return row[1:]
    return ctx.db.string_of(row)


def _locate_set_key(args: Sequence[bytes]) -> list[Key]:
    reads = any(arg.upper() == b"GET" for arg in args[3:])
    return [(1, ("RW", "ACCESS", "UPDATE") if reads else ("OW", "UPDATE"))]


@command(
    "set",
    -3,
    WRITE | DENYOOM,
    group="string",
    since="1.0.0",
    summary="Sets the string value of a key, ignoring its type. The key is created if it "
    "doesn't exist.",
    keys=(_SET_KEY,),
    categories=("string",),
    history=(
        ("2.6.12", "Added the `EX`, `PX`, `NX` and `XX` options."),
        ("6.0.0", "Added the `KEEPTTL` option."),
        ("6.2.0", "Added the `GET`, `EXAT` and `PXAT` option."),
        ("7.0.0", "Allowed the `NX` and `GET` options to be used together."),
    ),
    locate=_locate_set_key,
)
def set_(ctx: WriteContext, key: bytes, value: bytes, *options: bytes) -> bytes | None:
    if options:
        return _set_with(ctx, key, value, options)
    _store_plain(ctx, key, value)
    return resp.OK


def _store_plain(ctx: WriteContext, key: bytes, value: bytes) -> None:
    """`store` without a time to expire, on the hot path."""
    ctx.db.put(key, STRING_HEADER + value)
    if ctx.server.notifier.flags:  # `notify` asks too: this saves the call
        ctx.notify(notify.STRING, b"set", key)


def _set_with(
    ctx: WriteContext, key: bytes, value: bytes, options: tuple[bytes, ...]
) -> bytes | None:
    bits, time = _parse_options(options, _SET_OPTIONS)
    expire = _expire_ms("set", bits, time, ctx.now) if bits & _EXPIRES else 0
    reply = ctx.db.string(key) if bits & _GET else resp.OK
    kept = 0
    if bits & (_NX | _XX | _KEEPTTL):
        row = ctx.db.current(key)
        if bits & (_XX if row is None else _NX):
            return reply if bits & _GET else None
        if bits & _KEEPTTL and row is not None:
            kept = codec.row_expire(row)
    store(ctx, key, value, expire, kept)
    return reply


def store(ctx: WriteContext, key: bytes, value: bytes, expire: int = 0, kept: int = 0) -> None:
    """Set the value, and tell. It expires at `expire` if that is given, else, if the time is
    `kept`, as before."""
    ctx.db.put_string(key, value, expire or kept)
    ctx.notify(notify.STRING, b"set", key)
    if expire:
        ctx.notify(notify.GENERIC, b"expire", key)


@command(
    "setnx",
    3,
    WRITE | DENYOOM | FAST,
    group="string",
    since="1.0.0",
    summary="Set the string value of a key only when the key doesn't exist.",
    keys=key("OW", "INSERT"),
    categories=("string",),
    deprecated=("2.6.12", "`SET` with the `NX` argument"),
)
def setnx(ctx: WriteContext, key: bytes, value: bytes) -> int:
    if ctx.db.current(key) is not None:
        return 0
    store(ctx, key, value)
    return 1


@command(
    "setex",
    4,
    WRITE | DENYOOM,
    group="string",
    since="2.0.0",
    summary="Sets the string value and expiration time of a key. Creates the key if it "
    "doesn't exist.",
    keys=key("OW", "UPDATE"),
    categories=("string",),
    deprecated=("2.6.12", "`SET` with the `EX` argument"),
)
def setex(ctx: WriteContext, key: bytes, seconds: bytes, value: bytes) -> resp.Simple:
    store(ctx, key, value, _expire_ms("setex", _EX, seconds, ctx.now))
    return resp.OK


@command(
    "psetex",
    4,
    WRITE | DENYOOM,
    group="string",
    since="2.6.0",
    summary="Sets both string value and expiration time in milliseconds of a key. The key is "
    "created if it doesn't exist.",
    keys=key("OW", "UPDATE"),
    categories=("string",),
    deprecated=("2.6.12", "`SET` with the `PX` argument"),
)
def psetex(ctx: WriteContext, key: bytes, milliseconds: bytes, value: bytes) -> resp.Simple:
    store(ctx, key, value, _expire_ms("psetex", _PX, milliseconds, ctx.now))
    return resp.OK


@command(
    "getset",
    3,
    WRITE | DENYOOM | FAST,
    group="string",
    since="1.0.0",
    summary="Returns the previous string value of a key after setting it to a new value.",
    keys=key("RW", "ACCESS", "UPDATE"),
    categories=("string",),
    deprecated=("6.2.0", "`SET` with the `!GET` argument"),
)
def getset(ctx: WriteContext, key: bytes, value: bytes) -> bytes | None:
    old = ctx.db.string(key)
    store(ctx, key, value)
    return old


@command(
    "getdel",
    2,
    WRITE | FAST,
    group="string",
    since="6.2.0",
    summary="Returns the string value of a key after deleting the key.",
    keys=key("RW", "ACCESS", "DELETE"),
    categories=("string",),
)
def getdel(ctx: WriteContext, key: bytes) -> bytes | None:
    value = ctx.db.string(key)
    if value is not None:
        ctx.db.delete(key)
        ctx.notify(notify.GENERIC, b"del", key)
    return value


@command(
    "getex",
    -2,
    WRITE | FAST,
    group="string",
    since="6.2.0",
    summary="Returns the string value of a key after setting its expiration time.",
    keys=(_GETEX_KEY,),
    categories=("string",),
)
def getex(ctx: WriteContext, key: bytes, *options: bytes) -> bytes | None:
    bits, time = _parse_options(options, _GETEX_OPTIONS)
    row = ctx.db.string_row(key)
    if row is None:
        return None
    value = ctx.db.string_of(row)
    if bits & _EXPIRES:
        _expire_at(ctx, key, row, _expire_ms("getex", bits, time, ctx.now))
    elif bits & _PERSIST and codec.row_expire(row):
        ctx.db.put(key, codec.with_expire(row, 0))
        ctx.notify(notify.GENERIC, b"persist", key)
    return value


def _expire_at(ctx: WriteContext, key: bytes, row: bytes, expire: int) -> None:
    """Give the key another time to expire; a time in the past deletes it."""
    if expire <= ctx.now:
        ctx.db.delete(key)
        ctx.notify(notify.GENERIC, b"del", key)
    else:
        ctx.db.put(key, codec.with_expire(row, expire))
        ctx.notify(notify.GENERIC, b"expire", key)


@command(
    "mget",
    -2,
    READONLY | FAST,
    group="string",
    since="1.0.0",
    summary="Atomically returns the string values of one or more keys.",
    complexity="O(N) where N is the number of keys to retrieve.",
    keys=keys("RO", "ACCESS"),
    categories=("string",),
    tips=("request_policy:multi_shard",),
)
def mget(ctx: ReadContext, *names: bytes) -> list[bytes | None]:
    return [_string_or_none(ctx, ctx.db.row(name)) for name in names]


def _string_or_none(ctx: ReadContext, row: bytes | None) -> bytes | None:
    return ctx.db.string_of(row) if row is not None and codec.is_string(row) else None


@command(
    "mset",
    -3,
    WRITE | DENYOOM,
    group="string",
    since="1.0.1",
    summary="Atomically creates or modifies the string values of one or more keys.",
    complexity="O(N) where N is the number of keys to set.",
    keys=keys("OW", "UPDATE", step=2),
    categories=("string",),
    tips=("request_policy:multi_shard", "response_policy:all_succeeded"),
)
def mset(ctx: WriteContext, *pairs: bytes) -> resp.Simple:
    if len(pairs) % 2:
        raise errors.wrong_arity("mset")
    _store_all(ctx, pairs)
    return resp.OK


@command(
    "msetnx",
    -3,
    WRITE | DENYOOM,
    group="string",
    since="1.0.1",
    summary="Atomically modifies the string values of one or more keys only when all keys "
    "don't exist.",
    complexity="O(N) where N is the number of keys to set.",
    keys=keys("OW", "INSERT", step=2),
    categories=("string",),
)
def msetnx(ctx: WriteContext, *pairs: bytes) -> int:
    if len(pairs) % 2:
        raise errors.wrong_arity("msetnx")
    if any(ctx.db.current(name) is not None for name in pairs[::2]):
        return 0
    _store_all(ctx, pairs)
    return 1


def _store_all(ctx: WriteContext, pairs: tuple[bytes, ...]) -> None:
    for at in range(0, len(pairs), 2):
        _store_plain(ctx, pairs[at], pairs[at + 1])
