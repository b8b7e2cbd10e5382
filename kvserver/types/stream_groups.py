"""Groups of a stream: their rows, their consumers, and which consumer has yet to acknowledge what.

It must not know RESP or commands. Rows under a stream's prefix; `number` is the group's, 8 bytes
which no other group ever has, so that dropping a group is dropping ranges:

    g | group                                   number | what `_GROUP` packs
    c | number | consumer                       what `_CONSUMER` packs
    p | number | id                             delivered ms u64 | deliveries u64 | consumer
    q | number | size u32 | consumer | id       (empty): the same by consumer, only walked

Source: Redis 7.4's t_stream.c. Invariants:
- p and q have the same pairs of id and consumer, each of which exists; `pending` counts them, for
  the group and for each consumer.
- Nothing of a `Scope` is pending before its `floor`, from where walks start: what was acknowledged
  leaves deleted rows, over which they would have to step. Nothing is pending after `ceiling`.
- The stream's header doesn't change with its groups: nothing here tells those who watch the key,
  as Redis doesn't.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from kvserver.codec import ELEMENT_PREFIX_LEN, prefix_end
from kvserver.collection import Collection, MutableCollection
from kvserver.types.stream_ids import LAST, SIZE, ZERO

GROUP: Final = b"g"
CONSUMER: Final = b"c"
PENDING: Final = b"p"
OWNED: Final = b"q"
NUMBER_LEN: Final = 8

_GROUP: Final = struct.Struct(">8s16sqQQ16s16sI")
_CONSUMER: Final = struct.Struct(">QqQ16sI")
_DELIVERY: Final = struct.Struct(">QQ")
#: The walk for the first entry that is pending still comes once in so many that went.
_SOUGHT_EVERY: Final = 64
#: A group with more rows is dropped as ranges (see kvserver/database.py).
_SINGLE_DELETIONS: Final = 256
_U64: Final = (1 << 64) - 1

#: `Consumer.active_ms` of one that was never given anything, and `Group.entries_read` when it
#: isn't known.
UNKNOWN: Final = -1


class Delivery(NamedTuple):
    """An entry that is pending: when it was delivered last, how often, and to whom."""

    delivered_ms: int
    deliveries: int
    consumer: bytes


class Scope:
    """The pending entries of a group, or of one of its consumers."""

    def __init__(self) -> None:
        self.pending = 0
        #: Nothing before it is pending.
        self.floor = LAST
        #: How many entries went since `floor` was an entry.
        self.gone = 0

    def added(self, entry_id: bytes) -> None:
        """An entry is pending that wasn't."""
        self.pending += 1
        self.floor = min(self.floor, entry_id)

    def removed(self) -> None:
        """An entry is pending no longer."""
        self.pending -= 1
        self.gone += 1
        if not self.pending:
            self.floor = LAST
            self.gone = 0


class Consumer(Scope):
    """A consumer of a group."""

    def __init__(self, name: bytes, now: int) -> None:
        super().__init__()
        self.name = name
        self.seen_ms = now
        self.active_ms = UNKNOWN
        self.changed = True

    def take(self, row: bytes) -> None:
        """Become what the row says."""
        self.seen_ms, self.active_ms, self.pending, self.floor, self.gone = _CONSUMER.unpack(row)
        self.changed = False

    def pack(self) -> bytes:
        """Its row."""
        return _CONSUMER.pack(self.seen_ms, self.active_ms, self.pending, self.floor, self.gone)


