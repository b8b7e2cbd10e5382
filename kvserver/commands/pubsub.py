"""Publish/subscribe: SUBSCRIBE and its kin, PUBLISH, PUBSUB.

Who listens to what, and delivery, are in state/pubsub.py. A subscription is answered by one
message for each channel, not by one reply. Source: Redis 7.4's pubsub.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvserver import errors, glob
from kvserver.commands.help import help_reply
from kvserver.registry import (
    FAST,
    IN_PUBSUB,
    LOADING,
    MAY_REPLICATE,
    NOSCRIPT,
    PUBSUB,
    STALE,
    command,
    container,
    key,
    keys,
)
from kvserver.resp import Push, Replies, Simple
from kvserver.state.context import ReadContext
from kvserver.state.pubsub import Subscribers

_SUBSCRIBE: Final = PUBSUB | NOSCRIPT | LOADING | STALE | IN_PUBSUB
_PUBLISH: Final = PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE
_INSPECT: Final = PUBSUB | LOADING | STALE


# -- channels and patterns ---------------------------------------------------------------------


@command(
    "subscribe",
    -2,
    _SUBSCRIBE,
    group="pubsub",
    since="2.0.0",
    summary="Listens for messages published to channels.",
    complexity="O(N) where N is the number of channels to subscribe to.",
)
def subscribe(ctx: ReadContext, *channels: bytes) -> Replies:
    return _subscribe(ctx, b"subscribe", ctx.server.pubsub.channels, channels)


@command(
    "unsubscribe",
    -1,
    _SUBSCRIBE,
    group="pubsub",
    since="2.0.0",
    summary="Stops listening to messages posted to channels.",
    complexity="O(N) where N is the number of channels to unsubscribe.",
)
def unsubscribe(ctx: ReadContext, *channels: bytes) -> Replies:
    names = channels or tuple(ctx.session.channels)
    return _unsubscribe(ctx, b"unsubscribe", ctx.server.pubsub.channels, names)


@command(
    "psubscribe",
    -2,
    _SUBSCRIBE,
    group="pubsub",
    since="2.0.0",
    summary="Listens for messages published to channels that match one or more patterns.",
    complexity="O(N) where N is the number of patterns to subscribe to.",
)
def psubscribe(ctx: ReadContext, *patterns: bytes) -> Replies:
    return _subscribe(ctx, b"psubscribe", ctx.server.pubsub.patterns, patterns)


@command(
    "punsubscribe",
    -1,
    _SUBSCRIBE,
    group="pubsub",
    since="2.0.0",
    summary="Stops listening to messages published to channels that match one or more patterns.",
    complexity="O(N) where N is the number of patterns to unsubscribe.",
)
def punsubscribe(ctx: ReadContext, *patterns: bytes) -> Replies:
    names = patterns or tuple(ctx.session.patterns)
    return _unsubscribe(ctx, b"punsubscribe", ctx.server.pubsub.patterns, names)


@command(
    "publish",
    3,
    _PUBLISH,
    group="pubsub",
    since="2.0.0",
    summary="Posts a message to a channel.",
    complexity="O(N+M) where N is the number of clients subscribed to the receiving channel and M "
    "is the total number of subscribed patterns (by any client).",
)
def publish(ctx: ReadContext, channel: bytes, message: bytes) -> int:
    ctx.server.pubsub.on_publish(b"message", channel, message)
    return ctx.server.pubsub.publish(channel, message)


# -- shard channels ----------------------------------------------------------------------------


@command(
    "ssubscribe",
    -2,
    _SUBSCRIBE,
    group="pubsub",
    since="7.0.0",
    summary="Listens for messages published to shard channels.",
    complexity="O(N) where N is the number of shard channels to subscribe to.",
    keys=keys("NOT_KEY"),
)
def ssubscribe(ctx: ReadContext, *channels: bytes) -> Replies:
    if ctx.deny_blocking:
        raise errors.error("SSUBSCRIBE isn't allowed for a DENY BLOCKING client")
    return _subscribe(ctx, b"ssubscribe", ctx.server.pubsub.shard_channels, channels)


@command(
    "sunsubscribe",
    -1,
    _SUBSCRIBE,
    group="pubsub",
    since="7.0.0",
    summary="Stops listening to messages posted to shard channels.",
    complexity="O(N) where N is the number of shard channels to unsubscribe.",
    keys=keys("NOT_KEY"),
)
def sunsubscribe(ctx: ReadContext, *channels: bytes) -> Replies:
    names = channels or tuple(ctx.session.shard_channels)
    return _unsubscribe(ctx, b"sunsubscribe", ctx.server.pubsub.shard_channels, names)


@command(
    "spublish",
    3,
    _PUBLISH,
    group="pubsub",
    since="7.0.0",
    summary="Post a message to a shard channel",
    complexity="O(N) where N is the number of clients subscribed to the receiving shard channel.",
    keys=key("NOT_KEY"),
)
def spublish(ctx: ReadContext, channel: bytes, message: bytes) -> int:
    ctx.server.pubsub.on_publish(b"smessage", channel, message)
    return ctx.server.pubsub.publish_shard(channel, message)


def _subscribe(
    ctx: ReadContext, kind: bytes, table: Subscribers, names: tuple[bytes, ...]
) -> Replies:
    replies = Replies()
    for name in names:
        ctx.server.pubsub.subscribe(ctx.session, table, name)
        replies.append(Push([kind, name, _count(ctx, table)]))
    return replies


def _unsubscribe(
    ctx: ReadContext, kind: bytes, table: Subscribers, names: tuple[bytes, ...]
) -> Replies:
    """Without names, and without subscriptions, one message says so."""
    replies = Replies()
    for name in names:
        ctx.server.pubsub.unsubscribe(ctx.session, table, name)
        replies.append(Push([kind, name, _count(ctx, table)]))
    return replies or Replies([Push([kind, None, _count(ctx, table)])])


def _count(ctx: ReadContext, table: Subscribers) -> int:
    """The subscriptions that the session has of the table's sort."""
    session = ctx.session
    if table is ctx.server.pubsub.shard_channels:
        return len(session.shard_channels)
    return session.subscriptions


