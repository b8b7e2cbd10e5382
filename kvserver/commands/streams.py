"""Commands that change the entries of a stream: XADD, XDEL, XTRIM, XSETID; and XLEN.

How a stream is kept is in types/streams.py. Source: Redis 7.4's t_stream.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvserver import errors, resp
from kvserver.args import parse_int
from kvserver.codec import STREAM, number_at
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, KeySpec, command, key
from kvserver.state import notify
from kvserver.state.context import Context, ReadContext, WriteContext
from kvserver.types import stream_ids as ids
from kvserver.types.streams import MAX_ENTRY_BYTES, MutableStream, Trim

CATEGORIES: Final = ("stream",)
_TIPS: Final = ("nondeterministic_output",)

#: How much `~` trims at once when nobody says: so many nodes, and in entries at most this, or that
#: when nodes have no limit (streamParseAddOrTrimArgsOrReply).
_TRIM_NODES: Final = 100
_MOST_TRIMMED: Final = 1_000_000
_TRIMMED_AT_ONCE: Final = 10_000


class _Options:
    """The options of XADD and XTRIM (streamParseAddOrTrimArgsOrReply). An id without a sequence
    number leaves that to us, as does none (`*`) with all of it."""

    def __init__(self, ctx: Context, words: Sequence[bytes], adds: bool) -> None:
        self.may_create = True
        self.new_id: bytes | None = None
        self.has_seq = False
        self._maxlen: int | None = None
        self._minid: bytes | None = None
        self._approximate = False
        self._limit: int | None = None
        #: The index of the first word that is no option: the id.
        self.end = self._parse(words, adds)
        if self.end < len(words) and words[self.end] != b"*":
            self.new_id, self.has_seq = ids.parse_new(words[self.end])
        self.trim = self._trim(ctx, adds)

    def _parse(self, words: Sequence[bytes], adds: bool) -> int:
        at, count = 0, len(words)
        while at < count:
            option, more = words[at].upper(), at + 1 < count
            if adds and option == b"*":
                break
            if (option == b"MAXLEN" or option == b"MINID") and more:
                at = self._take_strategy(option, words, at + 1)
            elif option == b"LIMIT" and more:
                at += 1
                self._limit = _not_negative(words[at], "LIMIT")
            elif adds and option == b"NOMKSTREAM":
                self.may_create = False
            elif adds:
                break
            else:
                raise errors.syntax()
            at += 1
        return at

    def _take_strategy(self, option: bytes, words: Sequence[bytes], at: int) -> int:
        """Read what follows MAXLEN or MINID; returns the index of its last word."""
        if self._maxlen is not None or self._minid is not None:
            raise errors.error(
                "syntax error, MAXLEN and MINID options at the same time are not compatible"
            )
        if at + 1 < len(words) and words[at] in (b"~", b"="):
            self._approximate = words[at] == b"~"
            at += 1
        if option == b"MAXLEN":
            self._maxlen = _not_negative(words[at], "MAXLEN")
        else:
            self._minid = ids.parse(words[at])
        return at

    def _trim(self, ctx: Context, adds: bool) -> Trim | None:
        """What to trim; None: nothing."""
        trims = self._maxlen is not None or self._minid is not None
        if self._limit and not trims:
            raise errors.error(
                "syntax error, LIMIT cannot be used without specifying a trimming strategy"
            )
        if not adds and not trims:
            raise errors.error("syntax error, XTRIM must be called with a trimming strategy")
        if self._limit is not None and not self._approximate:
            raise errors.error("syntax error, LIMIT cannot be used without the special ~ option")
        if not trims:
            return None
        limit = self._limit
        if limit is None:
            limit = _usual_limit(ctx) if self._approximate else 0
        return Trim(self._maxlen or 0, self._minid, self._approximate, limit)


def _not_negative(word: bytes, option: str) -> int:
    value = parse_int(word)
    if value < 0:
        raise errors.error(f"The {option} argument must be >= 0.")
    return value


def _usual_limit(ctx: Context) -> int:
    """How many entries `~` trims when nobody says."""
    usual = _TRIM_NODES * ctx.server.encodings.streams.node_entries
    return min(usual, _MOST_TRIMMED) if usual > 0 else _TRIMMED_AT_ONCE


@command(
    "xadd",
    -5,
    WRITE | DENYOOM | FAST,
    group="stream",
    since="5.0.0",
    summary="Appends a new message to a stream. Creates the key if it doesn't exist.",
    complexity="O(1) when adding a new entry, O(N) when trimming where N being the number of "
    "entries evicted.",
    keys=(
        KeySpec(
            1,
            1,
            1,
            ("RW", "UPDATE"),
            notes="UPDATE instead of INSERT because of the optional trimming feature",
        ),
    ),
    categories=CATEGORIES,
    tips=_TIPS,
    history=(
        (
            "6.2.0",
            "Added the `NOMKSTREAM` option, `MINID` trimming strategy and the `LIMIT` option.",
        ),
        ("7.0.0", "Added support for the `<ms>-*` explicit ID form."),
    ),
)
def xadd(ctx: WriteContext, name: bytes, *words: bytes) -> bytes | None:
    if words[0] == b"*":  # as usual: no options
        return _add(ctx, name, None, words[1:])
    options = _Options(ctx, words, True)
    return _add(ctx, name, options, words[min(options.end + 1, len(words)) :])


def _add(
    ctx: WriteContext, name: bytes, options: _Options | None, fields: tuple[bytes, ...]
) -> bytes | None:
    if not fields or len(fields) % 2:
        raise errors.wrong_arity("xadd")
    if options is not None and options.has_seq and options.new_id == ids.ZERO:
        raise errors.error("The ID specified in XADD must be greater than 0-0")
    stream = _stream(ctx, name, options)
    if stream is None:
        return None
    entry_id = _new_id(ctx, stream, options)
    size = 0
    for text in fields:
        size += len(text)
    if size > MAX_ENTRY_BYTES:
        raise errors.error("Elements are too large to be stored")
    stream.append(entry_id, fields, ctx.server.encodings.streams)
    trimmed = 0
    if options is not None and options.trim is not None:
        trimmed = stream.trim(options.trim)
    stream.save()
    ctx.notify(notify.STREAM, b"xadd", name)
    if trimmed:
        ctx.notify(notify.STREAM, b"xtrim", name)
    return ids.text(entry_id)


def _stream(ctx: WriteContext, name: bytes, options: _Options | None) -> MutableStream | None:
    """The stream that an entry is added to; None if it must not be created. Trimming may fail when
    the entry is added already: with options it isn't gone on with as another command left it."""
    found = ctx.db.opened(name, STREAM) if options is None else None
    if found is not None:
        assert isinstance(found, MutableStream)
        return found
    rows = ctx.db.mutable(name, STREAM)
    if rows is None:
        if options is not None and not options.may_create:
            return None
        rows = ctx.db.new(name, STREAM)
    return MutableStream(rows)


