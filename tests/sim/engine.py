"""A RocksDB in memory: `storage.engine.Engine`'s interface over dictionaries and a list of batches.

The log is the list of batches, encoded as RocksDB encodes them, cut into files. A `Store` is what
survives the process; a power cut takes what was neither fsynced nor flushed.
"""

from __future__ import annotations

import marshal
from bisect import bisect_left
from collections.abc import Callable, Iterator

from kvserver.codec import LOCAL_PREFIX, STAMP_KEY
from kvserver.storage.engine import EngineError, EngineStalled
from kvserver.storage.wal_batch import (
    BATCH,
    BATCH_HEADER,
    DELETE,
    DELETE_RANGE,
    PUT,
    Batch,
    Record,
    decode_records,
)

FAMILIES = 4
LOG = 3
_TAGS = {PUT: (1, 5), DELETE: (0, 4), DELETE_RANGE: (0xF, 0xE)}

Rows = list[dict[bytes, bytes]]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = [bytes([n]) for n in range(128)]


def _size(data: bytes) -> bytes:
    return _SMALL[len(data)] if len(data) < 128 else _varint(len(data))


def encode(sequence: int, records: list[Record]) -> bytes:
    """A WriteBatch."""
    parts = [BATCH.pack(sequence, len(records))]
    for op, cf, key, value in records:
        plain, with_cf = _TAGS[op]
        parts.append(bytes((with_cf, cf)) if cf else _SMALL[plain])
        parts.append(_size(key))
        parts.append(key)
        if op != DELETE:
            parts.append(_size(value))
            parts.append(value)
    return b"".join(parts)


def is_own(cf: int, key: bytes) -> bool:
    """Rows that replicas of one data set need not have in common."""
    return cf == LOG and (key == STAMP_KEY or key.startswith(LOCAL_PREFIX))


def digest_of(rows: Rows) -> int:
    """The digest of a data set, row by row."""
    digest = 0
    for cf, family in enumerate(rows):
        for key, value in family.items():
            if not is_own(cf, key):
                digest ^= hash((cf, key, value))
    return digest


class LogFile:
    """Some batches in a row: (sequence, payload)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.batches: list[tuple[int, bytes]] = []


class Store:
    """A data directory."""

    _inodes = 0

    def __init__(self) -> None:
        Store._inodes += 1
        self.inode = Store._inodes
        self.rows: Rows = [{} for _ in range(FAMILIES)]
        self.digest = 0
        self.sequence = 0
        self.files = [LogFile(1)]
        #: What data files hold, and the sequence up to which; the log is fsynced up to `synced`.
        self.flushed: Rows = [{} for _ in range(FAMILIES)]
        self.flushed_sequence = 0
        self.synced = 0

    def apply(self, records: list[Record]) -> None:
        """Change the rows."""
        digest = self.digest
        for op, cf, key, value in records:
            family = self.rows[cf]
            if op == DELETE_RANGE:
                for inside in [k for k in family if key <= k < value]:
                    digest ^= hash((cf, inside, family.pop(inside)))
                continue
            counts = cf != LOG or not is_own(cf, key)
            if counts:
                old = family.get(key)
                if old is not None:
                    digest ^= hash((cf, key, old))
            if op == PUT:
                family[key] = value
                if counts:
                    digest ^= hash((cf, key, value))
            else:
                family.pop(key, None)
        self.digest = digest

    def flush(self) -> None:
        """Memtables to files; the log goes on in a new file."""
        self.flushed = [dict(family) for family in self.rows]
        self.flushed_sequence = self.synced = self.sequence
        self.new_file()

    def new_file(self) -> None:
        """The log goes on in a new file, unless this one is empty."""
        if self.files[-1].batches:
            self.files.append(LogFile(self.files[-1].number + 1))

    def purgeable(self) -> list[int]:
        """Numbers of the files that are not being written, oldest first."""
        return [file.number for file in self.files[:-1]]

    def delete(self, number: int) -> None:
        """Delete a file of the log."""
        self.files = [file for file in self.files if file.number != number]

    def die(self) -> None:
        """kill -9 loses nothing."""

    def files_of(self) -> dict[str, bytes]:
        """The data set as files."""
        files = {
            f"{cf:06d}.sst": marshal.dumps(sorted(family.items()))
            for cf, family in enumerate(self.rows)
        }
        files["CURRENT"] = str(self.sequence).encode()
        files["LOCK"] = b""
        return files

    def become(self, files: dict[str, bytearray]) -> Store:
        """The data set that these files are; its log begins anew."""
        store = Store()
        store.rows = [dict(marshal.loads(bytes(files[f"{cf:06d}.sst"]))) for cf in range(FAMILIES)]
        store.sequence = int(files["CURRENT"])
        store.digest = digest_of(store.rows)
        store.flush()
        return store

    def power_cut(self) -> int:
        """Lose what isn't on the disk; how many batches that were."""
        lost = 0
        self.rows = [dict(family) for family in self.flushed]
        self.digest = digest_of(self.rows)
        self.sequence = self.flushed_sequence
        for file in self.files:
            kept = [batch for batch in file.batches if batch[0] <= self.synced]
            lost += len(file.batches) - len(kept)
            file.batches = kept
            for sequence, payload in kept:
                if sequence > self.flushed_sequence:
                    count = BATCH.unpack_from(payload)[1]
                    self.apply(decode_records(payload, count, BATCH_HEADER))
                    self.sequence = sequence + count - 1
        return lost


