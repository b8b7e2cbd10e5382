"""GET, SET and their relatives as redis-server does them; the events of all string commands."""

from __future__ import annotations

from itertools import permutations

import pytest
from harness import Conn, wait_until
from pair import LATER, SLACK_MS, Command, Pair, heard

from kvserver.numbers import INT64_MAX

SCRIPTS = {
    "get": r"""
        GET missing
        SET k v
        GET k
        GET
        GET k k
        SET "" "empty key"
        GET ""
        SET k ""
        GET k
        SET "\x00\xff{\r\n}" "\x00\r\n\xfe"
        GET "\x00\xff{\r\n}"
        SET {a}b 1
        SET {}b 2
        SET a{b 3
        MGET {a}b {}b a{b a}b
        set k lower
        GeT k
        """,
    "set leaves no time to expire": f"""
        SET k v EXAT {LATER}
        SET k w
        EXPIRETIME k
        GETSET k x
        MSET k y
        EXPIRETIME k
        SET k v EXAT {LATER}
        GETSET k z
        EXPIRETIME k
        SET k v EXAT {LATER}
        MSET k z
        EXPIRETIME k
        SET k v EXAT {LATER}
        SET k v XX
        EXPIRETIME k
        """,
    "set with a time keeps it": f"""
        SET k v KEEPTTL
        EXPIRETIME k
        SET k v EXAT {LATER}
        SET k w KEEPTTL
        GET k
        EXPIRETIME k
        SET k x KEEPTTL XX GET
        EXPIRETIME k
        SET k y KEEPTTL NX GET
        GET k
        PEXPIRETIME k
        SET k z PXAT {LATER}001 XX
        PEXPIRETIME k
        SET new v KEEPTTL NX
        GET new
        EXPIRETIME new
        """,
    "set get": """
        SET k 1 GET
        SET k 2 GET
        SET k 3 NX GET
        GET k
        SET k 4 XX GET
        SET new 5 NX GET
        GET new
        SET other 6 XX GET
        GET other
        SET k 7 GET GET get
        """,
    "set in the past": """
        SET k v
        SET k w EXAT 1
        GET k
        EXISTS k
        SET k w PXAT 1 GET
        GET k
        SET k w PXAT 1
        SET k x NX
        GET k
        SET k w PXAT 1
        SET k x XX
        SET k w PXAT 1
        SET k x KEEPTTL
        EXPIRETIME k
        SET k w PXAT 1
        APPEND k abc
        SET n 1 PXAT 1
        INCR n
        """,
    "setnx": """
        SETNX k 1
        SETNX k 2
        GET k
        SET t v PXAT 1
        SETNX t 2
        GET t
        SETNX k
        """,
    "setex": """
        SETEX k 0 v
        SETEX k -1 v
        SETEX k 1.5 v
        SETEX k abc v
        SETEX k "" v
        SETEX k " 1" v
        SETEX k 9223372036854775 v
        SETEX k 9223372036854776 v
        SETEX k 9223372036854775807 v
        SETEX k 9223372036854775808 v
        PSETEX k 0 v
        PSETEX k -1 v
        PSETEX k abc v
        PSETEX k 9223372036854775807 v
        EXISTS k
        SETEX k 100 v
        PSETEX k 100000 w
        GET k
        SETEX k 100
        PSETEX k 100
        """,
    "times that set refuses": """
        SET k v EX 0
        SET k v EX -1
        SET k v EX 1.5
        SET k v EX ""
        SET k v EX +1
        SET k v EX 01
        SET k v EX 9223372036854775
        SET k v EX 9223372036854776
        SET k v EX -9223372036854775808
        SET k v EX 9223372036854775807
        SET k v EX 9223372036854775808
        SET k v PX 0
        SET k v PX 9223372036854775807
        SET k v PX 9223370000000000000
        SET k v EXAT 0
        SET k v EXAT -1
        SET k v EXAT 9223372036854776
        SET k v PXAT 0
        SET k v PXAT -5
        SET k v PXAT 9223372036854775808
        SET k v PXAT x
        EXISTS k
        SET k old
        SET k v GET EX 0
        SET k v EX 0 NX
        GET k
        SET k v EX 10 EX 0
        SET k v EX 0 EX 1000000
        GET k
        SET k v EXAT 9223372036854775
        EXPIRETIME k
        SET k v PXAT 9223372036854775807
        PEXPIRETIME k
        GETEX k PXAT 9223372036854775806
        PEXPIRETIME k
        """,
    "getex": f"""
        GETEX missing
        GETEX missing EX 0
        GETEX missing EX
        GETEX missing NX
        SET k v
        GETEX k
        GETEX k PERSIST
        EXPIRETIME k
        GETEX k EXAT {LATER}
        EXPIRETIME k
        GETEX k
        EXPIRETIME k
        GETEX k PXAT {LATER}002
        PEXPIRETIME k
        GETEX k PERSIST
        EXPIRETIME k
        GETEX k PERSIST PERSIST
        GETEX k EX 0
        GETEX k EX -1
        GETEX k EX x
        GETEX k PX 9223372036854775807
        GETEX k EXAT 9223372036854776
        EXPIRETIME k
        GETEX k EX 100 PX 100
        GETEX k KEEPTTL
        GETEX k GET
        GETEX k EX
        GETEX k PERSIST EX 10
        GETEX k EX 10 PERSIST
        GETEX k EX 10 EX 20
        GETEX k exat 1
        EXISTS k
        SET k v
        GETEX k PXAT 1
        EXISTS k
        DBSIZE
        GETEX
        """,
    "getdel": f"""
        GETDEL missing
        SET k v EXAT {LATER}
        GETDEL k
        GETDEL k
        EXISTS k
        DBSIZE
        SET k v PXAT 1
        GETDEL k
        GETDEL
        GETDEL a b
        """,
    "getset": """
        GETSET k 1
        GETSET k 2
        GET k
        GETSET k
        """,
    "several keys": """
        MSET a 1 b 2 a 3
        MGET a b c a
        MSETNX c 1 a 2
        MGET a b c
        MSETNX c 4 d 5
        MGET a b c d
        MSET a
        MSET a 1 b
        MSETNX a 1 b
        MSET
        MGET
        DBSIZE
        SET t v PXAT 1
        MGET t a
        SET t v PXAT 1
        MSETNX t 1 u 2
        MGET t u
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


STATES = {
    "missing": ("DEL", "k"),
    "present": ("SET", "k", "old"),
    "expiring": ("SET", "k", "old", "EXAT", LATER),
}
OPTIONS: list[tuple[str, ...]] = [
    ("NX",),
    ("XX",),
    ("GET",),
    ("KEEPTTL",),
    ("PERSIST",),
    ("EX", "10000000000"),
    ("PX", "10000000000000"),
    ("EXAT", str(LATER)),
    ("PXAT", f"{LATER}000"),
    ("EX",),
    ("pxat", "1"),
    ("bogus",),
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["SET k new", "GETEX k"])
def test_every_combination_of_three_options(pair: Pair, name: str, state: str) -> None:
    commands: list[Command] = []
    for count in range(4):
        for options in permutations(OPTIONS, count):
            words = [word for option in options for word in option]
            commands += [STATES[state], (*name.split(), *words), ("GET", "k")]
    pair.same(commands)


@pytest.mark.parametrize(
    "command",
    [
        "SET k v EX 100",
        "SET k v PX 100000",
        "SETEX k 100 v",
        "PSETEX k 100000 v",
        "GETEX k EX 100",
        "GETEX k PX 100000",
    ],
)
def test_relative_times(pair: Pair, command: str) -> None:
    pair.same(f"SET k v\n{command}")
    remaining = pair.close("PTTL", "k")
    assert 100_000 - SLACK_MS <= remaining <= 100_000


def test_key_vanishes_on_time(pair: Pair) -> None:
    pair.same("SET k v\nGETEX k PX 1\nSET l v PX 1\nPSETEX m 1 v")
    for conn in pair.conns:
        wait_until(lambda conn=conn: conn.ask("EXISTS", "k", "l", "m") == b":0\r\n")


# Notifications

EVENTS = {
    "set": "SET k v\nSET k v\nSET k v NX\nSET k v XX GET\nSET k v KEEPTTL\nSET l v XX",
    "set with a time": "SET k v EX 100\nSET k v PX 1000000 KEEPTTL\nSETEX k 100 v\n"
    f"PSETEX k 100000 v\nSET k v EXAT {LATER}\nSET k v KEEPTTL\nSETEX k 0 v",
    "set in the past": "SET k v PXAT 1\nGET k\nSET k v PXAT 1\nSET k w\nSET k v PXAT 1\nINCR k\n"
    "SET k v PXAT 1\nSETNX k w\nSET k v PXAT 1\nGETDEL k\nSET k v PXAT 1\nSET k v GET",
    "setnx": "SETNX k v\nSETNX k v",
    "getset": "GETSET k v\nGETSET k v",
    "getdel": "GETDEL k\nSET k v\nGETDEL k",
    "getex": f"SET k v\nGETEX k\nGETEX k PERSIST\nGETEX k EX 100\nGETEX k EXAT {LATER}\n"
    "GETEX k PERSIST\nGETEX k PXAT 1\nGETEX k EX 1\nSET k v\nGETEX k EX 0",
    "several": "MSET a 1 b 2 a 3\nMSETNX a 1 c 2\nMSETNX c 1 d 2\nMGET a x y",
    "counters": f"INCR n\nDECR n\nINCRBY n 2\nDECRBY n 3\nSET m {INT64_MAX}\nINCR m\nINCRBY n a",
    "floats": "INCRBYFLOAT f 1.5\nINCRBYFLOAT f 1\nINCRBYFLOAT f x",
    "substrings": 'APPEND k ""\nAPPEND k a\nSETRANGE k 3 b\nSETRANGE k 0 ""\nSETRANGE l 0 ""\n'
    "SETRANGE l 1 x\nGETRANGE k 0 1\nSTRLEN x\nSUBSTR x 0 1\nSETRANGE k -1 a",
    "lcs": "MSET a 1 b 1\nLCS a b\nLCS a x\nLCS x y LEN",
}


@pytest.mark.parametrize("script", EVENTS.values(), ids=EVENTS)
def test_notifications(pair: Pair, script: str) -> None:
    listeners = [pair.connect(server) for server in pair.servers]
    for listener in listeners:
        listener.ask("PSUBSCRIBE", "*")
    pair.same("CONFIG SET notify-keyspace-events KEAnm\nSELECT 3")
    pair.same(script)
    for conn in pair.conns:
        conn.ask("PUBLISH", "end", "end")
    ours, theirs = map(heard, listeners)
    assert ours == theirs
    assert ours


def counted(conn: Conn) -> list[bytes]:
    """INFO's hits and misses."""
    fields = (b"keyspace_hits", b"keyspace_misses", b"expired_keys")
    return [line for line in conn.ask("INFO", "stats").split() if line.startswith(fields)]


def test_only_reads_count_as_hits_and_misses(pair: Pair) -> None:
    for script in EVENTS.values():
        pair.same(script)
        pair.same("FLUSHALL")
    ours, theirs = map(counted, pair.conns)
    assert ours == theirs
