"""DUMP and RESTORE: both ways with redis-server, and with payloads that are no values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datadir
import pytest
import redis
from conftest import FreshServer
from core import Client, Core
from harness import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pair import LATER, Pair, heard
from whole_values import COUNTS, TYPES, fill, snapshot

from kvserver.rdb.crc64 import crc64
from kvserver.rdb.decode import decode
from kvserver.rdb.encode import encode
from kvserver.rdb.values import Hash, List, Set, String, Value, ZSet
from kvserver.storage.commitlog import DATA, ROWS

SHARED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ONE = encode(String(b"one"))


# -- values, both ways -----------------------------------------------------------------------------


@pytest.fixture
def here(server: Server) -> redis.Redis:
    return server.client(protocol=2)


@pytest.fixture
def there(oracle: Server) -> redis.Redis:
    client = oracle.client(protocol=2)
    client.config_set("sanitize-dump-payload", "yes")
    return client


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", TYPES)
def test_from_here_to_there(here: redis.Redis, there: redis.Redis, kind: str, count: int) -> None:
    fill(here, "k", kind, count)
    there.restore("k", 0, here.dump("k"))
    assert snapshot(there, "k") == snapshot(here, "k") != None  # noqa: E711
    assert there.ttl("k") == -1


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", TYPES)
def test_from_there_to_here(here: redis.Redis, there: redis.Redis, kind: str, count: int) -> None:
    fill(there, "k", kind, count)
    here.restore("k", 0, there.dump("k"))
    assert snapshot(here, "k") == snapshot(there, "k") != None  # noqa: E711
    here.restore("copy", 0, here.dump("k"))
    assert snapshot(here, "copy") == snapshot(here, "k")


_TEXT = st.binary(max_size=80) | st.integers(-(1 << 63), (1 << 63) - 1).map(lambda n: b"%d" % n)
_TEXTS = st.lists(_TEXT, min_size=1, max_size=40)
_SCORES = st.floats(allow_nan=False, width=64) | st.integers(-(1 << 53), 1 << 53).map(float)
_ZSETS = st.dictionaries(_TEXT, _SCORES, min_size=1, max_size=40)
_HASHES = st.dictionaries(_TEXT, _TEXT, min_size=1, max_size=40)
_VALUES: st.SearchStrategy[Value] = st.one_of(
    _TEXT.map(String),
    _TEXTS.map(List),
    _TEXTS.map(lambda texts: Set(list(dict.fromkeys(texts)))),
    _ZSETS.map(lambda scores: ZSet(list(scores.items()))),
    _HASHES.map(lambda fields: Hash([(f, v, 0) for f, v in fields.items()])),
)


@SHARED
@given(value=_VALUES)
def test_random_values(here: redis.Redis, there: redis.Redis, value: Value) -> None:
    payload = encode(value)
    for client in (here, there):
        client.restore("k", 0, payload, replace=True)
    assert snapshot(here, "k") == snapshot(there, "k")
    ours, theirs = here.dump("k"), there.dump("k")
    here.restore("k", 0, theirs, replace=True)
    there.restore("k", 0, ours, replace=True)
    assert snapshot(here, "k") == snapshot(there, "k")


def test_dump_of_no_key(pair: Pair) -> None:
    pair.same("DUMP missing\nDUMP\nDUMP a b")


def test_dump_of_a_large_collection_is_of_one_moment(here: redis.Redis, server: Server) -> None:
    """It is a walk: what is written meanwhile isn't in it."""
    fill(here, "k", "hash", 5000)
    expected = dict(snapshot(here, "k"))
    moments = [expected]
    dumps, writes = server.conn(), server.conn()
    for turn in range(5):
        changed = b"changed-%d" % turn
        dumps.send(b"*2\r\n$4\r\nDUMP\r\n$1\r\nk\r\n")
        assert writes.ask("HSET", "k", "element-0", changed, "element-4995", changed) == b":0\r\n"
        moments.append({**expected, b"element-0": changed, b"element-4995": changed})
        payload = dumps.reply().partition(b"\r\n")[2][:-2]
        here.restore("copy", 0, payload, replace=True)
        assert dict(snapshot(here, "copy")) in moments[-2:]


