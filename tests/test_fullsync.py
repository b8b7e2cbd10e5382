"""Full syncs under load, broken on purpose: exact boundary, resumption, one checkpoint for all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from cluster import LOOPBACK, Cluster, follow, replication, wait_synced
from faults import FullDisk
from faults import small_disk as small_disk
from harness import KVSERVER, Directive, Program, Server, free_port, wait_until
from proxy import Proxy
from test_tls import Certificates

from kvserver.edge.replication.directories import Directories

MIB = 1 << 20
SECONDS = 40.0
#: Many small files in a data set of a few MB, so that some are whole when a transfer is cut.
SMALL_FILES: dict[str, Directive] = {"rocksdb.write_buffer_size": 1}
#: kvserver, looking at its archived log five times a second instead of every ten seconds.
EAGER_RETENTION = replace(
    KVSERVER,
    command=(
        sys.executable,
        "-c",
        "from kvserver import cli; from kvserver.edge import cron; "
        "cron.RETENTION_SECONDS = 0.2; cli.main()",
    ),
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def proxied(cluster: Cluster) -> Iterator[Callable[..., tuple[Server, Proxy]]]:
    """A primary, and a proxy in front of it that replicas follow."""
    proxies: list[Proxy] = []

    def start(program: Program = KVSERVER, **directives: Directive) -> tuple[Server, Proxy]:
        primary = cluster.start(program, **{**SMALL_FILES, **directives})
        proxies.append(Proxy(lambda: primary.port).start())
        return primary, proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


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
    ahead = int(replication(primary)["master_repl_offset"]) + 300
    conns = [server.conn() for server in (primary, *replicas)]
    with ThreadPoolExecutor(len(conns)) as pool:
        asked = [pool.submit(c.ask, "REPLDIGEST", "AT", ahead, "TIMEOUT", 9000) for c in conns]
        replies = {task.result() for task in asked}
    assert len(replies) == 1
    assert replies.pop().startswith(b"*5")


# -- the boundary ----------------------------------------------------------------------------------


def break_off(what: str, primary: Server, replica: Server, proxy: Proxy) -> None:
    if what == "the link is cut":
        proxy.cut()
    elif what == "the replica is killed":
        replica.kill9()
        replica.start()
    elif what == "the primary is killed":
        primary.kill9()
        primary.start()


@pytest.mark.parametrize(
    "what", ["nothing", "the link is cut", "the replica is killed", "the primary is killed"]
)
def test_boundary_is_exact_under_load(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]], what: str
) -> None:
    primary, proxy = proxied(**{"max-replication-mb": 3})
    fill(primary, 5)
    with Load(primary) as load:
        load.await_more(5)
        replica = behind(cluster, proxy)
        wait_until(lambda: received(replica) > 2 * MIB, SECONDS, "half of it is there")
        break_off(what, primary, replica, proxy)
        wait_until(lambda: is_up(replica), SECONDS, "the link is up")
        for _ in range(20):
            assert not load.is_torn(replica)
        load.await_more()
        assert_same_at_once(primary, replica)
    assert_same(primary, replica)
    for server in (primary, replica):
        load.check(server, exact=what != "the primary is killed")
    if what != "the primary is killed":  # it may have compacted its files
        resumed = "files are there already" in replica.log_text()
        assert resumed == (what != "nothing")
    assert not files_of(replica.directory / "fullsync")


@pytest.mark.parametrize("what", ["the link is cut", "the replica is killed"])
def test_files_that_are_whole_are_not_sent_again(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]], what: str
) -> None:
    primary, proxy = proxied(**{"max-replication-mb": 6})
    fill(primary, 8)
    replica = behind(cluster, proxy)
    fields = wait_until(lambda: syncing(replica), SECONDS, "it has begun")
    total = int(fields["master_sync_total_bytes"])
    for _ in range(3):
        before = received(replica)
        wait_until(lambda b=before: received(replica) > b + 3 * MIB // 2, SECONDS, "some more")
        break_off(what, primary, replica, proxy)
        wait_until(lambda: syncing(replica), SECONDS, "it goes on")
    assert_same(primary, replica)
    # Each time at most the file that was under way, of a MB or so, and the pipe's content.
    biggest = max(files_of(replica.directory / "db").values())
    assert proxy.forwarded[True] < total + 3 * (biggest + MIB)
    assert replica.log_text().count("files are there already") == 3


def syncing(replica: Server) -> dict[str, str]:
    """INFO replication while a full sync's files come."""
    fields = replication(replica)
    return fields if int(fields.get("master_sync_total_bytes", 0)) else {}


