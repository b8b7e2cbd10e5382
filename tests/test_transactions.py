"""MULTI, EXEC, DISCARD, WATCH, UNWATCH: beside redis-server, and from the inside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from core import Client, Core
from harness import Server, encode_command, wait_until
from replies import END, Command, transcript

from kvserver import resp
from kvserver.state.admission import FAILED
from kvserver.state.context import Blocked

SCRIPTS: dict[str, list[Command]] = {
    "empty": [("MULTI",), ("EXEC",)],
    "replies of every kind": [
        *[("MULTI",), ("SET", "a", 1), ("INCR", "a"), ("GET", "none"), ("PING",), ("EXISTS", "a")],
        *[("MGET", "a", "b"), ("EXEC",)],
    ],
    "a read sees the writes before it": [
        *[("MULTI",), ("SET", "a", 1), ("GET", "a"), ("DEL", "a"), ("GET", "a"), ("DBSIZE",)],
        ("EXEC",),
    ],
    "an error does not stop the others": [
        *[
            ("SET", "s", "text"),
            ("MULTI",),
            ("INCR", "s"),
            ("SET", "a", 1),
            ("EXEC",),
            ("GET", "a"),
        ],
    ],
    "SELECT inside": [
        *[("MULTI",), ("SELECT", 2), ("SET", "a", 2), ("EXEC",), ("GET", "a"), ("SELECT", 0)],
        ("GET", "a"),
    ],
    "unknown command": [("MULTI",), ("FOO", "x"), ("PING",), ("EXEC",), ("EXEC",)],
    "unknown subcommand": [("MULTI",), ("CONFIG", "FOO"), ("EXEC",)],
    "wrong arity": [("MULTI",), ("GET",), ("EXEC",)],
    "not allowed inside": [("MULTI",), ("SAVE",), ("EXEC",)],
    "errors of the handler are no queue errors": [("MULTI",), ("SET", "a", 1, "FOO"), ("EXEC",)],
    "nested": [("MULTI",), ("MULTI",), ("SET", "a", 1), ("EXEC",)],
    "MULTI arity": [("MULTI",), ("MULTI", "x"), ("EXEC",)],
    "EXEC without MULTI": [("EXEC",)],
    "EXEC arity": [("MULTI",), ("SET", "a", 1), ("EXEC", "x"), ("EXEC",), ("GET", "a")],
    "EXEC arity without MULTI": [("EXEC", "x")],
    "EXEC arity forgets WATCH": [
        ("WATCH", "a"),
        ("EXEC", "x"),
        ("SET", "a", 1),
        ("MULTI",),
        ("EXEC",),
    ],
    "DISCARD": [("MULTI",), ("SET", "a", 1), ("DISCARD",), ("GET", "a"), ("DISCARD",), ("EXEC",)],
    "DISCARD arity": [("MULTI",), ("DISCARD", "x"), ("EXEC",)],
    "DISCARD after an error": [("MULTI",), ("FOO",), ("DISCARD",), ("MULTI",), ("EXEC",)],
    "DISCARD forgets WATCH": [
        *[("WATCH", "a"), ("SET", "a", 1), ("MULTI",), ("DISCARD",), ("MULTI",), ("EXEC",)],
    ],
    "WATCH inside": [("MULTI",), ("WATCH", "a"), ("EXEC",)],
    "WATCH arity": [("WATCH",)],
    "WATCH, changed": [
        *[("WATCH", "a"), ("SET", "a", 1), ("MULTI",), ("SET", "a", 2), ("EXEC",), ("GET", "a")],
        *[("MULTI",), ("EXEC",)],
    ],
    "WATCH, untouched": [("WATCH", "a", "b"), ("SET", "c", 1), ("MULTI",), ("PING",), ("EXEC",)],
    "WATCH, read": [("SET", "a", 1), ("WATCH", "a"), ("GET", "a"), ("MULTI",), ("EXEC",)],
    "WATCH, deleted": [("SET", "a", 1), ("WATCH", "a"), ("DEL", "a"), ("MULTI",), ("EXEC",)],
    "WATCH, missing key deleted": [("WATCH", "a"), ("DEL", "a"), ("MULTI",), ("EXEC",)],
    "WATCH, expiry set": [
        ("SET", "a", 1),
        ("WATCH", "a"),
        ("EXPIRE", "a", 9),
        ("MULTI",),
        ("EXEC",),
    ],
    "WATCH, renamed to": [
        ("SET", "b", 1),
        ("WATCH", "a"),
        ("RENAME", "b", "a"),
        ("MULTI",),
        ("EXEC",),
    ],
    "WATCH, twice": [
        *[("WATCH", "a"), ("SET", "a", 1), ("WATCH", "a", "b"), ("MULTI",), ("EXEC",)],
        *[("MULTI",), ("EXEC",)],
    ],
    "WATCH and an error": [
        *[("WATCH", "a"), ("SET", "a", 1), ("MULTI",), ("FOO",), ("EXEC",), ("MULTI",), ("EXEC",)],
    ],
    "WATCH in another database": [
        *[("WATCH", "a"), ("SELECT", 1), ("SET", "a", 1), ("MULTI",), ("EXEC",), ("WATCH", "a")],
        *[("SET", "a", 2), ("MULTI",), ("EXEC",)],
    ],
    "UNWATCH": [("WATCH", "a"), ("SET", "a", 1), ("UNWATCH",), ("MULTI",), ("PING",), ("EXEC",)],
    "UNWATCH inside": [
        *[("WATCH", "a"), ("SET", "a", 1), ("MULTI",), ("UNWATCH",), ("EXEC",)],
        *[("WATCH", "a"), ("MULTI",), ("UNWATCH",), ("SET", "a", 2), ("EXEC",)],
    ],
    "FLUSHALL of a watched key": [
        *[("SET", "a", 1), ("WATCH", "a"), ("FLUSHALL",), ("MULTI",), ("EXEC",)],
    ],
    "FLUSHDB of a missing watched key": [
        *[("SET", "b", 1), ("WATCH", "a"), ("FLUSHDB",), ("MULTI",), ("PING",), ("EXEC",)],
    ],
    "FLUSHDB of another database": [
        *[("SET", "a", 1), ("WATCH", "a"), ("SELECT", 1), ("SET", "b", 1), ("FLUSHDB",)],
        *[("MULTI",), ("PING",), ("EXEC",)],
    ],
    "SWAPDB away from a watched key": [
        *[("SET", "a", 1), ("WATCH", "a"), ("SWAPDB", 0, 1), ("MULTI",), ("EXEC",)],
    ],
    "SWAPDB to a watched key": [
        *[("SELECT", 1), ("SET", "a", 1), ("SELECT", 0), ("WATCH", "a"), ("SWAPDB", 0, 1)],
        *[("MULTI",), ("EXEC",)],
    ],
    "SWAPDB of other keys": [
        *[("SELECT", 1), ("SET", "b", 1), ("SELECT", 0), ("WATCH", "a"), ("SWAPDB", 0, 1)],
        *[("MULTI",), ("PING",), ("EXEC",)],
    ],
    "RESET": [("WATCH", "a"), ("MULTI",), ("SET", "a", 1), ("RESET",), ("EXEC",), ("GET", "a")],
    "blocking": [("MULTI",), ("WAIT", 1, 0), ("EXEC",)],
    "MONITOR inside": [("MULTI",), ("MONITOR",), ("EXEC",)],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", SCRIPTS)
def test_replies_are_those_of_redis(
    name: str, protocol: int, server: Server, oracle: Server
) -> None:
    ours, theirs = (transcript(s, SCRIPTS[name], protocol) for s in (server, oracle))
    assert ours == theirs


@pytest.mark.parametrize("protocol", [2, 3])
def test_hello_inside_changes_the_protocol_from_there_on(protocol: int, server: Server) -> None:
    other = 5 - protocol
    commands = [("MULTI",), ("GET", "a"), ("HELLO", other), ("GET", "a"), ("EXEC",)]
    reply = transcript(server, commands, protocol)[-1]
    nulls = {2: b"$-1\r\n", 3: b"_\r\n"}
    assert reply.startswith(b"*3\r\n" + nulls[protocol])
    assert reply.endswith(nulls[other])


def test_authentication_is_asked_for_inside_too(fresh_server: FreshServer) -> None:
    server = fresh_server(requirepass="secret")
    conn = server.conn()
    assert conn.ask("MULTI").startswith(b"-NOAUTH")
    assert conn.ask("AUTH", "secret") == b"+OK\r\n"
    assert conn.ask("MULTI") == b"+OK\r\n"


# -- expired keys ------------------------------------------------------------------------------


@pytest.fixture
def stale(server: Server, oracle: Server) -> Iterator[tuple[Server, Server]]:
    """Both servers, with key `x` past its time, but not yet deleted, in databases 0 and 2."""
    for one in (server, oracle):
        client = one.client()
        client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        for db in (2, 0):
            client.select(db)
            client.set("x", "old", px=1)
        pass_time(client, 2)
        assert client.dbsize() == 1
    yield server, oracle
    for one in (server, oracle):
        one.client().execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def pass_time(client: redis.Redis, ms: int) -> None:
    """Wait until the server's clock is `ms` milliseconds further."""

    def now() -> float:
        seconds, micros = client.time()
        return float(seconds + micros / 1e6)

    end = now() + ms / 1000
    wait_until(lambda: now() > end)


