"""Some of the soak, with a seed of its own each day; `make soak` runs it longer."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from soak import Soak

SECONDS = 40.0


@pytest.mark.timeout(600)
def test_soak(tmp_path: Path) -> None:
    seed = os.environ.get("SOAK_SEED", datetime.date.today().isoformat())
    soak = Soak(tmp_path, SECONDS, seed)
    try:
        soak.run()
    finally:
        print(f"seed {seed}\n{soak.report()}")
    assert soak.crowd.acked > 1000 and soak.digests >= 1
    assert all(len(queue.done) > 30 for queue in soak.crowd.queues.queues)