class Group(Scope):
    """A group to be read."""

    def __init__(self, rows: Collection, name: bytes, row: bytes) -> None:
        super().__init__()
        self.rows = rows
        self.name = name
        self.number = self.last_id = self.ceiling = b""
        self.entries_read = self.consumer_count = 0
        (
            self.number,
            self.last_id,
            self.entries_read,
            self.pending,
            self.consumer_count,
            self.floor,
            self.ceiling,
            self.gone,
        ) = _GROUP.unpack(row)

    def consumer(self, name: bytes) -> Consumer | None:
        """One of its consumers."""
        row = self.rows.get(CONSUMER + self.number + name)
        return None if row is None else _consumer(name, row)

    def consumers(self) -> Iterator[Consumer]:
        """All consumers in the order of their names."""
        prefix = CONSUMER + self.number
        at = ELEMENT_PREFIX_LEN + len(prefix)
        for key, row in self.rows.scan(prefix, prefix_end(prefix)):
            yield _consumer(key[at:], row)

    def delivery(self, entry_id: bytes) -> Delivery | None:
        """How an entry is pending, if it is."""
        if not self.pending or entry_id > self.ceiling:
            return None
        row = self.rows.get(PENDING + self.number + entry_id)
        return None if row is None else _delivery(row)

    def deliveries(
        self, lower: bytes = ZERO, upper: bytes = LAST, reverse: bool = False
    ) -> Iterator[tuple[bytes, Delivery]]:
        """What is pending of these ids, both included. The view is pinned by the call."""
        lower, upper = max(lower, self.floor), min(upper, self.ceiling)
        if not self.pending or lower > upper:
            return iter(())
        prefix = PENDING + self.number
        found = self.rows.scan(prefix + lower, prefix + upper + b"\0", reverse)
        return map(pending_of, found)

    def owned(
        self, consumer: Consumer, lower: bytes = ZERO, upper: bytes = LAST
    ) -> Iterator[bytes]:
        """The ids that a consumer has, both included. The view is pinned by the call."""
        lower, upper = max(lower, consumer.floor, self.floor), min(upper, self.ceiling)
        if not consumer.pending or lower > upper:
            return iter(())
        prefix = self.owned_prefix(consumer.name)
        return map(_owned_id, self.rows.scan(prefix + lower, prefix + upper + b"\0"))

    def owned_prefix(self, consumer: bytes) -> bytes:
        """What the rows of a consumer's pending entries begin with."""
        return OWNED + self.number + len(consumer).to_bytes(4, "big") + consumer


class MutableGroup(Group):
    """A group to be changed. Nothing of it, nor of a consumer, is written before `save`."""

    def __init__(self, rows: MutableCollection, name: bytes, row: bytes) -> None:
        super().__init__(rows, name, row)
        self.target = rows
        self._row = row
        self._known: dict[bytes, Consumer] = {}

    def member(self, name: bytes) -> Consumer | None:
        """One of its consumers, to be changed."""
        consumer = self._known.get(name)
        if consumer is None:
            consumer = self.consumer(name)
            if consumer is not None:
                self._known[name] = consumer
        return consumer

    def create_consumer(self, name: bytes, now: int) -> Consumer:
        """A consumer that isn't there yet."""
        consumer = self._known[name] = Consumer(name, now)
        self.consumer_count += 1
        return consumer

    def delete_consumer(self, consumer: Consumer) -> None:
        """Drop a consumer and what it has."""
        for entry_id in list(self.owned(consumer)):
            self.target.delete(PENDING + self.number + entry_id)
            self.target.delete(self.owned_prefix(consumer.name) + entry_id)
            self.removed()
        self.target.delete(CONSUMER + self.number + consumer.name)
        self._known.pop(consumer.name, None)
        self.consumer_count -= 1

    def give(
        self,
        entry_id: bytes,
        consumer: Consumer,
        delivered_ms: int,
        deliveries: int,
        before: Delivery | None,
    ) -> None:
        """The entry is pending for this consumer; `before` is how it was pending."""
        if before is None:
            self.added(entry_id)
            self.ceiling = entry_id if self.ceiling < entry_id else self.ceiling
        elif before.consumer != consumer.name:
            self._disown(entry_id, before.consumer)
        if before is None or before.consumer != consumer.name:
            consumer.added(entry_id)
            consumer.changed = True
            self.target.put_unread(self.owned_prefix(consumer.name) + entry_id, b"")
        self.target.put(
            PENDING + self.number + entry_id,
            _DELIVERY.pack(delivered_ms, deliveries & _U64) + consumer.name,
        )

    def forget(self, entry_id: bytes, before: Delivery) -> None:
        """The entry, which was pending like this, is pending no longer."""
        self._disown(entry_id, before.consumer)
        self.target.delete(PENDING + self.number + entry_id)
        self.removed()

    def _disown(self, entry_id: bytes, name: bytes) -> None:
        consumer = self.member(name)
        assert consumer is not None, "a pending entry without a consumer"
        consumer.removed()
        consumer.changed = True
        self.target.delete(self.owned_prefix(name) + entry_id)

    def save(self) -> None:
        """Write what changed of the group and its consumers."""
        for consumer in self._known.values():
            if consumer.changed:
                if consumer.gone >= _SOUGHT_EVERY:
                    consumer.floor = next(self.owned(consumer), LAST)
                    consumer.gone = 0
                self.target.put(CONSUMER + self.number + consumer.name, consumer.pack())
                consumer.changed = False
        if self.gone >= _SOUGHT_EVERY:
            self.floor = next(self.deliveries(), (LAST, None))[0]
            self.gone = 0
        row = _GROUP.pack(
            self.number,
            self.last_id,
            self.entries_read,
            self.pending,
            self.consumer_count,
            self.floor,
            self.ceiling,
            self.gone,
        )
        if row != self._row:
            self._row = row
            self.target.put(GROUP + self.name, row)


