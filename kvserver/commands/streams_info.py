"""XINFO and XPENDING: what is known of streams and their groups. Source: Redis 7.4's t_stream.c.

`radix-tree-keys` is the number of nodes that the stream would have in Redis, nodes in the middle
that lost all their entries to XDEL included, `radix-tree-nodes` one more: Redis' tree has inner
nodes as well, whose number depends on the ids. `idle` and `seen-time` don't count a command of a
consumer that changed nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from kvserver import errors, resp
from kvserver.args import parse_int
from kvserver.codec import STREAM
from kvserver.collection import Collection
from kvserver.commands.help import help_reply
from kvserver.commands.replies import Array, begin
from kvserver.commands.streams import CATEGORIES
from kvserver.commands.streams_range import STEP, add_all, entry_reply
from kvserver.registry import LOADING, READONLY, STALE, WALK, command, container, key
from kvserver.state.context import ReadContext
from kvserver.types import stream_groups
from kvserver.types import stream_ids as ids
from kvserver.types.stream_groups import UNKNOWN, Consumer, Delivery, Group
from kvserver.types.streams import Entry, Stream

_TIPS: Final = ("nondeterministic_output",)
_KEY: Final = key("RO", "ACCESS", at=2)
#: How much of each list XINFO STREAM FULL shows when nobody says.
_USUAL_COUNT: Final = 10

Pending = tuple[bytes, Delivery]

container(
    "xinfo",
    group="stream",
    since="5.0.0",
    summary="A container for stream introspection commands.",
)


def _existing(ctx: ReadContext, name: bytes) -> Collection:
    rows = ctx.db.collection(name, STREAM)
    if rows is None:
        raise errors.no_such_key()
    return rows


# -- XINFO STREAM ----------------------------------------------------------------------------------


@command(
    "xinfo|stream",
    -3,
    READONLY | WALK,
    group="stream",
    since="5.0.0",
    summary="Returns information about a stream.",
    keys=_KEY,
    categories=CATEGORIES,
    history=(
        ("6.0.0", "Added the `FULL` modifier."),
        (
            "7.0.0",
            "Added the `max-deleted-entry-id`, `entries-added`, `recorded-first-entry-id`, "
            "`entries-read` and `lag` fields",
        ),
        ("7.2.0", "Added the `active-time` field, and changed the meaning of `seen-time`."),
    ),
)
def xinfo_stream(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    rows = _existing(ctx, name)
    stream = Stream(rows)
    if words:
        count = _parse_full(words)
        return begin(_full(stream, _overview(stream), count))
    reply = _overview(stream)
    reply["groups"] = sum(1 for _ in stream_groups.groups(rows))
    reply["first-entry"] = _first(stream.scan())
    reply["last-entry"] = _first(stream.scan(reverse=True))
    return reply


def _parse_full(words: Sequence[bytes]) -> int | None:
    """COUNT of FULL; None: all."""
    if len(words) not in (1, 3) or words[0].upper() != b"FULL":
        raise errors.subcommand_syntax(b"XINFO", b"STREAM")
    if len(words) == 1:
        return _USUAL_COUNT
    if words[1].upper() != b"COUNT":
        raise errors.subcommand_syntax(b"XINFO", b"STREAM")
    count = parse_int(words[2])
    return _USUAL_COUNT if count < 0 else count or None


def _overview(stream: Stream) -> dict[str, Any]:
    nodes = stream.nodes()
    return {
        "length": stream.count,
        "radix-tree-keys": nodes,
        "radix-tree-nodes": nodes + 1,
        "last-generated-id": ids.text(stream.last_id),
        "max-deleted-entry-id": ids.text(stream.max_deleted_id),
        "entries-added": stream.entries_added,
        "recorded-first-entry-id": ids.text(stream.first_id),
    }


def _first(entries: Iterator[Entry]) -> list[Any] | None:
    for entry_id, row in entries:
        return entry_reply(entry_id, row)
    return None


def _full(
    stream: Stream, reply: dict[str, Any], count: int | None
) -> Generator[None, None, dict[str, Any]]:
    """XINFO STREAM FULL. All is read at the pace of a walk, and so not at one instant."""
    groups = list(stream_groups.groups(stream.rows))
    pending = [group.deliveries() for group in groups]
    entries = Array()
    yield from add_all(entries, islice(stream.scan(), count))
    reply["entries"] = entries.reply()
    reply["groups"] = found = []
    for group, deliveries in zip(groups, pending, strict=True):
        found.append((yield from _full_group(stream, group, deliveries, count)))
    return reply


def _full_group(
    stream: Stream, group: Group, deliveries: Iterator[Pending], count: int | None
) -> Generator[None, None, dict[str, Any]]:
    shown = Array()
    deliveries = islice(deliveries, count)
    while part := list(islice(deliveries, STEP)):
        shown.add(
            [[ids.text(at), one.consumer, one.delivered_ms, one.deliveries] for at, one in part]
        )
        yield
    consumers: list[dict[str, Any]] = []
    for consumer in group.consumers():
        consumers.append((yield from _full_consumer(group, consumer, count)))
    return {
        "name": group.name,
        "last-delivered-id": ids.text(group.last_id),
        "entries-read": None if group.entries_read == UNKNOWN else group.entries_read,
        "lag": stream.lag(group.last_id, group.entries_read),
        "pel-count": group.pending,
        "pending": shown.reply(),
        "consumers": consumers,
    }


def _full_consumer(
    group: Group, consumer: Consumer, count: int | None
) -> Generator[None, None, dict[str, Any]]:
    shown = Array()
    owned = islice(group.owned(consumer), count)
    while part := list(islice(owned, STEP)):
        found = [(entry_id, group.delivery(entry_id)) for entry_id in part]
        shown.add([[ids.text(at), one.delivered_ms, one.deliveries] for at, one in found if one])
        yield
    return {
        "name": consumer.name,
        "seen-time": consumer.seen_ms,
        "active-time": consumer.active_ms,
        "pel-count": consumer.pending,
        "pending": shown.reply(),
    }


# -- XINFO GROUPS, CONSUMERS -----------------------------------------------------------------------


@command(
    "xinfo|groups",
    3,
    READONLY,
    group="stream",
    since="5.0.0",
    summary="Returns a list of the consumer groups of a stream.",
    keys=_KEY,
    categories=CATEGORIES,
    history=(("7.0.0", "Added the `entries-read` and `lag` fields"),),
)
def xinfo_groups(ctx: ReadContext, name: bytes) -> list[dict[str, Any]]:
    rows = _existing(ctx, name)
    stream = Stream(rows)
    return [
        {
            "name": group.name,
            "consumers": group.consumer_count,
            "pending": group.pending,
            "last-delivered-id": ids.text(group.last_id),
            "entries-read": None if group.entries_read == UNKNOWN else group.entries_read,
            "lag": stream.lag(group.last_id, group.entries_read),
        }
        for group in stream_groups.groups(rows)
    ]


@command(
    "xinfo|consumers",
    4,
    READONLY,
    group="stream",
    since="5.0.0",
    summary="Returns a list of the consumers in a consumer group.",
    keys=_KEY,
    categories=CATEGORIES,
    tips=_TIPS,
    history=(("7.2.0", "Added the `inactive` field."),),
)
def xinfo_consumers(ctx: ReadContext, name: bytes, group_name: bytes) -> list[dict[str, Any]]:
    group = stream_groups.find(_existing(ctx, name), group_name)
    if group is None:
        raise errors.no_group_of(name, group_name)
    return [
        {
            "name": consumer.name,
            "pending": consumer.pending,
            "idle": max(ctx.now - consumer.seen_ms, 0),
            "inactive": UNKNOWN if consumer.active_ms == UNKNOWN else ctx.now - consumer.active_ms,
        }
        for consumer in group.consumers()
    ]


@command(
    "xinfo|help",
    2,
    LOADING | STALE,
    group="stream",
    since="5.0.0",
    summary="Returns helpful text about the different subcommands.",
    categories=CATEGORIES,
)
def xinfo_help(_ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "xinfo",
        "CONSUMERS <key> <groupname>",
        "    Show consumers of <groupname>.",
        "GROUPS <key>",
        "    Show the stream consumer groups.",
        "STREAM <key> [FULL [COUNT <count>]",
        "    Show information about the stream.",
    )


# -- XPENDING --------------------------------------------------------------------------------------


class _Filters:
    """The arguments of XPENDING after the group, if there are any."""

    def __init__(self, words: Sequence[bytes]) -> None:
        at = 0
        self.least_idle = 0
        if words[0].upper() == b"IDLE":
            self.least_idle = parse_int(words[1])
            if len(words) < 5:
                raise errors.syntax()
            at = 2
        self.count = max(parse_int(words[at + 2]), 0)
        self.lower = ids.parse_start(words[at])
        self.upper = ids.parse_end(words[at + 1])
        self.consumer = words[at + 3] if at + 3 < len(words) else None


@command(
    "xpending",
    -3,
    READONLY | WALK,
    group="stream",
    since="5.0.0",
    summary="Returns the information and entries from a stream consumer group's pending entries "
    "list.",
    complexity="O(N) with N being the number of elements returned, so asking for a small fixed "
    "number of entries per call is O(1). O(M), where M is the total number of entries scanned when "
    "used with the IDLE filter. When the command returns just the summary and the list of "
    "consumers is small, it runs in O(1) time; otherwise, an additional O(N) time for iterating "
    "every consumer.",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    tips=_TIPS,
    history=(("6.2.0", "Added the `IDLE` option and exclusive range intervals."),),
)
def xpending(ctx: ReadContext, name: bytes, group_name: bytes, *words: bytes) -> Any:
    if words and not 3 <= len(words) <= 6:
        raise errors.syntax()
    filters = _Filters(words) if words else None
    rows = ctx.db.collection(name, STREAM)
    group = None if rows is None else stream_groups.find(rows, group_name)
    if group is None:
        raise errors.no_group(name, group_name)
    if filters is None:
        return _summary(group)
    if filters.consumer is None:
        return begin(_pending(ctx.now, group.deliveries(filters.lower, filters.upper), filters))
    consumer = group.consumer(filters.consumer)
    if consumer is None:
        return []
    owned = group.owned(consumer, filters.lower, filters.upper)
    return begin(_pending(ctx.now, _looked_up(group, owned), filters))


def _summary(group: Group) -> list[Any]:
    if not group.pending:
        return [0, None, None, resp.NULL_ARRAY]
    first, _ = next(group.deliveries())
    last, _ = next(group.deliveries(reverse=True))
    owners = [[one.name, b"%d" % one.pending] for one in group.consumers() if one.pending]
    return [group.pending, ids.text(first), ids.text(last), owners]


def _looked_up(group: Group, owned: Iterator[bytes]) -> Iterator[Pending]:
    for entry_id in owned:
        delivery = group.delivery(entry_id)
        if delivery is not None:  # it may have gone since the walk began
            yield entry_id, delivery


def _pending(
    now: int, deliveries: Iterator[Pending], filters: _Filters
) -> Generator[None, None, resp.Forms]:
    array = Array()
    left = filters.count
    while left and (part := list(islice(deliveries, STEP))):
        found = [
            [ids.text(at), one.consumer, max(now - one.delivered_ms, 0), one.deliveries]
            for at, one in part
            if not filters.least_idle or now - one.delivered_ms >= filters.least_idle
        ][:left]
        array.add(found)
        left -= len(found)
        if len(part) < STEP or not left:
            break
        yield
    return array.reply()
