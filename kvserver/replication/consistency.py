"""Whether a data set equals its primary's, and the rows that say so.

Two things make it differ: a rewind that isn't finished or has not reached its position M yet (row
`~u`, of this node only), and padding, positions that were passed over (row `p`, which is
replicated: whoever copies this data set has the same gaps). It must not know links.

Layouts: `~u` is `until u64, start u64` (a RocksDB sequence: where a rewind must begin to read) and
the history of the primary of M: frames before M bring older ones, which know less than M's.
Until every piece of a rewind is written `until` is UNFINISHED, and there is no history of M.
`p` is described in storage/gaps.py.
"""

from __future__ import annotations

from typing import Final

from kvserver import history
from kvserver.codec import PADDED_KEY, UNTIL, UNTIL_KEY
from kvserver.history import History
from kvserver.replication.negotiate import PADDED
from kvserver.storage import gaps
from kvserver.storage.commitlog import CommitLog

#: The `until` of a data set that only a part of a rewind was written to: no position makes it equal
#: to any, so PSYNC never leads to frames.
UNFINISHED: Final = (1 << 64) - 2


class Consistency:
    """What the rows say now."""

    def __init__(self, log: CommitLog) -> None:
        self._log = log
        self.padded: list[gaps.Range] = []
        self._until = self.start = 0
        self._aim: History | None = None
        self.load()

    def load(self) -> None:
        """Read the rows."""
        until = self._log.meta.get(UNTIL_KEY)
        self._until, self.start = UNTIL.unpack_from(until) if until else (0, 0)
        aim = until[UNTIL.size :] if until else b""
        self._aim = history.decode(aim) if aim else None
        self.padded = gaps.decode(self._log.meta.get(PADDED_KEY))

    @property
    def until(self) -> int:
        """The position from which on a rewound data set is its primary's; 0: it is."""
        return self._until if self._until > self._log.committed_seq else 0

    @property
    def history(self) -> History:
        """The history of the data set that this is, or that it is only from M on."""
        return self._aim if self._aim is not None and self.until else self._log.history

    @property
    def is_unfinished(self) -> bool:
        """Whether a rewind was written in part: rows may contradict each other."""
        return self._until == UNFINISHED

    @property
    def unequal(self) -> str:
        """How a rewound data set differs, in words."""
        if self.is_unfinished:
            return "not finished"
        return f"not equal to any primary before position {self.until}"

    @property
    def consistent_from(self) -> int:
        """What PSYNC says of it."""
        return self.until or (PADDED if self.padded else 0)

    @property
    def shared(self) -> int | None:
        """The last position before any was passed over; None: none was."""
        return gaps.shared(self.padded)

    @property
    def gaps_end(self) -> int:
        """The last position that was passed over, or that was of another history; 0: none was."""
        return gaps.end(self.padded)

    def with_range(self, entry: gaps.Range) -> bytes:
        """The row `p` with one range more."""
        return gaps.encode([*self.padded, entry])


def until_row(until: int, start: int, aim: bytes) -> bytes:
    """The row `~u`; `aim` is a history's row."""
    return UNTIL.pack(until, start) + aim
