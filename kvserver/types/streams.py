"""Streams: their rows, and what is done with their entries. Groups are in stream_groups.py.

It must not know RESP or commands. Rows under a stream's prefix, an id being 16 bytes
(stream_ids.py):

    e | id     node u32 | field | value | field | value ...    each with its length before it
    g | name   a group; its consumers and pending entries follow (stream_groups.py)

A length is one byte; 255 says that four bytes with it follow.

The header adds what `_STATE` packs. Source: Redis 7.4's t_stream.c. Invariants:
- The header's count is the number of entries; none is below `first_id` or above `last_id`, and
  the first one is `first_id`. All scans stay between the two: trimmed entries would cost them time,
  and rows of a range that was dropped may show until the commit.
- Redis keeps entries in nodes, which `~` trims as a whole. A row has the number of the node that
  it would be in there: numbers only grow. Of the last node the header knows the size in entries,
  deleted ones included, and in bytes, the first id, and a checksum of the first entry's names,
  which Redis doesn't repeat. So `~` leaves what it leaves in Redis as long as XDEL hasn't taken the
  last entries of a node.
- `head_entries` and `head_last` are those of the first node, or `head_entries` is 0: not known.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple
from zlib import crc32

from kvserver.codec import ELEMENT_PREFIX_LEN
from kvserver.collection import Collection, MutableCollection
from kvserver.numbers import parse_int64
from kvserver.types.stream_ids import LAST, ZERO, parts

ENTRY: Final = b"e"
#: Where the id begins in the whole key of an entry's row, and where the fields do in the row.
ID_AT: Final = ELEMENT_PREFIX_LEN + 1
FIELDS_AT: Final = 4

_STATE: Final = struct.Struct(">16s16s16sQIIII16sQQI")
_NODE: Final = struct.Struct(">I")
_LONG: Final = 255
_LENGTHS: Final = [bytes((size,)) for size in range(_LONG)]
#: More trimmed entries are dropped as a range (see kvserver/database.py).
_SINGLE_DELETIONS: Final = 256

#: Bytes of a node in Redis beside its entries, their number and their names; and of an entry's
#: flags.
_NODE_BYTES: Final = 11
_FLAGS_BYTES: Final = 2
#: A node is never larger, whatever the directive says (STREAM_LISTPACK_MAX_SIZE).
_MAX_NODE_BYTES: Final = 1 << 30

#: What one entry may hold (STREAM_LISTPACK_MAX_SIZE).
MAX_ENTRY_BYTES: Final = 1 << 30

#: (id, row) of an entry.
Entry = tuple[bytes, bytes]


class Limits:
    """How large Redis' nodes are; 0: no limit."""

    def __init__(self, node_bytes: int, node_entries: int) -> None:
        self.node_bytes = node_bytes if 0 < node_bytes < _MAX_NODE_BYTES else _MAX_NODE_BYTES
        self.node_entries = node_entries


class Trim(NamedTuple):
    """What to trim: so that `maxlen` entries stay or, with `minid`, none before it; whole nodes
    only if `approximate`, and then no more than `limit` entries, if it isn't 0."""

    maxlen: int
    minid: bytes | None
    approximate: bool
    limit: int


