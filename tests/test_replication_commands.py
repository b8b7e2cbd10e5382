"""REPLICAOF, FAILOVER, PSYNC and REPLCONF, with replication's state driven directly: no links, no
peers. Texts and replies are compared with a real redis-server where it has them. What the verbs do
with real servers is in test_replication.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from core import Client
from harness import Server
from replicated_core import OK, ReplicatedCore

from kvserver import config_file, history
from kvserver.directives import default_config
from kvserver.errors import error
from kvserver.state.replication import PRIMARY, REPLICA, PsyncRequest


@pytest.fixture
def core(tmp_path: Path) -> Iterator[ReplicatedCore]:
    with ReplicatedCore(tmp_path / "db") as core:
        yield core


@pytest.fixture
def client(core: ReplicatedCore) -> Client:
    return core.client()


# -- REPLICAOF ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"REPLICAOF", b"slaveof"])
def test_replicaof_follows_and_no_one_promotes(
    name: bytes, core: ReplicatedCore, client: Client
) -> None:
    assert client.ask(name, b"no", b"ONE") == OK
    assert client.ask(name, b"10.0.0.9", b"6400") == OK
    assert (
        client.ask(name, b"10.0.0.9", b"6400") == b"+OK Already connected to specified master\r\n"
    )
    assert client.ask(name, b"10.0.0.9", b"6401") == OK
    assert client.ask(name, b"NO", b"one") == OK
    assert core.verbs.asked == [
        ("follow", "10.0.0.9", 6400),
        ("follow", "10.0.0.9", 6401),
        ("promote",),
    ]


def test_replicaof_in_a_transaction_is_what_sentinel_sends(
    core: ReplicatedCore, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "kvserver.conf"
    path.write_text("replicaof 10.0.0.9 6400\n")
    core.server.config.path = str(path)
    core.become_replica(6400)
    other = core.client()
    for command in (
        (b"MULTI",),
        (b"SLAVEOF", b"NO", b"ONE"),
        (b"CONFIG", b"REWRITE"),
        (b"CLIENT", b"KILL", b"TYPE", b"normal"),
        (b"CLIENT", b"KILL", b"TYPE", b"pubsub"),
    ):
        client.call(*command)
    core.end_turn()
    client.take()
    assert client.ask(b"EXEC") == b"*4\r\n+OK\r\n+OK\r\n:1\r\n:0\r\n"
    assert core.state.role == PRIMARY
    assert other.closed
    assert "replicaof" not in path.read_text()


def test_config_knows_the_primary_and_rewrite_writes_it(
    core: ReplicatedCore, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "kvserver.conf"
    path.write_text("# mine\nmaxclients 100\n")
    core.server.config.path = str(path)
    assert client.ask(b"CONFIG", b"GET", b"replicaof") == b"*2\r\n$9\r\nreplicaof\r\n$0\r\n\r\n"
    client.ask(b"REPLICAOF", b"10.0.0.9", b"6400")
    assert b"$13\r\n10.0.0.9 6400\r\n" in client.ask(b"CONFIG", b"GET", b"slaveof")
    assert client.ask(b"CONFIG", b"REWRITE") == OK
    assert "replicaof 10.0.0.9 6400\n" in path.read_text()
    loaded = config_file.load([str(path)], lambda: "")
    assert loaded.value("replicaof") == ("10.0.0.9", 6400)
    client.ask(b"REPLICAOF", b"NO", b"ONE")
    assert client.ask(b"CONFIG", b"REWRITE") == OK
    assert "replicaof" not in path.read_text()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("replicaof 10.0.0.9 6400", ("10.0.0.9", 6400)),
        ("slaveof host 1", ("host", 1)),
        ("replicaof NO one", None),
    ],
)
def test_the_directive(line: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "kvserver.conf"
    path.write_text(line + "\n")
    assert config_file.load([str(path)], lambda: "").value("replicaof") == value


def test_the_directives_default_and_bounds(core: ReplicatedCore, client: Client) -> None:
    config = default_config()
    assert config.value("replicaof") is None
    assert b"immutable" in client.ask(b"CONFIG", b"SET", b"replicaof", b"a 1")
    refused = client.ask(b"CONFIG", b"SET", b"replica-read-only", b"no")
    assert b"physically equal" in refused
    assert client.ask(b"CONFIG", b"SET", b"slave-read-only", b"yes") == OK


@pytest.mark.parametrize("port", [b"x", b"-1", b"65536", b"", b"1.5"])
def test_a_bad_port_is_refused_as_by_redis(port: bytes, client: Client, oracle: Server) -> None:
    assert client.ask(b"REPLICAOF", b"h", port) == oracle.conn().ask("REPLICAOF", "h", port)


@pytest.mark.parametrize("host", [b"127.0.0.1", b"localhost", b"::1", b"127.1.2.3"])
def test_a_server_does_not_follow_itself(host: bytes, core: ReplicatedCore, client: Client) -> None:
    assert b"is this server" in client.ask(b"REPLICAOF", host, b"6379")
    assert client.ask(b"REPLICAOF", host, b"6380") == OK


def test_a_server_does_not_follow_itself_under_the_address_it_was_reached_at(
    core: ReplicatedCore, client: Client
) -> None:
    client.session.laddr = "10.0.0.1:6379"
    assert b"is this server" in client.ask(b"REPLICAOF", b"10.0.0.1", b"6379")
    assert client.ask(b"REPLICAOF", b"10.0.0.2", b"6379") == OK


def test_a_server_does_not_follow_its_own_replica(core: ReplicatedCore, client: Client) -> None:
    core.add_replica(7001)
    assert client.ask(b"REPLICAOF", b"127.0.0.1", b"7001") == b""
    core.run_later()  # time is up
    assert b"is a replica of this server" in client.take()
    assert core.verbs.asked == [] == core.verbs.on_ack


@pytest.mark.parametrize("change", ["promoted", "restarted"])
def test_a_replica_that_was_promoted_just_now_is_followed(
    change: str, core: ReplicatedCore, client: Client
) -> None:
    """Its link's end may come after the command."""
    replica = core.add_replica(7001)
    assert client.ask(b"REPLICAOF", b"127.0.0.1", b"7001") == b""
    core.verbs.acknowledge(replica, 0)
    assert client.take() == b""
    if change == "promoted":
        core.state.replicas.remove(replica)
    else:
        replica.state = "wait_bgsave"
    core.verbs.acknowledge(replica, 0)
    core.run_soon()
    assert client.take() == OK
    assert core.verbs.asked == [("follow", "127.0.0.1", 7001)]
    assert core.verbs.on_ack == []


