"""Keyspace notifications on replicas: what their own subscribers are told of their primary's
writes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cluster import Cluster, follow, position, promote, replication, wait_synced
from core import Core
from digests import assert_same
from harness import Server, wait_until

from kvserver import codec, frames
from kvserver.frames import FrameError
from kvserver.replication.handshake import Handshake
from kvserver.state import notify
from kvserver.storage.commitlog import LOG
from kvserver.storage.positions import PositionLog
from kvserver.storage.wal_batch import DELETE, PUT, decode_records

Told = list[tuple[str, str]]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


class Listener:
    """A subscriber to all channels, in redis-py."""

    def __init__(self, server: Server) -> None:
        client: redis.Redis = server.client(decode_responses=True)
        self._pubsub: Any = client.pubsub()
        self._pubsub.psubscribe("*")
        wait_until(lambda: self._next() == "psubscribe", 10)
        self.told: Told = []

    def _next(self, timeout: float = 0.05) -> str:
        message = self._pubsub.get_message(timeout=timeout)
        if message is None:
            return ""
        if message["type"] == "pmessage":
            self.told.append((message["channel"], message["data"]))
        return str(message["type"])

    def until(self, channel: str = "end") -> Told:
        """What was told before a message on this channel."""
        wait_until(lambda: self._next() == "pmessage" and self.told[-1][0] == channel, 20, channel)
        told, self.told = self.told[:-1], []
        return told


def group(cluster: Cluster, flags: str, depth: int = 1) -> list[Server]:
    """A primary without notifications, and a chain of replicas of which the last has them."""
    servers = [cluster.start()]
    for level in range(depth):
        own = flags if level == depth - 1 else ""
        servers.append(cluster.replica_of(servers[-1], notify_keyspace_events=own))
    wait_synced(*servers)
    return servers


def end(primary: Server) -> None:
    primary.client().publish("end", "")


def events(*pairs: str) -> Told:
    """`event key` as both channels of database 0 tell it."""
    told: Told = []
    for pair in pairs:
        event, key = pair.split()
        told += [(f"__keyspace@0__:{key}", event), (f"__keyevent@0__:{event}", key)]
    return told


# -- who is told what ------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_subscribers_of_a_replica_are_told(cluster: Cluster, depth: int) -> None:
    """Below a primary and replicas that notify nobody themselves."""
    primary, *_, last = group(cluster, "KEA", depth)
    listener = Listener(last)
    client = primary.client()
    client.set("a", 1)
    client.rpush("list", "x")
    client.lpop("list")
    client.hset("hash", "f", 1)
    with client.pipeline(transaction=True) as pipe:
        pipe.incr("n").sadd("set", 1).spop("set").zadd("z", {"m": 1}).execute()
    client.eval("redis.call('set', KEYS[1], 1) redis.call('del', KEYS[1])", 1, "s")
    end(primary)
    assert listener.until() == events(
        *("set a", "rpush list", "lpop list", "del list", "hset hash"),
        *("incrby n", "sadd set", "spop set", "del set", "zadd z", "set s", "del s"),
    )


def test_expired_comes_when_the_primary_deletes(cluster: Cluster) -> None:
    primary, replica = group(cluster, "Ex")
    listener = Listener(replica)
    client = primary.client()
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    client.set("a", 1, px=1)
    wait_until(lambda: replica.client().get("a") is None, 10)
    end(primary)
    assert listener.until() == []
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 1)
    assert listener.until("__keyevent@0__:expired") == []
    assert listener.told == []


def test_expired_by_an_access_at_the_primary(cluster: Cluster) -> None:
    primary, replica = group(cluster, "Ex")
    listener = Listener(replica)
    client = primary.client()
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    client.set("a", 1, px=1)
    wait_until(lambda: client.get("a") is None, 10)
    end(primary)
    assert listener.until() == [("__keyevent@0__:expired", "a")]


def test_each_server_selects_by_its_own_flags(cluster: Cluster) -> None:
    primary = cluster.start(notify_keyspace_events="Kl")
    strings = cluster.replica_of(primary, notify_keyspace_events="E$")
    new = cluster.replica_of(primary, notify_keyspace_events="Kn")
    silent = cluster.replica_of(primary)
    wait_synced(primary, strings, new, silent)
    listeners = [Listener(server) for server in (primary, strings, new, silent)]
    primary.client(db=3).set("a", 1)
    primary.client(db=3).rpush("b", 1)
    end(primary)
    assert [listener.until() for listener in listeners] == [
        [("__keyspace@3__:b", "rpush")],
        [("__keyevent@3__:set", "a")],
        [("__keyspace@3__:a", "new"), ("__keyspace@3__:b", "new")],
        [],
    ]


def test_events_come_before_messages(cluster: Cluster) -> None:
    """Of what was written before them."""
    primary, replica = group(cluster, "E$")
    listener = Listener(replica)
    client = primary.client()
    for number in range(50):
        client.set(f"k{number}", 1)
        client.publish("after", number)
    end(primary)
    told = listener.until()
    for number in range(50):
        assert told.index(("__keyevent@0__:set", f"k{number}")) < told.index(("after", str(number)))


def test_what_reads_miss_does_not_travel(cluster: Cluster) -> None:
    primary, replica = group(cluster, "KEAm")
    listener = Listener(replica)
    primary.client().get("none")
    primary.client().set("a", 1)
    replica.client().get("nothing")
    wait_synced(primary, replica)
    end(primary)
    told = listener.until()
    assert sorted(told) == sorted(events("set a", "keymiss nothing"))


def test_a_namespace_is_told_of_its_own(cluster: Cluster) -> None:
    """By the number on disk, which is the same whatever `databases` says."""
    primary = cluster.start(requirepass="p", databases="16")
    admin = primary.client(password="p")
    admin.execute_command("NAMESPACE", "ADD", "ns", "token")
    replica = cluster.replica_of(
        primary, requirepass="p", masterauth="p", databases="20", notify_keyspace_events="KEA"
    )
    wait_until(lambda: replica.client(password="p").ping(), 10)
    wait_until(
        lambda: replica.client(password="p").info("replication")["master_link_status"] == "up", 20
    )
    client = replica.client(password="token", decode_responses=True)
    pubsub: Any = client.pubsub()
    pubsub.psubscribe("*")
    primary.client(password="token").set("a", 1)
    found: Told = []

    def told() -> bool:
        message = pubsub.get_message(timeout=0.05)
        if message is not None and message["type"] == "pmessage":
            found.append((message["channel"], message["data"]))
        return len(found) == 2

    wait_until(told, 20)
    assert found == events("set a")


# -- wishes that change ----------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_flags_change_at_run_time(cluster: Cluster, depth: int) -> None:
    primary, *_, last = group(cluster, "", depth)
    listener = Listener(last)
    client = primary.client()

    def told(key: str) -> Told:
        client.set(key, 1)
        end(primary)
        return listener.until()

    assert told("a") == []
    last.client().config_set("notify-keyspace-events", "K$")
    wait_until(lambda: told("b"), 20, "the wish has arrived")
    assert told("c") == [("__keyspace@0__:c", "set")]
    last.client().config_set("notify-keyspace-events", "E$")
    assert told("d") == [("__keyevent@0__:set", "d")]
    last.client().config_set("notify-keyspace-events", "")
    assert told("e") == []
    wait_until(lambda: not wanted(primary, client), 20, "nothing travels")


def wanted(primary: Server, client: redis.Redis) -> bool:
    """Whether events travel with what is written."""
    before = size_of_log(primary)
    client.set("x" * 1000, 1)
    return size_of_log(primary) - before > 2000


def size_of_log(server: Server) -> int:
    return sum(path.stat().st_size for path in (server.directory / "db").glob("*.log"))


def test_events_of_the_time_of_a_broken_link(cluster: Cluster) -> None:
    """The replica is sent those frames when it comes back."""
    primary, replica = group(cluster, "E$")
    listener = Listener(replica)
    replica.client().replicaof("127.0.0.1", 1)
    wait_until(lambda: replication(primary)["connected_slaves"] == "0", 20)
    primary.client().set("a", 1)
    follow(replica, primary)
    wait_synced(primary, replica)
    end(primary)
    assert listener.until() == [("__keyevent@0__:set", "a")]


def test_after_a_failover(cluster: Cluster) -> None:
    primary = cluster.start(notify_keyspace_events="E$")
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    listener = Listener(primary)
    promote(replica)
    follow(primary, replica)
    wait_synced(replica, primary)
    replica.client().set("a", 1)
    end(replica)
    assert listener.until() == [("__keyevent@0__:set", "a")]


def test_a_replica_that_dies_and_comes_back(cluster: Cluster) -> None:
    primary, replica = group(cluster, "E$")
    os.kill(replica.pid, signal.SIGKILL)
    replica.wait_exit()
    replica.start()
    wait_synced(primary, replica)
    listener = Listener(replica)
    primary.client().set("a", 1)
    end(primary)
    assert listener.until() == [("__keyevent@0__:set", "a")]


# -- the data sets ---------------------------------------------------------------------------------


def test_data_sets_stay_the_same(cluster: Cluster) -> None:
    """And so do those that are copied, or rewound, from frames with events."""
    primary, replica, below = group(cluster, "KEA", 2)
    client = primary.client()
    for number in range(100):
        client.set(f"k{number}", 1)
    plain = cluster.replica_of(primary)
    assert_same(primary, replica, below, plain)
    promote(replica)
    client.set("lost", 1)
    replica.client().set("kept", 1)
    follow(primary, replica)
    assert_same(replica, primary, below)
    assert replication(primary)["rewinds"] == "1"


def test_a_primary_pays_only_for_who_wants_events(cluster: Cluster) -> None:
    primary, replica = group(cluster, "")
    client = primary.client()
    assert not wanted(primary, client)
    replica.client().config_set("notify-keyspace-events", "KEA")
    wait_until(lambda: wanted(primary, client), 20)


# -- inside ----------------------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db") as core:
        yield core


def records(core: Core, first: int) -> list[Any]:
    """Those of the frame that begins with this position."""
    cursor = PositionLog(core.engine.path, core.log).open(first)
    frame = cursor.read()
    cursor.close()
    assert frame is not None
    return decode_records(frame.payload, frame.records)


def test_events_are_in_the_batch_and_not_in_the_data(core: Core) -> None:
    core.server.notifier.want(notify.STRING)
    client = core.client()
    client.call(b"SET", b"a", b"1")
    client.call(b"LPUSH", b"l", b"1")
    client.ask(b"APPEND", b"a", b"1")
    found = [record for record in records(core, 1) if record[2] == codec.EVENTS_KEY]
    assert [(op, cf) for op, cf, _, _ in found] == [(PUT, LOG), (DELETE, LOG)]
    fields = frames.unpack_fields(found[0][3])
    assert fields[1:3] + fields[4:6] == [b"set", b"a", b"append", b"a"]
    assert len(fields) == 6
    assert core.engine.get(LOG, codec.EVENTS_KEY) is None
    client.ask(b"LPUSH", b"l", b"2")
    assert codec.EVENTS_KEY not in [record[2] for record in records(core, 4)]


def test_events_of_a_failed_batch_are_forgotten(core: Core) -> None:
    core.server.notifier.want(notify.STRING)
    client = core.client()
    write = core.engine.write
    core.fail_writes()
    client.ask(b"SET", b"a", b"1")
    assert core.log.events == []
    core.engine.write = write  # type: ignore[method-assign]
    client.ask(b"SET", b"b", b"1")
    fields = [r[3] for r in records(core, 1) if r[2] == codec.EVENTS_KEY and r[0] == PUT]
    assert frames.unpack_fields(fields[0])[1:] == [b"set", b"b"]


@pytest.mark.parametrize(
    "row", [b"x", frames.pack_fields([b"1"]), frames.pack_fields([b"123", b"set", b"a"])]
)
def test_events_that_are_none_end_the_link(core: Core, row: bytes) -> None:
    core.server.notifier.replay(row)  # nobody listens
    core.server.notifier.configure("KEA")
    with pytest.raises(FrameError):
        core.server.notifier.replay(row)


def test_events_of_databases_that_are_not_there(core: Core) -> None:
    core.server.notifier.configure("KEA")
    listener = core.client()
    listener.ask(b"PSUBSCRIBE", b"*")
    for number, said in ((15, True), (16, False), (1000, False)):
        head = notify._EVENT.pack(notify.STRING, number)
        core.server.notifier.replay(frames.pack_fields([head, b"set", b"a"]))
        core.end_turn()
        assert bool(listener.take()) is said


def test_wishes(core: Core) -> None:
    assert notify.wanted_by("") == notify.wanted_by("A") == 0
    assert notify.wanted_by("K$m") == notify.STRING
    assert notify.wanted_by("EA") == notify.LETTERS["A"]


def test_replconf_events(core: Core) -> None:
    client = core.client()
    assert client.ask(b"REPLCONF", b"events", b"24") == b"+OK\r\n"
    assert client.session.replica is not None and client.session.replica.events == 24
    for wrong in (b"x", b"-1", b"65536"):
        assert client.ask(b"REPLCONF", b"events", wrong).startswith(b"-ERR")


def test_a_primary_that_knows_no_events() -> None:
    """The link works, without them."""
    handshake = Handshake()
    handshake._due, handshake._asked, handshake.wishes = 2, True, 24
    lines = (
        b"+OK\r\n-ERR Unrecognized REPLCONF option: events\r\n+CONTINUE " + b"0" * 40 + b" 7\r\n"
    )
    answered, rest = handshake.feed(lines)
    assert answered is not None and (answered.kind, answered.seq, rest) == ("CONTINUE", 7, b"")
    assert handshake.wishes is None


def test_position_is_untouched(cluster: Cluster) -> None:
    """Events take none."""
    primary, replica = group(cluster, "KEA")
    before = position(primary)
    primary.client().set("a", 1)
    assert position(primary) == before + 1
    wait_synced(primary, replica)
