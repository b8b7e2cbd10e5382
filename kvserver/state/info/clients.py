"""INFO clients: who is connected, and what they wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvserver.state import pause
from kvserver.state.info.fields import Fields
from kvserver.state.info.view import View

if TYPE_CHECKING:
    from kvserver.state.server import Server

_ACTIONS: Final = {pause.NONE: "none", pause.WRITES: "write", pause.ALL: "all"}


def clients(view: View) -> Fields:
    """INFO clients. The buffers are those of now, where Redis keeps the maxima of some seconds."""
    server, census = view.server, view.census
    blocked_keys = server.waiting.blocked_keys
    return {
        "connected_clients": len(server.sessions) - len(server.replication.replicas),
        "cluster_connections": 0,
        "maxclients": server.config.get_int("maxclients"),
        "client_recent_max_input_buffer": census.largest_input,
        "client_recent_max_output_buffer": census.largest_output,
        "blocked_clients": census.blocked,
        "tracking_clients": len(server.tracking.sessions),
        "pubsub_clients": census.subscribed,
        "watching_clients": census.watching,
        "clients_in_timeout_table": census.timed,
        "total_watched_keys": len(server.watches.by_key),
        "total_blocking_keys": blocked_keys.count(),
        "total_blocking_keys_on_nokey": blocked_keys.count_missed(),
        **_pause(server),
    }


def _pause(server: Server) -> Fields:
    """The fields of Valkey 8 for CLIENT PAUSE; Redis shows none."""
    mode, pauses = server.pauses.mode, server.pauses.in_force()
    purposes = [purpose for purpose, (_, strictness) in pauses.items() if strictness == mode]
    now = server.keyspace.now
    last = max((end for end, _ in pauses.values()), default=now)
    return {
        "paused_reason": purposes[0] if purposes else "none",
        "paused_actions": _ACTIONS[mode],
        "paused_timeout_milliseconds": max(last - now, 0),
    }