@pytest.mark.long
def test_many_full_syncs_under_load(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]]
) -> None:
    primary, proxy = proxied(**{"max-replication-mb": 8})
    fill(primary, 10)
    whats = ["the link is cut", "the replica is killed", "the primary is killed", "nothing"]
    with Load(primary, 5) as load:
        for number in range(16):
            replica = behind(cluster, proxy)
            wait_until(lambda r=replica, n=number: received(r) > (1 + n % 8) * MIB, SECONDS)
            break_off(whats[number % 4], primary, replica, proxy)
            wait_until(lambda r=replica: is_up(r), SECONDS, "the link is up")
            load.await_more()
            assert_same_at_once(primary, replica)
            replica.close()
    assert "a gap" not in primary.log_text()
    load.check(primary, exact=False)


# -- one checkpoint for all ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [6, pytest.param(10, marks=pytest.mark.long)])
def test_one_checkpoint_serves_all_who_ask(cluster: Cluster, count: int) -> None:
    """They wait for longer than repl-timeout and than a checkpoint is young."""
    few: dict[str, Directive] = {"repl-timeout": 2}
    primary = cluster.start(
        **SMALL_FILES,
        **few,
        **{
            "max-replication-mb": 1,
            "replication-max-full-syncs": 2,
            "replication-snapshot-max-age": 1,
        },
    )
    fill(primary, 1)
    replicas = [cluster.make(**few) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(Server.start, replicas))
    start = time.monotonic()
    for replica in replicas:
        follow(replica, primary)
    snapshots, most, up = set(), 0, 0
    while up < count:
        fields = replication(primary)
        primary.client().incr("counter")  # what keeps the links of those who are through
        states = [fields.get(f"replica{n}", "") for n in range(count)]
        most = max(most, sum(map(is_under_way, states)))
        snapshots |= files_of(primary.directory / "snapshots").keys()
        up = sum("state=online" in state for state in states)
        assert time.monotonic() < start + SECONDS
    # It can't be faster, whoever shares this machine: the first 0.1 s may be sent at once.
    assert time.monotonic() - start > count * 1.0 - 0.2
    assert most <= 2
    assert snapshots == {"1"}
    assert primary.log_text().count("made a checkpoint") == 1
    assert full_syncs(primary) == count
    assert_same(primary, *replicas)
    for replica in replicas:
        assert "The link to the primary" not in replica.log_text()
    wait_until(lambda: not files_of(primary.directory / "snapshots"), SECONDS, "it is removed")


def is_under_way(state: str) -> bool:
    """Whether some of the files were sent, by INFO."""
    fields = dict(field.split("=") for field in state.split(",") if field)
    done, total = (int(fields.get(f"sync_bytes_{x}", 0)) for x in ("done", "total"))
    return 0 < done < total


def test_checkpoints_that_a_crash_left_are_removed(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]]
) -> None:
    primary, proxy = proxied(**{"max-replication-mb": 1})
    fill(primary, 2)
    replica = behind(cluster, proxy)
    wait_until(lambda: received(replica), SECONDS, "it has begun")
    second = cluster.make()  # in the same directory: it is refused, and touches nothing
    second.directory = primary.directory
    second.spawn()
    assert second.wait_exit() == 1
    assert files_of(primary.directory / "snapshots") and is_syncing(replica)
    primary.kill9()
    assert files_of(primary.directory / "snapshots")
    proxy.refuse(True)
    primary.start()
    assert not files_of(primary.directory / "snapshots")


def is_syncing(replica: Server) -> bool:
    return replication(replica)["master_sync_in_progress"] == "1"


# -- the log is pinned -----------------------------------------------------------------------------


def test_log_is_kept_until_the_replica_streams(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]]
) -> None:
    primary, proxy = proxied(
        EAGER_RETENTION, **{"rocksdb.wal_ttl_seconds": 1, "rocksdb.max_total_wal_size": 2}
    )
    fill(primary, 2)
    wait_until(lambda: gone_before(primary, 0.2), SECONDS, "log files go without a replica")
    replica = behind(cluster, proxy)
    wait_until(lambda: received(replica), SECONDS, "it has begun")
    proxy.hold(upwards=False)  # it has the files at most, and can't go on
    boundary = int(replication(primary)["master_repl_offset"])
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:  # three times as long as the log is kept without need
        assert gone_before(primary, 0.5) <= boundary + 1
    proxy.resume()
    assert_same(primary, replica)
    assert full_syncs(primary) == 1
    wait_until(lambda: gone_before(primary, 0.2) > boundary, SECONDS, "they go again")


