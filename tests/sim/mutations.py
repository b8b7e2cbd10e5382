"""Ways to break the core, one rule each: a simulation that doesn't find them proves nothing.

Each is a context manager that patches the core while it is entered. The name says what is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import PropertyMock, patch

from kvserver import frames
from kvserver.codec import STAMP, STAMP_KEY
from kvserver.frames import Frame
from kvserver.history import History
from kvserver.replication import replica, taken_back
from kvserver.replication.consistency import Consistency
from kvserver.replication.followers import Followers
from kvserver.replication.node import Node
from kvserver.replication.replica import Upstream
from kvserver.replication.rewind import Rewind
from kvserver.replication.snapshots import Snapshots
from kvserver.state.replication import PsyncRequest
from kvserver.storage.commitlog import LOG, CommitLog
from kvserver.storage.positions import FrameCursor
from kvserver.storage.wal_batch import BATCH_HEADER, PUT, Record, decode_records
from sim.engine import MemoryEngine, encode
from sim.server import Server

Mutation = Callable[[], AbstractContextManager[Any]]


def _method(owner: Any, name: str, make: Callable[[Any], Any]) -> Mutation:
    """Replace a method by what `make` makes of it."""

    def mutation() -> AbstractContextManager[Any]:
        return patch.object(owner, name, make(getattr(owner, name)))

    return mutation


# -- R1: one batch, with the primary's stamp -----------------------------------------------------


def _in_two_batches(install: Any) -> Any:
    def mutant(log: CommitLog, records: list[Record]) -> None:
        batch = log.engine.batch()
        log.engine.batch_records(batch, records[:-1])
        log.engine.write(batch)
        install(log, records)

    return mutant


def _own_stamp(install: Any) -> Any:
    def mutant(log: CommitLog, records: list[Record]) -> None:
        _, first, last, unix_ms = STAMP.unpack(records[-1][3])
        stamp = STAMP.pack(log.epoch, first, last, unix_ms)
        install(log, [*records[:-1], (PUT, LOG, STAMP_KEY, stamp)])

    return mutant


# -- R2: frames in order, each once --------------------------------------------------------------


def _gap_accepted(_apply: Any) -> Any:
    def mutant(upstream: Upstream, frame: Frame) -> None:
        if frame.last_seq > upstream.node.log.committed_seq:
            upstream.node.log.apply(frame)
            upstream.node.applied(upstream)

    return mutant


def _applied_twice(apply: Any) -> Any:
    def mutant(upstream: Upstream, frame: Frame) -> None:
        if frame.last_seq <= upstream.node.log.committed_seq:
            upstream.node.log.apply(frame)
            upstream.node.applied(upstream)
        else:
            apply(upstream, frame)

    return mutant


# -- R3: frames whole ------------------------------------------------------------------------------


def _split(read: Any) -> Any:
    """Half of a frame is sent as one, the rest with the next."""

    def mutant(cursor: FrameCursor) -> Frame | None:
        rest: Frame | None = getattr(cursor, "rest", None)
        if rest is not None:
            cursor.rest = None  # type: ignore[attr-defined]
            return rest
        frame: Frame | None = read(cursor)
        if frame is None or frame.last_seq == frame.first_seq:
            return frame
        records = decode_records(frame.payload, frame.records)[:-1]
        middle, half = frame.first_seq, len(records) // 2
        cursor.rest = _frame(frame, middle + 1, frame.last_seq, records[half:])  # type: ignore[attr-defined]
        return _frame(frame, frame.first_seq, middle, records[:half])

    return mutant


def _frame(frame: Frame, first: int, last: int, records: list[Record]) -> Frame:
    stamp = STAMP.pack(frame.epoch, first, last, frame.unix_ms)
    whole = [*records, (PUT, LOG, STAMP_KEY, stamp)]
    payload = encode(0, whole)[BATCH_HEADER:]
    return Frame(frames.DATA, frame.epoch, first, last, len(whole), frame.unix_ms, payload)


# -- R4, R5: eras --------------------------------------------------------------------------------


def _by_epoch(_ends: Any) -> Any:
    def mutant(known: History, last: int) -> dict[str, int]:
        ends = {}
        for index, era in enumerate(known.eras):
            following = known.eras[index + 1 : index + 2]
            ends[str(era.epoch)] = following[0].first_seq - 1 if following else last
        return ends

    return mutant


def _no_era(begin: Any) -> Any:
    """Every start is taken for one after a clean stop."""

    def mutant(server: Server) -> None:
        server.disk.marker = (server.log.epoch, server.log.committed_seq, server.disk.store.inode)
        begin(server)

    return mutant


def _no_era_at_promotion(promote: Any) -> Any:
    def mutant(self: Node) -> None:
        with patch.object(Node, "begin_era", lambda _self: None):
            promote(self)

    return mutant


# -- the stamp, rollback -------------------------------------------------------------------------


def _stamp_first(write: Any) -> Any:
    def mutant(engine: MemoryEngine, batch: list[Record]) -> None:
        if batch[-1][2] == STAMP_KEY:
            batch.insert(0, batch.pop())
        write(engine, batch)

    return mutant


def _no_rollback(_rollback: Any) -> Any:
    """Positions go back, rows and counts don't."""

    def mutant(log: CommitLog) -> None:
        log.last_seq = log.committed_seq
        log.changed = log.touched = False

    return mutant


