"""Keys of every type and many sizes, and what a server says of a key: to compare two servers."""

from __future__ import annotations

from typing import Any

import redis

#: Elements of the collections.
COUNTS = (1, 3, 200, 700, 5000)
TYPES = ("string", "list", "set", "intset", "bits", "zset", "hash", "stream", "groups")

STRINGS = {1: b"", 3: b"-12", 200: b"x" * 200, 700: b"12345678901234567890", 5000: b"ab\0" * 20_000}


def fill(client: redis.Redis, key: str, kind: str, count: int) -> None:
    """Create a key of this type with so many elements."""
    pipe = client.pipeline(transaction=False)
    for start in range(0, count, 500):
        numbers = range(start, min(count, start + 500))
        texts = [b"element-%d" % n + b"\r\n\0" * (n % 5) for n in numbers]
        if kind == "string":
            pipe.set(key, STRINGS.get(count, b"text"))
        elif kind == "list":
            pipe.rpush(key, *texts)
        elif kind == "set":
            pipe.sadd(key, *texts)
        elif kind == "intset":
            pipe.sadd(key, *[n * 1_000_003**2 - 77 for n in numbers])
        elif kind == "bits":
            for n in numbers:
                pipe.setbit(key, n * 9973, 1)
        elif kind == "zset":
            pipe.zadd(key, {text: n / 7 - 50 for n, text in zip(numbers, texts, strict=True)})
        elif kind == "hash":
            pipe.hset(
                key, mapping={text: b"%d" % n for n, text in zip(numbers, texts, strict=True)}
            )
        else:
            for n, text in zip(numbers, texts, strict=True):
                fields = {b"a": text, b"b": n} if n % 3 else {text: b""}
                pipe.execute_command("XADD", key, f"{5 + n // 3}-{n}", *_flat(fields))
    if kind == "groups":
        _groups(pipe, key, count)
    pipe.execute()


def _flat(fields: dict[bytes, Any]) -> list[Any]:
    return [word for pair in fields.items() for word in pair]


def _groups(pipe: Any, key: str, count: int) -> None:
    last = f"{5 + (count - 1) // 3}-{count - 1}"
    pipe.xgroup_create(key, "none", "$")
    pipe.xgroup_create(key, "some", "0")
    pipe.xreadgroup("some", "first", {key: ">"}, count=max(count // 2, 1))
    pipe.xreadgroup("some", "second", {key: ">"}, count=max(count // 3, 1))
    pipe.xgroup_createconsumer(key, "some", "idle")
    pipe.xack(key, "some", "5-0", "6-3")
    pipe.xdel(key, "5-1", last)
    pipe.xadd(key, {"x": "y"}, id="9999999999-0")
    pipe.execute_command("XSETID", key, "9999999999-9")


def snapshot(client: redis.Redis, key: str) -> Any:
    """All that a key holds, in an order that doesn't depend on how it is kept."""
    kind = client.type(key)
    if kind == b"string":
        return client.get(key)
    if kind == b"list":
        return client.lrange(key, 0, -1)
    if kind == b"set":
        return sorted(client.smembers(key))
    if kind == b"zset":
        return client.zrange(key, 0, -1, withscores=True)
    if kind == b"hash":
        return sorted(client.hgetall(key).items())
    if kind == b"stream":
        return _stream(client, key)
    return None


def _stream(client: redis.Redis, key: str) -> Any:
    """Times are left out, but for those of deliveries."""
    info = client.xinfo_stream(key)
    figures = [
        info[name]
        for name in ("length", "last-generated-id", "max-deleted-entry-id", "entries-added")
    ]
    groups = []
    for group in client.xinfo_groups(key):
        name = group["name"]
        consumers = [(c["name"], c["pending"]) for c in client.xinfo_consumers(key, name)]
        pending = [
            (p["message_id"], p["consumer"], p["times_delivered"])
            for p in client.xpending_range(key, name, "-", "+", 1_000_000)
        ]
        groups.append(
            (name, group["last-delivered-id"], group["entries-read"], sorted(consumers), pending)
        )
    return figures, groups, client.execute_command("XRANGE", key, "-", "+")
