"""Reads that are slow, and commands that wait for them, in the core: the tests do the threads' part
themselves (state/cold.py, storage/reads.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cold_launcher import NEVER, all_on_disk, read_all_cold
from core import Client, Core

from kvserver.state.session import CLOSING, COLD
from kvserver.storage import reads as reads_module
from kvserver.storage.commitlog import ROWS
from kvserver.storage.engine import ColdRead, Engine


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db", row_cache_size="0") as core:
        core.log.cache.resize(0)
        core.engine.in_memory = lambda cf, key: (True, None)  # type: ignore[method-assign]
        read_all_cold(core.log)
        yield core


def fetch(core: Core) -> None:
    """The workers' part."""
    sessions = core.server.cold.take()
    core.end_turn()
    for session in sessions:
        session.cold.warmed = set(core.server.cold.ahead(session).heads)
    core.server.cold.run_again(sessions)
    core.end_turn()


def put(core: Core, client: Client, *args: bytes) -> None:
    """A command whose reads are warm."""
    core.log.reads.slow = False
    client.ask(*args)
    core.log.reads.slow = True


def test_a_command_ends_though_nothing_gets_warm(core: Core) -> None:
    client = core.client()
    put(core, client, b"SET", b"k", b"v")
    client.call(b"GET", b"k")
    rounds = 0
    while client.session.stop & COLD:
        rounds += 1
        core.server.cold.run_again(core.server.cold.take())
    core.end_turn()
    assert client.take() == b"$1\r\nv\r\n"
    assert rounds == 4


def test_a_row_cold_in_the_middle_of_a_command(core: Core) -> None:
    client = core.client()
    put(core, client, b"HSET", b"h", b"f", b"1")
    reader = core.server.keyspace.readers[0]
    hits = reader.hits
    assert client.ask(b"HGET", b"h", b"f") == b""
    fetch(core)  # the header
    assert client.take() == b""
    assert reader.hits == hits
    while client.session.stop & COLD:  # no element is ever fetched
        core.server.cold.run_again(core.server.cold.take())
    core.end_turn()
    assert client.take() == b"$1\r\n1\r\n"
    assert reader.hits == hits + 1


def test_what_is_set_aside_is_gone_with_its_session(core: Core) -> None:
    client = core.client()
    put(core, client, b"SET", b"k", b"1")
    client.ask(b"INCR", b"k")
    client.session.stop |= CLOSING
    fetch(core)
    assert client.session.cold is None
    other = core.client()
    other.ask(b"GET", b"k")
    fetch(core)
    assert other.take() == b"$1\r\n1\r\n"


def test_look_ahead_finds_headers_and_elements(core: Core) -> None:
    client = core.client()
    core.engine.in_memory = Engine.in_memory.__get__(core.engine)  # type: ignore[method-assign]
    put(core, client, b"HSET", b"h", b"f", b"1", b"g", b"2")
    cold = core.server.cold
    client.session.cold = None
    core.engine.in_memory = lambda cf, key: (True, None)  # type: ignore[method-assign]
    client.ask(b"HMGET", b"h", b"f", b"g", b"x")
    ahead = cold.ahead(client.session)
    rows = core.engine.fetch(ROWS, ahead.heads)
    assert len(rows) == 1
    assert rows[0]
    assert [key[-2:] for key in ahead.elements(rows)] == [b"ff", b"fg", b"fx"]
    assert ahead.elements([None]) == []


# -- when reads are slow ------------------------------------------------------------------------


@pytest.fixture
def reads(tmp_path: Path) -> Iterator[reads_module.Reads]:
    with Core(tmp_path / "db") as core:
        core.engine.in_memory = all_on_disk.__get__(core.engine)  # type: ignore[method-assign]
        core.log.reads.slow_ns = reads_module.SLOW_NS
        yield core.log.reads


def test_reads_are_slow_when_they_take_long_on_average(reads: reads_module.Reads) -> None:
    for _ in range(100):
        reads.took(reads.slow_ns - 1000)
    assert not reads.slow
    reads.took(10**10)  # one counts as four milliseconds
    assert reads.average_ns < 600_000
    assert reads.slow
    for _ in range(30):
        reads.took(2000)
    assert not reads.slow


