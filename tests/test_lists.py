"""Lists: commands, compared with redis-server; their rows are tested in test_list_rows.py."""

from __future__ import annotations

import random

import pytest
import redis
from harness import Server
from pair import Pair, heard


def test_pushing_and_popping(pair: Pair) -> None:
    pair.same("RPUSH l a b c\nLPUSH l x y\nLRANGE l 0 -1\nLLEN l\nLPOP l\nRPOP l\nLLEN l\n")
    pair.same(
        "LPUSHX none a\nRPUSHX none a\nEXISTS none\nLPUSHX l q r\nRPUSHX l s\nLRANGE l 0 -1\n"
    )
    pair.same("LPOP l 2\nRPOP l 2\nLRANGE l 0 -1\nLPOP l 0\nRPOP l 0\nLPOP l -1\nLPOP l x\n")
    pair.same("LPOP l 1 2\nRPOP l 1 2\nLPOP l 9223372036854775808\nLPOP l 100\nEXISTS l\nLLEN l\n")
    pair.same("LPOP l\nRPOP l\nLPOP l 1\nRPOP l 0\nLPOP none x\nTYPE l\nRPUSH l 1\nTYPE l\n")
    pair.same([("RPUSH", b"\x00\xff", b"", b"\r\n"), ("LRANGE", b"\x00\xff", 0, -1)])


def test_by_index(pair: Pair) -> None:
    pair.same("RPUSH l a b c d e\n")
    for index in (0, 1, 4, 5, -1, -5, -6, 2**62, "x", "01"):
        pair.same([("LINDEX", "l", index), ("LINDEX", "none", index), ("LSET", "none", index, 1)])
        pair.same([("LSET", "l", index, f"new {index}"), ("LRANGE", "l", 0, -1)])
    indices = (0, 1, 4, 5, 100, -1, -2, -5, -100, 2**63 - 1, -(2**63), "x")
    for start in indices:
        for stop in indices:
            pair.same([("LRANGE", "l", start, stop), ("LRANGE", "none", start, stop)])


def test_trimming(pair: Pair) -> None:
    for start in (0, 1, 2, 4, 5, -1, -3, -6, "x"):
        for stop in (0, 2, 4, 9, -1, -3, -6, 2**63 - 1):
            pair.same("DEL l\nRPUSH l a b c d e\n")
            pair.same([("LTRIM", "l", start, stop), ("LRANGE", "l", 0, -1), ("EXISTS", "l")])
    pair.same("LTRIM none 0 1\nLTRIM none x 1\n")


def test_removing(pair: Pair) -> None:
    for count in (0, 1, 2, 9, -1, -2, -9, "x", 2**63 - 1):
        pair.same("DEL l\nRPUSH l a b a c a d b\n")
        pair.same([("LREM", "l", count, "a"), ("LRANGE", "l", 0, -1), ("LREM", "l", count, "q")])
        pair.same([("LREM", "l", count, "b"), ("LINDEX", "l", 0), ("LINDEX", "l", -1)])
    pair.same("LREM none 0 a\nLREM none x a\nDEL l\nRPUSH l a a\nLREM l 0 a\nEXISTS l\n")


def test_inserting(pair: Pair) -> None:
    pair.same("RPUSH l a b c b\nLINSERT l BEFORE b x\nLINSERT l after b y\nLINSERT l before a z\n")
    pair.same("LRANGE l 0 -1\nRPUSH l e\nLINSERT l AFTER e f\nLINSERT l AFTER q f\nLRANGE l 0 -1\n")
    pair.same("LINSERT none BEFORE a b\nLINSERT none MIDDLE a b\nLINSERT l MIDDLE a b\n")


def test_positions(pair: Pair) -> None:
    pair.same("RPUSH l a b c 1 2 3 c c\n")
    for options in [
        *("", "RANK 1", "RANK 2", "RANK 4", "RANK -1", "RANK -2", "RANK -4", "RANK 0", "RANK x"),
        *("COUNT 0", "COUNT 1", "COUNT 2", "COUNT -1", "COUNT x", "MAXLEN 0", "MAXLEN 2"),
        *("MAXLEN 3", "MAXLEN -1", "RANK 2 COUNT 0", "RANK -1 COUNT 2", "RANK -2 MAXLEN 2"),
        *("COUNT 0 MAXLEN 7", "RANK -1 COUNT 0 MAXLEN 2", "RANK", "FOO 1", "RANK 5 COUNT 0"),
        *("RANK 9223372036854775807", "rank 1 rank 2 count 1 count 2"),
    ]:
        pair.same(f"LPOS l c {options}\nLPOS l q {options}\nLPOS none c {options}\n")


