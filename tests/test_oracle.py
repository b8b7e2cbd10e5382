"""kvserver beside redis-server: the same generated commands, and equal replies.

The programs come from oracle_strategies.py, oracle_arena.py plays them, and what may differ stands
in oracle_compare.py. A failure prints the shortest program that hypothesis finds: `play` it to
see it again. Programs are lists, and no RuleBasedStateMachine: hypothesis makes lists shorter, and
sooner.
"""

from __future__ import annotations

from collections.abc import Callable

import oracle_compare as compare
import pytest
from harness import REDIS, Server
from hypothesis import HealthCheck, Phase, given, settings
from oracle_arena import Arena, play
from oracle_compare import DIFFERENCES, LATER_MS, LATER_S, Command, Difference, Reply, Transcript
from oracle_programs import FAMILIES, programs
from oracle_strategies import Step

FreshServer = Callable[..., Server]

QUICK = 30
LONG = 2000
#: Every write to disk at once, every read from there, and memtables that fill.
ON_DISK = {"appendfsync": "always", "row_cache_size": 0, "rocksdb.write_buffer_size": 1}


def profile(examples: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=examples,
        derandomize=derandomize,
        print_blob=True,
        database=None,
        deadline=None,
        # Without `explain`: it plays a failing program hundreds of times more.
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request: pytest.FixtureRequest) -> int:
    version: int = request.param
    return version


@pytest.fixture
def arena(protocol: int, fresh_server: FreshServer) -> Arena:
    return Arena(*servers(fresh_server), protocol)


def servers(fresh_server: FreshServer, **directives: str | int) -> tuple[Server, Server]:
    """kvserver and redis-server."""
    ours = fresh_server(enable_debug_command=True, **directives)
    return ours, fresh_server(program=REDIS)


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_equal(arena: Arena, family: str) -> None:
    @profile(QUICK, derandomize=True)
    @given(programs(family, restarts=False))
    def test(program: list[Step]) -> None:
        play(arena, program)

    test()
    arena.check_rows()


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("directives", [{}, ON_DISK], ids=["defaults", "on disk"])
def test_replies_are_equal_at_length(
    protocol: int, fresh_server: FreshServer, directives: dict[str, str | int], family: str
) -> None:
    arena = Arena(*servers(fresh_server, **directives), protocol)

    @profile(LONG, derandomize=False)
    @given(programs(family, restarts=True))
    def test(program: list[Step]) -> None:
        play(arena, program)

    try:
        test()
    finally:
        print(f"{arena.programs} programs, {arena.commands} commands, {arena.restarts} restarts")


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.reason[:40])
def test_every_known_difference_is_there(arena: Arena, difference: Difference) -> None:
    *prepared, command = difference.example
    link = arena.connect()
    link.check(*prepared)
    ((ours,), (theirs,)) = link.ask(command)
    assert ours != theirs
    assert compare.agrees(command, ours, theirs)


# -- that the comparison notices -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "ours", "theirs", "agree"),
    [
        ("GET k", b"$2\r\n-1\r\n", b"$2\r\n-1\r\n", True),
        ("GET k", b"$2\r\n-1\r\n", b"$-1\r\n", False),
        ("GET k", b"_\r\n", b"$-1\r\n", False),
        ("GET k", b"$-1\r\n", b"*-1\r\n", False),
        ("GET k", b"$2\r\nOK\r\n", b"+OK\r\n", False),
        ("GET k", b"-ERR a\r\n", b"-ERR b\r\n", False),
        ("KEYS *", b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+a\r\n", True),
        ("KEYS *", b"*1\r\n+a\r\n", b"*2\r\n+a\r\n+a\r\n", False),
        ("MGET a b", b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+a\r\n", False),
        ("ttl k", b":1000\r\n", b":1002\r\n", True),
        ("TTL k", b":1000\r\n", b":2000\r\n", False),
        ("TTL k", b":-1\r\n", b":1\r\n", False),
        ("TTL k", b":-1\r\n", b":-2\r\n", False),
        ("TTL k", b":1\r\n", b"-ERR\r\n", False),
        ("PEXPIRETIME k", b":1700000000000\r\n", b":1700000000400\r\n", True),
        ("PEXPIRETIME k", b":%d\r\n" % LATER_MS, b":%d\r\n" % (LATER_MS + 1), False),
        ("EXPIRETIME k", b":%d\r\n" % LATER_S, b":%d\r\n" % (LATER_S + 1), False),
        ("CLIENT ID", b":1\r\n", b":2\r\n", True),
        ("CLIENT ID", b":1\r\n", b"+1\r\n", False),
    ],
)
def test_agreement(command: str, ours: bytes, theirs: bytes, agree: bool) -> None:
    replies = compare.parse(ours), compare.parse(theirs)
    assert Transcript().agrees(words(command), *replies) is agree


def words(line: str) -> Command:
    return tuple(word.encode() for word in line.split())


@pytest.mark.parametrize(("ours", "agree"), [(b"1001", True), (b"2001", False)])
def test_agreement_inside_a_transaction(ours: bytes, agree: bool) -> None:
    ok, queued = Reply(b"+", b"OK"), Reply(b"+", b"QUEUED")
    transcript = Transcript()
    assert transcript.agrees(words("MULTI"), ok, ok)
    assert transcript.agrees(words("GET k"), queued, queued)
    assert transcript.agrees(words("TTL k"), queued, queued)
    replies = [compare.parse(b"*2\r\n$1\r\nv\r\n:%b\r\n" % seconds) for seconds in (ours, b"1000")]
    assert transcript.agrees(words("EXEC"), *replies) is agree


def test_agreement_of_notifications() -> None:
    expired = [(b"__keyspace@0__:%b" % key, b"expired") for key in (b"b", b"a")]
    changed = [(b"__keyspace@0__:%b" % key, b"set") for key in (b"b", b"a")]
    assert compare.in_order(expired + changed) == expired[::-1] + changed
