"""What clients do to the servers of a simulation: writes of all kinds, reads, messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvserver.database import Writer
from sim import elements
from sim.server import Server

if TYPE_CHECKING:
    from sim.world import World

KEYS = [b"k%d" % n for n in range(8)]
TOKEN_KEYS = [b"tokens%d" % n for n in range(3)]


def writers(world: World) -> list[Server]:
    """Servers that take a client's write."""
    if world.plan.careful:
        leader = world.servers[world.leader]
        return [leader] if leader.writable else []
    return [server for server in world.alive if server.writable]


def write(world: World) -> None:
    """Some turns with some commands each, at every primary."""
    for server in writers(world):
        for _ in range(world.random.randint(1, 4)):
            if server.writable:
                server.run(take_turn, world, server)


def take_turn(world: World, server: Server) -> None:
    """A turn of a server's loop with some commands."""
    random = world.random
    for _ in range(random.choice((1, 1, 2, 5))):
        key, choice = random.choice(KEYS), random.random()
        if random.random() < 0.4:
            server.write(elements.command(random, KEYS, world.value()))
        elif choice < 0.3:
            server.write(lambda dbs, key=key: dbs[0].put_string(key, world.value()))
        elif choice < 0.5:
            at = server.keyspace.now + random.randint(-100, 20_000)
            server.write(lambda dbs, key=key, at=at: dbs[0].put_string(key, world.value(), at))
        elif choice < 0.7:
            server.write(lambda dbs, key=key: dbs[0].delete(key))
        elif choice < 0.76:
            server.write(lambda dbs: dbs[0].keyspace.flush(dbs[0].db))
        elif choice < 0.8:
            size = random.choice((200, 3000))
            server.write(lambda dbs, size=size: _big(dbs[0], size))
        elif choice < 0.9:
            server.write(_several(world))
    server.append(random.choice(TOKEN_KEYS), random.choice((1, 1, 3)))


def _several(world: World) -> Callable[[list[Writer]], None]:
    """A transaction."""

    def command(dbs: list[Writer]) -> None:
        for key in world.random.sample(KEYS, 3):
            dbs[0].put_string(key, world.value())

    return command


def _big(db: Writer, size: int) -> None:
    db.put_string(b"big", b"x" * size)


def read(world: World) -> None:
    """GET everywhere."""
    for server in world.alive:
        server.run(server.read, world.random.choice(KEYS))


def publish(world: World) -> None:
    """PUBLISH."""
    for server in world.alive:
        server.run(server.node.publish, b"message", b"channel", world.value())
