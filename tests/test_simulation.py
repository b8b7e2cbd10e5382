"""Replication under a simulated network, clock and disk (tests/sim/): thousands of seeds, each with
its own writes, operators and faults. docs/development.md says how to replay one."""

from __future__ import annotations

from pathlib import Path

import pytest
from sim.runner import replay, run_many, run_seed

import kvserver

pytestmark = pytest.mark.skipif(kvserver.COMPILED, reason="it patches the modules' functions")

SEEDS = 5_000
LONG_SEEDS = 100_000
#: Real RocksDB takes a hundred times as long.
REAL_SEEDS = 12
LONG_REAL_SEEDS = 1_000


@pytest.mark.timeout(900)
def test_every_node_equals_the_model() -> None:
    failures = run_many(0, SEEDS)
    assert not failures, replay(failures)


@pytest.mark.long
def test_every_node_equals_the_model_long() -> None:
    failures = run_many(SEEDS, LONG_SEEDS)
    assert not failures, replay(failures)


@pytest.mark.timeout(300)
def test_on_real_rocksdb(tmp_path: Path) -> None:
    failures = run_many(0, REAL_SEEDS, tmp_path)
    assert not failures, replay(failures)


@pytest.mark.long
def test_on_real_rocksdb_long(tmp_path: Path) -> None:
    failures = run_many(REAL_SEEDS, LONG_REAL_SEEDS, tmp_path)
    assert not failures, replay(failures)


def test_a_seed_replays(capsys: pytest.CaptureFixture[str]) -> None:
    traces = []
    for _ in range(2):
        assert not run_seed(1, trace=True)
        traces.append(capsys.readouterr().out)
    assert traces[0]
    assert traces[0] == traces[1]
