"""redis-py: locks, transactions, pub/sub, cache, queues, iterators, stream workers.

Clients retry when the server is gone, as redis-py does when it is told to, so a command may be
applied twice: what is checked is what such a client may rely on.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio
from crashes import Crashes
from harness import Server, wait_until
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.cache import CacheConfig
from redis.exceptions import LockError
from redis.retry import Retry

#: A restart takes about a second, on a busy machine several.
PATIENCE = 300
PAUSE = 0.1
RETRIED = (redis.ConnectionError, redis.TimeoutError)
THREADS = 6


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def patient(request: pytest.FixtureRequest, app_server: Server) -> redis.Redis:
    """A client that waits for a server that is being restarted."""
    return app_server.client(
        protocol=request.param,
        decode_responses=True,
        retry=Retry(ConstantBackoff(PAUSE), PATIENCE, supported_errors=RETRIED),
    )


def in_threads(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What `work(number)` returns in each thread."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(threads)))


def test_locks_exclude_each_other(patient: redis.Redis, app_server: Server) -> None:
    """Threads add to a number that isn't a counter, under a lock; no addition is lost."""
    rounds = 40
    patient.set("sum", 0)

    def add(number: int) -> None:
        for _ in range(rounds):
            # The timeout frees a lock whose owner never learned that it got it.
            lock = patient.lock("lock", timeout=3, sleep=0.01)
            assert lock.acquire()
            assert lock.owned()
            value = int(patient.get("sum"))
            assert lock.extend(3, replace_ttl=True)
            patient.set("sum", value + 1)
            try:
                lock.release()
            except LockError:  # released, but the reply was lost and the release was repeated
                pass

    with Crashes(app_server):
        in_threads(add)
    assert int(patient.get("sum")) == THREADS * rounds


def test_a_lock_is_its_owners(patient: redis.Redis) -> None:
    mine = patient.lock("lock", timeout=30)
    theirs = patient.lock("lock", timeout=30, blocking_timeout=0.1)
    assert mine.acquire() and not theirs.acquire()
    assert mine.locked() and theirs.locked() and not theirs.owned()
    patient.set("lock", "somebody else's")
    with pytest.raises(LockError):
        mine.release()
    with pytest.raises(LockError):
        mine.reacquire()
    assert patient.get("lock") == "somebody else's"


def test_transactions_keep_the_balance(patient: redis.Redis, app_server: Server) -> None:
    """Transfers with WATCH from many threads, through crashes: none is torn, none is forgotten."""
    accounts = [f"account:{number}" for number in range(4)]
    patient.mset(dict.fromkeys(accounts, 100))

    def transfer(thread: int) -> tuple[int, int]:
        acknowledged = 0
        chance = random.Random(thread)
        for number in range(1, 61):
            source, target = chance.sample(accounts, 2)

            def move(
                pipe: Any, source: str = source, target: str = target, n: int = number
            ) -> None:
                amount = min(int(pipe.get(source)), 7)
                pipe.multi()
                pipe.decrby(source, amount)
                pipe.incrby(target, amount)
                pipe.hset("last", str(thread), n)

            try:
                patient.transaction(move, source, target)
                acknowledged = number
            except RETRIED:
                pass
        return acknowledged, int(patient.hget("last", str(thread)) or 0)

    with Crashes(app_server):
        results = in_threads(transfer)
    assert sum(int(value) for value in patient.mget(accounts)) == 400
    for acknowledged, applied in results:
        assert 0 < acknowledged <= applied


def test_watch_fails_when_the_key_was_changed(patient: redis.Redis, app_server: Server) -> None:
    with patient.pipeline() as pipe:
        pipe.watch("key")
        app_server.client().set("key", "changed")
        pipe.multi()
        pipe.set("key", "mine")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert patient.get("key") == "changed"


def test_pipelines_answer_in_order(patient: redis.Redis) -> None:
    with patient.pipeline(transaction=False) as pipe:
        for number in range(5000):
            pipe.set(f"key:{number}", number).get(f"key:{number}").hset("hash", str(number), 1)
        pipe.lpush("key:1", "x")
        replies = pipe.execute(raise_on_error=False)
    assert replies[1:-1:3] == [str(number) for number in range(5000)]
    assert isinstance(replies[-1], redis.ResponseError) and "WRONGTYPE" in str(replies[-1])
    assert patient.hlen("hash") == 5000


