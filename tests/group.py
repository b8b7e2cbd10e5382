"""A primary and its replicas, kvserver or redis-server, and writers that follow the primary.

It knows nothing of pytest. Invariants: a writer never sends a write again whose outcome it doesn't
know, so whatever is there twice, the servers have made twice; every wait has a deadline.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from harness import KVSERVER, REDIS, Conn, Directive, Program, Server, wait_until

LOOPBACK = "127.0.0.1"
LINK_SECONDS = 30.0
PATIENCE_SECONDS = 2.0

Fields = dict[str, str]


def info(server: Server, section: str = "replication") -> Fields:
    """The fields of an INFO section; none from a server that doesn't answer."""
    try:
        with connect(server) as conn:
            text = conn.ask("INFO", section).decode()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\r\n"))
    return {name: value for name, colon, value in lines if colon}


def connect(server: Server) -> Conn:
    """A raw connection, which the caller closes."""
    conn = Conn(socket.create_connection((LOOPBACK, server.port), PATIENCE_SECONDS))
    conn.sock.settimeout(PATIENCE_SECONDS)
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def role(server: Server) -> str:
    """`master`, `slave`, or "" from one that doesn't answer."""
    return info(server).get("role", "")


def follows(replica: Server, primary: Server) -> bool:
    """Whether the link is up, and leads to this primary."""
    fields = info(replica)
    return (
        fields.get("master_link_status") == "up"
        and fields.get("master_port") == str(primary.port)
        and fields.get("master_replid") == info(primary).get("master_replid")
    )


def caught_up(replica: Server, primary: Server) -> bool:
    """Whether the replica has every position that the primary has now."""
    offset = info(primary).get("master_repl_offset")
    return offset is not None and info(replica).get("slave_repl_offset") == offset


def _server(
    directory: Path, number: int, directives: Mapping[str, Directive], program: Program
) -> Server:
    path = directory / f"node-{number}.conf"
    path.touch()
    return Server(directory / f"node-{number}", directives, args=(str(path),), program=program)


class Group:
    """Servers under one directory; the first is the primary, the others its replicas. Each has a
    configuration file, so that CONFIG REWRITE works."""

    def __init__(
        self, directory: Path, count: int, program: Program = KVSERVER, **directives: Directive
    ) -> None:
        named: dict[str, Directive] = {k.replace("_", "-"): v for k, v in directives.items()}
        if program is REDIS:
            named = {"repl-diskless-sync-delay": 0, **named}
        self.program = program
        self.servers = [_server(directory, n, named, program) for n in range(count)]

    def start(self) -> None:
        """Start them all, and wait until the links are up."""
        for server in self.servers:
            server.start()
        for server in self.servers[1:]:
            self.attach(server, self.servers[0])

    def attach(self, replica: Server, primary: Server) -> None:
        """REPLICAOF, and wait until the link is up."""
        replica.client().replicaof(LOOPBACK, primary.port)
        self.await_link(replica, primary)

    def await_link(self, replica: Server, primary: Server) -> None:
        wait_until(lambda: follows(replica, primary), LINK_SECONDS, f"{replica} follows {primary}")

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def full_syncs(self) -> int:
        """How many full syncs the servers that run have served."""
        stats = [info(server, "stats") for server in self.servers if server.alive]
        return sum(int(fields["sync_full"]) for fields in stats)


class History:
    """One key of unique values, which are appended: what a writer knows of it."""

    def __init__(self, key: str) -> None:
        self.key = key
        #: Values in the order of sending: acknowledged, and those whose outcome isn't known.
        self.acked: list[str] = []
        self.unknown: set[str] = set()

    def check(self, server: Server) -> None:
        """Every acknowledged value is there once and in order; the others at most once."""
        client = server.client(decode_responses=True)
        text = client.get(self.key) or ""
        found = [value for value in text.split(",") if value]
        twice = [value for value, count in Counter(found).items() if count > 1]
        assert not twice, f"{self.key}: there twice: {twice}"
        lost = set(self.acked) - set(found)
        assert not lost, f"{self.key}: acknowledged and lost: {sorted(lost)}"
        assert [v for v in found if v not in self.unknown] == self.acked, f"{self.key}: order"


class Writer:
    """Appends unique values to one key, in a thread, at whoever is the primary."""

    def __init__(self, name: str, find: Callable[[], Server]) -> None:
        self.history = History(f"history:{name}")
        self._find = find
        self._number = 0
        self._stop = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def halt(self) -> None:
        """End it; raises what went wrong."""
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the writer hangs"
        if self._problem is not None:
            raise self._problem

    @property
    def acked(self) -> int:
        return len(self.history.acked)

    def await_more(self, count: int = 20, timeout: float = 30.0) -> None:
        """Wait until so many more writes were acknowledged."""
        goal = self.acked + count
        wait_until(lambda: self.acked >= goal, timeout, "acknowledged writes")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    with connect(self._find()) as conn:
                        while not self._stop.is_set() and self._write(conn):
                            pass
                except OSError:
                    pass  # the server is gone; what was sent is unknown
                self._stop.wait(0.002)
        except BaseException as problem:
            self._problem = problem

    def _write(self, conn: Conn) -> bool:
        """Append one value; False if this isn't the one to write to any more."""
        self._number += 1
        value = str(self._number)
        self.history.unknown.add(value)
        reply = conn.ask("APPEND", self.history.key, value + ",")
        if reply.startswith(b":"):
            self.history.unknown.discard(value)
            self.history.acked.append(value)
            return True
        if not reply.startswith((b"-UNBLOCKED", b"-NOREPLICAS")):
            self.history.unknown.discard(value)  # it was not executed
        return False


def writers(group: Group, count: int = 2) -> list[Writer]:
    """Writers that try one server after the other."""
    turns = [0] * count

    def finder(number: int) -> Callable[[], Server]:
        def find() -> Server:
            turns[number] += 1
            return group.servers[turns[number] % len(group.servers)]

        return find

    return [Writer(str(number), finder(number)) for number in range(count)]
