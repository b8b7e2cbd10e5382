"""Streams in RDB: nodes of entries, each a listpack, then ids and groups (rdb.c, t_stream.c).

A node's listpack begins with a master entry, against which ids are differences and from which
entries with the flag SAMEFIELDS have the names of their fields:

    live, deleted, number of fields, field ..., 0
    flags, ms, seq, value ..., number of these entries                     with SAMEFIELDS
    flags, ms, seq, number of fields, (field, value) ..., number of these entries

Stricter than Redis: ids of entries and of pending ones must ascend, none of the former be above
the last one, and the length be right.
"""

from __future__ import annotations

from typing import Final

from kvserver import numbers
from kvserver.rdb import listpack, types
from kvserver.rdb.errors import BadFormat
from kvserver.rdb.reader import Reader
from kvserver.rdb.types import Steps
from kvserver.rdb.values import (
    UNKNOWN,
    Consumer,
    Group,
    Pending,
    Stream,
    StreamEntry,
    StreamId,
    Value,
)

_U64: Final = (1 << 64) - 1
_ID_SIZE: Final = 16
#: Bytes of a reference to a field's name, which may be long and belong to many entries.
_REFERENCE: Final = 8


def decode_stream(reader: Reader, kind: int) -> Steps[Value]:
    """A stream of any of the three types."""
    entries: list[StreamEntry] = []
    for _ in range(reader.count(2)):
        yield from _node(reader, entries)
    stream = _metadata(reader, kind, entries)
    names: set[bytes] = set()
    for _ in range(reader.count(5)):
        group = yield from _group(reader, kind, stream)
        stream.groups.append(group)
        names.add(group.name)
    if len(names) != len(stream.groups):
        raise BadFormat("a group is there twice")
    return stream


def _metadata(reader: Reader, kind: int, entries: list[StreamEntry]) -> Stream:
    """The stream without its groups."""
    if reader.length() != len(entries):
        raise BadFormat("a stream has another length than it says")
    last_id = _lengths_id(reader)
    if entries and entries[-1][:2] > last_id:
        raise BadFormat("a stream has an entry after its last one")
    if kind == types.STREAM_LISTPACKS:
        first_id = entries[0][:2] if entries else (0, 0)
        return Stream(entries, last_id, first_id, (0, 0), len(entries))
    first_id = _lengths_id(reader)
    return Stream(entries, last_id, first_id, _lengths_id(reader), reader.length())


def _lengths_id(reader: Reader) -> StreamId:
    ms = reader.length()
    return ms, reader.length()


def _raw_id(raw: bytes) -> StreamId:
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")


# -- entries


class _Items:
    """What a listpack holds, read one after the other."""

    def __init__(self, items: list[bytes]) -> None:
        self._items = items
        self._pos = 0

    def integer(self) -> int:
        if self._pos >= len(self._items):
            raise BadFormat("a stream's node ends too early")
        number = numbers.parse_int64(self._items[self._pos])
        if number is None:
            raise BadFormat("a stream's node has a text in place of a number")
        self._pos += 1
        return number

    def strings(self, count: int) -> list[bytes]:
        start = self._pos
        if not 0 <= count <= len(self._items) - start:
            raise BadFormat("a stream's node ends too early")
        self._pos = start + count
        return self._items[start : self._pos]

    def at_end(self) -> bool:
        return self._pos == len(self._items)


def _node(reader: Reader, entries: list[StreamEntry]) -> Steps[None]:
    """Append the entries of a node that aren't deleted."""
    key = yield from reader.large()
    if len(key) != _ID_SIZE:
        raise BadFormat("the key of a stream's node isn't an id")
    blob = yield from reader.large()
    found = yield from listpack.decode(blob, reader.room())
    reader.charge(len(blob), len(found))
    reader.work += len(found)
    items = _Items(found)
    live = items.integer()
    deleted = items.integer()
    master = items.strings(items.integer())
    if items.integer() != 0:
        raise BadFormat("the master entry of a stream's node has no end")
    start = _raw_id(key)
    before = len(entries)
    count = 0
    while not items.at_end():
        entry = _entry(reader, items, start, master)
        count += 1
        if entry is not None:
            if entries and entry[:2] <= entries[-1][:2]:
                raise BadFormat("the ids of a stream don't ascend")
            entries.append(entry)
        if reader.tired():
            yield
    if count != live + deleted or len(entries) - before != live:
        raise BadFormat("a stream's node has another number of entries than it says")


