"""All databases over one commit log: their ids and counts, whole databases, expiry, and who is told
of changes.

It must not know RESP, clients' sockets or who called; what one command sees of a database is in
kvserver/database.py. Invariants:
- `keys`, `expires` and the sum of expiry times of each database are exact and part of the
  same batch as the rows that they count.
- The expiry index holds exactly one entry for each row with an expiry, at that time, and one for
  each hash with fields that expire, not after the first of them.
- A database's id is never used again: FLUSHDB takes a new id and drops the old range. Nor is a
  collection's: it is made of the position that creates it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from kvserver import codec
from kvserver.codec import DATABASE_KEY, LAST_DATABASE, NAMESPACE_KEY, NEXT_ID_KEY
from kvserver.database import Database, Reader, Writer
from kvserver.storage.commitlog import DATA, LOG, CommitLog
from kvserver.storage.wal_batch import DELETE_RANGE, PUT, Record

#: Smaller ids are those that databases begin with, however many of them `databases` allows later.
_FIRST_FREE_ID: Final = 1 << 16
#: Collections that one position can create before it takes the next position as well. 48 bits
#: are left for the position.
_IDS_PER_POSITION: Final = 1 << 16

#: The space of a smaller database is left to RocksDB's own compactions.
RECLAIM_KEYS: Final = 1000

# Bits of `Keyspace.observed`: why changes of keys are told.
WATCHED: Final = 1
BLOCKED: Final = 2
TRACKED: Final = 4

#: Called as (database index, user key) after a key changed, while somebody observes keys.
#: `on_vanish` instead of `on_touch`: it went with its time or its database, which doesn't concern
#: those who began to watch when it was expired or missing.
TouchHook = Callable[[int, bytes], None]
#: Called as (database index, user key) after an expired key was deleted.
ExpiredHook = Callable[[int, bytes], None]
#: Called as (database index, user key, whether the key went) after fields of a hash expired.
FieldsHook = Callable[[int, bytes, bool], None]
#: Called as (database index, user key): a key was created, or a look-up didn't find it.
KeyHook = Callable[[int, bytes], None]


def _ignore(_index: int, _key: bytes) -> None:
    return None


def _nothing() -> None:
    return None


def _ignore_installed(_records: list[Record], _emptied: bool) -> None:
    return None


def _ignore_fields(_index: int, _key: bytes, _gone: bool) -> None:
    return None


class Keyspace:
    """All databases over one commit log."""

    def __init__(self, log: CommitLog, databases: int) -> None:
        self.log = log
        self.rows = log.rows
        #: Unix ms at the start of the running turn: time stands still inside a command.
        self.now = int(time.time() * 1000)
        self.may_expire = True
        #: Why changes are to be told; looked at by every write.
        self.observed = 0
        #: The (database index, user key) that transactions watch, and that commands wait for.
        self.watched: Mapping[tuple[int, bytes], object] = {}
        self.blocked: Mapping[tuple[int, bytes], object] = {}
        self.on_touch: TouchHook = _ignore
        self.on_vanish: TouchHook = _ignore
        self.on_expired: ExpiredHook = _ignore
        self.on_fields_expired: FieldsHook = _ignore_fields
        self.on_new: KeyHook = _ignore
        self.on_miss: KeyHook = _ignore
        #: Called with the records of a primary, and whether they empty a database, while TRACKED.
        self.on_installed: Callable[[list[Record], bool], None] = _ignore_installed
        self.expired_keys = 0
        self.expired_fields = 0
        #: Prefixes of emptied databases whose space on disk should be reclaimed.
        self.dropped: list[bytes] = []
        self._last_id = 0
        #: Called when the rows of namespaces may have changed otherwise than by this server.
        self.on_namespaces: Callable[[], None] = _nothing
        #: SELECT reaches so many databases. Those behind them are the namespaces', by slot; there
        #: is one for each slot that ever was in use, since this server started.
        self.numbered = databases
        self.databases = [Database(index, index) for index in range(databases)]
        self.readers = [Reader(self, db) for db in self.databases]
        self.writers = [Writer(self, db) for db in self.databases]
        log.before_commit = self._write_records
        log.after_rollback = self.load
        log.after_install = self._installed
        self.load()

    def load(self) -> None:
        """Take ids, counts and the databases of namespaces from the log."""
        stored = self.log.meta.get(NEXT_ID_KEY)
        self._next_id = max(int.from_bytes(stored or b"", "big"), _FIRST_FREE_ID)
        for db in self.databases:
            self._take_record(db)
        rows = self.log.meta.scan(NAMESPACE_KEY, codec.prefix_end(NAMESPACE_KEY))
        self.make_room(max([codec.unpack_namespace(row)[0] + 1 for _, row in rows], default=0))
        self.on_namespaces()

    def _take_record(self, db: Database) -> None:
        """Become what the log has; a database that never held a key gets the number as its id."""
        record = self.log.meta.get(db.record_key())
        db.take(*(codec.unpack_database(record) if record else (db.number, 0, 0, 0)))
        db.dirty = False

    def make_room(self, slots: int) -> None:
        """Have databases for so many namespaces."""
        for index in range(len(self.databases), self.numbered + slots):
            db = Database(index, LAST_DATABASE - (index - self.numbered))
            self._take_record(db)
            self.databases.append(db)
            self.readers.append(Reader(self, db))
            self.writers.append(Writer(self, db))

    def namespace_of(self, index: int) -> int:
        """What a session in this database has as its `namespace`: the index of a namespace's
        database, 0 for all numbered ones."""
        return index if index >= self.numbered else 0

    def observe(self, why: int, on: bool) -> None:
        """Tell of changes for this reason from now on, or no longer."""
        self.observed = self.observed | why if on else self.observed & ~why

    def _observed_keys(self, index: int) -> list[bytes]:
        """The keys of a database that somebody watches or waits for."""
        keys = {key: None for at, key in self.watched if at == index}
        keys.update((key, None) for at, key in self.blocked if at == index)
        return list(keys)

    def new_id(self) -> int:
        """An id for a collection that the running command creates."""
        log = self.log
        first = (log.last_seq + 1) * _IDS_PER_POSITION
        if not first <= self._last_id < first + _IDS_PER_POSITION:
            self._last_id = first
            return first
        self._last_id += 1
        if self._last_id == first + _IDS_PER_POSITION:
            log.last_seq += 1
        return self._last_id

    def _installed(self, records: list[Record]) -> None:
        """A primary's records came in: take its ids and counts, and tell who observes keys."""
        before = [db.id for db in self.databases] if self.observed else []
        emptied = False
        for db in self.databases:
            db.fields_at = b""  # a rewind may bring fields back that were before it
        for op, cf, key, row in records:
            if cf == LOG:
                self._take_row(op, key, row)
            elif cf == 0 and op == DELETE_RANGE:
                emptied = True
        if self.observed:
            self._tell_installed(before, emptied, records)

    def _take_row(self, op: int, key: bytes, row: bytes) -> None:
        """A row of the log column family that a primary wrote."""
        if op == PUT and key.startswith(DATABASE_KEY):
            index = self.index_of(int.from_bytes(key[1:], "big"))
            if index < len(self.databases):
                self.databases[index].take(*codec.unpack_database(row))
        elif key == NEXT_ID_KEY or key.startswith((DATABASE_KEY, NAMESPACE_KEY)):
            self.load()

    def index_of(self, number: int) -> int:
        """Where the database with a number is, if it is there: else too large an index."""
        slot = LAST_DATABASE - number
        if slot < codec.MAX_NAMESPACES:
            return self.numbered + slot
        return number if number < self.numbered else len(self.databases)

    def _tell_installed(self, before: list[int], emptied: bool, records: list[Record]) -> None:
        """Tell of watched keys, and of those that commands wait for, whose row, elements or
        database a primary changed. `before` are the databases' former ids."""
        changed = {key for _, cf, key, _ in records if cf == 0}
        changed.update(key[: codec.ELEMENT_PREFIX_LEN] for _, cf, key, _ in records if cf == DATA)
        for reader in self.readers:
            index = reader.db.index
            moved = emptied or index >= len(before) or reader.db.id != before[index]
            for key in self._observed_keys(index):
                if moved or reader.row_key(key) in changed or reader.elements(key) in changed:
                    (self.on_touch if reader.exists(key) else self.on_vanish)(index, key)
        if self.observed & TRACKED:
            self.on_installed(records, emptied)

    def _write_records(self) -> None:
        meta = self.log.meta
        for db in self.databases:
            if db.dirty:
                db.dirty = False
                meta.pending[db.record_key()] = codec.pack_database(*db.figures())

    def total_keys(self) -> int:
        """Keys in all databases."""
        return sum(db.keys for db in self.databases)

    def hits_and_misses(self) -> tuple[int, int]:
        """How many look-ups found a key, and how many didn't, since the last reset."""
        sides = [*self.readers, *self.writers]
        return sum(side.hits for side in sides), sum(side.misses for side in sides)

    def reset_counters(self) -> None:
        """Set the counters of look-ups and of expired keys back to zero."""
        self.expired_keys = self.expired_fields = 0
        self.rows.reset_counters()
        for side in (*self.readers, *self.writers):
            side.hits = side.misses = 0

    # -- whole databases ----------------------------------------------------------------

    def flush(self, db: Database) -> int:
        """Empty a database in O(1); returns how many keys it had."""
        count = db.keys
        if not count:
            self.log.note_scan()  # what emptied it may not be released yet
            return 0
        if count >= RECLAIM_KEYS:
            self.dropped.append(db.prefix)
        for key in self._observed_keys(db.index):
            self.on_vanish(db.index, key)
        end = codec.prefix_end(db.prefix)
        self.log.delete_range(self.log.rows, db.prefix, end)
        self.log.delete_range(self.log.data, db.prefix, end)
        self.log.delete_range(self.log.expiry, db.prefix, end)
        # Greater than every id, even if the row that gave one was passed over (padding).
        fresh = max([self._next_id, *[other.id + 1 for other in self.databases]])
        db.take(fresh, 0, 0, 0)
        self._next_id = fresh + 1
        self.log.sweep()
        self.log.meta.put(NEXT_ID_KEY, self._next_id.to_bytes(8, "big"))
        db.dirty = True
        return count

    def swap(self, first: int, second: int) -> None:
        """Exchange two databases' contents."""
        if first == second:
            return
        a, b = self.databases[first], self.databases[second]
        self._touch_swapped(a, b)
        self._touch_swapped(b, a)
        a_figures, b_figures = a.figures(), b.figures()
        a_floors, b_floors = a.floors(), b.floors()
        a.take(*b_figures)
        b.take(*a_figures)
        a.expiry_floor, a.fields_floor = b_floors
        b.expiry_floor, b.fields_floor = a_floors
        a.dirty = b.dirty = True
        self.log.sweep()

    def _touch_swapped(self, db: Database, other: Database) -> None:
        """Watched keys of `db`, which becomes `other`."""
        for key in self._observed_keys(db.index):
            found = self.readers[other.index].exists(key)
            (self.on_touch if found else self.on_vanish)(db.index, key)

    # -- expiry --------------------------------------------------------------------------

    def due(self, db: Database) -> Iterator[tuple[int, bytes]]:
        """(expire_ms, row key) of all that is due in the database now, oldest first."""
        if not db.expires:
            return iter(())
        lower = db.prefix + db.expiry_floor.to_bytes(8, "big")
        upper = db.prefix + (self.now + 1).to_bytes(8, "big")
        # Not a generator expression: mypyc makes a list of it, of everything that is due.
        return map(_due, self.log.expiry.scan(lower, upper))

    def due_fields(self, db: Database) -> Iterator[tuple[int, bytes]]:
        """(due_ms, row key) of all hashes with fields that may be due now, oldest first."""
        lower = codec.field_due_key(db.prefix, db.fields_floor)
        upper = codec.field_due_key(db.prefix, self.now + 1)
        return map(_fields_due, self.log.expiry.scan(lower, upper))

    def delete_expired(self, db: Database, row_key: bytes) -> None:
        """Delete a key that is past its time, and tell."""
        key = codec.user_key(row_key)
        old = self.rows.get(row_key)
        if old is not None:
            self.writers[db.index].drop(row_key, old)
            if self.observed:
                self.on_vanish(db.index, key)
            self.expired_keys += 1
            self.on_expired(db.index, key)


def _due(entry: tuple[bytes, bytes]) -> tuple[int, bytes]:
    return codec.split_expiry_key(entry[0])


def _fields_due(entry: tuple[bytes, bytes]) -> tuple[int, bytes]:
    return codec.split_field_due_key(entry[0])
