"""Who waits for a position of the log: called at once when it is committed, in this turn's batch or
in one that a primary sent.

It must not know what they wait for. Invariants: nothing is called twice, or before its position is
committed, and a committed batch doesn't look as if it had failed, whatever the called one raises.
The log pays one comparison for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from kvserver.storage.commitlog import NOT_AWAITED, CommitLog

logger = logging.getLogger("kvserver")


class Wait:
    """One that waits."""

    def __init__(self, seq: int, reached: Callable[[], None]) -> None:
        self.seq = seq
        self.reached = reached


class Awaited:
    """All that wait."""

    def __init__(self, log: CommitLog) -> None:
        self._log = log
        self._waits: dict[Wait, None] = {}
        log.on_awaited = self._reached

    def add(self, seq: int, reached: Callable[[], None]) -> Wait:
        """Call `reached` in the commit that brings position `seq`, which is yet to come, when all
        of its batch is visible. It must not write, nor end a command."""
        wait = Wait(seq, reached)
        self._waits[wait] = None
        self._settle()
        return wait

    def forget(self, wait: Wait) -> None:
        """It waits no longer."""
        self._waits.pop(wait, None)
        self._settle()

    def _settle(self) -> None:
        self._log.awaited_seq = min((wait.seq for wait in self._waits), default=NOT_AWAITED)

    def _reached(self) -> None:
        due = [wait for wait in self._waits if wait.seq <= self._log.committed_seq]
        for wait in due:
            self.forget(wait)
            try:
                wait.reached()
            except Exception:
                logger.exception("what waited for position %d failed", wait.seq)
