"""The two kinds of links: to a primary over a connection of our own, to a replica over its session.

They must not know frames. Invariants:
- No exception of a callback reaches the event loop: it ends that link only.
- After `close` nothing is delivered, `lost` neither.
- A replica's link tells when what was sent has been taken (`drained`), whenever its `buffered` was
  above what the core lets wait.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvserver.config import Config, ConfigError
from kvserver.edge.tls import tls_client_context
from kvserver.replication.ports import Dialer

if TYPE_CHECKING:
    from kvserver.state.session import Session

logger = logging.getLogger("kvserver")


class DialedLink(asyncio.Protocol):
    """A connection to a primary."""

    def __init__(self, peer: Dialer, keepalive: int) -> None:
        self._peer = peer
        self._keepalive = keepalive
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._paused = self._closed = False
        #: What came while nothing may be delivered.
        self._backlog: list[bytes] = []

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self._keepalive)
        self._guarded(self._peer.connected, self)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        if self._paused or self._backlog:
            self._backlog.append(data)
        else:
            self._guarded(self._peer.received, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            self._guarded(self._peer.lost, str(exc) if exc else "the primary closed it")

    def _guarded(self, callback: Callable[[Any], None], argument: Any) -> None:
        try:
            callback(argument)
        except Exception:
            logger.exception("the link to the primary fails unexpectedly")
            if not self._closed:
                self.close()
                self._peer.lost("internal error")

    # -- Link ----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        if not self._closed:
            self._transport.write(data)

    def buffered(self) -> int:
        return 0 if self._closed else int(self._transport.get_write_buffer_size())

    def pause_reading(self) -> None:
        if not self._paused and not self._closed:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self._closed:
            self._paused = False
            if self._backlog:
                self._loop.call_soon(self._deliver)
            self._transport.resume_reading()

    def _deliver(self) -> None:
        while self._backlog and not self._paused and not self._closed:
            data = b"".join(self._backlog)
            self._backlog.clear()
            self._guarded(self._peer.received, data)

    def close(self) -> None:
        self._closed = True
        self._backlog.clear()
        if self._transport is not None:
            self._transport.abort()


class Dial:
    """Opens connections to primaries, as `tls-replication` and `repl-timeout` say."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, host: str, port: int, peer: Dialer) -> None:
        """Begin to connect; the peer hears what comes of it."""
        task = asyncio.get_running_loop().create_task(self._open(host, port, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, host: str, port: int, peer: Dialer) -> None:
        config = self._config
        loop = asyncio.get_running_loop()
        link = DialedLink(peer, config.get_int("tcp-keepalive"))
        try:
            tls = tls_client_context(config) if config.get_bool("tls-replication") else None
            async with asyncio.timeout(config.get_int("repl-timeout")):
                await loop.create_connection(lambda: link, host, port, ssl=tls)
        except (OSError, ConfigError, ValueError, OverflowError) as error:
            # TimeoutError is an OSError; the others come of a host or port that can't be one.
            logger.debug("can't connect to %s:%d: %s", host, port, error)
            link.close()
            peer.lost(str(error) or type(error).__name__)

    async def stop(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class SessionLink:
    """A replica's connection, which began as any client's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._queued = self._closed = False
        #: Called when the replica took what was sent.
        self.on_drained: Callable[[], None] = _nothing

    def send(self, data: bytes) -> None:
        """At once, or behind the replies of this turn; past the limits for a client's replies,
        since requests must be read all the same."""
        session = self._session
        if self._closed:
            return
        if not session.out and not session.held:
            session.sink.write(data)
            return
        session.out.append(data)
        if not session.dirty:
            session.turn.touch(session)
        if not self._queued:
            self._queued = True
            self._loop.call_soon(self._left)

    def _left(self) -> None:
        """Go on once the turn's output has left. What is written at once is followed by the
        transport, which tells when it is taken."""
        if self._session.out and not self._closed:
            self._loop.call_soon(self._left)
            return
        self._queued = False
        self.drained()

    def drained(self) -> None:
        """The replica took what was sent."""
        if not self._closed:
            self.on_drained()

    def buffered(self) -> int:
        session = self._session
        return session.sink.buffered() + sum(map(len, session.out))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.on_drained = _nothing  # who is called refers to the link
            self._session.sink.abort()


def _nothing() -> None:
    return None
