"""Courses of events that chance seldom takes, in the simulation (tests/sim/)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from sim.clients import take_turn
from sim.faults import point
from sim.model import Place, Violation, place_of
from sim.patches import patched
from sim.server import Server
from sim.world import World

import kvserver
from kvserver.replication.consistency import UNFINISHED
from kvserver.state.replication import PRIMARY, REPLICA, REWIND

pytestmark = pytest.mark.skipif(kvserver.COMPILED, reason="it patches the modules' functions")


@contextmanager
def world_of(nodes: int, kind: str = "careless", **settings: object) -> Iterator[World]:
    """Servers that are primaries, each with a data set of its own."""
    world = World(1, wanted={"kind": kind, "nodes": nodes})
    world.plan.failing, world.plan.slowness = 0.0, 0.002
    with patched(world):
        for number in range(nodes):
            server = world.start(f"n{number}")
            assert server is not None
            server.config.values.update(settings)
        yield world
        world.close()


def until(world: World, condition: Callable[[], bool]) -> None:
    deadline = world.clock.time + 60
    while world.clock.time < deadline:
        if condition():
            return
        world.sleep(0.0001)
    raise Violation(f"it doesn't come: {world.standing()}")


def play(world: World, server: Server, turns: int) -> None:
    for _ in range(turns):
        server.run(take_turn, world, server)


def equal(world: World, leader: str) -> None:
    """Everybody comes to be equal to this server."""
    world.leader = leader
    world.converge()
    world.check()


# -- a full sync's data set is put in place ----------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "told to follow another"])
@pytest.mark.parametrize("knows", [True, False], ids=["continues", "full sync"])
def test_nobody_is_served_while_a_data_set_is_put_in_place(how: str, knows: bool) -> None:
    """The link may have ended by then: what a replica is given of the old data set would be
    continued with the new one."""
    with world_of(3) as world:
        source, middle, below = world.servers.values()
        play(world, source, 3)
        play(world, middle, 9)
        if knows:
            point(world, below, middle.name)
            until(world, lambda: world._follows(below, middle))
        world.work_delay = lambda label: 8.0 if label == "install" else 0.001  # type: ignore[method-assign]
        point(world, middle, source.name)
        until(world, lambda: middle.node.installing)
        if how == "cut":
            for wire in world.network.between(source.name, middle.name):
                wire.cut()
        else:
            point(world, middle, source.name)
        point(world, below, middle.name)
        while middle.node.installing:
            assert not any(replica.is_framed for replica in middle.node.replicas)
            world.sleep(0.002)
        play(world, source, 9)
        equal(world, source.name)


# -- positions that are passed over ------------------------------------------------------------


def padding_world(nodes: int) -> AbstractContextManager[World]:
    settings = {"replication-rewind": False, "replication-rewind-max-bytes": 1 << 20}
    return world_of(nodes, "padding", **settings)


def appended(server: Server, last: int) -> None:
    """Batches of one position, up to this one."""
    while server.log.committed_seq < last:
        server.run(server.append, b"tokens0", 1)


def parted(world: World, first: Server, second: Server, positions: int) -> None:
    """The second, which followed the first, goes on by itself: the first is ahead."""
    last = first.log.committed_seq
    second.operate(second.node.promote)
    appended(second, last + positions)
    appended(first, last + positions + 5)


def followed(world: World, server: Server, leader: Server) -> None:
    point(world, server, leader.name)
    until(world, lambda: world._follows(server, leader))


def place(server: Server) -> Place:
    return place_of(server.disk.store.rows)


@pytest.mark.parametrize("empty", [True, False], ids=["an empty range", "inside a frame"])
def test_gaps_are_told_by_who_has_others(empty: bool) -> None:
    """`middle` has gaps of its own when its primary is led into another history. So is `below`, by
    what it gets from there, and it has left that history long before."""
    with padding_world(4) as world:
        other, leader, middle, below = world.servers.values()
        play(world, other, 3)
        for server in (leader, middle, below):
            followed(world, server, other)
        leader.operate(leader.node.promote)
        followed(world, middle, leader)
        followed(world, below, leader)
        parted(world, leader, middle, 3)
        followed(world, below, leader)
        followed(world, middle, leader)
        followed(world, below, middle)
        assert place(middle).padded and place(below).sound
        last = leader.log.committed_seq
        appended(other, last if empty else last - 1)
        if not empty:
            other.run(other.append, b"tokens0", 2)
        followed(world, leader, other)
        assert [entry[2] for entry in leader.node.consistency.padded] == [last + (not empty)]
        appended(other, last + 9)
        until(world, lambda: below.log.committed_seq == last + 9)
        assert not place(below).sound
        for server in (below, middle, leader):
            server.config.values["replication-rewind"] = True
            followed(world, server, other)
            assert place(server).sound
        equal(world, other.name)


@pytest.mark.parametrize("garble", ["", "lose", "repeat"])
def test_an_empty_range_is_told_whatever_gets_lost(garble: str) -> None:
    """It takes no position, by which it could be missed."""
    with padding_world(3) as world:
        other, leader, below = world.servers.values()
        play(world, other, 3)
        followed(world, leader, other)
        leader.operate(leader.node.promote)
        appended(leader, leader.log.committed_seq + 3)
        followed(world, below, leader)
        last = leader.log.committed_seq
        appended(other, last)
        for wire in world.network.between(leader.name, below.name):
            wire.far.garble = garble
        followed(world, leader, other)
        assert place(leader).padded and leader.log.committed_seq == last
        appended(other, last + 5)
        until(world, lambda: below.log.committed_seq == last + 5)
        assert not place(below).sound
        followed(world, below, leader)
        equal(world, other.name)


def test_a_rewind_goes_back_to_before_the_earliest_fork() -> None:
    """A range that is passed over later may lead into a history that was left earlier."""
    with padding_world(3) as world:
        second, first, server = world.servers.values()
        play(world, second, 3)
        followed(world, first, second)
        followed(world, server, second)
        early = second.log.committed_seq
        first.operate(first.node.promote)
        play(world, first, 6)
        followed(world, server, first)
        parted(world, first, server, 3)
        followed(world, server, first)
        appended(second, first.log.committed_seq + 5)
        followed(world, server, second)
        forks = [entry[0] for entry in server.node.consistency.padded]
        assert len(forks) == 2 and forks[0] > forks[1] == early
        server.config.values["replication-rewind"] = True
        followed(world, server, second)
        assert place(server).sound and server.state.rewinds == 1
        followed(world, first, server)
        equal(world, second.name)


@pytest.mark.parametrize("allowed", [True, False], ids=["padding", "no padding"])
def test_who_is_amidst_a_rewind_is_not_led_on_elsewhere(allowed: bool) -> None:
    """It is at the end of what it shares with another primary, with rows of later than that."""
    with padding_world(3) as world:
        server, older, younger = world.servers.values()
        server.config.values["replication-rewind"] = True
        for each in world.servers.values():
            each.config.values["replication-enable-sequence-padding"] = allowed
        play(world, server, 3)
        followed(world, older, server)
        followed(world, younger, server)
        older.operate(older.node.promote)
        followed(world, younger, older)
        server.run(server.append, b"tokens1", 1)
        parted(world, older, younger, 2)
        younger.run(younger.append, b"tokens1", 1)
        point(world, server, younger.name)
        consistency = server.node.consistency
        until(world, lambda: consistency.until > 0 and not consistency.is_unfinished)
        server.config.values["replication-rewind"] = False
        appended(older, consistency.until + 9)
        followed(world, server, older)
        assert place(server).sound
        followed(world, younger, older)
        equal(world, older.name)


@pytest.mark.parametrize("where", ["here", "above"])
def test_nobody_is_rewound_to_who_passes_over_positions(where: str) -> None:
    """What a server has then is neither what it had when the rewind began nor what its history
    says from then on."""
    with padding_world(4) as world:
        other, leader, middle, server = world.servers.values()
        play(world, other, 3)
        for each in (leader, middle, server):
            followed(world, each, other)
        leader.operate(leader.node.promote)
        source = leader if where == "here" else middle
        followed(world, middle, leader)
        for _ in range(3):
            leader.run(leader.append, b"tokens1", 1)
        followed(world, server, source)
        server.operate(server.node.promote)
        server.run(server.append, b"tokens1", 2)
        appended(other, server.log.committed_seq + 5)
        until(world, lambda: middle.log.committed_seq == leader.log.committed_seq)

        server.config.values["replication-rewind"] = True
        world.work_delay = lambda label: 3.0 if label == "collect" else 0.0001  # type: ignore[method-assign]
        point(world, server, source.name)
        until(world, lambda: any(link.state.state == REWIND for link in source.node.replicas))
        point(world, leader, other.name)
        until(world, lambda: place(source).padded)
        consistency, state = server.node.consistency, server.state
        until(world, lambda: state.link_up or 0 < consistency.until < UNFINISHED)
        followed(world, server, other)
        assert place(server).sound
        appended(other, other.log.committed_seq + 5)
        for each in (leader, middle):
            followed(world, each, other)
        equal(world, other.name)


@pytest.mark.parametrize("failing", [False, True], ids=["a stall", "a failure"])
def test_nobody_is_served_before_an_era_in_spite_of_gaps_is_written(failing: bool) -> None:
    """Until then its history is that of others, from which it has parted."""
    with padding_world(3) as world:
        other, server, below = world.servers.values()
        play(world, other, 3)
        followed(world, server, other)
        server.operate(server.node.promote)
        last = server.log.committed_seq
        appended(server, last + 6)
        appended(other, last + 3)
        followed(world, below, other)
        below.operate(below.node.follow, "n9", 6379)
        appended(other, last + 9)
        followed(world, server, other)
        assert place(server).padded
        server.engine.stalled = True
        server.operate(server.node.promote)
        point(world, below, server.name)
        world.sleep(2)
        assert below.node.upstream is not None and not below.node.upstream.online
        server.engine.failing = failing
        server.engine.stalled = False
        appended(other, other.log.committed_seq + 1)
        until(world, lambda: not (server.log.failed or server.log.pending))
        appended(server, server.log.committed_seq + 3)
        followed(world, below, server)
        followed(world, other, server)
        assert server.state.padded == []
        equal(world, server.name)


def test_a_padded_target_that_cant_write_takes_nothing_over() -> None:
    with padding_world(2) as world:
        other, server = world.servers.values()
        play(world, other, 3)
        followed(world, server, other)
        parted(world, other, server, 3)
        followed(world, server, other)
        server.engine.stalled = True
        other.operate(other.node.failover.begin, (server.name, 6379), True, 2000)
        world.sleep(4)
        assert (other.state.role, server.state.role) == (PRIMARY, REPLICA)
        assert other.writable
