"""REPLDIGEST: the digest of the data set at a position, to compare nodes while writes go on.

Two nodes can be compared if both are digested at the same position, and positions pass in batches.
Batches are the same on all nodes: so a digest at position p is that of the data set after the batch
that covers p, whichever node is asked.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int_in, parse_timeout_ms
from kvserver.digest import View
from kvserver.errors import RedisError
from kvserver.numbers import INT64_MAX
from kvserver.registry import ADMIN, BLOCKING, NO_MULTI, NOSCRIPT, STALE, WALK, command
from kvserver.state.context import Blocked, ReadContext
from kvserver.state.server import Server
from kvserver.storage.commitlog import EngineError

_BAD_POSITION: Final = "position is not an integer or out of range"


@command(
    "repldigest",
    -1,
    ADMIN | NOSCRIPT | NO_MULTI | BLOCKING | STALE | WALK,
    group="server",
    since="0.1.0",
    summary="Returns the digest of the data set at a position of the replication log.",
    complexity="O(N) where N is the number of keys and elements in all databases",
    tips=("nondeterministic_output",),
)
def repldigest(ctx: ReadContext, *options: bytes) -> object:
    """[position, epoch, replication id, digest, number of keys]; a null array when time is up."""
    seq, timeout_ms = _options(options, ctx.now)
    server = ctx.server
    if server.log.pending:
        server.turn.commit()  # what this client wrote just now is to be in it
    if seq is not None and seq > server.log.committed_seq:
        return _wait(ctx, seq, timeout_ms)
    view = _view(server, seq)
    server.log.note_scan()
    return _reply(view)


def _options(words: tuple[bytes, ...], now: int) -> tuple[int | None, int]:
    """(position or None, milliseconds to wait for it; 0: for ever)."""
    seq, timeout_ms = None, 0
    options = Cursor(words)
    while options.more():
        if (text := options.value(b"AT")) is not None:
            seq = parse_int_in(text, 0, INT64_MAX, _BAD_POSITION)
        elif seq is not None and (text := options.value(b"TIMEOUT")) is not None:
            timeout_ms = parse_timeout_ms(text, now)
        else:
            raise errors.syntax()
    return seq, timeout_ms


def _view(server: Server, seq: int | None) -> View:
    """The committed data set, which must be that after the batch with position `seq`."""
    view = View(server.log.engine)
    if not view.consistent:
        raise errors.loading()
    if seq is not None and not view.covers(seq):
        raise errors.error(f"position {seq} has passed, this server is at {view.last_seq}")
    return view


def _reply(view: View) -> Generator[None, None, list[Any]]:
    digest, keys = yield from view.digest()
    return [view.last_seq, view.epoch, view.replid, digest.hex(), keys]


def _wait(ctx: ReadContext, seq: int, timeout_ms: int) -> Blocked:
    """Take the view in the very commit that brings the position: the next may be in this turn."""
    server, session = ctx.server, ctx.session
    waiting = server.waiting

    def reached() -> None:
        try:
            view = _view(server, seq)
        except RedisError as error:
            waiting.unblock_later(session, error.as_reply())
        except EngineError as error:
            waiting.unblock_later(session, errors.InternalError(str(error)))
        else:
            session.depends = max(session.depends, view.last_seq)
            waiting.walk(session, _reply(view))

    wait = server.awaited.add(seq, reached)
    return Blocked(timeout_ms, lambda: resp.NULL_ARRAY, lambda: server.awaited.forget(wait))
