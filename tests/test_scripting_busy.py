"""A script that runs for too long: who is told BUSY, and how it is ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import FreshServer
from harness import REDIS, Conn, Server, encode_command, wait_until

BUSY = b"-BUSY Redis is busy running a script. You can only call %b KILL or SHUTDOWN NOSAVE.\r\n"
ENDLESS = "while true do pcall(function() while true do end end) end"
LIBRARY = "#!lua name=lib\nredis.register_function('loop', function() while true do end end)"


@pytest.fixture(params=["kvserver", "redis-server"])
def slow(request: pytest.FixtureRequest, fresh_server: FreshServer) -> Server:
    """A server that has little patience; both programs must behave alike."""
    if request.param == "kvserver":
        return fresh_server(busy_reply_threshold=50)
    return fresh_server(busy_reply_threshold=50, program=REDIS)


def start(server: Server, *command: str) -> Conn:
    """A connection whose script runs, and is known to be slow."""
    conn = server.conn()
    conn.send(encode_command(*command))
    wait_until(lambda: b"Slow script" in server.log_text().encode())
    return conn


def test_a_script_is_killed(slow: Server) -> None:
    known = slow.conn()
    known.ask("PING")
    runs = start(slow, "EVAL", ENDLESS, "0")
    busy = BUSY % b"SCRIPT"
    for conn in (known, slow.conn()):
        assert conn.ask("GET", "a") == busy
        assert conn.ask("FUNCTION", "KILL") == busy
        assert conn.ask("FUNCTION", "STATS") == busy
        assert conn.ask("SHUTDOWN") == busy
        assert conn.ask("NOSUCH").startswith(b"-ERR unknown command")
        assert conn.ask("MULTI") == b"+OK\r\n"
        assert conn.ask("DISCARD") == b"+OK\r\n"
    known.send(encode_command("GET", "a") + encode_command("SCRIPT", "KILL"))
    assert known.reply() == busy
    assert known.reply() == b"+OK\r\n"
    assert runs.reply().startswith(b"-ERR Script killed by user with SCRIPT KILL... script: ")
    assert known.ask("SET", "a", 1) == b"+OK\r\n"
    assert known.ask("SCRIPT", "KILL").startswith(b"-NOTBUSY ")


@pytest.mark.parametrize(
    "script",
    [
        "while true do end",
        "coroutine.wrap(function() while true do end end)()",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "local function f() while true do pcall(f) end end f()",
        "while true do xpcall(function() while true do end end, function() end) end",
        "xpcall(function() while true do end end, function() while true do end end) "
        "while true do end",
        "while true do redis.call('ping') end",
        "while true do cjson.decode(cjson.encode({1, 2, {a='b'}})) end",
        "table.sort({3, 2, 1}, function() while true do end end)",
        "return loadstring('while true do end')()",
    ],
)
def test_every_loop_can_be_ended(fresh_server: FreshServer, script: str) -> None:
    server = fresh_server(busy_reply_threshold=30)
    runs = start(server, "EVAL", script, "0")
    assert server.conn().ask("SCRIPT", "KILL") == b"+OK\r\n"
    assert runs.reply().startswith(b"-ERR Script killed by user")
    assert server.conn().ask("EVAL", "return 1", 0) == b":1\r\n"


def test_a_function_is_killed(slow: Server) -> None:
    known = slow.conn()
    known.ask("FUNCTION", "LOAD", LIBRARY)
    runs = start(slow, "FCALL", "loop", "0")
    busy = BUSY % b"FUNCTION"
    assert known.ask("GET", "a") == busy
    assert known.ask("SCRIPT", "KILL") == busy
    assert b"$4\r\nloop\r\n" in known.ask("FUNCTION", "STATS")
    assert known.ask("FUNCTION", "KILL") == b"+OK\r\n"
    assert runs.reply().startswith(b"-ERR Script killed by user with SCRIPT KILL... script: loop")


def test_a_script_that_wrote_is_not_killed(slow: Server) -> None:
    known = slow.conn()
    start(slow, "EVAL", "redis.call('set', 'a', 1) while true do end", "0")
    assert known.ask("SCRIPT", "KILL").startswith(b"-UNKILLABLE Sorry the script already executed")
    known.send(encode_command("SHUTDOWN", "NOSAVE"))
    slow.process.wait(10)


def test_what_was_sent_in_parts_is_answered_later(fresh_server: FreshServer) -> None:
    server = fresh_server(busy_reply_threshold=50)
    known = server.conn()
    runs = start(server, "EVAL", ENDLESS, "0")
    request = encode_command("SET", "a", "x" * 1000)
    known.send(request[:500])
    assert server.conn().ask("GET", "a") == BUSY % b"SCRIPT"
    killer = server.conn()
    assert killer.ask("SCRIPT", "KILL") == b"+OK\r\n"
    assert runs.reply().startswith(b"-ERR Script killed")
    known.send(request[500:])
    assert known.reply() == b"+OK\r\n"


def test_what_a_stopped_script_wrote_is_forgotten(
    fresh_server: FreshServer, tmp_path: Path
) -> None:
    server = fresh_server(busy_reply_threshold=50, directory=tmp_path / "data")
    conn = server.conn()
    assert conn.ask("SET", "before", 1) == b"+OK\r\n"
    start(server, "EVAL", "redis.call('set', 'during', 1) while true do end", "0")
    conn.send(encode_command("SHUTDOWN", "NOSAVE"))
    assert server.process.wait(10) == 0
    server.start()
    conn = server.conn()
    assert conn.ask("EXISTS", "before") == b":1\r\n"
    assert conn.ask("EXISTS", "during") == b":0\r\n"


def test_who_has_no_permission_kills_nothing(fresh_server: FreshServer) -> None:
    server = fresh_server(busy_reply_threshold=50, requirepass="secret")
    inside = server.conn()
    assert inside.ask("AUTH", "secret") == b"+OK\r\n"
    inside.send(encode_command("EVAL", ENDLESS, "0"))
    wait_until(lambda: b"Slow script" in server.log_text().encode())
    outside = server.conn()
    assert outside.ask("SCRIPT", "KILL").startswith(b"-NOAUTH ")
    assert outside.ask("AUTH", "wrong").startswith(b"-WRONGPASS ")
    assert outside.ask("AUTH", "secret") == b"+OK\r\n"
    assert outside.ask("SCRIPT", "KILL") == b"+OK\r\n"
    assert inside.reply().startswith(b"-ERR Script killed")


def test_a_peer_that_goes_or_talks_nonsense(fresh_server: FreshServer) -> None:
    server = fresh_server(busy_reply_threshold=50)
    goes, babbles, killer = server.conn(), server.conn(), server.conn()
    runs = start(server, "EVAL", ENDLESS, "0")
    goes.close()
    babbles.send(b"*1\r\n$3\r\nGET\r\n*-x\r\n")
    newcomer = server.conn()
    newcomer.send(b"*1\r\n!\r\n")
    assert killer.ask("SCRIPT", "KILL") == b"+OK\r\n"
    assert runs.reply().startswith(b"-ERR Script killed")
    assert killer.ask("PING") == b"+PONG\r\n"
    assert babbles.reply().startswith(b"-ERR wrong number of arguments for 'get'")
    assert babbles.reply().startswith(b"-ERR Protocol error")
