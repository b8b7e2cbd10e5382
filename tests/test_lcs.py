"""LCS: the bits against a plain table of lengths, the command against redis-server."""

from __future__ import annotations

import random
import select

import pytest
from harness import Server, encode_command
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pair import Pair

from kvserver.commands import lcs
from kvserver.commands.lcs import Range


def plain_lcs(a: bytes, b: bytes) -> tuple[int, list[Range]]:
    """The length and the ranges, by lcsCommand's table and its way back."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            up, left = table[i - 1][j], table[i][j - 1]
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else max(up, left)
    i, j = len(a), len(b)
    matches: list[tuple[int, int]] = []
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            matches.append((i, j))
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return table[-1][-1], joined(matches)


def joined(matches: list[tuple[int, int]]) -> list[Range]:
    ranges: list[Range] = []
    for i, j in matches:
        if ranges and (ranges[-1][0], ranges[-1][2]) == (i + 1, j + 1):
            ranges[-1] = (i, ranges[-1][1], j, ranges[-1][3])
        else:
            ranges.append((i, i, j, j))
    return ranges


def bitwise_lcs(a: bytes, b: bytes) -> tuple[int, list[Range]]:
    """The length and the ranges, by the module."""
    a_is_shorter = len(a) <= len(b)
    table = lcs.Table(*sorted((a, b), key=len))
    for _ in table.fill(keep=True):
        pass
    walk = lcs.Walk(table, a_is_shorter)
    for _ in walk.run():
        pass
    return table.length, walk.ranges


texts = st.sampled_from([b"a", b"ab", b"abcd", bytes(range(256))]).flatmap(
    lambda alphabet: st.lists(st.sampled_from(alphabet), max_size=60).map(bytes)
)


@pytest.mark.parametrize("strip", [1, 5, 64, lcs.STRIP])
def test_bits_find_what_the_table_finds(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    monkeypatch.setattr(lcs, "STRIP", strip)

    @settings(deadline=None, max_examples=300)
    @example(b"", b"")
    @example(b"", b"abc")
    @example(b"ohmytext", b"mynewtext")
    @given(texts, texts)
    def check(a: bytes, b: bytes) -> None:
        assert bitwise_lcs(a, b) == plain_lcs(a, b)

    check()


@pytest.mark.parametrize(("a_size", "b_size"), [(300, 70_000), (70_000, 300), (1500, 1501)])
@pytest.mark.parametrize("alphabet", [2, 20, 256])
def test_long_strings(
    server: Server, oracle: Server, a_size: int, b_size: int, alphabet: int
) -> None:
    rng = random.Random(alphabet)
    a, b = (bytes(rng.randrange(alphabet) for _ in range(size)) for size in (a_size, b_size))
    commands = [
        ("MSET", "a", a, "b", b),
        ("LCS", "a", "b"),
        ("LCS", "a", "b", "LEN"),
        ("LCS", "a", "b", "IDX", "WITHMATCHLEN"),
        ("LCS", "a", "b", "IDX", "MINMATCHLEN", 3),
    ]
    ours, theirs = server.conn(), oracle.conn()
    for command in commands:
        assert ours.ask(*command) == theirs.ask(*command)


def test_replies(pair: Pair) -> None:
    pair.same(
        """
        MSET a ohmytext b mynewtext
        LCS a b
        LCS a b LEN
        LCS a b IDX
        LCS a b IDX MINMATCHLEN 4
        LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN
        LCS a b IDX WITHMATCHLEN MINMATCHLEN -3
        LCS a b WITHMATCHLEN
        LCS a b MINMATCHLEN 4
        LCS a b LEN MINMATCHLEN 5
        LCS b a IDX
        LCS a a IDX
        LCS a missing
        LCS missing a IDX WITHMATCHLEN
        LCS missing missing LEN
        LCS a b IDX LEN
        LCS a b IDX MINMATCHLEN
        LCS a b MINMATCHLEN x
        LCS a b LEN bogus
        lcs a b len
        LCS a
        """
    )


def test_inside_multi(server: Server) -> None:
    conn = server.conn()
    conn.ask("MSET", "a", "ohmytext", "b", "mynewtext")
    conn.ask("MULTI")
    conn.ask("LCS", "a", "b")
    conn.ask("LCS", "a", "b", "LEN")
    assert conn.ask("EXEC") == b"*2\r\n$6\r\nmytext\r\n:6\r\n"


def test_others_are_served_meanwhile(server: Server) -> None:
    busy, other = server.conn(), server.conn()
    rng = random.Random(0)
    busy.ask("MSET", "a", rng.randbytes(255), "b", rng.randbytes(500_000))
    count = 6  # over a second of work
    busy.send(encode_command("LCS", "a", "b") * count)
    assert other.ask("PING") == b"+PONG\r\n"
    done = 0
    while select.select([busy.sock], [], [], 0)[0]:
        busy.reply()
        done += 1
    assert done < count
    assert len({busy.reply() for _ in range(count - done)}) == 1


def test_steps_are_short() -> None:
    rng = random.Random(1)
    table = lcs.Table(rng.randbytes(1000), rng.randbytes(2000))
    # A step is at most a set of places or ROWS_PER_STEP rows.
    assert sum(1 for _ in table.fill(keep=True)) >= 1000 // lcs.ROWS_PER_STEP + 250
    assert sum(1 for _ in lcs.Walk(table, True).run()) >= 1000 // lcs.ROWS_PER_STEP - 1
