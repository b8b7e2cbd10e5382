"""DEBUG: what test suites of clients use to bring a server into a state.

One command, as in Redis 7.4 (debug.c): the subcommands are not commands of their own. It is off
unless `enable-debug-command` allows it. Left out is what crashes or corrupts a server, what shows
data structures that kvserver doesn't have, and what tests Redis' own replication.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final

from kvserver import codec, errors, glob, resp
from kvserver.commands.help import help_reply
from kvserver.commands.objects import encoding, references
from kvserver.numbers import parse_double
from kvserver.registry import ADMIN, LOADING, NOSCRIPT, STALE, command
from kvserver.state import process
from kvserver.state.context import ReadContext
from kvserver.state.session import Session
from kvserver.types import sparse

logger = logging.getLogger("kvserver")

_NUMBER: Final = re.compile(rb"\s*[+-]?\d{1,18}")


@command(
    "debug",
    -2,
    ADMIN | NOSCRIPT | LOADING | STALE,
    group="server",
    since="1.0.0",
    summary="A container for debugging commands.",
    complexity="Depends on subcommand.",
    system=True,
)
def debug(ctx: ReadContext, name: bytes, *args: bytes) -> object:
    _check_allowed(ctx)
    counts, handler = _SUBCOMMANDS.get(name.lower(), ((), _help))
    if len(args) not in counts:
        raise errors.subcommand_syntax(b"debug", name)
    return handler(ctx, *args)


def _check_allowed(ctx: ReadContext) -> None:
    allowed = ctx.server.config.get_str("enable-debug-command")
    if allowed == "no" or (allowed == "local" and not _is_local(ctx.session)):
        raise errors.protected_command("DEBUG", "enable-debug-command")


def _is_local(session: Session) -> bool:
    return session.unix or session.addr.rpartition(":")[0] in ("127.0.0.1", "[::1]")


def _help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "debug",
        "ERROR <string>",
        "    Return a Redis protocol error with <string> as message. Useful for clients",
        "    unit tests to simulate Redis errors.",
        "JMAP",
        "    Return the memory map of the server's process, summed up by the kernel.",
        "LOG <message>",
        "    Write <message> to the server log.",
        "OBJECT <key>",
        "    Show low level info about `key` and associated value.",
        "PROTOCOL <type>",
        "    Reply with a test value of the specified type. <type> can be: string,",
        "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
        "    true, false.",
        "RELOAD [option ...]",
        "    Write everything to data files, forget what is cached, and read the counts of",
        "    the databases from disk. The options of Redis (MERGE, NOFLUSH, NOSAVE) change",
        "    nothing: data on disk is never replaced.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Setting it to 0 disables expiring keys in background when they are not",
        "    accessed (otherwise the Redis behavior). Setting it to 1 reenables back the",
        "    default.",
        "SLEEP <seconds>",
        "    Stop the server for <seconds>. Decimals allowed.",
        "STRINGMATCH-LEN <pattern> <string>",
        "    Return 1 if the glob-style <pattern> matches <string>, otherwise 0.",
    )


def _sleep(ctx: ReadContext, seconds: bytes) -> resp.Simple:
    """Blocks the event loop: that is what it is for."""
    time.sleep(max(parse_double(seconds) or 0.0, 0.0))
    return resp.OK


def _set_active_expire(ctx: ReadContext, value: bytes) -> resp.Simple:
    """Reads the value as C's atoi does."""
    match = _NUMBER.match(value)
    ctx.server.active_expire = match is not None and int(match[0]) != 0
    return resp.OK


def _error(ctx: ReadContext, text: bytes) -> resp.Raw:
    """As it is given, and not counted among the errors."""
    line = text.replace(b"\r", b" ").replace(b"\n", b" ")
    return resp.Raw(b"-" + line + b"\r\n")


def _log(ctx: ReadContext, message: bytes) -> resp.Simple:
    logger.warning("DEBUG LOG: %s", message.decode("utf-8", "backslashreplace"))
    return resp.OK


def _memory_map(ctx: ReadContext) -> resp.Verbatim:
    return resp.Verbatim(process.memory_map())


