"""Keyspace notifications, end to end and beside redis-server."""

from __future__ import annotations

import pytest
from harness import Server, wait_until
from replies import Actor, Command, play

LISTEN: Command = ("listener", "PSUBSCRIBE", "__key*")


def configure(server: Server, flags: str) -> None:
    server.client().config_set("notify-keyspace-events", flags)


def scene(*commands: Command) -> list[Command]:
    return [LISTEN, *(("writer", *command) for command in commands)]


SCRIPTS: dict[str, list[Command]] = {
    "set": [
        *[("SET", "a", 1), ("SET", "a", 2, "EX", 100), ("SET", "a", 3, "KEEPTTL")],
        *[("SET", "a", 4, "NX"), ("SET", "b", 1, "XX"), ("SET", "a", 5, "GET")],
        *[("SET", "a", 6, "PXAT", 4102444800000), ("SET", "a", 7, "EXAT", 1)],
    ],
    "older set commands": [
        *[("SETNX", "a", 1), ("SETNX", "a", 2), ("SETEX", "b", 100, 1), ("PSETEX", "b", 10000, 1)],
        *[("GETSET", "a", 2), ("GETSET", "c", 2)],
    ],
    "several keys": [
        *[("MSET", "a", 1, "b", 2, "a", 3), ("MSETNX", "c", 1, "d", 2), ("MSETNX", "c", 1, "e", 2)],
        ("MGET", "a", "b"),
    ],
    "numbers": [
        *[("INCR", "n"), ("DECR", "n"), ("INCRBY", "n", 5), ("DECRBY", "n", 2)],
        *[("INCRBYFLOAT", "n", "0.5"), ("INCR", "n")],
    ],
    "parts": [
        *[("APPEND", "a", "x"), ("APPEND", "a", ""), ("SETRANGE", "a", 3, "y")],
        *[("SETRANGE", "a", 0, ""), ("SETRANGE", "none", 0, ""), ("GETRANGE", "a", 0, -1)],
    ],
    "get and change": [
        *[("SET", "a", 1), ("GETEX", "a"), ("GETEX", "a", "EX", 100), ("GETEX", "a", "PERSIST")],
        *[("GETEX", "a", "PERSIST"), ("GETEX", "a", "PXAT", 1), ("GETDEL", "a"), ("SET", "a", 1)],
        ("GETDEL", "a"),
    ],
    "delete": [
        *[("MSET", "a", 1, "b", 2, "c", 3), ("DEL", "a", "none", "b"), ("UNLINK", "c", "none")],
        *[("SET", "a", 1), ("FLUSHDB",), ("SET", "a", 1), ("FLUSHALL",)],
    ],
    "rename": [
        *[("SET", "a", 1), ("RENAME", "a", "b"), ("RENAME", "b", "b"), ("SET", "a", 1)],
        *[("RENAMENX", "a", "b"), ("RENAMENX", "a", "c"), ("RENAME", "none", "c")],
        *[("RENAME", "b", "c"), ("RENAMENX", "c", "c")],
    ],
    "copy and move": [
        *[("SET", "a", 1), ("COPY", "a", "b"), ("COPY", "a", "b"), ("COPY", "a", "b", "REPLACE")],
        *[("COPY", "a", "c", "DB", 2), ("MOVE", "a", 3), ("MOVE", "none", 3), ("SET", "a", 1)],
        ("MOVE", "a", 3),
    ],
    "time to live": [
        *[("SET", "a", 1), ("EXPIRE", "a", 100), ("PEXPIRE", "a", 100000), ("PERSIST", "a")],
        *[("PERSIST", "a"), ("EXPIREAT", "a", 4102444800), ("PEXPIREAT", "a", 4102444800000)],
        *[("EXPIRE", "a", 10, "GT"), ("EXPIRE", "a", 10, "LT"), ("EXPIRE", "none", 10)],
        *[("EXPIRE", "a", -1), ("SET", "a", 1), ("PEXPIREAT", "a", 1), ("TTL", "a")],
    ],
    "another database": [("SELECT", 5), ("SET", "a", 1), ("DEL", "a"), ("SWAPDB", 5, 6)],
    "odd names": [("SET", b"\xff\r\n\0", 1), ("SET", "", 1), ("DEL", "")],
    "errors tell nothing": [
        *[("SET", "s", "text"), ("INCR", "s"), ("SET", "a", 1, "EX", 0), ("APPEND", "s"), ("FOO",)],
    ],
}


