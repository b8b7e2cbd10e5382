"""Sets: commands, compared with redis-server where chance doesn't decide."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import redis
from harness import Server
from invariants_sets import check_rows
from pair import Pair, heard
from store import Store

from kvserver.codec import ELEMENT_PREFIX_LEN, SET
from kvserver.database import Writer
from kvserver.types import sets
from kvserver.types.sets import Limits, MutableSet

LIMITS = Limits(512, 128, 64)


def test_members(pair: Pair) -> None:
    pair.same(
        """
        SADD s 1
        SADD s 1 1
        SADD s 2 3 2
        SCARD s
        SISMEMBER s 2
        SISMEMBER s 4
        SISMEMBER none 4
        SMISMEMBER s 1 9 2
        SMISMEMBER none 1 9
        SREM s 9
        SREM s 1 9 1
        SREM none 1
        SCARD s
        SREM s 2 3
        EXISTS s
        TYPE s
        SCARD s
        SMEMBERS s
        SADD only a
        SMEMBERS only
        TYPE only
        SADD "" ""
        SMEMBERS ""
        """
    )


def test_wrong_types(pair: Pair) -> None:
    pair.same("SET k v\nSADD s 1 2\nSADD t 2 3\n")
    for command in [
        *("SADD k 1", "SREM k 1", "SCARD k", "SMEMBERS k", "SISMEMBER k 1", "SMISMEMBER k 1"),
        *("SPOP k", "SPOP k 1", "SPOP k 0", "SPOP k -1", "SRANDMEMBER k", "SRANDMEMBER k 1"),
        *("SINTER s k", "SINTER none k", "SUNION none k", "SDIFF none k", "SINTERSTORE d s k"),
        *("SMOVE k s 1", "SMOVE s k 1", "SMOVE s k 9", "SMOVE none k 1", "SINTERCARD 2 s k"),
        *("SUNIONSTORE k s t", "GET k", "TYPE k", "GET s", "APPEND s x", "INCR s", "STRLEN s"),
        *("SSCAN k 0", "SSCAN s x", "SADD s", "SPOP s 1 2", "SRANDMEMBER s 1 2", "SMEMBERS"),
    ]:
        if command != "TYPE k" and command != "GET k":
            pair.same(command)


def test_algebra(pair: Pair) -> None:
    pair.same("SADD a x\nSADD b x y\nSADD c x y z\nSADD d q\n")
    pair.same("SINTER a b c\nSINTER a none\nSINTER a d\nSDIFF a b\nSDIFF none a\nSUNION a\n")
    pair.same("SINTERCARD 3 a b c\nSINTERCARD 2 b c LIMIT 1\nSINTERCARD 2 b c LIMIT 0\n")
    pair.same("SINTERCARD 2 b c limit 5\nSINTERCARD 0 a\nSINTERCARD x a\nSINTERCARD 3 a b\n")
    pair.same("SINTERCARD 2 b c LIMIT -1\nSINTERCARD 2 b c LIMIT\nSINTERCARD 2 b c FOO 1\n")
    pair.same("SINTERCARD 2 b none\nSINTERCARD 2 b c LIMIT 1 LIMIT 0\n")
    pair.same("SINTERSTORE to b c\nSCARD to\nSDIFFSTORE to c a\nSCARD to\nSUNIONSTORE to a d\n")
    pair.same("SCARD to\nSINTERSTORE to a d\nEXISTS to\nSINTERSTORE to a d\n")
    pair.same("SET str 1 EX 1000\nSUNIONSTORE str a b\nTYPE str\nTTL str\nSCARD str\n")
    pair.same("SUNIONSTORE b b c d\nSCARD b\nSDIFFSTORE b b b\nEXISTS b\n")


def test_moving(pair: Pair) -> None:
    pair.same("SADD a x\nSADD b y\nSMOVE a a x\nSMOVE a a q\nSMOVE a b q\nSMOVE a b x\nEXISTS a\n")
    pair.same("SCARD b\nSMOVE b new x\nSMEMBERS new\nSMOVE b new y\nEXISTS b\nSCARD new\n")
    pair.same("SADD c x\nSMOVE c new x\nSCARD new\nEXISTS c\nSMOVE none new x\n")


def test_random_members_in_counts(pair: Pair) -> None:
    pair.same("SADD one x\nSRANDMEMBER one\nSRANDMEMBER one 5\nSRANDMEMBER one -3\n")
    pair.same("SRANDMEMBER one 0\nSRANDMEMBER none\nSRANDMEMBER none 1\nSRANDMEMBER none -1\n")
    pair.same("SRANDMEMBER one x\nSRANDMEMBER one 9223372036854775808\nSPOP one -1\nSPOP one x\n")
    pair.same("SPOP one 0\nSPOP none\nSPOP none 1\nSPOP one\nSPOP one\nEXISTS one\n")
    pair.same("SADD one x\nSPOP one 7\nEXISTS one\n")


def test_a_reply_that_would_take_all_memory_is_refused(client: redis.Redis) -> None:
    client.sadd("s", "a")
    for count in (-(10**8), -(2**63 - 1)):
        with pytest.raises(redis.ResponseError, match="out of range"):
            client.srandmember("s", count)


def test_popping_is_random_and_empties(client: redis.Redis) -> None:
    members = {b"%d" % n for n in range(1000)}
    client.sadd("s", *members)
    popped = [client.spop("s") for _ in range(300)]
    popped += client.spop("s", 500)
    assert popped[:300] != sorted(popped[:300]), "in order"
    assert len(set(popped)) == 800
    assert client.scard("s") == 200
    assert set(client.smembers("s")) == members - set(popped)
    assert set(client.spop("s", 200)) == members - set(popped)
    assert client.exists("s") == 0


def test_each_member_comes_up_as_often(client: redis.Redis) -> None:
    client.sadd("s", *range(10))
    found = Counter(client.srandmember("s", -20_000))
    assert len(found) == 10
    # The standard deviation of each is 42.
    assert all(1700 < times < 2300 for times in found.values()), found
    found = Counter(member for _ in range(2000) for member in client.srandmember("s", 3))
    assert all(450 < times < 750 for times in found.values()), found


def test_each_member_comes_up_as_often_in_a_large_set(client: redis.Redis) -> None:
    """Whatever bucket it is in, and how many are in there with it."""
    client.sadd("s", *range(1000), *("x" * size for size in range(100, 1100, 10)))
    pipe = client.pipeline(transaction=False)
    for _ in range(55_000):
        pipe.srandmember("s")
    found = Counter(pipe.execute())
    assert len(found) == 1100
    # The standard deviation of each is 7.
    assert all(15 < times < 95 for times in found.values()), found
    # Of chi squared with 1099 degrees of freedom it is 47.
    assert sum((times - 50) ** 2 / 50 for times in found.values()) < 1099 + 6 * 47
    few = client.srandmember("s", 50)
    assert len(set(few)) == 50 and set(few) <= found.keys()
    assert set(client.srandmember("s", -50)) <= found.keys()


def test_a_scan_returns_what_is_there_all_the_time(client: redis.Redis) -> None:
    """Buckets are halved and joined meanwhile."""
    stays = {b"stays:%d" % n for n in range(500)}
    client.sadd("s", *stays)
    found: set[bytes] = set()
    cursor, calls = 0, 0
    while True:
        cursor, members = client.sscan("s", cursor, count=5)
        found |= set(members)
        calls += 1
        if not cursor:
            break
        others = range(calls % 10 * 400)
        if others:
            client.sadd("s", *others)
        client.srem("s", *range(len(others), 4000))
    assert calls > 20
    assert stays <= found


def test_encodings(client: redis.Redis) -> None:
    """As Redis 7.4; 7.0 has no listpack for sets."""

    def encoding(*members: object) -> bytes:
        client.delete("s")
        for member in members:
            client.sadd("s", member)
        return client.object("encoding", "s")

    assert encoding(1, 2, -3) == b"intset"
    assert encoding(1, 2, "a") == b"listpack"
    assert encoding("a" * 65) == b"hashtable"
    assert encoding(*range(512)) == b"intset"
    assert encoding(*range(513)) == b"hashtable"
    assert encoding(*range(200), "a") == b"hashtable"
    assert encoding("a", *range(127)) == b"listpack"
    assert encoding("a", *range(128)) == b"hashtable"
    client.srem("s", *range(128))
    assert client.object("encoding", "s") == b"hashtable"
    client.config_set("set-max-listpack-entries", 1)
    assert encoding("a") == b"listpack"
    assert encoding("a", "b") == b"hashtable"


def test_events(pair: Pair) -> None:
    pair.same("CONFIG SET notify-keyspace-events KEA")
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.ask("PSUBSCRIBE", "__key*")
    pair.same(
        "SADD s a b c\nSADD s a\nSREM s a\nSMOVE s t b\nSMOVE s t c\nSREM t b c\nSADD s a b\n"
    )
    pair.same("SREM s a b\nSADD s a\nSPOP s\nSADD s a\nSPOP s 2\nSADD s a b\nSUNIONSTORE d s\n")
    pair.same("SINTERSTORE d x\nSINTERSTORE d x\nPUBLISH __key end\n")
    ours, theirs = map(heard, listeners)
    assert ours == theirs


def test_large_sets(client: redis.Redis) -> None:
    """Replies in steps, and sets that don't begin at the same member."""
    one, other = range(3000), range(1500, 6000)
    client.sadd("a", *one)
    client.sadd("b", *other)

    def numbers(found: object) -> set[int]:
        assert isinstance(found, set | list)
        assert len(found) == len(set(found))
        return {int(member) for member in found}

    assert numbers(client.smembers("a")) == set(one)
    assert numbers(client.sinter("a", "b")) == set(one) & set(other)
    assert numbers(client.sunion("a", "b")) == set(one) | set(other)
    assert numbers(client.sdiff("a", "b")) == set(one) - set(other)
    assert client.sintercard(2, ["a", "b"]) == 1500
    assert client.sintercard(2, ["a", "b"], limit=700) == 700
    assert client.sdiffstore("c", "b", "a") == 3000
    assert numbers(client.smembers("c")) == set(other) - set(one)
    found = [int(member) for member in client.sscan_iter("a", count=100)]
    assert sorted(found) == list(one)
    assert set(client.sscan_iter("a", match="29[0-4]*")) == {
        b"%d" % n for n in one if str(n).startswith(("290", "291", "292", "293", "294"))
    }
    assert client.delete("a", "b", "c") == 3


