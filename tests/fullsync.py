"""Helpers for tests of full syncs: data sets in many files, writers of unique values, comparisons.

It knows nothing of pytest. Invariants: every wait has a deadline; a writer never sends a round
again whose outcome it doesn't know.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis
from cluster import LOOPBACK, Cluster, position, replication
from harness import Directive, Server, wait_until
from proxy import Proxy

MIB = 1 << 20
SECONDS = 40.0
#: Many small files in a data set of a few MB, so that some are whole when a transfer is cut.
SMALL_FILES: dict[str, Directive] = {
    "rocksdb.write_buffer_size": 1,
    # They stay small: a compaction would make one file of many.
    "rocksdb.level0_file_num_compaction_trigger": 64,
    "rocksdb.level0_slowdown_writes_trigger": 96,
    "rocksdb.level0_stop_writes_trigger": 128,
}


def behind(cluster: Cluster, proxy: Proxy, **directives: Directive) -> Server:
    """A replica that follows through the proxy."""
    return cluster.start(replicaof=[LOOPBACK, str(proxy.port)], **directives)


def fill(server: Server, mib: float) -> None:
    """Values that don't compress, in files of their own rather than in the log."""
    client = server.client()
    for number in range(int(mib * 16)):
        client.set(f"big:{number}", os.urandom(MIB // 16))


def files_of(path: Path) -> dict[str, int]:
    """name -> size; files may come and go meanwhile."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for file in path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[file.name] = file.stat().st_size
    return found


def received(replica: Server) -> int:
    """Bytes of the data set that comes in."""
    return sum(files_of(replica.directory / "fullsync").values())


def full_syncs(primary: Server) -> int:
    return int(replication(primary)["sync_full"])


def is_up(replica: Server) -> bool:
    return replication(replica).get("master_link_status") == "up"


def digest(server: Server) -> bytes:
    """Position, epoch, replication id, digest, keys; empty from one that is away or loads."""
    try:
        with server.conn() as conn:
            reply = conn.ask("REPLDIGEST")
    except OSError:
        return b""
    return reply if reply.startswith(b"*5") else b""


def assert_same(primary: Server, *replicas: Server) -> None:
    """Row by row, at the same position of the same history."""
    for other in replicas:
        wait_until(lambda o=other: digest(o) and digest(o) == digest(primary), SECONDS, "equal")


def syncing(replica: Server) -> dict[str, str]:
    """INFO replication while a full sync's files come."""
    fields = replication(replica)
    return fields if int(fields.get("master_sync_total_bytes", 0)) else {}


# -- load ------------------------------------------------------------------------------------------


class Writer:
    """Unique values, a counter, pairs in transactions, keys that expire, FLUSHDB now and then."""

    def __init__(self, server: Server, number: int) -> None:
        self._server, self._number = server, number
        self.stopped = threading.Event()
        #: Rounds that were sent, and rounds that were answered.
        self.sent = self.acked = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._write()
            except redis.RedisError:  # it is killed, or starts
                self.stopped.wait(0.02)

    def _write(self) -> None:
        client, other = self._server.client(), self._server.client(db=1)
        me = self._number
        while not self.stopped.is_set():
            self.sent += 1
            pipe = client.pipeline(transaction=False)
            pipe.set(f"unique:{me}:{self.sent}", f"{me}-{self.sent}")
            pipe.incr(f"counter:{me}")
            pipe.set(f"short:{me}:{self.sent}", "x", px=30 + self.sent % 200)
            pipe.execute()
            with client.pipeline(transaction=True) as pair:
                pair.set(f"left:{me}", self.sent).set(f"right:{me}", self.sent).execute()
            other.set(f"gone:{me}:{self.sent}", "x")
            if self.sent % 50 == 0:
                other.flushdb()
            self.acked += 1
            self.stopped.wait(0.002)


class Load:
    """Several writers; what they wrote is compared with what a server has."""

    def __init__(self, server: Server, count: int = 3) -> None:
        self._writers = [Writer(server, number) for number in range(count)]

    def __enter__(self) -> Load:
        for writer in self._writers:
            writer.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.stopped.set()
        for writer in self._writers:
            writer.thread.join(30)
            assert not writer.thread.is_alive()

    def await_more(self, count: int = 30) -> None:
        """Each writer's next rounds are answered."""
        goals = [(writer, writer.acked + count) for writer in self._writers]
        wait_until(lambda: all(w.acked >= goal for w, goal in goals), SECONDS, "writes")

    def check(self, server: Server, *, exact: bool) -> None:
        """`exact`: nothing was cut off, so each round happened once, neither less nor more."""
        client = server.client(decode_responses=True)
        for me, writer in enumerate(self._writers):
            count = int(client.get(f"counter:{me}"))
            unique = client.keys(f"unique:{me}:*")
            assert client.get(f"left:{me}") == client.get(f"right:{me}")
            if exact:
                assert count == len(unique) == writer.sent
            else:
                assert writer.acked <= len(unique) <= count <= writer.sent
            assert all(client.get(name) == name[7:].replace(":", "-") for name in unique[:50])

    def is_torn(self, server: Server) -> bool:
        """Whether half a transaction is to be seen."""
        names = [f"{side}:{me}" for me in range(len(self._writers)) for side in ("left", "right")]
        with contextlib.suppress(redis.RedisError):
            values = server.client().mget(names)
            return values[::2] != values[1::2]
        return False


def assert_same_at_once(primary: Server, *replicas: Server) -> None:
    """The same, while writes go on: at one position that is still to come."""
    ahead = 200
    while True:
        ahead *= 2
        replies = _digests_at(position(primary) + ahead, primary, *replicas)
        if not any(b"has passed" in reply for reply in replies):
            break
        assert ahead < 1_000_000
    assert len(replies) == 1, replies
    assert replies.pop().startswith(b"*5")


def _digests_at(seq: int, *servers: Server) -> set[bytes]:
    conns = [server.conn() for server in servers]
    with ThreadPoolExecutor(len(conns)) as pool:
        asked = [pool.submit(c.ask, "REPLDIGEST", "AT", seq, "TIMEOUT", 9000) for c in conns]
        return {task.result() for task in asked}
