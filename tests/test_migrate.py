"""MIGRATE: to and from redis-server, to targets that fail, and what waits meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import datadir
import pytest
import redis
from conftest import FreshServer
from harness import Conn, Server, free_port, wait_until
from pair import LATER, Pair
from whole_values import TYPES, fill, snapshot

HOST = "127.0.0.1"


def migrate(client: redis.Redis, port: int, key: str, *words: Any, timeout: int = 5000) -> bytes:
    reply: bytes = client.execute_command("MIGRATE", HOST, port, key, 0, timeout, *words)
    return reply


@pytest.fixture
def here(server: Server) -> redis.Redis:
    return server.client(protocol=2)


@pytest.fixture
def there(oracle: Server) -> redis.Redis:
    return oracle.client(protocol=2)


# -- whole values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 200, 5000])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("away", [True, False], ids=["to-redis", "from-redis"])
def test_every_type(server: Server, oracle: Server, kind: str, count: int, away: bool) -> None:
    source, target = (server, oracle) if away else (oracle, server)
    before, after = source.client(), target.client()
    fill(before, "k", kind, count)
    expected = snapshot(before, "k")
    assert migrate(before, target.port, "k") == b"OK"
    assert before.exists("k") == 0
    assert snapshot(after, "k") == expected


def test_many_keys(here: redis.Redis, there: redis.Redis, oracle: Server) -> None:
    """More replies than anybody buffers."""
    names = [f"key-{n}" for n in range(20_000)]
    here.mset(dict.fromkeys(names, "v"))
    assert migrate(here, oracle.port, "", "KEYS", *names, "missing", timeout=10_000) == b"OK"
    assert here.dbsize() == 0
    assert there.dbsize() == len(names)


def test_between_two_of_ours(here: redis.Redis, fresh_server: FreshServer) -> None:
    other = fresh_server()
    names = [f"key-{n}" for n in range(3000)]
    here.mset(dict.fromkeys(names, "v"))
    here.hset("h", "f", "v")
    here.execute_command("HPEXPIREAT", "h", LATER * 1000, "FIELDS", 1, "f")
    assert migrate(here, other.port, "", "KEYS", "h", *names) == b"OK"
    assert here.dbsize() == 0
    assert other.client().dbsize() == len(names) + 1
    times = other.client().execute_command("HPEXPIRETIME", "h", "FIELDS", 1, "f")
    assert times == [LATER * 1000]


def test_a_large_value(here: redis.Redis, there: redis.Redis, oracle: Server) -> None:
    here.set("k", b"0123456789abcdef" * (1 << 20))
    assert migrate(here, oracle.port, "k") == b"OK"
    assert there.strlen("k") == 1 << 24
    assert here.exists("k") == 0


# -- options ---------------------------------------------------------------------------------------


def test_options(here: redis.Redis, there: redis.Redis, oracle: Server) -> None:
    here.set("a", "1")
    assert migrate(here, oracle.port, "a", "COPY") == b"OK"
    assert here.get("a") == there.get("a") == b"1"
    here.set("a", "2")
    with pytest.raises(redis.ResponseError) as error:
        migrate(here, oracle.port, "a")
    assert str(error.value) == (
        "Target instance replied with error: BUSYKEY Target key name already exists."
    )
    assert here.get("a") == b"2"
    assert migrate(here, oracle.port, "a", "replace", "copy") == b"OK"
    assert here.get("a") == there.get("a") == b"2"
    assert migrate(here, oracle.port, "", "REPLACE", "KEYS", "a", "b") == b"OK"
    assert here.exists("a") == 0
    assert migrate(here, oracle.port, "a") == b"NOKEY"
    assert migrate(here, oracle.port, "", "KEYS", "a", "b") == b"NOKEY"


def test_to_another_database_with_its_time(
    here: redis.Redis, there: redis.Redis, oracle: Server
) -> None:
    here.set("k", "v", ex=1000)
    assert here.execute_command("MIGRATE", HOST, oracle.port, "k", 3, 5000) == b"OK"
    assert there.dbsize() == 0
    there.select(3)
    assert there.get("k") == b"v"
    assert 990 < there.ttl("k") <= 1000


def test_some_are_refused(here: redis.Redis, there: redis.Redis, oracle: Server) -> None:
    there.set("b", "old")
    here.mset({"a": 1, "b": 2, "c": 3})
    with pytest.raises(redis.ResponseError, match="BUSYKEY"):
        migrate(here, oracle.port, "", "KEYS", "a", "b", "c")
    assert here.keys() == [b"b"]
    assert there.mget("a", "b", "c") == [b"1", b"old", b"3"]


@pytest.mark.parametrize("kind", ["AUTH", "AUTH2"])
def test_auth(here: redis.Redis, fresh_server: FreshServer, kind: str) -> None:
    target = fresh_server(requirepass="secret")
    there = target.client(password="secret")
    user = ("default",) if kind == "AUTH2" else ()
    here.set("k", "v")
    for words, message in (
        ((), "NOAUTH"),
        ((kind, *user, "wrong"), "WRONGPASS"),
    ):
        with pytest.raises(redis.ResponseError) as error:
            migrate(here, target.port, "k", *words)
        assert str(error.value).startswith(f"Target instance replied with error: {message} ")
    assert here.get("k") == b"v"
    assert migrate(here, target.port, "k", kind, *user, "secret") == b"OK"
    assert there.get("k") == b"v"


def test_arguments(pair: Pair) -> None:
    port = free_port()
    commands: list[tuple[Any, ...]] = [("SET", "k", "v"), ("MIGRATE", HOST, port, "k", 0)]
    for words in (
        ("missing", 0, "x"),
        ("missing", "x", 10),
        ("missing", 0, 10),
        ("missing", 0, 10, "COPY", "NONSENSE"),
        ("k", 0, 10, "AUTH"),
        ("k", 0, 10, "AUTH2", "u"),
        ("k", 0, 10, "KEYS"),
        ("k", 0, 10, "KEYS", "k"),
        ("", 0, 10, "KEYS"),
        ("", 0, 10, "KEYS", "missing"),
        ("", 0, 10),
        ("", 0, "x", "COPY", "REPLACE", "AUTH", "a", "AUTH2", "b", "c", "KEYS", "k"),
        ("k", 0, 1000),
    ):
        commands.append(("MIGRATE", HOST, port, *words))
    commands.append(("MIGRATE", "no such host", port, "k", 0, 1000))
    commands.append(("MIGRATE", HOST, 0, "k", 0, 1000))
    pair.same([*commands, ("GET", "k")])


def test_keys_of_the_command(pair: Pair) -> None:
    commands: list[tuple[Any, ...]] = [("COMMAND", "INFO", "dump", "restore", "restore-asking")]
    for words in (
        ("", "COPY", "KEYS", "a", "b"),
        ("", "AUTH", "KEYS", "KEYS", "a"),
        ("", "AUTH2", "KEYS", "KEYS", "keys", "a"),
        ("k", "AUTH2", "KEYS", "KEYS"),
        ("k",),
        ("",),
    ):
        arguments = ("MIGRATE", HOST, 1, words[0], 0, 10, *words[1:])
        commands.append(("COMMAND", "GETKEYSANDFLAGS", *arguments))
    pair.same(commands)


def test_passwords_are_hidden(here: redis.Redis) -> None:
    here.config_set("slowlog-log-slower-than", 0)
    here.slowlog_reset()
    migrate(here, free_port(), "k", "COPY", "AUTH2", "user", "secret", "AUTH", "other")
    shown = [entry["command"] for entry in here.slowlog_get()]
    shown = [line for line in shown if line.startswith(b"MIGRATE")]
    assert len(shown) == 1
    assert shown[0].endswith(b"COPY AUTH2 (redacted) (redacted) AUTH (redacted)")


def test_not_in_a_transaction_or_script(here: redis.Redis, oracle: Server) -> None:
    here.set("k", "v")
    pipe = here.pipeline()
    pipe.execute_command("MIGRATE", HOST, oracle.port, "k", 0, 1000)
    pipe.execute_command("MIGRATE", HOST, oracle.port, "missing", 0, 1000)
    replies = pipe.execute(raise_on_error=False)
    assert str(replies[0]) == "Command not allowed inside a transaction"
    assert replies[1] == b"NOKEY"
    assert here.get("k") == b"v"


# -- a target that does what the test says ---------------------------------------------------------


class Target:
    """Accepts one connection, and answers when it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._conn: Conn | None = None

    @property
    def conn(self) -> Conn:
        if self._conn is None:
            self._listener.settimeout(10)
            self._conn = Conn(self._listener.accept()[0])
        return self._conn

    def expect(self, name: bytes) -> list[bytes]:
        """The words of the next command."""
        reply = self.conn.reply()
        words = reply.split(b"\r\n")[2::2]
        assert words[0] == name
        return words

    def say(self, line: bytes) -> None:
        self.conn.send(line + b"\r\n")

    def close(self) -> None:
        self._listener.close()
        if self._conn is not None:
            self._conn.close()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def start(server: Server, target: Target, *keys: str, timeout: int = 5000) -> Conn:
    """A client in the middle of MIGRATE: everything is sent, and nothing answered."""
    conn = server.conn()
    conn.send(command("MIGRATE", HOST, target.port, "", 0, timeout, "KEYS", *keys))
    target.expect(b"SELECT")
    for _ in keys:
        target.expect(b"RESTORE")
    return conn


