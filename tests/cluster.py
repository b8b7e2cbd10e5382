"""Servers that replicate: start them, point them at each other, wait, compare.

It knows nothing of pytest. Invariants: every wait has a deadline; servers are compared by all that
a client can read of them, at the same position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis
from harness import KVSERVER, Directive, Program, Server, wait_until

LOOPBACK = "127.0.0.1"
SYNC_SECONDS = 30.0

Data = dict[tuple[int, bytes], tuple[bytes | None, int]]


def replication(server: Server) -> dict[str, Any]:
    """INFO replication; empty while the server is away."""
    try:
        with server.conn() as conn:
            text = conn.ask("INFO", "replication", "stats").decode()
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def position(server: Server) -> int:
    """The server's position; -1 while it is away."""
    return int(replication(server).get("master_repl_offset", -1))


def synced(primary: Server, *replicas: Server) -> bool:
    """Whether these have all that the primary has, in its last era, and are equal to it."""
    of_primary = replication(primary)
    for replica in replicas:
        fields = replication(replica)
        same = ("master_replid", "master_repl_offset")
        if fields.get("master_link_status") != "up" or fields.get("dataset_consistent") != "yes":
            return False
        if any(fields[name] != of_primary.get(name) for name in same):
            return False
    return True


def wait_synced(primary: Server, *replicas: Server) -> None:
    """Wait for `synced`."""
    wait_until(lambda: synced(primary, *replicas), SYNC_SECONDS, f"{replicas} have caught up")


def contents(server: Server, databases: int = 2) -> Data:
    """(database, key) -> (value, when it expires in unix ms) of all string keys."""
    found: Data = {}
    for db in range(databases):
        client: redis.Redis = server.client(db=db)
        keys = client.keys()
        for start in range(0, len(keys), 1000):
            some = keys[start : start + 1000]
            pipe = client.pipeline(transaction=False)
            for key in some:
                pipe.get(key)
                pipe.pexpiretime(key)
            replies = pipe.execute()
            for key, value, expires in zip(some, replies[::2], replies[1::2], strict=True):
                found[db, key] = value, expires
        assert client.dbsize() == len(keys)
    return found


def assert_equal(primary: Server, *replicas: Server) -> None:
    """The replicas catch up, and hold what the primary holds."""
    wait_synced(primary, *replicas)
    expected = contents(primary)
    for replica in replicas:
        assert contents(replica) == expected


class Cluster:
    """Servers under one directory; `close` ends them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.servers: list[Server] = []

    def start(self, program: Program = KVSERVER, **directives: Directive) -> Server:
        """A server of its own."""
        server = self.make(program, **directives)
        return server.start()

    def make(self, program: Program = KVSERVER, **directives: Directive) -> Server:
        """The same, not started."""
        named = {k if "." in k else k.replace("_", "-"): v for k, v in directives.items()}
        directory = self._directory / f"server-{len(self.servers)}"
        server = Server(directory, named, program=program)
        self.servers.append(server)
        return server

    def replica_of(self, primary: Server, **directives: Directive) -> Server:
        """A server that follows another from its start on."""
        follow = [LOOPBACK, str(primary.port)]
        return self.start(replicaof=follow, **directives)

    def close(self) -> None:
        for server in self.servers:
            server.close()


def follow(replica: Server, primary: Server) -> None:
    """REPLICAOF."""
    replica.client().replicaof(LOOPBACK, primary.port)


def promote(server: Server) -> None:
    """REPLICAOF NO ONE."""
    server.client().replicaof("NO", "ONE")
