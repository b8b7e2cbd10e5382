"""What befalls the servers of a simulation: clients, operators and faults, chosen by its seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvserver.state.replication import PRIMARY
from sim.clients import publish, read, take_turn, write, writers
from sim.server import PORT, Disk, Server

if TYPE_CHECKING:
    from sim.world import World

#: Steps of a process within which an armed fuse goes off.
FUSE = 60

Action = Callable[["World"], None]


def begin(world: World) -> None:
    """The first primary, and replicas that begin empty."""
    for number in range(world.plan.nodes):
        world.start(f"n{number}")
    for number in range(1, world.plan.nodes):
        point(world, world.servers[f"n{number}"], "n0")
    if world.plan.careful or world.random.random() < 0.7:
        world.settle()


def act(world: World) -> None:
    """One thing more."""
    table = TABLES[world.plan.kind]
    action = world.random.choices([entry[0] for entry in table], [entry[1] for entry in table])[0]
    world.note(f"-- {action.__name__}")
    action(world)


def heal(world: World) -> None:
    """Every fault ends; one primary, and everybody follows it."""
    world.note("-- heal")
    world.healing = True
    world.fuses.clear()
    world.network.blocked.clear()
    thaw = max([server.frozen_until for server in world.alive], default=0.0)
    world.sleep(max(thaw - world.clock.time, 0.0))
    for server in world.alive:
        server.engine.stalled = False
        server.engine.failing = server.engine.failing and server.log.failed
        server.operate(server.node.failover.abort, "healed")
    for name in world.disks:
        while world.start(name) is None:
            pass
    world.sleep(3.0)
    while any(server.swapping or server.parked for server in world.alive):
        world.sleep(0.5)
    elect(world)
    follow_leader(world)
    world.sleep(2.0)
    if world.servers[world.leader].writable:
        write(world)


def elect(world: World) -> None:
    """A primary for the end. Nobody but a sound node can be promoted."""
    if world.plan.careful:
        settle_failover(world)
        return
    sound = [s for s in world.servers.values() if not s.node.consistency.until]
    if not sound:
        world.violated(f"nobody can be promoted: {world.standing()}")
    server = world.random.choice(sound)
    world.leader = server.name
    server.operate(server.node.promote)
    world.sleep(0.5)


def follow_leader(world: World) -> None:
    """Everybody else follows the leader, some through another replica."""
    above = world.leader
    for name in world.random.sample(sorted(world.servers), len(world.servers)):
        if name != world.leader:
            point(world, world.servers[name], above)
            if world.random.random() < 0.3 and not world.plan.careful:
                above = name


def point(world: World, server: Server, name: str) -> None:
    """REPLICAOF."""
    world.note(f"{server.name} is told to follow {name}")
    server.operate(server.node.follow, name, PORT)


# -- the network -------------------------------------------------------------------------------


def _pair(world: World) -> tuple[str, str]:
    first, second = world.random.sample(sorted(world.disks), 2)
    return first, second


def cut(world: World) -> None:
    """Connections break."""
    for wire in list(world.network.wires):
        if world.random.random() < 0.5:
            wire.cut()


def half_open(world: World) -> None:
    """Connections die, and nobody is told."""
    for wire in list(world.network.wires):
        if world.random.random() < 0.4:
            wire.dead = True


def partition(world: World) -> None:
    """Two servers can't reach each other for a while."""
    pair = _pair(world)
    world.network.blocked.add(frozenset(pair))
    for wire in world.network.between(*pair):
        if world.random.random() < 0.5:
            wire.cut()
        else:
            wire.dead = True
    world.clock.at(world.random.random() * 8, world.network.blocked.discard, frozenset(pair))


def garble(world: World) -> None:
    """A link loses the next frame, or delivers it twice."""
    for wire in list(world.network.wires):
        if world.random.random() < 0.5:
            wire.far.garble = world.random.choice(("lose", "repeat"))
    write(world)


def freeze(world: World) -> None:
    """SIGSTOP."""
    awake = [server for server in world.alive if server.now() >= server.frozen_until]
    if awake:
        server = world.random.choice(awake)
        server.frozen_until = world.clock.time + world.random.random() * 8


# -- processes ---------------------------------------------------------------------------------


def kill(world: World) -> None:
    """kill -9, now or at one of the next steps."""
    victim = _victim(world)
    if victim is None:
        return
    if world.random.random() < 0.3:
        world.kill(victim, silently=world.random.random() < 0.3)
    else:
        world.fuses[victim.name] = world.random.randint(1, FUSE)
    if world.plan.careful or world.random.random() < 0.5:
        write(world)
    _restart_later(world, victim.name)


def power_cut(world: World) -> None:
    """What wasn't fsynced is gone."""
    victim = _victim(world)
    if victim is not None:
        if world.random.random() < 0.7:
            write(world)
            world.sleep(world.random.random() * 0.01)
        world.kill(victim, silently=True)
        world.note(f"{victim.name} lost {victim.disk.power_cut()} batches")
        if world.plan.careful and victim.name != world.leader and world.random.random() < 0.5:
            _restart(world, victim.name)
            fail_over(world, victim.name)
        else:
            _restart_later(world, victim.name)


