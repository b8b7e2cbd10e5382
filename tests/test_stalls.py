"""RocksDB takes no writes until it has flushed or compacted: writers wait, everybody else doesn't.

A flush that takes its time (the shim slows the fsync of data files down) or a compaction with a
bandwidth of a megabyte a second makes it happen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import datadir
import pytest
from faults import Shim
from faults import shim as shim
from faults import shim_library as shim_library
from harness import Conn, Server, encode_command, wait_until
from load import Load

FreshServer = Callable[..., Server]
STALLS = "RocksDB stalls writes"
VALUE = b"x" * 100_000
SLOW_FLUSH = {"rocksdb.write_buffer_size": 1, "rocksdb.max_write_buffer_number": 2}
SLOW_COMPACTION = {
    "rocksdb.write_buffer_size": 1,
    "rocksdb.level0_file_num_compaction_trigger": 2,
    "rocksdb.level0_slowdown_writes_trigger": 2,
    "rocksdb.level0_stop_writes_trigger": 3,
    "rocksdb.compression": "no",
    "max-io-mb": 4,
}


class Pinger:
    """Sends PING and GET all the time, and remembers the longest wait for a reply."""

    def __init__(self, server: Server) -> None:
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(server,), daemon=True)
        self._thread.start()

    def _run(self, server: Server) -> None:
        with server.conn() as conn:
            while not self._stop.wait(0.002):
                began = time.monotonic()
                if conn.ask("PING") != b"+PONG\r\n" or conn.ask("GET", "kept") != b"$1\r\n1\r\n":
                    return
                self.longest = max(self.longest, time.monotonic() - began)

    def end(self) -> float:
        """Stop; returns the longest wait in seconds."""
        assert self._thread.is_alive(), "a PING or GET was answered with something else"
        self._stop.set()
        self._thread.join(10)
        return self.longest


def write_until_stalled(conn: Conn, server: Server) -> int:
    """SETs of 100 kB one after the other; returns how many it took to see a stall end."""
    count = 0
    deadline = time.monotonic() + 30
    while STALLS not in server.log_text():
        assert time.monotonic() < deadline, "no stall"
        assert conn.ask("SET", f"large{count % 50}", VALUE) == b"+OK\r\n"
        count += 1
    return count


def test_a_slow_flush_holds_writers_back_and_nobody_else(
    fresh_server: FreshServer, shim: Shim
) -> None:
    server = fresh_server(env=shim.env, **SLOW_FLUSH)
    with server.conn() as conn:
        assert conn.ask("SET", "kept", "1") == b"+OK\r\n"
        shim.set("sync-slow", ".sst")
        pinger = Pinger(server)
        load = Load(server, "stall")
        load.start()
        write_until_stalled(conn, server)
        wait_until(lambda: load.slowest > 0.4, what="a writer is held back")
        longest = pinger.end()
        assert longest < 0.4, "PING and GET don't wait for the flush"
        load.stop()
        shim.clear()
        load.settle()
    assert load.errors == []
    server.kill9()
    datadir.check(server.directory / "db")
    server.start()
    load.settle()


def test_a_slow_compaction_holds_writers_back(fresh_server: FreshServer) -> None:
    server = fresh_server(appendfsync="always", **SLOW_COMPACTION)
    with server.conn() as conn:
        load = Load(server, "compaction")
        load.start()
        written = write_until_stalled(conn, server)
        for number in range(20):
            assert conn.ask("SET", f"after{number}", VALUE) == b"+OK\r\n"
        load.stop()
        assert load.errors == []
        load.settle()
        for number in range(min(written, 50)):
            assert conn.ask("GET", f"large{number}").endswith(VALUE + b"\r\n")


@pytest.mark.parametrize("stop", ["terminate", "kill9"])
def test_a_stop_during_a_stall(fresh_server: FreshServer, shim: Shim, stop: str) -> None:
    server = fresh_server(env=shim.env, **SLOW_FLUSH)
    load = Load(server, "stop")
    with server.conn() as conn:
        shim.set("sync-slow", ".sst")
        load.start()
        write_until_stalled(conn, server)
    if stop == "terminate":
        assert server.terminate() == 0
    else:
        server.kill9()
    load.stop()
    datadir.check(server.directory / "db")
    shim.clear()
    server.start()
    load.settle()


def test_transactions_are_whole_across_a_stall(fresh_server: FreshServer, shim: Shim) -> None:
    """MULTI's commands and EXEC wait like any writer, and in the order of arrival."""
    server = fresh_server(env=shim.env, **SLOW_FLUSH)
    shim.set("sync-slow", ".sst")
    with server.conn() as conn, server.conn() as other:
        deadline = time.monotonic() + 30
        rounds = 0
        while STALLS not in server.log_text():
            assert time.monotonic() < deadline, "no stall"
            append, store = (
                encode_command("APPEND", "log", "a"),
                encode_command("SET", "big", VALUE),
            )
            conn.send(encode_command("MULTI") + append * 3 + store + encode_command("EXEC"))
            other.send(encode_command("APPEND", "log", "b"))
            replies = [conn.reply() for _ in range(6)]
            assert replies[-1].startswith(b"*4\r\n") and replies[-1].endswith(b"+OK\r\n")
            assert other.reply().startswith(b":")
            rounds += 1
        text = conn.ask("GET", "log").split(b"\r\n")[1]
        assert text.replace(b"aaa", b"").replace(b"b", b"") == b""
        assert len(text) == 4 * rounds
