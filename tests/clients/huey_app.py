"""The tasks of test_huey.py: imported by the test and by the consumer (KVSERVER_PORT)."""

from __future__ import annotations

import os

from huey import PriorityRedisHuey, RedisHuey

port = int(os.environ.get("KVSERVER_PORT", "6379"))
kind = {"fifo": RedisHuey, "priority": PriorityRedisHuey}[os.environ.get("HUEY_KIND", "fifo")]
huey = kind("work", host="127.0.0.1", port=port)


@huey.task()
def square(number: int) -> int:
    return number * number


@huey.task(retries=3)
def third_time_lucky(number: int) -> int:
    with huey.lock_task("lucky"):
        tries = huey.storage.conn.incr(f"tries:{number}")
    if tries < 3:
        raise ValueError("on purpose")
    return number + int(tries)
