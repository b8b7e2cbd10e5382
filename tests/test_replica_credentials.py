"""`masterauth` and `masteruser` changed at run time: the link is tried at once, however long it
would have waited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster import Cluster, replication, wait_synced
from harness import Server, wait_until

from kvserver.replication.replica import FIRST_RETRY_SECONDS, HANDSHAKE, Upstream

#: After so many failures the link waits for four seconds.
FAILURES = 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def wait_for_back_off(replica: Server, text: str) -> None:
    wait_until(lambda: replica.log_tail().count(text) >= FAILURES, 20, "the link has failed often")


def is_up(replica: Server) -> bool:
    return replication(replica).get("master_link_status") == "up"


def test_a_password(cluster: Cluster) -> None:
    primary = cluster.start(requirepass="secret")
    replica = cluster.replica_of(primary)
    wait_for_back_off(replica, "NOAUTH")
    replica.client().config_set("masterauth", "secret")
    wait_until(lambda: is_up(replica), 2, "the link is up")


def test_a_user_and_a_password_after_a_wrong_one(cluster: Cluster) -> None:
    primary = cluster.start()
    primary.client().execute_command(
        "ACL", "SETUSER", "replica", "on", ">right", "+psync", "+replconf", "+ping"
    )
    primary.client().config_set("requirepass", "secret")
    replica = cluster.replica_of(primary, masterauth="wrong")
    wait_for_back_off(replica, "WRONGPASS")
    client = replica.client()
    refusals = replica.log_tail().count("WRONGPASS")
    client.config_set("masterauth", "wrong too")
    wait_until(lambda: replica.log_tail().count("WRONGPASS") > refusals, 2, "it was tried")
    client.config_set("masterauth", "right", "masteruser", "replica")
    wait_until(lambda: is_up(replica), 2, "the link is up")


def test_a_link_that_is_up_stays_up(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    replica.client().config_set("masterauth", "unneeded")
    primary.client().set("a", 1)
    wait_synced(primary, replica)
    assert "ends:" not in replica.log_tail()
    assert replication(primary)["sync_full"] == "1"


class Timer:
    """A timer that never goes off by itself."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def upstream() -> Any:
    timers: list[Timer] = []

    def call_later(seconds: float, *_: Any) -> Timer:
        timers.append(Timer(seconds))
        return timers[-1]

    node = SimpleNamespace(
        timers=SimpleNamespace(now=lambda: 0.0, call_later=call_later, made=timers),
        files=SimpleNamespace(cancel=lambda: None),
        upstream_changed=lambda: None,
    )
    upstream: Any = Upstream(node, "primary", 6379)  # type: ignore[arg-type]
    upstream._waiting = False
    upstream.phase = HANDSHAKE
    return upstream


def delays(upstream: Any) -> list[float]:
    """How long the timers that still count wait."""
    return [timer.seconds for timer in upstream.node.timers.made if not timer.cancelled]


def test_the_back_off_is_over(upstream: Any) -> None:
    upstream.fail("no")
    assert delays(upstream) == [1.0]
    upstream.retry_soon()
    assert delays(upstream) == [0]
    upstream.retry_soon()
    assert delays(upstream) == [0], "one attempt, and not two"


def test_a_handshake_with_the_old_password_is_soon_followed_by_another(upstream: Any) -> None:
    upstream.retry_soon()
    assert delays(upstream) == []
    upstream.fail("WRONGPASS")
    assert delays(upstream) == [FIRST_RETRY_SECONDS]


def test_a_link_that_has_ended_is_not_begun_anew(upstream: Any) -> None:
    upstream.stop()
    upstream.retry_soon()
    upstream.fail("no")
    assert delays(upstream) == []