def command(*words: Any) -> bytes:
    encoded = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)


def blocked(here: redis.Redis) -> int:
    return int(here.info("clients")["blocked_clients"])


#: Commands that might change key `k`, and what they reply when it is gone.
WRITERS: list[tuple[tuple[Any, ...], bytes]] = [
    (("APPEND", "k", "x"), b":1\r\n"),
    (("DEL", "k"), b":0\r\n"),
    (("EXPIRE", "k", 100), b":0\r\n"),
    (("RENAME", "k", "l"), b"-ERR no such key\r\n"),
    (("COPY", "other", "k"), b":1\r\n"),
    (("SELECT", 1), b"+OK\r\n"),
    (("FLUSHALL",), b"+OK\r\n"),
    (("FLUSHDB",), b"+OK\r\n"),
    (("SWAPDB", 0, 1), b"+OK\r\n"),
    (("EVAL", "return redis.call('del', 'k')", 0), b":0\r\n"),
    (("ONCE", "writer", 1, "DEL", "k"), b":0\r\n"),
    (("MIGRATE", HOST, 1, "k", 0, 100), b"+NOKEY\r\n"),
]


@pytest.mark.parametrize("words", WRITERS, ids=lambda item: item[0][0])
def test_who_might_change_a_key_waits(
    here: redis.Redis, server: Server, target: Target, words: tuple[tuple[Any, ...], bytes]
) -> None:
    here.mset({"k": "v", "other": "v"})
    migrating = start(server, target, "k")
    waiting = server.conn()
    waiting.send(command(*words[0]))
    if words[0][0] == "SELECT":
        # In whatever database; and as with CLIENT PAUSE already when it is queued.
        assert waiting.reply() == words[1]
        waiting.send(command("MULTI") + command("SET", "k", "new") + command("EXEC"))
        assert waiting.reply() == b"+OK\r\n"
    wait_until(lambda: blocked(here) == 2)
    assert here.get("k") == b"v"
    target.say(b"+OK")
    target.say(b"+OK")
    assert migrating.reply() == b"+OK\r\n"
    if words[0][0] == "SELECT":
        assert [waiting.reply() for _ in range(2)] == [b"+QUEUED\r\n", b"*1\r\n+OK\r\n"]
        assert here.exists("k") == 0
    else:
        assert waiting.reply() == words[1]


