"""The rows of sorted sets: against a dictionary that is sorted each time, and their invariants."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invariants_zsets import check_rows
from store import Store

from kvserver import codec
from kvserver.codec import ELEMENT_PREFIX_LEN, ZSET
from kvserver.collection import MutableCollection
from kvserver.storage.commitlog import DATA
from kvserver.storage.engine import EngineError
from kvserver.types.zsets import (
    BLOCKS,
    Limits,
    MutableSortedSet,
    SortedSet,
    ordered,
    pair,
)

LIMITS = Limits(128, 64)
KEY = b"z"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.engine.close()


class Model:
    """A sorted set in a store, and what it should be."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.scores: dict[bytes, float] = {}

    def change(self, changes: dict[bytes, float | None]) -> None:
        """One command: new scores, None removes."""
        rows = self.store[0].mutable_or_new(KEY, ZSET)
        target = MutableSortedSet(rows, LIMITS)
        for member, score in changes.items():
            before = target.peek(member)
            assert before == self.scores.get(member)
            if score is None:
                if before is not None:
                    target.remove(member, before)
                    del self.scores[member]
            else:
                if before is None:
                    target.add(member, score)
                elif before != score:
                    target.move(member, before, score)
                self.scores[member] = score
        target.save()

    def pop(self, count: int, highest: bool) -> None:
        target = MutableSortedSet(self.rows(), LIMITS)
        expected = self.sorted()[::-1][:count] if highest else self.sorted()[:count]
        assert target.pop(count, highest) == expected
        for member, _ in expected:
            del self.scores[member]
        target.save()

    def rows(self) -> MutableCollection:
        return mutable(self.store)

    def sorted(self) -> list[tuple[bytes, float]]:
        return sorted(self.scores.items(), key=lambda item: (item[1], item[0]))

    def check(self) -> None:
        """What is read is what it should be, before and after the commit."""
        self.check_reads()
        self.store.commit()
        self.check_reads()
        check_stored(self.store, KEY)

    def check_reads(self) -> None:
        rows = self.store[0].collection(KEY, ZSET)
        assert (rows is None) == (not self.scores)
        if rows is None:
            return
        found = SortedSet(rows)
        expected = self.sorted()
        assert found.count == len(expected)
        assert list(map(pair, found.scan())) == expected
        assert list(map(pair, found.scan(reverse=True))) == expected[::-1]
        places = [ordered(score) + member for member, score in expected]
        size = len(expected)
        for rank in {0, size - 1, size, random.randrange(size), random.randrange(size)}:
            after = list(map(pair, islice(found.scan_from(rank), 5)))
            assert after == expected[rank : rank + 5]
            after = list(map(pair, islice(found.scan_from(rank, reverse=True), 5)))
            assert after == expected[::-1][rank : rank + 5]
            if rank < size:
                assert found.below(places[rank]) == rank
                assert found.below(places[rank] + b"\0") == rank + 1
                other = random.randrange(size)
                between = max(other - rank, 0)
                assert found.between(places[rank], places[other]) == between


def mutable(store: Store) -> MutableCollection:
    rows = store[0].mutable(KEY, ZSET)
    assert rows is not None
    return rows


def check_stored(store: Store, key: bytes) -> None:
    """The invariants of all rows of a sorted set; nothing is left of one that is gone."""
    row = store.rows.get(store[0].row_key(key))
    stored = store.stored(DATA)
    if row is None:
        assert not stored
        return
    prefix = store[0].db.prefix + codec.collection_id(row)
    assert all(name.startswith(prefix) for name in stored)
    check_rows(row, {name[ELEMENT_PREFIX_LEN:]: row for name, row in stored.items()})


