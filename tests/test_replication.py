"""Replication between real servers: full syncs, streams, restarts, rewinds, chains, and the end."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import redis
from cluster import (
    LOOPBACK,
    Cluster,
    assert_equal,
    follow,
    position,
    promote,
    replication,
    wait_synced,
)
from fullsync import files_of
from harness import encode_command, wait_until
from replicas import cluster as cluster
from replicas import counter, fill, filled_pair, leftovers

# -- full syncs and streams ------------------------------------------------------------------------


def test_full_sync_and_stream(cluster: Cluster) -> None:
    primary = cluster.start()
    fill(primary)
    replica = cluster.replica_of(primary)
    assert_equal(primary, replica)
    fill(primary, 50, "more")
    primary.client(db=1).flushdb()
    primary.client().swapdb(0, 1)
    fill(primary, 20, "even more")
    assert_equal(primary, replica)
    assert counter(primary, "sync_full") == 1
    with pytest.raises(redis.exceptions.ReadOnlyError):
        replica.client().set("a", "b")


def test_full_sync_under_load(cluster: Cluster) -> None:
    primary = cluster.start(**{"rocksdb.write_buffer_size": 1})
    fill(primary, 20_000)
    stop = threading.Event()

    def write() -> None:
        client = primary.client()
        number = 0
        while not stop.is_set():
            pipe = client.pipeline(transaction=False)
            for _ in range(20):
                number += 1
                pipe.incr("counter")
                pipe.set(f"load:{number % 1000}", number)
            pipe.execute()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        replicas = [cluster.replica_of(primary) for _ in range(2)]
        for replica in replicas:
            wait_until(lambda r=replica: replication(r)["master_link_status"] == "up", 30)
    finally:
        stop.set()
        writer.join()
    assert_equal(primary, *replicas)


def test_full_sync_takes_the_place_of_other_data(cluster: Cluster) -> None:
    primary, replica = cluster.start(), cluster.start()
    fill(primary, 100)
    fill(replica, 200, "other")
    session = replica.client()
    watching = session.pipeline()
    watching.watch("other:1")
    follow(replica, primary)
    assert_equal(primary, replica)
    wait_until(lambda: not leftovers(replica))  # a worker thread removes them
    watching.multi()
    watching.get("key:1")
    with pytest.raises(redis.WatchError):
        watching.execute()


def test_interrupted_full_sync_goes_on_with_the_files_that_are_there(cluster: Cluster) -> None:
    several_files = {
        "rocksdb.write_buffer_size": 1,
        "rocksdb.level0_file_num_compaction_trigger": 100,
    }
    primary = cluster.start(**{"max-replication-mb": 1, **several_files})
    client = primary.client()
    for number in range(40):
        client.set(f"big:{number}", os.urandom(100_000))
    replica = cluster.replica_of(primary)

    def whole_files() -> list[str]:
        sent = files_of(primary.directory / "snapshots" / "1").items()
        received = files_of(replica.directory / "fullsync").items()
        return [name for name, _ in sent & received if name.endswith(".sst")]

    wait_until(whole_files)
    replica.kill9()
    client.config_set("max-replication-mb", 0)
    replica.start()
    assert_equal(primary, replica)
    assert "files are there already" in replica.log_text()


def test_messages_reach_subscribers_of_replicas(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    below = cluster.replica_of(replica)
    wait_synced(primary, replica)
    wait_synced(replica, below)
    with below.conn() as conn:
        conn.ask("SUBSCRIBE", "news")
        assert primary.client().publish("news", "hello") == 0
        assert conn.reply() == b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"


# -- restarts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["primary", "replica", "both"])
def test_clean_restarts_need_no_full_sync(cluster: Cluster, who: str) -> None:
    primary, replica = filled_pair(cluster, 50)
    before = replication(primary)["master_replid"]
    for server in (primary, replica):
        if who == "both" or server is (primary if who == "primary" else replica):
            server.terminate()
    if who == "replica":
        fill(primary, 50, "meanwhile")
    for server in (primary, replica):
        if not server.alive:
            server.start()
    fill(primary, 50, "after")
    assert_equal(primary, replica)
    assert replication(primary)["master_replid"] == before
    assert counter(primary, "sync_full") == (1 if who == "replica" else 0)


def test_killed_primary_begins_an_era_and_its_replica_goes_on(cluster: Cluster) -> None:
    primary, replica = filled_pair(cluster, 50)
    before = replication(primary)["master_replid"]
    primary.kill9()
    primary.start()
    fields = replication(primary)
    assert fields["master_replid"] != before
    assert fields["master_replid2"] == before
    fill(primary, 50, "after")
    assert_equal(primary, replica)
    assert counter(primary, "sync_full") == 0


def test_killed_replica_goes_on(cluster: Cluster) -> None:
    primary, replica = filled_pair(cluster, 50)
    replica.kill9()
    fill(primary, 50, "meanwhile")
    replica.start()
    assert_equal(primary, replica)
    assert counter(primary, "sync_full") == 1


def test_new_data_set_begins_no_era(cluster: Cluster) -> None:
    server = cluster.start()
    assert replication(server)["second_repl_offset"] == "-1"
    assert position(server) == 0
    server.restart()
    assert replication(server)["second_repl_offset"] == "-1"


# -- rewinds ---------------------------------------------------------------------------------------


def test_old_primary_rejoins_by_rewind(cluster: Cluster) -> None:
    primary, replica = filled_pair(cluster, 200)
    replica.kill9()
    fill(primary, 100, "lost")
    primary.client().set("key:1", "lost")
    primary.client().delete("key:2")
    primary.kill9()
    replica.directives.pop("replicaof")
    replica.start()
    fill(replica, 100, "kept")
    replica.client().set("key:1", "kept")
    primary.directives["replicaof"] = [LOOPBACK, str(replica.port)]
    primary.start()
    assert_equal(replica, primary)
    assert counter(replica, "sync_full") == 0
    assert counter(primary, "rewinds") == 1
    saved = list((primary.directory / "rewound").iterdir())
    assert len(saved) == 1
    fill(replica, 50, "after")
    assert_equal(replica, primary)
    primary.restart()
    assert_equal(replica, primary)
    assert counter(replica, "sync_full") == 0


def test_roles_change_back_and_forth(cluster: Cluster) -> None:
    one = cluster.start()
    other = cluster.replica_of(one)
    fill(one, 100)
    wait_synced(one, other)
    for turn in range(4):
        fill(one, 30, f"turn-{turn}")
        promote(other)
        fill(one, 20, f"lost-{turn}")
        fill(other, 20, f"kept-{turn}")
        follow(one, other)
        one, other = other, one
        assert_equal(one, other)
    assert counter(one, "sync_full") + counter(other, "sync_full") == 1


def test_rewind_is_refused_above_its_limit(cluster: Cluster) -> None:
    primary = cluster.start(replication_rewind_max_bytes=1000)
    replica = cluster.replica_of(primary)
    fill(primary, 10)
    wait_synced(primary, replica)
    promote(replica)
    fill(primary, 500, "lost")
    follow(primary, replica)
    assert_equal(replica, primary)
    assert counter(replica, "sync_full") == 1


# -- topologies ------------------------------------------------------------------------------------


def test_chain(cluster: Cluster) -> None:
    primary = cluster.start()
    middle = cluster.replica_of(primary)
    below = cluster.replica_of(middle)
    fill(primary)
    wait_synced(primary, middle)
    assert_equal(middle, below)
    middle.kill9()
    fill(primary, 50, "meanwhile")
    middle.start()
    wait_synced(primary, middle)
    assert_equal(middle, below)
    assert counter(primary, "sync_full") == 1


def test_chain_follows_a_promotion(cluster: Cluster) -> None:
    primary = cluster.start()
    middle = cluster.replica_of(primary)
    below = cluster.replica_of(middle)
    fill(primary, 50)
    wait_synced(primary, middle)
    wait_synced(middle, below)
    promote(middle)
    fill(middle, 50, "after")
    assert_equal(middle, below)
    assert counter(middle, "sync_full") == 1


def test_circles_are_refused(cluster: Cluster) -> None:
    primary = cluster.start()
    middle = cluster.replica_of(primary)
    below = cluster.replica_of(middle)
    wait_synced(primary, middle)
    wait_synced(middle, below)
    with pytest.raises(redis.ResponseError, match="this server"):
        follow(primary, primary)
    follow(primary, below)
    wait_until(lambda: "refusing to replicate in a circle" in primary.log_text(), 10)


# -- the end ---------------------------------------------------------------------------------------


def test_shutdown_waits_for_replicas(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    admin = primary.client()
    with pytest.raises(redis.ResponseError, match="No shutdown in progress"):
        admin.execute_command("SHUTDOWN", "ABORT")
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        admin.set("last", 1)
        with primary.conn() as conn:
            conn.send(encode_command("SHUTDOWN"))
            wait_until(lambda: "Waiting for replicas" in primary.log_text())
            assert admin.execute_command("SHUTDOWN", "ABORT")
            assert conn.reply() == b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n"
        assert admin.set("last", 2)
        primary.process.terminate()
        wait_until(lambda: primary.log_text().count("Waiting for replicas") == 2)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    assert primary.wait_exit() == 0
    assert replica.client().get("last") == b"2"


def test_shutdown_now_waits_for_nobody(cluster: Cluster) -> None:
    primary = cluster.start(shutdown_timeout=1000)
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        primary.client().set("last", 1)
        primary.conn().send(encode_command("SHUTDOWN", "NOW"))
        assert primary.wait_exit() == 0
    finally:
        os.kill(replica.pid, signal.SIGCONT)
