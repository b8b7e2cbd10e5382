"""Divergence is found whatever the positions are; padding for those who prefer it; and the quorum:
no acknowledged write is lost with the primary's disk.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from cluster import LOOPBACK, Cluster, follow, position, promote, replication, wait_synced
from digests import assert_same, counter, digest, discarded, full_syncs
from faults import Shim
from faults import shim as shim
from faults import shim_library as shim_library
from harness import Conn, Server, encode_command, wait_until
from rejoin import directive, play
from test_power_cut import cut_power

from kvserver import frames
from kvserver.frames import Frame


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


# -- divergence ----------------------------------------------------------------------------------


def test_equal_positions_and_different_data(cluster: Cluster) -> None:
    """Two replicas promoted at once: the same epoch, the same count of positions."""
    root = cluster.start()
    one, other = cluster.replica_of(root), cluster.replica_of(root)
    play(root, "MSET a 0 b 0")
    wait_synced(root, one, other)
    promote(one)
    promote(other)
    play(one, "SET a 1; SET b 1")
    play(other, "SET a 2; SET c 2")
    assert position(one) == position(other)
    first, second = digest(one), digest(other)
    assert first[1] == second[1] and first[2] != second[2] and first[3] != second[3]
    follow(other, one)
    assert_same(one, other)
    follow(root, one)
    assert_same(one, root)
    assert full_syncs(one, other) == 0
    assert len(discarded(other)) == 1 and len(discarded(root)) == 0


def test_unsynced_end_that_a_replica_has(cluster: Cluster, shim: Shim) -> None:
    """A power cut takes the end of the primary's log; its replica has it. In the new era the same
    positions are others, and the replica is rewound."""
    primary = cluster.make()
    primary.directives["appendfsync"] = "no"
    primary.env = shim.env
    primary.start()
    replica = cluster.replica_of(primary)
    play(primary, "MSET a 0 b 0")
    wait_synced(primary, replica)
    primary.client().config_set("appendfsync", "always")
    play(primary, "SET synced 1")
    primary.client().config_set("appendfsync", "no")
    kept, before = position(primary), replication(primary)["master_replid"]
    play(primary, "SET a 1; SET b 1\nSET lost 1; DEL synced")
    wait_synced(primary, replica)
    last = position(replica)
    primary.kill9()
    assert cut_power(primary.directory / "db", shim.synced_sizes()) > 0
    primary.start()
    assert replication(primary)["master_replid2"] == before
    assert replication(primary)["second_repl_offset"] == str(kept + 1)
    play(primary, "SET a 2; SET other 2\nSET c 2; SET d 2; SET e 2; SET f 2")
    assert position(primary) > last
    assert_same(primary, replica)
    assert counter(replica, "rewound_positions") == last - kept
    assert full_syncs(primary) == 0
    assert replica.client().mget("a", "b", "synced", "lost") == [b"2", b"0", b"1", None]


def test_clean_stops_keep_the_epoch(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    for _ in range(2):
        play(primary, "INCR n")
        wait_synced(primary, replica)
        before = digest(primary)
        primary.restart()
        assert digest(primary) == before
        assert_same(primary, replica)
    primary.kill9()
    primary.start()
    assert digest(primary)[1] == before[1] + 1
    assert_same(primary, replica)
    assert full_syncs(primary) == 0


@pytest.mark.parametrize("where", ["elsewhere", "in its place"])
def test_copied_directory_begins_an_epoch(cluster: Cluster, where: str) -> None:
    """A backup, taken while the server was stopped: what came after it, replicas may have."""
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    play(primary, "MSET a 0 b 0")
    wait_synced(primary, replica)
    primary.terminate()
    backup = primary.directory.with_name("backup")
    shutil.copytree(primary.directory, backup)
    primary.start()
    play(primary, "SET a 1; SET c 1")
    assert_same(primary, replica)
    before = digest(primary)
    primary.terminate()
    copy = primary
    if where == "elsewhere":
        copy = cluster.make()
    else:
        shutil.rmtree(primary.directory)
    shutil.copytree(backup, copy.directory)
    copy.start()
    assert digest(copy)[1:3] != before[1:3]
    play(copy, "SET b 2; SET d 2; SET e 2")
    follow(replica, copy)
    assert_same(copy, replica)
    assert (full_syncs(copy), counter(replica, "rewinds")) == (0, 1)


# -- padding -------------------------------------------------------------------------------------

PADDING = "replication-enable-sequence-padding"


def batch_at_ten(server: Server) -> None:
    """Nine positions of their own; then 10, 11 and 12 in one batch; then 13."""
    play(server, "\n".join(f"SET k{n} {n}" for n in range(position(server) + 1, 10)))
    assert position(server) == 9
    play(server, "SET a 10; SET b 11; SET c 12")
    play(server, "SET d 13")
    assert position(server) == 13


def ask(server: Server, conn: Conn, last: int, flags: str) -> bytes:
    """PSYNC of somebody with the server's own history who stands at `last`."""
    replid = replication(server)["master_replid"]
    history = (1).to_bytes(8, "big") + bytes.fromhex(replid) + bytes(8)
    assert conn.ask("REPLCONF", "listening-port", 1) == b"+OK\r\n"
    assert conn.ask("REPLCONF", "run-id", f"{last:040d}") == b"+OK\r\n"
    conn.send(encode_command("PSYNC", replid, last, "KV1", history.hex(), 0, flags))
    return conn.read_line().split()[0]


