"""SLOWLOG: the commands that took long (kvserver/state/slowlog.py keeps them)."""

from __future__ import annotations

from typing import Final

from kvserver import errors, resp
from kvserver.args import parse_int_in
from kvserver.commands.help import help_reply
from kvserver.numbers import INT64_MAX
from kvserver.registry import ADMIN, LOADING, STALE, command, container
from kvserver.state.context import ReadContext
from kvserver.state.slowlog import SlowEntry

_FLAGS: Final = ADMIN | LOADING | STALE
_DEFAULT_COUNT: Final = 10
#: Slow log entries of Redis: id, unix seconds, microseconds, arguments, address, name.
_Reply = tuple[int, int, int, list[bytes], bytes, bytes]

container("slowlog", group="server", since="2.2.12", summary="A container for slow log commands.")


@command(
    "slowlog|get",
    -2,
    _FLAGS,
    group="server",
    since="2.2.12",
    summary="Returns the slow log's entries.",
    complexity="O(N) where N is the number of entries returned",
    tips=("request_policy:all_nodes", "nondeterministic_output"),
    history=(("4.0.0", "Added client IP address, port and name to the reply."),),
)
def slowlog_get(ctx: ReadContext, *rest: bytes) -> list[_Reply]:
    if len(rest) > 1:
        raise errors.subcommand_syntax(b"slowlog", b"GET")
    count = _DEFAULT_COUNT
    if rest:
        message = "count should be greater than or equal to -1"
        count = parse_int_in(rest[0], -1, INT64_MAX, message)
    return [_reply(entry) for entry in ctx.server.slowlog.newest(None if count < 0 else count)]


def _reply(entry: SlowEntry) -> _Reply:
    addr = entry.addr.encode("utf-8", "surrogateescape")
    return entry.id, entry.when, entry.duration, entry.args, addr, entry.name


@command(
    "slowlog|len",
    2,
    _FLAGS,
    group="server",
    since="2.2.12",
    summary="Returns the number of entries in the slow log.",
    tips=("request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"),
)
def slowlog_len(ctx: ReadContext) -> int:
    return len(ctx.server.slowlog)


@command(
    "slowlog|reset",
    2,
    _FLAGS,
    group="server",
    since="2.2.12",
    summary="Clears all entries from the slow log.",
    complexity="O(N) where N is the number of entries in the slowlog",
    tips=("request_policy:all_nodes", "response_policy:all_succeeded"),
)
def slowlog_reset(ctx: ReadContext) -> resp.Simple:
    ctx.server.slowlog.reset()
    return resp.OK


@command(
    "slowlog|help",
    2,
    LOADING | STALE,
    group="server",
    since="6.2.0",
    summary="Show helpful text about the different subcommands",
)
def slowlog_help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "slowlog",
        "GET [<count>]",
        "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
        "    Entries are made of:",
        "    id, timestamp, time in microseconds, arguments array, client IP and port,",
        "    client name",
        "LEN",
        "    Return the length of the slowlog.",
        "RESET",
        "    Reset the slowlog.",
    )
