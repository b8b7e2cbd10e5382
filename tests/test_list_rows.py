"""The rows of lists, against a Python list, in the same turn and after a commit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from invariants_lists import check_rows
from store import Store

from kvserver.codec import ELEMENT_PREFIX_LEN, LIST
from kvserver.rdb import listpack
from kvserver.storage.commitlog import DATA
from kvserver.types import lists
from kvserver.types.list_nodes import entry_bytes, exceeds
from kvserver.types.lists import ListReader, ListWriter, between

KEY = b"k"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "db")
    yield store
    store.engine.close()


def writer(store: Store) -> ListWriter:
    return ListWriter(store[0].mutable_or_new(KEY, LIST))


def reader(store: Store) -> ListReader:
    rows = store[0].collection(KEY, LIST)
    assert rows is not None
    return ListReader(rows)


def rows_of(store: Store) -> dict[bytes, bytes]:
    return {key[ELEMENT_PREFIX_LEN:]: row for key, row in store.stored(DATA).items()}


class Model:
    """A list in the store and a Python list, changed alike at random."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.model: list[bytes] = []

    def step(self) -> None:
        names = ["push", "pop", "trim", "insert", "insert", "remove", "remove_all", "replace"]
        name = self.chance.choice(names) if self.model else "push"
        items = writer(self.store)
        getattr(self, name)(items)
        items.save()
        if self.chance.random() < 0.2:
            self.store.commit()
            if self.model:
                check_rows(self.store[0].row(KEY) or b"", rows_of(self.store))
            else:
                assert not rows_of(self.store)

    def push(self, items: ListWriter) -> None:
        count = self.chance.choice([1, 2, 3, 400])
        values = [b"%d" % self.chance.randrange(50) for _ in range(count)]
        front = self.chance.random() < 0.5
        items.push(values, front)
        self.model = values[::-1] + self.model if front else self.model + values

    def pop(self, items: ListWriter) -> None:
        count = min(self.chance.choice([1, 1, 2, 20, 300]), len(self.model))
        if self.chance.random() < 0.5:
            assert items.pop(count, True) == self.model[:count]
            self.model = self.model[count:]
        else:
            assert items.pop(count, False) == self.model[::-1][:count]
            self.model = self.model[: len(self.model) - count]

    def trim(self, items: ListWriter) -> None:
        most = self.chance.choice([5, 500])
        front = self.chance.randrange(min(len(self.model), most))
        back = self.chance.randrange(min(len(self.model) - front, most))
        items.trim(front, back)
        self.model = self.model[front : len(self.model) - back]

    def insert(self, items: ListWriter) -> None:
        pivot, before = self.chance.choice(self.model), self.chance.random() < 0.5
        places = items.around(pivot, before)
        assert places is not None
        if all(places):
            items.insert(*places, b"between")
        else:
            items.push([b"between"], not places[0])
        self.model.insert(self.model.index(pivot) + (not before), b"between")

    def remove(self, items: ListWriter) -> None:
        value, reverse = self.chance.choice(self.model), self.chance.random() < 0.5
        items.remove(items.equal(value, 1, reverse))
        if reverse:
            self.model.reverse()
        self.model.remove(value)
        if reverse:
            self.model.reverse()

    def remove_all(self, items: ListWriter) -> None:
        value = self.chance.choice(self.model)
        items.remove(items.equal(value, 0, False))
        self.model = [other for other in self.model if other != value]

    def replace(self, items: ListWriter) -> None:
        index = self.chance.randrange(len(self.model))
        items.replace(index, b"x" * 100)
        self.model[index] = b"x" * 100

    def check(self) -> None:
        if not self.model:
            assert store_is_empty(self.store)
            return
        items, size = reader(self.store), len(self.model)
        assert items.count == size
        assert [value for _, value in items.walk()] == self.model
        for index in (0, size // 2, size - 1, self.chance.randrange(size)):
            assert items.at(index) == self.model[index]
        first = self.chance.randrange(size)
        count = self.chance.randrange(1, size - first + 1)
        part = self.model[first : first + count]
        assert [value for _, value in items.span(first, count)] == part
        assert [value for _, value in items.span(first, count, True)] == part[::-1]


def store_is_empty(store: Store) -> bool:
    return store[0].collection(KEY, LIST) is None


@pytest.mark.parametrize(
    ("near", "fraction", "single"), [(16, 16, 256), (0, 16, 256), (2, 2, 10), (0, 1, 1)]
)
def test_random_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch, near: int, fraction: int, single: int
) -> None:
    """With limits so low that what is rare happens often."""
    monkeypatch.setattr(lists, "NEAR", near)
    monkeypatch.setattr(lists, "MAX_FRACTION", fraction)
    monkeypatch.setattr(lists, "SINGLE_DELETIONS", single)
    model = Model(store, near + fraction + single)
    for _ in range(300):
        model.step()
        model.check()


