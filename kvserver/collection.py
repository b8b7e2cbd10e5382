"""A collection's rows: the header, which is the row of its key, and its elements.

It must not know what the elements of a type look like (kvserver/types/), RESP or clients.
Invariants:
- The header's `count` is the number of elements as Redis counts them, and part of the batch that
  changes it. A type may have more rows than elements: indices.
- Elements stand under the database's id and the collection's own, in the column family `data`.
- Nothing of a MutableCollection is in the header before `save`. A command that changed anything
  calls it once, at its end.
- A collection that is changed a second time in a turn is left open: the commands after that go on
  with what is in memory of it, and its header is encoded when it is asked for, or at the end of the
  turn. Only commands that save whatever they changed, also when they fail, go on with it
  (`Writer.opened`). A header with a time to expire isn't left open, so none expires meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kvserver import codec
from kvserver.codec import HAS_EXPIRE
from kvserver.storage.open_row import OpenRow
from kvserver.storage.overlay import Entry, Walk

if TYPE_CHECKING:
    from kvserver.database import Writer
    from kvserver.storage.table import CachedTable


class Collection:
    """A collection to be read."""

    def __init__(self, data: CachedTable, db_prefix: bytes, row: bytes) -> None:
        self.data = data
        self.row = row
        at = 9 if row[0] & HAS_EXPIRE else 1
        #: What the keys of its elements begin with.
        self.prefix = db_prefix + row[at : at + 8]
        self.count = codec.number_at(row, at + 8)
        #: What its type adds to the header.
        self.extras = row[at + 16 :]

    def get(self, sub: bytes) -> bytes | None:
        """An element's row; `sub` is the type's part of the key."""
        return self.data.get(self.prefix + sub)

    def bounds(self, lower: bytes = b"", upper: bytes | None = None) -> tuple[bytes, bytes]:
        """Whole keys for the type's parts [lower, upper); None: up to the end."""
        prefix = self.prefix
        end = codec.prefix_end(prefix) if upper is None else prefix + upper
        return prefix + lower, end

    def scan(
        self, lower: bytes = b"", upper: bytes | None = None, reverse: bool = False
    ) -> Iterator[Entry]:
        """(whole key, row) of the elements whose part of the key is in [lower, upper), in order
        or reversed: `key[ELEMENT_PREFIX_LEN:]` is that part. The view is pinned by the call."""
        begin, end = self.bounds(lower, upper)
        return self.data.scan(begin, end, reverse)

    def walk(self, lower: bytes = b"", upper: bytes | None = None) -> Walk:
        """The same in key order, for walks that jump."""
        begin, end = self.bounds(lower, upper)
        return self.data.walk(begin, end)


class MutableCollection(Collection):
    """A collection to be changed."""

    def __init__(
        self, writer: Writer, key: bytes, row_key: bytes, kind: int, row: bytes, is_new: bool
    ) -> None:
        super().__init__(writer.data, writer.db.prefix, row)
        self.writer = writer
        self.key = key
        self.row_key = row_key
        self.kind = kind
        #: There is no such key until `save`.
        self.is_new = is_new
        #: The row isn't written by `save`, but when somebody asks for it.
        self.is_open = False

    def peek(self, sub: bytes) -> bytes | None:
        """`get` for a command that goes on to write: its reply waits for the log anyway."""
        return self.data.peek(self.prefix + sub)

    def put(self, sub: bytes, row: bytes) -> None:
        """Write an element's row."""
        self.data.put(self.prefix + sub, row)

    def put_unread(self, sub: bytes, row: bytes) -> None:
        """Write a row that is only found by walks: an index."""
        self.data.put_unread(self.prefix + sub, row)

    def delete(self, sub: bytes) -> None:
        """Delete an element's row."""
        self.data.delete(self.prefix + sub)

    def delete_range(self, lower: bytes, upper: bytes | None) -> None:
        """Drop all rows whose part of the key is in [lower, upper). None of them may be read
        before the commit, unless it is written again."""
        begin, end = self.bounds(lower, upper)
        self.data.log.delete_range(self.data, begin, end)

    def save(self) -> bool:
        """Write the header; or delete the key if there is no element left (a stream stays), and
        then there must be no other row left either. Those who observe the key are told. Returns
        whether it may be left open: it was written in this turn before."""
        writer = self.writer
        if self.count == 0 and self.kind != codec.STREAM:
            if not self.is_new:
                writer.drop_emptied(self.key, self.row)
            return False
        repeated = self.row_key in writer.rows.pending
        row, before = self._header(), self.row
        if row != before or self.is_new:
            self.row = row
            if self.is_new or writer.rows.peek(self.row_key) is not before:
                self.is_new = False
                writer.put_at(self.row_key, self.key, row)
                return False
            writer.put_header(self.row_key, before, row)
        if writer.keyspace.observed:
            writer.touched(self.key)
        return repeated and not row[0] & HAS_EXPIRE

    def save_typed(self, typed: object, extras: Callable[[], bytes]) -> None:
        """`save` for a type that has what it adds to the header, `extras`, elsewhere. It is left
        open if it may be."""
        self.extras = extras()
        if self.save():
            self.leave_open(typed, extras)

    def leave_open(self, typed: object, extras: Callable[[], bytes] | None = None) -> None:
        """It is saved, and may be left open: `typed` is what a command goes on with, `extras` gives
        what the type adds to the header, if that isn't in it at all times."""
        self.is_open = True
        self.writer.rows.open(self.row_key, OpenCollection(self, typed, extras))

    def save_open(self) -> bool:
        """All that `save` is for a collection that is open and has elements; returns whether it is
        that."""
        if not self.is_open or not self.count:
            return False
        self.data.log.wrote(0)
        if self.writer.keyspace.observed:
            self.writer.touched(self.key)
        return True

    def close(self) -> None:
        """Have the header encoded if it is open."""
        if self.is_open:
            self.writer.rows.peek(self.row_key)

    def encode(self) -> bytes:
        """The header as it is now, which is no longer open."""
        self.is_open = False
        self.row = self._header()
        return self.row

    def save_quietly(self) -> None:
        """Write the header of a collection that is there, in which clients see nothing changed."""
        row = self._header()
        if self.row != row:
            self.writer.put_header(self.row_key, self.row, row)
            self.row = row

    def _header(self) -> bytes:
        """The row as it is to be: type, expiry and id stay."""
        end = 17 if self.row[0] & HAS_EXPIRE else 9
        return b"%b%b%b" % (self.row[:end], self.count.to_bytes(8, "big"), self.extras)


class OpenCollection(OpenRow):
    """The header of a collection that is left open."""

    def __init__(
        self, rows: MutableCollection, typed: object, extras: Callable[[], bytes] | None
    ) -> None:
        self.rows = rows
        self.typed = typed
        self._extras = extras

    def encode(self) -> bytes:
        if self._extras is not None:
            self.rows.extras = self._extras()
        return self.rows.encode()