# -- PUBSUB ------------------------------------------------------------------------------------

container("pubsub", group="pubsub", since="2.8.0", summary="A container for Pub/Sub commands.")


@command(
    "pubsub|channels",
    -2,
    _INSPECT,
    group="pubsub",
    since="2.8.0",
    summary="Returns the active channels.",
    complexity="O(N) where N is the number of active channels, and assuming constant time pattern "
    "matching (relatively short channels and patterns)",
)
def pubsub_channels(ctx: ReadContext, *pattern: bytes) -> list[bytes]:
    return _matching(b"CHANNELS", ctx.server.pubsub.channels, pattern)


@command(
    "pubsub|numsub",
    -2,
    _INSPECT,
    group="pubsub",
    since="2.8.0",
    summary="Returns a count of subscribers to channels.",
    complexity="O(N) for the NUMSUB subcommand, where N is the number of requested channels",
)
def pubsub_numsub(ctx: ReadContext, *channels: bytes) -> list[bytes | int]:
    return _counted(ctx.server.pubsub.channels, channels)


@command(
    "pubsub|numpat",
    2,
    _INSPECT,
    group="pubsub",
    since="2.8.0",
    summary="Returns a count of unique pattern subscriptions.",
)
def pubsub_numpat(ctx: ReadContext) -> int:
    return len(ctx.server.pubsub.patterns)


@command(
    "pubsub|shardchannels",
    -2,
    _INSPECT,
    group="pubsub",
    since="7.0.0",
    summary="Returns the active shard channels.",
    complexity="O(N) where N is the number of active shard channels, and assuming constant time "
    "pattern matching (relatively short shard channels).",
)
def pubsub_shardchannels(ctx: ReadContext, *pattern: bytes) -> list[bytes]:
    return _matching(b"SHARDCHANNELS", ctx.server.pubsub.shard_channels, pattern)


@command(
    "pubsub|shardnumsub",
    -2,
    _INSPECT,
    group="pubsub",
    since="7.0.0",
    summary="Returns the count of subscribers of shard channels.",
    complexity="O(N) for the SHARDNUMSUB subcommand, where N is the number of requested shard "
    "channels",
)
def pubsub_shardnumsub(ctx: ReadContext, *channels: bytes) -> list[bytes | int]:
    return _counted(ctx.server.pubsub.shard_channels, channels)


@command(
    "pubsub|help",
    2,
    LOADING | STALE,
    group="pubsub",
    since="6.2.0",
    summary="Returns helpful text about the different subcommands.",
)
def pubsub_help(ctx: ReadContext) -> list[Simple]:
    return help_reply(
        "pubsub",
        "CHANNELS [<pattern>]",
        "    Return the currently active channels matching a <pattern> (default: '*').",
        "NUMPAT",
        "    Return number of subscriptions to patterns.",
        "NUMSUB [<channel> ...]",
        "    Return the number of subscribers for the specified channels, excluding",
        "    pattern subscriptions(default: no channels).",
        "SHARDCHANNELS [<pattern>]",
        "    Return the currently active shard level channels matching a <pattern> (default: '*').",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Return the number of subscribers for the specified shard level channel(s)",
    )


def _matching(word: bytes, table: Subscribers, pattern: tuple[bytes, ...]) -> list[bytes]:
    if len(pattern) > 1:
        raise errors.subcommand_syntax(b"PUBSUB", word)
    if not pattern:
        return list(table)
    return list(filter(glob.compile(pattern[0]), table))


def _counted(table: Subscribers, names: Iterable[bytes]) -> list[bytes | int]:
    counted: list[bytes | int] = []
    for name in names:
        counted += [name, len(table.get(name, ()))]
    return counted
