"""XGROUP and XACK. Source: Redis 7.4's t_stream.c, xgroupCommand and xackCommand.

As in Redis what changes only a group tells nobody who watches the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvserver import errors, resp
from kvserver.args import parse_int
from kvserver.codec import STREAM
from kvserver.collection import MutableCollection
from kvserver.commands.help import help_reply
from kvserver.commands.streams import CATEGORIES
from kvserver.registry import DENYOOM, FAST, LOADING, STALE, WRITE, command, container, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import stream_groups
from kvserver.types import stream_ids as ids
from kvserver.types.stream_groups import UNKNOWN, MutableGroup
from kvserver.types.streams import MutableStream, Stream

#: Words that CREATE and SETID have at most beyond the group's name: the id and options.
_MOST_CREATE_WORDS: Final = 4

container(
    "xgroup",
    group="stream",
    since="5.0.0",
    summary="A container for consumer groups commands.",
)


class _Options:
    """The options of CREATE and SETID, which stand after the id."""

    def __init__(self, words: Sequence[bytes], subcommand: bytes) -> None:
        self.may_create = False
        self.entries_read = UNKNOWN
        at = 1
        while at < len(words):
            option = words[at].upper()
            if option == b"MKSTREAM" and subcommand == b"CREATE":
                self.may_create = True
            elif option == b"ENTRIESREAD" and at + 1 < len(words):
                at += 1
                self.entries_read = parse_int(words[at])
                if self.entries_read < UNKNOWN:
                    raise errors.error("value for ENTRIESREAD must be positive or -1")
            else:
                raise errors.subcommand_syntax(b"XGROUP", subcommand)
            at += 1


def _existing(ctx: WriteContext, name: bytes) -> MutableCollection:
    rows = ctx.db.mutable(name, STREAM)
    if rows is None:
        raise errors.error(
            "The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to "
            "use the MKSTREAM option to create an empty stream automatically."
        )
    return rows


def _existing_group(ctx: WriteContext, name: bytes, group_name: bytes) -> MutableGroup:
    group = stream_groups.find_mutable(_existing(ctx, name), group_name)
    if group is None:
        raise errors.no_group_of(name, group_name)
    return group


@command(
    "xgroup|create",
    -5,
    WRITE | DENYOOM,
    group="stream",
    since="5.0.0",
    summary="Creates a consumer group.",
    keys=key("RW", "INSERT", at=2),
    categories=CATEGORIES,
    history=(("7.0.0", "Added the `entries_read` named argument."),),
)
def xgroup_create(ctx: WriteContext, name: bytes, group_name: bytes, *words: bytes) -> resp.Simple:
    options = _Options(words, b"CREATE")
    rows = ctx.db.mutable(name, STREAM) if options.may_create else _existing(ctx, name)
    if len(words) > _MOST_CREATE_WORDS:
        raise errors.subcommand_syntax(b"XGROUP", b"CREATE")
    if words[0] != b"$":
        last_id = ids.parse(words[0])
    else:
        last_id = ids.ZERO if rows is None else Stream(rows).last_id
    if rows is None:
        rows = ctx.db.new(name, STREAM)
        MutableStream(rows).save()
    elif stream_groups.find(rows, group_name) is not None:
        raise errors.busy_group()
    stream_groups.create(rows, group_name, last_id, options.entries_read)
    ctx.notify(notify.STREAM, b"xgroup-create", name)
    return resp.OK


@command(
    "xgroup|setid",
    -5,
    WRITE,
    group="stream",
    since="5.0.0",
    summary="Sets the last-delivered ID of a consumer group.",
    keys=key("RW", "UPDATE", at=2),
    categories=CATEGORIES,
    history=(("7.0.0", "Added the optional `entries_read` argument."),),
)
def xgroup_setid(ctx: WriteContext, name: bytes, group_name: bytes, *words: bytes) -> resp.Simple:
    options = _Options(words, b"SETID")
    group = _existing_group(ctx, name, group_name)
    if len(words) not in (1, 3):
        raise errors.subcommand_syntax(b"XGROUP", b"SETID")
    if words[0] == b"$":
        group.last_id = Stream(group.rows).last_id
    else:
        group.last_id = ids.parse_loose(words[0])
    group.entries_read = options.entries_read
    group.save()
    ctx.notify(notify.STREAM, b"xgroup-setid", name)
    return resp.OK


@command(
    "xgroup|destroy",
    4,
    WRITE,
    group="stream",
    since="5.0.0",
    summary="Destroys a consumer group.",
    complexity="O(N) where N is the number of entries in the group's pending entries list (PEL).",
    keys=key("RW", "DELETE", at=2),
    categories=CATEGORIES,
)
def xgroup_destroy(ctx: WriteContext, name: bytes, group_name: bytes) -> int:
    group = stream_groups.find_mutable(_existing(ctx, name), group_name)
    if group is None:
        return 0
    stream_groups.destroy(group)
    ctx.notify(notify.STREAM, b"xgroup-destroy", name)
    # Its readers that wait are to be told.
    ctx.server.waiting.blocked_keys.signal(ctx.session.db, name)
    return 1


@command(
    "xgroup|createconsumer",
    5,
    WRITE | DENYOOM,
    group="stream",
    since="6.2.0",
    summary="Creates a consumer in a consumer group.",
    keys=key("RW", "INSERT", at=2),
    categories=CATEGORIES,
)
def xgroup_createconsumer(
    ctx: WriteContext, name: bytes, group_name: bytes, consumer_name: bytes
) -> int:
    group = _existing_group(ctx, name, group_name)
    if group.member(consumer_name) is not None:
        return 0
    group.create_consumer(consumer_name, ctx.now)
    group.save()
    ctx.notify(notify.STREAM, b"xgroup-createconsumer", name)
    return 1


@command(
    "xgroup|delconsumer",
    5,
    WRITE,
    group="stream",
    since="5.0.0",
    summary="Deletes a consumer from a consumer group.",
    keys=key("RW", "DELETE", at=2),
    categories=CATEGORIES,
)
def xgroup_delconsumer(
    ctx: WriteContext, name: bytes, group_name: bytes, consumer_name: bytes
) -> int:
    group = _existing_group(ctx, name, group_name)
    consumer = group.member(consumer_name)
    if consumer is None:
        return 0
    group.delete_consumer(consumer)
    group.save()
    ctx.notify(notify.STREAM, b"xgroup-delconsumer", name)
    return consumer.pending


@command(
    "xgroup|help",
    2,
    LOADING | STALE,
    group="stream",
    since="5.0.0",
    summary="Returns helpful text about the different subcommands.",
    categories=CATEGORIES,
)
def xgroup_help(_ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "xgroup",
        "CREATE <key> <groupname> <id|$> [option]",
        "    Create a new consumer group. Options are:",
        "    * MKSTREAM",
        "      Create the empty stream if it does not exist.",
        "    * ENTRIESREAD entries_read",
        "      Set the group's entries_read counter (internal use).",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Create a new consumer in the specified group.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Remove the specified consumer.",
        "DESTROY <key> <groupname>",
        "    Remove the specified group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Set the current group ID and entries_read counter.",
    )


@command(
    "xack",
    -4,
    WRITE | FAST,
    group="stream",
    since="5.0.0",
    summary="Returns the number of messages that were successfully acknowledged by the consumer "
    "group member of a stream.",
    complexity="O(1) for each message ID processed.",
    keys=key("RW", "UPDATE"),
    categories=CATEGORIES,
)
def xack(ctx: WriteContext, name: bytes, group_name: bytes, *words: bytes) -> int:
    ctx.db.row(name)  # it is looked up as if it were only read (lookupKeyRead)
    rows = ctx.db.mutable(name, STREAM)
    group = None if rows is None else stream_groups.find_mutable(rows, group_name)
    if group is None:
        return 0
    acknowledged = 0
    for entry_id in [ids.parse(word) for word in words]:
        delivery = group.delivery(entry_id)
        if delivery is not None:
            group.forget(entry_id, delivery)
            acknowledged += 1
    if acknowledged:
        group.save()
    return acknowledged
