"""The reader and the installed RocksDB, held against each other so that neither can drift."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict, WriteBatch
from wal_logs import (
    drain,
    encode_batch,
    encode_log,
    put,
)

from kvserver.storage.wal import WalReader
from kvserver.storage.wal_batch import (
    DELETE,
    DELETE_RANGE,
    PUT,
    Record,
)
from kvserver.storage.wal_file import BLOCK
from kvserver.storage.wal_retention import ROCKSDB_WAL_TTL_SECONDS


class Database:
    """A RocksDB as kvserver opens it; archives its logs, and records every batch it writes."""

    FAMILIES = ("data", "log")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: list[list[Record]] = []
        self.open()

    def open(self) -> None:
        options = Options(raw_mode=True)
        options.create_missing_column_families(True)
        options.set_wal_ttl_seconds(ROCKSDB_WAL_TTL_SECONDS)
        existing = self.path.exists()
        families = self.FAMILIES if existing else ()
        self.db = Rdict(str(self.path), options, dict.fromkeys(families, options))
        if not existing:  # one by one: RocksDB numbers them in the order of creation
            for name in self.FAMILIES:
                self.db.create_column_family(name, options)
        self.handles = [None, *map(self.db.get_column_family_handle, self.FAMILIES)]

    def close(self) -> None:
        self.handles = []
        self.db.close()

    def write(self, *records: Record) -> None:
        batch = WriteBatch(raw_mode=True)
        for op, cf_id, key, value in records:
            if op == PUT:
                batch.put(key, value, self.handles[cf_id])
            elif op == DELETE:
                batch.delete(key, self.handles[cf_id])
            else:
                batch.delete_range(key, value, self.handles[cf_id])
        self.db.write(batch)
        self.written.append(list(records))

    def flush(self) -> None:
        """Rotates, and archives what is flushed."""
        for family in (self.db, *map(self.db.get_column_family, self.FAMILIES)):
            family.flush()

    def logs(self) -> list[Path]:
        found = [*self.path.glob("*.log"), *self.path.glob("archive/*.log")]
        return sorted(found, key=lambda path: path.name)

    def contents(self) -> list[list[Record]]:
        with closing(WalReader(str(self.path))) as reader:
            return contents(reader)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "db")
    yield database
    database.close()


@pytest.fixture
def follower(database: Database) -> Iterator[WalReader]:
    with closing(WalReader(str(database.path))) as reader:
        yield reader


def contents(reader: WalReader) -> list[list[Record]]:
    return [batch.records() for batch in drain(reader) if batch.count]


STAMPED = (PUT, 2, b"s", bytes(32))


def test_what_rocksdb_writes_is_read(database: Database, follower: WalReader) -> None:
    database.write((PUT, 0, b"", b""))
    database.write((PUT, 0, b"a", b"1"), (PUT, 1, b"b", b"2"), (DELETE, 0, b"a", b""), STAMPED)
    database.write((DELETE, 1, b"b", b""), (DELETE_RANGE, 0, b"a", b"c"), STAMPED)
    database.write((DELETE_RANGE, 1, b"x" * 200, b"y" * 200), STAMPED)
    database.write((PUT, 0, b"k" * 300, os.urandom(5 * BLOCK)), STAMPED)
    database.write(*((PUT, 1, b"%d" % number, os.urandom(100)) for number in range(2000)))
    for number in range(1000):
        database.write((PUT, 0, b"%d" % number, os.urandom(number)), STAMPED)
    assert contents(follower) == database.written
    assert follower.next_sequence == database.db.latest_sequence_number() + 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40000), min_size=1, max_size=4), max_size=8))
def test_the_encoder_writes_what_rocksdb_writes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]]
) -> None:
    database = Database(tmp_path_factory.mktemp("log") / "db")
    sequence = 1
    expected = []
    for batch in sizes:
        database.write(*(put(size, cf_id=1) for size in batch))
        expected.append(encode_batch(sequence, database.written[-1]))
        sequence += len(batch)
    assert database.logs()[-1].read_bytes() == encode_log(expected)
    database.close()
    shutil.rmtree(database.path)


def test_following_a_database_through_rotation_archive_and_restart(
    database: Database, follower: WalReader
) -> None:
    seen: list[list[Record]] = []
    for number in range(40):
        database.write((PUT, 0, b"k%d" % number, os.urandom(3000)), STAMPED)
        if number % 7 == 3:
            database.flush()
        if number % 20 == 19:
            database.close()
            database.open()
        if number % 5 == 4:
            seen += contents(follower)
            assert seen == database.written
    assert len(list(database.path.glob("archive/*.log"))) > 4
    assert database.contents() == database.written


def test_following_a_database_from_another_thread(database: Database, follower: WalReader) -> None:
    total = 2000

    def write() -> None:
        for number in range(total):
            database.write((PUT, 0, b"k%d" % number, os.urandom(number * 20)), STAMPED)
            if number % 400 == 100:
                database.flush()

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[list[Record]] = []
    deadline = time.monotonic() + 60
    while len(seen) < total and time.monotonic() < deadline:
        seen += contents(follower)
    writer.join()
    assert seen == database.written


def crash_image(database: Database, target: Path) -> Path:
    """The directory as a kill -9 at this moment leaves it; returns its newest log."""
    shutil.copytree(database.path, target)
    return target / database.logs()[-1].name


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_after_a_crash_the_log_is_what_rocksdb_recovered(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """However a log is torn or damaged: what is read equals what the reopened database holds."""
    base = tmp_path_factory.mktemp("crash")
    original = Database(base / "db")
    for number in range(12):
        original.write((PUT, 0, b"k%d" % number, b"v" * (number * 900)), STAMPED)
        if number == 0:
            original.flush()  # the first batch in a log of its own, which stays whole
    newest = crash_image(original, base / "image")
    original.close()
    with newest.open("r+b") as file:
        at = data.draw(st.integers(0, newest.stat().st_size - 1), label="offset")
        if data.draw(st.booleans(), label="torn"):
            file.truncate(at)
        else:
            file.seek(at)
            flipped = file.read(1)[0] ^ 0x10
            file.seek(at)
            file.write(bytes([flipped]))

    database = Database(base / "image")
    database.write((PUT, 0, b"after", b""), STAMPED)
    keys = [b"k%d" % number for number in range(12)] + [b"after"]
    survived = [key for key in keys if database.db.get(key) is not None]
    assert [batch[0][2] for batch in database.contents()] == survived
    database.close()
    shutil.rmtree(base)
