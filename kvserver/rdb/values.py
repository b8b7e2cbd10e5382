"""The values of keys as DUMP and RESTORE exchange them, whatever their encoding.

Plain data, in the order in which it was or will be written. Members and fields are distinct,
scores aren't NaN, and no value but a stream is empty: `decode` sees to that, and `encode` relies
on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: The id of a stream's entry: milliseconds and sequence number, 64 bits each.
StreamId = tuple[int, int]
#: An entry of a stream: both parts of its id, and its fields and values in turn.
StreamEntry = tuple[int, int, list[bytes]]

#: `Group.entries_read` when it isn't known, and `Consumer.active_ms` of one that never was.
UNKNOWN: Final = -1


@dataclass(slots=True)
class String:
    value: bytes


@dataclass(slots=True)
class List:
    elements: list[bytes]


@dataclass(slots=True)
class Set:
    members: list[bytes]


@dataclass(slots=True)
class ZSet:
    #: (member, score)
    members: list[tuple[bytes, float]]


@dataclass(slots=True)
class Hash:
    #: (field, value, when the field expires in unix ms; 0: never)
    fields: list[tuple[bytes, bytes, int]]


class Pending(NamedTuple):
    """An entry that was delivered to a consumer of a group and not yet acknowledged."""

    id: StreamId
    delivery_ms: int
    delivery_count: int
    consumer: bytes


class Consumer(NamedTuple):
    name: bytes
    seen_ms: int
    active_ms: int


@dataclass(slots=True)
class Group:
    name: bytes
    last_id: StreamId
    entries_read: int
    #: By id; each consumer in it is one of `consumers`.
    pel: list[Pending] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)


@dataclass(slots=True)
class Stream:
    #: By id.
    entries: list[StreamEntry]
    last_id: StreamId
    first_id: StreamId
    max_deleted_id: StreamId
    entries_added: int
    groups: list[Group] = field(default_factory=list)


Value = String | List | Set | ZSet | Hash | Stream
