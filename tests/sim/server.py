"""One process of a simulation: the real core on a simulated disk, and what the edge does for it.

A `Disk` survives the process; a `Server` is one life of it. It implements the core's ports `Host`
and `Timers`; `files.py` has `Files`. Every call of a port is a step at which the process may be
killed (`World.step`): `Killed` unwinds whatever is running.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvserver import codec
from kvserver.collection import Collection
from kvserver.commands.replication import _psync_request
from kvserver.database import Writer
from kvserver.errors import RedisError
from kvserver.expiry import expire_cycle
from kvserver.keyspace import Keyspace
from kvserver.replication.node import Node
from kvserver.replication.primary import Downstream
from kvserver.state.replication import PRIMARY, WAIT_BGSAVE, ReplicaState, Replication
from kvserver.storage.commitlog import CommitLog, EngineError, EngineStalled
from kvserver.storage.positions import PositionLog
from sim import elements
from sim.engine import Store
from sim.files import Files
from sim.network import End, Event, Timer

if TYPE_CHECKING:
    from sim.world import World

PORT = 6379
DATABASES = 2
CACHE_BYTES = 20_000

Address = tuple[str, int]


class Killed(BaseException):
    """The running process ends here."""


class Disk:
    """What is left when a process ends."""

    def __init__(self, store: Any) -> None:
        self.store = store
        #: The primary that the configuration names.
        self.primary: Address | None = None
        #: The clean marker: (epoch, position, inode).
        self.marker: tuple[int, int, int] | None = None
        #: Files of an interrupted full sync.
        self.incoming: dict[str, bytearray] = {}
        self.whole: set[str] = set()
        #: Those of a full sync that has all of them: a start puts them in place.
        self.complete: dict[str, bytearray] | None = None
        #: Positions that rewinds have taken back and saved.
        self.saved: list[tuple[int, int]] = []

    def power_cut(self) -> int:
        """Lose what isn't on the disk; how many batches that were."""
        self.marker, self.incoming, self.whole = None, {}, set()
        return int(self.store.power_cut())

    def settle(self) -> None:
        """Put a complete full sync in place."""
        if self.complete is not None:
            self.store, self.complete = self.store.become(self.complete), None
            self.marker = None


