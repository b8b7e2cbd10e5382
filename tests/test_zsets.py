"""Sorted sets, as redis-server does them: members, ranges, what several have, taking from the ends.

The oracle is Redis 7.0, which prints doubles with 17 digits: compared are only such as have an
exact, short decimal form. What 7.4 does otherwise is in tests of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Server, wait_until
from pair import Pair, heard

from kvserver.numbers import INT64_MAX, INT64_MIN

SCRIPTS = {
    "zadd": """
        ZADD
        ZADD z
        ZADD z 1
        ZADD z 1 a 2
        ZADD z x a
        ZADD z "" a
        ZADD z nan a
        ZADD z " 1" a
        ZADD z 1e400 a
        ZADD z 1 a 2 b x c
        EXISTS z
        ZADD z 1 a
        ZADD z 1 a
        ZADD z 2 a 3 b 3 c
        ZADD z CH 4 a 5 b 3 c 1 d
        ZADD z 1 a 2 a 3 a
        ZADD z inf i -inf j +inf k 0x10 h 1e3 e .5 f -0 n
        ZRANGE z 0 -1 WITHSCORES
        ZADD z 1 ""
        ZCARD z
        ZADD z 1
        TYPE z
        """,
    "zadd options": """
        ZADD z NX
        ZADD z NX NX NX
        ZADD z NX XX 1 a
        ZADD z XX NX 1 a b
        ZADD z GT LT 1 a
        ZADD z GT NX 1 a
        ZADD z LT NX 1 a
        ZADD z NX LT GT XX 1 a
        ZADD z INCR 1 a 2 b
        ZADD z INCR NX XX 1 a 2 b
        ZADD z foo 1 a
        ZADD z XX 1 a
        ZADD z XX CH 1 a
        ZADD z XX INCR 1 a
        EXISTS z
        ZADD z nx 1 a 2 b
        ZADD z NX 5 a 6 b 7 c
        ZADD z NX CH 5 a 8 d
        ZADD z XX 9 a 9 x
        ZADD z XX CH 10 a 9 b 9 x
        ZADD z GT 1 a
        ZADD z GT CH 1 a 11 b 3 n
        ZADD z LT CH 1 a 11 b 3 m
        ZADD z GT XX CH 100 a 100 z
        ZADD z LT XX CH 0 a 0 z
        ZADD z gt ch 0 a
        ZRANGE z 0 -1 WITHSCORES
        ZADD z INCR 5 a
        ZADD z INCR CH 5 a
        ZADD z NX INCR 5 a
        ZADD z NX INCR 5 new
        ZADD z XX INCR 5 none
        ZADD z GT INCR -1 a
        ZADD z GT INCR 1 a
        ZADD z LT INCR 1 a
        ZADD z LT INCR -1 a
        ZADD z LT INCR 0 a
        ZADD z INCR inf a
        ZADD z INCR -inf a
        ZADD z INCR x a
        SET s 1
        ZADD s 1 a
        ZADD s XX 1 a
        ZADD s 1 a 2
        ZADD s x a
        """,
    "zincrby": """
        ZINCRBY z 1
        ZINCRBY z 1 a
        ZINCRBY z 1.5 a
        ZINCRBY z -4 a
        ZINCRBY z x a
        ZINCRBY z NX a
        ZINCRBY z nan a
        ZINCRBY z inf a
        ZINCRBY z -inf a
        ZINCRBY z 0 a
        ZINCRBY z -inf b
        ZINCRBY z 1e308 c
        ZINCRBY z 1e308 c
        ZRANGE z 0 -1 WITHSCORES
        SET s 1
        ZINCRBY s 1 a
        ZINCRBY s x a
        """,
    "zrem and reads": """
        ZREM z
        ZREM z a
        ZADD z 1 a 2 b 3 c 4 d
        ZREM z a x a b
        ZREM z x
        ZSCORE z c
        ZSCORE z a
        ZSCORE none a
        ZSCORE z
        ZMSCORE z
        ZMSCORE z c x d c
        ZMSCORE none a b
        ZCARD z
        ZCARD none
        ZREM z d c x
        EXISTS z
        SET s 1
        ZREM s a
        ZSCORE s a
        ZMSCORE s a
        ZCARD s
        """,
    "zrank": """
        ZADD z 1 a 2 b 2 c 3 d -1 e inf f
        ZRANK z e
        ZRANK z a
        ZRANK z f
        ZRANK z x
        ZRANK none x
        ZREVRANK z e
        ZREVRANK z c
        ZREVRANK z f
        ZREVRANK none x
        SET s 1
        ZRANK s a
        ZRANK z
        """,
    "zcount": """
        ZADD z 1 a 2 b 2 c 3 d -1 e inf f -inf g
        ZCOUNT z
        ZCOUNT z -inf +inf
        ZCOUNT z (-inf (+inf
        ZCOUNT z 1 2
        ZCOUNT z (1 2
        ZCOUNT z 1 (2
        ZCOUNT z (1 (2
        ZCOUNT z 2 1
        ZCOUNT z 2 2
        ZCOUNT z (2 2
        ZCOUNT z "" ""
        ZCOUNT z ( (
        ZCOUNT z " 1" 2
        ZCOUNT z "( 1" 2
        ZCOUNT z "1 " 2
        ZCOUNT z "1\\x00abc" 2
        ZCOUNT z x 2
        ZCOUNT z 1 nan
        ZCOUNT z 1 (nan
        ZCOUNT z " " 1
        ZCOUNT z ((1 2
        ZCOUNT z [1 2
        ZCOUNT z -1e400 1e400
        ZCOUNT z 0x1 0x2
        ZCOUNT z 1_0 20
        ZCOUNT none 1 2
        ZCOUNT none x 2
        SET s 1
        ZCOUNT s x 2
        ZCOUNT s 1 2
        """,
    "zlexcount": r"""
        ZADD z 0 a 0 b 0 c 0 cc 0 d 0 "" 0 "\xff"
        ZLEXCOUNT z - +
        ZLEXCOUNT z + -
        ZLEXCOUNT z - -
        ZLEXCOUNT z + +
        ZLEXCOUNT z [a [c
        ZLEXCOUNT z (a [c
        ZLEXCOUNT z [a (c
        ZLEXCOUNT z (a (c
        ZLEXCOUNT z [c [a
        ZLEXCOUNT z [a [a
        ZLEXCOUNT z (a [a
        ZLEXCOUNT z [ [
        ZLEXCOUNT z ( +
        ZLEXCOUNT z - (
        ZLEXCOUNT z - "[\xff"
        ZLEXCOUNT z - "(\xff"
        ZLEXCOUNT z a b
        ZLEXCOUNT z "" b
        ZLEXCOUNT z -a +
        ZLEXCOUNT z - ++
        ZLEXCOUNT z "-\x00a" "+\x00"
        ZLEXCOUNT none [a x
        ZLEXCOUNT none [a [b
        SET s 1
        ZLEXCOUNT s - +
        ZLEXCOUNT s x +
        """,
    "zrange": f"""
        ZADD z 1 a 2 b 2 c 3 d -1 e
        ZRANGE z 0
        ZRANGE z 0 -1
        ZRANGE z 0 -1 WITHSCORES
        ZRANGE z 0 -1 REV
        ZRANGE z 0 -1 rev withscores
        ZRANGE z 1 2
        ZRANGE z -2 -1
        ZRANGE z -100 100
        ZRANGE z 3 1
        ZRANGE z 5 9
        ZRANGE z -1 -2
        ZRANGE z 1 -2 REV
        ZRANGE z {INT64_MIN} {INT64_MAX}
        ZRANGE z {INT64_MAX} {INT64_MIN}
        ZRANGE z x 1
        ZRANGE z 0 x
        ZRANGE z 0 1.5
        ZRANGE z 0 -1 LIMIT 0 1
        ZRANGE z 0 -1 LIMIT 0 -1
        ZRANGE z 0 -1 LIMIT 0
        ZRANGE z 0 -1 LIMIT x 1
        ZRANGE z 0 -1 LIMIT 1 x
        ZRANGE z 0 -1 LIMIT
        ZRANGE z 0 -1 FOO
        ZRANGE z 0 -1 REV REV
        ZRANGE z 0 -1 BYSCORE BYLEX
        ZRANGE z 0 -1 BYLEX BYSCORE
        ZRANGE z 0 -1 WITHSCORES WITHSCORES
        ZRANGE none 0 -1
        ZRANGE none 0 -1 WITHSCORES
        ZRANGE none x -1
        SET s 1
        ZRANGE s 0 -1
        ZRANGE s x -1
        ZREVRANGE z 0 -1
        ZREVRANGE z 1 2 WITHSCORES
        ZREVRANGE z 0 -1 REV
        ZREVRANGE z 0 -1 BYSCORE
        ZREVRANGE z 0 -1 LIMIT 0 1
        """,
    "zrange by score": """
        ZADD z 1 a 2 b 2 c 3 d -1 e inf f -inf g
        ZRANGE z 1 3 BYSCORE
        ZRANGE z 3 1 BYSCORE
        ZRANGE z 3 1 BYSCORE REV
        ZRANGE z (3 -inf BYSCORE REV WITHSCORES
        ZRANGE z -inf +inf BYSCORE LIMIT 1 3
        ZRANGE z -inf +inf LIMIT 1 3 BYSCORE WITHSCORES
        ZRANGE z -inf +inf BYSCORE LIMIT 0 0
        ZRANGE z -inf +inf BYSCORE LIMIT -1 3
        ZRANGE z -inf +inf BYSCORE LIMIT 2 -1
        ZRANGE z -inf +inf BYSCORE LIMIT 2 -5
        ZRANGE z -inf +inf BYSCORE LIMIT 100 1
        ZRANGE z -inf +inf BYSCORE LIMIT 1 2 LIMIT 0 1
        ZRANGE z x +inf BYSCORE
        ZRANGE z x +inf BYSCORE FOO
        ZRANGEBYSCORE z 1 3
        ZRANGEBYSCORE z (1 (3 WITHSCORES
        ZRANGEBYSCORE z 1 3 WITHSCORES LIMIT 1 1
        ZRANGEBYSCORE z 1 3 REV
        ZRANGEBYSCORE z 1 3 BYSCORE
        ZRANGEBYSCORE z 3 1
        ZRANGEBYSCORE none 3 1
        ZRANGEBYSCORE none x 1
        ZREVRANGEBYSCORE z 3 1
        ZREVRANGEBYSCORE z +inf -inf WITHSCORES LIMIT 1 4
        ZREVRANGEBYSCORE z (3 (1
        ZREVRANGEBYSCORE z 1 3
        ZREVRANGEBYSCORE z 1 x
        SET s 1
        ZRANGEBYSCORE s 1 2
        """,
    "zrange by lex": r"""
        ZADD z 0 a 0 b 0 c 0 d 0 e 0 f
        ZRANGE z [b [d BYLEX
        ZRANGE z (b + BYLEX LIMIT 1 2
        ZRANGE z + - BYLEX
        ZRANGE z + - BYLEX REV
        ZRANGE z [d (a BYLEX REV LIMIT 0 2
        ZRANGE z [b [d BYLEX WITHSCORES
        ZRANGE z b d BYLEX
        ZRANGEBYLEX z - [c
        ZRANGEBYLEX z - + LIMIT 2 2
        ZRANGEBYLEX z - + LIMIT -1 2
        ZRANGEBYLEX z - + WITHSCORES
        ZRANGEBYLEX z - x
        ZRANGEBYLEX none - +
        ZRANGEBYLEX none x +
        ZREVRANGEBYLEX z [c -
        ZREVRANGEBYLEX z + (c LIMIT 0 2
        ZREVRANGEBYLEX z - +
        SET s 1
        ZRANGEBYLEX s - +
        ZADD mixed 1 c 2 a 3 b 4 d
        ZRANGEBYLEX mixed - +
        ZRANGEBYLEX mixed [b [d
        ZRANGEBYLEX mixed [a [b
        ZREVRANGEBYLEX mixed [c [b
        ZREVRANGEBYLEX mixed [d [a
        ZADD mixed 5 a
        ZRANGEBYLEX mixed - [c LIMIT 1 5
        ZREVRANGEBYLEX mixed + (b LIMIT 1 5
        ZLEXCOUNT mixed [a [d
        ZLEXCOUNT mixed (a [c
        ZREMRANGEBYLEX mixed [b [d
        ZRANGE mixed 0 -1
        """,
    "zrangestore": """
        ZADD z 1 a 2 b 2 c 3 d -1 e
        ZRANGESTORE d z 0 -1
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z 1 2 REV
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z 1 2 BYSCORE LIMIT 1 5
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z - + BYLEX
        ZRANGESTORE d z 0 -1 WITHSCORES
        ZRANGESTORE d z 0 -1 LIMIT 0 1
        ZRANGESTORE d z x -1
        ZRANGESTORE d z 0
        ZRANGESTORE z z 1 2
        ZRANGE z 0 -1 WITHSCORES
        ZRANGESTORE d none 0 -1
        EXISTS d
        ZRANGESTORE d z 7 8
        SET s 1
        ZRANGESTORE d s 0 -1
        EXPIRE s 1000
        ZRANGESTORE s z 0 -1
        TTL s
        TYPE s
        SET s 1
        ZRANGESTORE s z 7 8
        EXISTS s
        """,
    "zremrange": """
        ZADD z 1 a 2 b 2 c 3 d -1 e 7 f 8 g 9 h
        ZREMRANGEBYRANK z x 1
        ZREMRANGEBYRANK z 0 y
        ZREMRANGEBYRANK z 0
        ZREMRANGEBYRANK z 5 2
        ZREMRANGEBYRANK z 1 2
        ZREMRANGEBYRANK z -1 -1
        ZREMRANGEBYRANK none 0 -1
        ZREMRANGEBYRANK none 0 x
        ZRANGE z 0 -1
        ZREMRANGEBYSCORE z (7 8
        ZREMRANGEBYSCORE z 5 1
        ZREMRANGEBYSCORE z x 1
        ZREMRANGEBYSCORE none x 1
        ZREMRANGEBYSCORE none 1 2
        ZRANGE z 0 -1
        ZREMRANGEBYSCORE z -inf inf
        EXISTS z
        ZADD z 0 a 0 b 0 c
        ZREMRANGEBYLEX z b c
        ZREMRANGEBYLEX z [b [c
        ZREMRANGEBYLEX z + -
        ZREMRANGEBYLEX z - +
        EXISTS z
        SET s 1
        ZREMRANGEBYRANK s 0 -1
        ZREMRANGEBYSCORE s 0 1
        ZREMRANGEBYLEX s - +
        """,
    "zpop": f"""
        ZPOPMIN z
        ZPOPMIN z 2
        ZADD z 1 a 2 b 2 c 3 d -1 e 7.5 f
        ZPOPMIN z
        ZPOPMAX z
        ZPOPMIN z 0
        ZPOPMIN z 1
        ZPOPMAX z 2
        ZPOPMIN z -1
        ZPOPMIN z x
        ZPOPMIN z 1 2
        ZPOPMAX z -1 x
        ZPOPMIN z {INT64_MAX}
        EXISTS z
        ZPOPMIN z {INT64_MAX + 1}
        SET s 1
        ZPOPMIN s
        ZPOPMAX s 1
        ZPOPMIN s 0
        """,
    "zmpop": f"""
        ZMPOP 1 z MIN
        ZMPOP 1 z
        ZMPOP 0 z MIN
        ZMPOP -1 z MIN
        ZMPOP x z MIN
        ZMPOP 2 z MIN
        ZMPOP 1 z FOO
        ZMPOP 1 z MIN COUNT
        ZMPOP 1 z MIN COUNT 0
        ZMPOP 1 z MIN COUNT -1
        ZMPOP 1 z MIN COUNT x
        ZMPOP 1 z MIN COUNT 1 COUNT 1
        ZMPOP 1 z MIN FOO
        ZMPOP 1 z MIN COUNT 1 FOO
        ZMPOP 99999 z MIN
        ZADD z 1 a 2 b 2 c 3 d -1 e
        ZMPOP 2 none z min
        ZMPOP 2 z none MAX COUNT 2
        ZMPOP 1 z MIN COUNT {INT64_MAX}
        ZMPOP 1 z MIN COUNT 10
        SET s 1
        ZADD z 1 a
        ZMPOP 2 s z MIN
        ZMPOP 2 z s MIN
        ZMPOP 2 none s MIN
        """,
    "what several have": """
        ZADD a 1 x 2 y 3 z
        ZADD b 10 y 20 z 30 w
        SADD s x y q
        ZUNION 2 a b
        ZUNION 2 a b WITHSCORES
        ZUNION 3 a b s WITHSCORES
        ZUNION 2 a b WEIGHTS 2 0.5 WITHSCORES
        ZUNION 2 a b WEIGHTS 2 3 AGGREGATE MIN WITHSCORES
        ZUNION 2 a b AGGREGATE max WITHSCORES
        ZUNION 2 a b aggregate foo
        ZUNION 2 a b AGGREGATE
        ZUNION 2 a b WEIGHTS 1
        ZUNION 2 a b WEIGHTS 1 x
        ZUNION 2 a b WEIGHTS 1 nan
        ZUNION 2 a b WEIGHTS 1 2 3
        ZUNION 2 a b LIMIT 1
        ZUNION 0 a
        ZUNION -1 a
        ZUNION x a
        ZUNION 3 a b
        ZUNION 1
        ZUNION 2 a none WITHSCORES
        ZUNION 1 none
        ZUNION 2 a a WITHSCORES
        ZUNION 2 a a AGGREGATE MIN WITHSCORES AGGREGATE SUM
        SET str 1
        ZUNION 2 a str
        ZUNION 2 a str FOO
        ZUNION 2 none str
        ZINTER 2 a b WITHSCORES
        ZINTER 2 a b WEIGHTS 1 -1 WITHSCORES
        ZINTER 3 a b s WITHSCORES
        ZINTER 2 a a WITHSCORES
        ZINTER 2 a none
        ZINTER 2 a b FOO
        ZINTER 0 a
        ZINTER 2 s a WITHSCORES AGGREGATE MIN
        ZDIFF 2 a b WITHSCORES
        ZDIFF 2 a a
        ZDIFF 1 a
        ZDIFF 2 a none WITHSCORES
        ZDIFF 2 none a
        ZDIFF 3 a b s
        ZDIFF 2 s a WITHSCORES
        ZDIFF 2 a b WEIGHTS 1 2
        ZDIFF 2 a b AGGREGATE MIN
        ZDIFF 0 a
        ZDIFF 2 a str
        ZINTERCARD 2 a b
        ZINTERCARD 2 a b LIMIT 1
        ZINTERCARD 2 a b LIMIT 0
        ZINTERCARD 2 a b LIMIT -1
        ZINTERCARD 2 a b LIMIT x
        ZINTERCARD 2 a b LIMIT
        ZINTERCARD 2 a b WITHSCORES
        ZINTERCARD 2 a b WEIGHTS 1 2
        ZINTERCARD 0 a
        ZINTERCARD 2 a none
        ZINTERCARD 2 a str
        """,
    "infinities": """
        ZADD a inf x -inf y 1 z
        ZADD b -inf x inf y 1 z
        ZUNION 2 a b WITHSCORES
        ZUNION 2 a b WITHSCORES AGGREGATE MIN
        ZUNION 1 a WEIGHTS 0 WITHSCORES
        ZINTER 2 a b WEIGHTS 0 1 WITHSCORES
        ZINTER 2 a b WEIGHTS 1 0 WITHSCORES
        ZINTER 2 a b WEIGHTS 1 0 AGGREGATE MAX WITHSCORES
        ZINTER 2 a b WEIGHTS inf -inf WITHSCORES
        """,
    "stored": """
        ZADD a 1 x 2 y 3 z
        ZADD b 10 y 20 z 30 w
        ZUNIONSTORE d 2 a b
        ZRANGE d 0 -1 WITHSCORES
        ZUNIONSTORE d 2 a b WEIGHTS 1 2 AGGREGATE MAX
        ZRANGE d 0 -1 WITHSCORES
        ZUNIONSTORE d 2 a b WITHSCORES
        ZUNIONSTORE d 0 a
        ZUNIONSTORE d 3 a
        ZINTERSTORE d 2 a b
        ZRANGE d 0 -1 WITHSCORES
        ZINTERSTORE d 0 a b
        ZDIFFSTORE d 2 a b
        ZRANGE d 0 -1 WITHSCORES
        ZDIFFSTORE d 2 a b WEIGHTS 1 2
        ZDIFFSTORE d 0 a
        ZINTERSTORE d 2 a none
        EXISTS d
        ZINTERSTORE d 2 a none
        ZDIFFSTORE a 2 a b
        ZRANGE a 0 -1 WITHSCORES
        SET str 1
        EXPIRE str 1000
        ZUNIONSTORE d 2 a str
        ZUNIONSTORE str 1 a
        TTL str
        TYPE str
        SET str 1
        ZUNIONSTORE str 1 none
        EXISTS str
        """,
    "zrandmember": f"""
        ZRANDMEMBER none
        ZRANDMEMBER none 5
        ZRANDMEMBER none 5 WITHSCORES
        ZADD z 1.5 a
        ZRANDMEMBER z
        ZRANDMEMBER z 0
        ZRANDMEMBER z 3
        ZRANDMEMBER z -3
        ZRANDMEMBER z 3 WITHSCORES
        ZRANDMEMBER z -3 WITHSCORES
        ZRANDMEMBER z x
        ZRANDMEMBER z 1 FOO
        ZRANDMEMBER z 1 WITHSCORES x
        ZRANDMEMBER z {INT64_MIN}
        ZRANDMEMBER z {INT64_MAX}
        ZRANDMEMBER z {INT64_MAX} WITHSCORES
        ZRANDMEMBER z {-INT64_MAX} WITHSCORES
        ZADD z 2 b 3 c
        ZRANDMEMBER z 3 WITHSCORES
        SET s 1
        ZRANDMEMBER s
        ZRANDMEMBER s 1
        ZRANDMEMBER s x
        """,
    "zscan": """
        ZSCAN none 0
        ZADD z 1 a 2 b 2.5 c 3 d -1 e 1e30 f inf g 0 ""
        ZSCAN z 0
        ZSCAN z 0 MATCH *
        ZSCAN z 0 MATCH **
        ZSCAN z 0 COUNT 1
        ZSCAN z 0 MATCH [ab]
        ZSCAN z 0 COUNT 0
        ZSCAN z 0 COUNT x
        ZSCAN z 0 FOO
        ZSCAN z x
        ZSCAN z
        ZSCAN none x
        SET s 1
        ZSCAN s 0
        """,
    "encoding": f"""
        ZADD z 1 a
        OBJECT ENCODING z
        ZADD z 1 {"b" * 64}
        OBJECT ENCODING z
        ZADD z XX 1 {"b" * 65}
        OBJECT ENCODING z
        ZADD z 1 {"b" * 65}
        OBJECT ENCODING z
        ZREM z {"b" * 65}
        OBJECT ENCODING z
        ZUNIONSTORE d 1 z
        OBJECT ENCODING d
        ZRANGESTORE d z 0 -1
        OBJECT ENCODING d
        ZADD y 1 {"b" * 65}
        OBJECT ENCODING y
        ZUNIONSTORE d 1 y
        OBJECT ENCODING d
        CONFIG SET zset-max-listpack-entries 2
        ZADD n 1 a 2 b
        OBJECT ENCODING n
        ZADD n 3 c
        OBJECT ENCODING n
        CONFIG SET zset-max-ziplist-value 3
        ZADD m 1 abc
        OBJECT ENCODING m
        ZADD m 1 abcd
        OBJECT ENCODING m
        CONFIG SET zset-max-listpack-value 64 zset-max-ziplist-entries 128
        """,
    "copies": """
        ZADD z 1 a 2 b -0.5 c
        COPY z y
        ZADD z 3 d
        RENAME z x
        ZRANGE x 0 -1 WITHSCORES
        ZRANGE y 0 -1 WITHSCORES
        MOVE y 1
        SELECT 1
        ZPOPMIN y
        ZRANGE y 0 -1 WITHSCORES
        """,
    "in a transaction": """
        MULTI
        BZPOPMIN z 0
        BZPOPMAX z 0
        BZMPOP 0 1 z MIN
        ZADD z 1 a 2 b 3 c 4 d
        BZPOPMIN z 0
        BZPOPMAX z 0
        BZMPOP 0 1 z MIN COUNT 5
        EXEC
        """,
    "waiting, errors": """
        BZPOPMIN z
        BZPOPMIN z x
        BZPOPMIN z -1
        BZMPOP x 1 z MIN
        BZMPOP 0 0 z MIN
        BZMPOP -1 1 z FOO
        BZMPOP -1 1 z MIN
        BZMPOP 0 1 z MIN COUNT 0
        BZPOPMIN z 0.01
        BZMPOP 0.01 1 z MIN
        SET s 1
        BZPOPMIN s 0
        BZPOPMIN none s 0
        BZMPOP 0 1 s MIN
        ZADD z 1 a 2 b 3 c
        BZPOPMIN z s 0
        BZPOPMAX none z 0
        BZMPOP 0 2 none z MAX COUNT 9
        """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_as_redis(pair: Pair, name: str) -> None:
    pair.same(SCRIPTS[name])


EVENTS = """
    ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 h
    ZADD z 1 a
    ZADD z XX 2 a
    ZADD z INCR 2 a
    ZINCRBY z 0 a
    ZINCRBY z 1 a
    ZREM z x
    ZREM z a
    ZPOPMIN z
    ZPOPMAX z 1
    ZPOPMAX z 0
    ZREMRANGEBYRANK z 0 0
    ZREMRANGEBYSCORE z 4 4
    ZRANGESTORE y z 0 -1
    ZRANGESTORE y z 7 8
    ZRANGESTORE y z 7 8
    ZUNIONSTORE y 1 z
    ZINTERSTORE y 1 z
    ZDIFFSTORE y 1 z
    ZDIFFSTORE y 2 z z
    ZMPOP 1 z MIN
    BZPOPMIN z 0
    ZADD z 1 a
    BZMPOP 0 1 z MAX
    ZADD z 0 a 0 b
    ZREMRANGEBYLEX z [a [a
    ZREMRANGEBYLEX z - +
    ZADD z 1 a
    ZREM z a
    ZADD z 1 a
    ZREMRANGEBYRANK z 0 -1
    PUBLISH __keyevent@0__:end end
    """


def test_events(pair: Pair) -> None:
    pair.same("CONFIG SET notify-keyspace-events KEAn")
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.send(b"PSUBSCRIBE __key*__:*\r\n")
        conn.reply()
    pair.same(EVENTS)
    ours, theirs = (heard(conn) for conn in listeners)
    assert ours == theirs


def large(pair: Pair, size: int = 3000) -> None:
    """A set with many blocks of elements, some of them with the same score."""
    for first in range(0, size, 500):
        words = [w for n in range(first, first + 500) for w in (n * 7919 % size // 3, f"m{n}")]
        pair.same([("ZADD", "z", *words)])


def test_large_sets(pair: Pair) -> None:
    large(pair)
    commands: list[tuple[Any, ...]] = [("ZCARD", "z"), ("OBJECT", "ENCODING", "z")]
    for n in (0, 1, 250, 256, 257, 1000, 2047, 2999, 3000):
        commands += [
            ("ZRANK", "z", f"m{n}"),
            ("ZREVRANK", "z", f"m{n}"),
            ("ZRANGE", "z", n, n + 3, "WITHSCORES"),
            ("ZRANGE", "z", n, n + 3, "REV"),
            ("ZRANGE", "z", -n, -n + 300),
            ("ZCOUNT", "z", n // 3, f"({n}"),
            ("ZRANGEBYSCORE", "z", n // 9, "inf", "WITHSCORES", "LIMIT", n // 2, 5),
            ("ZREVRANGEBYSCORE", "z", n // 3, "-inf", "LIMIT", n // 3, 5),
            ("ZREVRANGEBYSCORE", "z", n // 3, "-inf", "LIMIT", n // 3, 700),
        ]
    commands += [
        ("ZRANGE", "z", 0, -1, "WITHSCORES"),
        ("ZUNION", 1, "z", "WITHSCORES"),
        ("ZREMRANGEBYSCORE", "z", 200, 300),
        ("ZPOPMIN", "z", 400),
        ("ZPOPMAX", "z", 500),
        ("ZREMRANGEBYRANK", "z", 100, 400),
        ("ZRANGE", "z", 0, -1, "WITHSCORES"),
        ("ZRANGESTORE", "y", "z", 10, 700),
        ("ZRANGE", "y", 300, 310),
        ("ZREMRANGEBYRANK", "z", 0, -1),
        ("EXISTS", "z"),
    ]
    pair.same(commands)


def test_large_sets_of_one_score(pair: Pair) -> None:
    for first in range(0, 1500, 500):
        words = [word for n in range(first, first + 500) for word in (0, f"m{n:04}")]
        pair.same([("ZADD", "z", *words)])
    pair.same(
        """
        ZLEXCOUNT z [m0100 (m1400
        ZRANGEBYLEX z [m0100 [m1400 LIMIT 600 10
        ZREVRANGEBYLEX z [m1400 [m0100 LIMIT 600 10
        ZRANGEBYLEX z - +
        ZREVRANGEBYLEX z + (m1490
        ZREMRANGEBYLEX z [m0100 [m1400
        ZRANGE z 95 105
        """
    )


def everything(ask: Callable[..., Any], *options: Any) -> list[Any]:
    found: list[Any] = []
    cursor = b"0"
    while True:
        cursor, part = ask("ZSCAN", "z", cursor, *options)
        found += part
        if cursor == b"0":
            return found


def test_zscan_of_a_large_set(pair: Pair, both: tuple[Any, Any]) -> None:
    large(pair)
    for client in both:
        client.response_callbacks.clear()
        client.execute_command("ZADD", "z", "0.1", "tenth", "-inf", "least", "1e25", "much")
    for options in ((), ("COUNT", 500), ("MATCH", "m1*"), ("MATCH", "tenth", "COUNT", 3)):
        ours, theirs = (everything(client.execute_command, *options) for client in both)
        scores = [dict(zip(found[::2], found[1::2], strict=True)) for found in (ours, theirs)]
        assert scores[0] == scores[1]
        assert len(ours) == 2 * len(scores[0])


def test_random_members_of_a_large_set(pair: Pair, client: Any) -> None:
    large(pair)
    client.response_callbacks.clear()
    names = set(client.execute_command("ZRANGE", "z", 0, -1))
    for count in (1, 10, 128, 129, 2999, 3000, 4000):
        found = client.execute_command("ZRANDMEMBER", "z", count)
        assert len(found) == len(set(found)) == min(count, 3000)
        assert names.issuperset(found)
    for count in (1, 128, 129, 5000):
        found = client.execute_command("ZRANDMEMBER", "z", -count)
        assert len(found) == count
        assert names.issuperset(found)
    assert len({client.execute_command("ZRANDMEMBER", "z") for _ in range(50)}) > 10


# -- what 7.4 does otherwise ----------------------------------------------------------------------


def test_rank_with_score(pair: Pair) -> None:
    conn = pair.conns[0]
    conn.ask("ZADD", "z", 1, "a", "2.5", "b")
    score = b",2.5\r\n" if pair.protocol == 3 else b"$3\r\n2.5\r\n"
    nothing = b"_\r\n" if pair.protocol == 3 else b"*-1\r\n"
    assert conn.ask("ZRANK", "z", "b", "WITHSCORE") == b"*2\r\n:1\r\n" + score
    assert conn.ask("ZREVRANK", "z", "b", "withscore") == b"*2\r\n:0\r\n" + score
    assert conn.ask("ZRANK", "z", "x", "WITHSCORE") == nothing
    assert conn.ask("ZREVRANK", "none", "x", "WITHSCORE") == nothing
    assert conn.ask("ZRANK", "z", "b", "FOO") == b"-ERR syntax error\r\n"
    wrong = b"-ERR wrong number of arguments for 'zrevrank' command\r\n"
    assert conn.ask("ZREVRANK", "z", "b", "WITHSCORE", "x") == wrong


def test_shortest_decimals(client: Any) -> None:
    """7.0 says 0.10000000000000001."""
    client.response_callbacks.clear()
    client.execute_command("ZADD", "z", "0.1", "a")
    tenth = client.execute_command("ZSCORE", "z", "a")
    assert tenth in (b"0.1", 0.1)
    assert client.execute_command("ZSCAN", "z", 0) == [b"0", [b"a", b"0.1"]]


def test_encoding_follows_the_number_of_elements(client: Any) -> None:
    """7.2: a command with more elements than fit makes a skip list at once; so -0 stays there."""
    client.response_callbacks.clear()
    client.config_set("zset-max-listpack-entries", 2)
    client.execute_command("ZADD", "z", 1, "a", 2, "a", "-0", "a")
    assert client.execute_command("OBJECT", "ENCODING", "z") == b"skiplist"
    assert str(client.execute_command("ZSCORE", "z", "a")).strip("b'") in ("-0", "-0.0")
    client.execute_command("ZADD", "y", "-0", "a")
    client.execute_command("ZADD", "y", "XX", 1, "x", 2, "x", 2, "x", 1, "a")
    assert client.execute_command("OBJECT", "ENCODING", "y") == b"skiplist"
    client.config_set("zset-max-listpack-entries", 128)


# -- waiting --------------------------------------------------------------------------------------


def is_waiting(server: Server, number: int = 1) -> None:
    admin = server.client(decode_responses=True)
    wait_until(lambda: admin.info("clients")["blocked_clients"] == number)


WAITS: list[tuple[Any, ...]] = [
    ("BZPOPMIN", "y", "z", 0),
    ("BZPOPMAX", "y", "z", 0),
    ("BZMPOP", 0, 2, "y", "z", "MAX"),
    ("BZMPOP", 0, 2, "y", "z", "MIN", "COUNT", 2),
]
ARRIVALS = [
    "ZADD z 1 a 2 b 3 c",
    "ZINCRBY z 1 a",
    "ZADD x 1 a 2 b\nRENAME x z",
    "ZADD x 1 a 2 b\nZUNIONSTORE z 1 x",
    "ZADD x 1 a 2 b\nZRANGESTORE z x 0 -1",
    "SET z 1\nDEL z\nLPUSH z 1\nDEL z\nZADD z 5 a",
    "MULTI\nZADD z 1 a\nZADD z 0 b\nEXEC",
]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: f"{wait[0]}-{wait[-1]}")
@pytest.mark.parametrize("arrival", ARRIVALS)
def test_waiting(pair: Pair, wait: tuple[Any, ...], arrival: str) -> None:
    waiting = [pair.connect(server) for server in pair.servers]
    for conn, server in zip(waiting, pair.servers, strict=True):
        conn.send(b" ".join(str(word).encode() for word in wait) + b"\r\n")
        is_waiting(server)
    pair.same(arrival)
    ours, theirs = (conn.reply() for conn in waiting)
    assert ours == theirs
    pair.same("ZRANGE z 0 -1 WITHSCORES")
