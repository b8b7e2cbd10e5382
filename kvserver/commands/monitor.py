"""MONITOR: see every command that the server executes (kvserver/state/monitor.py shows them)."""

from __future__ import annotations

from kvserver import errors, resp
from kvserver.registry import ADMIN, LOADING, NOSCRIPT, STALE, command
from kvserver.state.context import ReadContext
from kvserver.state.session import MONITORING


@command(
    "monitor",
    1,
    ADMIN | NOSCRIPT | LOADING | STALE,
    group="server",
    since="1.0.0",
    summary="Listens for all requests received by the server in real-time.",
    complexity="",
)
def monitor(ctx: ReadContext) -> resp.Simple | resp.Raw:
    if ctx.deny_blocking:
        raise errors.error("MONITOR isn't allowed for DENY BLOCKING client")
    if ctx.session.monitor:
        return resp.NO_REPLY  # as Redis: the first one is still answering
    ctx.session.gate |= MONITORING
    ctx.server.monitors[ctx.session] = None
    return resp.OK