def frames_from(conn: Conn, last: int) -> list[Frame]:
    """Frames with positions up to the one that ends at `last`."""
    parser, got = frames.FrameParser(), []
    while not got or got[-1].last_seq < last:
        header = conn.read_exactly(frames.HEADER_LEN)
        size = int.from_bytes(header[-8:-4], "big")
        got += [
            frame
            for frame in parser.feed(header + conn.read_exactly(size))
            if frame.kind in (frames.DATA, frames.PADDING)
        ]
    return got


@pytest.mark.parametrize("padding", [True, False], ids=["padding", "no padding"])
def test_requests_around_a_batch(cluster: Cluster, padding: bool) -> None:
    """A batch of the positions 10, 11 and 12: it is sent as a whole or not at all."""
    primary = cluster.start()
    batch_at_ten(primary)
    primary.client().config_set(PADDING, "yes" if padding else "no")
    expected = {9: [], 10: [(11, 12)], 11: [(12, 12)], 12: []}
    for last, padded in expected.items():
        for flags in ("p", "rp", "-", "r"):
            with primary.conn() as conn:
                answer = ask(primary, conn, last, flags)
                if last in (9, 12):
                    assert answer == b"+CONTINUE"
                elif not padding or "p" not in flags:
                    assert answer == b"+FULLRESYNC"
                    continue
                else:
                    assert answer == b"+PAD"
                got = frames_from(conn, 13)
                seqs = [(f.first_seq, f.last_seq) for f in got if f.kind == frames.PADDING]
                assert seqs == padded
                data = [(f.first_seq, f.last_seq) for f in got if f.kind == frames.DATA]
                assert data == ([(10, 12)] if last == 9 else []) + [(13, 13)]


def padded_pair(cluster: Cluster, own: int) -> tuple[Server, Server]:
    """A primary with a batch 10..12, and one that stands at 8 + `own` with writes of its own and
    may not be rewound."""
    old = cluster.start()
    new = cluster.replica_of(old)
    play(old, "\n".join(f"SET k{n} {n}" for n in range(1, 9)))
    wait_synced(old, new)
    promote(new)  # takes position 9
    batch_at_ten(new)
    play(old, "\n".join(f"SET old{n} 1" for n in range(own)))
    assert position(old) == 8 + own
    return old, new


