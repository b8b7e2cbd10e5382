"""Hashes over the wire, replies compared with redis-server's byte for byte.

Fields are set in the order of their bytes, in which kvserver gives them: in Redis a small hash has
the order of insertion.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis
from harness import Server
from pair import Pair, heard

SCRIPTS = {
    "set and get": """
        HSET h
        HSET h a
        HSET h a 1 b
        HSET h a 1
        HSET h a 2 b 3
        HSET h c 1 c 2
        HGET h a
        HGET h c
        HGET h nosuch
        HGET nosuch a
        HGET h
        HGET h a b
        HMGET h a nosuch b a
        HMGET nosuch a b
        HMGET h
        HGETALL h
        HKEYS h
        HVALS h
        HLEN h
        HGETALL nosuch
        HKEYS nosuch
        HVALS nosuch
        HLEN nosuch
        HSTRLEN h a
        HSTRLEN h nosuch
        HSTRLEN nosuch a
        HEXISTS h a
        HEXISTS h nosuch
        HEXISTS nosuch a
        TYPE h
        """,
    "odd names and values": r"""
        HSET h "" "" "\x00" "\xff\x00\r\n" "f\x00" "e\xff" "\xff" ""
        HGETALL h
        HGET h ""
        HGET h "\x00"
        HSTRLEN h "\x00"
        HDEL h ""
        HKEYS h
        HDEL h "\x00" "f\x00" "\xff"
        EXISTS h
        HSET "" "" v
        HGETALL ""
        """,
    "hmset": """
        HMSET h a 1 b 2
        HMSET h a
        HMSET h a 1 b
        HMSET h
        HGETALL h
        """,
    "hsetnx": """
        HSETNX h a 1
        HSETNX h a 2
        HSETNX h b 3
        HGETALL h
        HSETNX h
        HSETNX h a 1 b
        """,
    "hdel": """
        HDEL h
        HDEL nosuch a
        HSET h a 1 b 2 c 3
        HDEL h a a nosuch
        HDEL h b c d
        EXISTS h
        HGETALL h
        HLEN h
        """,
    "hincrby": """
        HINCRBY h a 5
        HINCRBY h a -7
        HINCRBY h a 9223372036854775807
        HINCRBY h a 9223372036854775807
        HINCRBY h b -9223372036854775808
        HINCRBY h b -1
        HINCRBY h b abc
        HINCRBY h b 1.5
        HINCRBY h b 9223372036854775808
        HSET h x abc y "1 " z 007 zz ""
        HINCRBY h x 1
        HINCRBY h y 1
        HINCRBY h z 1
        HINCRBY h zz 1
        HINCRBY h
        HINCRBY nosuch x abc
        EXISTS nosuch
        HGETALL h
        """,
    "hincrbyfloat": """
        HINCRBYFLOAT h f 1.5
        HINCRBYFLOAT h f 1e2
        HINCRBYFLOAT h f -0.1
        HINCRBYFLOAT h f abc
        HINCRBYFLOAT h f inf
        HINCRBYFLOAT h f -inf
        HINCRBYFLOAT h f nan
        HINCRBYFLOAT h f " 1"
        HSET h x abc y 1e4000 z ""
        HINCRBYFLOAT h x 1
        HINCRBYFLOAT h y 1e4000
        HINCRBYFLOAT h y 1e4932
        HINCRBYFLOAT h y 1e4932
        HINCRBYFLOAT h z 1
        HINCRBYFLOAT h i 3
        HINCRBYFLOAT h i 3.0e0
        HGET h f
        HGET h i
        HINCRBYFLOAT h
        """,
    "wrong type": """
        SET s v
        HSET s a 1
        HSET s a
        HMSET s a 1
        HSETNX s a 1
        HGET s a
        HMGET s a b
        HGETALL s
        HKEYS s
        HVALS s
        HLEN s
        HSTRLEN s a
        HEXISTS s a
        HDEL s a
        HINCRBY s a 1
        HINCRBY s a x
        HINCRBYFLOAT s a 1
        HINCRBYFLOAT s a x
        HRANDFIELD s
        HRANDFIELD s 1
        HRANDFIELD s 0
        HRANDFIELD s x
        HSCAN s 0
        HSCAN s x
        HSCAN s 0 bogus
        HSET h a 1
        GET h
        APPEND h x
        SET h v
        GET h
        """,
    "hrandfield": """
        HRANDFIELD nosuch
        HRANDFIELD nosuch 3
        HRANDFIELD nosuch 3 WITHVALUES
        HRANDFIELD nosuch x
        HRANDFIELD nosuch 3 x
        HRANDFIELD nosuch 3 WITHVALUES x
        HSET h a 1
        HRANDFIELD h
        HRANDFIELD h 0
        HRANDFIELD h 1
        HRANDFIELD h 5
        HRANDFIELD h -3
        HRANDFIELD h 1 WITHVALUES
        HRANDFIELD h 5 withvalues
        HRANDFIELD h -3 WITHVALUES
        HRANDFIELD h 0 WITHVALUES
        HRANDFIELD h x
        HRANDFIELD h 1.5
        HRANDFIELD h 1 bogus
        HRANDFIELD h WITHVALUES
        HRANDFIELD h 9223372036854775807
        HRANDFIELD h 9223372036854775808
        HRANDFIELD h -9223372036854775808
        HRANDFIELD h 9223372036854775807 WITHVALUES
        HRANDFIELD h -9223372036854775807 WITHVALUES
        HRANDFIELD h 4611686018427387903 WITHVALUES
        HSET h b 2 c 3
        HRANDFIELD h 3 WITHVALUES
        HRANDFIELD h 10
        """,
    "hscan": """
        HSCAN
        HSCAN h
        HSCAN nosuch 0
        HSCAN nosuch 0 bogus
        HSCAN nosuch x
        HSCAN nosuch 5
        HSET h a 1 b 2 c 3
        HSCAN h 0
        HSCAN h 7
        HSCAN h x
        HSCAN h 18446744073709551616
        HSCAN h 0 COUNT 1
        HSCAN h 0 COUNT 0
        HSCAN h 0 COUNT x
        HSCAN h 0 COUNT
        HSCAN h 0 MATCH
        HSCAN h 0 MATCH b
        HSCAN h 0 match [bc]
        HSCAN h 0 MATCH * COUNT 1
        HSCAN h 0 MATCH x*
        HSCAN h 0 MATCH ""
        HSCAN h 0 TYPE string
        HSCAN h 0 bogus
        """,
    "keys": """
        HSET h a 1 b 2
        RENAME h g
        HGETALL g
        COPY g h
        HSET g c 3
        HGETALL h
        HGETALL g
        DEL g
        HGETALL g
        HSET g z 1
        HGETALL g
        MOVE g 1
        SELECT 1
        HGETALL g
        SWAPDB 0 1
        HGETALL g
        HGETALL h
        FLUSHDB
        HGETALL h
        """,
    "transaction": """
        MULTI
        HSET h a 1
        HINCRBY h a 2
        HGETALL h
        HSCAN h 0
        HRANDFIELD h 1 WITHVALUES
        HDEL h a
        HGETALL h
        EXEC
        EXISTS h
        """,
    "encoding": """
        CONFIG SET hash-max-listpack-entries 3 hash-max-listpack-value 5
        HSET h a 1 b 2 c 3
        OBJECT ENCODING h
        HSET h a 2
        OBJECT ENCODING h
        HSET h d 4
        OBJECT ENCODING h
        HDEL h d c
        OBJECT ENCODING h
        HSET g a 12345
        OBJECT ENCODING g
        HSET g a 123456
        OBJECT ENCODING g
        HSET g a 1
        OBJECT ENCODING g
        HSET f 123456 1
        OBJECT ENCODING f
        HSETNX e 12345 1
        HSETNX e 123456 1
        OBJECT ENCODING e
        HINCRBY d n 12345
        OBJECT ENCODING d
        HINCRBY d n 123456
        OBJECT ENCODING d
        COPY d c
        OBJECT ENCODING c
        CONFIG GET hash-max-ziplist-entries
        CONFIG GET hash-max-ziplist-value
        CONFIG SET hash-max-listpack-entries 512 hash-max-listpack-value 64
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


