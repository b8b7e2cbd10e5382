"""`make steady`: what it calls steady, and a short run of all of its load."""

from __future__ import annotations

from array import array

import pytest
from harness import KVSERVER, REDIS, Program

from benchmarks import steady
from benchmarks.prober import Tail
from benchmarks.steady import FEW, MIB, Options, Sample, judge, tail_rows

OPTIONS = Options(None, duration=4.0, pace=3.0, visits=50.0, probes=100.0, no_redis=True)


def samples(resident: list[int], descriptors: int = 0) -> list[Sample]:
    """One a second; descriptors become more by so many in each."""
    return [
        Sample(float(n), size * MIB, 50 + n * descriptors, 7, {}) for n, size in enumerate(resident)
    ]


def test_what_is_steady() -> None:
    warming = list(range(100, 400, 10))
    words, flat = judge(samples([*warming, *[400] * 40]))
    assert flat and words[0].startswith("resident memory: 400 MB, +0.0 MB/hour")
    assert judge(samples([*warming, *[400, 402, 399] * 15]))[1]
    words, flat = judge(samples([*warming, *range(400, 440)]))
    assert not flat and words[0].endswith("GROWS") and "+3600.0 MB/hour" in words[0]
    words, flat = judge(samples([400] * 60, descriptors=FEW))
    assert not flat and words[1].endswith("GROWS")


def test_tails() -> None:
    tail = Tail.of(array("d", [n / 1000 for n in range(1000, 0, -1)]))
    assert tail == Tail(501.0, 991.0, 1000.0, 1000.0)
    assert (
        tail_rows("a", (tail, Tail.of(array("d"))))[1] == "| a | SET | 0.00 | 0.00 | 0.00 | 0.00 |"
    )


@pytest.mark.parametrize("program", [KVSERVER, REDIS], ids=["kvserver", "redis-server"])
def test_a_short_run(program: Program) -> None:
    directives = steady.DIRECTIVES if program is KVSERVER else {}
    came = steady.run(program, directives, OPTIONS)
    assert came.done["failures"] == 0
    assert came.done["commands"] > 100 and came.done["connections"] > 10
    assert len(came.samples) > 5 and came.samples[-1].resident > MIB
    assert all(0 < tail.p50 <= tail.longest for tail in came.tails)