# -- what only 7.4 has -----------------------------------------------------------------------------


def test_times_of_fields(here: redis.Redis) -> None:
    here.hset("h", mapping={"a": 1, "b": 2, "c": 3})
    here.execute_command("HPEXPIREAT", "h", LATER * 1000, "FIELDS", 1, "a")
    here.execute_command("HPEXPIREAT", "h", LATER * 1000 + 77, "FIELDS", 1, "b")
    here.restore("copy", 0, here.dump("h"))
    times = here.execute_command("HPEXPIRETIME", "copy", "FIELDS", 3, "a", "b", "c")
    assert times == [LATER * 1000, LATER * 1000 + 77, -1]
    assert here.object("encoding", "copy") == b"listpackex"
    assert snapshot(here, "copy") == snapshot(here, "h")


def test_fields_that_are_past_their_time_go(here: redis.Redis, server: Server) -> None:
    here.restore("h", 0, encode(Hash([(b"a", b"1", 1000), (b"b", b"2", 0)])))
    assert here.hgetall("h") == {b"b": b"2"}
    here.restore("gone", 0, encode(Hash([(b"a", b"1", 1000)])))
    assert here.hgetall("gone") == {}


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (List([b"a"] * 100), b"listpack"),
        (List([b"x" * 9000]), b"quicklist"),
        (List([b"%d" % n for n in range(10_000)]), b"quicklist"),
        (Set([b"1", b"2"]), b"intset"),
        (Set([b"1", b"a"]), b"listpack"),
        (Set([b"a" * 65]), b"hashtable"),
        (Set([b"%d" % n for n in range(512)]), b"intset"),
        (Set([b"%d" % n for n in range(513)]), b"hashtable"),
        (Set([b"m%d" % n for n in range(129)]), b"hashtable"),
        (ZSet([(b"a", 1.0)]), b"listpack"),
        (ZSet([(b"a" * 65, 1.0)]), b"skiplist"),
        (ZSet([(b"%d" % n, 1.0) for n in range(129)]), b"skiplist"),
        (Hash([(b"a", b"1", 0)]), b"listpack"),
        (Hash([(b"a", b"1" * 65, 0)]), b"hashtable"),
        (Hash([(b"%d" % n, b"1", 0) for n in range(513)]), b"hashtable"),
        (String(b"12"), b"int"),
        (String(b"text"), b"embstr"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Value) else "",
)
def test_encodings(here: redis.Redis, value: Value, encoding: bytes) -> None:
    """As 7.4 chooses them; 7.0 knows no listpacks of lists and sets."""
    here.restore("k", 0, encode(value))
    assert here.object("encoding", "k") == encoding


# -- RESTORE's options and errors ------------------------------------------------------------------


def test_order_of_checks(pair: Pair) -> None:
    bad_sum = ONE[:-1] + bytes([ONE[-1] ^ 1])
    bad_value = with_footer(b"\x63abc")
    newer = with_footer(b"\x00\x03one", version=99)
    commands: list[tuple[Any, ...]] = [("SET", "there", "1")]
    for name in ("RESTORE", "RESTORE-ASKING"):
        for words in (
            ("k",),
            ("k", 0, bad_sum, "NONSENSE"),
            ("there", -1, bad_sum, "IDLETIME"),
            ("there", -1, bad_sum, "IDLETIME", "x"),
            ("there", -1, bad_sum, "IDLETIME", -1),
            ("there", -1, bad_sum, "FREQ", "x"),
            ("there", -1, bad_sum, "FREQ", 256),
            ("there", -1, bad_sum, "FREQ", -1),
            ("there", -1, bad_sum, "FREQ", 1, "IDLETIME", 1),
            ("there", -1, bad_sum, "IDLETIME", 1, "FREQ", 1),
            ("there", -1, bad_sum, "FREQ", 1, "FREQ", 2),
            ("there", -1, bad_sum),
            ("there", "x", bad_sum, "REPLACE"),
            ("there", -1, bad_sum, "REPLACE"),
            ("there", 0, bad_sum, "REPLACE"),
            ("there", 0, newer, "REPLACE"),
            ("there", 0, bad_value, "REPLACE"),
            ("there", 0, b"", "REPLACE"),
            ("there", 0, b"short", "REPLACE"),
            ("there", 0, with_footer(b""), "REPLACE"),
        ):
            commands += [(name, *words), ("GET", "there")]
    pair.same(commands)


