"""SORT and SORT_RO, compared with redis-server."""

from __future__ import annotations

import random

import pytest
import redis
from conftest import FreshServer
from pair import Pair, heard

_OPTIONS = [
    *("", "DESC", "ASC", "DESC ASC", "ALPHA", "ALPHA DESC", "LIMIT 0 2", "LIMIT 1 2 DESC"),
    *("LIMIT -5 2", "LIMIT 2 -1", "LIMIT 0 0", "LIMIT 9 9", "LIMIT 2 9223372036854775807"),
    *("BY w_*", "BY w_* DESC", "BY w_* ALPHA", "BY w_* LIMIT 1 1", "BY h_*->w", "BY nosort"),
    *("BY nosort LIMIT 1 1", "BY nosort DESC", "BY nosort DESC LIMIT 0 2", "BY h_*->none"),
    *("GET #", "GET w_*", "GET # GET o_* GET h_*->w", "GET fixed", "GET *", "GET none_*"),
    *("BY w_* GET # GET w_*", "BY nosort GET #", "BY # DESC", "BY *", "BY s_*", "GET s_*"),
    *("BY missing_*", "BY missing_* DESC", "GET h_*->", "GET h_*->w->", "GET h_*-", "GET w_*->w"),
    *(
        "BY h_*->",
        "GET l",
        "by w_* get # limit 0 2 desc alpha",
        "BY w_* BY nosort",
        "BY nosort BY w_*",
    ),
]
_REFUSED = [
    *("LIMIT", "LIMIT 1", "LIMIT x 1", "LIMIT 1 x", "BY", "GET", "FOO", "ASCENDING", "LIMIT 1 2 3"),
    *("STORE", "LIMIT 0 99999999999999999999"),
]
_WEIGHTS = """
    MSET w_1 4 w_2 3 w_3 2 w_4 1 w_10 0.5 w_a b w_b c w_c a o_1 one o_2 two fixed 1 1 5 2 4 3 3
    HSET h_1 w 9
    HSET h_2 w 8
    HSET h_3 w -7.5
    HSET s_1 a b
    """


def test_numbers(pair: Pair) -> None:
    pair.same("RPUSH l 3 10 1 2 2 4\n" + _WEIGHTS)
    for options in _OPTIONS + _REFUSED:
        pair.same(f"SORT l {options}\nSORT_RO l {options}\n")


def test_words(pair: Pair) -> None:
    pair.same('RPUSH l c b a\nRPUSH m b aa B "" Ab\n' + _WEIGHTS)
    for options in _OPTIONS:
        if options.split(" ")[0].upper() != "BY" or "w_*" not in options:
            pair.same(f"SORT l ALPHA {options}\n")
    pair.same(
        "SORT l\nSORT l BY w_*\nSORT l BY w_* ALPHA\nSORT m ALPHA\nSORT m ALPHA DESC\nSORT m\n"
    )
    pair.same("SORT l LIMIT 0 0\nSORT l BY nosort\nSORT none\nSORT none GET # STORE l\nEXISTS l\n")


def test_what_is_a_number(pair: Pair) -> None:
    for text in (
        "1",
        " 2",
        "2 ",
        "",
        "0x10",
        "inf",
        "-inf",
        "nan",
        "1e5",
        "x",
        "+3",
        "1\0x",
    ):
        pair.same([("DEL", "l"), ("RPUSH", "l", "5", text, "-3.5"), ("SORT", "l")])
    pair.same("DEL l\nRPUSH l 1 2\nSET w_1 x\nSORT l BY w_*\nSORT l BY w_* STORE d\nEXISTS d\n")
    pair.same("DEL l\nRPUSH l 1.0 1 1.00 01\nSORT l\nSORT l DESC\n")


def test_a_number_out_of_range(client: redis.Redis) -> None:
    """Not asked of redis-server: it never clears errno, and takes no number for one after that."""
    client.rpush("l", "1e400")
    with pytest.raises(redis.ResponseError, match="can't be converted into double"):
        client.sort("l")


def test_sets_and_sorted_sets(pair: Pair) -> None:
    pair.same("SADD s 3 1 2 10\nZADD z 5 1 4 2 3 3 2 10\n" + _WEIGHTS)
    for options in _OPTIONS:
        pair.same(f"SORT z {options}\n")
        if "nosort" not in options and "BY #" not in options:  # by chance
            pair.same(f"SORT s {options}\n")
    pair.same("SORT s BY nosort STORE d\nLRANGE d 0 -1\nSORT s BY nosort DESC LIMIT 1 2 STORE d\n")
    pair.same("LRANGE d 0 -1\n")


