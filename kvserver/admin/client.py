"""A blocking connection to a server, for the command line: options, dialling, one reply a command.

It must not know what is asked for. Names and meaning of the options are redis-cli's. Invariant:
whatever goes wrong is an AdminError with one sentence for the user.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
from typing import Any, Final, NamedTuple

import hiredis

CONNECT_SECONDS: Final = 2.0
#: How long a server may take to answer: longer than any command that is sent here should.
REPLY_SECONDS: Final = 5.0

Info = dict[str, str]


class AdminError(Exception):
    """What can't be done, and why."""


class ReplyError(AdminError):
    """The server answered with an error."""


class Unreachable(AdminError):
    """There is no connection to the server, or not any more."""


class Refused(Unreachable):
    """Nobody listens there."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """`host:port`, `[v6]:port`; ValueError otherwise, as argparse wants it."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(text)
    return Address(host, int(port))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how to log in, as redis-cli has them."""
    group = parser.add_argument_group("connection, as with redis-cli")
    group.add_argument(
        "-a",
        "--pass",
        "--password",
        dest="password",
        default=os.environ.get("REDISCLI_AUTH"),
        help="password; better in the environment as REDISCLI_AUTH",
    )
    group.add_argument("--user", help="user name (needs a password)")
    group.add_argument("--tls", action="store_true", help="connect with TLS")
    group.add_argument("--sni", help="the server name to ask for")
    group.add_argument("--cacert", metavar="FILE", help="CA certificates to trust")
    group.add_argument("--cacertdir", metavar="DIR", help="a directory of such certificates")
    group.add_argument("--cert", metavar="FILE", help="client certificate")
    group.add_argument("--key", metavar="FILE", help="its private key")
    group.add_argument("--insecure", action="store_true", help="don't check the certificate")


class Access:
    """How to log in: one user and one kind of transport for all servers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._password: str | None = options.password
        self._user: str | None = options.user
        self._sni: str | None = options.sni
        self._context = _tls_context(options) if options.tls else None
        if self._user and not self._password:
            raise AdminError("--user needs a password")

    def connect(self, to: Address) -> Connection:
        """A connection that is logged in."""
        connection = Connection(to, self._dial(to))
        if self._password:
            user = [self._user] if self._user else []
            connection.ask("AUTH", *user, self._password)
        return connection

    def _dial(self, to: Address) -> socket.socket:
        try:
            sock = socket.create_connection(to, CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=self._sni or to.host)
        except ConnectionRefusedError:
            raise Refused(f"nobody listens on {to}") from None
        except OSError as error:
            raise Unreachable(f"can't connect to {to}: {_reason(error)}") from None
        sock.settimeout(REPLY_SECONDS)
        return sock


def _tls_context(options: argparse.Namespace) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.cacert, capath=options.cacertdir)
        if options.cert:
            context.load_cert_chain(options.cert, options.key)
    except OSError as error:
        raise AdminError(f"TLS certificates can't be loaded: {_reason(error)}") from None
    # As redis-cli: the name is checked only if one is given.
    context.check_hostname = bool(options.sni) and not options.insecure
    if options.insecure:
        context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """One connection to one server."""

    def __init__(self, to: Address, sock: socket.socket) -> None:
        self.to = to
        self._sock = sock
        self._reader = hiredis.Reader(encoding="utf-8", errors="backslashreplace")

    def close(self) -> None:
        """Close it; harmless if it is."""
        self._sock.close()

    def ask(self, *words: str | int) -> Any:
        """Send one command and wait for its reply, strings as str. Raises ReplyError,
        Unreachable."""
        return self.ask_all(words)[0]

    def ask_all(self, *commands: tuple[str | int, ...]) -> list[Any]:
        """The same for several, sent together. The first error is raised, after all replies."""
        try:
            # The stub takes only tuples of one word.
            packed = [hiredis.pack_command(c) for c in commands]  # type: ignore[arg-type]
            self._sock.sendall(b"".join(packed))
            replies = [self._reply() for _ in commands]
        except OSError as error:
            self.close()
            raise Unreachable(f"{self.to}: {_reason(error)}") from None
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise ReplyError(str(reply))
        return replies

    def info(self, *sections: str) -> Info:
        """INFO's fields."""
        return parse_info(self.ask("INFO", *(sections or ("replication",))))

    def _reply(self) -> Any:
        while (reply := self._reader.gets()) is False:
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
        return reply


def parse_info(text: str) -> Info:
    """The fields of an INFO reply."""
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error.strerror or error)
