"""Runs kvserver, and kills it with SIGKILL at a labelled step of a commit or an fsync.

    python crash_launcher.py <label> <n> [kvserver's arguments]

The n-th time (from 1) that the step with the label is reached the process ends. The product has
no more of this than `CommitLog.step`.
"""

from __future__ import annotations

import os
import signal
import sys

from kvserver import cli
from kvserver.edge import app
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.engine import Engine


def main() -> None:
    label, left = sys.argv[1], int(sys.argv[2])

    def step(reached: str) -> None:
        nonlocal left
        if reached == label:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def make(engine: Engine) -> CommitLog:
        log = CommitLog(engine)
        log.step = step
        return log

    app.CommitLog = make  # type: ignore[assignment,misc]
    sys.argv[1:3] = []
    cli.main()


if __name__ == "__main__":
    main()
