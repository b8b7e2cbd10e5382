"""A core whose RocksDB fails or stalls on demand: what test_turn.py and test_turn_sync.py share.

The tests play the event loop: they run commands through the dispatcher, end the turn, and finish
fsyncs, so that each order of events can be set up exactly. What the edge does with real
processes and a real full disk is in test_recovery.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from core import Client, Core

from kvserver.state.admission import FAILED, STALLED
from kvserver.storage.commitlog import EngineError, EngineStalled

REASON = "IO error: No space left on device"
MISCONF = b"-MISCONF Errors writing to the AOF file: " + REASON.encode() + b"\r\n"
OK = b"+OK\r\n"
NIL = b"$-1\r\n"


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


class Node(Core):
    """A core that reacts to stalls and failures as the edge does, but doesn't recover."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stalls = 0
        self.failures: list[str] = []
        self.turn.on_stall = self._stalled
        self.turn.on_failure = self._failed
        self._write = self.engine.write

    def _stalled(self) -> None:
        self.stalls += 1
        self.dispatcher.raise_gate(STALLED)

    def _failed(self, reason: str) -> None:
        self.failures.append(reason)
        self.log.failed = True
        self.dispatcher.failure = reason
        self.dispatcher.raise_gate(FAILED)

    def next_writes(self, *faults: Exception) -> None:
        """The next writes to RocksDB raise these; those after them work."""
        left = list(faults)

        def write(batch: object) -> None:
            if left:
                raise left.pop(0)
            self._write(batch)  # type: ignore[arg-type]

        self.engine.write = write  # type: ignore[method-assign]

    def fail(self) -> None:
        self.next_writes(EngineError(REASON))

    def stall(self) -> None:
        self.next_writes(EngineStalled("Result incomplete: Write stall"))

    def end(self) -> None:
        """End the turn, and go on as long as walks have something to do."""
        self.end_turn()
        while self.server.waiting.walks:
            self.server.waiting.step_walks(1_000_000_000)
            self.end_turn()

    def sync(self) -> Callable[[], None]:
        """Begin an fsync; the returned function is its success."""
        seq = self.log.begin_sync()
        assert seq is not None

        def finish() -> None:
            self.log.end_sync(seq)
            self.turn.released()

        return finish


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path / "db") as node:
        yield node


def run(client: Client, *words: bytes | str) -> None:
    """Execute a command in the running turn."""
    client.call(*(word if isinstance(word, bytes) else word.encode() for word in words))
