"""Bits of strings, compared with redis-server, and strings that are kept in fragments."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datadir
import oracle_bitmaps
import pytest
import redis
from cluster import Cluster, wait_synced
from harness import Server
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from invariants_sparse import check_rows
from oracle_arena import Link
from oracle_compare import Command
from oracle_strategies import KEYS, command, keys, pick, share, weighted
from pair import Pair, heard
from store import Store

from kvserver import codec
from kvserver.codec import ELEMENT_PREFIX_LEN, SPARSE
from kvserver.storage.commitlog import DATA
from kvserver.types import bitmaps, sparse
from kvserver.types.sparse import FRAGMENT, LIMIT, Edit, Text

#: The last bit that a string can have.
LAST = (1 << 32) - 1
TYPE_ERROR = (
    "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
)


# -- against redis-server --------------------------------------------------------------------------

#: What else meets a string in fragments.
_WHOLE = [
    (3, command("GET TYPE GETDEL PERSIST", keys)),
    (2, command("SET", keys, pick("", "1", "abc", "v" * 17_000), pick("EX"), pick(100_000))),
    (2, command("SET", keys, pick("", "1", b"\0" * 17_000), pick("GET"))),
    (1, command("INCR PFCOUNT", keys)),
    (2, command("RENAME COPY", keys, keys)),
    (2, command("DEL EXISTS", keys)),
    (1, command("MGET", keys, keys)),
    (1, command("GETEX", keys, pick("EX"), pick(100_000))),
    (1, command("LCS", keys, keys, pick("LEN"))),
]
_commands = weighted(*share(3, oracle_bitmaps.CHOICES), *share(1, _WHOLE))
#: Most keys are long strings from the beginning.
_FRAGMENTS = tuple(
    (b"SETRANGE", name, b"%d" % at, data)
    for name in set(KEYS) - {b"n"}
    for at, data in [(20_000, b"a\0b"), (4094, b"xyz"), (9000, b"\xff" * 5000)]
)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("prepared", [(), _FRAGMENTS], ids=["empty", "fragments"])
def test_replies_are_equal(
    server: Server, oracle: Server, protocol: int, prepared: tuple[Command, ...]
) -> None:
    link = Link((server, oracle))
    link.ask((b"HELLO", b"%d" % protocol))

    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(_commands, min_size=1, max_size=30))
    def test(batch: list[Command]) -> None:
        link.ask((b"FLUSHALL",), *prepared)
        batch += [(b"GET", name) for name in set(KEYS)]
        ours, theirs = link.ask(*batch)
        for sent, our, their in zip(batch, ours, theirs, strict=True):
            assert our == their, f"{sent}: {our!s:.200} is not {their!s:.200}"

    test()


def test_arguments_are_read_before_the_key(server: Server) -> None:
    """As Redis 7.4: 7.0 answers 0 or -1 for a key that isn't there, whatever else is said."""
    client = server.client()
    for words, text in [
        (("BITCOUNT", "none", "0", "x"), "value is not an integer or out of range"),
        (("BITCOUNT", "none", "0"), "syntax error"),
        (("BITCOUNT", "none", "0", "1", "BITS"), "syntax error"),
        (("BITCOUNT", "none", "0", "1", "BIT", "x"), "syntax error"),
        (("BITPOS", "none", "1", "x"), "value is not an integer or out of range"),
        (("BITPOS", "none", "1", "0", "x"), "value is not an integer or out of range"),
        (("BITPOS", "none", "1", "0", "x", "BITS"), "syntax error"),
        (("BITPOS", "none", "1", "0", "1", "BIT", "x"), "syntax error"),
    ]:
        with pytest.raises(redis.ResponseError, match=text):
            client.execute_command(*words)