@pytest.mark.parametrize(
    "between",
    [
        [],
        [("DEL", "x")],
        [("GET", "x")],
        [("SET", "x", "new")],
        [("SET", "y", "new"), ("RENAME", "y", "x")],
        [("FLUSHDB",)],
        [("FLUSHALL",)],
        [("SWAPDB", 0, 1)],
        [("SWAPDB", 0, 2)],
        [("SWAPDB", 0, 2), ("SELECT", 2), ("GET", "x"), ("SELECT", 0), ("GET", "x")],
        [("SWAPDB", 0, 1), ("SET", "x", "new")],
    ],
)
def test_a_key_expired_before_watch_counts_as_missing(
    between: list[Command], stale: tuple[Server, Server]
) -> None:
    commands = [("WATCH", "x"), *between, ("MULTI",), ("PING",), ("EXEC",)]
    ours, theirs = (transcript(one, commands) for one in stale)
    assert ours == theirs


def test_a_missing_key_swapped_with_an_expired_one_is_unchanged(
    stale: tuple[Server, Server],
) -> None:
    commands: list[Command] = [
        *[("SELECT", 1), ("WATCH", "x"), ("SWAPDB", 0, 1), ("GET", "x"), ("MULTI",), ("EXEC",)]
    ]
    ours, theirs = (transcript(one, commands) for one in stale)
    assert ours == theirs
    assert ours[-1] == b"*0\r\n"


