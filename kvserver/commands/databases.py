"""Commands on whole databases: FLUSHALL, FLUSHDB, SWAPDB, DBSIZE, MOVE.

Emptying a database takes the same short time whatever is in it (keyspace.py), so ASYNC and
SYNC are the same. Source: Redis 7.4's db.c.
"""

from __future__ import annotations

from kvserver import errors, resp
from kvserver.args import INT_MAX, INT_MIN, parse_int_in
from kvserver.registry import FAST, READONLY, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import Context, ReadContext, WriteContext

_FLUSH_HISTORY = (
    ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
    ("6.2.0", "Added the `SYNC` flushing mode modifier."),
)
_FLUSH_TIPS = ("request_policy:all_shards", "response_policy:all_succeeded")


@command(
    "flushall",
    -1,
    WRITE,
    group="server",
    since="1.0.0",
    summary="Removes all keys from all databases.",
    complexity="O(N) where N is the total number of keys in all databases",
    categories=("keyspace", "dangerous"),
    tips=_FLUSH_TIPS,
    history=_FLUSH_HISTORY,
)
def flushall(ctx: WriteContext, *mode: bytes) -> resp.Simple:
    _check_mode(mode)
    for db in ctx.keyspace.databases:
        ctx.keyspace.flush(db)
    ctx.server.tracking.flush()
    return resp.OK


@command(
    "flushdb",
    -1,
    WRITE,
    group="server",
    since="1.0.0",
    summary="Remove all keys from the current database.",
    complexity="O(N) where N is the number of keys in the selected database",
    categories=("keyspace", "dangerous"),
    tips=_FLUSH_TIPS,
    history=_FLUSH_HISTORY,
)
def flushdb(ctx: WriteContext, *mode: bytes) -> resp.Simple:
    _check_mode(mode)
    ctx.keyspace.flush(ctx.db.db)
    ctx.server.tracking.flush(ctx.session.namespace)
    return resp.OK


def _check_mode(mode: tuple[bytes, ...]) -> None:
    if len(mode) > 1 or (mode and mode[0].upper() not in (b"ASYNC", b"SYNC")):
        raise errors.syntax()


@command(
    "swapdb",
    3,
    WRITE | FAST,
    group="server",
    since="4.0.0",
    summary="Swaps two Redis databases.",
    complexity="O(N) where N is the count of clients watching or blocking on keys from both "
    "databases.",
    categories=("keyspace", "dangerous"),
)
def swapdb(ctx: WriteContext, index1: bytes, index2: bytes) -> resp.Simple:
    first = parse_int_in(index1, INT_MIN, INT_MAX, "invalid first DB index")
    second = parse_int_in(index2, INT_MIN, INT_MAX, "invalid second DB index")
    ctx.keyspace.swap(checked_index(ctx, first), checked_index(ctx, second))
    return resp.OK


def checked_index(ctx: Context, index: int) -> int:
    """A database that keys may be brought to; from a namespace there is none."""
    if ctx.session.namespace or not 0 <= index < ctx.keyspace.numbered:
        raise errors.db_index_out_of_range()
    return index


@command(
    "dbsize",
    1,
    READONLY | FAST,
    group="server",
    since="1.0.0",
    summary="Returns the number of keys in the database.",
    categories=("keyspace",),
    tips=("request_policy:all_shards", "response_policy:agg_sum"),
)
def dbsize(ctx: ReadContext) -> int:
    return ctx.db.size()


@command(
    "move",
    3,
    WRITE | FAST,
    group="generic",
    since="1.0.0",
    summary="Moves a key to another database.",
    keys=key("RW", "ACCESS", "UPDATE"),
    categories=("keyspace",),
)
def move(ctx: WriteContext, name: bytes, index: bytes) -> int:
    target_index = checked_index(ctx, parse_int_in(index, INT_MIN, INT_MAX))
    if target_index == ctx.session.db:
        raise errors.same_object()
    target = ctx.keyspace.writers[target_index]
    row = ctx.db.current(name)
    if row is None or target.current(name) is not None:
        return 0
    target.put_copy(name, row, ctx.db)
    ctx.db.delete(name)
    ctx.notify(notify.GENERIC, b"move_from", name)
    ctx.server.notifier.notify(notify.GENERIC, b"move_to", name, target_index)
    return 1
