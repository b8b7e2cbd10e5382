"""A full sync as the replica sees it: files in, a data set that takes the old one's place.

It must not know how files are written. Invariants: what the primary names stays inside the
directory that receives it; nothing takes the place of the old data set before every file is
there, whole and checked; while files are written more slowly than they come, nothing is read.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from kvserver import frames
from kvserver.frames import Frame, FrameError

if TYPE_CHECKING:
    from kvserver.replication.replica import Upstream

logger = logging.getLogger("kvserver")

#: Bytes that are received and not yet written, before reading stops.
MAX_UNWRITTEN: Final = 8 << 20
#: What RocksDB calls its files; without the first there is no data set.
_NEEDED: Final = "CURRENT"
_NAME: Final = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
MAX_FILES: Final = 100_000


class Incoming:
    """The transfer under way."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._node = upstream.node
        self._files: list[tuple[str, int]] = []
        #: Indices of the files that are still due, and the bytes received of each.
        self._due: dict[int, int] = {}
        #: Those of them that were there already; the primary sends them if it has others.
        self._claimed: set[int] = set()
        #: Whether the primary was told what is there, and may send the others.
        self._is_asked = False
        self._unwritten = 0
        self._unchecked = 0
        self._complete = False
        #: The disk has its turn, and nothing is read: to find out which files are there, to write
        #: what came, or to let it take the old data set's place.
        self.is_behind = False
        self._percent = -1
        self.bytes_total = 0
        self.bytes_done = 0

    def take(self, frame: Frame) -> None:
        """A frame of the transfer; FrameError if it may not come now."""
        if frame.kind == frames.FILES and not self._files:
            self._begin(frame)
        elif not self._is_asked:
            raise FrameError(f"a frame of kind {frame.kind} before files were asked for")
        elif frame.kind == frames.CHUNK and frame.first_seq in self._due:
            self._write(frame)
        elif frame.kind == frames.FILE_END and frame.first_seq in self._due:
            self._end_file(frame)
        elif frame.kind == frames.SYNC_END and self._files and self._due.keys() <= self._claimed:
            self._complete = True
            self._maybe_install()
        else:
            raise FrameError(f"a frame of kind {frame.kind} out of order in a full sync")

    def _begin(self, frame: Frame) -> None:
        fields = frames.unpack_fields(frame.payload)
        if not fields or len(fields) % 2 or len(fields) > 2 * MAX_FILES:
            raise FrameError("a list of files that is none")
        for name, size in zip(fields[::2], fields[1::2], strict=True):
            if not _NAME.fullmatch(name) or len(size) != 8:
                raise FrameError(f"a file with a name or size that is none: {name[:100]!r}")
            self._files.append((name.decode(), int.from_bytes(size, "big")))
        names = {name for name, _ in self._files}
        if len(names) != len(self._files) or _NEEDED not in names:
            raise FrameError("a list of files that is no data set")
        self._due = dict.fromkeys(range(len(self._files)), 0)
        self.bytes_total = sum(size for _, size in self._files)
        mib = self.bytes_total / (1 << 20)
        logger.info("Full sync: %d files with %.1f MB come", len(self._files), mib)
        self._wait()
        self._node.files.begin_incoming(self._files, self._begun)

    def _begun(self, result: list[tuple[str, int]] | str) -> None:
        if isinstance(result, str):
            self._upstream.fail(f"a full sync can't be received: {result}")
            return
        sizes = {name: (index, size) for index, (name, size) in enumerate(self._files)}
        for name, crc in result:
            self._upstream.send_command(b"HAVE", name.encode(), b"%d" % crc)
        self._claimed = {sizes[name][0] for name, _ in result}
        self.bytes_done = sum(sizes[name][1] for name, _ in result)
        if result:
            mib = self.bytes_done / (1 << 20)
            logger.info("Full sync: %d files are there already, %.1f MB", len(result), mib)
        self._tell()
        self._upstream.send_command(b"END")
        self._is_asked = True
        self._go_on()

    def _wait(self) -> None:
        self.is_behind = True
        self._upstream.pause_reading()

    def _go_on(self) -> None:
        self.is_behind = False
        self._upstream.resume_reading()

    def _write(self, frame: Frame) -> None:
        name, size = self._files[frame.first_seq]
        got = self._due[frame.first_seq]
        data = frame.payload
        if frame.last_seq != got or got + len(data) > size:
            raise FrameError(f"a piece of {name} that doesn't continue it")
        if not got and frame.first_seq in self._claimed:
            self.bytes_done -= size  # it was not what the primary has
        self._due[frame.first_seq] = got + len(data)
        self._unwritten += len(data)
        self.bytes_done += len(data)
        self._tell()
        if self._unwritten > MAX_UNWRITTEN:
            self._wait()
        self._node.files.write(name, got, data, lambda why: self._written(len(data), why))

    def _written(self, size: int, failure: str) -> None:
        if failure:
            self._upstream.fail(f"a file of the full sync can't be written: {failure}")
            return
        before, self._unwritten = self._unwritten, self._unwritten - size
        if before > MAX_UNWRITTEN >= self._unwritten:
            self._go_on()
        self._maybe_install()

    def _end_file(self, frame: Frame) -> None:
        name, size = self._files[frame.first_seq]
        if self._due.pop(frame.first_seq) != size:
            raise FrameError(f"{name} ends before its size")
        self._claimed.discard(frame.first_seq)
        self._unchecked += 1
        self._node.files.end_file(name, frame.last_seq, self._checked)

    def _checked(self, failure: str) -> None:
        if failure:
            self._upstream.fail(f"a file of the full sync is damaged: {failure}")
            return
        self._unchecked -= 1
        self._upstream.progressed()
        self._maybe_install()

    def _tell(self) -> None:
        self._node.sync_progress(self)
        percent = self.percent
        if percent // 10 > self._percent // 10:
            self._percent = percent
            logger.info("Full sync: %d%% received", percent)

    @property
    def percent(self) -> int:
        """How much is there."""
        return self.bytes_done * 100 // max(self.bytes_total, 1)

    def _maybe_install(self) -> None:
        if self._complete and not self._unwritten and not self._unchecked:
            self._complete = False
            self._wait()
            self._node.before_install()
            self._node.files.install(self._installed)

    def _installed(self, failure: str) -> None:
        self._node.after_install(failure)
        if self._upstream.incoming is not self:
            return  # the link ended meanwhile
        if failure:
            self._upstream.fail(f"the received data set can't be opened: {failure}")
            return
        logger.info("Full sync: done, at position %d", self._node.log.committed_seq)
        self._upstream.may_rewind = True
        self._upstream.psync()
        self._go_on()
