"""A large rewind is written in pieces: each is small, and one that ends between two of them leaves
a data set that nobody takes for a whole one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster import LOOPBACK, Cluster, follow, promote, replication, wait_synced
from digests import assert_same, full_syncs
from harness import KVSERVER, Server, wait_until
from rejoin import directive, is_loading, play, start_loading
from store import Store
from test_crash import crashing_at

from kvserver.codec import HISTORY_KEY, PADDED_KEY, REWINDS_KEY, STAMP, STAMP_KEY, UNTIL, UNTIL_KEY
from kvserver.replication import taken_back
from kvserver.replication.consistency import UNFINISHED
from kvserver.replication.taken_back import PIECE_BYTES, PIECE_RECORDS, TakenBack
from kvserver.storage.commitlog import LOG, EngineStalled
from kvserver.storage.positions import PositionLog, Touched
from kvserver.storage.wal_batch import DELETE, DELETE_RANGE, PUT, Record

NOTES = {STAMP_KEY, REWINDS_KEY, UNTIL_KEY}
M = 99


# -- what is written -------------------------------------------------------------------------------


class Written:
    """A store with some positions, and the batches of a rewind of it."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.log = self.store.log
        self.index = PositionLog(str(path), self.log)
        self.batches: list[list[Record]] = []
        self.left = 0
        self.lost: list[int] = []
        self._installed = self.log.after_install
        self.log.after_install = self._note
        for _ in range(5):
            self.store[0].put_string(b"key", b"1")
            self.log.advance()
            self.log.commit()

    def _note(self, records: list[Record]) -> None:
        self._installed(records)
        self.batches.append(records)

    def _leave(self) -> None:
        self.left += 1

    def pieces(self, touched: Touched, rows: list[dict[bytes, bytes]]) -> TakenBack:
        node: Any = SimpleNamespace(
            log=self.log,
            leave_position=self._leave,
            went_back=self.lost.append,
            rewound=lambda: None,
        )
        rows[LOG][HISTORY_KEY] = self.log.history.encode()
        return TakenBack(node, touched, rows, 2, M, 7)

    def until(self) -> tuple[int, int]:
        until, start = UNTIL.unpack_from(self.log.meta.get(UNTIL_KEY) or b"")
        return until, start


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    written = Written(tmp_path / "db")
    yield written
    written.store.engine.close()


def touched(keys: int, ranges: int = 0) -> Touched:
    found = Touched()
    found.keys[0] = {b"k%d" % number: None for number in range(keys)}
    found.ranges = [(1, b"%04d" % number, b"%04d~" % number) for number in range(ranges)]
    return found


