"""REWIND: take back what a replica has and its primary doesn't, without a full sync.

It must not know files. The replica reads in its own log which keys and ranges were written since
the fork, asks the primary for their present rows, and writes these rows, the fork as its position,
and that it is equal to its primary only from position M on, the primary's position when the last
row was read. What asks and what writes is cut into pieces (taken_back.py). Frames are physical, so
those from the fork to M may be applied over rows that are newer already: at M everything is equal
(docs/replication.md, "Rewind").

Invariants:
- The discarded frames are saved before anything is taken back.
- The event loop is never held for longer than some milliseconds.
- Who rewinds serves nobody from the moment that it is told to.
- A rewind that begins before an earlier one reached its M takes back that one's rows too: it
  reads the log from where that one began to read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from kvserver import frames, history
from kvserver.codec import HISTORY_KEY, LOCAL_PREFIX, STAMP_KEY
from kvserver.frames import Frame, FrameError
from kvserver.replication.taken_back import TakenBack
from kvserver.storage.commitlog import LOG, EngineError, EngineStalled
from kvserver.storage.positions import LogGone, Touched
from kvserver.storage.wal_batch import WalError

if TYPE_CHECKING:
    from kvserver.replication.replica import Upstream

logger = logging.getLogger("kvserver")

#: Keys in one command to the primary.
KEYS_AT_ONCE: Final = 256
#: Commands that are sent in one go.
REQUESTS_AT_ONCE: Final = 16
STALL_RETRY_SECONDS: Final = 0.003
_END: Final = (b"END",)

Rows = list[dict[bytes, bytes]]


class Rewind:
    """The rewind under way."""

    def __init__(self, upstream: Upstream, fork: int) -> None:
        self._upstream = upstream
        self._node = upstream.node
        self.fork = fork
        self._start = 0
        self._touched: Touched | None = None
        self._rows: Rows = [{}, {}, {}, {}]
        self._received = 0
        #: Everything has come, and this server is at work.
        self.is_writing = False
        self._limit = self._node.config.get_int("replication-rewind-max-bytes")

    def begin(self) -> None:
        """Read the own log."""
        node = self._node
        log = node.log
        node.cut_all()
        if self.fork > log.committed_seq:
            self._upstream.fail(f"it answers with a fork at {self.fork}, which isn't in our log")
            return
        try:
            self._start = node.rewind_start(self.fork)
        except (LogGone, WalError) as error:
            self._give_up(str(error))
            return
        lost = log.committed_seq - self.fork
        logger.warning("Rewinding to position %d: %d positions are taken back", self.fork, lost)
        node.files.collect(self._start, self.fork, self._limit, self._collected)

    def _give_up(self, reason: str) -> None:
        # On a new link: on this one frames may come at any time, and PSYNC's answer is a line.
        self._upstream.may_rewind = False
        self._upstream.ask_anew(f"rewinding is not possible: {reason}")

    def _collected(self, touched: Touched | str) -> None:
        if isinstance(touched, str):
            self._give_up(touched)
            return
        self._touched = touched
        self._node.files.save_discarded(touched.frames, self._saved)

    def _saved(self, failure: str) -> None:
        touched = self._touched
        assert touched is not None
        if failure:
            self._give_up(f"the discarded writes can't be saved: {failure}")
            return
        if touched.wanted > self._limit:
            self._give_up("the keys to ask for exceed replication-rewind-max-bytes")
            return
        self._ask(_requests(touched))

    def _ask(self, requests: Iterator[tuple[bytes, ...]]) -> None:
        """Send some of the requests, and others in the next turn."""
        if not self._upstream.rewinding(self):
            return
        for words in islice(requests, REQUESTS_AT_ONCE):
            self._upstream.send_command(*words)
            if words == _END:
                return
        self._node.timers.call_later(0, self._ask, requests)

    def take(self, frame: Frame) -> None:
        """The primary's present rows; FrameError if nobody asked for them."""
        if self._touched is None:
            raise FrameError("rows for a rewind that didn't ask yet")
        if frame.kind == frames.VALUES:
            self._add(frame.payload)
        elif frame.kind == frames.VALUES_END:
            self._finish(frame)
        else:
            raise FrameError(f"a frame of kind {frame.kind} in a rewind")

    def _add(self, payload: bytes) -> None:
        self._received += len(payload)
        if self._received > self._limit:
            self._upstream.may_rewind = False
            raise FrameError("the rows for a rewind exceed replication-rewind-max-bytes")
        fields = frames.unpack_fields(payload)
        if len(fields) % 2:
            raise FrameError("a key without a row")
        for key, row in zip(fields[::2], fields[1::2], strict=True):
            if not key or key[0] >= len(self._rows):
                raise FrameError("a row of an unknown column family")
            if key[0] == LOG and (key[1:] == STAMP_KEY or key[1:].startswith(LOCAL_PREFIX)):
                raise FrameError("a row of the primary's own")
            self._rows[key[0]][key[1:]] = row

    def _finish(self, frame: Frame) -> None:
        touched = self._touched
        assert touched is not None
        try:
            theirs = history.decode(frame.payload)
        except ValueError as error:
            raise FrameError(str(error)) from None
        self._rows[LOG][HISTORY_KEY] = theirs.encode()
        self._write(touched, frame.last_seq)

    def _write(self, touched: Touched, until: int) -> None:
        pieces = TakenBack(self._node, touched, self._rows, self.fork, until, self._start)
        self.is_writing = True
        self._write_piece(pieces, until)

    def _write_piece(self, pieces: TakenBack, until: int) -> None:
        """Write a piece, and the next one in another turn."""
        if not self._upstream.rewinding(self):
            return  # the next attempt takes back what was written
        delay = 0.0
        try:
            if pieces.write():
                size = self._received
                logger.info("Rewound to %d with %d bytes; equal from %d on", self.fork, size, until)
                self._upstream.psync()
                return
        except EngineStalled:
            delay = STALL_RETRY_SECONDS
        except EngineError as error:
            self._node.write_failed(str(error))
            self._upstream.fail(f"the rewind can't be written: {error}")
            return
        self._node.timers.call_later(delay, self._write_piece, pieces, until)


def _requests(touched: Touched) -> Iterator[tuple[bytes, ...]]:
    """REPLCONF KEYS, RANGE and END."""
    for cf, keys in enumerate(touched.keys):
        rest = iter(keys)
        while some := tuple(islice(rest, KEYS_AT_ONCE)):
            yield b"KEYS", b"%d" % cf, *some
    for cf, begin, end in touched.ranges:
        yield b"RANGE", b"%d" % cf, begin, end
    yield _END
