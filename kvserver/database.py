"""A database as a command sees it: a `Reader` without mutators, a `Writer` with them.

It must not know RESP, clients' sockets or who called. A handler without the WRITE flag gets a
Reader, so the flag is enforced and not advisory. What a collection's elements look like is in
kvserver/types/; here they are rows under a prefix.

Invariants:
- An expired key reads as missing at once, everywhere. It is deleted through the log, by this
  server when `Keyspace.may_expire` (a primary that isn't paused), and by nobody otherwise.
- Counts and expiry index change in the batch of the rows that they are about.
- A collection's elements go when its row goes or is replaced by anything but another row of the
  same collection. So nothing is left under a deleted collection.
"""

from __future__ import annotations

import random
from binascii import crc_hqx
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from kvserver import codec, errors
from kvserver.codec import (
    BRACE,
    DATABASE_KEY,
    DUE_ROW_LEN,
    ELEMENT_PREFIX_LEN,
    HAS_EXPIRE,
    SLOT_BYTES,
    TYPE_MASK,
)
from kvserver.collection import Collection, MutableCollection, OpenCollection
from kvserver.types import lists, sparse

if TYPE_CHECKING:
    from kvserver.keyspace import Keyspace

#: RANDOMKEY: how far from the beginning of a slot, and how many rows it looks at.
_RANDOM_STEPS: Final = 64
_RANDOM_ROWS: Final = 1000
#: A collection with more rows is dropped as a range: RocksDB looks at every range that isn't
#: compacted yet in each look-up, and at single deletions only where they are.
_SINGLE_DELETIONS: Final = 256


class Database:
    """One of the databases: the id that its rows carry now, and its counts. `index` is where it
    stands in `Keyspace.databases`, `number` what the log calls it."""

    __slots__ = (
        "dirty",
        "expire_sum",
        "expires",
        "expiry_floor",
        "fields_at",
        "fields_floor",
        "id",
        "index",
        "keys",
        "number",
        "prefix",
    )

    def __init__(self, index: int, number: int) -> None:
        self.index = index
        self.number = number
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
        #: The same for the hashes with fields that expire.
        self.fields_floor = 0
        #: Before this key of an element there are no fields left that were due when it was.
        self.fields_at = b""

    def figures(self) -> tuple[int, int, int, int]:
        """(id, keys, expires, sum of expire_ms), as `take` takes them."""
        return self.id, self.keys, self.expires, self.expire_sum

    def floors(self) -> tuple[int, int]:
        """(expiry_floor, fields_floor)."""
        return self.expiry_floor, self.fields_floor

    def record_key(self) -> bytes:
        """Where the log column family keeps its record."""
        return DATABASE_KEY + self.number.to_bytes(2, "big")


