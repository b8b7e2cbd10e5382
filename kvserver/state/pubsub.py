"""Publish/subscribe: channels, patterns, shard channels. It must not know commands or sockets.

Source: Redis 7.4's pubsub.c. A message published by a command leaves with the command's
reply, and not at all if its commit fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvserver import glob, resp
from kvserver.state.session import RESP2_SUBSCRIBED, RESP3_SUBSCRIBED, Session
from kvserver.state.turn import Turn

Subscribers = dict[bytes, dict[Session, None]]

#: A message is for everybody, whatever his namespace.
EVERYBODY: Final = -1


class PubSub:
    """Who listens to what. Dictionaries as ordered sets: delivery in order of subscription."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.channels: Subscribers = {}
        self.patterns: Subscribers = {}
        self.shard_channels: Subscribers = {}
        self._matchers: dict[bytes, Callable[[bytes], bool]] = {}
        #: Called with the kind, channel and message of what a command published: for replicas.
        self.on_publish: Callable[[bytes, bytes, bytes], None] = _ignore
        #: What `hold` keeps back.
        self._held: list[tuple[Session, bytes]] | None = None

    def subscribe(self, session: Session, table: Subscribers, name: bytes) -> None:
        """Add a subscription; `table` is one of the three."""
        if table is self.patterns and name not in self._matchers:
            self._matchers[name] = glob.compile(name)
        table.setdefault(name, {})[session] = None
        self._names(session, table)[name] = None
        self.regate(session)

    def unsubscribe(self, session: Session, table: Subscribers, name: bytes) -> None:
        """Drop a subscription, if there is one."""
        self._names(session, table).pop(name, None)
        sessions = table.get(name)
        if sessions is not None:
            sessions.pop(session, None)
            if not sessions:
                del table[name]
                if table is self.patterns:
                    del self._matchers[name]
        self.regate(session)

    def forget(self, session: Session) -> None:
        """Drop all of a session's subscriptions."""
        for table in (self.channels, self.patterns, self.shard_channels):
            for name in list(self._names(session, table)):
                self.unsubscribe(session, table, name)

    def publish(self, channel: bytes, message: bytes, namespace: int = EVERYBODY) -> int:
        """Deliver, to those in a namespace (0: in none) or to everybody; returns how many sessions
        listen."""
        count = self._deliver(self.channels, channel, [b"message", channel, message], namespace)
        for pattern, matches in self._matchers.items():
            if matches(channel):
                push = [b"pmessage", pattern, channel, message]
                count += self._deliver(self.patterns, pattern, push, namespace)
        return count

    def publish_shard(self, channel: bytes, message: bytes) -> int:
        """SPUBLISH."""
        push = [b"smessage", channel, message]
        return self._deliver(self.shard_channels, channel, push, EVERYBODY)

    def _deliver(self, table: Subscribers, name: bytes, push: list[Any], namespace: int) -> int:
        sessions = table.get(name)
        if not sessions:
            return 0
        encoded: dict[bool, bytes] = {}
        for session in sessions:
            if namespace not in (EVERYBODY, session.namespace):
                continue
            data = encoded.get(session.resp3)
            if data is None:
                data = encoded[session.resp3] = resp.encode(resp.Push(push), session.resp3)
            if self._held is None:
                self._send(session, data, self._turn.log.touched)
            else:
                self._held.append((session, data))
        return len(sessions)

    def _send(self, session: Session, data: bytes, depends: bool) -> None:
        """`depends`: the message tells of a write that isn't released yet."""
        session.send(data)
        if depends:
            self._turn.mark(session, b"")

    # -- messages of a command that isn't over -------------------------------------------------

    @property
    def holding(self) -> bool:
        """Whether what is published is kept."""
        return self._held is not None

    def hold(self) -> None:
        """Keep what is published from now on."""
        self._held = []

    def release(self) -> None:
        """Send what was kept, and keep no more."""
        held, self._held = self._held, None
        for session, data in held or ():
            self._send(session, data, self._turn.log.unsettled)

    def drop(self) -> None:
        """Forget what was kept: the writes that it tells of were undone."""
        if self._held is not None:
            self._held = []

    # -- the sessions' state -------------------------------------------------------------------

    def regate(self, session: Session) -> None:
        """To be called when the subscriptions or the protocol changed: under RESP2 a session with
        subscriptions may only call a few commands, under RESP3 its own messages follow its
        replies."""
        session.gate &= ~(RESP2_SUBSCRIBED | RESP3_SUBSCRIBED)
        if session.subscriptions or session.shard_channels:
            session.gate |= RESP3_SUBSCRIBED if session.resp3 else RESP2_SUBSCRIBED

    def _names(self, session: Session, table: Subscribers) -> dict[bytes, None]:
        if table is self.channels:
            return session.channels
        return session.patterns if table is self.patterns else session.shard_channels


def _ignore(_kind: bytes, _channel: bytes, _message: bytes) -> None:
    return None
