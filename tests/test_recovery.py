"""Real servers whose disk fails: writers get errors, reads go on, and the server comes back by
itself, without a restart and without losing anything that it acknowledged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import datadir
import pytest
from faults import Fault, FileSizeLimit, FullDisk, Shim, ShimFault
from faults import shim as shim
from faults import shim_library as shim_library
from faults import small_disk as small_disk
from harness import Conn, Server, wait_until
from load import Load

FreshServer = Callable[..., Server]
MISCONF = b"-MISCONF Errors writing to the AOF file: "
#: Small write buffers: what the server wants free before it opens RocksDB again is less.
DIRECTIVES = {"rocksdb.write_buffer_size": 1, "loglevel": "debug"}
RECOVERY_SECONDS = 15.0


@pytest.fixture(params=["always", "everysec"])
def mode(request: pytest.FixtureRequest) -> str:
    """appendfsync"""
    value: str = request.param
    return value


def wait_for_log(server: Server, text: str, count: int = 1) -> None:
    wait_until(lambda: server.log_text().count(text) >= count, RECOVERY_SECONDS, text)


def fail(server: Server, load: Load, fault: Fault) -> None:
    """Write until the fault has made the server read-only."""
    load.start()
    wait_until(lambda: load.acked > 100, what="writers write")
    fault.begin(server)
    wait_for_log(server, "writing failed, the server is read-only")


def assert_read_only(server: Server) -> None:
    """What clients see of a server that can't write."""
    with server.conn() as conn:
        for command in (["PING"], ["SET", "a", "1"], ["DEL", "a"], ["FLUSHALL"]):
            assert conn.ask(*command).startswith(MISCONF), command
        assert conn.ask("MULTI") == b"+OK\r\n"
        assert conn.ask("INCR", "a").startswith(MISCONF)
        assert conn.ask("EXEC").startswith(b"-EXECABORT")
        assert conn.ask("ECHO", "hello") == b"$5\r\nhello\r\n"
        assert conn.ask("GET", "kept") == b"$1\r\n1\r\n"
        keys = conn.ask("KEYS", "*")
        assert b"kept" in keys
        # What has expired is counted until it can be deleted.
        assert int(conn.ask("DBSIZE")[1:]) >= keys.count(b"\r\n$")
        info = conn.ask("INFO", "persistence")
        assert b"aof_last_write_status:err" in info
        assert b"log_failure:IO error: " in info


def recover(server: Server, load: Load, fault: Fault) -> float:
    """End the fault: writers must go on. Returns the seconds from then to the first write."""
    pid = server.pid
    acked = load.acked
    began = time.monotonic()
    fault.end(server)
    with server.conn() as conn:
        wait_until(lambda: conn.ask("PING") == b"+PONG\r\n", RECOVERY_SECONDS, "PING works")
        assert conn.ask("SET", "after", "1") == b"+OK\r\n"
        seconds = time.monotonic() - began
        assert b"aof_last_write_status:ok" in conn.ask("INFO", "persistence")
    wait_until(lambda: load.acked > acked + 100, what="writers go on")
    assert server.alive and server.pid == pid
    print(f"recovered in {seconds:.2f} s")
    return seconds


def verify(server: Server, load: Load) -> None:
    """Nothing acknowledged is lost, now and after kill -9, and all counts are right."""
    load.stop()
    load.settle()
    with server.conn() as conn:
        wait_until(lambda: counted(conn), what="expired keys are deleted and all counts right")
    server.kill9()
    datadir.check(server.directory / "db")
    server.start()
    load.settle()


def counted(conn: Conn) -> bool:
    return int(conn.ask("DBSIZE")[1:]) == conn.ask("KEYS", "*").count(b"\r\n$")


def keep_a_key(server: Server) -> None:
    with server.conn() as conn:
        assert conn.ask("SET", "kept", "1") == b"+OK\r\n"


# -- no room ------------------------------------------------------------------------------------


def test_a_file_size_limit(fresh_server: FreshServer, mode: str) -> None:
    server = fresh_server(appendfsync=mode, **DIRECTIVES)
    full_disk(server, FileSizeLimit())


def test_a_full_disk(fresh_server: FreshServer, small_disk: Path, mode: str) -> None:
    server = fresh_server(directory=small_disk / "data", appendfsync=mode, **DIRECTIVES)
    full_disk(server, FullDisk())


def full_disk(server: Server, fault: Fault) -> None:
    keep_a_key(server)
    load = Load(server, "full")
    fail(server, load, fault)
    wait_for_log(server, "still no room to write")
    assert_read_only(server)
    assert all(e.startswith((MISCONF, b"-EXECABORT")) for e in load.errors)
    recover(server, load, fault)
    # And once more: the way back leaves nothing behind that would keep the next one from it.
    fault.begin(server)
    wait_for_log(server, "writing failed, the server is read-only", 2)
    recover(server, load, fault)
    verify(server, load)