#: What is done with a restored key of 700 elements; the replies are those of redis-server.
GO_ON = {
    "string": "APPEND k x\nGETRANGE k 0 30\nSTRLEN k",
    "bits": "BITCOUNT k\nSETBIT k 9973 0\nBITPOS k 1 1\nSETBIT k 9000000 1\nSTRLEN k",
    "list": "LPOP k\nRPOP k 3\nLSET k 7 new\nLINSERT k BEFORE new newer\nLREM k 0 element-5\n"
    "LTRIM k 5 -20\nLPUSH k first\nLRANGE k 0 -1\nLLEN k\nLINDEX k 300",
    "set": "SREM k element-0 element-5\nSADD k new element-10\nSISMEMBER k new\nSCARD k",
    "intset": "SADD k 5\nSADD k text\nSCARD k\nSISMEMBER k -77",
    "zset": "ZRANK k element-600\nZPOPMIN k 2\nZADD k 12.5 new\nZRANGE k 0 5\nZCOUNT k -inf 0\n"
    "ZREMRANGEBYRANK k 10 500\nZREVRANGE k 0 3\nZCARD k",
    "hash": "HDEL k element-0\nHSET k element-5 x new y\nHGET k new\nHLEN k\nHSTRLEN k element-5",
    "stream": "XADD k 600-* a b\nXTRIM k MAXLEN ~ 300\nXLEN k\nXRANGE k - + COUNT 3\n"
    "XDEL k 600-0\nXADD k 1-1 a b\nXTRIM k MINID 200-0\nXREVRANGE k + - COUNT 3\nXLEN k",
    "groups": "XADD k 99999999999-* a b\nXREADGROUP GROUP some second COUNT 3 STREAMS k >\n"
    "XACK k some 6-4 6-5\nXPENDING k some\nXPENDING k some - + 0 first\n"
    "XAUTOCLAIM k some idle 0 0 COUNT 10 JUSTID\nXREADGROUP GROUP some idle COUNT 4 STREAMS k 0\n"
    "XGROUP DELCONSUMER k some first\nXTRIM k MAXLEN 100\nXLEN k\n"
    "XREADGROUP GROUP none new COUNT 3 STREAMS k >\nXGROUP DESTROY k some\nXINFO GROUPS k",
}


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_restored_can_be_changed(pair: Pair, there: redis.Redis, kind: str) -> None:
    fill(there, "source", kind, 700)
    payload = there.dump("source")
    pair.same([("RESTORE", "k", 0, payload)])
    pair.same(GO_ON[kind])
    ours, theirs = (server.client(protocol=2) for server in pair.servers)
    assert snapshot(ours, "k") == snapshot(theirs, "k")


def test_dump_in_a_transaction_and_a_script(here: redis.Redis) -> None:
    fill(here, "k", "hash", 5000)
    expected = here.dump("k")
    pipe = here.pipeline()
    pipe.dump("k")
    assert pipe.execute() == [expected]
    assert here.eval("return redis.call('DUMP', KEYS[1])", 1, "k") == expected


