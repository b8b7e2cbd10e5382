"""CLIENT: names and lists of connections, their replies, and the pause.

Source: Redis 7.4's networking.c (clientCommand, clientSetinfoCommand). What a line of CLIENT
LIST says is in kvserver/state/clientinfo.py, what a pause does in kvserver/state/pause.py.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from kvserver import errors, resp
from kvserver.args import parse_int, parse_int_in, parse_timeout_ms
from kvserver.commands.help import help_reply
from kvserver.numbers import INT64_MAX, INT64_MIN
from kvserver.registry import ADMIN, LOADING, NOSCRIPT, STALE, WALK, command, container
from kvserver.state import clientinfo, pause
from kvserver.state.context import Blocked, ReadContext
from kvserver.state.session import REPLY_OFF, REPLY_SKIP, REPLY_SKIP_NEXT, Session

FLAGS = NOSCRIPT | LOADING | STALE
ADMIN_FLAGS = ADMIN | FLAGS
CATEGORIES = ("connection",)

Listing = Generator[None, None, resp.Verbatim]
#: Sessions that are described in one step: about two milliseconds.
_CHUNK = 128

container(
    "client",
    group="connection",
    since="2.4.0",
    summary="A container for client connection commands.",
)


# -- about the own connection --------------------------------------------------------------


@command(
    "client|id",
    2,
    FLAGS,
    group="connection",
    since="5.0.0",
    summary="Returns the unique client ID of the connection.",
    categories=CATEGORIES,
)
def client_id(ctx: ReadContext) -> int:
    return ctx.session.id


@command(
    "client|info",
    2,
    FLAGS,
    group="connection",
    since="6.2.0",
    summary="Returns information about the connection.",
    categories=CATEGORIES,
    tips=("nondeterministic_output",),
)
def client_info(ctx: ReadContext) -> resp.Verbatim:
    return resp.Verbatim(clientinfo.describe(ctx.session) + b"\n")


@command(
    "client|getname",
    2,
    FLAGS,
    group="connection",
    since="2.6.9",
    summary="Returns the name of the connection.",
    categories=CATEGORIES,
)
def client_getname(ctx: ReadContext) -> bytes | None:
    return ctx.session.name or None


@command(
    "client|setname",
    3,
    FLAGS,
    group="connection",
    since="2.6.9",
    summary="Sets the connection name.",
    categories=CATEGORIES,
)
def client_setname(ctx: ReadContext, name: bytes) -> resp.Simple:
    ctx.session.name = checked_name(name)
    return resp.OK


def checked_name(name: bytes) -> bytes:
    """A client's name, if it can stand in CLIENT LIST."""
    return _checked_attribute(b"Client names", name)


def _checked_attribute(attribute: bytes, value: bytes) -> bytes:
    if not all(0x21 <= char <= 0x7E for char in value):
        raise errors.bad_client_attribute(attribute)
    return value


@command(
    "client|setinfo",
    4,
    FLAGS,
    group="connection",
    since="7.2.0",
    summary="Sets information specific to the client or connection.",
    categories=CATEGORIES,
)
def client_setinfo(ctx: ReadContext, attribute: bytes, value: bytes) -> resp.Simple:
    kind = attribute.lower()
    if kind not in (b"lib-name", b"lib-ver"):
        raise errors.unrecognized_option(attribute)
    _checked_attribute(attribute, value)
    if kind == b"lib-name":
        ctx.session.lib_name = value
    else:
        ctx.session.lib_ver = value
    return resp.OK


@command(
    "client|no-evict",
    3,
    ADMIN_FLAGS,
    group="connection",
    since="7.0.0",
    summary="Sets the client eviction mode of the connection.",
    categories=CATEGORIES,
)
def client_no_evict(ctx: ReadContext, word: bytes) -> resp.Simple:
    ctx.session.no_evict = _on(word)
    return resp.OK


