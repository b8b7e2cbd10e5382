"""Payloads of DUMP: what redis-server wrote is read, and what is written it takes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
import redis
from conftest import FreshServer
from harness import REDIS, Server

from kvserver.rdb import types
from kvserver.rdb.decode import decode, decode_steps
from kvserver.rdb.encode import encode, encode_steps
from kvserver.rdb.errors import BadFormat
from kvserver.rdb.values import (
    Consumer,
    Group,
    Hash,
    List,
    Pending,
    Set,
    Stream,
    String,
    Value,
    ZSet,
)

MAX = 1 << 30
COUNTS = [1, 2, 100, 5000]

#: What strings may be, by name: each gives distinct ones for distinct numbers.
TEXTS = {
    "short": lambda i: b"element-%d" % i,
    "binary": lambda i: b"\x00\xff\r\n%d" % i,
    "integers": lambda i: b"%d" % (i * (-1) ** i * 7919 ** (i % 5)),
    "almost integers": lambda i: b"%03d" % i if i % 2 else b"+%d" % i,
    "compressible": lambda i: b"%d " % i + b"abcabcabd" * (10 + i % 7),
    "of 64 to 4096 bytes": lambda i: (b"%d" % i).ljust(60 + i % 4100, b"%d" % (i % 7)),
}

STRINGS = [
    b"",
    b"a",
    b"0",
    b"-0",
    b"12",
    b"-128",
    b"127",
    b"128",
    b"-129",
    b"32767",
    b"-32769",
    b"2147483647",
    b"-2147483648",
    b"2147483648",
    b"9223372036854775807",
    b"012",
    b"x" * 63,
    b"x" * 64,
    b"ab" * 5000,
    b"abcdefgh" * 10000 + b"tail",
    bytes(range(256)) * 300,
    random.Random(1).randbytes(20000),
    b"x" * (1 << 20),
]

SCORES = [0.0, 1.0, -1.5, 1e300, -1e-300, math.inf, -math.inf, 0.1, 3.0, 1e17, 5e-324]


@pytest.fixture
def there(oracle: Server) -> redis.Redis:
    client = oracle.client(protocol=2)
    client.config_set("sanitize-dump-payload", "yes")
    return client


@pytest.fixture
def raw(there: redis.Redis) -> redis.Redis:
    """XRANGE's fields stay a list: redis-py makes a dictionary of them."""
    there.set_response_callback("XRANGE", lambda reply, **_: reply)
    return there


def dump(there: redis.Redis, key: str = "k") -> Value:
    """What redis-server has there, as its payload says."""
    payload = there.execute_command("DUMP", key)
    return decode(payload, MAX)


def restore(there: redis.Redis, value: Value) -> None:
    """Have redis-server take the payload of a value."""
    assert there.restore("k", 0, encode(value), replace=True)


def batches(items: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(items), 1000):
        yield items[start : start + 1000]


def kind_of(there: redis.Redis) -> int:
    return int(there.execute_command("DUMP", "k")[0])


# -- strings


@pytest.mark.parametrize("text", STRINGS, ids=lambda text: f"{text[:12]!r}{len(text)}")
def test_strings(there: redis.Redis, text: bytes) -> None:
    there.set("k", text)
    assert dump(there) == String(text)
    restore(there, String(text))
    assert there.get("k") == text
    assert decode(encode(String(text)), MAX) == String(text)


@pytest.mark.parametrize("text", [b"", b"12", b"300", b"-70000", b"abc", b"x" * 20, b"y" * 16400])
def test_a_string_is_dumped_as_redis_does(there: redis.Redis, text: bytes) -> None:
    there.config_set("rdbcompression", "no")
    there.set("k", text)
    assert encode(String(text)) == there.execute_command("DUMP", "k")


# -- collections


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("texts", TEXTS)
def test_lists(there: redis.Redis, texts: str, count: int) -> None:
    elements = [TEXTS[texts](i) for i in range(count)]
    for some in batches(elements):
        there.rpush("k", *some)
    assert kind_of(there) == types.LIST_QUICKLIST_2
    assert dump(there) == List(elements)
    restore(there, List(elements))
    assert there.lrange("k", 0, -1) == elements
    assert dump(there) == List(elements)


