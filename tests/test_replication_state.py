"""What replication's state does to commands, and what is told of it: ROLE, HELLO, INFO. The state
is driven directly; replies are compared with a real redis-server whose primary doesn't exist.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FreshServer
from core import Client
from harness import REDIS, Conn, Server, free_port
from replicated_core import OK, ReplicatedCore

from kvserver.state.admission import FEW_REPLICAS, READ_ONLY, STALE_DATA, SYNCING

READONLY = b"-READONLY You can't write against a read only replica.\r\n"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
NOREPLICAS = b"-NOREPLICAS Not enough good replicas to write.\r\n"


@pytest.fixture
def core(tmp_path: Path) -> Iterator[ReplicatedCore]:
    with ReplicatedCore(tmp_path / "db") as core:
        yield core


@pytest.fixture
def client(core: ReplicatedCore) -> Client:
    return core.client()


@pytest.fixture
def redis_replica(fresh_server: FreshServer) -> Conn:
    """A connection to a redis-server whose primary doesn't exist."""
    server = fresh_server(program=REDIS)
    conn = server.conn()
    assert conn.ask("REPLICAOF", "127.0.0.1", free_port()) == OK
    return conn


# -- the gates ---------------------------------------------------------------------------------

ON_A_REPLICA = [
    ("SET", "a", "1"),
    ("GET", "a"),
    ("DEL", "a"),
    ("PING",),
    ("PUBLISH", "c", "m"),
    ("WAIT", "1", "10"),
    ("FAILOVER",),
    ("FAILOVER", "ABORT"),
    ("MULTI",),
    ("GET", "a"),
    ("INCR", "a"),
    ("EXEC",),
    ("FLUSHALL",),
    ("DBSIZE",),
    ("EXPIRE", "a", "10"),
]


def test_a_replica_answers_as_one_of_redis(
    core: ReplicatedCore, client: Client, redis_replica: Conn
) -> None:
    core.become_replica()
    for command in ON_A_REPLICA:
        ours = client.ask(*(word.encode() for word in command))
        assert ours == redis_replica.ask(*command), command


def test_without_stale_data_a_replica_answers_as_one_of_redis(
    core: ReplicatedCore, client: Client, redis_replica: Conn
) -> None:
    core.become_replica()
    for ask in (redis_replica.ask, lambda *words: client.ask(*(w.encode() for w in words))):
        assert ask("CONFIG", "SET", "replica-serve-stale-data", "no") == OK
    core.dispatcher.role_changed()
    assert core.dispatcher.gate == READ_ONLY | STALE_DATA
    for command in [*ON_A_REPLICA, ("INFO", "x"), ("SELECT", "1"), ("SUBSCRIBE", "c")]:
        ours = client.ask(*(word.encode() for word in command))
        assert ours == redis_replica.ask(*command), command
    core.state.link_up = True
    core.dispatcher.role_changed()
    assert client.ask(b"UNSUBSCRIBE") and client.ask(b"GET", b"a") == b"$-1\r\n"


def test_exec_is_refused_if_the_role_changed_meanwhile(
    core: ReplicatedCore, client: Client
) -> None:
    client.ask(b"MULTI")
    client.ask(b"SET", b"a", b"1")
    core.become_replica()
    assert client.ask(b"EXEC") == (
        b"-EXECABORT Transaction discarded because of: "
        b"READONLY You can't write against a read only replica.\r\n"
    )


def test_a_queued_command_without_the_flag_stops_exec(core: ReplicatedCore, client: Client) -> None:
    core.state.consistent_from = 0
    client.ask(b"MULTI")
    client.ask(b"GET", b"a")
    core.become_replica()
    core.state.consistent_from = 100
    core.dispatcher.role_changed()
    assert b"-EXECABORT Transaction discarded because of: LOADING" in client.ask(b"EXEC")


