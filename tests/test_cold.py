"""Commands that need rows from the disk: set aside, and executed again when they were fetched.

Servers of these tests find no row in memory (cold_launcher.py), and their threads fetch nothing
while a file is there. test_cold_core.py looks closer.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FreshServer
from harness import KVSERVER, Conn, Program, Server, encode_command, wait_until
from hypothesis import given
from oracle_arena import Arena, play
from oracle_programs import FAMILIES, programs
from oracle_strategies import Step
from test_oracle import profile

LAUNCHER = str(Path(__file__).parent / "cold_launcher.py")
OK = b"+OK\r\n"


class Cold:
    """A server without a row cache whose reads are all cold, and its workers' brake."""

    def __init__(self, server: Server, hold: Path) -> None:
        self.server = server
        self._hold = hold

    def hold(self) -> None:
        """Workers read nothing from now on."""
        self._hold.touch()

    def release(self) -> None:
        self._hold.unlink()

    def count(self) -> int:
        """How many commands were set aside."""
        return int(self.server.client().info("memory")["cold_commands"])

    def ask_cold(self, conn: Conn, *commands: tuple[Any, ...]) -> None:
        """Send commands, the first of which is set aside for now."""
        before = self.count()
        conn.send(b"".join(encode_command(*command) for command in commands))
        wait_until(lambda: self.count() > before, what="a command that is set aside")


def program(hold: Path, **directives: Any) -> Program:
    command = (sys.executable, LAUNCHER, str(hold))
    return Program("kvserver", command, {**KVSERVER.directives, "row-cache-size": 0, **directives})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cold]:
    directory = tmp_path_factory.mktemp("cold")
    hold = directory / "hold"
    server = Server(directory / "data", program=program(hold))
    server.start()
    yield Cold(server, hold)
    hold.unlink(missing_ok=True)
    server.close()


@pytest.fixture
def cold(shared: Cold) -> Iterator[Cold]:
    yield shared
    shared._hold.unlink(missing_ok=True)
    admin = shared.server.client()
    admin.client_unpause()
    admin.flushall()
    admin.config_resetstat()
    admin.config_set("notify-keyspace-events", "")
    shared.server.close_clients()


@pytest.fixture
def conn(cold: Cold) -> Conn:
    return cold.server.conn()


def info(server: Server, section: str, field: str) -> Any:
    return server.client().info(section)[field]


# -- order and results ---------------------------------------------------------------------------


def test_replies_come_in_the_order_of_the_commands(cold: Cold, conn: Conn) -> None:
    for number in range(30):
        conn.ask("SET", f"k{number}", number)
    before = cold.count()
    conn.send(
        b"".join(
            encode_command("GET", f"k{number}") + encode_command("PING", number)
            for number in range(30)
        )
    )
    for number in range(30):
        text = str(number).encode()
        assert conn.reply() == conn.reply() == b"$%d\r\n%b\r\n" % (len(text), text)
    # The first fetches the rows of the others as well.
    assert cold.count() == before + 1


