"""One simulation: servers, operators, clients and faults, all chosen by a seed; then the checks.

A run ends with every fault healed, one primary that all others follow, and all of them equal.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from kvserver import codec
from kvserver.storage.positions import PositionLog
from sim import faults
from sim.engine import LOG, MemoryEngine, Store, digest_of
from sim.log import EnginePath
from sim.model import Model, Tokens, Violation, check_counts, is_genesis, place_of
from sim.network import Clock, Network
from sim.real import RealEngine, RealStore
from sim.server import PORT, Disk, Server

#: Unix ms at the beginning of each run.
EPOCH_MS = 1_800_000_000_000
#: Virtual seconds after which everything must be equal again.
PATIENCE = 600.0
#: Events of a run; most have a thousand. More is a loop that gets nowhere.
MAX_EVENTS = 50_000


class Plan:
    """What kind of run this is."""

    def __init__(self, random: Random, wanted: dict[str, Any]) -> None:
        chance = random.random()
        #: careless: anything goes; kills, power: one fault at a time and no two primaries, so that
        #: nothing acknowledged may be lost; padding: a cache; overtaken (for a mutant): careless,
        #: with rewinds that don't get to their end.
        if chance < 0.6:
            self.kind = "careless"
        elif chance < 0.76:
            self.kind = "kills"
        elif chance < 0.92:
            self.kind = "power"
        else:
            self.kind = "padding"
        self.kind = wanted.get("kind", self.kind)
        self.careful = self.kind in ("kills", "power")
        self.nodes = wanted.get("nodes", 0) or random.choice((2, 2, 3, 3, 3, 4))
        self.quorum = 1 if self.kind == "kills" else random.choice((0, 0, 1))
        self.always = self.kind == "power" or random.random() < 0.3
        self.small = random.random() < 0.5
        self.steps = random.randint(12, 36)
        self.gap = random.choice((0.05, 0.3, 1.0))
        #: How often slow work fails, and how long it takes.
        self.failing = random.choice((0.0, 0.0, 0.05))
        self.slowness = random.choice((0.002, 0.002, 0.05, 1.5))
        self.settings: dict[str, Any] = {
            "masterauth": "",
            "notify-keyspace-events": "",
            "masteruser": "",
            "replica-announce-ip": "",
            "replica-announce-port": 0,
            "port": PORT,
            "tls-port": 0,
            "tls-replication": False,
            "repl-timeout": 5,
            "repl-ping-replica-period": 1,
            "max-replication-mb": 0,
            "replication-max-full-syncs": random.choice((1, 2, 8)),
            "replication-snapshot-max-age": random.choice((0, 10, 60)),
            "replication-rewind": random.random() < 0.9,
            "replication-rewind-max-bytes": random.choice((300, 1 << 20, 1 << 20, 1 << 20)),
            "replication-enable-sequence-padding": self.kind == "padding",
        }


class World:
    """The run of one seed."""

    def __init__(
        self,
        seed: int,
        trace: bool = False,
        wanted: dict[str, Any] | None = None,
        root: Path | None = None,
    ) -> None:
        """`wanted`: what the plan must be; `root`: where real RocksDB keeps its data."""
        self.seed = seed
        self.root = root
        self.random = Random(seed)
        self.plan = Plan(self.random, wanted or {})
        self.clock = Clock()
        self.network = Network(self.clock, self.random, self.step)
        self.model = Model()
        self.tokens = Tokens()
        self.messages = 0
        self.always = self.plan.always
        self.quorum = self.plan.quorum
        self.settings = self.plan.settings
        self.disks: dict[str, Disk] = {}
        self.servers: dict[str, Server] = {}
        #: The server whose code is running.
        self.current: Server | None = None
        #: Steps left until the server of this name is killed.
        self.fuses: dict[str, int] = {}
        #: Servers whose death is a power cut.
        self.powerless: set[str] = set()
        self.skew: dict[str, int] = {}
        self.healing = False
        #: Log files, or a whole disk, are gone.
        self.purged = False
        #: Everybody was equal once; how many full syncs were begun since.
        self.settled = False
        self.full_syncs = 0
        #: The primary that a careful operator knows of.
        self.leader = "n0"
        self.notes: list[str] = []
        self.trace = trace
        self._violation = ""
        self._values = self._stores = 0

    # -- what happens ------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """For whoever replays this."""
        if self.trace:
            print(f"{self.clock.time:9.4f} {text}")

    def violated(self, what: str) -> None:
        """An invariant doesn't hold; raised once the event is over."""
        self._violation = self._violation or what
        raise Violation(what)

    def step(self, label: str) -> None:
        """A step of the running process: it may end here."""
        server = self.current
        if server is not None and server.name in self.fuses and server.alive:
            from sim.server import Killed

            self.fuses[server.name] -= 1
            if self.fuses[server.name] <= 0:
                del self.fuses[server.name]
                self.note(f"{server.name} dies at {label}")
                raise Killed

    def wrote(self, server: Server, when: str) -> None:
        """A server is about to write a batch, or has written it: then the state is compared
        before anything else can happen."""
        if when == "after":
            store = server.disk.store
            if server.committing or is_genesis(store.rows):
                self.model.wrote(server.name, store.rows, store.digest)
            else:
                self.model.holds(server.name, store.rows, store.digest)
        self.step(f"engine.write.{when}")

    def work_delay(self, label: str) -> float:
        """How long a slow piece of work takes."""
        return self.random.random() * (1e-4 if self.healing else self.plan.slowness)

    def fails(self, label: str) -> bool:
        """Whether a slow piece of work fails."""
        return not self.healing and self.random.random() < self.plan.failing

    def unix_ms(self, server: Server | None) -> int:
        """A server's idea of the time."""
        skew = self.skew.get(server.name, 0) if server is not None else 0
        return EPOCH_MS + int(self.clock.time * 1000) + skew

    # -- processes ---------------------------------------------------------------------------

    def new_store(self, name: str) -> Any:
        """An empty data directory."""
        if self.root is None:
            return Store()
        self._stores += 1
        self.root.mkdir(exist_ok=True)
        return RealStore(self.root / f"{name}-{self._stores}")

    def engine(self, server: Server) -> Any:
        """The engine of a server that starts."""
        engine: Any
        if self.root is None:
            path = EnginePath(server.name)
            engine = path.engine = MemoryEngine(server.disk.store, path)
        else:
            engine = RealEngine(server.disk.store)
        engine.on_write = lambda when: self.wrote(server, when)
        return engine

    def position_log(self, server: Server) -> PositionLog:
        """The index of a server that starts."""
        return PositionLog(server.engine.path, server.log)

    def start(self, name: str) -> Server | None:
        """Start a process on its disk; None if it died at once."""
        from sim.server import Killed

        if name in self.servers and self.servers[name].alive:
            return self.servers[name]
        disk = self.disks.get(name)
        if disk is None:
            disk = self.disks[name] = Disk(self.new_store(name))
        disk.settle()
        disk.store.new_file()
        log = disk.store.rows[LOG]
        if codec.STAMP_KEY in log:
            self.model.holds(name, disk.store.rows, disk.store.digest)
            self.note(f"{name} starts at {place_of(disk.store.rows)}")
        server = None
        try:
            server = Server(self, name, disk)
            self.servers[name] = self.network.listeners[name] = server
            server.started = True
            server.begin()
        except Killed:
            if server is not None:
                server.alive = False
            disk.store.die()
            return None
        finally:
            self.current = None
        return server

    def kill(self, server: Server, silently: bool = False) -> None:
        """End a process; the disk stays."""
        if server.alive:
            self.note(f"{server.name} is dead")
            server.alive = False
            self.fuses.pop(server.name, None)
            self.network.died(server, silently)
            server.disk.store.die()
            if server.name in self.powerless:
                self.powerless.discard(server.name)
                self.note(f"{server.name} lost {server.disk.power_cut()} batches")

    @property
    def alive(self) -> list[Server]:
        """Processes that run."""
        return [server for server in self.servers.values() if server.alive]

    def close(self) -> None:
        """The run is over."""
        for server in self.alive:
            server.engine.close()

    def value(self) -> bytes:
        """A value that nobody else writes."""
        self._values += 1
        return b"v%d" % self._values

    # -- a run -------------------------------------------------------------------------------

    def run(self) -> None:
        """Everything; raises Violation."""
        faults.begin(self)
        for _ in range(self.plan.steps):
            self.sleep(self.random.expovariate(1 / self.plan.gap))
            faults.act(self)
        faults.heal(self)
        self.converge()
        self.check()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.time + seconds
        while self.clock.step(until):
            if self._violation:
                raise Violation(self._violation)
            if self.clock.events > MAX_EVENTS:
                raise Violation(f"it goes round in circles: {self.standing()}")

    def settle(self) -> None:
        """The beginning: everybody has copied the first primary, and it is on disk."""
        self.healing = True
        self.converge()
        self.healing = False
        for server in self.servers.values():
            server.engine.flush()
        self.settled = True
        self.full_syncs = 0

    def converge(self) -> None:
        """Until everybody is equal to the primary."""
        deadline = self.clock.time + PATIENCE
        primary = self.servers[self.leader]
        while not all(self._follows(server, primary) for server in self.servers.values()):
            if self.clock.time > deadline:
                raise Violation(f"not equal after {PATIENCE} s: {self.standing()}")
            self.sleep(0.1)

    def _follows(self, server: Server, primary: Server) -> bool:
        log = server.log
        if server is primary:
            return not log.pending and not log.failed
        return (
            server.state.link_up
            and not server.swapping
            and not server.node.consistency.until
            and log.committed_seq == primary.log.committed_seq
            and log.history.current == primary.log.history.current
        )

    def standing(self) -> str:
        """Where everybody is, for messages."""
        parts = []
        for name, server in sorted(self.servers.items()):
            upstream = server.node.upstream
            link = f"{upstream.phase} {upstream.host}" if upstream is not None else "primary"
            parts.append(f"{name}: {link} {server.log.committed_seq} {server.log.history}")
        return "; ".join(parts)

    def check(self) -> None:
        """The invariants at the end."""
        plan = self.plan
        rewinds = (
            plan.kind != "padding"  # there each server has its own setting
            and plan.settings["replication-rewind"]
            and plan.settings["replication-rewind-max-bytes"] > 300
        )
        if rewinds and self.settled and not (self.purged or plan.failing) and self.full_syncs:
            raise Violation(f"{self.full_syncs} full syncs where rewinding was enough")
        primary = self.servers[self.leader]
        expected = comparable(primary)
        for name, server in self.servers.items():
            store = server.disk.store
            if store.digest != digest_of(store.rows):
                raise Violation(f"{name}: the simulation's own digest is wrong")
            self.model.holds(name, store.rows, store.digest)
            if place_of(store.rows).padded:
                continue
            if comparable(server) != expected:
                raise Violation(f"{name} isn't equal to {self.leader}")
            if (
                not self.model.padded
            ):  # counts are rows as others: they came, what they count didn't
                check_counts(name, store.rows)
            careful = self.plan.careful and not self.model.padded
            self.tokens.check(name, store.rows, careful)


def comparable(server: Server) -> list[dict[bytes, bytes]]:
    """The rows that nodes of one lineage share."""
    rows = [dict(family) for family in server.disk.store.rows]
    log = rows[LOG]
    rows[LOG] = {
        key: row
        for key, row in log.items()
        if key != codec.STAMP_KEY and not key.startswith(codec.LOCAL_PREFIX)
    }
    return rows
