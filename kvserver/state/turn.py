"""One turn of the event loop: commit what its commands wrote, then let the replies go.

It must not know commands or sockets. The edge gives it `schedule` (run `end` once the
sockets that are readable now have been served) and calls `released` after an fsync.

Invariants:
- A reply leaves when the position that it depends on is released, and each client's replies
  leave in the order of its commands.
- When a batch fails, each reply that depended on it becomes the error, and nothing else does
  (but a read, in the same turn, of a row that waits for its fsync).
- After a failure positions are given out again, so no session may go on depending on one
  that nobody will release.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from kvserver import errors, resp
from kvserver.errors import RedisError
from kvserver.state.session import CLOSING, OUTPUT_FULL, TURN_OUTPUT_BYTES, Session
from kvserver.storage.commitlog import CommitLog, EngineError, EngineStalled

logger = logging.getLogger("kvserver")

Hook = Callable[[], None]


class Mark:
    """Replies next to each other in a session's output that depend on an unreleased write."""

    __slots__ = ("batch", "first", "instead", "last", "out")

    def __init__(self, out: list[bytes], at: int, instead: bytes | None, batch: int) -> None:
        self.out = out
        self.first = at
        self.last = at
        #: What stands there if the write fails; None: the error.
        self.instead = instead
        #: Which of the turn's batches they depend on.
        self.batch = batch


