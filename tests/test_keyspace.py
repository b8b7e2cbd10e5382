"""Databases over the commit log over RocksDB: rows, counts and the expiry index stay exact,
whatever is committed, refused, flushed, swapped, expired or opened again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store import CACHE_BYTES, DATABASES, NOW, Store

from kvserver import codec, expiry
from kvserver.storage.engine import EngineError, EngineStalled
from kvserver.storage.row_cache import ROW_OVERHEAD


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "db")
    yield store
    store.engine.close()


# -- refused batches -------------------------------------------------------------------------------


def test_nothing_of_a_refused_batch_stays(store: Store) -> None:
    later = NOW + 1000
    store[0].put_string(b"kept", b"1", later)
    store[0].put_string(b"other", b"1")
    store[1].put_string(b"swapped", b"1")
    store.commit()
    before = [store.contents(index) for index in range(DATABASES)]
    stored = store.stored(0)
    store[0].put_string(b"kept", b"2", later + 5)
    store[0].delete(b"other")
    store[0].put_string(b"new", b"2", later)
    store.keyspace.swap(0, 1)
    store.keyspace.flush(store.keyspace.databases[0])
    store[2].put_string(b"new", b"2")
    store.refused(EngineError("No space left on device"))
    store.log.rollback()
    assert [store.contents(index) for index in range(DATABASES)] == before
    assert store.stored(0) == stored
    assert store[0].string(b"kept") == b"1"
    assert store[0].string(b"new") is None
    assert not store.log.pending
    store[0].put_string(b"kept", b"3")
    store.commit()
    reopened = store.reopened()
    store.engine = reopened.engine
    assert reopened.contents(0) == {b"kept": (b"3", 0), b"other": (b"1", 0)}


def test_a_stalled_batch_waits_and_takes_more(store: Store) -> None:
    store[0].put_string(b"first", b"1", NOW + 1)
    store.refused(EngineStalled("Result incomplete: Write stall"))
    assert store[0].string(b"first") == b"1"
    assert store.log.pending
    store[0].put_string(b"second", b"2")
    store.commit()
    reopened = store.reopened()
    store.engine = reopened.engine
    assert reopened.contents(0) == {b"first": (b"1", NOW + 1), b"second": (b"2", 0)}
    assert reopened.log.committed_seq == 2


# -- whole databases -------------------------------------------------------------------------------


def test_an_emptied_database_takes_a_new_id_and_leaves_nothing_on_disk(store: Store) -> None:
    for number in range(100):
        store[0].put_string(b"%d" % number, b"v", NOW + number if number % 2 else 0)
        store[1].put_string(b"%d" % number, b"v", NOW + number)
    store.commit()
    ids = {db.id for db in store.keyspace.databases}
    assert store.keyspace.flush(store.keyspace.databases[0]) == 100
    store[0].put_string(b"1", b"after", NOW + 7)
    store.commit()
    assert store.contents(0) == {b"1": (b"after", NOW + 7)}
    assert len(store.contents(1)) == 100
    assert store.keyspace.databases[0].id not in ids
    assert len(store.stored(0)) == 101
    assert len(store.stored(2)) == 101


def test_rows_written_and_flushed_in_one_batch_are_gone(store: Store) -> None:
    store[0].put_string(b"k", b"v", NOW + 5)
    store.keyspace.flush(store.keyspace.databases[0])
    assert store.contents(0) == {}
    store.commit()
    assert store.contents(0) == {}
    assert store.stored(0) == store.stored(2) == {}


def test_flushing_an_empty_database_writes_nothing(store: Store) -> None:
    assert store.keyspace.flush(store.keyspace.databases[0]) == 0
    assert not store.log.changed


def test_swapped_databases_stay_swapped(store: Store) -> None:
    store[0].put_string(b"k", b"0", NOW + 5)
    store[2].put_string(b"k", b"2")
    store.keyspace.swap(0, 2)
    store.commit()
    reopened = store.reopened()
    store.engine = reopened.engine
    assert reopened.contents(0) == {b"k": (b"2", 0)}
    assert reopened.contents(2) == {b"k": (b"0", NOW + 5)}


# -- expiry ----------------------------------------------------------------------------------------


def test_due_keys_come_oldest_first_from_any_side_of_the_floor(store: Store) -> None:
    keyspace, db = store.keyspace, store.keyspace.databases[0]
    for number in (30, 10, 20, 40):
        store[0].put_string(b"%d" % number, b"v", NOW + number)
    store.commit()
    keyspace.now = NOW + 30
    assert [at - NOW for at, _ in keyspace.due(db)] == [10, 20, 30]
    assert expiry.expire_cycle(keyspace, 10**9) is False
    assert db.expiry_floor == NOW + 31
    assert store.contents(0) == {b"40": (b"v", NOW + 40)}
    # As after a copy of a row from a server whose clock is behind.
    store[0].put_string(b"late", b"v", NOW + 5)
    store.commit()
    assert [codec.user_key(row_key) for _, row_key in keyspace.due(db)] == [b"late"]
    expiry.expire_cycle(keyspace, 10**9)
    store.commit()
    assert store.contents(0) == {b"40": (b"v", NOW + 40)}


def test_a_cycle_stops_when_its_time_is_over_and_goes_on_later(store: Store) -> None:
    for index in (0, 1):
        for number in range(500):
            store[index].put_string(b"%d" % number, b"v", NOW + number)
    store.commit()
    store.keyspace.now = NOW + 1000
    before = store.log.last_seq
    assert expiry.expire_cycle(store.keyspace, 0) is True
    assert store.keyspace.expired_keys == expiry.CHUNK
    assert store.log.last_seq == before + 1
    assert not store.log.touched
    cycles = 1
    while expiry.expire_cycle(store.keyspace, 0):
        store.commit()
        cycles += 1
    assert cycles == 2 * (500 // expiry.CHUNK)
    store.commit()
    assert store.keyspace.expired_keys == 1000
    assert store.keyspace.total_keys() == 0
    assert store.stored(0) == store.stored(2) == {}


def test_nobody_deletes_while_expiry_is_off(store: Store) -> None:
    store[0].put_string(b"k", b"v", NOW + 1)
    store.commit()
    store.keyspace.now = NOW + 2
    store.keyspace.may_expire = False
    assert expiry.expire_cycle(store.keyspace, 10**9) is False
    assert store[0].row(b"k") is None
    assert store[0].current(b"k") is None
    assert not store[0].exists(b"k")
    assert store[0].random_key() is None
    assert not store.log.changed
    assert store[0].size() == 1
    store.keyspace.may_expire = True
    assert store[0].row(b"k") is None
    assert store[0].size() == 0


def test_writing_over_an_expired_row_counts_it_as_expired(store: Store) -> None:
    told: list[bytes] = []
    store.keyspace.on_expired = lambda _index, key: told.append(key)
    for key in (b"a", b"b"):
        store[0].put_string(key, b"v", NOW + 1)
    store.commit()
    store.keyspace.now = NOW + 2
    store[0].put_string(b"a", b"w")
    store[0].put_string(b"b", b"w", NOW + 9)
    assert told == [b"a", b"b"]
    assert store.contents(0) == {b"a": (b"w", 0), b"b": (b"w", NOW + 9)}


def test_a_random_key_is_there_and_may_be_any(store: Store) -> None:
    assert store[0].random_key() is None
    names = [b"key:%d" % number for number in range(20)]
    for name in names:
        store[0].put_string(name, b"v")
    store[0].put_string(b"expired", b"v", NOW - 1)
    store[1].put_string(b"elsewhere", b"v")
    store.commit()
    store[0].put_string(b"fresh", b"v")
    found = {store[0].random_key() for _ in range(2000)}
    assert found == {*names, b"fresh"}


# -- everything at once --------------------------------------------------------------------------

KEYS = st.sampled_from([b"a", b"b", b"{a}c", b"d", b""])
INDEXES = st.integers(0, DATABASES - 1)
Model = list[dict[bytes, tuple[bytes, int]]]


class KeyspaceMachine(RuleBasedStateMachine):
    """Any sequence of changes, beside dictionaries."""

    @initialize(cache_bytes=st.sampled_from([0, 2000, CACHE_BYTES]))
    def open(self, cache_bytes: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="keyspace-"))
        self.store = Store(self.path, cache_bytes)
        self.model: Model = [{} for _ in range(DATABASES)]
        self.committed = self.copy()

    def copy(self) -> Model:
        return [dict(database) for database in self.model]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.engine.close()
            shutil.rmtree(self.path)

    @property
    def now(self) -> int:
        return self.store.keyspace.now

    def live(self, index: int, key: bytes) -> bool:
        _, at = self.model[index].get(key, (b"", 0))
        return key in self.model[index] and not 0 < at <= self.now

    @rule(index=INDEXES, key=KEYS, value=st.binary(max_size=40), ttl=st.integers(0, 3))
    def put(self, index: int, key: bytes, value: bytes, ttl: int) -> None:
        expire_ms = self.now + ttl if ttl else 0
        self.store[index].put_string(key, value, expire_ms)
        self.model[index][key] = value, expire_ms

    @rule(index=INDEXES, key=KEYS)
    def delete(self, index: int, key: bytes) -> None:
        assert self.store[index].delete(key) == self.live(index, key)
        self.model[index].pop(key, None)

    @rule(index=INDEXES, key=KEYS)
    def read(self, index: int, key: bytes) -> None:
        row = self.store[index].row(key)
        if self.live(index, key):
            assert row == codec.string_row(*self.model[index][key])
        else:
            assert row is None
            self.model[index].pop(key, None)

    @rule(milliseconds=st.integers(1, 3))
    def wait(self, milliseconds: int) -> None:
        self.store.keyspace.now += milliseconds

    @rule()
    def expire(self) -> None:
        expiry.expire_cycle(self.store.keyspace, 10**9)
        for index, database in enumerate(self.model):
            for key in [key for key in database if not self.live(index, key)]:
                del database[key]

    @rule(index=INDEXES)
    def flush(self, index: int) -> None:
        count = self.store.keyspace.flush(self.store.keyspace.databases[index])
        assert count == len(self.model[index])
        self.model[index] = {}

    @rule(first=INDEXES, second=INDEXES)
    def swap(self, first: int, second: int) -> None:
        self.store.keyspace.swap(first, second)
        model = self.model
        model[first], model[second] = model[second], model[first]

    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.committed = self.copy()

    @rule()
    def stall(self) -> None:
        self.store.refused(EngineStalled("Result incomplete: Write stall"))

    @rule()
    def fail(self) -> None:
        self.store.refused(EngineError("No space left on device"))
        self.store.log.rollback()
        self.model = [dict(database) for database in self.committed]

    @rule()
    def reopen(self) -> None:
        self.commit()
        self.store = self.store.reopened()

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def agrees(self) -> None:
        for index in range(DATABASES):
            assert self.store.contents(index) == self.model[index]
            lower, upper = self.store[index].bounds()
            forwards = list(self.store.rows.scan(lower, upper))
            assert list(self.store.rows.scan(lower, upper, reverse=True)) == forwards[::-1]
            assert all(self.store.rows.get_uncached(key) == row for key, row in forwards)
        slack = 2 * (self.store.rows.cache.row_limit + ROW_OVERHEAD + 20)
        assert self.store.rows.cache.cached_bytes <= self.store.log.cache.size + slack


TestKeyspaceMachine = KeyspaceMachine.TestCase
TestKeyspaceMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
