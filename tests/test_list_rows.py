"""The rows of lists, against a Python list, in the same turn and after a commit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import invariants_lists
import pytest
from invariants_lists import check_rows
from store import Store

import kvserver
from kvserver.codec import ELEMENT_PREFIX_LEN, LIST
from kvserver.rdb import listpack
from kvserver.storage.commitlog import DATA
from kvserver.types import list_rows, list_writer, lists
from kvserver.types.list_nodes import entry_bytes, exceeds
from kvserver.types.list_rows import between
from kvserver.types.list_writer import ListWriter
from kvserver.types.lists import ListReader

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
        names = ["push", "push", "pop", "pop", "trim", "rotate", "replace"]
        names += 3 * ["insert", "insert_many", "remove", "remove_all"]
        name = self.chance.choice(names) if self.model else "push"
        items = writer(self.store)
        getattr(self, name)(items)
        items.save()
        if self.chance.random() < 0.2:
            self.commit()

    def commit(self) -> None:
        self.store.commit()
        if self.model:
            check_rows(self.store[0].row(KEY) or b"", rows_of(self.store))
        else:
            assert not rows_of(self.store)
        if self.chance.random() < 0.1:
            self.store = self.store.reopened()

    def value(self) -> bytes:
        """Mostly a short one, which others are equal to."""
        value = b"%d" % self.chance.randrange(50)
        chance = self.chance.random()
        if chance < 0.05:
            return value * self.chance.randrange(120, 900)
        return value * self.chance.randrange(1, 124) if chance < 0.1 else value

    def push(self, items: ListWriter) -> None:
        count = self.chance.choice([1, 2, 3, 3, 20, 400])
        values = [self.value() for _ in range(count)]
        front = self.chance.random() < 0.5
        items.push(values, front)
        self.model = values[::-1] + self.model if front else self.model + values

    def pop(self, items: ListWriter) -> None:
        count = min(self.chance.choice([1, 1, 2, 20, 40, 300, 900]), len(self.model))
        if self.chance.random() < 0.5:
            assert items.pop(count, True) == self.model[:count]
            self.model = self.model[count:]
        else:
            assert items.pop(count, False) == self.model[::-1][:count]
            self.model = self.model[: len(self.model) - count]

    def rotate(self, items: ListWriter) -> None:
        front = self.chance.random() < 0.5
        for _ in range(self.chance.choice([1, 40]) if len(self.model) > 1 else 0):
            value = self.model.pop(0 if front else -1)
            assert items.pop_one(front) == value
            items.push([value], not front)
            self.model.insert(len(self.model) if front else 0, value)

    def trim(self, items: ListWriter) -> None:
        most = self.chance.choice([5, 500])
        front = self.chance.randrange(min(len(self.model), most))
        back = self.chance.randrange(min(len(self.model) - front, most))
        items.trim(front, back)
        self.model = self.model[front : len(self.model) - back]

    def insert(self, items: ListWriter) -> None:
        pivot, before = self.chance.choice(self.model), self.chance.random() < 0.5
        value = self.value()
        place = items.around(pivot, before)
        assert place is not None
        items.insert(*place, value)
        self.model.insert(self.model.index(pivot) + (not before), value)

    def insert_many(self, items: ListWriter) -> None:
        pivot = self.chance.choice(self.model)
        for number in range(self.chance.choice([20, 150])):
            place = items.around(pivot, True)
            assert place is not None
            items.insert(*place, b"between %d" % number)
            self.model.insert(self.model.index(pivot), b"between %d" % number)

    def remove(self, items: ListWriter) -> None:
        value, reverse = self.chance.choice(self.model), self.chance.random() < 0.5
        most = self.chance.choice([1, 3])
        gone = items.remove(items.equal(value, most, reverse), value)
        assert gone == min(most, self.model.count(value))
        if reverse:
            self.model.reverse()
        for _ in range(gone):
            self.model.remove(value)
        if reverse:
            self.model.reverse()

    def remove_all(self, items: ListWriter) -> None:
        value = self.chance.choice(self.model)
        items.remove(items.equal(value, 0, False), value)
        self.model = [other for other in self.model if other != value]

    def replace(self, items: ListWriter) -> None:
        index = self.chance.randrange(len(self.model))
        value = self.value()
        items.replace(index, value)
        self.model[index] = value

    def check(self) -> None:
        if not self.model:
            assert store_is_empty(self.store)
            return
        items, size = reader(self.store), len(self.model)
        assert items.count == size
        assert list(items.elements(0, size)) == self.model
        for index in (0, size // 2, size - 1, self.chance.randrange(size)):
            assert items.at(index) == self.model[index]
        first = self.chance.randrange(size)
        count = self.chance.randrange(1, size - first + 1)
        part = self.model[first : first + count]
        assert list(items.elements(first, count)) == part
        assert list(items.elements(first, count, True)) == part[::-1]
        assert items.values(first, count) == part
        large = items.large_rows(False)
        sent = b"".join(s for piece in items.pieces(first, count) for s in large.bulks(piece))
        assert sent == b"".join(b"$%d\r\n%b\r\n" % (len(value), value) for value in part)


def store_is_empty(store: Store) -> bool:
    return store[0].collection(KEY, LIST) is None


@pytest.mark.parametrize(("fraction", "single"), [(16, 256), (2, 10), (1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_random_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: int, single: int, seed: int
) -> None:
    """With limits so low that what is rare happens often."""
    monkeypatch.setattr(list_rows, "MAX_FRACTION", fraction)
    monkeypatch.setattr(list_rows, "SINGLE_DELETIONS", single)
    monkeypatch.setattr(list_writer, "SINGLE_DELETIONS", single)
    if seed % 2 and not kvserver.COMPILED:  # where it would stay what it is
        for module in (lists, list_rows, invariants_lists):
            monkeypatch.setattr(module, "BLOCK_BITS", 2)
    model = Model(Store(tmp_path / "random"), 100 * seed + fraction + single)
    for _ in range(250):
        model.step()
        model.check()
    model.commit()
    model.store.engine.close()


def test_nothing_is_left_of_a_deleted_list(store: Store) -> None:
    """What was popped isn't looked at, and all else goes: also the rows of blocks and of large
    elements."""
    for size in (200, 1000):
        items = writer(store)
        items.push([b"%d" % n for n in range(size)] + [b"x" * 1000], False)
        items.pop(10, True)
        items.pop(10, False)
        items.remove(items.equal(b"100", 0, False), b"100")
        for value in (b"new", b"y" * 1000):
            place = items.around(b"120", True)
            assert place is not None
            items.insert(*place, value)
        items.save()
        store.commit()
        assert items.blocks == 1
        check_rows(store[0].row(KEY) or b"", rows_of(store), exact=True)
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
    items.remove(items.equal(b"a", 0, False), b"a")
    items.pop(2, False)
    items.save()
    store.commit()
    check_rows(store[0].row(KEY) or b"", rows_of(store), exact=True)


def test_elements_of_all_sizes(store: Store) -> None:
    """Where the header of a bulk string gets longer, and where elements get rows of their own."""
    sizes = [0, 1, 9, 10, 11, 99, 100, 101, 200, 247, 248, 249, 1000]
    values = [bytes([n % 256]) * n for n in sizes]
    for front in (False, True):
        items = writer(store)
        items.push(values, front)
        items.save()
    store.commit()
    items = writer(store)
    assert items.values(0, items.count) == values[::-1] + values
    assert sum(sub[:1] == lists.LARGE_ROWS for sub in rows_of(store)) == 6
    for value in values:
        assert items.equal(value, 0, False) == items.equal(value, 0, True)[::-1]
        assert sum(len(numbers) for _, numbers in items.equal(value, 0, False)) == 2


def test_an_element_may_look_like_another_ones_entry(store: Store) -> None:
    items = writer(store)
    items.push([b"$1\r\na\r\n", b"b", b"a", b"$1\r\na\r\n"], False)
    assert items.equal(b"a", 0, False) == [(items.first_sub(), [2])]
    assert items.equal(b"$1\r\na\r\n", 0, False) == [(items.first_sub(), [0, 3])]


def test_popping_writes_no_chunk_and_pushing_removes_what_is_dead(store: Store) -> None:
    items = writer(store)
    items.push([b"%d" % n for n in range(20)], False)
    items.save()
    store.commit()
    before = rows_of(store)
    for front in (True, False):
        items = writer(store)
        items.pop(2, front)
        items.save()
    store.commit()
    assert rows_of(store) == before
    for front in (True, False):
        items = writer(store)
        items.push([b"new"], front)
        items.save()
    store.commit()
    rows = rows_of(store)
    check_rows(store[0].row(KEY) or b"", rows, exact=True)
    assert [row[:2] for row in rows.values()] == [b"\1\17", b"\0\3"]
    expected = [b"new", *[b"%d" % n for n in range(2, 18)], b"new"]
    assert list(reader(store).elements(0, 18)) == expected


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


def test_many_inserts_at_one_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fractions are spread anew before they grow long."""
    longest = 16 if kvserver.COMPILED else 2
    monkeypatch.setattr(list_rows, "MAX_FRACTION", longest)
    items = writer(store)
    items.push([b"%d" % n for n in range(100)], False)
    expected = [b"%d" % n for n in range(100)]
    for n in range(2000):
        place = items.around(b"50", n % 2 > 0)
        assert place is not None
        items.insert(*place, b"new %d" % n)
        expected.insert(expected.index(b"50") + (n % 2 == 0), b"new %d" % n)
    items.save()
    store.commit()
    assert list(reader(store).elements(0, 2100)) == expected
    rows = rows_of(store)
    assert max(map(len, rows)) <= lists.PLAIN + longest
    assert len(rows) < 2100 / 8
    check_rows(store[0].row(KEY) or b"", rows, exact=True)


def test_changes_at_the_ends_leave_a_list_even(store: Store) -> None:
    items = writer(store)
    items.push([b"%d" % n for n in range(1000)], False)
    for value in (b"0", b"1", b"10", b"999", b"998"):
        items.remove(items.equal(value, 0, False), value)
    for value in (b"5", b"995"):
        place = items.around(value, True)
        assert place is not None
        items.insert(*place, b"new")
    assert items.blocks == 0
    items.remove(items.equal(b"500", 0, False), b"500")
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
