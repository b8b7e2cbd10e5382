"""DEBUG: what client test suites use, beside a real redis-server."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from conftest import FreshServer
from harness import Server, wait_until

REPLY_TYPES = "string integer double bignum null array set map verbatim true false"
TYPES = [*REPLY_TYPES.split(), "nosuch"]

REFUSED = [
    "DEBUG",
    "DEBUG NOSUCH",
    "DEBUG SLEEP",
    "DEBUG SLEEP 0 0",
    "DEBUG OBJECT",
    "DEBUG OBJECT missing",
    "DEBUG PROTOCOL",
    "DEBUG LOG",
    "DEBUG RELOAD BOGUS",
    "DEBUG SET-ACTIVE-EXPIRE",
]


@pytest.mark.parametrize("command", REFUSED)
def test_errors_are_those_of_redis(command: str, server: Server, oracle: Server) -> None:
    replies = [one.conn().ask(*command.split()) for one in (server, oracle)]
    assert replies[0].startswith(b"-ERR ")
    assert replies[0] == replies[1]


@pytest.mark.parametrize("protocol", [2, 3])
def test_protocol(protocol: int, server: Server, oracle: Server) -> None:
    replies = []
    for one in (server, oracle):
        conn = one.conn()
        conn.ask("HELLO", protocol)
        replies.append([conn.ask("DEBUG", "PROTOCOL", kind) for kind in TYPES])
        # Two replies each under RESP3; ECHO after them shows that there is nothing else.
        for kind in ("attrib", "push"):
            conn.ask("DEBUG", "PROTOCOL", kind)
            tail = [conn.ask("ECHO", "end")]
            while tail[-1] != b"$3\r\nend\r\n":
                tail.append(conn.reply())
            replies[-1] += tail
    assert replies[0] == replies[1]


def test_attribute_comes_before_its_reply(server: Server) -> None:
    conn = server.conn()
    conn.ask("HELLO", "3")
    assert conn.ask("DEBUG", "PROTOCOL", "attrib").startswith(b"|1\r\n$14\r\nkey-popularity\r\n")


def test_error_is_sent_as_it_is(server: Server) -> None:
    conn = server.conn()
    assert conn.ask("DEBUG", "ERROR", "MYERR of\nmine") == b"-MYERR of mine\r\n"
    assert b"MYERR" not in conn.ask("INFO", "errorstats")


def test_log(client: redis.Redis, server: Server) -> None:
    server.mark_log()
    assert client.execute_command("DEBUG LOG", "seen by whoever reads") == b"OK"
    wait_until(lambda: "# DEBUG LOG: seen by whoever reads" in server.log_tail())


def test_sleep_blocks_everybody(server: Server) -> None:
    conn = server.conn()
    began = time.monotonic()
    conn.send(b"*3\r\n$5\r\nDEBUG\r\n$5\r\nSLEEP\r\n$3\r\n0.2\r\n")
    # A new connection is served when the loop goes on.
    wait_until(lambda: server.client().ping())
    assert conn.reply() == b"+OK\r\n"
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("seconds", ["0", "-1", "x", ""])
def test_sleep_of_nothing(seconds: str, client: redis.Redis) -> None:
    assert client.execute_command("DEBUG SLEEP", seconds) == b"OK"


def object_fields(reply: bytes) -> dict[bytes, bytes]:
    words = reply.removeprefix(b"Value ").split()
    return {name: value for name, _, value in (word.partition(b":") for word in words)}


@pytest.mark.parametrize(
    ("value", "encoding"),
    [("12", "int"), ("012", "embstr"), ("x" * 44, "embstr"), ("x" * 45, "raw"), ("", "embstr")],
)
def test_object(value: str, encoding: str, both: tuple[Any, Any]) -> None:
    for client in both:
        client.set("k", value)
    mine, reference = (object_fields(client.execute_command("DEBUG OBJECT k")) for client in both)
    assert mine.keys() == reference.keys()
    assert mine[b"encoding"] == reference[b"encoding"] == encoding.encode()
    assert mine[b"refcount"] == reference[b"refcount"]
    assert mine[b"serializedlength"] == b"%d" % len(value)
    assert mine[b"lru_seconds_idle"] == b"0"


def test_active_expire_can_be_turned_off(client: redis.Redis) -> None:
    client.execute_command("DEBUG SET-ACTIVE-EXPIRE", 0)
    client.set("k", "v", px=1)
    time.sleep(0.01)
    # The counts still hold what is expired, since only a cycle could have deleted it.
    assert client.dbsize() == 1
    client.execute_command("DEBUG SET-ACTIVE-EXPIRE", 1)
    wait_until(lambda: client.dbsize() == 0)


def test_reload_finds_everything_on_disk(client: redis.Redis) -> None:
    client.set("k", "v")
    client.set("e", "v", px=1_000_000)
    before = client.info("keyspace")
    for options in ([], ["NOSAVE"], ["NOSAVE", "NOFLUSH", "MERGE"]):
        assert client.execute_command("DEBUG RELOAD", *options) == b"OK"
        assert client.info("memory")["row_cache_rows"] == 0
        assert client.info("keyspace").keys() == before.keys()
        assert client.dbsize() == 2
        assert client.get("k") == client.get("e") == b"v"
    assert 0 < client.pttl("e") <= 1_000_000


def test_reload_sees_writes_of_the_same_turn(server: Server) -> None:
    conn = server.conn()
    conn.send(b"SET a 1\r\nDEBUG RELOAD\r\nGET a\r\n")
    assert [conn.reply() for _ in range(3)] == [b"+OK\r\n", b"+OK\r\n", b"$1\r\n1\r\n"]


def test_reload_is_not_for_transactions(client: redis.Redis) -> None:
    transaction = client.pipeline(transaction=True)
    transaction.set("k", 1)
    transaction.execute_command("DEBUG RELOAD")
    with pytest.raises(redis.ResponseError, match="DENY BLOCKING"):
        transaction.execute()
    assert client.get("k") == b"1"


def test_memory_map(client: redis.Redis) -> None:
    assert b"\nRss: " in client.execute_command("DEBUG JMAP")


@pytest.mark.parametrize(("pattern", "string", "matches"), [("h*o", "hello", 1), ("h?o", "hi", 0)])
def test_string_match(pattern: str, string: str, matches: int, client: redis.Redis) -> None:
    assert client.execute_command("DEBUG STRINGMATCH-LEN", pattern, string) == matches


def test_help_names_every_subcommand(client: redis.Redis) -> None:
    lines = client.execute_command("DEBUG HELP")
    named = {line.split()[0] for line in lines[1:] if not line.startswith(b" ")}
    for name in named:
        try:
            # More arguments than any of them takes.
            client.execute_command("DEBUG", name, *"abcdef")
        except redis.ResponseError as error:
            assert f"wrong number of arguments for '{name.decode()}'" in str(error)
        else:
            raise AssertionError(name)
    assert {b"SLEEP", b"OBJECT", b"RELOAD", b"PROTOCOL", b"SET-ACTIVE-EXPIRE", b"HELP"} <= named


def test_is_refused_unless_allowed(fresh_server: FreshServer) -> None:
    client = fresh_server(enable_debug_command="no").client()
    message = (
        'DEBUG command not allowed. If the enable-debug-command option is set to "local", you '
        "can run it from a local connection, otherwise you need to set this option in the "
        "configuration file, and then restart the server."
    )
    with pytest.raises(redis.ResponseError) as caught:
        client.execute_command("DEBUG SLEEP", 0)
    assert str(caught.value) == message


def test_local_allows_loopback(fresh_server: FreshServer) -> None:
    client = fresh_server(enable_debug_command="local").client()
    assert client.execute_command("DEBUG SLEEP", 0) == b"OK"