def allow_padding(*servers: Server) -> None:
    for server in servers:
        server.client().config_set(PADDING, "yes")


def ranges(server: Server) -> list[str]:
    fields = replication(server)
    return [
        text.partition(",time=")[0]
        for name, text in fields.items()
        if name.startswith("padded_range")
    ]


@pytest.mark.parametrize(("own", "upto"), [(1, 9), (2, 12), (3, 12), (4, 12), (5, 13)])
def test_diverged_replica_is_padded(cluster: Cluster, own: int, upto: int) -> None:
    """It goes on without what it couldn't take, and says so, also after a restart."""
    old, new = padded_pair(cluster, own)
    old.client().config_set("replication-rewind", "no")
    allow_padding(old, new)
    follow(old, new)
    wait_until(lambda: position(old) == 13, 20)
    play(new, "SET after 1")
    wait_until(lambda: old.client().get("after") == b"1", 20)
    fields = replication(old)
    assert fields["dataset_consistent"] == "no" and fields["slave_priority"] == "0"
    assert int(fields["sequence_padding_events"]) == 1
    assert int(fields["padded_sequences"]) == upto - 8
    assert ranges(old) == [f"first=9,last={upto}"]
    assert "passed over" in old.log_text()
    mine = [b"1"] * min(own, 1)
    assert old.client().mget("old0") == mine
    batch = old.client().mget("a", "b", "c")
    assert batch == ([None] * 3 if upto > 9 else [b"10", b"11", b"12"])
    old.directives.update({"replicaof": directive(new), "replication-rewind": "no"})
    old.directives[PADDING] = "yes"
    old.restart()
    wait_until(lambda: replication(old)["master_link_status"] == "up", 20)
    assert ranges(old) == [f"first=9,last={upto}"]
    assert replication(old)["dataset_consistent"] == "no"
    assert full_syncs(new) == 0


def test_without_padding_it_is_a_full_sync(cluster: Cluster) -> None:
    old, new = padded_pair(cluster, 3)
    old.client().config_set("replication-rewind", "no")
    allow_padding(old)  # one side alone
    follow(old, new)
    assert_same(new, old)
    assert full_syncs(new) == 1 and ranges(old) == []


def test_padded_replica_is_not_promoted(cluster: Cluster) -> None:
    old, new = padded_pair(cluster, 2)
    old.client().config_set("replication-rewind", "no")
    allow_padding(old, new)
    new.client().config_set("replica-ack-quorum", 1)
    new.client().config_set("replica-ack-timeout", 100)
    follow(old, new)
    wait_until(lambda: position(old) == 13, 20)
    admin = new.client()
    with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        admin.set("x", 1)  # it may lack what it acknowledges
    assert admin.wait(1, 50) == 0
    admin.config_set("replica-ack-quorum", 0)
    target = ("TO", LOOPBACK, old.port)
    with pytest.raises(redis.ResponseError, match="FORCE"):
        admin.execute_command("FAILOVER", *target)
    with pytest.raises(redis.ResponseError, match="FAILOVER"):
        admin.execute_command("FAILOVER")
    sound = cluster.replica_of(new)
    wait_synced(new, sound)
    assert admin.execute_command("FAILOVER") == b"OK"
    wait_until(lambda: replication(sound)["role"] == "master", 20)
    wait_until(lambda: replication(new)["role"] == "slave", 20)
    assert_same(sound, new)
    follow(old, sound)
    wait_until(lambda: replication(old)["master_link_status"] == "up", 20)
    sound.client().execute_command("FAILOVER", *target, "FORCE", "TIMEOUT", 5000)
    wait_until(lambda: replication(old)["role"] == "master", 20)


