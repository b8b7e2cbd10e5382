"""Long walks (KEYS, SCAN of a whole keyspace, ...): a millisecond at a time.

Between steps the loop serves everybody else, so that no walk delays others by more than one
step. It must not know what the walks do.
"""

from __future__ import annotations

import asyncio
from typing import Final

from kvserver.state.waiting import Waiting

STEP_NS: Final = 1_000_000


class Walks:
    """Steps walks while there are any."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._running = False

    def start(self) -> None:
        """There is a walk."""
        if not self._running:
            self._running = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._running = self._waiting.step_walks(STEP_NS)
        if self._running:
            self._loop.call_soon(self._step)
