"""What a rewind writes: pieces of bounded size, between which the event loop is free.

It must not know links. Each piece is a batch with the stamp of the fork, whose first position is
after its last, and with the row `~u`: so no reader of the log takes it for a frame.
Invariants:
- Positions go back with the first piece, and every piece but the last says that the rewind isn't
  finished (row `~u`, UNFINISHED). So whatever ends it half-way leaves a data set that is nobody's
  equal: it serves no reads and no replicas, isn't promoted, and asks its next primary for a rewind,
  which begins to read where this one did, or a full sync. It may not go on by padding.
- Ranges are dropped before rows are put: those may be in them.
- The history of the primary and what tells of padding come with the last piece.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from kvserver import codec
from kvserver.replication.consistency import UNFINISHED, until_row
from kvserver.storage.commitlog import LOG
from kvserver.storage.positions import MAX_REWINDS, Touched, pack_rewinds, unpack_rewinds
from kvserver.storage.wal_batch import DELETE, DELETE_RANGE, PUT, Record

if TYPE_CHECKING:
    from kvserver.replication.node import Node

#: Records of a piece, and bytes of them: two milliseconds.
PIECE_RECORDS: Final = 500
PIECE_BYTES: Final = 1 << 18

Rows = list[dict[bytes, bytes]]


class TakenBack:
    """The pieces of one rewind."""

    def __init__(
        self, node: Node, touched: Touched, rows: Rows, fork: int, until: int, start: int
    ) -> None:
        self._node = node
        self._fork = fork
        self._start = start
        self._epoch = node.log.history.epoch_at(fork)
        self._aim = rows[LOG][codec.HISTORY_KEY]
        self._until = until
        self._records = _all_but_last(touched, rows)
        self._end = list(_last(touched, rows))
        self._begun = False
        #: The piece to be written next.
        self._piece = self._cut()

    def write(self) -> bool:
        """Write the next piece; whether it was the last. Raises EngineError, and EngineStalled:
        then this may be called again."""
        node, log = self._node, self._node.log
        piece, following = self._piece
        lost = log.committed_seq - self._fork
        if not self._begun:
            node.leave_position()
        log.install([*piece, *self._notes(is_last=following is None), self._stamp()])
        if not self._begun:
            self._begun = True
            node.went_back(lost)
        elif following is None:
            node.rewound()
        if following is None:
            return True
        self._piece = self._cut(following)
        return False

    def _cut(self, first: Record | None = None) -> tuple[list[Record], Record | None]:
        """The records of a piece, and the first one of the next; None: this is the last."""
        piece: list[Record] = []
        size = 0
        for record in self._records if first is None else chain((first,), self._records):
            if len(piece) >= PIECE_RECORDS or size >= PIECE_BYTES:
                return piece, record
            piece.append(record)
            size += len(record[2]) + len(record[3])
        return piece, None

    def _notes(self, is_last: bool) -> list[Record]:
        """What the node notes of the rewind with this piece."""
        notes: list[Record] = []
        log = self._node.log
        if not self._begun:
            rewinds = unpack_rewinds(log.meta.get(codec.REWINDS_KEY) or b"")
            rewinds.append((log.engine.rocksdb_sequence() + 1, self._fork))
            packed = pack_rewinds(rewinds[-MAX_REWINDS:])
            notes.append((PUT, LOG, codec.REWINDS_KEY, packed))
        if is_last:
            note = until_row(self._until, self._start, self._aim)
            return [*self._end, *notes, (PUT, LOG, codec.UNTIL_KEY, note)]
        # The epoch may be another one, and so the history is told.
        notes.append((PUT, LOG, codec.HISTORY_KEY, log.history.encode()))
        notes.append((PUT, LOG, codec.UNTIL_KEY, until_row(UNFINISHED, self._start, b"")))
        return notes

    def _stamp(self) -> Record:
        return stamp(self._epoch, self._fork + 1, self._fork)


def stamp(epoch: int, first: int, last: int) -> Record:
    """The stamp of a batch that no command wrote."""
    now = time.time_ns() // 1_000_000
    return PUT, LOG, codec.STAMP_KEY, codec.STAMP.pack(epoch, first, last, now)


#: What is written with the last piece.
_LAST: Final = (codec.HISTORY_KEY, codec.PADDED_KEY)


def _all_but_last(touched: Touched, rows: Rows) -> Iterator[Record]:
    """What was touched, as the primary has it. It is consumed: to free it at once takes long."""
    for cf, begin, end in touched.ranges:
        yield DELETE_RANGE, cf, begin, end
    for cf, (keys, theirs) in enumerate(zip(touched.keys, rows, strict=True)):
        while keys:
            key, _ = keys.popitem()
            row = theirs.pop(key, None)
            if cf != LOG or key not in _LAST:
                yield (DELETE, cf, key, b"") if row is None else (PUT, cf, key, row)
        while theirs:
            key, row = theirs.popitem()
            if cf != LOG or key not in _LAST:
                yield PUT, cf, key, row


def _last(touched: Touched, rows: Rows) -> Iterator[Record]:
    for key in _LAST:
        row = rows[LOG].get(key)
        if row is not None:
            yield PUT, LOG, key, row
        elif key in touched.keys[LOG]:
            yield DELETE, LOG, key, b""
