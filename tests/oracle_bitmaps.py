"""Generated commands on bits, for the oracle tests. Offsets lie around the edges of fragments and
around the length from which on a string that is changed in part is kept in them."""

from __future__ import annotations

from hypothesis import strategies as st
from oracle_strategies import (
    Choices,
    command,
    keys,
    numbers,
    option,
    options,
    pick,
    several,
    several_keys,
    weighted,
)

from kvserver.numbers import INT64_MAX, INT64_MIN
from kvserver.types.sparse import FRAGMENT, LIMIT

_EDGES = (0, 1, FRAGMENT, 2 * FRAGMENT, 3 * FRAGMENT, LIMIT, LIMIT + FRAGMENT, 100_000)

byte_offsets = st.tuples(st.sampled_from(_EDGES), st.integers(-3, 3)).map(
    lambda place: b"%d" % max(sum(place), 0)
)
near_bits = st.tuples(st.sampled_from(_EDGES), st.integers(-20, 20)).map(
    lambda place: b"%d" % max(place[0] * 8 + place[1], 0)
)
small_bits = st.integers(0, 40).map(lambda n: b"%d" % n)
#: Redis would take 512 MB for the largest that it allows.
wrong_offsets = pick(-1, 1 << 32, "abc", "", "#1", "1.0", 1 << 63, (1 << 63) - 1)
bits = weighted((4, small_bits), (8, near_bits), (1, wrong_offsets))
bit = weighted((12, pick(0, 1, 1, 1)), (1, pick(2, -1, "abc", "")))
#: All of them sound: Redis 7.0 looks the key up before it reads them, 7.4 doesn't, and both count
#: what they looked for.
ends = weighted(
    (4, st.integers(-60, 60).map(lambda n: b"%d" % n)),
    (4, byte_offsets),
    (4, near_bits),
    (1, pick(-1, INT64_MAX, INT64_MIN, INT64_MAX - 1)),
)
unit = several(pick("BIT", "bit", "BYTE"), 0, 1)

types = weighted(
    (8, st.tuples(pick("i", "u"), st.integers(1, 63)).map(lambda t: t[0] + b"%d" % t[1])),
    (3, pick("i64", "u63", "i8", "u8", "i16", "u1", "i1")),
    (1, pick("u64", "i65", "i0", "I8", "x", "", "i", "i8\0x", "i08", "u-1")),
)
#: A multiple of the width that doesn't fit in 64 bits is left to C's overflow: none such here.
fields = weighted(
    (6, bits), (2, st.integers(0, 2100).map(lambda n: b"#%d" % n)), (1, pick("#", "#-1", "#a"))
)
subcommands = weighted(
    (3, option("GET", types, fields)),
    (5, option("SET", types, fields, numbers)),
    (5, option("INCRBY", types, fields, numbers)),
    (3, option("OVERFLOW", pick("WRAP", "SAT", "sat", "FAIL", "FAIL", "NONE"))),
)

CHOICES: Choices = [
    (6, command("SETBIT", keys, bits, bit)),
    (3, command("GETBIT", keys, bits)),
    (3, command("SETRANGE", keys, byte_offsets, st.binary(max_size=12))),
    (1, command("SETRANGE", keys, byte_offsets, pick("x" * 5000, b"\0" * 5000))),
    (2, command("GETRANGE", keys, byte_offsets, byte_offsets)),
    (1, command("APPEND", keys, pick("", "x", b"\0\0", "y" * 5000))),
    (1, command("STRLEN", keys)),
    (1, command("BITCOUNT", keys)),
    (3, command("BITCOUNT", keys, ends, ends, unit)),
    (2, command("BITPOS", keys, bit, several(ends, 0, 1))),
    (3, command("BITPOS", keys, bit, ends, ends, unit)),
    (4, command("BITOP", pick("AND", "OR", "XOR", "xor", "NOP"), keys, several_keys)),
    (2, command("BITOP", pick("NOT"), keys, keys)),
    (6, command("BITFIELD", keys, several(subcommands, 0, 4))),
    (2, command("BITFIELD_RO", keys, options(option("GET", types, fields)))),
    (1, command("BITFIELD_RO", keys, several(subcommands, 0, 2))),
]
