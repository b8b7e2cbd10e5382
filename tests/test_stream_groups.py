"""Groups of streams as redis-server does them: who is given what, claims and acknowledges it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from harness import Server
from pair import SLACK_MS, Command, Pair, parse

U64 = (1 << 64) - 1
INT64 = (1 << 63) - 1

ENTRIES = """
        XADD s 1-0 a 1
        XADD s 2-0 a 2
        XADD s 3-0 a 3 b 4
        XADD s 4-0 a 5
        XADD s 5-0 a 6
        XGROUP CREATE s g 0
        """

SCRIPTS = {
    "xgroup create": """
        XGROUP
        XGROUP FOO
        XGROUP CREATE
        XGROUP CREATE s g
        XGROUP CREATE s g 0
        XGROUP CREATE s g $
        XGROUP CREATE s g x MKSTREAM
        EXISTS s
        XGROUP CREATE s g 0 FOO
        XGROUP CREATE s g 0 MKSTREAM ENTRIESREAD
        XGROUP CREATE s g 0 MKSTREAM ENTRIESREAD x
        XGROUP CREATE s g 0 MKSTREAM ENTRIESREAD -2
        XGROUP CREATE s g 0 MKSTREAM MKSTREAM MKSTREAM MKSTREAM
        XGROUP CREATE s g 0 MKSTREAM MKSTREAM MKSTREAM
        XGROUP CREATE s g 0 MKSTREAM
        XLEN s
        TYPE s
        XINFO STREAM s
        XADD s 5-5 a 1
        XADD s 6-6 a 1
        XGROUP CREATE s h $ ENTRIESREAD 2
        XGROUP CREATE s i 5-5 ENTRIESREAD -1
        XGROUP CREATE s j 100
        XGROUP CREATE s k 5
        XGROUP CREATE s l -
        XGROUP CREATE s l +
        XGROUP CREATE s l $ mkstream entriesread 7
        XGROUP CREATE s "" 0
        XGROUP CREATE s "a\\x00b" 0
        XINFO GROUPS s
        XINFO STREAM s FULL
        XGROUP CREATE t g $ MKSTREAM
        XINFO GROUPS t
        SET str 1
        XGROUP CREATE str g 0
        XGROUP CREATE str g x MKSTREAM
        """,
    "xgroup setid": f"""
        XGROUP SETID s g
        XGROUP SETID s g 0
        {ENTRIES}
        XGROUP SETID s h 0
        XGROUP SETID s g x
        XGROUP SETID s g 3
        XINFO GROUPS s
        XGROUP SETID s g $
        XINFO GROUPS s
        XGROUP SETID s g -
        XINFO GROUPS s
        XGROUP SETID s g +
        XINFO GROUPS s
        XGROUP SETID s g 1 ENTRIESREAD 1
        XINFO GROUPS s
        XGROUP SETID s g 1 ENTRIESREAD
        XGROUP SETID s g 1 ENTRIESREAD x
        XGROUP SETID s g 1 ENTRIESREAD -5
        XGROUP SETID s g 1 ENTRIESREAD 1 ENTRIESREAD 2
        XGROUP SETID s g 1 MKSTREAM
        XGROUP SETID s g 1 FOO 1
        SET str 1
        XGROUP SETID str g 0
        """,
    "xgroup consumers": f"""
        XGROUP CREATECONSUMER s g c
        XGROUP DELCONSUMER s g c
        XGROUP DESTROY s g
        {ENTRIES}
        XGROUP CREATECONSUMER s h c
        XGROUP CREATECONSUMER s g
        XGROUP CREATECONSUMER s g c
        XGROUP CREATECONSUMER s g c
        XGROUP CREATECONSUMER s g ""
        XREADGROUP GROUP g c COUNT 2 STREAMS s >
        XREADGROUP GROUP g d COUNT 2 STREAMS s >
        XPENDING s g
        XGROUP DELCONSUMER s g missing
        XGROUP DELCONSUMER s h c
        XGROUP DELCONSUMER s g c
        XGROUP DELCONSUMER s g c
        XPENDING s g
        XPENDING s g - + 10 c
        XINFO GROUPS s
        XREADGROUP GROUP g c STREAMS s 0
        XREADGROUP GROUP g c STREAMS s >
        XREADGROUP GROUP g c STREAMS s 0
        XGROUP DESTROY s h
        XGROUP DESTROY s g
        XGROUP DESTROY s g
        XINFO GROUPS s
        XREADGROUP GROUP g c STREAMS s >
        XGROUP CREATE s g 3
        XPENDING s g
        XREADGROUP GROUP g c STREAMS s 0
        XREADGROUP GROUP g c STREAMS s >
        XINFO STREAM s
        """,
    "xreadgroup": f"""
        XREADGROUP
        XREADGROUP GROUP g c STREAMS s
        XREADGROUP GROUP g c STREAMS s >
        XREADGROUP GROUP g c COUNT 1 NOACK
        XREADGROUP COUNT 1 NOACK STREAMS s >
        XREADGROUP GROUP g STREAMS s > x
        XREADGROUP GROUP g c FOO STREAMS s >
        XREADGROUP GROUP g c COUNT x STREAMS s >
        XREADGROUP GROUP g c BLOCK x STREAMS s >
        {ENTRIES}
        XREADGROUP GROUP h c STREAMS s >
        XREADGROUP GROUP g c STREAMS s $
        XREADGROUP GROUP g c STREAMS s x
        XREADGROUP GROUP g c STREAMS s -
        XREADGROUP GROUP g c STREAMS missing >
        XREADGROUP GROUP g c STREAMS s missing > >
        XREADGROUP GROUP g c COUNT 1 STREAMS s >
        XREADGROUP GROUP g c COUNT 1 STREAMS s 0
        XREADGROUP GROUP g d COUNT 2 STREAMS s >
        XREADGROUP GROUP g d STREAMS s 0
        XREADGROUP GROUP g d STREAMS s 2
        XREADGROUP GROUP g d STREAMS s 2-1
        XREADGROUP GROUP g d STREAMS s 100
        XREADGROUP GROUP g d COUNT 1 STREAMS s 0
        XREADGROUP GROUP g e STREAMS s 0
        XREADGROUP GROUP g e NOACK STREAMS s >
        XREADGROUP GROUP g e STREAMS s 0
        XREADGROUP GROUP g e STREAMS s >
        XPENDING s g
        XINFO GROUPS s
        XADD s 6-0 f v
        XADD s 7-0 f v
        XREADGROUP GROUP g e COUNT 0 STREAMS s >
        XDEL s 6-0 2-0
        XREADGROUP GROUP g e STREAMS s 0
        XREADGROUP GROUP g d STREAMS s 0
        XPENDING s g - + 10
        XGROUP SETID s g 0
        XREADGROUP GROUP g f COUNT 2 STREAMS s >
        XPENDING s g - + 10
        XPENDING s g
        XREADGROUP GROUP g f COUNT 10 STREAMS s {U64}-{U64}
        XREADGROUP GROUP g f COUNT 10 STREAMS s {U64}-{U64 - 1}
        XADD t 1-0 f v
        XADD t 2-0 f v
        XGROUP CREATE t g 0
        XGROUP SETID s g 5
        XREADGROUP GROUP g c COUNT 1 STREAMS s t s > > >
        XREADGROUP GROUP g c COUNT 1 STREAMS s t s 0 > >
        XREADGROUP GROUP g c COUNT 1 STREAMS t s > 0
        XREADGROUP GROUP g c COUNT 1 STREAMS t s > >
        XPENDING t g
        XPENDING s g - + 100
        XINFO GROUPS t
        SET str 1
        XREADGROUP GROUP g c STREAMS str >
        XREADGROUP GROUP g c STREAMS s str > >
        MULTI
        XREADGROUP GROUP g c BLOCK 0 STREAMS s >
        XREADGROUP GROUP g new BLOCK 0 STREAMS t >
        EXEC
        """,
    "xack": f"""
        XACK missing g 1
        XACK missing g x
        {ENTRIES}
        XACK s h x
        XREADGROUP GROUP g c COUNT 3 STREAMS s >
        XREADGROUP GROUP g d COUNT 3 STREAMS s >
        XACK s g x
        XACK s g 1 x
        XACK s g 1
        XACK s g 1 1-0
        XACK s g 2-0 4-0 9-0 4-0
        XPENDING s g
        XPENDING s g - + 10
        XACK s g 3 5
        XPENDING s g
        XREADGROUP GROUP g d STREAMS s 0
        SET str 1
        XACK str g x
        """,
    "xpending": f"""
        XPENDING missing g
        XPENDING missing g - + 1
        XPENDING missing g - +
        XPENDING missing g -
        XPENDING missing g x + 1
        {ENTRIES}
        XPENDING s h
        XPENDING s g
        XPENDING s g - + 10
        XREADGROUP GROUP g c COUNT 3 STREAMS s >
        XREADGROUP GROUP g b COUNT 3 STREAMS s >
        XREADGROUP GROUP g empty COUNT 3 STREAMS s >
        XPENDING s g
        XPENDING s g - + 10
        XPENDING s g - + 2
        XPENDING s g - + 0
        XPENDING s g - + -1
        XPENDING s g - + x
        XPENDING s g (1-0 (5-0 10
        XPENDING s g 2 4 10
        XPENDING s g + - 10
        XPENDING s g ( + 10
        XPENDING s g ({U64}-{U64} + 10
        XPENDING s g - (0 10
        XPENDING s g - (0-0 10
        XPENDING s g - + 10 b
        XPENDING s g - + 10 c
        XPENDING s g - + 1 c
        XPENDING s g 2 3 10 c
        XPENDING s g - + 10 missing
        XPENDING s g - + 10 empty
        XPENDING s g - + 10 c x
        XPENDING s g IDLE 0 - + 10
        XPENDING s g IDLE 0 - + 10 c
        XPENDING s g IDLE 1000000 - + 10
        XPENDING s g IDLE -1 - + 10
        XPENDING s g IDLE x - + 10
        XPENDING s g IDLE 0 - +
        XPENDING s g IDLE 0 -
        XPENDING s g IDLE 0 - + 10 c d
        XPENDING s g idle 0 x + 10
        SET str 1
        XPENDING str g
        """,
    "xclaim": f"""
        XCLAIM s g c 0
        XCLAIM s g c 0 1
        XCLAIM s g c x 1
        {ENTRIES}
        XCLAIM s h c 0 1
        XCLAIM s g c x 1
        XREADGROUP GROUP g c COUNT 4 STREAMS s >
        XCLAIM s g d 0 1-0
        XCLAIM s g d 0 2-0 JUSTID
        XCLAIM s g d 1000000 3-0
        XCLAIM s g d -5 3-0 9-0
        XPENDING s g
        XCLAIM s g d 0 5-0
        XCLAIM s g d 0 5-0 FORCE
        XCLAIM s g d 0 5-1 FORCE
        XCLAIM s g d 0 1 2 3 RETRYCOUNT 7 IDLE 1000000
        XCLAIM s g d 0 1 2 3 RETRYCOUNT 7
        XCLAIM s g d 0 1 RETRYCOUNT {INT64}
        XCLAIM s g d 0 1
        XCLAIM s g d 0 2 RETRYCOUNT 0 JUSTID
        XCLAIM s g d 0 4 RETRYCOUNT -1
        XPENDING s g - + 10
        XREADGROUP GROUP g d STREAMS s 0
        XPENDING s g - + 10
        XCLAIM s g d 0 4 IDLE x
        XCLAIM s g d 0 4 TIME x
        XCLAIM s g d 0 4 RETRYCOUNT x
        XCLAIM s g d 0 4 LASTID x
        XCLAIM s g d 0 4 FOO
        XCLAIM s g d 0 4 IDLE
        XCLAIM s g d 0 x 4
        XCLAIM s g d 0 4 FORCE 5
        XCLAIM s g d 0 {"1" * 200} FORCE
        XCLAIM s g d 0 FORCE
        XCLAIM s g d 0 JUSTID
        XCLAIM s g d 0 4 LASTID 9
        XINFO GROUPS s
        XCLAIM s g d 0 4 LASTID 3
        XINFO GROUPS s
        XCLAIM s g c 0 4 IDLE -5 TIME -7 JUSTID
        XCLAIM s g c 0 4 TIME {INT64} JUSTID
        XPENDING s g - + 10
        XCLAIM s g c 0 3 3 3
        XPENDING s g - + 10
        XDEL s 2-0 3-0
        XCLAIM s g c 0 2 4
        XCLAIM s g c 0 3 JUSTID
        XPENDING s g
        XCLAIM s g c 100000 1 2 3 4 5 JUSTID
        SET str 1
        XCLAIM str g c 0 1
        XCLAIM str g c x 1
        """,
    "xautoclaim": f"""
        XAUTOCLAIM s g c x 0
        XAUTOCLAIM s g c 0 x
        XAUTOCLAIM s g c 0 0
        XAUTOCLAIM s g c 0 0 FOO
        XAUTOCLAIM s g c 0 ({U64}-{U64}
        {ENTRIES}
        XAUTOCLAIM s h c 0 0
        XAUTOCLAIM s g c 0 0
        XREADGROUP GROUP g c COUNT 4 STREAMS s >
        XAUTOCLAIM s g d 0 - COUNT 2
        XAUTOCLAIM s g d 0 3-0 COUNT 1 JUSTID
        XAUTOCLAIM s g d 0 (3-0 COUNT 1 JUSTID
        XAUTOCLAIM s g d 0 + COUNT 1 JUSTID
        XAUTOCLAIM s g d 0 - COUNT 4
        XAUTOCLAIM s g d 0 - COUNT 5
        XAUTOCLAIM s g e 1000000 -
        XAUTOCLAIM s g e -1 3
        XPENDING s g - + 10
        XAUTOCLAIM s g e 0 - COUNT 0
        XAUTOCLAIM s g e 0 - COUNT -1
        XAUTOCLAIM s g e 0 - COUNT x
        XAUTOCLAIM s g e 0 - COUNT
        XAUTOCLAIM s g e 0 - JUSTID 1
        XAUTOCLAIM s g e 0 - COUNT 1 COUNT 2 JUSTID JUSTID
        XDEL s 1-0 3-0
        XAUTOCLAIM s g f 0 - COUNT 1
        XAUTOCLAIM s g f 0 - COUNT 2
        XAUTOCLAIM s g f 0 -
        XPENDING s g - + 10
        XDEL s 2-0 4-0 5-0
        XAUTOCLAIM s g f 1000000 - JUSTID
        XPENDING s g
        SET str 1
        XAUTOCLAIM str g c 0 0
        """,
    "groups and rename": f"""
        {ENTRIES}
        XREADGROUP GROUP g c COUNT 3 STREAMS s >
        COPY s t
        RENAME s u
        XPENDING t g - + 10
        XPENDING u g - + 10
        XACK t g 1
        XPENDING u g
        XPENDING t g
        XADD t 9 a b
        XLEN u
        DEL t
        XREADGROUP GROUP g c STREAMS u >
        MOVE u 1
        SELECT 1
        XPENDING u g
        XRANGE u - + COUNT 1
        DEL u
        XADD u 1-1 a b
        XINFO GROUPS u
        """,
}


#: The beginning of a pending entry in XPENDING's reply, up to how long it is idle.
IDLE = re.compile(rb"(\*4\r\n\$\d+\r\n\d+-\d+\r\n\$\d+\r\n[^\r]*\r\n):(\d+)\r\n")


def without_idle(reply: bytes) -> bytes:
    """An XPENDING reply in which those that aren't idle for long aren't at all."""

    def shown(match: re.Match[bytes]) -> bytes:
        idle = int(match[2])
        return match[1] + b":%d\r\n" % (0 if idle < SLACK_MS else round(idle, -4))

    return IDLE.sub(shown, reply)


def same(pair: Pair, commands: Iterable[Command]) -> None:
    """Run the commands; their replies must be equal but for what is idle how long."""
    ours, theirs = pair.ask_both(commands)
    assert [(c, without_idle(r)) for c, r in ours] == [(c, without_idle(r)) for c, r in theirs]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    same(pair, parse(script))


# -- what Redis 7.0 doesn't have, or does otherwise ------------------------------------------------


def named(rows: list[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def group_of(client: Any, name: str = "s") -> tuple[Any, Any]:
    """(entries read, lag) of a stream's only group, which XINFO STREAM FULL must say too."""
    (group,) = client.xinfo_groups(name)
    (full,) = plain_map(client.execute_command("XINFO", "STREAM", name, "FULL"))[b"groups"]
    full = plain_map(full)
    found = group["entries-read"], group["lag"]
    assert (full[b"entries-read"], full[b"lag"]) == found
    return found


def plain_map(reply: Any) -> dict[bytes, Any]:
    """A map in either protocol, whatever redis-py makes of it."""
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=True))
    return {key if isinstance(key, bytes) else key.encode(): value for key, value in reply.items()}


def run(client: Any, script: str) -> None:
    for command in parse(script):
        client.execute_command(*command)


def test_claiming_makes_a_consumer_even_of_nothing(client: Any) -> None:
    """7.0 makes it when it gets something."""
    run(client, ENTRIES)
    client.execute_command("XCLAIM", "s", "g", "a", 0, "1-0")
    client.execute_command("XAUTOCLAIM", "s", "g", "b", 0, "-")
    client.execute_command("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", "0")
    assert [one["name"] for one in client.xinfo_consumers("s", "g")] == [b"a", b"b", b"c"]


def test_seen_and_active(client: Any) -> None:
    """7.2's `inactive`, and `active-time`."""
    run(client, ENTRIES)
    client.xgroup_createconsumer("s", "g", "idle")
    client.xreadgroup("g", "reader", {"s": ">"}, count=2)
    client.xclaim("s", "g", "claimer", 0, ["1-0"])
    consumers = named(client.xinfo_consumers("s", "g"))
    assert [(name, one["pending"]) for name, one in consumers.items()] == [
        (b"claimer", 1),
        (b"idle", 0),
        (b"reader", 1),
    ]
    assert consumers[b"idle"]["inactive"] == -1
    for name in (b"claimer", b"reader"):
        assert 0 <= consumers[name]["inactive"] < SLACK_MS
    for one in consumers.values():
        assert list(one) == ["name", "pending", "idle", "inactive"]
        assert 0 <= one["idle"] < SLACK_MS
    # With NOACK a consumer isn't active: it has nothing to do.
    client.xreadgroup("g", "noack", {"s": ">"}, noack=True)
    assert named(client.xinfo_consumers("s", "g"))[b"noack"]["inactive"] == -1


def test_full(client: Any) -> None:
    run(client, ENTRIES)
    client.xreadgroup("g", "c", {"s": ">"}, count=3)
    client.xclaim("s", "g", "d", 0, ["2-0"])
    client.xgroup_create("s", "h", "$")
    before = int(client.time()[0] * 1000) - SLACK_MS
    full = plain_map(client.execute_command("XINFO", "STREAM", "s", "FULL", "COUNT", 2))
    assert list(full) == [
        *(b"length", b"radix-tree-keys", b"radix-tree-nodes", b"last-generated-id"),
        *(b"max-deleted-entry-id", b"entries-added", b"recorded-first-entry-id", b"entries"),
        b"groups",
    ]
    group, other = (plain_map(one) for one in full[b"groups"])
    assert list(group) == [
        *(b"name", b"last-delivered-id", b"entries-read", b"lag", b"pel-count", b"pending"),
        b"consumers",
    ]
    assert (group[b"pel-count"], group[b"last-delivered-id"]) == (3, b"3-0")
    assert [(row[0], row[1], row[3]) for row in group[b"pending"]] == [
        (b"1-0", b"c", 1),
        (b"2-0", b"d", 2),
    ]
    consumers = [plain_map(one) for one in group[b"consumers"]]
    assert [list(one) for one in consumers] == [
        [b"name", b"seen-time", b"active-time", b"pel-count", b"pending"]
    ] * 2
    assert [(one[b"name"], one[b"pel-count"]) for one in consumers] == [(b"c", 2), (b"d", 1)]
    assert [[row[0] for row in one[b"pending"]] for one in consumers] == [
        [b"1-0", b"3-0"],
        [b"2-0"],
    ]
    assert all(one[b"seen-time"] == one[b"active-time"] > before for one in consumers)
    assert other == {
        b"name": b"h",
        b"last-delivered-id": b"5-0",
        b"entries-read": None,
        b"lag": 0,
        b"pel-count": 0,
        b"pending": [],
        b"consumers": [],
    }


def test_lag_where_entries_were_deleted(client: Any) -> None:
    """As of 7.4.1: entries deleted before the group's place or before the first one don't count."""
    run(client, "XGROUP CREATE s g $ MKSTREAM")
    assert group_of(client) == (None, 0)
    run(client, "XADD s 1-0 a b\nXREADGROUP GROUP g c STREAMS s >")
    assert group_of(client) == (1, 0)
    run(client, "XADD s 2-0 a b\nXADD s 3-0 a b\nXDEL s 2-0")
    assert group_of(client) == (1, None)
    run(client, "XDEL s 1-0")
    assert group_of(client) == (1, 1)
    run(client, "XREADGROUP GROUP g c STREAMS s >")
    assert group_of(client) == (3, 0)
    run(client, "XADD s 4-0 a b\nXADD s 5-0 a b\nXDEL s 3-0")
    assert group_of(client) == (3, 2)
    run(client, "XREADGROUP GROUP g c COUNT 1 STREAMS s >")
    assert group_of(client) == (4, 1)
    run(client, "XDEL s 4-0\nXDEL s 5-0")
    assert group_of(client) == (4, 0)


def test_lag_where_entries_were_trimmed(client: Any) -> None:
    run(client, "XGROUP CREATE s g $ MKSTREAM")
    run(client, "\n".join(f"XADD s {number}-0 a b" for number in range(1, 6)))
    run(client, "XREADGROUP GROUP g c COUNT 1 STREAMS s >")
    assert group_of(client) == (1, 4)
    run(client, "XTRIM s MAXLEN 1")
    assert group_of(client) == (1, 1)
    run(client, "XREADGROUP GROUP g c COUNT 1 STREAMS s >")
    assert group_of(client) == (5, 0)
    run(client, "XADD s 6-0 a b")
    assert group_of(client) == (5, 1)
    run(client, "XTRIM s MAXLEN 0")
    assert group_of(client) == (5, 0)


def test_lag_of_a_group_in_the_middle(client: Any) -> None:
    run(client, ENTRIES)
    assert group_of(client) == (None, 5)
    run(client, "XGROUP SETID s g 1-0")
    assert group_of(client) == (None, 4)
    run(client, "XGROUP SETID s g 3-0")
    assert group_of(client) == (None, None)
    run(client, "XREADGROUP GROUP g c COUNT 1 STREAMS s >")
    assert group_of(client) == (None, None)
    run(client, "XREADGROUP GROUP g c COUNT 1 STREAMS s >")
    assert group_of(client) == (5, 0)
    run(client, "XGROUP SETID s g 3-0 ENTRIESREAD 3")
    assert group_of(client) == (3, 2)
    run(client, "XGROUP SETID s g 9-0")
    assert group_of(client) == (None, None)


# -- many ------------------------------------------------------------------------------------------


def test_many_pending(server: Server) -> None:
    """More than a step of a walk, acknowledged from the front, across a restart."""
    client: Any = server.client()
    with client.pipeline(transaction=False) as pipeline:
        for number in range(1, 2001):
            pipeline.execute_command("XADD", "s", f"{number}-0", "n", number)
        pipeline.execute()
    client.xgroup_create("s", "g", 0)
    assert len(client.xreadgroup("g", "c", {"s": ">"})[0][1]) == 2000
    assert len(client.xpending_range("s", "g", "-", "+", 5000)) == 2000
    assert len(client.xpending_range("s", "g", "-", "+", 5000, "c")) == 2000
    assert client.xack("s", "g", *(f"{number}-0" for number in range(1, 1001))) == 1000
    for number in range(1001, 1501):
        client.xack("s", "g", f"{number}-0")
    server.restart()
    client = server.client()
    assert client.xpending("s", "g") == {
        "pending": 500,
        "min": b"1501-0",
        "max": b"2000-0",
        "consumers": [{"name": b"c", "pending": 500}],
    }
    assert len(client.xautoclaim("s", "g", "d", 0, count=400)[1]) == 400
    assert len(client.xreadgroup("g", "d", {"s": 0})[0][1]) == 400
    assert client.xgroup_delconsumer("s", "g", "d") == 400
    assert client.xgroup_destroy("s", "g")
    assert client.xgroup_create("s", "g", 0)
    assert client.xpending("s", "g")["pending"] == 0
