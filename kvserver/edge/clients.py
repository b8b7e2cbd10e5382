"""All connections: who is let in, who is closed for idling or for not reading.

It must not know commands. Source: Redis 7.4's networking.c (acceptCommonHandler,
checkClientOutputBufferLimits, clientsCronHandleTimeout).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvserver import errors, resp
from kvserver.directives import buffer_limit
from kvserver.edge import files
from kvserver.kinds import BufferLimit
from kvserver.request import Limits
from kvserver.state import clientinfo
from kvserver.state.session import BLOCKED, REPLICATING, Session, Sink

if TYPE_CHECKING:
    from kvserver.state.server import Server

logger = logging.getLogger("kvserver")

#: How long a stop waits for clients to take their last replies.
CLOSE_SECONDS: Final = 1.0

DENIED: Final = (
    b"-DENIED Redis is running in protected mode because protected mode is enabled and no "
    b"password is set for the default user. In this mode connections are only accepted from the "
    b"loopback interface. If you want to connect from external computers to Redis you may adopt "
    b"one of the following solutions: 1) Just disable protected mode sending the command "
    b"'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the "
    b"same host the server is running, however MAKE SURE Redis is not publicly accessible from "
    b"internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively "
    b"you can just disable the protected mode by editing the Redis configuration file, and "
    b"setting the protected mode option to 'no', and then restarting the server. 3) If you "
    b"started the server manually just for testing, restart it with the '--protected-mode no' "
    b"option. 4) Set up an authentication password for the default user. NOTE: You only need to "
    b"do one of the above things in order for the server to start accepting connections from the "
    b"outside.\r\n"
)


class Clients:
    """The connected sessions and the limits that hold for them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._next_id = 1
        self.tcp_keepalive = 0
        #: What the parsers of all connections obey.
        self.limits = Limits(0, 0)
        #: Sessions whose peer doesn't take its output as fast as it comes.
        self.clogged: set[Session] = set()
        #: Called when a replica's connection has taken its output, and when it is gone.
        self.on_drained: Callable[[Session], None] = _ignore
        self.on_gone: Callable[[Session], None] = _ignore
        server.config.on_change(
            [
                "tcp-keepalive",
                "proto-max-bulk-len",
                "client-query-buffer-limit",
                "client-output-buffer-limit",
            ],
            self._configure,
        )
        server.config.on_change("maxclients", lambda: files.check_clients(server.config))
        server.turn.check_limits = self.check_output_limit
        self._configure()

    def _configure(self) -> None:
        config = self.server.config
        self.tcp_keepalive = config.get_int("tcp-keepalive")
        self.limits.max_bulk = config.get_int("proto-max-bulk-len")
        self.limits.max_buffer = config.get_int("client-query-buffer-limit")
        self._normal_limit = buffer_limit(config, "normal")
        self._pubsub_limit = buffer_limit(config, "pubsub")
        self._replica_limit = buffer_limit(config, "replica")

    # -- coming and going ----------------------------------------------------------------------

    def new_session(self, sink: Sink, addr: str, laddr: str) -> Session:
        """A session for a new connection, which isn't let in yet."""
        server = self.server
        session = Session(self._next_id, sink, server.turn, addr, laddr)
        self._next_id += 1
        server.acl.welcome(session)
        return session

    def admit(self, session: Session, peer: Any) -> bytes | None:
        """Let a session in; or, as a reply, why not. `peer` is the socket's address."""
        server = self.server
        if len(server.sessions) >= server.config.get_int("maxclients"):
            refusal = resp.encode_error(errors.max_clients())
        elif self._is_protected() and not session.unix and not _is_loopback(peer):
            refusal = DENIED
        else:
            server.sessions[session.id] = session
            server.stats.connections += 1
            return None
        server.stats.rejected_connections += 1
        return refusal

    def _is_protected(self) -> bool:
        server = self.server
        return server.config.get_bool("protected-mode") and server.acl.default.no_password

    def unregister(self, session: Session) -> None:
        """The connection is gone: forget all that the session held."""
        server = self.server
        server.sessions.pop(session.id, None)
        self.clogged.discard(session)
        server.monitors.pop(session, None)
        server.pubsub.forget(session)
        server.watches.unwatch(session)
        server.tracking.disable(session)
        server.waiting.forget_blocked(session)
        session.parked = None
        server.pauses.parked.pop(session, None)
        server.turn.forget(session)
        if session.replica is not None:
            self.on_gone(session)
            session.replica = None

    async def close_all(self) -> None:
        """Close every connection once its output has left, or after a moment."""
        for session in list(self.server.sessions.values()):
            session.sink.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self.server.sessions and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    # -- limits ----------------------------------------------------------------------------------

    def check_output_limit(self, session: Session) -> None:
        """Close a session that doesn't take its output (client-output-buffer-limit). A monitor has
        the limit of subscribers: it doesn't ask for what it is sent either. Redis gives it that of
        normal clients, which is none, and grows."""
        limit = self._normal_limit
        if session.gate & REPLICATING:
            limit = self._replica_limit
        elif session.monitor or clientinfo.is_subscribed(session):
            limit = self._pubsub_limit
        size = clientinfo.output_bytes(session)
        hard = limit.hard and size >= limit.hard
        if not hard and not self._soft_exceeded(session, limit, size):
            return
        self.server.stats.output_buffer_disconnections += 1
        logger.warning(
            "Client %s closed for overcoming of output buffer limits.",
            clientinfo.describe(session).decode("utf-8", "surrogateescape"),
        )
        if session.gate & REPLICATING:  # not in the middle of what is being sent
            asyncio.get_running_loop().call_soon(session.sink.abort)
        else:
            session.sink.abort()

    def _soft_exceeded(self, session: Session, limit: BufferLimit, size: int) -> bool:
        if not limit.soft or size < limit.soft:
            session.soft_limit_since = 0.0
            return False
        now = time.monotonic()
        if not session.soft_limit_since:
            session.soft_limit_since = now
        return now - session.soft_limit_since > limit.soft_seconds

    def every_second(self) -> None:
        """Close who stayed above the soft limit of its output for too long, or was idle."""
        for session in list(self.clogged):
            self.check_output_limit(session)
        self._close_idle()

    def _close_idle(self) -> None:
        """`timeout`: close clients that sent and took nothing for so many seconds; those that
        wait for something are spared."""
        seconds = self.server.config.get_int("timeout")
        if not seconds:
            return
        oldest = time.monotonic() - seconds
        for session in list(self.server.sessions.values()):
            spared = (
                session.stop & BLOCKED
                or session.monitor
                or session.gate & REPLICATING
                or clientinfo.is_subscribed(session)
            )
            if session.last_active < oldest and not spared:
                session.sink.abort()


def _ignore(_session: Session) -> None:
    return None


def _is_loopback(peer: Any) -> bool:
    if not peer:  # it has reset the connection already
        return False
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
