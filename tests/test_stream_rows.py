"""The rows of streams: ids, what commands leave behind, and what they touch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core import Client, Core
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invariants_streams import check_rows
from oracle_compare import Command
from oracle_strategies import command, keys, weighted
from oracle_streams import CHOICES
from pair import Pair

from kvserver import codec
from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.errors import RedisError
from kvserver.storage.commitlog import DATA
from kvserver.types import stream_groups, streams
from kvserver.types import stream_ids as ids

U64 = (1 << 64) - 1


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (b"1-2", (1, 2)),
        (b"7", (7, 9)),
        (b"007-03", (7, 3)),
        (b" 7-3", (7, 3)),
        (b"7-+3", (7, 3)),
        (b"7--03", (7, U64 - 2)),
        (b"7--0", (7, 0)),
        (b"7-3\0x", (7, 3)),
        (b"%d-%d" % (U64, U64), (U64, U64)),
        (b"7--3", None),
        (b"7-", None),
        (b"-7", None),
        (b"-", None),
        (b"+", None),
        (b"", None),
        (b"7-3 ", None),
        (b"7-3-1", None),
        (b"7-*", None),
        (b"0x7-1", None),
        (b"%d-0" % (U64 + 1), None),
        (b"0-%d" % (U64 + 1), None),
        (b"0" * 126 + b"7", (7, 9)),
        (b"0" * 127 + b"7", None),
    ],
)
def test_ids(word: bytes, expected: tuple[int, int] | None) -> None:
    found = ids.try_parse(word, 9)
    assert (None if found is None else ids.parts(found)) == expected
    if expected is None:
        with pytest.raises(RedisError, match="Invalid stream ID"):
            ids.parse(word)


def test_neighbours() -> None:
    assert ids.after(ids.make(1, U64)) == ids.make(2, 0)
    assert ids.before(ids.make(2, 0)) == ids.make(1, U64)
    assert ids.after(ids.LAST) is None
    assert ids.before(ids.ZERO) is None
    assert ids.text(ids.make(5, 6)) == b"5-6"


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 70_000])
def test_fields_are_packed(size: int) -> None:
    fields = (b"", b"x" * size, b"f", b"\xff" * size)
    row = streams.pack(7, fields)
    assert streams.node_of(row) == 7
    assert streams.fields_of(row) == list(fields)


# -- what commands leave behind --------------------------------------------------------------------


def elements(core: Core, prefix: bytes) -> dict[bytes, bytes]:
    """The rows under this prefix, by the type's own part of their keys."""
    found = core.log.data.scan(prefix, codec.prefix_end(prefix))
    return {key[ELEMENT_PREFIX_LEN:]: row for key, row in found}


def check(core: Core) -> int:
    """What must hold of all streams in database 0, after a commit; returns how many there are."""
    reader = core.server.keyspace.readers[0]
    known = set()
    for _, row in list(core.log.rows.scan(*reader.bounds())):
        if codec.row_type(row) == codec.STREAM:
            prefix = reader.db.prefix + codec.collection_id(row)
            known.add(prefix)
            check_rows(row, elements(core, prefix))
    rows = core.log.data.scan(reader.db.prefix, codec.prefix_end(reader.db.prefix))
    assert {key[:ELEMENT_PREFIX_LEN] for key, _ in rows} <= known, "rows of no stream"
    return len(known)


commands = weighted(*CHOICES, (0.5, command("DEL RENAME COPY", keys, keys)))
#: Commands of one turn, and of the next ...
programs = st.lists(st.lists(commands, min_size=1, max_size=8), min_size=1, max_size=40)


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path, stream_node_max_entries="3") as made:
        yield made


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(program=programs)
def test_any_program(core: Core, program: list[list[Command]]) -> None:
    client = core.client()
    client.ask(b"FLUSHALL")
    for turn in program:
        for one in turn:
            client.call(*one)
        core.end_turn()
        check(core)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(program=st.lists(commands, min_size=1, max_size=60))
def test_any_program_as_redis_does_it(pair: Pair, program: list[Command]) -> None:
    pair.same([("FLUSHALL",), *program])


def many(core: Core, count: int) -> Client:
    """A stream of so many entries, in batches that are committed."""
    client = core.client()
    for number in range(1, count + 1):
        client.call(b"XADD", b"s", b"%d-0" % number, b"f", b"v")
        if number % 1000 == 0:
            core.end_turn()
    client.take()
    return client


