"""When kvserver's reply counts as redis-server's: equal bytes, or a reason written down here.

Two tables, keyed by command. `LOOSE`: replies that depend on the moment, on chance or on a
server's inner order, so that two redis-servers would differ too. `DIFFERENCES`: what differs
between the oracle, which is Redis 7.0, and 7.4, or between Redis and kvserver on purpose; each
with its reason and with an example that a test runs, so that no entry outlives its difference.

Nothing here sends anything or knows hypothesis.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from kvserver.numbers import INT64_MAX

#: A command as it is sent: the name and its arguments.
Command = tuple[bytes, ...]

#: Clocks, or the moments at which two servers execute the same command, differ by less.
SLACK_MS = 5000
#: Absolute times that commands name, in s and ms. A key with such a time has exactly that one.
LATER_S = 4102444800
LATER_MS = LATER_S * 1000 + 123
NAMED_MS = (LATER_MS, INT64_MAX)


NULLS = (b"$-1", b"*-1", b"_")


class Reply(NamedTuple):
    """One reply. Its kind is the type byte, for the nulls of RESP2 the whole line, so that every
    kind of null differs from the others and from values."""

    kind: bytes
    data: bytes
    items: tuple[Reply, ...] = ()

    @property
    def is_error(self) -> bool:
        return self.kind == b"-"

    @property
    def number(self) -> int:
        """The value of an integer reply."""
        return int(self.data)

    @property
    def is_null(self) -> bool:
        return self.kind in NULLS


def parse(data: bytes) -> Reply:
    """One whole RESP reply. Raises ValueError when anything is left over."""
    reply, end = _parse_at(data, 0)
    if end != len(data):
        raise ValueError(f"more than a reply: {data[end:]!r}")
    return reply


def _parse_at(data: bytes, start: int) -> tuple[Reply, int]:
    end = data.index(b"\r\n", start)
    kind, rest = data[start : start + 1], data[start + 1 : end]
    end += 2
    if kind + rest in NULLS:
        return Reply(kind + rest, b""), end
    if kind in b"$=!":
        stop = end + int(rest)
        return Reply(kind, data[end:stop]), stop + 2
    if kind not in b"*~%>":
        return Reply(kind, rest), end
    items = []
    for _ in range(int(rest) * (2 if kind == b"%" else 1)):
        item, end = _parse_at(data, end)
        items.append(item)
    return Reply(kind, rest, tuple(items)), end


# -- what depends on the moment or on chance -----------------------------------------------------

#: Whether replies of the same kind, and no errors, agree.
Agree = Callable[[Command, Reply, Reply], bool]


def _near(limit: int) -> Agree:
    """Numbers that differ by `limit` at most; -1 and -2 mean something else than a time."""

    def agree(_command: Command, ours: Reply, theirs: Reply) -> bool:
        low, high = sorted((ours.number, theirs.number))
        return low >= 0 and high - low <= limit

    return agree


def _near_time(unit_ms: int) -> Agree:
    """Absolute times, in units of so many ms, that were computed from now: those that a client
    named must be equal."""

    def agree(command: Command, ours: Reply, theirs: Reply) -> bool:
        named = any(is_named_time(reply.number * unit_ms) for reply in (ours, theirs))
        return not named and _near(SLACK_MS // unit_ms)(command, ours, theirs)

    return agree


def is_named_time(time_ms: int) -> bool:
    """Whether a key's time can't have been computed from now."""
    return any(abs(time_ms - named) < 1000 for named in NAMED_MS)


def _same_set(_command: Command, ours: Reply, theirs: Reply) -> bool:
    return sorted(ours.items) == sorted(theirs.items)


def _same_shape(command: Command, ours: Reply, theirs: Reply) -> bool:
    """The same types in the same places, of whatever value."""
    return (
        ours.kind == theirs.kind
        and len(ours.items) == len(theirs.items)
        and all(_same_shape(command, *pair) for pair in zip(ours.items, theirs.items, strict=True))
    )


def _same_page(command: Command, ours: Reply, theirs: Reply) -> bool:
    """SCAN: the same cursor, 0 since a scan takes one step here, and the same keys."""
    return ours.items[0] == theirs.items[0] and _same_set(command, ours.items[1], theirs.items[1])


def _greeting(_command: Command, ours: Reply, theirs: Reply) -> bool:
    """HELLO: all fields but the version and the connection's number."""
    differ = {
        name.data
        for name, our, their in zip(
            ours.items[::2], ours.items[1::2], theirs.items[1::2], strict=True
        )
        if our != their
    }
    same_names = ours.items[::2] == theirs.items[::2]
    return same_names and differ <= {b"version", b"id"}


