"""Commands of a connection about itself: PING, ECHO, SELECT, AUTH, HELLO, RESET, QUIT.

Source: Redis 7.4's networking.c (helloCommand, resetCommand) and acl.c (authCommand). Who
the users are is in state/acl.py.
"""

from __future__ import annotations

from kvserver import REDIS_VERSION, errors, resp
from kvserver.args import INT_MAX, INT_MIN, Cursor, parse_int_in
from kvserver.commands.client import checked_name
from kvserver.numbers import INT64_MAX, INT64_MIN
from kvserver.registry import (
    ALLOW_BUSY,
    FAST,
    IN_PUBSUB,
    LOADING,
    NO_AUTH,
    NOSCRIPT,
    NOT_QUEUED,
    STALE,
    command,
)
from kvserver.state.context import ReadContext
from kvserver.state.session import (
    MONITORING,
    REPLY_OFF,
    REPLY_SKIP_NEXT,
    RESP2_SUBSCRIBED,
)

_HANDSHAKE = NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY


@command(
    "ping",
    -1,
    FAST | IN_PUBSUB,
    group="connection",
    since="1.0.0",
    summary="Returns the server's liveliness response.",
    categories=("connection",),
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)
def ping(ctx: ReadContext, *message: bytes) -> object:
    if len(message) > 1:
        raise errors.wrong_arity("ping")
    if ctx.session.gate & RESP2_SUBSCRIBED:
        return [b"pong", message[0] if message else b""]
    return message[0] if message else resp.PONG


@command(
    "echo",
    2,
    LOADING | STALE | FAST,
    group="connection",
    since="1.0.0",
    summary="Returns the given string.",
    categories=("connection",),
)
def echo(_ctx: ReadContext, message: bytes) -> bytes:
    return message


@command(
    "select",
    2,
    LOADING | STALE | FAST,
    group="connection",
    since="1.0.0",
    summary="Changes the selected database.",
    categories=("connection",),
)
def select(ctx: ReadContext, index: bytes) -> resp.Simple:
    number = parse_int_in(index, INT_MIN, INT_MAX)
    if not 0 <= number < ctx.keyspace.numbered:
        raise errors.db_index_out_of_range()
    if not ctx.session.namespace:  # a namespace is one database, whatever is selected
        ctx.session.db = number
    return resp.OK


@command(
    "quit",
    -1,
    _HANDSHAKE | NOT_QUEUED | IN_PUBSUB,
    group="connection",
    since="1.0.0",
    summary="Closes the connection.",
    categories=("connection",),
    deprecated=("7.2.0", "just closing the connection"),
)
def quit_(ctx: ReadContext, *_ignored: bytes) -> resp.Simple:
    ctx.session.close_after_reply()
    return resp.OK


# -- who and how ---------------------------------------------------------------------------


@command(
    "auth",
    -2,
    _HANDSHAKE,
    group="connection",
    since="1.0.0",
    summary="Authenticates the connection.",
    complexity="O(N) where N is the number of passwords defined for the user",
    categories=("connection",),
    history=(("6.0.0", "Added ACL style (username and password)."),),
)
def auth(ctx: ReadContext, *credentials: bytes) -> resp.Simple:
    if len(credentials) > 2:
        raise errors.syntax()
    if len(credentials) == 1:
        known = ctx.server.namespaces.of_token(credentials[0])
        if ctx.server.acl.default.no_password and known is None:
            raise errors.no_password()
        credentials = (b"default", credentials[0])
    if not ctx.server.acl.log_in(ctx.session, credentials[0], credentials[1], b"AUTH"):
        raise errors.wrong_password()
    return resp.OK


@command(
    "hello",
    -1,
    _HANDSHAKE,
    group="connection",
    since="6.0.0",
    summary="Handshakes with the Redis server.",
    categories=("connection",),
    history=(
        (
            "6.2.0",
            "`protover` made optional; when called without arguments the command reports the "
            "current connection's context.",
        ),
    ),
)
def hello(ctx: ReadContext, *words: bytes) -> dict[bytes, object]:
    session = ctx.session
    version = _protocol(words[0]) if words else 0
    credentials, name = _hello_options(words)
    if credentials is not None and not ctx.server.acl.log_in(session, *credentials, b"HELLO"):
        raise errors.wrong_password()
    if not session.authenticated:
        raise errors.hello_no_auth()
    if name is not None:
        session.name = name
    if version:
        session.resp3 = version == 3
        ctx.server.pubsub.regate(session)
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION,
        b"proto": 3 if session.resp3 else 2,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": b"replica" if ctx.server.replication.is_replica else b"master",
        b"modules": [],
    }


def _protocol(word: bytes) -> int:
    message = "Protocol version is not an integer or out of range"
    version = parse_int_in(word, INT64_MIN, INT64_MAX, message)
    if version not in (2, 3):
        raise errors.no_protocol()
    return version


def _hello_options(words: tuple[bytes, ...]) -> tuple[tuple[bytes, bytes] | None, bytes | None]:
    """((user, password) of AUTH, name of SETNAME), each if given."""
    credentials = name = None
    options = Cursor(words, 1)
    while options.more():
        if options.remaining() > 2 and options.flag(b"AUTH"):
            credentials = (options.next(), options.next())
        elif (value := options.value(b"SETNAME")) is not None:
            name = checked_name(value)
        else:
            raise errors.hello_option(options.next())
    return credentials, name


@command(
    "reset",
    1,
    _HANDSHAKE | NOT_QUEUED | IN_PUBSUB,
    group="connection",
    since="6.2.0",
    summary="Resets the connection.",
    categories=("connection",),
)
def reset(ctx: ReadContext) -> resp.Simple:
    """Back to what the connection was at its start; the library's name stays."""
    session, server = ctx.session, ctx.server
    server.monitors.pop(session, None)
    session.discard_transaction()
    server.watches.unwatch(session)
    server.tracking.disable(session)
    session.resp3 = False
    server.pubsub.forget(session)
    session.db = 0
    session.name = b""
    session.no_evict = session.no_touch = False
    session.gate &= ~(REPLY_OFF | REPLY_SKIP_NEXT | MONITORING)
    server.acl.welcome(session)
    return resp.Simple(b"RESET")
