"""CAS and CAD: the replies that Kvrocks documents, since redis-server has no such commands."""

from __future__ import annotations

import pytest
import redis
from harness import Server
from pair import LATER, heard


@pytest.mark.parametrize("value", ["", "old", "1"])
def test_cas(client: redis.Redis, value: str) -> None:
    assert client.execute_command("CAS", "k", value, "new") == -1
    assert not client.exists("k")
    client.set("k", value)
    assert client.execute_command("CAS", "k", "other", "new") == 0
    assert client.get("k") == value.encode()
    assert client.execute_command("cas", "k", value, "new") == 1
    assert client.get("k") == b"new"


def test_cas_forgets_the_time_to_expire(client: redis.Redis) -> None:
    client.set("k", "a", exat=LATER)
    assert client.execute_command("CAS", "k", "x", "b") == 0
    assert client.expiretime("k") == LATER
    assert client.execute_command("CAS", "k", "a", "b") == 1
    assert client.expiretime("k") == -1


@pytest.mark.parametrize(
    ("option", "when", "least", "most"),
    [
        ("EX", 1000, 990_000, 1_000_000),
        ("px", 1000_000, 990_000, 1_000_000),
        ("EXAT", LATER, 10**9, 10**18),
        ("PXAT", LATER * 1000, 10**9, 10**18),
    ],
)
def test_cas_with_a_time_to_expire(
    client: redis.Redis, option: str, when: int, least: int, most: int
) -> None:
    client.set("k", "a")
    assert client.execute_command("CAS", "k", "a", "b", option, when) == 1
    assert least <= client.pttl("k") <= most


def test_cas_in_the_past(client: redis.Redis) -> None:
    client.set("k", "a")
    assert client.execute_command("CAS", "k", "a", "b", "EXAT", 1) == 1
    assert client.get("k") is None
    assert client.execute_command("CAS", "k", "b", "c") == -1
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("EX", "syntax error"),
        ("EX 10 PX 10", "syntax error"),
        ("KEEPTTL", "syntax error"),
        ("NX", "syntax error"),
        ("EX 0", "invalid expire time in 'cas' command"),
        ("PX -1", "invalid expire time in 'cas' command"),
        ("EX 9223372036854775807", "invalid expire time in 'cas' command"),
        ("EX ten", "value is not an integer or out of range"),
    ],
)
def test_cas_refuses_options(client: redis.Redis, options: str, error: str) -> None:
    client.set("k", "a")
    with pytest.raises(redis.ResponseError, match=error):
        client.execute_command("CAS", "k", "a", "b", *options.split())
    assert client.get("k") == b"a"


def test_cad(client: redis.Redis) -> None:
    assert client.execute_command("CAD", "k", "a") == -1
    client.set("k", "a")
    assert client.execute_command("CAD", "k", "b") == 0
    assert client.execute_command("CAD", "k", "a") == 1
    assert client.execute_command("CAD", "k", "a") == -1
    assert not client.exists("k")


@pytest.mark.parametrize("command", ["CAS", "CAS k", "CAS k a", "CAD", "CAD k", "CAD k a b"])
def test_wrong_number_of_arguments(client: redis.Redis, command: str) -> None:
    name = command.split()[0].lower()
    with pytest.raises(redis.ResponseError, match=f"wrong number of arguments for '{name}'"):
        client.execute_command(*command.split())


def test_notifications(server: Server) -> None:
    server.client().config_set("notify-keyspace-events", "KA")
    listener = server.conn()
    listener.ask("PSUBSCRIBE", "__keyspace@0__:*")
    conn = server.conn()
    commands = "SET k a|CAS k x y|CAS k a b|CAS k b c EX 100|CAD k x|CAD k c|CAS k a b|CAD k a"
    for command in commands.split("|"):
        conn.ask(*command.split())
    conn.ask("PUBLISH", "__keyspace@0__:end", "end")
    assert [message.split(b"\r\n")[-2] for message in heard(listener)] == [
        *(b"set", b"set", b"set", b"expire", b"del"),
    ]


def test_in_a_transaction(client: redis.Redis) -> None:
    with client.pipeline() as pipe:
        pipe.set("k", "a")
        pipe.execute_command("CAS", "k", "a", "b")
        pipe.execute_command("CAD", "k", "a")
        pipe.execute_command("CAD", "k", "b")
        assert pipe.execute()[1:] == [1, 0, 1]
