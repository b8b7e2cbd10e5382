"""The commit log as replication uses it: eras, and a primary's batches installed in a replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store import CACHE_BYTES, DATABASES, NOW, Store

from kvserver import codec, frames, history
from kvserver.codec import HISTORY_KEY, STAMP, STAMP_KEY
from kvserver.frames import Frame, FrameError
from kvserver.keyspace import WATCHED
from kvserver.storage.commitlog import DATA, LOG, EngineError, EngineStalled
from kvserver.storage.table import ROW_OVERHEAD
from kvserver.storage.wal import WalReader
from kvserver.storage.wal_batch import (
    BATCH_HEADER,
    DELETE,
    DELETE_RANGE,
    MERGE,
    PUT,
    Record,
    decode_records,
)


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "primary")
    yield store
    store.engine.close()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "replica")
    yield store
    store.engine.close()


def frames_of(store: Store, after: int = 0) -> list[Frame]:
    """What a primary sends to who has position `after`; 0: the genesis batch too."""
    found = []
    with closing(WalReader(str(store.path))) as reader:
        while (batch := reader.read()) is not None:
            records = batch.records()
            if records and records[-1][2] == STAMP_KEY:
                stamp = STAMP.unpack(records[-1][3])
                if stamp[2] > after or not after:
                    payload = batch.payload[BATCH_HEADER:]
                    found.append(Frame(frames.DATA, *stamp[:3], batch.count, stamp[3], payload))
    return found


def follow(replica: Store, primary: Store) -> None:
    """The replica takes whatever it doesn't have."""
    for frame in frames_of(primary, replica.log.committed_seq):
        replica.log.apply(frame)


def batches_of(store: Store) -> list[list[Record]]:
    with closing(WalReader(str(store.path))) as reader:
        return [batch.records() for batch in iter(reader.read, None)]


def stamp(epoch: int, first: int, last: int) -> Record:
    return PUT, LOG, STAMP_KEY, STAMP.pack(epoch, first, last, NOW)


def everything(store: Store) -> list[dict[bytes, bytes]]:
    return [store.stored(cf) for cf in range(4)]


def refuse(store: Store, error: EngineError) -> None:
    """RocksDB refuses the next batch."""
    write = store.engine.write

    def once(_batch: Any) -> None:
        store.engine.write = write  # type: ignore[method-assign]
        raise error

    store.engine.write = once  # type: ignore[method-assign]


# -- eras ------------------------------------------------------------------------------------------


def test_a_new_data_set_begins_with_its_history(primary: Store) -> None:
    log = primary.log
    (era,) = log.history.eras
    assert (era.epoch, era.first_seq) == (1, 0)
    assert (log.epoch, log.committed_seq, log.last_seq) == (1, 0, 0)
    ((_, _, key, row), (_, _, stamp_key, stamp_row)) = batches_of(primary)[0]
    assert (key, stamp_key) == (HISTORY_KEY, STAMP_KEY)
    assert history.decode(row) == log.history
    assert STAMP.unpack(stamp_row)[:3] == (1, 0, 0)


def test_a_data_set_keeps_its_history(primary: Store) -> None:
    primary[0].put_string(b"a", b"1")
    primary.commit()
    before = primary.log.history
    reopened = primary.reopened()
    primary.engine = reopened.engine
    assert reopened.log.history == before
    assert len(batches_of(reopened)) == 2


def test_a_data_set_from_before_replication_gets_a_history(primary: Store) -> None:
    primary[0].put_string(b"a", b"1")
    primary.commit()
    primary.log.install([(DELETE, LOG, HISTORY_KEY, b""), stamp(1, 2, 1)])
    reopened = primary.reopened()
    primary.engine = reopened.engine
    assert reopened.log.committed_seq == 1
    assert reopened.log.meta.get(HISTORY_KEY) == reopened.log.history.encode()


def test_a_damaged_history_is_refused(primary: Store) -> None:
    batch = primary.engine.batch()
    primary.engine.batch_put(batch, LOG, HISTORY_KEY, b"x")
    primary.engine.write(batch)
    with pytest.raises(EngineError, match="not a replication history in the log"):
        primary.log.reload()


