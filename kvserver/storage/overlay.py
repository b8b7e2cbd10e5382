"""Uncommitted rows laid over a RocksDB cursor, as one sequence in key order or reversed.

It must not know tables, the log or what rows mean. Invariant: an uncommitted row replaces the
stored one with its key, and None hides it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Protocol

from kvserver.storage.engine import Cursor

Entry = tuple[bytes, bytes]
#: An uncommitted row; None is a deletion.
Fresh = tuple[bytes, bytes | None]


class Walk(Protocol):
    """What can be walked forwards: an engine's cursor, or one with rows laid over it."""

    def seek(self, key: bytes) -> None:
        """Go to the first entry at `key` or after it."""

    def next(self) -> None:
        """Go to the entry after this one."""

    def key(self) -> bytes | None:
        """The key of the entry that it stands at; None at the end."""

    def value(self) -> bytes:
        """The row of the entry that it stands at."""

    def check(self) -> None:
        """Raises EngineError if the walk ended because of one."""


class Overlay:
    """A cursor with uncommitted rows; `next` goes backwards when it is `reverse`."""

    __slots__ = ("_at", "_fresh", "_key", "_reverse", "_row", "_step", "_stored")

    def __init__(self, stored: Cursor, fresh: list[Fresh], reverse: bool = False) -> None:
        """`fresh` is in the walk's order, and the cursor at its beginning or not yet placed."""
        self._stored = stored
        self._step = stored.prev if reverse else stored.next
        self._reverse = reverse
        self._fresh = fresh
        self._at = 0
        self._key: bytes | None = None
        self._row: bytes | None = None

    def seek(self, key: bytes) -> None:
        """Go to the first entry at `key` or after it; only for a walk in key order."""
        self._stored.seek(key)
        self._at = bisect_left(self._fresh, (key,))
        self._settle()

    def rewind(self) -> None:
        """Go to the last entry; only for a reversed walk."""
        self._stored.seek_to_last()
        self._at = 0
        self._settle()

    def next(self) -> None:
        """Go to the entry after this one in the walk's order."""
        if self._row is None:
            self._step()
        else:
            self._at += 1
        self._settle()

    def key(self) -> bytes | None:
        """The key of the entry that it stands at; None at the end."""
        return self._key

    def value(self) -> bytes:
        """The row of the entry that it stands at."""
        return self._stored.value() if self._row is None else self._row

    def check(self) -> None:
        """Raises EngineError if the walk ended because of one."""
        self._stored.check()

    def _settle(self) -> None:
        """Stand at the nearer of the stored and the uncommitted entry."""
        stored = self._stored.key()
        self._row = None
        while self._at < len(self._fresh):
            key, row = self._fresh[self._at]
            if stored is not None and stored != key and (stored > key) == self._reverse:
                break
            if stored == key:
                self._step()
                stored = self._stored.key()
            if row is not None:
                self._key, self._row = key, row
                return
            self._at += 1
        self._key = stored


def entries(walk: Walk, lower: bytes) -> Iterator[Entry]:
    """The rest of a walk, or of a reversed one down to `lower`."""
    key = walk.key()
    while key is not None and key >= lower:
        yield key, walk.value()
        walk.next()
        key = walk.key()
    walk.check()
