"""CLIENT: what it says of connections, and how it ends them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from conftest import FreshServer
from core import Client, LaterCore
from harness import Conn, Server, encode_command, wait_until
from replies import Command, transcript

from kvserver.state import clientinfo
from kvserver.state.context import Blocked

SCRIPTS: dict[str, list[Command]] = {
    "errors": [
        *[("CLIENT", "FOO"), ("CLIENT",), ("CLIENT", "ID", "x"), ("client", "help", "x")],
        *[("CLIENT", "KILL"), ("CLIENT", "KILL", "1.2.3.4:5"), ("CLIENT", "KILL", "ADDR")],
        *[("CLIENT", "KILL", "ID", word) for word in ("0", "-1", "x")],
        *[("CLIENT", "KILL", "TYPE", "foo"), ("CLIENT", "KILL", "USER", "nobody")],
        *[("CLIENT", "KILL", "SKIPME", "x"), ("CLIENT", "KILL", "ID", 1, "ADDR")],
        *[("CLIENT", "KILL", "FOO", "BAR"), ("CLIENT", "KILL", "ID", 1, "x")],
        *[("CLIENT", "LIST", "TYPE", "foo"), ("CLIENT", "LIST", "ID"), ("CLIENT", "LIST", "FOO")],
        *[("CLIENT", "LIST", "ID", "x"), ("CLIENT", "LIST", "ID", 1, "x"), ("CLIENT", "LIST", 1)],
        *[("CLIENT", "UNBLOCK", "x"), ("CLIENT", "UNBLOCK", 1, "foo"), ("CLIENT", "UNBLOCK", 999)],
        *[("CLIENT", "UNBLOCK", 1, "ERROR", "x"), ("CLIENT", "PAUSE", 1, "ALL", "x")],
        *[("CLIENT", "PAUSE", word) for word in ("x", "-1", "1.5", "")],
        *[("CLIENT", "PAUSE", 1, "foo"), ("CLIENT", "REPLY"), ("CLIENT", "REPLY", "foo")],
        *[("CLIENT", "NO-EVICT", "x"), ("CLIENT", "NO-EVICT"), ("CLIENT", "SETNAME")],
    ],
    "answers": [
        *[("CLIENT", "NO-EVICT", "on"), ("CLIENT", "NO-EVICT", "OFF"), ("CLIENT", "GETREDIR")],
        *[("CLIENT", "KILL", "TYPE", "master"), ("CLIENT", "KILL", "ID", 999)],
        *[("CLIENT", "LIST", "TYPE", "replica"), ("CLIENT", "LIST", "ID", 9999)],
        *[("CLIENT", "UNPAUSE"), ("CLIENT", "PAUSE", 0), ("CLIENT", "PAUSE", 0, "write")],
    ],
    "replies off": [
        *[("CLIENT", "REPLY", "OFF"), ("PING",), ("CLIENT", "REPLY", "SKIP"), ("PING",)],
        *[("FOO",), ("GET",), ("CLIENT", "REPLY", "ON"), ("PING",)],
    ],
    "replies skipped": [
        *[("CLIENT", "REPLY", "SKIP"), ("PING", 1), ("PING", 2), ("CLIENT", "REPLY", "SKIP")],
        *[("FOO",), ("PING", 3), ("CLIENT", "REPLY", "SKIP"), ("CLIENT", "REPLY", "ON")],
        *[("PING", 4), ("CLIENT", "REPLY", "SKIP"), ("CLIENT", "REPLY", "SKIP"), ("PING", 5)],
        ("PING", 6),
    ],
    "messages come though replies are off": [
        *[("HELLO", 3, "x"), ("CLIENT", "REPLY", "ON"), ("SUBSCRIBE", "c")],
        *[("CLIENT", "REPLY", "OFF"), ("PUBLISH", "c", "m"), ("CLIENT", "REPLY", "ON")],
        ("UNSUBSCRIBE",),
    ],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies_are_those_of_redis(
    script: list[Command], protocol: int, server: Server, oracle: Server
) -> None:
    assert transcript(server, script, protocol) == transcript(oracle, script, protocol)


def test_replies_of_later_versions(client: redis.Redis) -> None:
    """What redis-server 7.0 doesn't know."""
    for command, text in {
        "CLIENT KILL MAXAGE x": "maxage is not an integer or out of range",
        "CLIENT KILL MAXAGE 0": "maxage should be greater than 0",
        "CLIENT SETINFO foo bar": "Unrecognized option 'foo'",
        "CLIENT SETINFO lib-name a\nb": (
            "lib-name cannot contain spaces, newlines or special characters."
        ),
        "CLIENT NO-TOUCH x": "syntax error",
        f"CLIENT PAUSE {(1 << 63) - 1}": "timeout is out of range",
    }.items():
        with pytest.raises(redis.ResponseError) as error:
            client.execute_command(*command.split(" "))
        assert str(error.value) == text