def test_times(pair: Pair) -> None:
    commands: list[tuple[Any, ...]] = []
    for words in (
        (0,),
        (LATER * 1000, "ABSTTL"),
        (1, "ABSTTL"),
        (1, "absttl", "replace"),
        (0, "ABSTTL", "REPLACE"),
        ((1 << 63) - 1, "REPLACE"),
        ((1 << 63) - 1, "REPLACE", "ABSTTL"),
        (LATER * 1000, "REPLACE", "ABSTTL", "IDLETIME", 1000),
        (LATER * 1000, "FREQ", 255, "REPLACE", "ABSTTL"),
    ):
        commands += [("SET", "old", "x"), ("RESTORE", "k", words[0], ONE, *words[1:])]
        commands += [("RESTORE", "old", words[0], ONE, *words[1:]), ("PEXPIRETIME", "k")]
        commands += [("GET", "k"), ("GET", "old"), ("PEXPIRETIME", "old"), ("DEL", "k", "old")]
    pair.same(commands)
    pair.same([("RESTORE", "k", 100_000, ONE)])
    assert 90_000 < pair.close("PTTL", "k") <= 100_000


def test_replaces_any_type(pair: Pair) -> None:
    pair.same(
        [
            ("RPUSH", "k", *range(1000)),
            ("RESTORE", "k", 0, encode(Set([b"a"])), "REPLACE"),
            ("SMEMBERS", "k"),
            ("RESTORE", "k", 0, encode(ZSet([(b"a", 1.5)])), "REPLACE"),
            ("ZRANGE", "k", 0, -1, "WITHSCORES"),
            ("RESTORE", "k", 0, ONE, "REPLACE"),
            ("GET", "k"),
            ("DBSIZE",),
        ]
    )


def test_events(pair: Pair) -> None:
    listeners = []
    for server, conn in zip(pair.servers, pair.conns, strict=True):
        conn.ask("CONFIG", "SET", "notify-keyspace-events", "KEAn")
        listener = pair.connect(server)
        listener.ask("PSUBSCRIBE", "__key*")
        listeners.append(listener)
    pair.same(
        [
            ("RESTORE", "k", 0, ONE),
            ("RESTORE", "k", 0, ONE, "REPLACE"),
            ("RESTORE", "k", 0, ONE),
            ("RESTORE", "k", 1, ONE, "REPLACE", "ABSTTL"),
            ("RESTORE", "k", 1, ONE, "REPLACE", "ABSTTL"),
            ("PUBLISH", "__keyend", "end"),
        ]
    )
    ours, theirs = (heard(listener) for listener in listeners)
    assert ours == theirs


def test_wakes_those_who_wait(pair: Pair) -> None:
    waiting = [pair.connect(server) for server in pair.servers]
    for conn in waiting:
        conn.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nl\r\n$1\r\n0\r\n")
    for server in pair.servers:
        client = server.client()
        while not client.info("clients")["blocked_clients"]:
            pass
    pair.same([("RESTORE", "l", 0, encode(List([b"a", b"b"]))), ("LRANGE", "l", 0, -1)])
    ours, theirs = (conn.reply() for conn in waiting)
    assert ours == theirs


def test_in_a_transaction(pair: Pair) -> None:
    pair.same(
        [
            ("WATCH", "w"),
            ("RESTORE", "w", 0, ONE),
            ("MULTI",),
            ("SET", "a", 1),
            ("EXEC",),
            ("MULTI",),
            ("RESTORE", "a", 0, encode(List([b"x"] * 3))),
            ("RESTORE", "a", 0, ONE),
            ("LLEN", "a"),
            ("RESTORE", "a", 0, ONE, "REPLACE"),
            ("GET", "a"),
            ("EXEC",),
        ]
    )


# -- hostile payloads ------------------------------------------------------------------------------


def with_footer(body: bytes, version: int = 10) -> bytes:
    """A payload whose checksum is right, whatever it holds."""
    body += version.to_bytes(2, "little")
    return body + crc64(body).to_bytes(8, "little")


SEEDS: list[Value] = [
    String(b"abc" * 20),
    List([b"a", b"12", b"x" * 100]),
    Set([b"1", b"2", b"text"]),
    ZSet([(b"a", 1.0), (b"b", -0.0), (b"c", 1e300)]),
    Hash([(b"a", b"1", 0), (b"b", b"2", 0)]),
    Hash([(b"a", b"1", LATER * 1000), (b"b", b"2", 0)]),
]


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "core") as core:
        yield core


