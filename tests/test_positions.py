"""The log by position: on RocksDB's files, through rotation, archive, rewinds and crashes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store import Store

from kvserver import codec
from kvserver.codec import REWINDS_KEY, STAMP, STAMP_KEY, UNTIL_KEY
from kvserver.frames import DATA, Frame
from kvserver.storage import positions
from kvserver.storage.commitlog import LOG
from kvserver.storage.positions import MAX_REWINDS, InsideFrame, LogGone, PositionLog, TooMuch
from kvserver.storage.wal import archive_path, log_numbers, log_path
from kvserver.storage.wal_batch import DELETE, DELETE_RANGE, PUT, decode_records

#: A frame of the model: (first, last, the value that it wrote).
Model = list[tuple[int, int, bytes]]

#: To be closed at the end of a test.
OPENED: list[Store] = []


class Log:
    """A store, and what its log should say: the frames that weren't discarded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()
        self.model: Model = []
        #: After each batch: RocksDB's sequence, and the model then.
        self.moments: list[tuple[int, Model]] = []
        self._count = 0
        self._note()

    def open(self) -> None:
        self.store = Store(self.path)
        OPENED.append(self.store)
        self.index = PositionLog(str(self.path), self.store.log)

    def reopen(self) -> None:
        self.store.engine.close()
        self.open()

    @property
    def last(self) -> int:
        return self.store.log.committed_seq

    def _note(self) -> None:
        self.moments.append((self.store.engine.rocksdb_sequence(), self.model))

    def frame(self, commands: int, records: int = 1, size: int = 10) -> None:
        """A batch of so many commands."""
        self._count += 1
        value = b"%d-" % self._count
        for command in range(commands):
            for record in range(records):
                self.store[0].put_string(b"key:%d:%d" % (command, record), value + b"x" * size)
            self.store.log.advance()
        self.store.log.commit()
        self.model = [*self.model, (self.last - commands + 1, self.last, value)]
        self._note()

    def new_epoch(self) -> None:
        self.store.log.begin_epoch()
        self.store.log.commit()
        self.model = [*self.model, (self.last, self.last, b"")]
        self._note()

    def rewind(self, fork: int) -> None:
        log = self.store.log
        rewinds = positions.unpack_rewinds(log.meta.get(REWINDS_KEY) or b"")
        rewinds.append((log.engine.rocksdb_sequence() + 1, fork))
        packed = positions.pack_rewinds(rewinds[-MAX_REWINDS:])
        stamp = STAMP.pack(log.epoch, fork + 1, fork, 0)
        notes = [(PUT, LOG, REWINDS_KEY, packed), (PUT, LOG, UNTIL_KEY, bytes(16))]
        log.install([*notes, (PUT, LOG, STAMP_KEY, stamp)])
        self.index.forget()
        self.model = [frame for frame in self.model if frame[1] <= fork]
        self._note()

    def crash(self, cut: int) -> Log:
        """The data set after a crash of the machine that took `cut` bytes of the log."""
        image = self.path.with_name(f"{self.path.name}-image")
        self.store.engine.close()  # leaves the log as it is; compactions end
        shutil.copytree(self.path, image)
        newest = Path(log_path(str(image), max(log_numbers(str(image)))))
        with newest.open("r+b") as file:
            file.truncate(max(newest.stat().st_size - cut, 0))
        survivor = Log(image)
        survivor._count = self._count
        found = survivor.store.engine.rocksdb_sequence()
        survivor.moments = [moment for moment in self.moments if moment[0] <= found]
        survivor.model = survivor.moments[-1][1]
        return survivor

    def read_from(self, seq: int) -> Model:
        """The frames that a cursor gives."""
        with closing(self.index.open(seq)) as cursor:
            assert cursor.next_seq == seq
            found = [in_short(frame) for frame in iter(cursor.read, None)]
            assert cursor.next_seq == self.last + 1
        return found

    def check(self) -> None:
        """Every position: its frames, or why there are none."""
        lowest = self.index.first_position()
        for index, (first, last, _) in enumerate(self.model):
            if first < lowest:
                with pytest.raises(LogGone):
                    self.index.open(first)
                continue
            assert self.read_from(first) == self.model[index:]
            for seq in range(first + 1, last + 1):
                with pytest.raises(InsideFrame) as inside:
                    self.index.open(seq)
                assert (inside.value.first_seq, inside.value.last_seq) == (first, last)
        assert self.read_from(self.last + 1) == []
        for seq in (self.last + 2, 0, -1):
            with pytest.raises(LogGone):
                self.index.open(seq)


