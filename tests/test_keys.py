"""Commands on keys and whole databases as redis-server does them, and their events."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from core import Core
from harness import Server, wait_until
from pair import LATER, Pair, heard

SCRIPTS = {
    "del": """
        DEL
        DEL a
        MSET a 1 b 2 c 3
        DEL a b x a
        UNLINK
        UNLINK c c
        EXISTS a b c
        DBSIZE
        """,
    "exists": """
        EXISTS
        EXISTS a
        MSET a 1 b 2
        EXISTS a b a c
        TOUCH
        TOUCH a b a c
        """,
    "type": """
        TYPE
        TYPE a
        SET a 1
        TYPE a
        TYPE a a
        """,
    "rename": f"""
        RENAME a
        RENAME a b
        RENAME a a
        RENAMENX a b
        RENAMENX a a
        SET a 1
        RENAME a a
        RENAMENX a a
        RENAME a b
        MGET a b
        SET a 2 EXAT {LATER}
        RENAMENX a b
        MGET a b
        RENAME a b
        GET b
        EXPIRETIME b
        RENAMENX b c
        EXPIRETIME c
        SET d 3
        RENAME d c
        EXPIRETIME c
        RENAME {{x}}c y{{x}}
        DBSIZE
        """,
    "copy": f"""
        COPY a
        COPY a b
        COPY a a
        COPY a a DB 0
        COPY a a DB 1
        SET a 1
        COPY a a
        COPY a a REPLACE
        COPY a b
        COPY a b
        MGET a b
        SET a 2 EXAT {LATER}
        COPY a b
        COPY a b replace
        GET b
        EXPIRETIME b
        COPY a a DB 3
        COPY a a DB 3
        COPY a a REPLACE DB 3
        COPY a b DB 3 DB 4
        COPY a b DB
        COPY a b DB x
        COPY a b DB -1
        COPY a b DB 16
        COPY a b DB 99999999999
        COPY a b bogus
        COPY x a REPLACE
        SELECT 3
        GET a
        EXPIRETIME a
        SELECT 4
        GET b
        """,
    "move": f"""
        MOVE a
        MOVE a 0
        MOVE a 1
        MOVE a x
        MOVE a 16
        MOVE a -1
        MOVE a 99999999999
        SET a 1 EXAT {LATER}
        SET b 1
        MOVE a 1
        GET a
        MOVE a 1
        SET a 2
        MOVE a 1
        GET a
        MOVE b 1
        DBSIZE
        SELECT 1
        DBSIZE
        GET a
        EXPIRETIME a
        MOVE a 1
        MOVE b 0
        """,
    "swapdb": f"""
        SET k 0 EXAT {LATER}
        SWAPDB 0
        SWAPDB 0 0
        SWAPDB x 0
        SWAPDB 0 x
        SWAPDB 99999999999 0
        SWAPDB 0 16
        SWAPDB -1 0
        SWAPDB 0 2
        DBSIZE
        SET k 2
        SELECT 2
        GET k
        EXPIRETIME k
        SWAPDB 2 0
        GET k
        TTL k
        """,
    "flush": """
        FLUSHALL x
        FLUSHALL SYNC ASYNC
        FLUSHDB x
        FLUSHDB async sync
        FLUSHALL
        SET a 1
        SELECT 1
        SET a 1
        SET b 1 EX 100
        FLUSHDB
        DBSIZE
        GET a
        TTL b
        SET a 2
        DBSIZE
        SELECT 0
        DBSIZE
        FLUSHALL sync
        DBSIZE
        SELECT 1
        DBSIZE
        FLUSHDB ASYNC
        SET a 3
        FLUSHALL Async
        EXISTS a
        """,
    "flush in a transaction": """
        SET a 1
        MULTI
        SET b 2
        FLUSHALL
        SET c 3
        DBSIZE
        KEYS *
        EXEC
        DBSIZE
        """,
    "randomkey": """
        RANDOMKEY
        RANDOMKEY a
        SET a 1
        RANDOMKEY
        SET b 1
        DEL a
        RANDOMKEY
        """,
    "object": """
        OBJECT
        OBJECT bogus
        OBJECT bogus a
        OBJECT ENCODING
        OBJECT ENCODING missing
        OBJECT REFCOUNT missing
        OBJECT IDLETIME missing
        OBJECT FREQ missing
        SET k 0
        OBJECT ENCODING k
        OBJECT REFCOUNT k
        OBJECT FREQ k
        OBJECT encoding k k
        SET k 9999
        OBJECT REFCOUNT k
        SET k 10000
        OBJECT REFCOUNT k
        SET k -1
        OBJECT ENCODING k
        OBJECT REFCOUNT k
        SET k 9223372036854775807 EX 100
        OBJECT ENCODING k
        SET k 9223372036854775808
        OBJECT ENCODING k
        SET k 01
        OBJECT ENCODING k
        SET k ""
        OBJECT ENCODING k
        SET k 12345678901234567890123456789012345678901234
        OBJECT ENCODING k
        SET k 123456789012345678901234567890123456789012345
        OBJECT ENCODING k
        SET k 12345678901234567890123456789012345678901234 EX 100
        OBJECT ENCODING k
        OBJECT REFCOUNT k
        """,
    "wait": """
        WAIT
        WAIT 0
        WAIT x 0
        WAIT 1 x
        WAIT 1 -1
        WAIT 0 0
        WAIT -1 0
        SET a 1
        WAIT 2 1
        MULTI
        WAIT 1 0
        EXEC
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


