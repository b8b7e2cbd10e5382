"""Streams without groups as redis-server does them: entries, ranges, trimming, waiting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import redis
from harness import Server
from pair import Command, Pair

U64 = (1 << 64) - 1
INT64 = (1 << 63) - 1

SCRIPTS = {
    "xadd": f"""
        XADD
        XADD s 1-1
        XADD s 1-1 f
        XADD s 1-1 f v
        XADD s 1-1 f v
        XADD s 1-0 f v
        XADD s 1-2 f v g
        XADD s 0-0 f v
        XADD t 0-0 f v
        XADD t 0 f v
        XADD t 0-* f v
        XADD t 0-* f v
        XADD s 1-* f v
        XADD s 2-* f v
        XADD s 2 f v
        XADD s 3 f v
        XADD s x f v
        XADD s 1-x f v
        XADD s - f v
        XADD s + f v
        XADD s -5-1 f v
        XADD s 4-5-6 f v
        XADD s "4-1\\x00junk" f v
        XADD s " 5-1" f v
        XADD s 6-+2 f v
        XADD s 006-03 f v
        XADD s 6--05 f v
        XADD s 7--5 f v
        XADD s 7-* f v
        XADD s {U64 + 1}-1 f v
        XADD s {U64}-{U64} f v
        XADD s {U64}-* f v
        XADD s * f v
        XADD s {"1" * 127} f v
        XADD s {"0" * 127}9-1 f v
        XRANGE s - +
        XLEN s
        XLEN missing
        TYPE s
        OBJECT ENCODING s
        XADD n NOMKSTREAM 1-1 f v
        XADD n nomkstream 1-1 f
        EXISTS n
        XADD s NOMKSTREAM NOMKSTREAM 9-9 f v
        SET str x
        XADD str 1-1 f v
        XADD str NOMKSTREAM 1-1 f v
        XADD str 0-0 f v
        XLEN str
        XADD m 5-{U64} f v
        XADD m 4-* f v
        XADD m 6-* f v
        XLEN m
        """,
    "xadd options": """
        XADD s MAXLEN 2 1-1 f v
        XADD s MAXLEN = 2 2-1 f v
        XADD s maxlen 2 3-1 f v
        XRANGE s - +
        XADD s MAXLEN ~ 1 4-1 f v
        XLEN s
        XADD s MAXLEN -1 5-1 f v
        XADD s MAXLEN x 5-1 f v
        XADD s MAXLEN 5-1 f v
        XADD s MAXLEN ~ f v
        XADD s MAXLEN = = 5-1 f v
        XADD s MINID 3 MAXLEN 3 5-1 f v
        XADD s MAXLEN 3 MAXLEN 3 5-1 f v
        XADD s MAXLEN 3 LIMIT 1 5-1 f v
        XADD s MAXLEN = 3 LIMIT 1 5-1 f v
        XADD s LIMIT 1 5-1 f v
        XADD s LIMIT 0 5-1 f v
        XADD s LIMIT -1 5-1 f v
        XADD s LIMIT x 5-1 f v
        XADD s MAXLEN ~ 3 LIMIT 10 5-1 f v
        XADD s LIMIT 10 MAXLEN ~ 3 6-1 f v
        XADD s LIMIT 10 MAXLEN 3 7-1 f v
        XADD s MAXLEN ~ 3 LIMIT -1 7-1 f v
        XADD s MAXLEN ~ 3 LIMIT x 7-1 f v
        XADD s LIMIT 10 MAXLEN 3 bad f v
        XADD s MINID 4 7-1 f v
        XRANGE s - +
        XADD s MINID = 5-1 8-1 f v
        XADD s MINID ~ 5-1 9-1 f v
        XADD s MINID x 9-2 f v
        XADD s MINID + 9-2 f v
        XADD s MINID 100 10-1 f v
        XRANGE s - +
        XLEN s
        XADD s MAXLEN 0 11-1 f v
        XLEN s
        XADD s 11-1 f v
        XADD s 11-2 f v
        XRANGE s - +
        XADD s FOO 1 12-1 f v
        XADD s NOMKSTREAM
        XADD s MAXLEN 1 *
        XADD s MAXLEN 5 NOMKSTREAM
        """,
    "xrange": f"""
        XRANGE missing - +
        XRANGE missing - + COUNT 0
        XRANGE missing - + COUNT x
        XRANGE missing x +
        XADD s 1-1 a 1
        XADD s 1-2 b 2 c 3
        XADD s 2-0 a 4
        XADD s 3-5 a ""
        XADD s 5-0 "" "x y"
        XRANGE s - +
        XRANGE s 1 2
        XRANGE s 1 1
        XRANGE s 2 2
        XRANGE s 1-2 3-4
        XRANGE s (1-1 (3-5
        XRANGE s (1 (3
        XRANGE s (5-0 +
        XRANGE s - (1-1
        XRANGE s ( +
        XRANGE s (- +
        XRANGE s - (+
        XRANGE s + -
        XRANGE s (0-0 (0-1
        XRANGE s - (0-0
        XRANGE s - (0
        XRANGE s ({U64}-{U64} +
        XRANGE s ({U64} +
        XRANGE s - ({U64}
        XRANGE s - + COUNT 2
        XRANGE s - + COUNT 0
        XRANGE s - + COUNT -1
        XRANGE s - + COUNT
        XRANGE s - + COUNT 1 COUNT 2
        XRANGE s - + FOO 1
        XRANGE s - + COUNT x
        XRANGE s - + COUNT {INT64}
        XREVRANGE s + -
        XREVRANGE s - +
        XREVRANGE s 2 1
        XREVRANGE s (3 (1
        XREVRANGE s (3-5 (1-1
        XREVRANGE s + - COUNT 2
        XREVRANGE s + - COUNT 0
        XREVRANGE s 0 0
        XREVRANGE missing + -
        XREVRANGE s x -
        XREVRANGE s + x
        XREVRANGE s (0-0 -
        XREVRANGE s + ({U64}-{U64}
        XREVRANGE s (x (y
        XREVRANGE s (0 ({U64}-{U64}
        SET str 1
        XRANGE str - +
        XRANGE str - + COUNT 0
        XREVRANGE str x y
        """,
    "xdel": """
        XDEL missing 1
        XDEL missing x
        XADD s 1-0 a 1
        XADD s 2-0 a 2
        XADD s 3-0 a 3
        XADD s 4-0 a 4
        XDEL s x
        XDEL s 2-0 x
        XLEN s
        XDEL s -
        XDEL s 2
        XDEL s 2-0 2-0
        XDEL s 9-9 3-0 3-0 0-0
        XRANGE s - +
        XINFO STREAM s
        XDEL s 1-0
        XRANGE s - +
        XINFO STREAM s
        XDEL s 4-0
        XLEN s
        EXISTS s
        XRANGE s - +
        XREVRANGE s + -
        XADD s 4-0 a 5
        XADD s 4-1 a 5
        XRANGE s - +
        SET str 1
        XDEL str 1
        XDEL str x
        """,
    "xtrim": """
        XTRIM missing MAXLEN 1
        XTRIM missing MAXLEN
        XTRIM missing FOO 1
        XTRIM missing MAXLEN x
        XTRIM missing MINID 1 MAXLEN 1
        XADD s 1-0 a 1
        XADD s 2-0 a 2
        XADD s 3-0 a 3
        XADD s 4-0 a 4
        XADD s 5-0 a 4
        XADD s 6-0 a 4
        XTRIM s MAXLEN 10
        XTRIM s MAXLEN ~ 0
        XLEN s
        XTRIM s MAXLEN -1
        XTRIM s MAXLEN 5 LIMIT 1
        XTRIM s LIMIT 1 2
        XTRIM s LIMIT 0
        XTRIM s MAXLEN 5 x
        XTRIM s NOMKSTREAM MAXLEN 5
        XTRIM s * MAXLEN 5
        XTRIM s MAXLEN 5
        XRANGE s - +
        XTRIM s MINID 3-1
        XRANGE s - +
        XTRIM s MINID 3-1
        XTRIM s MINID = 5
        XTRIM s MINID ~ 100
        XRANGE s - +
        XINFO STREAM s
        XTRIM s MAXLEN 0
        XINFO STREAM s
        XADD s 6-0 a 1
        XADD s 7-0 a 1
        XTRIM s MINID 8
        XLEN s
        SET str 1
        XTRIM str MAXLEN 1
        XTRIM str MAXLEN x
        """,
    "xsetid": f"""
        XSETID missing 1
        XSETID missing x
        XSETID missing -
        XSETID missing 1 FOO
        XSETID missing 1 ENTRIESADDED
        XADD s 5-0 a 1
        XADD s 6-0 a 1
        XADD s 7-0 a 1
        XSETID s 6-9
        XSETID s 7
        XSETID s 9
        XSETID s 8
        XDEL s 6-0
        XSETID s 10 ENTRIESADDED 1
        XSETID s 10 ENTRIESADDED -1
        XSETID s 10 ENTRIESADDED x
        XSETID s 10 ENTRIESADDED 100 MAXDELETEDID 11
        XSETID s 10 ENTRIESADDED 100 MAXDELETEDID x
        XSETID s 10 entriesadded 100 MAXDELETEDID 6-5
        XINFO STREAM s
        XSETID s 10 MAXDELETEDID 0-0
        XINFO STREAM s
        XTRIM s MAXLEN 0
        XSETID s 6-6 ENTRIESADDED 0
        XINFO STREAM s
        XADD s 7-0 a 2
        XADD s 7-0 a 2
        XRANGE s - +
        XSETID s {U64}-{U64}
        XADD s * a 1
        XADD s {U64}-* a 1
        XDEL s 7-0
        XRANGE s - +
        SET str 1
        XSETID str 1
        """,
    "xread": """
        XREAD
        XREAD STREAMS a
        XREAD STREAMS a 0
        XREAD COUNT 1
        XREAD COUNT 1 STREAMS
        XREAD FOO STREAMS a 0
        XREAD COUNT x STREAMS a 0
        XREAD BLOCK x STREAMS a 0
        XREAD BLOCK -1 STREAMS a 0
        XREAD GROUP g c STREAMS a 0
        XREAD NOACK STREAMS a 0
        XREAD STREAMS a >
        XREAD STREAMS a x
        XREAD STREAMS a -
        XREAD BLOCK 1 STREAMS a $
        XREAD BLOCK 1 STREAMS a b 0 $
        XADD a 1-0 f 1
        XADD a 2-0 f 2
        XADD b 1-0 g 1
        XREAD STREAMS a 0
        XREAD STREAMS a 0-0
        XREAD STREAMS a 1
        XREAD STREAMS a 1-0
        XREAD STREAMS a 2-0
        XREAD STREAMS a 3
        XREAD STREAMS a b 0 0
        XREAD STREAMS a a 0 1
        XREAD STREAMS a b missing 2 0 0
        XREAD STREAMS a b $ $
        XREAD COUNT 1 STREAMS a b 0 0
        XREAD COUNT 0 STREAMS a b 0 0
        XREAD COUNT -1 STREAMS a 0
        XREAD BLOCK 0 COUNT 1 STREAMS a 0
        XREAD BLOCK 1 STREAMS a b $ 0
        XDEL a 2-0
        XREAD STREAMS a 1-0
        XDEL a 1-0
        XREAD STREAMS a 0
        XREAD BLOCK 1 STREAMS a 0
        SET str 1
        XREAD STREAMS str 0
        XREAD STREAMS b str 0 0
        XREAD BLOCK 0 STREAMS missing str x 0
        MULTI
        XREAD BLOCK 0 STREAMS missing 0
        XREAD STREAMS b missing 0 $
        XLEN b
        EXEC
        """,
    "xinfo": """
        XINFO
        XINFO STREAM
        XINFO STREAM missing
        XINFO STREAM missing x
        XINFO GROUPS missing
        XINFO CONSUMERS missing g
        XINFO CONSUMERS missing
        XINFO GROUPS missing x
        XADD s 1-0 a 1
        XADD s 2-0 b 2 c 3
        XINFO STREAM s
        XINFO GROUPS s
        XINFO CONSUMERS s g
        XINFO STREAM s FOO
        XINFO STREAM s FULL COUNT
        XINFO STREAM s FULL FOO 1
        XINFO STREAM s FULL COUNT x
        XINFO STREAM s FULL COUNT 1 x
        XINFO STREAM s FULL
        XINFO STREAM s full count 1
        XINFO STREAM s FULL COUNT 0
        XINFO STREAM s FULL COUNT -1
        XINFO FOO s
        SET str 1
        XINFO STREAM str
        XINFO GROUPS str
        XINFO CONSUMERS str g
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


# -- nodes ----------------------------------------------------------------------------------------


def same_lengths(pair: Pair, commands: Iterable[Command]) -> None:
    """Replies must be equal, and so must length and first entry after each of the commands."""
    asked: list[Command] = []
    for command in commands:
        asked += [command, ("XLEN", "s"), ("XRANGE", "s", "-", "+", "COUNT", 1)]
    pair.same(asked)


def set_nodes(pair: Pair, entries: int, size: int) -> None:
    pair.same(
        [
            ("CONFIG", "SET", "stream-node-max-entries", entries),
            ("CONFIG", "SET", "stream-node-max-bytes", size),
        ]
    )


NODES = [(100, 4096), (10, 4096), (1, 4096), (0, 4096), (100, 0), (7, 300), (0, 200)]


@pytest.mark.parametrize(("entries", "size"), NODES)
def test_approximate_trimming_drops_whole_nodes(pair: Pair, entries: int, size: int) -> None:
    set_nodes(pair, entries, size)
    commands: list[Command] = []
    for number in range(1, 1001):
        commands.append(("XADD", "s", f"{number}-1", "field", "value"))
        if number % 97 == 0:
            commands.append(("XTRIM", "s", "MAXLEN", "~", number // 2))
    same_lengths(pair, commands)
    same_lengths(
        pair,
        [
            ("XTRIM", "s", "MAXLEN", "~", 450, "LIMIT", 30),
            ("XTRIM", "s", "MAXLEN", "~", 401, "LIMIT", 5),
            ("XTRIM", "s", "MINID", "~", "650-1"),
            ("XTRIM", "s", "MINID", "~", "650-1"),
            ("XTRIM", "s", "MINID", "~", "701-1", "LIMIT", 20),
            ("XTRIM", "s", "MINID", "~", "701-0", "LIMIT", 0),
            ("XTRIM", "s", "MAXLEN", 250),
            ("XTRIM", "s", "MAXLEN", "~", 200),
            ("XTRIM", "s", "MINID", "~", "800"),
            ("XTRIM", "s", "MINID", "~", "5000"),
            ("XTRIM", "s", "MAXLEN", "~", 0),
        ],
    )


@pytest.mark.parametrize(("entries", "size"), NODES)
def test_added_and_trimmed_at_once(pair: Pair, entries: int, size: int) -> None:
    set_nodes(pair, entries, size)
    commands: list[Command] = []
    for number in range(1, 600):
        field: Command = ("f", number, "g", "x" * (number % 50))
        commands.append(("XADD", "s", "MAXLEN", "~", 100, f"{number}-1", *field))
    for number in range(600, 1200):
        names: Command = ("other", "") if number % 3 == 0 else ()
        value: Command = ("f", -number * number, *names)
        commands.append(("XADD", "s", "MINID", "~", number - 150, f"{number}-1", *value))
    same_lengths(pair, commands)


def test_trimming_where_entries_were_deleted(pair: Pair) -> None:
    pair.same([("XADD", "s", f"{number}-0", "f", "v") for number in range(1, 501)])
    same_lengths(
        pair,
        [
            ("XDEL", "s", *(f"{number}-0" for number in range(1, 500, 3))),
            ("XTRIM", "s", "MAXLEN", "~", 300),
            ("XTRIM", "s", "MAXLEN", "~", 266),
            ("XTRIM", "s", "MINID", "~", "250-0"),
            ("XDEL", "s", "200-0", "201-0", "203-0"),
            ("XADD", "s", "MAXLEN", "~", 130, "501-0", "f", "v"),
            ("XTRIM", "s", "MAXLEN", 50),
            ("XTRIM", "s", "MINID", "~", "490-0"),
            ("XTRIM", "s", "MINID", "~", "502-0"),
            ("XADD", "s", "502-0", "f", "v"),
            ("XINFO", "STREAM", "s"),
        ],
    )


def test_trimming_half_of_many(pair: Pair) -> None:
    """More than is deleted entry by entry, from either end."""
    pair.same([("XADD", "s", f"{number}-0", "f", number) for number in range(1, 2001)])
    same_lengths(
        pair,
        [
            ("XTRIM", "s", "MAXLEN", 1500),
            ("XTRIM", "s", "MAXLEN", 300),
            ("XTRIM", "s", "MINID", "1990-1"),
            ("XTRIM", "s", "MAXLEN", 0),
            *(("XADD", "s", f"{number}-0", "f", number) for number in range(2001, 4001)),
            ("XDEL", "s", "2003-0", "3999-0"),
            ("XTRIM", "s", "MINID", "2400-0"),
            ("XTRIM", "s", "MINID", "3990-0"),
            ("XTRIM", "s", "MINID", "3991"),
            *(("XADD", "s", f"{number}-0", "f", number) for number in range(4001, 5001)),
            ("XDEL", "s", "5000-0"),
            ("XTRIM", "s", "MINID", "5000-0"),
            ("XSETID", "s", "5000-0"),
            ("XADD", "s", "6000-0", "a", "b"),
            ("XREVRANGE", "s", "+", "-"),
            ("XDEL", "s", "1999-0", "100-0"),
        ],
    )


# -- what Redis 7.0 doesn't have, or does otherwise ------------------------------------------------


def ask(client: Any, *commands: Command) -> list[Any]:
    """The replies as redis-py gives them without looking at the command."""
    connection = client.connection_pool.get_connection()
    try:
        for command in commands:
            connection.send_command(*command)
        return [connection.read_response() for _ in commands]
    finally:
        client.connection_pool.release(connection)


def refusal(client: Any, *command: bytes | str | int) -> str:
    with pytest.raises(redis.ResponseError) as error:
        ask(client, command)
    return str(error.value)


def test_sequence_numbers_used_up(client: Any) -> None:
    ask(client, ("XADD", "s", f"5-{U64}", "f", "v"))
    # 7.0 says that the elements are too large.
    assert refusal(client, "XADD", "s", "5-*", "f", "v") == (
        "The ID specified in XADD is equal or smaller than the target stream top item"
    )


def test_setid_below_what_was_deleted(client: Any) -> None:
    ask(client, ("XADD", "s", "5-0", "f", "v"), ("XDEL", "s", "5-0"))
    # 7.0 looks at that only while the stream has entries.
    assert refusal(client, "XSETID", "s", "4-0") == (
        "The ID specified in XSETID is smaller than current max_deleted_entry_id"
    )


@pytest.mark.parametrize(("name", "symbol"), [("xread", "$"), ("xreadgroup", ">")])
def test_unbalanced_list(client: Any, name: str, symbol: str) -> None:
    words = ("GROUP", "g", "c") if name == "xreadgroup" else ()
    # 7.0 names the command in capitals.
    assert refusal(client, name.upper(), *words, "STREAMS", "a", "b", ">") == (
        f"Unbalanced '{name}' list of streams: for each stream key an ID or '{symbol}' must be "
        "specified."
    )


def test_read_the_last_entry(client: Any) -> None:
    """7.4's +."""
    add = [("XADD", "s", f"{number}-0", "n", number) for number in range(1, 6)]
    ask(client, *add, ("XADD", "t", "1-1", "n", 1), ("XGROUP", "CREATE", "s", "g", 0))
    for last in (b"5-0", b"4-0"):
        (reply,) = ask(client, ("XREAD", "STREAMS", "s", "missing", "+", "+"))
        entries = dict(reply.items() if isinstance(reply, dict) else reply)
        assert [entry[0] for entry in entries[b"s"]] == [last]
        ask(client, ("XDEL", "s", last))
    assert ask(client, ("XREAD", "STREAMS", "missing", "+")) == [None]
    both = ask(client, ("XREAD", "COUNT", 5, "STREAMS", "s", "t", "+", "+"))[0]
    assert len(both) == 2
    assert refusal(client, "XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", "+") == (
        "The + ID is meaningless in the context of XREADGROUP: you want to read the history of "
        "this consumer by specifying a proper ID, or use the > ID to get new messages. The + ID "
        "would just return an empty result set."
    )
    ask(client, ("XTRIM", "s", "MAXLEN", 0))
    assert ask(client, ("XREAD", "STREAMS", "s", "+")) == [None]


# -- large streams ---------------------------------------------------------------------------------

LARGE = 100_000


def fill(client: Any, name: str, count: int) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for number in range(1, count + 1):
            pipeline.execute_command("XADD", name, f"{number}-0", "n", number)
            if number % 10_000 == 0:
                pipeline.execute()
        pipeline.execute()


def test_large(server: Server) -> None:
    client: Any = server.client()
    fill(client, "s", LARGE)
    assert client.xlen("s") == LARGE
    found = client.xrange("s", 50_000, "+", count=3)
    assert [entry for entry, _ in found] == [b"50000-0", b"50001-0", b"50002-0"]
    everything = client.xrange("s")
    assert len(everything) == LARGE
    assert everything[-1] == (b"100000-0", {b"n": b"100000"})
    assert client.xrevrange("s") == everything[::-1]
    assert client.xread({"s": 0})[0][1] == everything
    assert client.xtrim("s", maxlen=10, approximate=False) == LARGE - 10
    assert client.xrange("s") == everything[-10:]
    server.restart()
    assert server.client().xrange("s") == everything[-10:]


def test_range_while_the_stream_changes(server: Server) -> None:
    """What a walk gives is the stream as it was at its beginning."""
    client: Any = server.client()
    fill(client, "s", 20_000)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command("XRANGE", "s", "-", "+")
        pipeline.execute_command("XTRIM", "s", "MAXLEN", 0)
        walked, trimmed = pipeline.execute()
    assert trimmed == 20_000
    assert len(walked) == 20_000
