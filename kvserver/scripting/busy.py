"""What clients are answered while a script has run for too long: BUSY, unless they mean to end it.

It must not know sockets. Nothing here goes through dispatch: the script's writes have no position
yet, and a command that ended now would give them one. Source: Redis 7.4's server.c (processCommand)
and db.c (shutdownCommand).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kvserver import errors
from kvserver.errors import RedisError
from kvserver.registry import NO_AUTH
from kvserver.resp import NO_REPLY, encode
from kvserver.scripting.runner import Runner
from kvserver.state.context import ReadContext
from kvserver.state.session import NEEDS_AUTH, Session

if TYPE_CHECKING:
    from kvserver.state.server import Server
    from kvserver.state.table import Entry

#: They neither read nor write data.
_ALLOWED: Final = (
    *("auth", "hello", "multi", "discard", "script|kill", "function|kill", "function|stats"),
)


class BusyReplies:
    """Answers commands while a script runs."""

    def __init__(self, server: Server, runner: Runner) -> None:
        self._server = server
        self._runner = runner
        self._context = ReadContext(server)

    def answer(self, session: Session, args: list[bytes]) -> bytes:
        """The reply to a command."""
        try:
            reply = self._execute(session, args)
        except RedisError as error:
            self._server.stats.count_error(error.code)
            if session.in_multi:
                session.queue_error = True
            reply = error
        return encode(reply, session.resp3)

    def _execute(self, session: Session, args: list[bytes]) -> Any:
        entry = self._server.table.find(args)
        count = len(args)
        if count != entry.arity and (entry.arity >= 0 or count < -entry.arity):
            raise errors.wrong_arity(entry.name)
        if session.gate & NEEDS_AUTH and not entry.flags & NO_AUTH:
            raise errors.no_auth()
        denial = self._server.acl.check(session, entry, args)
        if denial is not None:
            raise denial
        if entry.name == "shutdown" and [word.lower() for word in args[1:]] == [b"nosave"]:
            return self._shut_down()
        in_multi = session.in_multi and entry.name != "discard"
        if entry.name not in _ALLOWED or in_multi:
            entry.rejected += 1
            raise self._runner.busy_error()
        return self._call(session, entry, args)

    def _call(self, session: Session, entry: Entry, args: list[bytes]) -> Any:
        context = self._context
        context.session = session
        context.db = self._server.keyspace.readers[session.db]
        entry.calls += 1
        return entry.handler(context, *args[entry.skip :])

    def _shut_down(self) -> Any:
        """SHUTDOWN NOSAVE: what the script wrote is forgotten. It is no longer for the client to
        wait for a reply; what it gets is the end of the connection."""
        self._runner.abandon()
        self._server.edge.shutdown(flush=False, now=True, aborted=_nothing)
        return NO_REPLY


def _nothing() -> None:
    return None