def test_what_waits_for_its_fsync_is_sent_after_it(
    fresh_server: FreshServer, oracle: Server, there: redis.Redis
) -> None:
    server = fresh_server(appendfsync="always")
    conn = server.conn()
    conn.send(command("SET", "k", "v") + command("MIGRATE", HOST, oracle.port, "k", 0, 5000))
    assert [conn.reply() for _ in range(2)] == [b"+OK\r\n"] * 2
    assert there.get("k") == b"v"


def test_a_primary_that_becomes_a_replica_deletes_nothing(
    fresh_server: FreshServer, target: Target
) -> None:
    server = fresh_server()
    here = server.client()
    here.set("k", "v")
    migrating = start(server, target, "k")
    here.replicaof(HOST, free_port())
    assert migrating.reply().startswith(b"-UNBLOCKED")
    target.say(b"+OK\r\n+OK")
    assert target.conn.read_to_end() == b""
    assert here.get("k") == b"v"
    here.replicaof("NO", "ONE")
    assert here.append("k", "x") == 2


def test_others_go_on(here: redis.Redis, server: Server, target: Target) -> None:
    here.mset({"k": "v", "other": "v"})
    migrating = start(server, target, "k")
    assert here.append("other", "x") == 2
    assert here.get("k") == b"v"
    assert here.mget("k", "other") == [b"v", b"vx"]
    assert here.set("new", 1)
    assert here.publish("channel", "message") == 0
    target.say(b"+OK\r\n+OK")
    assert migrating.reply() == b"+OK\r\n"
    assert sorted(here.keys()) == [b"new", b"other"]


