"""A key's value as a whole: from its rows to what DUMP gives, and back.

It must not know RESP or commands. Each type's rows are its own module's; here is only the order in
which they are read and written. Invariants:
- What `read` gives is the value at the moment of the call, however long it takes.
- `write` makes a key that isn't there, with the encoding that Redis would choose (rdb.c,
  rdbLoadObject).
- Fields of a hash that are past their time count as long as they are there, as in Redis.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from kvserver import codec
from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection, MutableCollection
from kvserver.database import Reader, Writer
from kvserver.rdb.encode import encode_steps
from kvserver.rdb.values import (
    Consumer,
    Group,
    Hash,
    List,
    Pending,
    Set,
    Stream,
    StreamEntry,
    StreamId,
    String,
    Value,
    ZSet,
)
from kvserver.storage.overlay import Walk
from kvserver.types import hashes, lists, sets, sparse, stream_groups, stream_ids, streams, zsets
from kvserver.types.encodings import Encodings
from kvserver.types.list_writer import ListWriter

#: Elements between two steps.
_STEP: Final = 256
#: Bytes that count as much as an element.
_WORK_SHIFT: Final = 10
_U64: Final = (1 << 64) - 1
#: Elements that are let go at a time.
_DISCARD: Final = 10_000

#: A value, read in steps.
Steps = Generator[None, None, Value]


# -- reading ---------------------------------------------------------------------------------------


def read(db: Reader, row: bytes) -> Steps:
    """The value of a key's row; its first step pins the view."""
    kind = codec.row_type(row)
    if kind == codec.STRING:
        return _read_string(row)
    if kind == codec.SPARSE:
        return _read_sparse(db, row)
    rows = Collection(db.data, db.db.prefix, row)
    if kind == codec.LIST:
        return _read_list(rows)
    if kind == codec.SET:
        return _read_set(rows)
    if kind == codec.ZSET:
        return _read_zset(rows)
    if kind == codec.HASH:
        return _read_hash(rows)
    assert kind == codec.STREAM, "a row of no known type"
    return _read_stream(rows)


def payload(db: Reader, row: bytes) -> Generator[None, None, bytes]:
    """The payload of a key's value as DUMP gives it; its first step pins the view."""
    value = yield from read(db, row)
    whole = yield from encode_steps(value)
    yield from _discard(value)
    return whole


class _Pace:
    """Tells when it is time to give way."""

    def __init__(self) -> None:
        self._work = 0

    def tired(self, size: int) -> bool:
        """An element of about so many bytes was read."""
        self._work += 1 + (size >> _WORK_SHIFT)
        if self._work < _STEP:
            return False
        self._work = 0
        return True


def _read_string(row: bytes) -> Steps:
    return String(codec.row_value(row))
    yield  # unreachable: it makes this a generator


def _read_sparse(db: Reader, row: bytes) -> Steps:
    text = sparse.Text(db, row)
    value = bytearray(text.size)
    pace = _Pace()
    for at, part in text.chunks(0, text.size):
        value[at : at + len(part)] = part
        if pace.tired(len(part)):
            yield
    return String(bytes(value))


def _read_list(rows: Collection) -> Steps:
    elements: list[bytes] = []
    pace = _Pace()
    for element in lists.ListReader(rows).elements(0, rows.count):
        elements.append(element)
        if pace.tired(len(element)):
            yield
    return List(elements)


def _read_set(rows: Collection) -> Steps:
    members: list[bytes] = []
    pace = _Pace()
    for member in sets.iterate(rows):
        members.append(member)
        if pace.tired(len(member)):
            yield
    return Set(members)


def _read_zset(rows: Collection) -> Steps:
    members: list[zsets.Pair] = []
    pace = _Pace()
    for entry in zsets.SortedSet(rows).scan():
        pair = zsets.pair(entry)
        members.append(pair)
        if pace.tired(len(pair[0])):
            yield
    return ZSet(members)


def _read_hash(rows: Collection) -> Steps:
    fields: list[tuple[bytes, bytes, int]] = []
    pace = _Pace()
    for key, row in hashes.scan(rows):
        expire_ms = hashes.expire_of(row)
        value = row[9:] if expire_ms else row[1:]
        fields.append((key[hashes.FIELD_AT :], value, expire_ms))
        if pace.tired(len(key) + len(row)):
            yield
    return Hash(fields)


def _read_stream(rows: Collection) -> Steps:
    stream = streams.Stream(rows)
    found = stream.scan()
    groups = _GroupRows(rows)
    entries: list[StreamEntry] = []
    pace = _Pace()
    for entry_id, row in found:
        ms, seq = stream_ids.parts(entry_id)
        entries.append((ms, seq, streams.fields_of(row)))
        if pace.tired(len(row)):
            yield
    value = Stream(
        entries,
        stream_ids.parts(stream.last_id),
        stream_ids.parts(stream.first_id),
        stream_ids.parts(stream.max_deleted_id),
        stream.entries_added,
    )
    for group in groups.groups():
        value.groups.append((yield from groups.read(group, pace)))
    return value