class MemoryCursor:
    """`Engine.Cursor`."""

    def __init__(self, rows: dict[bytes, bytes], upper: bytes) -> None:
        self._rows = {key: value for key, value in rows.items() if key < upper}
        self._keys = sorted(self._rows)
        self._at = -1

    def seek(self, key: bytes) -> None:
        self._at = bisect_left(self._keys, key)

    def seek_to_last(self) -> None:
        self._at = len(self._keys) - 1

    def next(self) -> None:
        self._at += 1

    def prev(self) -> None:
        self._at -= 1

    def key(self) -> bytes | None:
        return self._keys[self._at] if 0 <= self._at < len(self._keys) else None

    def value(self) -> bytes:
        return self._rows[self._keys[self._at]]

    def check(self) -> None:
        pass


class MemoryEngine:
    """`storage.engine.Engine` over a store."""

    def __init__(self, store: Store, path: str) -> None:
        self.store = store
        self.path = path
        self.stalled = False
        #: Every write fails until `reopen`.
        self.failing = False
        #: Opening it again finds only what is on the disk.
        self.loses = False
        self.closed = False
        #: Called before a write, after it, and (for steps to die at) once it is over.
        self.on_write: Callable[[str], None] = lambda _label: None
        self.max_file = 12
        self.written = 0

    # -- reads ---------------------------------------------------------------------------

    def get(self, cf: int, key: bytes) -> bytes | None:
        return self.store.rows[cf].get(key)

    def scan(
        self, cf: int, lower: bytes, upper: bytes, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        found = [(k, v) for k, v in self.store.rows[cf].items() if lower <= k < upper]
        found.sort(reverse=reverse)
        return iter(found)

    def cursor(self, cf: int, upper: bytes) -> MemoryCursor:
        return MemoryCursor(self.store.rows[cf], upper)

    # -- writes --------------------------------------------------------------------------

    def batch(self) -> list[Record]:
        return []

    def batch_fill(self, batch: list[Record], cf: int, rows: dict[bytes, bytes | None]) -> None:
        for key, row in rows.items():
            batch.append((DELETE, cf, key, b"") if row is None else (PUT, cf, key, row))

    def batch_put(self, batch: list[Record], cf: int, key: bytes, value: bytes) -> None:
        batch.append((PUT, cf, key, value))

    def batch_delete_range(self, batch: list[Record], cf: int, begin: bytes, end: bytes) -> None:
        batch.append((DELETE_RANGE, cf, begin, end))

    def batch_records(self, batch: list[Record], records: list[Record]) -> None:
        for record in records:
            if record[0] not in _TAGS:
                raise ValueError(f"operation {record[0]}")
            batch.append(record)

    def write(self, batch: list[Record]) -> None:
        self.on_write("before")
        if self.failing:
            raise EngineError("IO error: No space left on device")
        if self.stalled:
            raise EngineStalled("Result incomplete: Write stall")
        store = self.store
        sequence = store.sequence + 1
        file = store.files[-1]
        if len(file.batches) >= self.max_file:
            store.new_file()
            file = store.files[-1]
        payload = encode(sequence, batch)
        file.batches.append((sequence, payload))
        self.written += len(payload)
        store.sequence += len(batch)
        store.apply(batch)
        self.on_write("after")

    # -- upkeep --------------------------------------------------------------------------

    def sync_wal(self) -> None:
        self.store.synced = self.store.sequence

    def flush(self) -> None:
        self.store.flush()

    def reopen(self) -> None:
        if self.failing and self.loses:
            self.store.power_cut()
        self.failing = self.loses = False
        self.store.flush()

    def replace(self, store: Store) -> None:
        """Close, and open another data set that took the place of this one."""
        self.store = store
        self.failing = self.closed = False

    def close(self) -> None:
        self.closed = True

    def rocksdb_sequence(self) -> int:
        return self.store.sequence

    def stopped(self) -> bool:
        return self.stalled


__all__ = ["Batch", "MemoryEngine", "Store", "digest_of", "encode", "is_own"]
