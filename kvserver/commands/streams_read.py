"""XREAD and XREADGROUP. Source: Redis 7.4's t_stream.c, xreadCommand.

XREADGROUP that gives nothing changes nothing: the time when its consumer was seen is written with
the next change, so that polling takes no position in the log.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from kvserver import codec, errors, resp
from kvserver.args import parse_int, parse_timeout_ms
from kvserver.codec import STREAM
from kvserver.commands.replies import Array, begin
from kvserver.commands.streams import CATEGORIES
from kvserver.commands.streams_range import add_all, entry_reply
from kvserver.registry import BLOCKING, MOVABLE_KEYS, READONLY, WALK, WRITE, KeySpec, command
from kvserver.state import notify
from kvserver.state.context import Context, ReadContext, WriteContext, wait_for_keys
from kvserver.types import stream_groups
from kvserver.types import stream_ids as ids
from kvserver.types.stream_groups import UNKNOWN, Consumer, MutableGroup
from kvserver.types.streams import Entry, Stream

#: A reader of a group is told when its key goes, or becomes something else.
_ANY_CHANGE: Final = (*codec.TYPE_NAMES, codec.MISSING)
_NEW: Final = b">"
_MEANINGLESS: Final = (
    "The {0} ID is meaningless in the context of XREADGROUP: you want to read the history of this "
    "consumer by specifying a proper ID, or use the > ID to get new messages. The {0} ID would "
    "just return an empty result set."
)


class _Request:
    """The arguments of XREAD and XREADGROUP."""

    def __init__(self, ctx: Context, words: Sequence[bytes], of_group: bool) -> None:
        #: None: it doesn't wait.
        self.timeout_ms: int | None = None
        #: None: all.
        self.count: int | None = None
        self.noack = False
        self.group: bytes | None = None
        self.consumer = b""
        self.keys: Sequence[bytes] = ()
        self.ids: list[bytes] = []
        #: Index of the first id.
        self.ids_at = 0
        self._parse(ctx, words, of_group)
        if not self.keys:
            raise errors.syntax()
        if of_group and self.group is None:
            raise errors.error("Missing GROUP option for XREADGROUP")

    def _parse(self, ctx: Context, words: Sequence[bytes], of_group: bool) -> None:
        at, count = 0, len(words)
        while at < count:
            option, more = words[at].upper(), count - at - 1
            if option == b"BLOCK" and more:
                at += 1
                self.timeout_ms = parse_timeout_ms(words[at], ctx.now)
            elif option == b"COUNT" and more:
                at += 1
                self.count = max(parse_int(words[at]), 0) or None
            elif option == b"STREAMS" and more:
                self._take_streams(words, at + 1, of_group)
                return
            elif option == b"GROUP" and more >= 2:
                _only_of_group("GROUP", of_group)
                self.group, self.consumer = words[at + 1], words[at + 2]
                at += 2
            elif option == b"NOACK":
                _only_of_group("NOACK", of_group)
                self.noack = True
            else:
                raise errors.syntax()
            at += 1

    def _take_streams(self, words: Sequence[bytes], at: int, of_group: bool) -> None:
        if (len(words) - at) % 2:
            symbol = ">" if of_group else "$"
            raise errors.error(
                f"Unbalanced '{_name(of_group)}' list of streams: for each stream key an ID or "
                f"'{symbol}' must be specified."
            )
        self.ids_at = (len(words) + at) // 2
        self.keys, self.ids = words[at : self.ids_at], list(words[self.ids_at :])


def _name(of_group: bool) -> str:
    return "xreadgroup" if of_group else "xread"


def _only_of_group(option: str, of_group: bool) -> None:
    if not of_group:
        raise errors.error(
            f"The {option} option is only supported by XREADGROUP. You called XREAD instead."
        )


class _Reply:
    """Streams and what was read of them: a map under RESP3, which may have a key twice."""

    def __init__(self) -> None:
        self._count = 0
        self._resp2 = [b""]
        self._resp3 = [b""]

    def add(self, key: bytes, entries: resp.Forms) -> None:
        """Add a stream."""
        self._count += 1
        name = resp.encode(key, False)
        self._resp2 += [b"*2\r\n", name, *entries.resp2]
        self._resp3 += [name, *entries.resp3]

    def reply(self) -> resp.Forms:
        """The whole reply."""
        self._resp2[0], self._resp3[0] = b"*%d\r\n" % self._count, b"%%%d\r\n" % self._count
        return resp.Forms(self._resp2, self._resp3)


# -- XREAD -----------------------------------------------------------------------------------------


@command(
    "xread",
    -4,
    READONLY | BLOCKING | MOVABLE_KEYS | WALK,
    group="stream",
    since="5.0.0",
    summary="Returns messages from multiple streams with IDs greater than the ones requested. "
    "Blocks until a message is available otherwise.",
    complexity="",
    keys=(KeySpec(1, -1, 1, ("RO", "ACCESS"), keyword=b"STREAMS", limit=2),),
    categories=CATEGORIES,
)
def xread(ctx: ReadContext, *words: bytes) -> Any:
    request = _Request(ctx, words, False)
    resolved = list(words)
    afters: list[bytes] = []
    for at, key in enumerate(request.keys):
        rows = ctx.db.collection(key, STREAM)
        afters.append(_resolve(None if rows is None else Stream(rows), request.ids[at]))
        if request.ids[at] == b"$":
            # It would mean another id when the command runs again.
            resolved[request.ids_at + at] = ids.text(afters[at])
    sources: list[tuple[bytes, Iterator[Entry]]] = []
    for key, after in zip(request.keys, afters, strict=True):
        rows = ctx.db.collection(key, STREAM)  # INFO and keymiss count both look-ups, as in Redis
        if rows is None:
            continue
        stream = Stream(rows)
        if stream.count and after < stream.last_entry_id():
            sources.append((key, _entries_after(stream, after, request.count)))
    if sources:
        return begin(_read(sources))
    if request.timeout_ms is None:
        return resp.NULL_ARRAY
    blocked = wait_for_keys(request.keys, (STREAM,), request.timeout_ms, resp.NULL_ARRAY)
    blocked.args = [b"xread", *resolved]
    return blocked


def _resolve(stream: Stream | None, word: bytes) -> bytes:
    """The id after which XREAD reads."""
    if word == b"$":
        return ids.ZERO if stream is None else stream.last_id
    if word == b"+":
        last = ids.ZERO if stream is None else stream.last_entry_id()
        return ids.before(last) or ids.ZERO
    if word == _NEW:
        raise errors.error(
            "The > ID can be specified only when calling XREADGROUP using the GROUP <group> "
            "<consumer> option."
        )
    return ids.parse(word)


def _entries_after(stream: Stream, after: bytes, count: int | None) -> Iterator[Entry]:
    lower = ids.after(after)
    entries = iter(()) if lower is None else stream.scan(lower)
    return entries if count is None or count >= stream.count else islice(entries, count)


def _read(
    sources: list[tuple[bytes, Iterator[Entry]]],
) -> Generator[None, None, resp.Forms]:
    reply = _Reply()
    for key, entries in sources:
        array = Array()
        yield from add_all(array, entries)
        reply.add(key, array.reply())
    return reply.reply()


# -- XREADGROUP ------------------------------------------------------------------------------------


@command(
    "xreadgroup",
    -7,
    WRITE | BLOCKING | MOVABLE_KEYS | WALK,
    group="stream",
    since="5.0.0",
    summary="Returns new or historical messages from a stream for a consumer in a group. Blocks "
    "until a message is available otherwise.",
    complexity="For each stream mentioned: O(M) with M being the number of elements returned. If M "
    "is constant (e.g. always asking for the first 10 elements with COUNT), you can consider it "
    "O(1). On the other side when XREADGROUP blocks, XADD will pay the O(N) time in order to serve "
    "the N clients blocked on the stream getting new data.",
    keys=(KeySpec(4, -1, 1, ("RO", "ACCESS"), keyword=b"STREAMS", limit=2),),
    categories=CATEGORIES,
)
def xreadgroup(ctx: WriteContext, *words: bytes) -> Any:
    request = _Request(ctx, words, True)
    assert request.group is not None
    groups: dict[bytes, MutableGroup] = {}
    after: list[bytes | None] = []
    for key, word in zip(request.keys, request.ids, strict=True):
        ctx.db.row(key)  # counted as a look-up, as in Redis
        rows = ctx.db.mutable(key, STREAM)
        group = None if rows is None else stream_groups.find_mutable(rows, request.group)
        if group is None:
            raise errors.no_group(key, request.group, " in XREADGROUP with GROUP option")
        groups.setdefault(key, group)
        after.append(_resolve_of_group(word))
    reply, served = _Reply(), False
    for key, start in zip(request.keys, after, strict=True):
        ctx.db.row(key)  # and so is this
        found = _serve(ctx, key, groups[key], start, request)
        if found is not None:
            reply.add(key, found)
            served = True
    if served:
        return reply.reply()
    if request.timeout_ms is None:
        return resp.NULL_ARRAY
    return wait_for_keys(request.keys, _ANY_CHANGE, request.timeout_ms, resp.NULL_ARRAY)


def _resolve_of_group(word: bytes) -> bytes | None:
    """The id after which a consumer's history is read; None: new entries are."""
    if word in (b"$", b"+"):
        raise errors.error(_MEANINGLESS.format(word.decode()))
    if word == _NEW:
        return None
    start = ids.parse(word)
    return None if start == ids.LAST else start


