"""RocksDB, and the only place that imports rocksdict.

It must not know what rows mean, who waits for a write, or asyncio. Invariants:
- Four column families, made with the data set in this order, because their numbers are
  what the WAL carries: default (0), data (1), expiry (2), log (3).
- rocksdict raises bare `Exception`s: they are sorted once, here, into EngineError and its
  kinds.
- Writes never sleep inside RocksDB (`no_slowdown`): a stall is raised as EngineStalled.
- rocksdict releases the GIL only in flush, flush_wal, compact_range, close and get(list);
  callers run those in a worker thread. `close` waits for those that `fetch`.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import rocksdict
from rocksdict import Rdict, ReadOptions, WriteBatch, WriteOptions

from kvserver.config import Config
from kvserver.storage import startup
from kvserver.storage.wal import log_numbers, log_path
from kvserver.storage.wal_batch import DELETE, DELETE_RANGE, PUT, Record
from kvserver.storage.wal_retention import ROCKSDB_WAL_TTL_SECONDS

logger = logging.getLogger("kvserver")

COLUMN_FAMILIES: Final = ("default", "data", "expiry", "log")
MIB: Final = 1 << 20
#: The share of a memtable that its Bloom filter takes: a look-up of a key that isn't there needs no
#: search (1.7 us without, 0.9 with it, and 0.04 more for each insert).
MEMTABLE_BLOOM: Final = 0.05
#: A file is compacted when half of so many entries in a row, or of all, are deletions.
DELETION_WINDOW: Final = 4096
#: `flush_until_quick` flushes so often, until a flush takes so little.
MOST_FLUSHES: Final = 3
QUICK_FLUSH_SECONDS: Final = 0.05
_COMPRESSION: Final = {
    "no": rocksdict.DBCompressionType.none,
    "snappy": rocksdict.DBCompressionType.snappy,
    "lz4": rocksdict.DBCompressionType.lz4,
    "zstd": rocksdict.DBCompressionType.zstd,
    "zlib": rocksdict.DBCompressionType.zlib,
}


#: RocksDB's text when another process has the directory open.
_LOCKED: Final = "While lock file"
#: How flush_wal answers after a failed write, without having tried.
_SYNC_REFUSED: Final = "Writer has previous error"


class ColdRead(BaseException):
    """The disk would have to be asked for a row, while the loop has better things to do
    (storage/reads.py). No error: nothing that handles errors may catch it."""


class EngineError(Exception):
    """RocksDB refused or failed; the text is RocksDB's own."""


class EngineStalled(EngineError):
    """A write would have had to wait for compaction or flush: try again soon."""


def _sorted_error(error: Exception) -> EngineError:
    text = str(error)
    if text.startswith("Result incomplete: Write stall"):
        return EngineStalled(text)
    return EngineError(text)


class Cursor:
    """A RocksDB iterator: its view is pinned when it is made, and it ends before `upper`.

    What rocksdict 0.3.29 gets wrong is kept in here: the iterator points into the bound that its
    options hold without keeping them alive, set_iterate_lower_bound sets the upper bound, and
    a damaged block looks like the end until `status` is asked.
    """

    __slots__ = ("_iterator", "_options")

    def __init__(self, view: Any, upper: bytes) -> None:
        self._options = ReadOptions()
        self._options.set_iterate_upper_bound(upper)
        self._iterator = view.iter(self._options)

    def seek(self, key: bytes) -> None:
        """Go to the first entry at `key` or after it."""
        self._iterator.seek(key)

    def seek_to_last(self) -> None:
        """Go to the last entry below the bound."""
        self._iterator.seek_to_last()

    def next(self) -> None:
        """Go to the entry after this one."""
        self._iterator.next()

    def prev(self) -> None:
        """Go to the entry before this one."""
        self._iterator.prev()

    def key(self) -> bytes | None:
        """The key of the entry that it stands at; None at the end, or after an error."""
        key: bytes | None = self._iterator.key()
        return key

    def value(self) -> bytes:
        """The value of the entry that it stands at."""
        value: bytes = self._iterator.value()
        return value

    def check(self) -> None:
        """Raises EngineError if the walk ended because of one."""
        try:
            self._iterator.status()
        except Exception as error:
            raise _sorted_error(error) from None