def test_events(pair: Pair) -> None:
    pair.same([("CONFIG", "SET", "notify-keyspace-events", "AKEn")])
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.send(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$1\r\n*\r\n")
        conn.reply()
    pair.same(
        """
        HSET h a 1
        HSET h a 1 b 2
        HMSET h c 3
        HSETNX h c 3
        HSETNX h d 3
        HINCRBY h n 1
        HINCRBY h a x
        HINCRBYFLOAT h n 1
        HDEL h nosuch
        HDEL h a b
        HDEL h c d n
        PUBLISH x end
        """
    )
    ours, theirs = (heard(conn) for conn in listeners)
    assert ours == theirs
    assert len(ours) == 20


def fill(client: redis.Redis, key: str, count: int) -> dict[bytes, bytes]:
    """A hash of so many fields."""
    fields = {b"field:%d" % number: b"%d" % number for number in range(count)}
    names = list(fields)
    for start in range(0, count, 1000):
        client.hset(key, mapping={name: fields[name] for name in names[start : start + 1000]})
    return fields


def test_large_hashes(client: redis.Redis) -> None:
    fields = fill(client, "h", 3000)
    assert client.hlen("h") == 3000
    assert client.hgetall("h") == fields
    assert set(client.hkeys("h")) == set(fields)
    assert sorted(client.hvals("h")) == sorted(fields.values())
    with client.pipeline() as pipeline:
        pipeline.hgetall("h").hkeys("h").hdel("h", "field:0").hlen("h")
        everything, names, _, left = pipeline.execute()
    assert everything == fields
    assert names == sorted(fields)
    assert left == 2999


def test_large_replies_are_those_of_redis(pair: Pair) -> None:
    pairs = [part for n in range(1000) for part in (b"f%04d" % n, b"v" * (n % 70))]
    command: Any = ("HSET", "h", *pairs)
    pair.same([command])
    for conn in pair.conns:
        assert conn.ask("HLEN", "h") == b":1000\r\n"
    for name in ("HGETALL", "HKEYS", "HVALS"):
        ours, theirs = (replies[0][1] for replies in pair.ask_both([(name, "h")]))
        assert len(ours) == len(theirs)
        assert ours[:7] == theirs[:7]
    ours, theirs = (
        replies[0][1] for replies in pair.ask_both([("HRANDFIELD", "h", "900", "WITHVALUES")])
    )
    assert ours.count(b"\r\n") == theirs.count(b"\r\n")
    assert ours[:10] == theirs[:10]


def test_once_keeps_a_large_reply_for_both_protocols(server: Server) -> None:
    fields = fill(server.client(), "h", 1000)
    first = server.client(protocol=2)
    flat = first.execute_command("ONCE", "large hash", "1", "HGETALL", "h")
    assert dict(zip(flat[::2], flat[1::2], strict=True)) == fields
    assert (
        server.client(protocol=3).execute_command("ONCE", "large hash", "1", "HGETALL", "h")
        == fields
    )


# -- HSCAN -------------------------------------------------------------------------------------


def test_hscan_of_a_large_hash(client: redis.Redis) -> None:
    fields = fill(client, "h", 2000)
    for count in (1, 10, 300, 100_000):
        if count == 1:
            cursor, some = client.hscan("h", count=1)
            assert 0 < cursor < 1 << 53
            assert len(some) == 1
            continue
        assert dict(client.hscan_iter("h", count=count)) == fields
    matching = {name: value for name, value in fields.items() if name.startswith(b"field:12")}
    assert dict(client.hscan_iter("h", "field:12*", count=30)) == matching
    assert dict(client.hscan_iter("h", "*:12?", count=300)) == {
        b"field:12%d" % n: b"12%d" % n for n in range(10)
    }
    assert list(client.hscan_iter("h", "nosuch*")) == []
    assert client.hscan("h", 0, "field:7", 1) == (0, {b"field:7": b"7"})


def test_hscan_returns_what_is_there_all_the_time(client: redis.Redis) -> None:
    fields = fill(client, "h", 2000)
    found: dict[bytes, bytes] = {}
    cursor, calls = 0, 0
    while cursor or not calls:
        cursor, some = client.hscan("h", cursor, count=50)
        found |= some
        calls += 1
        client.hdel("h", f"field:{2 * calls}")
        client.hset("h", f"a{calls}", "x")
        client.hset("h", f"field:z{calls}", "x")
    assert calls >= 40
    kept = {name for name in fields if not (int(name[6:]) % 2 == 0 and int(name[6:]) <= 2 * calls)}
    assert kept <= set(found)


def test_hscan_novalues(server: Server) -> None:
    # Redis 7.4 has NOVALUES, 7.0 doesn't.
    client, conn = server.client(), server.conn()
    client.hset("small", mapping={"a": "1", "b": "2"})
    small = conn.ask("HSCAN", "small", "0", "NOVALUES")
    assert small == b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    names = set(fill(client, "h", 1000))
    words = conn.ask("HSCAN", "h", "0", "COUNT", "2000", "novalues").split(b"\r\n")
    assert words[:4] == [b"*2", b"$1", b"0", b"*1000"]
    assert set(words[5::2]) == names


def test_hscan_with_any_cursor_is_harmless(client: redis.Redis) -> None:
    fields = set(fill(client, "h", 1000))
    client.set("k", "v")
    for number in (1, 1 << 20, 1 << 38, 1 << 52, (1 << 64) - 1):
        cursor, some = client.hscan("h", number, count=5)
        assert cursor < 1 << 53
        assert set(some) <= fields
    cursor, _ = client.hscan("h", 0, count=5)
    client.execute_command("SCAN", cursor)


def test_hscan_goes_on_after_a_restart(fresh_server: Callable[..., Server]) -> None:
    server = fresh_server()
    fields = fill(server.client(), "h", 1000)
    cursor, found = server.client().hscan("h", 0, count=100)
    server.kill9()
    server.start()
    client = server.client()
    while cursor:
        cursor, some = client.hscan("h", cursor, count=100)
        found |= some
    assert found == fields


# -- HRANDFIELD --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 512, 600, 5000])
def test_hrandfield(client: redis.Redis, size: int) -> None:
    fields = fill(client, "h", size)
    names = set(fields)
    assert {client.hrandfield("h") for _ in range(20)} <= names
    for count in (1, 3, size // 2, size - 1, size, size + 1):
        found = client.hrandfield("h", count)
        assert len(found) == len(set(found)) == min(count, size)
        assert set(found) <= names
    for count in (1, 7, size * 3):
        found = client.hrandfield("h", -count)
        assert len(found) == count
        assert set(found) <= names
    found = client.execute_command("HRANDFIELD", "h", "5", "WITHVALUES")
    pairs = found if isinstance(found[0], list) else zip(found[::2], found[1::2], strict=True)
    assert all(fields[name] == value for name, value in pairs)


@pytest.mark.parametrize("size", [20, 1000])
def test_hrandfield_gives_every_field_about_as_often(server: Server, size: int) -> None:
    client = server.client()
    fill(client, "h", size)
    drawn = 200 * size
    seen = Counter(client.hrandfield("h", -drawn))
    assert len(seen) == size
    # 200 each, with a standard deviation of 14.
    assert min(seen.values()) > 100
    assert max(seen.values()) < 300


def test_hrandfield_seeks_all_over_a_large_hash(server: Server) -> None:
    client = server.client()
    fields = fill(client, "h", 20_000)
    client.hset("h", mapping={"a" * length: "x" for length in range(1, 50)})
    seen: Counter[bytes] = Counter()
    for _ in range(100):
        seen.update(client.hrandfield("h", 20))
    assert len(seen) > 1000
    thousands = Counter(len(name) * 10 + int(name[6:7]) for name in seen if name in fields)
    assert len(thousands) >= 15


def test_too_many_at_random(client: redis.Redis) -> None:
    # Redis would send them until the client's output buffer has no more room.
    client.hset("h", "a", "1")
    with pytest.raises(redis.ResponseError, match="value is out of range"):
        client.hrandfield("h", -(1 << 40))
    assert client.hrandfield("h", 1 << 62) == [b"a"]


# -- all else ----------------------------------------------------------------------------------


def test_hashes_survive_a_crash(fresh_server: Callable[..., Server]) -> None:
    server = fresh_server()
    client = server.client()
    fields = fill(client, "h", 500)
    client.hset("g", mapping={"a": "1", "b": "2"})
    client.hdel("g", "a")
    client.hincrby("g", "n", 7)
    server.kill9()
    server.start()
    client = server.client()
    assert client.hgetall("h") == fields
    assert client.hgetall("g") == {b"b": b"2", b"n": b"7"}
    assert client.hlen("g") == 2


def test_watch_sees_changes_of_fields(server: Server) -> None:
    client, other = server.client(), server.client()
    client.hset("h", "a", "1")
    for change in (("HSET", "h", "a", "1"), ("HDEL", "h", "a"), ("HINCRBY", "h", "n", "1")):
        with client.pipeline() as pipeline:
            pipeline.watch("h")
            other.execute_command(*change)
            pipeline.multi()
            pipeline.ping()
            with pytest.raises(redis.WatchError):
                pipeline.execute()


def test_others_are_served_while_a_large_hash_is_read(server: Server) -> None:
    client = server.client()
    size = len(fill(client, "h", 30_000))
    counts: list[int] = []

    def walk() -> None:
        other = server.client()
        counts.extend(len(other.hgetall("h")) for _ in range(3))
        counts.append(len(other.hscan("h", count=100_000)[1]))

    thread = threading.Thread(target=walk)
    thread.start()
    pings, slowest = 0, 0.0
    while thread.is_alive():
        start = time.perf_counter()
        client.ping()
        slowest = max(slowest, time.perf_counter() - start)
        pings += 1
    thread.join()
    assert counts == [size] * 4
    assert pings > 10
    assert slowest < 1


def test_memory_usage_grows_with_the_fields(client: redis.Redis) -> None:
    fill(client, "small", 10)
    fill(client, "large", 1000)
    small, large = client.memory_usage("small"), client.memory_usage("large", samples=0)
    assert small is not None
    assert large is not None
    assert 10 * 170 < small < 10 * 300
    assert 1000 * 170 < large < 1000 * 300
