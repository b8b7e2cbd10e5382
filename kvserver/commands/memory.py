"""MEMORY: what keys and the server use. The figures are those of INFO memory."""

from __future__ import annotations

from itertools import islice
from typing import Final

from kvserver import codec, errors, resp
from kvserver.args import Cursor, parse_int
from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection
from kvserver.commands.help import help_reply
from kvserver.registry import LOADING, READONLY, STALE, KeySpec, command, container
from kvserver.state import process
from kvserver.state.context import ReadContext
from kvserver.state.info import memory
from kvserver.state.info.fields import ratio
from kvserver.state.info.view import View
from kvserver.storage.row_cache import ROW_OVERHEAD
from kvserver.types import hashes, list_chunks, sets, sparse, streams, zsets
from kvserver.types.lists import LARGE_KEY_LEN, ListReader

TIPS: Final = ("nondeterministic_output", "request_policy:all_shards", "response_policy:special")

#: Where the rows of elements begin in those of a collection: before them may be indices.
_FIRST: Final = {codec.STREAM: streams.ENTRY, codec.HASH: hashes.FIELD, codec.ZSET: zsets.MEMBER}
_SAMPLES: Final = 5
_MOST_SAMPLES: Final = 1000

container(
    "memory",
    group="server",
    since="4.0.0",
    summary="A container for memory diagnostics commands.",
)


@command(
    "memory|usage",
    -3,
    READONLY,
    group="server",
    since="4.0.0",
    summary="Estimates the memory usage of a key.",
    complexity="O(N) where N is the number of samples.",
    keys=(KeySpec(2, 2, 1, ("RO",)),),
)
def memory_usage(ctx: ReadContext, key: bytes, *rest: bytes) -> int | None:
    """Bytes of the key in the row cache, whether it is there now or not: that is where it takes
    memory. A collection's elements are estimated by SAMPLES of them, 0: all."""
    wanted = _SAMPLES
    options = Cursor(rest)
    while options.more():
        samples = options.value(b"SAMPLES")
        if samples is None or (wanted := parse_int(samples)) < 0:
            raise errors.syntax()
    row, _ = ctx.db.look(key)
    if row is None:
        return None
    size = len(ctx.db.row_key(key)) + len(row) + ROW_OVERHEAD
    if codec.row_type(row) != codec.STRING:
        size += _elements(Collection(ctx.db.data, ctx.db.db.prefix, row), wanted)
    return size


def _elements(collection: Collection, samples: int) -> int:
    """About how many bytes the elements take (objectComputeSize). More samples than _MOST_SAMPLES
    would hold up others, and add nothing to an estimate."""
    most = min(samples or _MOST_SAMPLES, _MOST_SAMPLES)
    kind = codec.row_type(collection.row)
    count = collection.count
    if kind == codec.LIST:
        return _chunks(ListReader(collection), min(most, count))
    rows = collection.scan(_FIRST.get(kind, b""))
    sizes = [len(name) + len(row) + ROW_OVERHEAD for name, row in islice(rows, most)]
    if kind == codec.SPARSE:
        count = sparse.fragment_count(collection.row)
    elif kind == codec.SET:
        count = sets.Set(collection).buckets
    return sum(sizes) * count // len(sizes) if sizes else 0


def _chunks(items: ListReader, most: int) -> int:
    """The same for a list, whose elements share rows."""
    size = 0
    for sub, row, begin, end in items.walk(0, most):
        row_size = ELEMENT_PREFIX_LEN + len(sub) + len(row) + ROW_OVERHEAD
        size += row_size * (end - begin) // row[1]
        size += sum(
            ELEMENT_PREFIX_LEN + LARGE_KEY_LEN + list_chunks.marked_size(item) + ROW_OVERHEAD
            for item in list_chunks.entries(row, begin, end)
            if list_chunks.is_marker(item)
        )
    return size * items.count // most


@command(
    "memory|stats",
    2,
    0,
    group="server",
    since="4.0.0",
    summary="Returns details about memory usage.",
    tips=TIPS,
)
def memory_stats(ctx: ReadContext) -> dict[str, int | float]:
    """The fields of Redis in its order, without those of hash tables, which aren't here; then
    ours."""
    now = memory.usage(View(ctx.server))
    keys = ctx.keyspace.total_keys()
    return {
        "peak.allocated": now.peak,
        "total.allocated": now.used,
        "startup.allocated": now.startup,
        "replication.backlog": 0,
        "clients.slaves": 0,
        "clients.normal": now.clients,
        "cluster.links": 0,
        "aof.buffer": now.pending,
        "lua.caches": 0,
        "functions.caches": 0,
        "overhead.total": now.overhead,
        "keys.count": keys,
        "keys.bytes-per-key": max(now.used - now.startup, 0) // keys if keys else 0,
        "dataset.bytes": now.dataset,
        "dataset.percentage": now.dataset_share,
        "peak.percentage": ratio(100 * now.used, now.peak),
        **_allocator(now),
        "row.cache": now.row_cache,
        "rocksdb.memtables": now.memtables,
        "rocksdb.table.readers": now.table_readers,
        "rocksdb.block.cache": now.block_cache,
    }


def _allocator(now: memory.Usage) -> dict[str, int | float]:
    allocated, active = now.allocator
    return {
        "allocator.allocated": allocated,
        "allocator.active": active,
        "allocator.resident": active,
        "allocator.muzzy": 0,
        "allocator-fragmentation.ratio": ratio(active, allocated),
        "allocator-fragmentation.bytes": active - allocated,
        "allocator-rss.ratio": ratio(active, active),
        "allocator-rss.bytes": 0,
        "rss-overhead.ratio": ratio(now.used, active),
        "rss-overhead.bytes": now.used - active,
        "fragmentation": 1.0,
        "fragmentation.bytes": 0,
    }


@command(
    "memory|malloc-stats",
    2,
    0,
    group="server",
    since="4.0.0",
    summary="Returns the allocator statistics.",
    complexity="Depends on how much memory is allocated, could be slow",
    tips=TIPS,
)
def memory_malloc_stats(ctx: ReadContext) -> resp.Verbatim:
    report = process.allocator_report()
    return resp.Verbatim(report or b"Stats not supported for the current allocator")


@command(
    "memory|purge",
    2,
    0,
    group="server",
    since="4.0.0",
    summary="Asks the allocator to release memory.",
    complexity="Depends on how much memory is allocated, could be slow",
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)
def memory_purge(ctx: ReadContext) -> resp.Simple:
    ctx.server.collector.collect()
    process.trim_allocator()
    return resp.OK


@command(
    "memory|help",
    2,
    LOADING | STALE,
    group="server",
    since="4.0.0",
    summary="Returns helpful text about the different subcommands.",
)
def memory_help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "memory",
        "DOCTOR",
        "    Return memory problems reports.",
        "MALLOC-STATS",
        "    Return internal statistics report from the memory allocator.",
        "PURGE",
        "    Attempt to purge dirty pages for reclamation by the allocator.",
        "STATS",
        "    Return information about the memory usage of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Return memory in bytes used by <key> and its value. Nested values are",
        "    sampled up to <count> times (default: 5, 0 means sample all).",
    )
