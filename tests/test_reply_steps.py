"""Replies that are built in steps: the bytes are those of the whole value, for both protocols."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from kvserver import resp
from kvserver.commands.replies import Array, Map, Pairs, Set, begin, collect

VALUES = [b"a", b"1", b"b", b"2", b"", b"3"]
PAIRS = [[b"a", 1.5], [b"b", 2.0], [b"c", float("inf")]]


@pytest.mark.parametrize("resp3", [False, True])
@pytest.mark.parametrize(
    ("array", "values", "whole"),
    [
        (Array(), VALUES, VALUES),
        (Array(), [1, b"a"], [1, b"a"]),
        (Array(), [], []),
        (Array(plain=False), [None, 1.5, b"a"], [None, 1.5, b"a"]),
        (Set(), VALUES, resp.Members(VALUES)),
        (Map(), VALUES, {b"a": b"1", b"b": b"2", b"": b"3"}),
        (Map(), [], {}),
    ],
)
def test_bytes(array: Array, values: list[Any], whole: Any, resp3: bool) -> None:
    if resp3:  # the second time
        array = type(array)(array._plain)
    for start in range(0, len(values), 2):
        array.add(values[start : start + 2])
    assert resp.encode(array.reply(), resp3) == resp.encode(whole, resp3)
    assert resp.encode([array.reply()], resp3) == resp.encode([whole], resp3)


def test_pairs() -> None:
    pairs = Pairs()
    for pair in PAIRS:
        pairs.add(pair)
    flat = [part for pair in PAIRS for part in pair]
    assert resp.encode(pairs.reply(), False) == resp.encode(flat, False)
    assert resp.encode(pairs.reply(), True) == resp.encode(PAIRS, True)


def walk(steps: int) -> Generator[list[bytes], None, bytes]:
    for number in range(steps):
        yield [b"%d" % number]
    return b"end"


def reply(steps: int) -> Generator[None, None, Any]:
    array = Array()
    end = yield from collect(walk(steps), array)
    return [end, array.reply()]


def test_a_short_reply_is_given_at_once() -> None:
    assert resp.encode(begin(reply(0)), False) == b"*2\r\n$3\r\nend\r\n*0\r\n"


def test_a_long_reply_goes_on_step_by_step() -> None:
    going_on = begin(reply(2))
    assert next(going_on) is None
    with pytest.raises(StopIteration) as done:
        next(going_on)
    expected = b"*2\r\n$3\r\nend\r\n*2\r\n$1\r\n0\r\n$1\r\n1\r\n"
    assert resp.encode(done.value.value, True) == expected
