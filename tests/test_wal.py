"""The log over several files: following, rotation, damage, deletion, seek."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wal_logs import (
    Log,
    batches,
    drain,
    encode_batch,
    encode_log,
    size_leaving,
)

from kvserver.storage.wal import WalDirectory
from kvserver.storage.wal_batch import (
    WalCorruption,
    WalNotFound,
)
from kvserver.storage.wal_file import BLOCK


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    for reader in log.readers:
        reader.close()


def damaged(*sizes: int) -> bytes:
    """A log of batches from 1 on whose last one has a wrong checksum, and garbage behind it."""
    data = bytearray(encode_log(batches(1, *sizes)))
    data[-1] ^= 1
    return bytes(data) + b"garbage" * 20


def test_damage_in_the_newest_file_is_corruption(log: Log) -> None:
    log.write(4, damaged(10, 10))
    reader = log.reader()
    assert reader.read().sequence == 1
    for _ in range(2):
        with pytest.raises(WalCorruption, match="a wrong checksum"):
            reader.read()


def test_damage_that_recovery_dropped_is_the_end(log: Log) -> None:
    log.write(4, damaged(10, 10))
    log.write(9, encode_log([encode_batch(3, []), *batches(3, 10)]))
    assert [payload[0] for payload in log.payloads()] == [1, 3, 3]


def test_damage_before_any_batch_is_corruption(log: Log) -> None:
    log.write(4, damaged(10))
    log.write(9, encode_log(batches(3, 10)))
    with pytest.raises(WalCorruption, match=r"000004\.log at offset 0: a wrong checksum"):
        log.payloads()


def test_files_without_a_batch_are_passed_over(log: Log) -> None:
    log.write(3, b"")
    log.write(4, encode_log(batches(1, 10)))
    log.write(7, b"")
    log.write(8, encode_log(batches(3, 10))[:-1])
    log.write(12, encode_log(batches(3, 20)))
    log.write(13, b"")
    assert log.payloads() == [*batches(1, 10), *batches(3, 20)]


def test_a_gap_within_a_file_is_corruption(log: Log) -> None:
    data = encode_log(batches(1, 10))
    log.write(4, data + encode_log(batches(4, 10), start=len(data)))
    reader = log.reader()
    assert reader.read().sequence == 1
    with pytest.raises(WalCorruption, match="sequence 4, where 3 was due") as caught:
        reader.read()
    assert caught.value.offset == len(data)


def test_the_old_file_counts_until_the_new_one_has_begun(log: Log) -> None:
    """RocksDB creates a file before it writes the last buffered bytes of the one before."""
    log.write(4, encode_log(batches(1, 10)))
    reader = log.reader()
    assert len(drain(reader)) == 1
    log.write(9, b"")
    assert reader.read() is None
    log.append(4, encode_log(batches(3, 10), start=log.path(4).stat().st_size))
    assert reader.read().sequence == 3
    assert reader.read() is None
    assert reader.file_number == 4
    log.append(9, encode_log(batches(5, 10)))
    assert reader.read().sequence == 5
    assert reader.file_number == 9


def test_a_record_completed_just_before_the_rotation(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader finds the record torn; when it looks for a next file, all has changed."""
    data = encode_log(batches(1, 10, 10))
    log.write(4, data[:-5])
    reader = log.reader()
    assert reader.read().sequence == 1
    listdir = os.listdir

    def complete_and_rotate(directory: str) -> list[str]:
        log.write(4, data)
        log.write(9, encode_log(batches(5, 10)))
        return listdir(directory)

    monkeypatch.setattr(os, "listdir", complete_and_rotate)
    assert [batch.sequence for batch in drain(reader)] == [3, 5]


def test_a_file_may_move_while_it_is_read(log: Log) -> None:
    log.write(4, encode_log(batches(1, 10, 10)))
    log.write(9, encode_log(batches(5, 10)))
    (log.directory / "archive").mkdir()
    reader = log.reader()
    assert reader.read().sequence == 1
    for number in (4, 9):
        log.path(number).rename(log.directory / "archive" / log.path(number).name)
    assert [batch.sequence for batch in drain(reader)] == [3, 5]
    assert [batch.sequence for batch in drain(log.reader(9))] == [5]
    assert WalDirectory(str(log.directory)).numbers() == [4, 9]


