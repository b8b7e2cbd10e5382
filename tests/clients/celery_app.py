"""The Celery application of test_celery.py: imported by the test and by the worker.

The environment has the server's port (KVSERVER_PORT) and a directory where each execution of a
task leaves a line (WORK_DIR).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import celery


def application(port: str) -> celery.Celery:
    """An application whose broker (database 0) and result backend (database 1) are that server."""
    app = celery.Celery("work", broker=f"redis://127.0.0.1:{port}/0")
    patience = {"max_retries": 300, "interval_start": 0.1, "interval_step": 0, "interval_max": 0.1}
    app.conf.update(
        result_backend=f"redis://127.0.0.1:{port}/1",
        result_extended=True,
        result_backend_always_retry=True,
        result_backend_transport_options={"retry_policy": patience},
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry_policy=patience,
        worker_prefetch_multiplier=2,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A task that was taken and not acknowledged when the connection broke is given out again.
        broker_transport_options={
            "visibility_timeout": 4,
            "unacked_restore_interval": 1,  # by default workers look every 10 s,
            "unacked_restore_throttle": 1,  # and do something about it every tenth time
            "retry_policy": patience,
        },
    )
    return app


app = application(os.environ.get("KVSERVER_PORT", "6379"))


def note(line: str) -> None:
    """Leave a line for the test: in one write, so that processes don't mix theirs."""
    with (Path(os.environ["WORK_DIR"]) / "executions").open("a") as file:
        file.write(line + "\n")


@app.task
def square(number: int) -> int:
    note(f"square {number}")
    time.sleep(0.02)
    return number * number


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True, max_retries=5)
def third_time_lucky(self: celery.Task, number: int) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return number + self.request.retries


@app.task
def failing() -> None:
    raise ValueError("on purpose")
