"""Collections that several commands of a turn change: their headers are encoded when somebody asks.

What the commands of a packet find beside each other is compared with redis-server; when a header is
open, and that whoever reads it finds it as it is, is looked at inside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import datadir
import pytest
from core import Client, Core
from pair import Command, Pair

from kvserver import codec

#: Commands that go on with an open header, by type; each is sent several times in a row.
AGAIN: dict[str, list[str]] = {
    "set": ["SADD k {}", "SADD k {} {}", "SREM k {}"],
    "list": ["RPUSH k {}", "LPUSH k {} {}", "LPOP k", "RPOP k", "LPUSHX k {}"],
    "hash": ["HSET k {} {}", "HMSET k {} {} {} 1", "HINCRBY k n {}", "HSETNX k {} 1"],
    "zset": [
        "ZADD k {} {}",
        "ZADD k {} {} {} b",
        "ZADD k GT {} {}",
        "ZINCRBY k {} {}",
        "ZPOPMIN k",
    ],
}
#: What reads headers, or writes them in other ways, and what ends them.
_TEXT = """
    EXISTS k, TYPE k, STRLEN k, DEL k, DBSIZE, SORT k ALPHA, TOUCH k, EXISTS other k,
    SCARD k, SISMEMBER k {}, SMOVE k other {}, SUNIONSTORE other k, SPOP k 0,
    LLEN k, LINDEX k 1, LRANGE k 0 -1, LTRIM k 1 -1, LMOVE k k LEFT RIGHT, LINSERT k BEFORE {} {},
    HLEN k, HGET k {}, HDEL k {}, HSTRLEN k n,
    ZCARD k, ZRANK k {}, ZCOUNT k 2 {}, ZRANGE k 0 -1 WITHSCORES, ZREM k {}, ZREMRANGEBYRANK k 0 1,
    RENAME k other, RENAME other k, COPY k other REPLACE, SET k {}, EXPIRE k 100, PERSIST k,
    FLUSHALL, SWAPDB 0 1, SELECT 0, SELECT 1, MULTI, EXEC, DISCARD,
    CONFIG SET set-max-intset-entries {}, CONFIG SET zset-max-listpack-entries {},
    EVAL return{{redis.call('rpush',KEYS[1],1),redis.call('rpush',KEYS[1],2)}} 1 k
