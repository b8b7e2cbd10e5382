"""The directories of a data set, and how one takes the place of another.

It must not know RocksDB or the event loop; everything here blocks. In `dir` there are

    db           the data set that is served
    fullsync     files of a full sync, not all there yet
    db.new       a full sync's data set, complete and on disk
    db.old       the data set whose place `db` took, until that one has been opened
    db.bad       a full sync's data set that couldn't be opened
    snapshots    checkpoints that are sent to replicas
    rewound      frames that rewinds took back

Invariants:
- At each step of a swap a crash leaves a state that `settle` finishes or undoes: a data set in
  `db.new` is whole, and `db.old` is kept until the new one has been opened.
- Nothing is touched before `lock`: another process may serve the directory.
- What a name stands for is on disk before the next step: each rename is followed by an fsync of
  `dir`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress

logger = logging.getLogger("kvserver")

Step = Callable[[str], None]


class Directories:
    """The names below `dir`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.db = os.path.join(root, "db")
        self.new = os.path.join(root, "db.new")
        self.old = os.path.join(root, "db.old")
        self._bad = os.path.join(root, "db.bad")
        self.incoming = os.path.join(root, "fullsync")
        self.snapshots = os.path.join(root, "snapshots")
        self.rewound = os.path.join(root, "rewound")
        #: Crash tests set it: called with the label of each step.
        self.step: Step | None = None

    # -- at the start ------------------------------------------------------------------------

    def lock(self) -> bool:
        """Keep other processes out until this one ends; False if another one is in. RocksDB's own
        lock comes too late, and with its directory it changes places."""
        try:
            os.makedirs(self.root, exist_ok=True)
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # whoever opens the data set says what is wrong
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:  # a file system without locks
            os.close(fd)
        return True

    def settle(self) -> None:
        """Finish or undo what a crash interrupted; called before RocksDB is opened."""
        for path in (self.snapshots, self._bad):
            shutil.rmtree(path, ignore_errors=True)
        if os.path.isdir(self.new):
            logger.warning("A full sync was complete and is put in place now")
            self.swap()
        elif not os.path.exists(self.db) and os.path.isdir(self.old):
            self._rename(self.old, self.db)

    def undo(self) -> bool:
        """The data set in `db` can't be opened: go back to the one before, if it is there."""
        if not os.path.isdir(self.old):
            return False
        self._rename(self.db, self._bad)
        self._rename(self.old, self.db)
        shutil.rmtree(self._bad, ignore_errors=True)
        return True

    # -- a swap --------------------------------------------------------------------------------

    def complete(self) -> None:
        """Every file of `fullsync` is there and checked: make that durable, and known."""
        sync_tree(self.incoming)
        self._label("sync.fsynced")
        shutil.rmtree(self.new, ignore_errors=True)
        self._rename(self.incoming, self.new)
        self._label("swap.ready")

    def swap(self) -> None:
        """Let `db.new` take the place of `db`, which is closed."""
        if os.path.isdir(self.db):
            shutil.rmtree(self.old, ignore_errors=True)
            self._rename(self.db, self.old)
        self._label("swap.old")
        self._rename(self.new, self.db)
        self._label("swap.new")

    def forget_old(self) -> None:
        """The data set in `db` was opened."""
        self._label("swap.opened")
        shutil.rmtree(self.old, ignore_errors=True)

    def _rename(self, source: str, target: str) -> None:
        os.rename(source, target)
        sync_path(self.root)

    def _label(self, label: str) -> None:
        if self.step is not None:
            self.step(label)

    # -- the marker of a clean stop -----------------------------------------------------------

    @property
    def _marker(self) -> str:
        return os.path.join(self.root, "clean-shutdown")

    def mark_clean(self, epoch: int, last_seq: int) -> None:
        """A primary stopped in order, with everything on disk: no replica has more than this."""
        with open(self._marker, "w") as file:
            file.write(f"{epoch} {last_seq} {self._mark()}\n")
            file.flush()
            os.fsync(file.fileno())
        sync_path(self.root)

    def take_marker(self) -> tuple[int, int] | None:
        """(epoch, last position) of a clean stop of this very data set. The marker is good once."""
        try:
            with open(self._marker) as file:
                words = file.read(100).split()
        except (OSError, UnicodeDecodeError):
            words = []
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._marker)
                sync_path(self.root)
        except OSError:  # whoever opens the data set says what is wrong
            return None
        if len(words) != 4 or not all(word.isdecimal() for word in words):
            return None
        if not os.path.isdir(self.db) or " ".join(words[2:]) != self._mark():
            return None
        return int(words[0]), int(words[1])

    def _mark(self) -> str:
        """What tells this data set from a copy of it, and from one that a backup brought back:
        number of the directory and time of its last change, which nobody can set."""
        stat = os.stat(self.db)
        return f"{stat.st_ino} {stat.st_ctime_ns}"


def sync_path(path: str) -> None:
    """fsync a file or directory."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: str) -> None:
    """fsync the files of a directory, and the directory."""
    with os.scandir(path) as entries:
        for entry in entries:
            sync_path(entry.path)
    sync_path(path)


def sizes(path: str) -> list[tuple[str, int]]:
    """The files of a directory with their sizes, by name."""
    with os.scandir(path) as entries:
        return sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
