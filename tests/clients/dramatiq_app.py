"""The actors of test_dramatiq.py: imported by the test and by the worker (KVSERVER_PORT)."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend


def broker(port: str) -> RedisBroker:
    """A broker on that server, with results; the heartbeat makes a lost worker known soon."""
    url = f"redis://127.0.0.1:{port}/0"
    broker = RedisBroker(url=url, heartbeat_timeout=3000, maintenance_chance=100_000)
    broker.add_middleware(Results(backend=RedisBackend(url=url)))
    broker.add_middleware(CurrentMessage())
    return broker


dramatiq.set_broker(broker(os.environ.get("KVSERVER_PORT", "6379")))


@dramatiq.actor(store_results=True, max_retries=20, min_backoff=100, max_backoff=500)
def square(number: int) -> int:
    return number * number


@dramatiq.actor(store_results=True, max_retries=3, min_backoff=50)
def third_time_lucky(number: int) -> int:
    message = CurrentMessage.get_current_message()
    assert message is not None
    if (retries := message.options.get("retries", 0)) < 2:
        raise ValueError("on purpose")
    return number + retries
