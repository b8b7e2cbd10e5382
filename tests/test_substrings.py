"""APPEND, GETRANGE, SETRANGE, STRLEN and SUBSTR: replies as redis-server gives them."""

from __future__ import annotations

import pytest
from pair import LATER, Pair

from kvserver.numbers import INT64_MAX, INT64_MIN

SCRIPTS = {
    "append": f"""
        APPEND k ""
        EXISTS k
        APPEND k abc
        APPEND k ""
        APPEND k "\\x00\\xff"
        GET k
        SET k v EXAT {LATER}
        APPEND k w
        EXPIRETIME k
        SET n 12
        APPEND n 3
        INCR n
        APPEND k
        """,
    "getrange": " \n".join(
        ["SET k 0123456789", "GETRANGE missing 0 -1", 'SET e ""', "GETRANGE e 0 -1", "STRLEN e"]
        + [
            f"{name} k {start} {end}"
            for name in ("GETRANGE", "SUBSTR")
            for start in (0, 3, 9, 10, 100, -1, -3, -10, -11, -100, INT64_MAX, INT64_MIN)
            for end in (0, 3, 9, 10, 100, -1, -3, -10, -11, -100, INT64_MAX, INT64_MIN)
        ]
        + [
            "GETRANGE k a 1",
            "GETRANGE k 1 a",
            "GETRANGE missing 1 a",
            f"GETRANGE k 0 {INT64_MAX + 1}",
            "GETRANGE k 1",
            "SUBSTR k 1",
            f"SET k 0123456789 EXAT {LATER}",
            "GETRANGE k 2 4",
            "STRLEN k",
            "SUBSTR k -3 -2",
        ]
    ),
    "setrange": f"""
        SETRANGE k 0 ""
        SETRANGE k 5 ""
        EXISTS k
        SETRANGE k 3 abc
        GET k
        SETRANGE k 0 xy
        SETRANGE k 5 longer
        SETRANGE k 20 end
        GET k
        SETRANGE k 1 ""
        SETRANGE k -1 a
        SETRANGE k -1 ""
        SETRANGE k a b
        SETRANGE k {INT64_MAX} a
        SETRANGE k {INT64_MAX} ""
        SETRANGE k {INT64_MAX + 1} a
        SETRANGE k 536870911 aa
        SETRANGE missing 536870912 a
        EXISTS missing
        SET k v EXAT {LATER}
        SETRANGE k 2 w
        GET k
        EXPIRETIME k
        SETRANGE k 0
        """,
    "strlen": """
        STRLEN missing
        SET k abc
        STRLEN k
        SET k 1234
        STRLEN k
        STRLEN
        SET t v PXAT 1
        STRLEN t
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


def test_no_string_grows_beyond_the_limit(pair: Pair) -> None:
    size = 1 << 20
    pair.same(
        [
            ("CONFIG", "SET", "proto-max-bulk-len", size),
            ("SET", "k", b"x" * size),
            ("APPEND", "k", ""),
            ("APPEND", "k", "y"),
            ("SETRANGE", "k", size - 1, "z"),
            ("SETRANGE", "k", size, ""),
            ("SETRANGE", "k", size - 1, "zz"),
            ("SETRANGE", "new", size, "z"),
            ("SETRANGE", "new", size - 1, "z"),
            ("STRLEN", "k"),
            ("STRLEN", "new"),
            ("GETRANGE", "new", -2, -1),
            ("LCS", "k", "missing"),
            ("SETRANGE", "half", size // 4 - 2, "z"),
            ("LCS", "half", "missing"),
            ("APPEND", "half", "z"),
            ("LCS", "half", "missing"),
            ("LCS", "missing", "half", "LEN"),
        ]
    )
