"""Words on a line, as sdssplitargs of a real server splits them."""

from __future__ import annotations

import random
import time

import pytest
from harness import Server

from kvserver.quoting import split_args


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" \t ", []),
        (b"a  b\tc\r", [b"a", b"b", b"c"]),
        (b"\"a b\" 'c d'", [b"a b", b"c d"]),
        (b'""', [b""]),
        (b'a"b c"', [b"ab c"]),
        (rb'"\x41\x4g\n\"\\"', [b'Ax4g\n"\\']),
        (rb"'\n \' \\ x'", [rb"\n ' \\ x"]),
        (b"a\0b", [b"a"]),
        (b"a\vb \v c", [b"a\vb", b"c"]),
        (b'"a"b', None),
        (b'"a""b"', None),
        (b'"a', None),
        (b"'a\\'", None),
        (b'"a\0"', None),
    ],
)
def test_words(line: bytes, words: list[bytes] | None) -> None:
    assert split_args(line) == words


ALPHABET = [
    b'"',
    b"'",
    b"\\",
    b" ",
    b"a",
    b"x41",
    b"n",
    b"\t",
    b"\r",
    b"\v",
    b"\xff",
    b"\\'",
    b'\\"',
]


def test_words_of_a_real_server(oracle: Server) -> None:
    generator = random.Random(1)
    conn = oracle.conn()
    head = b"EVAL 'return ARGV' 0 "
    for _ in range(500):
        line = b"".join(generator.choices(ALPHABET, k=generator.randrange(12))) + b" "
        conn.send(head + line + b"\n")
        reply = conn.reply()
        words = split_args(line)
        if words is None:
            assert reply == b"-ERR Protocol error: unbalanced quotes in request\r\n", line
            conn = oracle.conn()
        else:
            items = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
            assert reply == b"*%d\r\n%b" % (len(words), items), line


@pytest.mark.parametrize(
    "line",
    [b'"' + b"\\" * 65535, b"'" + b"\\'" * 32767, b"a" * 65535 + b'"', b"\\x" * 32000 + b'"'],
)
def test_hostile_lines_take_no_time(line: bytes) -> None:
    start = time.perf_counter()
    assert split_args(line) is None
    assert time.perf_counter() - start < 1.0
