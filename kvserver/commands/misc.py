"""TIME, LOLWUT and MODULE: small commands that belong to no subsystem."""

from __future__ import annotations

import random
import time
from typing import Final

from kvserver import REDIS_VERSION, resp
from kvserver.args import parse_int
from kvserver.commands.help import help_reply
from kvserver.registry import ADMIN, FAST, LOADING, NOSCRIPT, READONLY, STALE, command, container
from kvserver.state.context import ReadContext


@command(
    "time",
    1,
    LOADING | STALE | FAST,
    group="server",
    since="2.6.0",
    summary="Returns the server time.",
    tips=("nondeterministic_output",),
)
def time_(ctx: ReadContext) -> list[bytes]:
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return [b"%d" % seconds, b"%d" % microseconds]


# -- LOLWUT ------------------------------------------------------------------------------

_WIDTH: Final = 64
_HEIGHT: Final = 16


@command(
    "lolwut",
    -1,
    READONLY | FAST,
    group="server",
    since="5.0.0",
    summary="Displays computer art and the Redis version",
    complexity="",
)
def lolwut(ctx: ReadContext, *args: bytes) -> resp.Verbatim:
    """There is one picture for all versions, and no arguments that change it."""
    if len(args) >= 2 and args[0].lower() == b"version":
        parse_int(args[1])
    return resp.Verbatim(f"{_sediment()}\n\nRedis ver. {REDIS_VERSION}\n".encode())


def _sediment() -> str:
    """Grains that fall into a trough, each rolling to where it is lower: every level is wider
    than the one above it, as in a log-structured merge tree."""
    heights = [0] * _WIDTH
    for _ in range(_WIDTH * _HEIGHT // 4):
        _drop(heights, round(random.gauss(_WIDTH / 2, _WIDTH / 8)) % _WIDTH)
    rows = range(max(heights), 0, -1)
    shades = " .:-=+*#%@"
    lines = ["".join(_grain(h, row, shades) for h in heights).rstrip() for row in rows]
    return "\n".join(lines)


def _drop(heights: list[int], place: int) -> None:
    while True:
        lower = min((place - 1) % _WIDTH, place, (place + 1) % _WIDTH, key=heights.__getitem__)
        if heights[place] - heights[lower] < 2:
            heights[place] += 1
            return
        place = lower


def _grain(height: int, row: int, shades: str) -> str:
    return shades[min(height - row + 1, len(shades) - 1)] if height >= row else " "


# -- MODULE ------------------------------------------------------------------------------

container("module", group="server", since="4.0.0", summary="A container for module commands.")


@command(
    "module|list",
    2,
    ADMIN | NOSCRIPT,
    group="server",
    since="4.0.0",
    summary="Returns all loaded modules.",
    complexity="O(N) where N is the number of loaded modules.",
    tips=("nondeterministic_output_order",),
)
def module_list(ctx: ReadContext) -> list[object]:
    return []


@command(
    "module|help",
    2,
    LOADING | STALE,
    group="server",
    since="5.0.0",
    summary="Returns helpful text about the different subcommands.",
)
def module_help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply("module", "LIST", "    Return a list of loaded modules.")
