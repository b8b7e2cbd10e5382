"""Servers compared by REPLDIGEST, at the same position, and the files that their rewinds left.

It knows nothing of pytest. Invariant: servers are compared when the replicas have caught up, so
whoever writes has stopped.
"""

from __future__ import annotations

import time
from typing import Any

from cluster import replication, wait_synced
from harness import Server

from kvserver.admin.discarded import Discarded, read


def digest(server: Server) -> list[Any]:
    """[position, epoch, replication id, digest, number of keys] now."""
    reply: list[Any] = server.client(socket_timeout=120).execute_command("REPLDIGEST")
    return reply


def assert_same(primary: Server, *replicas: Server) -> None:
    """The replicas catch up and then hold what the primary holds, row by row. What expires while
    they are compared moves the primary on: then they are compared again."""
    deadline = time.monotonic() + 30
    while True:
        wait_synced(primary, *replicas)
        expected, *found = map(digest, (primary, *replicas))
        if all(other[0] == expected[0] for other in found) or time.monotonic() > deadline:
            break
    assert all(other == expected for other in found), (expected, found)


def counter(server: Server, name: str) -> int:
    """A number of INFO replication or stats."""
    return int(replication(server)[name])


def full_syncs(*servers: Server) -> int:
    """How many full syncs the servers have served since they started."""
    return sum(counter(server, "sync_full") for server in servers)


def discarded(server: Server) -> list[list[Discarded]]:
    """What each rewind took back, in order: the files of `dir`/rewound."""
    files = (server.directory / "rewound").glob("*.frames")
    return [list(read(path)) for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]