@pytest.mark.parametrize(
    ("made", "command", "expected"),
    [
        ("SET k 1", "SET k 2", OK),
        ("SET k 1", "INCR k", b":2\r\n"),
        ("SET k 1", "APPEND k 23", b":3\r\n"),
        ("SET k 1", "GETDEL k", b"$1\r\n1\r\n"),
        ("SET k 1", "DEL k none", b":1\r\n"),
        ("SET k 1", "MSET k 2 l 3 m 4", OK),
        ("HSET k f 1 g 2", "HSET k f 3 h 4", b":1\r\n"),
        ("HSET k f 1 g 2", "HGET k g", b"$1\r\n2\r\n"),
        ("HSET k f 1 g 2", "HMGET k f g h", b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n"),
        ("HSET k f 1 g 2", "HDEL k f g", b":2\r\n"),
        ("HSET k f 1 g 2", "HINCRBY k f 5", b":6\r\n"),
        ("SADD k a b", "SADD k b c", b":1\r\n"),
        ("SADD k a b", "SREM k a c", b":1\r\n"),
        ("SADD k a b", "SPOP k 5", b"*2\r\n"),
        ("SADD k a b", "SMEMBERS k", b"*2\r\n"),
        ("ZADD k 1 a 2 b", "ZADD k 3 a 4 c", b":1\r\n"),
        ("ZADD k 1 a 2 b", "ZRANK k b", b":1\r\n"),
        ("ZADD k 1 a 2 b", "ZPOPMIN k", b"*2\r\n$1\r\na\r\n$1\r\n1\r\n"),
        ("RPUSH k a b c", "LPOP k", b"$1\r\na\r\n"),
        ("RPUSH k a b c", "LINSERT k BEFORE b x", b":4\r\n"),
        ("RPUSH k a b c", "BLPOP n k 0", b"*2\r\n$1\r\nk\r\n$1\r\na\r\n"),
        ("XADD k 1-1 f v", "XADD k 1-2 f v", b"$3\r\n1-2\r\n"),
        ("SET k 1", "EVAL return(redis.call('incr',KEYS[1])) 1 k", b":2\r\n"),
        ("SET k 1", "COPY k l", b":1\r\n"),
        ("SET k 1", "RENAME k l", OK),
    ],
)
def test_commands_do_what_they_do(
    cold: Cold, conn: Conn, made: str, command: str, expected: bytes
) -> None:
    conn.ask(*made.split())
    before = cold.count()
    assert conn.ask(*command.split()).startswith(expected)
    assert cold.count() > before
    name = "cmdstat_" + command.split()[0].lower()
    again = 2 if made.split()[0] == command.split()[0] else 1
    assert info(cold.server, "commandstats", name)["calls"] == again


def test_many_clients_wait_for_the_same_rows(cold: Cold, conn: Conn) -> None:
    conn.ask("SET", "k", 0)
    conns = [cold.server.conn() for _ in range(40)]
    cold.hold()
    for other in conns:
        other.send(encode_command("INCR", "k") + encode_command("ECHO", "x"))
    wait_until(lambda: cold.count() >= 40)
    cold.release()
    assert sorted(int(other.reply()[1:]) for other in conns) == list(range(1, 41))
    assert all(other.reply() == b"$1\r\nx\r\n" for other in conns)


def test_the_loop_serves_others_meanwhile(cold: Cold, conn: Conn) -> None:
    conn.ask("SET", "k", "v")
    cold.hold()
    cold.ask_cold(conn, ("GET", "k"))
    assert cold.server.conn().ask("PING") == b"+PONG\r\n"
    assert info(cold.server, "clients", "blocked_clients") == 0
    assert " cmd=get " in str(cold.server.client().execute_command("CLIENT", "LIST"))
    cold.release()
    assert conn.reply() == b"$1\r\nv\r\n"


def test_multi(cold: Cold, conn: Conn) -> None:
    conn.ask("MSET", "a", 1, "b", 2)
    conn.send(
        encode_command("MULTI")
        + encode_command("INCR", "a")
        + encode_command("GET", "b")
        + encode_command("EXEC")
        + encode_command("GET", "a")
    )
    queued = b"+QUEUED\r\n"
    assert [conn.reply() for _ in range(3)] == [OK, queued, queued]
    assert conn.reply() == b"*2\r\n:2\r\n$1\r\n2\r\n"
    assert conn.reply() == b"$1\r\n2\r\n"
    assert info(cold.server, "commandstats", "cmdstat_exec")["calls"] == 1


def test_watch_sees_a_write_while_exec_waits(cold: Cold, conn: Conn) -> None:
    conn.ask("SET", "k", 1)
    conn.ask("WATCH", "k")
    conn.ask("MULTI")
    conn.ask("INCR", "k")
    cold.hold()
    cold.ask_cold(conn, ("EXEC",))
    assert cold.server.conn().ask("FLUSHALL") == OK
    cold.release()
    assert conn.reply() == b"*-1\r\n"
    assert conn.ask("GET", "k") == b"$-1\r\n"


def test_blocked_commands_are_served(cold: Cold, conn: Conn) -> None:
    before = info(cold.server, "clients", "blocked_clients")
    conn.send(encode_command("BLPOP", "list", 0))
    wait_until(lambda: info(cold.server, "clients", "blocked_clients") == before + 1)
    assert cold.server.conn().ask("RPUSH", "list", "x") == b":1\r\n"
    assert conn.reply() == b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n"


def test_client_reply(cold: Cold, conn: Conn) -> None:
    conn.ask("SET", "k", 1)
    conn.send(
        encode_command("CLIENT", "REPLY", "SKIP")
        + encode_command("INCR", "k")
        + encode_command("INCR", "k")
        + encode_command("CLIENT", "REPLY", "OFF")
        + encode_command("INCR", "k")
        + encode_command("CLIENT", "REPLY", "ON")
        + encode_command("GET", "k")
    )
    assert [conn.reply() for _ in range(3)] == [b":3\r\n", OK, b"$1\r\n4\r\n"]


# -- what must not be seen ----------------------------------------------------------------------


def test_everything_is_counted_and_told_once(cold: Cold, conn: Conn) -> None:
    admin = cold.server.client(decode_responses=True)
    admin.config_set("notify-keyspace-events", "Em")
    listener, monitor = cold.server.conn(), cold.server.conn()
    listener.ask("SUBSCRIBE", "__keyevent@0__:keymiss")
    conn.ask("HSET", "h", "f", 1)
    conn.ask("SET", "s", 1)
    admin.config_resetstat()
    monitor.ask("MONITOR")
    conn.ask("MGET", "none", "s", "nor this")
    conn.ask("HGET", "h", "f")
    for key in (b"none", b"nor this"):
        assert listener.reply().endswith(b"$%d\r\n%b\r\n" % (len(key), key))
    assert b"MGET" in monitor.read_line().upper()
    assert b"HGET" in monitor.read_line().upper()
    stats = admin.info("stats")
    assert (stats["keyspace_hits"], stats["keyspace_misses"]) == (2, 2)
    calls = admin.info("commandstats")
    assert calls["cmdstat_mget"]["calls"] == calls["cmdstat_hget"]["calls"] == 1
    listener.send(encode_command("PING"))
    assert listener.reply() == b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


def test_client_caching_is_for_the_command_that_waited(cold: Cold, conn: Conn) -> None:
    conn.ask("HELLO", 3)
    conn.ask("CLIENT", "TRACKING", "ON", "OPTIN")
    other = cold.server.conn()
    other.ask("SET", "k", 1)
    conn.ask("CLIENT", "CACHING", "YES")
    assert conn.ask("GET", "k") == b"$1\r\n1\r\n"
    other.ask("SET", "k", 2)
    assert conn.reply().startswith(b">2\r\n$10\r\ninvalidate\r\n")


# -- what may happen meanwhile ------------------------------------------------------------------


def test_the_client_goes_away(cold: Cold, conn: Conn) -> None:
    """Who is killed has done nothing. Who hung up had sent its commands, and they are executed, as
    in Redis."""
    conn.ask("MSET", "k", 1, "g", 1)
    cold.hold()
    gone = cold.server.conn()
    gone_id = int(gone.ask("CLIENT", "ID")[1:])
    cold.ask_cold(gone, ("INCR", "g"), ("INCR", "g"))
    gone.close()
    killed = cold.server.conn()
    number = int(killed.ask("CLIENT", "ID")[1:])
    cold.ask_cold(killed, ("INCR", "k"))
    assert cold.server.conn().ask("CLIENT", "KILL", "ID", number) == b":1\r\n"
    assert killed.read_to_end() == b""
    cold.release()
    wait_until(lambda: conn.ask("CLIENT", "LIST", "ID", gone_id) == b"$0\r\n\r\n")
    assert conn.ask("GET", "k") == b"$1\r\n1\r\n"
    assert conn.ask("GET", "g") == b"$1\r\n3\r\n"


def test_a_client_that_ended_its_side_gets_the_replies(cold: Cold, conn: Conn) -> None:
    conn.ask("SET", "k", 1)
    for requests in (1, 3):
        cold.hold()
        other = cold.server.conn()
        cold.ask_cold(other, *[("GET", "k")] * requests)
        other.sock.shutdown(1)
        conn.ask("PING")  # the loop comes by the end of the stream, too
        cold.release()
        assert other.read_to_end() == b"$1\r\n1\r\n" * requests


def test_a_pause_begins(cold: Cold, conn: Conn) -> None:
    conn.ask("SET", "k", 1)
    cold.hold()
    cold.ask_cold(conn, ("INCR", "k"), ("GET", "k"))
    admin = cold.server.client()
    admin.client_pause(60_000, all=False)
    cold.release()
    wait_until(lambda: info(cold.server, "clients", "blocked_clients") == 1)
    assert cold.server.conn().ask("GET", "k") == b"$1\r\n1\r\n"
    admin.client_unpause()
    assert [conn.reply(), conn.reply()] == [b":2\r\n", b"$1\r\n2\r\n"]


def test_the_server_becomes_a_replica(cold: Cold, conn: Conn) -> None:
    conn.ask("SET", "k", 1)
    cold.hold()
    cold.ask_cold(conn, ("INCR", "k"), ("PING",))
    admin = cold.server.client()
    admin.replicaof("127.0.0.1", 1)
    cold.release()
    assert conn.reply().startswith(b"-READONLY")
    assert conn.reply() == b"+PONG\r\n"
    admin.replicaof("NO", "ONE")
    assert conn.ask("INCR", "k") == b":2\r\n"


def test_the_user_loses_the_permission(cold: Cold, conn: Conn) -> None:
    admin = cold.server.client()
    admin.execute_command("ACL", "SETUSER", "ann", "on", "nopass", "~*", "+@all")
    conn.ask("SET", "k", 1)
    conn.ask("AUTH", "ann", "x")
    cold.hold()
    cold.ask_cold(conn, ("GET", "k"))
    admin.execute_command("ACL", "SETUSER", "ann", "-get")
    cold.release()
    assert conn.reply().startswith(b"-NOPERM")
    admin.execute_command("ACL", "DELUSER", "ann")


@pytest.mark.parametrize("held", [True, False])
def test_shutdown(tmp_path: Path, fresh_server: FreshServer, held: bool) -> None:
    cold = Cold(fresh_server(program=program(tmp_path / "hold")), tmp_path / "hold")
    conn = cold.server.conn()
    conn.ask("SET", "k", 1)
    cold.hold()
    cold.ask_cold(conn, ("INCR", "k"))
    if not held:
        cold.release()
        assert conn.reply() == b":2\r\n"
    cold.server.process.terminate()
    if held:
        time.sleep(0.2)
        cold.release()
        assert conn.read_to_end() == b""
    assert cold.server.wait_exit() == 0
    cold.server.start()
    assert cold.server.conn().ask("GET", "k") == (b"$1\r\n1\r\n" if held else b"$1\r\n2\r\n")


def test_a_full_sync_takes_the_data_set_away(tmp_path: Path, fresh_server: FreshServer) -> None:
    cold = Cold(fresh_server(program=program(tmp_path / "hold")), tmp_path / "hold")
    primary = fresh_server()
    primary.client().set("k", "new")
    conn = cold.server.conn()
    conn.ask("SET", "k", "old")
    cold.hold()
    cold.ask_cold(conn, ("GET", "k"))
    cold.server.client().replicaof("127.0.0.1", primary.port)
    time.sleep(0.5)
    cold.release()
    assert conn.reply() in (b"$3\r\nold\r\n", b"$3\r\nnew\r\n")
    wait_until(lambda: cold.server.conn().ask("GET", "k") == b"$3\r\nnew\r\n")


# -- without forcing -----------------------------------------------------------------------------


@pytest.mark.parametrize("block_cache", [0, 8])
def test_small_caches(tmp_path: Path, fresh_server: FreshServer, block_cache: int) -> None:
    directives = {"row-cache-size": 0, "rocksdb.block_cache_size": block_cache}
    server = fresh_server(**directives, **{"rocksdb.write_buffer_size": 1})
    conn = server.conn()
    for number in range(20_000):
        conn.send(encode_command("SET", f"key:{number}", "x" * 200))
    assert all(conn.reply() == OK for _ in range(20_000))
    numbers = [random.randrange(22_000) for _ in range(2000)]
    for number in numbers:
        conn.send(encode_command("GET", f"key:{number}"))
    found = [conn.reply() != b"$-1\r\n" for _ in numbers]
    assert found == [number < 20_000 for number in numbers]


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_redis(
    tmp_path: Path, fresh_server: FreshServer, oracle: Server, family: str
) -> None:
    ours = fresh_server(program=program(tmp_path / "hold"))
    arena = Arena(ours, oracle, 3)

    @profile(6, derandomize=True)
    @given(programs(family, restarts=False))
    def test(steps: list[Step]) -> None:
        play(arena, steps)

    test()
    assert int(ours.client().info("memory")["cold_commands"]) > 0