#: The sections of INFO that count what programs do, and what they count. TIME and SCAN are called
#: as often as it takes.
COUNTS: dict[bytes, re.Pattern[bytes]] = {
    b"keyspace": re.compile(rb"(db\d+):keys=(\d+),expires=(\d+)"),
    b"stats": re.compile(
        rb"(keyspace_hits|keyspace_misses|expired_keys|total_error_replies):(\d+)"
    ),
    b"errorstats": re.compile(rb"(.*)\r"),
    b"commandstats": re.compile(
        rb"cmdstat_(?!time:|scan:)(.*):calls=(\d+),.*(rejected_calls=\d+,failed_calls=\d+)"
    ),
}


def _same_counts(command: Command, ours: Reply, theirs: Reply) -> bool:
    pattern = COUNTS[command[1]]
    return sorted(pattern.findall(ours.data)) == sorted(pattern.findall(theirs.data))


def _same_pairs(_command: Command, ours: Reply, theirs: Reply) -> bool:
    """Fields with their values, in any order."""
    return _pairs(ours) == _pairs(theirs)


def _pairs(reply: Reply) -> list[tuple[Reply, Reply]]:
    return sorted(zip(reply.items[::2], reply.items[1::2], strict=True))


def _same_page_of_pairs(command: Command, ours: Reply, theirs: Reply) -> bool:
    """HSCAN: the same cursor, 0 as for SCAN, and the same fields and values."""
    return ours.items[0] == theirs.items[0] and _same_pairs(command, ours.items[1], theirs.items[1])


