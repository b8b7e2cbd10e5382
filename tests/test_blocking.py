"""Commands that wait for a key: BLPOP and its kin, compared with redis-server byte for byte.

Lists stand for all types here: how a command waits doesn't depend on what it waits for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from core import LaterCore
from harness import Conn, Server, encode_command, wait_until
from pair import Pair, parse

Command = str
FreshServer = Callable[..., Server]


def blocked_clients(server: Server) -> int:
    found: dict[str, Any] = server.client().info("clients")
    return int(found["blocked_clients"])


class Stage:
    """A server, a client that acts, and clients that wait."""

    def __init__(self, server: Server, protocol: int) -> None:
        self.server = server
        self.protocol = protocol
        self.waiting: list[Conn] = []
        self.actor = self.connect()

    def connect(self) -> Conn:
        conn = self.server.conn()
        if self.protocol == 3:
            conn.ask("HELLO", 3)
        return conn

    def wait(self, script: str) -> Conn:
        """A new client whose last command waits."""
        conn = self.connect()
        commands = parse(script)
        for command in commands[:-1]:
            conn.ask(*command)
        conn.send(encode_command(*commands[-1]))
        self.waiting.append(conn)
        wait_until(lambda: blocked_clients(self.server) == len(self.waiting), what=script)
        return conn

    def act(self, script: str) -> list[bytes]:
        return [self.actor.ask(*command) for command in parse(script)]

    def replies(self) -> list[bytes]:
        """What those who waited were told, and that nobody waits any more."""
        found = [conn.reply() for conn in self.waiting]
        wait_until(lambda: blocked_clients(self.server) == 0, what="nobody waits")
        self.waiting.clear()
        return found


class Stages:
    """The same on kvserver and on redis-server."""

    def __init__(self, pair: Pair) -> None:
        self.both = [Stage(server, pair.protocol) for server in pair.servers]

    def same(self, waiting: Iterable[str], script: str) -> list[bytes]:
        """Let clients wait, one after the other, each with its commands, then act: all replies are
        equal. Returns those of the clients that waited."""
        outcomes = []
        for stage in self.both:
            for commands in waiting:
                stage.wait(commands)
            outcomes.append((stage.act(script), stage.replies()))
        assert outcomes[0] == outcomes[1]
        return outcomes[0][1]


@pytest.fixture
def stages(pair: Pair) -> Stages:
    return Stages(pair)


# -- who is served, and with what ----------------------------------------------------------------


def test_each_command(stages: Stages) -> None:
    for command in [
        *("BLPOP l 0", "BRPOP l 0", "BLPOP other l 0", "BLPOP l l 0", "BRPOP l other 10"),
        *("BLMOVE l to LEFT RIGHT 0", "BLMOVE l l RIGHT LEFT 0", "BRPOPLPUSH l to 0"),
        *("BLMPOP 0 1 l LEFT", "BLMPOP 0 2 other l RIGHT COUNT 2", "BLMPOP 9.5 1 l LEFT COUNT 10"),
    ]:
        stages.same([command], "RPUSH l a b c\nLRANGE l 0 -1\nLRANGE to 0 -1\nDEL l to\n")


def test_one_push_serves_several_in_the_order_of_arrival(stages: Stages) -> None:
    several = ["BLPOP l 0", "BRPOP l 0", "BLPOP x l 0", "BLMPOP 0 1 l LEFT COUNT 2"]
    found = stages.same(several, "RPUSH l 1 2 3 4 5 6\nLRANGE l 0 -1\n")
    assert [reply.count(b"$1") for reply in found] == [2, 2, 2, 3]
    stages.same(["BLPOP m 0", "BLPOP m 0", "BLPOP m 0"], "LPUSH m 1\nLPUSH m 2 3\nEXISTS m\n")


def test_order_of_arrival_is_kept_over_several_keys(stages: Stages) -> None:
    stages.same(["BLPOP a b 0", "BLPOP b a 0", "BLPOP b 0"], "RPUSH b 1\nRPUSH a 2\nRPUSH b 3\n")


def test_a_command_that_waited_looks_at_all_its_keys(server: Server) -> None:
    """As Redis 7.2 and later, where it is executed again; 7.0 gave it the key that was ready."""
    stage = Stage(server, 2)
    conns = [stage.wait("BLPOP a b 0"), stage.wait("BLPOP b a 0")]
    stage.act("MULTI\nRPUSH b 1\nRPUSH a 2\nEXEC\n")
    replies = [conn.reply() for conn in conns]
    assert replies == [b"*2\r\n$1\r\na\r\n$1\r\n2\r\n", b"*2\r\n$1\r\nb\r\n$1\r\n1\r\n"]


def test_chains(stages: Stages) -> None:
    waiting = ["BLMOVE a b LEFT RIGHT 0", "BLMOVE b c LEFT RIGHT 0", "BLPOP c 0"]
    stages.same(waiting, "RPUSH a x\nEXISTS a b c\n")
    waiting = ["BRPOPLPUSH a a 0", "BLPOP a 0"]
    stages.same(waiting, "RPUSH a x\nEXISTS a\n")
    stages.same(["BLMOVE a b LEFT LEFT 0", "BLMOVE b a LEFT LEFT 0"], "RPUSH a x\nLRANGE a 0 -1\n")


def test_transactions_are_seen_as_a_whole(stages: Stages) -> None:
    stages.same(["BLPOP l 0"], "MULTI\nLPUSH l a\nLPUSH l b\nLPUSH l c\nEXEC\nLRANGE l 0 -1\n")
    stages.same(
        ["BLPOP gone 0"],
        "MULTI\nRPUSH gone a\nLPOP gone\nEXEC\nMULTI\nRPUSH gone a\nDEL gone\nEXEC\nRPUSH gone b\n",
    )
    stages.same(["BLPOP l2 0"], "MULTI\nRPUSH l2 a\nRENAME l2 l3\nEXEC\nRPUSH l2 x\nLLEN l3\n")


def test_nothing_waits_in_a_transaction(pair: Pair) -> None:
    pair.same(
        "MULTI\nBLPOP l 0\nBRPOP l 1\nBLMOVE l m LEFT LEFT 0\nBRPOPLPUSH l m 0\nBLMPOP 0 1 l LEFT\n"
        "RPUSH l a\nBLPOP l 0\nEXEC\n"
    )


def test_nothing_waits_in_once(client: redis.Redis) -> None:
    writer = f"waits {client.client_id()}"
    for n, reply in enumerate([None, None], 1):
        assert client.execute_command("ONCE", writer, n, "BLPOP", "l", 0) == reply
    client.rpush("l", "a")
    for _ in range(2):
        assert client.execute_command("ONCE", writer, 3, "BLPOP", "l", 0) == [b"l", b"a"]
    assert client.exists("l") == 0


def test_a_key_of_another_type_is_waited_out(stages: Stages) -> None:
    stages.same(["BLPOP k 0"], "SET k v\nSADD k x\nDEL k\nSADD k x\nDEL k\nRPUSH k a\nEXISTS k\n")
    stages.same(["BLMOVE k to LEFT LEFT 0"], "SET to v\nRPUSH k a\nLRANGE k 0 -1\nDEL k to\n")
    stages.same(["BLPOP none k 0"], "MULTI\nRPUSH k a\nDEL k\nSET k v\nEXEC\nDEL k\nRPUSH k b\n")


def test_a_wrong_destination_doesnt_hold_up_others(stages: Stages) -> None:
    waiting = ["BLMOVE k to LEFT LEFT 0", "BLPOP k 0", "BRPOPLPUSH k other 0"]
    stages.same(waiting, "SET to v\nRPUSH k a b\nLRANGE other 0 -1\nEXISTS k\n")


@pytest.mark.parametrize(
    "script",
    [
        "RPUSH s a b\nRENAME s l\n",
        "RPUSH s a b\nRENAMENX s l\n",
        "RPUSH s a b\nCOPY s l\n",
        "SELECT 1\nRPUSH l a b\nMOVE l 0\nSELECT 0\n",
        "SELECT 1\nRPUSH l a b\nSELECT 0\nSWAPDB 0 1\n",
        "SELECT 1\nRPUSH s a b\nCOPY s l DB 0\nSELECT 0\n",
        "RPUSH s a b\nLMOVE s l LEFT LEFT\n",
        "RPUSH s a b\nRPOPLPUSH s l\n",
        "RPUSH s b a\nSORT s ALPHA STORE l\n",
        "FLUSHALL\nRPUSH l a b\n",
        "RPUSHX l a\nLPUSHX l a\nRPUSH l a b\n",
        "SET l v\nEXPIRE l 0\nRPUSH l a\n",
    ],
)
def test_whatever_makes_a_list(stages: Stages, script: str) -> None:
    stages.same(["BLPOP l 0"], script + "LRANGE l 0 -1\nLRANGE s 0 -1\nDEL l s\n")


def test_a_restored_list(stages: Stages) -> None:
    source = stages.both[1].actor
    source.ask("RPUSH", "s", "a", "b")
    dumped = source.ask("DUMP", "s").partition(b"\r\n")[2][:-2]
    source.ask("DEL", "s")
    if b"unknown command" in stages.both[0].actor.ask("RESTORE"):
        pytest.skip("there is no RESTORE yet")
    replies = []
    for stage in stages.both:
        stage.wait("BLPOP l 0")
        replies.append((stage.actor.ask("RESTORE", "l", 0, dumped), stage.replies()))
    assert replies[0] == replies[1]


def test_databases_are_told_apart(stages: Stages) -> None:
    waiting = ["SELECT 1\nBLPOP l 0", "BLPOP l 0"]
    stages.same(waiting, "RPUSH l zero\nSELECT 1\nRPUSH l one\nSELECT 0\n")


def test_what_follows_in_the_pipeline_waits_as_well(stages: Stages) -> None:
    for stage in stages.both:
        conn = stage.wait("BLPOP l 0")
        conn.send(encode_command("SET", "after", 1) + encode_command("GET", "after"))
        assert stage.act("GET after\nRPUSH l a\n")[0] in (b"$-1\r\n", b"_\r\n")
        assert b"$1\r\na\r\n" in conn.reply()
        assert (conn.reply(), conn.reply()) == (b"+OK\r\n", b"$1\r\n1\r\n")


def test_events(pair: Pair, stages: Stages) -> None:
    pair.same("CONFIG SET notify-keyspace-events KEA")
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.ask("PSUBSCRIBE", "__key*")
    stages.same(["BLMOVE a b LEFT LEFT 0", "BLPOP a 0"], "RPUSH a 1 2\nPUBLISH __key end\n")
    heard = []
    for conn in listeners:
        heard.append([])
        while b"$3\r\nend\r\n" not in (message := conn.reply()):
            heard[-1].append(message)
    assert heard[0] == heard[1]


# -- time-outs -----------------------------------------------------------------------------------


def test_timeouts(pair: Pair) -> None:
    pair.same("BLPOP l 0.01\nBRPOP l m 0.001\nBLMOVE l m LEFT LEFT 0.01\nBRPOPLPUSH l m 1e-9\n")
    pair.same("BLMPOP 0.02 2 l m LEFT COUNT 3\nBLPOP l 0x.01\n")


def test_refused_timeouts(pair: Pair) -> None:
    for text in ("x", "-1", "-0.1", "-inf", "nan", " 1", "1 ", "", "1e5000"):
        pair.same([("BLPOP", "l", text), ("BLMPOP", text, 1, "l", "LEFT")])
        pair.same([("BLMOVE", "l", "m", "LEFT", "LEFT", text), ("BRPOPLPUSH", "l", "m", text)])
    pair.same("BLMOVE l m X LEFT x\nBLMPOP x 0 l LEFT\nBLMPOP x 1 l X\nBLPOP l\nBLMPOP 0 1 l\n")


def test_timeouts_that_are_too_long(client: redis.Redis) -> None:
    """7.4's words; 7.0 called them negative."""
    for text in ("inf", "1e400", "9223372036854775807", "9223372036854775"):
        with pytest.raises(redis.ResponseError, match="timeout is out of range"):
            client.execute_command("BLPOP", "l", text)


