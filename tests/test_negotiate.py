"""PSYNC's answers, from the table in docs/replication.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvserver.history import Era, History
from kvserver.replication.negotiate import (
    CONTINUE,
    FULLRESYNC,
    PAD,
    PADDED,
    REWIND,
    Answer,
    negotiate,
)
from kvserver.state.replication import PsyncRequest
from kvserver.storage.positions import InsideFrame, LogGone

ROOT = History((Era(1, "a" * 40, 0),))
#: A new era from position 21 on.
SECOND = ROOT.branched("b" * 40, 21)
OTHER = ROOT.branched("c" * 40, 18)


class Closed:
    def close(self) -> None:
        pass


class Index:
    """A log with frames of three positions, 1..3, 4..6 and so on, from position `first` on."""

    def __init__(self, first: int = 1, size: int = 3) -> None:
        self.first = first
        self.size = size

    def open(self, seq: int) -> Closed:
        if seq < self.first:
            raise LogGone("gone")
        begin = (seq - 1) // self.size * self.size + 1
        if begin != seq:
            raise InsideFrame(begin, begin + self.size - 1)
        return Closed()


ASK = PsyncRequest(
    replid="a" * 40,
    last_seq=12,
    history=ROOT,
    consistent_from=0,
    can_rewind=True,
    may_pad=False,
    wants_full=False,
    failover=False,
)


def answer(
    request: PsyncRequest,
    index: Index | None = None,
    last: int = 30,
    may_pad: bool = False,
    gaps_end: int = 0,
) -> Answer:
    log = index or Index(size=1)
    found = negotiate(request, SECOND, last, log, may_pad, gaps_end)  # type: ignore[arg-type]
    assert found.reason
    return found


@pytest.mark.parametrize("last_seq", [1, 12, 20])
def test_in_the_shared_history(last_seq: int) -> None:
    assert answer(replace(ASK, last_seq=last_seq))[:2] == (CONTINUE, last_seq)


def test_in_the_new_era() -> None:
    assert answer(replace(ASK, history=SECOND, last_seq=25))[:2] == (CONTINUE, 25)


def test_at_the_end() -> None:
    assert answer(replace(ASK, history=SECOND, last_seq=30))[:2] == (CONTINUE, 30)


@pytest.mark.parametrize(
    ("request_", "fork"),
    [
        (replace(ASK, last_seq=25), 20),  # an unreplicated tail
        (replace(ASK, history=OTHER, last_seq=25), 17),  # promoted as well
        (replace(ASK, history=SECOND, last_seq=31), 30),  # our own unsynced tail is gone
    ],
)
def test_beyond_the_shared_history(request_: PsyncRequest, fork: int) -> None:
    assert answer(request_)[:2] == (REWIND, fork)
    assert answer(request_, Index(first=fork + 2, size=1)).kind == FULLRESYNC
    assert answer(replace(request_, can_rewind=False)).kind == FULLRESYNC


def test_nothing_in_common() -> None:
    other = History((Era(1, "d" * 40, 0),))
    assert answer(replace(ASK, history=other)).kind == FULLRESYNC


def test_the_log_is_gone() -> None:
    assert answer(ASK, Index(first=13, size=1)).kind == CONTINUE
    assert answer(ASK, Index(first=14, size=1)).kind == FULLRESYNC


def test_a_full_sync_was_asked_for() -> None:
    assert answer(replace(ASK, wants_full=True)).kind == FULLRESYNC


@pytest.mark.parametrize(("position", "upto"), [(9, 9), (10, 12), (11, 12), (12, 12)])
def test_padding(position: int, upto: int) -> None:
    """With frames 10..12: whoever needs 10 or 13 needs nothing, 11 and 12 are led to 13."""
    diverged = replace(ASK, history=OTHER, last_seq=position + 9, can_rewind=False, may_pad=True)
    assert answer(diverged, Index(), may_pad=True)[:2] == (PAD, upto + 9)
    assert answer(diverged, Index(), may_pad=False).kind == FULLRESYNC
    assert answer(replace(diverged, may_pad=False), Index(), may_pad=True).kind == FULLRESYNC


def test_padding_of_a_position_inside_a_frame() -> None:
    padded = replace(ASK, last_seq=10, may_pad=True)
    assert answer(padded, Index(), may_pad=True)[:2] == (PAD, 12)
    assert answer(padded, Index(), may_pad=False).kind == FULLRESYNC
    assert answer(replace(padded, last_seq=12), Index(), may_pad=True)[:2] == (CONTINUE, 12)


def test_padding_leads_nobody_back() -> None:
    ahead = replace(ASK, history=OTHER, last_seq=31, can_rewind=False, may_pad=True)
    assert answer(ahead, may_pad=True).kind == FULLRESYNC


def test_rewinding_comes_before_padding() -> None:
    diverged = replace(ASK, history=OTHER, last_seq=19, may_pad=True)
    assert answer(diverged, may_pad=True).kind == REWIND


def test_in_the_middle_of_a_rewind() -> None:
    """Frames make it equal at M, if this primary shares M with the one that it rewound with."""
    halfway = replace(ASK, history=SECOND, last_seq=22, consistent_from=28)
    assert answer(halfway)[:2] == (CONTINUE, 22)
    assert answer(halfway, last=27)[:2] == (REWIND, 22)  # we don't have M
    elsewhere = replace(halfway, history=SECOND.branched("e" * 40, 25))
    assert answer(elsewhere)[:2] == (REWIND, 22)
    assert answer(replace(elsewhere, can_rewind=False)).kind == FULLRESYNC
    assert answer(replace(halfway, consistent_from=22))[:2] == (CONTINUE, 22)


@pytest.mark.parametrize("position", [21, 22, 24])
def test_who_is_amidst_a_rewind_is_not_padded(position: int) -> None:
    """Its rows are ahead of its position, and only M makes it equal to somebody."""
    halfway = replace(ASK, history=SECOND.branched("e" * 40, 25), last_seq=position)
    halfway = replace(halfway, consistent_from=28, can_rewind=False, may_pad=True)
    for index in (Index(), Index(size=1)):
        assert answer(halfway, index, may_pad=True).kind == FULLRESYNC
    assert answer(replace(halfway, history=SECOND), may_pad=True)[:2] == (CONTINUE, position)
    there = replace(halfway, consistent_from=position)
    assert answer(there, Index(), may_pad=True).kind in (CONTINUE, PAD)


def test_a_padded_replica_is_repaired_by_a_rewind() -> None:
    padded = replace(ASK, consistent_from=PADDED)
    assert answer(padded)[:2] == (REWIND, 12)
    assert answer(replace(padded, can_rewind=False))[:2] == (CONTINUE, 12)


def test_a_padded_server_gives_nothing_that_it_lacks() -> None:
    assert answer(replace(ASK, last_seq=12), gaps_end=12)[:2] == (CONTINUE, 12)
    assert answer(replace(ASK, last_seq=11), gaps_end=12).kind == FULLRESYNC
    diverged = replace(ASK, history=OTHER, last_seq=19)
    assert answer(diverged, gaps_end=12).kind == FULLRESYNC
    assert answer(replace(diverged, may_pad=True), may_pad=True, gaps_end=12).kind == PAD