class Reader:
    """A database as a read-only command sees it."""

    def __init__(self, keyspace: Keyspace, db: Database) -> None:
        self.keyspace = keyspace
        self.db = db
        self.rows = keyspace.log.rows
        self.data = keyspace.log.data
        self.hits = 0
        self.misses = 0

    def row_key(self, key: bytes) -> bytes:
        """The key of the row."""
        if BRACE in key:
            return b"%b%b%b" % (self.db.prefix, SLOT_BYTES[codec.slot_of(key)], key)
        return b"%b%b%b" % (self.db.prefix, SLOT_BYTES[crc_hqx(key, 0) & 0x3FFF], key)

    def row(self, key: bytes) -> bytes | None:
        """The row, or None when there is no such key or it expired."""
        row_key = self.row_key(key)
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
        return None if row is None else self.string_of(row)

    def string_of(self, row: bytes) -> bytes:
        """The value of a string's row; WRONGTYPE for any other type."""
        kind = row[0]
        if kind == codec.STRING:
            return row[1:]
        kind &= TYPE_MASK
        if kind == codec.STRING:
            return row[9:]
        if kind == codec.SPARSE:
            return sparse.join(Collection(self.data, self.db.prefix, row))
        raise errors.wrong_type()

    def string_row(self, key: bytes) -> bytes | None:
        """A string's row: for commands that need less than the whole value, which may be large,
        and may be in fragments. See `sparse.Text`."""
        row = self.row(key)
        if row is not None and not codec.is_string(row):
            raise errors.wrong_type()
        return row

    def collection(self, key: bytes, kind: int) -> Collection | None:
        """A collection to be read, or None; WRONGTYPE for any other type."""
        row = self.row(key)
        if row is None:
            return None
        if row[0] & TYPE_MASK != kind:
            raise errors.wrong_type()
        return Collection(self.data, self.db.prefix, row)

    def kind(self, key: bytes) -> int:
        """The type of a key, or MISSING. Counts nothing and deletes nothing."""
        row = self.rows.get(self.row_key(key))
        return codec.MISSING if row is None or self.expired(row) else row[0] & TYPE_MASK

    def elements(self, key: bytes) -> bytes | None:
        """What the keys of a collection's elements begin with; None for a string or no key at all.
        Counts nothing."""
        row = self.rows.get(self.row_key(key))
        if row is None or row[0] & TYPE_MASK == codec.STRING:
            return None
        return self.db.prefix + codec.collection_id(row)

    def look(self, key: bytes) -> tuple[bytes | None, float]:
        """(row, seconds since it was used as far as the cache knows), without using it: for
        OBJECT. Counts nothing, and tells nobody of a miss."""
        row_key = self.row_key(key)
        row = self.rows.get_uncached(row_key)
        idle = self.rows.cache.unused_for(row_key)
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
        return self.current_at(self.row_key(key))

    def current_at(self, row_key: bytes) -> bytes | None:
        """`current` for who knows the key of the row."""
        row = self.rows.get(row_key)
        if row is None or not (row[0] & HAS_EXPIRE and self.expired(row)):
            return row
        if self.keyspace.may_expire:
            self.keyspace.delete_expired(self.db, row_key)
        return None

    def current_string(self, key: bytes) -> tuple[bytes | None, int]:
        """(value, expire_ms) of a string to be changed, (None, 0) if there is none; WRONGTYPE
        for any other type."""
        row = self.current(key)
        return (None, 0) if row is None else (self.string_of(row), codec.row_expire(row))

    def current_string_row(self, key: bytes) -> bytes | None:
        """The row of a string to be changed in part (`sparse.Edit`); WRONGTYPE for any other
        type."""
        row = self.current(key)
        if row is not None and not codec.is_string(row):
            raise errors.wrong_type()
        return row

    def mutable(self, key: bytes, kind: int) -> MutableCollection | None:
        """A collection to be changed, or None; WRONGTYPE for any other type."""
        row_key = self.row_key(key)
        row = self.current_at(row_key)
        if row is None:
            return None
        if row[0] & TYPE_MASK != kind:
            raise errors.wrong_type()
        return MutableCollection(self, key, row_key, kind, row, False)

    def opened(self, key: bytes, kind: int) -> object | None:
        """What a command before this one made of a collection and left open, to go on with; None:
        see `mutable`. For commands that save whatever they changed, also when they fail."""
        opened, log = self.rows.opened, self.keyspace.log
        if not opened or log.reads.slow:  # then a command may be set aside in the middle
            return None
        found = opened.get(self.row_key(key))
        if found is None:
            return None
        assert isinstance(found, OpenCollection)
        if found.rows.kind != kind:
            raise errors.wrong_type()
        log.touched = True
        return found.typed

    def mutable_or_new(self, key: bytes, kind: int) -> MutableCollection:
        """The same; a new one if there is no such key."""
        rows = self.mutable(key, kind)
        return self.new(key, kind) if rows is None else rows

    def new(self, key: bytes, kind: int, expire_ms: int = 0) -> MutableCollection:
        """A new, empty collection. Its `save` replaces what is there under that key."""
        row = codec.collection_row(kind, expire_ms, self.keyspace.new_id(), 0)
        return MutableCollection(self, key, self.row_key(key), kind, row, True)

    def put(self, key: bytes, row: bytes) -> None:
        """Create or replace a row, whatever it was; keeps counts and indices. The elements of a
        collection go, unless the row is another of the same collection."""
        self.put_at(self.row_key(key), key, row)

    def put_at(self, row_key: bytes, key: bytes, row: bytes) -> None:
        """`put` for who knows the key of the row."""
        old = self.rows.young(row_key)
        if old is not None and not old[0] | row[0]:
            self.rows.overwrite(row_key, old, row)  # a plain string's: the hot path
        else:
            self._put_over(self.rows.peek(row_key), row_key, key, row)
        if self.keyspace.observed:
            self.touched(key)

    def _put_over(self, old: bytes | None, row_key: bytes, key: bytes, row: bytes) -> None:
        if old is None:
            db = self.db
            db.keys += 1
            db.dirty = True
            if row[0]:
                self._index_row(row_key, row)
            self.keyspace.on_new(db.index, key)
        elif old[0] | row[0]:
            self._replace(row_key, old, row)
        self.rows.put(row_key, row)

    def put_header(self, row_key: bytes, old: bytes, row: bytes) -> None:
        """Write the row of a collection anew, and tell nobody: its expiry is the same."""
        if len(old) >= DUE_ROW_LEN or len(row) >= DUE_ROW_LEN:
            self._index_fields(row_key, codec.field_due(old), codec.field_due(row))
        self.rows.put(row_key, row)

    def _replace(self, row_key: bytes, old: bytes, row: bytes) -> None:
        """A row that isn't a plain string's takes the place of another, or one of another's."""
        if self.expired(old):
            self.keyspace.delete_expired(self.db, row_key)
            self.db.keys += 1
            self._index_row(row_key, row)
            self.keyspace.on_new(self.db.index, codec.user_key(row_key))
            return
        self._index(row_key, codec.row_expire(old), codec.row_expire(row))
        self._index_fields(row_key, codec.field_due(old), codec.field_due(row))
        if old[0] & TYPE_MASK != codec.STRING and (
            row[0] & TYPE_MASK == codec.STRING
            or codec.collection_id(old) != codec.collection_id(row)
        ):
            self._drop_elements(old)

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

    def discard(self, key: bytes) -> bool:
        """Delete the key even if it is past its time; returns whether there was one (dbDelete)."""
        row_key = self.row_key(key)
        row = self.rows.peek(row_key)
        if row is None:
            return False
        self.remove(row_key, row, key)
        return True

    def remove(self, row_key: bytes, old: bytes, key: bytes) -> None:
        """Delete a row that is there."""
        self.drop(row_key, old)
        if self.keyspace.observed:
            self.touched(key)

    def drop(self, row_key: bytes, old: bytes) -> None:
        """Delete a row that is there, and tell nobody."""
        self._drop_row(row_key, old)
        if old[0] & TYPE_MASK != codec.STRING:
            self._drop_elements(old)

    def drop_emptied(self, key: bytes, old: bytes) -> None:
        """Delete the row of a collection that has no elements left, nor any other row."""
        self._drop_row(self.row_key(key), old)
        if self.keyspace.observed:
            self.touched(key)

    def _drop_row(self, row_key: bytes, old: bytes) -> None:
        self.db.keys -= 1
        self.db.dirty = True
        if old[0]:
            self._index(row_key, codec.row_expire(old), 0)
            self._index_fields(row_key, codec.field_due(old), 0)
        self.rows.delete(row_key)

    def _drop_elements(self, row: bytes) -> None:
        """Drop all rows of a collection."""
        data = self.data
        prefix = self.db.prefix + codec.collection_id(row)
        end = codec.prefix_end(prefix)
        rows = codec.collection_count(row)
        if row[0] & TYPE_MASK == codec.SPARSE:
            rows = sparse.fragment_count(row)
        if rows <= _SINGLE_DELETIONS:
            if row[0] & TYPE_MASK == codec.LIST:
                elements = lists.all_keys(Collection(data, self.db.prefix, row))
                keys = list(islice(elements, _SINGLE_DELETIONS + 1))
            else:
                found = data.scan(prefix, end)
                keys = [key for key, _ in islice(found, _SINGLE_DELETIONS + 1)]
            if len(keys) <= _SINGLE_DELETIONS:
                for key in keys:
                    data.delete(key)
                return
        self.keyspace.log.delete_range(data, prefix, end)

    def rename(self, key: bytes, new_key: bytes, row: bytes) -> None:
        """Move a row that is there to another key, which isn't. A collection's elements stay."""
        self.put(new_key, row)
        self._drop_row(self.row_key(key), row)
        if self.keyspace.observed:
            self.touched(key)

    def put_copy(self, key: bytes, row: bytes, source: Reader) -> None:
        """Create a key, which isn't there, as a copy of a row of `source`, elements included."""
        if row[0] & TYPE_MASK != codec.STRING:
            new_id = self.keyspace.new_id()
            self._copy_elements(source.db.prefix + codec.collection_id(row), new_id)
            at = codec.value_offset(row)
            row = row[:at] + new_id.to_bytes(8, "big") + row[at + 8 :]
        self.put(key, row)

    def _copy_elements(self, prefix: bytes, new_id: int) -> None:
        data, pending = self.data, self.data.pending
        new_prefix = self.db.prefix + new_id.to_bytes(8, "big")
        dropped = self.keyspace.log.dropped_within(data, prefix)
        for element, row in data.scan(prefix, codec.prefix_end(prefix)):
            # Of a range that this batch drops the stored rows still show.
            if element not in pending and any(begin <= element < end for begin, end in dropped):
                continue
            data.put_unread(new_prefix + element[ELEMENT_PREFIX_LEN:], row)

    def touched(self, key: bytes) -> None:
        """The key changed: those who watch it, wait for it or keep a copy of it are told."""
        self.keyspace.on_touch(self.db.index, key)

    def _index_row(self, row_key: bytes, row: bytes) -> None:
        """Enter a new row into the indices."""
        self._index(row_key, 0, codec.row_expire(row))
        self._index_fields(row_key, 0, codec.field_due(row))

    def _index_fields(self, row_key: bytes, before: int, after: int) -> None:
        """Move the entry of a hash with fields that expire; 0: none does."""
        if before == after:
            return
        expiry = self.keyspace.log.expiry
        if before:
            expiry.delete(codec.field_due_key(row_key, before))
        if after:
            expiry.put(codec.field_due_key(row_key, after), b"")
            if after < self.db.fields_floor:
                self.db.fields_floor = after
        # Its record goes with it: a replica drops the floor that it has from another time.
        self.db.dirty = True

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
