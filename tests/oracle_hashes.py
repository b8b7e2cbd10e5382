"""Generated commands on hashes, for the oracle tests. Redis 7.0 has no fields that expire: they are
tested in test_hashes_expiry.py."""

from __future__ import annotations

from oracle_strategies import (
    Choices,
    command,
    floats,
    keys,
    numbers,
    option,
    options,
    patterns,
    pick,
    several,
    st,
    values,
    weighted,
)

fields = pick(*"abcdef", "", b"\x00\xff\r\n", "f" * 64, "f" * 65)
some_fields = several(fields, 1, 4)

CHOICES: Choices = [
    (6, command("HSET", keys, several(st.tuples(fields, values), 1, 4))),
    (1, command("HMSET", keys, several(st.tuples(fields, values), 1, 3))),
    (2, command("HSETNX", keys, fields, values)),
    (3, command("HGET HSTRLEN HEXISTS", keys, fields)),
    (2, command("HMGET", keys, some_fields)),
    (4, command("HGETALL HKEYS HVALS HLEN", keys)),
    (3, command("HDEL", keys, some_fields)),
    (3, command("HINCRBY", keys, fields, numbers)),
    (2, command("HINCRBYFLOAT", keys, fields, weighted((1, numbers), (1, floats)))),
    (1, command("HRANDFIELD", keys, pick(0, 1000, "abc"))),
    (
        2,
        command(
            *("HSCAN", keys, pick(0, 0, 0, "abc")),
            option("COUNT", pick(1000, 1000, 0, -1, "abc")),
            options(option("MATCH", patterns), option("NX")),
        ),
    ),
]
