"""Replies off the wire, for tests that compare two servers byte by byte or look at RESP's types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness import Conn, Server, encode_command

Command = Sequence[str | bytes | int]

#: The argument of the PING that ends a transcript.
END = b"the end of the transcript"


def transcript(server: Server, commands: Iterable[Command], protocol: int = 2) -> list[bytes]:
    """Everything that a new connection receives when it sends `commands` in one pipeline: replies
    and messages, one element each."""
    with server.conn() as conn:
        if protocol == 3:
            conn.ask("HELLO", 3)
        conn.send(b"".join(encode_command(*c) for c in [*commands, ("PING", END)]))
        received = []
        while END not in (reply := conn.reply()):
            received.append(reply)
        return received


class Actor:
    """One connection of a scene, and all that it received."""

    def __init__(self, conn: Conn, protocol: int = 2) -> None:
        self.conn = conn
        self.received: list[bytes] = []
        self.pings = 0
        conn.ask("HELLO", protocol)

    def act(self, *command: str | bytes | int) -> None:
        """Send a command, and receive what comes with it."""
        self.conn.send(encode_command(*command))
        self.catch_up()

    def catch_up(self) -> None:
        """Receive what was sent before now."""
        self.pings += 1
        mark = b"ping number %d" % self.pings
        self.conn.send(encode_command("PING", mark))
        while mark not in (reply := self.conn.reply()):
            self.received.append(reply)


def play(server: Server, scene: Iterable[Command], protocol: int = 2) -> dict[str, list[bytes]]:
    """What each of several connections receives in a scene: lines of an actor's name and its
    command, spoken one after the other. Nobody may be left inside MULTI."""
    actors: dict[str, Actor] = {}
    for name, *command in scene:
        assert isinstance(name, str)
        if name not in actors:
            actors[name] = Actor(server.conn(), protocol)
        actors[name].act(*command)
    for actor in actors.values():
        actor.catch_up()
    return {name: actor.received for name, actor in actors.items()}


def typed(raw: bytes) -> Any:
    """A reply as (type byte, value); the value of an aggregate is a list of such pairs."""
    value, rest = _typed(raw)
    assert not rest
    return value


def _typed(raw: bytes) -> tuple[Any, bytes]:
    line, _, rest = raw.partition(b"\r\n")
    kind, head = chr(line[0]), line[1:].decode()
    if kind in "$=" and head != "-1":
        size = int(head)
        return (kind, rest[:size].decode()), rest[size + 2 :]
    if kind in "*~>%" and head != "-1":
        items = []
        for _ in range(int(head) * (2 if kind == "%" else 1)):
            item, rest = _typed(rest)
            items.append(item)
        return (kind, items), rest
    return (kind, head), rest


def fields(value: Any) -> dict[str, Any]:
    """A typed map, or an array of alternating names and values, by name."""
    kind, items = value
    assert kind in "%*"
    return {name[1]: item for name, item in zip(items[::2], items[1::2], strict=True)}