def test_an_inconsistent_data_set_is_not_served(core: ReplicatedCore, client: Client) -> None:
    core.become_replica()
    core.state.consistent_from = core.log.committed_seq + 2
    core.dispatcher.role_changed()
    assert core.dispatcher.gate == READ_ONLY | SYNCING
    assert client.ask(b"GET", b"a") == LOADING
    assert client.ask(b"PING") == LOADING
    assert client.ask(b"SET", b"a", b"1") == READONLY
    assert client.ask(b"INFO", b"replication").startswith(b"$")
    assert core.info()["slave_priority"] == "0"
    assert core.info()["dataset_consistent"] == "no"
    core.state.consistent_from = core.log.committed_seq
    core.dispatcher.role_changed()
    assert client.ask(b"GET", b"a") == b"$-1\r\n"
    assert core.info()["slave_priority"] == "100"


def test_min_replicas_to_write(core: ReplicatedCore, client: Client) -> None:
    for name, value in ((b"min-slaves-to-write", b"1"), (b"min-replicas-max-lag", b"5")):
        assert client.ask(b"CONFIG", b"SET", name, value) == OK
    assert core.dispatcher.gate == FEW_REPLICAS
    assert client.ask(b"SET", b"a", b"1") == NOREPLICAS
    assert client.ask(b"GET", b"a") == b"$-1\r\n"
    assert core.info()["min_slaves_good_slaves"] == "0"
    replica = core.add_replica()
    assert client.ask(b"SET", b"a", b"1") == OK
    assert core.info()["min_slaves_good_slaves"] == "1"
    replica.last_ack -= 10
    core.dispatcher.role_changed()
    assert client.ask(b"SET", b"a", b"1") == NOREPLICAS
    core.become_replica()
    assert client.ask(b"SET", b"a", b"1") == READONLY


def test_nobody_but_a_primary_deletes_expired_keys(core: ReplicatedCore, client: Client) -> None:
    assert core.server.keyspace.may_expire
    core.become_replica()
    assert not core.server.keyspace.may_expire
    client.ask(b"REPLICAOF", b"NO", b"ONE")
    assert core.server.keyspace.may_expire


def test_parked_writes_are_refused_when_the_role_changes(
    core: ReplicatedCore, client: Client
) -> None:
    other = core.client()
    client.ask(b"CLIENT", b"PAUSE", b"1000000", b"WRITE")
    assert other.ask(b"SET", b"a", b"1") == b""
    core.become_replica()
    core.run_later()
    assert other.take() == READONLY


# -- what is told ------------------------------------------------------------------------------


def test_role(core: ReplicatedCore, client: Client) -> None:
    core.add_replica(7001).acked_seq = 12
    core.add_replica(7002, "send_bulk")
    seq = b":%d\r\n" % core.log.committed_seq
    replicas = b"*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n7001\r\n$2\r\n12\r\n"
    assert client.ask(b"ROLE") == b"*3\r\n$6\r\nmaster\r\n" + seq + replicas
    core.become_replica(7000)
    slave = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:7000\r\n"
    assert client.ask(b"ROLE") == slave + b"$7\r\nconnect\r\n:-1\r\n"
    core.state.link, core.state.link_up = "connected", True
    assert client.ask(b"ROLE") == slave + b"$9\r\nconnected\r\n" + seq


def test_hello_tells_the_role(core: ReplicatedCore, client: Client) -> None:
    assert b"$4\r\nrole\r\n$6\r\nmaster\r\n" in client.ask(b"HELLO")
    core.become_replica()
    assert b"$4\r\nrole\r\n$7\r\nreplica\r\n" in client.ask(b"HELLO")


def test_the_log_tells_the_role(fresh_server: FreshServer) -> None:
    server = fresh_server()
    conn = server.conn()
    assert conn.ask("REPLICAOF", "127.0.0.1", free_port()) == OK
    assert f"{server.pid}:S " in server.log_text()
    assert conn.ask("REPLICAOF", "NO", "ONE") == OK
    assert server.log_text().splitlines()[-1].startswith(f"{server.pid}:M ")


def redis_fields(conn: Conn) -> list[str]:
    text = conn.ask("INFO", "replication").decode()
    return [line.split(":")[0] for line in text.split("\r\n") if ":" in line]