def _new_id(ctx: Context, stream: MutableStream, options: _Options | None) -> bytes:
    """The id of an entry that is to be added (streamAppendItem)."""
    last_id = stream.last_id
    new_id = None if options is None else options.new_id
    if last_id == ids.LAST:
        raise errors.error(
            "The stream has exhausted the last possible ID, unable to add more items"
        )
    if options is None or new_id is None:
        now = ctx.keyspace.now
        new_id = ids.after(last_id) if now <= number_at(last_id, 0) else ids.make(now, 0)
    elif not options.has_seq and new_id[:8] == last_id[:8]:
        new_id = ids.after(last_id)
        if new_id is not None and new_id[:8] != last_id[:8]:
            new_id = None  # the sequence numbers of these milliseconds are used up
    if new_id is None or new_id <= last_id:
        raise errors.error(
            "The ID specified in XADD is equal or smaller than the target stream top item"
        )
    return new_id


@command(
    "xlen",
    2,
    READONLY | FAST,
    group="stream",
    since="5.0.0",
    summary="Return the number of messages in a stream.",
    keys=key("RO"),
    categories=CATEGORIES,
)
def xlen(ctx: ReadContext, name: bytes) -> int:
    rows = ctx.db.collection(name, STREAM)
    return 0 if rows is None else rows.count