def test_promoted_in_spite_of_padding(cluster: Cluster) -> None:
    """Its data set is what counts from then on: others don't take theirs for the same."""
    old, new = padded_pair(cluster, 2)
    third = cluster.replica_of(new)
    below = cluster.replica_of(old)
    wait_synced(old, below)
    wait_synced(new, third)
    old.client().config_set("replication-rewind", "no")
    allow_padding(old, new)
    follow(old, new)
    wait_until(lambda: position(old) == 13, 20)
    wait_until(lambda: position(below) == 13, 20)
    wait_until(lambda: replication(below)["dataset_consistent"] == "no", 10)
    promote(old)
    play(old, "SET d 14")
    follow(third, old)
    follow(new, old)
    assert_same(old, third, new, below)
    assert old.client().mget("a", "old0", "d") == [None, b"1", b"14"]
    for server in (old, third, new, below):
        assert ranges(server) == []
    assert counter(new, "rewinds") == 1
    assert counter(below, "sequence_padding_events") == 0


@pytest.mark.parametrize("how", ["rewind", "full sync"])
def test_padding_is_cleared(cluster: Cluster, how: str) -> None:
    old, new = padded_pair(cluster, 2)
    old.client().config_set("replication-rewind", "no")
    allow_padding(old, new)
    follow(old, new)
    wait_until(lambda: position(old) == 13, 20)
    play(new, "SET after 1; DEL k1")
    wait_until(lambda: old.client().exists("k1") == 0, 20)
    if how == "rewind":
        old.client().config_set("replication-rewind", "yes")
        promote_and_back(old, new)
        assert (full_syncs(new), counter(old, "rewinds")) == (0, 1)
        shown = [effect.key for entry in discarded(old)[0] for effect in entry.effects]
        assert b"old0" in shown and b"old1" in shown
    else:
        new.client().config_set(PADDING, "no")
        old.terminate()
        shutil.rmtree(old.directory / "db")
        old.directives["replicaof"] = directive(new)
        old.start()
        assert_same(new, old)
    assert ranges(old) == []
    assert replication(old)["dataset_consistent"] == "yes"
    assert replication(old)["slave_priority"] == "100"
    old.restart()
    assert ranges(old) == []


def promote_and_back(replica: Server, primary: Server) -> None:
    """End the link, so that the replica asks anew."""
    assert replica.client().execute_command("CLIENT", "KILL", "TYPE", "master")
    assert_same(primary, replica)


# -- the quorum ----------------------------------------------------------------------------------


class Pipeliner(threading.Thread):
    """Sets unique keys through pipelines; knows which are acknowledged."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(daemon=True)
        self.acked: set[str] = set()
        self._server = server
        self._name = name
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        chance = random.Random(self._name)
        with suppress(OSError), self._server.conn() as conn:
            while not self.stopped.is_set():
                keys = [f"{self._name}:{number + i}" for i in range(chance.randrange(1, 40))]
                number += len(keys)
                conn.send(b"".join(encode_command("SET", key, key) for key in keys))
                self.acked.update(key for key in keys if conn.reply() == b"+OK\r\n")


@pytest.mark.parametrize("rounds", [3, pytest.param(25, marks=pytest.mark.long)])
def test_no_acknowledged_write_is_lost_with_the_disk(cluster: Cluster, rounds: int) -> None:
    """kill -9 under load, the primary's directory deleted, the replica with most promoted."""
    settings = {"replica_ack_quorum": 1, "replica_ack_timeout": 0}
    primary = cluster.start(**settings)
    replicas = [cluster.replica_of(primary, **settings) for _ in range(2)]
    acked: set[str] = set()
    for number in range(rounds):
        wait_synced(primary, *replicas)
        load = [Pipeliner(primary, f"{number}-{i}") for i in range(4)]
        for thread in load:
            thread.start()
        wait_until(lambda: all(len(t.acked) > 100 for t in load), 30)  # noqa: B023
        primary.kill9()
        for thread in load:
            thread.stopped.set()
            thread.join(20)
            acked |= thread.acked
        shutil.rmtree(primary.directory)
        best = max(replicas, key=position)
        promote(best)
        lost = acked - {key.decode() for key in best.client().scan_iter(count=1000)}
        assert not lost, (len(lost), sorted(lost)[:5])
        for server in replicas:
            if server is not best:
                follow(server, best)
        primary.directives["replicaof"] = directive(best)
        primary.start()
        replicas = [s for s in (primary, *replicas) if s is not best]
        primary = best
    wait_synced(primary, *replicas)
    assert_same(primary, *replicas)