def _matches(ctx: ReadContext, pattern: bytes, string: bytes) -> int:
    return int(glob.compile(pattern)(string))


def _object(ctx: ReadContext, key: bytes) -> resp.Simple:
    """The fields of Redis: the length is that of the value as it is stored, `lru` and the idle
    time are what OBJECT IDLETIME tells."""
    row, seconds = ctx.db.look(key)
    if row is None:
        raise errors.no_such_key()
    idle = int(seconds)
    lru = (ctx.now // 1000 - idle) & 0xFFFFFF
    size = sparse.size(row) if codec.is_string(row) else len(row) - codec.value_offset(row)
    return resp.Simple(
        b"Value at:%#x refcount:%d encoding:%b serializedlength:%d lru:%d lru_seconds_idle:%d"
        % (id(row), references(row), encoding(row), size, lru, idle)
    )


def _reload(ctx: ReadContext, *options: bytes) -> resp.Simple:
    """Redis saves, empties and loads. Here everything is on disk already; what can be tried is
    whether that is enough: commit, flush the memtables, drop the caches, read the counts again.
    Blocks, and isn't for EXEC: the commands before it can't be committed apart from the rest."""
    for option in options:
        if option.upper() not in (b"MERGE", b"NOFLUSH", b"NOSAVE"):
            raise errors.error("DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.")
    if ctx.deny_blocking:
        raise errors.error("DEBUG RELOAD isn't allowed for DENY BLOCKING client")
    server = ctx.server
    if server.log.pending and not server.turn.commit():
        raise errors.error("Error trying to load the RDB dump, check server logs.")
    server.log.engine.flush()
    server.log.rows.cache.clear()
    server.keyspace.load()
    return resp.OK


# -- PROTOCOL ------------------------------------------------------------------------------

_TYPES: Final[dict[bytes, object]] = {
    b"string": b"Hello World",
    b"integer": 12345,
    b"double": 3.141,
    b"null": None,
    b"array": [0, 1, 2],
    b"set": {0, 1, 2},
    b"map": {0: False, 1: True, 2: False},
    b"verbatim": resp.Verbatim(b"This is a verbatim\nstring"),
    b"true": True,
    b"false": False,
}
_BIGNUM: Final = b"1234567999999999999999999999999999999"
_AFTER_ATTRIBUTE: Final = b"Some real reply following the attribute"
_AFTER_PUSH: Final = b"Some real reply following the push reply"


def _protocol(ctx: ReadContext, kind: bytes) -> object:
    kind, resp3 = kind.lower(), ctx.session.resp3
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == b"bignum":
        return resp.Raw(b"(" + _BIGNUM + b"\r\n") if resp3 else _BIGNUM
    if kind == b"attrib":
        return _with_attribute() if resp3 else _AFTER_ATTRIBUTE
    if kind == b"push":
        return _push(resp3)
    raise errors.error(
        "Wrong protocol type name. Please use one of the following: "
        "string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false"
    )


def _with_attribute() -> resp.Raw:
    attribute = resp.encode(b"key-popularity", True) + resp.encode([b"key:123", 90], True)
    return resp.Raw(b"|1\r\n" + attribute + resp.encode(_AFTER_ATTRIBUTE, True))


def _push(resp3: bool) -> resp.Replies:
    if not resp3:
        raise errors.error("RESP2 is not supported by this command")
    return resp.Replies([resp.Push([b"server-cpu-usage", 42]), _AFTER_PUSH])


#: Name -> (how many arguments it takes, handler).
_SUBCOMMANDS: Final[dict[bytes, tuple[range | tuple[int, ...], Callable[..., object]]]] = {
    b"error": ((1,), _error),
    b"help": ((0,), _help),
    b"jmap": ((0,), _memory_map),
    b"log": ((1,), _log),
    b"object": ((1,), _object),
    b"protocol": ((1,), _protocol),
    b"reload": (range(4), _reload),
    b"set-active-expire": ((1,), _set_active_expire),
    b"sleep": ((1,), _sleep),
    b"stringmatch-len": ((2,), _matches),
}
