"""Generated commands on sorted sets and GEO, for the oracle tests.

Scores are such as Redis 7.0, which prints 17 digits, writes as 7.4 does: so no STOREDIST. Ranges of
members begin or end where all members do: between members of different scores they depend on chance
in a skip list. What else chance decides is tested in test_zsets.py.
"""

from __future__ import annotations

from hypothesis import strategies as st
from oracle_strategies import (
    Choices,
    command,
    keys,
    option,
    options,
    pick,
    several,
    several_keys,
    small,
    weighted,
)

members = pick(*"abcdefgh", 1, 2, "", b"\x00\xff\r\n")
some_members = several(members, 1, 4)
scores = weighted(
    (6, pick(0, 1, 2, 3, -1, -2.5, 0.5, "0x10", "1e3", "inf", "-inf", "+INF")),
    (1, pick("abc", "nan", "", " 1", "1e400")),
)
score_ends = weighted(
    (6, pick(0, 1, "(1", 2, "(3", "-inf", "+inf", "(-inf", "-1", "(0.5")),
    (1, pick("abc", "nan", "", "(", " 1", "1e400", "((1")),
)
lex_ends = weighted((6, pick("+", "[a", "(a", "[c", "(e", "[", "(")), (1, pick("a", "", "++")))
first, last = pick("-"), pick("+")
limit = option("LIMIT", small, small)
with_scores = option("WITHSCORES")
counts = pick(1, 2, 3, 1000, 0, -1, "abc")
numkeys = pick(1, 1, 2, 2, 3, 0, -1, "abc")
weighing = (
    option("AGGREGATE", pick("SUM", "MIN", "MAX", "max", "AVG")),
    option("WEIGHTS", several(pick(1, 2, -1, 0, 0.5, "inf", "abc"), 1, 3)),
)

longitudes = pick("13.361389", 15, "15.087269", -122.4, 0, 180, -180, 181, "abc")
latitudes = pick("38.115556", 37, "37.502669", 37.7, 0, "85.05112878", -85, 86, "abc")
distances = pick(0, 1, 200, 5000, "0.5", -1, "abc")
units = pick("m", "KM", "km", "ft", "mi", "parsec")
shown = (
    option("WITHDIST WITHHASH WITHCOORD"),
    option("ASC DESC"),
    option("COUNT", counts),
    option("ANY"),
)
center = st.one_of(option("FROMMEMBER", members), option("FROMLONLAT", longitudes, latitudes))
shape = st.one_of(
    option("BYRADIUS", distances, units), option("BYBOX", distances, distances, units)
)

CHOICES: Choices = [
    (8, command("ZADD", keys, several(st.tuples(scores, members), 1, 4))),
    (
        4,
        command(
            "ZADD",
            keys,
            options(option("NX XX GT LT CH INCR"), most=3),
            several(st.tuples(scores, members), 1, 2),
        ),
    ),
    (3, command("ZINCRBY", keys, scores, members)),
    (3, command("ZREM", keys, some_members)),
    (3, command("ZSCORE ZRANK ZREVRANK", keys, members)),
    (2, command("ZMSCORE", keys, some_members)),
    (1, command("ZCARD", keys)),
    (2, command("ZCOUNT ZREMRANGEBYSCORE", keys, score_ends, score_ends)),
    (4, command("ZRANGE ZREVRANGE", keys, small, small, options(with_scores, limit))),
    (
        3,
        command(
            "ZRANGE",
            keys,
            score_ends,
            score_ends,
            option("BYSCORE"),
            options(with_scores, limit, option("REV BYLEX")),
        ),
    ),
    (
        3,
        command(
            "ZRANGEBYSCORE ZREVRANGEBYSCORE",
            keys,
            score_ends,
            score_ends,
            options(with_scores, limit),
        ),
    ),
    (2, command("ZRANGEBYLEX", keys, first, lex_ends, options(limit))),
    (2, command("ZREVRANGEBYLEX", keys, last, lex_ends, options(limit))),
    (1, command("ZREMRANGEBYLEX", keys, first, lex_ends)),
    (1, command("ZLEXCOUNT", keys, first, last)),
    (2, command("ZREMRANGEBYRANK", keys, small, small)),
    (2, command("ZRANGESTORE", keys, keys, small, small, options(option("REV"), limit))),
    (2, command("ZPOPMIN ZPOPMAX", keys, several(counts, 0, 1))),
    (
        2,
        command(
            "ZMPOP", numkeys, several_keys, option("MIN MAX FOO"), options(option("COUNT", counts))
        ),
    ),
    (3, command("ZUNION ZINTER", numkeys, several_keys, options(*weighing, with_scores, most=3))),
    (
        3,
        command("ZUNIONSTORE ZINTERSTORE", keys, numkeys, several_keys, options(*weighing, most=3)),
    ),
    (2, command("ZDIFF", numkeys, several_keys, options(with_scores))),
    (1, command("ZDIFFSTORE", keys, numkeys, several_keys)),
    (1, command("ZINTERCARD", numkeys, several_keys, options(option("LIMIT", counts)))),
    (1, command("ZRANDMEMBER", keys, pick(0, 1000, "abc"), options(with_scores))),
    (1, command("ZSCAN", keys, pick(0), options(option("COUNT", pick(1000, 0, "abc"))))),
    (3, command("GEOADD", keys, several(st.tuples(longitudes, latitudes, members), 1, 3))),
    (1, command("GEOPOS GEOHASH", keys, some_members)),
    (1, command("GEODIST", keys, members, members, several(units, 0, 1))),
    (2, command("GEOSEARCH", keys, center, shape, options(*shown, most=3))),
    (1, command("GEOSEARCHSTORE", keys, keys, center, shape, options(*shown))),
    (
        1,
        command(
            "GEORADIUS", keys, longitudes, latitudes, distances, units, options(*shown, most=3)
        ),
    ),
    (1, command("GEORADIUSBYMEMBER", keys, members, distances, units, options(*shown, most=3))),
]
