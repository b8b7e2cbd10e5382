"""INFO memory, and the figures behind MEMORY STATS."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvserver.state import process
from kvserver.state.info.fields import Fields, human, ratio, zeros
from kvserver.state.info.view import View

if TYPE_CHECKING:
    from kvserver.state.server import Server


class Usage(NamedTuple):
    """Bytes. `used` is the resident size of the process."""

    used: int
    peak: int
    startup: int
    row_cache: int
    memtables: int
    table_readers: int
    block_cache: int
    clients: int
    pending: int
    allocator: process.Allocator

    @property
    def dataset(self) -> int:
        """Data that is in memory: rows in the cache, in RocksDB's write buffers and blocks."""
        return self.row_cache + self.memtables + self.block_cache

    @property
    def overhead(self) -> int:
        """What is not data."""
        return max(self.used - self.dataset, 0)

    @property
    def dataset_share(self) -> float:
        """Percent of what was added since the start that is data, at most 100."""
        return min(ratio(100 * self.dataset, max(self.used - self.startup, 0)), 100.0)


def usage(view: View) -> Usage:
    """What the process uses now, and what of it RocksDB and the caches use."""
    server = view.server
    engine = server.log.engine
    used = process.resident_bytes()
    return Usage(
        used=used,
        peak=max(process.peak_resident_bytes(), used),
        startup=server.startup_memory,
        row_cache=server.log.rows.cache.cached_bytes + server.log.data.cache.cached_bytes,
        memtables=engine.property_sum("rocksdb.cur-size-all-mem-tables"),
        table_readers=engine.property_sum("rocksdb.estimate-table-readers-mem"),
        block_cache=engine.block_cache_usage(),
        clients=view.census.buffered,
        pending=server.log.pending_bytes,
        allocator=process.allocator(),
    )


def memory(view: View) -> Fields:
    """INFO memory."""
    now = usage(view)
    return {
        "used_memory": now.used,
        "used_memory_human": human(now.used),
        "used_memory_rss": now.used,
        "used_memory_rss_human": human(now.used),
        "used_memory_peak": now.peak,
        "used_memory_peak_human": human(now.peak),
        "used_memory_peak_perc": f"{ratio(100 * now.used, now.peak):.2f}%",
        "used_memory_overhead": now.overhead,
        "used_memory_startup": now.startup,
        "used_memory_dataset": now.dataset,
        "used_memory_dataset_perc": f"{now.dataset_share:.2f}%",
        **_allocator(now),
        **_scripts(view.server),
        "maxmemory": 0,
        "maxmemory_human": human(0),
        "maxmemory_policy": view.server.config.get_str("maxmemory-policy"),
        **_fragmentation(now),
        **zeros(
            "mem_not_counted_for_evict",
            "mem_replication_backlog",
            "mem_total_replication_buffers",
            "mem_clients_slaves",
        ),
        "mem_clients_normal": now.clients,
        "mem_cluster_links": 0,
        "mem_aof_buffer": now.pending,
        "mem_allocator": "libc",
        **zeros(
            "mem_overhead_db_hashtable_rehashing",
            "active_defrag_running",
            "lazyfree_pending_objects",
            "lazyfreed_objects",
        ),
        **_caches(view.server, now),
        **_collector(view.server),
    }


def _allocator(now: Usage) -> Fields:
    total = process.system_bytes()
    return {
        "allocator_allocated": now.allocator.allocated,
        "allocator_active": now.allocator.active,
        # malloc doesn't say how much of what it got from the kernel is resident.
        "allocator_resident": now.allocator.active,
        "allocator_muzzy": 0,
        "total_system_memory": total,
        "total_system_memory_human": human(total),
    }


def _scripts(server: Server) -> Fields:
    """What Lua's states hold, and the caches of scripts and functions."""
    scripts, functions = server.scripting.scripts, server.scripting.functions
    states = scripts.memory + functions.memory
    return {
        "used_memory_lua": scripts.memory,
        "used_memory_vm_eval": scripts.memory,
        "used_memory_lua_human": human(scripts.memory),
        "used_memory_scripts_eval": scripts.overhead,
        "number_of_cached_scripts": len(scripts),
        "number_of_functions": functions.count,
        "number_of_libraries": len(functions.loaded),
        "used_memory_vm_functions": functions.memory,
        "used_memory_vm_total": states,
        "used_memory_vm_total_human": human(states),
        "used_memory_functions": functions.overhead,
        "used_memory_scripts": scripts.overhead + functions.overhead,
        "used_memory_scripts_human": human(scripts.overhead + functions.overhead),
    }


def _fragmentation(now: Usage) -> Fields:
    malloc = now.allocator
    return {
        "allocator_frag_ratio": f"{ratio(malloc.active, malloc.allocated):.2f}",
        "allocator_frag_bytes": malloc.active - malloc.allocated,
        "allocator_rss_ratio": f"{ratio(malloc.active, malloc.active):.2f}",
        "allocator_rss_bytes": 0,
        "rss_overhead_ratio": f"{ratio(now.used, malloc.active):.2f}",
        "rss_overhead_bytes": now.used - malloc.active,
        "mem_fragmentation_ratio": "1.00",
        "mem_fragmentation_bytes": 0,
    }


def _caches(server: Server, now: Usage) -> Fields:
    """Ours: the row cache, and RocksDB's memory. Hits and misses are those of keys."""
    rows = server.log.rows
    hits, _ = server.keyspace.hits_and_misses()
    # At least: rows that a write read before it replaced them are among the loads.
    hit_rate = max(1 - ratio(rows.loads, hits), 0) if hits else 0
    return {
        "row_cache_bytes": now.row_cache,
        "row_cache_bytes_human": human(now.row_cache),
        "row_cache_max_bytes": server.log.cache.size,
        "row_cache_rows": rows.cache.cached_rows + server.log.data.cache.cached_rows,
        "row_cache_hit_rate": f"{hit_rate:.4f}",
        "row_cache_hits_old": rows.hits_old,
        "row_cache_loads": rows.loads,
        "row_cache_misses": rows.misses,
        # How long a read of RocksDB takes the loop, and how often a command was set aside instead.
        "rocksdb_read_average_usec": server.log.reads.average_ns // 1000,
        "cold_commands": server.cold.count,
        "rocksdb_memtables_bytes": now.memtables,
        "rocksdb_table_readers_bytes": now.table_readers,
        "rocksdb_block_cache_bytes": now.block_cache,
    }


def _collector(server: Server) -> Fields:
    """Ours: Python's cyclic collector (state/collector.py)."""
    collector = server.collector
    return {
        "python_gc_objects": collector.objects,
        "python_gc_passes": collector.passes,
        "python_gc_full_passes": collector.full_passes,
        "python_gc_garbage": collector.found,
        "python_gc_longest_usec": collector.longest_ns // 1000,
    }