LOOSE: dict[bytes, Agree] = {
    b"hgetall": _same_pairs,
    b"hkeys": _same_set,
    b"hrandfield": _same_set,
    b"hscan": _same_page_of_pairs,
    b"hvals": _same_set,
    b"keys": _same_set,
    b"scan": _same_page,
    b"sdiff": _same_set,
    b"sinter": _same_set,
    b"smembers": _same_set,
    b"spop": _same_set,
    b"srandmember": _same_set,
    b"sscan": _same_page,
    b"sunion": _same_set,
    b"time": _same_shape,
    b"client|id": _same_shape,
    b"object|idletime": _same_shape,
    b"object|freq": _same_shape,
    b"hello": _greeting,
    b"info": _same_counts,
    b"ttl": _near(SLACK_MS // 1000),
    b"pttl": _near(SLACK_MS),
    b"expiretime": _near_time(1000),
    b"pexpiretime": _near_time(1),
}


# -- what differs and may --------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A difference between the servers that stays, and why."""

    command: bytes
    reason: str
    #: The last of these gets replies that differ, whatever the protocol is.
    example: tuple[Command, ...]
    agree: Agree


def _encodings(_command: Command, ours: Reply, theirs: Reply) -> bool:
    return (ours.data, theirs.data) in {
        (b"int", b"raw"),
        (b"int", b"embstr"),
        (b"embstr", b"raw"),
    }


def _listpacks(_command: Command, ours: Reply, theirs: Reply) -> bool:
    return (ours.data, theirs.data) in {(b"listpack", b"hashtable"), (b"listpack", b"quicklist")}


def _unbalanced(_command: Command, ours: Reply, theirs: Reply) -> bool:
    return all(reply.data.startswith(b"ERR Unbalanced ") for reply in (ours, theirs))


#: Differences that stay: what changed from Redis 7.0, the oracle, to 7.4, and what kvserver does
#: otherwise on purpose.
DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        b"object|refcount",
        "Redis shares small integers with those who ask for them in some ways and not in others, "
        "and a queued command's argument with the key that it sets; kvserver has no references "
        "to count",
        ((b"SET", b"a", b"1"), (b"COPY", b"a", b"b"), (b"OBJECT", b"REFCOUNT", b"b")),
        lambda _command, ours, theirs: ours.kind == theirs.kind == b":",
    ),
    Difference(
        b"object|encoding",
        "Redis remembers how a string was made (APPEND and SETRANGE leave it raw), kvserver "
        "names the encoding that SET would choose",
        ((b"SET", b"k", b"1"), (b"APPEND", b"k", b"2"), (b"OBJECT", b"ENCODING", b"k")),
        _encodings,
    ),
    Difference(
        b"xread",
        "The error names the command since 7.2",
        ((b"XREAD", b"STREAMS", b"a", b"b", b"0"),),
        _unbalanced,
    ),
    Difference(
        b"xreadgroup",
        "The error names the command since 7.2",
        ((b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", b"a", b"b", b"0"),),
        _unbalanced,
    ),
    Difference(
        b"object|encoding",
        "Small sets and lists are listpacks since 7.2",
        ((b"SADD", b"s", b"a"), (b"OBJECT", b"ENCODING", b"s")),
        _listpacks,
    ),
)


# -- the comparison --------------------------------------------------------------------------------

#: Commands of which a subcommand is one of its own.
CONTAINERS = (b"client", b"object")


def full_name(command: Command) -> bytes:
    """`get`, or `client|id` for a subcommand; lower case."""
    name = command[0].lower()
    if name in CONTAINERS and len(command) > 1:
        return name + b"|" + command[1].lower()
    return name


def agrees(command: Command, ours: Reply, theirs: Reply) -> bool:
    """Whether our reply to a command that was executed may be what it is."""
    if ours == theirs:
        return True
    name = full_name(command)
    loose = LOOSE.get(name)
    if loose is not None and ours.kind == theirs.kind != b"-":
        return loose(command, ours, theirs)
    return any(
        entry.command == name and entry.agree(command, ours, theirs) for entry in DIFFERENCES
    )


#: A keyspace notification: channel and message.
Event = tuple[bytes, bytes]


def is_compared(event: Event) -> bool:
    """Whether both must tell it: 7.0 makes the consumer of a group later than 7.4, and not at all
    when there is nothing to be read."""
    channel, message = event
    return message != b"xgroup-createconsumer" and not channel.endswith(b":xgroup-createconsumer")


def in_order(events: Sequence[Event]) -> list[Event]:
    """The events, those of keys that expired one after the other sorted: a scan deletes them in
    the order of the table."""
    ordered: list[Event] = []
    for expired, run in groupby(events, _is_expiry):
        batch = list(run)
        ordered.extend(sorted(batch) if expired else batch)
    return ordered


def in_order_of_databases(events: Sequence[Event]) -> list[Event]:
    """The same for each database, one after the other: several clients wrote at once, each in a
    database of its own."""
    return sorted(in_order(events), key=lambda event: event[0].partition(b"__:")[0][-1:])


def _is_expiry(event: Event) -> bool:
    channel, message = event
    return message == b"expired" or (b"keyevent" in channel and channel.endswith(b":expired"))


class Transcript:
    """What one connection was asked: knows which replies EXEC gathers."""

    def __init__(self) -> None:
        self.queue: list[Command] | None = None

    def agrees(self, command: Command, ours: Reply, theirs: Reply) -> bool:
        """Whether the replies to the next command agree; remembers what it did to MULTI."""
        queue, name = self.queue, command[0].lower()
        if name == b"exec" and queue is not None:
            self.queue = None
            return self._agree_exec(queue, ours, theirs)
        if ours[:2] == (b"+", b"QUEUED") and queue is not None:
            queue.append(command)
        elif name == b"multi" and ours.data == b"OK":
            self.queue = []
        elif name in (b"discard", b"reset", b"quit") and not ours.is_error:
            self.queue = None
        return agrees(command, ours, theirs)

    @staticmethod
    def _agree_exec(queue: Sequence[Command], ours: Reply, theirs: Reply) -> bool:
        """A transaction's replies: each as if its command had been executed alone."""
        if not ours.items or not theirs.items:
            return ours == theirs
        return (
            ours[:2] == theirs[:2]
            and len(ours.items) == len(queue)
            and all(map(agrees, queue, ours.items, theirs.items))
        )