class Turn:
    """The running turn: sessions with output, and the marks of replies that must wait."""

    def __init__(self, log: CommitLog, schedule: Hook) -> None:
        self.log = log
        self._schedule = schedule
        self._armed = False
        self._stalled = False
        #: An fsync runs that replies wait for: what is written meanwhile shares the next one, and
        #: so it may share its commit. Many small batches would cost more, and leave no sooner.
        self.gathering = False
        #: A checkpoint is made: nothing is committed until it is (edge/checkpoint.py).
        self.copying = False
        #: Every connected session, by id.
        self.sessions: dict[int, Session] = {}
        self._dirty: list[Session] = []
        #: Sessions with output that waits for a release, in no order.
        self._waiting: set[Session] = set()
        self._marks: list[Mark] = []
        #: Counts the lists that `_marks` was.
        self._batch = 0
        #: Marks of committed batches that aren't released: (position, marks).
        self._committed_marks: deque[tuple[int, list[Mark]]] = deque()
        #: Called when the turn ends, before its last commit: it may send more.
        self.before_end: Hook = _nothing
        #: Called after each commit.
        self.on_commit: Hook = _nothing
        #: Called when a commit stalls, a commit or fsync fails, or something is to be fsynced.
        self.on_stall: Hook = _nothing
        self.on_failure: Callable[[str], None] = _ignore
        self.on_unsynced: Hook = _nothing
        #: Called when positions above one are void, with that one and the error to be told.
        self.on_void: Callable[[int, RedisError], None] = _ignore_void
        #: Called when output has to wait for a release.
        self.check_limits: Callable[[Session], None] = _ignore_session

    def touch(self, session: Session) -> None:
        """The session has something to send, or to be closed."""
        session.dirty = True
        self._dirty.append(session)
        self.arm()

    def arm(self) -> None:
        """`end` must run after this turn."""
        if not self._armed:
            self._armed = True
            self._schedule()

    def mark(self, session: Session, instead: bytes | None = None) -> None:
        """The session's last reply depends on what is unreleased; it becomes `instead` (None:
        the MISCONF error) if that fails."""
        log = self.log
        session.depends = log.last_seq + 1 if log.changed else log.last_seq
        out = session.out
        at = len(out) - 1
        mark = session.mark
        if (
            mark is not None
            and mark.last + 1 == at
            and mark.batch == self._batch
            and mark.instead is instead
        ):
            mark.last = at
        else:
            session.mark = mark = Mark(out, at, instead, self._batch)
            self._marks.append(mark)

    def _take_marks(self) -> list[Mark]:
        """The marks of the pending batch, which ends."""
        marks, self._marks = self._marks, []
        self._batch += 1
        return marks

    def end(self) -> None:
        """Commit, then send what may leave."""
        self.before_end()
        self._armed = False
        self.log.reads.spent_ns = 0
        if self.log.pending:
            if not (self._stalled or self.gathering or self.copying):
                self.commit()
        elif self._marks:
            # Reads of rows that an earlier turn wrote: they share the fate of its release.
            marks = self._take_marks()
            if self._committed_marks:
                self._committed_marks[-1][1].extend(marks)
        dirty, self._dirty = self._dirty, []
        for session in dirty:
            session.dirty = False
            self._release(session)

    def commit(self) -> bool:
        """Commit the pending batch; returns whether it is committed. A stall leaves it
        pending and its replies waiting until this is called again, a failure turns them into
        errors."""
        try:
            self.log.commit()
        except EngineStalled:
            self._stalled = True
            self.on_stall()
            return False
        except EngineError as error:
            self._fail_commit(str(error))
            return False
        except Exception:
            # A row that can't be encoded: the same batch would fail again, for ever.
            logger.exception("a batch of writes can't be built, and is dropped")
            self.drop(errors.error("internal error"))
            return False
        self._stalled = False
        log = self.log
        if log.released_seq < log.committed_seq:
            self._committed_marks.append((log.committed_seq, self._take_marks()))
            if log.wait_for_sync:
                self.on_unsynced()
        else:
            self._take_marks()
            if self._waiting:
                self.released()
        self.on_commit()
        return True

    def drop(self, error: RedisError) -> None:
        """Forget the pending batch; those who wait for it get `error`."""
        _replace(self._take_marks(), resp.encode_error(error))
        self._stalled = False
        self.log.rollback()
        self._void_above(self.log.committed_seq, error)

    def _fail_commit(self, reason: str) -> None:
        """RocksDB refused the batch: nothing of it is there. What was committed before waits
        for its fsync as if nothing had happened."""
        self.drop(errors.misconf(reason))
        self.on_failure(reason)
        self.released()

    def fail_sync(self, reason: str) -> None:
        """An fsync failed: whoever waits for one is told, and the pending batch with them,
        since RocksDB takes no more writes."""
        error = errors.misconf(reason)
        released = self.log.released_seq
        self._fail_committed(released, error)
        self.drop(error)
        self._void_above(released, error)
        self.log.abandon_sync()
        self.on_failure(reason)
        self.released()

    def reload(self) -> int:
        """RocksDB was opened again, with everything that was released; if not, the number of
        positions that are gone."""
        before = self.log.committed_seq
        missing = self.log.reload()
        if self.log.committed_seq < before:
            self.rewound(errors.misconf("positions are missing"))
        return missing

    def fail_unreleased(self, seq: int, error: RedisError) -> None:
        """Replies that wait for the release of a position up to `seq` become `error`. They leave
        when it is released all the same (`CommitLog.give_up`)."""
        encoded = resp.encode_error(error)
        for at, marks in self._committed_marks:
            if at > seq:
                break
            _replace(marks, encoded)
            marks.clear()

    def fail_pending(self, error: RedisError) -> None:
        """Replies that depend on the pending batch become `error`; it is committed all the same."""
        _replace(self._take_marks(), resp.encode_error(error))

    def rewound(self, error: RedisError) -> None:
        """The committed position went back: who waits for one that is gone gets `error`."""
        seq = self.log.committed_seq
        self._fail_committed(seq, error)
        self._void_above(seq, error)
        self.released()

    def _fail_committed(self, above: int, error: RedisError) -> None:
        """Committed batches above a position will never be released."""
        encoded = resp.encode_error(error)
        while self._committed_marks and self._committed_marks[-1][0] > above:
            _replace(self._committed_marks.pop()[1], encoded)

    def _void_above(self, seq: int, error: RedisError) -> None:
        """Positions above `seq` will not be released as what they were."""
        self.on_void(seq, error)
        for session in self.sessions.values():
            session.depends = min(session.depends, seq)
            if session.held and session.held[-1][0] > seq:
                session.held = deque((min(at, seq), out) for at, out in session.held)

    def released(self) -> None:
        """`released_seq` moved: send what waited for it."""
        seq = self.log.released_seq
        while self._committed_marks and self._committed_marks[0][0] <= seq:
            self._committed_marks.popleft()
        for session in [s for s in self._waiting if s.held[0][0] <= seq]:
            self._send_held(session, seq)

    def forget(self, session: Session) -> None:
        """The connection is gone."""
        self._waiting.discard(session)
        session.held.clear()
        session.out = []
        session.mark = None

    # -- sending --------------------------------------------------------------------------

    def _release(self, session: Session) -> None:
        out = session.out
        if out:
            large = session.out_bytes > TURN_OUTPUT_BYTES
            session.out = []
            session.out_bytes = 0
            session.mark = None
            if session.held or session.depends > self.log.released_seq:
                session.held.append((session.depends, out))
                session.held_bytes += sum(map(len, out))
                self._waiting.add(session)
                if session.held_bytes > TURN_OUTPUT_BYTES:
                    session.stop |= OUTPUT_FULL
                self.check_limits(session)
            elif large:
                self._send_parts(session, out)
            else:
                session.sink.write(out[0] if len(out) == 1 else b"".join(out))
        self._after(session)

    def _send_parts(self, session: Session, out: list[bytes]) -> None:
        """Send without making a copy of everything."""
        closing = session.stop & CLOSING
        for part in out:
            session.sink.write(part)
            if session.stop & CLOSING != closing:
                return  # it doesn't take what it asked for, and was closed

    def _send_held(self, session: Session, seq: int) -> None:
        while session.held and session.held[0][0] <= seq:
            _, out = session.held.popleft()
            data = b"".join(out)
            session.held_bytes -= len(data)
            session.sink.write(data)
        if not session.held:
            self._waiting.discard(session)
            session.held_bytes = 0  # errors that took the place of replies were not counted
        self._after(session)

    def _after(self, session: Session) -> None:
        if session.held:
            return
        if session.stop & CLOSING:
            session.sink.close()
        elif session.stop & OUTPUT_FULL:
            session.stop &= ~OUTPUT_FULL
            if not session.stop:
                session.sink.resume()


def _replace(marks: list[Mark], error: bytes) -> None:
    for mark in marks:
        out = mark.out
        for at in range(mark.first, mark.last + 1):
            if out[at]:  # what CLIENT REPLY muted stays so
                out[at] = error if mark.instead is None else mark.instead


def _nothing() -> None:
    return None


def _ignore(_reason: str) -> None:
    return None


def _ignore_void(_seq: int, _error: RedisError) -> None:
    return None


def _ignore_session(_session: Session) -> None:
    return None