def test_archived_logs_make_room(fresh_server: FreshServer, small_disk: Path) -> None:
    """The log that is kept for replicas must not be what fills the disk."""
    directives = {**DIRECTIVES, "rocksdb.max_total_wal_size": 4}
    server = fresh_server(directory=small_disk / "data", **directives)
    conn = server.conn()
    value = b"x" * 100_000
    replies = [conn.ask("SET", "same", value) for _ in range(1000)]
    assert replies[0] == b"+OK\r\n"
    assert replies[-1].startswith(MISCONF), "100 MB don't fit on the disk"
    wait_until(lambda: conn.ask("SET", "same", value) == b"+OK\r\n", RECOVERY_SECONDS)
    assert "the disk is full: deleted" in server.log_text()
    assert conn.ask("GET", "same").endswith(value + b"\r\n")


@pytest.mark.parametrize("stop", ["kill9", "terminate"])
def test_a_stop_while_writing_fails(fresh_server: FreshServer, mode: str, stop: str) -> None:
    server = fresh_server(appendfsync=mode, **DIRECTIVES)
    load = Load(server, "stop")
    fail(server, load, FileSizeLimit())
    load.stop()
    if stop == "kill9":
        server.kill9()
    else:
        assert server.terminate() == 0
    datadir.check(server.directory / "db")
    server.start()
    load.settle()


# -- errors of the disk -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, suffix",
    [("sync-eio", ".log"), ("write-eio", ".log"), ("write-half", ".log"), ("write-eio", ".sst")],
)
def test_a_broken_disk(
    fresh_server: FreshServer, shim: Shim, mode: str, fault: str, suffix: str
) -> None:
    server = fresh_server(appendfsync=mode, env=shim.env, **DIRECTIVES)
    keep_a_key(server)
    load = Load(server, "broken")
    broken = ShimFault(shim, fault, suffix)
    fail(server, load, broken)
    with server.conn() as conn:
        assert conn.ask("GET", "kept") == b"$1\r\n1\r\n"
    recover(server, load, broken)
    verify(server, load)


def test_reads_go_on_when_rocksdb_cannot_be_opened_again(
    fresh_server: FreshServer, shim: Shim
) -> None:
    """There is room, but the files that opening writes fail: it stays open for reading."""
    server = fresh_server(env=shim.env, **DIRECTIVES)
    keep_a_key(server)
    load = Load(server, "read-only")
    fault = ShimFault(shim, "write-eio", ".sst")
    fail(server, load, fault)
    wait_for_log(server, "RocksDB can't be opened again yet", 2)
    assert_read_only(server)
    recover(server, load, fault)
    verify(server, load)


def test_a_database_that_cannot_even_be_read_is_no_end(
    fresh_server: FreshServer, shim: Shim
) -> None:
    server = fresh_server(env=shim.env, **DIRECTIVES)
    load = Load(server, "closed")
    current = server.directory / "db" / "CURRENT"
    fault = ShimFault(shim, "write-eio", ".log")
    fail(server, load, fault)
    load.stop()
    os.rename(current, current.with_name("hidden"))
    wait_for_log(server, "RocksDB can't be opened again yet", 2)
    with server.conn() as conn:
        assert conn.ask("PING").startswith(MISCONF)
        assert conn.ask("GET", "unknown").startswith(b"-")
        assert b"aof_last_write_status:err" in conn.ask("INFO", "persistence")
    os.rename(current.with_name("hidden"), current)
    fault.end(server)
    with server.conn() as conn:
        wait_until(lambda: conn.ask("PING") == b"+PONG\r\n", RECOVERY_SECONDS, "PING works")
    load.start()
    verify(server, load)


def test_pipelines_that_wait_are_answered_in_order(fresh_server: FreshServer, shim: Shim) -> None:
    """Replies of one client keep their order through a failure and the recovery from it."""
    server = fresh_server(appendfsync="always", env=shim.env, **DIRECTIVES)
    with server.conn() as conn:
        shim.set("sync-eio", ".log")
        send_echoes(conn, 50)
        assert_echoes(conn, 50)
        shim.clear()
        wait_until(lambda: conn.ask("PING") == b"+PONG\r\n", RECOVERY_SECONDS, "PING works")
        send_echoes(conn, 50)
        assert_echoes(conn, 50)


def send_echoes(conn: Conn, count: int) -> None:
    for number in range(count):
        conn.send(b"SET k%d 1\r\nECHO %d\r\nGET k%d\r\n" % (number, number, number))


def assert_echoes(conn: Conn, count: int) -> None:
    for number in range(count):
        reply = conn.reply()
        assert reply == b"+OK\r\n" or reply.startswith(MISCONF)
        assert conn.reply().endswith(b"\r\n%d\r\n" % number)
        assert conn.reply()[:1] in (b"$", b"-")
