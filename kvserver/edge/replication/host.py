"""The server around the replication core (`ports.Host`, `ports.Timers`).

It must not know frames or protocols. Invariants:
- What the core does between two commands is committed by the turn as any command's writes are.
- A reply that waits for `replica-ack-quorum` waits `replica-ack-timeout` at most.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvserver import errors
from kvserver.edge.durability import Durability
from kvserver.edge.replication.links import Dial
from kvserver.replication.ports import Dialer
from kvserver.state import pause
from kvserver.state.server import Server

if TYPE_CHECKING:
    from kvserver.replication.node import Node

#: The purpose of the pause (state/pause.py).
FAILOVER: Final = "failover"


class LoopTimers:
    """The event loop's clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[..., None], *args: Any) -> Any:
        return self._loop.call_later(seconds, callback, *args)


class ServerHost:
    """What the core asks of the server, and tells it."""

    def __init__(self, server: Server, durability: Durability) -> None:
        self._server = server
        self._durability = durability
        self._quorum = Quorum(server)
        self.dialing = Dial(server.config)
        self.node: Node
        #: Messages that were published here in this turn; they follow what it commits.
        self._published: list[tuple[bytes, bytes, bytes]] = []
        server.turn.on_commit = self._committed
        server.pubsub.on_publish = self._publish

    # -- Host ------------------------------------------------------------------------------------

    def dial(self, host: str, port: int, peer: Dialer) -> None:
        self.dialing.open(host, port, peer)

    def commit(self) -> bool:
        if self._server.log.pending:
            self._server.turn.commit()
        return not self._server.log.pending

    def role_changed(self) -> None:
        self._server.dispatcher.role_changed()
        self._quorum.configure()

    def demoted(self) -> None:
        if self._server.log.quorum:  # no replica has it, and from now on nothing waits for one
            self._server.turn.fail_pending(errors.role_changed())
        self._quorum.give_up(self._server.log.committed_seq, errors.role_changed())
        self._server.waiting.demoted()
        self._server.tracking.flush()  # a replica knows less of what changes

    def rewound(self) -> None:
        server = self._server
        server.turn.rewound(errors.role_changed())
        server.tracking.flush()
        server.waiting.abort_walks(errors.loading())

    def installed(self) -> None:
        self._durability.installed()

    def write_failed(self, reason: str) -> None:
        self._server.turn.on_failure(reason)

    def acknowledged(self) -> None:
        self._server.turn.released()

    def want_events(self, kinds: int) -> None:
        self._server.notifier.want(kinds)

    def deliver(self, kind: bytes, channel: bytes, message: bytes) -> None:
        pubsub = self._server.pubsub
        if kind == b"smessage":
            pubsub.publish_shard(channel, message)
        else:
            pubsub.publish(channel, message)

    def pause_writes(self, seconds: float) -> None:
        self._server.pauses.pause(FAILOVER, pause.unix_ms() + int(seconds * 1000), pause.WRITES)

    def unpause_writes(self) -> None:
        self._server.pauses.unpause(FAILOVER)

    # -- the turn ----------------------------------------------------------------------------------

    def _committed(self) -> None:
        """A batch of this server was committed."""
        if self.node.replicas:
            self.node.pump()
        if self._server.log.quorum:
            self._quorum.committed()

    def _publish(self, kind: bytes, channel: bytes, message: bytes) -> None:
        """A command published a message."""
        if self.node.replicas:
            self._published.append((kind, channel, message))
            self._server.turn.arm()

    def end_turn(self) -> None:
        """The turn is over: what was published in it follows what it wrote. If that couldn't be
        written nobody hears of it."""
        published, self._published = self._published, []
        if not self._server.log.failed:
            for message in published:
                self.node.publish(*message)


class Quorum:
    """`replica-ack-quorum`: who waits for replicas, and for how long."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        #: (moment, position) of the commits that were not acknowledged when they were made.
        self._waiting: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def configure(self) -> None:
        """Take the directive over; a replica waits for nobody."""
        server = self._server
        replica = server.replication.is_replica
        quorum = 0 if replica else server.config.get_int("replica-ack-quorum")
        if quorum != server.log.quorum:
            server.log.set_quorum(quorum)
            # Not at once: this may be in the middle of a command.
            self._loop.call_soon(server.turn.released)

    def committed(self) -> None:
        """A batch was committed."""
        log = self._server.log
        if max(log.acked_seq, log.given_up_seq) < log.committed_seq:
            self._waiting.append((self._loop.time(), log.committed_seq))
            if self._timer is None:
                self._wait()

    def _wait(self) -> None:
        """Wake up when the oldest has waited too long."""
        log = self._server.log
        done = max(log.acked_seq, log.given_up_seq)
        while self._waiting and (self._waiting[0][1] <= done or not log.quorum):
            self._waiting.popleft()
        timeout = self._server.config.get_int("replica-ack-timeout")
        self._timer = None
        if self._waiting and timeout:
            due = self._waiting[0][0] + timeout / 1000
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        limit = self._server.config.get_int("replica-ack-timeout") / 1000
        oldest = self._loop.time() - limit
        seq = 0
        while self._waiting and self._waiting[0][0] <= oldest:
            seq = self._waiting.popleft()[1]
        log = self._server.log
        if limit and seq > max(log.acked_seq, log.given_up_seq):
            self.give_up(seq, errors.not_acknowledged())
        self._wait()

    def give_up(self, seq: int, error: errors.RedisError) -> None:
        """Nobody waits any more for replicas to have what is up to `seq`."""
        server = self._server
        if server.log.quorum:
            server.turn.fail_unreleased(seq, error)
            server.log.give_up(seq)
            server.turn.released()
