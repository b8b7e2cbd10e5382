"""How far replicas are behind, as INFO tells it: true to what is documented, and without a look at
the log, however far that is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster import Cluster, replication, wait_synced
from core import Client
from harness import Server, wait_until
from replicated_core import ReplicatedCore
from store import Store

from kvserver.frames import DATA, Frame
from kvserver.replication import lag
from kvserver.replication.lag import SAMPLE_BYTES, SAMPLE_MS, Lag
from kvserver.replication.primary import HIGH_WATER, Downstream
from kvserver.storage import wal_extent
from kvserver.storage.positions import PositionLog
from kvserver.storage.wal import WalDirectory, archive_path, log_numbers, log_path
from kvserver.storage.wal_batch import BATCH_HEADER
from kvserver.storage.wal_extent import WalExtent

START_MS = 1_700_000_000_000


class Sent:
    """A log whose frames are sent as they are written."""

    def __init__(self, backlog: int = 0) -> None:
        self.engine: Any = SimpleNamespace(written=10_000)
        self.lag = Lag(self.engine, backlog)
        #: (unix ms, where it begins) of each frame.
        self.frames: list[tuple[int, int]] = []

    def write(self, ms: int, size: int, acked: int = 0) -> None:
        seq = len(self.frames) + 1
        self.frames.append((START_MS + ms, self.engine.written))
        self.engine.written += BATCH_HEADER + size
        self.lag.sent(Frame(DATA, 1, seq, seq, 1, START_MS + ms, bytes(size)), acked)
        self.lag.sent_all()

    def check(self, acked: int, ms: int = SAMPLE_MS, size: int = SAMPLE_BYTES) -> None:
        """What it tells of a replica with `acked` is right but for so much."""
        unix_ms, at = self.frames[acked]
        lacking, oldest = self.lag.unacknowledged(acked)
        assert 0 <= unix_ms - oldest < ms
        assert 0 <= lacking - (self.engine.written - at) < size


@pytest.mark.parametrize("step", [0, 1, 3, 25])
@pytest.mark.parametrize("size", [100, 5000, 40_000])
def test_what_is_told_is_precise(step: int, size: int) -> None:
    sent = Sent()
    for number in range(200):
        sent.write(number * step, size)
    for acked in range(200):
        sent.check(acked)


def test_a_write_after_a_rest_is_young() -> None:
    sent = Sent()
    for ms in (0, 5, 3_600_000, 3_600_001):
        sent.write(ms, 100)
    for acked in range(4):
        sent.check(acked)


def test_samples_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "MOST_SAMPLES", 64)
    sent = Sent()
    for number in range(1000):
        sent.write(number * SAMPLE_MS, 100)
        assert len(sent.lag._samples) <= 64
    for acked in range(1000):
        sent.check(acked, 32 * SAMPLE_MS)


def test_what_was_acknowledged_is_forgotten() -> None:
    sent = Sent()
    for number in range(1000):
        sent.write(number * SAMPLE_MS, 100, acked=number)
        assert len(sent.lag._samples) <= 2


def test_a_backlog_counts() -> None:
    sent = Sent(backlog=5000)
    assert sent.lag.unsent == 5000
    sent.lag.sent(Frame(DATA, 1, 1, 1, 1, START_MS, bytes(1000 - BATCH_HEADER)), 0)
    assert sent.lag.unsent == 4000
    assert sent.lag.unacknowledged(0) == (5000, START_MS)
    sent.lag.sent_all()
    assert sent.lag.unsent == 0


# -- INFO ----------------------------------------------------------------------------------------


class FullLink:
    """A link whose peer takes only so many bytes."""

    def __init__(self, most: int) -> None:
        self.sent, self.most = 0, most

    def send(self, data: bytes) -> None:
        self.sent += len(data)

    def buffered(self) -> int:
        return HIGH_WATER if self.sent >= self.most else 0

    def close(self) -> None:
        pass


@pytest.fixture
def core(tmp_path: Path) -> Iterator[ReplicatedCore]:
    with ReplicatedCore(tmp_path / "db") as core:
        core.state.index = PositionLog(core.engine.path, core.log)
        yield core


@pytest.fixture
def client(core: ReplicatedCore) -> Client:
    return core.client()


def attach(core: ReplicatedCore, after: int, takes: int) -> Downstream:
    """A replica that has what is up to a position, and takes so many bytes."""
    timers = SimpleNamespace(now=lambda: 0.0, call_later=core.call_later)
    node: Any = SimpleNamespace(
        log=core.log, index=core.state.index, timers=timers, replicas_changed=lambda: None
    )
    node.greet = lambda _replica: None
    replica = Downstream(node, FullLink(takes), core.add_replica())
    replica._go_online(after + 1)
    core.run_later()
    return replica


def write(core: ReplicatedCore, client: Client, count: int, size: int = 1000) -> None:
    for number in range(count):
        client.ask(b"SET", b"key:%d" % number, bytes(size))


def figures(core: ReplicatedCore) -> dict[str, int]:
    found = core.info()["replica0"].split(",")
    return {name: int(value) for name, _, value in (f.partition("=") for f in found[1:])}


@pytest.mark.parametrize("takes", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("after", [0, 100])
def test_lag_of_a_replica(core: ReplicatedCore, client: Client, takes: int, after: int) -> None:
    write(core, client, 200)
    replica = attach(core, after, takes)
    write(core, client, 100)
    replica.pump()
    begun = replica._node.index.open(after + 1)
    frame = begun.read()
    begun.close()
    assert frame is not None
    core.server.keyspace.now = frame.unix_ms + 5000
    found = figures(core)
    assert found["lag_positions"] == 300 - after
    assert found["lag_bytes"] == pytest.approx(replica._node.index.bytes_after(after), rel=0.1)
    assert 5000 <= found["lag_ms"] < 5000 + SAMPLE_MS
    replica.state.acked_seq = core.log.committed_seq
    found = figures(core)
    assert (found["lag_positions"], found["lag_bytes"], found["lag_ms"]) == (0, 0, 0)


@pytest.mark.parametrize("takes", [0, 50_000])
def test_info_does_not_look_at_the_log(
    core: ReplicatedCore, client: Client, takes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        write(core, client, 100)
        core.engine.flush()
    attach(core, 10, takes)
    core.info()  # it is measured, and the next frame read, once
    looks: list[str] = []
    for name in ("numbers", "open", "size", "after"):
        monkeypatch.setattr(WalDirectory, name, lambda *_, name=name: looks.append(name))
    found = figures(core)
    assert found["lag_positions"] == 290
    assert found["lag_bytes"] > 280_000
    assert looks == []


def test_lag_of_a_replica_whose_log_is_gone(core: ReplicatedCore, client: Client) -> None:
    write(core, client, 100)
    core.engine.flush()
    write(core, client, 100)
    core.engine.flush()
    replica = attach(core, 99, 0)
    archive = archive_path(core.engine.path)
    for number in log_numbers(archive):
        os.unlink(log_path(archive, number))
    cursor = replica._cursor
    assert cursor is not None
    cursor._index.log = SimpleNamespace(committed_seq=200)  # type: ignore[assignment]
    cursor._good_until = 0  # it would have to look for its place
    assert figures(core)["lag_ms"] == -1


# -- the extent of the log -----------------------------------------------------------------------


def total(store: Store) -> tuple[list[int], int]:
    directory = WalDirectory(store.engine.path)
    numbers = directory.numbers()
    return numbers, sum(map(directory.size, numbers))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "db")
    yield store
    store.engine.close()


def put(store: Store, size: int = 1000) -> None:
    store[0].put_string(b"key", bytes(size))
    store.log.advance()
    store.log.commit()


def test_the_extent_follows_the_files(store: Store) -> None:
    extent = WalExtent(store.engine)
    for number in range(6):
        put(store)
        if number % 2:
            store.engine.flush()
        found = extent.measure()
        assert (found.numbers, found.size) == total(store)
    archive = archive_path(store.engine.path)
    for number in sorted(log_numbers(archive))[:2]:
        os.unlink(log_path(archive, number))
    found = extent.measure()
    assert (found.numbers, found.size) == total(store)


def test_the_extent_grows_between_two_measurements(store: Store) -> None:
    extent = WalExtent(store.engine)
    before = extent.size
    put(store, 50_000)
    assert 50_000 < extent.size - before < 50_500
    assert abs(extent.size - total(store)[1]) < 100


def test_directories_at_rest_are_not_listed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    store.engine.flush()
    monkeypatch.setattr(wal_extent, "_AT_REST_NS", -(1 << 62))  # as after a rest of a second
    extent = WalExtent(store.engine)
    extent.measure()
    put(store)
    with monkeypatch.context() as patched:
        patched.setattr(WalDirectory, "numbers", lambda _: pytest.fail("it was listed"))
        assert extent.measure().size == total_size(store, extent)
    store.engine.flush()
    assert extent.measure().numbers == total(store)[0]


def total_size(store: Store, extent: WalExtent) -> int:
    directory = WalDirectory(store.engine.path)
    return sum(map(directory.size, extent.found.numbers))


# -- real servers --------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def lag_of(primary: Server) -> dict[str, int]:
    words = replication(primary)["replica0"].split(",")[1:]
    return {name: int(value) for name, _, value in (word.partition("=") for word in words)}


def test_lag_of_a_replica_that_stands_still(cluster: Cluster) -> None:
    primary = cluster.start()
    replica = cluster.replica_of(primary)
    wait_synced(primary, replica)
    client = primary.client()
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        for number in range(20):  # more than the kernel's buffers and the link's hold
            client.set(f"key:{number}", bytes(1_000_000))
        found = lag_of(primary)
        assert found["lag_positions"] == 20
        assert found["lag_bytes"] == pytest.approx(20_000_000, rel=0.01)
        wait_until(lambda: lag_of(primary)["lag_ms"] > 500, 10, "the lag grows")
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    wait_synced(primary, replica)
    wait_until(lambda: lag_of(primary)["lag_bytes"] == 0, 10, "no lag")
    assert lag_of(primary)["lag_ms"] == 0
