"""Which checkpoint serves which full sync, and how much may be sent now.

It must not know frames or how a checkpoint is made. Invariants:
- One checkpoint at a time is made or kept, and it serves every replica that asks while it is
  young, and the log since it is there, however long that one then waits for its turn; it is
  dropped when it is old and nobody reads it or waits for it.
- At most `replication-max-full-syncs` replicas are sent files at once; the others wait.
- `max-replication-mb` bounds the bytes of all of them together.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from kvserver.config import MIB, Config
from kvserver.replication.ports import Files, Snapshot, Timers
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.positions import PositionLog

logger = logging.getLogger("kvserver")

#: How far the sending of files may run ahead of `max-replication-mb`.
BURST_SECONDS: Final = 0.1


class Customer(Protocol):
    """A replica that needs a full sync."""

    def snapshot_ready(self, snapshot: Snapshot) -> None:
        """Its turn has come."""

    def snapshot_failed(self, reason: str) -> None:
        """There will be none."""


class Snapshots:
    """The checkpoint that is there, and who waits for it or reads it."""

    def __init__(
        self, config: Config, log: CommitLog, index: PositionLog, files: Files, timers: Timers
    ) -> None:
        self._log = log
        self._index = index
        self._config = config
        self._files = files
        self._timers = timers
        self._current: Snapshot | None = None
        self._readers: dict[Customer, Snapshot] = {}
        #: Those that wait, and the moments at which they asked.
        self._waiting: dict[Customer, float] = {}
        self._making = False
        #: What is being made is of a data set that is gone.
        self._outdated = False
        #: Set while a checkpoint is made: the log is needed from here on.
        self._making_from = 0
        self._allowed_at = 0.0

    def request(self, customer: Customer) -> None:
        """The customer needs a snapshot, and is called when it may read one."""
        self._waiting[customer] = self._timers.now()
        self._timers.call_later(0, self._serve)

    def release(self, customer: Customer) -> None:
        """The customer reads no more, or is gone."""
        self._waiting.pop(customer, None)
        snapshot = self._readers.pop(customer, None)
        if snapshot is not None and snapshot is not self._current:
            self._drop_unread(snapshot)
        self._serve()

    def tick(self) -> None:
        """Drop what is old, and asked for by nobody."""
        current = self._current
        asked = min(self._waiting.values(), default=self._timers.now())
        if current is not None and not self._serves(asked):
            self._current = None
            self._drop_unread(current)

    def forget(self) -> None:
        """The data set is replaced, or positions go back: nothing may be served from what was
        there, nor from a checkpoint that is being made of it."""
        self._outdated = self._making
        current, self._current = self._current, None
        if current is not None:
            self._drop_unread(current)

    def pinned(self) -> int | None:
        """The lowest position after which the log is needed; None: none is."""
        needed = [snapshot.seq for snapshot in self._readers.values()]
        if self._making:
            needed.append(self._making_from)
        if self._current is not None:
            needed.append(self._current.seq)
        return min(needed, default=None)

    def delay(self, size: int) -> float:
        """Account for `size` bytes that are to be sent; seconds to wait before that."""
        rate = self._config.get_int("max-replication-mb") * MIB
        now = self._timers.now()
        if not rate:
            return 0.0
        self._allowed_at = max(self._allowed_at, now - BURST_SECONDS) + size / rate
        return max(self._allowed_at - now, 0.0)

    # -- inside ----------------------------------------------------------------------------

    def _serves(self, asked: float) -> bool:
        """Whether the checkpoint that is there is for who asked at that moment."""
        current = self._current
        if current is None:
            return False
        young = self._config.get_int("replication-snapshot-max-age")
        return asked - current.made <= young and self._index.first_position() <= current.seq + 1

    def _made(self, result: Snapshot | str) -> None:
        self._making = False
        if self._outdated:
            self._outdated = False
            if not isinstance(result, str):
                self._files.drop_snapshot(result)
            self._serve()
            return
        if isinstance(result, str):
            logger.error("Full sync: no checkpoint could be made: %s", result)
            waiting, self._waiting = self._waiting, {}
            for customer in waiting:
                customer.snapshot_failed(result)
            return
        logger.info("Full sync: made a checkpoint at %d, %d files", result.seq, len(result.files))
        previous, self._current = self._current, result
        if previous is not None:
            self._drop_unread(previous)
        self._serve()

    def _serve(self) -> None:
        """Give the checkpoint to who waits. Those who asked before it was made are served even with
        a max-age of 0: it was made for them."""
        limit = self._config.get_int("replication-max-full-syncs")
        while self._waiting and len(self._readers) < limit:
            customer, asked = next(iter(self._waiting.items()))
            if self._current is None or not self._serves(asked):
                self._make()
                return
            del self._waiting[customer]
            self._readers[customer] = self._current
            customer.snapshot_ready(self._current)

    def _make(self) -> None:
        if not self._making:
            self._making = True
            self._making_from = self._log.committed_seq
            self._files.make_snapshot(self._made)

    def _drop_unread(self, snapshot: Snapshot) -> None:
        if snapshot not in self._readers.values():
            self._files.drop_snapshot(snapshot)