def test_texts(pair: Pair) -> None:
    pair.same("SET k abc\nRPUSH l 1\n")
    for line in [
        *("SETBIT k -1 0", "SETBIT k 4294967296 1", "SETBIT k x 1", "SETBIT k 1 2", "SETBIT k 1 x"),
        *("SETBIT l 1 1", "SETBIT l x 1", "GETBIT l 1", "GETBIT l x", "BITCOUNT l", "BITPOS l 1"),
        *("BITPOS k 2", "BITPOS k x", "BITPOS k -1", "BITOP NOP d k", "BITOP NOT d k k"),
        *("BITOP AND d k l", "BITOP AND d l", "BITOP AND d none", "BITOP AND l none", "EXISTS l"),
        *("BITFIELD k GET u64 0", "BITFIELD k GET i65 0", "BITFIELD k GET u8 -1"),
        *("BITFIELD k GET u8 4294967296", "BITFIELD k GET u8 #536870912", "BITFIELD k GET u8"),
        *("BITFIELD k SET u8 0", "BITFIELD k OVERFLOW", "BITFIELD k OVERFLOW x", "BITFIELD k NOP"),
        *("BITFIELD k SET u8 0 x", "BITFIELD k SET u8 x x", "BITFIELD k", "BITFIELD l"),
        *("BITFIELD_RO k SET u8 0 1", "BITFIELD_RO k SET u8 0 x", "BITFIELD_RO k GET u8 0"),
        *("BITFIELD_RO none GET i8 0 GET u4 #3", "BITFIELD none GET u8 0", "EXISTS none"),
        *("BITCOUNT k 0", "BITCOUNT k 0 x", "BITCOUNT k 0 1 BITS", "BITCOUNT k 0 1 BIT x"),
        *("BITPOS k 1 x", "BITPOS k 1 0 x", "BITPOS k 1 0 1 BITS", "BITPOS k 1 0 1 BIT x"),
        *("BITFIELD_RO k OVERFLOW SAT GET u8 0", "BITFIELD k OVERFLOW FAIL", "SETBIT k 1"),
    ]:
        pair.same(line)


def test_refusals_by_text(client: redis.Redis) -> None:
    for words, text in [
        (("SETBIT", "k", "x", "1"), "bit offset is not an integer or out of range"),
        (("SETBIT", "k", "1", "2"), "bit is not an integer or out of range"),
        (("BITPOS", "k", "2"), "The bit argument must be 1 or 0."),
        (("BITFIELD", "k", "GET", "u64", "0"), TYPE_ERROR),
        (("BITFIELD_RO", "k", "SET", "u8", "0", "1"), "BITFIELD_RO only supports the GET"),
        (("SETRANGE", "k", "536870911", "ab"), "string exceeds maximum allowed size"),
    ]:
        with pytest.raises(redis.ResponseError, match=text):
            client.execute_command(*words)
    client.config_set("proto-max-bulk-len", 1 << 20)
    client.setbit("k", (1 << 23) - 1, 1)
    with pytest.raises(redis.ResponseError, match="bit offset"):
        client.setbit("k", 1 << 23, 1)
    with pytest.raises(redis.ResponseError, match="exceeds maximum"):
        client.append("k", "x")


def test_extremes_of_integers(pair: Pair) -> None:
    """Redis takes what is far below the range for something above it."""
    for kind in ("i8", "i63", "i64", "u8", "u63"):
        for overflow in ("WRAP", "SAT", "FAIL"):
            for number in (-(1 << 63), -(1 << 63) + 127, -(1 << 63) + 128, -1, (1 << 63) - 1, 200):
                pair.same(
                    f"BITFIELD k OVERFLOW {overflow} SET {kind} 3 {number} GET {kind} 3"
                    f" INCRBY {kind} 3 {number} GET {kind} 3"
                )


def test_events(pair: Pair) -> None:
    pair.same("CONFIG SET notify-keyspace-events KEAn")
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.ask("PSUBSCRIBE", "__key*")
    pair.same("SETBIT k 7 1\nSETBIT k 7 1\nSETBIT k 6 0\nSETBIT k 200000 0\nSETBIT k 200000 0\n")
    pair.same("SETBIT k 9 1\nSETRANGE k 300000 x\nAPPEND k y\nBITOP OR d k\nBITOP AND d none\n")
    pair.same("BITOP AND d none\nBITFIELD k GET u8 0\nBITFIELD k SET u8 0 1 SET u8 0 1\n")
    pair.same("BITFIELD k SET u8 0 1\nBITFIELD f OVERFLOW FAIL SET u8 0 300\nSTRLEN f\n")
    pair.same("BITFIELD f OVERFLOW FAIL INCRBY u8 0 300 INCRBY u8 0 3\nBITFIELD f SET u8 9 0\n")
    pair.same("EXPIRE k 1000\nGETDEL k\nPUBLISH __key end\n")
    ours, theirs = map(heard, listeners)
    assert ours == theirs


