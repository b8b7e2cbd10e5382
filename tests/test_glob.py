"""Glob patterns against a port of Redis' own matcher, and against a real server's KEYS."""

import random
import time

import pytest
from harness import Server
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvserver import glob

# Bytes that mean something in a pattern, letters of both cases, and bytes over 127.
ALPHABET = b"*?[]^\\-abcyzABCYZ_@\n\x00\x7f\x80\xff"
patterns = st.lists(st.sampled_from(ALPHABET), max_size=14).map(bytes)
strings = st.lists(st.sampled_from(ALPHABET), max_size=10).map(bytes)
starry = st.lists(st.sampled_from(b"**?ab"), max_size=14).map(bytes)
letters = st.lists(st.sampled_from(b"ab"), max_size=16).map(bytes)


def lower(char: int) -> int:
    return ord(chr(char).lower()) if 0 <= char < 128 else char


def reference(pattern: bytes, string: bytes, nocase: bool) -> bool:
    """util.c stringmatchlen, 7.4.1, with recursion for the stars."""
    return _reference(_signed(pattern), _signed(string), nocase, 0)


def _signed(data: bytes) -> list[int]:
    return [b - 256 if b > 127 else b for b in data]


def _reference(p: list[int], s: list[int], nocase: bool, nesting: int) -> bool:
    if nesting > 1000:
        return False
    fold = lower if nocase else int
    while p and s:
        head = chr(p[0] & 255)
        if head == "*":
            while len(p) > 1 and p[1] == ord("*"):
                p = p[1:]
            if len(p) == 1:
                return True
            return any(_reference(p[1:], s[i:], nocase, nesting + 1) for i in range(len(s)))
        if head == "[":
            p = p[1:]
            negated = p[:1] == [ord("^")]
            p = p[1:] if negated else p
            match = False
            while p and p[0] != ord("]"):
                if p[0] == ord("\\") and len(p) >= 2:
                    p = p[1:]
                    match |= p[0] == s[0]
                elif len(p) >= 3 and p[1] == ord("-"):
                    start, end = min(p[0], p[2]), max(p[0], p[2])
                    match |= fold(start) <= fold(s[0]) <= fold(end)
                    p = p[2:]
                else:
                    match |= fold(p[0]) == fold(s[0])
                p = p[1:]
            if match == negated:
                return False
        elif head != "?":
            if head == "\\" and len(p) >= 2:
                p = p[1:]
            if fold(p[0]) != fold(s[0]):
                return False
        p, s = p[1:], s[1:]
        if not s:
            while p and p[0] == ord("*"):
                p = p[1:]
            break
    return not p and not s


@settings(max_examples=1500, deadline=None)
@given(pattern=patterns, string=strings, nocase=st.booleans())
@example(pattern=b"*", string=b"", nocase=False)
@example(pattern=b"", string=b"", nocase=False)
@example(pattern=b"[Z-a]", string=b"z", nocase=True)
@example(pattern=b"[\\A]", string=b"a", nocase=True)
@example(pattern=b"[\x80-a]", string=b"\xff", nocase=False)
def test_matches_as_redis_does(pattern: bytes, string: bytes, nocase: bool) -> None:
    assert glob.compile(pattern, nocase)(string) == reference(pattern, string, nocase)


@settings(max_examples=1500, deadline=None)
@given(pattern=starry, string=letters)
def test_stars_find_what_backtracking_finds(pattern: bytes, string: bytes) -> None:
    assert glob.compile(pattern)(string) == reference(pattern, string, False)


@settings(max_examples=1500, deadline=None)
@given(pattern=patterns | starry, string=strings | letters, nocase=st.booleans())
def test_long_patterns_match_alike(pattern: bytes, string: bytes, nocase: bool) -> None:
    padding = b"x" * 600
    expected = reference(b"x" + pattern, b"x" + string, nocase)
    assert glob.compile(padding + pattern, nocase)(padding + string) == expected


