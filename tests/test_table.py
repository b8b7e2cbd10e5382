"""Tables: uncommitted rows over stored ones, walks in both directions, and the row cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store import DATABASES, Store

from kvserver import codec
from kvserver.storage.row_cache import ROW_OVERHEAD


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
        (lambda: list(store.rows.scan(*store[1].bounds())), True),
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
        assert (
            rows.cache.cached_bytes <= 102 * size
        )  # each generation ends with the row over its half
        assert rows.cache.cached_rows <= 102
    assert rows.cache.cached_rows >= 50
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
    for size in (1, 1000, rows.cache.row_limit):
        for number in range(200):
            rows.put(b"%d" % number, b"x" * size)
            assert rows.cache.cached_bytes <= (1 << 20) + 2 * (rows.cache.row_limit + ROW_OVERHEAD)
    assert all(rows.get(b"%d" % number) == b"x" * rows.cache.row_limit for number in range(200))
    store.commit()
    assert all(rows.get(b"%d" % number) == b"x" * rows.cache.row_limit for number in range(200))
    store.engine.close()


def test_a_row_too_large_for_the_cache_is_not_in_it(store: Store) -> None:
    rows = store.rows
    rows.put(b"k", b"small")
    rows.put(b"k", b"x" * (rows.cache.row_limit + 1))
    assert rows.cache.cached_rows == 0
    assert rows.cache.cached_bytes == 0
    assert rows.get(b"k") == b"x" * (rows.cache.row_limit + 1)
    store.commit()
    assert rows.get(b"k") == b"x" * (rows.cache.row_limit + 1)
    rows.put(b"k", b"small")
    assert rows.get(b"k") == b"small"
    store.commit()
    assert rows.cache.cached_rows == 1


def test_a_cache_of_no_bytes_holds_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", 0)
    store[0].put_string(b"k", b"v")
    assert store[0].string(b"k") == b"v"
    store.commit()
    assert store[0].string(b"k") == b"v"
    assert store.rows.cache.cached_rows == 0
    store.engine.close()


def test_looking_at_a_row_is_no_use_of_it(store: Store) -> None:
    store[0].put_string(b"k", b"v")
    store.commit()
    store.rows.cache.clear()
    row, _ = store[0].look(b"k")
    assert row == codec.string_row(b"v")
    assert store.rows.cache.cached_rows == 0
    assert store[0].look(b"missing")[0] is None
    store[0].row(b"k")
    assert store[0].look(b"k")[1] == 0


def test_a_range_is_forgotten_and_written_again_among_others(store: Store) -> None:
    data = store.log.data
    for number in (5, 1, 9, 3, 7):
        data.put(b"%d" % number, b"old")
    assert [key for key, _ in data.scan(b"0", b":")] == [b"1", b"3", b"5", b"7", b"9"]
    store.log.delete_range(data, b"3", b"6")
    data.put(b"4", b"new")
    data.put(b"5", b"new")
    store.log.delete_range(data, b"5", b"8")
    data.put(b"6", b"new")
    expected = [(b"1", b"old"), (b"4", b"new"), (b"6", b"new"), (b"9", b"old")]
    assert list(data.scan(b"0", b":")) == expected
    assert list(data.scan(b"0", b":", reverse=True)) == expected[::-1]
    store.commit()
    assert list(store.stored(1).items()) == expected
