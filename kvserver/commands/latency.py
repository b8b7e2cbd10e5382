"""LATENCY: spikes of events, and how long commands take.

The samples are kept by kvserver/state/latency.py, the histograms by kvserver/state/histogram.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from kvserver import errors, resp, sparkline
from kvserver.commands.help import help_reply
from kvserver.registry import ADMIN, LOADING, NOSCRIPT, STALE, command, container
from kvserver.state.context import ReadContext
from kvserver.state.table import CommandTable, Entry

FLAGS: Final = ADMIN | NOSCRIPT | LOADING | STALE
TIPS: Final = ("nondeterministic_output", "request_policy:all_nodes", "response_policy:special")
_GRAPH_COLUMNS: Final = 80
_GRAPH_ROWS: Final = 4

container(
    "latency",
    group="server",
    since="2.8.13",
    summary="A container for latency diagnostics commands.",
)


@command(
    "latency|latest",
    2,
    FLAGS,
    group="server",
    since="2.8.13",
    summary="Returns the latest latency samples for all events.",
    tips=TIPS,
)
def latency_latest(ctx: ReadContext) -> list[tuple[str, int, int, int]]:
    return ctx.server.latency.latest()


@command(
    "latency|history",
    3,
    FLAGS,
    group="server",
    since="2.8.13",
    summary="Returns timestamp-latency samples for an event.",
    tips=TIPS,
)
def latency_history(ctx: ReadContext, event: bytes) -> list[tuple[int, int]]:
    return ctx.server.latency.history(_text(event))


@command(
    "latency|graph",
    3,
    FLAGS,
    group="server",
    since="2.8.13",
    summary="Returns a latency graph for an event.",
    tips=TIPS,
)
def latency_graph(ctx: ReadContext, event: bytes) -> resp.Verbatim:
    monitor, name = ctx.server.latency, _text(event)
    samples = monitor.history(name)
    if not samples:
        raise errors.no_samples(event)
    now = int(time.time())
    spikes = [spike for _, spike in samples]
    head = (
        f"{name} - high {max(spikes)} ms, low {min(spikes)} ms "
        f"(all time high {monitor.worst(name)} ms)"
    )
    graph = sparkline.render(
        [(spike, _ago(now - second)) for second, spike in samples], _GRAPH_COLUMNS, _GRAPH_ROWS
    )
    text = f"{head}\n{'-' * _GRAPH_COLUMNS}\n{graph}"
    return resp.Verbatim(text.encode("utf-8", "surrogateescape"))


def _ago(seconds: int) -> str:
    """A time before now, in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@command(
    "latency|reset",
    -2,
    FLAGS,
    group="server",
    since="2.8.13",
    summary="Resets the latency data for one or more events.",
    tips=("request_policy:all_nodes", "response_policy:all_succeeded"),
)
def latency_reset(ctx: ReadContext, *events: bytes) -> int:
    return ctx.server.latency.reset([_text(event) for event in events])


@command(
    "latency|histogram",
    -2,
    FLAGS,
    group="server",
    since="7.0.0",
    summary="Returns the cumulative distribution of latencies of a subset or all commands.",
    complexity="O(N) where N is the number of commands with latency information being retrieved.",
    tips=TIPS,
)
def latency_histogram(ctx: ReadContext, *names: bytes) -> dict[str, object]:
    table = ctx.server.table
    entries = _named(table, names) if names else table.all()
    return {
        entry.name: {"calls": max(distribution.values()), "histogram_usec": distribution}
        for entry in entries
        if (distribution := _microseconds(entry))
    }


def _named(table: CommandTable, names: tuple[bytes, ...]) -> Iterator[Entry]:
    """The commands with these names, with all of a container's subcommands; others are left
    out."""
    for name in names:
        parent, bar, sub = name.lower().partition(b"|")
        entry = table.entries.get(parent)
        if entry is not None and bar:
            entry = (entry.subcommands or {}).get(sub)
        if entry is not None:
            yield entry
            yield from (entry.subcommands or {}).values()


def _microseconds(entry: Entry) -> dict[int, int]:
    return {bound // 1000: calls for bound, calls in entry.latency.distribution().items()}


@command(
    "latency|help",
    2,
    LOADING | STALE,
    group="server",
    since="2.8.13",
    summary="Returns helpful text about the different subcommands.",
)
def latency_help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "latency",
        "DOCTOR",
        "    Return a human readable latency analysis report.",
        "GRAPH <event>",
        "    Return an ASCII latency graph for the <event> class.",
        "HISTORY <event>",
        "    Return time-latency samples for the <event> class.",
        "LATEST",
        "    Return the latest latency samples for all events.",
        "RESET [<event> ...]",
        "    Reset latency data of one or more <event> classes.",
        "    (default: reset all data for all event classes)",
        "HISTOGRAM [COMMAND ...]",
        "    Return a cumulative distribution of latencies in the format of a histogram for the "
        "specified command names.",
        "    If no commands are specified then all histograms are replied.",
    )


def _text(event: bytes) -> str:
    return event.decode("utf-8", "surrogateescape")
