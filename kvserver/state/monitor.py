"""MONITOR: every command, as it is executed, to the sessions that asked for it.

Source: Redis 7.4's replication.c, replicationFeedMonitors. Commands with SKIP_MONITOR or
ADMIN aren't shown; arguments of those that carry secrets read `(redacted)`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from kvserver.registry import ADMIN, SKIP_MONITOR
from kvserver.state.redact import redacted
from kvserver.state.session import Session
from kvserver.state.table import Entry

if TYPE_CHECKING:
    from kvserver.state.server import Server

_ESCAPES: Final = {
    0x5C: b"\\\\",
    0x22: b'\\"',
    10: b"\\n",
    13: b"\\r",
    9: b"\\t",
    7: b"\\a",
    8: b"\\b",
}


def feed(server: Server, session: Session, entry: Entry, args: list[bytes]) -> None:
    """Show a command to every monitor."""
    if not entry.flags & (SKIP_MONITOR | ADMIN):
        show(server, session, entry, args)


def show(server: Server, session: Session, entry: Entry, args: list[bytes]) -> None:
    """The same, whatever the command's flags say: a script is shown before what it calls."""
    shown = redacted(server.config, entry, args)
    now = time.time_ns() // 1000
    addr = _address(server, session)
    head = b"+%d.%06d [%d %b]" % (now // 1_000_000, now % 1_000_000, session.db, addr)
    line = head + b"".join(b" " + quoted(arg) for arg in shown) + b"\r\n"
    for monitor in server.monitors:
        monitor.send(line)


def _address(server: Server, session: Session) -> bytes:
    text = f"unix:{server.config.get_str('unixsocket')}" if session.unix else session.addr
    return text.encode("utf-8", "surrogateescape")


def quoted(arg: bytes) -> bytes:
    """sdscatrepr: in double quotes, with what isn't printable escaped."""
    if arg.isalnum():
        return b'"' + arg + b'"'
    return b'"' + b"".join(_ESCAPES.get(c) or _character(c) for c in arg) + b'"'


def _character(code: int) -> bytes:
    return bytes([code]) if 32 <= code < 127 else b"\\x%02x" % code