def test_a_set_that_is_read_and_written_in_one_turn(server: Server) -> None:
    conn = server.conn()
    conn.send(
        b"SADD s a b c\r\nSREM s b\r\nSMEMBERS s\r\nDEL s\r\nSADD s z\r\nSMEMBERS s\r\nSCARD s\r\n"
    )
    replies = [conn.reply() for _ in range(7)]
    assert replies[2] in (b"*2\r\n$1\r\na\r\n$1\r\nc\r\n", b"*2\r\n$1\r\nc\r\n$1\r\na\r\n")
    assert replies[5:] == [b"*1\r\n$1\r\nz\r\n", b":1\r\n"]


# -- rows ----------------------------------------------------------------------------------------


def rows_of(db: Writer, key: bytes) -> dict[bytes, bytes]:
    found = db.collection(key, SET)
    return {} if found is None else {k[ELEMENT_PREFIX_LEN:]: row for k, row in found.scan()}


@pytest.mark.parametrize("commits", [True, False])
def test_rows_agree(tmp_path: Path, commits: bool) -> None:
    store = Store(tmp_path / "data")
    db = store[0]
    model: set[bytes] = set()
    for step in range(400):
        members = MutableSet(db.mutable_or_new(b"s", SET), LIMITS)
        name = b"%d" % (step * 7919 % 97)
        if step % 3 == 2:
            assert members.remove(name) == (name in model)
            model.discard(name)
        else:
            assert members.add(name) == (name not in model)
            model.add(name)
        members.save()
        if commits:
            store.commit()
        header = db.row(b"s")
        assert (header is None) == (not model)
        if header is not None:
            check_rows(header, rows_of(db, b"s"))
            found = db.collection(b"s", SET)
            assert found is not None
            assert set(sets.iterate(found)) == model
    db.delete(b"s")
    store.commit()
    assert store.stored(1) == {}, "rows are left under a deleted set"