@pytest.mark.parametrize("flags", ["KEA", "Eg", "K$", "KEn", "KEm", "KEg$nm"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_events_are_those_of_redis(name: str, flags: str, server: Server, oracle: Server) -> None:
    for one in (server, oracle):
        configure(one, flags)
    ours, theirs = (play(one, scene(*SCRIPTS[name])) for one in (server, oracle))
    assert ours["listener"] == theirs["listener"]


@pytest.mark.parametrize("flags", ["", "K", "E", "A", "g$", "KEx", "KElshztd"])
def test_without_channel_or_class_there_is_no_message(flags: str, server: Server) -> None:
    configure(server, flags)
    received = play(server, scene(("SET", "a", 1), ("EXPIRE", "a", 100), ("DEL", "a")))
    assert len(received["listener"]) == 1


def test_keyspace_comes_before_keyevent(server: Server) -> None:
    configure(server, "KEA")
    received = play(server, scene(("SET", "a", 1)))["listener"][1:]
    assert received == [
        pmessage(b"__keyspace@0__:a", b"set"),
        pmessage(b"__keyevent@0__:set", b"a"),
    ]


def pmessage(channel: bytes, text: bytes) -> bytes:
    parts = (b"pmessage", b"__key*", channel, text)
    return b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def test_the_flags_can_change_while_somebody_listens(server: Server) -> None:
    listener, client = Actor(server.conn()), server.client()
    listener.act(*LISTEN[1:])
    for flags, heard in (("", 0), ("E$", 1), ("KE$", 2), ("KEg", 0)):
        configure(server, flags)
        before = len(listener.received)
        client.set("a", 1)
        listener.catch_up()
        assert len(listener.received) - before == heard


@pytest.mark.parametrize("program", ["server", "oracle"])
def test_events_of_a_transaction_come_in_its_order(
    program: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(program)
    configure(server, "E$g")
    listener = Actor(server.conn())
    listener.act(*LISTEN[1:])
    pipe = server.client().pipeline()
    pipe.set("a", 1, ex=100).rename("a", "b").delete("b").execute()
    listener.catch_up()
    assert listener.received[1:] == [
        pmessage(b"__keyevent@0__:set", b"a"),
        pmessage(b"__keyevent@0__:expire", b"a"),
        pmessage(b"__keyevent@0__:rename_from", b"a"),
        pmessage(b"__keyevent@0__:rename_to", b"b"),
        pmessage(b"__keyevent@0__:del", b"b"),
    ]


# -- expiry ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "touch",
    [
        *[
            ("GET", "a"),
            ("EXISTS", "a"),
            ("TTL", "a"),
            ("DEL", "a"),
            ("SET", "a", 2),
            ("INCR", "a"),
        ],
        *[("EXPIRE", "a", 10), ("RENAME", "a", "b"), ("APPEND", "a", "x"), ("SETNX", "a", 1)],
        *[("MSET", "a", 1, "b", 2), ("COPY", "a", "b"), ("GETDEL", "a"), ("TYPE", "a")],
    ],
)
def test_an_expired_key_is_told_by_the_command_that_meets_it(
    touch: Command, server: Server, oracle: Server
) -> None:
    heard = []
    for one in (server, oracle):
        configure(one, "EA")
        client = one.client()
        client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        client.set("a", 1, px=1)
        wait_for_expiry(one)
        heard.append(play(one, scene(touch))["listener"][1:])
        client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    assert heard[0] == heard[1]
    assert heard[0][0] == pmessage(b"__keyevent@0__:expired", b"a")


def wait_for_expiry(server: Server) -> None:
    """Wait until the server's clock is past the time of key `a`, which nobody may touch."""
    client = server.client()
    end = client.time()

    def later() -> bool:
        seconds, micros = client.time()
        return (seconds - end[0]) * 1000 + (micros - end[1]) / 1000 > 2

    wait_until(later)


def test_active_expiry_tells_too(server: Server, oracle: Server) -> None:
    for one in (server, oracle):
        configure(one, "KEx")
        listener = one.conn()
        listener.ask(*LISTEN[1:])
        client = one.client(db=3)
        client.set("a", 1, px=1)
        assert listener.reply() == pmessage(b"__keyspace@3__:a", b"expired")
        assert listener.reply() == pmessage(b"__keyevent@3__:expired", b"a")
        assert client.dbsize() == 0


def test_an_expired_key_is_told_once(server: Server) -> None:
    configure(server, "Ex")
    listener = Actor(server.conn())
    listener.act(*LISTEN[1:])
    client = server.client()
    for number in range(20):
        client.set(f"key:{number}", 1, px=1)
    wait_until(lambda: client.dbsize() == 0)
    listener.catch_up()
    told = sorted(reply.split(b"\r\n")[-2] for reply in listener.received[1:])
    assert told == sorted(b"key:%d" % number for number in range(20))
