"""A replica's side of the commit log: frames are installed whole, and caches follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from replica_logs import change_much, everything, follow, frames_of, refuse, stamp
from replica_logs import primary as primary
from replica_logs import replica as replica
from store import CACHE_BYTES, DATABASES, NOW, Store

from kvserver import codec
from kvserver.codec import HISTORY_KEY
from kvserver.frames import Frame, FrameError
from kvserver.storage.commitlog import DATA, LOG, EngineStalled
from kvserver.storage.row_cache import ROW_OVERHEAD
from kvserver.storage.wal_batch import DELETE, DELETE_RANGE, MERGE, PUT, Record, decode_records


def test_a_replica_equals_its_primary(primary: Store, replica: Store) -> None:
    change_much(primary)
    follow(replica, primary)
    assert everything(replica) == everything(primary)
    for index in range(DATABASES):
        assert replica.contents(index) == primary.contents(index)
        assert replica.keyspace.databases[index].figures() == (
            primary.keyspace.databases[index].figures()
        )
    ours, theirs = replica.log, primary.log
    assert ours.history == theirs.history
    assert (ours.epoch, ours.committed_seq) == (theirs.epoch, theirs.committed_seq)
    assert ours.released_seq == ours.last_seq == ours.committed_seq
    assert not ours.unsettled


def test_a_replica_serves_frames_from_its_own_log(primary: Store, replica: Store) -> None:
    change_much(primary)
    follow(replica, primary)
    sent, kept = frames_of(primary), frames_of(replica)[1:]
    assert kept == sent


def test_a_promoted_replica_goes_on_where_the_primary_was(primary: Store, replica: Store) -> None:
    change_much(primary)
    follow(replica, primary)
    replica.log.begin_epoch()
    replica.log.commit()
    emptied = replica.keyspace.databases[1]
    taken = {db.id for db in primary.keyspace.databases}
    assert replica.keyspace.flush(emptied) == 1
    assert emptied.id not in taken
    replica[0].put_string(b"new", b"v")
    replica.commit()
    follow(primary, replica)
    assert everything(primary) == everything(replica)
    assert primary.log.history.eras[-1].first_seq == primary.log.committed_seq - 1


@pytest.mark.parametrize("cached", [True, False])
def test_cached_rows_follow(primary: Store, replica: Store, cached: bool) -> None:
    for key in (b"changed", b"deleted", b"kept"):
        primary[0].put_string(key, b"1")
    primary.commit()
    follow(replica, primary)
    if cached:
        for key in (b"changed", b"deleted", b"kept"):
            assert replica[0].string(key) == b"1"
    primary[0].put_string(b"changed", b"longer")
    primary[0].delete(b"deleted")
    primary.commit()
    follow(replica, primary)
    loads = replica.rows.loads
    assert [replica[0].string(key) for key in (b"changed", b"deleted", b"kept")] == [
        b"longer",
        None,
        b"1",
    ]
    assert replica.rows.loads == loads + (0 if cached else 2)
    assert replica.rows.cache.cached_bytes == sum(
        ROW_OVERHEAD + len(key) + len(row)
        for rows in (*replica.rows.cache.young, *replica.rows.cache.old)
        for key, row in rows.items()
    )


def test_rows_of_the_old_generation_follow(primary: Store, replica: Store) -> None:
    row_key = primary[0].row_key(b"old")
    primary[0].put_string(b"old", b"1")
    primary.commit()
    follow(replica, primary)
    replica[0].string(b"old")
    number = 0
    while replica.rows.young(row_key) is not None:
        replica.rows.cache.add(b"%d" % number, b"x" * 100)
        number += 1
    assert replica.rows.cached(row_key) is not None
    primary[0].put_string(b"old", b"22")
    primary.commit()
    follow(replica, primary)
    assert replica.rows.cached(row_key) is None
    assert replica[0].string(b"old") == b"22"


def test_a_row_that_outgrew_the_cache_leaves_it(primary: Store, replica: Store) -> None:
    primary[0].put_string(b"k", b"1")
    primary.commit()
    follow(replica, primary)
    replica[0].string(b"k")
    large = bytes(CACHE_BYTES)
    primary[0].put_string(b"k", large)
    primary.commit()
    follow(replica, primary)
    assert replica.rows.cache.cached_rows == 0
    assert replica[0].string(b"k") == large


def test_a_cache_grows_no_larger_by_what_is_installed(primary: Store, replica: Store) -> None:
    for size in (1, 1000):
        for number in range(200):
            primary[0].put_string(b"%d" % number, bytes(size))
        primary.commit()
        follow(replica, primary)
        for number in range(200):
            assert replica[0].string(b"%d" % number) == bytes(size)
            assert replica.rows.cache.cached_bytes <= CACHE_BYTES + 2 * (1000 + ROW_OVERHEAD)


def test_elements_of_dropped_ranges_follow(primary: Store, replica: Store) -> None:
    """A range of elements leaves the others in a replica's cache; a rewind empties it."""
    epoch, data = primary.log.epoch, replica.log.data
    rows: list[Record] = [(PUT, DATA, b"kept", b"1"), (PUT, DATA, b"range:1", b"1")]
    replica.log.install([*rows, stamp(epoch, 1, 1)])
    assert [data.get(key) for key in (b"kept", b"range:1")] == [b"1", b"1"]
    dropped: Record = (DELETE_RANGE, DATA, b"range:", b"range;")
    replica.log.install([dropped, (PUT, DATA, b"range:1", b"2"), stamp(epoch, 2, 2)])
    assert data.cache.cached_rows == 2
    assert [data.get(key) for key in (b"kept", b"range:1")] == [b"1", b"2"]
    replica.log.install([dropped, stamp(epoch, 1, 1)])
    assert data.cache.cached_rows == 0
    assert [data.get(key) for key in (b"kept", b"range:1")] == [b"1", None]


