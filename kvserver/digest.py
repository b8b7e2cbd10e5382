"""The digest of a data set: nodes that hold the same rows at the same position have the same one.

It must not know commands, clients, or which node is the primary. Invariants:
- A `View` is pinned at one instant in all column families, by a cursor for each, so it is exactly
  at the position that its own stamp says. Only the loop's thread writes to RocksDB, and the
  constructor runs there: nothing comes between the cursors.
- The digest covers all rows that are replicated, but for the stamp and the history, which tell who
  wrote the data and when, and not what it is. A `View` has the epoch and the replication id beside
  the digest; equal ids mean equal histories (kvserver/history.py).
- Rows are hashed in key order, each behind a header of fixed size with its column family and both
  lengths, so no two data sets give the same bytes.
- A walk gives way (yields) every few hundred rows or kilobytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Generator
from typing import Any, Final

from kvserver import history
from kvserver.codec import HISTORY_KEY, LOCAL_PREFIX, STAMP, STAMP_KEY, UNTIL, UNTIL_KEY
from kvserver.storage.commitlog import LOG
from kvserver.storage.engine import COLUMN_FAMILIES, Cursor, Engine

#: Bytes of a digest: enough that equal ones mean equal data, whatever the data.
DIGEST_BYTES: Final = 16
#: Rows and bytes between two yields: some hundred microseconds when the blocks are in memory.
STEP_ROWS: Final = 256
STEP_BYTES: Final = 1 << 18
#: Column family, length of the key, length of the row.
_HEADER: Final = struct.Struct(">BQQ")
#: Above every key: database ids and incarnations of collections never get so far.
_END: Final = b"\xff" * 9

#: What a walk returns: the digest, and the number of keys in all databases.
Digest = Generator[None, None, tuple[bytes, int]]


class View:
    """A data set as it is when this is made."""

    def __init__(self, engine: Engine) -> None:
        self._cursors = [engine.cursor(cf, _END) for cf in range(len(COLUMN_FAMILIES))]
        stamp = self._log_row(STAMP_KEY)
        eras = self._log_row(HISTORY_KEY)
        until = self._log_row(UNTIL_KEY)
        #: The last batch in it covers these positions; a batch may cover none.
        self.epoch: int
        self.first_seq: int
        self.last_seq: int
        self.epoch, self.first_seq, self.last_seq, _ = STAMP.unpack(stamp)
        #: The replication id that its last position belongs to.
        self.replid = history.decode(eras).upto(self.last_seq).current.replid
        #: Whether it is what some primary had at this position: not so after a rewind, until
        #: the frames that its rows were ahead of have come.
        self.consistent: bool = not until or UNTIL.unpack_from(until)[0] <= self.last_seq

    def _log_row(self, key: bytes) -> bytes:
        """A row of the log column family; empty if there is none."""
        cursor = self._cursors[LOG]
        cursor.seek(key)
        return cursor.value() if cursor.key() == key else b""

    def covers(self, seq: int) -> bool:
        """Whether position `seq` is in its last batch: every node's data set is this one when it
        has reached that position, since batches are the same everywhere."""
        return self.first_seq <= seq <= self.last_seq or seq == self.last_seq

    def digest(self) -> Digest:
        """The digest of its rows. Raises EngineError at a damaged one."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        keys = 0
        for cf, cursor in enumerate(self._cursors):
            cursor.seek(b"")
            while cursor.key() is not None:
                rows, parts = _gather(cf, cursor)
                if cf == 0:
                    keys += rows
                yield from _hash(digest, parts)
            cursor.check()
        return digest.digest(), keys


def _gather(cf: int, cursor: Cursor) -> tuple[int, list[bytes]]:
    """Move a cursor over the rows of a step: (how many, what is to be hashed of them)."""
    parts: list[bytes] = []
    rows = size = 0
    key = cursor.key()
    while key is not None and rows < STEP_ROWS and size < STEP_BYTES:
        if cf != LOG or not _is_own(key):
            value = cursor.value()
            parts += (_HEADER.pack(cf, len(key), len(value)), key, value)
            size += len(value)
        rows += 1
        cursor.next()
        key = cursor.key()
    return rows, parts


def _is_own(key: bytes) -> bool:
    """Whether a row of the log column family may differ between nodes with the same data."""
    return key in (STAMP_KEY, HISTORY_KEY) or key.startswith(LOCAL_PREFIX)


def _hash(digest: Any, parts: list[bytes]) -> Generator[None, None, None]:
    """Feed a step's rows to the hash; a large row in pieces."""
    if sum(map(len, parts)) <= 2 * STEP_BYTES:
        digest.update(b"".join(parts))
        yield
        return
    for part in parts:
        piece = memoryview(part)
        for start in range(0, len(part), STEP_BYTES):
            digest.update(piece[start : start + STEP_BYTES])
            yield