# -- full sync, rewind -----------------------------------------------------------------------------


def _no_pin(_pinned: Any) -> Any:
    return lambda _node: None


def _no_ranges(collected: Any) -> Any:
    def mutant(self: Rewind, touched: Any) -> None:
        if not isinstance(touched, str):
            touched.ranges = []
        collected(self, touched)

    return mutant


def _start_at_fork(_start: Any) -> Any:
    return lambda self, fork: self.index.sequence_of(fork + 1)


def _never_until() -> AbstractContextManager[Any]:
    return patch.object(Consistency, "until", PropertyMock(return_value=0))


def _early_until() -> AbstractContextManager[Any]:
    """M is the fork: what was read later than that counts for nothing."""
    original = taken_back.until_row
    return patch.object(taken_back, "until_row", lambda until, start, aim: original(1, start, aim))


def _half_for_whole() -> AbstractContextManager[Any]:
    """A rewind that is written in part isn't told from none."""
    original = taken_back.until_row

    def mutant(until: int, start: int, aim: bytes) -> bytes:
        return original(0 if until == taken_back.UNFINISHED else until, start, aim)

    return patch.object(taken_back, "until_row", mutant)


def _forgotten_aim() -> AbstractContextManager[Any]:
    """PSYNC before M has the history that the last frame brought."""
    own = property(lambda self: self._log.history)
    return patch.object(Consistency, "history", own)


def _keep_keys(write: Any) -> Any:
    """Keys that the primary doesn't have stay."""

    def mutant(self: Rewind, touched: Any, until: int) -> None:
        touched.keys = [{} for _ in touched.keys]
        write(self, touched, until)

    return mutant


def _rewind_to_each_other() -> AbstractContextManager[Any]:
    """Who is being rewound goes on serving others."""
    begin = Rewind.begin
    stack = ExitStack()

    def mutant(self: Rewind) -> None:
        with patch.object(Node, "cut_all", lambda _self: None):
            begin(self)

    stack.enter_context(patch.object(Rewind, "begin", mutant))
    stack.enter_context(patch.object(Node, "_is_leaving_its_state", lambda _self: False))
    return stack


def _old_snapshot(forget: Any) -> Any:
    def mutant(self: Snapshots) -> None:
        if self._log.committed_seq == 0:
            forget(self)

    return mutant


# -- padding ---------------------------------------------------------------------------------------


def _rewound_to_the_padded() -> AbstractContextManager[Any]:
    """Who passes over positions goes on serving rows."""
    return patch.object(Node, "_leave_history", lambda _self: None)