def test_a_timeout_is_kept_to(server: Server) -> None:
    conn = server.conn()
    before = time.monotonic()
    assert conn.ask("BLPOP", "l", "0.3") == b"*-1\r\n"
    assert time.monotonic() - before >= 0.3
    assert conn.ask("PING") == b"+PONG\r\n"


def test_the_longest_timeout(server: Server) -> None:
    stage = Stage(server, 2)
    stage.wait("BLPOP l 9000000000000000")
    stage.act("RPUSH l a\n")
    assert stage.replies() == [b"*2\r\n$1\r\nl\r\n$1\r\na\r\n"]


def test_who_was_passed_over_keeps_its_timeout(stages: Stages) -> None:
    """A key that changes without being ready doesn't begin the time anew."""
    for stage in stages.both:
        conn = stage.wait("BLPOP l 0.2")
        stage.act("SET l v\n")
        assert conn.reply() in (b"*-1\r\n", b"_\r\n")
        stage.waiting.clear()


# -- ends by other means -------------------------------------------------------------------------


def test_unblocking(stages: Stages) -> None:
    for how in ("", "TIMEOUT", "ERROR", "timeout"):
        for command in ("BLPOP l 0", "BLMOVE l m LEFT LEFT 0", "BLMPOP 0 1 l LEFT"):
            outcomes = []
            for stage in stages.both:
                conn = stage.connect()
                number = int(conn.ask("CLIENT", "ID")[1:])
                conn.send(encode_command(*command.split()))
                stage.waiting.append(conn)
                wait_until(lambda s=stage: blocked_clients(s.server) == 1)
                told = stage.act(f"CLIENT UNBLOCK {number} {how}")
                outcomes.append((told, stage.replies(), stage.act(f"CLIENT UNBLOCK {number}")))
                assert conn.ask("PING") == b"+PONG\r\n"
            assert outcomes[0] == outcomes[1]


