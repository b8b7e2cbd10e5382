"""The jobs that rq runs: imported by the test and by the workers' processes."""

from __future__ import annotations

import os
import time
from pathlib import Path


def note(line: str) -> None:
    """Leave a line for the test: in one write, so that processes don't mix theirs."""
    with (Path(os.environ["WORK_DIR"]) / "executions").open("a") as file:
        file.write(line + "\n")


def square(number: int) -> int:
    note(f"square {number}")
    return number * number


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def second_time_lucky(name: str) -> str:
    """Fails when it runs for the first time."""
    marker = Path(os.environ["WORK_DIR"]) / f"tried-{name}"
    if not marker.exists():
        marker.touch()
        raise ValueError("on purpose")
    return name


def failing() -> None:
    raise ValueError("on purpose")
