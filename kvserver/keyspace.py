"""Databases of keys: what a command reads and writes, with expiry, counts and watches.

It must not know RESP, clients' sockets or who called. A `Reader` is a database without
mutators, a `Writer` one with them: a handler without the WRITE flag gets a Reader, so the
flag is enforced and not advisory.

Invariants:
- An expired key reads as missing at once, everywhere. It is deleted through the log, by this
  server when `may_expire` (a primary that isn't paused), and by nobody otherwise.
- `keys`, `expires` and the sum of expiry times of each database are exact and part of the
  same batch as the rows that they count.
- The expiry index holds exactly one entry for each row with an expiry, at that time.
- A database's id is never used again: FLUSHDB takes a new id and drops the old range.
"""

from __future__ import annotations

import random
import time
from binascii import crc_hqx
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Final

from kvserver import codec, errors
from kvserver.codec import (
    BRACE,
    DATABASE_KEY,
    HAS_EXPIRE,
    NEXT_ID_KEY,
    SLOT_BYTES,
    TYPE_MASK,
)
from kvserver.storage.commitlog import LOG, CommitLog
from kvserver.storage.wal_batch import DELETE_RANGE, PUT, Record

#: Smaller ids are those that databases begin with, however many of them `databases` allows later.
_FIRST_FREE_ID: Final = 1 << 16
#: RANDOMKEY: how far from the beginning of a slot, and how many rows it looks at.
_RANDOM_STEPS: Final = 64
_RANDOM_ROWS: Final = 1000

#: The space of a smaller database is left to RocksDB's own compactions.
RECLAIM_KEYS: Final = 1000

#: Called as (database index, user key) after a key changed, while somebody watches. `on_vanish`
#: instead of `on_touch`: it went with its time or its database, which doesn't concern those who
#: began to watch when it was expired or missing.
TouchHook = Callable[[int, bytes], None]
#: Called as (database index, user key) after an expired key was deleted.
ExpiredHook = Callable[[int, bytes], None]
#: Called as (database index, user key): a key was created, or a look-up didn't find it.
KeyHook = Callable[[int, bytes], None]


def _ignore(_index: int, _key: bytes) -> None:
    return None


