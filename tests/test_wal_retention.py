"""The archive's retention: the policy, and the files it deletes."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from kvserver.storage.wal import WalDirectory, WalReader
from kvserver.storage.wal_batch import WalNotFound
from kvserver.storage.wal_retention import (
    ROCKSDB_WAL_TTL_SECONDS,
    ArchivedLog,
    Limits,
    archived_logs,
    surplus,
    trim_archive,
)

MIB = 1 << 20
NOW = 1_000_000.0

# Four files of 10 MiB, last written 400, 300, 200 and 100 seconds ago.
LOGS = [ArchivedLog(number, 10 * MIB, NOW - 500 + 100 * number) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("size_limit_mb", "ttl_seconds", "pinned", "expected"),
    [
        (0, 0, None, []),
        (40, 0, None, []),
        (39, 0, None, [1]),
        (20, 0, None, [1, 2]),
        (1, 0, None, [1, 2, 3, 4]),
        (0, 400, None, []),
        (0, 399, None, [1]),
        (0, 150, None, [1, 2, 3]),
        (0, 1, None, [1, 2, 3, 4]),
        (0, 1, 1, []),
        (0, 1, 3, [1, 2]),
        (0, 1, 9, [1, 2, 3, 4]),
        (20, 0, 1, [1, 2]),
        (30, 1, 3, [1, 2]),
        (10, 1, 2, [1, 2, 3]),
    ],
)
def test_policy(
    size_limit_mb: int, ttl_seconds: int, pinned: int | None, expected: list[int]
) -> None:
    assert surplus(reversed(LOGS), Limits(size_limit_mb, ttl_seconds), NOW, pinned) == expected


def test_a_young_file_keeps_older_looking_ones_behind_it() -> None:
    """A clock that was set back must not make a hole in the log."""
    logs = [ArchivedLog(1, 1, NOW), ArchivedLog(2, 1, NOW - 900), ArchivedLog(3, 1, NOW)]
    assert surplus(logs, Limits(0, 100), NOW) == []


@given(
    st.lists(st.tuples(st.integers(0, 5 * MIB), st.floats(0, 2000)), max_size=12),
    st.integers(0, 30),
    st.integers(0, 2000),
    st.none() | st.integers(0, 13),
)
def test_policy_invariants(
    files: list[tuple[int, float]], size_limit_mb: int, ttl_seconds: int, pinned: int | None
) -> None:
    logs = [ArchivedLog(number, size, NOW - age) for number, (size, age) in enumerate(files)]
    deleted = surplus(logs, Limits(size_limit_mb, ttl_seconds), NOW, pinned)
    assert deleted == [log.number for log in logs[: len(deleted)]]
    kept = logs[len(deleted) :]
    if size_limit_mb:
        assert sum(log.size for log in kept) <= size_limit_mb * MIB
    if deleted and pinned is not None and deleted[-1] >= pinned:
        # A file that is needed went: only because the rest was still over the size limit with it.
        assert size_limit_mb
        assert sum(log.size for log in logs[deleted[-1] :]) > size_limit_mb * MIB
    if kept and ttl_seconds and (pinned is None or kept[0].number < pinned):
        assert NOW - kept[0].modified <= ttl_seconds


def test_no_archive(tmp_path: Path) -> None:
    assert archived_logs(str(tmp_path)) == []
    assert trim_archive(str(tmp_path), Limits(1, 1), NOW) == []


def test_only_archived_logs_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    names = ["archive/000009.log", "archive/000010.log", "archive/1000011.log", "000002.log"]
    for name in [*names, "archive/LOG", "archive/x.log"]:
        (tmp_path / name).write_bytes(bytes(MIB))
        os.utime(tmp_path / name, (NOW - 100, NOW - 100))
    assert [log.number for log in archived_logs(str(tmp_path))] == [9, 10, 1000011]
    deleted = trim_archive(str(tmp_path), Limits(0, 10), NOW, pinned=1000011)
    assert deleted == [ArchivedLog(9, MIB, NOW - 100), ArchivedLog(10, MIB, NOW - 100)]
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["000002.log", "archive/1000011.log", "archive/LOG", "archive/x.log"]


def archiving() -> Options:
    options = Options(raw_mode=True)
    options.set_wal_ttl_seconds(ROCKSDB_WAL_TTL_SECONDS)
    return options


def test_rocksdb_deletes_no_archived_log(tmp_path: Path) -> None:
    """Neither one of long ago, nor one that seems to be written in the future."""
    path = tmp_path / "db"
    database = Rdict(str(path), archiving())
    for key in (b"a", b"b", b"c"):
        database[key] = b"x"
        database.flush()
    before = {log.number for log in archived_logs(str(path))}
    assert len(before) == 3
    oldest, *others = sorted((path / "archive").iterdir())
    os.utime(oldest, (0, 0))
    for other in others:
        os.utime(other, (time.time() + 3600,) * 2)
    for _ in range(2):  # it looks through the archive when it opens
        database.close()
        database = Rdict(str(path), archiving())
        database[b"d"] = b"x"
        database.flush()
    database.close()
    assert before <= {log.number for log in archived_logs(str(path))}


def test_the_log_of_a_database_trimmed_under_a_reader(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    database = Rdict(path, archiving())
    with closing(WalReader(path)) as reader:
        for number in range(6):
            database[b"k%d" % number] = os.urandom(MIB)
            database.flush()
        first = reader.read()
        assert first is not None
        assert first.sequence == 1

        deleted = trim_archive(path, Limits(0, 1), NOW + 10**10, pinned=reader.file_number)
        assert deleted == []
        deleted = trim_archive(path, Limits(3, 0), NOW, pinned=reader.file_number)
        assert len(deleted) == 4
        with pytest.raises(WalNotFound):
            reader.read()
        reader.seek(5)
        assert reader.file_number == WalDirectory(path).numbers()[0]
        rest = [batch.sequence for batch in iter(reader.read, None)]
        assert rest == [5, 6]
    database.close()
    database = Rdict(path, archiving())
    assert all(database.get(b"k%d" % number) is not None for number in range(6))
    database.close()