def test_info_of_a_primary_has_the_fields_of_redis(core: ReplicatedCore, oracle: Server) -> None:
    theirs = redis_fields(oracle.conn())
    ours = core.info()
    assert [name for name in ours if name in theirs] == theirs
    assert ours["role"] == "master"
    assert ours["master_replid"] == core.log.history.current.replid
    assert (ours["master_replid2"], ours["second_repl_offset"]) == ("0" * 40, "-1")


def test_info_of_a_replica_has_the_fields_of_redis(
    core: ReplicatedCore, redis_replica: Conn
) -> None:
    core.become_replica(7000)
    theirs = redis_fields(redis_replica)
    ours = core.info()
    assert [name for name in ours if name in theirs] == theirs
    expected = {
        "role": "slave",
        "master_host": "127.0.0.1",
        "master_port": "7000",
        "master_link_status": "down",
        "master_last_io_seconds_ago": "-1",
        "slave_read_only": "1",
        "replica_announced": "1",
    }
    assert expected.items() <= ours.items()


def test_info_during_a_full_sync(core: ReplicatedCore) -> None:
    core.become_replica()
    state = core.state
    state.sync_in_progress, state.sync_bytes_total, state.sync_bytes_done = True, 400, 100
    state.sync_last_io = time.monotonic()
    found = core.info()
    assert found["master_sync_in_progress"] == "1"
    assert found["master_sync_total_bytes"] == "400"
    assert found["master_sync_read_bytes"] == "100"
    assert found["master_sync_left_bytes"] == "300"
    assert found["master_sync_perc"] == "25.00"
    assert int(found["master_sync_last_io_seconds_ago"]) >= 0


def test_info_of_replicas(core: ReplicatedCore, client: Client) -> None:
    client.ask(b"SET", b"a", b"1")
    replica = core.add_replica(7001)
    replica.sent_seq = replica.acked_seq = core.log.committed_seq
    core.add_replica(7002, "rewind").sync_bytes_total = 9
    found = core.info()
    seq = core.log.committed_seq
    assert found["connected_slaves"] == "2"
    assert found["slave0"] == f"ip=127.0.0.1,port=7001,state=online,offset={seq},lag=0"
    assert found["slave1"] == "ip=127.0.0.1,port=7002,state=send_bulk,offset=0,lag=0"
    assert found["replica0"] == (
        f"state=online,sent={seq},applied={seq},fsynced=0,lag_positions=0,lag_bytes=0,lag_ms=0"
    )
    assert found["replica1"] == "state=rewind,sync_bytes_done=0,sync_bytes_total=9"


def test_info_shows_eras_and_padding(core: ReplicatedCore, client: Client) -> None:
    core.log.begin_epoch()
    core.turn.commit()
    first, second = core.log.history.eras
    core.state.padded = [(5, 9, 1_700_000_000_000, "10.0.0.1:6379", "inside a frame")]
    core.state.padding_events, core.state.padded_sequences = 1, 5
    found = core.info()
    assert (found["master_replid"], found["master_replid2"]) == (second.replid, first.replid)
    assert found["second_repl_offset"] == str(second.first_seq)
    assert found["dataset_consistent"] == "no"
    assert found["padded_sequences"] == "5"
    assert found["padded_range0"] == (
        "first=5,last=9,time=1700000000000,peer=10.0.0.1:6379,reason=inside a frame"
    )


def test_counters_of_syncs_are_in_stats_and_reset(core: ReplicatedCore, client: Client) -> None:
    core.state.sync_full, core.state.sync_partial_ok, core.state.sync_partial_err = 1, 2, 3
    text = client.ask(b"INFO", b"stats")
    assert b"sync_full:1\r\nsync_partial_ok:2\r\nsync_partial_err:3\r\n" in text
    client.ask(b"CONFIG", b"RESETSTAT")
    assert b"sync_full:0\r\nsync_partial_ok:0\r\nsync_partial_err:0\r\n" in client.ask(
        b"INFO", b"stats"
    )
