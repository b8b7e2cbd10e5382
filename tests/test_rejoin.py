"""REWIND between real servers, in every shape that two data sets can part in, and interrupted at
every step. Servers are compared by REPLDIGEST, never by a full sync.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cluster import (
    LOOPBACK,
    Cluster,
    follow,
    position,
    promote,
    replication,
    wait_synced,
)
from digests import assert_same, counter, discarded, full_syncs
from harness import KVSERVER, Server, wait_until
from proxy import Proxy
from rejoin import (
    Couple,
    Shape,
    directive,
    is_loading,
    play,
    scribble,
    stands_before_m,
    start_loading,
)
from test_crash import crashing_at

from kvserver.replication.replica import MAX_LOST_REWINDS


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def proxies() -> Iterator[list[Proxy]]:
    proxies: list[Proxy] = []
    yield proxies
    for proxy in proxies:
        proxy.close()


def proxy_to(proxies: list[Proxy], server: Server) -> Proxy:
    proxies.append(Proxy(lambda: server.port).start())
    return proxies[-1]


# -- shapes --------------------------------------------------------------------------------------

SINGLES = "\n".join(f"SET s{n} 1" for n in range(6))
SHAPES = [
    Shape("aligned", "SET a 0", "SET a old\nSET b old", "SET a new\nSET c new"),
    Shape(
        "misaligned",
        "SET a 0",
        "SET a 1; SET b 1; SET c 1; SET d 1; SET e 1; SET f 1; SET g 1",
        "SET a 2; SET b 2\nSET x 2; SET y 2; SET z 2\nSET d 2\nSET e 2; SET f 2",
    ),
    Shape("one batch against many", "SET a 0", SINGLES, SINGLES.replace("\n", ";")),
    Shape("many against one batch", "SET a 0", SINGLES.replace("\n", ";"), SINGLES),
    Shape(
        "transactions",
        "MSET a 1 b 1 c 1",
        "MULTI; SET a 2; DEL b; INCR n; EXEC; SET c 2",
        "MULTI; INCR n; INCR n; EXEC\nMULTI; DEL c; SET b 3; EXEC; SET d 3",
    ),
    Shape("deleted here, changed there", "MSET a 1 b 1 c 1 d 1", "DEL a b c", "SET a 2; DEL d"),
    Shape("changed here, deleted there", "MSET a 1 b 1 c 1 d 1", "SET a 2; SET b 2", "DEL a b c d"),
    Shape("deleted on both sides", "MSET a 1 b 1 c 1", "DEL a b", "DEL b c"),
    Shape("only the old one wrote", "SET a 1", "SET a 2; SET b 2\nDEL a", ""),
    Shape("only the new one wrote", "SET a 1", "", "SET a 2; SET b 2\nDEL a"),
    Shape("the old one flushed", "MSET a 1 b 1 c 1", "FLUSHDB\nSET a 2", "SET b 3; DEL c; SET d 3"),
    Shape("the new one flushed", "MSET a 1 b 1 c 1", "SET b 2; DEL c", "FLUSHDB\nSET a 3"),
    Shape(
        "both flushed",
        "MSET a 1 b 1; SELECT 1; MSET a 1 c 1",
        "FLUSHDB; SET x 1; FLUSHALL; SET y 1; FLUSHDB; SET z 1",
        "SELECT 1; FLUSHDB; SET x 2; FLUSHDB; SET z 2; SELECT 0; SET b 2",
    ),
    Shape("the old one swapped", "SET a 1; SELECT 1; SET a 2", "SWAPDB 0 1; SET a 3", "SET a 4"),
    Shape("the new one swapped", "SET a 1; SELECT 1; SET a 2", "SET a 4", "SWAPDB 0 1; SET a 3"),
    Shape(
        "both swapped, with others",
        "SET a 1; SELECT 1; SET a 2",
        "SWAPDB 0 1; SWAPDB 1 2; SET a 3; SELECT 2; DEL a; SET b 3",
        "SWAPDB 1 5; SET a 4; SELECT 5; FLUSHDB; SET c 4; SWAPDB 5 0",
    ),
    Shape(
        "renamed, moved and copied",
        "MSET a 1 b 2 c 3 d 4; SET e 5 EX 10000",
        "RENAME a b; MOVE c 1; COPY d e REPLACE; RENAME e a",
        "RENAME b a; COPY a z DB 3; RENAME d c; RENAME e d; SELECT 1; FLUSHDB",
    ),
    Shape(
        "expiries on both sides",
        "MSET a 1 b 1; SET c 1 EX 1000; SET d 1 EX 1000; SET e 1 EX 1000",
        "EXPIRE a 100; EXPIRE b 500; PERSIST c; EXPIRE d 77; GETEX e PERSIST",
        "EXPIRE a 200; PERSIST b; EXPIRE c 300; PERSIST d; DEL e",
    ),
    Shape(
        "expired on either side",
        "MSET a 1 b 1 c 1",
        "PEXPIRE a 1; SET x 1 PX 1; PEXPIRE c 60000",
        "PEXPIRE b 1; SET y 1 PX 20; PEXPIRE c 1",
    ),
    Shape(
        "once",
        "ONCE w 1 INCR n; ONCE w 2 INCR n",
        "ONCE w 3 INCR n; ONCE w 4 INCR n; ONCE v 1 INCR n",
        "ONCE w 3 INCR n; ONCE u 1 INCR m",
    ),
    Shape(
        "large values",
        f"SET a {'x' * 300_000}; SET b {'x' * 300_000}",
        f"APPEND a {'y' * 700_000}; SETRANGE b 100000 zz; SET c {'z' * 900_000}",
        f"APPEND b {'y' * 700_000}; DEL a; SET d {'z' * 600_000}",
    ),
]


@pytest.fixture(scope="module")
def couple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Couple]:
    """Servers that have been rewound by all tests before: the log of each holds many rewinds."""
    cluster = Cluster(tmp_path_factory.mktemp("couple"))
    old = cluster.start()
    yield Couple(old, cluster.replica_of(old))
    cluster.close()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name.replace(" ", "-"))
def test_shapes(couple: Couple, shape: Shape) -> None:
    couple.run(shape)


def test_thousands_of_keys(couple: Couple) -> None:
    """More than what one command asks for, and one answer holds."""
    lines = ["; ".join(f"SET k{n + i} {{0}}" for i in range(500)) for n in range(0, 3000, 500)]
    script = "\n".join(lines)
    new = script.format("new").replace("SET k1", "DEL k1").replace(" new", " 1")
    new = "\n".join(line for line in new.splitlines() if "DEL" not in line)
    couple.run(Shape("thousands", script.format("before"), script.format("old"), new))


@pytest.mark.parametrize("seed", range(4))
def test_random_shapes(couple: Couple, seed: int) -> None:
    for number in range(3):
        rejoin_randomly(couple, random.Random(f"{seed}-{number}"))


def rejoin_randomly(couple: Couple, chance: random.Random) -> None:
    scribble(couple.old, chance, chance.randrange(5))
    couple.part()
    scribble(couple.old, chance, chance.randrange(8))
    scribble(couple.new, chance, chance.randrange(8))
    couple.rejoin()


@pytest.mark.long
def test_many_random_shapes(couple: Couple) -> None:
    """More than the rewinds that a log remembers."""
    for number in range(150):
        seed = f"{time.time_ns()}"
        print(number, seed)
        rejoin_randomly(couple, random.Random(seed))


def test_the_log_of_a_rewound_node_serves_others(couple: Couple, tmp_path: Path) -> None:
    """A replica that stood still all the time goes on from the log of a node that was rewound."""
    cluster = Cluster(tmp_path)
    try:
        third = cluster.replica_of(couple.old)
        wait_synced(couple.old, third)
        third.terminate()
        before = full_syncs(couple.old, couple.new)
        for shape in SHAPES[:4]:
            couple.run(shape)
        third.directives["replicaof"] = directive(couple.old)
        third.start()
        assert_same(couple.old, third)
        assert full_syncs(couple.old, couple.new) == before
    finally:
        cluster.close()


def test_what_was_taken_back_can_be_read(cluster: Cluster) -> None:
    old = cluster.start()
    couple = Couple(old, cluster.replica_of(old))
    play(old, "SET a 1")
    couple.part()
    play(old, "SET lost 'a value'; DEL a\nFLUSHDB")
    play(couple.new, "SET a 2")
    couple.rejoin()
    command = [sys.executable, "-m", "kvserver", "rewound"]
    for action, expected in (
        ("list", ["2-4"]),
        ("show", ['db0 set "lost" string "a value"', 'db0 del "a"', "db0 flush"]),
    ):
        shown = subprocess.run(
            [*command, action, "--dir", str(old.directory)], capture_output=True, timeout=60
        )
        assert shown.returncode == 0, shown.stderr
        for text in expected:
            assert text in shown.stdout.decode()


# -- crashes -------------------------------------------------------------------------------------


def parted(cluster: Cluster, **directives: str) -> tuple[Server, Server]:
    """An old primary and a new one, which have both written since they parted."""
    old = cluster.start(**directives)
    new = cluster.replica_of(old)
    play(old, "SET a 0; SET b 0; SELECT 1; SET a 0")
    wait_synced(old, new)
    promote(new)
    play(old, "SET a 1; SET b 1; DEL a\nSET c 1; FLUSHDB\nSELECT 1; SET b 1")
    play(new, "\n".join(f"SET x{n} 2; INCR b; DEL a" for n in range(50)))
    return old, new


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("rewind.collected", 1),
        ("rewind.saving", 1),
        ("rewind.saved", 1),
        ("install.write", 1),  # the rewind's own batch
        ("install.written", 1),
        ("install.write", 2),  # the first frame after it
        ("install.written", 20),
    ],
)
def test_killed_in_the_middle_of_a_rewind(cluster: Cluster, label: str, number: int) -> None:
    old, new = parted(cluster)
    last = position(old)
    old.terminate()
    old.program = crashing_at(label, number)
    old.directives["replicaof"] = directive(new)
    old.spawn()
    assert old.wait_exit() == -signal.SIGKILL
    for entries in discarded(old):
        assert entries[-1].frame.last_seq == last
    old.program = KVSERVER
    old.start()
    assert_same(new, old)
    assert full_syncs(new) == 0
    assert 1 <= len(discarded(old)) <= 2
    play(new, "SET after 1")
    assert_same(new, old)


@pytest.mark.parametrize("rounds", [pytest.param(3), pytest.param(40, marks=pytest.mark.long)])
def test_killed_again_and_again(cluster: Cluster, rounds: int) -> None:
    """Each start gets a little further, and begins the rewind anew."""
    old, new = parted(cluster)
    old.terminate()
    old.directives["replicaof"] = directive(new)
    chance = random.Random(rounds)
    for _ in range(rounds):
        old.program = crashing_at(chance.choice(("install.write", "install.written")), 1)
        old.spawn()
        assert old.wait_exit() == -signal.SIGKILL
        play(new, "INCR b; SET k 1; DEL x1")
    old.program = KVSERVER
    old.start()
    assert_same(new, old)
    assert full_syncs(new) == 0


def test_unfinished_rewind_serves_nobody(cluster: Cluster) -> None:
    """Killed before M and started as a primary: nothing is read, written or promoted until the
    rewind has been finished, with whichever primary."""
    old, new = parted(cluster)
    old.terminate()
    old.program = crashing_at("install.written", 3)
    old.directives["replicaof"] = directive(new)
    old.spawn()
    assert old.wait_exit() == -signal.SIGKILL
    old.program = KVSERVER
    del old.directives["replicaof"]
    for _ in range(2):
        start_loading(old)
        assert stands_before_m(old)
        with old.conn() as conn:
            assert conn.ask("SET", "a", "1").startswith(b"-LOADING ")
            assert conn.ask("REPLDIGEST").startswith(b"-LOADING ")
            assert conn.ask("REPLICAOF", "NO", "ONE") == b"+OK\r\n"
        old.terminate()
    start_loading(old)
    below = cluster.replica_of(old)
    wait_until(lambda: "it answers: " in below.log_text())
    follow(old, new)
    with old.conn() as conn:
        wait_until(lambda: not is_loading(old), 20)
        assert conn.ask("GET", "c") == b"$-1\r\n"
    assert_same(new, old)
    assert_same(old, below)
    assert full_syncs(new) == 0


# -- interrupted before M ------------------------------------------------------------------------

BULK = 4 << 20


def hold_before_m(proxies: list[Proxy], old: Server, new: Server) -> Proxy:
    """Let `old` be rewound by `new`, and stand before M with nothing more coming."""
    pipe = new.client(db=5).pipeline(transaction=False)  # where nobody flushes
    for number in range(64):
        pipe.set(f"bulk:{number}", random.Random(number).randbytes(BULK // 64))
    pipe.execute()
    proxy = proxy_to(proxies, new)
    proxy.hold_after(BULK // 2)
    old.client().replicaof(LOOPBACK, proxy.port)
    wait_until(lambda: proxy.is_holding and stands_before_m(old), 20, "it stands before M")
    return proxy


def trio(cluster: Cluster) -> tuple[Server, Server, Server]:
    """An old primary with writes of its own, the new one, and a third that follows the new one."""
    old = cluster.start()
    new, third = cluster.replica_of(old), cluster.replica_of(old)
    play(old, "MSET a 0 b 0 c 0")
    wait_synced(old, new, third)
    promote(new)
    follow(third, new)
    play(new, "SET a 2; DEL b")
    wait_synced(new, third)
    play(old, "SET a 1; SET b 1; DEL c; SET lost 1\nFLUSHDB; SET lost 2")
    return old, new, third


def test_reads_are_refused_until_m(cluster: Cluster, proxies: list[Proxy]) -> None:
    old, new = parted(cluster)
    watcher = old.client()
    watched = watcher.pipeline()
    watched.watch("b")
    proxy = hold_before_m(proxies, old, new)
    assert is_loading(old)
    assert position(old) < position(new)
    with old.conn() as conn:
        assert conn.ask("REPLDIGEST").startswith(b"-LOADING ")
        assert b"being rewound" in conn.ask("REPLICAOF", "NO", "ONE")
    proxy.resume()
    assert_same(new, old)
    assert not is_loading(old)
    watched.multi()
    watched.get("b")
    with pytest.raises(redis.WatchError):
        watched.execute()


@pytest.mark.parametrize("crash", [False, True], ids=["runs", "killed"])
def test_second_failover_to_one_that_has_m(
    cluster: Cluster, proxies: list[Proxy], crash: bool
) -> None:
    old, new, third = trio(cluster)
    hold_before_m(proxies, old, new)
    wait_synced(new, third)
    new.kill9()
    if crash:
        old.kill9()
        start_loading(old)
    promote(third)
    play(third, "SET a 3; SET after 3")
    follow(old, third)
    assert_same(third, old)
    assert full_syncs(third) == 0
    new.directives["replicaof"] = directive(third)
    new.start()
    assert_same(third, new)
    assert full_syncs(third) == 0


@pytest.mark.parametrize("crash", [False, True], ids=["runs", "killed"])
def test_second_failover_to_one_that_lacks_m(
    cluster: Cluster, proxies: list[Proxy], crash: bool
) -> None:
    """What the unfinished rewind copied from the dead primary is taken back as well."""
    old, new, third = trio(cluster)
    fork = position(third)
    third.kill9()  # before all that comes now
    play(new, "SET a late; SET lost late; SET c late")
    hold_before_m(proxies, old, new)
    new.kill9()
    if crash:
        old.kill9()
        start_loading(old)
    third.directives.pop("replicaof")
    third.start()
    play(third, "SET third 3\nSET a 3; SET d 3")
    follow(old, third)
    assert_same(third, old)
    assert counter(old, "rewinds") == 1 + (not crash)
    assert old.client().mget("lost", "c", "b") == [None, b"0", None]
    new.directives["replicaof"] = directive(third)
    new.start()
    assert_same(third, new)
    assert full_syncs(third) == 0
    assert discarded(new)[0][0].frame.first_seq == fork + 1


def test_the_new_primary_dies_before_it_gave_anything(
    cluster: Cluster, proxies: list[Proxy]
) -> None:
    old, new, third = trio(cluster)
    proxy = proxy_to(proxies, new)
    proxy.hold_after(150)  # the answer to PSYNC, but not the rows
    old.client().replicaof(LOOPBACK, proxy.port)
    wait_until(lambda: discarded(old), 20)
    wait_synced(new, third)
    new.kill9()
    promote(third)
    follow(old, third)
    assert_same(third, old)
    assert full_syncs(third) == 0


def test_cut_links_in_the_middle(cluster: Cluster, proxies: list[Proxy]) -> None:
    """The link breaks again and again, after ever more bytes."""
    old, new = parted(cluster)
    play(new, "\n".join(f"SET long{n} {'x' * 1000}" for n in range(60)))  # enough to be cut
    proxy = proxy_to(proxies, new)
    size = 100
    proxy.hold_after(size)
    old.client().replicaof(LOOPBACK, proxy.port)
    for _ in range(MAX_LOST_REWINDS - 1):  # then it would ask for a full sync
        wait_until(lambda: proxy.is_holding, 20)
        size *= 3
        proxy.cut_and_hold_after(size)
    proxy.resume()
    assert_same(new, old)
    assert full_syncs(new) == 0


# -- chains --------------------------------------------------------------------------------------


def test_chain_below_the_rewound_node(cluster: Cluster, proxies: list[Proxy]) -> None:
    old = cluster.start()
    new = cluster.replica_of(old)
    below = cluster.replica_of(old)
    last = cluster.replica_of(below)
    play(old, "MSET a 0 b 0 c 0")
    wait_synced(old, new, below)
    wait_synced(below, last)
    promote(new)
    play(old, "SET a 1; DEL b; SET lost 1\nSWAPDB 0 1\nSET lost 2")
    wait_synced(old, below)
    wait_synced(below, last)
    play(new, "SET a 2; SET b 2")
    before = full_syncs(old, below)
    proxy = hold_before_m(proxies, old, new)
    assert replication(below)["master_link_status"] == "down"
    assert below.client().get("lost") == b"2", "what it has is what its primary had"
    proxy.resume()
    assert_same(new, old)
    assert_same(old, below)
    assert_same(below, last)
    assert (full_syncs(old, below), full_syncs(new)) == (before, 0)
    assert counter(last, "rewinds") == 1
    play(new, "SET after 1")
    assert_same(new, old)
    assert_same(old, below)
    assert_same(below, last)


# -- figures -------------------------------------------------------------------------------------


def fill(server: Server, megabytes: int) -> None:
    """Data that doesn't compress."""
    chance = random.Random(1)
    client = server.client(socket_timeout=120)
    for start in range(megabytes):
        pipe = client.pipeline(transaction=False)
        for number in range(64):
            pipe.set(f"data:{start}:{number}", chance.randbytes(1 << 14))
        pipe.execute()


