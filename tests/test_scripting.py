"""EVAL, EVALSHA, SCRIPT: beside redis-server, and what only 7.4 or kvserver does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from core import Client, Core
from harness import Server
from pair import Command, Pair
from script_battery import NEWER, SCRIPTS

Replies = list[tuple[Command, bytes]]


def differences(ours: Replies, theirs: Replies) -> list[tuple[Command, bytes, bytes]]:
    """(command, our reply, Redis' reply) where these differ."""
    return [
        (command, mine, wanted)
        for (command, mine), (_, wanted) in zip(ours, theirs, strict=True)
        if mine != wanted
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_as_in_redis(pair: Pair, name: str) -> None:
    commands = [("EVAL", script, 2, "a", "b", "1", "x") for script in SCRIPTS[name]]
    ours, theirs = pair.ask_both([("FLUSHALL",), ("SCRIPT", "FLUSH"), *commands])
    assert not differences(ours, theirs)


@pytest.mark.parametrize("name", ["values", "replies", "shebang"])
def test_read_only_scripts_are_as_in_redis(pair: Pair, name: str) -> None:
    commands = [("EVAL_RO", script, 2, "a", "b", "1", "x") for script in SCRIPTS[name]]
    ours, theirs = pair.ask_both([("FLUSHALL",), ("SET", "a", "1"), ("SET", "b", "x"), *commands])
    assert not differences(ours, theirs)


@pytest.mark.parametrize("script", NEWER)
def test_what_is_newer_than_the_oracle(server: Server, script: str) -> None:
    assert server.conn().ask("EVAL", script, 0) == NEWER[script]


def sha1(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()


def test_the_cache_is_as_in_redis(pair: Pair) -> None:
    pair.same(
        [
            ("SCRIPT", "FLUSH"),
            ("EVALSHA", sha1("return 1"), 0),
            ("EVAL", "return 1", 0),
            ("EVALSHA", sha1("return 1"), 0),
            ("EVALSHA", sha1("return 1").upper(), 0),
            ("EVALSHA_RO", sha1("return 1"), 0),
            ("SCRIPT", "LOAD", "return 2"),
            ("SCRIPT", "LOAD", "return 1 ="),
            ("SCRIPT", "EXISTS", sha1("return 1"), sha1("return 2"), "x", sha1("return 1 =")),
            ("SCRIPT", "FLUSH", "ASYNC"),
            ("SCRIPT", "FLUSH", "SYNC"),
            ("SCRIPT", "FLUSH", "x"),
            ("SCRIPT", "FLUSH", "SYNC", "x"),
            ("SCRIPT", "EXISTS", sha1("return 1")),
            ("SCRIPT", "EXISTS"),
            ("SCRIPT", "KILL"),
            ("SCRIPT", "nosuch"),
            ("SCRIPT",),
            ("EVAL", "return 1"),
            ("EVAL", "return 1", "x"),
            ("EVAL", "return 1", -1),
            ("EVAL", "return 1", 1),
            ("EVALSHA", "x", "y"),
        ]
    )


def test_scripts_of_eval_are_evicted(server: Server) -> None:
    conn = server.conn()
    conn.ask("SCRIPT", "FLUSH")
    loaded = b"$40\r\n%b\r\n" % sha1("return 'loaded'").encode()
    assert conn.ask("SCRIPT", "LOAD", "return 'loaded'") == loaded
    for number in range(501):
        conn.ask("EVAL", f"return {number}", 0)
        conn.ask("EVALSHA", sha1("return 1"), 0)
    first, second = sha1("return 0"), sha1("return 1")
    exists = conn.ask("SCRIPT", "EXISTS", first, second, sha1("return 'loaded'"))
    assert exists == b"*3\r\n:0\r\n:1\r\n:1\r\n"
    info = server.client(decode_responses=True).info()
    assert info["number_of_cached_scripts"] == 501
    assert info["evicted_scripts"] >= 1


def test_eval_in_transactions(pair: Pair) -> None:
    script = "redis.call('set', KEYS[1], ARGV[1]) return {map={a=redis.call('get', KEYS[1])}}"
    pair.same(
        [
            ("FLUSHALL",),
            ("MULTI",),
            ("EVAL", script, 1, "a", "1"),
            ("EVAL", "return nosuch", 0),
            ("EVAL", "redis.call('select', 3) return redis.call('dbsize')", 0),
            ("INCR", "a"),
            ("EXEC",),
            ("GET", "a"),
            ("DBSIZE",),
        ]
    )


def test_a_script_that_fails_keeps_what_it_wrote(pair: Pair) -> None:
    script = "redis.call('set', 'a', 1) redis.call('nosuch')"
    pair.same([("EVAL", script, 0), ("GET", "a")])


def test_watched_keys_and_keyspace_events(pair: Pair) -> None:
    pair.same([("WATCH", "a"), ("EVAL", "redis.call('set', 'a', 1)", 0), ("MULTI",), ("EXEC",)])


def test_time_stands_still(server: Server) -> None:
    script = (
        "redis.call('set', 'a', 1, 'PX', 5) local t = redis.call('pttl', 'a') "
        "for i = 1, 3000000 do local x = i end "
        "return {redis.call('get', 'a'), t == redis.call('pttl', 'a')}"
    )
    assert server.conn().ask("EVAL", script, 0) == b"*2\r\n$1\r\n1\r\n:1\r\n"


def test_a_script_is_one_position(server: Server) -> None:
    client = server.client(decode_responses=True)

    def position() -> int:
        return int(client.info("replication")["master_repl_offset"])

    before = position()
    client.eval("for i = 1, 10 do redis.call('set', 'k' .. i, i) end", 0)
    assert position() == before + 1
    client.eval("return redis.call('get', 'k1')", 0)
    assert position() == before + 1


def test_monitor_shows_the_script_and_then_what_it_calls(both: tuple[Any, Any]) -> None:
    shown = []
    for client in both:
        with client.monitor() as monitor:
            client.eval("redis.call('set', KEYS[1], 1) return redis.call('get', KEYS[1])", 1, "a")
            client.ping()
            lines = []
            while not lines or lines[-1]["command"] != "PING":
                lines.append(monitor.next_command())
        shown.append(
            [(line["command"].split()[0].upper(), line["client_type"]) for line in lines[-4:]]
        )
    assert shown[0] == shown[1]


def test_commandstats_count_what_a_script_calls(both: tuple[Any, Any]) -> None:
    stats = []
    for client in both:
        client.config_resetstat()
        client.eval("redis.call('get', 'a') redis.pcall('incr', 'a', 'b') return 1", 0)
        with pytest.raises(redis.ResponseError):
            client.eval("return redis.call('get')", 0)
        with pytest.raises(redis.ResponseError):
            client.eval("error('x')", 0)
        found = client.info("commandstats")
        counted = ("calls", "rejected_calls", "failed_calls")
        stats.append(
            {
                name: [found[f"cmdstat_{name}"][field] for field in counted]
                for name in ("get", "incr", "eval")
            }
        )
        stats[-1]["errors"] = client.info("errorstats")
    assert stats[0] == stats[1]


def test_slowlog_has_the_script_only(server: Server) -> None:
    client = server.client(decode_responses=True)
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    client.eval("redis.call('set', 'a', 1)", 0)
    names = [entry["command"].split()[0] for entry in client.slowlog_get()]
    assert names[:2] == [b"EVAL", b"SLOWLOG"]


def test_published_after_the_reply(server: Server) -> None:
    listener = server.conn()
    listener.ask("SUBSCRIBE", "c")
    reply = server.conn().ask("EVAL", "return redis.call('publish', 'c', 'm')", 0)
    assert reply == b":1\r\n"
    assert b"m\r\n" in listener.reply()


def test_once_remembers_what_a_script_replied(server: Server) -> None:
    conn = server.conn()
    script = "return {map={n=redis.call('incr', KEYS[1])}}"
    first = conn.ask("ONCE", "w", 1, "EVAL", script, 1, "n")
    assert first == b"*2\r\n$1\r\nn\r\n:1\r\n"
    assert conn.ask("ONCE", "w", 1, "EVAL", script, 1, "n") == first
    conn.ask("HELLO", 3)
    assert conn.ask("ONCE", "w", 1, "EVAL", script, 1, "n") == b"%1\r\n$1\r\nn\r\n:1\r\n"
    assert conn.ask("GET", "n") == b"$1\r\n1\r\n"


def test_a_replica_runs_scripts_that_only_read(fresh_server: FreshServer) -> None:
    primary = fresh_server()
    replica = fresh_server(replicaof=("127.0.0.1", str(primary.port)))
    client = primary.client()
    client.eval("redis.call('set', 'a', 1) redis.call('set', 'b', 2)", 0)
    client.wait(1, 10_000)
    conn = replica.conn()
    assert conn.ask("EVAL", "return redis.call('get', 'a')", 0) == b"$1\r\n1\r\n"
    refused = conn.ask("EVAL", "return redis.call('set', 'a', 2)", 0)
    assert refused.startswith(b"-READONLY You can't write against a read only replica. script: ")
    refused = conn.ask("EVAL", "#!lua\nreturn 1", 0)
    assert refused == b"-READONLY Can not run script with write flag on readonly replica.\r\n"
    assert conn.ask("EVAL", "#!lua flags=no-writes\nreturn 1", 0) == b":1\r\n"


def test_what_a_script_wrote_survives_a_crash(fresh_server: FreshServer) -> None:
    server = fresh_server(appendfsync="always")
    conn = server.conn()
    script = "for i = 1, 100 do redis.call('set', 'k' .. i, i) end return redis.call('dbsize')"
    assert conn.ask("EVAL", script, 0) == b":100\r\n"
    server.kill9()
    server.start()
    assert server.conn().ask("DBSIZE") == b":100\r\n"


def test_permissions_hold_in_scripts(server: Server) -> None:
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "eve", "on", "nopass", "~a*", "+@all", "-incr")
    try:
        conn = server.conn()
        conn.ask("AUTH", "eve", "x")
        denied = conn.ask("EVAL", "return redis.pcall('set', 'b', 1)", 0)
        assert denied.startswith(b"-NOPERM ")
        allowed = "return {redis.acl_check_cmd('set', 'a', 1), redis.acl_check_cmd('incr', 'a')}"
        assert conn.ask("EVAL", allowed, 0) == b"*2\r\n:1\r\n$-1\r\n"
        assert conn.ask("EVAL", "return redis.pcall('set', 'a', 1)", 0) == b"+OK\r\n"
    finally:
        admin.execute_command("ACL", "DELUSER", "eve")


def test_a_defect_undoes_the_whole_script(tmp_path: Path) -> None:
    with Core(tmp_path / "data") as core:
        client = Client(core, 1)
        client.ask(b"SET", b"before", b"1")
        entry = core.server.table.entries[b"strlen"]
        entry.handler = _defect
        script = (
            b"redis.call('set', 'a', 1) redis.pcall('strlen', 'a') redis.pcall('set', 'b', 1) "
            b"return redis.call('get', 'a')"
        )
        assert client.ask(b"EVAL", script, b"0") == b"-ERR internal error\r\n"
        assert client.ask(b"EXISTS", b"before", b"a", b"b") == b":1\r\n"
        client.call(b"MULTI")
        client.call(b"SET", b"c", b"1")
        client.call(b"EVAL", script, b"0")
        assert client.ask(b"EXEC").endswith(b"-ERR internal error\r\n")
        assert client.ask(b"EXISTS", b"before", b"a", b"b", b"c") == b":1\r\n"
        assert client.ask(b"EVAL", b"return redis.call('set', 'a', 1)", b"0") == b"+OK\r\n"


def _defect(*_args: object) -> None:
    raise ValueError("a defect")


# -- scripts of well-known clients -----------------------------------------------------------------


def test_the_lock_of_redis_py(client: redis.Redis) -> None:
    lock = client.lock("lock", timeout=10)
    assert lock.acquire()
    assert not client.lock("lock", timeout=10).acquire(blocking=False)
    assert lock.extend(10)
    assert lock.reacquire()
    lock.release()
    with pytest.raises(redis.exceptions.LockError):
        lock.release()


def test_packed_arguments(server: Server) -> None:
    """The way of BullMQ: options packed with MessagePack, one table for many fields."""
    packed = (
        bytes([0x83])
        + b"\xa4name\xa3job\xa8attempts\x03\xa4opts\x82\xa5delay\xcd\x03\xe8\xa2ts\xcf"
        + (1_700_000_000_000).to_bytes(8, "big")
    )
    script = (
        "local o = cmsgpack.unpack(ARGV[1]) local opts = o['opts'] "
        "redis.call('set', KEYS[1] .. ':' .. o['name'], cjson.encode(opts)) "
        "return {o['name'], o['attempts'], opts['delay'], tostring(opts['ts']), "
        "cjson.decode(redis.call('get', KEYS[1] .. ':job'))['delay']}"
    )
    reply = server.conn().ask("EVAL", script, 1, "bull", packed)
    assert reply == b"*5\r\n$3\r\njob\r\n:3\r\n:1000\r\n$13\r\n1700000000000\r\n:1000\r\n"