def test_replies_wait_for_the_quorum(cluster: Cluster) -> None:
    """Of a write, and of whoever read what isn't acknowledged; other reads don't wait."""
    primary = cluster.start(replica_ack_quorum=1, replica_ack_timeout=0)
    replica = cluster.replica_of(primary)
    wait_until(lambda: replication(primary)["connected_slaves"] == "1", 20)
    client = primary.client()
    client.mset({"a": 0, "b": 0})
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        writer, reader, counted = primary.conn(), primary.conn(), primary.conn()
        before = position(primary)
        writer.send(encode_command("SET", "a", "1"))
        wait_until(lambda: position(primary) == before + 1)
        reader.send(encode_command("GET", "a"))
        counted.send(encode_command("MGET", "b", "a"))
        assert client.get("b") == b"0"
        for conn in (writer, reader, counted):
            conn.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                conn.reply()
            conn.sock.settimeout(10)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    assert writer.reply() == b"+OK\r\n"
    assert reader.reply() == b"$1\r\n1\r\n"
    assert counted.reply() == b"*2\r\n$1\r\n0\r\n$1\r\n1\r\n"


def test_quorum_changes_while_somebody_waits(cluster: Cluster) -> None:
    primary = cluster.start(replica_ack_timeout=0)
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    client = primary.client()
    client.config_set("replica-ack-quorum", 2)
    with primary.conn() as conn:
        before = position(primary)
        conn.send(encode_command("SET", "a", "1"))
        wait_until(lambda: position(replica) == before + 1)
        client.config_set("replica-ack-quorum", 1)
        assert conn.reply() == b"+OK\r\n"
        client.config_set("replica-ack-quorum", 3)
        conn.send(encode_command("SET", "a", "2"))
        wait_until(lambda: position(replica) == before + 2)
        client.config_set("replica-ack-quorum", 0)
        assert conn.reply() == b"+OK\r\n"
        client.config_set("replica-ack-quorum", 2)
        conn.send(encode_command("SET", "a", "3"))
        wait_until(lambda: position(replica) == before + 3)
        client.config_set("replica-ack-timeout", 50)
        conn.send(encode_command("SET", "a", "4"))
        assert conn.reply().startswith(b"-NOREPLICAS ")
        assert conn.reply().startswith(b"-NOREPLICAS ")
        client.config_set("replica-ack-timeout", 0)
        conn.send(encode_command("SET", "a", "5"))
        another = cluster.replica_of(primary)
        assert conn.reply() == b"+OK\r\n"
    assert_same(primary, replica, another)


def test_writes_need_good_replicas(cluster: Cluster) -> None:
    """min-replicas-to-write: refused before anything is written; reads go on."""
    primary = cluster.start(min_replicas_to_write=1, min_replicas_max_lag=1)
    client = primary.client()

    def is_refused() -> bool:
        with primary.conn() as conn:
            return conn.ask("SET", "a", "1").startswith(b"-NOREPLICAS Not enough good replicas")

    assert is_refused() and position(primary) == 0 and client.get("a") is None
    replica = cluster.replica_of(primary)
    wait_until(lambda: not is_refused(), 20)
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        wait_until(is_refused, 20)
        assert client.get("a") == b"1"
        client.config_set("min-replicas-to-write", 0)
        assert client.set("a", 2)
        client.config_set("min-replicas-to-write", 1)
        assert is_refused()
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    wait_until(lambda: not is_refused(), 20)
    assert_same(primary, replica)