def _serve(
    ctx: WriteContext, key: bytes, group: MutableGroup, start: bytes | None, request: _Request
) -> resp.Forms | None:
    """What a consumer reads of one stream; None: nothing that is worth a reply."""
    consumer = group.member(request.consumer)
    if consumer is None:
        consumer = group.create_consumer(request.consumer, ctx.now)
        ctx.notify(notify.STREAM, b"xgroup-createconsumer", key)
    stream = Stream(group.rows)
    if start is not None:
        array = Array(plain=False)  # the place of an entry that is gone is a null
        array.add(_history(ctx, stream, group, consumer, start, request.count))
    elif stream.count and group.last_id < stream.last_entry_id():
        array = Array()
        array.add(_deliver(ctx, stream, group, consumer, request))
    else:
        group.save()
        return None
    group.save()
    return array.reply()


def _deliver(
    ctx: WriteContext, stream: Stream, group: MutableGroup, consumer: Consumer, request: _Request
) -> list[Any]:
    """Give new entries to a consumer (streamReplyWithRange)."""
    found: list[Any] = []
    for entry_id, row in _entries_after(stream, group.last_id, request.count):
        if (
            group.entries_read != UNKNOWN
            and group.last_id >= stream.first_id
            and not stream.has_tombstones_from(group.last_id)
        ):
            group.entries_read += 1
        elif stream.entries_added:
            group.entries_read = stream.estimate_read(entry_id)
        group.last_id = entry_id
        if not request.noack:
            group.give(entry_id, consumer, ctx.now, 1, group.delivery(entry_id))
            consumer.active_ms = ctx.now
        found.append(entry_reply(entry_id, row))
    consumer.seen_ms, consumer.changed = ctx.now, True
    return found


def _history(
    ctx: WriteContext,
    stream: Stream,
    group: MutableGroup,
    consumer: Consumer,
    start: bytes,
    count: int | None,
) -> list[Any]:
    """Give a consumer again what it has (streamReplyWithRangeFromConsumerPEL)."""
    found: list[Any] = []
    lower = ids.after(start)
    owned = iter(()) if lower is None else group.owned(consumer, lower)
    for entry_id in owned if count is None else islice(owned, min(count, consumer.pending)):
        row = stream.entry(entry_id)
        if row is None:
            found.append([ids.text(entry_id), resp.NULL_ARRAY])
            continue
        found.append(entry_reply(entry_id, row))
        before = group.delivery(entry_id)
        assert before is not None, "a consumer has what isn't pending"
        group.give(entry_id, consumer, ctx.now, before.deliveries + 1, before)
        consumer.seen_ms, consumer.changed = ctx.now, True
    return found
