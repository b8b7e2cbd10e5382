"""SLOWLOG, LATENCY, MEMORY, MONITOR, TIME, LOLWUT, MODULE: beside a real redis-server."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from harness import Conn, Server, encode_command, wait_until

REFUSED = [
    "SLOWLOG",
    "SLOWLOG NOPE",
    "SLOWLOG GET x",
    "SLOWLOG GET -2",
    "SLOWLOG GET 1 2",
    "SLOWLOG LEN x",
    "SLOWLOG RESET x",
    "LATENCY",
    "LATENCY NOPE",
    "LATENCY LATEST x",
    "LATENCY HISTORY",
    "LATENCY HISTORY a b",
    "MEMORY",
    "MEMORY NOPE",
    "MEMORY USAGE",
    "MEMORY USAGE k SAMPLES",
    "MEMORY USAGE k SAMPLES x",
    "MEMORY USAGE k SAMPLES -1",
    "MEMORY USAGE k NOPE",
    "MEMORY STATS x",
    "MODULE",
    "MODULE NOPE",
    "MODULE LIST x",
    "MONITOR x",
    "TIME x",
    "LOLWUT VERSION x",
]


@pytest.mark.parametrize("command", REFUSED)
def test_errors_are_those_of_redis(command: str, server: Server, oracle: Server) -> None:
    replies = []
    for one in (server, oracle):
        conn = one.conn()
        conn.ask("SET", "k", "v")
        replies.append(conn.ask(*command.split()))
    assert replies[0].startswith(b"-ERR ")
    assert replies[0] == replies[1]


def shape(reply: bytes) -> bytes:
    """A reply with its numbers masked: same shape, same types, same words."""
    reply = re.sub(rb"\d+", b"0", reply)
    return re.sub(rb"[-+]0", b"0", reply)


SHAPES = [
    ["SLOWLOG RESET", "SLOWLOG GET", "SLOWLOG LEN", "SLOWLOG RESET", "SLOWLOG GET -1"],
    ["CONFIG SET slowlog-log-slower-than 0", "ECHO hi", "SLOWLOG GET 1", "SLOWLOG GET 0"],
    ["LATENCY LATEST", "LATENCY HISTORY command", "LATENCY RESET", "LATENCY RESET command"],
    [
        "CONFIG SET latency-monitor-threshold 5",
        "DEBUG SLEEP 0.01",
        "LATENCY LATEST",
        "LATENCY HISTORY command",
        "LATENCY RESET nosuch",
        "LATENCY RESET command",
        "LATENCY LATEST",
    ],
    ["LATENCY HISTOGRAM ping nosuch", "PING", "LATENCY HISTOGRAM PING", "LATENCY HISTOGRAM nosuch"],
    ["CONFIG RESETSTAT", "CONFIG GET hz", "LATENCY HISTOGRAM config|get config|set"],
    ["MEMORY USAGE missing", "SET k v", "MEMORY USAGE k", "MEMORY USAGE k SAMPLES 0"],
    ["MEMORY PURGE"],
    ["MODULE LIST"],
    ["MULTI", "MONITOR", "EXEC"],
]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("commands", SHAPES, ids=lambda commands: commands[0])
def test_replies_have_the_shape_of_redis(
    commands: list[str], protocol: int, server: Server, oracle: Server
) -> None:
    replies = []
    for one in (server, oracle):
        conn = one.conn()
        conn.ask("HELLO", protocol)
        replies.append([shape(conn.ask(*command.split())) for command in commands])
    assert replies[0] == replies[1]


@pytest.mark.parametrize("container", ["SLOWLOG", "LATENCY", "MEMORY", "MODULE"])
def test_help(container: str, both: tuple[Any, Any]) -> None:
    ours, theirs = ([line.decode() for line in c.execute_command(container, "HELP")] for c in both)
    assert ours[0] == theirs[0]
    assert ours[-2] == "HELP"
    assert set(ours[:-1]) <= set(theirs)


# -- SLOWLOG -----------------------------------------------------------------------------


@pytest.fixture
def logged(client: redis.Redis) -> redis.Redis:
    """A client of a server that logs every command."""
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    return client


def logged_commands(client: redis.Redis) -> list[bytes]:
    return [entry["command"] for entry in client.slowlog_get(100)]


def test_slowlog_is_newest_first_with_client_and_time(logged: redis.Redis) -> None:
    logged.client_setname("me")
    logged.set("k", "v")
    logged.get("k")
    newest, before, *_ = logged.execute_command("SLOWLOG GET", 2, NEVER_DECODE=True)
    assert (newest["command"], before["command"]) == (b"GET k", b"SET k v")
    assert newest["id"] == before["id"] + 1
    assert abs(newest["start_time"] - time.time()) < 10
    assert newest["client_name"] == b"me"
    assert newest["client_address"].startswith(b"127.0.0.1:")


def test_slowlog_keeps_as_many_as_it_may(logged: redis.Redis) -> None:
    logged.config_set("slowlog-max-len", 3)
    for number in range(5):
        logged.echo(number)
    assert logged.slowlog_len() == 3
    # What SLOWLOG itself logs comes after it has answered.
    assert logged_commands(logged) == [b"SLOWLOG LEN", b"ECHO 4", b"ECHO 3"]


def test_slowlog_only_has_what_is_slow(client: redis.Redis) -> None:
    client.config_set("slowlog-log-slower-than", 20_000)
    client.slowlog_reset()
    client.ping()
    client.execute_command("DEBUG SLEEP", 0.03)
    entries = client.slowlog_get()
    assert [entry["command"] for entry in entries] == [b"DEBUG SLEEP 0.03"]
    assert entries[0]["duration"] >= 30_000
    client.config_set("slowlog-log-slower-than", -1)
    client.execute_command("DEBUG SLEEP", 0.03)
    assert client.slowlog_len() == 1


def test_slowlog_cuts_what_is_long(server: Server, oracle: Server) -> None:
    replies = []
    for one in (server, oracle):
        conn = one.conn()
        conn.ask("CONFIG", "SET", "slowlog-log-slower-than", 0)
        conn.ask("ECHO", "x" * 128)
        conn.ask("ECHO", "x" * 200)
        conn.ask("EXISTS", *range(40))
        replies.append(shape(conn.ask("SLOWLOG", "GET", 3)))
    assert replies[0] == replies[1]


SECRETS = [
    ["CONFIG", "SET", "requirepass", "hunter2"],
    ["CONFIG", "SET", "timeout", "0", "RequirePass", "hunter2", "hz", "10"],
    ["AUTH", "hunter2"],
    ["AUTH", "user", "hunter2"],
    ["HELLO", "2", "AUTH", "user", "hunter2", "SETNAME", "me"],
]


@pytest.mark.parametrize("command", SECRETS, ids=lambda words: " ".join(words[:2]))
def test_secrets_are_not_shown(
    command: list[str], fresh_server: FreshServer, oracle: Server
) -> None:
    shown = []
    server = fresh_server()
    for one in (server, oracle):
        watcher, conn = one.conn(), one.conn()
        conn.ask("CONFIG", "SET", "slowlog-log-slower-than", 0)
        conn.ask("CONFIG", "SET", "requirepass", "")
        conn.ask("SLOWLOG", "RESET")
        watcher.ask("MONITOR")
        conn.ask(*command)
        conn.ask("AUTH", "hunter2")
        conn.ask("ECHO", "the end")
        seen = [watcher.read_line()]
        while b"the end" not in seen[-1]:
            seen.append(watcher.read_line())
        log = conn.ask("SLOWLOG", "GET", -1)
        assert not any(b"hunter2" in line for line in seen)
        assert b"hunter2" not in log and b"(redacted)" in log
        shown.append(([line.split(b"] ")[1] for line in seen], shape(log)))
        conn.ask("CONFIG", "SET", "requirepass", "")
    assert shown[0] == shown[1]
    assert "hunter2" not in server.log_text()


# -- LATENCY -----------------------------------------------------------------------------


def test_latency_events(client: redis.Redis) -> None:
    client.config_set("latency-monitor-threshold", 10)
    client.execute_command("DEBUG SLEEP", 0.05)
    client.execute_command("DEBUG SLEEP", 0.02)
    client.execute_command("DEBUG SLEEP", 0)
    client.ping()
    ((event, when, latest, worst),) = client.latency_latest()
    assert event == b"command"
    assert abs(when - time.time()) < 10
    assert 20 <= latest <= worst and worst >= 50
    history = client.latency_history("command")
    assert 1 <= len(history) <= 2 and history[-1][1] >= 20
    assert client.latency_reset() == 1
    assert client.latency_latest() == []


def test_latency_histogram_counts_calls(client: redis.Redis) -> None:
    client.config_resetstat()
    for _ in range(20):
        client.echo("x")
    client.execute_command("DEBUG SLEEP", 0.02)
    reply: Any = client.execute_command("LATENCY HISTOGRAM", "echo", "debug")
    echo, debug = (histogram(as_dict(reply)[name]) for name in (b"echo", b"debug"))
    assert max(echo.values()) == 20
    bounds = list(echo)
    assert bounds == sorted(bounds) and list(echo.values()) == sorted(echo.values())
    ((bound, calls),) = debug.items()
    assert calls == 1 and bound > 20_000


def as_dict(reply: Any) -> dict[Any, Any]:
    """A map, whichever protocol it came by."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def histogram(reply: Any) -> dict[int, int]:
    return as_dict(as_dict(reply)[b"histogram_usec"])


