"""Collections on replicas: by the stream, by a full sync, by a rewind. Servers are compared by all
that a client can read, and by REPLDIGEST.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datadir
import pytest
from cluster import Cluster, follow, position, promote, wait_synced
from digests import assert_same, digest, full_syncs
from harness import Conn, Server, encode_command, wait_until
from load_collections import CollectionWriter
from load_model import parse
from rejoin import Couple, Shape, play
from soak_compare import content


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def both_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    cluster = Cluster(tmp_path_factory.mktemp("replicated"))
    primary = cluster.start()
    yield primary, cluster.replica_of(primary)
    cluster.close()


@pytest.fixture
def primary(both_servers: tuple[Server, Server]) -> Server:
    """A primary without keys."""
    both_servers[0].client().flushall()
    return both_servers[0]


@pytest.fixture
def replica(primary: Server, both_servers: tuple[Server, Server]) -> Server:
    """Its replica."""
    wait_synced(*both_servers)
    return both_servers[1]


def assert_alike(primary: Server, *replicas: Server) -> None:
    """The replicas catch up, and differ in nothing."""
    assert_same(primary, *replicas)
    expected = content(primary)
    for server in replicas:
        assert content(server) == expected


def scribble(server: Server, seed: str, bursts: int) -> None:
    """Random commands on collections, whatever they answer."""
    writer = CollectionWriter(server, 0, seed)
    with server.conn() as conn:
        for _ in range(bursts):
            ops = [writer._choose() for _ in range(writer.random.choice((1, 1, 8)))]
            commands = [command for op in ops for command in op.commands]
            conn.send(b"".join(commands))
            for _ in commands:
                reply = conn.reply()
                assert not reply.startswith(b"-ERR internal"), (commands, reply)


# -- the stream, and full syncs --------------------------------------------------------------------

MEMBERS = " ".join(f"m{n}" for n in range(300))
SCORED = " ".join(f"{n} m{n}" for n in range(300))
FIELDS = " ".join(f"m{n} {n}" for n in range(300))
WRITES = {
    "hash": "HSET h a 1 b 2\nHINCRBY h a 5; HPEXPIRE h 10000000 FIELDS 1 b; HDEL h c"
    f"\nHSET i {FIELDS}\nHDEL i {MEMBERS}; HSET i x 1; HPERSIST h FIELDS 1 b; RENAME h j",
    "list": f"RPUSH l a b c d; LINSERT l BEFORE b x; LREM l 0 c\nLPUSH m {MEMBERS}; LTRIM m 20 40"
    "\nLMOVE l m LEFT RIGHT; LSET m 3 y; RPOPLPUSH m n\nLTRIM m 1 0; LPUSH m z",
    "set": f"SADD s a b c; SREM s b; SMOVE s t c\nSADD u {MEMBERS}; SPOP u 290; SPOP s"
    "\nSUNIONSTORE v t u; SDIFFSTORE w v t; SINTERSTORE t u v",
    "zset": f"ZADD z 1 a 2 b 3 c; ZINCRBY z 5 a; ZPOPMIN z\nZADD y {SCORED}"
    "\nZREMRANGEBYRANK y 5 200; ZREMRANGEBYSCORE y 0 3; ZUNIONSTORE x 2 y z"
    "\nZRANGESTORE w y 0 10; ZADD x -0 zero inf most",
    "stream": "XADD x 1-1 a b; XADD x 2-1 c d; XGROUP CREATE x g 0"
    "\nXREADGROUP GROUP g me STREAMS x >; XACK x g 1-1; XADD x 5-0 e f; XDEL x 2-1"
    "\nXTRIM x MAXLEN 1; XSETID x 9-9 ENTRIESADDED 20; XADD y 1-1 a b"
    "\nXTRIM y MAXLEN 0; XCLAIM x g you 0 2-1; XGROUP CREATECONSUMER x g they",
    "string": "SETBIT b 7 1; SETBIT b 8000000 1\nSETRANGE b 5000 abc; COPY b c; SETBIT c 8000000 0"
    "\nBITOP OR d b c; BITFIELD e SET u8 100 255; APPEND b tail; PFADD hll a b c",
    "keys": "HSET h a 1; RPUSH l a; SADD s a; ZADD z 1 a; XADD x 1-1 a b"
    "\nRENAME h i; COPY l m; MOVE s 1; PEXPIRE z 10000000; SWAPDB 0 1; COPY i j DB 3"
    "\nSELECT 3; SADD t a b; FLUSHDB; SADD t c",
    "scripts": "EVAL \"redis.call('HSET', 'h', 'a', 1) redis.call('RPUSH', 'l', 'x', 'y') "
    "redis.call('ZADD', 'z', 1, 'a') return redis.call('SADD', 's', 'm')\" 0"
    "\nMULTI; HSET h b 2; LPOP l; XADD x 1-1 a b; SPOP s; EXEC; ONCE w 1 LPUSH l z",
}


@pytest.mark.parametrize("family", WRITES)
def test_writes_reach_the_replica(primary: Server, replica: Server, family: str) -> None:
    assert play(primary, WRITES[family])
    assert_alike(primary, replica)
    assert content(replica)


@pytest.mark.parametrize("seed", range(2))
def test_random_writes_reach_the_replica(primary: Server, replica: Server, seed: int) -> None:
    for number in range(3):
        scribble(primary, f"{seed}-{number}", 100)
        assert_alike(primary, replica)


def test_full_sync(cluster: Cluster) -> None:
    """Elements are in files and in the log, and some were dropped as a range."""
    primary = cluster.start(**{"rocksdb.write_buffer_size": 1})
    for db, script in enumerate(WRITES.values(), start=4):
        play(primary, f"SELECT {db}\n{script}")
    scribble(primary, "full", 500)
    replica = cluster.replica_of(primary)
    assert_alike(primary, replica)
    assert full_syncs(primary) == 1
    scribble(primary, "more", 100)
    assert_alike(primary, replica)
    for server in (primary, replica):
        server.terminate()
        datadir.check(server.directory / "db")


# -- rewinds ---------------------------------------------------------------------------------------

FILLED = (
    "HSET h a 1 b 2 c 3; RPUSH l a b c d e; SADD s a b c d; ZADD z 1 a 2 b 3 c; XADD x 1-1 a b"
    f"\nXADD x 2-1 a b; XGROUP CREATE x g 0; SETBIT b 400000 1; HSET big {FIELDS}"
    f"\nZADD bigz {SCORED}; SADD bigs {MEMBERS}; RPUSH bigl {MEMBERS}"
)
SHAPES = [
    Shape(
        "elements written on both sides",
        FILLED,
        "HSET h a old d old; LSET l 0 old; LINSERT l AFTER b old; SADD s old; ZADD z 9 a 7 old"
        "\nXADD x 3-1 old 1; XREADGROUP GROUP g me STREAMS x >; SETBIT b 400000 0; SETBIT b 1 1",
        "HSET h b new e new; LSET l 1 new; LREM l 0 c; SADD s new; ZINCRBY z 4 b; ZADD z 5 new"
        "\nXADD x 4-1 new 1; XDEL x 1-1; SETBIT b 500000 1",
    ),
    Shape(
        "elements deleted here, written there",
        FILLED,
        "HDEL h a b; LREM l 0 a; LPOP l; SREM s a b; ZREM z a; XDEL x 1-1; XGROUP DESTROY x g",
        "HSET h a new; LPUSH l new; SADD s e; ZADD z 8 a; XREADGROUP GROUP g me STREAMS x >"
        "\nXACK x g 2-1",
    ),
    Shape(
        "emptied by the old one",
        FILLED,
        "HDEL h a b c; LTRIM l 1 0; SPOP s 9; ZREMRANGEBYRANK z 0 -1; XTRIM x MAXLEN 0; DEL b",
        "HSET h a new; RPUSH l new; SREM s a; ZINCRBY z 1 a; XADD x 7-1 a new; SETBIT b 4 1",
    ),
    Shape(
        "emptied by the new one",
        FILLED,
        "HSET h a old; RPUSH l old; SREM s a; ZINCRBY z 1 a; XADD x 7-1 a old; SETBIT b 4 1",
        "HDEL h a b c; LTRIM l 1 0; SPOP s 9; ZREMRANGEBYRANK z 0 -1; XTRIM x MAXLEN 0; DEL b",
    ),
    Shape(
        "deleted and made anew",
        FILLED,
        "DEL h l s z x b\nHSET h a old; RPUSH l old; SADD s old; ZADD z 1 old; XADD x 1-1 a old",
        "DEL h s\nHSET h z new; RPUSH l new; DEL z; ZADD z 2 new; XADD x 9-1 a new",
    ),
    Shape(
        "other types in their place",
        FILLED,
        "DEL h l s z x; RPUSH h old; HSET l a old; ZADD s 1 old; SADD z old; SET x old",
        "DEL h; SET h new; SADD s new; ZADD z 1 new; DEL l; XADD l 1-1 a b",
    ),
    Shape(
        "whole ranges dropped by the old one",
        FILLED,
        "DEL big\nDEL bigl; ZREMRANGEBYRANK bigz 10 280; SPOP bigs 280; HSET big a 1; LPUSH bigl a",
        "HSET big m5 new; HDEL big m6; LSET bigl 7 a; ZADD bigz 500 m20; SREM bigs m1; SADD bigs n",
    ),
    Shape(
        "whole ranges dropped by the new one",
        FILLED,
        "HSET big m5 old; HDEL big m6; LSET bigl 7 a; ZADD bigz 500 m20; SREM bigs m1; SADD bigs n",
        "DEL big; LTRIM bigl 290 -1; ZREMRANGEBYSCORE bigz 10 280; DEL bigs; SADD bigs new",
    ),
    Shape(
        "renamed, copied and moved",
        FILLED,
        "RENAME h i; RENAME l s; COPY z y; MOVE x 1; HSET i a old; ZADD y 7 old; RENAME big bigl"
        "\nSELECT 1; XADD x 5-5 a old; XTRIM x MAXLEN 1",
        "RENAME h l; HSET l a new; RENAME s i; SADD i new; COPY x w; XADD w 8-8 a new; DEL z"
        "\nHSET big a new; RENAME bigz big",
    ),
    Shape(
        "flushed and swapped",
        FILLED,
        "SWAPDB 0 1; HSET h a old; SELECT 1; LPUSH l old; FLUSHDB; SADD s old",
        "HSET h a new; SELECT 1; HSET h b new; SWAPDB 0 1; FLUSHDB; ZADD z 1 new",
    ),
    Shape(
        "fields that expire",
        f"{FILLED}\nHPEXPIRE h 10000000 FIELDS 1 a; HPEXPIRE big 10000000 FIELDS 2 m1 m2",
        "HPERSIST h FIELDS 1 a; HPEXPIRE h 20000000 FIELDS 1 b; HPEXPIRE big 1 FIELDS 1 m1"
        "\nHDEL big m2",
        "HPEXPIRE h 30000000 FIELDS 2 b c; HPEXPIRE big 1 FIELDS 1 m3; DEL h; HSET h a new",
    ),
]


@pytest.fixture(scope="module")
def couple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Couple]:
    """Servers that have been rewound by all tests before."""
    cluster = Cluster(tmp_path_factory.mktemp("couple"))
    old = cluster.start()
    yield Couple(old, cluster.replica_of(old))
    for server in cluster.servers:
        server.terminate()
        datadir.check(server.directory / "db")
    cluster.close()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name.replace(" ", "-"))
def test_rewound(couple: Couple, shape: Shape) -> None:
    play(couple.old, "FLUSHALL")
    play(couple.old, shape.before)
    couple.part()
    play(couple.old, shape.old)
    play(couple.new, shape.new)
    content(couple.old)  # what it read is in its cache: it must not be found there afterwards
    couple.rejoin()
    assert_alike(couple.old, couple.new)


@pytest.mark.parametrize("seed", range(3))
def test_rewound_at_random(couple: Couple, seed: int) -> None:
    for number in range(3):
        play(couple.old, "FLUSHALL")
        scribble(couple.old, f"{seed}-{number}", 60)
        couple.part()
        scribble(couple.old, f"{seed}-{number}-old", 20)
        scribble(couple.new, f"{seed}-{number}-new", 20)
        content(couple.old)
        couple.rejoin()
        assert_alike(couple.old, couple.new)


# -- what a replica knows of a change --------------------------------------------------------------

#: (what is there, what is read, what changes the element, what is read then): the header of the
#: collection stays the same in most of them.
CHANGES = {
    "field": ("HSET k a 1 b 2", "HGET k a", "HSET k a 2", b"2"),
    "number": ("HSET k a 1", "HGET k a", "HINCRBY k a 5", b"6"),
    "element": ("RPUSH k a b c", "LINDEX k 1", "LSET k 1 x", b"x"),
    "rotated": ("RPUSH k a b c", "LINDEX k 0", "LMOVE k k RIGHT LEFT", b"c"),
    "member": ("SADD k a b", "SISMEMBER k c", "SADD k c", 1),
    "members exchanged": ("SADD k a b", "SISMEMBER k a", "MULTI;SREM k a;SADD k c;EXEC", 0),
    "score": ("ZADD k 1 a 2 b", "ZSCORE k a", "ZINCRBY k 5 a", b"6"),
    "place": ("ZADD k 1 a 2 b", "ZRANK k a", "ZADD k 3 a", 1),
    "entry": ("XADD k 1-1 a b", "XLEN k", "XADD k 2-1 a b", 2),
    "bit": ("SETBIT k 400000 0", "GETBIT k 8", "SETBIT k 8 1", 1),
    "deleted": ("HSET k a 1", "HGET k a", "DEL k", None),
    "made anew": ("HSET k a 1", "HGET k a", "MULTI;DEL k;HSET k a 3;EXEC", b"3"),
    "renamed over": ("HSET k a 1", "HGET k a", "MULTI;HSET j a 4;RENAME j k;EXEC", b"4"),
    "flushed": ("HSET k a 1", "HGET k a", "FLUSHDB", None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_replica_reads_what_changed(primary: Server, replica: Server, name: str) -> None:
    """Not what it has in its cache."""
    before, read, change, expected = CHANGES[name]
    play(primary, before)
    wait_synced(primary, replica)
    for _ in range(2):
        assert ask(replica, read) != expected
    play(primary, change)
    wait_synced(primary, replica)
    assert ask(replica, read) == ask(primary, read) == expected


def ask(server: Server, command: str) -> Any:
    """A reply."""
    with server.conn() as conn:
        return parse(conn.ask(*command.split()))


@pytest.mark.parametrize("name", CHANGES)
def test_watch_on_a_replica(primary: Server, replica: Server, name: str) -> None:
    before, _, change, _ = CHANGES[name]
    play(primary, before)
    wait_synced(primary, replica)
    with replica.conn() as conn:
        conn.ask("WATCH", "k")
        play(primary, change)
        wait_synced(primary, replica)
        assert [conn.ask(word) for word in ("MULTI", "PING")] == [b"+OK\r\n", b"+QUEUED\r\n"]
        assert conn.ask("EXEC") == b"*-1\r\n"


def test_watch_on_a_replica_of_another_key(primary: Server, replica: Server) -> None:
    play(primary, "HSET k a 1; HSET j a 1")
    wait_synced(primary, replica)
    with replica.conn() as conn:
        conn.ask("WATCH", "k")
        play(primary, "HSET j a 2; SADD s a; DEL s")
        wait_synced(primary, replica)
        assert [conn.ask(word) for word in ("MULTI", "PING")] == [b"+OK\r\n", b"+QUEUED\r\n"]
        assert conn.ask("EXEC") == b"*1\r\n+PONG\r\n"


def test_expired_fields_are_missing_on_a_replica_and_stay(cluster: Cluster) -> None:
    """Who deletes them is the primary."""
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    client, other = primary.client(), replica.client()
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    play(
        primary,
        "HSET h a 1 b 2 c 3; HPEXPIRE h 50 FIELDS 2 a b; HSET i a 1; HPEXPIRE i 50 FIELDS 1 a",
    )
    assert_same(primary, replica)
    wait_until(lambda: other.hget("h", "a") is None and other.hget("i", "a") is None)
    before = digest(replica)
    assert other.hmget("h", "a", "b", "c") == [None, None, b"3"]
    assert other.hgetall("h") == {b"c": b"3"}
    assert not other.hexists("h", "a")
    assert other.hkeys("h") == [b"c"] and other.hvals("h") == [b"3"]
    assert other.hscan("h")[1] == {b"c": b"3"}
    assert other.hrandfield("h", 10) == [b"c"]
    assert other.execute_command("HPTTL", "h", "FIELDS", 2, "a", "c") == [-2, -1]
    assert other.hlen("h") == 3  # t_hash.c: the fields that nobody has deleted yet count
    assert other.hgetall("i") == {} and other.exists("i") == 1
    assert digest(replica) == before
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 1)
    wait_until(lambda: other.hlen("h") == 1 and not other.exists("i"))
    assert_same(primary, replica)
    assert content(replica) == content(primary)


# -- who waits -------------------------------------------------------------------------------------


def blocked_clients(server: Server) -> int:
    return int(server.client().info("clients")["blocked_clients"])


def wait_blocked(server: Server, count: int = 1) -> None:
    wait_until(lambda: blocked_clients(server) == count, what="clients are blocked")


def test_xread_on_a_replica_is_woken_by_the_primary(primary: Server, replica: Server) -> None:
    play(primary, "XADD x 1-1 a b")
    wait_synced(primary, replica)
    with replica.conn() as conn:
        conn.send(encode_command("XREAD", "BLOCK", 0, "STREAMS", "x", "y", "$", "$"))
        wait_blocked(replica)
        play(primary, "XADD z 1-1 a b; SADD s a; XADD y 5-1 c d")
        entry = b"*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\nc\r\n$1\r\nd\r\n"
        assert conn.reply() == b"*1\r\n*2\r\n$1\r\ny\r\n*1\r\n" + entry
    wait_blocked(replica, 0)


@pytest.mark.parametrize("words", ["BLPOP l 0", "BLMOVE l m LEFT LEFT 0", "BZPOPMIN z 0"])
def test_blocking_writes_are_refused_by_a_replica(replica: Server, words: str) -> None:
    with replica.conn() as conn:
        assert conn.ask(*words.split()).startswith(b"-READONLY ")


def test_looking_at_a_key_that_somebody_waits_for_delays_nobody_else(cluster: Cluster) -> None:
    """The write is not acknowledged by any replica: whoever reads the key waits with it, and
    nobody else. A replica's link could even wait for itself."""
    server = cluster.start(replica_ack_quorum=1, replica_ack_timeout=0)
    with server.conn() as waiting, server.conn() as writer, server.conn() as other:
        waiting.send(encode_command("BLPOP", "k", 0))
        wait_until(lambda: b"blocked_clients:1" in other.ask("INFO", "clients"))
        start = position(server)
        writer.send(encode_command("SET", "k", "not a list"))
        wait_until(lambda: position(server) > start)
        assert other.ask("PING") == b"+PONG\r\n"
        writer.send(encode_command("SET", "k", "again") + encode_command("PING"))
        wait_until(lambda: position(server) > start + 1)
        assert other.ask("GET", "another") == b"$-1\r\n"