@command(
    "client|no-touch",
    3,
    FLAGS,
    group="connection",
    since="7.2.0",
    summary="Controls whether commands sent by the client affect the LRU/LFU of accessed keys.",
    categories=CATEGORIES,
)
def client_no_touch(ctx: ReadContext, word: bytes) -> resp.Simple:
    ctx.session.no_touch = _on(word)
    return resp.OK


def _on(word: bytes) -> bool:
    option = word.upper()
    if option not in (b"ON", b"OFF"):
        raise errors.syntax()
    return option == b"ON"


@command(
    "client|reply",
    3,
    FLAGS,
    group="connection",
    since="3.2.0",
    summary="Instructs the server whether to reply to commands.",
    categories=CATEGORIES,
)
def client_reply(ctx: ReadContext, mode: bytes) -> bytes:
    session, option = ctx.session, mode.upper()
    if option == b"ON":
        session.gate &= ~(REPLY_OFF | REPLY_SKIP)
        return resp.OK
    if option == b"OFF":
        session.gate |= REPLY_OFF
    elif option != b"SKIP":
        raise errors.syntax()
    elif not session.gate & REPLY_OFF:
        session.gate |= REPLY_SKIP_NEXT
    return resp.NO_REPLY


# -- about others --------------------------------------------------------------------------


@command(
    "client|list",
    -2,
    ADMIN_FLAGS | WALK,
    group="connection",
    since="2.4.0",
    summary="Lists open connections.",
    complexity="O(N) where N is the number of client connections",
    categories=CATEGORIES,
    tips=("nondeterministic_output",),
    history=(
        ("2.8.12", "Added unique client `id` field."),
        ("5.0.0", "Added optional `TYPE` filter."),
        ("6.0.0", "Added `user` field."),
        (
            "6.2.0",
            "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields and the optional `ID` filter.",
        ),
        ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."),
        ("7.0.3", "Added `ssub` field."),
        ("7.2.0", "Added `lib-name` and `lib-ver` fields."),
        ("7.4.0", "Added `watch` field."),
    ),
)
def client_list(ctx: ReadContext, *words: bytes) -> resp.Verbatim | Listing:
    sessions = ctx.server.sessions
    option = words[0].upper() if words else b""
    if option == b"TYPE" and len(words) == 2:
        kind = parse_type(words[1])
        chosen = [s for s in sessions.values() if clientinfo.client_type(s) == kind]
    elif option == b"ID" and len(words) > 1:
        ids = [parse_int_in(word, INT64_MIN, INT64_MAX, "Invalid client ID") for word in words[1:]]
        chosen = [sessions[number] for number in ids if number in sessions]
    elif words:
        raise errors.syntax()
    else:
        chosen = list(sessions.values())
    if len(chosen) <= _CHUNK:
        return _lines(chosen)
    return _listing(sessions, chosen)


def _lines(sessions: Sequence[Session]) -> resp.Verbatim:
    return resp.Verbatim(b"".join(clientinfo.describe(each) + b"\n" for each in sessions))


def _listing(connected: dict[int, Session], chosen: list[Session]) -> Listing:
    """The lines of many sessions, in steps; without those that leave meanwhile."""
    parts = []
    for start in range(0, len(chosen), _CHUNK):
        parts.append(_lines([s for s in chosen[start : start + _CHUNK] if s.id in connected]))
        yield
    return resp.Verbatim(b"".join(parts))


def parse_type(word: bytes) -> bytes:
    """A type of client, as TYPE filters take it."""
    kind = clientinfo.TYPES.get(word.lower())
    if kind is None:
        raise errors.unknown_client_type(word)
    return kind


