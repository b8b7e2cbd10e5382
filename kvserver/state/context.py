"""What a handler is given: the session that calls, its database, the server's parts.

One `ReadContext` and one `WriteContext` serve all commands, refilled for each: making an
object per command would cost as much as a look-up. A handler must not keep its context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvserver.keyspace import Keyspace, Reader, Writer
from kvserver.state.session import Session

if TYPE_CHECKING:
    from kvserver.state.server import Server


class Context:
    """What both kinds have."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.keyspace: Keyspace = server.keyspace
        self.session: Session
        #: Inside MULTI (and later scripts) nothing may block: the command answers at once.
        self.deny_blocking = False

    @property
    def now(self) -> int:
        """Unix ms; stands still during a command."""
        return self.keyspace.now

    def notify(self, kind: int, event: bytes, key: bytes) -> None:
        """A keyspace notification about a key of the session's database."""
        if self.server.notifier.flags:
            self.server.notifier.notify(kind, event, key, self.session.db)


class ReadContext(Context):
    """For commands without the WRITE flag."""

    db: Reader


class WriteContext(Context):
    """For commands with the WRITE flag."""

    db: Writer


class Blocked:
    """A handler's answer "not yet": the session executes nothing until `Dispatcher.unblock`.

    `timeout_ms` 0 waits for ever; `on_timeout` gives the reply when time is up; `forget` is
    called when the wait ends in whatever way.
    """

    def __init__(
        self, timeout_ms: int, on_timeout: Callable[[], Any], forget: Callable[[], None]
    ) -> None:
        self.timeout_ms = timeout_ms
        self.on_timeout = on_timeout
        self.forget = forget
        self.timer: Any = None
