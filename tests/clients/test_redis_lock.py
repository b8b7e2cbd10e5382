"""python-redis-lock: locks that wait with BLPOP for a signal, and renew themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import redis
import redis_lock
from crashes import Crashes
from harness import Server
from redis.backoff import ConstantBackoff
from redis.retry import Retry

THREADS, ROUNDS = 5, 40


def test_locks_exclude_each_other_through_crashes(app_server: Server) -> None:
    retried = (redis.ConnectionError, redis.TimeoutError)
    retry = Retry(ConstantBackoff(0.1), 300, supported_errors=retried)
    client = app_server.client(retry=retry)
    client.set("sum", 0)

    def add(number: int) -> None:
        for _ in range(ROUNDS):
            lock = redis_lock.Lock(client, "lock", expire=3)
            assert lock.acquire()
            client.set("sum", int(client.get("sum")) + 1)
            try:
                lock.release()
            except redis_lock.NotAcquired:  # released, but the reply was lost
                pass

    with Crashes(app_server, times=2), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(add, range(THREADS)))
    assert int(client.get("sum")) == THREADS * ROUNDS


def test_a_lock_renews_itself_and_can_be_reset(app_server: Server) -> None:
    client = app_server.client(decode_responses=True)
    held = redis_lock.Lock(client, "held", expire=2, auto_renewal=True)
    assert held.acquire()
    # Longer than it lasts without being renewed.
    assert not redis_lock.Lock(client, "held").acquire(blocking=True, timeout=3)
    held.extend(60)
    assert 50 < client.ttl("lock:held") <= 60
    redis_lock.reset_all(client)
    assert not held.locked()
    other = redis_lock.Lock(client, "held", expire=5)
    assert other.acquire(timeout=5) and not held.acquire(blocking=False)
    other.release()
