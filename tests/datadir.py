"""Looks into a data directory without a server: whether rows, elements, counts and indices agree.

The directory is opened read-only, so the log is replayed in memory and nothing changes: what a
crash left stays there for the next start.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import invariants_hashes
import invariants_lists
import invariants_sets
import invariants_sparse
import invariants_streams
import invariants_zsets
from rocksdict import AccessType, DBRecoveryMode, Options, Rdict

from kvserver import codec
from kvserver.storage.commitlog import STAMP_KEY
from kvserver.storage.engine import COLUMN_FAMILIES

#: What must hold of a collection's rows: called with its header and {part of the key: row}.
Check = Callable[[bytes, dict[bytes, bytes]], None]
CHECKS: dict[int, Check] = {
    codec.HASH: invariants_hashes.check_rows,
    codec.LIST: invariants_lists.check_rows,
    codec.SET: invariants_sets.check_rows,
    codec.SPARSE: invariants_sparse.check_rows,
    codec.SPARSE: invariants_sparse.check_rows,
    codec.STREAM: invariants_streams.check_rows,
    codec.ZSET: invariants_zsets.check_rows,
}


def check_collections(rows: dict[bytes, bytes], elements: dict[bytes, bytes]) -> None:
    """Every collection's rows agree, and no row is left under one that is gone."""
    found: dict[bytes, dict[bytes, bytes]] = defaultdict(dict)
    for key, row in elements.items():
        at = codec.ELEMENT_PREFIX_LEN
        found[key[:at]][key[at:]] = row
    for key, row in rows.items():
        kind = codec.row_type(row)
        if kind != codec.STRING:
            prefix = key[: codec.DB_PREFIX_LEN] + codec.collection_id(row)
            try:
                CHECKS[kind](row, found.pop(prefix, {}))
            except AssertionError as problem:
                problem.add_note(f"in the {codec.TYPE_NAMES[kind]!r} {codec.user_key(key)!r}")
                raise
    assert not found, f"rows are left under collections that are gone: {list(found)}"


def read(path: Path) -> dict[str, dict[bytes, bytes]]:
    """Every entry of every column family."""
    options = Options(raw_mode=True)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    families = {name: Options(raw_mode=True) for name in COLUMN_FAMILIES[1:]}
    db = Rdict(str(path), options, families, AccessType.read_only(False))
    try:
        entries = {name: dict(db.get_column_family(name).items()) for name in COLUMN_FAMILIES[1:]}
        return {"default": dict(db.items()), **entries}
    finally:
        db.close()


def check(path: Path) -> int:
    """Rows, the databases' counts and the expiry index must agree; returns the position."""
    families = read(path)
    rows, log = families["default"], families["log"]
    expiring = {key: codec.row_expire(row) for key, row in rows.items() if codec.row_expire(row)}
    index = {codec.expiry_key(key, expire_ms) for key, expire_ms in expiring.items()}
    due = {key: codec.field_due(row) for key, row in rows.items() if codec.field_due(row)}
    index |= {codec.field_due_key(key, due_ms) for key, due_ms in due.items()}
    check_collections(rows, families["data"])
    assert index == families["expiry"].keys(), "the expiry index isn't that of the rows"
    counted = Counter(key[: codec.DB_PREFIX_LEN] for key in rows)
    for name, record in log.items():
        if name[:1] == b"d":
            db_id, keys, expires, expire_sum = codec.unpack_database(record)
            prefix = codec.db_prefix(db_id)
            times = [at for key, at in expiring.items() if key.startswith(prefix)]
            assert keys == counted.pop(prefix, 0), "DBSIZE isn't the number of keys"
            assert (expires, expire_sum) == (len(times), sum(times)), "the expiry counts are wrong"
    assert not counted, f"rows of no database: {counted}"
    return int(codec.STAMP.unpack(log[STAMP_KEY])[2]) if STAMP_KEY in log else 0