def test_a_turn_has_time_for_some_reads(reads: reads_module.Reads) -> None:
    reads.took(10**10)
    reads.trial_at, reads.slow_ns = NEVER, -1
    reads.begin(True, None)
    reads.average_ns, reads.spent_ns = 100_000, 0
    assert reads.load(ROWS, b"k", False) is None
    assert reads.spent_ns > 0
    for average, spent in ((100_000, 950_000), (1_100_000, 0)):
        reads.average_ns, reads.spent_ns = average, spent
        with pytest.raises(ColdRead):
            reads.load(ROWS, b"k", False)


def test_after_a_long_read_there_is_none_for_a_while(reads: reads_module.Reads) -> None:
    reads.took(10**10)
    get = reads._engine.get
    pauses = [0.003, 0.0]

    def slow_once(cf: int, key: bytes) -> bytes | None:
        time.sleep(pauses.pop(0))
        return get(cf, key)

    reads._engine.get = slow_once  # type: ignore[method-assign]
    reads.slow_ns = -1
    reads.begin(True, None)
    reads.average_ns = reads.spent_ns = 0
    assert reads.load(ROWS, b"k", False) is None
    begun = time.perf_counter_ns()
    assert begun + reads_module.LONG_NS < reads.trial_at
    for _ in range(3):  # in other turns, though the average read is a quick one
        reads.average_ns = reads.spent_ns = 0
        assert not reads.allows(1)
        with pytest.raises(ColdRead):
            reads.load(ROWS, b"k", False)
    reads.trial_at = begun
    assert reads.load(ROWS, b"k", False) is None
    reads.average_ns = reads.spent_ns = 0
    assert reads.allows(1)


def test_the_end_of_a_turn_begins_to_count_anew(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        core.log.reads.spent_ns = 5
        core.end_turn()
        assert core.log.reads.spent_ns == 0


def test_trials_show_that_reads_are_quick_again(reads: reads_module.Reads) -> None:
    reads.took(10**10)
    reads.spent_ns = reads.turn_ns
    reads.begin(True, None)
    trials = 0
    deadline = time.monotonic() + 20
    while reads.slow and time.monotonic() < deadline:
        try:
            reads.load(ROWS, b"k", False)
            trials += 1
        except ColdRead:
            assert (reads.cold_cf, reads.cold_key) == (ROWS, b"k")
    assert not reads.slow
    assert trials >= 5


def test_nothing_waits_in_a_command_that_wrote_or_may_not_wait(reads: reads_module.Reads) -> None:
    reads.took(10**10)
    reads.trial_at, reads.turn_ns = NEVER, -1
    for waits, warmed, changed in ((False, None, False), (True, None, True), (True, {b"k"}, False)):
        reads.begin(waits, warmed)
        assert reads.load(ROWS, b"k", changed) is None
    reads.begin(True, set())
    with pytest.raises(ColdRead):
        reads.load(ROWS, b"k", False)


def test_reads_calm_down(reads: reads_module.Reads) -> None:
    reads.took(10**10)
    reads.calm(time.perf_counter_ns())
    assert reads.slow
    reads.calm(time.perf_counter_ns() + 2 * reads_module.CALM_NS)
    assert not reads.slow


def test_memory_is_asked_without_the_disk(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        keys = [b"key:%d" % number for number in range(1000)]
        for key in keys:
            client.ask(b"SET", key, key * 20)
        reader = core.server.keyspace.readers[0]

        def ask(key: bytes) -> tuple[bool, bytes | None]:
            return core.engine.in_memory(ROWS, reader.row_key(key))

        assert ask(keys[0]) == (True, b"\0" + keys[0] * 20)
        core.engine.flush()
        core.engine.reopen()
        assert ask(keys[0]) == (True, None)
        assert ask(b"none") == (False, None)
        rows = [reader.row_key(key) for key in (keys[0], b"none")]
        assert core.engine.fetch(ROWS, rows) == [b"\0" + keys[0] * 20, None]
        assert ask(keys[0]) == (True, b"\0" + keys[0] * 20)
        core.engine.close()
        assert core.engine.fetch(ROWS, rows) == [None, None]