"""
OTHERS = [text.strip() for text in _TEXT.replace("\n", " ").split(", ")]


def packet(chance: random.Random) -> list[Command]:
    """The commands of one packet."""
    commands: list[Command] = []
    kind = chance.choice(list(AGAIN))
    for _ in range(chance.randrange(30, 120)):
        if chance.random() < 0.1:
            kind = chance.choice(list(AGAIN))
        again = chance.random() < 0.8
        words = chance.choice(AGAIN[kind] if again else OTHERS).split()
        found = (word.format(chance.randrange(300)).encode() for word in words)
        commands.append(tuple(found))
    return commands


@pytest.mark.parametrize("seed", range(12))
def test_packets(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        commands = packet(chance)
        ours, theirs = pair.ask_both(commands)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine == other, f"seed {seed}"


def test_large_sorted_set(pair: Pair) -> None:
    """Blocks of elements come, are counted and go within packets."""
    chance = random.Random(1)
    for size in (400, 3000, 300):
        commands: list[Command] = []
        for _ in range(size):
            commands.append(("ZADD", "k", chance.randrange(500), chance.randrange(2000)))
            if chance.random() < 0.03:
                commands.append(("ZRANK", "k", chance.randrange(2000)))
                commands.append(("ZCOUNT", "k", 100, chance.randrange(500)))
        pair.same(commands)
        pair.same([*[("ZPOPMIN", "k")] * (size // 3), ("ZCARD", "k"), ("ZRANGE", "k", 0, -1)])


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db") as core:
        yield core


@pytest.fixture
def client(core: Core) -> Client:
    return core.client()


FILL: dict[str, tuple[bytes, ...]] = {
    "set": (b"SADD", b"k", b"%d"),
    "list": (b"RPUSH", b"k", b"%d"),
    "hash": (b"HSET", b"k", b"%d", b"v"),
    "zset": (b"ZADD", b"k", b"1", b"%d"),
    "stream": (b"XADD", b"k", b"*", b"field", b"%d"),
}
SIZE: dict[str, bytes] = {
    "set": b"SCARD",
    "list": b"LLEN",
    "hash": b"HLEN",
    "zset": b"ZCARD",
    "stream": b"XLEN",
}


def add(client: Client, kind: str, first: int, last: int) -> None:
    """Add elements, with a command for each."""
    for number in range(first, last):
        client.call(*(b"%d" % number if word == b"%d" else word for word in FILL[kind]))


@pytest.mark.parametrize("kind", FILL)
def test_second_write_of_a_turn_leaves_the_header_open(
    core: Core, client: Client, kind: str
) -> None:
    rows = core.log.rows
    for before in (0, 400):
        add(client, kind, before, before + 1)
        assert not rows.opened
        add(client, kind, before + 1, before + 400)
        assert len(rows.opened) == 1
        core.end_turn()
        assert not rows.opened
        client.take()
        assert client.ask(SIZE[kind], b"k") == b":%d\r\n" % (before + 400)
    core.engine.close()
    datadir.check(Path(core.engine.path))


@pytest.mark.parametrize("kind", FILL)
@pytest.mark.parametrize("how", ["get", "peek", "cached", "get_uncached", "scan"])
def test_whoever_reads_the_header_closes_it(
    core: Core, client: Client, kind: str, how: str
) -> None:
    rows = core.log.rows
    add(client, kind, 0, 300)
    (row_key,) = rows.opened
    core.log.touched = False
    core.log.changed = False
    if how == "scan":
        ((found, row),) = rows.scan(row_key, row_key + b"\0")
        assert found == row_key
    else:
        read: Callable[[bytes], bytes] = getattr(rows, how)
        row = read(row_key)
    assert codec.collection_count(row) == 300
    assert not rows.opened
    assert not core.log.changed  # who reads takes no position
    assert rows.pending[row_key] == rows.young(row_key) == row
    add(client, kind, 300, 310)
    core.end_turn()
    client.take()
    assert client.ask(SIZE[kind], b"k") == b":310\r\n"
    core.engine.close()
    datadir.check(Path(core.engine.path))


@pytest.mark.parametrize("kind", FILL)
def test_failed_batch_takes_open_headers_back(core: Core, client: Client, kind: str) -> None:
    add(client, kind, 0, 10)
    core.end_turn()
    client.take()
    write = core.engine.write
    core.fail_writes()
    add(client, kind, 10, 300)
    assert core.log.rows.opened
    core.end_turn()
    assert b"No space left" in client.take()
    assert not core.log.rows.opened
    core.engine.write = write  # type: ignore[method-assign]
    assert client.ask(SIZE[kind], b"k") == b":10\r\n"


@pytest.mark.parametrize("kind", FILL)
def test_header_with_a_time_to_expire_stays_closed(core: Core, client: Client, kind: str) -> None:
    add(client, kind, 0, 2)
    client.call(b"PEXPIRE", b"k", b"100000")
    add(client, kind, 2, 20)
    assert not core.log.rows.opened


def test_hash_with_fields_that_expire_stays_closed(core: Core, client: Client) -> None:
    add(client, "hash", 0, 2)
    client.call(b"HPEXPIRE", b"k", b"100000", b"FIELDS", b"1", b"0")
    add(client, "hash", 2, 20)
    assert not core.log.rows.opened


def test_another_type_is_refused_while_the_header_is_open(core: Core, client: Client) -> None:
    add(client, "set", 0, 3)
    assert core.log.rows.opened
    client.take()
    for command in FILL.values():
        client.call(*command)
    core.end_turn()
    assert client.take().count(b"-WRONGTYPE") == len(FILL) - 1


def test_watched_key_is_told_of_changes_of_an_open_header(core: Core, client: Client) -> None:
    other = core.client()
    add(other, "set", 0, 3)
    client.call(b"WATCH", b"k")
    add(other, "set", 3, 4)
    client.call(b"MULTI")
    client.call(b"PING")
    client.call(b"EXEC")
    core.end_turn()
    assert client.take().endswith(b"*-1\r\n")