def test_who_hung_up_gets_nothing(stages: Stages) -> None:
    for stage in stages.both:
        gone, stays = stage.wait("BLPOP l 0"), stage.wait("BLPOP l 0")
        gone.close()
        stage.waiting.remove(gone)
        wait_until(lambda s=stage: blocked_clients(s.server) == 1)
        stage.act("RPUSH l a\n")
        assert b"$1\r\na\r\n" in stays.reply()
        stage.waiting.clear()
        assert stage.act("EXISTS l") == [b":0\r\n"]


def test_who_is_killed_gets_nothing(server: Server) -> None:
    stage = Stage(server, 2)
    conn = stage.connect()
    number = int(conn.ask("CLIENT", "ID")[1:])
    conn.send(encode_command("BLPOP", "l", 0))
    wait_until(lambda: blocked_clients(server) == 1)
    assert stage.act(f"CLIENT KILL ID {number}\nRPUSH l a\nLLEN l\n")[-1] == b":1\r\n"
    assert conn.read_to_end() == b""
    assert blocked_clients(server) == 0


def test_a_pause_holds_back(server: Server) -> None:
    stage = Stage(server, 2)
    first, second = stage.wait("BLPOP l 0"), stage.wait("BLPOP l 0")
    pusher = stage.connect()
    stage.act("CLIENT PAUSE 100000 WRITE\n")
    pusher.send(encode_command("RPUSH", "l", "a", "b"))
    wait_until(lambda: blocked_clients(server) == 3)
    stage.act("CLIENT UNPAUSE\n")
    assert pusher.reply() == b":2\r\n"
    assert [conn.reply()[-3:] for conn in (first, second)] == [b"a\r\n", b"b\r\n"]


