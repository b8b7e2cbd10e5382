"""Sidekiq's way of working, with its Lua, by redis-py: Ruby itself isn't needed.

Commands and keys are those of Sidekiq 7: scheduled and retried jobs are members of sorted sets
that a script takes out when their time has come (scheduled.rb, LUA_ZPOPBYSCORE), queues are lists
that BRPOP reads (fetch.rb), each process has a hash with a time to live (launcher.rb).
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from crashes import Crashes
from harness import Server, wait_until
from redis.backoff import ConstantBackoff
from redis.retry import Retry

ZPOPBYSCORE = """
local key, now = KEYS[1], ARGV[1]
local jobs = redis.call("zrange", key, "-inf", now, "byscore", "limit", 0, 1)
if jobs[1] then
  redis.call("zrem", key, jobs[1])
  return jobs[1]
end
"""
#: The form before Sidekiq 7.
ZPOPBYSCORE_6 = ZPOPBYSCORE.replace(
    '"zrange", key, "-inf", now, "byscore", "limit"', '"zrangebyscore", key, "-inf", now, "limit"'
)
JOBS = 400
RETRIED = (redis.ConnectionError, redis.TimeoutError)


@pytest.fixture
def client(app_server: Server) -> redis.Redis:
    retry = Retry(ConstantBackoff(0.1), 300, supported_errors=RETRIED)
    return app_server.client(decode_responses=True, protocol=3, retry=retry)


class Poller:
    """Takes due jobs out of `schedule` and `retry` and puts them into their queues."""

    def __init__(self, client: redis.Redis, script: str) -> None:
        self.client = client
        self.script = script
        self.sha = ""

    def poll(self) -> None:
        for name in ("retry", "schedule"):
            while job := self.take(name):
                push(self.client, json.loads(job))

    def take(self, name: str) -> str | None:
        """What Sidekiq's zpopbyscore does: EVALSHA, and SCRIPT LOAD when a restart forgot it."""
        self.sha = self.sha or self.client.script_load(self.script)
        try:
            return self.client.evalsha(self.sha, 1, name, repr(time.time()))
        except redis.exceptions.NoScriptError:
            self.sha = ""
            return self.take(name)


def push(client: redis.Redis, job: dict[str, object]) -> None:
    """Put a job into its queue, or into the schedule when it has a time (client.rb)."""
    at = job.pop("at", None)
    with client.pipeline(transaction=False) as pipe:
        if at is not None:
            pipe.zadd("schedule", {json.dumps(job): at})
        else:
            pipe.sadd("queues", job["queue"])
            pipe.lpush(f"queue:{job['queue']}", json.dumps({**job, "enqueued_at": time.time()}))
        pipe.execute()


def heartbeat(client: redis.Redis, process: str, busy: int) -> None:
    with client.pipeline(transaction=True) as pipe:
        pipe.sadd("processes", process)
        pipe.exists(process)
        pipe.hset(process, mapping={"busy": busy, "beat": time.time(), "rss": 1, "quiet": "false"})
        pipe.expire(process, 60)
        pipe.rpop(f"{process}-signals")
        pipe.execute()


@pytest.mark.parametrize("script", [ZPOPBYSCORE, ZPOPBYSCORE_6], ids=["7", "6"])
def test_due_jobs_are_taken_in_order(client: redis.Redis, script: str) -> None:
    now = time.time()
    poller = Poller(client, script)
    client.zadd("schedule", {f"job:{n}": now - 1000 + n for n in range(50)} | {"later": now + 1000})
    taken = [poller.take("schedule") for _ in range(51)]
    assert taken == [f"job:{n}" for n in range(50)] + [None]
    assert client.zrange("schedule", 0, -1) == ["later"]


def test_scheduled_jobs_are_done_through_crashes(client: redis.Redis, app_server: Server) -> None:
    """Every job that was scheduled is done, and what the poller took is never in two places.

    What Sidekiq itself can lose or repeat is a job whose reply was lost at a crash (BRPOP and
    zpopbyscore give a job away); it is found by comparing, and is at most one for each thread.
    """
    done: Counter[int] = Counter()
    stop = threading.Event()
    poller = Poller(client, ZPOPBYSCORE)

    def poll() -> None:
        while not stop.is_set():
            poller.poll()
            time.sleep(0.01)

    def work(number: int) -> None:
        while not stop.is_set():
            found = client.brpop(["queue:critical", "queue:default"], 0.3)
            heartbeat(client, f"host:{number}", 1)
            if found is None:
                continue
            job = json.loads(found[1])
            if job["n"] % 10 == 3 and "retries" not in job:
                client.zadd("retry", {json.dumps({**job, "retries": 1}): time.time() + 0.1})
                continue
            done[job["n"]] += 1
            day = time.strftime("%Y-%m-%d", time.gmtime())
            with client.pipeline() as pipe:
                pipe.incr("stat:processed").incr(f"stat:processed:{day}")
                pipe.expire(f"stat:processed:{day}", 5 * 365 * 24 * 3600).execute()

    crashes, threads = 3, 4
    with ThreadPoolExecutor(threads + 1) as pool:
        futures = [pool.submit(poll), *(pool.submit(work, number) for number in range(threads))]
        try:
            with Crashes(app_server, times=crashes):
                for number in range(JOBS):
                    queue = "critical" if number % 3 else "default"
                    at = {"at": time.time() + 0.2} if number % 2 else {}
                    push(client, {"class": "Job", "queue": queue, "n": number, **at})
                    time.sleep(0.01)
            keys = ("schedule", "retry", "queue:critical", "queue:default")
            wait_until(lambda: not client.exists(*keys), timeout=30)
            wait_until(lambda: len(done) >= JOBS - crashes * (threads + 1), timeout=30)
        finally:
            stop.set()
        for future in futures:
            future.result(timeout=30)
    assert int(client.get("stat:processed")) >= len(done)
    assert client.smembers("queues") == {"critical", "default"}
    assert len(client.smembers("processes")) == threads