def test_in_a_transaction_replicaof_does_not_wait(core: ReplicatedCore, client: Client) -> None:
    core.add_replica(7001)
    client.ask(b"MULTI")
    client.ask(b"REPLICAOF", b"127.0.0.1", b"7001")
    assert client.ask(b"EXEC") == b"*1\r\n+OK\r\n"


def test_replicaof_waits_for_the_end_of_a_failover(core: ReplicatedCore, client: Client) -> None:
    core.state.failover_state = "waiting-for-sync"
    refused = client.ask(b"REPLICAOF", b"h", b"1")
    assert refused == b"-ERR REPLICAOF not allowed while failing over.\r\n"


def test_a_monitor_can_not_give_the_server_a_primary(core: ReplicatedCore, client: Client) -> None:
    client.ask(b"MONITOR")
    refused = client.ask(b"REPLICAOF", b"h", b"1")
    assert b"-ERR Command is not valid when client is a replica.\r\n" in refused


def test_what_the_core_refuses_is_told(core: ReplicatedCore, client: Client) -> None:
    core.become_replica()
    core.verbs.refuse = error("this replica is being rewound")
    assert client.ask(b"REPLICAOF", b"NO", b"ONE") == b"-ERR this replica is being rewound\r\n"
    assert core.state.role == REPLICA


# -- FAILOVER ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "TIMEOUT x",
        "TIMEOUT 0",
        "TIMEOUT -5",
        "TIMEOUT",
        "TO h",
        "TO h x",
        "TO h 1 TO h 2",
        "FORCE FORCE",
        "ABORT",
        "ABORT TIMEOUT 5",
        "x",
        "",
        "TIMEOUT 5 TIMEOUT 6",
        "TO h 1 FORCE TIMEOUT 5",
    ],
)
def test_failover_without_replicas_as_by_redis(words: str, client: Client, oracle: Server) -> None:
    command = ["FAILOVER", *words.split()]
    assert client.ask(*(w.encode() for w in command)) == oracle.conn().ask(*command)


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (b"FORCE", b"FAILOVER with force option requires both a timeout and target HOST and IP."),
        (
            b"FORCE TO 127.0.0.1 7001",
            b"FAILOVER with force option requires both a timeout and target HOST and IP.",
        ),
        (b"TO 127.0.0.1 7009", b"FAILOVER target HOST and PORT is not a replica."),
        (b"TO 127.0.0.1 7002", b"FAILOVER target replica is not online."),
    ],
)
def test_failover_checks(words: bytes, reply: bytes, core: ReplicatedCore, client: Client) -> None:
    core.add_replica(7001)
    core.add_replica(7002, "send_bulk")
    assert client.ask(b"FAILOVER", *words.split()) == b"-ERR " + reply + b"\r\n"
    assert core.verbs.asked == []


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (b"", (None, False, 0)),
        (b"timeout 50", (None, False, 50)),
        (b"TO 127.0.0.1 7001", (("127.0.0.1", 7001), False, 0)),
        (b"force TIMEOUT 9 to 127.0.0.1 7001", (("127.0.0.1", 7001), True, 9)),
    ],
)
def test_failover_begins(
    words: bytes, asked: tuple[object, ...], core: ReplicatedCore, client: Client
) -> None:
    core.add_replica(7001)
    assert client.ask(b"FAILOVER", *words.split()) == OK
    assert core.verbs.asked == [("failover", *asked)]


