"""How long reads of RocksDB take, and whether the running command waits for one elsewhere.

A single read holds the loop until it is done. While reads are quick (their blocks are in RocksDB's
block cache or in the kernel's page cache) nothing is quicker than that. When they aren't, memory
alone is asked first. What would have to come from the disk is read on the loop as long as all such
reads of a turn are short, and the last one was. After that it raises `ColdRead`: dispatch sets the
command aside, a thread reads the blocks, and the command is executed again
(kvserver/state/cold.py). It must not know rows, commands or clients. Invariants:
- `ColdRead` is raised only while `waits` is set, before the running command wrote anything.
- `average_ns` is one of reads on the loop; while they are slow, of those that memory couldn't
  answer. If a single one is too long for a turn, some are tried all the same, to see whether
  that has changed. They take a hundredth of the time.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Final

from kvserver.storage.engine import ColdRead, Engine

#: Reads that take longer on average may come from the disk. One from the page cache takes 10 us.
SLOW_NS: Final = 25_000
#: What reads from the disk may take of a turn. A command that is set aside costs the loop about as
#: much as a read from a quick disk.
TURN_NS: Final = 1_000_000
#: Reads that take longer come from a disk that others keep busy: the average says little then.
LONG_NS: Final = 2_000_000
#: A read counts as at most so long: another process may have had the processor.
LONGEST_NS: Final = 4_000_000
#: How much of the average the last read is, as a shift.
WEIGHT: Final = 3
#: The share of the time that trials take.
TRIAL_SHARE: Final = 100
#: When no read has gone to the disk for so long, they are taken for quick again.
CALM_NS: Final = 1_000_000_000

_NONE: Final[set[bytes]] = set()


class Reads:
    """Reads of single rows that no cache of ours has."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.slow_ns = SLOW_NS
        self.turn_ns = TURN_NS
        self.calm_ns = CALM_NS
        self.average_ns = 0
        self.slow = False
        #: What reads from the disk took of this turn; whoever ends turns sets it to 0.
        self.spent_ns = 0
        #: Set by dispatch around a command that can be set aside.
        self.waits = False
        #: Keys that were read for the running command: they are in the block cache, or in the page
        #: cache at least.
        self.warmed: set[bytes] = _NONE
        #: The row that ColdRead was raised for.
        self.cold_cf = 0
        self.cold_key = b""
        self._cold_at = 0
        #: When the next read is tried on the loop.
        self.trial_at = 0
        #: The last read on the loop was a long one: until `trial_at` there is no other.
        self.busy = False

    def begin(self, waits: bool, warmed: set[bytes] | None) -> None:
        """A command runs while reads are slow."""
        self.waits = waits
        self.warmed = _NONE if warmed is None else warmed

    def took(self, elapsed_ns: int) -> None:
        """A read on the loop took so long."""
        if elapsed_ns > LONGEST_NS:
            elapsed_ns = LONGEST_NS
        self.average_ns += (elapsed_ns - self.average_ns) >> WEIGHT
        if self.average_ns <= self.slow_ns:
            self.slow = False
        elif not self.slow:
            self.slow = True
            self._cold_at = perf_counter_ns()

    def timed(self, cf: int, key: bytes) -> bytes | None:
        """Read a row, and note how long that takes."""
        start = perf_counter_ns()
        row = self._engine.get(cf, key)
        elapsed = perf_counter_ns() - start
        if elapsed > LONG_NS:
            self._rest(start, elapsed)
        self.took(elapsed)
        return row

    def _rest(self, start: int, elapsed: int) -> None:
        """A read on the loop took so long: when there may be another, whatever it may take."""
        self.trial_at = start + TRIAL_SHARE * elapsed
        self.busy = elapsed > LONG_NS

    def load(self, cf: int, key: bytes, changed: bool) -> bytes | None:
        """Read a row while reads are slow. `changed`: the running command wrote already."""
        if not self.waits or changed or key in self.warmed:
            return self._engine.get(cf, key)
        may_exist, row = self._engine.in_memory(cf, key)
        if row is not None or not may_exist:
            return row
        self._cold_at = start = perf_counter_ns()
        if not self.allows(1) and start < self.trial_at:
            self.cold_cf, self.cold_key = cf, key
            raise ColdRead
        row = self._engine.get(cf, key)
        elapsed = perf_counter_ns() - start
        self.spent_ns += elapsed
        self._rest(start, elapsed)
        self.took(elapsed)
        return row

    def allows(self, rows: int) -> bool:
        """Whether the turn has time to read so many rows from the disk."""
        return not self.busy and self.spent_ns + rows * self.average_ns <= self.turn_ns

    def is_cold(self, cf: int, key: bytes) -> bool:
        """Whether the disk would have to be asked for a row that no cache of ours has."""
        if key in self.warmed:
            return False
        may_exist, row = self._engine.in_memory(cf, key)
        return may_exist and row is None

    def calm(self, now_ns: int) -> None:
        """Take reads for quick again when none has gone to the disk for a while."""
        if now_ns - self._cold_at > self.calm_ns:
            self.slow = self.busy = False
            self.average_ns = self.slow_ns