# -- MEMORY ------------------------------------------------------------------------------


def test_memory_usage_grows_with_the_value(client: redis.Redis) -> None:
    client.set("small", "x")
    client.set("large", "x" * 10_001)
    small, large = client.memory_usage("small"), client.memory_usage("large", samples=0)
    assert small is not None and large is not None
    assert large - small == 10_000
    assert small > len("small") + 1


def test_memory_usage_is_no_use_of_the_key(client: redis.Redis) -> None:
    client.set("k", "v")
    client.config_resetstat()
    assert client.memory_usage("missing") is None
    client.memory_usage("k")
    stats: Any = client.info("stats")
    assert stats["keyspace_hits"] == stats["keyspace_misses"] == 0


def memory_stats(client: redis.Redis) -> dict[str, Any]:
    reply = as_dict(client.execute_command("MEMORY STATS"))
    return {k.decode() if isinstance(k, bytes) else k: value for k, value in reply.items()}


def test_memory_stats_has_the_fields_of_redis(both: tuple[Any, Any]) -> None:
    for client in both:
        client.set("k", "v")
    ours, theirs = map(memory_stats, both)
    # The hash tables of each database; rows on disk have none.
    assert theirs.keys() - ours.keys() == {"db.0"}
    added = {"allocator.muzzy", "row.cache"}
    added |= {f"rocksdb.{part}" for part in ("memtables", "table.readers", "block.cache")}
    assert ours.keys() - theirs.keys() == added


