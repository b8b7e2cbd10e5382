"""The replicas of a server and what they have: who counts for a quorum, WAIT and FAILOVER, and
which part of the log they need.

It must not know how they are served. Invariant: a replica counts once, by its last link: one that
nobody has seen break yet says nothing of a replica that came back on another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvserver.replication.primary import Downstream
from kvserver.state.replication import ReplicaState
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.positions import InsideFrame, LogGone, PositionLog
from kvserver.storage.wal_batch import WalError

Address = tuple[str, int]


class Followers:
    """The links to replicas, in the order in which they came."""

    def __init__(self, log: CommitLog, index: PositionLog) -> None:
        self._log = log
        self._index = index
        self.links: list[Downstream] = []

    def _latest(self) -> list[Downstream]:
        """The last link of each replica."""
        return list({(r.state.ip, r.state.port): r for r in self.links}.values())

    def _good(self) -> list[ReplicaState]:
        """The replicas that are sent frames. Those that are being rewound don't count, nor those
        that have passed over positions."""
        return [replica.state for replica in self._latest() if replica.is_good]

    def is_padded(self, address: Address) -> bool:
        """Whether the replica at this address has passed over positions."""
        return any(r.is_padded for r in self._latest() if (r.state.ip, r.state.port) == address)

    def acked_by_quorum(self, count: int) -> int:
        """The position that so many replicas have."""
        acked = sorted((state.acked_seq for state in self._good()), reverse=True)
        return acked[count - 1] if len(acked) >= count else 0

    def acked_by(self, address: Address) -> int:
        """The position that the replica at this address has; -1: there is none. With `appendfsync
        always` it must be on its disk: it may have to answer for it alone."""
        for replica in self._latest():
            state = replica.state
            if (state.ip, state.port) == address and (replica.is_good or replica.is_padded):
                return state.synced_seq if self._log.wait_for_sync else state.acked_seq
        return -1

    def best(self) -> Address | None:
        """The address of the online replica that has most."""
        best = max(self._good(), key=lambda state: state.acked_seq, default=None)
        return None if best is None else (best.ip, best.port)

    def count_acked(self, seq: int) -> int:
        """How many replicas have position `seq`."""
        return sum(state.acked_seq >= seq for state in self._good())

    def count_synced(self, seq: int) -> int:
        """How many replicas have it on disk."""
        return sum(state.synced_seq >= seq for state in self._good())

    def pinned_file(self, kept: int | None) -> int | None:
        """The oldest log file that they, or a full sync from position `kept` on, need; None: none
        is."""
        positions = [replica.pinned_position() for replica in self.links]
        needed = [replica.pinned_file() for replica in self.links]
        needed += self._files_of(seq for seq in (*positions, kept) if seq is not None)
        return min((number for number in needed if number is not None), default=None)

    def _files_of(self, positions: Iterable[int]) -> Iterator[int]:
        for seq in positions:
            try:
                cursor = self._index.open(seq)
            except (LogGone, InsideFrame, WalError):
                continue
            yield cursor.file_number
            cursor.close()