# -- the line of fields ----------------------------------------------------------------------

#: Redis 7.4's, in its order.
FIELDS = (
    "id addr laddr fd name age idle flags db sub psub ssub multi watch qbuf qbuf-free argv-mem "
    "multi-mem rbs rbp obl oll omem tot-mem events cmd user redir resp lib-name lib-ver"
)


def fields(line: bytes) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.decode().split(" "))


def describe(conn: Conn) -> dict[str, str]:
    """CLIENT INFO of a RESP2 connection."""
    reply = conn.ask("CLIENT", "INFO")
    assert reply.endswith(b"\n\r\n")
    return fields(reply.split(b"\r\n", 1)[1][:-3])


def listed(server: Server, *words: str | int) -> list[dict[str, str]]:
    reply = server.conn().ask("CLIENT", "LIST", *words)
    return [fields(line) for line in reply.split(b"\r\n", 1)[1][:-2].splitlines()]


def seen(server: Server, conn: Conn, number: str) -> dict[str, str]:
    """What another connection is told."""
    [line] = listed(server, "ID", number)
    return line


def test_fields_and_their_order(server: Server, oracle: Server) -> None:
    assert " ".join(describe(server.conn())) == FIELDS
    known = list(describe(oracle.conn()))
    assert [name for name in FIELDS.split() if name in known] == known


def test_values(server: Server) -> None:
    conn = server.conn()
    port = conn.sock.getsockname()[1]
    conn.ask("CLIENT", "SETNAME", "me")
    conn.ask("CLIENT", "SETINFO", "LIB-NAME", "lib")
    conn.ask("CLIENT", "SETINFO", "lib-ver", "1.2")
    conn.ask("SELECT", 7)
    mine = describe(conn)
    assert mine["addr"] == f"127.0.0.1:{port}"
    assert mine["laddr"] == f"127.0.0.1:{server.port}"
    assert mine["id"] == conn.ask("CLIENT", "ID")[1:-2].decode()
    expected = {"name": "me", "db": "7", "flags": "N", "cmd": "client|info", "user": "default"}
    expected |= {"lib-name": "lib", "lib-ver": "1.2", "resp": "2", "redir": "-1", "events": "r"}
    assert {name: mine[name] for name in expected} == expected
    conn.ask("CLIENT", "SETINFO", "LIB-NAME", "")
    assert describe(conn)["lib-name"] == ""


def test_flags_and_counts(server: Server) -> None:
    conn = server.conn()
    number = describe(conn)["id"]
    conn.ask("CLIENT", "NO-EVICT", "ON")
    conn.ask("CLIENT", "NO-TOUCH", "ON")
    assert describe(conn)["flags"] == "eT"
    conn.ask("RESET")
    assert describe(conn)["flags"] == "N"
    conn.ask("WATCH", "k", "l")
    conn.ask("MULTI")
    conn.ask("SET", "k", "vvvv")
    line = seen(server, conn, number)
    assert (line["flags"], line["multi"], line["watch"]) == ("x", "1", "2")
    assert line["multi-mem"] == "8"
    server.conn().ask("SET", "k", "v")
    assert seen(server, conn, number)["flags"] == "xd"
    conn.ask("DISCARD")
    conn.ask("SUBSCRIBE", "a")
    conn.ask("PSUBSCRIBE", "b")
    conn.ask("SSUBSCRIBE", "c")
    line = seen(server, conn, number)
    assert [line[name] for name in ("flags", "sub", "psub", "ssub")] == ["P", "1", "1", "1"]
    conn.ask("RESET")
    conn.ask("MONITOR")
    assert seen(server, conn, number)["flags"] == "O"


def test_memory_of_what_was_sent_and_not_taken(server: Server) -> None:
    server.client().set("big", bytes(8 << 20))
    conn = server.conn()
    number = describe(conn)["id"]
    conn.send(b"GET big\r\n" * 3 + b"*2\r\n$4\r\nECHO\r\n$100000\r\n" + bytes(50_000))
    line = wait_until(
        lambda: line if int((line := seen(server, conn, number))["omem"]) > 1 << 20 else None
    )
    assert line["events"].endswith("w")
    assert int(line["tot-mem"]) > int(line["omem"]) + int(line["qbuf"])


def test_a_partial_request_is_in_the_query_buffer(server: Server) -> None:
    conn = server.conn()
    number = describe(conn)["id"]
    conn.send(b"*2\r\n$4\r\nECHO\r\n$100000\r\n" + bytes(50_000))
    wait_until(lambda: int(seen(server, conn, number)["qbuf"]) > 50_000)


