"""huey: both of its queues (a list, a sorted set popped by Lua), delays, retries, locks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
from harness import Server
from programs import Worker, python

SECONDS = 60


@pytest.fixture(params=["fifo", "priority"])
def tasks(
    request: pytest.FixtureRequest, app_server: Server, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    monkeypatch.setenv("KVSERVER_PORT", str(app_server.port))
    monkeypatch.setenv("HUEY_KIND", request.param)
    return importlib.reload(importlib.import_module("huey_app"))


def test_tasks_survive_a_killed_server(
    tasks: ModuleType, app_server: Server, spawn: Callable[..., Worker]
) -> None:
    """What was sent, scheduled and stored before the server was killed is done afterwards.

    huey itself loses a task that a consumer holds at that moment, so none does.
    """
    sent = [tasks.square(number) for number in range(200)]
    late = tasks.square.schedule((12,), delay=1)
    revoked = tasks.square(99)
    revoked.revoke()
    app_server.kill9()
    app_server.start()
    for _ in range(2):
        spawn(*python("-m", "huey.bin.huey_consumer", "huey_app.huey", "-w", "2", "-s", "1"))
    assert [one.get(blocking=True, timeout=SECONDS) for one in sent] == [n * n for n in range(200)]
    assert late.get(blocking=True, timeout=SECONDS) == 144
    assert tasks.third_time_lucky(40).get(blocking=True, timeout=SECONDS) == 43
    group = tasks.square.map(range(50))
    assert group.get(blocking=True, timeout=SECONDS) == [number * number for number in range(50)]
    assert len(tasks.huey.pending()) == 0
    # A revocation holds once, and is gone when the task was passed over.
    assert revoked.get() is None and not revoked.is_revoked()
