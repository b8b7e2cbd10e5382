"""KEYS and SCAN over the wire: replies as redis-server's, whole iterations, and nobody waits for a
long walk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import redis
from harness import Server
from pair import Pair

SCRIPTS = {
    "scan": """
        SCAN
        SCAN 0
        SCAN 1
        SCAN x
        SCAN 1.0
        SCAN 18446744073709551616
        SCAN 99999999999999999999999
        SCAN 0 MATCH
        SCAN 0 COUNT
        SCAN 0 TYPE
        SCAN 0 COUNT 0
        SCAN 0 COUNT -1
        SCAN 0 COUNT x
        SCAN 0 COUNT 9223372036854775808
        SCAN 0 bogus
        SCAN 0 MATCH * bogus 1
        SCAN x COUNT x
        SET key v
        SCAN 0
        SCAN 0 match k* count 100
        SCAN 0 MATCH x* COUNT 100 MATCH k*
        SCAN 0 COUNT 9223372036854775807
        SCAN 0 TYPE string
        SCAN 0 TYPE STRING
        SCAN 0 TYPE zset
        SCAN 0 TYPE none
        SCAN 0 TYPE bogus
        SCAN 0 MATCH x TYPE string
        SCAN 0 MATCH key
        SCAN 0 MATCH ""
        """,
    "keys": """
        KEYS
        KEYS * *
        KEYS *
        SET "" v
        KEYS *
        KEYS ""
        DEL ""
        SET key v
        KEYS *
        KEYS k*
        KEYS ?e?
        KEYS [a-k]ey
        KEYS [^k]ey
        KEYS key
        KEYS KEY
        KEYS k\\\\ey
        KEYS {key}
        SELECT 1
        KEYS *
        SET {key}2 v
        KEYS {key}*
        KEYS {key}
        KEYS {}*
        KEYS *{key}*
        SET "\\x00\\xff*" v
        KEYS "\\x00*"
        KEYS "\\x00\\xff\\\\*"
        """,
    "in a transaction": """
        SET k v
        MULTI
        DEL k
        SET l v
        KEYS *
        SCAN 0
        RANDOMKEY
        FLUSHALL
        KEYS *
        SCAN 0
        EXEC
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


def test_novalues_is_for_hscan(server: Server) -> None:
    with pytest.raises(redis.ResponseError, match="NOVALUES option can only be used in HSCAN"):
        server.client().execute_command("SCAN", "0", "NOVALUES")


def load(client: redis.Redis, count: int, name: str = "key:{}") -> set[bytes]:
    """So many keys in pipelines."""
    pipeline = client.pipeline(transaction=False)
    for number in range(count):
        pipeline.set(name.format(number), "v")
        if number % 1000 == 999:
            pipeline.execute()
    pipeline.execute()
    return {name.format(number).encode() for number in range(count)}


def test_keys_and_scan_of_many_keys(client: redis.Redis) -> None:
    names = load(client, 5000)
    assert set(client.keys()) == names
    for count in (10, 300, 100_000):
        assert sorted(client.scan_iter(count=count)) == sorted(names)
    matching = {name for name in names if name.startswith(b"key:12")}
    assert set(client.keys("key:12*")) == matching
    assert set(client.scan_iter("key:12*", count=500)) == matching
    assert set(client.scan_iter("key:12*", _type="string")) == matching
    assert list(client.scan_iter("key:12*", _type="hash")) == []
    with client.pipeline() as pipeline:
        pipeline.delete("key:0").keys().scan(count=10_000)
        _, listed, (cursor, scanned) = pipeline.execute()
    assert cursor == 0
    assert set(listed) == set(scanned) == names - {b"key:0"}


def test_scan_goes_on_after_a_restart(fresh_server: Callable[..., Server]) -> None:
    server = fresh_server()
    names = load(server.client(), 2000) | load(server.client(), 300, "{{tag}}{}")
    found: set[bytes] = set()
    cursor, calls = 0, 0
    client = server.client()
    while cursor or not calls:
        cursor, some = client.scan(cursor, count=100)
        found |= set(some)
        calls += 1
        if calls % 7 == 0:
            server.kill9()
            server.start()
            client = server.client()
    assert found == names


def test_others_are_served_during_a_long_walk(server: Server) -> None:
    client = server.client()
    names = load(client, 30_000)
    slowest = 0.0
    counts: list[int] = []

    def walk() -> None:
        other = server.client()
        counts.extend(len(other.keys()) for _ in range(3))
        counts.append(len(other.scan(count=100_000)[1]))

    thread = threading.Thread(target=walk)
    thread.start()
    pings = 0
    while thread.is_alive():
        start = time.perf_counter()
        client.ping()
        slowest = max(slowest, time.perf_counter() - start)
        pings += 1
    thread.join()
    assert counts == [len(names)] * 4
    assert pings > 10
    assert slowest < 1
