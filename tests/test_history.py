"""Histories of data sets, and where two of them part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvserver import history
from kvserver.history import MAX_ERAS, Era, History

A, B, C = "a" * 40, "b" * 40, "c" * 40
ROOT = History((Era(1, A, 0),))


def test_encode_and_decode() -> None:
    longer = ROOT.branched(B, 11).branched(C, 11)
    assert history.decode(longer.encode()) == longer
    assert len(longer.encode()) == 3 * 36


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        ROOT.encode()[:-1],
        ROOT.encode() * 2,  # the same epoch twice
        History((Era(1, A, 5), Era(2, B, 4))).encode(),  # a position that falls
        History((Era(3, A, 5), Era(2, B, 6))).encode(),  # an epoch that falls
        b"\0" * 36 * (MAX_ERAS + 1),
    ],
)
def test_what_is_no_history(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a replication history"):
        history.decode(data)


def test_only_the_newest_eras_are_kept() -> None:
    long = ROOT
    for number in range(MAX_ERAS + 10):
        long = long.branched(f"{number:040x}", number + 1)
    assert len(long.eras) == MAX_ERAS
    assert long.current.epoch == MAX_ERAS + 11
    assert history.decode(long.encode()) == long


def test_eras_of_the_future_do_not_count() -> None:
    known = ROOT.branched(B, 11)
    assert known.upto(10) == ROOT
    assert known.upto(11) == known
    assert known.epoch_at(10) == 1
    assert known.epoch_at(11) == 2


@pytest.mark.parametrize(
    ("ours", "last", "theirs", "their_last", "fork"),
    [
        (ROOT, 5, ROOT, 9, 5),
        (ROOT, 9, ROOT, 5, 5),
        # promoted behind us, at us, and beyond us
        (ROOT, 9, ROOT.branched(B, 6), 20, 5),
        (ROOT, 9, ROOT.branched(B, 10), 20, 9),
        (ROOT, 9, ROOT.branched(B, 15), 20, 9),
        # two promoted at once: both count 2, and are not the same
        (ROOT.branched(B, 8), 10, ROOT.branched(C, 8), 10, 7),
        (ROOT.branched(B, 8), 10, ROOT.branched(C, 6), 30, 5),
        # a common second era
        (ROOT.branched(B, 8), 12, ROOT.branched(B, 8).branched(C, 11), 30, 10),
        # it knows of an era that it hasn't reached: a rewound replica
        (ROOT.branched(B, 8), 7, ROOT.branched(C, 8), 9, 7),
        # nothing in common
        (ROOT, 9, History((Era(1, B, 0),)), 9, None),
    ],
)
def test_fork(ours: History, last: int, theirs: History, their_last: int, fork: int | None) -> None:
    assert ours.fork(last, theirs, their_last) == fork
    assert theirs.fork(their_last, ours, last) == fork


def test_a_forgotten_beginning_does_not_matter() -> None:
    whole = ROOT.branched(B, 5).branched(C, 9)
    assert History(whole.eras[1:]).fork(12, whole, 20) == 12


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 40), st.data())
def test_the_fork_is_where_the_writers_part(
    steps: list[int], last: int, data: st.DataObject
) -> None:
    """Against a model: the writer of each position, spelled out."""
    ours = ROOT
    for number, step in enumerate(steps):
        ours = ours.branched(f"{number:040x}", ours.current.first_seq + step)
    shared = data.draw(st.integers(1, len(ours.eras)))
    theirs = History(ours.eras[:shared])
    their_last = data.draw(st.integers(0, 60))
    if data.draw(st.booleans()):
        theirs = theirs.branched(C, max(theirs.current.first_seq, their_last) + 1)

    def writers(own: History, upto: int) -> list[str]:
        return [own.upto(seq).current.replid for seq in range(upto + 1)]

    model = 0
    for seq, (a, b) in enumerate(
        zip(writers(ours, last), writers(theirs, their_last), strict=False)
    ):
        if a != b:
            break
        model = seq
    assert ours.fork(last, theirs, their_last) == model
