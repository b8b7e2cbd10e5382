"""Fixtures of the tests with applications: a server that may be killed, workers, node."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
from harness import Server
from programs import NODE, Worker

Spawn = Callable[..., Worker]


@pytest.fixture
def app_server(fresh_server: Callable[..., Server]) -> Server:
    """A kvserver of the test's own, configured as it comes: the test may kill it."""
    return fresh_server()


@pytest.fixture
def spawn(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spawn]:
    """A factory of worker processes; their output is shown when the test fails."""
    workers: list[Worker] = []

    def start(*command: str, **env: str) -> Worker:
        log = tmp_path / f"worker-{len(workers)}.log"
        worker = Worker(log, command, {"WORK_DIR": str(tmp_path), **env})
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()
        print(f"--- {worker.process.args}\n{worker.tail()}")


@pytest.fixture
def node(app_server: Server) -> Callable[..., Any]:
    """Run a script of tests/clients/node against the server, and return what it printed."""
    if shutil.which("node") is None or not (NODE / "node_modules").exists():
        reason = "node, or tests/clients/node/node_modules, is missing: see `make test-clients`"
        (pytest.fail if os.environ.get("CLIENTS_REQUIRE_NODE") else pytest.skip)(reason)

    def run(script: str, *args: str, timeout: float = 120.0) -> str:
        command = ["node", str(NODE / script), str(app_server.port), *args]
        return programs.run(command, timeout=timeout)

    return run
