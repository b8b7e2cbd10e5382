"""PING, ECHO, SELECT, QUIT, RESET, HELLO and AUTH: beside redis-server, and passwords kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from conftest import FreshServer
from harness import Conn, Server
from replies import END, Command, transcript, typed

SECRET = "a-secret-that-must-not-be-seen"

SCRIPTS: dict[str, list[Command]] = {
    "ping": [("PING",), ("ping", "hi"), ("PING", ""), ("PING", "a", "b")],
    "echo": [("ECHO", "x"), ("ECHO", b"\r\n\0"), ("ECHO",), ("ECHO", "a", "b")],
    "select": [
        *[("SELECT", 3), ("SET", "k", "v"), ("SELECT", 15), ("EXISTS", "k"), ("SELECT", 16)],
        *[("SELECT", -1), ("SELECT", "x"), ("SELECT", ""), ("SELECT", "1.0"), ("SELECT", 1 << 31)],
        *[("SELECT", 1 << 63), ("SELECT",), ("SELECT", 3), ("GET", "k")],
    ],
    "hello refused": [
        *[("HELLO", 1), ("HELLO", 4), ("HELLO", "x"), ("HELLO", ""), ("HELLO", 2, "FOO")],
        *[("HELLO", 2, "AUTH", "default"), ("HELLO", 3, "AUTH", "nobody", "x"), ("HELLO", "AUTH")],
        *[("HELLO", 2, "SETNAME"), ("HELLO", 3, "SETNAME", "a b"), ("HELLO", 3, "SETNAME", "\n")],
        ("HELLO", 3, "AUTH", "default", "x", "what", "else"),
    ],
    "names": [
        *[("CLIENT", "GETNAME"), ("CLIENT", "SETNAME", "one"), ("CLIENT", "GETNAME")],
        *[("CLIENT", "SETNAME", ""), ("CLIENT", "GETNAME"), ("CLIENT", "SETNAME", "two")],
        *[("CLIENT", "SETNAME", "a b"), ("CLIENT", "SETNAME", "\x7f"), ("CLIENT", "GETNAME")],
        *[("RESET",), ("CLIENT", "GETNAME")],
    ],
    "auth without a password": [
        *[("AUTH", "x"), ("AUTH", "default", "anything"), ("AUTH", "nobody", "x"), ("AUTH",)],
        *[("AUTH", "a", "b", "c"), ("AUTH", "", ""), ("AUTH", "DEFAULT", "x")],
    ],
    "reset": [
        *[("SELECT", 5), ("MULTI",), ("SET", "a", 1), ("RESET",), ("EXEC",), ("SET", "b", 1)],
        *[("SELECT", 5), ("EXISTS", "b"), ("RESET", "x"), ("WATCH", "b"), ("RESET",)],
        *[("SELECT", 0), ("SET", "b", 2), ("MULTI",), ("PING",), ("EXEC",)],
    ],
    "reset ends subscriptions": [
        *[("SUBSCRIBE", "c"), ("PSUBSCRIBE", "p*"), ("SSUBSCRIBE", "s"), ("PING",), ("PING", "x")],
        *[("GET", "k"), ("RESET",), ("GET", "k"), ("PUBLISH", "c", "m"), ("SPUBLISH", "s", "m")],
    ],
    "reset ends silence": [("CLIENT", "REPLY", "OFF"), ("PING",), ("RESET",), ("PING",)],
    "quit and reset in a transaction": [("MULTI",), ("RESET",), ("EXEC",), ("QUIT",)],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies_are_those_of_redis(
    script: list[Command], protocol: int, server: Server, oracle: Server
) -> None:
    if script[-1] == ("QUIT",):
        assert to_the_end(server, script) == to_the_end(oracle, script)
    else:
        assert transcript(server, script, protocol) == transcript(oracle, script, protocol)


def to_the_end(server: Server, script: list[Command]) -> list[bytes]:
    conn = server.conn()
    return [conn.ask(*command) for command in script] + [conn.read_to_end()]


@pytest.mark.parametrize("protocol", [2, 3])
def test_hello_says_who_we_are(protocol: int, server: Server) -> None:
    kind, items = typed(server.conn().ask("HELLO", protocol))
    assert kind == ("*" if protocol == 2 else "%")
    fields = dict(zip([text for _, text in items[::2]], items[1::2], strict=True))
    assert list(fields) == ["server", "version", "proto", "id", "mode", "role", "modules"]
    assert fields.pop("id")[0] == ":"
    assert list(fields.values()) == [
        ("$", "redis"),
        ("$", "7.4.0"),
        (":", str(protocol)),
        ("$", "standalone"),
        ("$", "master"),
        ("*", []),
    ]


def test_hello_without_arguments_keeps_the_protocol(server: Server) -> None:
    conn = server.conn()
    assert conn.ask("HELLO")[:1] == b"*"
    conn.ask("HELLO", 3)
    assert conn.ask("HELLO")[:1] == b"%"
    assert conn.ask("HELLO", 2)[:1] == b"*"


def test_hello_two_with_subscriptions_restricts_again(server: Server) -> None:
    conn = server.conn()
    conn.ask("HELLO", 3)
    conn.ask("SUBSCRIBE", "c")
    assert conn.ask("GET", "k") == b"_\r\n"
    conn.ask("HELLO", 2)
    assert conn.ask("GET", "k").startswith(b"-ERR Can't execute 'get'")
    assert conn.ask("PING") == b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


def test_a_failed_hello_changes_nothing(server: Server) -> None:
    conn = server.conn()
    hello = ("HELLO", 3, "SETNAME", "new", "AUTH")
    assert conn.ask(*hello, "nobody", "x").startswith(b"-WRONGPASS")
    assert conn.ask(*hello).startswith(b"-ERR Syntax error in HELLO option")
    assert conn.ask("PING", "x") == b"$1\r\nx\r\n"
    assert conn.ask("CLIENT", "GETNAME") == b"$-1\r\n"


def test_redis_py_connects_with_its_defaults(server: Server) -> None:
    with redis.Redis(port=server.port) as client:
        assert client.ping()
        mine = client.client_info()
        assert mine["resp"] == "3"
        assert mine["lib-name"].startswith("redis-py")
        assert mine["lib-ver"] == redis.__version__


# -- passwords -----------------------------------------------------------------------------


@pytest.fixture
def locked(server: Server) -> Iterator[Server]:
    admin = server.client()
    admin.config_set("requirepass", SECRET)
    yield server
    admin.config_set("requirepass", "")


@pytest.fixture
def locked_oracle(oracle: Server) -> Iterator[Server]:
    admin = oracle.client()
    admin.config_set("requirepass", SECRET)
    yield oracle
    admin.config_set("requirepass", "")


LOCKED: list[Command] = [
    *[("PING",), ("GET", "k"), ("FOO",), ("GET",), ("MULTI",), ("CLIENT", "ID"), ("RESET",)],
    *[("AUTH", "wrong"), ("AUTH", "default", "wrong"), ("AUTH", "nobody", SECRET), ("AUTH", "")],
    *[("HELLO", 3, "AUTH", "default", "wrong"), ("HELLO", 9), ("PING",), ("AUTH", SECRET)],
    *[("PING",), ("AUTH", "wrong"), ("PING",), ("RESET",), ("PING",)],
    *[("HELLO", 2, "AUTH", "default", SECRET, "SETNAME", "me"), ("CLIENT", "GETNAME")],
    *[("AUTH", "default", SECRET), ("PING", END)],
]


def test_what_a_locked_server_answers(locked: Server, locked_oracle: Server) -> None:
    ours, theirs = (
        [conn.ask(*c) for c in LOCKED] for conn in (locked.conn(), locked_oracle.conn())
    )
    at = LOCKED.index(("HELLO", 2, "AUTH", "default", SECRET, "SETNAME", "me"))
    assert ours.pop(at)[:4] == theirs.pop(at)[:4] == b"*14\r"
    assert ours == theirs


def test_hello_without_authentication(locked: Server) -> None:
    reply = locked.conn().ask("HELLO", 3)
    assert reply.startswith(b"-NOAUTH HELLO must be called with the client already authenticated")


def test_authenticated_clients_stay_when_the_password_changes(server: Server) -> None:
    client = server.client()
    client.config_set("requirepass", "one")
    client.config_set("requirepass", "two")
    stranger = server.conn()
    assert stranger.ask("PING").startswith(b"-NOAUTH")
    assert stranger.ask("AUTH", "one").startswith(b"-WRONGPASS")
    assert stranger.ask("AUTH", "two") == b"+OK\r\n"
    client.config_set("requirepass", "")
    assert stranger.ask("PING") == b"+PONG\r\n"


def test_no_password_needs_no_authentication(server: Server) -> None:
    client = server.client()
    client.config_set("requirepass", "one")
    waiting = server.conn()
    assert waiting.ask("PING").startswith(b"-NOAUTH")
    client.config_set("requirepass", "")
    assert waiting.ask("PING") == b"+PONG\r\n"


def test_failed_authentications_are_counted(locked: Server) -> None:
    conn = locked.conn()
    conn.ask("AUTH", "wrong")
    conn.ask("HELLO", 3, "AUTH", "default", "wrong")
    conn.ask("AUTH", SECRET)
    info = conn.ask("INFO", "stats")
    assert b"\r\nacl_access_denied_auth:2\r\n" in info


def test_requirepass_from_the_start(fresh_server: FreshServer) -> None:
    server = fresh_server(requirepass=SECRET)
    assert server.conn().ask("PING").startswith(b"-NOAUTH")
    assert server.client(password=SECRET).ping()
    assert server.client(username="default", password=SECRET, protocol=2).ping()


def test_no_secret_is_shown(fresh_server: FreshServer) -> None:
    """Neither logged, nor in MONITOR, SLOWLOG, CLIENT LIST, INFO or an error."""
    server = fresh_server(slowlog_log_slower_than=0, loglevel="debug", latency_monitor_threshold=1)
    watcher, conn = server.conn(), server.conn()
    assert watcher.ask("MONITOR") == b"+OK\r\n"
    seen = [conn.ask("CONFIG", "SET", "requirepass", SECRET)]
    for command in (
        ("AUTH", SECRET),
        ("AUTH", "default", SECRET),
        ("auth", SECRET, SECRET),
        ("AUTH", SECRET, SECRET, SECRET),
        ("HELLO", 2, "AUTH", "default", SECRET),
        ("HELLO", 2, "auth", SECRET, SECRET, "SETNAME", "x"),
        ("HELLO", 2, "SETNAME", "AUTH", "AUTH", "default", SECRET),
        ("CONFIG", "SET", "REQUIREPASS", SECRET, "timeout", 0),
        ("CONFIG", "SET", "timeout", "x", "tls-key-file-pass", SECRET),
        ("MULTI",),
        ("AUTH", SECRET),
        ("EXEC",),
    ):
        seen.append(conn.ask(*command))
    asleep = server.conn()
    asleep.send(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%b" % (len(SECRET), SECRET.encode()))
    for command in (("SLOWLOG", "GET", -1), ("CLIENT", "LIST"), ("INFO", "everything")):
        seen.append(conn.ask(*command))
    seen.append(monitored(watcher, conn))
    server.terminate()
    seen.append(server.log_text().encode())
    for text in seen:
        assert SECRET.encode() not in text
    assert any(b"(redacted)" in text for text in seen)


def monitored(watcher: Conn, conn: Conn) -> bytes:
    """What MONITOR shows up to now."""
    conn.ask("ECHO", "the end")
    lines = b""
    while b'"the end"' not in lines:
        lines += watcher.read_line()
    return lines
