"""Redis Sentinel, unmodified, over a kvserver primary and two replicas: real processes of the
Debian package, and redis-py's Sentinel client writing all the time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from group import Group, follows, role
from harness import KVSERVER, Program, Server, wait_until
from sentinels import Sentinels, SentinelWriter

FAILOVER_SECONDS = 60.0
#: Sentinel promotes the replica with the highest position that it has heard of, which may be some
#: seconds old. Only what all replicas have is certainly there after any election.
ALL_REPLICAS = 2


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    if shutil.which("redis-sentinel") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-sentinel is not installed")
    group = Group(tmp_path, 3, PROGRAM)
    try:
        group.start()
        yield group
    finally:
        group.close()


PROGRAM: Program = KVSERVER


@pytest.fixture
def sentinels(group: Group, tmp_path: Path) -> Iterator[Sentinels]:
    sentinels = Sentinels(tmp_path, group)
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.close()


@pytest.fixture
def crowd(sentinels: Sentinels) -> Iterator[list[SentinelWriter]]:
    """Writers at work; what they wrote is checked in the end."""
    crowd = [SentinelWriter(sentinels, str(number), ALL_REPLICAS) for number in range(3)]
    for writer in crowd:
        writer.start()
    for writer in crowd:
        writer.await_more()
    yield crowd
    for writer in crowd:
        writer.halt()
        assert len(writer.history.acked) > 20
        writer.history.check(primary_of(sentinels.group))


def primary_of(group: Group) -> Server:
    return next(server for server in group.servers if server.alive and role(server) == "master")


def settled(sentinels: Sentinels, old: Server | None) -> bool:
    """Whether the sentinels agree on a primary, which isn't `old`, and everybody who runs follows
    it. On a busy machine they may switch more than once."""
    ports = sentinels.primary_ports()
    chosen = [s for s in sentinels.group.servers if s.alive and {s.port} == ports and s is not old]
    others = [s for s in sentinels.group.servers if s.alive and s not in chosen]
    return bool(chosen) and all(follows(other, chosen[0]) for other in others)


def await_settled(sentinels: Sentinels, old: Server | None = None) -> None:
    wait_until(lambda: settled(sentinels, old), FAILOVER_SECONDS, "the group is in order")


def test_the_primary_is_killed(sentinels: Sentinels, crowd: list[SentinelWriter]) -> None:
    group = sentinels.group
    old = group.servers[0]
    old.kill9()
    await_settled(sentinels, old)
    for writer in crowd:
        writer.await_more()
    old.start()  # as a primary: nobody told it
    wait_until(lambda: role(old) == "slave", FAILOVER_SECONDS, "it is demoted")
    await_settled(sentinels)
    for writer in crowd:
        writer.await_more()
    if group.program is KVSERVER:
        assert group.full_syncs() == 0, "the survivors had it all, the old primary was rewound"


def test_sentinel_failover(sentinels: Sentinels, crowd: list[SentinelWriter]) -> None:
    group = sentinels.group
    syncs = group.full_syncs()
    old = group.servers[0]
    sentinels.failover()
    await_settled(sentinels, old)
    for writer in crowd:
        writer.await_more()
    if group.program is KVSERVER:
        assert group.full_syncs() == syncs
    old.restart()
    assert role(old) == "slave", "Sentinel had it write its configuration (CONFIG REWRITE)"
    await_settled(sentinels)