class Stream:
    """A stream to be read."""

    def __init__(self, rows: Collection) -> None:
        self.rows = rows
        self.count = rows.count
        (
            self.last_id,
            self.first_id,
            self.max_deleted_id,
            self.entries_added,
            self.tail_node,
            self.tail_entries,
            self.tail_bytes,
            self.head_entries,
            self.head_last,
            self.tail_ms,
            self.tail_seq,
            self.tail_names,
        ) = _unpack(rows.extras)

    def entry(self, entry_id: bytes) -> bytes | None:
        """An entry's row."""
        if not self.count or not self.first_id <= entry_id <= self.last_id:
            return None
        return self.rows.get(ENTRY + entry_id)

    def scan(
        self, lower: bytes = ZERO, upper: bytes = LAST, reverse: bool = False
    ) -> Iterator[Entry]:
        """The entries from `lower` to `upper`, both included. The view is pinned by the call."""
        lower, upper = max(lower, self.first_id), min(upper, self.last_id)
        if not self.count or lower > upper:
            return iter(())
        found = self.rows.scan(ENTRY + lower, ENTRY + upper + b"\0", reverse)
        return map(_entry, found)

    def last_entry_id(self) -> bytes:
        """The id of the last entry; zero if there is none (streamLastValidID)."""
        if self.count and self.rows.get(ENTRY + self.last_id) is not None:
            return self.last_id
        for entry_id, _ in self.scan(reverse=True):
            return entry_id
        return ZERO

    def nodes(self) -> int:
        """About how many nodes Redis would have."""
        first = self.entry(self.first_id)
        return 0 if first is None else self.tail_node - node_of(first) + 1

    # -- how far a group has read -------------------------------------------------------------

    def has_tombstones_from(self, start: bytes) -> bool:
        """Whether an entry at `start` or after it was deleted (streamRangeHasTombstones)."""
        return self.count > 0 and self.max_deleted_id != ZERO and start <= self.max_deleted_id

    def estimate_read(self, entry_id: bytes) -> int:
        """How many entries were ever added up to this id; -1 if that can't be told
        (streamEstimateDistanceFromFirstEverEntry)."""
        if not self.entries_added:
            return 0
        if not self.count and entry_id <= self.last_id:
            return self.entries_added
        if entry_id != ZERO and entry_id < self.max_deleted_id:
            return -1
        if entry_id == self.last_id:
            return self.entries_added
        if entry_id > self.last_id:
            return -1
        if self.max_deleted_id == ZERO or self.max_deleted_id < self.first_id:
            if entry_id < self.first_id:
                return self.entries_added - self.count
            if entry_id == self.first_id:
                return self.entries_added - self.count + 1
        return -1

    def lag(self, last_id: bytes, entries_read: int) -> int | None:
        """How many entries a group still has to read; None if that can't be told
        (streamReplyWithCGLag as of 7.4.1)."""
        if not self.entries_added or not self.count:
            return 0
        if last_id < self.first_id and self.max_deleted_id < self.first_id:
            return self.count
        if entries_read != -1 and not self.has_tombstones_from(last_id):
            return self.entries_added - entries_read
        entries_read = self.estimate_read(last_id)
        return None if entries_read == -1 else self.entries_added - entries_read


