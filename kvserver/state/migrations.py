"""MIGRATE: keys on their way to another server, and what may not happen to them meanwhile.

It must not know sockets: the edge sends (edge/migrate.py). Redis does nothing else while it
migrates. Here only what might change one of the keys waits until it is over: whatever was sent is
what is deleted when the target has taken it, and nothing that was written is lost. Invariants:
- While a key is under way no command that writes and names it runs, in whatever database, nor one
  that may write and doesn't name all its keys: scripts, FLUSHALL, SWAPDB. Nothing expires.
- What is sent is released (committed, and fsynced or replicated where replies wait for that): it
  can't be undone any more.
- A key is deleted only when the target has said that it has it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kvserver import codec, errors, resp
from kvserver.errors import RedisError
from kvserver.registry import MAY_REPLICATE, PUBSUB, WRITE
from kvserver.state import notify
from kvserver.state.admission import FAILED, MIGRATING, READ_ONLY
from kvserver.state.context import Blocked
from kvserver.state.pause import unix_ms
from kvserver.state.session import Session
from kvserver.state.writers import COMMAND_AT
from kvserver.types import values

if TYPE_CHECKING:
    from kvserver.state.server import Server
    from kvserver.state.table import Entry

#: A command for the target, made in steps; None: the key is past its time.
Request = Generator[None, None, bytes | None]


class Target(NamedTuple):
    """Where to, and how."""

    host: str
    port: int
    db: bytes
    timeout_ms: int
    #: AUTH's arguments; none: no AUTH.
    credentials: tuple[bytes, ...]


class Migration:
    """One MIGRATE under way."""

    def __init__(
        self,
        server: Server,
        session: Session,
        keys: list[bytes],
        target: Target,
        *,
        keep: bool,
        replace: bool,
    ) -> None:
        self._log = server.log
        self._reader = server.keyspace.readers[session.db]
        self._words = [b"REPLACE"] if replace else []
        self.session = session
        self.index = session.db
        self.keys = keys
        self.target = target
        #: COPY: the keys stay here.
        self.keep = keep
        #: What was last written to the keys has this position or a lower one.
        self.seq = self._log.last_seq + 1 if self._log.changed else self._log.last_seq
        #: It changes when somebody else has written meanwhile, as this server's primary.
        self.epoch = self._log.epoch
        self.blocked: Blocked
        #: The keys that the target has taken, and the first that went wrong.
        self.taken: list[bytes] = []
        self.error: RedisError | None = None

    @property
    def settled(self) -> bool:
        """Whether what was written to the keys can't be undone any more."""
        return self._log.released_seq >= min(self.seq, self._log.last_seq)

    def requests(self) -> Iterator[tuple[bytes, Request]]:
        """(key, RESTORE command) for each key, to be made one after the other."""
        for key in self.keys:
            yield key, self._request(key)

    def _request(self, key: bytes) -> Request:
        row = self._reader.rows.get(self._reader.row_key(key))
        if row is None:
            return None
        ttl = 0
        expire_ms = codec.row_expire(row)
        if expire_ms:
            ttl = expire_ms - unix_ms()
            if ttl < 0:
                return None
            ttl = max(ttl, 1)
        payload = values.payload(self._reader, row)
        self._log.touched = False  # no reply depends on what is read here
        whole = yield from payload
        return encode([b"RESTORE", key, b"%d" % ttl, whole, *self._words])

    def failed(self, error: RedisError) -> None:
        """Something went wrong; the client hears of the first."""
        self.error = self.error or error


def encode(words: list[bytes]) -> bytes:
    """A command as it is sent."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(parts)


class Migrations:
    """All that are under way."""

    def __init__(self, server: Server) -> None:
        self._server = server
        #: The names of their keys, and in how many of them each is.
        self._names: Counter[bytes] = Counter()

    def begin(self, migration: Migration) -> Blocked:
        """The answer of MIGRATE; the reply comes when it is over. It goes on whether or not the
        client waits for it."""
        if not self._names:
            self._server.dispatcher.raise_gate(MIGRATING)
        self._names.update(migration.keys)
        migration.blocked = Blocked(0, _interrupted, _nothing)
        self._server.edge.migrate(migration)
        return migration.blocked

    def concern(self, session: Session, entry: Entry, args: list[bytes]) -> bool:
        """Whether a command might change a key that is under way."""
        if entry.name == "once":
            args = args[COMMAND_AT:]
            entry = self._server.table.find(args)
        if entry.name == "exec":
            return any(self._may_change(queued, words) for queued, words in session.queue)
        return self._may_change(entry, args)

    def _may_change(self, entry: Entry, args: list[bytes]) -> bool:
        if not entry.flags & (WRITE | MAY_REPLICATE) or entry.flags & PUBSUB:
            return False
        places = entry.spec.find_keys(args)
        return (
            not places
            or entry.spec.group == "scripting"
            or any(args[place] in self._names for place, _ in places)
        )

    def finish(self, migration: Migration) -> None:
        """All replies are there, or none will come any more: delete what the target has taken, and
        answer. The gate lets writes through."""
        server = self._server
        server.keyspace.now = unix_ms()
        server.dispatcher.clock = time.perf_counter_ns()
        self._names.subtract(migration.keys)
        self._names = +self._names
        if not self._names:
            server.dispatcher.lower_gate(MIGRATING)
        reply = self._delete(migration)
        if isinstance(reply, RedisError):
            server.stats.count_error(reply.code)
        if migration.session.blocked_on is migration.blocked:
            server.waiting.unblock(migration.session, reply)
        elif server.log.changed:
            server.log.advance()
            server.log.touched = False
            server.turn.arm()
        server.dispatcher.run_parked()

    def _delete(self, migration: Migration) -> Any:
        """Returns the reply."""
        server = self._server
        reply = resp.OK if migration.error is None else migration.error
        if migration.keep or not migration.taken:
            return reply
        gate = server.dispatcher.gate
        if gate & READ_ONLY or server.log.epoch != migration.epoch:
            return errors.role_changed()
        if gate & FAILED:
            return errors.misconf(server.dispatcher.failure)
        writer = server.keyspace.writers[migration.index]
        try:
            for key in migration.taken:
                if writer.delete(key):
                    server.notifier.notify(notify.GENERIC, b"del", key, migration.index)
        except Exception as problem:
            return server.dispatcher.crashed("migrate", problem)
        return reply


def _interrupted() -> RedisError:
    """The reply to a client that CLIENT UNBLOCK wakes."""
    return errors.migration_failed("reading")


def _nothing() -> None:
    return None
