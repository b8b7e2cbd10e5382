"""ONCE: what is answered, what counts as a reply, what is kept and when it is forgotten.

What survives a crash, and docs/exactly-once.md's recipe, are in test_once_crash.py.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from core import Core
from faulty_core import MISCONF, OK, Node, bulk, run
from faulty_core import node as node
from harness import Server, encode_command, wait_until
from replies import Command, play, transcript

from kvserver import errors
from kvserver.codec import WRITER_KEY, WRITER_REPLY_KEY, prefix_end
from kvserver.commands.once import MAX_READ
from kvserver.keyspace import Keyspace
from kvserver.state import writers
from kvserver.state.admission import PAUSED
from kvserver.state.server import Server as Parts
from kvserver.state.writers import Forgetting, count_committed
from kvserver.storage.commitlog import CommitLog


@pytest.fixture
def w() -> str:
    """The id of a writer that a server, which tests share, hasn't seen yet."""
    return uuid.uuid4().hex


def out_of_order(expected: int) -> bytes:
    return b"-OUTOFORDER expected %d\r\n" % expected


# -- what it answers -----------------------------------------------------------------------------


def test_executes_the_next_and_repeats_the_last_five(client: redis.Redis, w: str) -> None:
    def once(n: int) -> Any:
        return client.execute_command("ONCE", w, n, "INCR", "a")

    for n in range(1, 9):
        assert once(n) == n
        for back in range(max(n - 4, 1), n + 1):
            assert once(back) == back
        for refused in {n + 2, n + 100, 1 << 62} | ({n - 5} if n > 5 else set()):
            with pytest.raises(redis.ResponseError, match=f"^OUTOFORDER expected {n + 1}$"):
                once(refused)
    assert client.get("a") == b"8"


def test_a_new_writer_begins_with_one(server: Server, w: str) -> None:
    calls: list[Command] = [("ONCE", w, n, "INCR", "a") for n in (2, 7, 1)]
    assert transcript(server, calls) == [out_of_order(1), out_of_order(1), b":1\r\n"]


def test_writers_are_independent(server: Server, w: str) -> None:
    ids = [w + "x", w + "y", w + "x", w + "xy", w + "\0"]
    calls: list[Command] = [("ONCE", name, 1, "INCR", "a") for name in ids]
    numbers = [1, 2, 1, 3, 4]
    assert transcript(server, calls) == [b":%d\r\n" % number for number in numbers]


@pytest.mark.parametrize("n", ["0", "-1", "x", "", "1.0", "01", str(1 << 63)])
def test_numbers_are_positive_and_of_64_bits(server: Server, w: str, n: str) -> None:
    (reply,) = transcript(server, [("ONCE", w, n, "INCR", "a")])
    assert reply in (
        b"-ERR n must be positive\r\n",
        b"-ERR value is not an integer or out of range\r\n",
    )


def test_writer_ids_have_1_to_512_bytes(server: Server, w: str) -> None:
    ids = ("", w.ljust(513), w.ljust(512))
    calls: list[Command] = [("ONCE", name, 1, "INCR", "a") for name in ids]
    refused = b"-ERR writer id must have 1 to 512 bytes\r\n"
    assert transcript(server, calls) == [refused, refused, b":1\r\n"]


#: Commands whose replies are of every kind, with what must be there before.
REPLIES: list[Command] = [
    ("SET", "new", "1"),
    ("SET", "text", "x", "NX"),
    ("INCR", "text"),
    ("INCRBYFLOAT", "number", "0.5"),
    ("GET", "text"),
    ("GETDEL", "text"),
    ("GETDEL", "none"),
    ("MGET", "text", "none"),
    ("DEL", "none", "none2"),
    ("LCS", "text", "text2", "IDX"),
    ("KEYS", "te*"),
    ("SCAN", "0", "COUNT", "100"),
    ("OBJECT", "ENCODING", "number"),
    ("object", "encoding", "none"),
    ("PUBLISH", "nobody", "x"),
    ("SET", "a"),
    ("SET", "a", "1", "WRONG"),
]


@pytest.mark.parametrize("words", REPLIES, ids=lambda words: " ".join(words))
@pytest.mark.parametrize("protocol", [2, 3])
def test_replies_are_those_of_the_command(
    server: Server, words: Command, protocol: int, w: str
) -> None:
    """First as it is when sent alone; then through ONCE, repeated under both protocols."""

    def prepare() -> None:
        setting = [("FLUSHALL",), ("MSET", "text", "abc", "text2", "abd", "number", "1")]
        transcript(server, setting)

    alone = {}
    for asked in (2, 3):
        prepare()
        alone[asked] = transcript(server, [words], asked)
    prepare()
    once: Command = ("ONCE", w, 1, *words)
    assert transcript(server, [once], protocol) == alone[protocol]
    transcript(server, [("FLUSHALL",)])
    if alone[2][0].startswith(b"-ERR wrong number"):
        return
    for asked in (2, 3, protocol):
        assert transcript(server, [once], asked) == alone[asked]


