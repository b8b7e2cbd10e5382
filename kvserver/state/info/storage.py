"""INFO persistence, keyspace and rocksdb: the data, on its way to the disk and there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from kvserver.database import Database
from kvserver.state import writers
from kvserver.state.info.fields import Fields, pairs, ratio, zeros
from kvserver.state.info.view import View
from kvserver.storage.engine import COLUMN_FAMILIES
from kvserver.storage.wal import archive_path

if TYPE_CHECKING:
    from kvserver.state.server import Server

_LEVELS: Final = 7


def persistence(view: View) -> Fields:
    """INFO persistence. What Redis says of the AOF is said of RocksDB's write-ahead log, what it
    says of RDB files of the backups that SAVE and BGSAVE make."""
    server = view.server
    return {
        **zeros("loading", "async_loading"),
        **_snapshots(server),
        **_log(server),
        **_positions(server),
    }


def _snapshots(server: Server) -> Fields:
    backups = server.backups
    return {
        # A backup copies no memory and reads no keys: it is made of links to files.
        **zeros("current_cow_peak", "current_cow_size", "current_cow_size_age"),
        "current_fork_perc": "0.00",
        **zeros("current_save_keys_processed", "current_save_keys_total"),
        "rdb_changes_since_last_save": server.log.last_seq - backups.saved_seq,
        "rdb_bgsave_in_progress": int(backups.in_progress),
        "rdb_last_save_time": backups.last_save,
        "rdb_last_bgsave_status": "ok" if backups.last_ok else "err",
        "rdb_last_bgsave_time_sec": backups.last_seconds,
        "rdb_current_bgsave_time_sec": backups.running_seconds,
        "rdb_saves": backups.saves,
        **zeros("rdb_last_cow_size", "rdb_last_load_keys_expired", "rdb_last_load_keys_loaded"),
    }


def _log(server: Server) -> Fields:
    log = server.log
    _, live = log_files(log.engine.path)
    return {
        "aof_enabled": 1,
        **zeros("aof_rewrite_in_progress", "aof_rewrite_scheduled"),
        "aof_last_rewrite_time_sec": -1,
        "aof_current_rewrite_time_sec": -1,
        "aof_last_bgrewrite_status": "ok",
        **zeros("aof_rewrites", "aof_rewrites_consecutive_failures"),
        "aof_last_write_status": "err" if log.failed else "ok",
        "aof_last_cow_size": 0,
        **zeros("module_fork_in_progress", "module_fork_last_cow_size"),
        "aof_current_size": live,
        "aof_base_size": log.engine.property_sum("rocksdb.live-sst-files-size"),
        "aof_pending_rewrite": 0,
        "aof_buffer_length": log.pending_bytes,
        "aof_pending_bio_fsync": int(log.synced_seq != log.committed_seq),
        "aof_delayed_fsync": 0,
    }


def _positions(server: Server) -> Fields:
    """Ours: how far the log is, and what an acknowledgement waits for."""
    log = server.log
    return {
        "appendfsync": server.config.get_str("appendfsync"),
        "log_epoch": log.epoch,
        "log_last_position": log.last_seq,
        "log_committed_position": log.committed_seq,
        "log_synced_position": log.synced_seq,
        "log_released_position": log.released_seq,
        "exactly_once_writers": writers.count_committed(log),
        # Why writes are refused; empty while they aren't.
        "log_failure": server.dispatcher.failure if log.failed else "",
    }


def keyspace(view: View) -> Fields:
    """INFO keyspace. Counts writes of this turn too: INFO must answer while writes are held back,
    so it doesn't wait for their commit as DBSIZE does. In a namespace there is its database alone,
    which is number 0 there; outside of it that has its name, whatever would break the line
    percent-encoded, and the number by which MONITOR and CLIENT LIST call it."""
    space = view.server.keyspace
    if view.namespace:
        return _database("db0", space.databases[view.namespace], space.now)
    found: Fields = {}
    for db in space.databases[: space.numbered]:
        found.update(_database(f"db{db.index}", db, space.now))
    for name, index in view.server.namespaces.indices():
        field = f"namespace_{quote(name, safe='')}"
        found.update(_database(field, space.databases[index], space.now, index))
    return found


def _database(name: str, db: Database, now: int, number: int = -1) -> Fields:
    if not db.keys:
        return {}
    average = ratio(db.expire_sum, db.expires) - now if db.expires else 0
    figures = [("keys", db.keys), ("expires", db.expires)]
    figures += [("avg_ttl", max(int(average), 0)), ("subexpiry", 0)]
    if number >= 0:
        figures.append(("db", number))
    return {name: pairs(figures)}


def rocksdb(view: View) -> Fields:
    """INFO rocksdb, ours: files and levels of each column family, and what RocksDB is busy
    with. Bytes, unless a name says otherwise."""
    server = view.server
    engine = server.log.engine
    total = engine.property_sum
    path = engine.path
    live, archived = log_files(path), log_files(archive_path(path))
    return {
        **{f"cf_{name}": _family(server, cf) for cf, name in enumerate(COLUMN_FAMILIES)},
        "block_cache_usage": engine.block_cache_usage(),
        "block_cache_pinned_usage": engine.property_int("rocksdb.block-cache-pinned-usage"),
        "sst_files_bytes": total("rocksdb.live-sst-files-size"),
        "running_flushes": engine.property_int("rocksdb.num-running-flushes"),
        "running_compactions": engine.property_int("rocksdb.num-running-compactions"),
        "flush_pending": total("rocksdb.mem-table-flush-pending"),
        "compaction_pending": total("rocksdb.compaction-pending"),
        "pending_compaction_bytes": total("rocksdb.estimate-pending-compaction-bytes"),
        "write_stopped": engine.property_int("rocksdb.is-write-stopped"),
        "delayed_write_rate": engine.property_int("rocksdb.actual-delayed-write-rate"),
        "background_errors": total("rocksdb.background-errors"),
        "sequence": engine.rocksdb_sequence(),
        "wal_live_files": live[0],
        "wal_live_bytes": live[1],
        "wal_archived_files": archived[0],
        "wal_archived_bytes": archived[1],
    }


def _family(server: Server, cf: int) -> str:
    def figure(name: str) -> int:
        return server.log.engine.property_int(f"rocksdb.{name}", cf)

    levels = [figure(f"num-files-at-level{level}") for level in range(_LEVELS)]
    return pairs(
        [
            ("keys", figure("estimate-num-keys")),
            ("sst_bytes", figure("live-sst-files-size")),
            ("memtable_bytes", figure("cur-size-all-mem-tables")),
            ("immutable_memtables", figure("num-immutable-mem-table")),
            ("table_readers_bytes", figure("estimate-table-readers-mem")),
            *((f"level{level}_files", count) for level, count in enumerate(levels)),
        ]
    )


def log_files(directory: str) -> tuple[int, int]:
    """(number, bytes) of the write-ahead log's files in a directory. RocksDB may move one
    meanwhile; it is then left out."""
    sizes = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(".log"):
                    sizes.append(_size(entry))
    except FileNotFoundError:
        pass  # there is no archive before the first file is archived
    return len(sizes), sum(sizes)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0