def gone_before(primary: Server, mib: float) -> int:
    """The log's first position, if some were deleted, after so much was written."""
    fill(primary, mib)
    first = int(replication(primary)["repl_log_first_position"])
    return first if first > 1 else 0


# -- meanwhile -------------------------------------------------------------------------------------


def test_old_data_is_served_meanwhile(cluster: Cluster) -> None:
    primary = cluster.start(**SMALL_FILES, **{"max-replication-mb": 1})
    fill(primary, 2)
    replica = cluster.start()
    client = replica.client()
    client.set("old", "data")
    follow(replica, primary)
    seen: list[int] = []
    while len(seen) < 3:
        fields = wait_until(lambda: syncing(replica), SECONDS, "files come")
        done, total = (int(fields[f"master_sync_{x}_bytes"]) for x in ("read", "total"))
        assert int(fields["master_sync_left_bytes"]) == total - done
        assert float(fields["master_sync_perc"]) == pytest.approx(100 * done / total, abs=0.01)
        assert fields["master_link_status"] == "down"
        assert client.get("old") == b"data"
        seen += [done] if done not in seen else []
    assert seen == sorted(seen)
    of_primary = replication(primary)["replica0"]
    assert of_primary.startswith("state=send_bulk,") and f"sync_bytes_total={total}" in of_primary
    client.config_set("replica-serve-stale-data", "no")
    with pytest.raises(redis.ResponseError, match="Link with MASTER is down"):
        client.get("old")
    with pytest.raises(redis.ReadOnlyError):
        client.set("a", "b")
    wait_until(lambda: is_up(replica), SECONDS, "the link is up")
    assert client.get("old") is None
    assert client.strlen("big:1") == MIB // 16
    percents = [int(p) for p in re.findall(r"Full sync: (\d+)% received", replica.log_text())]
    assert percents == sorted(set(percents))
    assert len(percents) > 5 and percents[-1] == 100


# -- the swap --------------------------------------------------------------------------------------


class Crash(Exception):
    """The process ends here."""


def data_set(path: Path, content: str) -> None:
    path.mkdir()
    (path / "CURRENT").write_text(content)


@pytest.mark.parametrize("label", ["sync.fsynced", "swap.ready", "swap.old", "swap.new"])
@pytest.mark.parametrize("again", ["", "swap.old", "swap.new"])
def test_swap_that_crashes_twice_is_settled(tmp_path: Path, label: str, again: str) -> None:
    data_set(tmp_path / "db", "old")
    data_set(tmp_path / "fullsync", "new")

    def run(crash: str, *works: str) -> None:
        directories = Directories(str(tmp_path))

        def step(reached: str) -> None:
            if reached == crash:
                raise Crash

        directories.step = step
        with contextlib.suppress(Crash):
            for work in works:
                getattr(directories, work)()

    run(label, "complete", "swap")
    run(again, "settle")
    run("", "settle")
    expected = "old" if label == "sync.fsynced" else "new"
    assert (tmp_path / "db" / "CURRENT").read_text() == expected
    run("", "forget_old")
    assert sorted(os.listdir(tmp_path)) == (["db", "fullsync"] if expected == "old" else ["db"])


@pytest.mark.parametrize("swapped", [False, True])
def test_data_set_that_cannot_be_opened_is_given_up(cluster: Cluster, swapped: bool) -> None:
    server = cluster.start()
    server.client().set("old", "data")
    server.terminate()
    data_set(server.directory / "db.new", "MANIFEST-000099\n")
    if swapped:
        directories = Directories(str(server.directory))
        directories.swap()
    server.start()
    assert server.client().get("old") == b"data"
    assert "The data set of the last full sync is given up" in server.log_text()
    wait_until(lambda: not [n for n in os.listdir(server.directory) if n.startswith("db.")])


# -- TLS, passwords, addresses ---------------------------------------------------------------------


