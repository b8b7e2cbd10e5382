"""LATENCY: spikes of events, by second. It must not know what the events are.

Source: Redis 7.4's latency.c: 160 samples an event, the worst of each second.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final

HISTORY: Final = 160
#: (unix second, ms)
Sample = tuple[int, int]


class LatencyMonitor:
    """Samples at or above `threshold` ms (0: off)."""

    def __init__(self) -> None:
        self.threshold = 0
        self._samples: dict[str, deque[Sample]] = {}
        self._worst: dict[str, int] = {}

    def note(self, event: str, milliseconds: int) -> None:
        """An event took this long."""
        if not self.threshold or milliseconds < self.threshold:
            return
        now = int(time.time())
        samples = self._samples.setdefault(event, deque(maxlen=HISTORY))
        self._worst[event] = max(self._worst.get(event, 0), milliseconds)
        if samples and samples[-1][0] == now:
            samples[-1] = (now, max(samples[-1][1], milliseconds))
        else:
            samples.append((now, milliseconds))

    def history(self, event: str) -> list[Sample]:
        """The event's samples, oldest first."""
        return list(self._samples.get(event, ()))

    def worst(self, event: str) -> int:
        """The event's longest time ever, in ms; 0 without samples."""
        return self._worst.get(event, 0)

    def latest(self) -> list[tuple[str, int, int, int]]:
        """(event, unix second and ms of its last sample, ms of its worst ever)."""
        return [(e, *s[-1], self._worst[e]) for e, s in self._samples.items() if s]

    def reset(self, events: list[str]) -> int:
        """Forget these events, in whatever case (none named: all); returns how many."""
        wanted = {event.lower() for event in events}
        names = [e for e in self._samples if not events or e.lower() in wanted]
        for name in names:
            del self._samples[name], self._worst[name]
        return len(names)
