"""The same commands for kvserver and for redis-server, replies compared byte for byte.

Times to expire are compared as absolute times where a command gives one, else within SLACK_MS.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness import Conn, Server, encode_command

from kvserver.quoting import split_args

SLACK_MS = 5000
#: A time far in the future, in seconds.
LATER = 32503680000

Command = tuple[bytes | str | int, ...]


def parse(script: str) -> list[Command]:
    """The commands of a text, one a line, quoted as on redis-cli's command line."""
    lines = [split_args(line.encode()) for line in script.splitlines() if line.strip()]
    assert None not in lines, "unbalanced quotes"
    return [tuple(line) for line in lines if line]


class Pair:
    """Two connections with the same protocol: to kvserver, and to redis-server."""

    def __init__(self, server: Server, oracle: Server, protocol: int) -> None:
        self.protocol = protocol
        self.servers = (server, oracle)
        self.conns = tuple(self.connect(one) for one in self.servers)

    def connect(self, server: Server) -> Conn:
        conn = server.conn()
        if self.protocol == 3:
            conn.ask("HELLO", 3)
        return conn

    def ask_both(self, commands: Iterable[Command]) -> list[list[tuple[Command, bytes]]]:
        """(command, reply) of each command, for each server."""
        commands = list(commands)
        request = b"".join(encode_command(*command) for command in commands)
        for conn in self.conns:
            conn.send(request)
        return [[(command, conn.reply()) for command in commands] for conn in self.conns]

    def same(self, commands: Iterable[Command] | str) -> None:
        """Run the commands; their replies must be equal."""
        ours, theirs = self.ask_both(parse(commands) if isinstance(commands, str) else commands)
        assert ours == theirs

    def close(self, *command: bytes | str | int) -> int:
        """The number that a command answers with, equal within SLACK_MS."""
        ours, theirs = (int(replies[0][1][1:]) for replies in self.ask_both([command]))
        assert abs(ours - theirs) <= SLACK_MS
        return ours


def heard(conn: Conn) -> list[bytes]:
    """The messages up to the one that says `end`, that one left out."""
    messages: list[bytes] = []
    while b"$3\r\nend\r\n" not in (message := conn.reply()):
        messages.append(message)
    return messages
