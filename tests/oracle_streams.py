"""Generated commands on streams, for the oracle tests. Ids are given, never taken from the clock,
and nothing tells times. What 7.0 does otherwise than 7.4 is left out, XCLAIM and XAUTOCLAIM
among it (their consumers are made later): it is tested in test_streams.py and
test_stream_groups.py."""

from __future__ import annotations

from oracle_strategies import Choices, command, keys, option, options, pick, several

new_ids = pick(
    *("1-1", "1-*", "2-*", "3-3", "5", "5-*", "7-0", "9-1", "20-1", "30-1", "40-1"),
    *("0-0", "x", "18446744073709551615-5"),
)
ids = pick(*("1-1", "1-2", "2-0", "2-1", "3-3", "5-0", "5-1", "7-0", "9-1", "20-1"), "0", "x", "-")
edges = pick("-", "+", "-", "+", "0", "1", "(1-1", "3-3", "(5", "(5-1", "9", "x", "(-")
groups = pick("g", "g", "h", "")
consumers = pick("a", "a", "b", "c\r\n")
counts = pick(1, 1, 2, 10, 0, -1, "abc")
trimming = options(
    option("MAXLEN", pick(0, 1, 2, 5, -1, "abc")),
    option("MINID", pick("2", "3-3", "5-1", "x")),
    option("MAXLEN", pick("~", "="), pick(0, 1, 3)),
    option("MINID", pick("~", "="), pick("3", "30")),
    option("LIMIT", pick(0, 1, 10, -1)),
)
fields = several(pick("f", "g", "", "n", "v", 1, 1000, -5, b"\x00\xff\r\n", "x" * 70), 1, 5)

CHOICES: Choices = [
    (8, command("XADD", keys, new_ids, fields)),
    (2, command("XADD", keys, options(option("NOMKSTREAM"), most=1), trimming, new_ids, fields)),
    (2, command("XDEL", keys, several(ids, 1, 3))),
    (2, command("XTRIM", keys, trimming)),
    (1, command("XLEN", keys)),
    (3, command("XRANGE XREVRANGE", keys, edges, edges, options(option("COUNT", counts)))),
    (
        2,
        command(
            "XREAD",
            options(option("COUNT", counts)),
            option("STREAMS", keys),
            pick("0", "1-1", "$"),
        ),
    ),
    (
        4,
        command(
            "XGROUP|CREATE", keys, groups, pick("0", "$", "1-1", "x"), options(option("MKSTREAM"))
        ),
    ),
    (1, command("XGROUP|SETID", keys, groups, pick("0", "$", "3-3", "x"))),
    (1, command("XGROUP|DESTROY", keys, groups)),
    (1, command("XGROUP|DELCONSUMER", keys, groups, consumers)),
    (
        8,
        command(
            "XREADGROUP",
            option("GROUP", groups, consumers),
            options(option("COUNT", counts), option("NOACK")),
            option("STREAMS", keys),
            pick(">", ">", ">", "0", "2", "x"),
        ),
    ),
    (3, command("XACK", keys, groups, several(ids, 1, 3))),
    (2, command("XPENDING", keys, groups)),
]