def _frame_without_position(pass_over: Any) -> Any:
    """Replicas go on although they may miss that one history ended."""

    def mutant(*args: Any) -> None:
        with patch.object(Node, "cut_all", lambda _self: None):
            pass_over(*args)

    return mutant


# -- failover --------------------------------------------------------------------------------------


def _hasty(_acked_by: Any) -> Any:
    return lambda self, _address: self._log.committed_seq


def _hasty_failover() -> AbstractContextManager[Any]:
    """Neither side looks whether the target has everything."""
    take_over = Node._take_over
    stack = ExitStack()

    def mutant(self: Node, request: PsyncRequest) -> None:
        take_over(self, replace(request, forced=True))

    stack.enter_context(patch.object(Followers, "acked_by", _hasty(None)))
    stack.enter_context(patch.object(Node, "_take_over", mutant))
    return stack


def _unsynced_target(_acked_by: Any) -> Any:
    def mutant(self: Followers, address: tuple[str, int]) -> int:
        states = [s for s in self._good() if (s.ip, s.port) == address]
        return states[0].acked_seq if states else -1

    return mutant


class Mutant:
    """A broken core. `plan`: what a run must be to show it soon."""

    def __init__(self, name: str, broken: Mutation, plan: dict[str, Any]) -> None:
        self.name = name
        self.broken = broken
        self.plan = plan

    def mended(self) -> Mutant:
        """The same runs with nothing broken."""
        return Mutant(self.name, nullcontext, self.plan)


def mutant(name: str, broken: Mutation, **plan: Any) -> Mutant:
    """A row of the table."""
    return Mutant(name, broken, plan)


MUTANTS = [
    mutant("R1: the stamp in a batch of its own", _method(CommitLog, "install", _in_two_batches)),
    mutant("R1: the replica's own stamp", _method(CommitLog, "install", _own_stamp)),
    mutant("R2: a gap accepted", _method(Upstream, "_apply", _gap_accepted)),
    mutant("R2: a frame applied twice", _method(Upstream, "_apply", _applied_twice)),
    mutant("R3: a frame split", _method(FrameCursor, "read", _split)),
    mutant("R4: eras compared by epoch", _method(History, "_ends", _by_epoch)),
    mutant("R4: no era at a promotion", _method(Node, "promote", _no_era_at_promotion)),
    mutant("R5: no era after a crash", _method(Server, "begin", _no_era)),
    mutant("the stamp not last", _method(MemoryEngine, "write", _stamp_first)),
    mutant("no rollback", _method(CommitLog, "rollback", _no_rollback)),
    mutant("the pin of the log ignored", _method(Node, "pinned_file", _no_pin), kind="careless"),
    mutant("a checkpoint from before a rewind", _method(Snapshots, "forget", _old_snapshot)),
    mutant("rewind: ranges not read", _method(Rewind, "_collected", _no_ranges)),
    mutant("rewind: keys not deleted", _method(Rewind, "_write", _keep_keys)),
    mutant("rewind: begins at the fork", _method(Node, "rewind_start", _start_at_fork)),
    mutant("rewind: M ignored", _never_until),
    mutant("rewind: M too low", _early_until),
    mutant("rewind: a part taken for the whole", _half_for_whole),
    mutant("rewind: M's era forgotten", _forgotten_aim, kind="overtaken", nodes=3),
    mutant("rewind: to each other", _rewind_to_each_other, kind="careless", nodes=2),
    mutant("padding: rows served all the while", _rewound_to_the_padded, kind="padding"),
    mutant(
        "padding: a frame without a position",
        _method(replica, "pass_over", _frame_without_position),
        kind="padding",
    ),
    mutant("failover: nobody looks what the target has", _hasty_failover, kind="power"),
    mutant(
        "failover: the target need not have fsynced",
        _method(Followers, "acked_by", _unsynced_target),
        kind="power",
    ),
]