def measure(cluster: Cluster, proxies: list[Proxy], megabytes: int, keys: int) -> float:
    """Bytes that the rewind of so many keys sends, as a share of the data."""
    old = cluster.start()
    fill(old, megabytes)
    new = cluster.replica_of(old)
    wait_until(lambda: replication(new).get("master_link_status") == "up", 300)
    wait_synced(old, new)
    promote(new)
    pipe = old.client(socket_timeout=120).pipeline(transaction=False)
    for number in range(keys):
        pipe.set(f"lost:{number}", "x" * 100)
    pipe.execute()
    play(new, "SET kept 1")
    proxy = proxy_to(proxies, new)
    begun = time.monotonic()
    old.client().replicaof(LOOPBACK, proxy.port)
    wait_synced(new, old)
    seconds = time.monotonic() - begun
    sent = sum(proxy.forwarded.values())
    print(
        f"\nrewind of {keys} keys, {megabytes} MB of data: {sent} bytes "
        f"({proxy.forwarded[True]} down, {proxy.forwarded[False]} up) in {seconds:.2f} s"
    )
    assert_same(new, old)
    assert (full_syncs(new), counter(old, "rewinds")) == (0, 1)
    assert counter(old, "rewound_positions") == keys
    return sent / (megabytes << 20)


def test_a_rewind_costs_what_diverged(cluster: Cluster, proxies: list[Proxy]) -> None:
    assert measure(cluster, proxies, 50, 1000) < 0.01


@pytest.mark.long
def test_a_rewind_of_a_large_data_set(cluster: Cluster, proxies: list[Proxy]) -> None:
    assert measure(cluster, proxies, 1024, 1000) < 0.001
