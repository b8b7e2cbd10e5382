"""What is kept in memory of sorted sets that are changed: their lowest and highest places, and
groups of blocks. So a pop needs no walk, and a change no look where it is counted.

It must not know scores, RESP or commands. Invariants:
- All of it follows from rows, pending ones included, and may be forgotten at any time. Every change
  of a sorted set's rows goes through `MutableSortedSet`, which tells what is in memory; when rows
  change in any other way (a batch fails, a primary's records come in, RocksDB is opened again),
  `CommitLog.derived` is emptied. What deletes all rows of a set need not tell: nobody asks for its
  id again.
- An `End` has every place of the set on its side of `bound`, in order, and no other.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN, ZSET
from kvserver.collection import Collection
from kvserver.storage.overlay import Entry
from kvserver.types.zset_blocks import LAST, Budget, Groups

#: Where the place begins in the whole key of an index row.
_PLACE_AT: Final = ELEMENT_PREFIX_LEN + 1

#: How many places are read at first, and at most when the former ones were all popped.
FIRST_PLACES: Final = 8
MOST_PLACES: Final = 128
#: A place is kept only if it isn't longer.
MOST_LENGTH: Final = 1024

#: So many sets, and groups of them all: these take some 8 KiB each.
MOST_SETS: Final = 256
MOST_GROUPS: Final = 1024


class End:
    """The places at one end of a set: those from `bound` on at the high end, those below it at the
    low one."""

    def __init__(self, highest: bool) -> None:
        self._highest = highest
        self.places: list[bytes] = []
        self.bound = LAST if highest else b""
        self._size = FIRST_PLACES // 2

    def fill(self, entries: Iterable[Entry], least: int) -> None:
        """Take places from index rows, which begin at this end of the set: `least` or more, the
        more often they were popped, the more."""
        self._size = min(2 * self._size, MOST_PLACES)
        size = max(self._size, least)
        places: list[bytes] = []
        bound = b"" if self._highest else LAST
        for key, _ in entries:
            place = key[_PLACE_AT:]
            if len(place) > MOST_LENGTH:
                bound = place + b"\0" if self._highest else place
                break
            places.append(place)
            if len(places) == size:
                bound = place if self._highest else place + b"\0"
                break
        if self._highest:
            places.reverse()
        self.places = places
        self.bound = bound

    def came(self, place: bytes) -> None:
        """A place was added to the set."""
        if (place >= self.bound) != self._highest:
            return
        if len(place) > MOST_LENGTH:
            self._cut(bisect_left(self.places, place), place)
            return
        insort(self.places, place)
        if len(self.places) > 2 * MOST_PLACES:
            self._cut(MOST_PLACES, self.places[MOST_PLACES])

    def _cut(self, at: int, place: bytes) -> None:
        """Keep what is before the place with this index, or after it."""
        if self._highest:
            self.places = self.places[at + (self.places[at : at + 1] == [place]) :]
            self.bound = place + b"\0"
        else:
            self.places = self.places[:at]
            self.bound = place

    def went(self, place: bytes) -> None:
        """A place was removed from the set."""
        if (place >= self.bound) == self._highest:
            places = self.places
            del places[bisect_left(places, place)]


class Known:
    """What is kept of one set."""

    def __init__(self, budget: Budget) -> None:
        self.groups = Groups(budget)
        self.low = End(highest=False)
        self.high = End(highest=True)


class Memory:
    """What is kept of all sets."""

    def __init__(self) -> None:
        self._sets: dict[bytes, Known] = {}
        self._budget = Budget()

    def get(self, prefix: bytes) -> Known | None:
        """What is kept of a set."""
        if self._budget.groups > MOST_GROUPS:
            self._sets = {}
            self._budget = Budget()
        return self._sets.get(prefix)

    def add(self, prefix: bytes) -> Known:
        """Begin to keep something of a set."""
        if len(self._sets) >= MOST_SETS:
            self.remove(next(iter(self._sets)))
        known = self._sets[prefix] = Known(self._budget)
        return known

    def remove(self, prefix: bytes) -> None:
        """Forget a set."""
        known = self._sets.pop(prefix, None)
        if known is not None:
            known.groups.forget()


def get(rows: Collection) -> Known | None:
    """What is kept of a set, if anything is."""
    memory = rows.data.log.derived.get(ZSET)
    return memory.get(rows.prefix) if isinstance(memory, Memory) else None


def get_or_new(rows: Collection) -> Known:
    """What is kept of a set."""
    derived = rows.data.log.derived
    memory = derived.get(ZSET)
    if not isinstance(memory, Memory):
        memory = derived[ZSET] = Memory()
    return memory.get(rows.prefix) or memory.add(rows.prefix)


def forget(rows: Collection) -> None:
    """A set is gone."""
    memory = rows.data.log.derived.get(ZSET)
    if isinstance(memory, Memory):
        memory.remove(rows.prefix)
