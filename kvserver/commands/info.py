"""INFO. What it says is in kvserver/state/info."""

from __future__ import annotations

from kvserver.registry import LOADING, STALE, command
from kvserver.resp import Verbatim
from kvserver.state.context import ReadContext
from kvserver.state.info import sections


@command(
    "info",
    -1,
    LOADING | STALE,
    group="server",
    since="1.0.0",
    summary="Returns information and statistics about the server.",
    categories=("dangerous",),
    tips=("nondeterministic_output", "request_policy:all_shards", "response_policy:special"),
    history=(("7.0.0", "Added support for taking multiple section arguments."),),
)
def info(ctx: ReadContext, *names: bytes) -> Verbatim:
    wanted = [name.decode("latin-1") for name in names]
    return Verbatim(sections.render(ctx.server, wanted, ctx.session.namespace))
