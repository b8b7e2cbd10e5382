"""When keys expire: the commands as redis-server does them, lazy and active deletion, pauses."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from core import Core
from harness import Server, wait_until
from pair import LATER, SLACK_MS, Command, Pair, heard

from kvserver import codec
from kvserver.expiry import expire_cycle
from kvserver.numbers import INT64_MAX, INT64_MIN

SCRIPTS = {
    "ttl": f"""
        TTL
        TTL a
        PTTL a
        EXPIRETIME a
        PEXPIRETIME a
        SET a 1
        TTL a
        PTTL a
        EXPIRETIME a
        PEXPIRETIME a
        EXPIREAT a {LATER}
        EXPIRETIME a
        PEXPIRETIME a
        PEXPIREAT a {LATER}499
        EXPIRETIME a
        PEXPIREAT a {LATER}500
        EXPIRETIME a
        PEXPIRETIME a
        TTL a a
        """,
    "expire": f"""
        EXPIRE a
        EXPIRE a 1
        EXPIRE a x
        SET a 1
        EXPIRE a x
        EXPIRE a 1.5
        EXPIRE a ""
        EXPIRE a 0
        GET a
        SET a 1
        PEXPIRE a -1
        EXISTS a
        SET a 1
        EXPIREAT a 1
        EXISTS a
        SET a 1
        PEXPIREAT a -1
        DBSIZE
        SET a 1
        PEXPIREAT a {LATER}000
        SET a 2 KEEPTTL
        EXPIRETIME a
        APPEND a 3
        EXPIRETIME a
        PERSIST a
        PERSIST a
        PERSIST x
        PERSIST
        EXPIRETIME a
        GET a
        """,
    "overflow": f"""
        SET a 1
        EXPIRE a {INT64_MAX}
        EXPIRE a {INT64_MAX // 1000}
        EXPIRE a {INT64_MAX // 1000 + 1}
        EXPIRE a {INT64_MAX + 1}
        PEXPIRE a {INT64_MAX}
        EXPIREAT a {INT64_MAX}
        EXPIREAT a {INT64_MAX // 1000 + 1}
        EXPIREAT a {INT64_MAX // 1000}
        PEXPIRETIME a
        EXPIRETIME a
        PEXPIREAT a {INT64_MAX}
        PEXPIRETIME a
        PERSIST a
        EXPIRE a {INT64_MIN}
        EXPIRE a -{-INT64_MIN // 1000 + 1}
        EXPIRE missing {INT64_MAX}
        EXISTS a
        EXPIRE a -{-INT64_MIN // 1000}
        EXISTS a
        SET a 1
        PEXPIRE a {INT64_MIN}
        EXISTS a
        SET a 1
        EXPIREAT a {INT64_MIN}
        PEXPIREAT a {INT64_MIN}
        EXISTS a
        """,
    "options": """
        SET a 1
        EXPIRE a 100 NX XX
        EXPIRE a 100 nx gt
        EXPIRE a 100 LT NX
        EXPIRE a 100 GT LT
        EXPIRE a 100 LT GT XX
        EXPIRE a 100 NX XX GT LT
        EXPIRE a 100 bogus
        EXPIRE a x bogus
        EXPIRE a x NX XX
        EXPIRE a 100 NX "a\\r\\nb"
        EXPIRE a 100 NX "a\\x00b"
        EXPIRE missing 100 NX
        EXPIRE missing 100 GT LT
        TTL a
        EXPIRE a 100 NX NX
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_replies(pair: Pair, script: str) -> None:
    pair.same(script)


def test_every_combination_of_options(pair: Pair) -> None:
    commands: list[Command] = []
    for count in range(3):
        for options in permutations(("NX", "XX", "GT", "LT"), count):
            for before in (None, LATER, LATER + 100):
                for after in (LATER, LATER + 50, 1):
                    commands += [("SET", "k", "v")]
                    if before is not None:
                        commands += [("EXPIREAT", "k", before)]
                    commands += [("EXPIREAT", "k", after, *options), ("EXPIRETIME", "k")]
    pair.same(commands)


@pytest.mark.parametrize("command", ["EXPIRE k 100", "PEXPIRE k 100000", "EXPIRE k 100 XX GT"])
def test_relative_times(pair: Pair, command: str) -> None:
    pair.same(f"SET k v EX 50\n{command}")
    for ask, unit in (("PTTL", 1), ("TTL", 1000)):
        remaining = pair.servers[0].client().execute_command(ask, "k") * unit
        assert 100_000 - SLACK_MS <= remaining <= 100_000
    pair.close("PEXPIRETIME", "k")


EVENTS = {
    "expire": f"SET a 1\nEXPIRE a 100\nPEXPIRE a 100000 NX\nEXPIREAT a {LATER}\nEXPIRE x 1",
    "in the past": "MSET a 1 b 2\nEXPIRE a 0\nPEXPIREAT b 5",
    "persist": f"SET a 1\nPERSIST a\nEXPIREAT a {LATER}\nPERSIST a\nPERSIST a",
    "expired when read": "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 1 PX 1\nDEBUG SLEEP 0.01\nGET a\nGET a",
    "expired when deleted": "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 1 PX 1\nDEBUG SLEEP 0.01\nDEL a",
    "expired when it is a destination": "DEBUG SET-ACTIVE-EXPIRE 0\nSADD a 1\nPEXPIRE a 1\n"
    "DEBUG SLEEP 0.01\nSMOVE missing a 1\nSMOVE missing a 1",
    "expired when overwritten": "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 1 PX 1\nSET b 1 PX 1\n"
    "SET c 1 PX 1\nSET d 1\nDEBUG SLEEP 0.01\nSET a 2\nRENAME d b\nCOPY a c\nPERSIST x",
    "expired when moved": "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 1 PX 1\nSELECT 4\nSET b 1 PX 1\n"
    "SELECT 3\nSET b 2\nDEBUG SLEEP 0.01\nMOVE a 4\nMOVE b 4\nEXPIRE a 1",
    "expired when looked at": "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 1 PX 1\nSET b 1 PX 1\n"
    "SET c 1 PX 1\nDEBUG SLEEP 0.01\nTTL a\nTYPE b\nEXISTS c c\nTOUCH c",
    "expired when scanned": "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 1 PX 1\nDEBUG SLEEP 0.01\nKEYS *\n"
    "RANDOMKEY\nDBSIZE\nSCAN 0\nDBSIZE",
}


@pytest.mark.parametrize("script", EVENTS.values(), ids=EVENTS)
def test_notifications(pair: Pair, script: str) -> None:
    listeners = [pair.connect(server) for server in pair.servers]
    for listener in listeners:
        listener.ask("PSUBSCRIBE", "*")
    pair.same("CONFIG SET notify-keyspace-events KEAnm\nSELECT 3")
    try:
        # Time stands still while the commands of one packet are executed: a packet for each part.
        for part in re.split(r"(DEBUG SLEEP \S+)\n", script):
            pair.same(part)
        for conn in pair.conns:
            conn.ask("PUBLISH", "end", "end")
    finally:
        pair.same("DEBUG SET-ACTIVE-EXPIRE 1")
    ours, theirs = map(heard, listeners)
    assert ours == theirs
    assert ours


# -- active expiry -------------------------------------------------------------------------------


def test_thousands_of_keys_due_at_once_go_without_being_read(server: Server) -> None:
    client, listener = server.client(), server.conn()
    client.config_set("notify-keyspace-events", "Ex")
    listener.ask("PSUBSCRIBE", "__keyevent@*__:expired")
    count = 5000
    due = int(time.time() * 1000) + 1500
    for index in (0, 5):
        pipeline = server.client(db=index).pipeline(transaction=False)
        for number in range(count):
            pipeline.set(f"k:{number}", "v", pxat=due + number % 20)
        pipeline.set("stays", "v", ex=1000)
        pipeline.execute()
    other = server.client(db=5)
    slowest = 0.0

    def gone() -> bool:
        nonlocal slowest
        start = time.perf_counter()
        other.ping()
        slowest = max(slowest, time.perf_counter() - start)
        return client.dbsize() + other.dbsize() == 2

    wait_until(gone)
    assert slowest < 1
    stats = client.info("stats")
    assert stats["expired_keys"] == 2 * count
    assert stats["keyspace_hits"] == stats["keyspace_misses"] == 0
    keyspace = client.info("keyspace")
    assert [keyspace[name]["expires"] for name in ("db0", "db5")] == [1, 1]
    names = sorted(listener.reply().split(b"\r\n")[-2] for _ in range(2 * count))
    assert names == sorted([b"k:%d" % number for number in range(count)] * 2)


def test_expired_keys_are_gone_after_a_crash_and_their_entries_too(
    fresh_server: Callable[..., Server],
) -> None:
    server = fresh_server()
    client = server.client()
    pipeline = client.pipeline(transaction=False)
    for number in range(1000):
        pipeline.set(f"k:{number}", "v", px=1 if number % 2 else 1_000_000)
    pipeline.execute()
    server.kill9()
    server.start()
    client = server.client()
    assert client.get("k:1") is None
    wait_until(lambda: client.dbsize() == 500)
    assert client.info("keyspace")["db0"]["expires"] == 500


def test_nothing_is_deleted_during_a_pause(server: Server) -> None:
    client = server.client()
    pipeline = client.pipeline(transaction=False)
    for number in range(100):
        pipeline.set(f"k:{number}", "v", px=50)
    pipeline.client_pause(100_000, all=False)
    pipeline.execute()
    now = int(time.time() * 1000)
    wait_until(lambda: time.time() * 1000 > now + 200)
    assert client.get("k:1") is None
    assert client.exists("k:2") == 0
    assert client.keys() == list(client.scan_iter()) == []
    assert client.randomkey() is None
    assert client.dbsize() == 100
    assert client.info("stats")["expired_keys"] == 0
    client.client_unpause()
    wait_until(lambda: client.dbsize() == 0)
    assert client.info("stats")["expired_keys"] == 100


def test_a_cycle_reads_only_what_became_due_since_the_last_one(tmp_path: Path) -> None:
    """RocksDB steps over deleted entries one by one: a cycle must not begin before them."""
    with Core(tmp_path / "db") as core:
        client = core.client()
        keyspace = core.server.keyspace
        start = keyspace.now
        for number in range(3000):
            client.call(b"SET", b"k%d" % number, b"v", b"PX", b"%d" % (100 + number))
        client.call(b"SET", b"stays", b"v", b"EX", b"1000")
        core.end_turn()
        bounds = []
        scan = core.engine.scan

        def noted(cf: int, lower: bytes, upper: bytes, reverse: bool = False) -> object:
            if not lower[codec.DB_PREFIX_LEN] & 0x80:  # those of hashes with fields that expire
                bounds.append(codec.split_expiry_key(lower + b"slot")[0] - start)
            return scan(cf, lower, upper, reverse)

        # The engine's and not the table's: an object of a compiled class keeps its methods.
        core.engine.scan = noted  # type: ignore[method-assign, assignment]
        for passed in (50, 2000, 2001, 5000, 5100):
            keyspace.now = start + passed
            assert expire_cycle(keyspace, 10**9) is False
            core.end_turn()
        assert bounds == [-start, 51, 2001, 2002, 5001]
        assert keyspace.total_keys() == 1


def test_keys_expire_while_there_are_too_few_replicas(
    fresh_server: Callable[..., Server],
) -> None:
    """Only clients' writes are refused (Redis checks that in processCommand)."""
    conn = fresh_server().conn()
    assert conn.ask("SET", "k", "v", "PX", "200") == b"+OK\r\n"
    assert conn.ask("CONFIG", "SET", "min-replicas-to-write", "1") == b"+OK\r\n"
    assert conn.ask("SET", "k", "w").startswith(b"-NOREPLICAS")
    wait_until(lambda: conn.ask("DBSIZE") == b":0\r\n", what="the key expires")
