"""A bounded cache of rows, in many small dictionaries.

It must not know tables, transactions or RocksDB: who writes a row keeps it true. Invariants:
- Two generations bound it in bytes: a hit in the old one moves to the young one; when the young one
  has half the budget, it becomes the old one, and the former old one is freed two rows for each row
  that comes in (freeing a million objects at once would stop the loop for tens of milliseconds).
- A generation is SHARDS dictionaries. A dictionary that grows is copied in one go: 12 ms with
  350,000 rows in it, 190 ms with 2,800,000. So there are many, and each stays small.
- A row above `row_limit` isn't in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: What CPython spends beside the payload: two bytes objects (33 each) and a dictionary slot.
ROW_OVERHEAD: Final = 170
SHARDS: Final = 256
Shard = dict[bytes, bytes]


def _nothing(_cache: RowCache) -> None:
    return None


class RowCache:
    """Rows by key. `young` and `old` are generations: a key's row is in the shard `shard_of`.
    `byte`: which one of a key tells rows apart best, beside the last."""

    def __init__(self, byte: int) -> None:
        self._byte = byte
        self.young: list[Shard] = [{} for _ in range(SHARDS)]
        self.old: list[Shard] = [{} for _ in range(SHARDS)]
        self._dropping: list[Shard] = []
        self.young_bytes = self.old_bytes = 0
        self.young_since = self.old_since = time.monotonic()
        self.half, self.row_limit = 0, -1
        #: Called with this cache when a generation was full and the next one begins.
        self.on_rotate: Callable[[RowCache], None] = _nothing

    def resize(self, most: int, row_limit: int) -> None:
        """Bound it and its rows, in bytes (-1: not even an empty row is cached); takes effect as
        rows come in."""
        self.half = most // 2
        self.row_limit = row_limit

    def shard_of(self, key: bytes) -> int:
        """The number of a key's shard. Python's own hash would do, but takes four times as long."""
        if len(key) > self._byte:
            return key[-1] ^ key[self._byte]
        return key[-1] if key else 0

    @property
    def extent(self) -> int:
        """What it will hold, in bytes, if it goes on as before."""
        return 2 * max(self.young_bytes, self.old_bytes)

    @property
    def cached_rows(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.young)) + sum(map(len, self.old))

    @property
    def cached_bytes(self) -> int:
        """About how many bytes they are, Python's overhead included."""
        return self.young_bytes + self.old_bytes

    def find(self, key: bytes) -> bytes | None:
        """The row in either generation. It stays where it is."""
        at = self.shard_of(key)
        row = self.young[at].get(key)
        return self.old[at].get(key) if row is None else row

    def revive(self, key: bytes) -> bytes | None:
        """The row in the old generation, which moves to the young one."""
        row = self.old[self.shard_of(key)].pop(key, None)
        if row is not None:
            self.old_bytes -= len(key) + len(row) + ROW_OVERHEAD
            self.add(key, row)
        return row

    def add(self, key: bytes, row: bytes) -> None:
        """Cache a row that isn't in the young generation, or is too large for it now."""
        size = len(row)
        if size > self.row_limit:
            self.remove(key)
            return
        self.young[self.shard_of(key)][key] = row
        self.young_bytes += len(key) + size + ROW_OVERHEAD
        if self.young_bytes > self.half:
            self._rotate()
        elif self._dropping:
            self._drop_some()

    def replace(self, key: bytes, before: bytes, row: bytes) -> None:
        """Another row in the place of `before`, which is in the young generation."""
        size = len(row)
        if size > self.row_limit:
            self.remove(key)
            return
        self.young[self.shard_of(key)][key] = row
        self.young_bytes += size - len(before)
        if self.young_bytes > self.half:
            self._rotate()

    def remove(self, key: bytes) -> None:
        """Forget a row, wherever it is."""
        at = self.shard_of(key)
        row = self.young[at].pop(key, None)
        if row is not None:
            self.young_bytes -= len(key) + len(row) + ROW_OVERHEAD
        row = self.old[at].pop(key, None)
        if row is not None:
            self.old_bytes -= len(key) + len(row) + ROW_OVERHEAD

    def unused_for(self, key: bytes) -> float:
        """Seconds since the row was certainly not in use: 0 in the young generation, the age
        of the young one for a row in the old, that of the old one for a row in neither."""
        at = self.shard_of(key)
        if key in self.young[at]:
            return 0.0
        return time.monotonic() - (self.young_since if key in self.old[at] else self.old_since)

    def clear(self) -> None:
        """Empty it."""
        self.age()
        self._drop_old()

    def _drop_old(self) -> None:
        """Give up the old generation."""
        for at, rows in enumerate(self.old):
            if rows:
                self._dropping.append(rows)
                self.old[at] = {}
        self.old_bytes = 0

    def age(self) -> None:
        """Begin a young generation."""
        self._drop_old()
        self.old, self.young = self.young, self.old
        self.old_bytes, self.young_bytes = self.young_bytes, 0
        self.old_since, self.young_since = self.young_since, time.monotonic()

    def _rotate(self) -> None:
        self.age()
        self.on_rotate(self)

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


#: A row above this share of the budget would push out too much.
_LARGEST: Final = 64
#: What each of two caches has of the budget at least.
_LEAST: Final = 4


class Budget:
    """What two caches may hold together. Each has what the other leaves; whoever hasn't been full
    for as long as the other took to fill up has rows that weren't used since then."""

    def __init__(self, first: RowCache, second: RowCache) -> None:
        self.first, self.second = first, second
        self.size = 0
        first.on_rotate = second.on_rotate = self._on_rotate

    def resize(self, size: int) -> None:
        """Bound both together, in bytes."""
        self.size = size
        self._share()

    def _share(self) -> None:
        for cache, other in ((self.first, self.second), (self.second, self.first)):
            most = max(self.size - other.extent, self.size // _LEAST)
            cache.resize(most, self.size // _LARGEST or -1)

    def _on_rotate(self, cache: RowCache) -> None:
        other = self.second if cache is self.first else self.first
        if cache.extent + other.extent > self.size and other.young_since < cache.old_since:
            other.age()
        self._share()
