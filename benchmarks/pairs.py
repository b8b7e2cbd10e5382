"""What paired measurements say: medians of ratios, their intervals, and a verdict. Arithmetic only.

Two servers on a machine that others use too differ from minute to minute, but less within a pair
of runs one right after the other. So each pair gives a ratio, and the median of the ratios gets the
interval of the sign test: it assumes nothing about how they scatter, and outliers don't move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import NamedTuple

CONFIDENCE = 0.95
#: By how much a test may be slower, or cost more, before the comparison fails.
TOLERANCE = 0.05


class Interval(NamedTuple):
    """A median, and where the true one is with `CONFIDENCE`."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median of these, between two of their order statistics.

    The true median is below the k-th smallest of n when fewer than k fell below it: that has the
    probability of fewer than k heads in n throws of a coin, and so has the other side.
    """
    ordered = sorted(values)
    count, outside, drop = len(ordered), 0.0, -1
    while drop + 1 < count - drop - 1:
        outside += 2 * comb(count, drop + 1) / 2**count
        if outside > 1 - confidence:
            break
        drop += 1
    drop = max(drop, 0)  # too few for this confidence: all there is
    return Interval(ordered[drop], median(ordered), ordered[count - 1 - drop])


class Outcome(NamedTuple):
    """Of one test: throughput and CPU per operation of the new by the old."""

    rate: Interval
    cpu: Interval

    @property
    def failed(self) -> bool:
        """Whether it is slower, or costs more, by more than `TOLERANCE` for sure."""
        return self.rate.high < 1 - TOLERANCE or self.cpu.low > 1 + TOLERANCE

    @property
    def verdict(self) -> str:
        """In words."""
        seen = [
            *(["slower"] if self.rate.high < 1 else []),
            *(["faster"] if self.rate.low > 1 else []),
            *(["more CPU"] if self.cpu.low > 1 else []),
            *(["less CPU"] if self.cpu.high < 1 else []),
        ]
        return ("**FAILED**: " if self.failed else "") + (", ".join(seen) or "no difference seen")


def outcome(old: Sequence[tuple[float, float]], new: Sequence[tuple[float, float]]) -> Outcome:
    """What pairs of (rate, CPU per operation) say."""
    pairs = list(zip(old, new, strict=True))
    return Outcome(
        interval([after[0] / before[0] for before, after in pairs]),
        interval([after[1] / before[1] for before, after in pairs]),
    )