def test_idle_time(pair: Pair) -> None:
    """Redis counts in whole seconds of its clock: the next one may begin between two commands."""
    pair.same("SET k v")
    assert pair.close("OBJECT", "IDLETIME", "k") == 0


EVENTS = {
    "del": "MSET a 1 b 2\nDEL a x a\nUNLINK b",
    "missed": "EXISTS a\nTOUCH a\nTYPE a\nTTL a\nCOPY a b\nRENAMENX b a\nMOVE a 1\n"
    "OBJECT ENCODING a",
    "rename": "SET a 1\nRENAME a a\nRENAME a b\nSET a 1\nRENAMENX a b\nRENAME a b\nRENAMENX b c",
    "copy": "SET a 1\nCOPY a b\nCOPY a b\nCOPY a b REPLACE\nCOPY a b DB 7\nCOPY a c DB 3",
    "move": "SET a 1\nMOVE a 7\nSET a 1\nMOVE a 7\nSELECT 7\nMOVE a 2",
    "whole databases": "SET a 1\nSWAPDB 3 7\nFLUSHDB\nSET a 2\nFLUSHALL",
}


@pytest.mark.parametrize("script", EVENTS.values(), ids=EVENTS)
def test_notifications(pair: Pair, script: str) -> None:
    listeners = [pair.connect(server) for server in pair.servers]
    for listener in listeners:
        listener.ask("PSUBSCRIBE", "*")
    pair.same("CONFIG SET notify-keyspace-events KEAnm\nSELECT 3")
    pair.same(script)
    for conn in pair.conns:
        conn.ask("PUBLISH", "end", "end")
    ours, theirs = map(heard, listeners)
    assert ours == theirs
    assert ours


WATCHED = {
    "del": "DEL k",
    "del of nothing": "DEL x",
    "rename from": "RENAME k x",
    "rename to": "RENAME x k",
    "rename to itself": "RENAME k k",
    "copy from": "COPY k y",
    "copy to": "COPY x k REPLACE",
    "move": "MOVE k 1",
    "move here": "DEL k\nSELECT 1\nMOVE k 0\nSELECT 0",
    "flushdb": "FLUSHDB",
    "flushall": "SELECT 5\nFLUSHALL\nSELECT 0",
    "flushdb of another": "SELECT 1\nFLUSHDB\nSELECT 0",
    "swapdb": "SWAPDB 0 1",
    "swapdb of others": "SWAPDB 1 2",
    "expire": "EXPIRE k 100",
    "expire in the past": "EXPIRE k -1",
    "persist without time": "PERSIST k",
    "object": "OBJECT ENCODING k\nTYPE k\nTOUCH k\nTTL k\nEXISTS k",
}


@pytest.mark.parametrize("key", ["k", "missing"])
@pytest.mark.parametrize("script", WATCHED.values(), ids=WATCHED)
def test_watched_keys(pair: Pair, script: str, key: str) -> None:
    pair.same("MSET k 1 x 2\nSELECT 1\nSET k 3\nSELECT 0")
    watchers = [pair.connect(server) for server in pair.servers]
    for watcher in watchers:
        watcher.ask("WATCH", key)
    pair.same(script)
    results = []
    for watcher in watchers:
        watcher.ask("MULTI")
        results.append(watcher.ask("EXEC"))
    assert results[0] == results[1]


def test_object_help(pair: Pair) -> None:
    ours, theirs = (conn.ask("OBJECT", "HELP").splitlines() for conn in pair.conns)
    assert ours[:-1] == theirs[:-1]  # the last line, common to every HELP, differs from 7.0's


