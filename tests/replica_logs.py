"""A primary's and a replica's commit log side by side: frames of one are installed in the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store import NOW, Store

from kvserver import frames
from kvserver.codec import STAMP, STAMP_KEY
from kvserver.frames import Frame
from kvserver.storage.commitlog import LOG, EngineError
from kvserver.storage.wal import WalReader
from kvserver.storage.wal_batch import BATCH_HEADER, PUT, Record


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "primary")
    yield store
    store.engine.close()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "replica")
    yield store
    store.engine.close()


def frames_of(store: Store, after: int = 0) -> list[Frame]:
    """What a primary sends to who has position `after`; 0: the genesis batch too."""
    found = []
    with closing(WalReader(str(store.path))) as reader:
        while (batch := reader.read()) is not None:
            records = batch.records()
            if records and records[-1][2] == STAMP_KEY:
                stamp = STAMP.unpack(records[-1][3])
                if stamp[2] > after or not after:
                    payload = batch.payload[BATCH_HEADER:]
                    found.append(Frame(frames.DATA, *stamp[:3], batch.count, stamp[3], payload))
    return found


def follow(replica: Store, primary: Store) -> None:
    """The replica takes whatever it doesn't have."""
    for frame in frames_of(primary, replica.log.committed_seq):
        replica.log.apply(frame)


def batches_of(store: Store) -> list[list[Record]]:
    with closing(WalReader(str(store.path))) as reader:
        return [batch.records() for batch in iter(reader.read, None)]


def stamp(epoch: int, first: int, last: int) -> Record:
    return PUT, LOG, STAMP_KEY, STAMP.pack(epoch, first, last, NOW)


def everything(store: Store) -> list[dict[bytes, bytes]]:
    return [store.stored(cf) for cf in range(4)]


def refuse(store: Store, error: EngineError) -> None:
    """RocksDB refuses the next batch."""
    write = store.engine.write

    def once(_batch: Any) -> None:
        store.engine.write = write  # type: ignore[method-assign]
        raise error

    store.engine.write = once  # type: ignore[method-assign]


def change_much(store: Store) -> None:
    """A history with everything that a batch may hold."""
    for number in range(50):
        store[0].put_string(b"%d" % number, b"v", NOW + number if number % 2 else 0)
        store[1].put_string(b"%d" % number, b"v")
    store.commit()
    for number in range(0, 50, 3):
        store[0].delete(b"%d" % number)
    store.commit()
    store.keyspace.flush(store.keyspace.databases[1])
    store.commit()
    store.log.begin_epoch()
    store.log.commit()
    store.keyspace.swap(0, 2)
    store[1].put_string(b"last", b"v", NOW + 5)
    store.commit()