def test_subscribers_get_every_message(patient: redis.Redis, app_server: Server) -> None:
    """Channels and patterns, in threads; after a crash redis-py subscribes again by itself."""
    got: list[tuple[str, str]] = []
    pubsub = patient.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(news=lambda message: got.append(("channel", message["data"])))
    pubsub.psubscribe(**{"n?w*": lambda message: got.append(("pattern", message["data"]))})
    thread = pubsub.run_in_thread(sleep_time=0.05, exception_handler=lambda *_: time.sleep(PAUSE))
    try:
        wait_until(lambda: patient.publish("news", "first") == 2)
        expected = [("channel", "first"), ("pattern", "first")]
        for number in range(200):
            assert patient.publish("news", str(number)) == 2
            expected += [("channel", str(number)), ("pattern", str(number))]
        wait_until(lambda: len(got) >= len(expected))
        assert got == expected
        app_server.kill9()
        app_server.start()
        got.clear()
        wait_until(lambda: patient.publish("news", "after") == 2, timeout=30)
        wait_until(lambda: got == [("channel", "after"), ("pattern", "after")])
    finally:
        thread.stop()
        thread.join(10)
        pubsub.close()


def test_client_side_cache_is_invalidated(app_server: Server) -> None:
    """A hit doesn't ask the server; a change by another client is seen."""
    cached = app_server.client(protocol=3, decode_responses=True, cache_config=CacheConfig())
    other = app_server.client(decode_responses=True)
    other.set("key", "first")
    other.hset("hash", mapping={"a": 1, "b": 2})
    assert cached.get("key") == "first"
    assert cached.hgetall("hash") == {"a": "1", "b": "2"}
    calls = other.info("commandstats")["cmdstat_get"]["calls"]
    for _ in range(100):
        assert cached.get("key") == "first"
        assert cached.mget("key") == ["first"]
    assert other.info("commandstats")["cmdstat_get"]["calls"] == calls
    other.set("key", "second")
    other.hincrby("hash", "a", 41)
    wait_until(lambda: cached.get("key") == "second")
    wait_until(lambda: cached.hgetall("hash") == {"a": "42", "b": "2"})
    other.flushall()
    wait_until(lambda: cached.get("key") is None)
    other.set("key", "short-lived", px=300)
    wait_until(lambda: cached.get("key") == "short-lived")
    wait_until(lambda: cached.get("key") is None)


