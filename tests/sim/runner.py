"""Runs seeds: one, or many in several processes."""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sim.model import Violation
from sim.mutations import Mutant
from sim.patches import patched
from sim.world import World

#: Seeds that a process takes at once.
CHUNK = 50
#: Failures after which no more seeds are tried.
ENOUGH = 5


def run_seed(
    seed: int, trace: bool = False, mutant: Mutant | None = None, root: Path | None = None
) -> str:
    """Run one seed, on real RocksDB below `root` if that is given; why it fails, or an empty
    string."""
    world = World(seed, trace, mutant.plan if mutant else {}, root)
    with patched(world), mutant.broken() if mutant else nullcontext():
        try:
            world.run()
        except Violation as violation:
            return f"seed {seed}: {violation}"
        except Exception as error:
            if mutant is not None:
                raise
            return f"seed {seed}: {type(error).__name__}: {error}"
        finally:
            world.close()
    return ""


def _run_chunk(first: int, count: int, root: Path | None) -> list[str]:
    logging.disable(logging.CRITICAL)
    failures = []
    for seed in range(first, first + count):
        directory = None if root is None else root / str(seed)
        failures.append(run_seed(seed, root=directory))
        if directory is not None:
            shutil.rmtree(directory)
    return [failure for failure in failures if failure]


def run_many(first: int, count: int, root: Path | None = None) -> list[str]:
    """Run many seeds on all processors, on real RocksDB below `root` if that is given; what
    fails."""
    size = CHUNK if root is None else 1
    failures: list[str] = []
    pool: Any = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
    with pool:
        tasks = [
            pool.submit(_run_chunk, at, min(size, first + count - at), root)
            for at in range(first, first + count, size)
        ]
        for task in tasks:
            failures += task.result()
            if len(failures) >= ENOUGH:
                pool.shutdown(cancel_futures=True)
                break
    return failures


def replay(failures: list[str]) -> str:
    """What to tell about failures."""
    return "\n".join([*failures, "replay one with: PYTHONPATH=tests python -m sim <seed>"])