def test_a_blocked_command_waits_too(here: redis.Redis, server: Server, target: Target) -> None:
    here.xadd("s", {"a": "b"}, id="1-1")
    here.xgroup_create("s", "g", "$")
    reader = server.conn()
    reader.send(command("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "s", ">"))
    wait_until(lambda: blocked(here) == 1)
    migrating = start(server, target, "s")
    target.say(b"+OK\r\n+OK")
    assert migrating.reply() == b"+OK\r\n"
    assert reader.reply().startswith(b"-NOGROUP")


def test_two_at_once(here: redis.Redis, server: Server, target: Target, oracle: Server) -> None:
    here.mset({"k": "v", "other": "v"})
    migrating = start(server, target, "k")
    assert migrate(here, oracle.port, "other") == b"OK"
    waiting = server.conn()
    waiting.send(command("APPEND", "k", "x"))
    wait_until(lambda: blocked(here) == 2)
    target.say(b"+OK\r\n+OK")
    assert migrating.reply() == b"+OK\r\n"
    assert waiting.reply() == b":1\r\n"


def test_a_key_stays_without_a_reply(here: redis.Redis, server: Server, target: Target) -> None:
    here.set("k", "v")
    migrating = start(server, target, "k", timeout=50)
    assert migrating.reply() == b"-IOERR error or timeout reading to target instance\r\n"
    assert here.append("k", "x") == 2


def test_what_was_taken_before_the_connection_broke_is_deleted(
    here: redis.Redis, server: Server, target: Target
) -> None:
    here.mset({"a": 1, "b": 2, "c": 3})
    migrating = start(server, target, "a", "b", "c")
    target.say(b"+OK\r\n+OK")
    target.close()
    assert migrating.reply() == b"-IOERR error or timeout reading to target instance\r\n"
    assert sorted(here.keys()) == [b"b", b"c"]


@pytest.mark.parametrize("answer", [b"-ERR no", b"-WRONGPASS no"])
def test_an_error_to_select(
    here: redis.Redis, server: Server, target: Target, answer: bytes
) -> None:
    here.mset({"a": 1, "b": 2})
    migrating = start(server, target, "a", "b")
    target.say(answer + b"\r\n+OK\r\n+OK")
    expected = b"-ERR Target instance replied with error: " + answer[1:] + b"\r\n"
    assert migrating.reply() == expected
    assert sorted(here.keys()) == [b"a", b"b"]


def test_a_target_that_does_not_read(here: redis.Redis, server: Server, target: Target) -> None:
    here.set("k", b"x" * (1 << 25))
    conn = server.conn()
    conn.send(command("MIGRATE", HOST, target.port, "k", 0, 200))
    target.expect(b"SELECT")
    assert conn.reply() == b"-IOERR error or timeout writing to target instance\r\n"
    assert here.strlen("k") == 1 << 25


def test_garbage(here: redis.Redis, server: Server, target: Target) -> None:
    here.set("k", "v")
    migrating = start(server, target, "k")
    target.conn.send(b"x" * 200_000)
    assert migrating.reply() == b"-IOERR error or timeout reading to target instance\r\n"
    assert here.get("k") == b"v"


def test_the_client_is_gone(here: redis.Redis, server: Server, target: Target) -> None:
    """Its keys move all the same."""
    here.mset({"k": "v", "other": 1})
    migrating = start(server, target, "k")
    migrating.close()
    wait_until(lambda: blocked(here) == 0)
    target.say(b"+OK\r\n+OK")
    wait_until(lambda: here.exists("k") == 0)
    assert here.append("k", "new") == 3
    server.client().save()


def test_client_unblock(here: redis.Redis, server: Server, target: Target) -> None:
    here.set("k", "v")
    conn = server.conn()
    number = int(conn.ask("CLIENT", "ID")[1:])
    conn.send(command("MIGRATE", HOST, target.port, "k", 0, 5000))
    target.expect(b"SELECT")
    assert here.execute_command("CLIENT", "UNBLOCK", number) == 1
    assert conn.reply().startswith(b"-IOERR")
    target.expect(b"RESTORE")
    target.say(b"+OK\r\n+OK")
    wait_until(lambda: here.exists("k") == 0)


def test_a_key_that_is_past_its_time(here: redis.Redis, server: Server, target: Target) -> None:
    """Nothing expires while it is sent; what is past its time then isn't sent."""
    here.set("k", "v")
    here.set("late", "v", px=60)
    conn = server.conn()
    conn.send(command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", "k", "late"))
    target.expect(b"SELECT")
    target.expect(b"RESTORE")
    assert target.expect(b"RESTORE")[1] == b"late"
    time.sleep(0.07)
    target.say(b"+OK\r\n+OK\r\n+OK")
    assert conn.reply() == b"+OK\r\n"
    assert here.dbsize() == 0


def test_events(here: redis.Redis, server: Server, oracle: Server) -> None:
    here.config_set("notify-keyspace-events", "EA")
    listener = server.conn()
    listener.ask("PSUBSCRIBE", "__keyevent*")
    here.mset({"a": 1, "b": 2})
    assert migrate(here, oracle.port, "", "KEYS", "a", "b") == b"OK"
    heard = [listener.reply().split(b"\r\n") for _ in range(4)]
    assert [(words[6], words[8]) for words in heard[2:]] == [
        (b"__keyevent@0__:del", b"a"),
        (b"__keyevent@0__:del", b"b"),
    ]


def test_nothing_is_lost_under_writes(here: redis.Redis, server: Server, oracle: Server) -> None:
    """A counter moves back and forth while others count: every INCR counts once."""
    counted = [0] * 4
    stop = threading.Event()

    def count(number: int) -> None:
        clients = [server.client(), oracle.client()]
        while not stop.is_set():
            clients[number % 2].incr("counter")
            counted[number] += 1

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    total = 0
    for thread in threads:
        thread.start()
    for _ in range(100):
        # What came back from there, and what is still here: added up in the end.
        reply = here.execute_command("MIGRATE", HOST, oracle.port, "counter", 1, 5000, "REPLACE")
        if reply == b"OK":
            taken = oracle.client(db=1).getdel("counter")
            assert taken is not None
            total += int(taken)
    stop.set()
    for thread in threads:
        thread.join()
    total += int(here.get("counter") or 0)
    assert total == counted[0] + counted[2]


def test_kill9_while_it_is_under_way(fresh_server: FreshServer, target: Target) -> None:
    """A key is in one place at least."""
    server = fresh_server()
    server.client().mset({"k": "v", "other": "v"})
    start(server, target, "k")
    server.kill9()
    datadir.check(server.directory / "db")
    server.start()
    assert server.client().get("k") == b"v"


def test_a_stop_while_it_is_under_way(fresh_server: FreshServer, target: Target) -> None:
    server = fresh_server()
    server.client().set("k", "v")
    start(server, target, "k", timeout=100_000)
    assert server.terminate() == 0
    server.start()
    assert server.client().get("k") == b"v"
