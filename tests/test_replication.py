"""Replication between real servers: full syncs, streams, restarts, rewinds, chains."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from cluster import (
    LOOPBACK,
    Cluster,
    assert_equal,
    contents,
    follow,
    position,
    promote,
    replication,
    synced,
    wait_synced,
)
from faults import FileSizeLimit
from harness import (
    KVSERVER,
    Conn,
    Directive,
    Program,
    Server,
    encode_command,
    free_port,
    wait_until,
)
from test_tls import Certificates

from kvserver import frames

LAUNCHER = Path(__file__).with_name("crash_launcher.py")


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


def leftovers(server: Server) -> list[str]:
    """The directories of data sets that are not served."""
    return [name for name in os.listdir(server.directory) if name.startswith("db.")]


def counter(server: Server, name: str) -> int:
    return int(replication(server)[name])


# -- full syncs and streams ----------------------------------------------------------------------


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
    primary = cluster.start(**{"max-replication-mb": 1, "rocksdb.write_buffer_size": 1})
    client = primary.client()
    for number in range(40):
        client.set(f"big:{number}", os.urandom(100_000))
    replica = cluster.replica_of(primary)
    received = replica.directory / "fullsync"
    wait_until(
        lambda: received.exists() and sum(f.stat().st_size for f in received.iterdir()) > 10**6
    )
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


# -- restarts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["primary", "replica", "both"])
def test_clean_restarts_need_no_full_sync(cluster: Cluster, who: str) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, 50)
    wait_synced(primary, replica)
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
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, 50)
    wait_synced(primary, replica)
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
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, 50)
    wait_synced(primary, replica)
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


# -- rewinds -------------------------------------------------------------------------------------


def test_old_primary_rejoins_by_rewind(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, 200)
    wait_synced(primary, replica)
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


# -- topologies ----------------------------------------------------------------------------------


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


# -- limits and hostile peers --------------------------------------------------------------------


def handshake(server: Server) -> Conn:
    """A connection that was answered with a full sync, as a replica that then does nothing."""
    conn = server.conn()
    history = (1).to_bytes(8, "big") + bytes(20) + bytes(8)
    assert conn.ask("REPLCONF", "listening-port", 1) == b"+OK\r\n"
    assert conn.ask("REPLCONF", "run-id", "0" * 40) == b"+OK\r\n"
    conn.send(encode_command("PSYNC", "0" * 40, 0, "KV1", history.hex(), 0, "-"))
    assert conn.read_line().startswith(b"+FULLRESYNC ")
    return conn


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
                sock.sendall(b"+OK\r\n" * 3 + answer)
                with contextlib.suppress(ConnectionError, TimeoutError):
                    while sock.recv(65536):
                        pass
    promote(replica)
    assert contents(replica) == before


# -- crashes -------------------------------------------------------------------------------------


def crashing_at(label: str, number: int = 1) -> Program:
    return replace(KVSERVER, command=(sys.executable, str(LAUNCHER), label, str(number)))


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


# -- quorum --------------------------------------------------------------------------------------


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


# -- failover ------------------------------------------------------------------------------------


def test_failover(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, 50)
    wait_synced(primary, replica)
    assert primary.client().execute_command("FAILOVER") == b"OK"
    wait_until(lambda: replication(replica)["role"] == "master", 10)
    wait_until(lambda: replication(primary)["role"] == "slave", 10)
    fill(replica, 50, "after")
    assert_equal(replica, primary)
    assert counter(replica, "sync_full") == 0


def test_paused_writes_are_refused_after_a_failover(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, 5)
    wait_synced(primary, replica)
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


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["primary", "replica"])
def test_disk_that_fails_for_a_while(cluster: Cluster, who: str) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    fill(primary, 50)
    wait_synced(primary, replica)
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
    certificate, key = certificates.server
    tls: dict[str, Directive] = {
        "tls-cert-file": certificate,
        "tls-key-file": key,
        "tls-ca-cert-file": certificates.ca,
    }
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
