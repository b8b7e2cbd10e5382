"""What the tests of replication between real servers share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, replication, wait_synced
from harness import Conn, Server, encode_command


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def fill(server: Server, count: int = 500, prefix: str = "key") -> None:
    """Keys in two databases, some of which expire, some deleted again."""
    for db in (0, 1):
        pipe = server.client(db=db).pipeline(transaction=False)
        for number in range(count):
            pipe.set(f"{prefix}:{number}", f"{db}-{number}", px=10**8 if number % 3 else None)
        pipe.delete(*(f"{prefix}:{number}" for number in range(0, count, 7)))
        pipe.execute()


def filled_pair(cluster: Cluster, count: int) -> tuple[Server, Server]:
    """A primary with so many keys, and its replica, which has them."""
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, count)
    wait_synced(primary, replica)
    return primary, replica


def leftovers(server: Server) -> list[str]:
    """The directories of data sets that are not served."""
    return [name for name in os.listdir(server.directory) if name.startswith("db.")]


def counter(server: Server, name: str) -> int:
    return int(replication(server)[name])


def handshake(server: Server) -> Conn:
    """A connection that was answered with a full sync, as a replica that then does nothing."""
    conn = server.conn()
    history = (1).to_bytes(8, "big") + bytes(20) + bytes(8)
    assert conn.ask("REPLCONF", "listening-port", 1) == b"+OK\r\n"
    assert conn.ask("REPLCONF", "run-id", "0" * 40) == b"+OK\r\n"
    conn.send(encode_command("PSYNC", "0" * 40, 0, "KV1", history.hex(), 0, "-"))
    assert conn.read_line().startswith(b"+FULLRESYNC ")
    return conn