@settings(max_examples=500, deadline=None)
@given(pattern=patterns, string=strings)
def test_prefix_and_literal_agree_with_the_matcher(pattern: bytes, string: bytes) -> None:
    match = glob.compile(pattern)
    prefix = glob.literal_prefix(pattern)
    if match(string):
        assert string.startswith(prefix)
    if glob.is_literal(pattern):
        assert match(prefix)
        assert match(string) == (string == prefix)


@pytest.mark.parametrize(
    ("pattern", "prefix", "literal"),
    [
        (b"", b"", True),
        (b"user:1", b"user:1", True),
        (b"user:*", b"user:", False),
        (b"user:\\*[1]x", b"user:*1x", True),
        (b"user:[12]x", b"user:", False),
        (b"*", b"", False),
        (b"a\\", b"a\\", True),
        (b"a[", b"a", False),
        (b"k" * 600, b"k" * 512, False),
    ],
)
def test_prefixes(pattern: bytes, prefix: bytes, literal: bool) -> None:
    assert glob.literal_prefix(pattern) == prefix
    assert glob.is_literal(pattern) == literal


def test_more_than_a_thousand_stars_match_nothing() -> None:
    assert glob.compile(b"*a" * 1000)(b"a" * 1000)
    assert not glob.compile(b"*a" * 1001)(b"a" * 1001)
    assert glob.compile(b"*a" * 1000 + b"*")(b"a" * 1000)


@pytest.mark.parametrize("padding", [b"", b"x" * 600], ids=["compiled", "walked"])
def test_many_stars_cost_no_more_than_their_product(padding: bytes) -> None:
    match = glob.compile(padding + b"a*" * 40 + b"b")
    string = padding + b"a" * 20_000
    start = time.process_time()
    assert not match(string)
    assert time.process_time() - start < 0.5


def test_a_huge_pattern_is_not_read_before_it_is_needed() -> None:
    start = time.process_time()
    assert not glob.compile(b"[ab]" * 1_000_000)(b"xyz")
    assert time.process_time() - start < 0.1


def test_keys_of_a_real_server(oracle: Server) -> None:
    """KEYS with random patterns over random names, case regarded."""
    rng = random.Random(7)
    client = oracle.client()
    names = {bytes(rng.choices(ALPHABET, k=rng.randint(1, 6))) for _ in range(400)}
    names |= {bytes(rng.choices(b"ab", k=rng.randint(1, 8))) for _ in range(200)}
    client.mset(dict.fromkeys(names, 1))
    wanted = [bytes(rng.choices(ALPHABET + b"***???", k=rng.randint(1, 8))) for _ in range(400)]
    wanted += [bytes(rng.choices(b"*?ab[]-^", k=rng.randint(1, 12))) for _ in range(400)]
    pipeline = client.pipeline(transaction=False)
    for pattern in wanted:
        pipeline.keys(pattern)
    for pattern, reply in zip(wanted, pipeline.execute(), strict=True):
        match = glob.compile(pattern)
        assert {name for name in names if match(name)} == set(reply), pattern


def test_fields_and_case_of_a_real_server(oracle: Server) -> None:
    """HSCAN MATCH sees an empty name; CONFIG GET ignores case."""
    client = oracle.client()
    client.hset("hash", mapping={b"": 1, b"a": 2})
    for pattern in (b"", b"**", b"*?", b"[^]", b"a*", b"**a**"):
        match = glob.compile(pattern)
        found = client.hscan("hash", match=pattern, count=100)[1]
        assert set(found) == {name for name in (b"", b"a") if match(name)}, pattern
    client = oracle.client(decode_responses=True)
    names = set(client.config_get("*"))
    for pattern in ("MAX[C-m]*", "MAX[Z-a]*", "[\\P]ort", "[P]ORT", "*-[A-C]*", "S?V*"):
        match = glob.compile(pattern.encode(), nocase=True)
        assert set(client.config_get(pattern)) == {n for n in names if match(n.encode())}, pattern
