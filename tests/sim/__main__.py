"""`PYTHONPATH=tests python -m sim <seed> [directory]`: replay a seed and tell what happens (on real
RocksDB in that directory). `python -m sim <first> - <count>`: run many."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from sim.runner import replay, run_many, run_seed


def main(words: list[str]) -> int:
    """Returns the exit status."""
    if len(words) == 3 and words[1] == "-":
        failures = run_many(int(words[0]), int(words[2]))
        print(replay(failures) if failures else "all of them hold")
        return 1 if failures else 0
    logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, format="          %(message)s")
    failure = run_seed(int(words[0]), trace=True, root=Path(words[1]) if words[1:] else None)
    print(failure or "it holds")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
