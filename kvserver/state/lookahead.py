"""Which rows commands are going to read, as far as their arguments tell: so that all of them are
fetched at once, and not one after another.

It must not know sessions or sockets. A guess is enough, since nothing depends on it but time: a row
that is missing here is found out when the command runs, one too many costs a look at a filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvserver import codec
from kvserver.codec import SET, SPARSE, STRING, TYPE_MASK
from kvserver.storage.commitlog import DATA, ROWS
from kvserver.types import hashes, sets, zsets

if TYPE_CHECKING:
    from kvserver.database import Reader
    from kvserver.state.table import Entry
    from kvserver.storage.engine import Engine

#: So many rows of keys are looked for at most.
MOST_HEADS: Final = 256
MOST_ELEMENTS: Final = 1024

#: Commands that name elements by which they are point reads: what the type's part of the row's key
#: begins with, and the first argument and the step of the arguments that follow it.
_ELEMENTS: Final[dict[str, tuple[bytes, int, int]]] = {
    **dict.fromkeys(("hget", "hexists", "hstrlen"), (hashes.FIELD, 2, 1)),
    **dict.fromkeys(("hmget", "hdel"), (hashes.FIELD, 2, 1)),
    **dict.fromkeys(("hset", "hmset", "hsetnx"), (hashes.FIELD, 2, 2)),
    **dict.fromkeys(("hincrby", "hincrbyfloat"), (hashes.FIELD, 2, 2)),
    **dict.fromkeys(("sismember", "smismember", "sadd", "srem"), (b"", 2, 1)),
    **dict.fromkeys(("zscore", "zmscore", "zrank", "zrevrank", "zrem"), (zsets.MEMBER, 2, 1)),
    # Scores and options are taken for members as well.
    "zadd": (zsets.MEMBER, 3, 1),
    "zincrby": (zsets.MEMBER, 3, 1),
    **dict.fromkeys(("geopos", "geodist", "geohash"), (zsets.MEMBER, 2, 1)),
}


class Ahead:
    """Rows to be fetched: those of keys, and elements of them."""

    def __init__(self, db: Reader) -> None:
        self._db = db
        self._prefix = db.db.prefix
        self._heads: dict[bytes, int] = {}
        #: For the row of a key (its number) the types' parts of the keys of elements.
        self._elements: list[tuple[int, list[bytes]]] = []
        #: Whole keys of elements.
        self._rows: list[bytes] = []

    def add(self, entry: Entry, args: Sequence[bytes]) -> None:
        """What a command reads."""
        numbers = [self._add_head(args[at]) for at, _ in entry.spec.find_keys(args)[:MOST_HEADS]]
        layout = _ELEMENTS.get(entry.name)
        if layout is not None and numbers:
            tag, first, step = layout
            subs = [tag + args[at] for at in range(first, len(args), step)]
            self._elements.append((numbers[0], subs[:MOST_ELEMENTS]))

    def add_row(self, cf: int, key: bytes) -> None:
        """A row, by its whole key."""
        if cf == ROWS:
            self._heads.setdefault(key, len(self._heads))
        else:
            self._rows.append(key)

    def _add_head(self, key: bytes) -> int:
        return self._heads.setdefault(self._db.row_key(key), len(self._heads))

    @property
    def full(self) -> bool:
        """Whether there is enough to be fetched at once."""
        return len(self._heads) >= MOST_HEADS or len(self._elements) >= MOST_HEADS

    @property
    def heads(self) -> list[bytes]:
        """The whole keys of the rows of keys."""
        return list(self._heads)

    def elements(self, rows: list[bytes | None]) -> list[bytes]:
        """The whole keys of the elements, given the rows of the keys."""
        keys = self._rows.copy()
        for number, subs in self._elements:
            row = rows[number]
            if row and row[0] & TYPE_MASK not in (STRING, SPARSE):
                prefix = self._prefix + codec.collection_id(row)
                if row[0] & TYPE_MASK == SET:
                    subs = sets.buckets_of(codec.collection_extras(row), subs)
                keys += [prefix + sub for sub in subs]
        return keys

    def count_cold(self) -> int:
        """How many of the rows would have to come from the disk, on the loop. Those of elements
        whose key's row isn't there aren't known."""
        rows, data = self._db.rows, self._db.data
        reads, count = rows.log.reads, 0
        found: list[bytes | None] = []
        for key in self._heads:
            row = rows.cached(key)
            if row is None and key not in rows.pending:
                may_exist, row = rows.engine.in_memory(ROWS, key)
                count += may_exist and row is None and key not in reads.warmed
            found.append(row)
        for key in self.elements(found):
            if data.cached(key) is None and key not in data.pending:
                count += reads.is_cold(DATA, key)
        return count


def fetch(engine: Engine, group: Sequence[Ahead]) -> list[set[bytes]]:
    """Read what several look for, in any thread; returns the keys of each. There are two calls of
    RocksDB and not two for each, because after each the GIL must be had again."""
    heads = [ahead.heads for ahead in group]
    rows = iter(engine.fetch(ROWS, [key for keys in heads for key in keys]))
    elements = [
        ahead.elements([next(rows) for _ in keys]) for ahead, keys in zip(group, heads, strict=True)
    ]
    wanted = [key for keys in elements for key in keys]
    if wanted:
        engine.fetch(DATA, wanted)
    return [{*first, *second} for first, second in zip(heads, elements, strict=True)]