def test_the_least_number(client: redis.Redis) -> None:
    """7.4 refuses what has no absolute value; 7.0 didn't."""
    client.rpush("l", "a")
    for command in [("LREM", "l", -(2**63), "a"), ("LPOS", "l", "a", "RANK", -(2**63))]:
        with pytest.raises(redis.ResponseError, match="value must between -9223372036854775807"):
            client.execute_command(*command)


def test_moving(pair: Pair) -> None:
    pair.same("RPUSH a 1 2 3\n")
    for sides in ("LEFT RIGHT", "RIGHT LEFT", "LEFT LEFT", "RIGHT RIGHT", "left right", "X LEFT"):
        pair.same(f"LMOVE a a {sides}\nLRANGE a 0 -1\nLMOVE none a {sides}\nLMOVE a b {sides}\n")
        pair.same(f"LRANGE a 0 -1\nLRANGE b 0 -1\nRPUSH a x\nLMOVE a b {sides} 1\n")
    pair.same("DEL a b\nRPUSH a 1\nRPOPLPUSH a a\nRPOPLPUSH a b\nEXISTS a\nRPOPLPUSH a b\n")
    pair.same("LMOVE b b LEFT RIGHT\nLRANGE b 0 -1\nLMOVE b b LEFT LEFT\nLMOVE b b LEFT MIDDLE\n")


def test_popping_from_several(pair: Pair) -> None:
    pair.same("RPUSH b 1 2 3 4\n")
    for arguments in [
        *("2 a b LEFT", "2 a b RIGHT COUNT 2", "1 a LEFT", "0 a LEFT", "x a LEFT", "-1 a LEFT"),
        *("2 a LEFT", "1 a MIDDLE", "1 a LEFT COUNT", "1 a LEFT COUNT 0", "1 a LEFT COUNT -1"),
        *("1 a LEFT COUNT x", "1 a LEFT COUNT 1 COUNT 1", "1 a LEFT FOO", "1 b LEFT COUNT 9"),
        *("9223372036854775807 a LEFT", "2 b a LEFT", "1 a", "1 a left count 1"),
    ]:
        pair.same(f"LMPOP {arguments}\nBLMPOP 0.01 {arguments}\n")


def test_wrong_types(pair: Pair) -> None:
    pair.same("SET k v\nRPUSH l a\n")
    for command in [
        *("LPUSH k 1", "RPUSH k 1", "LPUSHX k 1", "RPUSHX k 1", "LPOP k", "LPOP k 0", "LPOP k x"),
        *(
            "RPOP k",
            "LLEN k",
            "LINDEX k 0",
            "LINDEX k x",
            "LSET k 0 a",
            "LSET k x a",
            "LRANGE k x 1",
        ),
        *("LRANGE k 0 1", "LTRIM k 0 1", "LTRIM k x 1", "LREM k 0 a", "LREM k x a", "LPOS k a"),
        *("LINSERT k BEFORE a b", "LINSERT k FOO a b", "LPOS k a RANK 0", "LMOVE k l LEFT LEFT"),
        *(
            "LMOVE l k LEFT LEFT",
            "LMOVE k k LEFT LEFT",
            "LMOVE none k LEFT LEFT",
            "GET l",
            "INCR l",
        ),
        *("RPOPLPUSH k l", "RPOPLPUSH l k", "RPOPLPUSH none k", "LMPOP 1 k LEFT", "BLPOP k 0"),
        *("LMPOP 2 none k LEFT", "LMPOP 2 l k LEFT", "BLPOP none k 0", "BRPOP k l 0"),
        *("BLMOVE k l LEFT LEFT 0", "RPUSH l a", "BLMOVE l k LEFT LEFT 0", "BRPOPLPUSH l k 0"),
        *("BRPOPLPUSH k l x", "BLPOP k x", "BLMPOP x 1 k LEFT", "BLMPOP 0 1 k FOO", "APPEND l x"),
    ]:
        pair.same(command)


def test_events(pair: Pair) -> None:
    pair.same("CONFIG SET notify-keyspace-events KEA")
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.ask("PSUBSCRIBE", "__key*")
    pair.same("RPUSH l a b c\nLPUSH l x\nLPUSHX l y\nRPUSHX l z\nLPUSHX none z\nLPOP l\nRPOP l 2\n")
    pair.same("LPOP l 0\nLSET l 0 q\nLTRIM l 0 -1\nLTRIM l 0 0\nLREM l 0 none\nLREM l 0 q\n")
    pair.same(
        "RPUSH l a b\nLINSERT l AFTER a c\nLINSERT l AFTER q c\nLTRIM l 5 9\nRPUSH l a b c d\n"
    )
    pair.same(
        "LMOVE l m LEFT RIGHT\nLMOVE m m LEFT RIGHT\nRPOPLPUSH m l\nLMPOP 2 m l LEFT COUNT 2\n"
    )
    pair.same(
        "BLPOP m l 0\nBRPOP l 0\nRPUSH l a\nBLMOVE l l LEFT LEFT 0\nBLMPOP 0 1 l LEFT COUNT 4\n"
    )
    pair.same("RPUSH l a b\nLPOP l 9\nPUBLISH __key end\n")
    ours, theirs = map(heard, listeners)
    assert ours == theirs


