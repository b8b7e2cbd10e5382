"""KEYS and SCAN. Their walks are in scan.py; here are their replies.

Source: Redis 7.4's db.c, keysCommand and scanGenericCommand.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kvserver import codec, resp, scan
from kvserver.commands import scan_options
from kvserver.commands.replies import Array, Steps, begin, collect
from kvserver.registry import READONLY, WALK, command
from kvserver.state.context import ReadContext


@command(
    "keys",
    2,
    READONLY | WALK,
    group="generic",
    since="1.0.0",
    summary="Returns all key names that match a pattern.",
    complexity="O(N) with N being the number of keys in the database, under the assumption that "
    "the key names in the database and the given pattern have limited length.",
    categories=("keyspace", "dangerous"),
    tips=("request_policy:all_shards", "nondeterministic_output_order"),
)
def keys(ctx: ReadContext, pattern: bytes) -> Any:
    return begin(_keys(scan.keys(ctx.db, pattern)))


def _keys(walk: Steps[list[bytes]]) -> Generator[None, None, resp.Forms]:
    array = Array()
    array.add((yield from collect(walk, array)))
    return array.reply()


@command(
    "scan",
    -2,
    READONLY | WALK,
    group="generic",
    since="2.8.0",
    summary="Iterates over the key names in the database.",
    complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls "
    "for the cursor to return back to 0. N is the number of elements inside the collection.",
    categories=("keyspace",),
    tips=("nondeterministic_output", "request_policy:special", "response_policy:special"),
    history=(("6.0.0", "Added the `TYPE` subcommand."),),
)
def scan_(ctx: ReadContext, cursor: bytes, *words: bytes) -> Any:
    number = scan_options.parse_cursor(cursor)
    options = scan_options.parse(words, codec.MISSING)
    place = ctx.server.cursors(ctx.session).place(number)
    if place is None:
        return [b"0", []]
    walk = scan.scan(ctx.db, place, options.count, options.pattern, options.kind)
    return begin(_scan(walk, ctx.server.cursors(ctx.session)))


def _scan(
    walk: Steps[tuple[list[bytes], bytes | None]], cursors: scan.Cursors
) -> Generator[None, None, list[object]]:
    array = Array()
    found, place = yield from collect(walk, array)
    array.add(found)
    return [b"%d" % cursors.number(place), array.reply()]
