"""XCLAIM and XAUTOCLAIM: entries that are pending go to another consumer.

Source: Redis 7.4's t_stream.c. As XREADGROUP they write the time when the consumer was seen with
what else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvserver import errors
from kvserver.args import parse_int_in
from kvserver.codec import STREAM
from kvserver.commands.streams import CATEGORIES
from kvserver.commands.streams_range import entry_reply
from kvserver.numbers import INT64_MAX, INT64_MIN
from kvserver.registry import FAST, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import WriteContext
from kvserver.types import stream_groups
from kvserver.types import stream_ids as ids
from kvserver.types.stream_groups import Consumer, Delivery, MutableGroup
from kvserver.types.streams import Stream

_TIPS: Final = ("nondeterministic_output",)
#: XAUTOCLAIM looks at so many entries for each that it may claim.
_ATTEMPTS: Final = 10
_USUAL_COUNT: Final = 100
_MOST_COUNT: Final = INT64_MAX // 16


def _group(ctx: WriteContext, name: bytes, group_name: bytes) -> MutableGroup:
    rows = ctx.db.mutable(name, STREAM)
    group = None if rows is None else stream_groups.find_mutable(rows, group_name)
    if group is None:
        raise errors.no_group(name, group_name)
    return group


def _claimant(
    ctx: WriteContext, name: bytes, group: MutableGroup, consumer_name: bytes
) -> Consumer:
    consumer = group.member(consumer_name)
    if consumer is None:
        consumer = group.create_consumer(consumer_name, ctx.now)
        ctx.notify(notify.STREAM, b"xgroup-createconsumer", name)
    return consumer


class _Claim:
    """The arguments of XCLAIM after the least idle time."""

    def __init__(self, words: Sequence[bytes], now: int) -> None:
        self.ids: list[bytes] = []
        self.delivered_ms = -1
        self.deliveries = -1
        self.force = False
        self.just_ids = False
        self.last_id = ids.ZERO
        at = 0
        while at < len(words):
            entry_id = ids.try_parse(words[at])
            if entry_id is None:
                break
            self.ids.append(entry_id)
            at += 1
        self._parse_options(words, at, now)
        if not 0 <= self.delivered_ms <= now:
            self.delivered_ms = now

    def _parse_options(self, words: Sequence[bytes], at: int, now: int) -> None:
        while at < len(words):
            option, more = words[at].upper(), at + 1 < len(words)
            if option == b"FORCE":
                self.force = True
            elif option == b"JUSTID":
                self.just_ids = True
            elif option == b"IDLE" and more:
                at += 1
                self.delivered_ms = now - _option(words[at], "IDLE")
            elif option == b"TIME" and more:
                at += 1
                self.delivered_ms = _option(words[at], "TIME")
            elif option == b"RETRYCOUNT" and more:
                at += 1
                self.deliveries = _option(words[at], "RETRYCOUNT")
            elif option == b"LASTID" and more:
                at += 1
                self.last_id = ids.parse(words[at])
            else:
                raise errors.unrecognized_xclaim_option(words[at])
            at += 1


def _option(word: bytes, name: str) -> int:
    return parse_int_in(word, INT64_MIN, INT64_MAX, f"Invalid {name} option argument for XCLAIM")


def _min_idle(word: bytes, name: str) -> int:
    message = f"Invalid min-idle-time argument for {name}"
    return max(parse_int_in(word, INT64_MIN, INT64_MAX, message), 0)


@command(
    "xclaim",
    -6,
    WRITE | FAST,
    group="stream",
    since="5.0.0",
    summary="Changes, or acquires, ownership of a message in a consumer group, as if the message "
    "was delivered a consumer group member.",
    complexity="O(log N) with N being the number of messages in the PEL of the consumer group.",
    keys=key("RW", "UPDATE"),
    categories=CATEGORIES,
    tips=_TIPS,
)
def xclaim(
    ctx: WriteContext,
    name: bytes,
    group_name: bytes,
    consumer_name: bytes,
    min_idle: bytes,
    *words: bytes,
) -> list[Any]:
    ctx.db.row(name)  # looked up before all else, as if it were only read (lookupKeyRead)
    group = _group(ctx, name, group_name)
    least = _min_idle(min_idle, "XCLAIM")
    claim = _Claim(words, ctx.now)
    group.last_id = max(group.last_id, claim.last_id)
    consumer = _claimant(ctx, name, group, consumer_name)
    stream = Stream(group.rows)
    found: list[Any] = []
    for entry_id in claim.ids:
        before = group.delivery(entry_id)
        row = stream.entry(entry_id)
        if row is None:
            if before is not None:
                group.forget(entry_id, before)
            continue
        if before is None:
            if not claim.force:
                continue
        elif least and ctx.now - before.delivered_ms < least:
            continue
        _give(ctx, group, entry_id, consumer, before, claim)
        found.append(ids.text(entry_id) if claim.just_ids else entry_reply(entry_id, row))
    group.save()
    return found


def _give(
    ctx: WriteContext,
    group: MutableGroup,
    entry_id: bytes,
    consumer: Consumer,
    before: Delivery | None,
    claim: _Claim,
) -> None:
    deliveries = 1 if before is None else before.deliveries
    if claim.deliveries >= 0:
        deliveries = claim.deliveries
    elif not claim.just_ids:
        deliveries += 1
    group.give(entry_id, consumer, claim.delivered_ms, deliveries, before)
    consumer.seen_ms = consumer.active_ms = ctx.now
    consumer.changed = True


class _AutoClaim:
    """The options of XAUTOCLAIM."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self.count = _USUAL_COUNT
        self.just_ids = False
        at = 0
        while at < len(words):
            option = words[at].upper()
            if option == b"COUNT" and at + 1 < len(words):
                at += 1
                self.count = parse_int_in(words[at], 1, _MOST_COUNT, "COUNT must be > 0")
            elif option == b"JUSTID":
                self.just_ids = True
            else:
                raise errors.syntax()
            at += 1


