"""Celery: a worker process with kvserver as broker and result backend."""

from __future__ import annotations

import time
from collections.abc import Callable

import celery
import celery_app
import pytest
from celery.result import AsyncResult
from crashes import Crashes
from harness import Server, wait_until
from programs import Worker, python

SECONDS = 120


@pytest.fixture
def app(app_server: Server, spawn: Callable[..., Worker]) -> celery.Celery:
    """The application, while a worker serves it."""
    start_worker(app_server, spawn)
    return celery_app.application(str(app_server.port))


def start_worker(server: Server, spawn: Callable[..., Worker]) -> Worker:
    """A worker with two processes that is ready for tasks."""
    worker = spawn(
        *python("-m", "celery", "-A", "celery_app", "worker"),
        *("--pool", "prefork", "--concurrency", "2", "--loglevel", "INFO"),
        KVSERVER_PORT=str(server.port),
    )
    wait_until(lambda: worker.alive and "ready." in worker.tail(), timeout=60, what="worker")
    return worker


def send(app: celery.Celery, name: str, *args: object, **options: object) -> AsyncResult:
    return app.send_task(f"celery_app.{name}", args=args, **options)


def signature(app: celery.Celery, name: str, *args: object) -> celery.canvas.Signature:
    return app.signature(f"celery_app.{name}", args=args)


def test_tasks_groups_chords_and_retries(app: celery.Celery) -> None:
    assert send(app, "square", 12).get(SECONDS) == 144
    with pytest.raises(ValueError, match="on purpose"):
        send(app, "failing").get(SECONDS)
    assert send(app, "third_time_lucky", 40).get(SECONDS) == 42

    squares = celery.group(signature(app, "square", number) for number in range(50))
    assert squares.apply_async().get(SECONDS) == [number * number for number in range(50)]

    chord = celery.chord(
        [signature(app, "square", number) for number in range(30)], signature(app, "total")
    )
    assert chord.apply_async().get(SECONDS) == sum(number * number for number in range(30))

    chain = celery.chain(signature(app, "square", 3), signature(app, "square"))
    assert chain.apply_async().get(SECONDS) == 81


def test_later_revoked_and_inspected(app: celery.Celery) -> None:
    later = send(app, "square", 5, countdown=1)
    revoked = send(app, "square", 6, countdown=60)
    inspect = app.control.inspect(timeout=5)
    wait_until(lambda: len(next(iter(inspect.scheduled().values()))) == 2, timeout=20)
    revoked.revoke()
    assert later.get(SECONDS) == 25
    [stats] = inspect.stats().values()
    assert stats["broker"]["transport"] == "redis"
    assert revoked.id in next(iter(inspect.revoked().values()))


def test_no_task_is_lost_when_the_server_is_killed(app: celery.Celery, app_server: Server) -> None:
    """Every task that was sent gives its result, whatever was under way at a crash."""
    sent: dict[int, AsyncResult] = {}
    with Crashes(app_server, times=2, interval=2):
        for number in range(300):
            sent[number] = send(app, "square", number)
            time.sleep(0.01)
    deadline = time.monotonic() + SECONDS
    for number, result in sent.items():
        wait_until(result.ready, timeout=max(1, deadline - time.monotonic()), what=f"{number}")
        assert result.get(1) == number * number
    app_client = app_server.client(db=0)
    wait_until(lambda: not app_client.exists("celery", "unacked"), timeout=30, what="acks")

    chord = celery.chord(
        [signature(app, "square", number) for number in range(20)], signature(app, "total")
    )
    assert chord.apply_async().get(SECONDS) == sum(number * number for number in range(20))


def test_a_killed_worker_s_tasks_are_given_to_another(
    app_server: Server, spawn: Callable[..., Worker]
) -> None:
    """With late acknowledgements a task is in the server until it was done."""
    worker = start_worker(app_server, spawn)
    app = celery_app.application(str(app_server.port))
    sent = [send(app, "square", number) for number in range(300)]
    wait_until(sent[5].ready, timeout=60)
    worker.kill9()
    assert not all(result.ready() for result in sent)
    start_worker(app_server, spawn)
    assert [result.get(SECONDS) for result in sent] == [number**2 for number in range(300)]
