"""SAVE, BGSAVE, LASTSAVE, SHUTDOWN: backups and the end.

All writes are in the log as soon as they are acknowledged, so none of these is needed for
the data to survive. SAVE makes a backup in `dir`/backups and answers when it is there; it
doesn't stop the server meanwhile, as Redis' does.
"""

from __future__ import annotations

from kvserver import errors, resp
from kvserver.args import Cursor
from kvserver.registry import (
    ADMIN,
    ALLOW_BUSY,
    FAST,
    LOADING,
    NO_ASYNC_LOADING,
    NO_MULTI,
    NOSCRIPT,
    STALE,
    WALK,
    command,
)
from kvserver.state.context import Blocked, ReadContext


def _begin(ctx: ReadContext) -> None:
    if ctx.server.backups.in_progress:
        raise errors.error("Background save already in progress")


@command(
    "save",
    1,
    ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI | WALK,
    group="server",
    since="1.0.0",
    summary="Synchronously saves the database(s) to disk.",
    complexity="O(N) where N is the total number of keys in all databases",
)
def save(ctx: ReadContext) -> Blocked:
    _begin(ctx)
    session, waiting = ctx.session, ctx.server.waiting

    def done(failure: str | None) -> None:
        if session.blocked_on is blocked:
            waiting.unblock(session, errors.error(failure) if failure else resp.OK)

    blocked = Blocked(0, lambda: None, lambda: None)
    ctx.server.edge.save(done)
    return blocked


@command(
    "bgsave",
    -1,
    ADMIN | NOSCRIPT | NO_ASYNC_LOADING,
    group="server",
    since="1.0.0",
    summary="Asynchronously saves the database(s) to disk.",
    history=(("3.2.2", "Added the `SCHEDULE` option."),),
)
def bgsave(ctx: ReadContext, *options: bytes) -> resp.Simple:
    if options and (len(options) > 1 or options[0].upper() != b"SCHEDULE"):
        raise errors.syntax()
    _begin(ctx)
    ctx.server.edge.save(lambda failure: None)
    return resp.Simple(b"Background saving started")


@command(
    "lastsave",
    1,
    LOADING | STALE | FAST,
    group="server",
    since="1.0.0",
    summary="Returns the Unix timestamp of the last successful save to disk.",
    categories=("admin", "dangerous"),
    tips=("nondeterministic_output",),
)
def lastsave(ctx: ReadContext) -> int:
    return ctx.server.backups.last_save


@command(
    "shutdown",
    -1,
    ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY | WALK,
    group="server",
    since="1.0.0",
    summary="Synchronously saves the database(s) to disk and shuts down the Redis server.",
    complexity="O(N) when saving, where N is the total number of keys in all databases when "
    "saving data, otherwise O(1)",
    history=(("7.0.0", "Added the `NOW`, `FORCE` and `ABORT` modifiers."),),
)
def shutdown(ctx: ReadContext, *options: bytes) -> object:
    save = nosave = now = abort = False
    cursor = Cursor(options)
    while cursor.more():
        if cursor.flag(b"SAVE"):
            save = True
        elif cursor.flag(b"NOSAVE"):
            nosave = True
        elif cursor.flag(b"ABORT"):
            abort = True
        elif cursor.flag(b"NOW"):
            now = True
        elif not cursor.flag(b"FORCE"):
            raise errors.syntax()
    if (abort and len(options) > 1) or (save and nosave):
        raise errors.syntax()
    if abort:
        if not ctx.server.edge.abort_shutdown():
            raise errors.error("No shutdown in progress.")
        return resp.OK
    session, waiting = ctx.session, ctx.server.waiting

    def aborted() -> None:
        if session.blocked_on is blocked:
            waiting.unblock_later(session, errors.shutdown_failed())

    blocked = Blocked(0, lambda: None, lambda: None)
    ctx.server.edge.shutdown(flush=not nosave, now=now, aborted=aborted)
    return blocked
