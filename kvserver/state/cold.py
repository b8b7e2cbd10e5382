"""Commands that need rows from the disk: set aside while a worker reads them, then executed again.

It must not know sockets or what the commands do. What the worker reads only warms the block cache:
the command is executed from its first check on, as if it had just come, and reads for itself. So
nothing that happened meanwhile can matter: a write, a pause, a failover, another data set.
Invariants:
- Nothing of a command that is set aside shows: it wrote nothing, what it published and counted is
  taken back.
- A command is set aside a few times at most, then it reads on the loop: it always ends.
- While a session's command is set aside nothing of its input is executed.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from kvserver.errors import RedisError
from kvserver.registry import NOT_QUEUED, WALK, WRITE
from kvserver.state.lookahead import Ahead
from kvserver.state.pause import unix_ms
from kvserver.state.session import CLOSING, COLD, Session
from kvserver.state.table import Entry
from kvserver.storage.commitlog import DATA
from kvserver.storage.engine import ColdRead

if TYPE_CHECKING:
    from kvserver.database import Reader
    from kvserver.state.dispatch import Dispatcher
    from kvserver.state.server import Server

#: How often a command is set aside.
MOST_ROUNDS: Final = 4
#: So many of a session's next requests are looked at.
REQUESTS_AHEAD: Final = 64

#: Commands that aren't executed twice: they run others, or have effects besides their writes.
_ONCE_ONLY: Final = frozenset(
    ("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro", "exec", "once", "migrate")
)
#: Commands whose rows are looked for before they run, if they have so many arguments: those that
#: run once only, and those that have written already when they come to their second row. And walks,
#: which begin to read when the command is over.
_PREPARED: Final = {
    **dict.fromkeys(("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"), 4),
    **dict.fromkeys(("del", "unlink"), 3),
    **dict.fromkeys(("mset", "msetnx", "hset", "hmset", "zadd"), 5),
    **dict.fromkeys(("hdel", "sadd", "srem", "zrem"), 4),
    "exec": 1,
    "watch": 2,
    "migrate": 4,
}


_NEVER: Final = 1 << 62


class Wait:
    """A session's command that is set aside, or was just now."""

    def __init__(self) -> None:
        self.args: list[bytes] = []
        self.rounds = 0
        #: The row that it was set aside for; none if it was not even begun.
        self.row: tuple[int, bytes] | None = None
        #: Keys that were fetched for it and for the session's next requests.
        self.warmed: set[bytes] = set()


class _SetAside:
    """Stands for the reply of a command that was set aside."""


SET_ASIDE: Final = _SetAside()


class ColdCommands:
    """The commands of all sessions that are set aside."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.dispatcher: Dispatcher
        self._log = server.log
        self._reads = server.log.reads
        #: Sessions whose command was set aside in this turn; the edge takes them when it ends.
        self.waiting: list[Session] = []
        #: How often a command was set aside.
        self.count = 0

    # -- while reads are slow ------------------------------------------------------------------

    def execute(self, session: Session, entry: Entry, args: list[bytes]) -> None:
        """Run a command that nothing speaks against, and send its reply or set it aside."""
        pubsub, holds = self.server.pubsub, self.server.notifier.flags != 0
        if holds:
            pubsub.hold()
        reply = self.call(session, entry, args)
        if reply is SET_ASIDE:
            pubsub.drop()
        elif not (entry.flags & WALK and self.server.waiting.begins(session, entry, args, reply)):
            self.dispatcher.finish(session, reply)
        if holds:
            pubsub.release()

    def call(self, session: Session, entry: Entry, args: list[bytes]) -> Any:
        """`Dispatcher.call`, or SET_ASIDE."""
        reads, wait = self._reads, session.cold
        reads.calm(self.dispatcher.clock)
        again = wait is not None and wait.args is args
        reads.begin(False, None if wait is None else wait.warmed)
        if not again and self._must_prepare(session, entry, args):
            self._set_aside(session, args, None)
            return SET_ASIDE
        if entry.flags & NOT_QUEUED or entry.name in _ONCE_ONLY:
            return self.dispatcher.call(session, entry, args)
        reads.waits = not again or wait.rounds < MOST_ROUNDS
        keyspace = self.server.keyspace
        reader, writer = keyspace.readers[session.db], keyspace.writers[session.db]
        counts = reader.hits, reader.misses, writer.hits, writer.misses
        try:
            return self.dispatcher.call(session, entry, args)
        except ColdRead:
            reader.hits, reader.misses, writer.hits, writer.misses = counts
            if entry.flags & WRITE and reads.cold_cf == DATA:
                self._log.derived.clear()  # the command may have begun to change it
            self._set_aside(session, args, (reads.cold_cf, reads.cold_key))
            return SET_ASIDE
        finally:
            reads.waits = False

    def _must_prepare(self, session: Session, entry: Entry, args: list[bytes]) -> bool:
        """Whether the command, which isn't to be interrupted, needs more rows from the disk than
        the turn has time for."""
        if len(args) < _PREPARED.get(entry.name, 2 if entry.flags & WALK else _NEVER):
            return False
        ahead = Ahead(self._reader(session))
        _add(ahead, session, entry, args)
        cold = ahead.count_cold()
        if self._reads.allows(cold):
            self._reads.spent_ns += cold * self._reads.average_ns
            return False
        return cold > 0

    def _set_aside(
        self, session: Session, args: list[bytes], row: tuple[int, bytes] | None
    ) -> None:
        wait = session.cold
        if wait is None:
            wait = session.cold = Wait()
        wait.rounds = wait.rounds + 1 if wait.args is args else 1
        wait.args, wait.row = args, row
        session.stop |= COLD
        self._log.touched = False
        self.count += 1
        self.waiting.append(session)
        self.server.turn.arm()
        self.dispatcher.clock = perf_counter_ns()

    def _reader(self, session: Session) -> Reader:
        return self.server.keyspace.readers[session.db]

    # -- the edge's part -------------------------------------------------------------------------

    def take(self) -> list[Session]:
        """The sessions that were set aside; `run_again` is to be called with each of them."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def ahead(self, session: Session) -> Ahead:
        """What to fetch for a session: the rows of its command and of the requests after it."""
        ahead = Ahead(self._reader(session))
        wait: Wait = session.cold
        if wait.row is not None:
            ahead.add_row(*wait.row)
        for args in [wait.args, *session.sink.upcoming(REQUESTS_AHEAD)]:
            if ahead.full:
                break
            try:
                entry = self.server.table.find(args)
            except RedisError:
                continue
            count = len(args)
            if count == entry.arity or (entry.arity < 0 and count >= -entry.arity):
                _add(ahead, session, entry, args)
        return ahead

    def run_again(self, sessions: list[Session]) -> None:
        """Their rows were fetched: execute the commands, and what the sessions sent after them."""
        dispatcher = self.dispatcher
        self.server.keyspace.now = unix_ms()
        dispatcher.clock = perf_counter_ns()
        for session in sessions:
            session.stop &= ~COLD
            if not session.stop & CLOSING:
                dispatcher.execute(session, session.cold.args)
                dispatcher.resume(session)
            if not session.stop & COLD:
                session.cold = None


def _add(ahead: Ahead, session: Session, entry: Entry, args: list[bytes]) -> None:
    if entry.name == "exec":
        for queued, words in session.queue:
            ahead.add(queued, words)
    else:
        ahead.add(entry, args)