def test_randomkey_finds_every_key(server: Server) -> None:
    client = server.client()
    names = {b"key:%d" % number for number in range(20)}
    client.mset(dict.fromkeys(names, b"v"))
    assert {client.randomkey() for _ in range(2000)} == names


def test_wait_without_replicas_ends_by_its_time_out(server: Server) -> None:
    client, other = server.client(), server.client()
    with server.conn() as conn:
        conn.send(b"WAIT 1 50\r\nPING\r\n")
        assert other.ping()
        assert conn.reply() == b":0\r\n"
        assert conn.reply() == b"+PONG\r\n"
    with server.conn() as conn:
        conn.send(b"WAIT 1 0\r\nPING\r\n")
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        conn.close()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 0)


def test_emptied_databases_stay_empty_over_a_restart(fresh_server: Callable[..., Server]) -> None:
    server = fresh_server()
    for index in range(3):
        client = server.client(db=index)
        client.mset({"k": index, "l": index})
        client.expire("l", 1000)
    server.client(db=0).flushdb()
    server.client(db=0).swapdb(0, 1)
    server.client(db=1).set("new", 1)
    server.kill9()
    server.start()
    assert server.client(db=0).mget("k", "l") == [b"1", b"1"]
    assert server.client(db=1).keys() == [b"new"]
    assert server.client(db=2).dbsize() == 2
    keyspace = server.client().info("keyspace")
    assert [keyspace[f"db{i}"]["keys"] for i in range(3)] == [2, 1, 2]
    assert [keyspace[f"db{i}"]["expires"] for i in range(3)] == [1, 0, 1]


def test_flushing_takes_no_longer_for_a_large_database(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        for start in range(0, 20_000, 1000):
            for number in range(start, start + 1000):
                client.call(b"SET", b"k%d" % number, b"v", b"EX", b"100")
            core.end_turn()
        client.take()
        assert client.ask(b"DBSIZE") == b":20000\r\n"
        client.call(b"FLUSHALL")
        assert len(core.log.rows.pending) == 0
        assert len(core.log.expiry.pending) == 0
        core.end_turn()
        assert client.take() == b"+OK\r\n"
        lower, upper = b"", b"\xff" * 8
        assert list(core.engine.scan(0, lower, upper)) == []
        assert list(core.engine.scan(2, lower, upper)) == []


def test_the_space_of_an_emptied_database_is_reclaimed(
    fresh_server: Callable[..., Server],
) -> None:
    server = fresh_server()
    pipeline = server.client().pipeline(transaction=False)
    for number in range(2000):
        pipeline.set(f"k:{number}", os.urandom(4096), ex=1000)
    pipeline.execute()
    server.client(db=1).set("stays", "v")
    server.restart()  # what was in memory is in files now

    def stored() -> int:
        total = 0
        for file in (server.directory / "db").glob("*.sst"):
            with suppress(FileNotFoundError):  # RocksDB deletes them meanwhile
                total += file.stat().st_size
        return total

    assert stored() > 8_000_000
    client = server.client()
    client.flushdb()
    wait_until(lambda: stored() < 100_000)
    assert server.client(db=1).get("stays") == b"v"


def test_a_value_that_is_not_in_use_grows_idle(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        client.ask(b"SET", b"k", b"v")
        core.log.rows.cache.clear()
        core.log.rows.cache.old_since -= 100.0
        assert client.ask(b"OBJECT", b"IDLETIME", b"k") == b":100\r\n"
        assert client.ask(b"OBJECT", b"IDLETIME", b"k") == b":100\r\n"
        client.ask(b"TOUCH", b"k")
        assert client.ask(b"OBJECT", b"IDLETIME", b"k") == b":0\r\n"


def test_object_looks_a_key_up(tmp_path: Path) -> None:
    with Core(tmp_path / "db") as core:
        client = core.client()
        client.ask(b"SET", b"k", b"v", b"PXAT", b"1")
        assert client.ask(b"DBSIZE") == b":1\r\n"
        assert client.ask(b"OBJECT", b"ENCODING", b"k") == b"$-1\r\n"
        assert client.ask(b"DBSIZE") == b":0\r\n"
        client.ask(b"SET", b"k", b"v")
        assert client.ask(b"OBJECT", b"FREQ", b"k").startswith(b"-ERR")
        assert core.server.keyspace.hits_and_misses() == (1, 1)