def test_storing(pair: Pair) -> None:
    pair.same("RPUSH l 3 1 2\nSET d v EX 1000\nSORT l STORE d\nLRANGE d 0 -1\nTTL d\n" + _WEIGHTS)
    pair.same("SORT l STORE l\nLRANGE l 0 -1\nSORT l BY w_* GET # GET o_* STORE d\nLRANGE d 0 -1\n")
    pair.same("SORT l LIMIT 0 0 STORE d\nEXISTS d\nSORT l LIMIT 5 5 STORE d\nSORT none STORE d\n")
    pair.same("SORT l STORE d STORE e\nEXISTS d e\nSORT_RO l STORE d\nSORT l STORE d GET none_*\n")
    pair.same("LRANGE d 0 -1\nSORT d ALPHA\n")


def test_a_reply_that_would_take_all_memory_is_refused(client: redis.Redis) -> None:
    client.rpush("l", *range(20_000))
    with pytest.raises(redis.ResponseError, match="more than 16777216 values"):
        client.execute_command("SORT", "l", *["GET", "#"] * 1000)


def test_patterns_of_strings_in_fragments(client: redis.Redis) -> None:
    client.rpush("l", 1)
    client.setbit("w_1", 8 << 20, 1)
    assert client.sort("l", get="w_*") == [client.get("w_1")]


def test_wrong_types(pair: Pair) -> None:
    pair.same("SET k v\nHSET h a b\nSORT k\nSORT h\nSORT k LIMIT x 1\nSORT k FOO\nSORT_RO h BY x\n")
    pair.same("SORT k STORE k\nGET k\n")


def test_events(pair: Pair) -> None:
    pair.same("CONFIG SET notify-keyspace-events KEA")
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.ask("PSUBSCRIBE", "__key*")
    pair.same("RPUSH l 2 1\nSORT l\nSORT l STORE d\nSORT none STORE d\nSORT none STORE d\n")
    pair.same("PUBLISH __key end\n")
    ours, theirs = map(heard, listeners)
    assert ours == theirs


def test_what_the_server_says_of_its_keys(pair: Pair) -> None:
    for words in (
        "l",
        "l STORE d",
        "l BY x GET y STORE d LIMIT 0 1",
        "l BY STORE d STORE e STORE f",
    ):
        pair.same(f"COMMAND GETKEYS SORT {words}\nCOMMAND GETKEYSANDFLAGS SORT {words}\n")
        pair.same(f"COMMAND GETKEYSANDFLAGS SORT_RO {words}\n")
    pair.same("COMMAND INFO SORT SORT_RO\n")


@pytest.mark.parametrize("options", ["", "DESC", "ALPHA", "LIMIT 500 2000", "DESC LIMIT 4990 20"])
def test_large_ones(pair: Pair, options: str) -> None:
    """Sorted in steps."""
    chance = random.Random(1)
    numbers = [round(chance.uniform(-1000, 1000), 1) for _ in range(5000)]
    pair.same([("RPUSH", "l", *map(str, numbers))])
    pair.same(f"SORT l {options}\nSORT_RO l {options}\nSORT l {options} GET #\nSORT l BY x\n")
    pair.same(f"SORT l {options} STORE d\nLRANGE d 0 -1\nMULTI\nSORT l {options}\nEXEC\n")


def test_other_keys_need_every_permission(client: redis.Redis) -> None:
    """As Redis 7: who may not read every key may not let a pattern name them."""
    client.rpush("l", 1, 2)
    client.execute_command("ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~l*")
    try:
        client.execute_command("AUTH", "bob", "x")
        assert client.sort("l") == [b"1", b"2"]
        assert client.execute_command("SORT", "l", "BY", "nosort") == [b"1", b"2"]
        for option in ("BY", "GET"):
            with pytest.raises(redis.ResponseError, match=f"{option} option of SORT denied due to"):
                client.execute_command("SORT", "l", option, "w_*")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command("SORT", "l", "STORE", "other")
        client.execute_command("AUTH", "default", "")
        client.execute_command("ACL", "SETUSER", "bob", "%R~*")
        client.execute_command("AUTH", "bob", "x")
        assert client.execute_command("SORT", "l", "GET", "#", "BY", "w_*") == [b"1", b"2"]
    finally:
        client.execute_command("AUTH", "default", "")
        client.execute_command("ACL", "DELUSER", "bob")


def test_a_script_is_no_way_around_it(client: redis.Redis) -> None:
    client.rpush("l", 1)
    client.mset({"secret_1": "s"})
    client.execute_command("ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~l*")
    try:
        client.execute_command("AUTH", "bob", "x")
        for name in ("SORT", "SORT_RO"):
            with pytest.raises(redis.ResponseError, match="GET option of SORT denied due to"):
                client.eval(f"return redis.call('{name}', KEYS[1], 'GET', 'secret_*')", 1, "l")
    finally:
        client.execute_command("AUTH", "default", "")
        client.execute_command("ACL", "DELUSER", "bob")


def test_under_another_name(fresh_server: FreshServer) -> None:
    client = fresh_server(args=("--rename-command", "SORT", "ORDER")).client()
    client.mset({"w_1": 2, "w_2": 1})
    client.rpush("l", 1, 2)
    assert client.execute_command("ORDER", "l", "BY", "w_*", "GET", "w_*") == [b"1", b"2"]
