"""When Python looks for cyclic garbage: at moments that the server chooses.

Reference counts free at once what commands and connections leave behind: none of them leaves a
cycle, and tests/test_collector.py holds every kind of connection to that. What the collector is
for is a cycle that nobody knows of, so its passes may wait, but not for ever.

Python's own schedule would begin a pass in the middle of a command, and one over all objects
takes 25 ms with 5,000 connections, which are 70,000 objects (rows in the cache aren't looked at:
bytes refer to nothing). So that schedule is off, and:

- Once a second, between two turns of the loop, the objects made since are looked at if they are
  few, which takes half a millisecond at most. They are then frozen, few or many: that only joins
  two lists, and no such pass looks at them again.
- All objects are looked at when the server was idle for some seconds and has a quarter more of
  them than after the last such pass; without an idle moment, when they have doubled. So garbage
  never is more than was in use, or BUSY_GROWTH objects.
"""

from __future__ import annotations

import gc
import time
from typing import Final

#: New objects that are looked at; 0.1 us each.
YOUNG_MOST: Final = 5_000
#: Calls of `tick` between counts of all objects, which take 10 ns each.
COUNT_EVERY: Final = 10
#: So many calls in a row without activity are an idle moment.
IDLE_TICKS: Final = 5
#: Fewer new objects than these are no reason to look at all of them, in an idle moment and under
#: load.
IDLE_GROWTH: Final = 5_000
BUSY_GROWTH: Final = 200_000


class Collector:
    """Decides when there is a pass, and counts them. The process has one at most that runs."""

    def __init__(self) -> None:
        self._ticks = 0
        self._activity = -1
        self._idle = 0
        #: The fewest objects since the last pass over all of them.
        self._least = 0
        #: Objects at the last count.
        self.objects = 0
        self.passes = 0
        self.full_passes = 0
        #: Objects of cyclic garbage that were found.
        self.found = 0
        self.longest_ns = 0

    def start(self) -> None:
        """The server begins to serve: what was loaded until now stays."""
        gc.disable()
        gc.collect()
        gc.freeze()
        self._least = self.objects = gc.get_freeze_count()

    def tick(self, activity: int) -> int:
        """To be called once a second; `activity` is a figure that stays as it is while the server
        is idle. Returns the nanoseconds that it took."""
        begun = time.perf_counter_ns()
        self._idle = self._idle + 1 if activity == self._activity else 0
        self._activity = activity
        if gc.get_count()[0] <= YOUNG_MOST:
            self.found += gc.collect(0)
            self.passes += 1
        gc.freeze()
        self._ticks += 1
        if self._ticks % COUNT_EVERY == 0 and self._is_due():
            self._look_at_all()
        return self._took(begun)

    def collect(self) -> None:
        """A pass over all objects, now."""
        begun = time.perf_counter_ns()
        self._look_at_all()
        self._took(begun)

    def _is_due(self) -> bool:
        self.objects = gc.get_freeze_count()
        self._least = min(self._least, self.objects)
        growth = self.objects - self._least
        if self._idle >= IDLE_TICKS:
            return growth > max(IDLE_GROWTH, self._least // 4)
        return growth > max(BUSY_GROWTH, self._least)

    def _look_at_all(self) -> None:
        gc.unfreeze()
        self.found += gc.collect()
        gc.freeze()
        self.passes += 1
        self.full_passes += 1
        self._least = self.objects = gc.get_freeze_count()

    def _took(self, begun: int) -> int:
        elapsed = time.perf_counter_ns() - begun
        self.longest_ns = max(self.longest_ns, elapsed)
        return elapsed
