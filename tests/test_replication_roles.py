"""Quorums and failovers between real servers."""

from __future__ import annotations

import os
import signal

import pytest
import redis
from cluster import (
    LOOPBACK,
    Cluster,
    assert_equal,
    follow,
    position,
    replication,
    synced,
)
from harness import encode_command, wait_until
from replicas import cluster as cluster
from replicas import counter, fill, filled_pair

# -- quorum ----------------------------------------------------------------------------------------


def test_quorum(cluster: Cluster) -> None:
    primary = cluster.start(replica_ack_quorum=1, replica_ack_timeout=200)
    client = primary.client()
    with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        client.set("alone", 1)
    replica = cluster.replica_of(primary)
    wait_until(lambda: synced(primary, replica), 10)
    for number in range(50):
        client.set(f"key:{number}", number)
        assert replica.client().get(f"key:{number}") == str(number).encode()
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
            client.set("stopped", 1)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    wait_until(lambda: client.set("again", 1), 10)
    client.config_set("replica-ack-quorum", 0)
    replica.terminate()
    assert client.set("without", 1)


def test_writes_that_wait_for_the_quorum_are_answered_on_demotion(cluster: Cluster) -> None:
    primary, other = cluster.start(replica_ack_quorum=1, replica_ack_timeout=0), cluster.start()
    with primary.conn() as conn:
        conn.send(encode_command("SET", "a", "b"))
        wait_until(lambda: position(primary) == 1)
        follow(primary, other)
        assert conn.reply().startswith(b"-UNBLOCKED ")
    assert_equal(other, primary)


# -- failover --------------------------------------------------------------------------------------


def test_failover(cluster: Cluster) -> None:
    primary, replica = filled_pair(cluster, 50)
    assert primary.client().execute_command("FAILOVER") == b"OK"
    wait_until(lambda: replication(replica)["role"] == "master", 10)
    wait_until(lambda: replication(primary)["role"] == "slave", 10)
    fill(replica, 50, "after")
    assert_equal(replica, primary)
    assert counter(replica, "sync_full") == 0


def test_paused_writes_are_refused_after_a_failover(cluster: Cluster) -> None:
    primary, replica = filled_pair(cluster, 5)
    admin = primary.client()
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        admin.set("not yet there", 1)
        admin.execute_command("FAILOVER", "TO", LOOPBACK, replica.port)
        conn = primary.conn()
        wait_until(lambda: "failover" in (admin.info("clients").get("paused_reason") or ""), 5)
        conn.send(encode_command("SET", "parked", "1"))
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    assert conn.reply().startswith(b"-READONLY ")
    assert_equal(replica, primary)
