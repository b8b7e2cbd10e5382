"""Clients of node: BullMQ, ioredis, node-redis. The scripts and their assertions are in node/."""

from __future__ import annotations

import json
from collections.abc import Callable

from crashes import Crashes
from harness import Server, wait_until
from programs import Worker

Node = Callable[..., str]


def test_bullmq_jobs_of_every_kind(node: Node) -> None:
    assert node("bullmq.mjs").strip() == "ok"


def test_bullmq_loses_and_repeats_nothing_when_the_server_is_killed(
    node: Node, app_server: Server
) -> None:
    with Crashes(app_server, times=4, interval=2):
        report = json.loads(node("bullmq_crashes.mjs", "3000"))
    print(report)
    # The event stream is trimmed to some 10,000 entries, which is more than there are here.
    assert report["announced"] == 3000


def test_bullmq_gives_a_killed_worker_s_jobs_to_another(
    node: Node, app_server: Server, spawn: Callable[..., Worker]
) -> None:
    """What the killed worker had in its hands is found stalled, once its locks have expired."""
    port = str(app_server.port)
    workers = [spawn("node", "node/bullmq_worker.mjs", port) for _ in range(2)]
    wait_until(lambda: all("ready" in worker.tail() for worker in workers), timeout=60)
    queue = spawn("node", "node/bullmq_queue.mjs", port, "300")
    wait_until(lambda: "begun" in queue.tail(), timeout=60)
    workers[0].kill9()
    assert queue.process.wait(100) == 0, queue.tail()
    assert 0 < json.loads(queue.tail(1))["stalled"] <= 10


def test_ioredis(node: Node) -> None:
    assert node("ioredis.mjs").strip() == "ok"


def test_ioredis_loses_nothing_when_the_server_is_killed(node: Node, app_server: Server) -> None:
    with Crashes(app_server, times=2):
        assert node("ioredis.mjs", "crashes").strip() == "ok"


def test_node_redis(node: Node) -> None:
    assert node("node_redis.mjs").strip() == "ok"
