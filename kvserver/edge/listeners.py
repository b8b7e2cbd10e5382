"""What the server listens on: TCP on several addresses, TLS, a unix socket.

It must not know commands. Source: redis.conf's `bind`, `port`, `tls-*`, `unixsocket`, and
Redis 7.4's server.c (listenToPort, createSocketAcceptHandler). Invariants:
- CONFIG SET of `bind`, `port`, `tls-port` or a `tls-*` directive is applied as a whole or not at
  all: new addresses are bound and the TLS settings read before anything old is closed.
- An address that stays keeps its socket, so no client that is about to connect is refused.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import Final, cast

from kvserver.config import Config, ConfigError
from kvserver.edge.clients import Clients
from kvserver.edge.connection import Connection
from kvserver.edge.tls import TLS_DIRECTIVES, TLSContext, tls_context

#: (host as in `bind`, port, whether TLS)
Address = tuple[str, int, bool]

_ANY: Final = {"*": "0.0.0.0", "::*": "::"}
#: This machine doesn't have the address, or doesn't know its family.
_MISSING: Final = (
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
    errno.EPFNOSUPPORT,
    errno.EPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.ENOPROTOOPT,
)


class ListenError(ConfigError):
    """An address can't be listened on; one line for the person who starts the server."""


class Listeners:
    """The listening sockets."""

    def __init__(self, config: Config, clients: Clients) -> None:
        self._config = config
        self._clients = clients
        self._sockets: dict[Address, socket.socket] = {}
        self._servers: dict[Address, asyncio.Server] = {}
        self._tls: TLSContext | None = None
        self._unix: asyncio.Server | None = None
        self._unix_path = ""
        self._unix_socket: socket.socket | None = None
        #: Accepting in the making: `asyncio.Loop.create_server` is a coroutine.
        self._task: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[str]:
        """What is listened on, for the log: `127.0.0.1:6379`."""
        tcp = [f"{host}:{port}{' (TLS)' if tls else ''}" for host, port, tls in self._sockets]
        return tcp + ([self._unix_path] if self._unix_path else [])

    async def open(self) -> None:
        """Listen on all that is configured, and follow the configuration. Raises ListenError."""
        self._bind_all()
        path = self._config.get_str("unixsocket")
        if path:
            await self._open_unix(path)
        if not self.names:
            raise ListenError("nothing to listen on: set port, tls-port or unixsocket")
        await self._serve()
        self._config.on_change(("bind", "port", "tls-port"), self._rebind)
        self._config.on_change(TLS_DIRECTIVES, self._renew_tls)

    def close(self) -> None:
        """Stop accepting."""
        if self._task is not None:
            self._task.cancel()
        for address in list(self._sockets):
            self._close_address(address)
        if self._unix is not None:
            self._unix.close()
            if self._unix_socket is not None:
                self._unix_socket.close()
                self._unix_socket = None
            if os.path.exists(self._unix_path):
                os.unlink(self._unix_path)

    def duplicates(self) -> list[socket.socket]:
        """Duplicates of the sockets that accept connections without TLS."""
        found = [sock.dup() for (_, _, tls), sock in self._sockets.items() if not tls]
        if self._unix_socket is not None:
            found.append(self._unix_socket.dup())
        return found

    # -- TCP -------------------------------------------------------------------------------------

    def _bind_all(self) -> None:
        """Have a bound socket for each configured address, and for no other."""
        tls_port = self._config.get_int("tls-port")
        if tls_port and self._tls is None:
            self._tls = tls_context(self._config)
        wanted: dict[Address, socket.socket] = {}
        try:
            for port, tls in ((self._config.get_int("port"), False), (tls_port, True)):
                if port:
                    wanted.update(self._bind_port(port, tls))
        except ListenError:
            for address, sock in wanted.items():
                if address not in self._sockets:
                    sock.close()
            raise
        for address in self._sockets.keys() - wanted.keys():
            self._close_address(address)
        self._sockets = wanted

    def _bind_port(self, port: int, tls: bool) -> dict[Address, socket.socket]:
        """A socket for each address of `bind`, those that are open already included; none when
        `bind` is empty."""
        found: dict[Address, socket.socket] = {}
        words = self._config.get_list("bind")
        for word in words:
            host = word.removeprefix("-")
            address = (host, port, tls)
            try:
                found[address] = self._sockets.get(address) or self._bind(host, port)
            except OSError as error:
                if error.errno in _MISSING and (word != host or error.errno != errno.EADDRNOTAVAIL):
                    continue
                for opened in found.keys() - self._sockets.keys():
                    found[opened].close()
                why = error.strerror or error
                raise ListenError(f"can't listen on {host} port {port}: {why}") from None
        if words and not found:
            raise ListenError(f"can't listen on port {port}: no address of `bind` is there")
        return found

    def _bind(self, host: str, port: int) -> socket.socket:
        """A listening socket. Raises OSError."""
        name = _ANY.get(host, host)
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(self._config.get_int("tcp-backlog"))
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    async def _serve(self) -> None:
        """Accept on every bound socket. The event loop gets a duplicate of each, so that a new
        TLS context can take over without the address being closed."""
        loop = asyncio.get_running_loop()
        for address, sock in list(self._sockets.items()):
            if address not in self._servers:
                self._servers[address] = await loop.create_server(
                    lambda: self._connection(None),
                    sock=sock.dup(),
                    ssl=self._tls if address[2] else None,
                    backlog=self._config.get_int("tcp-backlog"),
                )

    def _close_address(self, address: Address) -> None:
        self._sockets.pop(address).close()
        self._stop_serving(address)

    def _stop_serving(self, address: Address) -> None:
        server = self._servers.pop(address, None)
        if server is not None:
            server.close()

    def _connection(self, unix_path: str | None) -> asyncio.Protocol:
        """asyncio calls a protocol's methods and doesn't ask for its class."""
        return cast(asyncio.Protocol, Connection(self._clients, unix_path))

    # -- changes at run time ---------------------------------------------------------------------

    def _rebind(self) -> None:
        """`bind`, `port` or `tls-port` changed."""
        self._bind_all()
        self._serve_soon()

    def _renew_tls(self) -> None:
        """A `tls-*` directive changed; connections that are open keep what they have."""
        if not self._config.get_int("tls-port"):
            self._tls = None
            return
        self._tls = tls_context(self._config)
        for address in list(self._servers):
            if address[2]:
                self._stop_serving(address)
        self._serve_soon()

    def _serve_soon(self) -> None:
        before = self._task

        async def serve() -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._serve()

        self._task = asyncio.get_running_loop().create_task(serve())

    # -- the unix socket ---------------------------------------------------------------------------

    async def _open_unix(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock = _bind_unix(path, self._config.get_int("unixsocketperm"))
            self._unix_path = path
            self._unix_socket = sock.dup()
            self._unix = await loop.create_unix_server(
                lambda: self._connection(path),
                sock=sock,
                backlog=self._config.get_int("tcp-backlog"),
            )
        except OSError as error:
            raise ListenError(f"can't listen on {path}: {error.strerror or error}") from None


def _bind_unix(path: str, permissions: int) -> socket.socket:
    """A socket bound to `path`, with these permissions from the start (0: the umask's). Takes the
    place of a socket that nobody listens on any more. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _remove_stale(path)
        umask = os.umask(0o777 & ~permissions) if permissions else None
        try:
            sock.bind(path)
        finally:
            if umask is not None:
                os.umask(umask)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is a file that isn't a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
