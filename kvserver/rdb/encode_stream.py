"""Streams in RDB; decode_stream has the layout of the nodes.

Written as STREAM_LISTPACKS_2, which Redis 7.0 reads: it has no place for the time when a
consumer was active, only for when it was seen.
"""

from __future__ import annotations

from typing import Final

from kvserver.rdb import listpack, types
from kvserver.rdb.output import Output, length
from kvserver.rdb.types import Steps
from kvserver.rdb.values import Group, Stream, StreamEntry, StreamId

#: The largest nodes by default (stream-node-max-entries, stream-node-max-bytes).
_NODE_ENTRIES: Final = 100
_NODE_BYTES: Final = 4096

_ID_SIZE: Final = 16
_U64: Final = (1 << 64) - 1


def encode_stream(out: Output, stream: Stream) -> Steps[None]:
    """Type and body of a stream."""
    nodes: list[bytes] = []
    start = 0
    while start < len(stream.entries):
        end = _node_end(stream.entries, start)
        nodes.append(_node(stream.entries[start:end]))
        start = end
        yield
    out.add(bytes([types.STREAM_LISTPACKS_2]) + length(len(nodes)))
    for node in nodes:
        out.add(node)
        if out.tired():
            yield
    out.add(length(len(stream.entries)) + _id(stream.last_id))
    out.add(_id(stream.first_id) + _id(stream.max_deleted_id) + length(stream.entries_added))
    out.add(length(len(stream.groups)))
    for group in stream.groups:
        yield from _group(out, group)


def _id(entry_id: StreamId) -> bytes:
    return length(entry_id[0]) + length(entry_id[1])


def _raw_id(entry_id: StreamId) -> bytes:
    return entry_id[0].to_bytes(8, "big") + entry_id[1].to_bytes(8, "big")


def _time(ms: int) -> bytes:
    return ms.to_bytes(8, "little", signed=True)


# -- entries


def _node_end(entries: list[StreamEntry], start: int) -> int:
    """Where the node that begins with this entry ends."""
    size = 0
    end = start
    while end < len(entries) and end - start < _NODE_ENTRIES and size < _NODE_BYTES:
        size += sum(map(len, entries[end][2]))
        end += 1
    return end


def _node(entries: list[StreamEntry]) -> bytes:
    """The key and the listpack of a node, both as strings."""
    ms, seq, fields = entries[0]
    names = fields[::2]
    items = [listpack.integer(len(entries)), listpack.integer(0), listpack.integer(len(names))]
    items += map(listpack.entry, names)
    items.append(listpack.integer(0))
    for entry in entries:
        _append(items, entry, (ms, seq), names)
    packed = listpack.encode(items)
    return length(_ID_SIZE) + _raw_id((ms, seq)) + length(len(packed)) + packed


def _append(items: list[bytes], entry: StreamEntry, start: StreamId, names: list[bytes]) -> None:
    """An entry's items, with the names of its fields if they aren't those of the node."""
    ms, seq, fields = entry
    same = fields[::2] == names
    items.append(listpack.integer(types.ITEM_SAMEFIELDS if same else 0))
    items.append(listpack.integer(_difference(ms, start[0])))
    items.append(listpack.integer(_difference(seq, start[1])))
    if same:
        items += map(listpack.entry, fields[1::2])
        size = 3 + len(names)
    else:
        items.append(listpack.integer(len(fields) // 2))
        items += map(listpack.entry, fields)
        size = 4 + len(fields)
    items.append(listpack.integer(size))


def _difference(number: int, start: int) -> int:
    """Modulo 2**64, as signed."""
    difference = number - start & _U64
    return difference - (1 << 64) if difference >> 63 else difference


# -- groups


def _group(out: Output, group: Group) -> Steps[None]:
    out.string(group.name)
    out.add(_id(group.last_id) + length(group.entries_read & _U64) + length(len(group.pel)))
    owned: dict[bytes, list[bytes]] = {consumer.name: [] for consumer in group.consumers}
    for pending in group.pel:
        raw = _raw_id(pending.id)
        owned[pending.consumer].append(raw)
        out.add(raw + _time(pending.delivery_ms) + length(pending.delivery_count))
        if out.tired():
            yield
    out.add(length(len(group.consumers)))
    for consumer in group.consumers:
        ids = owned[consumer.name]
        out.string(consumer.name)
        out.add(_time(consumer.seen_ms) + length(len(ids)))
        for raw in ids:
            out.add(raw)
            if out.tired():
                yield
