"""The row cache by itself: what it holds, within which bounds, and how two share a budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvserver.storage.commitlog import ELEMENT_BYTE, ROW_BYTE
from kvserver.storage.row_cache import ROW_OVERHEAD, SHARDS, Budget, RowCache

KEYS = [b"", b"a", b"slot=5", *(b"key:%03d" % number for number in range(40))]
KIB = 1024


def fill(cache: RowCache, size: int) -> int:
    """Add new rows of so many bytes; returns how many."""
    count = size // (16 + 100 + ROW_OVERHEAD)
    for _ in range(count):
        cache.add(b"row:%012d" % random.randrange(10**12), bytes(100))
    return count


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "remove", "get", "clear", "age"]),
            st.sampled_from(KEYS),
            st.integers(0, 300),
        ),
        max_size=60,
    )
)
def test_it_holds_what_was_written_last_within_its_bounds(
    steps: list[tuple[str, bytes, int]],
) -> None:
    cache, model = RowCache(5), dict[bytes, bytes]()
    cache.resize(4 * KIB, 200)
    for number, (step, key, size) in enumerate(steps):
        row = b"%d" % number + bytes(size)
        if step == "put":
            before = cache.young[cache.shard_of(key)].get(key)
            if before is None:
                cache.add(key, row)
            else:
                cache.replace(key, before, row)
            model[key] = row
        elif step == "remove":
            cache.remove(key)
            assert cache.find(key) is None
        elif step == "get":
            assert cache.young[cache.shard_of(key)].get(key) or cache.revive(key) in (
                None,
                model.get(key),
            )
        elif step == "clear":
            cache.clear()
            assert (cache.cached_rows, cache.cached_bytes) == (0, 0)
        else:
            cache.age()
        there = {key: cache.find(key) for key in KEYS}
        assert all(row in (None, model.get(key)) for key, row in there.items())
        assert all(row is None or len(row) <= 200 for row in there.values())
        assert cache.cached_bytes <= 4 * KIB + 2 * (200 + ROW_OVERHEAD + 10)
        assert cache.cached_bytes == sum(
            len(key) + len(row) + ROW_OVERHEAD
            for shard in (*cache.young, *cache.old)
            for key, row in shard.items()
        )


def test_rows_in_use_survive_others() -> None:
    cache = RowCache(5)
    cache.resize(64 * KIB, KIB)
    cache.add(b"used", b"1")
    cache.add(b"unused", b"1")
    for _ in range(20):
        fill(cache, 8 * KIB)
        assert cache.find(b"used") == b"1"
        if cache.young[cache.shard_of(b"used")].get(b"used") is None:
            assert cache.revive(b"used") == b"1"
    assert cache.find(b"unused") is None


def test_dropped_rows_are_freed_little_by_little() -> None:
    cache = RowCache(5)
    cache.resize(1 << 20, KIB)
    added = fill(cache, 400 * KIB)
    cache.clear()
    assert cache.free_dropped(100), "there are more"
    calls = 1
    while cache.free_dropped(100):
        calls += 1
    assert added // 100 - 1 <= calls <= added // 100 + 256 // 50 + 1


def test_a_cache_without_a_size_holds_nothing() -> None:
    first, second = RowCache(5), RowCache(5)
    for size in (0, 1):
        Budget(first, second).resize(size)
        first.add(b"key", b"")
        first.add(b"key", b"row")
        assert (first.cached_rows, first.cached_bytes) == (0, 0)


def test_shards_are_even() -> None:
    """With keys as they are in the two tables."""
    chance = random.Random(1)
    db, count = bytes(4), 50_000
    slots = [chance.randrange(16384).to_bytes(2, "big") for _ in range(count)]
    for byte, shards, keys in (
        (ROW_BYTE, 250, [db + slot + b"user:%d:profile" % n for n, slot in enumerate(slots)]),
        (ELEMENT_BYTE, 250, [db + n.to_bytes(8, "big") + b"fname" for n in range(count)]),
        (ELEMENT_BYTE, 250, [bytes(12) + n.to_bytes(4, "big") for n in range(count)]),
        (ELEMENT_BYTE, 10, [bytes(12) + b"Mmember:%012d" % n for n in range(count)]),
    ):
        cache, counts = RowCache(byte), [0] * SHARDS
        for key in keys:
            counts[cache.shard_of(key)] += 1
        assert sum(map(bool, counts)) >= shards
        assert max(counts) <= 3 * count / shards


# -- a budget of two ---------------------------------------------------------------------------


@pytest.fixture
def shared() -> tuple[RowCache, RowCache, Budget]:
    first, second = RowCache(5), RowCache(5)
    budget = Budget(first, second)
    budget.resize(1 << 20)
    return first, second, budget


def test_one_cache_has_what_the_other_leaves(shared: tuple[RowCache, RowCache, Budget]) -> None:
    first, second, budget = shared
    fill(first, budget.size * 9 // 10)
    assert first.cached_bytes >= budget.size * 8 // 10
    fill(second, budget.size // 8)
    assert second.cached_bytes >= budget.size // 9


def test_who_is_not_used_gives_way(shared: tuple[RowCache, RowCache, Budget]) -> None:
    first, second, budget = shared
    for used, unused in ((first, second), (second, first)):
        for _ in range(20):
            fill(used, budget.size // 10)
            together = first.cached_bytes + second.cached_bytes
            assert together <= budget.size * 5 // 4 + 2 * budget.size // 64
        assert unused.cached_bytes == 0


def test_a_smaller_budget_is_kept_to(shared: tuple[RowCache, RowCache, Budget]) -> None:
    first, second, budget = shared
    fill(first, budget.size * 9 // 10)
    budget.resize(64 * KIB)
    for number in range(2000):
        first.add(b"new:%d" % number, b"row")
        second.add(b"new:%d" % number, b"row")
    assert first.cached_bytes + second.cached_bytes <= 64 * KIB * 5 // 4 + 2 * KIB
