"""FUNCTION, FCALL: beside redis-server; that libraries are data, and survive what data survives."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from conftest import FreshServer
from harness import Server, wait_until
from pair import Command, Pair

from kvserver.rdb.errors import BadFormat
from kvserver.scripting import payload

LIBRARY = """#!lua name=lib
local function write(keys, args)
  return redis.call('set', keys[1], args[1])
end
redis.register_function('write', write)
redis.register_function{
  function_name='read', callback=function(keys) return redis.call('get', keys[1]) end,
  flags={'no-writes'}, description='reads'
}
redis.register_function('wrong', function() return nosuch end)
redis.register_function('call', function() return redis.call('nosuch') end)
redis.register_function('globals', function() return {KEYS == nil} end)
redis.register_function('late', function() redis.register_function('x', function() end) end)
redis.register_function('map', function() return {map={a=1.5}} end)
"""
ONE = "redis.register_function('one', function() return 1 end)"


def library(name: str, body: str = ONE) -> str:
    return f"#!lua name={name}\n{body}"


LOADS = [
    "x",
    "#!lua name=a",
    "#!lua\nx",
    "#!lux name=a\nx",
    "#!lua name=a b=1\nx",
    "#!lua name=a name=b\nx",
    library("a-b"),
    library(""),
    library("a", "x"),
    library("a", "x = 1"),
    library("a", "x ="),
    library("a", "local x = 1"),
    library("a", "redis.call('set', 'a', 1)"),
    library("a", "redis.setresp(3)"),
    library("a", "return math.random()"),
    library("a", "redis.x = 1"),
    library("a", "redis.register_function()"),
    library("a", "redis.register_function(1)"),
    library("a", "redis.register_function(1, 2, 3)"),
    library("a", "redis.register_function('f', 1)"),
    library("a", "redis.register_function({}, function() end)"),
    library("a", "redis.register_function('f-', function() end)"),
    library("a", f"{ONE} {ONE}"),
    library("a", "redis.register_function{function_name='f'}"),
    library("a", "redis.register_function{callback=function() end}"),
    library("a", "redis.register_function{function_name=1, callback=function() end}"),
    library("a", "redis.register_function{function_name='f', callback=1}"),
    library("a", "redis.register_function{function_name='f', callback=function() end, x=1}"),
    library("a", "redis.register_function{function_name='f', callback=function() end, flags=1}"),
    library(
        "a", "redis.register_function{function_name='f', callback=function() end, flags={'z'}}"
    ),
    library("a", "redis.register_function{function_name='f', callback=function() end, [1]=1}"),
    library("a", "while true do end"),
    library("a", "error('at load')"),
]


def test_loading_is_as_in_redis(pair: Pair) -> None:
    pair.same([("FUNCTION", "FLUSH"), *(("FUNCTION", "LOAD", code) for code in LOADS)])


CALLS: list[Command] = [
    ("FUNCTION", "LOAD", LIBRARY),
    ("FUNCTION", "LOAD", LIBRARY),
    ("FUNCTION", "LOAD", "REPLACE", LIBRARY),
    ("FUNCTION", "LOAD", "FOO", LIBRARY),
    ("FUNCTION", "LOAD", library("other", ONE.replace("one", "write"))),
    ("FCALL", "write", 1, "k", "v"),
    ("FCALL", "read", 1, "k"),
    ("FCALL_RO", "read", 1, "k"),
    ("FCALL_RO", "write", 1, "k", "v"),
    ("FCALL", "wrong", 0),
    ("FCALL", "call", 0),
    ("FCALL", "globals", 0),
    ("FCALL", "late", 0),
    ("FCALL", "map", 0),
    ("FCALL", "nosuch", 0),
    ("FCALL", "read", "x"),
    ("FCALL", "read", -1),
    ("FCALL", "read", 2, "k"),
    ("FCALL", "read"),
    ("MULTI",),
    ("FCALL", "write", 1, "k", "w"),
    ("FCALL", "read", 1, "k"),
    ("EXEC",),
    ("EVAL", "return redis.call('fcall', 'read', 1, 'k')", 0),
    ("FUNCTION", "STATS"),
    ("FUNCTION", "LIST", "LIBRARYNAME"),
    ("FUNCTION", "LIST", "FOO"),
    ("FUNCTION", "LIST", "LIBRARYNAME", "x*"),
    ("FUNCTION", "KILL"),
    ("FLUSHALL",),
    ("FCALL", "one", 0),
    ("FUNCTION", "LOAD", library("single")),
    ("FCALL", "one", 0),
    ("FUNCTION", "LIST", "LIBRARYNAME", "s*", "WITHCODE"),
    ("FUNCTION", "DELETE", "nosuch"),
    ("FUNCTION", "DELETE", "lib"),
    ("FCALL", "write", 1, "k", "v"),
    ("FUNCTION", "LIST"),
    ("FUNCTION", "FLUSH", "FOO"),
    ("FUNCTION", "FLUSH", "SYNC", "x"),
    ("FUNCTION", "FLUSH", "ASYNC"),
    ("FUNCTION", "LIST"),
    ("FUNCTION", "STATS"),
    ("FUNCTION", "RESTORE", "x"),
    ("FUNCTION", "RESTORE", "x", "FOO"),
    ("FUNCTION", "RESTORE", "x", "FLUSH", "y"),
    ("FUNCTION", "nosuch"),
]


def test_calling_is_as_in_redis(pair: Pair) -> None:
    pair.same([("FUNCTION", "FLUSH"), *CALLS])


@pytest.fixture
def functions(server: Server) -> Any:
    """A client of a server that has no functions, before and after the test."""
    client = server.client(decode_responses=False)
    client.function_flush()
    yield client
    client.function_flush()


def test_a_dump_goes_from_one_program_to_the_other(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    for source, target in ((ours, theirs), (theirs, ours)):
        source.function_flush()
        target.function_flush()
        source.function_load(LIBRARY)
        source.function_load(library("single"))
        target.function_restore(source.function_dump())
        assert target.fcall("one", 0) == 1
        assert target.fcall("write", 1, "k", "v") == b"OK"
    for client in both:
        client.function_flush()


def test_restore_is_all_or_nothing(functions: redis.Redis) -> None:
    functions.function_load(library("a", ONE.replace("one", "f")))
    functions.function_load(library("b", ONE.replace("one", "g")))
    dump = functions.function_dump()
    functions.function_flush()
    functions.function_load(library("b", ONE.replace("one", "old")))
    with pytest.raises(redis.ResponseError, match="Library b already exists"):
        functions.function_restore(dump)
    with pytest.raises(redis.ResponseError, match="Function not found"):
        functions.fcall("f", 0)
    functions.function_restore(dump, "REPLACE")
    assert functions.fcall("f", 0) == functions.fcall("g", 0) == 1
    with pytest.raises(redis.ResponseError, match="Function not found"):
        functions.fcall("old", 0)
    functions.function_flush()
    functions.function_load(library("c", ONE.replace("one", "g")))
    with pytest.raises(redis.ResponseError, match="Function g already exists"):
        functions.function_restore(dump, "REPLACE")
    functions.function_restore(dump, "FLUSH")
    assert functions.execute_command("FUNCTION", "STATS")


def test_what_payload_refuses() -> None:
    dump = payload.dump([b"code"])
    assert payload.load(dump) == [b"code"]
    for bad in (b"", b"x", dump[:-1], dump[:-1] + b"x", b"\xf6" + dump[1:]):
        with pytest.raises(BadFormat, match="version or checksum"):
            payload.load(bad)


def test_functions_survive_a_crash(fresh_server: FreshServer) -> None:
    server = fresh_server(appendfsync="always")
    conn = server.conn()
    assert conn.ask("FUNCTION", "LOAD", LIBRARY) == b"$3\r\nlib\r\n"
    assert conn.ask("FCALL", "write", 1, "k", "v") == b"+OK\r\n"
    server.kill9()
    server.start()
    conn = server.conn()
    assert conn.ask("FCALL", "read", 1, "k") == b"$1\r\nv\r\n"
    assert server.client().info("memory")["number_of_functions"] == 7
    conn.ask("FUNCTION", "DELETE", "lib")
    server.kill9()
    server.start()
    assert server.conn().ask("FCALL", "read", 1, "k") == b"-ERR Function not found\r\n"


def test_replicas_follow(fresh_server: FreshServer) -> None:
    primary = fresh_server()
    before = primary.conn()
    before.ask("FUNCTION", "LOAD", library("before"))
    replica = fresh_server(replicaof=("127.0.0.1", str(primary.port)))
    conn = replica.conn()
    refused = b"-READONLY Can not run script with write flag on readonly replica.\r\n"
    wait_until(lambda: conn.ask("FCALL", "one", 0) == refused)
    before.ask("FUNCTION", "LOAD", LIBRARY)
    before.ask("FCALL", "write", 1, "k", "v")
    wait_until(lambda: conn.ask("FCALL", "read", 1, "k") == b"$1\r\nv\r\n")
    assert conn.ask("FCALL", "write", 1, "k", "v") == refused
    assert conn.ask("FUNCTION", "FLUSH").startswith(b"-READONLY ")
    before.ask("FUNCTION", "FLUSH")
    wait_until(lambda: conn.ask("FCALL", "one", 0) == b"-ERR Function not found\r\n")


def test_a_batch_that_fails_takes_the_library_with_it(fresh_server: FreshServer) -> None:
    """In a transaction that is undone, FUNCTION LOAD is undone too."""
    server = fresh_server()
    conn = server.conn()
    conn.ask("FUNCTION", "LOAD", library("a"))
    conn.ask("MULTI")
    conn.ask("FUNCTION", "LOAD", "REPLACE", library("a", ONE.replace("return 1", "return 2")))
    conn.ask("DISCARD")
    assert conn.ask("FCALL", "one", 0) == b":1\r\n"