def in_short(frame: Frame) -> tuple[int, int, bytes]:
    """A frame as the model has it."""
    assert frame.kind == DATA
    records = decode_records(frame.payload, frame.records)
    stamp = STAMP.pack(frame.epoch, frame.first_seq, frame.last_seq, frame.unix_ms)
    assert records[-1] == (PUT, LOG, STAMP_KEY, stamp)
    rows = [row for _, cf, key, row in records if cf == 0 and key.endswith(b"key:0:0")]
    return frame.first_seq, frame.last_seq, codec.row_value(rows[0]).rstrip(b"x") if rows else b""


@pytest.fixture(autouse=True)
def close_stores() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().engine.close()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "db")


def test_a_new_log(log: Log) -> None:
    assert log.index.first_position() == 1
    log.check()


def test_every_position(log: Log) -> None:
    for commands in (1, 3, 1, 2, 5):
        log.frame(commands)
    assert log.index.first_position() == 1
    log.check()


def test_over_many_files(log: Log) -> None:
    """Also a frame larger than a block, and one larger than a read."""
    for number in range(12):
        log.frame(1 + number % 3, size=(10, 40_000, 300_000)[number % 3])
        if number % 4 == 3:
            log.store.engine.flush()
    assert len(log_numbers(archive_path(log.store.engine.path))) >= 2
    log.check()


def test_a_cursor_follows(log: Log) -> None:
    cursor = log.index.open(1)
    assert cursor.read() is None
    for number in range(5):
        log.frame(2)
        frame = cursor.read()
        assert frame is not None
        assert (frame.first_seq, frame.last_seq) == (2 * number + 1, 2 * number + 2)
        assert cursor.read() is None
        log.store.engine.flush()
    path = log.store.engine.path
    assert cursor.file_number in log_numbers(path) + log_numbers(archive_path(path))
    cursor.close()


def test_what_is_not_committed_is_not_read(log: Log) -> None:
    log.frame(1)
    cursor = log.index.open(1)
    log.store.log.committed_seq = 0  # as if the write of this batch hadn't returned
    assert cursor.read() is None
    log.store.log.committed_seq = 1
    frame = cursor.read()
    assert frame is not None
    assert frame.last_seq == 1


def test_deleted_files(log: Log) -> None:
    for _ in range(6):
        log.frame(2, size=20_000)
        log.store.engine.flush()
    archive = archive_path(log.store.engine.path)
    for number in sorted(log_numbers(archive))[:2]:
        os.unlink(log_path(archive, number))
    assert log.index.first_position() > 1
    log.check()


def test_a_rewind(log: Log) -> None:
    for _ in range(5):
        log.frame(2)
    log.rewind(4)
    assert log.last == 4
    log.check()
    for commands in (1, 1, 3):
        log.frame(commands)
        log.check()


def test_rewinds_upon_rewinds(log: Log) -> None:
    for _ in range(5):
        log.frame(2)
    log.rewind(6)
    log.frame(3)
    log.frame(1)
    log.rewind(9)
    log.frame(1)
    log.rewind(4)
    log.store.engine.flush()
    log.frame(1)
    log.frame(4)
    log.check()
    assert log.index.first_position() == 1


def test_rewinds_of_somebody_else(log: Log) -> None:
    """A checkpoint carries the row; its log begins after all of them."""
    for _ in range(4):
        log.frame(2)
    log.rewind(4)
    log.frame(2)
    copy = log.path.parent / "copy"
    log.store.engine.checkpoint(str(copy))
    shutil.rmtree(copy / "archive", ignore_errors=True)
    other = Log(copy)
    assert other.store.log.meta.get(REWINDS_KEY)
    assert other.last == 6
    start = other.index.first_position()
    assert start in (5, 7)
    for _ in range(3):
        other.frame(1)
    assert other.read_from(7) == other.model
    other.rewind(8)
    other.frame(2)
    assert other.read_from(7) == other.model
    for seq in range(1, start):
        with pytest.raises(LogGone):
            other.index.open(seq)


def test_a_cursor_jumps_over_what_was_discarded(log: Log) -> None:
    for _ in range(4):
        log.frame(1)
    log.rewind(2)
    log.frame(1)
    log.store.engine.flush()
    log.rewind(1)
    cursor = log.index.open(1)
    assert [in_short(frame)[:2] for frame in iter(cursor.read, None)] == [(1, 1)]
    log.frame(3)
    assert in_short(cursor.read()) == log.model[-1]
    assert cursor.read() is None
    cursor.close()


