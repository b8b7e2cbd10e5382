"""A column family as commands see it: pending writes over (a row cache over) RocksDB.

It must not know what rows mean. Invariants:
- `pending` holds every uncommitted write of the table; None marks a deletion. Where a key is
  `opened`, too, the row is what that will encode, and what `pending` has is an older one.
- An opened row isn't in the cache. It is closed by whoever reads it, by every walk, and by the
  commit: nobody else need know that there are such rows.
- The cache is write-through: a row in it equals pending-or-RocksDB, so a hit needs one
  dictionary look-up. It holds no deletions: those are found in `pending`, or missing. Rows of
  dropped ranges may stay in it: nobody reads them (`CommitLog.delete_range`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kvserver.storage.engine import Engine
from kvserver.storage.open_row import OpenRow
from kvserver.storage.overlay import Entry, Fresh, Overlay, Walk, entries
from kvserver.storage.row_cache import RowCache
from kvserver.storage.wal_batch import DELETE_RANGE, PUT, Record

if TYPE_CHECKING:
    from kvserver.storage.commitlog import CommitLog

#: While reads of RocksDB are quick, those whose number has one of these bits aren't timed.
UNTIMED: Final = 3
#: As many new keys are inserted one by one among those in order; more are sorted with them.
FEW_KEYS: Final = 16


class Table:
    """An uncached column family. Keys and rows are bytes; a missing row is None."""

    def __init__(self, engine: Engine, cf: int, log: CommitLog) -> None:
        self.engine = engine
        self.cf = cf
        self.log = log
        self.pending: dict[bytes, bytes | None] = {}
        #: The keys of `pending` in order, as far as a walk needed them.
        self._ordered: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        """The row, uncommitted writes included."""
        if self.log.unsettled:
            self.log.note_read(key, self.pending)
            if key in self.pending:
                return self.pending[key]
        return self.engine.get(self.cf, key)

    def put(self, key: bytes, row: bytes) -> None:
        """Write a row."""
        self.pending[key] = row
        self.log.wrote(len(key) + len(row))

    def delete(self, key: bytes) -> None:
        """Delete a row; it need not exist."""
        self.pending[key] = None
        self.log.wrote(len(key))

    def scan(self, lower: bytes, upper: bytes, reverse: bool = False) -> Iterator[Entry]:
        """(key, row) in [lower, upper), in key order or reversed. The view is pinned when
        this is called: later writes don't show, however long the walk takes."""
        self.log.note_scan()
        fresh = self._fresh(lower, upper)
        if not fresh:
            return self.engine.scan(self.cf, lower, upper, reverse)
        if not reverse:
            walk = Overlay(self.engine.cursor(self.cf, upper), fresh)
            walk.seek(lower)
            return entries(walk, lower)
        walk = Overlay(self.engine.cursor(self.cf, upper), fresh[::-1], reverse=True)
        walk.rewind()
        return entries(walk, lower)

    def walk(self, lower: bytes, upper: bytes) -> Walk:
        """The same in key order, for walks that jump: it stands at the first entry."""
        self.log.note_scan()
        fresh = self._fresh(lower, upper)
        cursor = self.engine.cursor(self.cf, upper)
        walk: Walk = Overlay(cursor, fresh) if fresh else cursor
        walk.seek(lower)
        return walk

    def _fresh(self, lower: bytes, upper: bytes) -> list[Fresh]:
        """The uncommitted rows of [lower, upper), in order."""
        keys, pending = self._order(), self.pending
        return [(k, pending[k]) for k in keys[bisect_left(keys, lower) : bisect_left(keys, upper)]]

    def _order(self) -> list[bytes]:
        """The keys of `pending` in order. It gains keys at its end; what it loses `_ordered` loses
        too."""
        keys = self._ordered
        added = len(self.pending) - len(keys)
        if 0 < added <= FEW_KEYS:
            for key in islice(reversed(self.pending), added):
                insort(keys, key)
        elif added:
            keys.extend(islice(reversed(self.pending), added))
            keys.sort()
        return keys

    def forget_pending(self, begin: bytes, end: bytes) -> None:
        """Forget the uncommitted rows of [begin, end): the range is dropped as a whole."""
        keys = self._order()
        low, high = bisect_left(keys, begin), bisect_left(keys, end)
        for key in keys[low:high]:
            del self.pending[key]
        del keys[low:high]

    def fill(self, batch: Any) -> None:
        """Add the pending writes to a batch."""
        self.engine.batch_fill(batch, self.cf, self.pending)

    def settle(self) -> None:
        """The batch is committed."""
        self.pending = {}
        self._ordered = []

    def rollback(self) -> None:
        """The batch failed: back to what RocksDB holds."""
        self.pending = {}
        self._ordered = []