def test_a_pipeline_and_its_repetition(server: Server, w: str) -> None:
    calls = b"".join(encode_command("ONCE", w, n, "INCRBY", "a", n) for n in range(1, 6))
    for _ in range(2):
        with server.conn() as conn:
            conn.send(calls)
            assert [conn.reply() for _ in range(5)] == [b":%d\r\n" % n for n in (1, 3, 6, 10, 15)]
    with server.conn() as conn:
        conn.send(encode_command("ONCE", w, 6, "GET", "a") * 2)
        assert [conn.reply() for _ in range(2)] == [bulk(b"15")] * 2


def test_a_reply_that_is_muted_is_kept(server: Server, w: str) -> None:
    with server.conn() as conn:
        conn.send(encode_command("CLIENT", "REPLY", "OFF"))
        conn.send(encode_command("ONCE", w, 1, "INCR", "a") * 2)
        conn.send(encode_command("CLIENT", "REPLY", "ON"))
        assert conn.reply() == OK
        assert conn.ask("ONCE", w, 1, "INCR", "a") == b":1\r\n"


# -- refusals ------------------------------------------------------------------------------------


REFUSED: list[Command] = [
    *[("PING",), ("ECHO", "x"), ("SELECT", "1"), ("HELLO", "3"), ("RESET",), ("QUIT",), ("INFO",)],
    *[("SUBSCRIBE", "c"), ("UNSUBSCRIBE",), ("CLIENT", "REPLY", "OFF"), ("CONFIG", "GET", "hz")],
    *[("WAIT", "1", "0"), ("MULTI",), ("DISCARD",), ("WATCH", "a"), ("MONITOR",), ("SAVE",)],
    *[("SHUTDOWN",), ("DEBUG", "SLEEP", "0"), ("ONCE", "x", "1", "INCR", "a"), ("COMMAND",)],
]


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[0])
def test_what_concerns_no_data_is_refused(server: Server, w: str, words: Command) -> None:
    refused, next_one = transcript(server, [("ONCE", w, 1, *words), ("ONCE", w, 1, "GET", "a")])
    assert refused.endswith(b"can't be executed by ONCE: it reads and writes no data\r\n")
    assert next_one == b"$-1\r\n"


def test_unknown_commands_and_wrong_arities_are_refused(server: Server, w: str) -> None:
    alone: list[Command] = [("NOPE", "x"), ("GET",), ("GET", "a", "b"), ("OBJECT",)]
    alone += [("OBJECT", "NOPE"), ("EXEC",)]
    calls: list[Command] = [("ONCE", w, 1, *words) for words in alone]
    assert transcript(server, calls) == transcript(server, alone)
    for short in (("ONCE",), ("ONCE", w), ("ONCE", w, 1)):
        (reply,) = transcript(server, [short])
        assert reply == b"-ERR wrong number of arguments for 'once' command\r\n"
    assert transcript(server, [("ONCE", w, 1, "INCR", "a")]) == [b":1\r\n"]


def test_checks_come_in_the_order_of_the_command_alone(fresh_server: FreshServer) -> None:
    server = fresh_server(requirepass="secret")
    calls = [("GET",), ("NOPE",), ("GET", "a")]
    alone = transcript_without_login(server, calls)
    assert transcript_without_login(server, [("ONCE", "w", 1, *words) for words in calls]) == alone
    with server.conn() as conn:
        conn.ask("AUTH", "secret")
        assert conn.ask("ONCE", "w", 1, "INCR", "a") == b":1\r\n"


def transcript_without_login(server: Server, calls: list[tuple[Any, ...]]) -> list[bytes]:
    with server.conn() as conn:
        return [conn.ask(*call) for call in calls]


def test_a_subscriber_of_resp2_can_not_use_it(server: Server, w: str) -> None:
    with server.conn() as conn:
        conn.ask("SUBSCRIBE", "c")
        assert b"Can't execute 'once'" in conn.ask("ONCE", w, 1, "INCR", "a")


def test_a_long_reply_of_a_read_is_refused_and_of_a_write_kept(server: Server, w: str) -> None:
    value = b"x" * MAX_READ
    with server.conn() as conn:
        conn.ask("SET", "a", value)
        reply = conn.ask("ONCE", w, 1, "GET", "a")
        assert reply.startswith(b"-ERR the reply is too long to be kept")
        for _ in range(2):
            assert conn.ask("ONCE", w, 1, "GETDEL", "a") == bulk(value)


