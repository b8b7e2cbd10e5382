"""The commit pipeline: writes gather in one pending batch and become one atomic RocksDB write.

It must not know commands, clients, links or asyncio; whoever runs the event loop calls `commit`
at the end of each turn, drives the fsync worker through `begin_sync` / `end_sync`, and says
what replicas have. A replica's batches come in by `install` instead, as their primary wrote them.

Invariants:
- A batch ends with the stamp (epoch, first_seq, last_seq, unix_ms), a record of fixed
  length, so position and data are one atomic write (docs/design.md, "The commit pipeline").
- One `advance()` is one position: a command, a MULTI or a script, never split over two
  batches. A command that changes nothing takes no position.
- `released_seq` is the position up to which replies may leave: committed, fsynced when every
  reply waits for the disk (`appendfsync always`), and on `quorum` replicas or given up when there
  is a quorum (`replica-ack-quorum`). It never goes back, except when RocksDB is opened again and
  has less, and in a rewind.
- A batch whose stamp says another epoch than the one before it has the history's row in it.
- When a batch fails nothing of it stays visible: pending rows, cached rows and the
  keyspace's counts go back to the last commit.
- Events are in the batch of the writes that they tell of, put and deleted again: replicas read them
  there, and no data set keeps them.
- Once an fsync has failed none is tried until RocksDB is opened again: the kernel reports
  the loss of a page once, and a second fsync would succeed without having written it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kvserver import history
from kvserver.codec import (
    EVENTS_KEY,
    HISTORY_KEY,
    LOCAL_PREFIX,
    PADDED_KEY,
    STAMP,
    STAMP_KEY,
    UNTIL,
    UNTIL_KEY,
)
from kvserver.frames import Frame, FrameError, pack_fields
from kvserver.history import History
from kvserver.storage import gaps
from kvserver.storage.engine import Engine, EngineError, EngineStalled
from kvserver.storage.reads import Reads
from kvserver.storage.row_cache import Budget
from kvserver.storage.table import CachedTable, Table
from kvserver.storage.wal_batch import (
    DELETE,
    DELETE_RANGE,
    PUT,
    Record,
    WalError,
    decode_records,
)

#: Between commands a batch is cut when it passes this size, so that frames stay small.
BATCH_CUT_BYTES: Final = 1 << 20
#: Released keys are looked for among the unreleased ones when there are more than this.
UNRELEASED_KEYS: Final = 1024
#: No position gets there.
NOT_AWAITED: Final = (1 << 62) - 1

ROWS: Final = 0
DATA: Final = 1
EXPIRY: Final = 2
LOG: Final = 3
#: In the key of a row the low half of its slot, in that of an element the last of its collection's
#: id (kvserver/codec.py): these bytes differ most.
ROW_BYTE: Final = 5
ELEMENT_BYTE: Final = 11


def _no_hook() -> None:
    return None


def _no_install(_records: list[Record]) -> None:
    return None


def _no_events(_row: bytes) -> None:
    return None


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class CommitLog:
    """Pending writes of all column families and the positions they will take."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reads = Reads(engine)
        self.rows = CachedTable(engine, ROWS, self, ROW_BYTE)
        self.data = CachedTable(engine, DATA, self, ELEMENT_BYTE)
        #: Rows of keys and of elements share it. Nothing is cached until it has a size.
        self.cache = Budget(self.rows.cache, self.data.cache)
        self.expiry = Table(engine, EXPIRY, self)
        self.meta = Table(engine, LOG, self)
        self.tables: list[Table] = [self.rows, self.data, self.expiry, self.meta]
        self._ranges: list[tuple[int, bytes, bytes]] = []
        #: Set by every write; `advance` turns it into a position.
        self.changed = False
        #: Set when the running command wrote, or read a row that isn't released yet.
        self.touched = False
        #: True while there are rows that a read must not answer from before release.
        self.unsettled = False
        self.pending_bytes = 0
        #: True: replies wait for fsync (`appendfsync always`).
        self.wait_for_sync = False
        #: How many replicas replies wait for; 0: none. A replica doesn't wait for others.
        self.quorum = 0
        #: RocksDB failed: nothing may be written until it is opened again.
        self.failed = False
        #: An fsync failed: nothing may be synced until then either.
        self.sync_failed = False
        #: What types keep in memory of rows that this server's commands wrote, by type. It is
        #: emptied whenever rows change in any other way.
        self.derived: dict[int, object] = {}
        #: Fields that travel with the pending batch (state/notify.py).
        self.events: list[bytes] = []
        #: Called with those that came with a frame, once it is installed.
        self.on_events: Callable[[bytes], None] = _no_events
        self.before_commit: Callable[[], None] = _no_hook
        self.after_rollback: Callable[[], None] = _no_hook
        #: Called with the records of each `install`.
        self.after_install: Callable[[list[Record]], None] = _no_install
        #: Called when the committed position is `awaited_seq` or above (state/awaited.py).
        self.on_awaited: Callable[[], None] = _no_hook
        self.awaited_seq = NOT_AWAITED
        #: Crash tests set it: called with the label of each step of a commit and an fsync.
        self.step: Callable[[str], None] | None = None
        #: While something waits: the last position that wrote a key; released ones may be left.
        self._unreleased: dict[bytes, int] = {}
        self._unreleased_limit = UNRELEASED_KEYS
        self.load()

    def load(self) -> None:
        """Take history, epoch and position from the rows of the log; a new data set gets them."""
        stamp = self.meta.get(STAMP_KEY)
        #: The eras of the data set, as committed.
        self.history = self._stored_history(new=stamp is None)
        self._next_history: History | None = None
        self.epoch, self.committed_seq = self.history.current.epoch, 0
        if stamp is not None:
            self.epoch, _, self.committed_seq, _ = STAMP.unpack(stamp)
        self._committed_epoch = self.epoch
        #: Position of the last command, pending ones included.
        self.last_seq = self.committed_seq
        self.synced_seq = self.committed_seq
        self.released_seq = self.committed_seq
        #: What the quorum of replicas has, and what nobody waits for any more though it hasn't.
        self.acked_seq = self.given_up_seq = self.committed_seq
        #: The position that a running fsync can make durable: less than where it began when
        #: positions went back meanwhile.
        self._sync_limit = 0
        #: Position of the last `sweep`.
        self._swept_seq = 0
        self.touched = False

    def _stored_history(self, new: bool) -> History:
        """The history in the log. There is none in a new data set, nor in one that a version
        without replication has made."""
        row = self.meta.get(HISTORY_KEY)
        if row is not None:
            try:
                return history.decode(row)
            except ValueError as error:
                raise EngineError(f"{self.engine.path}: {error} in the log") from None
        genesis = history.genesis()
        batch = self.engine.batch()
        self.engine.batch_put(batch, LOG, HISTORY_KEY, genesis.encode())
        if new:
            stamp = STAMP.pack(genesis.current.epoch, 0, 0, _unix_ms())
            self.engine.batch_put(batch, LOG, STAMP_KEY, stamp)
        self.engine.write(batch)
        return genesis

    # -- writes ------------------------------------------------------------------------

    def wrote(self, size: int) -> None:
        """A table took a write of about `size` bytes."""
        self.pending_bytes += size
        self.changed = True
        self.touched = True
        self.unsettled = True

    def note_read(self, key: bytes, pending: dict[bytes, bytes | None]) -> None:
        """A read hit `key` while rows are unreleased: its reply waits if it saw one."""
        released = self.released_seq
        if (
            key in pending
            or self._swept_seq > released
            or (self._unreleased and self._unreleased.get(key, 0) > released)
        ):
            self.touched = True

    def note_scan(self) -> None:
        """A walk or a count saw whatever is unreleased."""
        if self.unsettled:
            self.touched = True

    def delete_range(self, table: Table, begin: bytes, end: bytes) -> None:
        """Drop every row of [begin, end), those written before in the same batch included. Rows
        may be written there again, but none may be read that wasn't, before the batch is
        committed: stored ones still show."""
        table.forget_pending(begin, end)
        self._ranges.append((table.cf, begin, end))
        self.wrote(len(begin) + len(end))

    def dropped_within(self, table: Table, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """The ranges of keys with this prefix that the pending batch drops."""
        ranges = self._ranges
        return [(b, e) for cf, b, e in ranges if cf == table.cf and b.startswith(prefix)]

    def sweep(self) -> None:
        """The running command changes what every key reads as (FLUSHALL, SWAPDB): whatever is
        read from now on depends on it."""
        self.rows.close_rows()
        self.wrote(0)
        self._swept_seq = self.last_seq + 1

    def advance(self) -> bool:
        """The running command is over: give its writes a position. Returns whether the batch
        is large enough to be cut here."""
        self.changed = False
        self.last_seq += 1
        return self.pending_bytes > BATCH_CUT_BYTES

    def begin_epoch(self, fork: int | None = None) -> None:
        """From the next position on this server is who wrote; or already from `fork` on, if what
        it has after that is nobody else's. No position may be pending; the new era takes one of its
        own, which the caller commits."""
        if self._next_history is None:
            last = self.last_seq if fork is None else fork
            eras, shared = self.history.upto(self.last_seq), self.history.upto(last)
            self._next_history = eras.branched(history.new_replid(), last + 1, shared)
            self._committed_epoch = self.epoch
            self.epoch = self._next_history.current.epoch
            self.meta.put(HISTORY_KEY, self._next_history.encode())
            self.advance()
            self.touched = False

    @property
    def pending(self) -> bool:
        """Whether there is anything to commit."""
        return self.last_seq != self.committed_seq

    # -- commit ------------------------------------------------------------------------

    def commit(self) -> None:
        """Write the pending batch with its stamp; raises EngineStalled (the batch stays
        pending) or EngineError (call `rollback`)."""
        step = self.step
        if step is not None:
            step("commit.build")
        self.rows.close_rows()
        self.before_commit()
        batch = self.engine.batch()
        # First: what is pending was written after.
        for cf, begin, end in self._ranges:
            self.engine.batch_delete_range(batch, cf, begin, end)
        for table in self.tables:
            if table.pending:
                table.fill(batch)
        if self.events:
            row = pack_fields(self.events)
            records = [(PUT, LOG, EVENTS_KEY, row), (DELETE, LOG, EVENTS_KEY, b"")]
            self.engine.batch_records(batch, records)
        stamp = STAMP.pack(self.epoch, self.committed_seq + 1, self.last_seq, _unix_ms())
        self.engine.batch_put(batch, LOG, STAMP_KEY, stamp)
        if step is not None:
            step("commit.write")
        self.engine.write(batch)
        if step is not None:
            step("commit.written")
        self._settle()
        if self.committed_seq >= self.awaited_seq:
            self.on_awaited()

    def _settle(self) -> None:
        self.committed_seq = self.last_seq
        self._ranges.clear()
        self.events.clear()
        self.pending_bytes = 0
        if self._next_history is not None:
            self.history, self._next_history = self._next_history, None
        if self.wait_for_sync or self.quorum:
            self._hold()
        else:
            self.released_seq = self.committed_seq
        for table in self.tables:
            if table.pending:
                table.settle()
        self.unsettled = self.released_seq != self.committed_seq

    def _hold(self) -> None:
        """Note whose release what was just committed must wait for."""
        unreleased = self._unreleased
        for table in self.tables:
            if table.pending:
                unreleased.update(dict.fromkeys(table.pending, self.committed_seq))
        if len(unreleased) > self._unreleased_limit:
            released = self.released_seq
            unreleased = {key: seq for key, seq in unreleased.items() if seq > released}
            self._unreleased = unreleased
            self._unreleased_limit = max(2 * len(unreleased), UNRELEASED_KEYS)

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self.derived.clear()
        for table in self.tables:
            table.rollback()
        self._ranges.clear()
        self.events.clear()
        self.pending_bytes = 0
        self.last_seq = self.committed_seq
        self._swept_seq = min(self._swept_seq, self.committed_seq)
        self.changed = False
        if self._next_history is not None:
            self._next_history = None
            self.epoch = self._committed_epoch
        self.unsettled = self.released_seq != self.committed_seq
        self.after_rollback()
        self.touched = False

    def reload(self) -> int:
        """RocksDB was opened again, or holds another data set now: forget everything cached and
        read the position anew. What waits for the quorum goes on waiting.
        Returns how many released positions are gone: 0, unless the disk lost what it had."""
        self.rollback()
        released = self.released_seq
        waits = self.quorum > 0 and self.unsettled
        acked, given_up = self.acked_seq, self.given_up_seq
        self.rows.cache.clear()
        self.data.cache.clear()
        self.load()
        if waits:
            self.acked_seq = min(acked, self.committed_seq)
            self.given_up_seq = min(given_up, self.committed_seq)
            self.released_seq = min(released, self.committed_seq)
        self._release()
        if self.committed_seq >= self.awaited_seq:
            self.on_awaited()
        return max(released - self.committed_seq, 0)

    # -- a replica's batches -----------------------------------------------------------------

    def apply(self, frame: Frame) -> None:
        """Install a primary's frame. Raises FrameError, and what `install` does."""
        try:
            records = decode_records(frame.payload, frame.records)
        except WalError as error:
            raise FrameError(str(error)) from None
        stamp = STAMP.pack(frame.epoch, frame.first_seq, frame.last_seq, frame.unix_ms)
        if not records or records[-1] != (PUT, LOG, STAMP_KEY, stamp):
            raise FrameError("a frame that doesn't end with the stamp of its header")
        events = b""
        for op, cf, key, value in records:
            if op not in (PUT, DELETE, DELETE_RANGE) or cf > LOG:
                raise FrameError(f"a frame with operation {op} on column family {cf}")
            if cf == LOG:
                if key.startswith(LOCAL_PREFIX):
                    raise FrameError("a frame with a row of its sender's own")
                if key == EVENTS_KEY and op == PUT:
                    events = value
        self.install(self._with_own_gaps(records))
        if events:
            self.on_events(events)

    def _with_own_gaps(self, records: list[Record]) -> list[Record]:
        """A copy of a data set that passes over positions has the same gaps. But one that has gaps
        of its own keeps them besides, whatever its primary says, until a rewind makes it a copy."""
        told = [r for r in records if r[1] == LOG and r[2] == PADDED_KEY]
        own = self.meta.get(PADDED_KEY) if told else None
        until = self.meta.get(UNTIL_KEY) if told else None
        if own is None or (until and UNTIL.unpack_from(until)[0] > self.committed_seq):
            return records
        return [*gaps.with_own(told, own), *[r for r in records if r not in told]]

    def install(self, records: list[Record]) -> None:
        """Write these records as they are, in one batch. The last is the stamp, which the position
        follows, forwards or (a rewind) backwards. Nothing may be pending. Nobody waits for what
        came in like this. Raises EngineStalled or FrameError (nothing was written), EngineError.
        """
        epoch, _, last_seq, _ = STAMP.unpack(records[-1][3])
        eras = _history_in(records) or self.history
        batch = self.engine.batch()
        self.engine.batch_records(batch, records)
        if self.step is not None:
            self.step("install.write")
        self.engine.write(batch)
        self.derived.clear()
        if self.step is not None:
            self.step("install.written")
        # A primary reads nothing that it dropped, and so don't those who follow it; a rewind undoes
        # what nobody else has read.
        goes_back = last_seq <= self.committed_seq
        self.history, self.epoch = eras, epoch
        self._move(last_seq)
        self.rows.follow(records, ranges=True)
        self.data.follow(records, ranges=goes_back)
        self.after_install(records)
        self.touched = False
        if self.committed_seq >= self.awaited_seq:
            self.on_awaited()

    def _move(self, seq: int) -> None:
        """The committed position is `seq` now, by way of `install`."""
        if seq < self.committed_seq:
            self.synced_seq = min(self.synced_seq, seq)
            self._sync_limit = min(self._sync_limit, seq)
            self.acked_seq = min(self.acked_seq, seq)
            self._swept_seq = 0
            self._unreleased = {}
            self.released_seq = seq
        self.committed_seq = self.last_seq = self.given_up_seq = seq
        if not self._unreleased:
            self.released_seq = seq
        self._release()

    # -- release -------------------------------------------------------------------------------

    def _release(self) -> None:
        """Let `released_seq` follow what it depends on."""
        seq = self.committed_seq
        if self.wait_for_sync:
            seq = min(seq, self.synced_seq)
        if self.quorum:
            seq = min(seq, max(self.acked_seq, self.given_up_seq))
        if seq > self.released_seq:
            self.released_seq = seq
        if self.released_seq == self.committed_seq and self._unreleased:
            self._unreleased = {}
        self.unsettled = self.released_seq != self.committed_seq or self.pending

    def set_wait_for_sync(self, wait: bool) -> None:
        """Switch `appendfsync always` on or off; off releases what waited for it alone."""
        self.wait_for_sync = wait
        self._release()

    def set_quorum(self, replicas: int) -> None:
        """How many replicas must have a position before it is released. What the former number
        had acknowledged counts no more: `acknowledged` follows."""
        if replicas != self.quorum:
            self.quorum = replicas
            self.acked_seq = min(self.acked_seq, self.released_seq)
        self._release()

    def acknowledged(self, seq: int) -> None:
        """The quorum of replicas has everything up to `seq`."""
        if seq > self.acked_seq:
            self.acked_seq = min(seq, self.committed_seq)
            self._release()

    def give_up(self, seq: int) -> None:
        """Nobody waits any more for the quorum to have what is up to `seq`."""
        if seq > self.given_up_seq:
            self.given_up_seq = min(seq, self.committed_seq)
            self._release()

    # -- fsync -------------------------------------------------------------------------

    def begin_sync(self) -> int | None:
        """The position that an fsync started now makes durable; None: nothing to sync."""
        if self.synced_seq == self.committed_seq or self.sync_failed:
            return None
        self._sync_limit = self.committed_seq
        if self.step is not None:
            self.step("sync.begin")
        return self.committed_seq

    def end_sync(self, seq: int) -> None:
        """The fsync begun at position `seq` succeeded."""
        if self.step is not None:
            self.step("sync.done")
        self.synced_seq = max(self.synced_seq, min(seq, self._sync_limit))
        self._release()

    def abandon_sync(self) -> None:
        """fsync failed. What is committed stays visible, unacknowledged: reads go on."""
        self.sync_failed = True
        self._unreleased = {}
        self.given_up_seq = self.released_seq = self.committed_seq
        self.unsettled = self.pending


def _history_in(records: list[Record]) -> History | None:
    """The history that these records bring; FrameError if it is none."""
    for op, cf, key, value in records:
        if cf == LOG and key == HISTORY_KEY and op == PUT:
            try:
                return history.decode(value)
            except ValueError as error:
                raise FrameError(str(error)) from None
    return None


__all__ = ["LOCAL_PREFIX", "STAMP_KEY", "CommitLog", "EngineError", "EngineStalled"]