def test_one_failover_at_a_time(core: ReplicatedCore, client: Client) -> None:
    core.add_replica(7001)
    core.state.failover_state = "waiting-for-sync"
    assert client.ask(b"FAILOVER") == b"-ERR FAILOVER already in progress.\r\n"
    assert core.info()["master_failover_state"] == "waiting-for-sync"
    assert client.ask(b"FAILOVER", b"abort") == OK
    assert core.verbs.asked == [("abort_failover",)]


# -- PSYNC and REPLCONF ------------------------------------------------------------------------

HISTORY = history.genesis()
REPLID = HISTORY.current.replid.encode()


def psync(*more: bytes, seq: bytes = b"7") -> tuple[bytes, ...]:
    known = HISTORY.encode().hex().encode()
    return (b"PSYNC", REPLID, seq, b"KV1", known, *(more or (b"0", b"-")))


def test_a_replica_introduces_itself_and_asks(core: ReplicatedCore, client: Client) -> None:
    client.session.addr = "10.0.0.5:50000"
    assert client.ask(b"REPLCONF", b"listening-port", b"7001", b"capa", b"eof") == OK
    assert client.ask(b"REPLCONF", b"run-id", b"a" * 40) == OK
    assert client.ask(*psync(b"18446744073709551615", b"rpf")) == b"+CONTINUE\r\n"
    request = PsyncRequest(REPLID.decode(), 7, HISTORY, (1 << 64) - 1, True, True, True, False)
    assert core.verbs.asked == [("psync", client.session.id, request)]
    replica = client.session.replica
    assert replica is not None
    assert (replica.ip, replica.port, replica.run_id) == ("10.0.0.5", 7001, b"a" * 40)


def test_an_announced_address_counts(core: ReplicatedCore, client: Client) -> None:
    assert client.ask(b"REPLCONF", b"ip-address", b"replica.example") == OK
    assert client.session.replica is not None
    assert client.session.replica.ip == "replica.example"


def test_replies_before_psync_leave_first(core: ReplicatedCore, client: Client) -> None:
    client.call(b"REPLCONF", b"listening-port", b"7001")
    client.call(*psync())
    core.end_turn()
    assert client.take() == OK + b"+CONTINUE\r\n"


def test_psync_failover(core: ReplicatedCore, client: Client) -> None:
    client.ask(*psync(b"0", b"r", b"failover"))
    _, _, request = core.verbs.asked[0]
    assert isinstance(request, PsyncRequest)
    assert request.failover and request.can_rewind and not request.may_pad


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ((b"PSYNC", b"?", b"-1"), b"only kvserver can be a replica of kvserver"),
        ((b"PSYNC", REPLID, b"1", b"KV2", b"", b"0", b"-"), b"only kvserver can be"),
        ((b"PSYNC", REPLID, b"1", b"KV1", b"00", b"0", b"-"), b"not a replication history"),
        ((b"PSYNC", REPLID, b"1", b"KV1", b"xyz", b"0", b"-"), b"PSYNC: "),
        (psync(seq=b"-1"), b"not an integer"),
        (psync(seq=b"18446744073709551616"), b"not an integer"),
        (psync(b"x", b"-"), b"not an integer"),
        (psync(b"0", b"-", b"SIDEWAYS"), b"syntax error"),
        (psync(b"0", b"-", b"FAILOVER", b"NOW"), b"only kvserver can be"),
    ],
)
def test_a_bad_psync_is_refused_in_words(
    words: tuple[bytes, ...], reply: bytes, core: ReplicatedCore, client: Client
) -> None:
    assert reply in client.ask(*words)
    assert core.verbs.asked == []
    assert client.ask(b"GET", b"a") == b"$-1\r\n"