def test_a_cursor_does_not_survive_a_rewind(log: Log) -> None:
    for _ in range(4):
        log.frame(1)
    cursor = log.index.open(1)
    cursor.read()
    log.index.forget()  # nothing has changed
    assert in_short(cursor.read()) == log.model[1]
    log.rewind(3)
    with pytest.raises(LogGone):
        cursor.read()
    cursor.close()


def test_a_cursor_whose_files_are_deleted(log: Log) -> None:
    log.frame(1)
    cursor = log.index.open(1)
    for _ in range(3):
        log.store.engine.flush()
        log.frame(1)
    archive = archive_path(str(log.path))
    for number in log_numbers(archive):
        os.unlink(log_path(archive, number))
    assert in_short(cursor.read()) == log.model[0]  # its own file is still open
    with pytest.raises(LogGone):
        cursor.read()
    cursor.close()


def test_a_fork_inside_a_frame(log: Log) -> None:
    """What is before it can be read, but not beyond."""
    log.frame(1)
    log.frame(4)
    log.rewind(3)
    log.frame(1)
    cursor = log.index.open(1)
    assert in_short(cursor.read())[:2] == (1, 1)
    with pytest.raises(LogGone):
        cursor.read()
    cursor.close()
    for seq in (2, 3):
        with pytest.raises(LogGone):
            log.index.open(seq)
    assert log.read_from(4) == log.model[-1:]


def test_more_rewinds_than_are_remembered(log: Log) -> None:
    for number in range(MAX_REWINDS + 3):
        log.frame(2)
        log.rewind(log.last - 2 if number % 3 else log.last)
        log.frame(1)
    remembered = positions.unpack_rewinds(log.store.log.meta.get(REWINDS_KEY) or b"")
    assert len(remembered) == MAX_REWINDS
    assert log.index.first_position() == min(fork for _, fork in remembered) + 1 > 1
    log.check()


def test_rewinds_that_the_log_does_not_reach_back_to(log: Log) -> None:
    for _ in range(3):
        log.frame(2)
    log.rewind(2)
    for _ in range(4):
        log.frame(1)
        log.store.engine.flush()
    archive = archive_path(str(log.path))
    for number in sorted(log_numbers(archive))[:2]:
        os.unlink(log_path(archive, number))
    assert 3 < log.index.first_position() < log.last
    log.check()


def test_damage(log: Log) -> None:
    """A log that can't be read is as good as none; positions behind it are still found."""
    for _ in range(3):
        log.frame(1, size=1000)
        log.store.engine.flush()
    log.frame(1)
    archive = archive_path(str(log.path))
    second = sorted(log_numbers(archive))[-2]
    with open(log_path(archive, second), "r+b") as file:
        file.seek(500)
        file.write(b"damage")
    with closing(log.index.open(1)) as cursor:
        assert in_short(cursor.read()) == log.model[0]
        with pytest.raises(LogGone):
            cursor.read()
    with pytest.raises(LogGone):
        log.index.collect(log.index.sequence_of(1), 0, 1 << 20)
    assert log.read_from(4) == log.model[3:]


@pytest.mark.parametrize("cut", [0, 1, 60, 300, 100_000])
def test_a_torn_tail(log: Log, cut: int) -> None:
    """What a crash took was never there; the positions are given anew."""
    for number in range(8):
        log.frame(1 + number % 2)
        if number == 2:
            log.store.engine.flush()
    log.rewind(6)
    log.frame(2)
    survivor = log.crash(cut)
    survivor.check()
    survivor.new_epoch()
    survivor.frame(2)
    survivor.check()