def test_nothing_is_left_of_a_deleted_list(store: Store) -> None:
    """What was popped isn't looked at, and all else goes: also the rows of blocks."""
    for size in (200, 1000):
        items = writer(store)
        items.push([b"%d" % n for n in range(size)], False)
        items.pop(10, True)
        items.pop(10, False)
        items.remove(items.equal(b"100", 0, False))
        places = items.around(b"120", True)
        assert places is not None
        items.insert(*places, b"new")
        items.save()
        store.commit()
        assert items.blocks == 1
        store[0].delete(KEY)
        store.commit()
        assert rows_of(store) == {}


def test_size_is_that_of_a_listpack(store: Store) -> None:
    values = [b"", b"a", b"0", b"127", b"128", b"-1", b"4095", b"4096", b"-4097", b"-0", b"01"]
    values += [b"32767", b"32768", b"8388607", b"8388608", b"2147483648", b"9223372036854775808"]
    values += [b"x" * size for size in (63, 64, 125, 126, 127, 4095, 4096, 16379, 16380, 3000000)]
    for value in values:
        assert entry_bytes(value) == len(listpack.entry(value)), value[:30]
    items = writer(store)
    items.push(values, True)
    items.replace(3, b"other")
    items.remove(items.equal(b"a", 0, False))
    items.pop(2, False)
    items.save()
    store.commit()
    check_rows(store[0].row(KEY) or b"", rows_of(store), exact=True)


def test_fractions_are_between() -> None:
    chance = random.Random(1)
    fractions = [b""]
    for _ in range(500):
        at = chance.randrange(len(fractions))
        right = fractions[at + 1] if at + 1 < len(fractions) else b""
        fraction = between(fractions[at], right)
        assert fractions[at] < fraction
        assert not right or fraction < right
        assert fraction[-1] != 0
        fractions.insert(at + 1, fraction)
    assert max(map(len, fractions)) < 8


def test_many_inserts_at_one_place(store: Store) -> None:
    """Fractions are spread anew before they grow long."""
    items = writer(store)
    items.push([b"%d" % n for n in range(100)], False)
    expected = [b"%d" % n for n in range(100)]
    for n in range(1000):
        places = items.around(b"50", False)
        assert places is not None
        items.insert(*places, b"new %d" % n)
        expected.insert(51, b"new %d" % n)
    items.save()
    store.commit()
    assert [value for _, value in reader(store).walk()] == expected
    assert max(map(len, rows_of(store))) <= lists.PLAIN + lists.MAX_FRACTION
    check_rows(store[0].row(KEY) or b"", rows_of(store), exact=True)


def test_changes_near_the_ends_leave_a_list_even(store: Store) -> None:
    items = writer(store)
    items.push([b"%d" % n for n in range(1000)], False)
    for value in (b"0", b"1", b"10", b"999", b"990"):
        items.remove(items.equal(value, 0, False))
    for value in (b"5", b"995"):
        places = items.around(value, True)
        assert places is not None
        items.insert(*places, b"new")
    assert items.blocks == 0
    items.remove(items.equal(b"500", 0, False))
    assert items.blocks == 1
    items.pop(500, True)
    assert items.blocks == 0, "what was uneven is gone"


@pytest.mark.parametrize(
    ("limit", "size", "count", "expected"),
    [
        *((-2, 8185, 9999, False), (-2, 8186, 1, True), (-1, 4090, 1, True), (-9, 65529, 1, False)),
        *((5, 100, 5, False), (5, 100, 6, True), (5, 8186, 1, True), (0, 1, 1, False)),
        *((0, 1, 2, True), (-5, 65530, 1, True)),
    ],
)
def test_limits(limit: int, size: int, count: int, expected: bool) -> None:
    assert exceeds(limit, size, count) is expected
