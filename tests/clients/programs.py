"""Programs that work on a server: worker processes, node scripts, redis-cli.

It knows nothing of pytest. Output goes to files, so a full pipe never stops a program, and a
failed test can show what its programs said. Only processes that were started here are ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
NODE = HERE / "node"
STOP_SECONDS = 20.0


class Worker:
    """A process that runs beside the test: `python ...`, from this directory."""

    def __init__(self, log: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1", **env},
                # Workers have children of their own: all are ended together.
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tail(self, lines: int = 60) -> str:
        """The last lines that it and its children wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill9(self) -> None:
        """End it and its children at once."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end; insist after a while."""
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self.kill9()

    def _signal(self, sig: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, sig)
        except ProcessLookupError:
            pass


def python(*args: str) -> list[str]:
    """The command line of this interpreter with `args`."""
    return [sys.executable, *args]


def run(command: Sequence[str], timeout: float = 60.0, **env: str) -> str:
    """Run a program to its end and return its output; AssertionError unless it exits with 0."""
    done = subprocess.run(
        command,
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **env},
        timeout=timeout,
    )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}:\n{output}"
    return output