def test_memory_stats_agree_with_info(client: redis.Redis) -> None:
    client.set("k", "v")
    stats = memory_stats(client)
    info: Any = client.info("memory")
    assert stats["keys.count"] == 1
    assert stats["row.cache"] == info["row_cache_bytes"]
    assert stats["total.allocated"] == pytest.approx(info["used_memory"], rel=0.1)
    assert stats["startup.allocated"] == info["used_memory_startup"]


def test_malloc_stats(client: redis.Redis) -> None:
    assert b"<malloc version=" in client.execute_command("MEMORY MALLOC-STATS")


# -- MONITOR -----------------------------------------------------------------------------


def lines(watcher: Conn, count: int) -> list[bytes]:
    """What the next commands look like, without time and address."""
    found = []
    for _ in range(count):
        line = watcher.read_line()
        match = re.fullmatch(rb"\+\d+\.\d{6} \[(\d+) 127\.0\.0\.1:\d+\] (.*)\r\n", line)
        assert match is not None, line
        found.append(match[1] + b" " + match[2])
    return found


SHOWN = [
    [b"set", b"key", b'"q" \\ \r\n\t\a\b \x00\xff'],
    [b"SELECT", b"2"],
    [b"ECHO", b""],
    [b"INCR", b"key"],
    [b"CLIENT", b"ID"],
    [b"EXISTS", b"caf\xc3\xa9", b"a b", b"1"],
]


def test_monitor_shows_commands_as_redis_does(server: Server, oracle: Server) -> None:
    seen = []
    for one in (server, oracle):
        watcher, conn = one.conn(), one.conn()
        assert watcher.ask("MONITOR") == b"+OK\r\n"
        # These aren't shown: administrative, unknown, wrongly called.
        for command in ("CONFIG GET hz", "NOSUCH", "GET", "DEBUG SLEEP 0", "SLOWLOG LEN"):
            conn.ask(*command.split())
        for words in SHOWN:
            conn.ask(*words)
        seen.append(lines(watcher, len(SHOWN)))
    assert seen[0] == seen[1]


def test_monitor_shows_transactions_as_they_run(server: Server, oracle: Server) -> None:
    seen = []
    for one in (server, oracle):
        watcher, conn = one.conn(), one.conn()
        watcher.ask("MONITOR")
        for command in ("MULTI", "SET a 1", "GET a", "EXEC", "MULTI", "GET", "EXEC"):
            conn.ask(*command.split())
        seen.append(lines(watcher, 6))
    assert seen[0] == seen[1]


