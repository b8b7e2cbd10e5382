"""A connection for commands around a measurement: FAILOVER, INFO, UNLINK."""

from __future__ import annotations

import socket

import hiredis

RECEIVE_BYTES = 1 << 16


class Admin:
    """One connection; replies are text."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader(encoding="utf-8")

    def ask(self, *words: str) -> object:
        """One command's reply; errors are raised."""
        self._sock.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]
        while (reply := self._reader.gets()) is False:
            data = self._sock.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def info(self, section: str = "replication") -> dict[str, str]:
        """INFO's fields."""
        lines = str(self.ask("INFO", section)).splitlines()
        return {name: value for name, colon, value in (x.partition(":") for x in lines) if colon}

    def close(self) -> None:
        self._sock.close()


def ask(port: int, *words: str) -> object:
    """One command on a connection of its own."""
    admin = Admin(port)
    try:
        return admin.ask(*words)
    finally:
        admin.close()
