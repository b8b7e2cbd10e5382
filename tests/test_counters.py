"""INCR, DECR, INCRBY, DECRBY and INCRBYFLOAT: replies as redis-server gives them."""

from __future__ import annotations

import pytest
from pair import LATER, Pair

from kvserver.numbers import INT64_MAX, INT64_MIN

SCRIPTS = {
    "counters": f"""
        INCR n
        INCR n
        DECR n
        INCRBY n 40
        DECRBY n 2
        GET n
        DECR m
        INCRBY o -5
        DECRBY p -5
        INCRBY n abc
        INCRBY n 1.5
        INCRBY n ""
        INCRBY n " 1"
        INCRBY n +1
        INCRBY n 01
        INCRBY n -0
        DECRBY n abc
        SET s abc
        INCR s
        SET s " 1"
        INCR s
        SET s "1 "
        INCR s
        SET s 01
        INCR s
        SET s ""
        INCR s
        SET s 1.0
        DECR s
        SET s "1\\x00"
        DECR s
        SET s 10 EXAT {LATER}
        INCR s
        EXPIRETIME s
        INCR
        INCRBY n
        DECRBY n
        """,
    "counters at the ends": f"""
        SET n {INT64_MAX}
        INCR n
        INCRBY n 1
        DECRBY n -1
        DECRBY n {INT64_MIN}
        INCRBY n {INT64_MIN}
        GET n
        SET n {INT64_MIN}
        DECR n
        DECRBY n 1
        INCRBY n -1
        INCRBY n {INT64_MIN}
        INCRBY n {INT64_MAX}
        GET n
        DECRBY missing {INT64_MIN}
        DECRBY missing {INT64_MAX}
        INCRBY other {INT64_MIN}
        INCRBY n {INT64_MAX + 1}
        SET n {INT64_MAX + 1}
        INCR n
        EXISTS missing other
        """,
    "floats": f"""
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f 0.2
        GET f
        INCRBYFLOAT f 5.0e3
        INCRBYFLOAT f -5000.3
        INCRBYFLOAT f 1e400
        INCRBYFLOAT f 1e5000
        INCRBYFLOAT f inf
        INCRBYFLOAT f -inf
        INCRBYFLOAT f nan
        INCRBYFLOAT f abc
        INCRBYFLOAT f ""
        INCRBYFLOAT f " 1"
        INCRBYFLOAT f "1 "
        INCRBYFLOAT f 0x1p3
        SET f 10.50 EXAT {LATER}
        INCRBYFLOAT f 0.1
        EXPIRETIME f
        SET f abc
        INCRBYFLOAT f 1
        SET f " 1"
        INCRBYFLOAT f 1
        SET f ""
        INCRBYFLOAT f 1
        SET f inf
        INCRBYFLOAT f 1
        INCRBYFLOAT f -inf
        SET f 3
        INCRBYFLOAT f 1.123456789123456789
        SET f 9223372036854775807
        INCRBYFLOAT f 1
        INCRBYFLOAT f 0.5
        INCRBYFLOAT g -0
        INCRBYFLOAT h -0.00000000000000000001
        INCRBYFLOAT i 1e-17
        INCRBYFLOAT
        INCRBYFLOAT f
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)