def test_watched_lists(pair: Pair) -> None:
    """What marks a watched key, changes that change nothing included."""
    pair.same("RPUSH l a b c\nRPUSH one a\n")
    others = [pair.connect(server) for server in pair.servers]
    for command in [
        *("LTRIM l 0 -1", "LPOP l 0", "LREM l 0 none", "LINSERT l BEFORE none x", "LSET l 0 a"),
        *("LMOVE one one LEFT LEFT", "LPUSHX none 1", "LMOVE l l LEFT LEFT", "LINDEX l 0"),
        *("LSET l 9 x", "LTRIM none 0 1", "LPOP none", "LREM l 1 b"),
    ]:
        pair.same("WATCH l one none")
        for conn in others:
            conn.ask(*command.split())
        pair.same("MULTI\nPING\nEXEC\n")


def test_encodings(client: redis.Redis) -> None:
    """As Redis 7.4; 7.0 has only quicklists."""

    def encoding(name: str = "l") -> bytes:
        return client.object("encoding", name)

    client.rpush("l", *range(100))
    assert encoding() == b"listpack"
    client.rpush("l", "x" * 8000)
    assert encoding() == b"quicklist"
    client.rpop("l")
    assert encoding() == b"listpack"
    client.rpush("l", *["x" * 500] * 16)
    assert encoding() == b"quicklist"
    client.ltrim("l", -9, -1)
    assert encoding() == b"quicklist"
    client.rpop("l")
    assert encoding() == b"listpack"
    client.config_set("list-max-listpack-size", 10)
    client.rpush("m", *range(10))
    assert encoding("m") == b"listpack"
    client.lpush("m", 1)
    assert encoding("m") == b"quicklist"
    client.lpop("m", 5)
    assert encoding("m") == b"quicklist"
    client.lset("m", 0, "x")
    client.lrem("m", 1, "x")
    assert encoding("m") == b"listpack"
    client.config_set("list-max-ziplist-size", -1)
    client.lset("m", 0, "x" * 4096)
    assert encoding("m") == b"quicklist"
    client.lset("m", 0, "x")
    assert encoding("m") == b"listpack"


@pytest.mark.parametrize("seed", range(3))
def test_large_lists(pair: Pair, seed: int) -> None:
    """Lists that are changed everywhere: replies in steps, uneven blocks, dropped ranges."""
    chance = random.Random(seed)
    pair.same([("RPUSH", "l", *range(3000))])
    for _ in range(150):
        at, value = chance.randrange(-3000, 3000), chance.randrange(3000)
        command: tuple[str | int, ...] = chance.choice(
            [
                ("LINDEX", "l", at),
                ("LSET", "l", at, "new"),
                ("LREM", "l", chance.randrange(-2, 3), value),
                ("LINSERT", "l", chance.choice(["BEFORE", "AFTER"]), value, value + 1),
                ("LINSERT", "l", chance.choice(["BEFORE", "AFTER"]), 1500, "same"),
                ("LREM", "l", 1, "same"),
                ("LPOS", "l", value, "RANK", chance.choice([1, -1, 2])),
                ("LPOS", "l", "same", "COUNT", 0, "MAXLEN", 2000),
                ("LRANGE", "l", at, at + chance.randrange(600)),
                ("LPOP", "l", chance.randrange(30)),
                ("RPOP", "l", chance.randrange(30)),
                ("RPUSH", "l", *range(chance.randrange(1, 60))),
                ("RPUSH", "l", "large" * 100),
                ("LINSERT", "l", "BEFORE", value, "large" * 100),
                ("LPUSH", "l", *range(chance.randrange(1, 60))),
            ]
        )
        pair.same([command])
    pair.same("LRANGE l 0 -1\nLTRIM l 300 -300\nLPUSH l a b\nRPUSH l c\nLRANGE l 0 -1\nLLEN l\n")
    pair.same("LPOP l 700\nLRANGE l 0 -1\nRPOP l 800\nLINDEX l 0\nLPOP l 9000\nEXISTS l\n")