def test_full_sync_over_tls_with_a_password(cluster: Cluster, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificate, key = certificates.server
    both: dict[str, Directive] = {
        **SMALL_FILES,
        "tls-cert-file": certificate,
        "tls-key-file": key,
        "tls-ca-cert-file": certificates.ca,
    }
    tls_port = free_port()
    primary = cluster.start(**both, **{"tls-port": tls_port})
    fill(primary, 4)
    with Load(primary) as load:
        load.await_more(5)
        primary.client().config_set("requirepass", "secret")
        replica = cluster.start(
            **both,
            **{
                "tls-replication": True,
                "replicaof": ["localhost", str(tls_port)],
                "masteruser": "default",
                "masterauth": "secret",
                "replica-announce-ip": "10.9.8.7",
                "replica-announce-port": 7777,
            },
        )
        primary.client(password="secret").config_set("requirepass", "")
        wait_until(lambda: is_up(replica), SECONDS, "the link is up")
        load.await_more()
        assert_same_at_once(primary, replica)
    assert_same(primary, replica)
    load.check(replica, exact=True)
    fields = replication(primary)
    assert fields["slave0"].startswith("ip=10.9.8.7,port=7777,state=online,")
    assert primary.client().role()[2][0][:2] == [b"10.9.8.7", b"7777"]


def test_wrong_password_is_tried_less_and_less(cluster: Cluster) -> None:
    primary = cluster.start(requirepass="secret")
    start = time.monotonic()
    replica = cluster.replica_of(primary, masteruser="nobody", masterauth="secret")
    refused = "it answers: WRONGPASS invalid username-password pair or user is disabled."
    wait_until(lambda: replica.log_text().count(refused) == 3, SECONDS, "three attempts")
    assert time.monotonic() - start > 3  # 1 and 2 seconds between them
    assert replication(replica)["master_link_status"] == "down"
    admin = replica.client()
    admin.config_set("masteruser", "")
    follow(replica, primary)  # to the same one: again at once
    wait_until(lambda: is_up(replica), SECONDS, "the link is up")


# -- full disks ------------------------------------------------------------------------------------


def test_disk_of_the_replica_is_full(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]], small_disk: Path
) -> None:
    primary, proxy = proxied(**{"max-replication-mb": 3})
    fill(primary, 4)
    replica = cluster.make(replicaof=[LOOPBACK, str(proxy.port)], **SMALL_FILES)
    replica.directory = small_disk / "data"
    replica.log_path = small_disk.parent / "replica.log"
    disk = FullDisk()
    replica.start()
    wait_until(lambda: received(replica) > MIB, SECONDS, "it has begun")
    disk.begin(replica)
    wait_until(lambda: "can't be written: " in replica.log_text(), SECONDS, "it is full")
    assert replica.client().ping()
    disk.end(replica)
    assert_same(primary, replica)
    disk.begin(replica)
    asked = primary.log_text().count("asks to go on")
    fill(primary, 4)
    wait_until(lambda: "writing failed" in replica.log_text(), SECONDS, "it is full again")
    assert not is_up(replica)
    disk.end(replica)
    wait_until(lambda: "writing works again" in replica.log_text(), SECONDS, "it is back")
    assert_same(primary, replica)
    fill(primary, 1)
    assert_same(primary, replica)
    assert full_syncs(primary) == 2
    assert primary.log_text().count("asks to go on") == asked + 1
    assert replication(primary)["connected_slaves"] == "1"


# -- a replica that stands still -------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["repl-timeout", "output buffer"])
def test_stopped_replica_is_cut_off_and_goes_on(cluster: Cluster, limit: str) -> None:
    slow: dict[str, Directive] = {"repl-timeout": 2, "repl-ping-replica-period": 1}
    small: dict[str, Directive] = {"client-output-buffer-limit": ["replica", "200kb", "0", "0"]}
    primary = cluster.start(**SMALL_FILES, **(slow if limit == "repl-timeout" else {}))
    fill(primary, 1)
    replica = cluster.replica_of(primary)
    assert_same(primary, replica)
    if limit != "repl-timeout":
        value = " ".join(small["client-output-buffer-limit"])  # type: ignore[arg-type]
        primary.client().config_set("client-output-buffer-limit", value)
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        fill(primary, 20)
        none = lambda: replication(primary)["connected_slaves"] == "0"  # noqa: E731
        wait_until(none, SECONDS, "it is cut off")
        fill(primary, 1)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    told = "Disconnecting timedout replica" in primary.log_text()
    assert told == (limit == "repl-timeout")
    primary.client().config_set("client-output-buffer-limit", "replica 256mb 64mb 60")
    wait_synced(primary, replica)
    assert_same(primary, replica)
    assert full_syncs(primary) == 1
