"""Generated commands on sets, for the oracle tests. Members that SPOP takes differ by chance: what
it does is tested in test_sets.py."""

from __future__ import annotations

from oracle_strategies import Choices, command, keys, option, options, pick, several, several_keys

members = pick(*"abcdefgh", 1, 2, 3, -1, 10**18, "", b"\x00\xff\r\n", "m" * 70)
some_members = several(members, 1, 4)

CHOICES: Choices = [
    (6, command("SADD", keys, some_members)),
    (3, command("SREM", keys, some_members)),
    (2, command("SISMEMBER", keys, members)),
    (2, command("SMISMEMBER", keys, some_members)),
    (2, command("SCARD SMEMBERS", keys)),
    (2, command("SMOVE", keys, keys, members)),
    (3, command("SINTER SUNION SDIFF", several_keys)),
    (3, command("SINTERSTORE SUNIONSTORE SDIFFSTORE", keys, several_keys)),
    (
        2,
        command(
            *("SINTERCARD", pick(1, 2, 3, 0, -1, "abc"), several_keys),
            options(option("LIMIT", pick(0, 1, 2, -1, "abc"))),
        ),
    ),
    (1, command("SPOP", keys, pick(0, 1000, -1, "abc"))),
    (1, command("SRANDMEMBER", keys, pick(0, "abc", 1000))),
    (1, command("SSCAN", keys, pick(0), options(option("COUNT", pick(1000, 0, "abc"))))),
]
