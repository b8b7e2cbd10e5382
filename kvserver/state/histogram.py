"""How long a command's calls took: counts by duration, for percentiles and distributions.

It must not know commands. Durations are nanoseconds. `bins` is linear, 512 ns each up to about a
millisecond, so that counting a call is one addition to a list (35 ns in CPython 3.11; the
logarithmic index of HdrHistogram, which Redis uses, takes 90). What is longer is counted with a
relative precision of 1/128, as Redis counts everything.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Final

UNIT_BITS: Final = 9
BINS: Final = 2048
#: Bits that are kept of a duration beyond the bins.
_PRECISION_BITS: Final = 8

#: The last bound of `distribution`.
_LAST_LEVEL: Final = 1 << 30

#: Bins that are looked at together: most of them are empty.
_CHUNK: Final = 64

#: Where calls are counted while nothing is tracked: nobody reads it, and the count costs the same.
_IGNORED: Final[list[int]] = [0] * BINS


class Histogram:
    """The durations of one command's calls.

    Whoever counts does `bins[ns >> UNIT_BITS] += 1`, and `add_rare(ns)` on IndexError.
    """

    __slots__ = ("_long", "bins")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything. The bins take 16 KB, so they are made when the first call comes."""
        self.bins: list[int] = []
        #: Shortest duration of a bucket -> count.
        self._long: dict[int, int] = {}

    def ignore(self) -> None:
        """Forget everything and count nothing until the next `reset`."""
        self.reset()
        self.bins = _IGNORED

    @property
    def tracking(self) -> bool:
        """Whether calls are counted."""
        return self.bins is not _IGNORED

    def add_rare(self, duration: int) -> None:
        """Count a duration for which there is no bin."""
        if not self.tracking:
            return
        if not self.bins:
            self.bins = [0] * BINS
        if duration < BINS << UNIT_BITS:
            self.bins[duration >> UNIT_BITS] += 1
        else:
            width_bits = duration.bit_length() - _PRECISION_BITS
            bucket = duration >> width_bits << width_bits
            self._long[bucket] = self._long.get(bucket, 0) + 1

    def _buckets(self) -> list[tuple[int, int]]:
        """(longest duration, count) of the buckets that aren't empty, shortest first."""
        if not self.tracking:
            return []
        found: list[tuple[int, int]] = []
        for start in range(0, len(self.bins), _CHUNK):
            chunk = self.bins[start : start + _CHUNK]
            if any(chunk):
                numbered = enumerate(chunk, start)
                found += [(((i + 1) << UNIT_BITS) - 1, n) for i, n in numbered if n]
        for bucket, count in sorted(self._long.items()):
            width_bits = bucket.bit_length() - _PRECISION_BITS
            found.append((bucket + (1 << width_bits) - 1, count))
        return found

    def percentiles(self, wanted: tuple[float, ...]) -> list[int]:
        """For each of `wanted` (0 to 100) the duration that so many percent of the calls didn't
        exceed; an empty list when there was no call."""
        buckets = self._buckets()
        if not buckets:
            return []
        cumulative = list(accumulate(count for _, count in buckets))
        ranks = [max(1, percent * cumulative[-1] / 100) for percent in wanted]
        last = len(buckets) - 1
        return [buckets[min(bisect_left(cumulative, rank), last)][0] for rank in ranks]

    def distribution(self) -> dict[int, int]:
        """{bound: calls that took no longer}, those that add no call left out. The bounds are 1024
        ns times the powers of two, each with the whole bucket that HdrHistogram has there: 1031,
        2063, ..., 541065215. Longer calls count as a second, as in Redis."""
        found: dict[int, int] = {}
        level, total = 1024, 0
        for longest, count in self._buckets():
            while level < _LAST_LEVEL and longest >= level + (level >> 7):
                level *= 2
            total += count
            bound = level + (level >> 7) if level < _LAST_LEVEL else _LAST_LEVEL
            found[bound - 1] = total
        return found