@pytest.mark.parametrize("active", [0, 1])
def test_a_watched_key_that_expires_fails_exec(active: int, server: Server, oracle: Server) -> None:
    for one in (server, oracle):
        admin, conn = one.client(), one.conn()
        admin.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", str(active))
        conn.ask("SET", "x", "v", "PX", 30)
        conn.ask("WATCH", "x")
        if active:
            wait_until(lambda client=admin: client.dbsize() == 0)  # type: ignore[misc]
        else:
            pass_time(admin, 31)
        conn.ask("MULTI")
        assert conn.ask("EXEC") == b"*-1\r\n"
        admin.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_active_expiry_of_a_key_watched_as_expired_changes_nothing(
    stale: tuple[Server, Server],
) -> None:
    for one in stale:
        admin, conn = one.client(), one.conn()
        conn.ask("WATCH", "x")
        admin.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        wait_until(lambda client=admin: client.dbsize() == 0)  # type: ignore[misc]
        conn.ask("MULTI")
        assert conn.ask("EXEC") == b"*0\r\n"


# -- what others see ---------------------------------------------------------------------------


def monitored(server: Server, commands: list[Command]) -> list[bytes]:
    """What MONITOR shows of `commands`: the database and the arguments."""
    monitor = server.conn()
    monitor.ask("MONITOR")
    transcript(server, commands)
    seen = []
    while END not in (line := monitor.read_line()):
        _, _, rest = line.partition(b" [")
        db, _, rest = rest.partition(b" ")
        seen.append(db + b" " + rest.partition(b"] ")[2])
    return seen


