"""The walks of KEYS and SCAN: every key that stays is returned, whatever changes, ends or is
forgotten meanwhile, and prefixes are sought instead of walked."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from core import Client, Core
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvserver import codec, glob, scan
from kvserver.database import Reader

T = TypeVar("T")

# -- cursors -------------------------------------------------------------------------------------


def test_a_cursor_leads_to_its_place() -> None:
    cursors = scan.Cursors()
    for slot in (0, 1, 5000, codec.SLOTS - 1):
        place = codec.SLOT_BYTES[slot] + b"key"
        number = cursors.number(place)
        assert 0 < number < 1 << 53
        assert cursors.place(number) == place
        other = cursors.number(codec.SLOT_BYTES[slot] + b"other")
        assert other != number
        assert cursors.place(number) == place
    assert cursors.number(None) == 0
    assert cursors.place(0) == codec.SLOT_BYTES[0]


def test_the_beginning_of_a_slot_needs_no_memory() -> None:
    number = scan.Cursors().number(codec.SLOT_BYTES[77])
    assert scan.Cursors().place(number) == codec.SLOT_BYTES[77]


def test_a_forgotten_place_is_the_beginning_of_its_slot() -> None:
    cursors = scan.Cursors(limit=3)
    places = [codec.SLOT_BYTES[9] + b"%d" % number for number in range(4)]
    numbers = [cursors.number(place) for place in places[:3]]
    assert cursors.place(numbers[0]) == places[0]  # used now: the second is the oldest
    numbers.append(cursors.number(places[3]))
    found = [cursors.place(number) for number in numbers]
    assert found == [places[0], codec.SLOT_BYTES[9], places[2], places[3]]


def test_another_slots_place_is_never_taken() -> None:
    cursors = scan.Cursors()
    number = cursors.number(codec.SLOT_BYTES[9] + b"key")
    assert cursors.place(number + (1 << 38)) == codec.SLOT_BYTES[10]
    assert cursors.place((codec.SLOTS << 38) | 1) is None
    assert cursors.place((1 << 64) - 1) is None


def test_places_are_bounded_in_bytes() -> None:
    cursors = scan.Cursors(limit_bytes=1000)
    numbers = [cursors.number(codec.SLOT_BYTES[9] + b"x" * 298) for _ in range(10)]
    found = [len(cursors.place(number) or b"") for number in numbers]
    assert found == [2] * 7 + [300] * 3
    huge = cursors.number(codec.SLOT_BYTES[9] + b"x" * 5000)
    assert len(cursors.place(huge) or b"") == 5002
    assert len(cursors.place(numbers[-1]) or b"") == 2


def test_one_slot_patterns() -> None:
    assert scan.pattern_slot(b"user:1") == codec.slot_of(b"user:1")
    assert scan.pattern_slot(b"us\\er:1") == codec.slot_of(b"user:1")
    assert scan.pattern_slot(b"{user1}:*") == codec.slot_of(b"user1")
    assert scan.pattern_slot(b"a{user1}:[ab]?*") == codec.slot_of(b"user1")
    assert scan.pattern_slot(b"user:*") is None
    assert scan.pattern_slot(b"{user*}:a") is None
    assert scan.pattern_slot(b"{}:*") is None
    assert scan.pattern_slot(b"*{user1}") is None


# -- walks ----------------------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db") as core:
        yield core


def fill(core: Core, names: list[bytes], index: int = 0) -> Reader:
    for name in names:
        core.server.keyspace.writers[index].put_string(name, b"v")
    core.log.advance()
    core.log.commit()
    return core.server.keyspace.readers[index]


def run(walk: Generator[list[bytes], None, T]) -> tuple[list[bytes], T, int]:
    """(keys of all steps but the last, what is returned, number of steps)."""
    found: list[bytes] = []
    steps = 1
    while True:
        try:
            found += next(walk)
        except StopIteration as done:
            return found, done.value, steps
        steps += 1


def all_keys(reader: Reader, pattern: bytes = b"*") -> list[bytes]:
    found, last, _ = run(scan.keys(reader, pattern))
    return found + last


def matching(pattern: bytes, names: Iterable[bytes]) -> list[bytes]:
    """What KEYS must return: `*` is no pattern but everything, the empty key too."""
    matches = glob.compile(pattern)
    return sorted(name for name in names if pattern == b"*" or matches(name))


def iteration(
    reader: Reader, count: int, pattern: bytes = b"*", between: Callable[[], None] = lambda: None
) -> Iterator[list[bytes]]:
    """The keys of each call of a whole iteration, the places through numbers."""
    cursors = scan.Cursors()
    number, first = 0, True
    while number or first:
        first = False
        place = cursors.place(number)
        assert place is not None
        found, (last, place), _ = run(scan.scan(reader, place, count, pattern))
        number = cursors.number(place)
        yield found + last
        between()


@pytest.mark.parametrize("count", [1, 3, 10, 1000, 100_000])
@pytest.mark.parametrize("tag", [b"", b"{t}"])
def test_an_iteration_returns_each_key_once(core: Core, tag: bytes, count: int) -> None:
    names = [tag + b"key:%d" % number for number in range(1500)]
    fill(core, [b"elsewhere", tag + b"key:1"], 1)
    reader = fill(core, names)
    calls = list(iteration(reader, count))
    assert sorted(key for call in calls for key in call) == sorted(names)
    assert all(len(call) == count for call in calls[:-1])
    assert sorted(all_keys(reader)) == sorted(names)


@pytest.mark.parametrize("seed", range(5))
def test_keys_that_stay_are_returned_while_others_come_and_go(core: Core, seed: int) -> None:
    random.seed(seed)
    names = [b"%b%d" % (random.choice([b"", b"{t}"]), number) for number in range(600)]
    stay, others = set(names[:300]), names[300:]
    writer = core.server.keyspace.writers[0]
    reader = fill(core, names[:450])

    def change() -> None:
        for name in random.sample(others, 20):
            if not writer.delete(name):
                writer.put_string(name, b"v")
        if core.log.changed:
            core.log.advance()
        if random.random() < 0.5 and core.log.pending:
            core.log.commit()

    calls = list(iteration(reader, 7, between=change))
    found = [key for call in calls for key in call]
    assert stay <= set(found)
    assert all(found.count(name) == 1 for name in stay)
    assert set(found) <= set(names)


def test_an_iteration_goes_on_after_its_places_were_forgotten(core: Core) -> None:
    names = [b"{t}%d" % number for number in range(50)] + [b"%d" % n for n in range(500)]
    reader = fill(core, names)
    found: list[bytes] = []
    cursors, number, calls = scan.Cursors(), 0, 0
    while number or not calls:
        calls += 1
        if calls == 5:
            cursors = scan.Cursors()  # as after a restart
        place = cursors.place(number)
        assert place is not None
        some, (last, place), _ = run(scan.scan(reader, place, 20))
        found += some + last
        number = cursors.number(place)
    assert set(found) == set(names)


def test_a_walk_keeps_the_view_of_its_beginning(core: Core) -> None:
    names = [b"%d" % number for number in range(1000)]
    reader, writer = fill(core, names), core.server.keyspace.writers[0]
    writer.put_string(b"uncommitted", b"v")
    walk = scan.keys(reader, b"*")
    found = next(walk)
    for name in names:
        writer.delete(name)
        writer.put_string(b"new" + name, b"v")
    core.log.advance()
    core.log.commit()
    rest, last, steps = run(walk)
    assert sorted(found + rest + last) == sorted([*names, b"uncommitted"])
    assert steps == 1000 // scan.STEPS  # and the first one


# -- prefixes -------------------------------------------------------------------------------------


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any database is large enough to be sought in."""
    monkeypatch.setattr(scan, "DENSE", -1)


