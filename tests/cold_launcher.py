"""Runs kvserver as if no row were ever in memory: every read of one sets its command aside.

    python cold_launcher.py <hold> [kvserver's arguments]

While a file named `hold` exists the worker threads read nothing. Without a row cache
(`row-cache-size 0`) it is every read, otherwise every first one.
"""

from __future__ import annotations

import os
import sys
import time

from kvserver import cli
from kvserver.edge import app
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.engine import Engine

NEVER = 1 << 62


def read_all_cold(log: CommitLog) -> None:
    """Reads are slow for good, and none is tried on the loop."""
    log.reads.slow = True
    log.reads.slow_ns = log.reads.turn_ns = -1
    log.reads.calm_ns = log.reads.trial_at = NEVER


def all_on_disk(_engine: Engine, _cf: int, _key: bytes) -> tuple[bool, bytes | None]:
    """`Engine.in_memory` when nothing is."""
    return True, None


def main() -> None:
    hold = sys.argv.pop(1)
    fetch = Engine.fetch

    def held(engine: Engine, cf: int, keys: list[bytes]) -> list[bytes | None]:
        while os.path.exists(hold):
            time.sleep(0.002)
        return fetch(engine, cf, keys)

    def make(engine: Engine) -> CommitLog:
        log = CommitLog(engine)
        read_all_cold(log)
        return log

    Engine.fetch = held  # type: ignore[method-assign]
    Engine.in_memory = all_on_disk  # type: ignore[method-assign]
    app.CommitLog = make  # type: ignore[assignment,misc]
    cli.main()


if __name__ == "__main__":
    main()
