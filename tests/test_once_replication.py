"""ONCE across failovers: a command that is sent again to the new primary counts once, however that
one came to its data.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cluster import Cluster, follow, promote, replication, wait_synced
from digests import assert_same, counter, full_syncs
from harness import Server, encode_command, wait_until
from rejoin import directive, play
from test_once_crash import recipe

CALLS = (
    (b"INCR", b"n"),
    (b"APPEND", b"text", b"x"),
    (b"GETDEL", b"gone"),
    (b"DEL", b"gone"),
    (b"INCR", b"text"),  # an error is a reply, too
)
REPLIES = [b":1\r\n", b":1\r\n", b"$1\r\n1\r\n", b":0\r\n"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def send(server: Server, writer: str = "w") -> list[bytes]:
    """All calls of a writer, in a pipeline; their replies."""
    with server.conn() as conn:
        conn.send(
            b"".join(
                encode_command("ONCE", writer, n, *call) for n, call in enumerate(CALLS, start=1)
            )
        )
        return [conn.reply() for _ in CALLS]


def first_time(server: Server) -> list[bytes]:
    """Send them; the client behaves as if no reply had come."""
    server.client().set("gone", 1)
    replies = send(server)
    assert replies[:4] == REPLIES and replies[4].startswith(b"-ERR ")
    return replies


def assert_once(server: Server, replies: list[bytes]) -> None:
    """The repetition is answered as the first was, and nothing happens."""
    assert send(server) == replies
    assert server.client().mget("n", "text", "gone") == [b"1", b"x", None]
    with server.conn() as conn:
        assert conn.ask("ONCE", "w", 6, "INCR", "n") == b":2\r\n"
        assert conn.ask("ONCE", "w", 6, "INCR", "n") == b":2\r\n"
        assert conn.ask("ONCE", "w", 8, "INCR", "n") == b"-OUTOFORDER expected 7\r\n"


@pytest.mark.parametrize("how", ["planned", "killed"])
def test_after_a_failover(cluster: Cluster, how: str) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    replies = first_time(primary)
    if how == "planned":
        assert primary.client().execute_command("FAILOVER") == b"OK"
        wait_until(lambda: replication(replica)["role"] == "master", 20)
    else:
        wait_synced(primary, replica)
        primary.kill9()
        promote(replica)
    assert_once(replica, replies)
    if how == "killed":
        primary.directives["replicaof"] = directive(replica)
        primary.start()
    assert_same(replica, primary)


def test_after_a_full_sync(cluster: Cluster) -> None:
    primary = cluster.start()
    replies = first_time(primary)
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    primary.kill9()
    promote(replica)
    assert_once(replica, replies)


def test_after_a_rewind(cluster: Cluster) -> None:
    """The old primary executed them alone, and lost that in a rewind; the new one executed them
    when they were sent again. Promoted once more, the old one knows what the new one did."""
    old = cluster.start()
    new = cluster.replica_of(old)
    play(old, "ONCE v 1 INCR m")
    wait_synced(old, new)
    promote(new)
    play(old, "SET n 10; ONCE v 2 INCR m; ONCE v 3 INCR m")
    lost = send(old)
    play(new, "ONCE v 2 INCR m")
    replies = first_time(new)
    assert lost[0] == b":11\r\n"
    follow(old, new)
    assert_same(new, old)
    assert (full_syncs(new), counter(old, "rewinds")) == (0, 1)
    promote(old)
    assert_once(old, replies)
    with old.conn() as conn:
        assert conn.ask("ONCE", "v", 2, "INCR", "m") == b":2\r\n"
        assert conn.ask("ONCE", "v", 4, "INCR", "m") == b"-OUTOFORDER expected 3\r\n"
        assert conn.ask("ONCE", "v", 3, "INCR", "m") == b":3\r\n"


def test_a_loss_is_noticed(cluster: Cluster) -> None:
    """What the new primary never had is told by number."""
    old = cluster.start()
    new = cluster.replica_of(old)
    play(old, "ONCE w 1 INCR n")
    wait_synced(old, new)
    promote(new)
    play(old, "ONCE w 2 INCR n; ONCE w 3 INCR n")
    with new.conn() as conn:
        assert conn.ask("ONCE", "w", 4, "INCR", "n") == b"-OUTOFORDER expected 2\r\n"
        assert conn.ask("ONCE", "w", 2, "INCR", "n") == b":2\r\n"


# -- the recipe ----------------------------------------------------------------------------------


class Follower:
    """A client that sends to whoever is the primary, as one of Sentinel's does."""

    def __init__(self, servers: list[Server], protocol: int) -> None:
        self._clients = [s.client(protocol=protocol, socket_timeout=2) for s in servers]
        self._at = 0

    def execute_command(self, *words: Any) -> Any:
        return self._try(lambda client: client.execute_command(*words))

    def pipeline(self, **options: Any) -> Any:
        return self._clients[self._at].pipeline(**options)

    def _try(self, send: Any) -> Any:
        try:
            return send(self._clients[self._at])
        except redis.RedisError:
            self.find()
            raise

    def find(self) -> None:
        """Look for the primary; the last one if several think that they are."""
        for at, client in enumerate(self._clients):
            try:
                if client.role()[0] == b"master":
                    self._at = at
            except redis.RedisError:
                continue


class Counter(threading.Thread):
    """Counts by the recipe until it is told to stop."""

    def __init__(self, servers: list[Server], protocol: int) -> None:
        super().__init__(daemon=True)
        self.client = Follower(servers, protocol)
        self.writer = recipe()["Writer"](self.client, seconds=60)
        self.key = f"counter:{protocol}"
        self.counted = 0
        self.stopped = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                reply = self.writer.execute("INCR", self.key)
                self.counted += 1
                assert reply == self.counted
        except BaseException as problem:
            self.problem = problem


@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.long)])
def test_counting_through_failovers(cluster: Cluster, rounds: int) -> None:
    """Planned ones and kill -9 in turn: every INCR counts once, none is lost."""
    settings = {"replica_ack_quorum": 1, "replica_ack_timeout": 0}
    primary = cluster.start(**settings)
    replica = cluster.replica_of(primary, **settings)
    wait_synced(primary, replica)
    counters = [Counter([primary, replica], protocol) for protocol in (2, 3)]
    for thread in counters:
        thread.start()
    try:
        for number in range(rounds):
            seen = [thread.counted for thread in counters]
            wait_until(
                lambda s=seen: all(
                    t.problem or t.counted > n + 30 for t, n in zip(counters, s, strict=True)
                ),
                30,
            )
            if number % 2:
                primary.kill9()
                promote(replica)
                primary.directives["replicaof"] = directive(replica)
                primary.start()
            else:
                wait_until(lambda p=primary: fails_over(p), 20)
                wait_until(lambda r=replica: replication(r)["role"] == "master", 20)
            primary, replica = replica, primary
            wait_until(lambda r=replica: replication(r).get("master_link_status") == "up", 20)
        for thread in counters:
            thread.stopped.set()
    finally:
        for thread in counters:
            thread.stopped.set()
            thread.join(70)
    assert [thread.problem for thread in counters] == [None, None]
    assert_same(primary, replica)
    assert full_syncs(primary, replica) <= 1
    for thread in counters:
        assert int(primary.client().get(thread.key)) == thread.counted


def fails_over(primary: Server) -> bool:
    """FAILOVER, when the replica is online."""
    with primary.conn() as conn:
        return conn.ask("FAILOVER") == b"+OK\r\n"