def restart(world: World) -> None:
    """SHUTDOWN, and a start."""
    victim = _victim(world)
    if victim is not None:
        victim.run(victim.stop)
        _restart_later(world, victim.name)


def _victim(world: World) -> Server | None:
    """Who is hit. With careful operators one server is down at a time, and the next one only when
    that is back and has what the others have."""
    alive = world.alive
    if world.plan.careful:
        if len(alive) < len(world.disks) or world.fuses:
            return None
        leader = world.servers[world.leader]
        if not all(world._follows(server, leader) for server in alive):
            return None
    return world.random.choice(alive) if alive else None


def _restart_later(world: World, name: str) -> None:
    world.clock.at(world.random.random() * world.random.choice((0.5, 8.0)), _restart, world, name)


def _restart(world: World, name: str) -> None:
    disk = world.disks[name]
    server = world.servers.get(name)
    if server is not None and server.alive:
        if name in world.fuses:
            _restart_later(world, name)
        return
    if not world.plan.careful and world.random.random() < 0.2:
        others = [other for other in world.disks if other != name]
        disk.primary = world.random.choice([None, (world.random.choice(others), PORT)])
    if world.start(name) is None:
        _restart_later(world, name)


def new_disk(world: World) -> None:
    """A server comes back empty, and follows another one."""
    if len(world.alive) == len(world.disks) and len(world.disks) > 1:
        victim = world.random.choice(world.alive)
        world.kill(victim)
        world.purged = True
        disk = world.disks[victim.name] = Disk(world.new_store(victim.name))
        other = world.random.choice([name for name in world.disks if name != victim.name])
        disk.primary = (other, PORT)
        _restart(world, victim.name)
        for _ in range(world.random.randint(0, 4)):
            world.sleep(world.random.random() * world.random.choice((0.01, 0.2)))
            write(world)
            purge(world)


# -- operators ---------------------------------------------------------------------------------


def promote(world: World) -> None:
    """REPLICAOF NO ONE, whoever else is a primary."""
    if world.alive:
        server = world.random.choice(world.alive)
        server.operate(server.node.promote)


def follow(world: World) -> None:
    """REPLICAOF, whomever that makes a circle with."""
    if world.alive:
        server = world.random.choice(world.alive)
        others = [name for name in world.disks if name != server.name]
        point(world, server, world.random.choice(others))


def diverge(world: World) -> None:
    """Two primaries write, one is told to follow the other, and something happens to that."""
    if len(world.alive) < 2:
        return
    first, second = world.random.sample(world.alive, 2)
    for server in (first, second):
        server.operate(server.node.promote)
    for _ in range(world.random.randint(1, 3)):
        write(world)
        world.sleep(world.random.random() * 0.1)
    point(world, first, second.name)
    if world.random.random() < 0.3:
        point(world, second, first.name)
    if world.random.random() < 0.3:
        write(world)
    world.sleep(world.random.random() * world.random.choice((0.02, 0.5)))
    choices = (cut, kill, power_cut, follow, diverge, write, partition, promote, promote)
    happens = world.random.choice(choices)
    world.note(f"   {happens.__name__}")
    happens(world)


def overtake(world: World) -> None:
    """Who parted from two primaries is rewound to the younger, and before M told to follow the
    older, which has gone on for longer."""
    if len(world.alive) < 3:
        return
    parted, older, younger = world.random.sample(world.alive, 3)
    parted.operate(parted.node.promote)
    for server in (older, younger):
        point(world, server, parted.name)
    world.sleep(3)
    older.operate(older.node.promote)
    point(world, younger, older.name)
    _take_turns(world, parted, older, older)
    world.sleep(3)
    younger.operate(younger.node.promote)
    _take_turns(world, younger, *[older] * 4)
    point(world, parted, younger.name)
    for _ in range(300):
        world.sleep(0.002)
        if not parted.alive or parted.node.consistency.until:
            break
    world.sleep(world.random.random() * 0.02)
    point(world, parted, older.name)


def _take_turns(world: World, *servers: Server) -> None:
    """These write."""
    for server in servers:
        if server.alive and server.writable:
            server.run(take_turn, world, server)


def fail_over(world: World, name: str = "") -> None:
    """FAILOVER at every primary that has a replica (of that name)."""
    for server in writers(world):
        targets = [r for r in server.node.replicas if r.is_online and name in r.state.ip]
        if targets and not server.node.failover.running:
            state = world.random.choice(targets).state
            timeout = world.random.choice((0, 100, 2000))
            force = timeout > 0 and not world.plan.careful and world.random.random() < 0.3
            if world.random.random() < 0.5:
                write(world)
            world.note(f"{server.name} fails over to {state.ip}")
            server.operate(server.node.failover.begin, (state.ip, state.port), force, timeout)
            if world.plan.careful:
                if world.plan.kind == "power" and world.random.random() < 0.5:
                    _cut_the_new_primary(world, server, state.ip)
                if world.random.random() < 0.5:
                    write(world)
                settle_failover(world)