def async_client(server: Server, protocol: int) -> redis.asyncio.Redis:
    return redis.asyncio.Redis(
        host="127.0.0.1",
        port=server.port,
        protocol=protocol,
        decode_responses=True,
        retry=AsyncRetry(ConstantBackoff(PAUSE), PATIENCE, supported_errors=RETRIED),
        retry_on_error=[*RETRIED],
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_reliable_queue_with_blocking_moves(app_server: Server, protocol: int) -> None:
    """BLMOVE to a list of the worker's own, then LREM with the result: no job is lost."""
    jobs = 400

    async def produce(client: redis.asyncio.Redis) -> None:
        for number in range(jobs):
            await client.lpush("queue", f"job:{number}")
            await asyncio.sleep(0.008)

    async def consume(client: redis.asyncio.Redis, name: str) -> None:
        mine = f"processing:{name}"
        while await client.hlen("results") < jobs:
            # What it had taken when the reply was lost comes first.
            taken = await client.lrange(mine, 0, -1)
            if not taken:
                job = await client.blmove("queue", mine, 1, "RIGHT", "LEFT")
                taken = [job] if job is not None else []
            for job in taken:
                async with client.pipeline(transaction=True) as pipe:
                    pipe.hset("results", job, name).lrem(mine, 0, job)
                    await pipe.execute()

    async def work() -> dict[str, str]:
        clients = [async_client(app_server, protocol) for _ in range(5)]
        await asyncio.gather(
            produce(clients[0]),
            *(consume(client, str(number)) for number, client in enumerate(clients[1:])),
        )
        results = await clients[0].hgetall("results")
        assert await clients[0].llen("queue") == 0
        for client in clients:
            await client.aclose()
        return results

    with Crashes(app_server):
        results = asyncio.run(work())
    assert set(results) == {f"job:{number}" for number in range(jobs)}
    assert len(set(results.values())) > 1


@pytest.mark.parametrize("protocol", [2, 3])
def test_blocking_pops_of_every_kind(app_server: Server, protocol: int) -> None:
    async def work() -> None:
        waiting, feeding = (async_client(app_server, protocol) for _ in range(2))

        async def ask(pop: Any, feed: Callable[[], Any]) -> Any:
            task = asyncio.ensure_future(pop)
            deadline = time.monotonic() + 10
            while not (await feeding.info("clients"))["blocked_clients"]:
                assert time.monotonic() < deadline
            await feed()
            return await task

        assert await ask(waiting.blpop(["a", "b"], 10), lambda: feeding.rpush("b", 1)) == (
            ["b", "1"] if protocol == 3 else ("b", "1")
        )
        await ask(waiting.brpop("a", 10), lambda: feeding.rpush("a", 1, 2))
        assert await feeding.lrange("a", 0, -1) == ["1"]
        got = await ask(
            waiting.blmpop(10, 2, "x", "y", direction="LEFT", count=2),
            lambda: feeding.rpush("y", 1, 2, 3),
        )
        assert got == ["y", ["1", "2"]]
        got = await ask(waiting.bzpopmin("z", 10), lambda: feeding.zadd("z", {"m": 1.5, "n": 2}))
        assert list(got) == ["z", "m", 1.5]
        got = await ask(
            waiting.bzmpop(10, 1, ["w"], max=True, count=2),
            lambda: feeding.zadd("w", {"m": 1, "n": 2, "o": 3}),
        )
        assert got[0] == "w" and [name for name, _ in got[1]] == ["o", "n"]
        got = await ask(waiting.xread({"s": "$"}, block=10000), lambda: feeding.xadd("s", {"f": 1}))
        assert "s" in str(got) and "'f': '1'" in str(got)
        started = time.monotonic()
        assert await waiting.blpop(["a-void"], 0.2) is None
        assert time.monotonic() - started >= 0.2
        await waiting.aclose()
        await feeding.aclose()

    asyncio.run(work())


def test_iterators_find_everything(patient: redis.Redis) -> None:
    """Each SCAN iterator gives what was there from its beginning to its end, while others write."""
    names = {f"n:{number}" for number in range(3000)}
    with patient.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.set(f"key:{name}", 1).hset("hash", name, 1).sadd("set", name).zadd(
                "zset", {name: 1}
            )
        pipe.execute()
    stop = threading.Event()

    def disturb() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            patient.set(f"key:other:{number}", 1)
            patient.hset("hash", f"other:{number}", "1")
            patient.sadd("set", f"other:{number}")
            patient.zadd("zset", {f"other:{number}": 1})
            patient.srem("set", f"other:{number - 5}")
            patient.delete(f"key:other:{number - 5}")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert names <= {key[4:] for key in patient.scan_iter("key:*", count=50)}
        assert names <= {field for field, _ in patient.hscan_iter("hash", count=50)}
        assert names <= set(patient.hscan_iter("hash", no_values=True))
        assert names <= set(patient.sscan_iter("set", "n:*"))
        assert names <= {member for member, _ in patient.zscan_iter("zset", count=500)}
        assert set(patient.scan_iter(_type="zset")) == {"zset"}
    finally:
        stop.set()
        thread.join()


def test_stream_workers_of_a_group(patient: redis.Redis, app_server: Server) -> None:
    """Producers and a group of workers through crashes of the server and of one worker."""
    jobs = 300
    patient.xgroup_create("jobs", "workers", id="0", mkstream=True)
    produced = threading.Event()

    def produce() -> None:
        for number in range(jobs):
            patient.xadd("jobs", {"number": number}, maxlen=10_000, approximate=True)
            time.sleep(0.01)
        produced.set()

    def entries(worker: str) -> Iterator[tuple[str, dict[str, str]]]:
        """What was left by others, then what is new."""
        claimed = patient.xautoclaim("jobs", "workers", worker, 500, "0-0", count=50)
        yield from claimed[1]
        fresh = patient.xreadgroup("workers", worker, {"jobs": ">"}, count=5, block=100)
        if fresh:
            found = fresh["jobs"][0] if isinstance(fresh, dict) else fresh[0][1]
            yield from found

    def work(number: int) -> None:
        worker = f"worker-{number}"
        taken = 0
        while not (produced.is_set() and patient.scard("done") == jobs):
            for entry, fields in entries(worker):
                taken += 1
                if number == 0 and taken > 20:
                    return  # it dies with a job in its hands
                with patient.pipeline() as pipe:
                    pipe.sadd("done", fields["number"]).xack("jobs", "workers", entry)
                    pipe.execute()

    with Crashes(app_server):
        producer = threading.Thread(target=produce)
        producer.start()
        in_threads(work, 4)
        producer.join()
    assert patient.smembers("done") == {str(number) for number in range(jobs)}
    assert patient.xpending("jobs", "workers")["pending"] == 0
    [group] = patient.xinfo_groups("jobs")
    assert (group["lag"], group["consumers"]) == (0, 4)
    assert patient.xlen("jobs") == group["entries-read"]
