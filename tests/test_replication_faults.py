"""Replication between real servers that meet faults: hostile peers, crashes, a disk that fails,
passwords and TLS."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest
import redis
from cluster import (
    LOOPBACK,
    Cluster,
    assert_equal,
    contents,
    follow,
    promote,
    replication,
)
from faults import FileSizeLimit
from harness import KVSERVER, encode_command, free_port, wait_until
from replicas import cluster as cluster
from replicas import counter, fill, filled_pair, handshake, leftovers
from test_crash import crashing_at
from test_tls import Certificates

from kvserver import frames

# -- limits and hostile peers ----------------------------------------------------------------------


def test_replica_that_takes_nothing_is_cut_off(cluster: Cluster) -> None:
    primary = cluster.start(client_output_buffer_limit=["replica", "64kb", "0", "0"])
    client = primary.client()
    for number in range(100):
        client.set(f"big:{number}", os.urandom(100_000))
    conn = handshake(primary)
    conn.read_exactly(frames.HEADER_LEN)  # of the list of files
    conn.send(encode_command("REPLCONF", "END"))
    limited = "client_output_buffer_limit_disconnections"
    wait_until(lambda: counter(primary, limited) == 1, 20)
    wait_until(lambda: replication(primary)["connected_slaves"] == "0", 20)
    assert client.ping()


@pytest.mark.parametrize(
    "words",
    [
        ("HAVE", "../../etc/passwd", "0"),
        ("HAVE", "x", "y"),
        ("HAVE", b"\xff", "1"),
        ("KEYS", "9", "x"),
        ("KEYS", "3", "~r"),
        ("RANGE", "0", "a"),
        ("END", "END"),
        ("ACK", "-1"),
        ("ACK", "99999999999999999999999"),
        ("ACK", "5", "FACK", "x"),
    ],
)
def test_hostile_replica_harms_nobody(cluster: Cluster, words: tuple[str | bytes, ...]) -> None:
    primary = cluster.start()
    conn = handshake(primary)
    conn.read_exactly(frames.HEADER_LEN)  # of the list of files
    conn.send(encode_command("REPLCONF", *words))
    conn.send(encode_command("REPLCONF", "END"))
    fill(primary, 10)
    conn.close()
    replica = cluster.replica_of(primary)
    assert_equal(primary, replica)


@pytest.mark.parametrize(
    "answer",
    [
        b"+FULLRESYNC x 0\r\n" + b"\xff" * 100,
        b"+FULLRESYNC x x\r\n",
        b"+CONTINUE x 0\r\n" + bytes(100),
        b"+REWIND x 0\r\n",
        b"+REWIND x 99\r\n",
        b"+PAD x 99\r\n",
        b"+FULLRESYNC 0123456789012345678901234567890123456789 0\r\n$100\r\nREDIS0011",
        b"-ERR no\r\n",
        b"x" * 5000,
    ],
)
def test_hostile_primary_ends_the_link_only(cluster: Cluster, answer: bytes) -> None:
    replica = cluster.start()
    fill(replica, 20)
    before = contents(replica)
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(10)
        replica.client().replicaof(LOOPBACK, listener.getsockname()[1])
        for _ in range(2):
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(0.5)  # some answers only make it wait for more
                sock.sendall(b"+OK\r\n+OK\r\n" + answer)
                with contextlib.suppress(ConnectionError, TimeoutError):
                    while sock.recv(65536):
                        pass
    promote(replica)
    assert contents(replica) == before


# -- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["sync.fsynced", "swap.ready", "swap.old", "swap.new", "swap.opened"]
)
def test_killed_at_each_step_of_a_swap(cluster: Cluster, label: str) -> None:
    primary = cluster.start()
    fill(primary)
    replica = cluster.make()
    replica.start()
    fill(replica, 300, "old")
    old = contents(replica)
    replica.terminate()
    replica.program = crashing_at(label, 2 if label == "swap.opened" else 1)
    replica.start()
    follow(replica, primary)
    assert replica.wait_exit() == -signal.SIGKILL
    replica.program = KVSERVER
    replica.start()
    found = contents(replica)
    assert found == (old if label == "sync.fsynced" else contents(primary))
    follow(replica, primary)
    assert_equal(primary, replica)
    wait_until(lambda: not leftovers(replica))


@pytest.mark.parametrize("label", ["install.write", "install.written"])
def test_killed_while_a_frame_is_applied(cluster: Cluster, label: str) -> None:
    primary = cluster.start()
    replica = cluster.make(crashing_at(label, 20), replicaof=[LOOPBACK, str(primary.port)])
    replica.start()
    client = primary.client()
    for number in range(40):
        client.set(f"key:{number}", number)
        client.wait(1, 100) if replica.alive else None
    assert replica.wait_exit() == -signal.SIGKILL
    replica.program = KVSERVER
    replica.start()
    assert_equal(primary, replica)


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["primary", "replica"])
def test_disk_that_fails_for_a_while(cluster: Cluster, who: str) -> None:
    primary, replica = filled_pair(cluster, 50)
    before = replication(primary)["master_replid"]
    victim = primary if who == "primary" else replica
    fault = FileSizeLimit()
    fault.begin(victim)
    try:
        client = primary.client()
        if who == "primary":
            with pytest.raises(redis.ResponseError, match="MISCONF"):
                client.set("big", bytes(10_000))
        else:
            client.set("big", bytes(10_000))
            wait_until(lambda: "writing failed" in replica.log_text())
    finally:
        fault.end(victim)
    wait_until(lambda: "writing works again" in victim.log_text(), 20)
    fill(primary, 50, "after")
    assert_equal(primary, replica)
    assert (replication(primary)["master_replid"] != before) == (who == "primary")
    assert counter(primary, "sync_full") == 1


# -- TLS -------------------------------------------------------------------------------------------


def test_tls_replication(cluster: Cluster, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    tls = certificates.directives()
    tls_port = free_port()
    primary = cluster.start(**tls, **{"tls-port": tls_port})
    fill(primary)
    replica = cluster.start(
        **tls, **{"tls-replication": True, "replicaof": ["localhost", str(tls_port)]}
    )
    assert_equal(primary, replica)
    stranger, its_key = certificates.stranger
    other = cluster.start(
        **{
            **tls,
            "tls-cert-file": stranger,
            "tls-key-file": its_key,
            "tls-replication": True,
            "replicaof": ["localhost", str(tls_port)],
        }
    )
    fill(primary, 10, "after")
    assert_equal(primary, replica)
    assert replication(other)["master_link_status"] == "down"


def test_password(cluster: Cluster) -> None:
    primary = cluster.start(requirepass="secret")
    replica = cluster.replica_of(primary, masterauth="wrong")
    wait_until(lambda: "WRONGPASS" in replica.log_text())
    replica.client().config_set("masterauth", "secret")
    wait_until(lambda: replication(replica)["master_link_status"] == "up", 20)
    assert primary.client(password="secret").set("a", "b")
    wait_until(lambda: replica.client().get("a") == b"b")