def test_time_to_expire_stays_or_goes(pair: Pair) -> None:
    pair.same("SET k abc EX 1000\nSETBIT k 1 1\n")
    pair.close("PTTL", "k")
    pair.same("SETBIT k 900000 1\nSETRANGE k 5 abc\nAPPEND k x\nBITFIELD k SET u8 #9000 1\n")
    pair.close("PTTL", "k")
    pair.same("BITOP NOT k k\nTTL k\nSTRLEN k\nBITCOUNT k\n")


# -- strings in fragments --------------------------------------------------------------------------


def test_one_bit_at_the_end_of_512_mb(server: Server) -> None:
    client = server.client()
    assert client.setbit("k", LAST, 1) == 0
    assert client.strlen("k") == 1 << 29
    assert client.memory_usage("k") < 2 * FRAGMENT
    assert client.getbit("k", LAST) == 1
    assert client.getbit("k", LAST - 1) == 0
    assert client.bitcount("k") == 1
    assert client.bitpos("k", 1) == LAST
    assert client.bitpos("k", 0) == 0
    assert client.getrange("k", -3, -1) == b"\0\0\x01"
    assert client.bitop("AND", "d", "k", "k") == 1 << 29
    assert client.bitop("XOR", "x", "k", "d") == 1 << 29
    assert client.bitcount("x") == 0
    assert client.bitpos("x", 1) == -1
    assert client.memory_usage("x") < 1000
    assert client.execute_command("BITFIELD", "k", "GET", "u8", LAST) == [128]
    assert client.type("k") == b"string"
    assert client.object("encoding", "k") == b"raw"
    assert list(client.scan_iter(_type="STRING", count=1000)) != []
    assert set(client.scan_iter(_type="string")) == {b"k", b"d", b"x"}
    assert client.debug_object("k")["serializedlength"] == 1 << 29


def test_whole_commands_on_fragments(pair: Pair) -> None:
    pair.same("SETBIT k 200000 1\nSETRANGE k 5 abc\nGET k\nSTRLEN k\nOBJECT ENCODING k\nTYPE k\n")
    pair.same("OBJECT REFCOUNT k\nMGET k none k\nGETRANGE k 0 10\nGETRANGE k -5 -1\nINCR k\n")
    pair.same("GETRANGE k 0 -1\nSUBSTR k 4000 30000\nINCRBYFLOAT k 1\nPFCOUNT k\nPFADD k x\n")
    pair.same("PFMERGE d k\nLCS k k LEN\nGETEX k PERSIST\nGETEX k EX 1000\nLPUSH k x\n")
    pair.same("COPY k c\nRENAME c r\nGET r\nMOVE r 1\nSELECT 1\nGET r\nSELECT 0\nEXISTS r\n")
    pair.same("SET k x GET\nSETBIT k 200000 1\nGETSET k y\nSETBIT k 200000 1\nGETDEL k\nGET k\n")
    pair.same("SETBIT k 200000 1\nGETEX k EXAT 1\nEXISTS k\nSETBIT k 200000 1\nSETNX k x\n")
    pair.same("SETBIT k 200000 1\nSADD s a\nSUNIONSTORE k s\nTYPE k\nMSET k 1\nINCR k\n")


def test_cas_on_fragments(server: Server) -> None:
    client = server.client()
    client.setbit("k", 200_000, 1)
    value = client.get("k")
    assert len(value) == 25_001
    assert client.execute_command("CAS", "k", value + b"x", "new") == 0
    assert client.execute_command("CAD", "k", value[:-1]) == 0
    assert client.execute_command("CAS", "k", value, "new") == 1
    assert client.get("k") == b"new"


