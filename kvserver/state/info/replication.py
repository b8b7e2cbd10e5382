"""INFO replication: the role, the link to the primary, the replicas, and the log that they need.

Redis' fields, in its order and in both roles as in genRedisInfoString (server.c), then ours.
Offsets are log positions, one for each command that wrote, and not bytes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from kvserver.config import MIB
from kvserver.state.info.fields import Fields, pairs, ratio
from kvserver.state.info.view import View
from kvserver.state.replication import ONLINE, SEND_BULK, WAIT_BGSAVE, ReplicaState

if TYPE_CHECKING:
    from kvserver.state.server import Server

_NO_REPLICATION_ID: Final = "0" * 40


def replication(view: View) -> Fields:
    """INFO replication."""
    server = view.server
    state = server.replication
    first, count, size = _reach(server)
    return {
        "role": "slave" if state.is_replica else "master",
        **(_primary(server) if state.is_replica else {}),
        "connected_slaves": len(state.replicas),
        **_good_replicas(server),
        **{f"slave{i}": _slave(replica) for i, replica in enumerate(state.replicas)},
        "master_failover_state": state.failover_state,
        **_ids(server),
        **_backlog(server, first, count),
        # Ours.
        "last_failover_stall_us": state.last_failover_stall_us,
        **{f"replica{i}": _replica(server, replica) for i, replica in enumerate(state.replicas)},
        **_log(first, count, size),
        **_consistency(server),
    }


def counters(server: Server) -> Fields:
    """INFO stats: how replicas were brought to this server's state."""
    state = server.replication
    return {
        "sync_full": state.sync_full,
        "sync_partial_ok": state.sync_partial_ok,
        "sync_partial_err": state.sync_partial_err,
    }


# -- a replica ---------------------------------------------------------------------------------


def _primary(server: Server) -> Fields:
    state, config = server.replication, server.config
    now, position = time.monotonic(), server.log.committed_seq
    return {
        "master_host": state.primary_host,
        "master_port": state.primary_port,
        "master_link_status": "up" if state.link_up else "down",
        "master_last_io_seconds_ago": int(now - state.last_io) if state.link_up else -1,
        "master_sync_in_progress": int(state.sync_in_progress),
        "slave_read_repl_offset": position,
        "slave_repl_offset": position,
        **(_sync(server, now) if state.sync_in_progress else {}),
        **({} if state.link_up else {"master_link_down_since_seconds": _down_seconds(server, now)}),
        # Sentinel doesn't promote a replica whose priority is 0.
        "slave_priority": config.get_int("replica-priority") if _is_consistent(server) else 0,
        "slave_read_only": 1,
        "replica_announced": int(config.get_bool("replica-announced")),
    }


def _sync(server: Server, now: float) -> Fields:
    state = server.replication
    total, done = state.sync_bytes_total, state.sync_bytes_done
    return {
        "master_sync_total_bytes": total,
        "master_sync_read_bytes": done,
        "master_sync_left_bytes": total - done,
        "master_sync_perc": f"{100 * ratio(done, total):.2f}",
        "master_sync_last_io_seconds_ago": int(now - state.sync_last_io),
    }


def _down_seconds(server: Server, now: float) -> int:
    since = server.replication.link_down_since
    return int(now - since) if since else -1


# -- a primary ---------------------------------------------------------------------------------


def _good_replicas(server: Server) -> Fields:
    config = server.config
    lag = config.get_int("min-replicas-max-lag")
    if not config.get_int("min-replicas-to-write") or not lag:
        return {}
    return {"min_slaves_good_slaves": server.replication.good_replicas(time.monotonic(), lag)}


def _slave(replica: ReplicaState) -> str:
    """What Redis tells of a replica. Clients know three states: a rewind is a kind of transfer."""
    lag = int(time.monotonic() - replica.last_ack) if replica.state == ONLINE else 0
    return pairs(
        [
            ("ip", replica.ip),
            ("port", replica.port),
            ("state", replica.state if replica.state in _REDIS_STATES else SEND_BULK),
            ("offset", replica.acked_seq),
            ("lag", lag),
        ]
    )


_REDIS_STATES: Final = (WAIT_BGSAVE, SEND_BULK, ONLINE)


def _replica(server: Server, replica: ReplicaState) -> str:
    """What it was sent, has applied and has on disk, and how far it is behind."""
    figures: list[tuple[str, int | str]] = [("state", replica.state)]
    if replica.state != ONLINE:
        done, total = replica.sync_bytes_done, replica.sync_bytes_total
        return pairs([*figures, ("sync_bytes_done", done), ("sync_bytes_total", total)])
    size, oldest = replica.behind()
    figures += [
        ("sent", replica.sent_seq),
        ("applied", replica.acked_seq),
        ("fsynced", replica.synced_seq),
        ("lag_positions", max(server.log.committed_seq - replica.acked_seq, 0)),
        ("lag_bytes", size),
        ("lag_ms", max(server.keyspace.now - oldest, 0) if oldest > 0 else oldest),
    ]
    return pairs(figures)


# -- the log -----------------------------------------------------------------------------------


def _ids(server: Server) -> Fields:
    """Redis' names for the last two eras of the history."""
    seq = server.log.committed_seq
    eras = server.log.history.upto(seq).eras
    return {
        "master_replid": eras[-1].replid,
        "master_replid2": eras[-2].replid if len(eras) > 1 else _NO_REPLICATION_ID,
        "master_repl_offset": seq,
        "second_repl_offset": eras[-1].first_seq if len(eras) > 1 else -1,
    }


def _backlog(server: Server, first: int, count: int) -> Fields:
    """The write-ahead log is what a backlog is in Redis, counted in positions."""
    return {
        "repl_backlog_active": 1,
        "repl_backlog_size": server.config.get_int("rocksdb.wal_size_limit_mb") * MIB,
        "repl_backlog_first_byte_offset": first,
        "repl_backlog_histlen": count,
    }


def _log(first: int, count: int, size: int) -> Fields:
    """How far back the log reaches: a replica that is behind that needs a full sync."""
    return {
        "repl_log_first_position": first,
        "repl_log_positions": count,
        "repl_log_bytes": size if count else 0,
    }


def _reach(server: Server) -> tuple[int, int, int]:
    """(the first position of the log, the number of positions, bytes)."""
    last = server.log.committed_seq
    index = server.replication.index
    first, size = index.reach() if index is not None else (last + 1, 0)
    return first, max(last - first + 1, 0), size


# -- consistency -------------------------------------------------------------------------------


def _is_consistent(server: Server) -> bool:
    state = server.replication
    return not state.padded and state.consistent_from <= server.log.committed_seq


def _consistency(server: Server) -> Fields:
    state = server.replication
    return {
        "dataset_consistent": "yes" if _is_consistent(server) else "no",
        "rewinds": state.rewinds,
        "rewound_positions": state.rewound_positions,
        "sequence_padding_events": state.padding_events,
        "padded_sequences": state.padded_sequences,
        **{
            f"padded_range{i}": pairs(
                [("first", first), ("last", last), ("time", ms), ("peer", peer), ("reason", why)]
            )
            for i, (first, last, ms, peer, why) in enumerate(state.padded)
        },
    }
