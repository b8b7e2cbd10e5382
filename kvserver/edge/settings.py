"""Hands the configuration to the parts of the server state, at the start and on each change.

It must not know sockets. The parts themselves don't know the configuration.
"""

from __future__ import annotations

from kvserver import logs
from kvserver.config import Config
from kvserver.state import process
from kvserver.state.server import Server


def follow(config: Config, server: Server) -> None:
    """Apply the directives now and whenever they change."""

    def slow_commands() -> None:
        threshold = config.get_int("slowlog-log-slower-than")
        server.slowlog.threshold = threshold
        server.slowlog.resize(config.get_int("slowlog-max-len"))
        server.latency.threshold = config.get_int("latency-monitor-threshold")
        limits = [threshold * 1000] if threshold >= 0 else []
        if server.latency.threshold:
            limits.append(server.latency.threshold * 1_000_000)
        server.dispatcher.slow_ns = min(limits, default=1 << 62)

    def transactions() -> None:
        server.dispatcher.max_queue_bytes = config.get_int("client-query-buffer-limit")

    def notifications() -> None:
        server.notifier.configure(config.get_str("notify-keyspace-events"))

    def cache() -> None:
        size = process.share_of_memory(config.get_int("row-cache-size"))
        server.log.cache.resize(size)

    def track_latency() -> None:
        server.table.track_latency(config.get_bool("latency-tracking"))

    def log_level() -> None:
        logs.set_level(config.get_str("loglevel"))

    slow = ["slowlog-log-slower-than", "slowlog-max-len", "latency-monitor-threshold"]
    config.on_change(slow, slow_commands)
    config.on_change("client-query-buffer-limit", transactions)
    config.on_change("notify-keyspace-events", notifications)
    config.on_change("row-cache-size", cache)
    config.on_change("latency-tracking", track_latency)
    config.on_change("loglevel", log_level)
    slow_commands()
    transactions()
    track_latency()
    notifications()
    cache()
