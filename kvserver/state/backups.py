"""What is known of backups (SAVE, BGSAVE), for INFO and LASTSAVE. It must not know files."""

from __future__ import annotations

import time


class BackupStatus:
    """The last backup and the one under way. Times in unix seconds, -1: never."""

    def __init__(self) -> None:
        self.last_save = int(time.time())
        self.last_ok = True
        self.last_seconds = -1
        #: The position that the last backup holds; writes since then are INFO's
        #: rdb_changes_since_last_save.
        self.saved_seq = 0
        self.saves = 0
        self._began = 0.0

    @property
    def in_progress(self) -> bool:
        """Whether a backup is being made."""
        return self._began > 0

    @property
    def running_seconds(self) -> int:
        """How long the backup under way takes already; -1: there is none."""
        return int(time.monotonic() - self._began) if self.in_progress else -1

    def begin(self) -> None:
        """A backup starts."""
        self._began = time.monotonic()

    def end(self, seq: int | None) -> None:
        """It holds everything up to `seq`, or failed (None)."""
        self.last_seconds = self.running_seconds
        self._began = 0.0
        self.last_ok = seq is not None
        if seq is not None:
            self.saved_seq = seq
            self.saves += 1
            self.last_save = int(time.time())
