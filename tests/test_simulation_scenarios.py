"""Courses of events that chance seldom takes, in the simulation (tests/sim/)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sim.clients import take_turn
from sim.faults import point
from sim.model import Violation
from sim.patches import patched
from sim.server import Server
from sim.world import World

import kvserver

pytestmark = pytest.mark.skipif(kvserver.COMPILED, reason="it patches the modules' functions")


@contextmanager
def world_of(nodes: int, kind: str = "careless", **settings: object) -> Iterator[World]:
    """Servers that are primaries, each with a data set of its own."""
    world = World(1, wanted={"kind": kind, "nodes": nodes})
    world.settings.update(settings)
    world.plan.failing = 0.0
    with patched(world):
        for number in range(nodes):
            world.start(f"n{number}")
        yield world
        world.close()


def until(world: World, condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if condition():
            return
        world.sleep(0.002)
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