def test_monitor_shows_what_was_executed_then_exec(server: Server, oracle: Server) -> None:
    commands: list[Command] = [
        *[("SELECT", 3), ("MULTI",), ("SET", "a", 1), ("SELECT", 4), ("EXEC",)],
        *[("MULTI",), ("FOO",), ("EXEC",), ("MULTI",), ("EXEC", "x"), ("MULTI",), ("DISCARD",)],
        *[("WATCH", "a"), ("SET", "a", 1), ("MULTI",), ("PING",), ("EXEC",)],
    ]
    seen = monitored(server, commands)
    assert seen == monitored(oracle, commands)
    assert seen[:5] == [
        b'3 "SELECT" "3"\r\n',
        b'3 "MULTI"\r\n',
        b'3 "SET" "a" "1"\r\n',
        b'4 "SELECT" "4"\r\n',
        b'4 "EXEC"\r\n',
    ]


def test_client_list_and_info_tell_of_transactions(server: Server, oracle: Server) -> None:
    for one in (server, oracle):
        admin, conn = one.client(decode_responses=True), one.conn()
        conn.ask("CLIENT", "SETNAME", "subject")

        def subject(admin: redis.Redis = admin) -> dict[str, Any]:
            return next(c for c in admin.client_list() if c["name"] == "subject")

        assert (subject()["multi"], subject()["flags"]) == ("-1", "N")
        conn.ask("WATCH", "a", "b", "a")
        conn.ask("MULTI")
        conn.ask("SET", "a", "1")
        assert (subject()["multi"], subject()["flags"]) == ("1", "x")
        admin.set("a", 1)
        assert subject()["flags"] == "xd"
        conn.ask("DISCARD")
        assert (subject()["multi"], subject()["flags"]) == ("-1", "N")


def test_info_counts_watches(server: Server) -> None:
    admin, first, second = server.client(), server.conn(), server.conn()

    def watched() -> tuple[int, int]:
        info = admin.info("clients")
        return info["watching_clients"], info["total_watched_keys"]

    assert watched() == (0, 0)
    first.ask("WATCH", "a", "b")
    second.ask("WATCH", "a")
    assert watched() == (2, 2)
    admin.set("a", 1)  # both can only fail now: they watch nothing more
    assert watched() == (0, 0)
    first.ask("UNWATCH")
    first.ask("WATCH", "a", "b")
    first.close()
    wait_until(lambda: watched() == (0, 0), what="a closed connection watches nothing")


def test_a_transaction_vanishes_with_its_connection(server: Server) -> None:
    conn, client = server.conn(), server.client()
    conn.ask("MULTI")
    conn.ask("SET", "a", "1")
    conn.close()
    wait_until(lambda: client.info("clients")["connected_clients"] == 1)
    assert client.get("a") is None


def test_redis_py_retries_a_failed_watch(client: redis.Redis, server: Server) -> None:
    client.set("n", 1)
    other = server.client()
    attempts = 0

    def increment(pipe: Any) -> None:
        nonlocal attempts
        attempts += 1
        value = int(pipe.get("n"))
        if attempts == 1:
            other.set("n", 10)
        pipe.multi()
        pipe.set("n", value + 1)

    assert client.transaction(increment, "n") == [True]
    assert (attempts, client.get("n")) == (2, b"11")


