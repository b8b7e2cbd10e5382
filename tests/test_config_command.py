"""CONFIG over a socket: replies and errors beside a real redis-server, REWRITE, RESETSTAT.

What the directives are is tested in test_config.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from harness import Server

REFUSED = [
    "CONFIG",
    "CONFIG NOPE",
    "CONFIG GET",
    "CONFIG SET timeout",
    "CONFIG SET timeout 1 hz",
    "CONFIG SET nosuch 1",
    "CONFIG SET timeout 1 nosuch 2",
    "CONFIG SET timeout x",
    "CONFIG SET timeout 1 timeout 2",
    "CONFIG SET unixsocket /x",
    "CONFIG SET hz 20 timeout -1",
    "CONFIG REWRITE",
    "CONFIG REWRITE x",
    "CONFIG RESETSTAT x",
    "CONFIG HELP x",
]


@pytest.mark.parametrize("command", REFUSED)
def test_errors_are_those_of_redis(command: str, server: Server, oracle: Server) -> None:
    replies = [one.conn().ask(*command.split()) for one in (server, oracle)]
    assert replies[0].startswith(b"-ERR ")
    assert replies[0] == replies[1]


@pytest.mark.parametrize("protocol", [2, 3])
def test_get_has_the_shape_of_redis(protocol: int, server: Server, oracle: Server) -> None:
    replies = []
    for one in (server, oracle):
        conn = one.conn()
        conn.ask("HELLO", protocol)
        patterns = (["TimeOut"], ["nosuch"], ["timeout", "nosuch"], ["slowlog-max-le[n]"])
        replies.append([conn.ask("CONFIG", "GET", *words) for words in patterns])
    assert replies[0] == replies[1]


def test_get_takes_several_globs(client: redis.Redis) -> None:
    reply: Any = client.config_get("slowlog*", "hz", "SLOWLOG-max-len", "TIME?UT")
    assert set(reply) == {"slowlog-log-slower-than", "slowlog-max-len", "hz", "timeout"}


def test_set_takes_several(client: redis.Redis) -> None:
    assert client.config_set("timeout", 7, "hz", 50) is True
    assert client.config_get("timeout", "hz") == {"timeout": "7", "hz": "50"}


def test_set_is_all_or_nothing(client: redis.Redis) -> None:
    before = client.config_get("*")
    with pytest.raises(redis.ResponseError, match="related to argument 'slowlog-max-len'"):
        client.config_set("timeout", 7, "hz", 50, "slowlog-max-len", "many")
    assert client.config_get("*") == before


def test_bytes_pass_through(server: Server) -> None:
    conn = server.conn()
    assert conn.ask("CONFIG", "SET", "tls-ciphers", b"caf\xe9") == b"+OK\r\n"
    assert conn.ask("CONFIG", "GET", "tls-ciphers").endswith(b"$4\r\ncaf\xe9\r\n")
    # The fixtures can't read it.
    assert conn.ask("CONFIG", "SET", "tls-ciphers", "") == b"+OK\r\n"


def test_resetstat(client: redis.Redis) -> None:
    client.set("k", 1)
    client.get("k")
    client.get("missing")
    with pytest.raises(redis.ResponseError):
        client.execute_command("GET")
    stats: Any = client.info("everything")
    assert stats["keyspace_hits"] == stats["keyspace_misses"] == 1
    assert "cmdstat_get" in stats and "errorstat_ERR" in stats
    assert "latency_percentiles_usec_get" in stats
    client.config_resetstat()
    stats = client.info("everything")
    assert stats["keyspace_hits"] == stats["keyspace_misses"] == 0
    assert stats["total_connections_received"] == stats["total_error_replies"] == 0
    # RESETSTAT itself, and INFO is counted when it has ended.
    assert stats["total_commands_processed"] == 1
    assert not {"cmdstat_get", "errorstat_ERR", "latency_percentiles_usec_get"} & stats.keys()


def test_rewrite_keeps_the_file_and_what_was_set(fresh_server: FreshServer, tmp_path: Path) -> None:
    path = tmp_path / "kvserver.conf"
    path.write_text("# my server\ntimeout 3\n\n# the slow log\nslowlog-max-len 10\n")
    server = fresh_server(args=(str(path),))
    client = server.client(decode_responses=True)
    client.config_set("slowlog-max-len", 20, "requirepass", 'a "b"')
    client.config_rewrite()
    text = path.read_text()
    lines = ["# my server", "timeout 3", "", "# the slow log", "slowlog-max-len 20"]
    assert text.splitlines()[: len(lines)] == lines
    assert 'requirepass "a \\"b\\""' in text
    server.restart()
    client = server.client(decode_responses=True, password='a "b"')
    wanted = {"timeout": "3", "slowlog-max-len": "20", "requirepass": 'a "b"'}
    assert client.config_get(*wanted) == wanted


def test_rewrite_says_why_it_cannot(fresh_server: FreshServer, tmp_path: Path) -> None:
    directory = tmp_path / "conf"
    directory.mkdir()
    path = directory / "kvserver.conf"
    path.write_text("timeout 3\n")
    client = fresh_server(args=(str(path),)).client()
    path.unlink()
    directory.rmdir()
    with pytest.raises(redis.ResponseError, match="Rewriting config file: No such file"):
        client.config_rewrite()


def test_help(client: redis.Redis) -> None:
    lines: Any = client.execute_command("CONFIG HELP")
    assert lines[0] == b"CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    assert lines[-2:] == [b"HELP", b"    Print this help."]
    assert {b"RESETSTAT", b"REWRITE"} <= set(lines)
