"""Runs kvserver, and says at its end how often Python's collector has run unasked since the server
was ready."""

from __future__ import annotations

import gc
from typing import Any

from kvserver import cli
from kvserver.edge.cron import Cron


def main() -> None:
    unasked = 0
    serving = False

    def note(phase: str, _info: dict[str, Any]) -> None:
        nonlocal unasked
        unasked += phase == "start" and serving and gc.isenabled()

    def start(cron: Cron) -> None:
        nonlocal serving
        serving = True
        begin(cron)

    gc.callbacks.append(note)
    begin, Cron.start = Cron.start, start  # type: ignore[method-assign]
    try:
        cli.main()
    finally:
        print(f"unasked: {unasked}", flush=True)


if __name__ == "__main__":
    main()