PATTERNS = [
    b"user:1*",
    b"user:12?",
    b"u*",
    b"user:99[0-4]",
    b"*",
    b"x*",
    b"user:",
    b"user:7",
    b"\xff*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("uncommitted", [False, True])
@pytest.mark.usefixtures("dense")
def test_seeking_finds_what_walking_finds(core: Core, pattern: bytes, uncommitted: bool) -> None:
    names = [
        b"%b:%d" % (kind, n) for kind in (b"a", b"user", b"z\xff", b"\xff\xff") for n in range(500)
    ]
    reader = fill(core, names)
    writer = core.server.keyspace.writers[0]
    if uncommitted:
        for number in range(0, 500, 3):
            writer.delete(b"user:%d" % number)
            writer.put_string(b"user:1:%d" % number, b"v")
        names = [name for name in names if writer.exists(name)]
        names += [b"user:1:%d" % number for number in range(0, 500, 3)]
    expected = matching(pattern, names)
    assert sorted(all_keys(reader, pattern)) == expected
    for count in (1, 10, 5000):
        found = [key for call in iteration(reader, count, pattern) for key in call]
        assert sorted(found) == expected


names_in_tests = st.binary(max_size=4) | st.text("ab{}:*", max_size=5).map(str.encode)
patterns_in_tests = names_in_tests | st.text("ab{}*?[]^-\\", max_size=7).map(str.encode)


@given(
    names=st.sets(names_in_tests, max_size=40), pattern=patterns_in_tests, count=st.integers(1, 8)
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("density", [-1, 8])
def test_any_pattern(
    shared_core: Core,
    monkeypatch: pytest.MonkeyPatch,
    density: int,
    names: set[bytes],
    pattern: bytes,
    count: int,
) -> None:
    monkeypatch.setattr(scan, "DENSE", density)
    shared_core.server.keyspace.flush(shared_core.server.keyspace.databases[0])
    reader = fill(shared_core, sorted(names))
    expected = matching(pattern, names)
    assert sorted(all_keys(reader, pattern)) == expected
    found = [key for call in iteration(reader, count, pattern) for key in call]
    assert sorted(found) == expected


@pytest.fixture(scope="module")
def shared_core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with Core(tmp_path_factory.mktemp("core") / "db") as core:
        yield core


@pytest.mark.usefixtures("dense")
def test_a_prefix_costs_a_jump_for_each_slot_not_a_step_for_each_key(core: Core) -> None:
    names = [b"%b:%d" % (kind, number) for kind in (b"a", b"z") for number in range(10_000)]
    reader = fill(core, [*names, b"user:1", b"user:2"])
    slots = len({codec.slot_of(name) for name in names})
    found, last, steps = run(scan.keys(reader, b"user:*"))
    assert sorted(found + last) == [b"user:1", b"user:2"]
    assert steps <= 2 * slots // scan.STEPS + 1
    calls = list(iteration(reader, 1000, b"user:*"))
    assert len(calls) <= 2 * slots // (1000 * scan.JUMPS_PER_KEY) + 1
    assert sorted(key for call in calls for key in call) == [b"user:1", b"user:2"]


def test_a_pattern_with_one_slot_looks_nowhere_else(core: Core) -> None:
    reader = fill(core, [b"%d" % number for number in range(3000)] + [b"{t}1", b"{t}2", b"{t}x"])
    for pattern, expected in ((b"{t}?", 3), (b"{t}1", 1), (b"17", 1), (b"{missing}*", 0)):
        found, last, steps = run(scan.keys(reader, pattern))
        assert (len(found + last), steps) == (expected, 1)
        (call,) = iteration(reader, 10, pattern)
        assert len(call) == expected


# -- expired keys ---------------------------------------------------------------------------------


def test_expired_keys_are_left_out_and_scan_deletes_them(core: Core) -> None:
    keyspace = core.server.keyspace
    reader, writer = keyspace.readers[0], keyspace.writers[0]
    for number in range(600):
        writer.put_string(b"%d" % number, b"v", keyspace.now + 1 if number % 2 else 0)
    core.log.advance()
    core.log.commit()
    keyspace.now += 2
    assert len(all_keys(reader)) == 300
    assert reader.size() == 600
    assert sum(len(call) for call in iteration(reader, 50, b"1*")) == 55
    assert reader.size() == 600 - 56
    assert sum(len(call) for call in iteration(reader, 50)) == 300
    assert reader.size() == 300
    assert keyspace.expired_keys == 300


def test_a_walk_does_not_delete_what_was_written_anew(core: Core) -> None:
    keyspace = core.server.keyspace
    writer = keyspace.writers[0]
    for number in range(1000):
        writer.put_string(b"{t}%04d" % number, b"v", keyspace.now + 1)
    core.log.advance()
    core.log.commit()
    keyspace.now += 2
    walk = scan.scan(keyspace.readers[0], b"", 5000)
    next(walk)
    for number in range(900, 1000):
        writer.put_string(b"{t}%04d" % number, b"w")
    keyspace.swap(0, 1)
    writer = keyspace.writers[0]
    writer.put_string(b"{t}0999", b"x")
    run(walk)
    assert writer.string(b"{t}0999") == b"x"
    keyspace.swap(0, 1)
    assert keyspace.writers[0].string(b"{t}0999") == b"w"
    assert core.log.changed


def test_a_client_that_leaves_ends_its_walk(core: Core) -> None:
    fill(core, [b"%d" % number for number in range(1000)])
    client: Client = core.client()
    client.call(b"KEYS", b"*")
    assert len(core.server.waiting.walks) == 1
    core.server.waiting.forget_blocked(client.session)
    assert core.server.waiting.walks == []
    client = core.client()
    client.call(b"KEYS", b"*")
    while core.server.waiting.step_walks(10**6):
        pass
    core.end_turn()
    assert client.take().startswith(b"*1000\r\n")
