"""What is kept in memory of sorted sets: whatever happens to their rows, it says what they say."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core import Client, Core
from invariants_zsets import check_memory, check_rows

from kvserver import codec, errors
from kvserver.codec import ELEMENT_PREFIX_LEN, ZSET
from kvserver.numbers import format_double
from kvserver.storage.commitlog import DATA, LOG, ROWS, STAMP, STAMP_KEY
from kvserver.storage.engine import EngineError
from kvserver.storage.wal_batch import DELETE, PUT, Record
from kvserver.types import zset_blocks, zset_memory
from kvserver.types.zset_memory import MOST_LENGTH, MOST_PLACES, MOST_SETS

KEYS = [b"a", b"b", b"c"]
SCORES = [float(n) for n in range(-4, 5)] + [float("inf"), -1e30]

Scores = dict[bytes, float]


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "data") as made:
        yield made


def in_order(scores: Scores) -> list[bytes]:
    return sorted(scores, key=lambda member: (scores[member], member))


def memory(core: Core) -> zset_memory.Memory:
    found = core.log.derived[ZSET]
    assert isinstance(found, zset_memory.Memory)
    return found


class Model:
    """Two databases of sorted sets on a server, and what they should be."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.client = core.client()
        self.dbs: list[dict[bytes, Scores]] = [{}, {}]
        self.committed = copy.deepcopy(self.dbs)

    def call(self, *args: Any) -> None:
        self.client.call(*[arg if isinstance(arg, bytes) else b"%d" % arg for arg in args])

    # -- what changes a set, as commands and in the model ------------------------------------------

    def add(self, key: bytes, scores: Scores) -> None:
        words = [word for m, s in scores.items() for word in (format_double(s), m)]
        self.call(b"ZADD", key, *words)
        self.dbs[0].setdefault(key, {}).update(scores)

    def remove(self, key: bytes, members: list[bytes]) -> None:
        self._left(key, [m for m in self.dbs[0].get(key, {}) if m not in members])

    def _left(self, key: bytes, members: list[bytes]) -> None:
        scores = self.dbs[0].get(key, {})
        self.dbs[0][key] = {member: scores[member] for member in members}
        if not members:
            del self.dbs[0][key]

    def pop(self, key: bytes, count: int, highest: bool) -> None:
        self.call(b"ZPOPMAX" if highest else b"ZPOPMIN", key, count)
        found = in_order(self.dbs[0].get(key, {}))
        gone = found[::-1][:count] if highest else found[:count]
        self._left(key, [member for member in found if member not in gone])

    def step(self) -> None:
        """Any command."""
        key, kind = random.choice(KEYS), random.random()
        members = list(self.dbs[0].get(key, {}))
        few = random.sample(members, min(len(members), random.choice([1, 2, 20])))
        if kind < 0.30:
            names = [b"%d" % random.randrange(2000) for _ in range(random.choice([1, 1, 2, 9]))]
            if random.random() < 0.05:
                names.append(b"long" * (MOST_LENGTH // 4) + names[0])
            self.add(key, {name: random.choice(SCORES) for name in names})
        elif kind < 0.62:
            self.pop(key, random.choice([1, 1, 1, 1, 2, 7, 150]), random.random() < 0.5)
        elif kind < 0.66:
            self.add(
                key, {b"%d" % n: random.choice(SCORES) for n in range(random.choice([9, 700]))}
            )
        elif kind < 0.72 and few:
            self.call(b"ZREM", key, *few)
            self.remove(key, few)
        elif kind < 0.75:
            self.call(b"ZREMRANGEBYSCORE", key, 1, 2)
            scores = self.dbs[0].get(key, {})
            self.remove(key, [member for member in members if 1 <= scores[member] <= 2])
        elif kind < 0.78:
            first, last = random.choice([(0, 2), (-3, -1), (4, 300)])
            self.call(b"ZREMRANGEBYRANK", key, first, last)
            found = in_order(self.dbs[0].get(key, {}))
            self.remove(key, found[first : None if last == -1 else last + 1])
        elif kind < 0.82 and few:
            self.call(b"ZINCRBY", key, 1, few[0])
            self.dbs[0][key][few[0]] += 1
        else:
            self._whole(
                key,
                random.choice(KEYS),
                random.choice(["rename", "copy", "del"] * 5 + ["flush", "swap", "db"]),
            )

    def _whole(self, key: bytes, other: bytes, what: str) -> None:
        """Something that happens to whole keys or databases."""
        keys = self.dbs[0]
        if what == "rename" and key in keys and other != key:
            self.call(b"RENAME", key, other)
            keys[other] = keys.pop(key)
        elif what == "copy" and key in keys and other != key:
            self.call(b"COPY", key, other, b"REPLACE")
            keys[other] = dict(keys[key])
        elif what == "del":
            self.call(b"DEL", key)
            keys.pop(key, None)
        elif what == "flush":
            self.call(b"FLUSHDB")
            keys.clear()
        elif what == "swap":
            self.call(b"SWAPDB", 0, 1)
            self.dbs.reverse()
        elif what == "db" and key in keys and key not in self.dbs[1]:
            self.call(b"MOVE", key, 1)
            self.dbs[1][key] = keys.pop(key)

    def forget(self) -> None:
        """What is in memory may be forgotten at any time."""
        self.core.log.derived.clear()

    def transaction(self) -> None:
        self.call(b"MULTI")
        for _ in range(5):
            self.step()
        self.call(b"EXEC")

    # -- turns -------------------------------------------------------------------------------------

    def end_turn(self) -> None:
        self.core.end_turn()
        self.committed = copy.deepcopy(self.dbs)

    def fail(self) -> None:
        """The turn's batch fails."""
        self.core.turn.drop(errors.error("no space"))
        self.dbs = copy.deepcopy(self.committed)

    def check(self) -> None:
        check_memory(self.core.log)
        self.core.end_turn()
        self.client.take()
        for key in KEYS:
            scores = self.dbs[0].get(key, {})
            expected = in_order(scores)
            self.call(b"MULTI")  # so it isn't answered in steps
            self.call(b"ZRANGE", key, 0, -1)
            parts = [b"$%d\r\n%b\r\n" % (len(member), member) for member in expected]
            reply = b"*%d\r\n" % len(parts) + b"".join(parts)
            assert self.client.ask(b"EXEC") == b"+OK\r\n+QUEUED\r\n*1\r\n" + reply
            if expected:
                rank = random.randrange(len(expected))
                assert self.client.ask(b"ZRANK", key, expected[rank]) == b":%d\r\n" % rank
            self._check_rows(key)
        self.committed = copy.deepcopy(self.dbs)

    def _check_rows(self, key: bytes) -> None:
        db = self.core.server.keyspace.readers[0]
        row = db.rows.get(db.row_key(key))
        if row is not None:
            prefix = db.db.prefix + codec.collection_id(row)
            rows = self.core.log.data.scan(prefix, codec.prefix_end(prefix))
            check_rows(row, {name[ELEMENT_PREFIX_LEN:]: value for name, value in rows})


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens(core: Core, seed: int) -> None:
    random.seed(seed)
    model = Model(core)
    for turn in range(120):
        for _ in range(random.choice([1, 1, 4, 20])):
            kind = random.random()
            if kind < 0.1:
                model.transaction()
            elif kind < 0.2:
                model.forget()
            else:
                model.step()
        if random.random() < 0.15:
            model.fail()
        else:
            model.end_turn()
        if turn % 3 == 0:
            model.check()
    model.check()


def pop(client: Client, command: bytes = b"ZPOPMIN") -> bytes:
    """The member that is popped."""
    return client.ask(command, b"z").split(b"\r\n")[2]


def filled(core: Core, count: int = 30) -> Client:
    """A client whose set z has the members 100, 101 ... with these scores, and whose ends are in
    memory."""
    client = core.client()
    client.ask(b"ZADD", b"z", *[b"%d" % n for n in range(100, 100 + count) for _ in "ms"])
    for command, member in ((b"ZPOPMIN", b"100"), (b"ZPOPMAX", b"%d" % (99 + count))):
        assert pop(client, command) == member
        client.ask(b"ZADD", b"z", member, member)
    (known,) = memory(core)._sets.values()
    assert known.low.places
    assert known.high.places
    return client


def refuse(core: Core, client: Client, *args: bytes) -> None:
    """RocksDB refuses the batch of a command; afterwards it is well again."""
    write = core.engine.write
    core.fail_writes()
    client.call(*args)
    with pytest.raises(EngineError):
        core.log.commit()
    core.turn.drop(errors.error("no space"))
    core.engine.write = write  # type: ignore[method-assign]
    core.end_turn()
    client.take()


@pytest.mark.parametrize("size", [30, 600])
def test_a_batch_that_fails(core: Core, size: int) -> None:
    """A moved member changes no row but its own: the header is the same before and after."""
    client = filled(core, size)
    refuse(core, client, b"ZADD", b"z", b"1", b"115")
    assert pop(client) == b"100"
    refuse(core, client, b"ZADD", b"z", b"1000", b"115")
    assert pop(client, b"ZPOPMAX") == b"%d" % (99 + size)
    refuse(core, client, b"ZPOPMIN", b"z", b"5")
    assert pop(client) == b"101"
    check_memory(core.log)
    assert client.ask(b"ZRANK", b"z", b"120") == b":18\r\n"


def captured(core: Core) -> list[Record]:
    """The pending rows, as another server would send them in a batch of its own."""
    log = core.log
    records: list[Record] = []
    for cf, table in ((ROWS, log.rows), (DATA, log.data)):
        for key, row in table.pending.items():
            records.append((DELETE, cf, key, b"") if row is None else (PUT, cf, key, row))
    stamp = STAMP.pack(log.epoch, log.committed_seq + 1, log.committed_seq + 1, 0)
    return [*records, (PUT, LOG, STAMP_KEY, stamp)]


@pytest.mark.parametrize("size", [30, 600])
def test_a_primary_changes_the_set(core: Core, size: int) -> None:
    """A server that was a primary, follows another for a while, and is one again."""
    client = filled(core, size)
    client.call(b"ZADD", b"z", b"100", b"115")
    records = captured(core)
    core.turn.drop(errors.error("it was another server's"))
    core.end_turn()
    client.take()
    for command, member in ((b"ZPOPMIN", b"100"), (b"ZPOPMAX", b"%d" % (99 + size))):
        assert pop(client, command) == member
        client.ask(b"ZADD", b"z", member, member)
    stamp = STAMP.pack(core.log.epoch, core.log.committed_seq + 1, core.log.committed_seq + 1, 0)
    core.log.install([*records[:-1], (PUT, LOG, STAMP_KEY, stamp)])
    assert pop(client) == b"100"
    assert pop(client) == b"115"
    assert pop(client) == b"101"
    check_memory(core.log)


def test_a_range_leaves_too_few_for_blocks(core: Core) -> None:
    """The command that looks up ranks drops what it has found."""
    client = filled(core, 600)
    core.log.derived.clear()
    assert client.ask(b"ZREMRANGEBYRANK", b"z", b"70", b"-1") == b":530\r\n"
    check_memory(core.log)
    client.ask(b"ZADD", b"z", *[b"%d" % n for n in range(500) for _ in "ms"])
    client.ask(b"ZADD", b"z", b"7.5", b"7")
    check_memory(core.log)
    assert client.ask(b"ZRANK", b"z", b"300") == b":300\r\n"


def test_rocksdb_is_opened_again(core: Core) -> None:
    client = filled(core)
    core.engine.reopen()
    core.turn.reload()
    assert not core.log.derived
    assert pop(client) == b"100"


def test_pops_read_ahead(core: Core) -> None:
    """More with each time that they were all popped, and not without end."""
    client = filled(core, 2000)
    reads = 0
    scan = core.engine.scan

    def counted(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return scan(*args)

    core.engine.scan = counted  # type: ignore[method-assign]
    for n in range(100, 1700):
        assert pop(client) == b"%d" % n
    assert reads < 1600 / MOST_PLACES + 40
    check_memory(core.log)


@pytest.mark.parametrize("end", [b"ZPOPMIN", b"ZPOPMAX"])
def test_the_ends_in_memory_stay_small(core: Core, end: bytes) -> None:
    client = filled(core)
    sign = -1 if end == b"ZPOPMIN" else 1
    for n in range(1, 40 * MOST_PLACES):
        client.call(b"ZADD", b"z", b"%d" % (sign * (1000 + n)), b"x%d" % n)
        (known,) = memory(core)._sets.values()
        assert max(len(known.low.places), len(known.high.places)) <= 2 * MOST_PLACES
    check_memory(core.log)
    core.end_turn()
    client.take()
    for n in range(40 * MOST_PLACES - 1, 38 * MOST_PLACES, -1):
        assert pop(client, end) == b"x%d" % n


def test_long_members_are_not_kept(core: Core) -> None:
    client = filled(core)
    for n in range(5):
        client.ask(b"ZADD", b"z", b"%d" % (n - 5), b"%d" % n * MOST_LENGTH)
        client.ask(b"ZADD", b"z", b"%d" % (n + 1000), b"%d" % n * MOST_LENGTH + b"+")
    (known,) = memory(core)._sets.values()
    assert max(map(len, known.low.places + known.high.places), default=0) <= MOST_LENGTH
    for n in range(5):
        assert pop(client) == b"%d" % n * MOST_LENGTH
        assert pop(client, b"ZPOPMAX") == b"%d" % (4 - n) * MOST_LENGTH + b"+"
    check_memory(core.log)
    assert pop(client) == b"100"


def test_few_sets_are_kept(core: Core) -> None:
    client = core.client()
    for n in range(MOST_SETS + 50):
        client.call(b"ZADD", b"%d" % n, b"1", b"a", b"2", b"b")
        client.call(b"ZPOPMIN", b"%d" % n)
    assert len(memory(core)._sets) == MOST_SETS
    check_memory(core.log)
    client.call(b"ZPOPMIN", b"%d" % (MOST_SETS + 49))
    assert len(memory(core)._sets) == MOST_SETS - 1  # it is gone


def test_few_groups_are_kept(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    client = core.client()
    monkeypatch.setattr(zset_memory, "MOST_GROUPS", 3)
    monkeypatch.setattr(zset_blocks, "MOST_BLOCKS", 4)
    words = [b"%d" % n for n in range(5000) for _ in "ms"]
    client.ask(b"ZADD", b"z", *words)
    random.seed(3)
    for n in random.sample(range(5000), 500):
        client.call(b"ZINCRBY", b"z", b"0.5", b"%d" % n)
        assert len(memory(core)._sets) == 1
        assert memory(core)._budget.groups <= 6
        if n % 50 == 0:
            check_memory(core.log)
            core.end_turn()
            client.take()
            assert client.ask(b"ZRANK", b"z", b"%d" % n) == b":%d\r\n" % n


def test_long_members_of_one_score(core: Core) -> None:
    """Ends as long as what members have in common: groups of few blocks."""
    client = core.client()
    common = b"c" * 2000
    for first in range(0, 3000, 100):
        names = [common + b"%05d" % n for n in range(first, first + 100)]
        client.ask(b"ZADD", b"z", *[word for name in names for word in (b"0", name)])
    known = memory(core).get(next(iter(memory(core)._sets)))
    assert known is not None
    assert len(known.groups._groups) > 5
    check_memory(core.log)
    model = Model(core)
    model._check_rows(b"z")
    assert client.ask(b"ZRANK", b"z", common + b"02345") == b":2345\r\n"
    got = client.ask(b"ZRANGE", b"z", b"1234", b"1234")
    assert got.endswith(common + b"01234\r\n")