def test_long_walks_inside_exec_are_done_at_once(client: redis.Redis) -> None:
    client.mset({f"key:{n}": n for n in range(3000)})
    pipe = client.pipeline()
    pipe.set("key:new", 1)
    pipe.keys("key:*")
    pipe.get("key:7")
    _, names, last = pipe.execute()
    assert len(names) == 3001
    assert last == b"7"


def test_a_queue_above_the_limit_closes_the_client(fresh_server: FreshServer) -> None:
    server = fresh_server(client_query_buffer_limit="1mb")
    conn, client = server.conn(), server.client()
    conn.ask("MULTI")
    with pytest.raises(ConnectionError):
        for _ in range(20):
            conn.ask("SET", "a", b"x" * 100_000)
    assert client.get("a") is None
    assert client.info("stats")["client_query_buffer_limit_disconnections"] == 1


def test_a_paused_exec_runs_when_the_pause_ends(server: Server) -> None:
    writer, reader, admin = server.conn(), server.conn(), server.client()
    for conn in (writer, reader):
        conn.ask("MULTI")
    writer.ask("SET", "a", "1")
    reader.ask("GET", "a")
    admin.execute_command("CLIENT", "PAUSE", "100000", "WRITE")
    writer.send(encode_command("EXEC"))
    assert reader.ask("EXEC") == b"*1\r\n$-1\r\n"
    wait_until(lambda: admin.info("clients")["blocked_clients"] == 1)
    admin.execute_command("CLIENT", "UNPAUSE")
    assert writer.reply() == b"*1\r\n+OK\r\n"


# -- from the inside ---------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db") as core:
        yield core


def replace_handler(core: Core, name: bytes, handler: Any) -> None:
    core.server.table.names[name].handler = handler


def crash(*_args: Any) -> None:
    raise ZeroDivisionError("a defect")


def queue(client: Client, *commands: tuple[bytes, ...]) -> None:
    client.call(b"MULTI")
    for command in commands:
        client.call(*command)


def test_one_exec_is_one_position(core: Core) -> None:
    client = core.client()
    before = core.log.last_seq
    queue(client, (b"SET", b"a", b"1"), (b"SET", b"b", b"2"), (b"DEL", b"a"))
    client.call(b"EXEC")
    assert core.log.last_seq == before + 1
    core.end_turn()
    assert core.log.committed_seq == before + 1


def test_exec_without_a_change_takes_no_position(core: Core) -> None:
    client = core.client()
    queue(client, (b"GET", b"a"), (b"DEL", b"a"))
    client.call(b"EXEC")
    assert core.log.last_seq == 0


def test_a_batch_is_cut_after_exec_and_never_inside(core: Core) -> None:
    client = core.client()
    batches = 0
    write = core.engine.write

    def count(batch: Any) -> None:
        nonlocal batches
        batches += 1
        write(batch)

    core.engine.write = count  # type: ignore[method-assign]
    value = b"x" * 400_000
    queue(client, *[(b"SET", b"key%d" % n, value) for n in range(10)])
    client.call(b"EXEC")
    assert batches == 1  # at once, 4 MB being far above the limit, and as a whole
    core.end_turn()
    assert batches == 1
    assert client.ask(b"EXISTS", *[b"key%d" % n for n in range(10)]).endswith(b":10\r\n")


def test_a_crash_inside_drops_the_whole_transaction(core: Core) -> None:
    client = core.client()
    client.ask(b"SET", b"kept", b"1")
    replace_handler(core, b"ECHO", crash)
    queue(client, (b"SET", b"a", b"1"), (b"ECHO", b"x"), (b"SET", b"b", b"2"))
    assert client.ask(b"EXEC").endswith(b"-ERR internal error\r\n")
    assert client.ask(b"MGET", b"a", b"b", b"kept") == b"*3\r\n$-1\r\n$-1\r\n$1\r\n1\r\n"
    assert client.ask(b"DBSIZE") == b":1\r\n"
    assert not client.session.in_multi


