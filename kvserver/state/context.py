"""What a handler is given: the session that calls, its database, the server's parts.

One `ReadContext` and one `WriteContext` serve all commands, refilled for each: making an
object per command would cost as much as a look-up. A handler must not keep its context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kvserver.database import Reader, Writer
from kvserver.keyspace import Keyspace
from kvserver.state.notify import GENERIC
from kvserver.state.session import Session

if TYPE_CHECKING:
    from kvserver.state.server import Server
    from kvserver.state.table import Entry


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

    def store_nothing(self, destination: bytes) -> None:
        """The result that a command was to store is empty: what is there goes, past its time or
        not, as in Redis."""
        if self.db.discard(destination):
            self.notify(GENERIC, b"del", destination)


class Blocked:
    """A handler's answer "not yet": the session executes nothing until `Waiting.unblock`.

    `timeout_ms` 0 waits for ever; `on_timeout` gives the reply when time is up; `forget` is
    called when the wait ends in whatever way.
    """

    def __init__(
        self,
        timeout_ms: int,
        on_timeout: Callable[[], Any],
        forget: Callable[[], None],
        keys: tuple[bytes, ...] = (),
        kinds: tuple[int, ...] = (),
    ) -> None:
        self.timeout_ms = timeout_ms
        self.on_timeout = on_timeout
        self.forget = forget
        #: The command is run again when one of these keys changed and is of one of these types.
        self.keys = keys
        self.kinds = kinds
        self.timer: Any = None
        #: The command that waits: set by who takes care of it. A handler sets `args` where those
        #: that it was called with would mean something else later.
        self.entry: Entry | None = None
        self.args: list[bytes] = []


class _Answer:
    """The reply when time is up, as a callable."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    def __call__(self) -> Any:
        return self._reply


def wait_for_keys(
    keys: Iterable[bytes], kinds: tuple[int, ...], timeout_ms: int, late: Any
) -> Blocked:
    """The answer of a command that finds nothing at its keys: it is run again, from its first check
    on, when one of them changed and is of one of the types in `kinds` (codec.MISSING: is gone).
    `late` is its reply when time is up, or where nothing may block (MULTI, scripts)."""
    return Blocked(timeout_ms, _Answer(late), _nothing, tuple(dict.fromkeys(keys)), kinds)


def _nothing() -> None:
    return None
