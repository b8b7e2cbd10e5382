"""CLIENT PAUSE: who paused what until when, and the sessions set aside meanwhile.

It must not know sockets or commands. Source: Redis 7.4's networking.c (pauseActions,
updatePausedActions). Invariants:
- A pause is kept for each purpose; of several the strictest mode is in force, and within a
  purpose the later end and the stricter mode win.
- The end comes by a timer: `on_change` hears of every change of the mode in force.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from kvserver.state.session import Session

NONE: Final = 0
WRITES: Final = 1
ALL: Final = 2

#: A purpose: `client` (CLIENT PAUSE), `failover`, `shutdown`.
Purpose = str

#: A timer runs at most so long before it looks again: an end may be centuries away.
_MAX_TIMER_SECONDS: Final = 86400.0


def unix_ms() -> int:
    """The time now."""
    return time.time_ns() // 1_000_000


class Pauses:
    """The pauses in force, each (end in unix ms, mode)."""

    def __init__(self, call_later: Callable[..., Any], clock: Callable[[], int] = unix_ms) -> None:
        self._call_later = call_later
        self._clock = clock
        self._timer: Any = None
        self._pauses: dict[Purpose, tuple[int, int]] = {}
        #: The strictest mode in force.
        self.mode = NONE
        #: Sessions whose command waits, in order of arrival.
        self.parked: dict[Session, None] = {}
        #: Called with the mode before and the mode now.
        self.on_change: Callable[[int, int], None] = _ignore

    def pause(self, purpose: Purpose, end_ms: int, mode: int) -> None:
        """Begin a pause that lasts until `end_ms` (unix ms), or extend the one there is."""
        self._update()
        end, before = self._pauses.get(purpose, (0, NONE))
        self._pauses[purpose] = (max(end, end_ms), max(before, mode))
        self._update()

    def unpause(self, purpose: Purpose) -> None:
        """End the purpose's pause; others go on."""
        self._pauses.pop(purpose, None)
        self._update()

    def in_force(self) -> dict[Purpose, tuple[int, int]]:
        """{purpose: (end in unix ms, mode)}, for INFO."""
        return dict(self._pauses)

    def next_end(self) -> int | None:
        """When the first of the pauses ends, in unix ms."""
        return min((end for end, _ in self._pauses.values()), default=None)

    def take_parked(self) -> list[Session]:
        """The sessions set aside, which the caller runs again."""
        parked, self.parked = self.parked, {}
        return list(parked)

    def _update(self) -> None:
        """Drop what has ended, wait for the next end, and tell if the mode changed."""
        now = self._clock()
        self._pauses = {p: pause for p, pause in self._pauses.items() if pause[0] > now}
        self._rearm(now)
        before = self.mode
        self.mode = max((mode for _, mode in self._pauses.values()), default=NONE)
        if self.mode != before:
            self.on_change(before, self.mode)

    def _rearm(self, now: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self.next_end()
        if end is not None:
            seconds = min((end - now) / 1000, _MAX_TIMER_SECONDS)
            self._timer = self._call_later(seconds, self._update)


def _ignore(_before: int, _mode: int) -> None:
    return None