def test_dump_and_restore(server: Server) -> None:
    client = server.client()
    client.setbit("k", 200_000, 1)
    client.restore("r", 0, client.dump("k"))
    assert client.get("r") == client.get("k")


def test_long_walks(both: tuple[Any, Any]) -> None:
    """Strings that are counted and sought through in many steps, in one row and in fragments."""
    chance = random.Random(7)
    dense = chance.randbytes(1_500_000)
    ours, theirs = both
    for client in both:
        client.set("dense", dense)
        client.set("ones", b"\xff" * 1_500_000 + b"\xfe")
        client.setrange("apart", 0, b"\xff" * 1_500_000)
        client.setbit("apart", 12_000_008, 1)
        client.setbit("sparse", 9_000_000, 1)
    for name in ("dense", "ones", "apart", "sparse"):
        for start, end in [(0, -1), (5, -3), (70_000, 1_400_000), (3, 3), (-9, -1)]:
            for unit in ("BYTE", "BIT"):
                words = (name, start, end, unit)
                assert ours.execute_command("BITCOUNT", *words) == theirs.execute_command(
                    "BITCOUNT", *words
                )
                for bit in (0, 1):
                    words = (name, bit, start, end, unit)
                    assert ours.execute_command("BITPOS", *words) == theirs.execute_command(
                        "BITPOS", *words
                    )
        for bit in (0, 1):
            assert ours.bitpos(name, bit) == theirs.bitpos(name, bit)
            assert ours.bitpos(name, bit, 900_000) == theirs.bitpos(name, bit, 900_000)
    for operation in ("AND", "OR", "XOR"):
        for names in (("dense", "ones"), ("dense", "apart"), ("sparse", "dense"), ("sparse",)):
            for client in both:
                client.bitop(operation, "d", *names)
            assert ours.get("d") == theirs.get("d")
    for name in ("dense", "sparse"):
        for client in both:
            client.bitop("NOT", name, name)
        assert ours.get(name) == theirs.get(name)


# -- rows ------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "data")
    yield store
    store.engine.close()


def rows_of(store: Store, key: bytes) -> dict[bytes, bytes]:
    found = store[0].collection(key, SPARSE)
    return {} if found is None else {k[ELEMENT_PREFIX_LEN:]: row for k, row in found.scan()}


def write(store: Store, key: bytes, start: int, data: bytes) -> None:
    edit = Edit(store[0], key, store[0].current_string_row(key), start + len(data))
    edit.write(start, data)
    edit.save()


@pytest.mark.parametrize("commits", [True, False])
def test_rows_agree(store: Store, commits: bool) -> None:
    chance = random.Random(3)
    model = bytearray()
    for _ in range(200):
        start = chance.choice([0, FRAGMENT, LIMIT, 9 * FRAGMENT]) + chance.randint(-3, 3)
        start = max(start, 0)
        size = chance.choice([1, 2, 5, FRAGMENT, 2 * FRAGMENT + 7])
        data = bytes(size) if chance.random() < 0.4 else chance.randbytes(size)
        write(store, b"k", start, data)
        model.extend(bytes(max(start + size - len(model), 0)))
        model[start : start + size] = data
        if commits:
            store.commit()
        row = store[0].row(b"k")
        assert row is not None
        assert (codec.row_type(row) == SPARSE) == (len(model) > LIMIT)
        assert store[0].string(b"k") == model
        if codec.row_type(row) == SPARSE:
            check_rows(row, rows_of(store, b"k"))
        text = Text(store[0], row)
        first, end = sorted(chance.choices(range(len(model) + 10), k=2))
        assert text.read(first, end) == model[first:end]
        assert text.byte(first) == (model[first] if first < len(model) else 0)
        gathered = bytearray(max(min(end, len(model)) - first, 0))
        for at, part in text.chunks(first, end):
            gathered[at - first : at - first + len(part)] = part
        assert gathered == model[first:end]
    store[0].delete(b"k")
    store.commit()
    assert store.stored(DATA) == {}, "rows are left under a deleted string"


