"""Databases over the commit log over RocksDB: rows, counts and the expiry index stay exact,
whatever is committed, refused, flushed, swapped, expired or opened again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvserver import codec, expiry
from kvserver.directives import default_config
from kvserver.keyspace import Keyspace, Writer
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.engine import Engine, EngineError, EngineStalled
from kvserver.storage.table import ROW_OVERHEAD, CachedTable

DATABASES = 3
CACHE_BYTES = 64 * 1024
NOW = 1_700_000_000_000


class Store:
    """A data directory with everything up to the keyspace."""

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.path = path
        self.engine = Engine(str(path), default_config())
        self.log = CommitLog(self.engine, cache_bytes)
        self.keyspace = Keyspace(self.log, DATABASES)
        self.keyspace.now = NOW

    def __getitem__(self, index: int) -> Writer:
        return self.keyspace.writers[index]

    @property
    def rows(self) -> CachedTable:
        return self.log.rows

    def commit(self) -> None:
        """The turn is over."""
        if self.log.changed:
            self.log.advance()
        if self.log.pending:
            self.log.commit()

    def refused(self, error: EngineError) -> None:
        """The turn is over, and RocksDB refuses its batch."""
        if self.log.changed:
            self.log.advance()

        def refuse(_batch: Any) -> None:
            raise error

        self.engine.write = refuse  # type: ignore[method-assign]
        with pytest.raises(type(error)):
            self.log.commit()
        del self.engine.write

    def reopened(self) -> Store:
        now = self.keyspace.now
        self.engine.close()
        store = Store(self.path, self.rows.half * 2)
        store.keyspace.now = now
        return store

    def stored(self, cf: int) -> dict[bytes, bytes]:
        """What RocksDB holds."""
        return dict(self.engine.scan(cf, b"", b"\xff" * 8))

    def contents(self, index: int) -> dict[bytes, tuple[bytes, int]]:
        """{key: (value, expire_ms)}, expired ones included; counts and index must agree."""
        db = self.keyspace.databases[index]
        lower, upper = self[index].bounds()
        rows = dict(self.rows.scan(lower, upper))
        expiring = {key: codec.row_expire(row) for key, row in rows.items()}
        index_entries = {codec.expiry_key(key, at) for key, at in expiring.items() if at}
        assert dict(self.log.expiry.scan(lower, upper)).keys() == index_entries
        assert db.keys == len(rows)
        assert db.expires == len(index_entries)
        assert db.expire_sum == sum(expiring.values())
        return {
            codec.user_key(key): (codec.row_value(row), expiring[key]) for key, row in rows.items()
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "db")
    yield store
    store.engine.close()


# -- the overlay -------------------------------------------------------------------------------


def test_uncommitted_rows_are_read_and_nothing_is_stored(store: Store) -> None:
    store[0].put_string(b"k", b"v")
    assert store[0].string(b"k") == b"v"
    assert store.contents(0) == {b"k": (b"v", 0)}
    assert store.stored(0) == {}
    store.commit()
    assert list(store.stored(0).values()) == [codec.string_row(b"v")]
    store[0].delete(b"k")
    assert store[0].string(b"k") is None
    assert store[0].row(b"k") is None
    assert store.contents(0) == {}
    assert len(store.stored(0)) == 1
    store.commit()
    assert store.stored(0) == {}


def test_reads_of_unreleased_rows_are_noted(store: Store) -> None:
    log = store.log
    store[0].put_string(b"k", b"v")
    log.advance()
    log.touched = False
    for read, noted in (
        (lambda: store[0].row(b"other"), False),
        (lambda: store[0].row(b"k"), True),
        (lambda: store[0].exists(b"k"), True),
        (lambda: store[0].look(b"k"), True),
        (lambda: store[0].size(), True),
        (lambda: list(store[1].scan(*store[1].bounds())), True),
    ):
        read()
        assert log.touched is noted
        log.touched = False
    log.commit()
    store[0].row(b"k")
    store[0].size()
    assert log.touched is False


def test_scan_merges_both_ways(store: Store) -> None:
    rows = store.rows
    for key in (b"b", b"d", b"f", b"h"):
        rows.put(key, b"stored " + key)
    store.commit()
    rows.put(b"a", b"new")
    rows.put(b"d", b"changed")
    rows.put(b"e", b"new")
    rows.delete(b"f")
    rows.delete(b"g")  # was never there
    rows.put(b"i", b"new")
    rows.delete(b"i")
    rows.put(b"j", b"new")
    expected = [
        (b"a", b"new"),
        (b"b", b"stored b"),
        (b"d", b"changed"),
        (b"e", b"new"),
        (b"h", b"stored h"),
        (b"j", b"new"),
    ]
    names = [b"", b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i", b"j", b"k"]
    for lower in names:
        for upper in names:
            within = [(key, row) for key, row in expected if lower <= key < upper]
            assert list(rows.scan(lower, upper)) == within
            assert list(rows.scan(lower, upper, reverse=True)) == within[::-1]


def test_walk_jumps_over_uncommitted_and_stored_rows(store: Store) -> None:
    for key in (b"b", b"d", b"f"):
        store.rows.put(key, b"stored")
    store.commit()
    for fresh in (False, True):
        if fresh:
            store.rows.put(b"c", b"fresh")
            store.rows.put(b"d", b"fresh")
            store.rows.delete(b"f")
        walk = store.rows.walk(b"a", b"z")
        assert (walk.key(), walk.value()) == (b"b", b"stored")
        walk.seek(b"c\x00")
        assert (walk.key(), walk.value()) == (b"d", b"fresh" if fresh else b"stored")
        walk.seek(b"bb")
        assert walk.key() == (b"c" if fresh else b"d")
        walk.seek(b"e")
        assert walk.key() == (None if fresh else b"f")
        walk.seek(b"zz")
        assert walk.key() is None
        walk.check()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pending", [False, True])
def test_a_scan_keeps_the_view_of_its_beginning(store: Store, reverse: bool, pending: bool) -> None:
    keys = [b"%03d" % number for number in range(100)]
    for key in keys:
        store.rows.put(key, b"before")
    if not pending:
        store.commit()
    walk = store.rows.scan(b"", b"z", reverse)
    first = next(walk)
    for key in keys:
        store.rows.put(key, b"after")
    store.rows.delete(b"050")
    store.rows.put(b"0505", b"after")
    store.commit()
    expected = [(key, b"before") for key in keys]
    assert [first, *walk] == (expected[::-1] if reverse else expected)


def test_a_reversed_scan_ends_at_its_bound(store: Store) -> None:
    for index in range(DATABASES):
        for number in range(50):
            store[index].put_string(b"%d" % number, b"%d" % index)
    store.commit()
    lower, upper = store[1].bounds()
    forwards = list(store.rows.scan(lower, upper))
    assert len(forwards) == 50
    assert list(store.rows.scan(lower, upper, reverse=True)) == forwards[::-1]


# -- the cache -----------------------------------------------------------------------------------


def test_the_cache_is_bounded_and_hits_keep_rows(tmp_path: Path) -> None:
    size = ROW_OVERHEAD + 20
    store = Store(tmp_path / "db", 100 * size)
    rows = store.rows
    for number in range(1000):
        rows.put(b"%08d" % number, b"%012d" % number)
        store.commit()
        rows.get(b"%08d" % 0)
        assert rows.cached_bytes <= 102 * size  # each generation ends with the row over its half
        assert rows.cached_rows <= 102
    assert rows.cached_rows >= 50
    before = rows.misses
    assert rows.get(b"%08d" % 0) == b"%012d" % 0
    assert rows.get(b"%08d" % 999) == b"%012d" % 999
    assert rows.misses == before
    assert rows.get(b"%08d" % 1) == b"%012d" % 1
    assert rows.misses == before + 1
    store.engine.close()


def test_rows_that_grow_in_place_do_not_outgrow_the_cache(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", 1 << 20)
    rows = store.rows
    for size in (1, 1000, rows.row_limit):
        for number in range(200):
            rows.put(b"%d" % number, b"x" * size)
            assert rows.cached_bytes <= (1 << 20) + 2 * (rows.row_limit + ROW_OVERHEAD)
    assert all(rows.get(b"%d" % number) == b"x" * rows.row_limit for number in range(200))
    store.commit()
    assert all(rows.get(b"%d" % number) == b"x" * rows.row_limit for number in range(200))
    store.engine.close()


def test_a_row_too_large_for_the_cache_is_not_in_it(store: Store) -> None:
    rows = store.rows
    rows.put(b"k", b"small")
    rows.put(b"k", b"x" * (rows.row_limit + 1))
    assert rows.cached_rows == 0
    assert rows.cached_bytes == 0
    assert rows.get(b"k") == b"x" * (rows.row_limit + 1)
    store.commit()
    assert rows.get(b"k") == b"x" * (rows.row_limit + 1)
    rows.put(b"k", b"small")
    assert rows.get(b"k") == b"small"
    store.commit()
    assert rows.cached_rows == 1


def test_a_cache_of_no_bytes_holds_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", 0)
    store[0].put_string(b"k", b"v")
    assert store[0].string(b"k") == b"v"
    store.commit()
    assert store[0].string(b"k") == b"v"
    assert store.rows.cached_rows == 0
    store.engine.close()


def test_looking_at_a_row_is_no_use_of_it(store: Store) -> None:
    store[0].put_string(b"k", b"v")
    store.commit()
    store.rows.forget()
    row, _ = store[0].look(b"k")
    assert row == codec.string_row(b"v")
    assert store.rows.cached_rows == 0
    assert store[0].look(b"missing")[0] is None
    store[0].row(b"k")
    assert store[0].look(b"k")[1] == 0


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
        slack = 2 * (self.store.rows.row_limit + ROW_OVERHEAD + 20)
        assert self.store.rows.cached_bytes <= self.store.rows.half * 2 + slack


TestKeyspaceMachine = KeyspaceMachine.TestCase
TestKeyspaceMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
