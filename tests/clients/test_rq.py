"""rq: workers with jobs, results, retries, dependencies and a scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import jobs
import pytest
import redis
from crashes import Crashes
from harness import Server, wait_until
from programs import Worker, python
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from rq import Queue
from rq import Retry as JobRetry
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

SECONDS = 100
#: How many jobs two workers may have in their hands at two crashes: taken, or about to be.
ABANDONED = 8


@pytest.fixture
def connection(app_server: Server) -> redis.Redis:
    retried = (redis.ConnectionError, redis.TimeoutError)
    return app_server.client(retry=Retry(ConstantBackoff(0.1), 300, supported_errors=retried))


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue("work", connection=connection)


@pytest.fixture
def start_worker(app_server: Server, spawn: Callable[..., Worker]) -> Callable[..., Worker]:
    """Start a worker; the SimpleWorker runs jobs in its own process, which is faster."""

    def start(kind: str = "rq.worker.SimpleWorker", *options: str) -> Worker:
        url = f"redis://127.0.0.1:{app_server.port}/0"
        return spawn(
            *python("-m", "rq.cli", "worker", "--url", url, "--worker-class", kind),
            *options,
            "work",
        )

    return start


def finished(job: Job) -> bool:
    return bool(job.get_status(refresh=True).value == "finished")


def test_jobs_dependencies_retries_and_schedules(
    queue: Queue, start_worker: Callable[..., Worker]
) -> None:
    start_worker("rq.worker.Worker", "--with-scheduler")
    first = queue.enqueue(jobs.square, 7)
    after = queue.enqueue(jobs.square, 8, depends_on=first)
    retried = queue.enqueue(jobs.second_time_lucky, "r", retry=JobRetry(max=3))
    later = queue.enqueue_in(timedelta(seconds=2), jobs.square, 9)
    failed = queue.enqueue(jobs.failing)
    many = queue.enqueue_many([Queue.prepare_data(jobs.square, (n,)) for n in range(20)])

    for job in [first, after, retried, later, *many]:
        wait_until(lambda job=job: finished(job), timeout=SECONDS, what=str(job))
    assert (first.return_value(), after.return_value()) == (49, 64)
    assert (retried.return_value(), later.return_value()) == ("r", 81)
    assert [job.return_value() for job in many] == [n * n for n in range(20)]
    first.refresh()
    assert first.ended_at is not None

    wait_until(lambda: failed.get_status().value == "failed", timeout=SECONDS)
    assert "on purpose" in failed.latest_result().exc_string
    assert failed.id in FailedJobRegistry(queue=queue)
    failed.requeue()
    wait_until(lambda: len(failed.results()) == 2, timeout=SECONDS)


def test_a_killed_worker_s_job_is_given_to_another(
    queue: Queue, start_worker: Callable[..., Worker]
) -> None:
    started = StartedJobRegistry(queue=queue)
    job = queue.enqueue(jobs.nap, 600, job_timeout=700)
    worker = start_worker()
    wait_until(lambda: job.id in started, timeout=30)
    worker.kill9()
    # What a worker's maintenance does when the heartbeat has expired.
    started.connection.zadd(
        started.key, dict.fromkeys(started.connection.zrange(started.key, 0, -1), 1)
    )
    job.timeout = 10
    started.cleanup()
    assert job.get_status(refresh=True).value == "failed"
    assert job.id in FailedJobRegistry(queue=queue)


def test_no_job_is_lost_when_the_server_is_killed(
    queue: Queue, start_worker: Callable[..., Worker], app_server: Server
) -> None:
    """An rq worker quits at some connection errors: it is started again, as a supervisor would.

    The job in its hands is abandoned. rq notices when heartbeats have expired, after a minute or
    more; here these few jobs, which are all still known to the server, are queued again.
    """
    workers = [start_worker() for _ in range(2)]
    sent: list[Job] = []
    with Crashes(app_server, times=2, interval=2):
        for number in range(200):
            sent.append(queue.enqueue(jobs.square, number))
            supervise(workers, start_worker)
            time.sleep(0.01)

    def drained() -> bool:
        supervise(workers, start_worker)
        return queue.count == 0 and sum(map(finished, sent)) >= len(sent) - ABANDONED

    wait_until(drained, timeout=SECONDS)
    abandoned = [job for job in sent if not finished(job)]
    for job in abandoned:
        queue.enqueue_job(Job.fetch(job.id, connection=queue.connection))
    wait_until(lambda: all(finished(job) for job in sent), timeout=SECONDS)
    assert [job.return_value() for job in sent] == [number * number for number in range(200)]
    assert set(FinishedJobRegistry(queue=queue).get_job_ids()) == {job.id for job in sent}


def supervise(workers: list[Worker], start_worker: Callable[..., Worker]) -> None:
    """Replace the workers that quit."""
    for number, worker in enumerate(workers):
        if not worker.alive:
            workers[number] = start_worker()