def test_a_range_empties_the_cache(primary: Store, replica: Store) -> None:
    primary[0].put_string(b"k", b"1")
    primary[1].put_string(b"k", b"1")
    primary.commit()
    follow(replica, primary)
    assert replica[0].string(b"k") == replica[1].string(b"k") == b"1"
    row_key = replica[0].row_key(b"k")
    begin, end = replica[0].bounds()
    last = replica.log.committed_seq
    replica.log.install(  # as in a rewind: what is there instead follows in the same batch
        [
            (DELETE_RANGE, 0, begin, end),
            (PUT, 0, row_key, codec.string_row(b"2")),
            stamp(1, last + 1, last),
        ]
    )
    assert replica[0].string(b"k") == b"2"
    assert replica[1].string(b"k") == b"1"


def test_a_frame_is_applied_whole_or_not_at_all(primary: Store, replica: Store) -> None:
    primary[0].put_string(b"k", b"1")
    primary.commit()
    follow(replica, primary)
    replica[0].string(b"k")
    before, contents = everything(replica), replica.contents(0)
    primary[0].put_string(b"k", b"2")
    primary[0].put_string(b"l", b"2", NOW + 1)
    primary.commit()
    primary.log.begin_epoch()
    primary.log.commit()
    for frame in frames_of(primary, 1):
        position, eras = replica.log.committed_seq, replica.log.history
        refuse(replica, EngineStalled("Result incomplete: Write stall"))
        with pytest.raises(EngineStalled):
            replica.log.apply(frame)
        assert replica.log.committed_seq == replica.log.last_seq == position
        assert replica.log.history == eras
        assert (everything(replica), replica.contents(0)) == (before, contents)
        assert replica[0].string(b"k") == contents[b"k"][0]
        replica.log.apply(frame)
        before, contents = everything(replica), replica.contents(0)
    assert everything(replica) == everything(primary)


def hostile_frames(good: Frame) -> Iterator[Frame]:
    records = decode_records(good.payload, good.records)
    assert len(records) > 1
    yield good._replace(epoch=good.epoch + 1)
    yield good._replace(first_seq=good.first_seq + 1)
    yield good._replace(last_seq=good.last_seq + 1)
    yield good._replace(unix_ms=good.unix_ms + 1)
    yield good._replace(records=good.records + 1)
    yield good._replace(payload=good.payload[:-1])
    yield good._replace(payload=good.payload + b"\x03\x01x")
    yield good._replace(payload=b"", records=0)
    end = good.payload[-len(entry(stamp(0, 0, 0))) :]
    for record in (
        (PUT, LOG, codec.UNTIL_KEY, bytes(16)),
        (DELETE, LOG, codec.REWINDS_KEY, b""),
        (PUT, 4, b"k", b"v"),
        (MERGE, 0, b"k", b"v"),
        (PUT, LOG, HISTORY_KEY, b"no history"),
    ):
        yield good._replace(payload=entry(record) + end, records=2)


def entry(record: Record) -> bytes:
    """A record as a batch holds it (all of these have a column family)."""
    op, cf, key, value = record
    tag = {PUT: 5, DELETE: 4, MERGE: 6}[op]
    tail = b"" if op == DELETE else bytes([len(value)]) + value
    return bytes([tag, cf, len(key)]) + key + tail


def test_a_frame_that_is_not_what_it_says_is_refused(primary: Store, replica: Store) -> None:
    primary[0].put_string(b"k", b"1")
    primary.commit()
    (good,) = frames_of(primary, 0)[1:]
    before = everything(replica)
    for frame in hostile_frames(good):
        with pytest.raises(FrameError):
            replica.log.apply(frame)
        assert everything(replica) == before
        assert (replica.log.committed_seq, replica.log.epoch) == (0, 1)
    replica.log.apply(good)
    assert replica[0].string(b"k") == b"1"


def test_an_applied_frame_outlives_the_process(primary: Store, replica: Store) -> None:
    change_much(primary)
    follow(replica, primary)
    reopened = replica.reopened()
    replica.engine = reopened.engine
    assert reopened.log.history == primary.log.history
    assert reopened.log.committed_seq == primary.log.committed_seq
    assert [reopened.contents(i) for i in range(3)] == [primary.contents(i) for i in range(3)]


def test_a_replica_with_more_databases_than_its_primary(
    primary: Store, replica: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emptied database doesn't take an id that another begins with, there or after a restart."""
    primary[0].put_string(b"k", b"1")
    primary.commit()
    primary.keyspace.flush(primary.keyspace.databases[0])
    primary[0].put_string(b"k", b"2")
    primary.commit()
    follow(replica, primary)
    monkeypatch.setattr("store.DATABASES", 2 * DATABASES)
    reopened = replica.reopened()
    replica.engine = reopened.engine
    contents = [reopened.contents(index) for index in range(2 * DATABASES)]
    assert contents == [{b"k": (b"2", 0)}] + [{}] * (2 * DATABASES - 1)