@pytest.mark.parametrize("size", [3, 300])
def test_nothing_is_left_of_what_goes(tmp_path: Path, size: int) -> None:
    store = Store(tmp_path / "data")
    db = store[0]

    def fill(key: bytes, expire_ms: int = 0) -> None:
        members = MutableSet(db.new(key, SET, expire_ms), LIMITS)
        for n in range(size):
            members.add(b"%d" % n)
        members.save()

    fill(b"replaced")
    store.commit()
    fill(b"replaced")
    db.put_string(b"replaced", b"x")
    fill(b"expiring", store.keyspace.now + 10)
    fill(b"deleted")
    fill(b"renamed")
    row = db.row(b"renamed")
    assert row is not None
    db.rename(b"renamed", b"other", row)
    store[1].put_copy(b"copy", row, db)
    db.delete(b"deleted")
    store.commit()
    buckets = len(rows_of(db, b"other"))
    assert 0 < buckets <= size
    assert rows_of(store[1], b"copy") == rows_of(db, b"other")
    assert len(store.stored(1)) == 2 * buckets + len(rows_of(db, b"expiring"))
    store.keyspace.now += 11
    assert db.row(b"expiring") is None
    db.delete(b"other")
    store.commit()
    store.keyspace.flush(store.keyspace.databases[1])
    store.commit()
    assert store.stored(1) == {}
    assert store[1].size() == 0


