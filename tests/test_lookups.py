"""Which look-ups each command counts, and which misses it tells of: as redis-server does.

A command looks a key up to read it (lookupKeyRead: INFO's hits and misses, the event keymiss) or to
change it (lookupKeyWrite: neither), once or several times (db.c). Replies are compared as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from conftest import SharedServer
from harness import Conn, encode_command

from kvserver.quoting import split_args

#: How a key of each type is made.
MADE = {
    "string": "SET {k} 12",
    "hash": "HSET {k} f 1 g 2",
    "list": "RPUSH {k} a b c",
    "set": "SADD {k} a b c",
    "zset": "ZADD {k} 1 a 2 b 3 c",
    "stream": "XADD {k} 1-1 f v",
    "hyperloglog": "PFADD {k} a b",
}
#: Commands on a key of a type; `o` is another key of that type, `n` is none.
COMMANDS = {
    "string": """
        GET k
        SET k v
        SET k v GET
        SETNX k v
        GETSET k v
        GETDEL k
        GETEX k PERSIST
        MGET k n k
        MSETNX k 1 n 2
        APPEND k x
        STRLEN k
        SETRANGE k 1 x
        GETRANGE k 0 1
        INCR k
        INCRBYFLOAT k 1
        LCS k o
        SETBIT k 3 1
        GETBIT k 3
        BITCOUNT k
        BITCOUNT k 0 1
        BITPOS k 1
        BITOP AND n k o
        BITOP NOT n k
        BITFIELD k GET u8 0
        BITFIELD k SET u8 0 1
        BITFIELD k SET u8 0 1 GET u8 0
        BITFIELD_RO k GET u8 0
        OBJECT REFCOUNT k
        EXPIRE k 100
        TTL k
        PERSIST k
        TYPE k
        EXISTS k k
        TOUCH k
        DEL k
        UNLINK k
        RENAME k n
        RENAMENX k o
        COPY k n
        COPY k o
        COPY k o REPLACE
        MOVE k 1
        DUMP n
        SORT n
    """,
    "hash": """
        HGET k f
        HMGET k f x
        HGETALL k
        HKEYS k
        HVALS k
        HLEN k
        HSTRLEN k f
        HEXISTS k f
        HSET k f 1
        HSETNX k f 1
        HDEL k f
        HINCRBY k f 1
        HINCRBYFLOAT k f 1
        HRANDFIELD k 5
        HSCAN k 0
    """,
    "list": """
        LPUSH k x
        RPUSHX k x
        LPOP k
        RPOP k 2
        LLEN k
        LINDEX k 0
        LSET k 0 x
        LRANGE k 0 -1
        LTRIM k 0 1
        LREM k 0 a
        LINSERT k BEFORE a x
        LPOS k a
        LMOVE k o LEFT RIGHT
        LMOVE k k LEFT RIGHT
        RPOPLPUSH k n
        LMPOP 2 k o LEFT
        BLPOP k n 0.01
        BLMOVE k o LEFT LEFT 0.01
        BLMPOP 0.01 1 k LEFT
        SORT k ALPHA
        SORT k ALPHA STORE n
        SORT_RO k ALPHA
    """,
    "set": """
        SADD k x
        SREM k a
        SISMEMBER k a
        SMISMEMBER k a x
        SCARD k
        SMEMBERS k
        SMOVE k o a
        SMOVE k n a
        SMOVE k k a
        SPOP k 0
        SPOP k 9
        SRANDMEMBER k 9
        SINTER k o
        SINTER k n
        SINTER n k
        SUNION k n
        SDIFF k o
        SDIFF n k
        SINTERCARD 2 k o
        SINTERCARD 2 n k
        SINTERSTORE n k o
        SUNIONSTORE n k o
        SUNIONSTORE k k o
        SDIFFSTORE n k o
        SSCAN k 0
    """,
    "zset": """
        ZADD k 1 x
        ZADD k XX 1 a
        ZINCRBY k 1 a
        ZREM k a
        ZSCORE k a
        ZMSCORE k a x
        ZCARD k
        ZCOUNT k 0 5
        ZLEXCOUNT k - +
        ZRANK k a
        ZREVRANK k a
        ZRANGE k 0 -1
        ZRANGEBYSCORE k 0 5
        ZRANGESTORE n k 0 -1
        ZREMRANGEBYRANK k 0 0
        ZREMRANGEBYSCORE k 0 1
        ZPOPMIN k
        ZPOPMAX k 2
        ZMPOP 2 k o MIN
        BZPOPMIN k n 0.01
        BZMPOP 0.01 1 k MAX
        ZUNION 2 k o
        ZINTER 2 k n
        ZDIFF 2 k o
        ZDIFF 2 n k
        ZUNIONSTORE n 2 k o
        ZINTERSTORE n 2 k o
        ZDIFFSTORE n 2 k o
        ZINTERCARD 2 k o
        ZINTERCARD 2 n k
        ZRANDMEMBER k 5
        ZSCAN k 0
        GEOADD k 1 1 x
        GEOPOS k x
        GEODIST k a b
        GEOHASH n x
        GEOSEARCH n FROMLONLAT 1 1 BYRADIUS 1 m
        GEOSEARCHSTORE n k FROMLONLAT 1 1 BYRADIUS 1 m
    """,
    "stream": """
        XADD k 2-1 f v
        XADD k NOMKSTREAM 2-1 f v
        XLEN k
        XRANGE k - +
        XREVRANGE k + -
        XDEL k 1-1
        XTRIM k MAXLEN 0
        XREAD STREAMS k 0
        XREAD STREAMS k $
        XREAD COUNT 1 STREAMS k n 0 0
        XREAD BLOCK 10 STREAMS n 0
        XGROUP CREATE k g 0
        XGROUP CREATE k g 0 MKSTREAM
        XGROUP DESTROY k g
        XGROUP SETID k g 0
        XGROUP CREATECONSUMER k g c
        XREADGROUP GROUP g c STREAMS k >
        XACK k g 1-1
        XCLAIM k g c 0 1-1
        XAUTOCLAIM k g c 0 0
        XPENDING k g
        XINFO GROUPS n
        XSETID k 9-9
    """,
    "hyperloglog": """
        PFADD k x
        PFADD k a
        PFCOUNT k
        PFCOUNT k o n
        PFMERGE k o n
        PFMERGE n k
    """,
}
CASES = [
    pytest.param(kind, line.split(maxsplit=0)[0], state, id=f"{line.strip()}-{state}")
    for kind, lines in COMMANDS.items()
    for line in lines.strip().splitlines()
    for state in ("there", "missing", "wrong")
]
COUNTS = re.compile(rb"keyspace_(?:hits|misses):\d+")


class Watched:
    """Two connections to a server: one that sends, one that hears every event."""

    def __init__(self, shared: SharedServer) -> None:
        self.conn: Conn = shared.server.conn()
        self.events: Conn = shared.server.conn()
        self.conn.ask("CONFIG", "SET", "notify-keyspace-events", "KEAmn")
        self.events.ask("PSUBSCRIBE", "__key*__:*", "end")

    def run(self, prepared: list[bytes], command: bytes) -> tuple[bytes, list[bytes], list[bytes]]:
        """(the reply, the counted look-ups, the events) of a command."""
        for one in (b"FLUSHALL", *prepared, b"CONFIG RESETSTAT", b"PUBLISH end begin"):
            self._ask(one)
        self._heard()
        reply = self._ask(command)
        counted = COUNTS.findall(self.conn.ask("INFO", "stats"))
        self._ask(b"PUBLISH end end")
        return reply, counted, self._heard()

    def _ask(self, line: bytes) -> bytes:
        words = split_args(line)
        assert words is not None
        self.conn.send(encode_command(*words))
        return self.conn.reply()

    def _heard(self) -> list[bytes]:
        found: list[bytes] = []
        while b"\r\n$3\r\nend\r\n$" not in (message := self.events.reply())[:40]:
            found.append(message)
        return found


@pytest.fixture(scope="module")
def pair_of_watched(
    shared_server: SharedServer, shared_oracle: SharedServer
) -> Iterator[tuple[Watched, Watched]]:
    yield Watched(shared_server), Watched(shared_oracle)
    shared_server.renew()
    shared_oracle.renew()


@pytest.mark.parametrize(("kind", "line", "state"), CASES)
def test_lookups(
    pair_of_watched: tuple[Watched, Watched], kind: str, line: str, state: str
) -> None:
    prepared = []
    if state != "missing":
        made = MADE[kind if state == "there" else ("list" if kind != "list" else "set")]
        prepared = [made.format(k=name).encode() for name in ("k", "o")]
    ours, theirs = (one.run(prepared, line.strip().encode()) for one in pair_of_watched)
    if b"SSCAN" not in line.encode() and "MEMBERS" not in line:
        assert sorted(ours[0].split()) == sorted(theirs[0].split())
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]