@pytest.mark.parametrize("count", [3, 300])
def test_nothing_is_left_of_what_goes(store: Store, count: int) -> None:
    db = store[0]

    def fill() -> None:
        db.delete(b"k")
        for index in range(1, count + 1):
            write(store, b"k", index * LIMIT + 1, b"x" * 20)
        store.commit()
        assert len(store.stored(DATA)) == count

    fill()
    db.put_string(b"k", b"plain")
    store.commit()
    assert store.stored(DATA) == {}
    fill()
    text = Text(db, db.row(b"k"))
    assert bitmaps.combine(db, b"k", b"AND", [text, text]) == text.size
    store.commit()
    assert len(store.stored(DATA)) == count
    assert bitmaps.combine(db, b"k", b"XOR", [Text(db, db.row(b"k"))] * 2) == text.size
    store.commit()
    assert store.stored(DATA) == {}
    row = db.row(b"k")
    assert row is not None
    check_rows(row, {})


def test_a_copy_has_rows_of_its_own(store: Store) -> None:
    db = store[0]
    write(store, b"k", 100_000, b"abc")
    store.commit()
    row = db.current(b"k")
    assert row is not None
    db.put_copy(b"c", row, db)
    write(store, b"k", 100_000, b"xyz")
    store.commit()
    value = db.string(b"c")
    assert value is not None
    assert value[-3:] == b"abc"
    db.delete(b"k")
    store.commit()
    assert db.string(b"c") == value


def test_what_is_read_stays_as_it_was(store: Store) -> None:
    """A walk is over the string at its beginning, whatever is written meanwhile."""
    db = store[0]
    for index in range(2000):
        write(store, b"k", index * FRAGMENT, b"\x01")
    store.commit()
    text = Text(db, db.row(b"k"))
    walk = bitmaps.count(text, 0, text.size * 8 - 1)
    next(walk)
    write(store, b"k", 1999 * FRAGMENT, b"\xff")
    db.delete(b"k")
    store.commit()
    with pytest.raises(StopIteration) as end:
        while True:
            next(walk)
    assert end.value.value == 2000


def test_lengths_beyond_the_indices_are_refused(store: Store) -> None:
    with pytest.raises(Exception, match="exceeds maximum allowed size"):
        Edit(store[0], b"k", None, sparse.FRAGMENT * (1 << 32) + 1)


# -- servers ---------------------------------------------------------------------------------------


def fill(server: Server) -> dict[bytes, bytes]:
    client = server.client()
    client.setbit("a", 2_000_000, 1)
    client.setrange("a", 5, "begin")
    client.setbit("b", 3_000_000, 1)
    client.bitop("OR", "c", "a", "b")
    client.execute_command("BITFIELD", "c", "SET", "u32", "#2000", "12345")
    client.setbit("gone", 2_000_000, 1)
    client.delete("gone")
    client.setbit("over", 2_000_000, 1)
    client.set("over", "plain")
    return {name: client.get(name) for name in client.scan_iter()}


def test_killed_and_started_again(fresh_server: Any) -> None:
    server = fresh_server()
    expected = fill(server)
    server.kill9()
    server.start()
    client = server.client()
    assert {name: client.get(name) for name in client.scan_iter()} == expected
    assert client.bitcount("b") == 1
    server.terminate()
    datadir.check(server.directory / "db")


def test_a_replica_has_the_same(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        primary = cluster.start()
        before = fill(primary)
        replica = cluster.replica_of(primary)
        wait_synced(primary, replica)
        copied = replica.client()
        assert {name: copied.get(name) for name in copied.scan_iter()} == before
        client = primary.client()
        client.setbit("b", 3_000_000, 0)
        client.setbit("a", 1 << 25, 1)
        client.append("c", "end")
        client.bitop("NOT", "n", "b")
        client.delete("over")
        wait_synced(primary, replica)
        after = {name: client.get(name) for name in client.scan_iter()}
        assert after != before
        assert {name: copied.get(name) for name in copied.scan_iter()} == after
        assert copied.bitcount("b") == 0
    finally:
        cluster.close()