def _cut_the_new_primary(world: World, old: Server, name: str) -> None:
    """The power goes right after a failover's target took over, or amidst that."""
    target = world.servers[name]
    if not target.alive or world.fuses:
        return
    if world.random.random() < 0.5:
        world.fuses[name] = world.random.randint(1, FUSE)
        world.powerless.add(name)
    else:
        for _ in range(300):
            world.sleep(0.001)
            if target.state.role == PRIMARY or not target.alive or not old.node.failover.running:
                break
        if target.alive:
            world.powerless.add(name)
            world.kill(target, silently=True)
    _restart_later(world, name)


def settle_failover(world: World) -> None:
    """Wait for the end of a failover; then look at who is the primary, and see to it that there
    is one only, before a client is told of it."""
    for _ in range(400):
        world.sleep(0.05)
        if all(s.alive for s in world.servers.values()) and not world.fuses:
            old = world.servers[world.leader]
            if not old.node.failover.running and old.now() >= old.frozen_until:
                break
    old = world.servers[world.leader]
    if old.state.role != PRIMARY and old.node.upstream is not None:
        world.leader = old.node.upstream.host
    for server in world.alive:
        if server.name != world.leader:
            point(world, server, world.leader)


def lose_leader(world: World) -> None:
    """The primary dies, and a careful operator promotes who has most."""
    victim = world.servers[world.leader]
    if _victim(world) is None:
        return
    world.fuses[victim.name] = world.random.randint(1, FUSE)
    write(world)
    world.sleep(0.5)
    world.kill(victim, silently=world.random.random() < 0.3)
    best = max(
        (s for s in world.alive if not s.node.consistency.until),
        key=lambda server: (server.log.epoch, server.log.committed_seq),
        default=None,
    )
    if best is not None:
        world.leader = best.name
        best.operate(best.node.promote)
        for server in world.alive:
            if server is not best:
                point(world, server, best.name)
        world.disks[victim.name].primary = (best.name, PORT)
    _restart_later(world, victim.name)


# -- storage -----------------------------------------------------------------------------------


def purge(world: World) -> None:
    """Retention: log files that nobody needs, or that are too large whoever needs them."""
    for server in world.alive:
        if world.random.random() < 0.5 and not server.swapping:
            server.run(_purge, world, server)


def _purge(world: World, server: Server) -> None:
    store = server.disk.store
    server.engine.flush()
    pinned = server.node.pinned_file()
    limit = world.random.choice((1, 1, 2, 3))
    respect = world.plan.careful or world.random.random() < 0.8
    for number in store.purgeable()[: -limit or None]:
        if pinned is not None and number >= pinned:
            if respect:
                break
            server.broke_pin = world.clock.time
        world.purged = True
        world.note(f"{server.name} deletes log file {number}")
        store.delete(number)


def flush(world: World) -> None:
    """Memtables are flushed."""
    for server in world.alive:
        if world.random.random() < 0.5 and not server.swapping:
            server.engine.flush()


def stall(world: World) -> None:
    """RocksDB takes no writes for a moment."""
    if world.alive:
        server = world.random.choice(world.alive)
        server.engine.stalled = True
        world.clock.at(world.random.random(), _go_on, server)


def _go_on(server: Server) -> None:
    server.engine.stalled = False


def write_failure(world: World) -> None:
    """RocksDB takes no writes until it is opened again."""
    for server in writers(world)[:1] or world.alive[:1]:
        server.engine.failing = True
        server.engine.loses = world.plan.kind != "kills" and world.random.random() < 0.3
    write(world)


def jump(world: World) -> None:
    """A clock is set."""
    name = world.random.choice(sorted(world.disks))
    world.skew[name] = world.random.choice((-3_600_000, -500, 0, 2_000, 3_600_000))


_COMMON: list[tuple[Action, float]] = [
    (write, 14),
    (read, 2),
    (publish, 1),
    (cut, 2),
    (half_open, 1),
    (partition, 2),
    (garble, 2),
    (freeze, 1),
    (kill, 4),
    (restart, 1),
    (purge, 2),
    (flush, 1),
    (stall, 1),
    (write_failure, 2),
    (jump, 1),
]
_SPLIT: list[tuple[Action, float]] = [
    (power_cut, 3),
    (promote, 2),
    (follow, 5),
    (fail_over, 3),
    (diverge, 6),
    (new_disk, 3),
]
TABLES: dict[str, list[tuple[Action, float]]] = {
    "careless": [*_COMMON, *_SPLIT],
    "padding": [*_COMMON, *_SPLIT],
    "overtaken": [*_COMMON, *_SPLIT, (overtake, 20)],
    "kills": [*_COMMON, (fail_over, 4), (lose_leader, 5)],
    "power": [*_COMMON, (fail_over, 5), (power_cut, 6)],
}