# -- transactions --------------------------------------------------------------------------------


def transaction(w: str, *commands: Command, n: int = 1) -> list[Command]:
    return [("MULTI",), *commands, ("ONCE", w, n, "EXEC")]


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_transaction_is_one_command(server: Server, w: str, protocol: int) -> None:
    calls = transaction(w, ("INCR", "a"), ("GET", "none"), ("INCR", "a"), ("SET", "b", "x"))
    null, other = (b"$-1\r\n", b"_\r\n") if protocol == 2 else (b"_\r\n", b"$-1\r\n")
    for _ in range(3):
        *queued, reply = transcript(server, calls, protocol)
        assert queued == [OK] + [b"+QUEUED\r\n"] * 4
        assert reply == b"*4\r\n:1\r\n" + null + b":2\r\n" + OK
    assert transcript(server, calls, 5 - protocol)[-1] == reply.replace(null, other)
    # The reply alone can be had without the transaction.
    assert transcript(server, calls[-1:], protocol) == [reply]
    assert transcript(server, [("GET", "a"), ("ONCE", w, 2, "GET", "b")]) == [
        bulk(b"2"),
        bulk(b"x"),
    ]


def test_a_repeated_transaction_is_over(server: Server, w: str) -> None:
    calls = transaction(w, ("INCR", "a"))
    again = [*calls, ("EXEC",), ("INCR", "a"), *transaction(w, ("INCR", "a"), n=9), ("EXEC",)]
    transcript(server, calls)
    without_multi = b"-ERR EXEC without MULTI\r\n"
    replies = transcript(server, again)
    assert replies[2:5] == [b"*1\r\n:1\r\n", without_multi, b":2\r\n"]
    assert replies[-2:] == [out_of_order(2), without_multi]


def test_a_watched_key_that_changed_is_a_reply(server: Server, w: str) -> None:
    watched = [("WATCH", "a"), ("SET", "a", "1")]
    calls = transaction(w, ("INCR", "b"))
    assert transcript(server, [*watched, *calls])[-1] == b"*-1\r\n"
    assert transcript(server, calls, 3)[-1] == b"_\r\n"
    assert transcript(server, [*watched, *transaction(w, ("INCR", "b"), n=2)])[-1] == b"*-1\r\n"
    assert transcript(server, [("EXISTS", "b"), ("ONCE", w, 3, "GET", "a")])[0] == b":0\r\n"


def test_an_aborted_transaction_leaves_the_number(server: Server, w: str) -> None:
    aborted = transcript(server, transaction(w, ("NOPE",)))[-1]
    assert aborted == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    assert transcript(server, transaction(w, ("INCR", "a")))[-1] == b"*1\r\n:1\r\n"
    # Once it was executed, what is wrong with the repetition doesn't matter.
    assert transcript(server, transaction(w, ("NOPE",)))[-1] == b"*1\r\n:1\r\n"


def test_inside_a_transaction_only_exec(server: Server, w: str) -> None:
    calls = [("MULTI",), ("ONCE", w, 1, "INCR", "a"), ("EXEC",), ("ONCE", w, 1, "INCR", "a")]
    _, refused, aborted, executed = transcript(server, calls)
    assert refused == b"-ERR Command not allowed inside a transaction\r\n"
    assert aborted.startswith(b"-EXECABORT")
    assert executed == b":1\r\n"


def test_errors_inside_a_transaction_are_kept(server: Server, w: str) -> None:
    calls = transaction(w, ("SET", "a", "x"), ("INCR", "a"), ("SET", "a", "1"))
    first = transcript(server, calls)[-1]
    assert b"-ERR value is not an integer" in first
    assert transcript(server, calls)[-1] == first


def test_exec_refused_by_the_state_ends_the_transaction(node: Node) -> None:
    client = node.client()
    node.fail()
    assert client.ask(b"SET", b"a", b"1") == MISCONF
    for words in ((b"MULTI",), (b"GET", b"a")):
        client.ask(*words)
    refused = client.ask(b"ONCE", b"w", b"1", b"exec")
    assert refused.startswith(b"-EXECABORT Transaction discarded because of: MISCONF")
    assert not client.session.in_multi
    assert client.ask(b"ONCE", b"w", b"1", b"GET", b"a") == MISCONF


# -- positions and batches -----------------------------------------------------------------------


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


# -- what is kept --------------------------------------------------------------------------------


def kept(log: CommitLog, prefix: bytes) -> dict[bytes, bytes]:
    return dict(log.meta.scan(prefix, prefix_end(prefix)))


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


# -- forgetting ----------------------------------------------------------------------------------


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


# -- what others see -----------------------------------------------------------------------------


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
