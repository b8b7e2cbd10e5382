"""HyperLogLog: the same bytes as redis-server's after the same commands, whatever the history."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from conftest import FreshServer
from pair import LATER, Command, Pair, heard

from kvserver import hyperloglog
from kvserver.errors import RedisError

SCRIPTS = {
    "pfadd": f"""
        PFADD k
        GET k
        PFADD k
        PFADD k a b c
        PFADD k a
        GET k
        EXPIREAT k {LATER}
        PFADD k d "" "\\x00\\xff"
        EXPIRETIME k
        GET k
        PFADD
        SET t v PXAT 1
        PFADD t a
        EXPIRETIME t
        TYPE k
        STRLEN k
        """,
    "pfcount": f"""
        PFCOUNT k
        PFADD k a b c
        GET k
        PFCOUNT k
        GET k
        PFCOUNT k
        PFADD k a
        GET k
        PFADD k d
        GET k
        PFCOUNT k none k
        GET k
        PFADD l c d e f
        PFCOUNT k l
        PFCOUNT none other
        EXPIREAT k {LATER}
        PFCOUNT k
        EXPIRETIME k
        PFCOUNT
        PFADD empty
        PFCOUNT empty
        PFDEBUG TODENSE empty
        PFCOUNT empty empty
        """,
    "pfmerge": f"""
        PFMERGE k
        GET k
        PFADD a 1 2 3
        PFADD b 3 4 5
        PFMERGE k a b none
        GET k
        PFMERGE k
        GET k
        PFCOUNT k
        PFMERGE k b
        GET k
        EXPIREAT k {LATER}
        PFMERGE k a
        EXPIRETIME k
        PFDEBUG TODENSE b
        PFMERGE a b
        GET a
        PFMERGE new b
        GET new
        PFMERGE
        """,
    "pfdebug": """
        PFDEBUG ENCODING none
        PFDEBUG NOPE none
        PFADD k a b c d
        PFDEBUG ENCODING k
        PFDEBUG encoding k
        PFDEBUG DECODE k
        PFDEBUG NOPE k
        PFDEBUG "" k
        PFCOUNT k
        PFDEBUG TODENSE k
        PFDEBUG TODENSE k
        GET k
        PFDEBUG ENCODING k
        PFDEBUG DECODE k
        PFDEBUG GETREG k
        PFADD l x
        PFDEBUG GETREG l
        GET l
        SET s string
        PFDEBUG DECODE s
        PFDEBUG
        PFDEBUG ENCODING
        PFDEBUG ENCODING k x
        """,
    "what isn't one": """
        SET s 12345
        PFADD s a
        PFCOUNT s
        PFCOUNT s s
        PFMERGE s
        PFMERGE k s
        EXISTS k
        SET s HYLLxxxxxxxxxxxxxxxxxxxx
        PFADD s
        SET s "HYLL\\x00"
        PFADD s
        SET s "HYLL\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00abc"
        PFCOUNT s
        SET s "HYLL\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00abc"
        PFCOUNT s
        APPEND k x
        PFADD k a
        """,
}
SPARSE_HEADER = "HYLL\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x80"
CORRUPT = {
    "empty": "",
    "too short": "\\x7f\\xfe",
    "too long": "\\x7f\\xff\\x00",
    "value too long": "\\x7f\\xff\\x83",
    "cut": "\\x7f\\xfd\\x00",
    "values": "\\x83\\x87\\x8b",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


@pytest.mark.parametrize("opcodes", CORRUPT.values(), ids=CORRUPT)
def test_corrupt_values(pair: Pair, opcodes: str) -> None:
    pair.same(
        f"""
        SET s "{SPARSE_HEADER}{opcodes}"
        PFCOUNT s
        PFCOUNT s s
        PFMERGE k s
        PFMERGE s
        PFDEBUG GETREG s
        PFDEBUG TODENSE s
        PFDEBUG DECODE s
        PFDEBUG ENCODING s
        """
    )


def test_a_corrupt_value_takes_no_elements(client: redis.Redis) -> None:
    for value in (b"", b"\x83", b"\x7f"):
        stored = bytes(hyperloglog.empty()[:16]) + value
        client.set("s", stored)
        with pytest.raises(redis.ResponseError, match="INVALIDOBJ Corrupted HLL object detected"):
            client.pfadd("s", *range(100))
        assert client.get("s") == stored


def test_a_long_corrupt_value_is_not_read_to_its_end(client: redis.Redis) -> None:
    value = bytearray(hyperloglog.empty()[:16]) + b"\x00" * 1_000_000
    with pytest.raises(RedisError, match="INVALIDOBJ"):
        hyperloglog.registers(value)
    client.set("s", bytes(value))
    with pytest.raises(redis.ResponseError, match="INVALIDOBJ"):
        client.execute_command("PFCOUNT", "s", "s")


# -- histories -------------------------------------------------------------------------------


def additions(rng: random.Random, count: int) -> Iterator[Command]:
    """PFADDs of so many elements to three keys; now and then something that reads or merges."""
    for _ in range(count):
        key = rng.choice("abc")
        elements = [rng.randbytes(rng.randrange(20)) for _ in range(rng.choice((1, 1, 3, 20)))]
        yield ("PFADD", key, *elements)
        if rng.random() < 0.05:
            yield ("PFCOUNT", key)
            yield ("PFCOUNT", "a", "b", "c")
        if rng.random() < 0.02:
            yield ("PFMERGE", key, *rng.choices("abcd", k=2))
            yield ("GET", key)
    for key in "abc":
        yield ("PFDEBUG", "ENCODING", key)
        yield ("GET", key)


@pytest.mark.parametrize("max_bytes", [0, 60, 1000, 3000, 100000])
def test_values_are_those_of_redis(pair: Pair, max_bytes: int) -> None:
    pair.same([("CONFIG", "SET", "hll-sparse-max-bytes", max_bytes)])
    rng = random.Random(max_bytes)
    for count in (10, 100, 1000):
        pair.same(additions(rng, count))


def sparse_value(rng: random.Random) -> bytes:
    """A sparse value with runs of all kinds, as no PFADD makes them."""
    value = bytearray(hyperloglog.empty()[:16])
    left = hyperloglog.REGISTERS
    while left:
        kind, run = rng.random(), 0
        if kind < 0.3 and left > 64:
            run = rng.randint(65, min(left, 3000))
            value += bytes([0x40 | (run - 1) >> 8, (run - 1) & 0xFF])
        elif kind < 0.6:
            run = rng.randint(1, min(left, 64))
            value.append(run - 1)
        else:
            run = rng.randint(1, min(left, 4))
            value.append(0x80 | rng.randrange(3) << 2 | (run - 1))
        left -= run
    return bytes(value)


@pytest.mark.parametrize("seed", range(10))
def test_merges_of_sparse_values_are_those_of_redis(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    commands: list[Command] = []
    for _ in range(10):
        first, second = sparse_value(rng), sparse_value(rng)
        limit = rng.choice((100000, len(first) + rng.randrange(50)))
        commands += [
            ("CONFIG", "SET", "hll-sparse-max-bytes", limit),
            ("SET", "a", first),
            ("SET", "b", second),
            ("PFCOUNT", "a"),
            ("PFMERGE", "a", "b"),
            ("GET", "a"),
            ("PFADD", "b", *(rng.randbytes(5) for _ in range(20))),
            ("GET", "b"),
            ("PFCOUNT", "b"),
        ]
    pair.same(commands)


def test_values_move_between_servers(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    for count in (10, 5000):
        ours.pfadd("k", *range(count))
        theirs.set("k", ours.get("k"))
        assert theirs.pfcount("k") == ours.pfcount("k") == pytest.approx(count, rel=0.05)
        theirs.pfadd("k", *range(count, 2 * count))
        ours.set("k", theirs.get("k"))
        assert ours.pfcount("k") == theirs.pfcount("k") == pytest.approx(2 * count, rel=0.05)


def test_large_registers_are_counted_as_redis_does(pair: Pair) -> None:
    header = bytes(hyperloglog.empty()[:4]) + bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80])
    rng = random.Random(1)
    values = [b"\xff" * 12288, rng.randbytes(12288), b"\x01" + bytes(12287)]
    for value in values:
        pair.same([("SET", "k", header + value), ("PFCOUNT", "k", "k"), ("PFDEBUG", "GETREG", "k")])


# -- around -----------------------------------------------------------------------------------


EVENTS = {
    "pfadd": "PFADD k\nPFADD k a\nPFADD k a\nPFADD k a b",
    "pfcount": "PFADD k a\nPFCOUNT k\nPFCOUNT k\nPFCOUNT k l\nPFCOUNT none",
    "pfmerge": "PFADD k a\nPFMERGE k\nPFMERGE l k none\nPFMERGE m",
    "pfdebug": "PFADD k a\nPFDEBUG GETREG k\nPFDEBUG TODENSE k\nPFDEBUG ENCODING none",
}


@pytest.mark.parametrize("script", EVENTS.values(), ids=EVENTS)
def test_notifications(pair: Pair, script: str) -> None:
    messages = []
    for server in pair.servers:
        pair.connect(server).ask("CONFIG", "SET", "notify-keyspace-events", "KEAnm")
        listener = server.conn()
        listener.ask("PSUBSCRIBE", "__key*__:*")
        conn = server.conn()
        for line in script.splitlines():
            conn.ask(*line.split())
        conn.ask("PUBLISH", "__keyspace@0__:end", "end")
        messages.append(heard(listener))
    assert messages[0] == messages[1]


def test_counting_fails_a_watch_when_it_caches(pair: Pair) -> None:
    pair.same("PFADD k a\nWATCH k\nPFCOUNT k\nMULTI\nPING\nEXEC")
    pair.same("WATCH k\nPFCOUNT k\nMULTI\nPING\nEXEC")


def test_the_cached_cardinality_is_kept(fresh_server: FreshServer) -> None:
    server = fresh_server()
    client = server.client()
    client.pfadd("k", *range(100))
    client.pfcount("k")
    counted = client.get("k")
    server.kill9()
    server.start()
    assert server.client().get("k") == counted


def test_counting_works_while_writes_are_refused(fresh_server: FreshServer) -> None:
    conn = fresh_server().conn()
    conn.ask("PFADD", "k", "a", "b")
    conn.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    assert conn.ask("PFADD", "k", "c").startswith(b"-NOREPLICAS")
    assert conn.ask("PFCOUNT", "k") == b":2\r\n"


def test_selftest(client: redis.Redis) -> None:
    assert client.execute_command("PFSELFTEST") in (b"OK", "OK", True)


# -- the pure part -----------------------------------------------------------------------------


def test_registers_survive_packing() -> None:
    rng = random.Random(0)
    expected = bytes(rng.randrange(64) for _ in range(hyperloglog.REGISTERS))
    value = hyperloglog.empty()
    hyperloglog.put_registers(value, expected)
    assert len(value) == hyperloglog.DENSE_BYTES
    assert hyperloglog.registers(value) == expected
    for index in (0, 1, 5, hyperloglog.REGISTERS - 1):
        assert not hyperloglog.raise_register(value, index, expected[index], 0)
        if expected[index] < 63:
            assert hyperloglog.raise_register(value, index, 63, 0)
    changed = hyperloglog.registers(value)
    assert [at for at in range(len(changed)) if changed[at] != expected[at]] == [
        at for at in (0, 1, 5, hyperloglog.REGISTERS - 1) if expected[at] != 63
    ]


def test_registers_in_ascending_order_are_the_same_as_one_by_one() -> None:
    rng = random.Random(3)
    for _ in range(20):
        start = sparse_value(rng)
        together, apart = bytearray(start), bytearray(start)
        writer = hyperloglog.SparseWriter(together, 1 << 20)
        for index in sorted(rng.sample(range(hyperloglog.REGISTERS), 500)):
            count = rng.randint(1, 5)
            assert writer.raise_register(index, count) == hyperloglog.raise_register(
                apart, index, count, 1 << 20
            )
            assert together == apart


def test_murmur_hash() -> None:
    assert hyperloglog.murmur_hash_64a(b"", 0) == 0
    assert hyperloglog.murmur_hash_64a(b"hello world", 0) == 0xD3BA2368A832AFCE


def test_a_cut_value_is_corrupt() -> None:
    with pytest.raises(RedisError, match="INVALIDOBJ"):
        hyperloglog.registers(hyperloglog.empty()[:-2])
