"""From an argument vector to a reply: the checks, the call, the position.

It must not know sockets; the checks that only matter in some state are in state/admission.py.
Source for the order of the checks: Redis 7.4's server.c, processCommand. Invariants:
- A command runs to its end without giving the loop away; what it wrote takes one position.
- A command that fails unexpectedly never leaves half of its writes: the pending batch is
  dropped as a whole and those who wait for it get an error.
"""

from __future__ import annotations

import logging
from time import perf_counter_ns
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from kvserver import errors, resp
from kvserver.errors import RedisError
from kvserver.registry import FAST, NOT_QUEUED, WALK, WRITE
from kvserver.resp import encode
from kvserver.state import admission, monitor, writers
from kvserver.state.admission import (
    FEW_REPLICAS,
    MIGRATING,
    PAUSED,
    READ_ONLY,
    REPLICATION,
    STALLED,
    SUSPENDED,
)
from kvserver.state.cold import SET_ASIDE
from kvserver.state.context import Blocked, Context, ReadContext, WriteContext
from kvserver.state.histogram import UNIT_BITS
from kvserver.state.pause import unix_ms
from kvserver.state.redact import redacted
from kvserver.state.session import (
    BLOCKED,
    CLOSING,
    IN_MULTI,
    MUTES,
    RESTRICTED,
    TRACKING,
    Session,
)
from kvserver.state.table import Entry
from kvserver.storage.commitlog import EngineError

if TYPE_CHECKING:
    from kvserver.state.server import Server

logger = logging.getLogger("kvserver")

#: What CPython spends on a queued command and on each of its arguments beside their bytes.
QUEUED_BYTES: Final = 160
ARGUMENT_BYTES: Final = 48

#: What a line of an HTTP request begins with; no command has such a name.
HTTP_WORDS: Final = (b"post", b"host:")
MINUTE_NS: Final = 60_000_000_000