class _GroupRows:
    """The rows of a stream's groups as they are when this is made."""

    def __init__(self, rows: Collection) -> None:
        self._rows = rows
        self._prefix = rows.prefix
        #: One for each tag: a walk in key order doesn't go back.
        self._groups = self._walk(stream_groups.GROUP)
        self._consumers = self._walk(stream_groups.CONSUMER)
        self._pending = self._walk(stream_groups.PENDING)

    def _walk(self, tag: bytes) -> Walk:
        return self._rows.walk(tag, codec.prefix_end(tag))

    def groups(self) -> list[stream_groups.Group]:
        """All groups, by name."""
        found: list[stream_groups.Group] = []
        walk = self._groups
        while (key := walk.key()) is not None:
            name = key[ELEMENT_PREFIX_LEN + 1 :]
            found.append(stream_groups.Group(self._rows, name, walk.value()))
            walk.next()
        walk.check()
        return found

    def read(self, group: stream_groups.Group, pace: _Pace) -> Generator[None, None, Group]:
        """A group with its consumers and what is pending."""
        value = Group(group.name, stream_ids.parts(group.last_id), group.entries_read)
        prefix = self._prefix + stream_groups.CONSUMER + group.number
        for key, row in self._under(self._consumers, prefix, prefix):
            consumer = stream_groups.Consumer(key[len(prefix) :], 0)
            consumer.take(row)
            value.consumers.append(Consumer(consumer.name, consumer.seen_ms, consumer.active_ms))
            if pace.tired(len(key)):
                yield
        prefix = self._prefix + stream_groups.PENDING + group.number
        left = group.pending
        if left:
            for key, row in self._under(self._pending, prefix, prefix + group.floor):
                entry_id, delivery = stream_groups.pending_of((key, row))
                value.pel.append(
                    Pending(
                        stream_ids.parts(entry_id),
                        delivery.delivered_ms,
                        delivery.deliveries & _U64,
                        delivery.consumer,
                    )
                )
                left -= 1
                if not left:
                    break  # what was acknowledged may have left many deleted rows behind
                if pace.tired(len(key)):
                    yield
        return value

    def _under(
        self, walk: Walk, prefix: bytes, start: bytes
    ) -> Generator[tuple[bytes, bytes], None, None]:
        walk.seek(start)
        while (key := walk.key()) is not None and key.startswith(prefix):
            yield key, walk.value()
            walk.next()
        walk.check()


def _discard(value: Value) -> Generator[None, None, None]:
    """Let go of a value that isn't needed any more: a million objects at once would stop the
    loop for tens of milliseconds."""
    parts = _parts(value)
    while len(parts) > _DISCARD:
        del parts[-_DISCARD:]
        yield


def _parts(value: Value) -> list[object]:
    parts: object = []
    if isinstance(value, List):
        parts = value.elements
    elif isinstance(value, Set | ZSet):
        parts = value.members
    elif isinstance(value, Hash):
        parts = value.fields
    elif isinstance(value, Stream):
        parts = value.entries
    assert isinstance(parts, list)
    return parts


# -- writing ---------------------------------------------------------------------------------------


def write(db: Writer, key: bytes, value: Value, expire_ms: int, limits: Encodings) -> None:
    """Create a key, which isn't there, with this value; `expire_ms` 0: it doesn't expire."""
    if isinstance(value, String):
        db.put_string(key, value.value, expire_ms)
    elif isinstance(value, List):
        _write_list(db.new(key, codec.LIST, expire_ms), value, limits.list_node)
    elif isinstance(value, Set):
        _write_set(db.new(key, codec.SET, expire_ms), value, limits.sets)
    elif isinstance(value, ZSet):
        rows = zsets.MutableSortedSet(db.new(key, codec.ZSET, expire_ms), limits.zsets)
        rows.fill(dict(value.members))
        rows.save()
    elif isinstance(value, Hash):
        _write_hash(db.new(key, codec.HASH, expire_ms), value, limits.hashes)
    else:
        _write_stream(db.new(key, codec.STREAM, expire_ms), value, limits.streams)


def _write_list(rows: MutableCollection, value: List, node_limit: int) -> None:
    elements = ListWriter(rows)
    elements.push(value.elements, front=False)
    elements.grow([], node_limit)
    elements.save()


def _write_set(rows: MutableCollection, value: Set, limits: sets.Limits) -> None:
    members = sets.MutableSet(rows, limits)
    if len(value.members) > limits.intset_entries:
        members.encoding = sets.HASHTABLE
    for member in value.members:
        members.add(member)
    members.save()


def _write_hash(fields: MutableCollection, value: Hash, limits: hashes.Limits) -> None:
    if len(value.fields) > limits.entries:
        hashes.set_encoding(fields, hashes.HASHTABLE)
    for field, text, expire_ms in value.fields:
        hashes.put(fields, field, text, limits, expire_ms)
    fields.save()


def _write_stream(rows: MutableCollection, value: Stream, limits: streams.Limits) -> None:
    stream = streams.MutableStream(rows)
    for ms, seq, fields in value.entries:
        stream.append(stream_ids.make(ms, seq), tuple(fields), limits)
    last_id = stream_ids.make(*value.last_id)
    if last_id != stream.last_id:
        stream.set_last_id(last_id)
    stream.max_deleted_id = stream_ids.make(*value.max_deleted_id)
    stream.entries_added = value.entries_added
    for group in value.groups:
        _write_group(rows, group)
    stream.save()


def _write_group(rows: MutableCollection, value: Group) -> None:
    stream_groups.create(rows, value.name, _packed(value.last_id), value.entries_read)
    group = stream_groups.find_mutable(rows, value.name)
    assert group is not None, "a group that was just created"
    members: dict[bytes, stream_groups.Consumer] = {}
    for name, seen_ms, active_ms in value.consumers:
        member = group.create_consumer(name, max(seen_ms, 0))
        member.active_ms = active_ms
        members[name] = member
    for entry_id, delivery_ms, deliveries, name in value.pel:
        member = members[name]
        group.give(_packed(entry_id), member, max(delivery_ms, 0), deliveries, None)
    group.save()


def _packed(entry_id: StreamId) -> bytes:
    return stream_ids.make(*entry_id)
