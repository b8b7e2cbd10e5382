"""SLOWLOG: the last commands that took long. It must not know commands or sockets.

Source: Redis 7.4's slowlog.c: at most 32 arguments of 128 bytes are kept of each. Commands
that carry secrets (AUTH, ...) are never recorded: they have the SKIP_SLOWLOG flag.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final, NamedTuple

from kvserver.registry import SKIP_SLOWLOG
from kvserver.state.session import Session
from kvserver.state.table import Entry

MAX_ARGS: Final = 32
MAX_ARG_BYTES: Final = 128


class SlowEntry(NamedTuple):
    """One slow command; `duration` in microseconds, `when` in unix seconds."""

    id: int
    when: int
    duration: int
    args: list[bytes]
    addr: str
    name: bytes


class SlowLog:
    """The newest `max_len` commands that took `threshold` us or more (negative: none)."""

    def __init__(self) -> None:
        self.threshold = -1
        self._entries: deque[SlowEntry] = deque()
        self._next_id = 0

    def resize(self, max_len: int) -> None:
        """Set `slowlog-max-len`."""
        self._entries = deque(self._entries, maxlen=max_len)

    def note(self, session: Session, entry: Entry, args: list[bytes], duration: int) -> None:
        """A command took `duration` us."""
        if self.threshold < 0 or duration < self.threshold or entry.flags & SKIP_SLOWLOG:
            return
        kept = _trimmed(args)
        now = int(time.time())
        record = SlowEntry(self._next_id, now, duration, kept, session.addr, session.name)
        self._entries.appendleft(record)
        self._next_id += 1

    def newest(self, count: int | None) -> list[SlowEntry]:
        """The last `count` entries, newest first; None: all."""
        return list(self._entries)[:count]

    def __len__(self) -> int:
        return len(self._entries)

    def reset(self) -> None:
        """Forget all entries."""
        self._entries.clear()


def _trimmed(args: list[bytes]) -> list[bytes]:
    shown = args if len(args) <= MAX_ARGS else args[: MAX_ARGS - 1]
    kept = [
        a
        if len(a) <= MAX_ARG_BYTES
        else b"%b... (%d more bytes)" % (a[:MAX_ARG_BYTES], len(a) - 128)
        for a in shown
    ]
    if len(args) > MAX_ARGS:
        kept.append(b"... (%d more arguments)" % (len(args) - MAX_ARGS + 1))
    return kept