def test_a_dropped_range_is_written_again_in_the_same_turn(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=True)
    pipe.rpush("l", *range(2000))
    pipe.execute()
    pipe.lrem("l", 1, "500")
    pipe.linsert("l", "BEFORE", "700", "between")
    pipe.ltrim("l", 1000, -1)
    pipe.lpush("l", *[f"new {n}" for n in range(600)])
    pipe.lrange("l", 0, -1)
    expected = [b"new %d" % n for n in reversed(range(600))] + [
        b"%d" % n for n in range(1000, 2000)
    ]
    assert pipe.execute()[-1] == expected
    assert client.lrange("l", 0, -1) == expected


def test_large_elements(pair: Pair) -> None:
    """They have rows of their own, which follow them wherever they go."""
    small, large = [f"small {n}" for n in range(40)], [f"{n}" * 300 for n in range(40)]
    pair.same([("RPUSH", "l", *(v for both in zip(small, large, strict=True) for v in both))])
    pair.same([("LPUSH", "l", *large[:20]), ("LRANGE", "l", 0, -1), ("LINDEX", "l", 25)])
    pair.same([("LPOS", "l", large[3], "COUNT", 0), ("LPOS", "l", "x" * 300), ("LPOP", "l")])
    pair.same([("LSET", "l", 30, "now small"), ("LSET", "l", 31, "now large" * 100)])
    for number in range(30):
        value = large[number] if number % 2 else f"inserted {number}"
        pair.same([("LINSERT", "l", "BEFORE", small[20], value), ("LREM", "l", -1, large[20])])
        pair.same([("LREM", "l", 2, large[number]), ("RPOPLPUSH", "l", "l"), ("LPOP", "l", 2)])
    pair.same("LRANGE l 0 -1\nLTRIM l 5 -6\nLRANGE l 0 -1\nSORT l ALPHA DESC\nCOPY l m\nDEL l\n")
    pair.same(
        "LRANGE m 0 -1\nLMOVE m n LEFT LEFT\nLPOP m 30\nRPOP m 100\nEXISTS m\nLRANGE n 0 -1\n"
    )


def test_what_is_dead_is_no_element(client: redis.Redis) -> None:
    """Popped elements may stay in a row that has others: nobody sees them."""
    client.rpush("l", *range(40))
    client.lpop("l", 3)
    client.rpop("l", 3)
    expected = [b"%d" % n for n in range(3, 37)]
    assert client.lrange("l", -100, 100) == expected
    client.copy("l", "copy")
    client.restore("restored", 0, client.dump("l"))
    client.rename("l", "renamed")
    for name in ("copy", "restored", "renamed"):
        assert client.lrange(name, 0, -1) == client.sort(name, by="nosort") == expected
        assert client.lpos(name, "2") is client.lpos(name, "37") is None
        assert client.lrem(name, 0, "38") == 0
        client.lpush(name, "first")
        client.rpush(name, "last")
        assert client.lrange(name, 0, -1) == [b"first", *expected, b"last"]


def test_ranges_in_scripts_and_transactions(client: redis.Redis) -> None:
    client.rpush("l", *range(100), "x" * 1000)
    expected = [*[b"%d" % n for n in range(100)], b"x" * 1000]
    for protocol in (2, 3):
        script = f"redis.setresp({protocol}) return redis.call('LRANGE', 'l', 0, -1)"
        assert client.eval(script, 0) == expected
    assert client.eval("return #redis.call('LRANGE', 'l', 5, 104)", 0) == 96
    pipe = client.pipeline(transaction=True)
    pipe.lrange("l", 0, -1).lrange("l", 5, 4).lrange("l", 50, 51)
    assert pipe.execute() == [expected, [], [b"50", b"51"]]


def test_renamed_copied_moved_and_deleted(pair: Pair) -> None:
    pair.same("RPUSH l a b c d\nLREM l 1 b\nRENAME l m\nCOPY m n\nRPUSH n e\nMOVE m 1\nDEL n\n")
    pair.same("EXISTS l m n\nSELECT 1\nLRANGE m 0 -1\nSET m v\nGET m\nSELECT 0\n")
    pair.same(
        "RPUSH l a\nEXPIRE l 100\nLPOP l\nRPUSH l a\nTTL l\nEXPIRE l 100\nRPUSH l b\nPERSIST l\n"
    )


def test_lists_survive_a_restart(server: Server) -> None:
    client = server.client()
    client.rpush("l", *range(1000))
    client.lrem("l", 1, 500)
    client.linsert("l", "BEFORE", 700, "between")
    before = client.lrange("l", 0, -1)
    server.restart()
    client = server.client()
    assert client.lrange("l", 0, -1) == before
    assert client.lindex("l", 699) == b"between"
