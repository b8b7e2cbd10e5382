"""A column family as commands see it: pending writes over (a row cache over) RocksDB.

It must not know what rows mean. Invariants:
- `pending` holds every uncommitted write of the table; None marks a deletion.
- The cache is write-through: a row in it equals pending-or-RocksDB, so a hit needs one
  dictionary look-up. It holds no deletions: those are found in `pending`, or missing. Rows of
  dropped ranges may stay in it: nobody reads them (`CommitLog.delete_range`).
- The cache is bounded in bytes by two generations: a hit in the old one moves to the young
  one; when the young one has half the budget, it becomes the old one and the former old one
  is dropped two rows for each row that comes in (dropping a million objects at once would
  stop the loop for tens of milliseconds).
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kvserver.storage.engine import Engine
from kvserver.storage.overlay import Entry, Fresh, Overlay, Walk, entries
from kvserver.storage.wal_batch import DELETE_RANGE, PUT, Record

if TYPE_CHECKING:
    from kvserver.storage.commitlog import CommitLog

#: What CPython spends beside the payload: two bytes objects (33 each) and a dictionary slot.
ROW_OVERHEAD: Final = 170
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
    """A column family with a row cache."""

    def __init__(self, engine: Engine, cf: int, log: CommitLog) -> None:
        super().__init__(engine, cf, log)
        self.young: dict[bytes, bytes] = {}
        self.old: dict[bytes, bytes] = {}
        self._dropping: list[dict[bytes, bytes]] = []
        self.young_bytes = 0
        self.old_bytes = 0
        self.reset_counters()
        self.young_since = self.old_since = time.monotonic()
        self.resize(0)

    def reset_counters(self) -> None:
        """Set the counters to zero. Hits in the young generation aren't counted: it would cost
        every read."""
        #: Rows found in the old generation.
        self.hits_old = 0
        #: Look-ups that went to RocksDB, and those among them that found a row there.
        self.misses = self.loads = 0

    def resize(self, cache_bytes: int) -> None:
        """Bound the cache; takes effect as rows come in."""
        self.half = cache_bytes // 2
        #: A single row above this isn't cached: it would push out too much.
        self.row_limit = max(self.half // 16, 0)

    def get(self, key: bytes) -> bytes | None:
        row = self.young.get(key)
        if row is not None:
            if self.log.unsettled:
                self.log.note_read(key, self.pending)
            return row
        return self._get_missed(key)

    def _get_missed(self, key: bytes) -> bytes | None:
        if self.log.unsettled:
            self.log.note_read(key, self.pending)
            if key in self.pending:
                return self.pending[key]
        return self._fetch(key)

    def _fetch(self, key: bytes) -> bytes | None:
        """The row from the old generation or RocksDB."""
        row = self.old.pop(key, None)
        if row is None:
            row = self._load(key)
            self.misses += 1
            if row is None:
                return None
            self.loads += 1
        else:
            self.hits_old += 1
            self.old_bytes -= len(key) + len(row) + ROW_OVERHEAD
        self._remember(key, row)
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
        row = self.young.get(key)
        if row is None:
            row = self.old.get(key)
        return self.pending.get(key) if row is None else row

    def peek(self, key: bytes) -> bytes | None:
        """The row, for a command that goes on to write it: its reply waits anyway."""
        row = self.young.get(key)
        if row is not None:
            return row
        if key in self.pending:
            return self.pending[key]
        return self._fetch(key)

    def put(self, key: bytes, row: bytes) -> None:
        size = len(row)
        before = self.young.get(key)
        if before is not None and size <= self.row_limit:
            self.overwrite(key, before, row)
            return
        self.pending[key] = row
        self._remember(key, row)
        log = self.log
        log.pending_bytes += len(key) + size
        log.changed = log.touched = log.unsettled = True

    def overwrite(self, key: bytes, before: bytes, row: bytes) -> None:
        """`put`, for who has just found `before` in the young generation."""
        size = len(row)
        if size > self.row_limit:
            self.put(key, row)
            return
        self.pending[key] = self.young[key] = row
        self.young_bytes += size - len(before)
        if self.young_bytes > self.half:
            self._rotate()
        log = self.log
        log.pending_bytes += len(key) + size
        log.changed = log.touched = log.unsettled = True

    def put_unread(self, key: bytes, row: bytes) -> None:
        """Write a row that is only read by walks, which don't use the cache: an index."""
        self.pending[key] = row
        self.log.wrote(len(key) + len(row))

    def delete(self, key: bytes) -> None:
        self._uncache(key)
        self.pending[key] = None
        self.log.wrote(len(key))

    def get_uncached(self, key: bytes) -> bytes | None:
        """The row as `get` gives it, but the cache doesn't count it as used."""
        return super().get(key)

    def cached_for(self, key: bytes) -> float:
        """Seconds since the row was certainly not in use: 0 in the young generation, the age
        of the young one for a row in the old, that of the old one for a row in neither."""
        if key in self.young:
            return 0.0
        return time.monotonic() - (self.young_since if key in self.old else self.old_since)

    @property
    def cached_rows(self) -> int:
        """Rows in the cache."""
        return len(self.young) + len(self.old)

    @property
    def cached_bytes(self) -> int:
        """About how many bytes the cache holds, Python's overhead included."""
        return self.young_bytes + self.old_bytes

    def forget_pending(self, begin: bytes, end: bytes) -> None:
        """The same, and out of the cache: if the batch fails, it must have what RocksDB has."""
        for key, _ in self._fresh(begin, end):
            self._uncache(key)
        super().forget_pending(begin, end)

    def rollback(self) -> None:
        for key in self.pending:
            self._uncache(key)
        super().rollback()

    def forget(self) -> None:
        """Empty the cache."""
        self._dropping += [rows for rows in (self.young, self.old) if rows]
        self.young, self.old = {}, {}
        self.young_bytes = self.old_bytes = 0

    def follow(self, records: list[Record], ranges: bool) -> None:
        """RocksDB took these records past this table, which has nothing pending: rows of the young
        generation are replaced, those of the old one are dropped, others are left to be read.
        `ranges`: rows of dropped ranges may be read again before they are written again."""
        for op, cf, key, row in records:
            if cf != self.cf:
                continue
            if op == DELETE_RANGE:
                if ranges:
                    self.forget()
                    return
                continue
            before = self.young.get(key)
            if before is None or op != PUT or len(row) > self.row_limit:
                self._uncache(key)
                continue
            self.young[key] = row
            self.young_bytes += len(row) - len(before)
            if self.young_bytes > self.half:
                self._rotate()

    def _remember(self, key: bytes, row: bytes) -> None:
        """Cache a row that isn't in the young generation, or is too large for it now."""
        size = len(row)
        if size > self.row_limit:
            self._uncache(key)
            return
        self.young[key] = row
        self.young_bytes += len(key) + size + ROW_OVERHEAD
        if self.young_bytes > self.half:
            self._rotate()
        elif self._dropping:
            self._drop_some()

    def _uncache(self, key: bytes) -> None:
        row = self.young.pop(key, None)
        if row is not None:
            self.young_bytes -= len(key) + len(row) + ROW_OVERHEAD
        row = self.old.pop(key, None)
        if row is not None:
            self.old_bytes -= len(key) + len(row) + ROW_OVERHEAD

    def _rotate(self) -> None:
        if self.old:
            self._dropping.append(self.old)
        self.old, self.young = self.young, {}
        self.old_bytes, self.young_bytes = self.young_bytes, 0
        self.old_since, self.young_since = self.young_since, time.monotonic()

    def free_dropped(self, most: int) -> bool:
        """Free about so many rows of generations that were dropped; whether some are left."""
        while most > 0 and self._dropping:
            self._drop_some()
            most -= 2
        return bool(self._dropping)

    def _drop_some(self) -> None:
        dropping = self._dropping[-1]
        dropping.popitem()
        if dropping:
            dropping.popitem()
        if not dropping:
            self._dropping.pop()
