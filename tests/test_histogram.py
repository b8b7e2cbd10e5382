"""The histogram of durations, against counting and sorting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvserver.state.histogram import BINS, UNIT_BITS, Histogram


def filled(durations: list[int]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        try:
            histogram.bins[duration >> UNIT_BITS] += 1
        except IndexError:
            histogram.add_rare(duration)
    return histogram


DURATIONS = st.lists(st.one_of(st.integers(0, 1 << 21), st.integers(0, 1 << 45)), min_size=1)


@given(DURATIONS)
def test_distribution_counts_what_is_below(durations: list[int]) -> None:
    distribution = filled(durations).distribution()
    assert list(distribution.values())[-1] == len(durations)
    for bound, calls in distribution.items():
        if bound == (1 << 30) - 1:
            assert calls == len(durations)
            continue
        level = 1 << bound.bit_length() - 1
        assert level >= 1024 and bound == level + (level >> 7) - 1
        # Below 65536 ns the bins are wider than the buckets of HdrHistogram.
        end = (bound + 1) >> UNIT_BITS << UNIT_BITS
        assert calls == sum(duration < end for duration in durations)
        # No bound is there for nothing.
        assert any(level // 2 <= duration < end for duration in durations) or level == 1024


@given(DURATIONS, st.floats(0, 100))
def test_percentiles_are_close(durations: list[int], percent: float) -> None:
    (value,) = filled(durations).percentiles((percent,))
    ordered = sorted(durations)
    rank = max(1, percent * len(ordered) / 100)
    exact = next(d for i, d in enumerate(ordered, 1) if i >= rank)
    assert exact <= value <= exact + max(1 << UNIT_BITS, exact >> 7)


def test_histogram_without_calls() -> None:
    empty = Histogram()
    assert empty.percentiles((50.0,)) == [] and empty.distribution() == {}


def test_histogram_can_be_turned_off() -> None:
    histogram = filled([1, BINS << UNIT_BITS])
    histogram.ignore()
    assert not histogram.tracking
    histogram.bins[0] += 1
    histogram.add_rare(1 << 40)
    assert histogram.percentiles((50.0,)) == [] and histogram.distribution() == {}
    histogram.reset()
    assert histogram.tracking and histogram.distribution() == {}