class MutableStream(Stream):
    """A stream to be changed."""

    def __init__(self, rows: MutableCollection) -> None:
        super().__init__(rows)
        self.target = rows

    def save(self) -> None:
        """Write the header, and tell who observes the key."""
        target = self.target
        target.count = self.count
        if not target.save_open():
            target.save_typed(self, self.extras)

    def extras(self) -> bytes:
        """What it adds to the header."""
        return _STATE.pack(
            self.last_id,
            self.first_id,
            self.max_deleted_id,
            self.entries_added,
            self.tail_node,
            self.tail_entries,
            self.tail_bytes,
            self.head_entries,
            self.head_last,
            self.tail_ms,
            self.tail_seq,
            self.tail_names,
        )

    # -- adding --------------------------------------------------------------------------------

    def append(self, entry_id: bytes, fields: tuple[bytes, ...], limits: Limits) -> None:
        """Add an entry, whose id is above `last_id`."""
        self._enter_node(entry_id, fields, limits)
        self.target.put(ENTRY + entry_id, pack(self.tail_node, fields))
        self.count += 1
        self.entries_added += 1
        self.last_id = entry_id
        if self.count == 1:
            self.first_id = entry_id

    def _enter_node(self, entry_id: bytes, fields: tuple[bytes, ...], limits: Limits) -> None:
        """Count the entry in the last node, or in a new one (streamAppendItem)."""
        ms, seq = parts(entry_id)
        checksum = crc32(fields[0] if len(fields) == 2 else b"\0".join(fields[::2]))
        size = self.tail_bytes + _integer_size(self.tail_entries)
        for text in fields:
            size += len(text)
        full = size >= limits.node_bytes or 0 < limits.node_entries <= self.tail_entries
        if full or not self.count:
            self.tail_node = (self.tail_node + 1) & 0xFFFFFFFF
            self.tail_entries = 0
            self.tail_ms, self.tail_seq, self.tail_names = ms, seq, checksum
            self.tail_bytes = (
                _NODE_BYTES + _integer_size(len(fields) // 2) + _packed_sizes(fields, 0)
            )
        if not self.count:
            self.head_entries, self.head_last = 1, entry_id
        elif self.head_entries and self.head_last == self.last_id and self.tail_entries:
            self.head_entries += 1
            self.head_last = entry_id
        self.tail_entries += 1
        size = self.tail_bytes + _entry_size(
            ms - self.tail_ms, seq - self.tail_seq, fields, checksum == self.tail_names
        )
        self.tail_bytes = size if size < 0xFFFFFFFF else 0xFFFFFFFF

    # -- deleting ------------------------------------------------------------------------------

    def delete(self, ids: list[bytes]) -> int:
        """Delete entries; returns how many there were (xdelCommand)."""
        deleted = 0
        first_went = False
        for entry_id in ids:
            if self.entry(entry_id) is not None:
                self.target.delete(ENTRY + entry_id)
                deleted += 1
                if entry_id == self.first_id:
                    first_went = True
                if entry_id > self.max_deleted_id:
                    self.max_deleted_id = entry_id
                if entry_id <= self.head_last:
                    self.head_entries = 0
        self.count -= deleted
        if not self.count:
            self.first_id = ZERO
        elif first_went:
            for entry_id, _ in self.scan():
                self.first_id = entry_id
                break
        return deleted

    def set_last_id(self, last_id: bytes) -> None:
        """XSETID. Where ids may come again, of a stream that is empty, nothing is left behind: not
        even rows of a range that was dropped in this batch, which would show."""
        if last_id < self.last_id:
            rows = self.target
            stale = rows.scan(ENTRY + last_id, ENTRY + self.last_id + b"\0")
            for key, _ in list(stale):
                rows.delete(key[ELEMENT_PREFIX_LEN:])
        self.last_id = last_id
        self.head_entries = 0

    # -- trimming ------------------------------------------------------------------------------

    def trim(self, trim: Trim) -> int:
        """Drop entries at the beginning; returns how many (streamTrim)."""
        if trim.minid is None:
            excess = self.count - trim.maxlen
            if excess <= 0:
                return 0
        elif not self.count or self.first_id >= trim.minid:
            return 0
        if trim.approximate:
            return self._trim_nodes(trim)
        if trim.minid is not None:
            return self._trim_before(trim.minid)
        return self._trim_count(excess)

    def _trim_count(self, excess: int) -> int:
        """Drop so many entries."""
        if excess >= self.count:
            self._drop_front(excess, None, [])
        elif excess > _SINGLE_DELETIONS and self.count - excess < excess:
            kept = islice(self.scan(reverse=True), self.count - excess)
            first = b""
            for entry_id, _ in kept:
                first = entry_id
            self._drop_front(excess, first, [])
        else:
            ids = [entry_id for entry_id, _ in islice(self.scan(), excess + 1)]
            self._drop_front(excess, ids[-1], ids[:-1])
        return excess

    def _trim_before(self, minid: bytes) -> int:
        """Drop the entries before this id."""
        dropped = self.count
        ids: list[bytes] = []
        first = None
        for entry_id, _ in self.scan():
            if entry_id >= minid:
                first, dropped = entry_id, len(ids)
                break
            if len(ids) == _SINGLE_DELETIONS:
                first, dropped = self._count_before(minid)
                break
            ids.append(entry_id)
        self._drop_front(dropped, first, ids)
        return dropped

    def _count_before(self, minid: bytes) -> tuple[bytes | None, int]:
        """(the first entry from this id on, how many are before it), counted on both sides at
        once, until one of them ends."""
        gone, kept = self.scan(), self.scan(minid)
        first = next(kept, None)
        if first is None:
            return None, self.count
        before, left = 0, 1
        while next(gone)[0] < minid:
            before += 1
            if next(kept, None) is None:
                return first[0], self.count - left
            left += 1
        return first[0], before

    def _trim_nodes(self, trim: Trim) -> int:
        """Drop whole nodes."""
        if self.head_entries and not self._goes(trim, 0, self.head_entries, self.head_last):
            return 0
        dropped: list[bytes] = []
        node: list[bytes] = []
        number = -1
        first = None
        for entry_id, row in self.scan():
            if node_of(row) != number:
                number = node_of(row)
                if node and not self._goes(trim, len(dropped), len(node), node[-1]):
                    first = node[0]
                    break
                dropped += node
                node = []
            node.append(entry_id)
        else:
            if self._goes(trim, len(dropped), len(node), node[-1]):
                dropped += node
            else:
                first = node[0]
        if dropped:
            self._drop_front(len(dropped), first, dropped)
        if first is not None:
            self.head_entries, self.head_last = len(node), node[-1]
        return len(dropped)

    def _goes(self, trim: Trim, dropped: int, entries: int, last: bytes) -> bool:
        """Whether a node with so many entries goes too when so many are dropped already."""
        if trim.limit and dropped + entries > trim.limit:
            return False
        if trim.minid is not None:
            return last < trim.minid
        length = self.count - dropped
        return length > trim.maxlen and length - entries >= trim.maxlen

    def _drop_front(self, dropped: int, first: bytes | None, ids: list[bytes]) -> None:
        """The stream begins with `first` now; None: it is empty. `ids` are those that go, or none
        if they are many."""
        rows = self.target
        if 0 < dropped == len(ids) <= _SINGLE_DELETIONS:
            for entry_id in ids:
                rows.delete(ENTRY + entry_id)
        else:
            end = ENTRY + self.last_id + b"\0" if first is None else ENTRY + first
            rows.delete_range(ENTRY + self.first_id, end)
        self.count -= dropped
        self.first_id = first or ZERO
        self.head_entries = 0


# -- rows ------------------------------------------------------------------------------------------


#: The numbers and ids of the header, in the order of `_STATE`.
_State = tuple[bytes, bytes, bytes, int, int, int, int, int, bytes, int, int, int]
_EMPTY: Final[_State] = (ZERO, ZERO, ZERO, 0, 0, 0, 0, 0, ZERO, 0, 0, 0)


def _unpack(extras: bytes) -> _State:
    """What the header adds; that of a new stream is empty."""
    if not extras:
        return _EMPTY
    state: _State = _STATE.unpack(extras)
    return state


def _entry(item: tuple[bytes, bytes]) -> Entry:
    return item[0][ID_AT:], item[1]


def node_of(row: bytes) -> int:
    """The number of the node that an entry would be in."""
    return int.from_bytes(row[:FIELDS_AT], "big")


def pack(node: int, fields: tuple[bytes, ...]) -> bytes:
    """The row of an entry."""
    found = [_NODE.pack(node)]
    for text in fields:
        size = len(text)
        found.append(_LENGTHS[size] if size < _LONG else b"\xff%b" % size.to_bytes(4, "big"))
        found.append(text)
    return b"".join(found)


def fields_of(row: bytes) -> list[bytes]:
    """The fields and values of an entry, in turn."""
    fields: list[bytes] = []
    at, end = FIELDS_AT, len(row)
    while at < end:
        size = row[at]
        at += 1
        if size == _LONG:
            size = int.from_bytes(row[at : at + 4], "big")
            at += 4
        fields.append(row[at : at + size])
        at += size
    return fields


# -- sizes in Redis ------------------------------------------------------------------------------
# Exact but for what deletions change. Source: listpack.c.

#: No number begins with a greater character.
_NINE: Final = ord("9")
#: What needs no second look.
_SHORT: Final = 1 << 60


def _entry_size(ms: int, seq: int, fields: tuple[bytes, ...], same_names: bool) -> int:
    """How many bytes an entry takes in a node, whose first id is so far away."""
    count = len(fields) // 2
    size = _FLAGS_BYTES + _integer_size(_wrapped(ms)) + _integer_size(_wrapped(seq))
    size += _packed_sizes(fields, 1)
    if same_names:
        return size + _integer_size(count + 3)
    return size + _integer_size(count) + _packed_sizes(fields, 0) + _integer_size(2 * count + 4)


def _wrapped(number: int) -> int:
    """Modulo 2**64, with a sign."""
    if -_SHORT < number < _SHORT:
        return number
    number &= 0xFFFFFFFFFFFFFFFF
    return number - (1 << 64) if number >> 63 else number


def _packed_sizes(fields: tuple[bytes, ...], first: int) -> int:
    """How many bytes every second text takes in a listpack."""
    size = 0
    for at in range(first, len(fields), 2):
        size += _packed_size(fields[at])
    return size


def _packed_size(text: bytes) -> int:
    """How many bytes a text takes in a listpack."""
    size = len(text)
    if 0 < size <= 20 and text[0] <= _NINE:
        number = parse_int64(text)
        if number is not None:
            return _integer_size(number)
    size += 1 if size < 64 else 2 if size < 4096 else 5
    return size + (1 if size < 128 else 2 if size < 16384 else 3 if size < 2097152 else 4)


def _integer_size(number: int) -> int:
    """How many bytes an integer takes in a listpack."""
    if 0 <= number < 128:
        return 2
    if number < 0:
        number = -number - 1
    if number < 4096:
        return 3
    for size in (2, 3, 4):
        if number < 1 << 8 * size - 1:
            return size + 2
    return 10