class Settings:
    """What the core reads of the configuration."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def get_int(self, name: str) -> Any:
        return self.values[name]

    get_bool = get_str = get_int


class Server:
    """One life of a process."""

    def __init__(self, world: World, name: str, disk: Disk) -> None:
        self.world = world
        self.name = name
        self.disk = disk
        self.alive = True
        self.started = False
        #: A batch of its own is being written, and not one of its primary's.
        self.committing = False
        #: When the log was last deleted although a replica needed it.
        self.broke_pin = -1.0
        self.is_new = not disk.store.sequence
        self.frozen_until = 0.0
        self.swapping = False
        self.write_pause = False
        self.syncing = False
        self.parked: list[Event] = []
        #: (position, tokens) of replies that wait for their release.
        self.waiting: list[tuple[int, list[bytes]]] = []
        world.current = self
        self.engine = world.engine(self)
        self.log = CommitLog(self.engine)
        self.log.cache.resize(CACHE_BYTES)
        self.log.step = world.step
        self.log.wait_for_sync = world.always
        self.keyspace = Keyspace(self.log, DATABASES)
        self.state = Replication()
        self.index: PositionLog = world.position_log(self)
        self.files = Files(self)
        self.config = Settings(dict(world.settings))
        if world.plan.kind == "padding":
            # Each life of a server has its own: who was padded is rewound later.
            self.config.values["replication-rewind"] = world.random.random() < 0.4
        run_id = f"{world.random.getrandbits(160):040x}"
        self.node = Node(
            self.config,
            self.log,
            self.index,
            self.state,
            self,
            self.files,
            self,
            run_id,  # type: ignore[arg-type]
        )

    def begin(self) -> None:
        """What a start does, once everything is composed."""
        marker, self.disk.marker = self.disk.marker, None
        self.world.step("started")
        found = (self.log.epoch, self.log.committed_seq, self.disk.store.inode)
        if self.disk.primary is not None:
            self.node.follow(*self.disk.primary)
        elif not self.is_new and marker != found:
            self.node.begin_era()
        self.role_changed()
        self.call_later(self.world.random.random(), self._tick)
        self._every_second()

    def stop(self) -> None:
        """SHUTDOWN."""
        if self.world.healing:
            return  # it was frozen when it was asked to
        if self.state.role == PRIMARY and self.commit() and not self.log.failed:
            self.engine.sync_wal()
            place = (self.log.epoch, self.log.committed_seq, self.disk.store.inode)
            self.disk.marker = place
        self.engine.flush()
        self.world.kill(self)

    # -- events --------------------------------------------------------------------------------

    def run(self, callback: Event, *args: Any) -> None:
        """An event of this process."""
        world = self.world
        if not self.alive:
            return
        if world.clock.time < self.frozen_until:
            world.clock.when(self.frozen_until, self.run, callback, *args)
            return
        world.current = self
        try:
            callback(*args)
        except Killed:
            world.kill(self)
        finally:
            world.current = None

    def operate(self, callback: Event, *args: Any) -> None:
        """A command of an operator: parked while the data set is being replaced."""
        if self.swapping:
            self.parked.append(lambda: callback(*args))
        else:
            self.run(self._refusable, callback, *args)

    def _refusable(self, callback: Event, *args: Any) -> None:
        try:
            callback(*args)
        except RedisError as error:
            self.world.note(f"{self.name} refuses: {error}")

    def run_parked(self) -> None:
        parked, self.parked = self.parked, []
        for callback in parked:
            self.world.clock.at(0, self.run, self._refusable, callback)

    def now(self) -> float:
        return self.world.clock.time

    def call_later(self, seconds: float, callback: Event, *args: Any) -> Timer:
        timer = Timer(callback)
        self.world.clock.at(seconds, self.run, self._fire, timer, args)
        return timer

    def _fire(self, timer: Timer, args: tuple[Any, ...]) -> None:
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback(*args)

    def _tick(self) -> None:
        self.call_later(1.0, self._tick)
        if not self.swapping:
            self.node.tick()

    def _every_second(self) -> None:
        self.call_later(1.0, self._every_second)
        self.start_sync()
        self.expire()

    # -- Host ----------------------------------------------------------------------------------

    def dial(self, host: str, port: int, peer: Any) -> None:
        self.world.step("dial")
        self.world.network.dial(self, host, peer)

    def commit(self) -> bool:
        log = self.log
        if not log.pending:
            return True
        if log.failed:
            return False
        self.committing = True
        try:
            log.commit()
        except EngineStalled:
            self.call_later(0.003, self.commit)
            return False
        except EngineError as error:
            log.rollback()
            self.write_failed(str(error))
            return False
        finally:
            self.committing = False
        if log.wait_for_sync:
            self.start_sync()
        self.node.pump()
        self.released()
        return True

    def role_changed(self) -> None:
        primary = self.state.role == PRIMARY
        self.keyspace.may_expire = primary and not self.write_pause
        self.log.set_quorum(self.world.quorum if primary else 0)
        self.disk.primary = None if primary else (self.state.primary_host, self.state.primary_port)

    def want_events(self, kinds: int) -> None:
        """Nobody listens."""

    def demoted(self) -> None:
        self.waiting.clear()
        self.log.give_up(self.log.committed_seq)

    def rewound(self) -> None:
        self.waiting = [entry for entry in self.waiting if entry[0] <= self.log.committed_seq]

    def installed(self) -> None:
        if self.log.wait_for_sync:
            self.start_sync()

    def write_failed(self, reason: str) -> None:
        if not self.log.failed:
            self.log.failed = True
            self.call_later(1.0, self._recover)

    def _recover(self) -> None:
        if self.swapping:
            self.call_later(1.0, self._recover)
            return
        self.node.before_reopen()
        self.world.step("reopen")
        self.engine.reopen()
        try:
            self.reload()
        except EngineStalled:  # the genesis of a data set that had none yet: as edge.recovery does
            self.call_later(1.0, self._recover)
            return
        self.log.failed = self.log.sync_failed = False
        self.world.step("reopened")
        self.node.reopened()

    def reload(self) -> None:
        """The engine was opened anew."""
        self.log.reload()
        self.waiting = [entry for entry in self.waiting if entry[0] <= self.log.committed_seq]

    def acknowledged(self) -> None:
        self.released()

    def deliver(self, kind: bytes, channel: bytes, message: bytes) -> None:
        self.world.messages += 1

    def pause_writes(self, seconds: float) -> None:
        self.write_pause = True
        self.keyspace.may_expire = False

    def unpause_writes(self) -> None:
        self.write_pause = False
        self.keyspace.may_expire = self.state.role == PRIMARY

    # -- fsync ---------------------------------------------------------------------------------

    def start_sync(self) -> None:
        """fsync in a worker: what is there when it begins is durable when it ends."""
        if self.syncing or self.swapping or self.log.failed:
            return
        seq = self.log.begin_sync()
        if seq is None:
            return
        self.syncing = True
        delay = self.world.random.choice((0.001, 0.005, 0.05))
        self.call_later(delay, self._synced, seq, self.disk.store)

    def _synced(self, seq: int, store: Store) -> None:
        self.syncing = False
        if store is not self.disk.store or self.swapping or self.log.failed:
            return
        self.engine.sync_wal()
        self.log.end_sync(seq)
        self.node.synced()
        self.released()
        if self.log.wait_for_sync:
            self.start_sync()

    # -- clients -------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether a client's write is taken."""
        return (
            self.alive
            and self.state.role == PRIMARY
            and not (self.write_pause or self.swapping or self.log.failed or self.engine.closed)
            and not self.log.pending
            and not self.node.consistency.until
            and self.world.clock.time >= self.frozen_until
        )

    def write(self, command: Callable[[list[Writer]], Any]) -> None:
        """A command: it takes a position if it changes something."""
        self.keyspace.now = self.world.unix_ms(self)
        command(self.keyspace.writers)
        if self.log.changed and self.log.advance():
            self.commit()

    def append(self, key: bytes, count: int) -> None:
        """Commands that append tokens to a key, in one batch; they are acknowledged when their
        position is released."""
        tokens = [self.world.tokens.new() for _ in range(count)]
        for token in tokens:
            self.write(lambda dbs, token=token: _append(dbs[1], key, token))
        seq = self.log.last_seq
        if self.commit():
            self.waiting.append((seq, tokens))
            self.released()

    def released(self) -> None:
        """Replies leave."""
        while self.waiting and self.waiting[0][0] <= self.log.released_seq:
            self.world.tokens.acked.update(self.waiting.pop(0)[1])

    def read(self, key: bytes) -> None:
        """GET, on any node: what is cached must be what is stored."""
        if self.swapping or self.log.failed or self.engine.closed:
            return
        if self.world.model.padded:
            return  # two databases may have one id, and emptying one takes the other's rows along
        self.keyspace.now = self.world.unix_ms(self)
        reader = self.keyspace.readers[0]
        row_key = reader.row_key(key)
        if self.log.pending:
            return
        row = self.log.rows.get(row_key)
        if row != self.engine.get(0, row_key):
            self.world.violated(f"{self.name}: the cached row of {key!r} isn't the stored one")
        if row is not None and codec.row_type(row) == elements.KIND:
            self._read_elements(Collection(self.log.data, row_key[: codec.DB_PREFIX_LEN], row))

    def _read_elements(self, rows: Collection) -> None:
        for key, stored in self.engine.scan(1, *rows.bounds()):
            if rows.get(key[codec.ELEMENT_PREFIX_LEN :]) != stored:
                self.world.violated(f"{self.name}: a cached element isn't the stored one")

    def expire(self) -> None:
        """A cycle of active expiry."""
        if self.writable:
            self.keyspace.now = self.world.unix_ms(self)
            expire_cycle(self.keyspace, 10**9)
            self.commit()

    # -- connections ---------------------------------------------------------------------------

    def accept(self, end: End) -> None:
        """A connection comes in."""
        Connection(self, end)