def test_a_list_with_plain_nodes(fresh_server: FreshServer) -> None:
    there = fresh_server(program=REDIS, enable_debug_command="yes").client(protocol=2)
    there.execute_command("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "200b")
    elements = [b"a", b"long" * 5000, b"b", random.Random(2).randbytes(20_000), b"1"]
    there.rpush("k", *elements)
    payload = there.execute_command("DUMP", "k")
    # Five nodes, of which the second is plain.
    assert payload[:2] == bytes([types.LIST_QUICKLIST_2, 5])
    assert payload.count(bytes([types.NODE_PLAIN, types.ENCODED << 6 | types.LZF])) == 1
    assert decode(payload, MAX) == List(elements)
    restore(there, List(elements))
    assert there.lrange("k", 0, -1) == elements


def test_long_compressed_elements(raw: redis.Redis) -> None:
    """Those that are decompressed in steps, wherever strings are."""
    texts = [b"%d" % i + b"".join(b"%d," % (n * n + i) for n in range(4000)) for i in range(3)]
    raw.rpush("list", *texts)
    raw.sadd("set", *texts)
    raw.zadd("zset", dict.fromkeys(texts, 1))
    raw.hset("hash", mapping={text: text + b"!" for text in texts})
    for text in texts:
        raw.xadd("stream", {text: text}, id="*")
    raw.xgroup_create("stream", texts[0], 0)
    raw.xreadgroup(texts[0], texts[1], {"stream": ">"}, count=2)
    assert dump(raw, "list") == List(texts)
    members = dump(raw, "set")
    assert isinstance(members, Set)
    assert sorted(members.members) == sorted(texts)
    zset = dump(raw, "zset")
    assert isinstance(zset, ZSet)
    assert sorted(zset.members) == sorted((text, 1.0) for text in texts)
    fields = dump(raw, "hash")
    assert isinstance(fields, Hash)
    assert sorted(fields.fields) == sorted((text, text + b"!", 0) for text in texts)
    stream = dump(raw, "stream")
    assert isinstance(stream, Stream)
    assert [entry[2] for entry in stream.entries] == [[text, text] for text in texts]
    assert [pending.consumer for pending in stream.groups[0].pel] == [texts[1]] * 2
    assert stream.groups[0].name == texts[0]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("texts", TEXTS)
def test_sets(there: redis.Redis, texts: str, count: int) -> None:
    members = [TEXTS[texts](i) for i in range(count)]
    for some in batches(members):
        there.sadd("k", *some)
    small = texts == "integers" and count <= 512
    assert kind_of(there) == (types.SET_INTSET if small else types.SET)
    value = dump(there)
    assert isinstance(value, Set)
    assert sorted(value.members) == sorted(members)
    restore(there, Set(members))
    assert there.smembers("k") == set(members)
    assert there.object("encoding", "k") == (b"intset" if small else b"hashtable")


@pytest.mark.parametrize("step", [1, 1000, 10**8, 10**17])
def test_intsets_of_all_widths(there: redis.Redis, step: int) -> None:
    numbers = [(i - 40) * step for i in range(80)]
    there.sadd("k", *numbers)
    assert kind_of(there) == types.SET_INTSET
    assert dump(there) == Set([b"%d" % number for number in numbers])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("texts", TEXTS)
def test_sorted_sets(there: redis.Redis, texts: str, count: int) -> None:
    members = [(TEXTS[texts](i), SCORES[i] if i < len(SCORES) else i / 7) for i in range(count)]
    for start in range(0, count, 1000):
        there.zadd("k", dict(members[start : start + 1000]))
    for _ in range(2):
        value = dump(there)
        assert isinstance(value, ZSet)
        assert sorted(value.members) == sorted(members)
        restore(there, ZSet(members))
    assert dict(there.zrange("k", 0, -1, withscores=True)) == dict(members)


def test_the_sign_of_zero(there: redis.Redis) -> None:
    # A listpack has no place for it.
    there.config_set("zset-max-listpack-entries", 0)
    restore(there, ZSet([(b"a", -0.0)]))
    value = dump(there)
    assert isinstance(value, ZSet)
    assert [math.copysign(1, score) for _, score in value.members] == [-1]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("texts", TEXTS)
def test_hashes(there: redis.Redis, texts: str, count: int) -> None:
    fields = [(TEXTS[texts](i), TEXTS[texts](i + 1), 0) for i in range(count)]
    mapping = {field: value for field, value, _ in fields}
    for start in range(0, count, 1000):
        there.hset("k", mapping={f: v for f, v, _ in fields[start : start + 1000]})
    value = dump(there)
    assert isinstance(value, Hash)
    assert sorted(value.fields) == sorted(fields)
    restore(there, Hash(fields))
    assert there.hgetall("k") == mapping


@pytest.mark.parametrize("entries", [10, 1 << 20])
def test_both_encodings_of_small_collections(there: redis.Redis, entries: int) -> None:
    there.config_set("hash-max-listpack-entries", entries)
    there.config_set("zset-max-listpack-entries", entries)
    there.config_set("hash-max-listpack-value", 1 << 20)
    count = 3000
    there.hset("k", mapping={b"f%d" % i: b"v" * (i % 200) for i in range(count)})
    assert kind_of(there) == (types.HASH if entries == 10 else types.HASH_LISTPACK)
    value = dump(there)
    assert isinstance(value, Hash)
    assert sorted(value.fields) == sorted((b"f%d" % i, b"v" * (i % 200), 0) for i in range(count))
    there.delete("k")
    there.zadd("k", {b"m%d" % i: i / 8 - 100 for i in range(count)})
    assert kind_of(there) == (types.ZSET_2 if entries == 10 else types.ZSET_LISTPACK)
    zset = dump(there)
    assert isinstance(zset, ZSet)
    assert sorted(zset.members) == sorted((b"m%d" % i, i / 8 - 100) for i in range(count))


# -- streams


def groups_there(there: redis.Redis) -> list[Group]:
    """The groups of a stream as XINFO and XPENDING show them, without times and reads."""
    groups = []
    for info in there.xinfo_groups("k"):
        name = info["name"]
        pel = [
            Pending(parse_id(p["message_id"]), 0, p["times_delivered"], p["consumer"])
            for p in there.xpending_range("k", name, "-", "+", 10**6)
        ]
        consumers = [Consumer(c["name"], 0, 0) for c in there.xinfo_consumers("k", name)]
        read = -1 if info["entries-read"] is None else info["entries-read"]
        groups.append(Group(name, parse_id(info["last-delivered-id"]), read, pel, consumers))
    return groups


def without_times(groups: list[Group]) -> list[Group]:
    return [
        Group(
            group.name,
            group.last_id,
            group.entries_read,
            [entry._replace(delivery_ms=0) for entry in group.pel],
            [Consumer(consumer.name, 0, 0) for consumer in group.consumers],
        )
        for group in groups
    ]


def parse_id(text: bytes) -> tuple[int, int]:
    ms, seq = text.split(b"-")
    return int(ms), int(seq)


def entries_there(there: redis.Redis) -> list[tuple[int, int, list[bytes]]]:
    return [
        (*parse_id(id_), fields) for id_, fields in there.execute_command("XRANGE", "k", "-", "+")
    ]


def check_stream(there: redis.Redis, value: Value) -> None:
    """What was decoded is what redis-server says that it has."""
    assert isinstance(value, Stream)
    info = there.xinfo_stream("k")
    assert value.entries == entries_there(there)
    assert value.last_id == parse_id(info["last-generated-id"])
    assert value.first_id == parse_id(info["recorded-first-entry-id"])
    assert value.max_deleted_id == parse_id(info["max-deleted-entry-id"])
    assert value.entries_added == info["entries-added"]
    assert without_times(value.groups) == groups_there(there)


@pytest.mark.parametrize("count", [1, 99, 100, 101, 5000])
@pytest.mark.parametrize("texts", ["short", "integers", "compressible"])
def test_streams(raw: redis.Redis, texts: str, count: int) -> None:
    text = TEXTS[texts]
    with raw.pipeline(transaction=False) as pipe:
        for i in range(count):
            names = [b"a", b"b"] if i % 5 else [b"a", b"%d" % (i % 3), b"a"]
            fields = [part for name in names for part in (name, text(i))]
            pipe.execute_command("XADD", "k", f"{1000 + i // 3}-{(i * 7) % 3 + i}", *fields)
        for i in range(0, count, 4):
            pipe.xdel("k", f"{1000 + i // 3}-{(i * 7) % 3 + i}")
        pipe.execute()
    value = dump(raw)
    check_stream(raw, value)
    restore(raw, value)
    check_stream(raw, value)
    assert dump(raw) == value


def test_groups(raw: redis.Redis) -> None:
    with raw.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.xadd("k", {"n": i})
        pipe.execute()
    for group in ("g", "1", "empty"):
        raw.xgroup_create("k", group, "0")
    raw.xgroup_createconsumer("k", "g", "idle")
    for i in range(10):
        raw.xreadgroup("g", f"c{i % 3}", {"k": ">"}, count=50)
    raw.xreadgroup("1", "2", {"k": ">"}, count=3)
    raw.xreadgroup("g", "c1", {"k": "0"}, count=7)
    acknowledged = [entry["message_id"] for entry in raw.xpending_range("k", "g", "-", "+", 20)]
    raw.xack("k", "g", *acknowledged)
    raw.xdel("k", *[id_ for id_, _ in raw.execute_command("XRANGE", "k", "-", "+")[100:110]])
    value = dump(raw)
    check_stream(raw, value)
    assert isinstance(value, Stream)
    assert {entry.delivery_count for entry in value.groups[2].pel} == {1, 2}
    raw.delete("k")
    restore(raw, value)
    check_stream(raw, value)
    assert dump(raw) == value


def test_streams_at_the_limits_of_ids(raw: redis.Redis) -> None:
    top = (1 << 64) - 1
    entries = [
        (0, 1, [b"f", b"v"]),
        (0, top, [b"f", b"w"]),
        (1, 0, [b"f", b"w", b"g", b""]),
        (top, 0, [b"f", b"12"]),
        (top, top, [b"f", b"x"]),
    ]
    value = Stream(entries, (top, top), (0, 1), (0, 0), 5)
    restore(raw, value)
    check_stream(raw, value)
    assert dump(raw) == value


def test_an_empty_stream(raw: redis.Redis) -> None:
    raw.xadd("k", {"f": "v"}, id="5-1")
    raw.xdel("k", "5-1")
    raw.xgroup_create("k", "g", "5-1")
    value = dump(raw)
    assert isinstance(value, Stream)
    assert (value.entries, value.last_id, value.max_deleted_id) == ([], (5, 1), (5, 1))
    restore(raw, value)
    assert dump(raw) == value


# -- steps


def test_a_million_elements_in_steps() -> None:
    members = [b"member-%d" % i for i in range(1_000_000)]
    encoding = encode_steps(Set(members))
    payload, steps = counted(encoding)
    assert steps >= len(members) / types.STEP - 1
    value, steps = counted(decode_steps(payload, MAX))
    assert steps >= len(members) / types.STEP - 1
    assert value == Set(members)


def test_one_of_many_elements_twice() -> None:
    members = [b"member-%d" % i for i in range(10_000)]
    for where in (0, 5000, 9998):
        with pytest.raises(BadFormat):
            decode(encode(Set([*members[:-1], members[where]])), MAX)


def test_a_long_compressed_string_in_steps(there: redis.Redis) -> None:
    text = random.Random(3).randbytes(200).join([b"%d" % i for i in range(100_000)])[: 8 << 20]
    there.set("k", text)
    payload = there.execute_command("DUMP", "k")
    assert len(payload) < len(text) / 2
    value, steps = counted(decode_steps(payload, MAX))
    assert value == String(text)
    assert steps > len(payload) / 10_000


def counted(steps: Iterator[None]) -> tuple[Value | bytes, int]:
    """The result, and how often they gave way."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, count
        count += 1
