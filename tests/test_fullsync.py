"""Full syncs under load, broken on purpose: exact boundary, resumption, one checkpoint for all."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from cluster import LOOPBACK, Cluster, follow, replication
from fullsync import (
    MIB,
    SECONDS,
    SMALL_FILES,
    Load,
    assert_same,
    assert_same_at_once,
    behind,
    files_of,
    fill,
    full_syncs,
    is_up,
    received,
    syncing,
)
from harness import KVSERVER, Directive, Program, Server, wait_until
from proxy import Proxy

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
#: kvserver, which takes seconds to find out what an interrupted transfer has left.
SLOW_TO_BEGIN = replace(
    KVSERVER,
    command=(
        sys.executable,
        "-c",
        "import time; from kvserver import cli; "
        "from kvserver.edge.replication import incoming as i; "
        "begin = i.IncomingFiles.begin; "
        "i.IncomingFiles.begin = lambda self, files: time.sleep(2.5) or begin(self, files); "
        "cli.main()",
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


@pytest.mark.parametrize(
    "what",
    ["the link is cut", pytest.param("the replica is killed", marks=pytest.mark.long)],
)
def test_files_that_are_whole_are_not_sent_again(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]], what: str
) -> None:
    primary, proxy = proxied(**{"max-replication-mb": 6})
    fill(primary, 8)
    replica = behind(cluster, proxy)
    fields = wait_until(lambda: syncing(replica), SECONDS, "it has begun")
    total = int(fields["master_sync_total_bytes"])
    for _ in range(2):
        before = received(replica)
        wait_until(lambda b=before: received(replica) > b + 3 * MIB // 2, SECONDS, "some more")
        break_off(what, primary, replica, proxy)
        wait_until(lambda: syncing(replica), SECONDS, "it goes on")
    assert_same(primary, replica)
    # Each time at most the file that was under way, of a MB or so, and the pipe's content.
    biggest = max(files_of(replica.directory / "db").values())
    assert proxy.forwarded[True] < total + 2 * (biggest + MIB)
    assert replica.log_text().count("files are there already") == 2


def test_link_outlives_the_check_of_files_that_are_there(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.start(
        SLOW_TO_BEGIN, replicaof=[LOOPBACK, str(primary.port)], **{"repl-timeout": 1}
    )
    done = "Full sync: done"
    wait_until(lambda: done in replica.log_text(), SECONDS, "it is through")
    assert "nothing came for longer" not in replica.log_text().partition(done)[0]
    assert full_syncs(primary) == 1


@pytest.mark.long
def test_many_full_syncs_under_load(
    cluster: Cluster, proxied: Callable[..., tuple[Server, Proxy]]
) -> None:
    primary, proxy = proxied(**{"max-replication-mb": 8})
    fill(primary, 10)
    whats = ["the link is cut", "the replica is killed", "the primary is killed", "nothing"]
    with Load(primary, 5) as load:
        for number in range(8):
            replica = behind(cluster, proxy)
            wait_until(lambda r=replica, n=number: received(r) > (1 + n % 8) * MIB, SECONDS)
            break_off(whats[number % 4], primary, replica, proxy)
            wait_until(lambda r=replica: is_up(r), SECONDS, "the link is up")
            load.await_more()
            assert_same_at_once(primary, replica)
            assert "a gap" not in replica.log_text()
            replica.close()
    load.check(primary, exact=False)


# -- one checkpoint for all ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, pytest.param(10, marks=pytest.mark.long)])
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
    fill(primary, 12)  # it takes longer than to start a server
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
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:  # twice as long as the log is kept without need
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