def _entry(
    reader: Reader, items: _Items, start: StreamId, master: list[bytes]
) -> StreamEntry | None:
    """The next entry; None if it is deleted."""
    flags = items.integer()
    ms = start[0] + items.integer() & _U64
    seq = start[1] + items.integer() & _U64
    if flags & types.ITEM_SAMEFIELDS:
        size = 3 + len(master)
        fields = _interleaved(reader, master, items.strings(len(master)))
    else:
        count = items.integer()
        size = 4 + 2 * count
        fields = items.strings(2 * count)
    if items.integer() != size:
        raise BadFormat("an entry of a stream has another size than it says")
    reader.work += 1
    return None if flags & types.ITEM_DELETED else (ms, seq, fields)


def _interleaved(reader: Reader, names: list[bytes], values: list[bytes]) -> list[bytes]:
    reader.charge(sum(map(len, names)) + _REFERENCE * len(names), 0)
    fields: list[bytes] = []
    for name, value in zip(names, values, strict=True):
        fields += (name, value)
    return fields


# -- groups


def _group(reader: Reader, kind: int, stream: Stream) -> Steps[Group]:
    name = yield from reader.text()
    last_id = _lengths_id(reader)
    if kind == types.STREAM_LISTPACKS:
        read = _entries_read(stream, last_id)
    else:
        read = _signed(reader.length())
    pel = yield from _global_pel(reader)
    owners: dict[StreamId, bytes] = {}
    consumers: dict[bytes, Consumer] = {}
    for _ in range(reader.count(10)):
        consumer = yield from _consumer(reader, kind, pel, owners)
        if consumer.name in consumers:
            raise BadFormat("a consumer is there twice")
        consumers[consumer.name] = consumer
    if len(owners) != len(pel):
        raise BadFormat("a pending entry has no consumer")
    pending: list[Pending] = []
    for entry_id, (delivery_ms, deliveries) in pel.items():
        pending.append(Pending(entry_id, delivery_ms, deliveries, owners[entry_id]))
        reader.work += 1
        if reader.tired():
            yield
    return Group(name, last_id, read, pending, list(consumers.values()))


def _global_pel(reader: Reader) -> Steps[dict[StreamId, tuple[int, int]]]:
    """(time, number) of the last delivery, by entry."""
    pel: dict[StreamId, tuple[int, int]] = {}
    last = (-1, 0)
    for _ in range(reader.count(_ID_SIZE + 9)):
        reader.charge(_ID_SIZE)
        entry_id = _raw_id(reader.take(_ID_SIZE))
        if entry_id <= last:
            raise BadFormat("pending entries don't ascend")
        last = entry_id
        delivery_ms = reader.milliseconds()
        pel[entry_id] = (delivery_ms, reader.length())
        reader.work += 1
        if reader.tired():
            yield
    return pel


def _consumer(
    reader: Reader,
    kind: int,
    pel: dict[StreamId, tuple[int, int]],
    owners: dict[StreamId, bytes],
) -> Steps[Consumer]:
    """A consumer; `owners` gets its pending entries."""
    name = yield from reader.text()
    seen_ms = reader.milliseconds()
    # The best guess there is, says Redis, where it isn't told.
    active_ms = reader.milliseconds() if kind == types.STREAM_LISTPACKS_3 else seen_ms
    for _ in range(reader.count(_ID_SIZE)):
        entry_id = _raw_id(reader.take(_ID_SIZE))
        if entry_id not in pel or entry_id in owners:
            raise BadFormat("a pending entry of a consumer isn't its group's, or another's too")
        owners[entry_id] = name
        reader.work += 1
        if reader.tired():
            yield
    return Consumer(name, seen_ms, active_ms)


def _entries_read(stream: Stream, last_id: StreamId) -> int:
    """streamEstimateDistanceFromFirstEverEntry for a stream of which nothing was ever deleted."""
    if not stream.entries:
        return 0
    if last_id == stream.last_id:
        return len(stream.entries)
    if last_id < stream.first_id:
        return 0
    if last_id == stream.first_id:
        return 1
    return UNKNOWN


def _signed(number: int) -> int:
    """A number of 64 bits that was written as unsigned."""
    return number - (1 << 64) if number >> 63 else number
