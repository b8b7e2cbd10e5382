"""WAIT and WAITAOF: until replicas, or disks, have what this client wrote.

A waiting client is looked at again after acknowledgements and fsyncs; nothing polls. Source: Redis
7.4's replication.c (waitCommand, waitaofCommand).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kvserver import errors
from kvserver.args import parse_int, parse_int_in, parse_timeout_ms
from kvserver.numbers import INT64_MAX
from kvserver.registry import BLOCKING, WALK, command
from kvserver.state.context import Blocked, ReadContext

if TYPE_CHECKING:
    from kvserver.state.replication import ReplicationVerbs

T = TypeVar("T", bound="int | list[int]")


@command(
    "wait",
    3,
    BLOCKING | WALK,
    group="generic",
    since="3.0.0",
    summary="Blocks until the asynchronous replication of all preceding write commands sent by "
    "the connection is completed.",
    categories=("connection",),
    tips=("request_policy:all_shards", "response_policy:agg_min"),
)
def wait(ctx: ReadContext, replicas: bytes, timeout: bytes) -> int | Blocked:
    if ctx.server.replication.is_replica:
        raise errors.error(
            "WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if "
            "a replica is configured to be writable (which is not the default) writes to replicas "
            "are just local and are not propagated."
        )
    wanted = parse_int(replicas)
    timeout_ms = parse_timeout_ms(timeout, ctx.now)
    verbs, seq = ctx.server.replication.verbs, _last_write(ctx)

    def count() -> int:
        return verbs.count_acked(seq) if verbs is not None else 0

    return _until(ctx, lambda acked: acked >= wanted, count, timeout_ms)


@command(
    "waitaof",
    4,
    BLOCKING | WALK,
    group="generic",
    since="7.2.0",
    summary="Blocks until all of the preceding write commands sent by the connection are written "
    "to the append-only file of the master and/or replicas.",
    categories=("connection",),
    tips=("request_policy:all_shards", "response_policy:agg_min"),
)
def waitaof(ctx: ReadContext, local: bytes, replicas: bytes, timeout: bytes) -> list[int] | Blocked:
    """The append-only file is RocksDB's write-ahead log, here and on the replicas."""
    wanted_here = parse_int_in(local, 0, 1)
    wanted = parse_int_in(replicas, 0, INT64_MAX, "value is out of range, must be positive")
    timeout_ms = parse_timeout_ms(timeout, ctx.now)
    if ctx.server.replication.is_replica:
        raise errors.error(
            "WAITAOF cannot be used with replica instances. Please also note that writes to "
            "replicas are just local and are not propagated."
        )
    verbs, log, seq = ctx.server.replication.verbs, ctx.server.log, _last_write(ctx)

    def count() -> list[int]:
        return [int(log.synced_seq >= seq), verbs.count_synced(seq) if verbs is not None else 0]

    def enough(counted: list[int]) -> bool:
        return counted[0] >= wanted_here and counted[1] >= wanted

    return _until(ctx, enough, count, timeout_ms)


def _last_write(ctx: ReadContext) -> int:
    """The position to wait for. It may be gone: a rewind took it back. In a transaction that has
    written it is the one that comes."""
    log = ctx.server.log
    return log.last_seq + 1 if log.changed else min(ctx.session.written_seq, log.last_seq)


def _until(
    ctx: ReadContext, enough: Callable[[T], bool], count: Callable[[], T], timeout_ms: int
) -> T | Blocked:
    """What `count` gives as soon as it is enough, or when time is up."""
    counted = count()
    if enough(counted) or ctx.deny_blocking:
        return counted
    server, session = ctx.server, ctx.session
    verbs: ReplicationVerbs | None = server.replication.verbs
    waiters: list[Callable[[], Any]] = verbs.on_ack if verbs is not None else []

    def look() -> None:
        if enough(count()):
            server.waiting.unblock_later(session, count())

    waiters.append(look)
    return Blocked(timeout_ms, count, lambda: waiters.remove(look))