def test_an_era_takes_a_position_of_its_own(primary: Store) -> None:
    log = primary.log
    primary[0].put_string(b"a", b"1")
    primary.commit()
    first = log.history
    log.begin_epoch()
    assert (log.last_seq, log.pending, log.changed, log.touched) == (2, True, False, False)
    assert log.history == first, "not committed yet"
    log.commit()
    assert log.history.eras[:1] == first.eras
    assert (log.history.current.epoch, log.history.current.first_seq) == (2, 2)
    assert log.history.current.replid != first.current.replid
    primary[0].put_string(b"a", b"2")
    primary.commit()
    heads = [frame[1:4] for frame in frames_of(primary, 1)]
    assert heads == [(2, 2, 2), (2, 3, 3)]
    reopened = primary.reopened()
    primary.engine = reopened.engine
    assert (reopened.log.history, reopened.log.epoch) == (log.history, 2)


def test_an_era_that_is_not_committed_yet_will_do(primary: Store) -> None:
    log = primary.log
    log.begin_epoch()
    refuse(primary, EngineStalled("Result incomplete: Write stall"))
    with pytest.raises(EngineStalled):
        log.commit()
    primary[0].put_string(b"a", b"1")
    log.advance()
    log.begin_epoch()
    log.commit()
    assert (log.committed_seq, log.history.current.first_seq, log.epoch) == (2, 1, 2)


def test_a_refused_era_has_not_begun(primary: Store) -> None:
    log = primary.log
    before = log.history
    log.begin_epoch()
    refuse(primary, EngineError("No space left on device"))
    with pytest.raises(EngineError):
        log.commit()
    log.rollback()
    assert (log.history, log.epoch, log.pending) == (before, 1, False)
    primary[0].put_string(b"a", b"1")
    primary.commit()
    assert (log.history, log.epoch, log.committed_seq) == (before, 1, 1)
    assert log.meta.get(HISTORY_KEY) == before.encode()
    log.begin_epoch()
    log.commit()
    assert (log.history.current.first_seq, log.epoch) == (2, 2)


def test_an_era_follows_those_that_count(primary: Store) -> None:
    """A rewound replica knows of eras that begin after its last position."""
    log = primary.log
    known = log.history.branched(history.new_replid(), 10).branched(history.new_replid(), 20)
    log.install([(PUT, LOG, HISTORY_KEY, known.encode()), stamp(2, 1, 15)])
    log.begin_epoch()
    log.commit()
    assert [(era.epoch, era.first_seq) for era in log.history.eras] == [(1, 0), (2, 10), (3, 16)]


# -- frames ----------------------------------------------------------------------------------------


def change_much(store: Store) -> None:
    """A history with everything that a batch may hold."""
    for number in range(50):
        store[0].put_string(b"%d" % number, b"v", NOW + number if number % 2 else 0)
        store[1].put_string(b"%d" % number, b"v")
    store.commit()
    for number in range(0, 50, 3):
        store[0].delete(b"%d" % number)
    store.commit()
    store.keyspace.flush(store.keyspace.databases[1])
    store.commit()
    store.log.begin_epoch()
    store.log.commit()
    store.keyspace.swap(0, 2)
    store[1].put_string(b"last", b"v", NOW + 5)
    store.commit()


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
    assert replica.rows.cached_bytes == sum(
        ROW_OVERHEAD + len(key) + len(row)
        for rows in (replica.rows.young, replica.rows.old)
        for key, row in rows.items()
    )


def test_rows_of_the_old_generation_follow(primary: Store, replica: Store) -> None:
    row_key = primary[0].row_key(b"old")
    primary[0].put_string(b"old", b"1")
    primary.commit()
    follow(replica, primary)
    replica[0].string(b"old")
    number = 0
    while row_key not in replica.rows.old:
        replica.rows._remember(b"%d" % number, b"x" * 100)
        number += 1
    primary[0].put_string(b"old", b"22")
    primary.commit()
    follow(replica, primary)
    assert row_key not in replica.rows.old
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
    assert replica.rows.cached_rows == 0
    assert replica[0].string(b"k") == large


