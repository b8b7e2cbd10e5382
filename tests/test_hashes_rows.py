"""The rows of hashes (kvserver/types/hashes.py) against a model, after any sequence of commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants_hashes import check_rows
from store import NOW, Store

from kvserver import codec, expiry
from kvserver.codec import ELEMENT_PREFIX_LEN, HASH
from kvserver.expiry import expire_cycle
from kvserver.storage.engine import EngineError
from kvserver.storage.overlay import Entry
from kvserver.types import hashes
from kvserver.types.hashes import FIELD, Limits

LIMITS = Limits(4, 6)
names = st.sampled_from([b"a", b"b", b"\x00", b"", b"\xff\xff", b"longer name"])
times = st.sampled_from([0, 0, NOW + 1, NOW + 5, NOW + 1000, hashes.MAX_EXPIRE])
Step = tuple[str, bytes, bytes, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "remove", "time", "pass", "commit"]),
        names,
        st.binary(max_size=8),
        times,
    ),
    max_size=30,
)
Model = dict[bytes, tuple[bytes, int]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("hashes") / "db")


def check(store: Store, model: Model) -> None:
    """The rows of the hash `h` are well-formed, and say what the model says."""
    rows = {
        key[ELEMENT_PREFIX_LEN:]: row
        for key, row in store.log.data.scan(b"\0" * 4, b"\xff" * ELEMENT_PREFIX_LEN)
    }
    header = store[0].current(b"h")
    if not model:
        assert header is None
        assert rows == {}
        assert list(store.log.expiry.scan(b"", b"\xff" * 9)) == []
        return
    assert header is not None
    check_rows(header, rows)
    due = codec.field_due(header)
    entries = [key for key, _ in store.log.expiry.scan(b"", b"\xff" * 9)]
    assert entries == ([codec.field_due_key(store[0].row_key(b"h"), due)] if due else [])
    read = store[0].collection(b"h", HASH)
    assert read is not None
    live = {
        field: value
        for field, (value, time) in model.items()
        if not time or time > store.keyspace.now
    }
    assert dict(hashes.pairs(read, store.keyspace.now)) == live
    for field in model:
        assert hashes.get(read, field, store.keyspace.now) == live.get(field)


def run(store: Store, model: Model, step: Step) -> None:
    name, field, value, time = step
    if name == "commit":
        store.commit()
        return
    if name == "pass":
        store.keyspace.now += 3
        assert expire_cycle(store.keyspace, 10**9) is False
        now = store.keyspace.now
        for expired in [f for f, (_, at) in model.items() if at and at <= now]:
            del model[expired]
        return
    fields = store[0].mutable_or_new(b"h", HASH)
    row = fields.peek(FIELD + field)
    if name == "put":
        assert hashes.put(fields, field, value, LIMITS, time) == (field not in model)
        model[field] = value, time
    elif name == "remove":
        assert hashes.remove(fields, field) == (field in model)
        model.pop(field, None)
    elif row is not None:
        hashes.set_expire(fields, field, row, time)
        model[field] = model[field][0], time
    if row is not None or name == "put":
        fields.save()


@settings(deadline=None, max_examples=150)
@given(steps)
def test_any_sequence(store: Store, program: list[Step]) -> None:
    store.keyspace.now = NOW
    store.keyspace.flush(store.keyspace.databases[0])
    store.commit()
    model: Model = {}
    check(store, model)
    for step in program:
        run(store, model, step)
        check(store, model)
    store.commit()
    check(store, model)


def test_encodings(store: Store) -> None:
    store[0].delete(b"h")
    fields = store[0].new(b"h", HASH)
    sizes = []
    for number in range(6):
        hashes.put(fields, b"%d" % number, b"v", LIMITS)
        sizes.append(hashes.encoding(fields.extras))
    assert sizes == [hashes.LISTPACK] * 4 + [hashes.HASHTABLE] * 2
    fields = store[0].new(b"h", HASH)
    hashes.put(fields, b"a", b"123456", LIMITS, NOW + 1)
    assert hashes.encoding(fields.extras) == hashes.LISTPACK_EX
    hashes.put(fields, b"a", b"1234567", LIMITS)
    assert hashes.encoding(fields.extras) == hashes.HASHTABLE
    assert fields.extras == b"\x02"


def test_fields_due_at_the_same_time_go_in_chunks(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    fields = store[0].new(b"h", HASH)
    count = 3 * expiry.CHUNK + 1
    for number in range(count):
        hashes.put(fields, b"%d" % number, b"v", LIMITS, NOW + 1)
    hashes.put(fields, b"later", b"v", LIMITS, NOW + 50)
    hashes.put(fields, b"stays", b"v", LIMITS)
    fields.save()
    store.commit()
    store.keyspace.now += 1
    left = []
    while expire_cycle(store.keyspace, 0):  # a chunk each time
        store.commit()
        header = store[0].current(b"h")
        assert header is not None
        left.append(codec.collection_count(header))
        assert codec.field_due(header) == (NOW + 1 if left[-1] > 2 else NOW + 50)
    assert left == [count + 2 - expiry.CHUNK * chunk for chunk in (1, 2, 3)] + [2]
    header = store[0].current(b"h")
    assert header is not None
    assert codec.field_due(header) == NOW + 50
    assert store.keyspace.expired_fields == count
    store.keyspace.now += 100
    expire_cycle(store.keyspace, 10**9)
    store.commit()
    check(store, {b"stays": (b"v", 0)})


def test_a_cycle_reads_only_what_became_due_since_the_last_one(tmp_path: Path) -> None:
    """RocksDB steps over deleted rows one by one: neither the index of the key space nor that of a
    hash is read from before them."""
    store = Store(tmp_path / "db")
    for name in (b"g", b"h"):
        fields = store[0].new(name, HASH)
        for number in range(500):
            hashes.put(fields, b"%d" % number, b"v", LIMITS, NOW + number // 100)
        fields.save()
    store.commit()
    bounds: list[bytes] = []
    scan = store.engine.scan

    def noted(cf: int, lower: bytes, upper: bytes, reverse: bool = False) -> Iterator[Entry]:
        bounds.append(lower)
        return scan(cf, lower, upper, reverse)

    store.engine.scan = noted  # type: ignore[method-assign]
    begun: list[tuple[int, list[int]]] = []
    for passed in (0, 1, 1, 50):
        bounds.clear()
        store.keyspace.now = NOW + passed
        assert expire_cycle(store.keyspace, 10**9) is False
        store.commit()
        index, *_ = [codec.split_field_due_key(key + b"slot")[0] for key in bounds if key[4] & 0x80]
        own = [key[ELEMENT_PREFIX_LEN:] for key in bounds if len(key) > ELEMENT_PREFIX_LEN]
        begun.append((index, sorted({int.from_bytes(sub[1:9], "big") - NOW for sub in own})))
    # Of a hash's rows those that are due are read, and then the next one.
    assert begun == [(0, [0, 1]), (NOW + 1, [1, 2]), (NOW + 2, []), (NOW + 2, [2])]
    assert store.keyspace.total_keys() == 0
    assert store.keyspace.expired_fields == 1000


def test_fields_due_at_the_same_time_are_stepped_over_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    fields = store[0].new(b"h", HASH)
    for number in range(1000):
        hashes.put(fields, b"%03d" % number, b"v", LIMITS, NOW)
    fields.save()
    store.commit()
    starts = []
    while expire_cycle(store.keyspace, 0):
        store.commit()
        starts.append(store.keyspace.databases[0].fields_at[-3:])
    assert starts[:3] == [b"063", b"127", b"191"]
    check(store, {})


def test_fields_expire_after_a_rollback(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    fields = store[0].new(b"h", HASH)
    for number in range(200):
        hashes.put(fields, b"%d" % number, b"v", LIMITS, NOW + 1)
    fields.save()
    store.commit()
    store.keyspace.now += 1
    assert expire_cycle(store.keyspace, 0)
    store.refused(EngineError("no space"))
    check(store, {b"%d" % number: (b"v", NOW + 1) for number in range(200)})
    while expire_cycle(store.keyspace, 0):
        pass
    check(store, {})


def test_a_replica_deletes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    fields = store[0].new(b"h", HASH)
    hashes.put(fields, b"a", b"v", LIMITS, NOW + 1)
    fields.save()
    store.commit()
    store.keyspace.may_expire = False
    store.keyspace.now += 10
    assert expire_cycle(store.keyspace, 10**9) is False
    check(store, {b"a": (b"v", NOW + 1)})


def test_fields_keep_their_time_under_another_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    fields = store[0].new(b"g", HASH)
    hashes.put(fields, b"a", b"v", LIMITS, NOW + 1)
    hashes.put(fields, b"b", b"v", LIMITS)
    fields.save()
    row = store[0].current(b"g")
    assert row is not None
    store[1].put_copy(b"copy", row, store[0])
    store[0].rename(b"g", b"h", row)
    store.commit()
    store.keyspace.now += 1
    expire_cycle(store.keyspace, 10**9)
    for index, name in ((0, b"h"), (1, b"copy")):
        read = store[index].collection(name, HASH)
        assert read is not None
        assert read.count == 1
        assert hashes.pairs(read, 0) == [(b"b", b"v")]
        assert read.extras == b"\x01"
    assert list(store.log.expiry.scan(b"", b"\xff" * 9)) == []