class CachedTable(Table):
    """A column family with a row cache; `byte` as in RowCache."""

    def __init__(self, engine: Engine, cf: int, log: CommitLog, byte: int) -> None:
        super().__init__(engine, cf, log)
        self.cache = RowCache(byte)
        self.opened: dict[bytes, OpenRow] = {}
        self.reset_counters()

    def reset_counters(self) -> None:
        """Set the counters to zero. Hits in the young generation aren't counted: it would cost
        every read."""
        #: Rows found in the old generation.
        self.hits_old = 0
        #: Look-ups that went to RocksDB, and those among them that found a row there.
        self.misses = self.loads = 0

    def get(self, key: bytes) -> bytes | None:
        row = self.young(key)
        if row is not None:
            if self.log.unsettled:
                self.log.note_read(key, self.pending)
            return row
        return self._get_missed(key)

    def _get_missed(self, key: bytes) -> bytes | None:
        if self.log.unsettled:
            self.log.note_read(key, self.pending)
            if key in self.pending:
                return self._pending_row(key)
        return self._fetch(key)

    def _pending_row(self, key: bytes) -> bytes | None:
        if self.opened and key in self.opened:
            return self._close(key)
        return self.pending[key]

    def _fetch(self, key: bytes) -> bytes | None:
        """The row from the old generation or RocksDB."""
        row = self.cache.revive(key)
        if row is not None:
            self.hits_old += 1
            return row
        row = self._load(key)
        self.misses += 1
        if row is not None:
            self.loads += 1
            self.cache.add(key, row)
        return row

    def _load(self, key: bytes) -> bytes | None:
        """The row from RocksDB; raises ColdRead."""
        reads = self.log.reads
        if reads.slow:
            return reads.load(self.cf, key, self.log.changed)
        if self.misses & UNTIMED:
            return self.engine.get(self.cf, key)
        return reads.timed(self.cf, key)

    def cached(self, key: bytes) -> bytes | None:
        """The row if it is in memory here, pending or cached; None doesn't say that it is missing.
        Counts nothing."""
        row = self.cache.find(key)
        if row is None and key in self.pending:
            return self._pending_row(key)
        return row

    def young(self, key: bytes) -> bytes | None:
        """The row if it is in the young generation."""
        cache = self.cache
        return cache.young[cache.shard_of(key)].get(key)

    def peek(self, key: bytes) -> bytes | None:
        """The row, for a command that goes on to write it: its reply waits anyway."""
        row = self.young(key)
        if row is not None:
            return row
        if key in self.pending:
            return self._pending_row(key)
        return self._fetch(key)

    def put(self, key: bytes, row: bytes) -> None:
        before = self.young(key)
        if before is not None:
            self.overwrite(key, before, row)
            return
        if self.opened:
            self.opened.pop(key, None)
        self.pending[key] = row
        self.cache.add(key, row)
        log = self.log
        log.pending_bytes += len(key) + len(row)
        log.changed = log.touched = log.unsettled = True

    def overwrite(self, key: bytes, before: bytes, row: bytes) -> None:
        """`put`, for who has just found `before` in the young generation."""
        self.pending[key] = row
        self.cache.replace(key, before, row)
        log = self.log
        log.pending_bytes += len(key) + len(row)
        log.changed = log.touched = log.unsettled = True

    def put_unread(self, key: bytes, row: bytes) -> None:
        """Write a row that is only read by walks, which don't use the cache: an index."""
        self.pending[key] = row
        self.log.wrote(len(key) + len(row))

    def delete(self, key: bytes) -> None:
        self.cache.remove(key)
        if self.opened:
            self.opened.pop(key, None)
        self.pending[key] = None
        self.log.wrote(len(key))

    def get_uncached(self, key: bytes) -> bytes | None:
        """The row as `get` gives it, but the cache doesn't count it as used."""
        if key in self.opened:
            self._close(key)
        return super().get(key)

    # -- rows that aren't encoded each time ------------------------------------------------------

    def open(self, key: bytes, row: OpenRow) -> None:
        """A row that was just put goes on changing: from now on it is what `row` encodes."""
        self.cache.remove(key)
        self.opened[key] = row

    def _close(self, key: bytes) -> bytes:
        log = self.log
        changed, touched = log.changed, log.touched
        log.changed = True  # a failure in between leaves half of it: the batch must go
        row = self.opened.pop(key).encode()
        self.pending[key] = row
        self.cache.add(key, row)
        log.changed, log.touched = changed, touched
        return row

    def close_rows(self) -> None:
        """Encode all rows that are opened."""
        for key in list(self.opened):
            self._close(key)

    def _fresh(self, lower: bytes, upper: bytes) -> list[Fresh]:
        self.close_rows()
        return super()._fresh(lower, upper)

    def forget_pending(self, begin: bytes, end: bytes) -> None:
        """The same, and out of the cache: if the batch fails, it must have what RocksDB has."""
        for key, _ in self._fresh(begin, end):
            self.cache.remove(key)
        super().forget_pending(begin, end)

    def rollback(self) -> None:
        for key in self.pending:
            self.cache.remove(key)
        self.opened = {}
        super().rollback()

    def follow(self, records: list[Record], ranges: bool) -> None:
        """RocksDB took these records past this table, which has nothing pending: rows of the young
        generation are replaced, those of the old one are dropped, others are left to be read.
        `ranges`: rows of dropped ranges may be read again before they are written again."""
        for op, cf, key, row in records:
            if cf != self.cf:
                continue
            if op == DELETE_RANGE:
                if ranges:
                    self.cache.clear()
                    return
                continue
            before = self.young(key)
            if before is None or op != PUT:
                self.cache.remove(key)
            else:
                self.cache.replace(key, before, row)