def test_list_by_type_and_id(server: Server) -> None:
    one, other, listener = (server.conn() for _ in range(3))
    ids = [describe(conn)["id"] for conn in (one, other, listener)]
    listener.ask("SUBSCRIBE", "c")
    assert [line["id"] for line in listed(server, "TYPE", "pubsub")] == [ids[2]]
    assert {line["id"] for line in listed(server, "TYPE", "NORMAL")} >= {ids[0], ids[1]}
    assert ids[2] not in {line["id"] for line in listed(server, "TYPE", "normal")}
    assert listed(server, "TYPE", "slave") == listed(server, "TYPE", "master") == []
    assert [line["id"] for line in listed(server, "ID", ids[1], 99999, ids[0])] == [ids[1], ids[0]]
    assert len(listed(server)) >= 4


def test_a_list_of_many(server: Server) -> None:
    conns = [server.conn() for _ in range(300)]
    ids = {describe(conn)["id"] for conn in conns}
    assert ids < {line["id"] for line in listed(server)}
    assert len(listed(server, "ID", *ids, *ids)) == 600
    conn = server.conn()
    conn.send(b"MULTI\r\nCLIENT LIST\r\nEXEC\r\n")
    assert conn.reply() + conn.reply() == b"+OK\r\n+QUEUED\r\n"
    assert conn.reply().count(b"\n") > 300


def test_list_is_verbatim_text_with_resp3(server: Server) -> None:
    conn = server.conn()
    conn.ask("HELLO", 3)
    assert re.match(rb"=\d+\r\ntxt:id=", conn.ask("CLIENT", "LIST"))
    assert re.match(rb"=\d+\r\ntxt:id=", conn.ask("CLIENT", "INFO"))


# -- kill ------------------------------------------------------------------------------------


def is_closed(conn: Conn) -> bool:
    return conn.read_to_end() == b""


def killed(server: Server, *filters: str | int) -> bytes:
    return server.conn().ask("CLIENT", "KILL", *filters)


def test_kill_by_address(server: Server) -> None:
    conn, other = server.conn(), server.conn()
    addr = describe(conn)["addr"]
    assert killed(server, addr) == b"+OK\r\n"
    assert is_closed(conn)
    assert killed(server, "ADDR", describe(other)["addr"]) == b":1\r\n"
    assert is_closed(other)
    assert killed(server, "ADDR", addr) == b":0\r\n"


def test_kill_by_id_is_seen_at_once(server: Server) -> None:
    conn, admin = server.conn(), server.conn()
    number = describe(conn)["id"]
    admin.send(
        encode_command("CLIENT", "KILL", "ID", number) + b"CLIENT LIST ID %d\r\n" % int(number)
    )
    assert admin.reply() == b":1\r\n"
    assert admin.reply() == b"$0\r\n\r\n"
    assert is_closed(conn)


def test_kill_all_filters_must_match(server: Server) -> None:
    conn, listener = server.conn(), server.conn()
    mine, theirs = describe(conn), describe(listener)
    listener.ask("SUBSCRIBE", "c")
    assert killed(server, "ID", mine["id"], "TYPE", "pubsub") == b":0\r\n"
    assert killed(server, "ID", theirs["id"], "ADDR", mine["addr"]) == b":0\r\n"
    assert killed(server, "LADDR", "127.0.0.1:1", "ID", mine["id"]) == b":0\r\n"
    assert killed(server, "MAXAGE", 1000) == b":0\r\n"
    assert killed(server, "TYPE", "pubsub", "USER", "default", "LADDR", mine["laddr"]) == b":1\r\n"
    assert is_closed(listener)
    assert conn.ask("PING") == b"+PONG\r\n"


def test_kill_by_age(server: Server) -> None:
    old = server.conn()
    number = describe(old)["id"]
    wait_until(lambda: int(seen(server, old, number)["age"]) >= 1)
    assert killed(server, "MAXAGE", 100, "ID", number) == b":0\r\n"
    assert killed(server, "MAXAGE", 1, "ID", number) == b":1\r\n"
    assert is_closed(old)


def test_kill_skips_the_caller_unless_told(server: Server) -> None:
    conn, other = server.conn(), server.conn()
    number = describe(conn)["id"]
    assert conn.ask("CLIENT", "KILL", "ID", number) == b":0\r\n"
    other.ask("PING")
    assert conn.ask("CLIENT", "KILL", "TYPE", "normal") == b":1\r\n"
    assert is_closed(other)
    conn.send(encode_command("CLIENT", "KILL", "ID", number, "SKIPME", "no") + b"SET k v\r\n")
    assert conn.read_to_end() == b":1\r\n"
    assert server.client().exists("k") == 0


def test_the_old_form_kills_the_caller(server: Server) -> None:
    conn = server.conn()
    conn.send(encode_command("CLIENT", "KILL", describe(conn)["addr"]))
    assert conn.read_to_end() == b"+OK\r\n"


