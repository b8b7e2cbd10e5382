"""Full syncs that crash, fail or are refused, and what comes after them; TLS, addresses."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import LOOPBACK, Cluster, follow, replication, wait_synced
from faults import FullDisk
from faults import small_disk as small_disk
from fullsync import (
    MIB,
    SECONDS,
    SMALL_FILES,
    Load,
    assert_same,
    assert_same_at_once,
    fill,
    full_syncs,
    is_up,
    received,
)
from harness import Directive, free_port, wait_until
from test_tls import Certificates

from kvserver.edge.replication.directories import Directories


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


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
    both = {**SMALL_FILES, **certificates.directives()}
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


def test_disk_of_the_replica_is_full(cluster: Cluster, small_disk: Path) -> None:
    primary = cluster.start(**SMALL_FILES, **{"max-replication-mb": 3})
    fill(primary, 4)
    replica = cluster.make(replicaof=[LOOPBACK, str(primary.port)], **SMALL_FILES)
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
