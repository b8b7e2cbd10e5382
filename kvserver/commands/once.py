"""ONCE: a command that has its effect exactly once, however often it is sent.

What is kept of each writer is in state/writers.py; docs/exactly-once.md says what clients may rely
on. Not a command of Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvserver import errors, resp
from kvserver.args import parse_int
from kvserver.errors import InternalError, RedisError
from kvserver.registry import (
    COMMANDS,
    MAY_REPLICATE,
    MOVABLE_KEYS,
    NO_MANDATORY_KEYS,
    NOSCRIPT,
    NOT_QUEUED,
    SKIP_MONITOR,
    SKIP_SLOWLOG,
    WRITE,
    Key,
    command,
    key,
)
from kvserver.state import writers
from kvserver.state.context import Context, WriteContext
from kvserver.state.table import Entry
from kvserver.state.writers import COMMAND_AT, Reply, Writer

MAX_WRITER_ID: Final = 512
#: The reply of a command that only reads is kept up to this size; what it had no effect on can be
#: read again.
MAX_READ: Final = 1 << 20


def _locate_keys(args: Sequence[bytes]) -> list[Key]:
    """The keys of the command that is to be executed."""
    words = args[COMMAND_AT:]
    spec = COMMANDS.get(words[0].lower().decode("utf-8", "surrogateescape"))
    if spec is not None and spec.subcommands and len(words) > 1:
        spec = spec.subcommands.get(words[1].lower().decode("utf-8", "surrogateescape"))
    if spec is None or (len(words) != spec.arity and (spec.arity >= 0 or len(words) < -spec.arity)):
        return []
    return [(index + COMMAND_AT, flags) for index, flags in spec.find_keys(words)]


@command(
    "once",
    -4,
    # MONITOR and SLOWLOG show the command that it executes.
    WRITE | NOSCRIPT | NOT_QUEUED | SKIP_MONITOR | SKIP_SLOWLOG | MOVABLE_KEYS | NO_MANDATORY_KEYS,
    group="transactions",
    since="0.1.0",
    summary="Executes the n-th command of a writer, or replies what it replied before.",
    complexity="That of the command.",
    keys=key("RW", "ACCESS", "UPDATE", "INCOMPLETE", at=4),
    categories=("transaction",),
    locate=_locate_keys,
)
def once(ctx: WriteContext, writer: bytes, number: bytes, *words: bytes) -> Any:
    """A refusal raises, and leaves the writer as it is; what the command replies, errors too, is
    the answer to n from now on."""
    session = ctx.session
    entry = writers.inner_entry(ctx.server.table, words)
    try:
        reply = _answer(ctx, writer, number, entry, list(words))
    finally:
        session.last_command = "once"
        if session.in_multi:  # EXEC ends a transaction, whatever comes of it
            session.discard_transaction()
            ctx.server.watches.unwatch(session)
    if isinstance(reply, RedisError):
        return reply
    return resp.Raw(reply.resp3 if session.resp3 else reply.resp2)


def _answer(
    ctx: WriteContext, writer: bytes, number: bytes, entry: Entry, words: list[bytes]
) -> Reply | RedisError:
    n = parse_int(number)
    if n <= 0:
        raise errors.error("n must be positive")
    if not 0 < len(writer) <= MAX_WRITER_ID:
        raise errors.error(f"writer id must have 1 to {MAX_WRITER_ID} bytes")
    writer = ctx.server.namespaces.writer_id(ctx.session, writer)
    state = Writer(ctx.keyspace.log.meta, writer)
    if n == state.last + 1:
        return _execute(ctx, state, entry, words)
    reply = state.reply(n)
    if reply is None:
        raise errors.out_of_order(state.last + 1)
    log = ctx.keyspace.log
    # To WAIT and WAITAOF it is as if this session had written it.
    ctx.session.written_seq = log.last_seq
    if log.quorum and log.acked_seq < log.committed_seq:
        # It may be a reply that nobody waits for any more (NOREPLICAS), but this one has to wait.
        state.confirm()
    return reply


def _execute(
    ctx: WriteContext, state: Writer, entry: Entry, words: list[bytes]
) -> Reply | RedisError:
    """Run the next command. An error is returned when it left nothing to remember: it was counted
    where it arose."""
    session = ctx.session
    if entry.name == "exec" and not session.in_multi:
        raise errors.exec_without_multi()
    if entry.flags & MAY_REPLICATE:
        ctx.keyspace.log.wrote(0)  # the row follows; what is published depends on it
    reply = _run(ctx, entry, words)
    if isinstance(reply, RedisError):
        return reply
    packed = reply.pack()
    reads = entry.name != "exec" and not entry.flags & (WRITE | MAY_REPLICATE)
    if reads and len(packed) > MAX_READ:
        raise errors.error("the reply is too long to be kept: send a command that reads alone")
    state.record(packed, ctx.now)
    return reply


def _run(ctx: Context, entry: Entry, words: list[bytes]) -> Reply | RedisError:
    """Run a command as in a transaction, for both protocols."""
    dispatcher, session = ctx.server.dispatcher, ctx.session
    forms: list[tuple[bytes, bytes]] = []
    dispatcher.forms = forms
    try:
        reply = dispatcher.call_now(session, entry, words)
    finally:
        dispatcher.forms = None
    if entry.name == "exec":
        if isinstance(reply, RedisError):
            return reply  # it executed nothing
        if type(reply) is resp.Raw:
            header = b"*%d\r\n" % len(forms)
            return Reply(*(header + b"".join([form[at] for form in forms]) for at in (0, 1)))
    if type(reply) is InternalError:
        return reply
    resp2 = resp.encode(reply, False)
    same = type(reply) is bytes or type(reply) is int
    return Reply(resp2, resp2 if same else resp.encode(reply, True))