def test_monitors_of_redis_py(client: redis.Redis) -> None:
    with client.monitor() as monitor:
        client.set("k", "v")
        command = next(c for c in monitor.listen() if c["command"].startswith("SET"))
    assert command["command"] == "SET k v"
    assert command["client_address"] == "127.0.0.1"
    assert command["db"] == 0


def test_a_monitor_has_no_access_to_keys(server: Server, oracle: Server) -> None:
    for one in (server, oracle):
        watcher = one.conn()
        watcher.ask("MONITOR")
        for command in ("GET k", "SET k v", "PUBLISH a b"):
            refusal = b"-ERR Replica can't interact with the keyspace\r\n"
            assert watcher.ask(*command.split()) == refusal


def test_monitor_twice_answers_once(server: Server, oracle: Server) -> None:
    for one in (server, oracle):
        watcher = one.conn()
        watcher.send(b"MONITOR\r\nMONITOR\r\nNOSUCH\r\n")
        assert watcher.reply() == b"+OK\r\n"
        assert watcher.reply().startswith(b"-ERR unknown command")


def monitors(server: Server) -> int:
    """How many clients watch."""
    return sum("O" in client["flags"] for client in server.client().client_list())


@pytest.mark.parametrize("end", ["RESET", "QUIT"])
def test_the_end_of_monitor(end: str, server: Server) -> None:
    watcher = server.conn()
    watcher.ask("MONITOR")
    assert monitors(server) == 1
    watcher.send(encode_command(end))
    wait_until(lambda: monitors(server) == 0)


def test_monitor_ends_with_the_connection(server: Server) -> None:
    watcher = server.conn()
    watcher.ask("MONITOR")
    watcher.close()
    wait_until(lambda: monitors(server) == 0)


def test_reset_gives_a_monitor_its_keys_back(server: Server) -> None:
    watcher = server.conn()
    watcher.ask("MONITOR")
    assert watcher.ask("RESET") == b"+RESET\r\n"
    assert watcher.ask("SET", "k", "v") == b"+OK\r\n"


def test_monitor_over_a_unix_socket(fresh_server: FreshServer, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server = fresh_server(unixsocket=path)
    watcher = server.conn()
    watcher.ask("MONITOR")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        Conn(sock).ask("ECHO", "hi")
    assert watcher.read_line().endswith(f'[0 unix:{path}] "ECHO" "hi"\r\n'.encode())


def test_a_monitor_that_does_not_read_is_closed(server: Server) -> None:
    client = server.client()
    client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
    watcher = server.conn()
    watcher.ask("MONITOR")

    def closed() -> bool:
        client.echo("x" * 1_000_000)
        return monitors(server) == 0

    wait_until(closed, timeout=30)
    assert client.info("stats")["client_output_buffer_limit_disconnections"] == 1


# -- TIME, LOLWUT, MODULE --------------------------------------------------------------------


def test_time(client: redis.Redis) -> None:
    seconds, microseconds = client.time()
    assert abs(seconds + microseconds / 1e6 - time.time()) < 10
    assert 0 <= microseconds < 1_000_000


def test_time_goes_on_inside_a_pipeline(server: Server) -> None:
    conn = server.conn()
    conn.send(b"TIME\r\nDEBUG SLEEP 0.01\r\nTIME\r\n")
    first, _, second = (conn.reply() for _ in range(3))

    def microseconds(reply: bytes) -> int:
        seconds, rest = re.findall(rb"\r\n(\d+)(?=\r\n)", reply)
        return int(seconds) * 1_000_000 + int(rest)

    assert microseconds(second) - microseconds(first) >= 10_000


@pytest.mark.parametrize("args", [[], ["VERSION", "5"], ["VERSION", "6", "10"], ["VERSION"]])
def test_lolwut_ends_with_the_version(args: list[str], client: redis.Redis) -> None:
    text: bytes = client.execute_command("LOLWUT", *args)
    *picture, version = text.decode().removesuffix("\n").split("\n")
    assert version == "Redis ver. 7.4.0"
    assert len(picture) > 5 and max(map(len, picture)) <= 64


def test_lolwut_is_verbatim_under_resp3(server: Server) -> None:
    conn = server.conn()
    conn.ask("HELLO", 3)
    assert re.match(rb"=\d+\r\ntxt:", conn.ask("LOLWUT"))


def test_no_modules(client: redis.Redis) -> None:
    assert client.module_list() == []


def test_role_is_that_of_a_primary_without_replicas(client: redis.Redis) -> None:
    client.set("key", "value")
    role, position, replicas = client.execute_command("ROLE")
    assert (role, replicas) == (b"master", [])
    assert position == client.info("replication")["master_repl_offset"] > 0