def test_a_push_and_a_pause_in_one_transaction(server: Server) -> None:
    """The list is there, and those who wait for it are paused."""
    stage = Stage(server, 2)
    conn = stage.wait("BLPOP l 0")
    stage.act("MULTI\nRPUSH l a\nCLIENT PAUSE 100000 WRITE\nEXEC\n")
    assert stage.act("LLEN l\n") == [b":1\r\n"]
    assert blocked_clients(server) == 1
    stage.act("CLIENT UNPAUSE\n")
    assert conn.reply() == b"*2\r\n$1\r\nl\r\n$1\r\na\r\n"


def test_a_replica_sends_them_away(fresh_server: FreshServer, stages: Stages) -> None:
    outcomes = []
    for stage in (Stage(fresh_server(), 2), stages.both[1]):
        conn = stage.connect() if stage.protocol == 2 else stage.server.conn()
        conn.send(encode_command("BLPOP", "l", 0))
        wait_until(lambda s=stage: blocked_clients(s.server) == 1)
        stage.act("REPLICAOF 127.0.0.1 1\n")
        outcomes.append(conn.read_to_end())
        stage.act("REPLICAOF NO ONE\n")
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].startswith(b"-UNBLOCKED")


def test_a_permission_that_was_taken_meanwhile(server: Server) -> None:
    """As Redis 7.2 and later, which check anew."""
    stage = Stage(server, 2)
    stage.act("ACL SETUSER bob on nopass +@all ~*\n")
    conn = stage.wait("AUTH bob x\nBLPOP l 0")
    stage.act("ACL SETUSER bob -blpop\nRPUSH l a\n")
    assert conn.reply().startswith(b"-NOPERM")
    assert stage.act("LLEN l\nACL DELUSER bob\n")[0] == b":1\r\n"