def test_a_file_that_moves_between_two_listings_is_found(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    (log.directory / "archive").mkdir()
    log.write(4, b"")
    listdir = os.listdir

    def list_and_move(directory: str) -> list[str]:
        names = listdir(directory)
        if log.path(4).exists():
            log.path(4).rename(log.directory / "archive" / log.path(4).name)
        return names

    monkeypatch.setattr(os, "listdir", list_and_move)
    assert WalDirectory(str(log.directory)).numbers() == [4]


def test_the_directory_is_listed_only_when_it_may_have_changed(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    log.write(4, b"")
    directory = WalDirectory(str(log.directory))
    now = time.time_ns()
    os.utime(log.directory, ns=(now, now))
    assert directory.after(4) is None
    log.write(9, b"")
    os.utime(log.directory, ns=(now, now))  # the second change within a tick of the clock
    assert directory.after(4) == 9

    os.utime(log.directory, ns=(now, now - 10**10))
    listed.clear()
    assert [directory.after(4) for _ in range(5)] == [9] * 5
    assert listed == [str(log.directory), str(log.directory / "archive")]
    log.write(12, b"")
    assert directory.after(9) == 12


def test_a_log_deleted_under_a_reader_is_not_found(log: Log) -> None:
    for number, first in ((4, 1), (9, 3), (12, 5)):
        log.write(number, encode_log(batches(first, 10)))
    reader = log.reader()
    assert reader.read().sequence == 1
    log.path(4).unlink()
    log.path(9).unlink()
    with pytest.raises(WalNotFound, match="sequence 3 isn't in the log any more"):
        reader.read()
    with pytest.raises(WalNotFound, match="000009 has been deleted"):
        log.reader(9)


def test_a_missing_file_between_others_is_corruption(log: Log) -> None:
    for number, first in ((4, 1), (12, 5)):
        log.write(number, encode_log(batches(first, 10)))
    with pytest.raises(WalCorruption, match=r"000012\.log begins with sequence 5, not 3"):
        log.payloads()


def test_no_log_at_all(log: Log) -> None:
    with pytest.raises(WalNotFound, match="there is no log file"):
        log.reader()


def test_seek_finds_every_sequence(log: Log) -> None:
    sizes = [10, 40000, 200, 70000, 0, size_leaving(100), 30, 5] * 3
    log.write(3, encode_log(batches(11, *sizes)))
    log.write(5, b"")
    log.write(8, encode_log(batches(59, *sizes)))
    log.write(9, b"")
    reader = log.reader()
    for sequence in range(11, 107):
        reader.seek(sequence)
        batch = reader.read()
        assert batch.sequence <= sequence < batch.sequence + batch.count
        following = reader.read()
        assert (following.sequence if following else 107) == batch.sequence + 2
    reader.seek(107)
    assert (reader.read(), reader.next_sequence) == (None, 107)
    for sequence in (1, 10, 108, 1 << 63):
        with pytest.raises(WalNotFound, match=f"sequence {sequence} isn't in the log"):
            reader.seek(sequence)
    log.append(9, encode_log(batches(107, 1)))
    assert reader.read().sequence == 107


def test_seek_bisects(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write(4, encode_log(batches(1, *[1000] * 5000)))
    reader = log.reader()
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    for sequence in (1, 5000, 7777, 10000):
        reader.seek(sequence)
        assert len(reads) < 20  # a file of 160 blocks, of which one read takes 8
        reads.clear()


def test_seek_while_the_oldest_file_is_deleted(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, first in ((4, 1), (9, 3), (12, 5)):
        log.write(number, encode_log(batches(first, 10)))
    reader = log.reader(12)
    listdir = os.listdir
    ghosts = [f"{number:06d}.log" for number in range(4)]
    monkeypatch.setattr(os, "listdir", lambda path: [*listdir(path), *ghosts])
    for sequence in (1, 3, 5):
        reader.seek(sequence)
        assert reader.read().sequence == sequence


def test_seek_in_a_log_without_a_batch(log: Log) -> None:
    log.write(4, b"")
    reader = log.reader()
    reader.seek(500)
    assert (reader.read(), reader.next_sequence) == (None, 500)
    log.write(4, encode_log(batches(500, 1)))
    assert reader.read().sequence == 500


def test_seek_across_damage(log: Log) -> None:
    data = bytearray(encode_log(batches(1, *[20000] * 9)))
    data[4 * BLOCK :] = bytes(byte ^ 0xFF for byte in data[4 * BLOCK :])
    log.write(4, data)
    reader = log.reader()
    reader.seek(3)
    assert reader.read().sequence == 3
    with pytest.raises(WalCorruption):
        reader.seek(17)
    log.write(9, encode_log(batches(17, 1)))
    reader.seek(17)
    assert reader.read().sequence == 17
