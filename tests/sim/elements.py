"""Collections of a kind that only the simulation has: what replication must carry is the rows, and
every type makes its own of the same calls.

It knows neither commands nor replication. A collection is a queue: its header adds the number of
the first element and the number after the last one, an element's row has its number as its key. So
all that may be read of it follows from the header, as in a list (kvserver/types/lists.py), and a
range of elements is dropped without looking at them.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable
from random import Random

from kvserver import codec
from kvserver.collection import MutableCollection
from kvserver.database import Writer
from sim.engine import Rows

#: The type under which the rows go; whose elements the key space handles as any other's.
KIND = codec.SET
MOST_PUSHED = 4
_EXTRAS = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")

Command = Callable[[list[Writer]], None]


class Queue:
    """A collection to be changed; `save` at the end."""

    def __init__(self, rows: MutableCollection) -> None:
        self.rows = rows
        self.first, self.next = _EXTRAS.unpack(rows.extras) if rows.extras else (0, 0)

    def push(self, value: bytes) -> None:
        """One more at the end."""
        self.rows.put(_NUMBER.pack(self.next), value)
        self.next += 1

    def replace(self, number: int, value: bytes) -> None:
        """Another value for an element that is there: the header stays as it is."""
        self.rows.put(_NUMBER.pack(number), value)

    def pop(self) -> None:
        """The first one goes."""
        self.rows.delete(_NUMBER.pack(self.first))
        self.first += 1

    def trim(self, count: int) -> None:
        """The first ones go, as a range."""
        lower, upper = _NUMBER.pack(self.first), _NUMBER.pack(self.first + count)
        self.rows.delete_range(lower, upper)
        self.first += count

    def save(self) -> None:
        """The end of the command."""
        self.rows.count = self.next - self.first
        self.rows.extras = _EXTRAS.pack(self.first, self.next)
        self.rows.save()


def command(random: Random, keys: list[bytes], value: bytes) -> Command:
    """A command on a collection, or on two keys of which one may be one."""
    key, other = random.sample(keys, 2)
    choice, count, db = random.random(), random.randint(1, MOST_PUSHED), random.randrange(2)

    def change(dbs: list[Writer]) -> None:
        row = dbs[0].current(key)
        if row is not None and codec.row_type(row) != KIND:
            dbs[0].delete(key)
        queue = Queue(dbs[0].mutable_or_new(key, KIND))
        size = queue.next - queue.first
        if choice < 0.5 or not size:
            for number in range(count):
                queue.push(value + b".%d" % number)
        elif choice < 0.7:
            queue.replace(queue.first + count % size, value)
        elif choice < 0.85:
            queue.pop()
        else:
            queue.trim(min(count, size))
        queue.save()

    def rename(dbs: list[Writer]) -> None:
        row = dbs[0].current(key)
        if row is not None:
            dbs[0].delete(other)
            dbs[0].rename(key, other, row)

    def copy(dbs: list[Writer]) -> None:
        row = dbs[0].current(key)
        if row is not None:
            dbs[db].delete(other)
            dbs[db].put_copy(other, row, dbs[0])

    return random.choices((change, rename, copy), (8, 1, 2))[0]


def problem(rows: Rows) -> str:
    """What is wrong with the elements, judged by their headers; empty if nothing is."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for key in rows[1]:
        found[key[: codec.ELEMENT_PREFIX_LEN]].add(key[codec.ELEMENT_PREFIX_LEN :])
    for key, row in rows[0].items():
        if codec.row_type(row) == KIND:
            first, after = _EXTRAS.unpack(codec.collection_extras(row))
            numbers = found.pop(key[: codec.DB_PREFIX_LEN] + codec.collection_id(row), set())
            if numbers != {_NUMBER.pack(number) for number in range(first, after)}:
                return f"{codec.user_key(key)!r} has other elements than {first} to {after}"
            if codec.collection_count(row) != after - first or first == after:
                return f"{codec.user_key(key)!r} counts its elements wrongly"
    return f"elements of collections that are gone: {found}" if found else ""