def test_buckets_follow_the_number_of_members(tmp_path: Path) -> None:
    """Of members of all lengths, until none is left."""
    store = Store(tmp_path / "data")
    db = store[0]
    members = MutableSet(db.new(b"s", SET), LIMITS)
    model = [b"%d" % n for n in range(3000)]
    model += [b"x" * size for size in (0, 1, 254, 255, 256, 257, 5000)]
    for member in model:
        assert members.add(member)
        assert members.has(member)
    members.save()
    store.commit()
    rows = rows_of(db, b"s")
    assert 100 < len(rows) < 500
    sizes = set()
    for step in range(len(model)):
        members = MutableSet(db.mutable_or_new(b"s", SET), LIMITS)
        popped = members.pop()
        model.remove(popped)
        assert not members.has(popped)
        assert not members.remove(popped)
        members.save()
        if step % 100 == 0 and model:
            store.commit()
            header, rows = db.row(b"s"), rows_of(db, b"s")
            assert header is not None
            check_rows(header, rows)
            assert set(sets.iterate(members.rows)) == set(model)
            sizes.add(members.buckets)
    assert min(sizes) < 16 and sorted(sizes)[0] < max(sizes)
    store.commit()
    assert store.stored(1) == {}


def test_a_bucket_that_is_much_too_full(tmp_path: Path) -> None:
    """All of its members are found, by chance too."""
    store = Store(tmp_path / "data")
    members = MutableSet(store[0].new(b"s", SET), LIMITS)
    for n in range(100):
        members.add(b"%d" % n)
    first = members.bucket_of(b"0")
    crowd = [b"c%d" % n for n in range(20_000)]
    crowd = [name for name in crowd if members.bucket_of(name) == first][:200]
    for name in crowd:
        members.add(name)
    members.save()
    found = {members.at_random() for _ in range(20_000)}
    assert found == {b"%d" % n for n in range(100)} | set(crowd)
