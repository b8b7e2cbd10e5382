"""How far a replica is behind: known from what was sent to it, and never looked up in the log.

It must not know links or files. Bytes are counted as RocksDB counts those of its batches. Samples
of what was sent are kept until it is acknowledged. Invariants:
- A look takes the same time however far behind the replica is.
- The age is that of the oldest write that the replica lacks, or up to SAMPLE_MS more; the bytes are
  right, or up to SAMPLE_BYTES more. While more than MOST_SAMPLES would be in flight there is
  one for twice the time and the bytes, and so on.
- What was in the log before the replica came is counted by the sizes of files, which are
  some percent more than their batches, until the replica has been sent everything once.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from kvserver.frames import Frame
from kvserver.storage.engine import Engine
from kvserver.storage.wal_batch import BATCH_HEADER

SAMPLE_MS: Final = 10
SAMPLE_BYTES: Final = 1 << 14
MOST_SAMPLES: Final = 4096


class Lag:
    """What a replica was sent and hasn't acknowledged."""

    def __init__(self, engine: Engine, backlog: int) -> None:
        self._engine = engine
        #: How many bytes had been written where the next frame begins.
        self._at = engine.written - backlog
        #: (first position, unix ms, where it begins), of some of the frames sent.
        self._samples: deque[tuple[int, int, int]] = deque()
        #: For how many times SAMPLE_MS and SAMPLE_BYTES there is one.
        self._step = 1

    def sent(self, frame: Frame, acked: int) -> None:
        """This frame was sent; the replica has everything up to `acked`."""
        samples, step = self._samples, self._step
        if (
            not samples
            or frame.unix_ms - samples[-1][1] >= SAMPLE_MS * step
            or self._at - samples[-1][2] >= SAMPLE_BYTES * step
        ):
            self._forget(acked)
            samples.append((frame.first_seq, frame.unix_ms, self._at))
            if len(samples) > MOST_SAMPLES:
                self._samples = deque(list(samples)[::2])
                self._step *= 2
        self._at += BATCH_HEADER + len(frame.payload)

    def sent_all(self) -> None:
        """There is nothing left to be sent."""
        self._at = self._engine.written

    def _forget(self, acked: int) -> None:
        """Keep the sample of the frame after `acked`, or the last one before that, and those that
        follow."""
        samples = self._samples
        while len(samples) > 1 and samples[1][0] <= acked + 1:
            samples.popleft()
        if len(samples) == 1:
            self._step = 1

    def unacknowledged(self, acked: int) -> tuple[int, int]:
        """Of a replica that hasn't acknowledged all it was sent: the bytes that it lacks, and the
        unix time in ms of the oldest write that it lacks."""
        self._forget(acked)
        _, unix_ms, at = self._samples[0]
        return self._engine.written - at, unix_ms

    @property
    def unsent(self) -> int:
        """The bytes that weren't sent yet."""
        return max(self._engine.written - self._at, 0)