def test_large_groups_are_dropped_as_ranges(core: Core) -> None:
    client = many(core, 2000)
    client.ask(b"XGROUP", b"CREATE", b"s", b"g", b"0")
    client.ask(b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", b"s", b">")
    check(core)
    client.call(b"XGROUP", b"DESTROY", b"s", b"g")
    client.call(b"XGROUP", b"CREATE", b"s", b"g", b"1990-0")
    client.call(b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", b"s", b">")
    client.call(b"XPENDING", b"s", b"g")
    core.end_turn()
    assert client.take().endswith(
        b"*4\r\n:10\r\n$6\r\n1991-0\r\n$6\r\n2000-0\r\n*1\r\n*2\r\n$1\r\nc\r\n$2\r\n10\r\n"
    )
    check(core)


def test_trimmed_and_read_in_one_turn(core: Core) -> None:
    """Rows of a range that is dropped still show until the commit: nobody may see them."""
    client = many(core, 2000)
    for words in (
        b"XTRIM s MAXLEN 1000",
        b"XRANGE s - + COUNT 1",
        b"XDEL s 5-0",
        b"XTRIM s MAXLEN 0",
        b"XRANGE s - +",
        b"XSETID s 7-0",
        b"XADD s 8-0 f v",
        b"XADD s 3000-0 f v",
        b"XRANGE s - +",
    ):
        client.call(*words.split())
    core.end_turn()
    entry = b"*2\r\n$%d\r\n%b\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
    first, last = entry % (3, b"8-0"), entry % (6, b"3000-0")
    expected = [
        *(b":1000\r\n", b"*1\r\n" + entry % (6, b"1001-0"), b":0\r\n", b":1000\r\n", b"*0\r\n"),
        *(b"+OK\r\n", b"$3\r\n8-0\r\n", b"$6\r\n3000-0\r\n", b"*2\r\n" + first + last),
    ]
    assert client.take() == b"".join(expected)
    assert check(core) == 1
    assert client.ask(b"XRANGE", b"s", b"-", b"+") == expected[-1]


# -- what commands touch ---------------------------------------------------------------------------


class Steps:
    """Counts the steps of walks through the elements."""

    def __init__(self, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        scan = core.engine.scan

        def counted(cf: int, *bounds: Any) -> Iterator[Any]:
            for entry in scan(cf, *bounds):
                self.count += cf == DATA
                yield entry

        monkeypatch.setattr(core.engine, "scan", counted)

    def of(self, client: Client, *args: bytes) -> int:
        """Those of one command."""
        self.count = 0
        assert not client.ask(*args).startswith(b"-")
        return self.count


def test_cost_does_not_grow_with_the_stream(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    client = many(core, 10_000)
    client.ask(b"XGROUP", b"CREATE", b"s", b"g", b"5000-0")
    steps = Steps(core, monkeypatch)
    read = (b"XREADGROUP", b"GROUP", b"g", b"c", b"COUNT", b"10", b"STREAMS", b"s", b">")
    assert steps.of(client, *read) <= 10
    assert steps.of(client, b"XRANGE", b"s", b"5000", b"+", b"COUNT", b"10") <= 10
    assert steps.of(client, b"XACK", b"s", b"g", b"5001-0", b"5002-0") == 0
    assert steps.of(client, b"XPENDING", b"s", b"g") <= 3
    assert steps.of(client, b"XDEL", b"s", b"7000-0") == 0
    assert steps.of(client, b"XDEL", b"s", b"1-0") <= 1
    assert steps.of(client, b"XADD", b"s", b"10001-0", b"f", b"v") == 0
    assert steps.of(client, b"XADD", b"s", b"MAXLEN", b"9999", b"10002-0", b"f", b"v") <= 2
    assert steps.of(client, b"XINFO", b"STREAM", b"s") <= 3
    # From the end that is nearer, and few rows are written: a range is dropped.
    before = core.log.pending_bytes
    client.call(b"XTRIM", b"s", b"MAXLEN", b"10")
    assert core.log.pending_bytes - before < 1000
    core.end_turn()
    check(core)


def test_acknowledged_entries_are_not_stepped_over(core: Core) -> None:
    client = many(core, 1000)
    client.ask(b"XGROUP", b"CREATE", b"s", b"g", b"0")
    client.ask(b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", b"s", b">")
    for number in range(1, 901):
        client.ask(b"XACK", b"s", b"g", b"%d-0" % number)
    rows = core.server.keyspace.readers[0].collection(b"s", codec.STREAM)
    assert rows is not None
    group = stream_groups.find(rows, b"g")
    assert group is not None
    consumer = group.consumer(b"c")
    assert consumer is not None
    for floor in (group.floor, consumer.floor):
        assert ids.make(830, 0) < floor <= ids.make(901, 0)