# -- groups of a stream --------------------------------------------------------------------------


def find(rows: Collection, name: bytes) -> Group | None:
    """A group to be read."""
    row = rows.get(GROUP + name)
    return None if row is None else Group(rows, name, row)


def find_mutable(rows: MutableCollection, name: bytes) -> MutableGroup | None:
    """A group to be changed."""
    row = rows.get(GROUP + name)
    return None if row is None else MutableGroup(rows, name, row)


def groups(rows: Collection) -> Iterator[Group]:
    """All groups in the order of their names."""
    at = ELEMENT_PREFIX_LEN + 1
    for key, row in rows.scan(GROUP, prefix_end(GROUP)):
        yield Group(rows, key[at:], row)


def create(rows: MutableCollection, name: bytes, last_id: bytes, entries_read: int) -> None:
    """A group that isn't there yet."""
    number = rows.writer.keyspace.new_id().to_bytes(NUMBER_LEN, "big")
    rows.put(GROUP + name, _GROUP.pack(number, last_id, entries_read, 0, 0, LAST, ZERO, 0))


def destroy(group: MutableGroup) -> None:
    """Drop a group with all that is its own."""
    rows = group.target
    rows.delete(GROUP + group.name)
    many = group.pending + group.consumer_count > _SINGLE_DELETIONS
    for tag in (CONSUMER, PENDING, OWNED):
        lower = tag + group.number
        upper = prefix_end(lower)
        if many:
            rows.delete_range(lower, upper)
            continue
        for key, _ in list(rows.scan(lower, upper)):
            rows.delete(key[ELEMENT_PREFIX_LEN:])


# -- rows ------------------------------------------------------------------------------------------


def _consumer(name: bytes, row: bytes) -> Consumer:
    consumer = Consumer(name, 0)
    consumer.take(row)
    return consumer


def _delivery(row: bytes) -> Delivery:
    delivered_ms, deliveries = _DELIVERY.unpack_from(row)
    if deliveries >> 63:
        deliveries -= 1 << 64  # Redis counts in 64 bits without a sign, and shows them with one
    return Delivery(delivered_ms, deliveries, row[_DELIVERY.size :])


def pending_of(item: tuple[bytes, bytes]) -> tuple[bytes, Delivery]:
    """The id, and how it is pending, of a row."""
    return item[0][-SIZE:], _delivery(item[1])


def _owned_id(item: tuple[bytes, bytes]) -> bytes:
    return item[0][-SIZE:]