class Dispatcher:
    """Executes commands for sessions."""

    def __init__(self, server: Server) -> None:
        self.server = server
        #: Bits of state/admission.py; what makes every command go through `_admit`.
        self.gate = 0
        #: Why writes fail, while FAILED is set.
        self.failure = ""
        #: Monotonic ns when the last command ended (the edge sets it when input arrives).
        self.clock = perf_counter_ns()
        self._warned_of_http = -MINUTE_NS
        #: A command that took this long is looked at by SLOWLOG and LATENCY.
        self.slow_ns = 1 << 62
        #: A session whose transaction grows above this is closed (client-query-buffer-limit).
        self.max_queue_bytes = 1 << 62
        #: While ONCE runs EXEC: each reply of the transaction under RESP2, and under RESP3.
        self.forms: list[tuple[bytes, bytes]] | None = None
        self._log = server.log
        self._reads = server.log.reads
        self._cold = server.cold
        self._turn = server.turn
        self._waiting = server.waiting
        self._ready = server.waiting.blocked_keys.ready
        self._names = server.table.names
        self._monitors = server.monitors
        self._pubsub = server.pubsub
        self._tracking = server.tracking
        self._pauses = server.pauses
        server.waiting.dispatcher = self
        server.cold.dispatcher = self
        server.pauses.on_change = self._pause_changed
        server.config.on_change(admission.DIRECTIVES, self.role_changed)
        self._readers = server.keyspace.readers
        self._writers = server.keyspace.writers
        self._read_context = ReadContext(server)
        self._write_context = WriteContext(server)

    def raise_gate(self, bit: int) -> None:
        """From now on commands are checked for this state; nobody deletes expired keys."""
        self.gate |= bit
        self.server.keyspace.may_expire = False

    def lower_gate(self, bit: int) -> None:
        """The state is over; what was parked is left to `run_parked`."""
        self.gate &= ~bit
        self.server.keyspace.may_expire = not self.gate & ~FEW_REPLICAS

    def role_changed(self) -> None:
        """Role, links, consistency or the number of good replicas changed, perhaps in the middle
        of a command: what was parked is looked at again after it."""
        before = self.gate & REPLICATION
        bits = admission.replication_gates(self.server)
        if bits != before:
            self.gate = (self.gate & ~REPLICATION) | bits
            self.server.keyspace.may_expire = not self.gate & ~FEW_REPLICAS
            self._run_parked_later()
        self.server.config.assign("replicaof", self.server.replication.primary)

    # -- one command ---------------------------------------------------------------------

    def execute(self, session: Session, args: list[bytes]) -> None:
        """Run a command and add its reply to the session's output, or set the session's
        `stop` when the reply comes later."""
        entry = self._names.get(args[0])
        if entry is None or entry.subcommands is not None:
            try:
                entry = self.server.table.find(args)
            except RedisError as error:
                if args[0].lower() in HTTP_WORDS:
                    self._refuse_http(session)
                    return
                self._reject(session, None, error, args)
                return
        count = len(args)
        if count != entry.arity and (entry.arity >= 0 or count < -entry.arity):
            self._reject(session, entry, errors.wrong_arity(entry.name), args)
            return
        gate = self.gate
        # A replica's reads need no second look.
        if session.gate or (gate and (gate != READ_ONLY or entry.flags & WRITE)):
            self._execute_gated(session, entry, args)
            return
        if self._reads.slow:
            self._cold.execute(session, entry, args)
            return
        reply = self.call(session, entry, args)
        if entry.flags & WALK and self._waiting.begins(session, entry, args, reply):
            return
        self.finish(session, reply)

    def _execute_gated(self, session: Session, entry: Entry, args: list[bytes]) -> None:
        """The same when something is unusual. What the command publishes leaves after its reply:
        the session may listen itself, and a transaction may write after it published."""
        if not self._admit(session, entry, args):
            return
        if session.gate & TRACKING:
            outer = self._tracking.begin(session)
            self._execute_held(session, entry, args)
            self._tracking.end(session, entry, outer)
        else:
            self._execute_held(session, entry, args)

    def _execute_held(self, session: Session, entry: Entry, args: list[bytes]) -> None:
        self._pubsub.hold()
        reply = (self._cold if self._reads.slow else self).call(session, entry, args)
        if reply is SET_ASIDE:
            self._pubsub.drop()
            self._pubsub.release()
            return
        if session.gate & TRACKING:
            self._tracking.remember(session.db, entry, args)
        if not (entry.flags & WALK and self._waiting.begins(session, entry, args, reply)):
            self.finish(session, reply)
        self._pubsub.release()

    def call(self, session: Session, entry: Entry, args: list[bytes]) -> Any:
        """Run the handler and count; returns its value, or the error it raised."""
        context: Context
        if entry.flags & WRITE:
            context = writing = self._write_context
            writing.db = self._writers[session.db]
            writing.session = session
        else:
            context = reading = self._read_context
            reading.db = self._readers[session.db]
            reading.session = session
        session.last_command = entry.name
        start = self.clock
        try:
            count = len(args) - entry.skip
            if count == 1:  # the usual numbers without a slice
                reply = entry.handler(context, args[-1])
            elif count == 2:
                reply = entry.handler(context, args[-2], args[-1])
            elif count == 3:
                reply = entry.handler(context, args[-3], args[-2], args[-1])
            elif count == 4:
                reply = entry.handler(context, args[-4], args[-3], args[-2], args[-1])
            else:
                reply = entry.handler(context, *args[entry.skip :])
        except RedisError as error:
            reply = error.as_reply()
            entry.failed += 1
            self.server.stats.count_error(error.code)
        except Exception as problem:
            reply = self.crashed(entry.name, problem)
            entry.failed += 1
        if self._monitors:
            monitor.feed(self.server, session, entry, args)
        now = perf_counter_ns()
        self.clock = now
        elapsed = now - start
        entry.calls += 1
        entry.nanoseconds += elapsed
        try:
            entry.latency.bins[elapsed >> UNIT_BITS] += 1
        except IndexError:
            entry.latency.add_rare(elapsed)
        if elapsed >= self.slow_ns:
            self._note_slow(session, entry, args, elapsed)
        return reply

    def call_again(self, session: Session, entry: Entry, args: list[bytes]) -> Any:
        """`call` for a command that waited: monitors have seen it. Its user may have lost the
        permission meanwhile."""
        if session.gate & RESTRICTED:
            denial = self.server.acl.check(session, entry, args)
            if denial is not None:
                entry.rejected += 1
                self.server.stats.count_error(denial.code)
                return denial
        monitors, self._monitors = self._monitors, {}
        try:
            reply = self.call(session, entry, args)
        finally:
            self._monitors = monitors
        if session.gate & TRACKING:
            self._tracking.remember(session.db, entry, args)
        return reply

    def _note_slow(self, session: Session, entry: Entry, args: list[bytes], elapsed: int) -> None:
        shown = redacted(self.server.config, entry, args)
        self.server.slowlog.note(session, entry, shown, elapsed // 1000)
        event = "fast-command" if entry.flags & FAST else "command"
        self.server.latency.note(event, elapsed // 1_000_000)

    def finish(self, session: Session, reply: Any) -> None:
        """Give the command's writes a position and its reply a place in the output."""
        log = self._log
        cut = False
        if log.changed:
            cut = log.advance()
            session.written_seq = log.last_seq
        if session.gate & MUTES and session.mutes_reply():
            reply = resp.NO_REPLY
        session.send(encode(reply, session.resp3))
        if log.touched:
            log.touched = False
            self._turn.mark(session)
        if cut:
            self._pubsub.release()
            self._turn.commit()
        if self._ready:
            self._waiting.serve_ready()

    def resume(self, session: Session) -> None:
        """Go on with the session's input, unless it is stopped still."""
        if not session.stop:
            session.sink.resume()

    def crashed(self, name: str, problem: Exception) -> RedisError:
        """A handler raised what it must not: no half of its writes may be committed."""
        if isinstance(problem, EngineError):
            logger.error("command %s failed: %s", name, problem)
            error = errors.InternalError(str(problem))
        else:
            logger.exception("command %s failed unexpectedly", name)
            error = errors.InternalError()
        self.server.stats.count_error(error.code)
        if self._log.changed:
            self._pubsub.drop()
            self._turn.drop(error)
        return error

    # -- commands as one ---------------------------------------------------------------------

    def call_all(self, session: Session, queue: list[tuple[Entry, list[bytes]]]) -> list[bytes]:
        """Run commands as one, without blocking; their replies, each encoded as the protocol
        stood after it. Raises InternalError when one failed unexpectedly: all are undone."""
        replies = []
        for entry, args in queue:
            reply: Any = None
            if session.gate & RESTRICTED:
                reply = self.server.acl.check_queued(session, entry, args)
            reply = reply or self.call_now(session, entry, args)
            if type(reply) is errors.InternalError:
                raise reply
            replies.append(encode(reply, session.resp3))
            if self.forms is not None:
                self.forms.append((encode(reply, False), encode(reply, True)))
        return replies

    def call_now(self, session: Session, entry: Entry, args: list[bytes]) -> Any:
        """`call` without blocking, and with walks done in one go."""
        self._read_context.deny_blocking = self._write_context.deny_blocking = True
        try:
            reply = self.call(session, entry, args)
        finally:
            self._read_context.deny_blocking = self._write_context.deny_blocking = False
        self._tracking.remember(session.db, entry, args)
        if type(reply) is Blocked:
            reply.forget()
            return reply.on_timeout()
        if type(reply) is not GeneratorType:
            return reply
        start = self.clock
        done, value = False, None
        while not done:
            done, value = self._waiting.step(reply, entry.name)
        self.clock = perf_counter_ns()
        entry.nanoseconds += self.clock - start
        return value

    # -- checks ----------------------------------------------------------------------------

    def _reject(
        self, session: Session, entry: Entry | None, error: RedisError, args: list[bytes]
    ) -> None:
        if entry is not None:
            entry.rejected += 1
            if writers.runs_exec(self.server.table, entry, args):
                error = self._abort_transaction(session, error)
                if self._monitors:
                    monitor.feed(self.server, session, entry, args)
        self.server.stats.count_error(error.code)
        if session.gate & IN_MULTI:
            session.queue_error = True
        if session.gate & TRACKING:
            self._tracking.spend(session, entry)
        self.finish(session, error)

    def _refuse_http(self, session: Session) -> None:
        """Hang up: a browser was made to talk to us (securityWarningCommand)."""
        if self.clock - self._warned_of_http > MINUTE_NS:
            self._warned_of_http = self.clock
            logger.warning(
                "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or "
                "Host: commands to Redis. This is likely due to an attacker attempting to use "
                "Cross Protocol Scripting to compromise your Redis instance. Connection from %s "
                "aborted.",
                session.addr,
            )
        session.sink.abort()

    def _abort_transaction(self, session: Session, cause: RedisError) -> RedisError:
        """EXEC itself is refused."""
        session.discard_transaction()
        self.server.watches.unwatch(session)
        return errors.exec_abort_because(cause)

    def _admit(self, session: Session, entry: Entry, args: list[bytes]) -> bool:
        """The checks that only matter in some state, in Redis' order; False when the command
        was answered, queued or parked instead of being run."""
        session.last_command = entry.name
        once = entry.name == "once"
        error = writers.misuse(self.server.table, session, args) if once else None
        error = error or admission.refusal(self.server, session, entry, args)
        if error is not None:
            self._reject(session, entry, error, args)
            return False
        if self.gate & (PAUSED | STALLED | SUSPENDED | MIGRATING) and admission.must_wait(
            self.server, session, entry, args
        ):
            self.park(session, args)
            return False
        if session.gate & IN_MULTI and not entry.flags & NOT_QUEUED:
            self._queue(session, entry, args)
            return False
        return True

    def _queue(self, session: Session, entry: Entry, args: list[bytes]) -> None:
        """Keep a command for EXEC, unless EXEC can only fail."""
        if not session.queue_error and not session.cas_dirty:
            session.queue.append((entry, args))
            session.queue_flags |= entry.flags
            session.queue_bytes += QUEUED_BYTES + ARGUMENT_BYTES * len(args) + sum(map(len, args))
        self.finish(session, resp.QUEUED)
        if session.queue_bytes > self.max_queue_bytes:
            logger.warning(
                "Closing client that reached max query buffer length: id=%d addr=%s",
                session.id,
                session.addr,
            )
            self.server.stats.query_buffer_disconnections += 1
            session.sink.abort()

    # -- commands set aside --------------------------------------------------------------------

    def park(self, session: Session, args: list[bytes]) -> None:
        """Set a command aside until `run_parked`."""
        session.parked = args
        session.stop |= BLOCKED
        self._pauses.parked[session] = None

    def _pause_changed(self, before: int, mode: int) -> None:
        if mode:
            self.raise_gate(PAUSED)
        else:
            self.lower_gate(PAUSED)
        if mode < before:
            self._run_parked_later()

    def _run_parked_later(self) -> None:
        """Not at once: the command that ended a pause, maybe in a MULTI, ends first."""
        if self._pauses.parked or self._waiting.blocked_keys.by_key:
            self.server.edge.call_later(0, self.run_parked)

    def run_parked(self) -> None:
        """A pause or stall may be over: run what was set aside, in order of arrival. What
        still must wait is set aside again."""
        self.server.keyspace.now = unix_ms()
        self.clock = perf_counter_ns()
        for session in self._pauses.take_parked():
            args = session.parked
            if args is None or session.stop & CLOSING:
                continue
            session.parked = None
            session.stop &= ~BLOCKED
            self.execute(session, args)
            self.resume(session)
        self._waiting.blocked_keys.signal_all()
        self._waiting.serve_ready()
