"""SUBSCRIBE and its kin, PUBLISH, PUBSUB: beside redis-server, and from the inside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from core import Core
from harness import Server, wait_until
from replies import Actor, Command, play, transcript

SCRIPTS: dict[str, list[Command]] = {
    "subscribe": [("SUBSCRIBE", "a", "b"), ("SUBSCRIBE", "a"), ("UNSUBSCRIBE", "a", "b", "c")],
    "patterns": [("PSUBSCRIBE", "a*", "b*"), ("PSUBSCRIBE", "a*"), ("PUNSUBSCRIBE", "a*", "b*")],
    "shard channels": [("SSUBSCRIBE", "a", "b"), ("SSUBSCRIBE", "a"), ("SUNSUBSCRIBE", "a", "b")],
    "unsubscribe from nothing": [
        *[("UNSUBSCRIBE",), ("PUNSUBSCRIBE",), ("SUNSUBSCRIBE",)],
        *[("UNSUBSCRIBE", "a", "b"), ("PUNSUBSCRIBE", "a"), ("SUNSUBSCRIBE", "a"), ("GET", "a")],
    ],
    "unsubscribe from all": [
        *[("SUBSCRIBE", "a"), ("PSUBSCRIBE", "b"), ("SSUBSCRIBE", "c")],
        *[("UNSUBSCRIBE",), ("PUNSUBSCRIBE",), ("GET", "k"), ("SUNSUBSCRIBE",), ("GET", "k")],
    ],
    "counts are of channels and patterns, and of shard channels": [
        *[("SUBSCRIBE", "a"), ("PSUBSCRIBE", "b"), ("SSUBSCRIBE", "c"), ("SUBSCRIBE", "d")],
        *[("SSUBSCRIBE", "e"), ("PUNSUBSCRIBE", "b"), ("SUNSUBSCRIBE", "c")],
    ],
    "what a subscriber may call": [
        *[("SUBSCRIBE", "a"), ("GET", "k"), ("PING",), ("PING", "text"), ("MULTI",), ("FOO",)],
        *[("PUBLISH", "b", "m"), ("PUBSUB", "NUMPAT"), ("CLIENT", "ID", "x"), ("RESET",)],
        ("GET", "k"),
    ],
    "shard subscribers too": [
        *[("SSUBSCRIBE", "a"), ("GET", "k"), ("PING",), ("SUNSUBSCRIBE",), ("PING",)],
    ],
    "arity": [
        *[("SUBSCRIBE",), ("PSUBSCRIBE",), ("SSUBSCRIBE",), ("PUBLISH", "a"), ("SPUBLISH", "a")],
        *[("PUBLISH", "a", "b", "c"), ("PUBSUB",), ("PUBSUB", "NUMPAT", "x")],
        *[("PUBSUB", "CHANNELS", "a", "b"), ("PUBSUB", "SHARDCHANNELS", "a", "b")],
        *[("PUBSUB", "FOO"), ("PUBSUB", "FOO", "x")],
    ],
    "publish to nobody": [("PUBLISH", "a", "m"), ("SPUBLISH", "a", "m"), ("PUBLISH", "", "")],
    "PUBSUB of nothing": [
        *[("PUBSUB", "CHANNELS"), ("PUBSUB", "NUMSUB"), ("PUBSUB", "NUMSUB", "a", "b", "a")],
        *[("PUBSUB", "NUMPAT"), ("PUBSUB", "SHARDCHANNELS"), ("PUBSUB", "SHARDNUMSUB", "a")],
        ("PUBSUB", "SHARDNUMSUB"),
    ],
    "inside MULTI": [
        *[("MULTI",), ("SUBSCRIBE", "a"), ("GET", "k"), ("PSUBSCRIBE", "b"), ("UNSUBSCRIBE",)],
        *[("PUNSUBSCRIBE",), ("SUNSUBSCRIBE",), ("EXEC",), ("GET", "k")],
    ],
    "several channels inside MULTI": [
        *[("MULTI",), ("SUBSCRIBE", "a", "b"), ("UNSUBSCRIBE", "a", "b"), ("EXEC",)],
    ],
    "SSUBSCRIBE inside MULTI": [("MULTI",), ("SSUBSCRIBE", "a"), ("EXEC",), ("GET", "k")],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", SCRIPTS)
def test_replies_are_those_of_redis(
    name: str, protocol: int, server: Server, oracle: Server
) -> None:
    ours, theirs = (transcript(s, SCRIPTS[name], protocol) for s in (server, oracle))
    assert ours == theirs


# -- scenes: several connections in a fixed order ------------------------------------------------

SCENES: dict[str, list[Command]] = {
    "channel": [("a", "SUBSCRIBE", "x"), ("b", "PUBLISH", "x", "m"), ("b", "PUBLISH", "y", "m")],
    "pattern": [
        *[("a", "PSUBSCRIBE", "n*", "[mo]?ws"), ("b", "PUBLISH", "news", "m")],
        *[("b", "PUBLISH", "naws", "m"), ("b", "PUBLISH", "mews", "m"), ("b", "PUBLISH", "x", "m")],
    ],
    "channel and pattern": [
        *[("a", "SUBSCRIBE", "x"), ("a", "PSUBSCRIBE", "?"), ("b", "SUBSCRIBE", "x")],
        *[("c", "PUBLISH", "x", "m"), ("a", "UNSUBSCRIBE"), ("c", "PUBLISH", "x", "m")],
    ],
    "shard channels are apart": [
        *[("a", "SUBSCRIBE", "x"), ("b", "SSUBSCRIBE", "x"), ("c", "PUBLISH", "x", "plain")],
        *[("c", "SPUBLISH", "x", "shard"), ("b", "SUNSUBSCRIBE"), ("c", "SPUBLISH", "x", "late")],
        ("c", "PUBSUB", "SHARDCHANNELS"),
    ],
    "empty names and messages": [
        *[("a", "SUBSCRIBE", ""), ("b", "PSUBSCRIBE", "*"), ("c", "PUBLISH", "", "")],
        *[("c", "PUBSUB", "CHANNELS"), ("c", "PUBSUB", "CHANNELS", "*"), ("a", "PSUBSCRIBE", "")],
        *[
            ("c", "PUBSUB", "CHANNELS", ""),
            ("c", "PUBSUB", "NUMSUB", ""),
            ("c", "PUBLISH", "", "m"),
        ],
        ("a", "PUNSUBSCRIBE"),
    ],
    "binary": [
        *[("a", "SUBSCRIBE", b"\xff\r\n\0"), ("b", "PUBLISH", b"\xff\r\n\0", b"\0\xfe\r\n")],
        ("b", "PUBSUB", "NUMSUB", b"\xff\r\n\0"),
    ],
    "PUBSUB": [
        *[("a", "SUBSCRIBE", "x"), ("a", "PSUBSCRIBE", "p*", "q*"), ("a", "SSUBSCRIBE", "s")],
        *[("b", "SUBSCRIBE", "x"), ("b", "PSUBSCRIBE", "p*"), ("c", "PUBSUB", "CHANNELS")],
        *[("c", "PUBSUB", "CHANNELS", "[x-z]"), ("c", "PUBSUB", "CHANNELS", "y")],
        *[("c", "PUBSUB", "NUMSUB", "x", "y", "x"), ("c", "PUBSUB", "NUMPAT")],
        *[("c", "PUBSUB", "SHARDCHANNELS"), ("c", "PUBSUB", "SHARDNUMSUB", "s", "x")],
        *[("b", "UNSUBSCRIBE"), ("b", "PUNSUBSCRIBE"), ("c", "PUBSUB", "NUMSUB", "x")],
        ("c", "PUBSUB", "NUMPAT"),
    ],
    "RESET unsubscribes": [
        *[("a", "SUBSCRIBE", "x"), ("a", "PSUBSCRIBE", "x"), ("a", "SSUBSCRIBE", "x")],
        *[("a", "RESET"), ("b", "PUBLISH", "x", "m"), ("b", "SPUBLISH", "x", "m")],
        ("b", "PUBSUB", "CHANNELS"),
    ],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", SCENES)
def test_scenes_are_those_of_redis(
    name: str, protocol: int, server: Server, oracle: Server
) -> None:
    assert play(server, SCENES[name], protocol) == play(oracle, SCENES[name], protocol)


def test_patterns_are_matched_in_order_of_subscription(server: Server) -> None:
    listener = Actor(server.conn(), 2)
    patterns = [b"x*", b"*x", b"*", b"x"]
    listener.act("PSUBSCRIBE", *patterns)
    assert server.client().publish("x", "m") == 4
    listener.catch_up()
    assert [reply.split(b"\r\n")[4] for reply in listener.received[4:]] == patterns


def test_each_subscriber_gets_the_form_of_its_protocol(server: Server) -> None:
    old, new = Actor(server.conn(), 2), Actor(server.conn(), 3)
    for actor in (old, new):
        actor.act("SUBSCRIBE", "x")
    assert server.client().publish("x", "m") == 2
    for actor, head in ((old, b"*"), (new, b">")):
        actor.catch_up()
        assert actor.received[-1] == head + b"3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\nm\r\n"


def test_the_protocol_can_change_while_subscribed(server: Server) -> None:
    refused = b"-ERR Can't execute 'get'"
    with server.conn() as conn:
        conn.ask("HELLO", 3)
        conn.ask("SUBSCRIBE", "x")
        assert conn.ask("GET", "k") == b"_\r\n"
        conn.ask("HELLO", 2)
        assert conn.ask("GET", "k").startswith(refused)
        assert conn.ask("HELLO", 3).startswith(b"-ERR Can't execute 'hello'")


# -- messages to oneself: after the reply, as since Redis 7.2 (7.0 sent them before it) ------------


def message(channel: bytes, text: bytes, head: bytes = b">") -> bytes:
    parts = b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in (b"message", channel, text))
    return head + b"3\r\n" + parts


def test_own_message_follows_the_reply(server: Server) -> None:
    commands: list[Command] = [("SUBSCRIBE", "x"), ("PUBLISH", "x", "m"), ("PING",)]
    assert transcript(server, commands, 3)[1:] == [b":1\r\n", message(b"x", b"m"), b"+PONG\r\n"]


def test_own_messages_follow_the_reply_to_exec(server: Server) -> None:
    commands: list[Command] = [
        *[("SUBSCRIBE", "x"), ("MULTI",), ("PUBLISH", "x", "1"), ("UNSUBSCRIBE", "x")],
        *[("PUBLISH", "x", "2"), ("SUBSCRIBE", "x"), ("PUBLISH", "x", "3"), ("EXEC",)],
    ]
    received = transcript(server, commands, 3)
    push = b">3\r\n$%d\r\n%b\r\n$1\r\nx\r\n:%d\r\n"
    unsubscribed, subscribed = push % (11, b"unsubscribe", 0), push % (9, b"subscribe", 1)
    assert received[-3:] == [
        b"*5\r\n:1\r\n" + unsubscribed + b":0\r\n" + subscribed + b":1\r\n",
        message(b"x", b"1"),
        message(b"x", b"3"),
    ]


def test_under_resp2_one_can_hear_oneself_inside_a_transaction(server: Server) -> None:
    commands: list[Command] = [
        *[("MULTI",), ("SUBSCRIBE", "x"), ("PUBLISH", "x", "m"), ("GET", "k"), ("EXEC",)],
    ]
    subscribed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
    assert transcript(server, commands)[-2:] == [
        b"*3\r\n" + subscribed + b":1\r\n$-1\r\n",
        message(b"x", b"m", b"*"),
    ]


def test_own_notifications_follow_the_reply(server: Server) -> None:
    channel = b"__keyevent@0__:set"
    commands: list[Command] = [
        *[("CONFIG", "SET", "notify-keyspace-events", "E$"), ("SUBSCRIBE", channel)],
        *[("SET", "k", 1), ("GET", "k")],
    ]
    expected = [b"+OK\r\n", message(channel, b"k"), b"$1\r\n1\r\n"]
    assert transcript(server, commands, 3)[-3:] == expected


# -- clients come and go -----------------------------------------------------------------------


def test_redis_py_listens(client: redis.Redis) -> None:
    listener = client.pubsub()
    listener.subscribe("x")
    listener.psubscribe("y*")

    def next_message() -> dict[str, Any]:
        return wait_until(listener.get_message, what="a message")

    assert [next_message()["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
    assert client.publish("x", "one") == 1
    assert client.publish("yes", "two") == 1
    first, second = next_message(), next_message()
    assert (first["type"], first["channel"], first["data"]) == ("message", b"x", b"one")
    assert (second["type"], second["pattern"], second["data"]) == ("pmessage", b"y*", b"two")
    listener.unsubscribe()
    listener.punsubscribe()
    assert [next_message()["data"] for _ in range(2)] == [1, 0]
    listener.close()


def test_a_closed_connection_is_subscribed_to_nothing(server: Server) -> None:
    client, conn = server.client(), server.conn()
    for command in ("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"):
        conn.ask(command, "x")
    assert client.info("clients")["pubsub_clients"] == 1
    assert client.info("stats")["pubsub_channels"] == 1
    conn.close()
    wait_until(lambda: not client.pubsub_channels(), what="the subscription is gone")
    assert client.pubsub_numpat() == 0
    assert client.pubsub_shardchannels() == []
    assert client.publish("x", "m") == 0


def test_messages_keep_the_order_of_each_publisher(server: Server) -> None:
    listener = server.conn()
    listener.ask("SUBSCRIBE", "x")

    def publish(name: str) -> None:
        pipe = server.client().pipeline(transaction=False)
        for number in range(500):
            pipe.publish("x", f"{name} {number}")
        pipe.execute()

    threads = [threading.Thread(target=publish, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    heard: dict[bytes, list[int]] = {b"a": [], b"b": []}
    for _ in range(1000):
        name, number = listener.reply().split(b"\r\n")[-2].split()
        heard[name].append(int(number))
    for thread in threads:
        thread.join()
    assert heard == {b"a": list(range(500)), b"b": list(range(500))}


def test_a_subscriber_that_does_not_read_is_closed(fresh_server: FreshServer) -> None:
    limit = ("pubsub", "2mb", "0", "0")
    server = fresh_server(client_output_buffer_limit=limit)
    deaf, listener, client = server.conn(), server.conn(), server.client()
    for conn in (deaf, listener):
        conn.ask("SUBSCRIBE", "x")
    text = b"x" * 200_000
    receivers = 2
    for _ in range(500):
        receivers = client.publish("x", text)
        listener.reply()
        if receivers == 1:
            break
    assert receivers == 1, "the deaf subscriber is still there"
    assert client.info("stats")["client_output_buffer_limit_disconnections"] == 1
    assert client.publish("x", "end") == 1
    assert listener.reply().endswith(b"end\r\n")


# -- from the inside: messages and the fate of the writes that they tell of ----------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db", notify_keyspace_events="KEA") as core:
        yield core


def subscribed(core: Core, *names: bytes) -> Any:
    listener = core.client()
    listener.ask(b"SUBSCRIBE", *names)
    return listener


def test_a_message_about_a_write_that_fails_is_never_sent(core: Core) -> None:
    listener, client = subscribed(core, b"__keyevent@0__:set", b"other"), core.client()
    client.ask(b"SET", b"k", b"1")
    assert listener.take() == message(b"__keyevent@0__:set", b"k", b"*")
    client.call(b"PUBLISH", b"other", b"before")
    core.fail_writes()
    assert b"-MISCONF" in client.ask(b"SET", b"k", b"2")
    assert listener.take() == message(b"other", b"before", b"*")
    assert client.ask(b"PUBLISH", b"other", b"after") == b":1\r\n"
    assert listener.take() == message(b"other", b"after", b"*")


@pytest.mark.parametrize("write_first", [False, True])
def test_messages_of_a_transaction_share_its_fate(write_first: bool, core: Core) -> None:
    listener, client = subscribed(core, b"x"), core.client()
    commands = [(b"PUBLISH", b"x", b"m"), (b"SET", b"k", b"1")]

    def execute() -> bytes:
        client.call(b"MULTI")
        for command in sorted(commands, reverse=write_first):
            client.call(*command)
        client.call(b"EXEC")
        core.end_turn()
        return client.take()

    execute()
    assert listener.take() == message(b"x", b"m", b"*")
    core.fail_writes()
    assert b"-MISCONF" in execute()
    assert listener.take() == b""


def test_messages_of_a_large_transaction_share_its_fate(core: Core) -> None:
    listener, client = subscribed(core, b"x"), core.client()
    core.fail_writes()
    client.call(b"MULTI")
    client.call(b"PUBLISH", b"x", b"m")
    client.call(b"SET", b"k", b"v" * (2 << 20))  # the batch is cut right after EXEC
    assert b"-MISCONF" in client.ask(b"EXEC")
    assert listener.take() == b""


def test_messages_of_a_transaction_that_crashes_are_never_sent(core: Core) -> None:
    def crash(*_args: Any) -> None:
        raise ZeroDivisionError("a defect")

    listener, client = subscribed(core, b"x"), core.client()
    core.server.table.names[b"ECHO"].handler = crash
    for command in ([b"MULTI"], [b"SET", b"k", b"1"], [b"PUBLISH", b"x", b"m"], [b"ECHO", b"x"]):
        client.call(*command)
    assert b"internal error" in client.ask(b"EXEC")
    assert listener.take() == b""


def test_a_message_waits_for_the_fsync_of_its_write(core: Core) -> None:
    listener, client = subscribed(core, b"__keyevent@0__:set"), core.client()
    core.log.set_wait_for_sync(True)
    assert client.ask(b"SET", b"k", b"1") == b""
    assert listener.take() == b""
    position = core.log.begin_sync()
    assert position is not None
    core.engine.sync_wal()
    core.log.end_sync(position)
    core.turn.released()
    assert client.take() == b"+OK\r\n"
    assert listener.take() == message(b"__keyevent@0__:set", b"k", b"*")
