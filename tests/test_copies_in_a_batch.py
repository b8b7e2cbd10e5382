"""Copies of a collection of which the same batch dropped a range: the stored rows still show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datadir
import pytest
from core import Client, Core

from kvserver.storage.commitlog import DATA, ROWS

#: More are dropped as a range.
MANY = 300

Words = list[bytes]


def pushed(client: Client) -> None:
    """Elements with rows of their own."""
    client.ask(b"RPUSH", b"k", *(b"%d" % n * 300 for n in range(2 * MANY)))


def added(client: Client) -> None:
    for n in range(1, 2 * MANY):
        client.call(b"XADD", b"k", b"%d" % n, b"f", b"v")
    client.ask(b"XADD", b"k", b"%d" % (2 * MANY), b"f", b"v")


COPIES = [[b"COPY", b"k", b"c"], [b"COPY", b"k", b"c", b"DB", b"1"], [b"MOVE", b"k", b"1"]]


@pytest.mark.parametrize("copy", COPIES, ids=[b" ".join(words).decode() for words in COPIES])
@pytest.mark.parametrize(
    ("fill", "trim"),
    [
        (pushed, [b"LTRIM", b"k", b"%d" % MANY, b"-1"]),
        (pushed, [b"LTRIM", b"k", b"0", b"%d" % (MANY - 1)]),
        (added, [b"XTRIM", b"k", b"MAXLEN", b"5"]),
    ],
    ids=["front of a list", "back of a list", "stream"],
)
def test_nothing_that_was_dropped_is_copied(
    tmp_path: Path, fill: Callable[[Client], None], trim: Words, copy: Words
) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        fill(client)
        client.call(*trim)
        client.call(*copy)
        client.ask(b"PING")
        rows, elements = (dict(core.engine.scan(cf, b"", b"\xff" * 8)) for cf in (ROWS, DATA))
        assert len(rows) == (1 if copy[0] == b"MOVE" else 2)
        datadir.check_collections(rows, elements)


def test_what_was_written_again_is_copied(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        pushed(client)
        client.call(b"LTRIM", b"k", b"%d" % MANY, b"-1")
        client.call(b"LPUSH", b"k", b"again")
        client.call(b"COPY", b"k", b"c")
        core.end_turn()
        client.take()
        expected = b"*2\r\n$5\r\nagain\r\n$900\r\n%b\r\n" % (b"300" * 300)
        assert client.ask(b"LRANGE", b"c", b"0", b"1") == expected
        assert client.ask(b"LLEN", b"c") == b":301\r\n"
