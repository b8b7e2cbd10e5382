"""WAIT: until replicas have what this client wrote. Source: Redis 7.4's replication.c."""

from __future__ import annotations

from kvserver.args import parse_int, parse_timeout_ms
from kvserver.registry import BLOCKING, WALK, command
from kvserver.state.context import Blocked, ReadContext


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
    """There are no replicas yet: it ends by its time-out, with none."""
    wanted = parse_int(replicas)
    timeout_ms = parse_timeout_ms(timeout, ctx.now)
    return Blocked(timeout_ms, lambda: 0, lambda: None) if wanted > 0 else 0
