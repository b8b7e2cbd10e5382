"""Commands on keys of any type: DEL, UNLINK, EXISTS, TOUCH, TYPE, RENAME, RENAMENX, COPY,
RANDOMKEY.

Source: Redis 7.4's db.c.
"""

from __future__ import annotations

from typing import Final

from kvserver import codec, errors, resp
from kvserver.args import INT_MAX, INT_MIN, Cursor, parse_int_in
from kvserver.commands.databases import checked_index
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, KeySpec, command, key, keys
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext

_SHARDED_SUM: Final = ("request_policy:multi_shard", "response_policy:agg_sum")


def _delete(ctx: WriteContext, names: tuple[bytes, ...]) -> int:
    count = 0
    for name in names:
        if ctx.db.delete(name):
            count += 1
            ctx.notify(notify.GENERIC, b"del", name)
    return count


@command(
    "del",
    -2,
    WRITE,
    group="generic",
    since="1.0.0",
    summary="Deletes one or more keys.",
    complexity="O(N) where N is the number of keys that will be removed. When a key to remove "
    "holds a value other than a string, the individual complexity for this key is O(M) where M "
    "is the number of elements in the list, set, sorted set or hash. Removing a single key that "
    "holds a string value is O(1).",
    keys=keys("RM", "DELETE"),
    categories=("keyspace",),
    tips=_SHARDED_SUM,
)
def del_(ctx: WriteContext, *names: bytes) -> int:
    return _delete(ctx, names)


@command(
    "unlink",
    -2,
    WRITE | FAST,
    group="generic",
    since="4.0.0",
    summary="Asynchronously deletes one or more keys.",
    complexity="O(1) for each key removed regardless of its size. Then the command does O(N) work "
    "in a different thread in order to reclaim memory, where N is the number of allocations the "
    "deleted objects where composed of.",
    keys=keys("RM", "DELETE"),
    categories=("keyspace",),
    tips=_SHARDED_SUM,
)
def unlink(ctx: WriteContext, *names: bytes) -> int:
    return _delete(ctx, names)


@command(
    "exists",
    -2,
    READONLY | FAST,
    group="generic",
    since="1.0.0",
    summary="Determines whether one or more keys exist.",
    complexity="O(N) where N is the number of keys to check.",
    keys=keys("RO"),
    categories=("keyspace",),
    tips=_SHARDED_SUM,
    history=(("3.0.3", "Accepts multiple `key` arguments."),),
)
def exists(ctx: ReadContext, *names: bytes) -> int:
    return sum(ctx.db.row(name) is not None for name in names)


@command(
    "touch",
    -2,
    READONLY | FAST,
    group="generic",
    since="3.2.1",
    summary="Returns the number of existing keys out of those specified after updating the time "
    "they were last accessed.",
    complexity="O(N) where N is the number of keys that will be touched.",
    keys=keys("RO"),
    categories=("keyspace",),
    tips=_SHARDED_SUM,
)
def touch(ctx: ReadContext, *names: bytes) -> int:
    return sum(ctx.db.row(name) is not None for name in names)


@command(
    "type",
    2,
    READONLY | FAST,
    group="generic",
    since="1.0.0",
    summary="Determines the type of value stored at a key.",
    keys=key("RO"),
    categories=("keyspace",),
)
def type_(ctx: ReadContext, name: bytes) -> resp.Simple:
    row = ctx.db.row(name)
    return resp.Simple(b"none" if row is None else codec.TYPE_NAMES[codec.row_type(row)])


# -- to another name or database ---------------------------------------------------------------


@command(
    "rename",
    3,
    WRITE,
    group="generic",
    since="1.0.0",
    summary="Renames a key and overwrites the destination.",
    keys=(
        KeySpec(1, 1, 1, ("RW", "ACCESS", "DELETE")),
        KeySpec(2, 2, 1, ("OW", "UPDATE")),
    ),
    categories=("keyspace",),
)
def rename(ctx: WriteContext, name: bytes, new_name: bytes) -> resp.Simple:
    _rename(ctx, name, new_name, replace=True)
    return resp.OK


@command(
    "renamenx",
    3,
    WRITE | FAST,
    group="generic",
    since="1.0.0",
    summary="Renames a key only when the target key name doesn't exist.",
    keys=(
        KeySpec(1, 1, 1, ("RW", "ACCESS", "DELETE")),
        KeySpec(2, 2, 1, ("OW", "INSERT")),
    ),
    categories=("keyspace",),
    history=(
        (
            "3.2.0",
            "The command no longer returns an error when source and destination names are the "
            "same.",
        ),
    ),
)
def renamenx(ctx: WriteContext, name: bytes, new_name: bytes) -> int:
    return int(_rename(ctx, name, new_name, replace=False))


def _rename(ctx: WriteContext, name: bytes, new_name: bytes, *, replace: bool) -> bool:
    db = ctx.db
    row = db.current(name)
    if row is None:
        raise errors.no_such_key()
    if name == new_name:
        return False
    if db.current(new_name) is not None:
        if not replace:
            return False
        db.delete(new_name)
    db.rename(name, new_name, row)
    ctx.notify(notify.GENERIC, b"rename_from", name)
    ctx.notify(notify.GENERIC, b"rename_to", new_name)
    return True


@command(
    "copy",
    -3,
    WRITE | DENYOOM,
    group="generic",
    since="6.2.0",
    summary="Copies the value of a key to a new key.",
    complexity="O(N) worst case for collections, where N is the number of nested items. O(1) for "
    "string values.",
    keys=(KeySpec(1, 1, 1, ("RO", "ACCESS")), KeySpec(2, 2, 1, ("OW", "UPDATE"))),
    categories=("keyspace",),
)
def copy(ctx: WriteContext, source: bytes, destination: bytes, *options: bytes) -> int:
    index, replace = _copy_options(ctx, options)
    if index == ctx.session.db and source == destination:
        raise errors.same_object()
    target = ctx.keyspace.writers[index]
    row = ctx.db.row(source)
    if row is None:
        return 0
    if target.current(destination) is not None:
        if not replace:
            return 0
        target.delete(destination)
    target.put_copy(destination, row, ctx.db)
    ctx.server.notifier.notify(notify.GENERIC, b"copy_to", destination, index)
    return 1


def _copy_options(ctx: WriteContext, words: tuple[bytes, ...]) -> tuple[int, bool]:
    """(index of the target database, REPLACE)."""
    index, replace = ctx.session.db, False
    options = Cursor(words)
    while options.more():
        if options.flag(b"REPLACE"):
            replace = True
        elif (text := options.value(b"DB")) is not None:
            index = checked_index(ctx, parse_int_in(text, INT_MIN, INT_MAX))
        else:
            raise errors.syntax()
    return index, replace


@command(
    "randomkey",
    1,
    READONLY,
    group="generic",
    since="1.0.0",
    summary="Returns a random key name from the database.",
    categories=("keyspace",),
    tips=("request_policy:all_shards", "response_policy:special", "nondeterministic_output"),
)
def randomkey(ctx: ReadContext) -> bytes | None:
    return ctx.db.random_key()
