"""Sessions whose reply comes later: walks, which are done in steps, and commands that wait, for a
key or for something else.

It must not know sockets or what the commands do. Source for those that wait for keys: Redis 7.4's
blocked.c, handleClientsBlockedOnKeys. Invariants:
- While a session's reply isn't there nothing of its input is executed.
- A command that waits for a key is run again when the key may be ready, after the command that
  made it so; it goes on waiting, in its place, if that gives no reply.
"""

from __future__ import annotations

from collections.abc import Generator
from time import perf_counter_ns
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from kvserver import errors
from kvserver.errors import RedisError
from kvserver.reply import Forms, Raw
from kvserver.state import admission
from kvserver.state.blocking import BlockedKey, BlockedKeys
from kvserver.state.context import Blocked
from kvserver.state.pause import unix_ms
from kvserver.state.session import BLOCKED, CLOSING, MUTES, TRACKING, Session
from kvserver.state.table import Entry

if TYPE_CHECKING:
    from kvserver.state.dispatch import Dispatcher
    from kvserver.state.server import Server


class Waiting:
    """All sessions of a server whose reply comes later."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.dispatcher: Dispatcher
        self._log = server.log
        self._turn = server.turn
        self.blocked_keys = BlockedKeys(server.keyspace)
        self._serving = False
        #: Walks under way: (session, generator), served in turn by the edge.
        self.walks: list[tuple[Session, Generator[None, None, Any]]] = []
        self.blocked_keys.on_ready = self._serve_later
        server.turn.on_void = self._void_walks

    def begins(self, session: Session, entry: Entry, args: list[bytes], reply: Any) -> bool:
        """Take care of a reply that isn't there yet; False if it is."""
        if type(reply) is GeneratorType:
            self.walk(session, reply)
        elif type(reply) is Blocked:
            reply.entry, reply.args = entry, reply.args or args
            self._block(session, reply)
        else:
            return False
        self._note_writes(session)
        session.stop |= BLOCKED
        return True

    def _note_writes(self, session: Session) -> None:
        """What the command wrote gets a position, though its reply isn't there yet; the reply
        depends on what it saw."""
        log = self._log
        if log.changed:
            log.advance()
            session.written_seq = log.last_seq
            self._turn.arm()
        if log.touched:
            log.touched = False
            session.depends = log.last_seq

    def _block(self, session: Session, blocked: Blocked) -> None:
        session.blocked_on = blocked
        if blocked.keys:
            self.blocked_keys.add(session, blocked)
        if blocked.timeout_ms:
            seconds = blocked.timeout_ms / 1000
            blocked.timer = self.server.edge.call_later(seconds, self._time_out, session, blocked)

    # -- the reply is there ------------------------------------------------------------------

    def _time_out(self, session: Session, blocked: Blocked) -> None:
        if session.blocked_on is blocked:
            self.unblock(session, blocked.on_timeout())

    def unblock_later(self, session: Session, reply: Any) -> None:
        """`unblock` for use within a command, which must end first."""
        self.forget_blocked(session)
        self.server.edge.call_later(0, self.unblock, session, reply)

    def unblock(self, session: Session, reply: Any) -> None:
        """A blocked session's reply is there."""
        self.forget_blocked(session)
        if session.stop & CLOSING:
            return
        session.stop &= ~BLOCKED
        if session.depends > self._log.released_seq:
            self._log.touched = True  # what it saw when it began may still fail
        if type(reply) is Forms and not self._log.touched and not session.gate & MUTES:
            reply = _send_parts(session, reply)
        self.dispatcher.finish(session, reply)
        if session.gate & TRACKING:
            self.server.tracking.answered(session)
        self.dispatcher.resume(session)

    def demoted(self) -> None:
        """This server is a replica now: what blocked commands wait for may never come
        (disconnectOrRedirectAllBlockedClients)."""
        for session in self.server.sessions.values():
            if type(session.blocked_on) is Blocked:
                self.forget_blocked(session)
                self.server.edge.call_later(0, self._send_away, session, errors.role_changed())

    def _send_away(self, session: Session, error: RedisError) -> None:
        if not session.stop & CLOSING:
            self.dispatcher.finish(session, error)
            session.close_after_reply()

    def forget_blocked(self, session: Session) -> None:
        """The session waits no longer: it is answered, or gone."""
        blocked, session.blocked_on = session.blocked_on, None
        if type(blocked) is Blocked:
            if blocked.timer is not None:
                blocked.timer.cancel()
            if blocked.keys:
                self.blocked_keys.remove(session, blocked)
            blocked.forget()
        elif blocked is not None:
            self.walks = [walk for walk in self.walks if walk[0] is not session]
            blocked.close()

    # -- waiting for keys ----------------------------------------------------------------------

    def _serve_later(self) -> None:
        """A key is ready, perhaps by no command's doing: a frame came in, or time passed."""
        self.server.edge.call_later(0, self._serve_now)

    def _serve_now(self) -> None:
        if self.blocked_keys.ready:
            self.server.keyspace.now = unix_ms()
            self.dispatcher.clock = perf_counter_ns()
            self.serve_ready()

    def serve_ready(self) -> None:
        """Run the commands again that wait for keys which changed; what they write may make further
        keys ready. To be called between commands."""
        ready = self.blocked_keys.ready
        if self._serving:
            return
        self._serving = True
        try:
            while ready:
                key = next(iter(ready))
                del ready[key]
                self._serve(key)
        finally:
            self._serving = False

    def _serve(self, key: BlockedKey) -> None:
        """Serve those who wait for a key now, in order of arrival."""
        kind = self.blocked_keys.kind(key)
        for session, blocked in list(self.blocked_keys.by_key.get(key, {}).items()):
            if kind in blocked.kinds and session.blocked_on is blocked:
                self._run_again(session, blocked)
                kind = self.blocked_keys.kind(key)

    def _run_again(self, session: Session, blocked: Blocked) -> None:
        entry, dispatcher = blocked.entry, self.dispatcher
        assert entry is not None
        if dispatcher.gate and admission.must_wait(self.server, session, entry, blocked.args):
            return  # when it is over all keys count as ready (Dispatcher.run_parked)
        entry.calls -= 1  # it was counted when it began
        if session.gate or dispatcher.gate:
            error = admission.refusal(self.server, session, entry, blocked.args)
            if error is not None:  # it was allowed when it began
                entry.rejected += 1
                self.server.stats.count_error(error.code)
                self.unblock(session, error)
                return
        outer = self.server.tracking.begin(session)
        reply = dispatcher.call_again(session, entry, blocked.args)
        if type(reply) is Blocked:
            self._note_writes(session)
        elif type(reply) is GeneratorType:
            self.walk(session, reply)
            self._note_writes(session)
        else:
            self.unblock(session, reply)
        self.server.tracking.end(session, entry, outer)

    # -- walks -----------------------------------------------------------------------------------

    def walk(self, session: Session, walk: Generator[None, None, Any]) -> None:
        """The session's reply, which may have been waited for until now, is what a walk gives. It
        begins when the turn ends."""
        self.forget_blocked(session)
        session.blocked_on = walk
        self.walks.append((session, walk))
        self._turn.arm()

    def abort_walks(self, error: RedisError) -> None:
        """End every walk with an error: its iterator must go."""
        for session, _ in list(self.walks):
            self.unblock(session, error)

    def _void_walks(self, seq: int, error: RedisError) -> None:
        """Positions above `seq` are void: a walk that saw their writes ends with the error, at
        its next step, since this may be in the middle of another command."""
        for index, (session, walk) in enumerate(self.walks):
            if session.depends > seq:
                walk.close()
                session.blocked_on = _fail(error)
                self.walks[index] = (session, session.blocked_on)

    def step_walks(self, budget_ns: int) -> bool:
        """Work on the walks in turn, for about `budget_ns`; returns whether any is left."""
        deadline = perf_counter_ns() + budget_ns
        while self.walks and perf_counter_ns() < deadline:
            session, walk = self.walks.pop(0)
            done, reply = self.step(walk, session.last_command)
            if done:
                session.blocked_on = None
                self.unblock(session, reply)
            else:
                self.walks.append((session, walk))
        return bool(self.walks)

    def step(self, walk: Generator[None, None, Any], name: str) -> tuple[bool, Any]:
        """One step of a walk: (whether it is over, its reply)."""
        try:
            next(walk)
        except StopIteration as end:
            return True, end.value
        except RedisError as error:
            self.server.stats.count_error(error.code)
            return True, error.as_reply()
        except Exception as problem:
            return True, self.dispatcher.crashed(name, problem)
        return False, None


def _send_parts(session: Session, reply: Forms) -> Raw:
    """Send all parts of a reply but the last: put together, a hundred megabytes of them would stop
    the loop for as many milliseconds."""
    parts = reply.resp3 if session.resp3 else reply.resp2
    for part in parts[:-1]:
        session.send(part)
    return Raw(parts[-1])


def _fail(error: RedisError) -> Generator[None, None, Any]:
    """A walk that ends with an error."""
    raise error
    yield  # unreachable: it makes this a generator