def test_a_killed_client_is_forgotten(server: Server) -> None:
    conn, admin = server.conn(), server.client(decode_responses=True)
    number = describe(conn)["id"]
    conn.ask("WATCH", "k")
    conn.ask("SUBSCRIBE", "c")
    assert admin.client_kill_filter(_id=number) == 1
    assert admin.pubsub_numsub("c") == [("c", 0)]
    assert admin.info("clients")["total_watched_keys"] == 0
    assert admin.publish("c", "m") == 0


# -- unblock -----------------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[LaterCore]:
    with LaterCore(tmp_path / "db") as core:
        yield core


def block(core: LaterCore, client: Client, forgotten: list[bool]) -> None:
    """Make a client wait as a blocking command does."""
    blocked = Blocked(0, lambda: b"timed out", lambda: forgotten.append(True))
    entry = core.server.table.entries[b"ping"]
    assert core.server.waiting.begins(client.session, entry, [b"PING"], blocked)


@pytest.mark.parametrize(
    ("reason", "reply"),
    [
        ((), b"$9\r\ntimed out\r\n"),
        ((b"TIMEOUT",), b"$9\r\ntimed out\r\n"),
        ((b"error",), b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
    ],
)
def test_unblock(core: LaterCore, reason: tuple[bytes, ...], reply: bytes) -> None:
    blocked, admin = core.client(), core.client()
    forgotten: list[bool] = []
    block(core, blocked, forgotten)
    assert clientinfo.flags(blocked.session) == "b"
    unblock = (b"CLIENT", b"UNBLOCK", b"%d" % blocked.session.id, *reason)
    assert admin.ask(*unblock) == b":1\r\n"
    assert admin.ask(*unblock) == b":0\r\n"
    assert forgotten == [True]
    core.run_later()
    assert blocked.take() == reply
    assert not blocked.session.stop


def test_unblock_needs_a_blocked_client(server: Server) -> None:
    conn = server.conn()
    assert server.conn().ask("CLIENT", "UNBLOCK", describe(conn)["id"]) == b":0\r\n"
    assert server.conn().ask("CLIENT", "UNBLOCK", 123456) == b":0\r\n"


# -- limits of clients ---------------------------------------------------------------------------


def test_maxclients(fresh_server: FreshServer) -> None:
    server = fresh_server(maxclients=3)
    conns = [server.conn() for _ in range(3)]
    assert [conn.ask("PING") for conn in conns] == [b"+PONG\r\n"] * 3
    assert server.conn().read_to_end() == b"-ERR max number of clients reached\r\n"
    assert b"rejected_connections:1\r\n" in conns[0].ask("INFO", "stats")
    assert b"total_connections_received:4\r\n" in conns[0].ask("INFO", "stats")
    conns.pop().close()
    wait_until(lambda: b"connected_clients:2\r\n" in conns[0].ask("INFO", "clients"))
    assert server.conn().ask("PING") == b"+PONG\r\n"


def test_maxclients_at_run_time(server: Server) -> None:
    client = server.client()
    client.config_set("maxclients", 1)
    assert server.conn().read_to_end() == b"-ERR max number of clients reached\r\n"
    with pytest.raises(redis.ResponseError, match="is not able to handle the specified number"):
        client.config_set("maxclients", 1 << 30)
    assert client.config_get("maxclients") == {"maxclients": "1"}
    client.config_set("maxclients", 10_000)


def test_timeout_closes_who_is_idle_and_waits_for_nothing(server: Server) -> None:
    idle, listener, busy = (server.conn() for _ in range(3))
    listener.ask("SSUBSCRIBE", "c")
    busy.ask("CONFIG", "SET", "timeout", 1)
    numbers = [describe(idle)["id"]]
    wait_until(lambda: busy.ask("CLIENT", "LIST", "ID", *numbers) == b"$0\r\n\r\n")
    assert is_closed(idle)
    busy.ask("SPUBLISH", "c", "m")
    assert b"smessage" in listener.reply()


def test_connections_that_do_nothing_are_small(server: Server) -> None:
    conns = [server.conn() for _ in range(500)]
    for conn in conns:
        conn.send(b"PING\r\n")
    assert all(conn.reply() == b"+PONG\r\n" for conn in conns)
    before = resident(server)
    more = [server.conn() for _ in range(500)]
    for conn in more:
        conn.send(b"PING\r\n")
    assert all(conn.reply() == b"+PONG\r\n" for conn in more)
    # 5,000 of them are to stay below 200 MB.
    assert (resident(server) - before) / 500 < 16 * 1024


def resident(server: Server) -> int:
    """Bytes of memory of the process."""
    pages = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
    return int(pages) * 4096