WAITING = [
    "BLPOP l 0",
    "BLMOVE l m LEFT RIGHT 0",
    "BLMPOP 0 2 l m LEFT",
    "BZPOPMAX z 0",
    "XREAD BLOCK 0 STREAMS x $",
    "XREADGROUP GROUP g me BLOCK 0 STREAMS x >",
]


def test_demotion_ends_the_waiting(cluster: Cluster) -> None:
    """blocked.c, disconnectAllBlockedClients."""
    old = cluster.start()
    new = cluster.replica_of(old)
    play(old, "XGROUP CREATE x g $ MKSTREAM")
    wait_synced(old, new)
    conns = [old.conn() for _ in WAITING]
    for conn, words in zip(conns, WAITING, strict=True):
        conn.send(encode_command(*words.split()))
    wait_blocked(old, len(WAITING))
    promote(new)
    follow(old, new)
    for conn in conns:
        assert is_sent_away(conn)
    play(new, "RPUSH l a; ZADD z 1 a; XADD x 1-1 a b")
    assert_same(new, old)
    assert new.client().lrange("l", 0, -1) == [b"a"]
    assert blocked_clients(old) == 0


def is_sent_away(conn: Conn) -> bool:
    """Whether the reply is an error and then the end."""
    return conn.read_to_end() == (
        b"-UNBLOCKED force unblock from blocking operation, "
        b"instance state changed (master -> replica?)\r\n"
    )


