"""kill -9, at random moments and at each step of a commit: nothing acknowledged is lost, no
transaction is torn, and rows, counts and expiry index agree.

The log is written by write(2), so a killed process loses nothing that it acknowledged in any mode
of appendfsync; what a power cut may take is in test_power_cut.py. Each test prints its seed; set
CRASH_SEED to replay one.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import datadir
import pytest
from harness import KVSERVER, Program, Server, ServerError
from load import Load
from load_collections import FullLoad

LAUNCHER = Path(__file__).with_name("crash_launcher.py")
STEPS = ["commit.build", "commit.write", "commit.written", "sync.begin", "sync.done"]
MODES = ["always", "everysec", "no"]
#: Small enough that flushes, log rotation and compaction are going on in most rounds.
DIRECTIVES = {"rocksdb.write_buffer_size": 1, "rocksdb.max_total_wal_size": 2}


@pytest.fixture
def seed() -> str:
    seed = os.environ.get("CRASH_SEED") or str(random.randrange(1 << 32))
    print(f"CRASH_SEED={seed}")
    return seed


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A factory of servers on one directory."""
    servers: list[Server] = []

    def make(program: Program = KVSERVER, **directives: str) -> Server:
        server = Server(tmp_path / "data", {**DIRECTIVES, **directives}, program=program)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.close()


def crashing_at(label: str, number: int = 1) -> Program:
    """kvserver, but it kills itself there."""
    command = (sys.executable, str(LAUNCHER), label, str(number))
    return replace(KVSERVER, command=command)


def verify(server: Server, load: Load) -> None:
    """After a crash: the files agree with each other, and a fresh start with the clients."""
    datadir.check(server.directory / "db")
    server.program = KVSERVER
    server.start()
    load.settle()


def crash_at_random(server: Server, load: Load, rounds: int, chance: random.Random) -> None:
    """Write, kill, verify, several times on the same directory."""
    kill_while_starting(server, chance.uniform(0.1, 0.6))
    server.start()
    for _ in range(rounds):
        load.start()
        acked = load.acked
        deadline = time.monotonic() + chance.uniform(0.02, 0.4)
        while time.monotonic() < deadline or load.acked == acked:
            time.sleep(0.001)
        server.kill9()
        load.stop()
        for _ in range(chance.randrange(3)):
            kill_while_starting(server, chance.uniform(0.1, 0.6))
        verify(server, load)
    server.terminate()
    datadir.check(server.directory / "db")


def kill_while_starting(server: Server, seconds: float) -> None:
    """Start, and kill at some moment of the start: the next one must bear that too."""
    server.spawn()
    with pytest.raises(ServerError, match="had to be killed"):
        server.wait_exit(seconds)


def crash_at_step(server: Server, load: Load, label: str, number: int) -> None:
    """Write until the process kills itself, verify."""
    if server.alive:
        server.terminate()
    server.program = crashing_at(label, number)
    server.start()
    load.start()
    assert server.wait_exit() == -9
    load.stop()
    verify(server, load)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_random(victim: Callable[..., Server], seed: str, mode: str) -> None:
    server = victim(appendfsync=mode)
    crash_at_random(server, FullLoad(server, seed), 2, random.Random(seed))


@pytest.mark.parametrize("label", STEPS)
def test_killed_at_each_step(victim: Callable[..., Server], seed: str, label: str) -> None:
    server = victim(appendfsync="always")
    crash_at_step(server, FullLoad(server, seed), label, random.Random(seed).randrange(1, 200))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_killed_at_random_often(victim: Callable[..., Server], seed: str, mode: str) -> None:
    server = victim(appendfsync=mode)
    crash_at_random(server, FullLoad(server, seed), 40, random.Random(seed))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("label", STEPS)
def test_killed_at_each_step_often(victim: Callable[..., Server], seed: str, label: str) -> None:
    chance = random.Random(seed)
    server = victim(appendfsync="always")
    load = FullLoad(server, seed)
    for _ in range(16):
        crash_at_step(server, load, label, chance.randrange(1, 400))