@pytest.mark.parametrize("seed", range(6))
def test_random_changes(store: Store, seed: int) -> None:
    random.seed(seed)
    model = Model(store)
    names = [b"%d" % n for n in range(random.choice([150, 600, 3000]))]
    names += [name * 40 for name in names[::10]]
    grow = 0.8
    for step in range(60):
        if step % 15 == 14:
            grow = 1 - grow
        kind = random.random()
        if kind < 0.15 and len(model.scores) > 1:
            most = len(model.scores) - 1
            model.pop(min(random.choice([1, 2, 50, 400]), most), random.random() < 0.5)
        else:
            chosen = random.sample(names, random.choice([1, 1, 3, 50, len(names) // 2]))
            spread = random.choice([3, 10**6])
            model.change(
                {
                    name: float(random.randrange(-spread, spread))
                    if random.random() < grow
                    else None
                    for name in chosen
                }
            )
        if random.random() < 0.5:
            model.check()
    model.check()
    model.change(dict.fromkeys(names))
    model.check()


@pytest.mark.parametrize("direction", [1, -1])
def test_growing_and_popped_at_its_ends(store: Store, direction: int) -> None:
    model = Model(store)
    for first in range(0, 20_000, 500):
        model.change({b"m%06d" % n: float(direction * n) for n in range(first, first + 500)})
    model.check()
    for _ in range(30):
        model.pop(600, direction < 0)
        store.commit()
    model.check()
    while len(model.scores) > 1:
        model.pop(min(150, len(model.scores) - 1), direction > 0)
    model.check()


@pytest.mark.parametrize("highest", [False, True])
def test_pops_do_not_step_over_what_was_popped(store: Store, highest: bool) -> None:
    """RocksDB walks over deleted rows one by one: a walk must not begin among them."""
    target = MutableSortedSet(store[0].new(KEY, ZSET), LIMITS)
    target.fill({b"m%06d" % n: float(n) for n in range(3000)})
    target.save()
    store.commit()
    seen: set[bytes] = set()
    for _ in range(2990):
        target = MutableSortedSet(mutable(store), LIMITS)
        ((member, _),) = target.pop(1, highest)
        seen.add(ordered(float(member[1:])) + member)
        target.save()
        store.commit()
        bound = target.high if highest else target.low
        assert bound == (min(seen) if highest else max(seen))


def test_removals_move_the_bounds(store: Store) -> None:
    """A queue that is read with ZRANGE and emptied with ZREM, a few elements long."""
    random.seed(1)
    model = Model(store)
    for n in range(2000):
        model.change({b"%06d" % n: float(n), b"%06d" % (n - 5): None})
    model.check()
    low = SortedSet(model.rows()).low
    assert ordered(1000.0) < low  # 1 - (63/64)**1000: it is passed over with a chance of 1e-7
    model.change({b"new": -7.0})
    model.check()


def test_a_batch_that_fails(store: Store) -> None:
    """What was learned of blocks that never were does no harm."""
    model = Model(store)
    model.change({b"%05d" % n: float(n) for n in range(3000)})
    store.commit()
    before = dict(model.scores)
    model.change({b"x%05d" % n: n / 7 for n in range(5000)})
    model.change({b"%05d" % n: None for n in range(100, 2900)})
    store.refused(EngineError("no"))
    store.log.rollback()
    model.scores = before
    model.change({b"y%05d" % n: n / 3 for n in range(0, 9000, 10)})
    model.check()


def test_blocks_come_and_go(store: Store) -> None:
    model = Model(store)
    for size, blocks in ((256, False), (257, True), (128, True), (127, False), (256, False)):
        names = {b"%d" % n: 1.0 for n in range(size)}
        model.change({**names, **{name: None for name in model.scores if name not in names}})
        assert bool(SortedSet(model.rows()).flags & BLOCKS) == blocks
        model.check()


doubles = st.floats(allow_nan=False)


@given(doubles, doubles)
def test_ordered_scores(left: float, right: float) -> None:
    assert (ordered(left) < ordered(right)) == (left < right)
    assert (ordered(left) == ordered(right)) == (left == right)


@given(doubles, st.binary())
def test_index_rows(score: float, member: bytes) -> None:
    key = bytes(ELEMENT_PREFIX_LEN) + b"s" + ordered(score) + member
    assert pair((key, b"")) == (member, score)
    assert math.copysign(1, pair((key, b"-"))[1]) == -1


def test_negative_zero(store: Store) -> None:
    """Kept where Redis keeps it: not in a listpack."""
    model = Model(store)
    model.change({b"a": -0.0, b"b": 0.0})
    assert str(SortedSet(model.rows()).score(b"a")) == "0.0"
    model.change({b"%d" % n: 1.0 for n in range(200)})
    model.change({b"c": -0.0, b"a": 0.0})
    model.check()
    found = SortedSet(model.rows())
    first = [(member, str(score)) for member, score in map(pair, islice(found.scan(), 3))]
    assert first == [(b"a", "0.0"), (b"b", "0.0"), (b"c", "-0.0")]
    assert str(found.score(b"c")) == "-0.0"
