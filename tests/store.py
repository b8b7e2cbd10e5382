"""A data directory with everything up to the keyspace, without a server. RocksDB is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvserver import codec
from kvserver.database import Writer
from kvserver.directives import default_config
from kvserver.keyspace import Keyspace
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.engine import Engine, EngineError
from kvserver.storage.table import CachedTable

DATABASES = 3
CACHE_BYTES = 64 * 1024
NOW = 1_700_000_000_000


class Store:
    """A data directory with everything up to the keyspace."""

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.path = path
        self.engine = Engine(str(path), default_config())
        self.log = CommitLog(self.engine)
        self.log.cache.resize(cache_bytes)
        self.keyspace = Keyspace(self.log, DATABASES)
        self.keyspace.now = NOW

    def __getitem__(self, index: int) -> Writer:
        return self.keyspace.writers[index]

    @property
    def rows(self) -> CachedTable:
        return self.log.rows

    def commit(self) -> None:
        """The turn is over."""
        if self.log.changed:
            self.log.advance()
        if self.log.pending:
            self.log.commit()

    def refused(self, error: EngineError) -> None:
        """The turn is over, and RocksDB refuses its batch."""
        if self.log.changed:
            self.log.advance()

        def refuse(_batch: Any) -> None:
            raise error

        self.engine.write = refuse  # type: ignore[method-assign]
        with pytest.raises(type(error)):
            self.log.commit()
        del self.engine.write

    def reopened(self) -> Store:
        now = self.keyspace.now
        self.engine.close()
        store = Store(self.path, self.log.cache.size)
        store.keyspace.now = now
        return store

    def stored(self, cf: int) -> dict[bytes, bytes]:
        """What RocksDB holds."""
        return dict(self.engine.scan(cf, b"", b"\xff" * 8))

    def contents(self, index: int) -> dict[bytes, tuple[bytes, int]]:
        """{key: (value, expire_ms)}, expired ones included; counts and index must agree."""
        db = self.keyspace.databases[index]
        lower, upper = self[index].bounds()
        rows = dict(self.rows.scan(lower, upper))
        expiring = {key: codec.row_expire(row) for key, row in rows.items()}
        index_entries = {codec.expiry_key(key, at) for key, at in expiring.items() if at}
        assert dict(self.log.expiry.scan(lower, upper)).keys() == index_entries
        assert db.keys == len(rows)
        assert db.expires == len(index_entries)
        assert db.expire_sum == sum(expiring.values())
        return {
            codec.user_key(key): (codec.row_value(row), expiring[key]) for key, row in rows.items()
        }
