"""Positions that were passed over: which ranges are kept, and what becomes of a primary's."""

from __future__ import annotations

import pytest
from replica_logs import batches_of, follow, frames_of, stamp
from replica_logs import primary as primary
from replica_logs import replica as replica
from store import Store

from kvserver.codec import PADDED_KEY
from kvserver.frames import FrameError
from kvserver.storage import gaps
from kvserver.storage.commitlog import LOG
from kvserver.storage.gaps import MAX_RANGES, Range
from kvserver.storage.wal_batch import DELETE, PUT, Record


def passed(fork: int, last: int) -> Range:
    return fork, fork + 1, last, 0, "host:1", "diverged"


def test_the_lowest_fork_and_the_highest_position_are_kept() -> None:
    ranges = [passed(1000 + n, 2000 + n) for n in range(3 * MAX_RANGES)]
    ranges[MAX_RANGES] = passed(7, ranges[MAX_RANGES][2])
    row = gaps.encode(ranges[:-1])
    kept = gaps.decode(gaps.encode([*gaps.decode(row), ranges[-1]]))
    assert kept == [ranges[MAX_RANGES], *ranges[1 - MAX_RANGES :]]
    assert (gaps.shared(kept), gaps.end(kept)) == (7, ranges[-1][2])


def test_no_gaps() -> None:
    assert gaps.decode(None) == []
    assert gaps.shared([]) is None
    assert gaps.end([]) == 0


def tell(primary: Store, row: bytes | None) -> None:
    """The primary's gaps are these from its next position on."""
    last = primary.log.committed_seq + 1
    record: Record = (DELETE, LOG, PADDED_KEY, b"") if row is None else (PUT, LOG, PADDED_KEY, row)
    primary.log.install([record, stamp(primary.log.epoch, last, last)])


def stored(store: Store) -> list[Range]:
    return gaps.decode(store.log.meta.get(PADDED_KEY))


def test_gaps_of_ones_own_stay_beside_the_primarys(primary: Store, replica: Store) -> None:
    """What the replica's own replicas get from it says of both."""
    own, theirs = passed(20, 30), passed(10, 40)
    primary[0].put_string(b"k", b"1")
    primary.commit()
    follow(replica, primary)
    replica.log.meta.put(PADDED_KEY, gaps.encode([own]))
    replica.log.advance()
    replica.log.commit()
    tell(primary, None)  # the position that the replica's note took
    tell(primary, gaps.encode([theirs]))
    follow(replica, primary)
    assert stored(replica) == [own, theirs]
    row = gaps.encode([own, theirs])
    assert (PUT, LOG, PADDED_KEY, row) in batches_of(replica)[-1]
    copied = gaps.encode([theirs, passed(40, 44), own])
    tell(primary, copied)
    follow(replica, primary)
    assert replica.log.meta.get(PADDED_KEY) == copied
    tell(primary, None)
    follow(replica, primary)
    assert stored(replica) == [theirs, passed(40, 44), own]


def test_a_copy_has_the_primarys_gaps(primary: Store, replica: Store) -> None:
    tell(primary, gaps.encode([passed(0, 1)]))
    follow(replica, primary)
    assert stored(replica) == [passed(0, 1)]


@pytest.mark.parametrize("row", [b"no", b"5", b"[5]", b"[[]]", b'[[1, 2, "3"]]'])
def test_rows_that_are_none(primary: Store, replica: Store, row: bytes) -> None:
    tell(replica, gaps.encode([passed(0, 1)]))
    tell(primary, None)
    tell(primary, row)
    with pytest.raises(FrameError, match="gaps"):
        replica.log.apply(frames_of(primary)[-1])
    assert stored(replica) == [passed(0, 1)]