def test_failover_while_clients_wait(cluster: Cluster) -> None:
    """A planned one: nobody gets an element that the new primary has as well."""
    old = cluster.start()
    new = cluster.replica_of(old)
    wait_synced(old, new)
    with old.conn() as waiting:
        waiting.send(encode_command("BLMOVE", "l", "m", "LEFT", "RIGHT", 0))
        wait_blocked(old)
        old.client().execute_command("FAILOVER", "TO", "127.0.0.1", new.port)
        assert is_sent_away(waiting)
    wait_until(lambda: new.client().role()[0] == b"master")
    play(new, "RPUSH l a")
    wait_synced(new, old)
    assert old.client().lrange("l", 0, -1) == [b"a"] and not old.client().exists("m")


def test_pops_on_behalf_of_waiting_clients_are_replicated(primary: Server, replica: Server) -> None:
    """As the change that they are, and not as a command."""
    with primary.conn() as first, primary.conn() as second:
        first.send(encode_command("BLMOVE", "l", "m", "LEFT", "RIGHT", 0))
        wait_blocked(primary)
        second.send(encode_command("BLPOP", "m", 0))
        wait_blocked(primary, 2)
        start = position(primary)
        assert primary.client().rpush("l", "a", "b") == 2
        assert first.reply() == b"$1\r\na\r\n"
        assert second.reply() == b"*2\r\n$1\r\nm\r\n$1\r\na\r\n"
    assert_alike(primary, replica)
    assert replica.client().lrange("l", 0, -1) == [b"b"]
    assert position(primary) == start + 3