def mutated(body: bytes, rng: random.Random) -> bytes:
    data = bytearray(body)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(4)
        if kind == 0 and data:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 2:
            del data[at : at + rng.randrange(1, 9)]
        elif data:
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_payloads(core: Core, there: redis.Redis, seed: int) -> None:
    """Whatever comes in: a value that holds together, or an error and no row."""
    rng = random.Random(seed)
    bodies = [encode(value)[:-10] for value in SEEDS]
    for kind in TYPES:
        fill(there, kind, kind, 30)
        bodies.append(there.dump(kind)[:-10])
    client = core.client()
    taken = 0
    for _ in range(600):
        payload = with_footer(mutated(rng.choice(bodies), rng), rng.choice([9, 10, 11, 12]))
        reply = client.ask(b"RESTORE", b"k", b"0", payload)
        assert reply in (b"+OK\r\n", b"-ERR Bad data format\r\n")
        rows, elements = stored(core)
        if reply == b"+OK\r\n":
            taken += 1
            datadir.check_collections(rows, elements)
            again = dumped(core, client)
            assert client.ask(b"RESTORE", b"k", b"0", again, b"REPLACE") == b"+OK\r\n"
            assert value_in(dumped(core, client)) == value_in(again)
            client.ask(b"DEL", b"k")
            rows, elements = stored(core)
        assert not rows
        assert not elements
    assert 0 < taken < 600


def dumped(core: Core, client: Client) -> bytes:
    """The payload of the key, whose DUMP may be a walk."""
    reply = client.ask(b"DUMP", b"k")
    while client.session.blocked_on is not None:
        core.server.waiting.step_walks(1_000_000)
        core.end_turn()
        reply += client.take()
    return reply.partition(b"\r\n")[2][:-2]


def value_in(payload: bytes) -> Value:
    """The value in a payload; the members of a set are in any order there."""
    value = decode(payload, 1 << 30)
    if isinstance(value, Set):
        value.members.sort()
    return value


def stored(core: Core) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """What RocksDB holds: keys and elements."""
    found = [dict(core.engine.scan(cf, b"", b"\xff" * 8)) for cf in (ROWS, DATA)]
    return found[0], found[1]


def test_bombs(here: redis.Redis) -> None:
    """Compressed strings that declare more than there is."""
    for size in (1 << 30, 1 << 40, (1 << 63) - 1):
        body = b"\x00\xc3\x05\x81" + size.to_bytes(8, "big") + b"\x01aa\xe0\xff"
        with pytest.raises(redis.ResponseError, match="Bad data format"):
            here.restore("k", 0, with_footer(body))
    assert here.dbsize() == 0


# -- kill -9 ---------------------------------------------------------------------------------------


def test_kill9(fresh_server: FreshServer) -> None:
    """What was acknowledged is there, and what was under way is whole or not there at all."""
    server = fresh_server(appendfsync="always")
    values: list[Value] = [
        List([b"%d" % n for n in range(3000)]),
        Hash([(b"%d" % n, b"v", 0) for n in range(2000)]),
        Hash([(b"%d" % n, b"v", LATER * 1000 + n) for n in range(2000)]),
    ]
    payloads = [encode(value) for value in values]
    for round in range(3):
        conn, number = server.conn(), 0
        for number in range(5):
            key = f"{round}:{number}"
            assert conn.ask("RESTORE", key, 0, payloads[number % 3]) == b"+OK\r\n"
        conn.send(b"".join(restore_command(f"{round}:late{n}", payloads[n % 3]) for n in range(4)))
        server.kill9()
        datadir.check(server.directory / "db")
        server.start()
        client = server.client()
        for number in range(5):
            assert client.dump(f"{round}:{number}") is not None
        for key in client.keys("*"):
            size = client.llen(key) if client.type(key) == b"list" else client.hlen(key)
            assert size in (3000, 2000)


def restore_command(key: str, payload: bytes) -> bytes:
    words = [b"RESTORE", key.encode(), b"0", payload]
    return b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