class _Closed:
    """Stands for a database or view that isn't open: whatever it is asked for fails."""

    def property_int_value(self, _name: str) -> None:
        return None

    def latest_sequence_number(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        raise EngineError("RocksDB is closed")


class Engine:
    """An open data directory. Keys and values are bytes; `cf` is a column family's number."""

    def __init__(self, path: str, config: Config) -> None:
        self.path = path
        self._config = config
        self._write_options = WriteOptions()
        self._write_options.no_slowdown = True
        #: Bytes of the batches that were written to the log.
        self.written = 0
        #: How many threads are in `fetch`, which `close` waits for.
        self._fetching = 0
        self._fetches = threading.Condition()
        self._open()

    def _open(self) -> None:
        """Open for writing. RocksDB's strictest mode goes first: it refuses whatever isn't whole,
        and the mode that drops a torn tail follows when the log shows that it is one."""
        refusal = startup.refuse_directory(self.path)
        if refusal is None:
            refusal = self._try(rocksdict.DBRecoveryMode.absolute_consistency())
            if refusal is not None and refusal.startswith("Corruption"):
                refusal = startup.refuse_log(self.path)
                if refusal is None:
                    refusal = self._try(rocksdict.DBRecoveryMode.point_in_time())
        if refusal is not None:
            raise EngineError(f"can't open {self.path}: {refusal}")

    def _try(self, recovery: rocksdict.DBRecoveryMode) -> str | None:
        """Open for writing; returns why that failed."""
        try:
            self._open_as(rocksdict.AccessType.read_write(), recovery)
        except EngineError as error:
            text = " ".join(str(error).split())
            return "another process has it open" if _LOCKED in text else text
        return None

    def _open_as(self, access: rocksdict.AccessType, recovery: rocksdict.DBRecoveryMode) -> None:
        self._cache = _block_cache(self._config)
        options = _options(self._config, self._cache)
        options.set_wal_recovery_mode(recovery)
        try:
            db = self._open_families(access, options)
        except Exception as error:
            raise _sorted_error(error) from None
        self._db: Any = db
        #: A failed write told that an fsync had failed before it: no other may be trusted.
        self._sync_lost = False
        self._views: list[Any] = [db, *(db.get_column_family(name) for name in COLUMN_FAMILIES[1:])]
        self._handles = [db.get_column_family_handle(name) for name in COLUMN_FAMILIES]

    def _open_families(self, access: rocksdict.AccessType, options: rocksdict.Options) -> Rdict:
        """Open what is there and make the missing column families one by one: made together
        they would get their numbers in any order."""
        there = Rdict.list_cf(self.path) if os.path.exists(f"{self.path}/CURRENT") else []
        known: dict[str, rocksdict.Options] = {
            n: options for n in COLUMN_FAMILIES[1:] if n in there
        }
        db = Rdict(self.path, options, known, access)
        for name in COLUMN_FAMILIES[1:]:
            if name not in known:
                db.create_column_family(name, options)
        return db

    # -- reads -------------------------------------------------------------------------

    def get(self, cf: int, key: bytes) -> bytes | None:
        """The value, or None."""
        try:
            value: bytes | None = self._views[cf].get(key)
        except Exception as error:
            raise _sorted_error(error) from None
        return value

    def in_memory(self, cf: int, key: bytes) -> tuple[bool, bytes | None]:
        """(whether the key may exist, its value), as far as memtables and the block cache tell: the
        disk is not asked. (True, None): it would have to be."""
        try:
            found: tuple[bool, bytes | None] = self._views[cf].key_may_exist(key, True)
        except Exception as error:
            raise _sorted_error(error) from None
        return found

    def fetch(self, cf: int, keys: list[bytes]) -> list[bytes | None]:
        """The values of many keys, in any thread and without the GIL: afterwards their blocks are
        in the block cache. What can't be read is missing: who reads it next is told why."""
        with self._fetches:
            if self.closed:
                return [None] * len(keys)
            self._fetching += 1
        values: list[bytes | None]
        try:
            values = self._views[cf].get(keys)
        except Exception:
            values = [None] * len(keys)
        with self._fetches:
            self._fetching -= 1
            self._fetches.notify_all()
        return values

    def scan(
        self, cf: int, lower: bytes, upper: bytes, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) in [lower, upper). The iterator pins its view when this is called."""
        cursor = self.cursor(cf, upper)
        if reverse:
            cursor.seek_to_last()
        else:
            cursor.seek(lower)
        return _walk(cursor, lower, cursor.prev if reverse else cursor.next)

    def cursor(self, cf: int, upper: bytes) -> Cursor:
        """A cursor over the keys below `upper`, to be placed by a seek."""
        return Cursor(self._views[cf], upper)

    # -- writes ------------------------------------------------------------------------

    def batch(self) -> WriteBatch:
        """A new, empty batch."""
        return WriteBatch(raw_mode=True)

    def batch_fill(self, batch: WriteBatch, cf: int, rows: dict[bytes, bytes | None]) -> None:
        """Add puts, and deletions for None."""
        handle = self._handles[cf]
        put = batch.put
        for key, row in rows.items():
            if row is None:
                batch.delete(key, handle)
            else:
                put(key, row, handle)

    def batch_put(self, batch: WriteBatch, cf: int, key: bytes, value: bytes) -> None:
        """Add one put."""
        batch.put(key, value, self._handles[cf])

    def batch_delete_range(self, batch: WriteBatch, cf: int, begin: bytes, end: bytes) -> None:
        """Add the deletion of [begin, end)."""
        batch.delete_range(begin, end, self._handles[cf])

    def batch_records(self, batch: WriteBatch, records: list[Record]) -> None:
        """Add puts, deletions and deletions of ranges as another log holds them."""
        for op, cf, key, value in records:
            if op == PUT:
                batch.put(key, value, self._handles[cf])
            elif op == DELETE:
                batch.delete(key, self._handles[cf])
            elif op == DELETE_RANGE:
                batch.delete_range(key, value, self._handles[cf])
            else:
                raise ValueError(f"operation {op}")

    def write(self, batch: WriteBatch) -> None:
        """Write a batch atomically. Raises EngineStalled (nothing was written) or EngineError
        (whether it was written shows only after a reopen)."""
        size = batch.size_in_bytes()  # RocksDB takes the batch away
        try:
            self._db.write(batch, self._write_options)
        except Exception as error:
            self._sync_lost = _is_sync_failure(str(error))
            raise _sorted_error(error) from None
        self.written += size

    # -- upkeep (all of these block: worker thread) ---------------------------------------

    def sync_wal(self) -> None:
        """fsync the write-ahead log. After a failed write RocksDB refuses to, but what was
        written before is still to be synced. Not to be called again once it has failed."""
        try:
            self._db.flush_wal(True)
        except Exception as error:
            if _SYNC_REFUSED not in str(error) or self._sync_lost:
                raise _sorted_error(error) from None
            _sync_files(self.path)

    def flush(self) -> None:
        """Write the memtables of all column families to files."""
        try:
            for view in self._views:
                view.flush(True)
        except Exception as error:
            raise _sorted_error(error) from None

    def flush_until_quick(self) -> None:
        """Flush, and again if that took so long that much was written meanwhile."""
        for _ in range(MOST_FLUSHES):
            begun = time.monotonic()
            self.flush()
            if time.monotonic() - begun < QUICK_FLUSH_SECONDS:
                break

    def checkpoint(self, path: str) -> None:
        """A consistent copy (hard links) in `path`, which must not exist. Holds the GIL, while
        RocksDB flushes what wasn't: 400 ms with full memtables (edge/checkpoint.py)."""
        try:
            rocksdict.Checkpoint(self._db).create_checkpoint(path)
        except Exception as error:
            raise _sorted_error(error) from None

    def compact(self, cf: int, begin: bytes | None, end: bytes | None) -> None:
        """Compact a range of a column family."""
        try:
            self._views[cf].compact_range(begin, end)
        except Exception as error:
            raise _sorted_error(error) from None

    def reopen(self) -> None:
        """Close and open again: the way out of RocksDB's background error state. Every iterator
        must be gone. Raises EngineError, and then serves reads if it can, until this is called
        again."""
        self.close()
        try:
            self._open()
        except EngineError:
            point_in_time = rocksdict.DBRecoveryMode.point_in_time()
            with suppress(EngineError):
                self._open_as(rocksdict.AccessType.read_only(False), point_in_time)
            raise

    def close(self) -> None:
        """Close. Handles, views and iterators go first: one left alive keeps RocksDB's lock.
        RocksDB raises a stored write error once more here, and closes all the same."""
        if self.closed:
            return
        with self._fetches:
            self._views = [_Closed()] * len(COLUMN_FAMILIES)
            self._fetches.wait_for(lambda: not self._fetching)
        self._handles = []
        gc.unfreeze()  # state/collector.py
        gc.collect()
        db, self._db = self._db, _Closed()
        try:
            db.close()
        except Exception as error:
            logger.warning("RocksDB closed with: %s", error)

    # -- figures -----------------------------------------------------------------------

    def property_int(self, name: str, cf: int = 0) -> int:
        """A RocksDB integer property, e.g. `rocksdb.cur-size-all-mem-tables`; 0 if unknown."""
        value = self._views[cf].property_int_value(name)
        return int(value) if value is not None else 0

    def property_sum(self, name: str) -> int:
        """The property added up over the column families."""
        return sum(self.property_int(name, cf) for cf in range(len(COLUMN_FAMILIES)))

    def block_cache_usage(self) -> int:
        """Bytes in the block cache that the column families share."""
        return int(self._cache.get_usage())

    @property
    def closed(self) -> bool:
        """Whether there is nothing to read from: `reopen` failed in both ways."""
        return type(self._db) is _Closed

    def stopped(self) -> bool:
        """Whether RocksDB takes no writes until a flush or compaction has ended."""
        return self.property_int("rocksdb.is-write-stopped") != 0

    def rocksdb_sequence(self) -> int:
        """RocksDB's own sequence number (not kvserver's position)."""
        return int(self._db.latest_sequence_number())


def _is_sync_failure(text: str) -> bool:
    return "While fdatasync" in text or "While fsync" in text


def _sync_files(path: str) -> None:
    """fsync the live log files. A file that is gone was archived: its rows are in data files."""
    for number in log_numbers(path):
        try:
            fd = os.open(log_path(path, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            os.fsync(fd)
        except OSError as error:
            raise EngineError(f"fsync of {log_path(path, number)}: {error.strerror}") from None
        finally:
            os.close(fd)


def _walk(cursor: Cursor, lower: bytes, step: Callable[[], None]) -> Iterator[tuple[bytes, bytes]]:
    """The rest of a cursor, down to `lower`."""
    key = cursor.key()
    while key is not None and key >= lower:
        yield key, cursor.value()
        step()
        key = cursor.key()
    cursor.check()


def _options(config: Config, cache: rocksdict.Cache) -> rocksdict.Options:
    """RocksDB's options from the `rocksdb.*` directives."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    _set_tables(options, config, cache)
    _set_levels(options, config)
    _set_logs(options, config)
    return options


def _block_cache(config: Config) -> rocksdict.Cache:
    """The cache without locks, with which a read takes a tenth less than with the other (RocksDB's
    cache.h, HyperClockCacheOptions). It must know about how large its entries are."""
    size = config.get_int("rocksdb.block_cache_size") * MIB
    if not size:
        return rocksdict.Cache(0)
    return rocksdict.Cache.new_hyper_clock_cache(size, config.get_int("rocksdb.block_size"))


def _set_tables(options: rocksdict.Options, config: Config, cache: rocksdict.Cache) -> None:
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_block_size(config.get_int("rocksdb.block_size"))
    blocks.set_bloom_filter(10, False)
    blocks.set_format_version(5)
    options.set_block_based_table_factory(blocks)
    # The upper levels are rewritten soon: compressing them costs more than it saves.
    none, chosen = _COMPRESSION["no"], _COMPRESSION[config.get_str("rocksdb.compression")]
    options.set_compression_per_level([none(), none(), *(chosen() for _ in range(5))])
    options.set_max_open_files(config.get_int("rocksdb.max_open_files"))


def _set_levels(options: rocksdict.Options, config: Config) -> None:
    number = config.get_int
    # One thread writes: inserting into the memtable needs no atomic operations.
    options.set_allow_concurrent_memtable_write(False)
    options.set_write_buffer_size(number("rocksdb.write_buffer_size") * MIB)
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM)
    options.set_memtable_whole_key_filtering(True)
    options.set_max_write_buffer_number(number("rocksdb.max_write_buffer_number"))
    options.set_max_background_jobs(number("rocksdb.max_background_jobs"))
    options.set_target_file_size_base(number("rocksdb.target_file_size_base") * MIB)
    options.set_max_bytes_for_level_base(number("rocksdb.max_bytes_for_level_base"))
    options.set_max_bytes_for_level_multiplier(number("rocksdb.max_bytes_for_level_multiplier"))
    trigger = number("rocksdb.level0_file_num_compaction_trigger")
    options.set_level_zero_file_num_compaction_trigger(trigger)
    options.set_level_zero_slowdown_writes_trigger(number("rocksdb.level0_slowdown_writes_trigger"))
    options.set_level_zero_stop_writes_trigger(number("rocksdb.level0_stop_writes_trigger"))
    # A walk steps over deleted rows one by one: files full of them are compacted soon
    # (utilities/table_properties_collectors/compact_on_deletion_collector.h).
    options.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_WINDOW // 2, 0.5)
    rate = number("max-io-mb")
    if rate:
        options.set_ratelimiter(rate * MIB, 100_000, 10)


def _set_logs(options: rocksdict.Options, config: Config) -> None:
    options.set_wal_ttl_seconds(ROCKSDB_WAL_TTL_SECONDS)
    options.set_wal_size_limit_mb(0)
    options.set_max_total_wal_size(config.get_int("rocksdb.max_total_wal_size") * MIB)
    options.set_keep_log_file_num(4)
    options.set_stats_dump_period_sec(config.get_int("rocksdb.stats_dump_period_sec"))
    period = config.get_int("rocksdb.delete_obsolete_files_period_micros")
    options.set_delete_obsolete_files_period_micros(period)