@pytest.mark.parametrize("count", [0, 1, PIECE_RECORDS, PIECE_RECORDS + 1, 3 * PIECE_RECORDS])
def test_pieces_are_small_and_make_up_the_whole(written: Written, count: int) -> None:
    rows: list[dict[bytes, bytes]] = [{b"k%d" % n: b"=v" for n in range(0, count, 3)}, {}, {}, {}]
    values = dict(rows[0])
    pieces = written.pieces(touched(count, ranges=20), rows)
    number = 1
    while not pieces.write():
        assert written.until() == (UNFINISHED, 7)
        assert written.log.committed_seq == 2
        number += 1
    assert written.until() == (M, 7)
    assert len(written.batches) == number == max(1, -(-(count + 20) // PIECE_RECORDS))
    whole = [r for batch in written.batches for r in batch if r[2] not in NOTES | {HISTORY_KEY}]
    assert whole[:20] == [(DELETE_RANGE, 1, b"%04d" % n, b"%04d~" % n) for n in range(20)]
    expected: dict[bytes, tuple[int, bytes]] = {b"k%d" % n: (DELETE, b"") for n in range(count)}
    expected.update((key, (PUT, row)) for key, row in values.items())
    assert {key: (op, row) for op, _, key, row in whole[20:]} == expected
    for batch in written.batches:
        assert len(batch) <= PIECE_RECORDS + 4
        assert batch[-1][2] == STAMP_KEY
        assert STAMP.unpack(batch[-1][3])[1:3] == (3, 2)


def test_pieces_are_small_in_bytes(written: Written) -> None:
    rows: list[dict[bytes, bytes]] = [{b"k%d" % n: bytes(100_000) for n in range(20)}, {}, {}, {}]
    pieces = written.pieces(touched(20), rows)
    while not pieces.write():
        pass
    sizes = [sum(len(row) for _, _, _, row in batch) for batch in written.batches]
    assert max(sizes) < PIECE_BYTES + 101_000
    assert len(sizes) == 7


def test_positions_go_back_once(written: Written) -> None:
    pieces = written.pieces(touched(3 * PIECE_RECORDS), [{}, {}, {}, {}])
    while not pieces.write():
        pass
    assert written.left == 1
    assert written.lost == [3]
    notes = [key for batch in written.batches for _, _, key, _ in batch if key == REWINDS_KEY]
    assert len(notes) == 1


def test_history_and_padding_come_last(written: Written) -> None:
    """Else a half-rewound data set could pass for a padded one, or one of the new history."""
    found = touched(2 * PIECE_RECORDS)
    found.keys[LOG] = {PADDED_KEY: None, HISTORY_KEY: None, b"w:writer": None}
    rows: list[dict[bytes, bytes]] = [{}, {}, {}, {}]
    pieces = written.pieces(found, rows)
    own = written.log.history.encode()
    rows[LOG][HISTORY_KEY] = own
    while not pieces.write():
        assert (DELETE, LOG, PADDED_KEY, b"") not in written.batches[-1]
        assert (PUT, LOG, HISTORY_KEY, own) in written.batches[-1]
    assert (DELETE, LOG, PADDED_KEY, b"") in written.batches[-1]
    assert (DELETE, LOG, HISTORY_KEY, b"") not in written.batches[-1]


def test_a_piece_that_stalls_is_written_once(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = written.pieces(touched(2 * PIECE_RECORDS), [{}, {}, {}, {}])
    write = written.store.engine.write
    for _ in range(2):

        def stall(_batch: object) -> None:
            raise EngineStalled("Write stall")

        monkeypatch.setattr(written.store.engine, "write", stall)
        with pytest.raises(EngineStalled):
            pieces.write()
        monkeypatch.setattr(written.store.engine, "write", write)
        pieces.write()
    deleted = [key for batch in written.batches for op, _, key, _ in batch if op == DELETE]
    assert len(deleted) == len(set(deleted)) == 2 * PIECE_RECORDS


def test_the_log_shows_no_frame_of_a_rewind(written: Written, monkeypatch: Any) -> None:
    monkeypatch.setattr(taken_back, "PIECE_RECORDS", 10)
    pieces = written.pieces(touched(50), [{}, {}, {}, {}])
    while not pieces.write():
        pass
    written.index.forget()
    start = written.index.sequence_of(1)
    assert [f.last_seq for f in written.index.collect(start, 0, 1 << 20).frames] == [1, 2]
    written.store[0].put_string(b"key", b"2")
    written.log.advance()
    written.log.commit()
    cursor = written.index.open(1)
    frames = [cursor.read() for _ in range(4)]
    cursor.close()
    assert [frame.last_seq for frame in frames if frame is not None] == [1, 2, 3]
    assert written.index.first_position() == 1


# -- real servers ----------------------------------------------------------------------------------

KEYS = 4 * PIECE_RECORDS


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def fill(server: Server, value: str, keys: range) -> None:
    pipe = server.client().pipeline(transaction=False)
    for number in keys:
        pipe.set(f"key:{number}", value)
    pipe.execute()


def parted(cluster: Cluster, **directives: str) -> tuple[Server, Server]:
    """An old primary, and a new one, with rewinds of several pieces between them."""
    old = cluster.start(**directives)
    new = cluster.replica_of(old, **directives)
    fill(old, "shared", range(0, KEYS, 2))
    play(old, "HSET hash a 1 b 2; FLUSHDB; HSET hash a 2")
    wait_synced(old, new)
    promote(new)
    fill(old, "old", range(KEYS))
    play(old, "DEL hash; RPUSH list 1 2 3")
    fill(new, "new", range(0, KEYS, 3))
    play(new, "HSET hash c 3")
    return old, new


def killed_between_pieces(old: Server, new: Server, number: int) -> None:
    """The old primary begins to be rewound and dies after so many pieces."""
    old.terminate()
    old.program = crashing_at("install.written", number)
    old.directives["replicaof"] = directive(new)
    old.spawn()
    assert old.wait_exit() == -signal.SIGKILL
    old.program = KVSERVER
    del old.directives["replicaof"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_between_two_pieces(cluster: Cluster, number: int) -> None:
    old, new = parted(cluster)
    killed_between_pieces(old, new, number)
    start_loading(old)
    assert replication(old)["dataset_consistent"] == "no"
    follow(old, new)
    assert_same(new, old)
    assert full_syncs(new) == 0
    play(new, "SET after 1")
    assert_same(new, old)


def test_a_part_serves_nobody(cluster: Cluster) -> None:
    old, new = parted(cluster)
    killed_between_pieces(old, new, 2)
    start_loading(old)
    with old.conn() as conn:
        for words in (("SET", "a", "1"), ("DBSIZE",), ("REPLDIGEST",), ("SCAN", "0")):
            assert conn.ask(*words).startswith(b"-LOADING "), words
    third = cluster.replica_of(old)
    wait_until(lambda: "it answers: LOADING" in third.log_tail(), 20, "it is refused")
    assert replication(third)["master_link_status"] == "down"
    new.terminate()
    play(old, f"REPLICAOF {LOOPBACK} {new.port}")
    with old.conn() as conn:
        assert b"not finished" in conn.ask("REPLICAOF", "NO", "ONE")
    assert is_loading(old)
    new.start()
    follow(third, new)
    assert_same(new, old, third)


def test_a_part_goes_back_to_the_old_lineage(cluster: Cluster) -> None:
    """To whoever has what was half taken back."""
    old, new = parted(cluster)
    third = cluster.replica_of(old)
    wait_synced(old, third)
    promote(third)
    killed_between_pieces(old, new, 2)
    start_loading(old)
    follow(old, third)
    assert_same(third, old)
    assert full_syncs(third) == 0


@pytest.mark.parametrize("padding", ["no", "yes"])
def test_without_rewinds_a_part_is_replaced(cluster: Cluster, padding: str) -> None:
    """Padding would keep rows that contradict each other."""
    old, new = parted(cluster, replication_enable_sequence_padding=padding)
    killed_between_pieces(old, new, 2)
    old.directives["replication-rewind"] = "no"
    start_loading(old)
    follow(old, new)
    assert_same(new, old)
    assert full_syncs(new) == 1
    assert replication(old)["sequence_padding_events"] == "0"


def test_the_link_breaks_between_two_pieces(cluster: Cluster) -> None:
    """No crash: the same process begins anew."""
    old, new = parted(cluster)
    old.terminate()
    old.program = crashing_at("install.written", 4)
    old.directives["replicaof"] = directive(new)
    old.spawn()
    assert old.wait_exit() == -signal.SIGKILL
    new.terminate()
    old.program = KVSERVER
    start_loading(old)
    new.start()
    assert_same(new, old)
    assert full_syncs(new) == 0