@command(
    "client|unblock",
    -3,
    ADMIN_FLAGS,
    group="connection",
    since="5.0.0",
    summary="Unblocks a client blocked by a blocking command from a different connection.",
    complexity="O(log N) where N is the number of client connections",
    categories=CATEGORIES,
)
def client_unblock(ctx: ReadContext, number: bytes, *reason: bytes) -> int:
    """A command that a pause holds back can't be unblocked."""
    if len(reason) > 1:
        raise errors.subcommand_syntax(b"CLIENT", b"UNBLOCK")
    how = reason[0].upper() if reason else b"TIMEOUT"
    if how not in (b"TIMEOUT", b"ERROR"):
        raise errors.error("CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    session = ctx.server.sessions.get(parse_int(number))
    blocked = session.blocked_on if session is not None else None
    if session is None or type(blocked) is not Blocked:
        return 0
    reply = errors.unblocked() if how == b"ERROR" else blocked.on_timeout()
    ctx.server.waiting.unblock_later(session, reply)
    return 1


# -- the pause -----------------------------------------------------------------------------


@command(
    "client|pause",
    -3,
    ADMIN_FLAGS,
    group="connection",
    since="3.0.0",
    summary="Suspends commands processing.",
    categories=CATEGORIES,
    history=(("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option."),),
)
def client_pause(ctx: ReadContext, timeout: bytes, *mode: bytes) -> resp.Simple:
    if len(mode) > 1:
        raise errors.subcommand_syntax(b"CLIENT", b"PAUSE")
    word = mode[0].upper() if mode else b"ALL"
    if word not in (b"WRITE", b"ALL"):
        raise errors.error("CLIENT PAUSE mode must be WRITE or ALL")
    end = ctx.now + parse_timeout_ms(timeout, ctx.now)
    ctx.server.pauses.pause("client", end, pause.WRITES if word == b"WRITE" else pause.ALL)
    return resp.OK


@command(
    "client|unpause",
    2,
    ADMIN_FLAGS,
    group="connection",
    since="6.2.0",
    summary="Resumes processing commands from paused clients.",
    complexity="O(N) Where N is the number of paused clients",
    categories=CATEGORIES,
)
def client_unpause(ctx: ReadContext) -> resp.Simple:
    ctx.server.pauses.unpause("client")
    return resp.OK


@command(
    "client|help",
    2,
    LOADING | STALE,
    group="connection",
    since="5.0.0",
    summary="Returns helpful text about the different subcommands.",
    categories=CATEGORIES,
)
def client_help(_ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "client",
        "CACHING (YES|NO)",
        "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
        "GETREDIR",
        "    Return the client ID we are redirecting to when tracking is enabled.",
        "GETNAME",
        "    Return the name of the current connection.",
        "ID",
        "    Return the ID of the current connection.",
        "INFO",
        "    Return information about the current client connection.",
        "KILL <ip:port>",
        "    Kill connection made from <ip:port>.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Kill connections. Options are:",
        "    * ADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made from the specified address",
        "    * LADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made to specified local address",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Kill connections by type.",
        "    * USER <username>",
        "      Kill connections authenticated by <username>.",
        "    * SKIPME (YES|NO)",
        "      Skip killing current connection (default: yes).",
        "    * ID <client-id>",
        "      Kill connections by client id.",
        "    * MAXAGE <maxage>",
        "      Kill connections older than the specified age.",
        "LIST [options ...]",
        "    Return information about client connections. Options:",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Return clients of specified type.",
        "    * ID <client-id> [<client-id> ...]",
        "      Return clients of specified IDs only.",
        "UNPAUSE",
        "    Stop the current client pause, resuming traffic.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Suspend all, or just write, clients for <timeout> milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Control the replies sent to the current connection.",
        "SETNAME <name>",
        "    Assign the name <name> to the current connection.",
        "SETINFO <option> <value>",
        "    Set client meta attr. Options are:",
        "    * LIB-NAME: the client lib name.",
        "    * LIB-VER: the client lib version.",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "    Unblock the specified blocked client.",
        "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
        "         [OPTIN] [OPTOUT] [NOLOOP]",
        "    Control server assisted client side caching.",
        "TRACKINGINFO",
        "    Report tracking status for the current connection.",
        "NO-EVICT (ON|OFF)",
        "    Protect current client connection from eviction.",
        "NO-TOUCH (ON|OFF)",
        "    Will not touch LRU/LFU stats when this mode is on.",
    )
