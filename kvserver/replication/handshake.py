"""How a replica introduces itself, and what its primary answers: bytes out, bytes in.

It must not know links. The replies are RESP lines, one for each command, in order; the last is
PSYNC's, and frames may follow it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kvserver.config import Config
from kvserver.frames import MAX_U64, FrameError
from kvserver.replication import negotiate

if TYPE_CHECKING:
    from kvserver.replication.node import Node

PROTOCOL: Final = b"KV1"
#: A line longer than this is no answer of ours.
MAX_LINE: Final = 1024
_KINDS: Final = (negotiate.CONTINUE, negotiate.REWIND, negotiate.PAD, negotiate.FULLRESYNC)


class Answered(NamedTuple):
    """PSYNC's answer; kind ERROR has the error's text as its `replid`."""

    kind: str
    replid: str
    seq: int


def request(*args: bytes) -> bytes:
    """A command as RESP."""
    parts = [b"*%d\r\n" % len(args)]
    parts += [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]
    return b"".join(parts)


def announced_port(config: Config) -> int:
    """The port that others reach this server at."""
    number = config.get_int
    if number("replica-announce-port"):
        return number("replica-announce-port")
    if config.get_bool("tls-replication") and number("tls-port"):
        return number("tls-port")
    return number("port") or number("tls-port")


class Handshake:
    """The replies that are still due."""

    def __init__(self) -> None:
        #: Replies that come before PSYNC's.
        self._due = 0
        self._asked = False
        self._buffer = bytearray()
        #: The kinds of events that the primary was told to send; None: it can't.
        self.wishes: int | None = 0

    def greeting(self, node: Node) -> bytes:
        """AUTH and REPLCONF."""
        config = node.config
        commands = []
        password = config.get_str("masterauth").encode()
        user = config.get_str("masteruser").encode()
        if password:
            commands.append([b"AUTH", user, password] if user else [b"AUTH", password])
        commands.append([b"REPLCONF", b"listening-port", b"%d" % announced_port(config)])
        ip = config.get_str("replica-announce-ip").encode()
        if ip:
            commands[-1] += [b"ip-address", ip]
        commands.append([b"REPLCONF", b"run-id", node.run_id.encode()])
        self.wishes = node.wishes.total
        if self.wishes:  # the last one: to it an error is an answer
            commands.append([b"REPLCONF", b"events", b"%d" % self.wishes])
        self._due = len(commands)
        return b"".join(request(*command) for command in commands)

    def psync(self, node: Node, may_rewind: bool, failover: bool) -> bytes:
        """PSYNC: what we have, and what we can do."""
        log = node.log
        flags = b"r" if may_rewind and node.config.get_bool("replication-rewind") else b""
        may_pad = node.config.get_bool("replication-enable-sequence-padding")
        if may_pad and not node.consistency.until:
            flags += b"p"
        if failover and node.failover.forced:
            flags += b"x"
        flags = flags or b"-"
        if node.consistency.shared is not None:
            flags += b"@%d" % node.consistency.shared
        replid = log.history.upto(log.committed_seq).current.replid
        command = [
            b"PSYNC",
            replid.encode(),
            b"%d" % log.committed_seq,
            PROTOCOL,
            node.consistency.history.encode().hex().encode(),
            b"%d" % node.consistent_from,
            flags,
        ]
        if failover:
            command.append(b"FAILOVER")
        self._asked = True
        return request(*command)

    def feed(self, data: bytes) -> tuple[Answered | None, bytes]:
        """(PSYNC's answer or None, what follows it). Raises FrameError."""
        buffer = self._buffer
        buffer += data
        at = 0
        while (end := buffer.find(b"\r\n", at, at + MAX_LINE + 2)) >= 0:
            line = bytes(buffer[at:end])
            at = end + 2
            if not line:
                continue  # what keeps a link alive
            if self.wishes and self._due == 1 and line.startswith(b"-ERR Unrecognized REPLCONF"):
                self.wishes = None
            elif line.startswith(b"-"):
                return Answered("ERROR", _printable(line[1:]), 0), b""
            if self._due:
                self._due -= 1
                continue
            if not self._asked:
                raise FrameError(f"an answer to nothing: {line[:60]!r}")
            self._asked, self._buffer = False, bytearray()
            return _parse(line), bytes(buffer[at:])
        del buffer[:at]
        if len(buffer) > MAX_LINE:
            raise FrameError("this is not an answer to PSYNC")
        return None, b""


def _printable(line: bytes) -> str:
    """A peer's words, fit for the log."""
    text = line.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)


def _parse(line: bytes) -> Answered:
    words = line[1:].decode("utf-8", "replace").split(" ")
    if not line.startswith(b"+") or len(words) != 3 or words[0] not in _KINDS:
        raise FrameError(
            f"it doesn't speak kvserver's replication protocol: {line[:60]!r} (a Redis server?)"
        )
    if not words[2].isdecimal() or len(words[2]) > 20 or int(words[2]) > MAX_U64:
        raise FrameError(f"it answers with a position that is none: {words[2]!r}")
    return Answered(words[0], words[1], int(words[2]))
