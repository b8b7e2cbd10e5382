"""What a run sets in the core's modules: time, random ids, and sizes small enough to be met.

With sizes of a few hundred bytes a run of small rows is cut into pieces as gigabytes would be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from kvserver import database, history
from kvserver.replication import incoming, padding, primary, replica, rewind, taken_back
from kvserver.storage import commitlog, positions
from sim import log

if TYPE_CHECKING:
    from sim.world import World

_NORMAL: dict[tuple[Any, str], Any] = {}
_SMALL: dict[tuple[Any, str], Any] = {
    (primary, "HIGH_WATER"): 600,
    (primary, "PUMP_BYTES"): 300,
    (primary, "CHUNK_BYTES"): 200,
    (primary, "ROWS_AT_ONCE"): 2,
    (primary, "ROW_BYTES_AT_ONCE"): 100,
    (replica, "APPLY_BYTES"): 300,
    (rewind, "KEYS_AT_ONCE"): 2,
    (incoming, "MAX_UNWRITTEN"): 300,
    (rewind, "REQUESTS_AT_ONCE"): 2,
    (taken_back, "MAX_REWINDS"): 64,
    (taken_back, "PIECE_RECORDS"): 3,
    (database, "_SINGLE_DELETIONS"): 2,
}


@contextmanager
def patched(world: World) -> Iterator[None]:
    """The core belongs to this world."""

    def unix_ms() -> int:
        return world.unix_ms(world.current)

    clock = SimpleNamespace(time_ns=lambda: unix_ms() * 1_000_000)

    def replid() -> str:
        return f"{world.random.getrandbits(160):040x}"

    values: dict[tuple[Any, str], Any] = {
        (commitlog, "_unix_ms"): unix_ms,
        (padding, "time"): clock,
        (taken_back, "time"): clock,
        (history, "new_replid"): replid,
        (positions, "WalDirectory"): log.directory,
        (positions, "WalReader"): log.reader,
        **(_SMALL if world.plan.small else _NORMAL),
    }
    with ExitStack() as stack:
        for (module, name), value in values.items():
            stack.enter_context(patch.object(module, name, value))
        yield
