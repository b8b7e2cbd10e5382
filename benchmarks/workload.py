"""The commands of each test as bytes: for the generator, and to fill what is read and popped.

Keys, elements and values are those of redis-benchmark. It must not know which server gets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random

from benchmarks.generator import Batch, drive

#: What a WAIT comes after: each write, or the last of each pipeline.
EACH, LAST = "each", "last"
FILL_CLIENTS = 4
FILL_CHUNK = 500
MSET_PAIRS = 10
#: A fill puts as many keys into one MSET, and as many bytes at most into one batch.
FILL_PAIRS = 100
FILL_BYTES = 200_000
#: Of ten commands of the mixed load two are SET.
MIXED_SETS = 0.2

Command = tuple[bytes, int]
Maker = Callable[[Random, int, bytes], Command]


def encode(*words: bytes) -> bytes:
    """A command as RESP."""
    return b"*%d\r\n%b" % (
        len(words),
        b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words),
    )


def _set(random: Random, keys: int, value: bytes) -> Command:
    return encode(b"SET", b"key:%012d" % random.randrange(keys), value), 1


def _get(random: Random, keys: int, value: bytes) -> Command:
    return encode(b"GET", b"key:%012d" % random.randrange(keys)), 2


def _mixed(random: Random, keys: int, value: bytes) -> Command:
    one = _set if random.random() < MIXED_SETS else _get
    return one(random, keys, value)


def _incr(random: Random, keys: int, value: bytes) -> Command:
    return encode(b"INCR", b"counter:%012d" % random.randrange(keys)), 1


def _lpush(random: Random, keys: int, value: bytes) -> Command:
    return encode(b"LPUSH", b"mylist", value), 1


def _sadd(random: Random, keys: int, value: bytes) -> Command:
    return encode(b"SADD", b"myset", b"element:%012d" % random.randrange(keys)), 1


def _hset(random: Random, keys: int, value: bytes) -> Command:
    return encode(b"HSET", b"myhash", b"element:%012d" % random.randrange(keys), value), 1


def _zadd(random: Random, keys: int, value: bytes) -> Command:
    score = b"%012d" % random.randrange(keys)
    return encode(b"ZADD", b"myzset", score, b"element:%012d" % random.randrange(keys)), 1


def _xadd(random: Random, keys: int, value: bytes) -> Command:
    field = b"%012d" % random.randrange(keys)
    return encode(b"XADD", b"mystream", b"*", b"field", field), 2


def _mset(random: Random, keys: int, value: bytes) -> Command:
    words = [b"MSET"]
    for _ in range(MSET_PAIRS):
        words += (b"key:%012d" % random.randrange(keys), value)
    return encode(*words), 1


MAKERS: dict[str, Maker] = {
    "set": _set,
    "get": _get,
    "mixed": _mixed,
    "incr": _incr,
    "lpush": _lpush,
    "sadd": _sadd,
    "hset": _hset,
    "zadd": _zadd,
    "xadd": _xadd,
    "mset": _mset,
}
_WAIT = encode(b"WAIT", b"1", b"0")


@lru_cache(maxsize=2)  # both servers and all rounds get the same bytes
def batches(
    test: str, pipeline: int, requests: int, keys: int, value_bytes: int, wait: str
) -> list[Batch]:
    """A test's requests, in batches of `pipeline`."""
    random, value, make = Random(requests), b"x" * value_bytes, MAKERS[test]
    return [
        _batch([make(random, keys, value) for _ in range(pipeline)], wait)
        for _ in range(max(1, requests // pipeline))
    ]


def _batch(commands: list[Command], wait: str) -> Batch:
    lines = sum(count for _, count in commands)
    parts = [data for data, _ in commands]
    if wait == EACH:
        return Batch(b"".join(part + _WAIT for part in parts), lines + len(parts))
    if wait == LAST:
        return Batch(b"".join([*parts, _WAIT]), lines + 1)
    return Batch(b"".join(parts), lines)


def fill_keys(port: int, start: int, stop: int, value_bytes: int) -> None:
    """Set the keys with these numbers."""
    drive(port, _fill_keys(start, stop, value_bytes), FILL_CLIENTS)


def _fill_keys(start: int, stop: int, value_bytes: int) -> Iterator[Batch]:
    pair = b"$16\r\nkey:%%012d\r\n$%d\r\n%b\r\n" % (value_bytes, b"x" * value_bytes)
    size = max(1, min(FILL_PAIRS, FILL_BYTES // value_bytes))
    chunk = max(1, min(10, FILL_BYTES // (size * value_bytes)))
    commands = []
    for first in range(start, stop, size):
        last = min(first + size, stop)
        head = b"*%d\r\n$4\r\nMSET\r\n" % (2 * (last - first) + 1)
        commands.append(head + pair * (last - first) % tuple(range(first, last)))
        if len(commands) == chunk or last == stop:
            yield Batch(b"".join(commands), len(commands))
            commands = []


def touch_keys(port: int, count: int) -> None:
    """Read the keys with the numbers below this."""
    drive(port, _touch_keys(count), FILL_CLIENTS)


def _touch_keys(count: int) -> Iterator[Batch]:
    key = b"$16\r\nkey:%012d\r\n"
    for first in range(0, count, FILL_PAIRS):
        numbers = tuple(range(first, min(first + FILL_PAIRS, count)))
        head = b"*%d\r\n$5\r\nTOUCH\r\n" % (len(numbers) + 1)
        yield Batch(head + key * len(numbers) % numbers, 1)


def fill_collection(port: int, test: str, count: int, value_bytes: int) -> None:
    """Add as many elements, all different, one command each as the load itself would."""
    drive(port, _fill_collection(test, count, b"x" * value_bytes), FILL_CLIENTS)


def _fill_collection(test: str, count: int, value: bytes) -> Iterator[Batch]:
    for first in range(0, count, FILL_CHUNK):
        numbers = range(first, min(first + FILL_CHUNK, count))
        yield Batch(b"".join(_element(test, n, count, value) for n in numbers), len(numbers))


def _element(test: str, number: int, count: int, value: bytes) -> bytes:
    if test == "lpush":
        return encode(b"LPUSH", b"mylist", value)
    name = b"element:%012d" % number
    if test == "sadd":
        return encode(b"SADD", b"myset", name)
    # Scores in no order: a prime step visits them all.
    return encode(b"ZADD", b"myzset", b"%012d" % (number * 7919 % count), name)