@pytest.mark.parametrize("seed", range(16))
def test_against_a_model(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    log = Log(tmp_path / "db")
    for _ in range(rng.randrange(5, 50)):
        choice = rng.random()
        if choice < 0.65:
            log.frame(rng.choice((1, 1, 2, 7)), size=rng.choice((1, 100, 33_000)))
        elif choice < 0.75:
            log.rewind(rng.choice([0, *(last for _, last, _ in log.model[-5:])]))
        elif choice < 0.85:
            log.store.engine.flush()
        elif choice < 0.9:
            archive = archive_path(str(log.path))
            for number in sorted(log_numbers(archive))[: rng.randrange(3)]:
                os.unlink(log_path(archive, number))
        elif choice < 0.95:
            log.reopen()
        else:
            log = log.crash(rng.choice((0, 10, 1000, 50_000)))
            log.new_epoch()
    log.check()
    for first, _, _ in log.model:
        if first >= log.index.first_position():
            start = log.index.sequence_of(first)
            touched = log.index.collect(start, first - 1, 1 << 30)
            expected = [frame for frame in log.model if frame[0] >= first]
            assert [in_short(frame) for frame in touched.frames] == expected


def test_collect(log: Log) -> None:
    for _ in range(3):
        log.frame(2)
    start = log.index.sequence_of(5)
    store = log.store
    store[0].delete(b"key:0:0")
    store.log.advance()
    store.log.commit()
    store.keyspace.flush(store.keyspace.databases[0])
    store.log.advance()
    store.log.commit()
    touched = log.index.collect(start, 4, 1 << 20)
    assert touched.size == (
        sum(len(key) for keys in touched.keys for key in keys)
        + sum(len(begin) + len(end) for _, begin, end in touched.ranges)
        + sum(len(frame.payload) for frame in touched.frames)
    )
    key = store[0].row_key(b"key:0:0")[4:]
    assert {row[4:] for row in touched.keys[0]} == {key, store[0].row_key(b"key:1:0")[4:]}
    assert [cf for cf, _, _ in touched.ranges] == [0, 1, 2]
    assert {row[:1] for row in touched.keys[LOG]} == {b"d", b"n"}
    assert [(f.first_seq, f.last_seq) for f in touched.frames] == [(5, 6), (7, 7), (8, 8)]
    assert log.index.collect(start, 4, touched.size).frames == touched.frames
    with pytest.raises(TooMuch):
        log.index.collect(start, 4, touched.size - 1)
    last = log.index.sequence_of(log.last + 1)
    assert not log.index.collect(last, log.last, 0).size
    with pytest.raises(LogGone):
        log.index.collect(last + 1, log.last, 1 << 20)


def test_where_a_frame_begins_in_the_log(log: Log) -> None:
    log.frame(3)
    begins = log.store.engine.rocksdb_sequence() + 1
    assert log.index.sequence_of(4) == begins
    log.frame(3)
    assert {log.index.sequence_of(seq) for seq in (4, 5, 6)} == {begins}
    for seq in (0, 8):
        with pytest.raises(LogGone):
            log.index.sequence_of(seq)


def test_collect_takes_the_rows_of_a_rewind_along(log: Log) -> None:
    """An unfinished rewind's rows are to be taken back too; its own notes aren't."""
    log.frame(1)
    start = log.index.sequence_of(2)
    rewind = log.store.engine.rocksdb_sequence() + 1
    stamp = STAMP.pack(1, 2, 1, 0)
    packed = positions.pack_rewinds([(rewind, 1)])
    records = [
        (DELETE_RANGE, 1, b"a", b"b"),
        (PUT, 0, b"key", b"row"),
        (DELETE, 1, b"gone", b""),
        (PUT, LOG, b"h", log.store.log.history.encode()),
        (PUT, LOG, REWINDS_KEY, packed),
        (PUT, LOG, UNTIL_KEY, bytes(16)),
        (PUT, LOG, STAMP_KEY, stamp),
    ]
    log.store.log.install(records)
    log.index.forget()
    touched = log.index.collect(start, 1, 1 << 20)
    assert [list(keys) for keys in touched.keys] == [[b"key"], [b"gone"], [], [b"h"]]
    assert touched.ranges == [(1, b"a", b"b")]
    assert touched.frames == []


def test_collect_across_a_rewind(log: Log) -> None:
    """The keys of everything, the frames only of what wasn't discarded before."""
    log.frame(2)
    start = log.index.sequence_of(3)
    log.store[0].put_string(b"discarded", b"1")
    log.store.log.advance()
    log.store.log.commit()
    log.rewind(2)
    log.frame(1)
    touched = log.index.collect(start, 2, 1 << 20)
    assert {row[6:] for row in touched.keys[0]} == {b"discarded", b"key:0:0"}
    assert [(f.first_seq, f.last_seq) for f in touched.frames] == [(3, 3)]
    assert touched.frames[0].payload.count(b"key:0:0") == 1


def test_bytes_after(log: Log) -> None:
    for _ in range(4):
        log.frame(1, size=1000)
    log.store.engine.flush()
    log.frame(1, size=1000)
    assert log.index.bytes_after(5) == 0
    assert 1000 < log.index.bytes_after(4) < 1500
    assert 4000 < log.index.bytes_after(1) < 5500
