"""LRANGE: a module of its own, since what it does in steps can't be compiled (list_walks.py).

Source: Redis 7.4's t_list.c.
"""

from __future__ import annotations

from typing import Any

from kvserver import resp
from kvserver.args import parse_int
from kvserver.codec import LIST
from kvserver.commands import lists as list_commands
from kvserver.commands.list_walks import range_in_steps
from kvserver.commands.replies import begin
from kvserver.registry import READONLY, WALK, command, key
from kvserver.state.context import ReadContext
from kvserver.types.lists import ListReader


@command(
    "lrange",
    4,
    READONLY | WALK,
    group="list",
    since="1.0.0",
    summary="Returns a range of elements from a list.",
    complexity="O(S+N) where S is the distance of start offset from HEAD for small lists, from "
    "nearest end (HEAD or TAIL) for large lists; and N is the number of elements in the specified "
    "range.",
    keys=key("RO", "ACCESS"),
    categories=("list",),
)
def lrange(ctx: ReadContext, name: bytes, start: bytes, stop: bytes) -> Any:
    low, high = parse_int(start), parse_int(stop)
    rows = ctx.db.collection(name, LIST)
    if rows is None:
        return []
    items = ListReader(rows)
    first, end = list_commands.bounds(low, high, items.count)
    count = end - first
    if not items.is_few(count):
        return begin(range_in_steps(items, first, count))
    parts = [b"*%d\r\n" % count]
    items.add_bulks(parts, first, count)
    return resp.Forms(parts, parts)
