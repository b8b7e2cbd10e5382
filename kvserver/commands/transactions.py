"""Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.

Queueing and the execution of the queue as one are dispatch's (state/dispatch.py), because
every command is concerned; what WATCH remembers is in state/watch.py. Source: Redis 7.4's
multi.c.
"""

from __future__ import annotations

from typing import Final

from kvserver import errors, resp
from kvserver.registry import (
    ALLOW_BUSY,
    FAST,
    LOADING,
    NOSCRIPT,
    NOT_QUEUED,
    SKIP_SLOWLOG,
    STALE,
    command,
    keys,
)
from kvserver.state.context import Context, ReadContext
from kvserver.state.session import IN_MULTI, Session

_FLAGS: Final = NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY


@command(
    "multi",
    1,
    _FLAGS | NOT_QUEUED,
    group="transactions",
    since="1.2.0",
    summary="Starts a transaction.",
    categories=("transaction",),
)
def multi(ctx: ReadContext) -> resp.Simple:
    if ctx.session.in_multi:
        raise errors.nested_multi()
    ctx.session.gate |= IN_MULTI
    return resp.OK


@command(
    "discard",
    1,
    _FLAGS | NOT_QUEUED,
    group="transactions",
    since="2.0.0",
    summary="Discards a transaction.",
    complexity="O(N), when N is the number of queued commands",
    categories=("transaction",),
)
def discard(ctx: ReadContext) -> resp.Simple:
    if not ctx.session.in_multi:
        raise errors.discard_without_multi()
    _discard(ctx)
    return resp.OK


@command(
    "exec",
    1,
    NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG | NOT_QUEUED,
    group="transactions",
    since="1.2.0",
    summary="Executes all commands in a transaction.",
    complexity="Depends on commands in the transaction",
    categories=("transaction",),
)
def exec_(ctx: ReadContext) -> resp.Raw | resp.NullArray:
    session = ctx.session
    if not session.in_multi:
        raise errors.exec_without_multi()
    failed, changed = session.queue_error, _watched_key_changed(ctx)
    queue = session.queue
    _discard(ctx)
    if failed:
        raise errors.exec_abort()
    if changed:
        return resp.NULL_ARRAY
    replies = ctx.server.dispatcher.call_all(session, queue)
    session.last_command = "exec"
    return resp.Raw(b"*%d\r\n" % len(replies) + b"".join(replies))


def _discard(ctx: Context) -> None:
    ctx.session.discard_transaction()
    ctx.server.watches.unwatch(ctx.session)


def _watched_key_changed(ctx: Context) -> bool:
    """Whether a watched key was written, or was there and expired since."""
    session: Session = ctx.session
    readers = ctx.keyspace.readers
    return session.cas_dirty or any(
        not missing and not readers[index].exists(key)
        for (index, key), missing in session.watching.items()
    )


@command(
    "watch",
    -2,
    _FLAGS | NOT_QUEUED,
    group="transactions",
    since="2.2.0",
    summary="Monitors changes to keys to determine the execution of a transaction.",
    complexity="O(1) for every key.",
    keys=keys("RO"),
    categories=("transaction",),
)
def watch(ctx: ReadContext, *names: bytes) -> resp.Simple:
    session = ctx.session
    if session.in_multi:
        raise errors.watch_inside_multi()
    if not session.cas_dirty:
        for name in names:
            ctx.server.watches.watch(session, (session.db, name), not ctx.db.exists(name))
    return resp.OK


@command(
    "unwatch",
    1,
    _FLAGS,
    group="transactions",
    since="2.2.0",
    summary="Forgets about watched keys of a transaction.",
    categories=("transaction",),
)
def unwatch(ctx: ReadContext) -> resp.Simple:
    ctx.server.watches.unwatch(ctx.session)
    return resp.OK
