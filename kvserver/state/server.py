"""The server's parts in one place, as commands reach them: a structure without logic.

It must not know sockets: what only the edge can do (stop, close a listener, save in a
worker) is behind `Edge`, which the edge implements.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from kvserver.config import Config
from kvserver.keyspace import Keyspace
from kvserver.scan import Cursors
from kvserver.scripting.engine import Scripting
from kvserver.state import notify, process
from kvserver.state.acl import Acl
from kvserver.state.awaited import Awaited
from kvserver.state.backups import BackupStatus
from kvserver.state.cold import ColdCommands
from kvserver.state.collector import Collector
from kvserver.state.latency import LatencyMonitor
from kvserver.state.migrations import Migration, Migrations
from kvserver.state.namespaces import Namespaces
from kvserver.state.notify import Notifier
from kvserver.state.pause import Pauses
from kvserver.state.pubsub import PubSub
from kvserver.state.replication import Replication
from kvserver.state.session import Session
from kvserver.state.slowlog import SlowLog
from kvserver.state.stats import Stats
from kvserver.state.table import CommandTable
from kvserver.state.tracking import Tracking
from kvserver.state.turn import Turn
from kvserver.state.waiting import Waiting
from kvserver.state.watch import Watches
from kvserver.storage.commitlog import CommitLog
from kvserver.types.encodings import Encodings

if TYPE_CHECKING:
    from kvserver.state.dispatch import Dispatcher


#: How many iterations a namespace may have under way, and the bytes of their places.
_NAMESPACE_CURSORS: Final = 4096
_NAMESPACE_CURSOR_BYTES: Final = 1 << 20


class Edge(Protocol):
    """What commands may ask of the edge."""

    def shutdown(self, *, flush: bool, now: bool, aborted: Callable[[], None]) -> None:
        """Begin to stop, unless `now` when replicas have everything. `flush`: write the memtables
        to files first (the log has it all). `aborted`: called if it is called off."""

    def abort_shutdown(self) -> bool:
        """Call off a stop that waits for replicas; whether there was one."""

    def save(self, done: Callable[[str | None], None]) -> None:
        """Make a backup; `done` is called with None, or why it failed."""

    def migrate(self, migration: Migration) -> None:
        """Send keys to another server; `Migrations.finish` is called when that is over."""

    def call_later(self, seconds: float, callback: object, *args: object) -> object:
        """asyncio's call_later; the handle's cancel() undoes it."""


class Server:
    """One server's parts."""

    def __init__(self, config: Config, log: CommitLog, turn: Turn, edge: Edge) -> None:
        self.config = config
        self.log = log
        self.turn = turn
        self.edge = edge
        self.keyspace = Keyspace(log, config.get_int("databases"))
        self.table = CommandTable()
        for old, new in config.get_lines("rename-command"):
            self.table.rename(old, new)
        self.stats = Stats()
        self.encodings = Encodings(config)
        self.awaited = Awaited(log)
        self.backups = BackupStatus()
        self.pubsub = PubSub(turn)
        self.notifier = Notifier(self.pubsub, self.keyspace)
        self.watches = Watches(self.keyspace)
        self.pauses = Pauses(edge.call_later)
        self.slowlog = SlowLog()
        self.latency = LatencyMonitor()
        self.collector = Collector()
        #: By namespace (Session.namespace): a place says where a key of somebody's is.
        self._cursors: dict[int, Cursors] = {0: Cursors()}
        self.replication = Replication()
        self.tracking = Tracking(self.keyspace, turn, config, self.replication)
        self.sessions = turn.sessions
        self.namespaces = Namespaces(self.keyspace, self.sessions)
        self.acl = Acl(config, self.sessions, self.stats, self.table, self.namespaces)
        self.monitors: dict[Session, None] = {}
        self.run_id = os.urandom(20).hex()
        self.started = time.time()
        #: Resident bytes before the first client came.
        self.startup_memory = process.resident_bytes()
        #: DEBUG SET-ACTIVE-EXPIRE.
        self.active_expire = True
        self.waiting = Waiting(self)
        self.cold = ColdCommands(self)
        self.migrations = Migrations(self)
        self.scripting = Scripting(self)
        self.keyspace.watched = self.watches.by_key
        self.keyspace.on_touch = self._touched
        self.keyspace.on_vanish = self._vanished
        self.keyspace.on_installed = self.tracking.installed
        self.keyspace.on_expired = self._notify_expired
        self.keyspace.on_fields_expired = self._notify_fields_expired
        self.keyspace.on_new = self._notify_new
        log.on_events = self.notifier.replay
        self.keyspace.on_miss = self._notify_miss
        self.dispatcher: Dispatcher

    def cursors(self, session: Session) -> Cursors:
        """Where a session's iterations go on."""
        found = self._cursors.get(session.namespace)
        if found is None:
            found = Cursors(_NAMESPACE_CURSORS, _NAMESPACE_CURSOR_BYTES)
            self._cursors[session.namespace] = found
        return found

    def _touched(self, index: int, key: bytes) -> None:
        self.watches.touch(index, key)
        self.tracking.touch(key, self.keyspace.namespace_of(index))
        self.waiting.blocked_keys.signal(index, key)

    def _vanished(self, index: int, key: bytes) -> None:
        self.watches.vanish(index, key)
        self.waiting.blocked_keys.signal(index, key)

    def _notify_expired(self, index: int, key: bytes) -> None:
        self.tracking.touch(key, self.keyspace.namespace_of(index))
        self.notifier.notify(notify.EXPIRED, b"expired", key, index)

    def _notify_fields_expired(self, index: int, key: bytes, gone: bool) -> None:
        self.notifier.notify(notify.HASH, b"hexpired", key, index)
        if gone:
            self.notifier.notify(notify.GENERIC, b"del", key, index)

    def _notify_new(self, index: int, key: bytes) -> None:
        if self.notifier.flags:
            self.log.wrote(0)  # the row follows; the message depends on it
            self.notifier.notify(notify.NEW, b"new", key, index)

    def _notify_miss(self, index: int, key: bytes) -> None:
        if self.notifier.flags:
            self.notifier.notify(notify.KEY_MISS, b"keymiss", key, index)
