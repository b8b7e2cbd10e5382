"""dramatiq: its broker is one Lua script that keeps what is being worked on in the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis
from crashes import Crashes
from dramatiq.errors import BrokerConnectionError
from dramatiq.results import ResultMissing
from harness import Server, wait_until
from programs import Worker, python

SECONDS = 60_000


@pytest.fixture
def actors(
    app_server: Server, spawn: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The module of actors, on the server's broker, while a worker with threads serves it."""
    port = str(app_server.port)
    monkeypatch.setenv("KVSERVER_PORT", port)
    import dramatiq_app

    broker = dramatiq_app.broker(port)
    for actor in (dramatiq_app.square, dramatiq_app.third_time_lucky):
        actor.broker = broker
        broker.declare_actor(actor)
    worker = spawn(
        *python("-m", "dramatiq", "dramatiq_app", "--processes", "1", "--threads", "4"),
        KVSERVER_PORT=port,
    )
    wait_until(lambda: worker.alive and "ready" in worker.tail(), timeout=60, what="worker")
    yield dramatiq_app
    broker.close()


def test_results_groups_pipelines_delays_retries(actors: Any) -> None:
    assert actors.square.send(12).get_result(backend=backend(actors), block=True) == 144
    group = dramatiq.group(actors.square.message(n) for n in range(100)).run()
    results = [
        message.get_result(backend=backend(actors), block=True, timeout=SECONDS)
        for message in group.children
    ]
    assert results == [n * n for n in range(100)]
    pipe = (actors.square.message(3) | actors.square.message()).run()
    assert pipe.messages[-1].get_result(backend=backend(actors), block=True) == 81
    late = actors.square.send_with_options(args=(5,), delay=500)
    assert late.get_result(backend=backend(actors), block=True) == 25
    lucky = actors.third_time_lucky.send(40)
    assert lucky.get_result(backend=backend(actors), block=True, timeout=SECONDS) == 42


def test_no_message_is_lost_when_the_server_is_killed(actors: Any, app_server: Server) -> None:
    sent = []
    with Crashes(app_server, times=2, interval=2):
        for number in range(300):
            sent.append((number, enqueue(actors.square.message(number), actors)))
            time.sleep(0.01)
    for number, message in sent:
        wait_until(lambda m=message: result(m, actors) is not None, timeout=60, what=str(number))
        assert result(message, actors) == number * number


def enqueue(message: dramatiq.Message, actors: Any) -> dramatiq.Message:
    """Send until the server takes it: the same message again, so that it has one id."""
    while True:
        try:
            actors.square.broker.enqueue(message)
            return message
        except (BrokerConnectionError, redis.RedisError):
            time.sleep(0.1)


def result(message: dramatiq.Message, actors: Any) -> int | None:
    try:
        return message.get_result(backend=backend(actors))
    except ResultMissing:
        return None


def backend(actors: Any) -> Any:
    return actors.square.broker.get_results_backend()