def test_a_cache_grows_no_larger_by_what_is_installed(primary: Store, replica: Store) -> None:
    for size in (1, 1000):
        for number in range(200):
            primary[0].put_string(b"%d" % number, bytes(size))
        primary.commit()
        follow(replica, primary)
        for number in range(200):
            assert replica[0].string(b"%d" % number) == bytes(size)
            assert replica.rows.cached_bytes <= CACHE_BYTES + 2 * (1000 + ROW_OVERHEAD)


def test_elements_of_dropped_ranges_follow(primary: Store, replica: Store) -> None:
    """A range of elements leaves the others in a replica's cache; a rewind empties it."""
    epoch, data = primary.log.epoch, replica.log.data
    rows: list[Record] = [(PUT, DATA, b"kept", b"1"), (PUT, DATA, b"range:1", b"1")]
    replica.log.install([*rows, stamp(epoch, 1, 1)])
    assert [data.get(key) for key in (b"kept", b"range:1")] == [b"1", b"1"]
    dropped: Record = (DELETE_RANGE, DATA, b"range:", b"range;")
    replica.log.install([dropped, (PUT, DATA, b"range:1", b"2"), stamp(epoch, 2, 2)])
    assert data.cached_rows == 2
    assert [data.get(key) for key in (b"kept", b"range:1")] == [b"1", b"2"]
    replica.log.install([dropped, stamp(epoch, 1, 1)])
    assert data.cached_rows == 0
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


# -- rewinds ---------------------------------------------------------------------------------------


def test_positions_go_back(replica: Store) -> None:
    for number in range(5):
        replica[0].put_string(b"%d" % number, b"v")
        replica.commit()
    log = replica.log
    seq = log.begin_sync()
    assert seq == 5
    record = codec.pack_database(0, 2, 0, 0)
    gone = [(DELETE, 0, replica[0].row_key(b"%d" % number), b"") for number in (2, 3, 4)]
    database = (PUT, LOG, replica.keyspace.databases[0].record_key(), record)
    log.install([*gone, database, stamp(1, 3, 2)])
    assert (log.committed_seq, log.last_seq, log.released_seq, log.pending) == (2, 2, 2, False)
    assert replica.contents(0) == {b"0": (b"v", 0), b"1": (b"v", 0)}
    replica[0].put_string(b"new", b"v")
    replica.commit()
    log.end_sync(seq)
    assert (log.committed_seq, log.synced_seq) == (3, 2), "the fsync is older than position 3"
    seq = log.begin_sync()
    assert seq == 3
    log.end_sync(seq)
    assert log.synced_seq == 3


# -- who watches -----------------------------------------------------------------------------------


def test_watchers_hear_of_installed_changes(primary: Store, replica: Store) -> None:
    heard: list[tuple[str, int, bytes]] = []
    watched = [(0, b"put"), (0, b"deleted"), (0, b"kept"), (1, b"kept"), (2, b"missing")]
    for index, key in watched[:-1]:
        primary[index].put_string(key, b"1")
    primary.commit()
    follow(replica, primary)
    keyspace = replica.keyspace
    keyspace.watched = dict.fromkeys(watched)
    keyspace.observe(WATCHED, True)
    keyspace.on_touch = lambda index, key: heard.append(("touch", index, key))
    keyspace.on_vanish = lambda index, key: heard.append(("vanish", index, key))

    def hears() -> list[tuple[str, int, bytes]]:
        heard.clear()
        primary.commit()
        follow(replica, primary)
        return sorted(heard)

    primary[0].put_string(b"put", b"2")
    primary[0].put_string(b"nobody", b"2")
    primary[1].put_string(b"put", b"2")
    primary[0].delete(b"deleted")
    assert hears() == [("touch", 0, b"put"), ("vanish", 0, b"deleted")]
    primary.keyspace.swap(1, 2)
    assert hears() == [("vanish", 1, b"kept"), ("vanish", 2, b"missing")]
    primary[2].put_string(b"missing", b"1")
    assert hears() == [("touch", 2, b"missing")]
    primary.keyspace.flush(primary.keyspace.databases[0])
    found = {what for what in hears() if what[0] == "touch"}
    assert (len(heard), found) == (5, {("touch", 2, b"missing")})


# -- release ---------------------------------------------------------------------------------------


