"""A power cut with `appendfsync always`: only what was fsynced is left, and that is enough.

The shim notes how long each file was when it was fsynced; after kill -9 every file is cut to that
length, the log and the data files alike. It is harsher than a disk: nothing else ever got there.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import datadir
import pytest
from faults import Shim
from faults import shim as shim
from faults import shim_library as shim_library
from harness import Server, wait_until
from load import Load

FreshServer = Callable[..., Server]
DIRECTIVES = {
    "appendfsync": "always",
    "rocksdb.write_buffer_size": 1,
    "rocksdb.max_total_wal_size": 2,
}


def cut_power(db: Path, synced: dict[str, int]) -> int:
    """Cut the files to what is on the disk for certain; returns how many bytes that took."""
    lost = 0
    for path in db.iterdir():
        if path.suffix in (".log", ".sst") or path.name.startswith("MANIFEST-"):
            size = path.stat().st_size
            certain = min(synced.get(str(path), 0), size)
            os.truncate(path, certain)
            lost += size - certain
    return lost


def rounds(server: Server, shim: Shim, count: int, chance: random.Random) -> int:
    """Write, cut the power, start, compare; returns how many bytes were lost in all."""
    load = Load(server, str(chance.random()))
    lost = 0
    for _ in range(count):
        load.start()
        acked = load.acked
        enough = chance.randrange(50, 1500)
        wait_until(lambda: load.acked - acked > enough, 30.0, "writers write")  # noqa: B023
        server.kill9()
        load.stop()
        lost += cut_power(server.directory / "db", shim.synced_sizes())
        datadir.check(server.directory / "db")
        server.start()
        load.settle()
    return lost


def test_what_was_acknowledged_survives_a_power_cut(fresh_server: FreshServer, shim: Shim) -> None:
    server = fresh_server(env=shim.env, **DIRECTIVES)
    rounds(server, shim, 2, random.Random(time.time_ns()))


@pytest.mark.long
def test_what_was_acknowledged_survives_power_cuts(fresh_server: FreshServer, shim: Shim) -> None:
    server = fresh_server(env=shim.env, **DIRECTIVES)
    assert rounds(server, shim, 40, random.Random(time.time_ns())) > 0
