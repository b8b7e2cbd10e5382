"""ONCE: positions and batches, what is kept, when it is forgotten, and what others see of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from core import Core
from faulty_core import MISCONF, OK, Node, bulk, run
from faulty_core import node as node
from harness import Server, encode_command, wait_until
from once import kept, out_of_order
from once import w as w
from replies import Command, play, transcript

from kvserver import errors
from kvserver.codec import WRITER_KEY, WRITER_REPLY_KEY
from kvserver.keyspace import Keyspace
from kvserver.state import writers
from kvserver.state.admission import PAUSED
from kvserver.state.server import Server as Parts
from kvserver.state.writers import Forgetting, count_committed

# -- positions and batches -------------------------------------------------------------------------


@pytest.mark.parametrize("as_transactions", [False, True])
def test_what_changes_nothing_takes_a_position(tmp_path: Path, as_transactions: bool) -> None:
    """Ten batches of four deletes of missing keys: ten positions, and nothing but the writer's
    row and the stamp in each."""
    with Core(tmp_path / "db") as core:
        client = core.client()
        client.ask(b"ONCE", b"w", b"1", b"DEL", b"x")
        position, records = core.log.committed_seq, core.engine.rocksdb_sequence()
        for n in range(2, 12):
            number = b"%d" % n
            keys = [b"k%d" % key for key in range(4)]
            if as_transactions:
                for words in ((b"MULTI",), *((b"DEL", key) for key in keys)):
                    client.call(*words)
                client.call(b"ONCE", b"w", number, b"EXEC")
            else:
                client.call(b"ONCE", b"w", number, b"DEL", *keys)
            core.end_turn()
        assert core.log.committed_seq == position + 10
        assert core.engine.rocksdb_sequence() == records + 20
        client.take()
        assert client.ask(b"ONCE", b"w", b"13", b"DEL", b"x") == out_of_order(12)


def test_a_repetition_takes_no_position(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        client.ask(b"ONCE", b"w", b"1", b"INCR", b"a")
        position = core.log.last_seq
        client.ask(b"ONCE", b"w", b"1", b"INCR", b"a")
        client.ask(b"ONCE", b"w", b"3", b"INCR", b"a")
        assert core.log.last_seq == position
        # WAIT waits for the first execution all the same.
        other = core.client()
        other.ask(b"ONCE", b"w", b"1", b"INCR", b"a")
        assert other.session.written_seq == position


def test_a_failed_commit_takes_everything_back(node: Node) -> None:
    client, other = node.client(), node.client()
    run(client, "ONCE", "w", "1", "INCR", "a")
    node.end()
    assert client.take() == b":1\r\n"
    node.fail()
    for n in ("2", "3"):
        run(client, "ONCE", "w", n, "INCR", "a")
    run(other, "ONCE", "w", "2", "INCR", "a")
    run(other, "ONCE", "new", "1", "SET", "b", "x")
    node.end()
    assert (client.take(), other.take()) == (MISCONF * 2, MISCONF * 2)
    node.dispatcher.lower_gate(node.dispatcher.gate)
    run(client, "ONCE", "w", "3", "INCR", "a")
    run(client, "ONCE", "w", "2", "INCR", "a")
    run(client, "ONCE", "new", "2", "GET", "b")
    node.end()
    assert client.take() == out_of_order(2) + b":2\r\n" + out_of_order(1)
    assert count_committed(node.log) == 1


def test_a_command_that_fails_unexpectedly_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        entry = core.server.table.entries[b"incr"]
        incr = entry.handler

        def broken(*args: Any) -> None:
            incr(*args)
            raise RuntimeError("a defect")

        for words in ((b"INCR", b"a"), (b"EXEC",)):
            entry.handler = broken
            if words == (b"EXEC",):
                client.call(b"MULTI")
                client.call(b"INCR", b"a")
                core.end_turn()
                client.take()
            assert client.ask(b"ONCE", b"w", b"1", *words) == b"-ERR internal error\r\n"
            entry.handler = incr
            assert core.log.last_seq == 0
        assert client.ask(b"ONCE", b"w", b"1", b"INCR", b"a") == b":1\r\n"


def test_a_message_goes_with_its_commit(node: Node) -> None:
    client, listener = node.client(), node.client(resp3=True)
    run(listener, "SUBSCRIBE", "c")
    node.end()
    listener.take()
    node.fail()
    run(client, "ONCE", "w", "1", "PUBLISH", "c", "x")
    node.end()
    assert (client.take(), listener.take()) == (MISCONF, b"")
    node.dispatcher.lower_gate(node.dispatcher.gate)
    for _ in range(2):
        run(client, "ONCE", "w", "1", "PUBLISH", "c", "x")
    node.end()
    assert client.take() == b":1\r\n" * 2
    assert listener.take() == b">3\r\n" + bulk(b"message") + bulk(b"c") + bulk(b"x")


def test_a_repetition_waits_for_the_fsync_of_the_first(node: Node) -> None:
    node.log.set_wait_for_sync(True)
    client, other = node.client(), node.client()
    run(client, "ONCE", "w", "1", "INCR", "a")
    node.end()
    run(other, "ONCE", "w", "1", "INCR", "a")
    node.end()
    assert (client.take(), other.take()) == (b"", b"")
    node.sync()()
    assert (client.take(), other.take()) == (b":1\r\n", b":1\r\n")


def test_a_repetition_after_noreplicas_waits_for_the_quorum(node: Node) -> None:
    node.log.set_quorum(1)
    client = node.client()
    run(client, "ONCE", "w", "1", "INCR", "a")
    node.end()
    node.turn.fail_unreleased(1, errors.no_replicas())
    node.log.give_up(1)
    node.turn.released()
    assert client.take().startswith(b"-NOREPLICAS")
    run(client, "ONCE", "w", "1", "INCR", "a")
    node.end()
    assert client.take() == b""
    node.log.acknowledged(node.log.committed_seq)
    node.turn.released()
    assert client.take() == b":1\r\n"
    before = node.log.last_seq
    run(client, "ONCE", "w", "1", "INCR", "a")
    node.end()
    assert (client.take(), node.log.last_seq) == (b":1\r\n", before)


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", ["one", "each"])
def test_long_replies_have_rows_of_their_own(tmp_path: Path, turns: str) -> None:
    long, longer = b"x" * 1000, b"y" * 2000
    with Core(tmp_path / "db") as core:
        client = core.client()

        def once(n: int, *words: bytes) -> None:
            client.call(b"ONCE", b"w", b"%d" % n, *words)
            if turns == "each":
                core.end_turn()

        for n in range(1, 9):
            once(n, b"GETSET", b"a", longer if n % 2 else long)
        core.end_turn()
        client.take()
        assert len(kept(core.log, WRITER_REPLY_KEY)) == 5
        replies = [client.ask(b"ONCE", b"w", b"%d" % n, b"GET", b"b") for n in range(4, 9)]
        assert replies == [bulk(v) for v in (longer, long, longer, long, longer)]
        for n in range(9, 14):
            once(n, b"DEL", b"a")
        core.end_turn()
        assert kept(core.log, WRITER_REPLY_KEY) == {}
        client.take()
        assert client.ask(b"ONCE", b"w", b"9", b"DEL", b"a") == b":1\r\n"


def test_flushall_does_not_concern_the_writers(server: Server, w: str) -> None:
    calls: list[Command] = [("ONCE", w, 1, "INCR", "a"), ("FLUSHALL",)] * 2
    assert transcript(server, calls) == [b":1\r\n", OK] * 2


def test_a_restart_knows_them(fresh_server: FreshServer) -> None:
    server = fresh_server()
    calls: list[Command] = [("ONCE", "w", n, "INCR", "a") for n in (1, 2)]
    replies = transcript(server, calls)
    server.restart()
    assert transcript(server, calls) == replies
    assert transcript(server, [("GET", "a")]) == [bulk(b"2")]
    assert server.client().info("persistence")["exactly_once_writers"] == 1


# -- forgetting ------------------------------------------------------------------------------------


def test_silent_writers_are_forgotten(fresh_server: FreshServer) -> None:
    server = fresh_server()
    client = server.client()

    def count() -> int:
        return int(client.info("persistence")["exactly_once_writers"])

    for number in range(200):
        client.execute_command("ONCE", f"w{number}", 1, "SET", f"key{number}", "x" * 300, "GET")
        client.execute_command("ONCE", f"w{number}", 2, "GET", f"key{number}")
    assert count() == 200
    client.config_set("writer-id-expiration", 1)
    wait_until(lambda: count() == 0, what="all writers are forgotten")
    with pytest.raises(redis.ResponseError, match="OUTOFORDER expected 1"):
        client.execute_command("ONCE", "w0", 3, "GET", "a")
    server.terminate()
    with Core(server.directory / "db") as core:
        assert kept(core.log, WRITER_REPLY_KEY) == {}
        assert kept(core.log, WRITER_KEY) == {WRITER_KEY: bytes(8)}


def forget(parts: Parts, lifetime_ms: int, budget_ns: int = 1_000_000_000) -> tuple[int, int]:
    """Walk over all writers as the cron does: (steps, positions)."""
    forgetting, before = Forgetting(parts.keyspace), parts.log.last_seq
    forgetting._ended = time.monotonic() - 10_000  # the rest after the last walk is over
    steps = 1
    while forgetting.cycle(lifetime_ms, budget_ns):
        steps += 1
        parts.turn.end()
    parts.turn.end()
    return steps, parts.log.last_seq - before


def seen_at(keyspace: Keyspace, ms: int) -> None:
    keyspace.now = ms


def test_the_walk_goes_on_where_it_was(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        for number in range(300):
            seen_at(core.server.keyspace, 1000 if number % 3 else 5000)
            client.call(b"ONCE", b"w%03d" % number, b"1", b"DEL", b"x")
        core.end_turn()
        core.server.keyspace.now = 6000
        assert forget(core.server, 0) == (1, 0)
        assert forget(core.server, 5001) == (1, 0)
        core.dispatcher.raise_gate(PAUSED)
        assert forget(core.server, 1) == (1, 0)
        core.dispatcher.lower_gate(PAUSED)
        steps, positions = forget(core.server, 1001, budget_ns=0)
        assert steps == 5  # 300 by 64
        assert positions == 5
        assert count_committed(core.log) == 100
        assert len(kept(core.log, WRITER_KEY)) == 101
        client.take()
        assert client.ask(b"ONCE", b"w001", b"2", b"DEL", b"x") == out_of_order(1)
        assert client.ask(b"ONCE", b"w000", b"2", b"DEL", b"x") == b":0\r\n"


def test_the_walk_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(writers.time, "monotonic", lambda: clock)
    with Core(tmp_path / "db") as core:
        forgetting = Forgetting(core.server.keyspace)
        for lifetime, rest in ((1, 1), (1000, 10), (10_000_000, 3600)):
            core.client().ask(b"ONCE", b"%d" % lifetime, b"1", b"DEL", b"x")
            core.server.keyspace.now += lifetime * 1000
            clock += rest - 0.5
            forgetting.cycle(lifetime * 1000, 1_000_000_000)
            core.end_turn()
            assert count_committed(core.log) == 1
            clock += 1
            forgetting.cycle(lifetime * 1000, 1_000_000_000)
            core.end_turn()
            assert count_committed(core.log) == 0


# -- what others see -------------------------------------------------------------------------------


def test_statistics_count_both_commands(server: Server, w: str) -> None:
    calls: list[Command] = [("ONCE", w, 1, "SET", "a", "x"), ("ONCE", w, 2, "INCR", "a")]
    client = server.client()
    before = client.info("errorstats")  # redis-py asks for what isn't there when it connects
    transcript(server, [*calls, calls[1], ("ONCE", w, 9, "GET", "a")])
    info = client.info("commandstats")
    figures = {name: info[f"cmdstat_{name}"] for name in ("once", "set", "incr")}
    assert {name: (f["calls"], f["failed_calls"]) for name, f in figures.items()} == {
        "once": (4, 1),
        "set": (1, 0),
        "incr": (1, 1),
    }
    assert "cmdstat_get" not in info
    after = client.info("errorstats")
    assert after["errorstat_OUTOFORDER"] == {"count": 1}
    assert after["errorstat_ERR"]["count"] == before["errorstat_ERR"]["count"] + 1


def test_monitor_shows_what_is_executed(server: Server, w: str) -> None:
    scene: list[Command] = [
        ("watcher", "MONITOR"),
        *[("writer", "ONCE", w, 1, "SET", "a", "1")] * 2,
        ("watcher", "QUIT"),
    ]
    with server.conn() as watcher, server.conn() as writer:
        watcher.ask("MONITOR")
        for _, *words in scene[1:3]:
            writer.ask(*words)
        writer.ask("PING")
        lines = [watcher.read_line().split(b"] ")[1] for _ in range(2)]
    assert lines == [b'"SET" "a" "1"\r\n', b'"PING"\r\n']


def test_client_list_names_it(server: Server, w: str) -> None:
    client = server.client(single_connection_client=True)
    client.execute_command("ONCE", w, 1, "INCR", "a")
    admin = server.client()
    assert "once" in [entry["cmd"] for entry in admin.client_list()]


def test_getkeys(server: Server, w: str) -> None:
    asked = [
        ("COMMAND", "GETKEYS", "ONCE", w, "1", "MSET", "a", "1", "b", "2"),
        ("COMMAND", "GETKEYS", "ONCE", w, "1", "object", "encoding", "a"),
        ("COMMAND", "GETKEYS", "ONCE", w, "1", "EXEC"),
        ("COMMAND", "GETKEYS", "ONCE", w, "1", "NOPE", "a"),
        ("COMMAND", "GETKEYS", "ONCE", w, "1", "GET"),
    ]
    none = b"*0\r\n"
    two = b"*2\r\n" + bulk(b"a") + bulk(b"b")
    assert transcript(server, asked) == [two, b"*1\r\n" + bulk(b"a"), none, none, none]


def test_it_waits_while_writes_are_paused(server: Server, w: str) -> None:
    replies = play(
        server,
        [
            ("admin", "CLIENT", "PAUSE", "60000", "WRITE"),
            ("reader", "GET", "a"),
        ],
    )
    assert replies["reader"][-1] == b"$-1\r\n"
    with server.conn() as writer, server.conn() as admin:
        writer.send(encode_command("ONCE", w, 1, "INCR", "a"))
        wait_until(lambda: b"cmd=once" in admin.ask("CLIENT", "LIST"))
        assert admin.ask("GET", "a") == b"$-1\r\n"
        admin.ask("CLIENT", "UNPAUSE")
        assert writer.reply() == b":1\r\n"
