"""The commit pipeline: writes gather in one pending batch and become one atomic RocksDB write.

It must not know commands, clients or asyncio; whoever runs the event loop calls `commit`
at the end of each turn and drives the fsync worker through `begin_sync` / `end_sync`.

Invariants:
- A batch ends with the stamp (epoch, first_seq, last_seq, unix_ms), a record of fixed
  length, so position and data are one atomic write (docs/design.md, "The commit pipeline").
- One `advance()` is one position: a command, a MULTI or a script, never split over two
  batches. A command that changes nothing takes no position.
- `released_seq` is the position up to which replies may leave: committed, or fsynced when
  every reply waits for the disk (`appendfsync always`). It never goes back, except when
  RocksDB is opened again and has less.
- When a batch fails nothing of it stays visible: pending rows, cached rows and the
  keyspace's counts go back to the last commit.
- Once an fsync has failed none is tried until RocksDB is opened again: the kernel reports
  the loss of a page once, and a second fsync would succeed without having written it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kvserver.codec import STAMP
from kvserver.storage.engine import Engine, EngineError, EngineStalled
from kvserver.storage.table import CachedTable, Table

#: Between commands a batch is cut when it passes this size, so that frames stay small.
BATCH_CUT_BYTES: Final = 1 << 20
STAMP_KEY: Final = b"s"

DATA: Final = 1
EXPIRY: Final = 2
LOG: Final = 3


def _no_hook() -> None:
    return None


class CommitLog:
    """Pending writes of all column families and the positions they will take."""

    def __init__(self, engine: Engine, cache_bytes: int) -> None:
        self.engine = engine
        self.rows = CachedTable(engine, 0, self, cache_bytes)
        self.data = Table(engine, DATA, self)
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
        #: RocksDB failed: nothing may be written until it is opened again.
        self.failed = False
        #: An fsync failed: nothing may be synced until then either.
        self.sync_failed = False
        self.before_commit: Callable[[], None] = _no_hook
        self.after_rollback: Callable[[], None] = _no_hook
        #: Crash tests set it: called with the label of each step of a commit and an fsync.
        self.step: Callable[[str], None] | None = None
        self._unsynced: set[bytes] = set()
        self._syncing: set[bytes] = set()
        self.load()

    def load(self) -> None:
        """Take epoch and position from the stamp in the log (a new data set: 1 and 0)."""
        stamp = self.meta.get(STAMP_KEY)
        self.epoch, self.committed_seq = 1, 0
        if stamp is not None:
            self.epoch, _, self.committed_seq, _ = STAMP.unpack(stamp)
        #: Position of the last command, pending ones included.
        self.last_seq = self.committed_seq
        self.synced_seq = self.committed_seq
        self.released_seq = self.committed_seq
        #: Position of the last `sweep`.
        self._swept_seq = 0
        self.touched = False

    # -- writes ------------------------------------------------------------------------

    def wrote(self, size: int) -> None:
        """A table took a write of about `size` bytes."""
        self.pending_bytes += size
        self.changed = True
        self.touched = True
        self.unsettled = True

    def note_read(self, key: bytes, pending: dict[bytes, bytes | None]) -> None:
        """A read hit `key` while rows are unreleased: its reply waits if it saw one."""
        if (
            key in pending
            or key in self._unsynced
            or key in self._syncing
            or self._swept_seq > self.released_seq
        ):
            self.touched = True

    def note_scan(self) -> None:
        """A walk or a count saw whatever is unreleased."""
        if self.unsettled:
            self.touched = True

    def delete_range(self, table: Table, begin: bytes, end: bytes) -> None:
        """Drop every row of [begin, end). Ranges are applied after the batch's puts, which is
        right because a dropped range's prefix (a database's or collection's id) is never used
        again."""
        self._ranges.append((table.cf, begin, end))
        self.wrote(len(begin) + len(end))

    def sweep(self) -> None:
        """The running command changes what every key reads as (FLUSHALL, SWAPDB): whatever is
        read from now on depends on it."""
        self.wrote(0)
        self._swept_seq = self.last_seq + 1

    def advance(self) -> bool:
        """The running command is over: give its writes a position. Returns whether the batch
        is large enough to be cut here."""
        self.changed = False
        self.last_seq += 1
        return self.pending_bytes > BATCH_CUT_BYTES

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
        self.before_commit()
        batch = self.engine.batch()
        for table in self.tables:
            if table.pending:
                table.fill(batch)
        for cf, begin, end in self._ranges:
            self.engine.batch_delete_range(batch, cf, begin, end)
        now = time.time_ns() // 1_000_000
        stamp = STAMP.pack(self.epoch, self.committed_seq + 1, self.last_seq, now)
        self.engine.batch_put(batch, LOG, STAMP_KEY, stamp)
        if step is not None:
            step("commit.write")
        self.engine.write(batch)
        if step is not None:
            step("commit.written")
        self._settle()

    def _settle(self) -> None:
        self.committed_seq = self.last_seq
        self._ranges.clear()
        self.pending_bytes = 0
        if self.wait_for_sync:
            for table in self.tables:
                self._unsynced.update(table.pending)
        else:
            self.released_seq = self.committed_seq
        for table in self.tables:
            if table.pending:
                table.settle()
        self.unsettled = self.released_seq != self.committed_seq

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        for table in self.tables:
            table.rollback()
        self._ranges.clear()
        self.pending_bytes = 0
        self.last_seq = self.committed_seq
        self._swept_seq = min(self._swept_seq, self.committed_seq)
        self.changed = False
        self.unsettled = self.released_seq != self.committed_seq
        self.after_rollback()
        self.touched = False

    def reload(self) -> int:
        """RocksDB was opened again: forget everything cached and read the position anew.
        Returns how many released positions are gone: 0, unless the disk lost what it had."""
        released = self.released_seq
        self.rollback()
        self._unsynced.clear()
        self._syncing.clear()
        self.rows.forget()
        self.load()
        self.unsettled = False
        return max(released - self.committed_seq, 0)

    # -- fsync -------------------------------------------------------------------------

    def begin_sync(self) -> int | None:
        """The position that an fsync started now makes durable; None: nothing to sync."""
        if self.synced_seq == self.committed_seq or self.sync_failed:
            return None
        self._syncing, self._unsynced = self._unsynced, set()
        if self.step is not None:
            self.step("sync.begin")
        return self.committed_seq

    def end_sync(self, seq: int) -> None:
        """The fsync begun at position `seq` succeeded."""
        if self.step is not None:
            self.step("sync.done")
        self.synced_seq = seq
        self._syncing = set()
        if self.wait_for_sync:
            self.released_seq = max(self.released_seq, seq)
        self.unsettled = self.released_seq != self.committed_seq or self.pending

    def abandon_sync(self) -> None:
        """fsync failed. What is committed stays visible, unacknowledged: reads go on."""
        self.sync_failed = True
        self._unsynced.clear()
        self._syncing.clear()
        self.released_seq = self.committed_seq
        self.unsettled = self.pending

    def set_wait_for_sync(self, wait: bool) -> None:
        """Switch `appendfsync always` on or off; off releases what is committed."""
        self.wait_for_sync = wait
        if not wait:
            self._unsynced.clear()
            self.released_seq = self.committed_seq
            self.unsettled = self.pending


__all__ = ["CommitLog", "EngineError", "EngineStalled"]