@command(
    "xdel",
    -3,
    WRITE | FAST,
    group="stream",
    since="5.0.0",
    summary="Returns the number of messages after removing them from a stream.",
    complexity="O(1) for each single item to delete in the stream, regardless of the stream size.",
    keys=key("RW", "DELETE"),
    categories=CATEGORIES,
)
def xdel(ctx: WriteContext, name: bytes, *words: bytes) -> int:
    rows = ctx.db.mutable(name, STREAM)
    if rows is None:
        return 0
    wanted = [ids.parse(word) for word in words]
    stream = MutableStream(rows)
    deleted = stream.delete(wanted)
    if deleted:
        stream.save()
        ctx.notify(notify.STREAM, b"xdel", name)
    return deleted


@command(
    "xtrim",
    -4,
    WRITE,
    group="stream",
    since="5.0.0",
    summary="Deletes messages from the beginning of a stream.",
    complexity="O(N), with N being the number of evicted entries. Constant times are very small "
    "however, since entries are organized in macro nodes containing multiple entries that can be "
    "released with a single deallocation.",
    keys=key("RW", "DELETE"),
    categories=CATEGORIES,
    tips=_TIPS,
    history=(("6.2.0", "Added the `MINID` trimming strategy and the `LIMIT` option."),),
)
def xtrim(ctx: WriteContext, name: bytes, *words: bytes) -> int:
    options = _Options(ctx, words, False)
    rows = ctx.db.mutable(name, STREAM)
    if rows is None or options.trim is None:
        return 0
    stream = MutableStream(rows)
    trimmed = stream.trim(options.trim)
    if trimmed:
        stream.save()
        ctx.notify(notify.STREAM, b"xtrim", name)
    return trimmed


@command(
    "xsetid",
    -3,
    WRITE | DENYOOM | FAST,
    group="stream",
    since="5.0.0",
    summary="An internal command for replicating stream values.",
    keys=key("RW", "UPDATE"),
    categories=CATEGORIES,
    history=(("7.0.0", "Added the `entries_added` and `max_deleted_entry_id` arguments."),),
)
def xsetid(ctx: WriteContext, name: bytes, word: bytes, *words: bytes) -> resp.Simple:
    last_id = ids.parse(word)
    entries_added, max_deleted_id = _parse_setid(last_id, words)
    rows = ctx.db.mutable(name, STREAM)
    if rows is None:
        raise errors.no_such_key()
    stream = MutableStream(rows)
    if last_id < stream.max_deleted_id:
        raise errors.error(
            "The ID specified in XSETID is smaller than current max_deleted_entry_id"
        )
    if stream.count:
        if last_id < stream.last_entry_id():
            raise errors.error(
                "The ID specified in XSETID is smaller than the target stream top item"
            )
        if entries_added is not None and stream.count > entries_added:
            raise errors.error(
                "The entries_added specified in XSETID is smaller than the target stream length"
            )
    stream.set_last_id(last_id)
    if entries_added is not None:
        stream.entries_added = entries_added
    if max_deleted_id != ids.ZERO:
        stream.max_deleted_id = max_deleted_id
    stream.save()
    ctx.notify(notify.STREAM, b"xsetid", name)
    return resp.OK


def _parse_setid(last_id: bytes, words: Sequence[bytes]) -> tuple[int | None, bytes]:
    """ENTRIESADDED and MAXDELETEDID of XSETID."""
    entries_added: int | None = None
    max_deleted_id = ids.ZERO
    for at in range(0, len(words), 2):
        option, has_value = words[at].upper(), at + 1 < len(words)
        if option == b"ENTRIESADDED" and has_value:
            entries_added = parse_int(words[at + 1])
            if entries_added < 0:
                raise errors.error("entries_added must be positive")
        elif option == b"MAXDELETEDID" and has_value:
            max_deleted_id = ids.parse(words[at + 1])
            if last_id < max_deleted_id:
                raise errors.error(
                    "The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
                )
        else:
            raise errors.syntax()
    return entries_added, max_deleted_id
