"""How much log there is: its files and their bytes, as they were measured last.

To list directories and ask for sizes takes time that grows with the log, so a worker thread
measures once a second, and the event loop reads what it found. It must not know positions or what
is in the files. Invariants:
- What was found is replaced as a whole: a reader in another thread sees one measurement.
- A file that has two newer ones is finished (RocksDB creates a file before it writes the last bytes
  of the one before), and isn't asked for its size again.
"""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

from kvserver.storage.engine import Engine
from kvserver.storage.wal import WalDirectory, archive_path

#: A directory's time moves in ticks of milliseconds: after a change just now another one may leave
#: it the same.
_AT_REST_NS: Final = 1_000_000_000


class Extent(NamedTuple):
    """The numbers of the files, ascending, their bytes, and what RocksDB had been given to write
    by then."""

    numbers: list[int]
    size: int
    written: int


class WalExtent:
    """The files of one data set's log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._directory = WalDirectory(engine.path)
        self._sizes: dict[int, int] = {}
        self._seen = (0, 0)
        self._found: Extent | None = None

    @property
    def found(self) -> Extent:
        """What was measured last; measures if nothing was yet."""
        found = self._found
        return self.measure() if found is None else found

    @property
    def size(self) -> int:
        """The bytes of the log now: what was measured, and what was written since."""
        found = self.found
        return found.size + max(self._engine.written - found.written, 0)

    def measure(self) -> Extent:
        """Look at the disk, for as long as that takes."""
        written = self._engine.written
        seen = self._changed()
        found = self._found
        rested = time.time_ns() - max(seen) > _AT_REST_NS
        if found is not None and seen == self._seen and rested:
            numbers = found.numbers
        else:
            numbers = self._directory.numbers()
            self._seen = seen if rested else (0, 0)
        self._found = found = Extent(numbers, self._sum(numbers), written)
        return found

    def _changed(self) -> tuple[int, int]:
        """When files last came to the two directories or went."""
        times = []
        for path in (self._engine.path, archive_path(self._engine.path)):
            try:
                times.append(os.stat(path).st_mtime_ns)
            except FileNotFoundError:
                times.append(0)
        return times[0], times[1]

    def _sum(self, numbers: list[int]) -> int:
        finished, live = numbers[:-2], numbers[-2:]
        known, size = self._sizes, self._directory.size
        self._sizes = {n: known[n] if n in known else size(n) for n in finished}
        return sum(self._sizes.values()) + sum(map(size, live))