def test_released_is_the_least_of_what_is_waited_for(primary: Store) -> None:
    log = primary.log
    log.set_wait_for_sync(True)
    log.set_quorum(2)
    for number in range(4):
        primary[0].put_string(b"%d" % number, b"v")
        primary.commit()
    assert log.released_seq == 0
    log.acknowledged(3)
    assert log.released_seq == 0
    seq = log.begin_sync()
    assert seq == 4
    log.end_sync(seq)
    assert log.released_seq == 3
    log.acknowledged(1)
    assert (log.acked_seq, log.released_seq) == (3, 3), "it has been acknowledged"
    primary[0].put_string(b"4", b"v")
    primary.commit()
    log.give_up(5)
    assert log.released_seq == 4
    log.set_wait_for_sync(False)
    assert log.released_seq == 5
    assert not log.unsettled


def test_a_larger_quorum_must_acknowledge_anew(primary: Store) -> None:
    log = primary.log
    log.set_quorum(1)
    log.set_wait_for_sync(True)
    primary[0].put_string(b"k", b"v")
    primary.commit()
    log.acknowledged(1)
    log.set_quorum(2)
    log.set_wait_for_sync(False)
    assert log.released_seq == 0
    log.acknowledged(1)
    assert log.released_seq == 1
    primary[0].put_string(b"k", b"v")
    primary.commit()
    assert log.released_seq == 1
    log.set_quorum(0)
    assert log.released_seq == 2


def test_reads_depend_on_unreleased_keys_only(primary: Store) -> None:
    log = primary.log
    log.set_quorum(1)
    for number in range(5000):
        primary[0].put_string(b"%d" % number, b"v")
        if number % 100 == 99:
            primary.commit()
            log.acknowledged(log.committed_seq - 2)
    assert log.unsettled
    noted = set()
    for number in range(5000):
        log.touched = False
        primary[0].row(b"%d" % number)
        if log.touched:
            noted.add(number)
    assert noted == set(range(4800, 5000))
    assert len(log._unreleased) <= 3000, "released keys are forgotten"
    log.acknowledged(log.committed_seq)
    assert not log._unreleased
    log.touched = False
    primary[0].row(b"4999")
    assert not log.touched


def test_what_waits_for_the_quorum_goes_on_waiting_when_rocksdb_is_opened_again(
    primary: Store,
) -> None:
    log = primary.log
    log.set_quorum(1)
    for number in range(3):
        primary[0].put_string(b"%d" % number, b"v")
        primary.commit()
        log.acknowledged(1)
    primary.engine.reopen()
    assert log.reload() == 0
    assert (log.committed_seq, log.released_seq, log.unsettled) == (3, 1, True)
    for key, noted in ((b"0", False), (b"2", True)):
        log.touched = False
        primary[0].row(key)
        assert log.touched is noted
    log.acknowledged(3)
    assert (log.released_seq, log.unsettled) == (3, False)


def test_nobody_waits_for_what_is_installed(primary: Store, replica: Store) -> None:
    primary[0].put_string(b"k", b"v")
    primary.commit()
    replica.log.set_wait_for_sync(True)
    replica.log.set_quorum(1)
    follow(replica, primary)
    assert not replica.log.unsettled
    replica[0].row(b"k")
    assert not replica.log.touched
    assert replica.log.synced_seq == 0
    seq = replica.log.begin_sync()
    assert seq == 1
    replica.log.end_sync(seq)
    assert replica.log.synced_seq == 1


def test_own_writes_wait_for_their_fsync_while_frames_come_in(
    primary: Store, replica: Store
) -> None:
    """A primary with `appendfsync always` has just become a replica."""
    log = replica.log
    log.set_wait_for_sync(True)
    replica[0].put_string(b"k", b"v")
    replica.commit()
    seq = log.begin_sync()
    assert seq == 1
    log.install([stamp(1, 2, 2)])
    assert (log.released_seq, log.unsettled) == (0, True)
    log.end_sync(seq)
    assert log.released_seq == 1
    seq = log.begin_sync()
    assert seq == 2
    log.end_sync(seq)
    assert (log.released_seq, log.unsettled) == (2, False)
