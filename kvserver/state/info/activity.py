"""INFO stats, commandstats, errorstats and latencystats: what the server has done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvserver.state.info import replication
from kvserver.state.info.fields import Fields, pairs, ratio, zeros
from kvserver.state.info.view import View

if TYPE_CHECKING:
    from kvserver.state.server import Server
    from kvserver.state.table import Entry

#: What would break a line of INFO becomes an underscore (getSafeInfoString in server.c).
_UNSAFE = str.maketrans("#:\n\r", "____")


def stats(view: View) -> Fields:
    """INFO stats."""
    server = view.server
    return {
        **_traffic(server),
        **replication.counters(server),
        **_expiry(server),
        **_keyspace(server),
        **_forks(),
        **_tracking(server),
        **_replies(server),
    }


def _traffic(server: Server) -> Fields:
    counted = server.stats
    return {
        "total_connections_received": counted.connections,
        "total_commands_processed": sum(entry.calls for entry in server.table.all()),
        "instantaneous_ops_per_sec": int(counted.ops.per_second()),
        "total_net_input_bytes": counted.net_input,
        "total_net_output_bytes": counted.net_output,
        **zeros("total_net_repl_input_bytes", "total_net_repl_output_bytes"),
        "instantaneous_input_kbps": f"{counted.input.per_second() / 1024:.2f}",
        "instantaneous_output_kbps": f"{counted.output.per_second() / 1024:.2f}",
        "instantaneous_input_repl_kbps": "0.00",
        "instantaneous_output_repl_kbps": "0.00",
        "rejected_connections": counted.rejected_connections,
    }


def _expiry(server: Server) -> Fields:
    """Active expiry reads the index of what is due, so nothing stale is ever estimated."""
    return {
        "expired_subkeys": server.keyspace.expired_fields,
        "expired_keys": server.keyspace.expired_keys,
        "expired_stale_perc": "0.00",
        "expired_time_cap_reached_count": server.stats.expire_cut_short,
        "expire_cycle_cpu_milliseconds": server.stats.expire_ns // 1_000_000,
        **zeros("evicted_keys", "evicted_clients"),
        "evicted_scripts": server.scripting.scripts.evicted,
        **zeros("total_eviction_exceeded_time", "current_eviction_exceeded_time"),
    }


def _keyspace(server: Server) -> Fields:
    hits, misses = server.keyspace.hits_and_misses()
    return {
        "keyspace_hits": hits,
        "keyspace_misses": misses,
        "pubsub_channels": len(server.pubsub.channels),
        "pubsub_patterns": len(server.pubsub.patterns),
        "pubsubshard_channels": len(server.pubsub.shard_channels),
    }


def _forks() -> Fields:
    """kvserver never forks, and leaves defragmentation to RocksDB's compaction."""
    return zeros(
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
    )


def _tracking(server: Server) -> Fields:
    tracking = server.tracking
    return {
        "tracking_total_keys": tracking.total_keys,
        "tracking_total_items": tracking.total_items,
        "tracking_total_prefixes": tracking.total_prefixes,
    }


def _replies(server: Server) -> Fields:
    counted = server.stats
    return {
        "unexpected_error_replies": 0,
        "total_error_replies": counted.total_errors,
        "dump_payload_sanitizations": 0,
        "total_reads_processed": counted.reads,
        "total_writes_processed": counted.writes,
        **zeros("io_threaded_reads_processed", "io_threaded_writes_processed"),
        "client_query_buffer_limit_disconnections": counted.query_buffer_disconnections,
        "client_output_buffer_limit_disconnections": counted.output_buffer_disconnections,
        **zeros("reply_buffer_shrinks", "reply_buffer_expands"),
        "eventloop_duration_cmd_sum": sum(e.nanoseconds for e in server.table.all()) // 1000,
        "acl_access_denied_auth": counted.acl_denied["auth"],
        "acl_access_denied_cmd": counted.acl_denied["command"],
        "acl_access_denied_key": counted.acl_denied["key"],
        "acl_access_denied_channel": counted.acl_denied["channel"],
    }


def commandstats(view: View) -> Fields:
    """INFO commandstats: the commands that were called or refused."""
    server = view.server
    return {
        f"cmdstat_{_safe(entry)}": pairs(
            [
                ("calls", entry.calls),
                ("usec", entry.nanoseconds // 1000),
                ("usec_per_call", f"{ratio(entry.nanoseconds / 1000, entry.calls):.2f}"),
                ("rejected_calls", entry.rejected),
                ("failed_calls", entry.failed),
            ]
        )
        for entry in server.table.all()
        if entry.calls or entry.rejected
    }


def errorstats(view: View) -> Fields:
    """INFO errorstats: error replies by their first word."""
    server = view.server
    counted = sorted(server.stats.errors.items())
    return {f"errorstat_{code.translate(_UNSAFE)}": f"count={n}" for code, n in counted}


def latencystats(view: View) -> Fields:
    """INFO latencystats: percentiles of the commands' durations, in microseconds."""
    server = view.server
    wanted = server.config.get_floats("latency-tracking-info-percentiles")
    found: Fields = {}
    for entry in server.table.all():
        values = entry.latency.percentiles(wanted)
        if values:
            named = zip(wanted, values, strict=True)
            figures = [(f"p{percent:g}", f"{value / 1000:.3f}") for percent, value in named]
            found[f"latency_percentiles_usec_{_safe(entry)}"] = pairs(figures)
    return found


def _safe(entry: Entry) -> str:
    return entry.name.translate(_UNSAFE)