@command(
    "xautoclaim",
    -6,
    WRITE | FAST,
    group="stream",
    since="6.2.0",
    summary="Changes, or acquires, ownership of messages in a consumer group, as if the messages "
    "were delivered to as consumer group member.",
    complexity="O(1) if COUNT is small.",
    keys=key("RW", "DELETE"),
    categories=CATEGORIES,
    tips=_TIPS,
    history=(
        (
            "7.0.0",
            "Added an element to the reply array, containing deleted entries the command cleared "
            "from the PEL",
        ),
    ),
)
def xautoclaim(
    ctx: WriteContext,
    name: bytes,
    group_name: bytes,
    consumer_name: bytes,
    min_idle: bytes,
    start: bytes,
    *words: bytes,
) -> list[Any]:
    ctx.db.row(name)  # looked up before all else, as if it were only read (lookupKeyRead)
    least = _min_idle(min_idle, "XAUTOCLAIM")
    lower = ids.parse_start(start)
    options = _AutoClaim(words)
    group = _group(ctx, name, group_name)
    consumer = _claimant(ctx, name, group, consumer_name)
    stream = Stream(group.rows)
    found: list[Any] = []
    deleted: list[bytes] = []
    cursor = ids.ZERO
    attempts = options.count * _ATTEMPTS
    for entry_id, before in group.deliveries(lower):
        if not attempts or len(found) + len(deleted) == options.count:
            cursor = entry_id
            break
        attempts -= 1
        row = stream.entry(entry_id)
        if row is None:
            group.forget(entry_id, before)
            deleted.append(ids.text(entry_id))
            continue
        if least and ctx.now - before.delivered_ms < least:
            continue
        deliveries = before.deliveries + (0 if options.just_ids else 1)
        group.give(entry_id, consumer, ctx.now, deliveries, before)
        consumer.seen_ms = consumer.active_ms = ctx.now
        consumer.changed = True
        found.append(ids.text(entry_id) if options.just_ids else entry_reply(entry_id, row))
    group.save()
    return [ids.text(cursor), found, deleted]