# -- when writing fails --------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[LaterCore]:
    with LaterCore(tmp_path / "db") as core:
        yield core


def test_who_was_served_by_a_batch_that_fails_is_told(core: LaterCore) -> None:
    """Nothing of it happened: neither the push nor the pop."""
    waiting, other, pusher = core.client(), core.client(), core.client()
    assert waiting.ask(b"BLPOP", b"l", b"0") == b""
    assert other.ask(b"BLPOP", b"l", b"0") == b""
    core.fail_writes()
    assert pusher.ask(b"RPUSH", b"l", b"a").startswith(b"-MISCONF")
    assert waiting.take().startswith(b"-MISCONF")
    assert other.take() == b""
    assert pusher.ask(b"LLEN", b"l") == b":0\r\n"
    del core.engine.write
    assert pusher.ask(b"RPUSH", b"l", b"a") == b":1\r\n"
    assert other.take() == b"*2\r\n$1\r\nl\r\n$1\r\na\r\n"


def test_push_and_pop_are_positions_of_their_own(core: LaterCore) -> None:
    waiting, pusher = core.client(), core.client()
    waiting.ask(b"BLPOP", b"l", b"0")
    before = core.log.last_seq
    pusher.ask(b"RPUSH", b"l", b"a", b"b")
    assert core.log.last_seq == before + 2
    assert (pusher.session.written_seq, waiting.session.written_seq) == (before + 1, before + 2)


def test_a_key_that_changes_in_vain_takes_no_position(core: LaterCore) -> None:
    waiting, writer = core.client(), core.client()
    waiting.ask(b"BLPOP", b"l", b"0")
    before = core.log.last_seq
    writer.ask(b"SET", b"l", b"v")
    assert core.log.last_seq == before + 1
    core.run_later()
    assert (core.log.last_seq, waiting.take()) == (before + 1, b"")


# -- what is told of them ------------------------------------------------------------------------


def test_info(server: Server) -> None:
    stage = Stage(server, 2)

    def told() -> tuple[int, ...]:
        found: dict[str, Any] = server.client().info("clients")
        names = "blocked_clients total_blocking_keys clients_in_timeout_table"
        return tuple(found[name] for name in names.split())

    assert told() == (0, 0, 0)
    stage.wait("BLPOP a b 0")
    stage.wait("BLPOP b c 100")
    assert told() == (2, 3, 1)
    clients = server.client().client_list()
    assert sorted(c["flags"] for c in clients if c["cmd"] == "blpop") == ["b", "b"]
    stage.act("RPUSH b 1 2\n")
    stage.replies()
    assert told() == (0, 0, 0)
    stats = server.client().info("commandstats")
    assert stats["cmdstat_blpop"]["calls"] == 2


def test_monitor_shows_the_command_once(server: Server) -> None:
    stage = Stage(server, 2)
    monitor = server.conn()
    monitor.ask("MONITOR")
    stage.wait("BLPOP watched 0")
    stage.act("RPUSH watched a\n")
    stage.replies()
    stage.act("ECHO end\n")
    lines = []
    while b'"end"' not in (line := monitor.read_line()):
        lines.append(line)
    assert sum(b'"BLPOP" "watched"' in line for line in lines) == 1