def test_a_walk_that_crashes_inside_drops_the_whole_transaction(core: Core) -> None:
    def walk(*_args: Any) -> Iterator[None]:
        yield
        raise ZeroDivisionError("a defect")

    client = core.client()
    replace_handler(core, b"KEYS", walk)
    queue(client, (b"SET", b"a", b"1"), (b"KEYS", b"*"))
    assert client.ask(b"EXEC").endswith(b"-ERR internal error\r\n")
    assert client.ask(b"GET", b"a") == b"$-1\r\n"


def test_a_command_that_would_block_answers_at_once(core: Core) -> None:
    forgotten = []

    def block(ctx: Any, *_args: Any) -> Blocked:
        assert ctx.deny_blocking
        return Blocked(0, lambda: resp.NULL_ARRAY, lambda: forgotten.append(True))

    client = core.client()
    replace_handler(core, b"ECHO", block)
    queue(client, (b"ECHO", b"x"), (b"PING",))
    assert client.ask(b"EXEC").endswith(b"*2\r\n*-1\r\n+PONG\r\n")
    assert forgotten == [True]
    assert client.ask(b"PING") == b"+PONG\r\n"


def test_blocking_is_allowed_again_after_exec(core: Core) -> None:
    seen = []
    client = core.client()
    replace_handler(core, b"ECHO", lambda ctx, word: seen.append(ctx.deny_blocking))
    queue(client, (b"ECHO", b"x"))
    client.call(b"EXEC")
    client.call(b"ECHO", b"x")
    assert seen == [True, False]


def test_when_the_commit_fails_exec_gets_the_error(core: Core) -> None:
    client = core.client()
    queue(client, (b"SET", b"a", b"1"), (b"GET", b"a"))
    core.end_turn()
    client.take()
    core.fail_writes()
    assert client.ask(b"EXEC").startswith(b"-MISCONF ")
    assert client.ask(b"GET", b"a") == b"$-1\r\n"


def test_exec_of_writes_is_refused_while_writing_fails(core: Core) -> None:
    writer, reader = core.client(), core.client()
    queue(writer, (b"SET", b"a", b"1"))
    queue(reader, (b"GET", b"a"))
    core.end_turn()
    writer.take(), reader.take()
    core.dispatcher.failure = "No space left on device"
    core.dispatcher.raise_gate(FAILED)
    assert writer.ask(b"EXEC") == (
        b"-EXECABORT Transaction discarded because of: MISCONF Errors writing to the AOF file: "
        b"No space left on device\r\n"
    )
    assert not writer.session.in_multi
    assert reader.ask(b"EXEC") == b"*1\r\n$-1\r\n"
    queue(writer, (b"SET", b"a", b"1"))
    assert b"-MISCONF" in writer.ask(b"EXEC")


def test_commands_that_cannot_be_executed_are_not_kept(core: Core) -> None:
    client = core.client()
    queue(client, (b"SET", b"a", b"1"), (b"FOO",), (b"SET", b"b", b"1"))
    assert len(client.session.queue) == 1
    client.call(b"EXEC")
    assert client.session.queue_bytes == 0
    client.call(b"WATCH", b"k")
    core.client().call(b"SET", b"k", b"1")
    queue(client, (b"SET", b"a", b"1"))
    assert client.session.queue == []


def test_time_spent_counts_for_exec_and_for_its_commands(core: Core) -> None:
    def slow(_ctx: Any, word: bytes) -> bytes:
        time.sleep(0.01)
        return word

    client = core.client()
    replace_handler(core, b"ECHO", slow)
    core.dispatcher.clock = time.perf_counter_ns()
    queue(client, (b"ECHO", b"x"))
    client.call(b"EXEC")
    names = core.server.table.names
    assert names[b"ECHO"].calls == names[b"EXEC"].calls == 1
    assert names[b"EXEC"].nanoseconds >= names[b"ECHO"].nanoseconds >= 10_000_000