class Database:
    """One of the numbered databases: the id that its rows carry now, and its counts."""

    __slots__ = (
        "dirty",
        "expire_sum",
        "expires",
        "expiry_floor",
        "id",
        "index",
        "keys",
        "prefix",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.dirty = False
        self.take(0, 0, 0, 0)

    def take(self, db_id: int, keys: int, expires: int, expire_sum: int) -> None:
        """Become the database with this id and these counts."""
        self.id = db_id
        self.prefix = codec.db_prefix(db_id)
        self.keys = keys
        self.expires = expires
        self.expire_sum = expire_sum
        #: No entry of the expiry index is older (unix ms): whoever looks for what is due starts
        #: here, and not among the deleted entries that RocksDB would have to step over.
        self.expiry_floor = 0

    def figures(self) -> tuple[int, int, int, int]:
        """(id, keys, expires, sum of expire_ms), as `take` takes them."""
        return self.id, self.keys, self.expires, self.expire_sum

    def record_key(self) -> bytes:
        """Where the log column family keeps its record."""
        return DATABASE_KEY + self.index.to_bytes(2, "big")


class Keyspace:
    """All databases over one commit log."""

    def __init__(self, log: CommitLog, databases: int) -> None:
        self.log = log
        self.rows = log.rows
        #: Unix ms at the start of the running turn: time stands still inside a command.
        self.now = int(time.time() * 1000)
        self.may_expire = True
        #: The (database index, user key) that somebody watches; looked at by every write.
        self.watched: Mapping[tuple[int, bytes], object] = {}
        self.on_touch: TouchHook = _ignore
        self.on_vanish: TouchHook = _ignore
        self.on_expired: ExpiredHook = _ignore
        self.on_new: KeyHook = _ignore
        self.on_miss: KeyHook = _ignore
        self.expired_keys = 0
        #: Prefixes of emptied databases whose space on disk should be reclaimed.
        self.dropped: list[bytes] = []
        self.databases = [Database(index) for index in range(databases)]
        self.readers = [Reader(self, db) for db in self.databases]
        self.writers = [Writer(self, db) for db in self.databases]
        log.before_commit = self._write_records
        log.after_rollback = self.load
        log.after_install = self._installed
        self.load()

    def load(self) -> None:
        """Take ids and counts from the log; databases that never held a key get fresh ids."""
        stored = self.log.meta.get(NEXT_ID_KEY)
        self._next_id = max(int.from_bytes(stored or b"", "big"), _FIRST_FREE_ID)
        for db in self.databases:
            record = self.log.meta.get(db.record_key())
            db.take(*(codec.unpack_database(record) if record else (db.index, 0, 0, 0)))
            db.dirty = False

    def _installed(self, records: list[Record]) -> None:
        """A primary's records came in: take its ids and counts, and tell who watches."""
        before = [db.id for db in self.databases] if self.watched else []
        emptied = False
        for op, cf, key, row in records:
            if cf == LOG:
                self._take_row(op, key, row)
            elif cf == 0 and op == DELETE_RANGE:
                emptied = True
        if self.watched:
            self._touch_installed(before, emptied, records)

    def _take_row(self, op: int, key: bytes, row: bytes) -> None:
        """A row of the log column family that a primary wrote."""
        if op == PUT and key.startswith(DATABASE_KEY):
            index = int.from_bytes(key[1:], "big")
            if index < len(self.databases):
                self.databases[index].take(*codec.unpack_database(row))
        elif key.startswith(DATABASE_KEY) or key == NEXT_ID_KEY:
            self.load()

    def _touch_installed(self, before: list[int], emptied: bool, records: list[Record]) -> None:
        """Watched keys whose rows a primary changed, or whose database: `before` are the ids."""
        changed = {key for _, cf, key, _ in records if cf == 0}
        for index, key in list(self.watched):
            reader = self.readers[index]
            moved = emptied or reader.db.id != before[index]
            if moved or reader.row_key(key) in changed:
                (self.on_touch if reader.exists(key) else self.on_vanish)(index, key)

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
        self.expired_keys = 0
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
        for index, key in list(self.watched):
            if index == db.index:
                self.on_vanish(index, key)
        end = codec.prefix_end(db.prefix)
        self.log.delete_range(self.log.rows, db.prefix, end)
        if db.expires:
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
        a_floor, b_floor = a.expiry_floor, b.expiry_floor
        a.take(*b_figures)
        b.take(*a_figures)
        a.expiry_floor, b.expiry_floor = b_floor, a_floor
        a.dirty = b.dirty = True
        self.log.sweep()

    def _touch_swapped(self, db: Database, other: Database) -> None:
        """Watched keys of `db`, which becomes `other`."""
        for index, key in list(self.watched):
            if index == db.index:
                found = self.readers[other.index].exists(key)
                (self.on_touch if found else self.on_vanish)(index, key)

    # -- expiry --------------------------------------------------------------------------

    def due(self, db: Database) -> Iterator[tuple[int, bytes]]:
        """(expire_ms, row key) of all that is due in the database now, oldest first."""
        if not db.expires:
            return iter(())
        lower = db.prefix + db.expiry_floor.to_bytes(8, "big")
        upper = db.prefix + (self.now + 1).to_bytes(8, "big")
        # Not a generator expression: mypyc makes a list of it, of everything that is due.
        return map(_due, self.log.expiry.scan(lower, upper))

    def delete_expired(self, db: Database, row_key: bytes) -> None:
        """Delete a key that is past its time, and tell."""
        key = codec.user_key(row_key)
        old = self.rows.get(row_key)
        if old is not None:
            self.writers[db.index].drop(row_key, old)
            if (db.index, key) in self.watched:
                self.on_vanish(db.index, key)
            self.expired_keys += 1
            self.on_expired(db.index, key)


def _due(entry: tuple[bytes, bytes]) -> tuple[int, bytes]:
    return codec.split_expiry_key(entry[0])


def string_value(row: bytes) -> bytes:
    """The value of a string's row; WRONGTYPE for any other type."""
    kind = row[0]
    if kind == codec.STRING:
        return row[1:]
    if kind & TYPE_MASK == codec.STRING:
        return row[9:]
    raise errors.wrong_type()


class Reader:
    """A database as a read-only command sees it."""

    def __init__(self, keyspace: Keyspace, db: Database) -> None:
        self.keyspace = keyspace
        self.db = db
        self.rows = keyspace.rows
        self.hits = 0
        self.misses = 0

    def row_key(self, key: bytes) -> bytes:
        """The key of the row."""
        if BRACE in key:
            return self.db.prefix + SLOT_BYTES[codec.slot_of(key)] + key
        return self.db.prefix + SLOT_BYTES[crc_hqx(key, 0) & 0x3FFF] + key

    def row(self, key: bytes) -> bytes | None:
        """The row, or None when there is no such key or it expired."""
        if BRACE in key:
            row_key = self.db.prefix + SLOT_BYTES[codec.slot_of(key)] + key
        else:
            row_key = self.db.prefix + SLOT_BYTES[crc_hqx(key, 0) & 0x3FFF] + key
        row = self.rows.get(row_key)
        if row is None:
            self._missed(key)
            return None
        if row[0] & HAS_EXPIRE and codec.row_expire(row) <= self.keyspace.now:
            if self.keyspace.may_expire:
                self.keyspace.delete_expired(self.db, row_key)
            self._missed(key)
            return None
        self.hits += 1
        return row

    def _missed(self, key: bytes) -> None:
        self.misses += 1
        self.keyspace.on_miss(self.db.index, key)

    def string(self, key: bytes) -> bytes | None:
        """A string's value, or None; WRONGTYPE for any other type."""
        row = self.row(key)
        return None if row is None else string_value(row)

    def string_row(self, key: bytes) -> bytes | None:
        """The same with the row: for commands that need less than the whole value, which may
        be large. See `codec.value_offset`."""
        row = self.row(key)
        if row is not None and row[0] & TYPE_MASK != codec.STRING:
            raise errors.wrong_type()
        return row

    def look(self, key: bytes) -> tuple[bytes | None, float]:
        """(row, seconds since it was used as far as the cache knows), without using it: for
        OBJECT. Counts nothing, and tells nobody of a miss."""
        row_key = self.row_key(key)
        idle = self.rows.cached_for(row_key)
        row = self.rows.get_uncached(row_key)
        if row is not None and self.expired(row):
            if self.keyspace.may_expire:
                self.keyspace.delete_expired(self.db, row_key)
            row = None
        return row, idle

    def exists(self, key: bytes) -> bool:
        """Whether the key exists. Deletes nothing and counts nothing."""
        row = self.rows.get(self.row_key(key))
        return row is not None and not self.expired(row)

    def expired(self, row: bytes) -> bool:
        """Whether a row is past its time."""
        return row[0] & HAS_EXPIRE != 0 and codec.row_expire(row) <= self.keyspace.now

    def bounds(self) -> tuple[bytes, bytes]:
        """The database's row keys are those of [lower, upper)."""
        return self.db.prefix, codec.prefix_end(self.db.prefix)

    def size(self) -> int:
        """Keys in the database, those expired but not yet deleted included, as in Redis."""
        self.keyspace.log.note_scan()
        return self.db.keys

    def random_key(self) -> bytes | None:
        """A key some steps after the beginning of a random slot; None if there is none within
        _RANDOM_ROWS rows. Not uniform: where slots differ in size, those of small ones come up
        more often. Deletes the expired keys on its way, as Redis does."""
        if not self.size():
            return None
        lower, upper = self.bounds()
        place = lower + SLOT_BYTES[random.randrange(codec.SLOTS)]
        steps = random.randrange(min(2 * self.db.keys // codec.SLOTS + 1, _RANDOM_STEPS))
        walk = chain(self.rows.scan(place, upper), self.rows.scan(lower, place))
        found = None
        for row_key, row in islice(walk, _RANDOM_ROWS):
            if not self.expired(row):
                found = row_key
                if not steps:
                    break
                steps -= 1
            elif self.keyspace.may_expire:
                self.keyspace.delete_expired(self.db, row_key)
        return None if found is None else codec.user_key(found)


class Writer(Reader):
    """A database as a write command sees it."""

    def current(self, key: bytes) -> bytes | None:
        """The row as `row` gives it, for a command that looks before it writes: INFO doesn't
        count that as a hit or miss, and nobody is told of a miss (db.c, lookupKeyWrite)."""
        row_key = self.row_key(key)
        row = self.rows.get(row_key)
        if row is None or not self.expired(row):
            return row
        if self.keyspace.may_expire:
            self.keyspace.delete_expired(self.db, row_key)
        return None

    def current_string(self, key: bytes) -> tuple[bytes | None, int]:
        """(value, expire_ms) of a string to be changed, (None, 0) if there is none; WRONGTYPE
        for any other type."""
        row = self.current(key)
        return (None, 0) if row is None else (string_value(row), codec.row_expire(row))

    def put(self, key: bytes, row: bytes) -> None:
        """Create or replace a row, whatever it was; keeps counts and the expiry index."""
        db = self.db
        if BRACE in key:
            row_key = db.prefix + SLOT_BYTES[codec.slot_of(key)] + key
        else:
            row_key = db.prefix + SLOT_BYTES[crc_hqx(key, 0) & 0x3FFF] + key
        old = self.rows.peek(row_key)
        if old is None:
            db.keys += 1
            db.dirty = True
            if row[0] & HAS_EXPIRE:
                self._index(row_key, 0, codec.row_expire(row))
            self.keyspace.on_new(db.index, key)
        elif (old[0] | row[0]) & HAS_EXPIRE:
            self._replace_expiring(row_key, old, row)
        self.rows.put(row_key, row)
        if self.keyspace.watched:
            self.touched(key)

    def _replace_expiring(self, row_key: bytes, old: bytes, row: bytes) -> None:
        if self.expired(old):
            self.keyspace.delete_expired(self.db, row_key)
            self.db.keys += 1
            self._index(row_key, 0, codec.row_expire(row))
            self.keyspace.on_new(self.db.index, codec.user_key(row_key))
        else:
            self._index(row_key, codec.row_expire(old), codec.row_expire(row))

    def put_string(self, key: bytes, value: bytes, expire_ms: int = 0) -> None:
        """Create or replace with a string; `expire_ms` 0: no expiry."""
        self.put(key, codec.string_row(value, expire_ms))

    def delete(self, key: bytes) -> bool:
        """Delete the key; returns whether there was one (that had not expired)."""
        row = self.current(key)
        if row is None:
            return False
        self.remove(self.row_key(key), row, key)
        return True

    def remove(self, row_key: bytes, old: bytes, key: bytes) -> None:
        """Delete a row that is there."""
        self.drop(row_key, old)
        if self.keyspace.watched:
            self.touched(key)

    def drop(self, row_key: bytes, old: bytes) -> None:
        """Delete a row that is there, and tell nobody."""
        self.db.keys -= 1
        self.db.dirty = True
        if old[0] & HAS_EXPIRE:
            self._index(row_key, codec.row_expire(old), 0)
        self.rows.delete(row_key)

    def touched(self, key: bytes) -> None:
        """The key changed: transactions that watch it fail."""
        if (self.db.index, key) in self.keyspace.watched:
            self.keyspace.on_touch(self.db.index, key)

    def _index(self, row_key: bytes, before: int, after: int) -> None:
        """Move a row's entry in the expiry index; 0: no expiry."""
        if before == after:
            return
        db, expiry = self.db, self.keyspace.log.expiry
        if before:
            expiry.delete(codec.expiry_key(row_key, before))
            db.expires -= 1
            db.expire_sum -= before
        if after:
            expiry.put(codec.expiry_key(row_key, after), b"")
            db.expires += 1
            db.expire_sum += after
            if after < db.expiry_floor:
                db.expiry_floor = after
        db.dirty = True
