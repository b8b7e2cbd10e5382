"""Generated commands on lists, and SORT, for the oracle tests. What waits is tested in
test_blocking.py: here it finds something, or is in a transaction."""

from __future__ import annotations

from oracle_strategies import Choices, command, keys, option, options, pick, several, several_keys

elements = pick(*"abcd", 1, 2, 30, -1, 10**18, "", b"\x00\xff\r\n", "m" * 70, "n" * 300)
some_elements = several(elements, 1, 4)
indices = pick(0, 1, 2, -1, -2, 7, -7, 2**63 - 1, "abc")
counts = pick(0, 1, 2, 9, -1, "abc")
sides = pick("LEFT", "RIGHT", "left", "MIDDLE")

CHOICES: Choices = [
    (6, command("LPUSH RPUSH", keys, some_elements)),
    (1, command("LPUSHX RPUSHX", keys, some_elements)),
    (3, command("LPOP RPOP", keys)),
    (2, command("LPOP RPOP", keys, counts)),
    (3, command("LLEN", keys)),
    (2, command("LINDEX", keys, indices)),
    (2, command("LSET", keys, indices, elements)),
    (4, command("LRANGE", keys, indices, indices)),
    (2, command("LTRIM", keys, indices, indices)),
    (3, command("LREM", keys, pick(0, 1, 2, -1, -2, "abc"), elements)),
    (3, command("LINSERT", keys, pick("BEFORE", "AFTER", "MIDDLE"), elements, elements)),
    (
        2,
        command(
            *("LPOS", keys, elements),
            options(
                option("RANK", pick(1, -1, 2, -2, 0, "abc")),
                option("COUNT", counts),
                option("MAXLEN", counts),
            ),
        ),
    ),
    (2, command("LMOVE", keys, keys, sides, sides)),
    (1, command("RPOPLPUSH", keys, keys)),
    (
        2,
        command(
            *("LMPOP", pick(1, 2, 0, "abc"), several_keys, sides),
            options(option("COUNT", counts)),
        ),
    ),
    (
        2,
        command(
            *("SORT SORT_RO", keys, pick("ALPHA")),
            options(
                option("DESC"),
                option("LIMIT", pick(0, 1, -1, "abc"), pick(0, 2, -1)),
                option("GET", pick("#", "*", "none_*")),
            ),
        ),
    ),
    (1, command("SORT", keys, pick("ALPHA"), pick("STORE"), keys)),
]