def _append(db: Writer, key: bytes, token: bytes) -> None:
    db.put_string(key, (db.string(key) or b"") + token)


class Connection:
    """A connection that a replica has opened: its commands."""

    def __init__(self, server: Server, end: End) -> None:
        self.server = server
        self.end = end
        self.end.peer = self
        self.end.drained = self._drained
        self.replica: Downstream | None = None
        self.state = ReplicaState(addr="sim", last_ack=server.now())
        self.state.ip = getattr(end.other.process, "name", "")
        self._buffer = bytearray()
        self._began = server.now()
        self._was_full = False

    def received(self, data: bytes) -> None:
        self._buffer += data
        while not self.end.closed:
            command = take_command(self._buffer)
            if command is None:
                return
            try:
                reply = self._execute(command)
            except RedisError as error:
                reply = f"-{error}".encode()
            if reply:
                self.end.send(reply + b"\r\n")

    def lost(self, reason: str) -> None:
        if self.replica is not None:
            self.server.node.cut(self.replica)

    def _drained(self) -> None:
        if self.replica is not None and not self.replica.closed:
            self.replica.drained()

    def _execute(self, command: list[bytes]) -> bytes:
        name, *args = command
        if name == b"PSYNC":
            if self.server.swapping or self.server.engine.closed:
                raise RedisError("LOADING kvserver is loading the dataset in memory")
            request = _psync_request(args[0], args[1], tuple(args[2:]))
            if self.server.node.failover.running and not request.failover:
                raise RedisError("NOMASTERLINK failing over")
            if self.replica is None:
                self.replica = self.server.node.add_replica(self.end, self.state)
            self.server.node.psync(self.replica, request)
            self._answered(self.state.state == WAIT_BGSAVE)
            return b""
        option = args[0].upper()
        if option == b"LISTENING-PORT":
            self.state.port = int(args[1])
        elif option == b"RUN-ID":
            self.state.run_id = args[1]
        elif option == b"EVENTS":
            self.state.events = int(args[1])
        else:
            try:
                self._after_psync(option, args[1:])
            except ValueError as error:
                self.server.world.violated(f"a replica sends what it may not: {error}")
            return b""
        return b"+OK"

    def _answered(self, full: bool) -> None:
        """A full sync that ends with a full sync was in vain: the log must be there after it."""
        world = self.server.world
        if full:
            world.full_syncs += 1
            if self._was_full and self.server.broke_pin < self._began and not world.model.padded:
                world.violated(f"{self.server.name}: a full sync was in vain")
        self._was_full = full

    def _after_psync(self, option: bytes, args: list[bytes]) -> None:
        replica = self.replica
        if replica is None or replica.closed or self.server.swapping:
            return
        if option == b"ACK":
            self.server.node.ack(replica, int(args[0]), int(args[2]))
        elif option == b"HAVE":
            replica.have(args[0].decode(), int(args[1]))
        elif option == b"KEYS":
            for key in args[1:]:
                replica.want(int(args[0]), key, None)
        elif option == b"RANGE":
            replica.want(int(args[0]), args[1], args[2])
        elif option == b"END":
            replica.end_of_list()


def take_command(buffer: bytearray) -> list[bytes] | None:
    """A whole command from the front of the buffer."""
    end = buffer.find(b"\r\n")
    if end < 0:
        return None
    count, pos = int(buffer[1:end]), end + 2
    command = []
    for _ in range(count):
        end = buffer.find(b"\r\n", pos)
        if end < 0:
            return None
        size, pos = int(buffer[pos + 1 : end]), end + 2
        if len(buffer) < pos + size + 2:
            return None
        command.append(bytes(buffer[pos : pos + size]))
        pos += size + 2
    del buffer[:pos]
    return command
