"""Connections while a script has run for too long: the event loop stands still, within the script.

It must not know commands (kvserver/scripting/busy.py answers). The script calls `serve` every few
milliseconds. What clients have sent is read from their sockets past the loop, parsed by their own
connection, and answered at once. Invariants:
- Only a connection of which nothing is under way is served, so replies stay in order; the loop goes
  on with it as if the bytes had never come. TLS connections wait: their bytes are the loop's.
- Who connects meanwhile is let in, answered, and sent away when the script ends.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any, Final, cast

from kvserver.edge.connection import Connection
from kvserver.scripting.busy import BusyReplies

if TYPE_CHECKING:
    from kvserver.edge.clients import Clients
    from kvserver.edge.listeners import Listeners

_READ_BYTES: Final = 1 << 16
#: Between two looks at the sockets.
_PAUSE_SECONDS: Final = 0.005


class BusyServer:
    """Serves connections for as long as a script keeps the loop."""

    def __init__(self, clients: Clients, listeners: Listeners) -> None:
        self._clients = clients
        self._listeners = listeners
        runner = clients.server.scripting.runner
        self._replies = BusyReplies(clients.server, runner)
        self._poll: select.epoll | None = None
        self._connections: dict[int, Connection] = {}
        self._accepting: dict[int, socket.socket] = {}
        self._guests: list[Guest] = []
        self._next = 0.0
        runner.serve, runner.ended = self.serve, self.end

    def serve(self) -> None:
        """Answer what has come in."""
        if time.monotonic() < self._next:
            return
        if self._poll is None:
            self._poll = self._begin()
        for number, _ in self._poll.poll(0):
            if number in self._accepting:
                self._accept(self._accepting[number], self._poll)
            else:
                self._read(number, self._poll)
        self._next = time.monotonic() + _PAUSE_SECONDS

    def end(self) -> None:
        """The script is over."""
        self._next = 0.0
        if self._poll is not None:
            self._poll.close()
            self._poll = None
        self._connections.clear()
        for listening in self._accepting.values():
            listening.close()
        self._accepting.clear()
        guests, self._guests = self._guests, []
        for guest in guests:
            guest.leave()

    def _begin(self) -> select.epoll:
        poll = select.epoll()
        for session in self._clients.server.sessions.values():
            connection = cast(Any, session.sink)
            number = connection.idle_descriptor() if type(connection) is Connection else -1
            if number >= 0:
                self._connections[number] = connection
                poll.register(number, select.EPOLLIN)
        for listening in self._listeners.duplicates():
            self._accepting[listening.fileno()] = listening
            poll.register(listening.fileno(), select.EPOLLIN)
        return poll

    def _accept(self, listening: socket.socket, poll: select.epoll) -> None:
        try:
            sock, _ = listening.accept()
        except OSError:  # gone again, or no descriptor is left
            return
        sock.setblocking(False)
        guest = Guest(sock)
        unix = sock.family == socket.AF_UNIX
        path = self._clients.server.config.get_str("unixsocket") if unix else None
        guest.connection = connection = Connection(self._clients, path)
        self._guests.append(guest)
        connection.connection_made(guest)
        if not guest.closed:
            self._connections[sock.fileno()] = connection
            poll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, number: int, poll: select.epoll) -> None:
        connection = self._connections[number]
        try:
            data = os.read(number, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        requests = connection.feed_busy(data) if data else []
        session = connection.session
        replies = b"".join([self._replies.answer(session, request) for request in requests])
        sent = _send(number, replies)
        if sent < len(replies):
            connection.write(replies[sent:])
        if not data or sent < len(replies) or connection.is_broken:
            poll.unregister(number)


def _send(number: int, data: bytes) -> int:
    """How many bytes a socket took."""
    if not data:
        return 0
    try:
        return os.write(number, data)
    except OSError:  # the loop will find out why
        return 0


class Guest:
    """A transport, as far as a connection needs one, of who connects while a script runs."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.connection: Connection
        self.closed = False

    def get_extra_info(self, name: str) -> Any:
        if name == "socket":
            return self._sock
        if name == "peername":
            return self._sock.getpeername()
        return self._sock.getsockname() if name == "sockname" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        _send(self._sock.fileno(), data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        return None

    def resume_reading(self) -> None:
        return None

    def leave(self) -> None:
        """The connection ends."""
        self.closed = True
        self.connection.connection_lost(None)
        self._sock.close()
