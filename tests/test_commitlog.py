"""The commit log: eras, positions that go back, and what releases replies."""

from __future__ import annotations

import pytest
from replica_logs import batches_of, follow, frames_of, refuse, stamp
from replica_logs import primary as primary
from replica_logs import replica as replica
from store import Store

from kvserver import codec, history
from kvserver.codec import HISTORY_KEY, STAMP, STAMP_KEY
from kvserver.keyspace import WATCHED
from kvserver.storage.commitlog import LOG, EngineError, EngineStalled
from kvserver.storage.wal_batch import DELETE, PUT

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
