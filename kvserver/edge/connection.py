"""A client's connection: bytes in, requests to the dispatcher; replies out, with flow control.

It must not know commands. Invariants:
- While the session is stopped (blocked, parked, its output not taken) requests queue up,
  and reading stops once they are many: memory is bounded by the limits, not by the peer.
- A peer that sends many requests at once doesn't keep the others waiting for all of them.
- Whatever the peer sends, other connections are served: no exception leaves a callback.
- A peer that ends its side gets the replies to what it sent before, unless its command waits.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from itertools import islice
from time import monotonic, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from kvserver import errors, resp
from kvserver.request import ProtocolError, QueryBufferExceeded, Request, RequestParser
from kvserver.state import clientinfo
from kvserver.state.session import (
    BLOCKED,
    CLOSING,
    COLD,
    GIVES_WAY,
    MONITORING,
    MUTES,
    NEEDS_AUTH,
    NO_SINK,
    OUTPUT_FULL,
    REPLICATING,
    REPLY_OFF,
    Session,
)

if TYPE_CHECKING:
    from kvserver.edge.clients import Clients

logger = logging.getLogger("kvserver")

#: Requests received for a stopped session, in bytes, before reading stops.
QUEUE_BYTES: Final = 1 << 20
#: Requests of one client are executed for so long, then the others have their turn.
SLICE_NS: Final = 2_000_000
#: What CPython keeps for a queued request beside its bytes: the list, and each argument's head.
REQUEST_OVERHEAD: Final = 64
ARGUMENT_OVERHEAD: Final = 48


class Connection:
    """An asyncio.Protocol in all but name (mypyc compiles no subclass of it), and the session's
    sink."""

    __slots__ = (
        "_broken",
        "_clients",
        "_dispatcher",
        "_ended",
        "_keyspace",
        "_parser",
        "_queue",
        "_queued_bytes",
        "_read_paused",
        "_stats",
        "_transport",
        "_unix_path",
        "_write_paused",
        "session",
    )

    def __init__(self, clients: Clients, unix_path: str | None) -> None:
        self._clients = clients
        self._dispatcher = clients.server.dispatcher
        self._keyspace = clients.server.keyspace
        self._stats = clients.server.stats
        self._unix_path = unix_path
        self._transport: Any = None
        self.session: Session
        self._parser = RequestParser(clients.limits)
        #: Requests that came while the session was stopped.
        self._queue: deque[Request] | None = None
        self._queued_bytes = 0
        self._broken: ProtocolError | None = None
        self._ended = False
        self._write_paused = False
        self._read_paused = False

    # -- asyncio.Protocol ------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        peer = transport.get_extra_info("peername")
        if self._unix_path is None:
            addr, laddr = _address(peer), _address(transport.get_extra_info("sockname"))
            self._keep_alive(sock)
        else:
            addr = laddr = f"{self._unix_path}:0"
        self.session = self._clients.new_session(self, addr, laddr)
        self.session.unix = self._unix_path is not None
        self.session.fd = sock.fileno()
        refusal = self._clients.admit(self.session, peer)
        if refusal is not None:
            self.session.stop |= CLOSING
            transport.write(refusal)
            transport.close()

    def data_received(self, data: bytes) -> None:
        session = self.session
        stats = self._stats
        stats.net_input += len(data)
        stats.reads += 1
        if session.stop & CLOSING or self._broken is not None:
            return
        session.last_active = monotonic()
        self._receive(data)

    def eof_received(self) -> bool:
        if self.session.stop & BLOCKED or self._transport.get_extra_info("ssl_object"):
            return False
        self._ended = True
        if not self._queue and not self.session.stop & COLD:
            self.session.close_after_reply()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.stop |= CLOSING
        self._queue = None
        self._clients.unregister(self.session)
        self.session.sink = NO_SINK
        self._broken = None

    def pause_writing(self) -> None:
        self._write_paused = True
        if not self.session.gate & REPLICATING:  # a replica's acknowledgements must be read
            self.session.stop |= OUTPUT_FULL
        self._clients.clogged.add(self.session)

    def resume_writing(self) -> None:
        session = self.session
        self._write_paused = False
        self._clients.clogged.discard(session)
        session.soft_limit_since = 0.0
        session.last_active = monotonic()
        session.stop &= ~OUTPUT_FULL
        if session.gate & REPLICATING:
            self._clients.on_drained(session)
        if not session.stop:
            self.resume()

    # -- Sink ------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        stats = self._stats
        stats.net_output += len(data)
        stats.writes += 1
        self._transport.write(data)
        if self._write_paused:
            self._clients.check_output_limit(self.session)

    def buffered(self) -> int:
        return int(self._transport.get_write_buffer_size())

    @property
    def query_buffered(self) -> int:
        """Bytes received and not yet executed."""
        return self._parser.buffered + self._queued_bytes

    @property
    def reading(self) -> bool:
        """Whether input is being read."""
        return not self._read_paused

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self.session.stop |= CLOSING
        self._transport.abort()
        # At once, so that whoever asks next doesn't find it.
        self._clients.unregister(self.session)

    def resume(self) -> None:
        session = self.session
        if self._write_paused and not session.gate & REPLICATING:
            session.stop |= OUTPUT_FULL
            return
        dispatcher = self._dispatcher
        deadline = self._start_running() if self._queue else 0
        while self._queue:
            request = self._queue.popleft()
            self._queued_bytes -= _size(request)
            dispatcher.execute(session, request)
            if session.stop:
                return
            if dispatcher.clock > deadline and self._queue:
                self._give_way()
                return
        self._queue = None
        self._after_requests()
        if self._read_paused and not session.stop:
            self._read_paused = False
            self._transport.resume_reading()

    def upcoming(self, most: int) -> list[Request]:
        return [] if self._queue is None else list(islice(self._queue, most))

    # -- while a script keeps the loop (edge/busy.py) ------------------------------------------

    def idle_descriptor(self) -> int:
        """Its socket's descriptor if nothing of it is under way, so that it may be read and
        answered past the transport; -1 otherwise."""
        session, transport = self.session, self._transport
        occupied = session.stop or session.out or session.held or self._queue or self._ended
        if occupied or session.gate & (REPLICATING | MONITORING | MUTES):
            return -1
        if transport.get_write_buffer_size() or transport.get_extra_info("ssl_object"):
            return -1
        return session.fd

    def feed_busy(self, data: bytes) -> list[Request]:
        """The requests that these bytes complete; the loop complains of what isn't RESP."""
        self._stats.net_input += len(data)
        self._parser.authenticated = not self.session.gate & NEEDS_AUTH
        try:
            return self._parser.feed(data)
        except ProtocolError as error:
            self._broken = error
            self._clients.server.edge.call_later(0, self._after_requests)
            return error.parsed

    @property
    def is_broken(self) -> bool:
        """Whether what it sent isn't RESP."""
        return self._broken is not None

    # -- requests ----------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        """Parse, and execute what is complete or queue it."""
        session, parser = self.session, self._parser
        parser.authenticated = not session.gate & NEEDS_AUTH
        try:
            requests = parser.feed(data)
        except ProtocolError as error:
            self._broken = error
            requests = error.parsed
        if session.stop:
            self._enqueue(requests)
            return
        dispatcher = self._dispatcher
        deadline = self._start_running()
        for at, request in enumerate(requests):
            dispatcher.execute(session, request)
            if session.stop:
                self._enqueue(requests[at + 1 :])
                return
            if dispatcher.clock > deadline and at + 1 < len(requests):
                self._give_way()
                self._enqueue(requests[at + 1 :])
                return
        self._after_requests()

    def _start_running(self) -> int:
        """Time stands still while requests that came together are executed; returns until when
        that may last."""
        self._keyspace.now = time_ns() // 1_000_000
        now = perf_counter_ns()
        self._dispatcher.clock = now
        return now + SLICE_NS

    def _give_way(self) -> None:
        """Let the others have their turn before the next of many requests."""
        self.session.stop |= GIVES_WAY
        self._clients.server.edge.call_later(0, self._go_on)

    def _go_on(self) -> None:
        session = self.session
        session.stop &= ~GIVES_WAY
        if not session.stop:
            self.resume()

    def _after_requests(self) -> None:
        """Everything that was parsed is executed, and the session goes on."""
        if self._parser.deferred:
            self._receive(b"")
        elif self._broken is not None:
            self._complain(self._broken)
        elif self._ended:
            self.session.close_after_reply()

    def _enqueue(self, requests: list[Request]) -> None:
        """Keep requests for `resume`, and stop reading when it's enough."""
        if requests:
            if self._queue is None:
                self._queue = deque()
            self._queue.extend(requests)
            self._queued_bytes += sum(map(_size, requests))
        stop = self.session.stop
        full = stop & OUTPUT_FULL or self.query_buffered > QUEUE_BYTES
        if full and not self._read_paused and not stop & CLOSING:
            self._read_paused = True
            self._transport.pause_reading()

    def _complain(self, error: ProtocolError) -> None:
        """The last reply on a connection whose bytes are not RESP."""
        session = self.session
        client = clientinfo.describe(session).decode("utf-8", "surrogateescape")
        if isinstance(error, QueryBufferExceeded):
            self._stats.query_buffer_disconnections += 1
            logger.warning("Closing client that reached max query buffer length: %s", client)
            self.abort()
            return
        logger.debug("Protocol error (%s) from client: %s", error, client)
        self._stats.count_error("ERR")
        if not session.gate & REPLY_OFF:
            session.send(resp.encode_error(errors.protocol(str(error))))
        session.close_after_reply()

    def _keep_alive(self, sock: Any) -> None:
        seconds = self._clients.tcp_keepalive
        if seconds:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(seconds // 3, 1))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _size(request: Request) -> int:
    return REQUEST_OVERHEAD + ARGUMENT_OVERHEAD * len(request) + sum(map(len, request))


def _address(pair: Any) -> str:
    if not pair:
        return ""
    host = f"[{pair[0]}]" if ":" in pair[0] else pair[0]
    return f"{host}:{pair[1]}"