def test_nobody_syncs_during_a_failover(core: ReplicatedCore, client: Client) -> None:
    core.state.failover_state = "failover-in-progress"
    assert client.ask(*psync()) == b"-NOMASTERLINK Can't SYNC while failing over\r\n"


def test_a_refused_psync_leaves_a_client(core: ReplicatedCore, client: Client) -> None:
    core.verbs.refuse = error("no")
    assert client.ask(*psync()) == b"-ERR no\r\n"
    assert client.ask(b"SET", b"a", b"1") == OK


def test_a_replicas_connection_is_no_client(core: ReplicatedCore, client: Client) -> None:
    client.ask(*psync())
    assert client.ask(b"GET", b"a") == b"-ERR Replica can't interact with the keyspace\r\n"
    other = core.client()
    assert b" flags=S " in other.ask(b"CLIENT", b"LIST", b"TYPE", b"replica")
    assert b"id=1 " not in other.ask(b"CLIENT", b"LIST", b"TYPE", b"normal")
    assert other.ask(b"CLIENT", b"KILL", b"TYPE", b"normal") == b":0\r\n"
    assert other.ask(b"CLIENT", b"KILL", b"TYPE", b"slave") == b":1\r\n"
    assert client.closed


def test_client_kill_type_master_ends_the_link(core: ReplicatedCore, client: Client) -> None:
    assert client.ask(b"CLIENT", b"KILL", b"TYPE", b"master") == b":0\r\n"
    core.become_replica()
    assert client.ask(b"CLIENT", b"KILL", b"SKIPME", b"no", b"TYPE", b"MASTER") == b":1\r\n"
    assert client.ask(b"CLIENT", b"KILL", b"TYPE", b"master", b"ID", b"9") == b":0\r\n"
    assert core.verbs.asked == [("end_primary_link",)]


@pytest.mark.parametrize(
    "words",
    [
        ("x",),
        ("x", "1"),
        ("a", "b", "c"),
        ("listening-port", "x"),
        ("listening-port",),
        ("ip-address", "a" * 256),
        ("ip-address", "a" * 255),
        ("capa", "eof", "capa", "psync2"),
        (),
        ("END",),
    ],
)
def test_replconf_as_by_redis(words: tuple[str, ...], client: Client, oracle: Server) -> None:
    ours = client.ask(b"REPLCONF", *(word.encode() for word in words))
    theirs = oracle.conn().ask("REPLCONF", *words)
    if words == ("END",):  # which Redis doesn't have
        assert ours == b"-ERR REPLCONF END is for replicas, after PSYNC\r\n"
    else:
        assert ours == theirs


@pytest.mark.parametrize("words", [(b"ACK", b"5"), (b"getack", b"*"), (b"ack", b"x")])
def test_some_of_replconf_is_never_answered(
    words: tuple[bytes, ...], core: ReplicatedCore, client: Client
) -> None:
    assert client.ask(b"REPLCONF", *words) == b""
    assert core.verbs.asked == []


def test_acknowledgements_reach_the_core(core: ReplicatedCore, client: Client) -> None:
    client.ask(*psync())
    core.verbs.asked.clear()
    number = client.session.id
    assert client.ask(b"REPLCONF", b"ACK", b"5", b"FACK", b"3") == b""
    assert client.ask(b"REPLCONF", b"ACK", b"6") == b""
    assert client.ask(b"REPLCONF", b"ACK", b"x") == b""
    assert core.verbs.asked == [("ack", number, 5, 3), ("ack", number, 6, 0)]


def test_requests_reach_the_core(core: ReplicatedCore, client: Client) -> None:
    client.ask(*psync())
    core.verbs.asked.clear()
    for words in ((b"HAVE", b"000012.sst", b"99"), (b"KEYS", b"0", b"a", b"b"), (b"end",)):
        assert client.ask(b"REPLCONF", *words) == b""
    assert client.ask(b"REPLCONF", b"RANGE", b"0", b"a") == b"-ERR syntax error\r\n"
    assert [words[2:] for words in core.verbs.asked] == [
        (b"HAVE", [b"000012.sst", b"99"]),
        (b"KEYS", [b"0", b"a", b"b"]),
        (b"END", []),
    ]


def test_sync_is_unknown(client: Client) -> None:
    assert client.ask(b"SYNC").startswith(b"-ERR unknown command 'SYNC'")
