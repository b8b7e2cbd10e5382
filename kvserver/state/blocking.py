"""Which sessions wait for which keys, and which of these keys may be ready.

It must not know commands, or how a waiting command is run again. Source: Redis 7.4's blocked.c.
Invariants: the sessions that wait for a key are served in order of arrival; a key is looked at
once for all the changes that a command made to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvserver.codec import MISSING
from kvserver.keyspace import BLOCKED, Keyspace

if TYPE_CHECKING:
    from kvserver.state.context import Blocked
    from kvserver.state.session import Session

BlockedKey = tuple[int, bytes]


class BlockedKeys:
    """(database index, key) -> the sessions that wait for it, and with what."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self.by_key: dict[BlockedKey, dict[Session, Blocked]] = {}
        #: The keys that changed while somebody waits for them, in order.
        self.ready: dict[BlockedKey, None] = {}
        #: Called when the first key is ready.
        self.on_ready: Callable[[], None] = _nothing
        keyspace.blocked = self.by_key

    def add(self, session: Session, blocked: Blocked) -> None:
        """The session waits for the keys of its database that `blocked` names."""
        for key in blocked.keys:
            self.by_key.setdefault((session.db, key), {})[session] = blocked
        self._keyspace.observe(BLOCKED, True)

    def remove(self, session: Session, blocked: Blocked) -> None:
        """The session waits no longer."""
        for key in blocked.keys:
            waiting = self.by_key.get((session.db, key))
            if waiting is not None:
                waiting.pop(session, None)
                if not waiting:
                    del self.by_key[session.db, key]
        if not self.by_key:
            self._keyspace.observe(BLOCKED, False)

    def signal(self, index: int, key: bytes) -> None:
        """The key changed."""
        if (index, key) in self.by_key:
            if not self.ready:
                self.on_ready()
            self.ready[index, key] = None

    def signal_all(self) -> None:
        """Any of the keys may have changed while nobody could be served."""
        for index, key in self.by_key:
            self.signal(index, key)

    def count(self) -> int:
        """How many keys are waited for."""
        return len(self.by_key)

    def count_missed(self) -> int:
        """How many of them are waited for by a command that is run again when the key is gone."""
        return sum(
            any(MISSING in blocked.kinds for blocked in waiting.values())
            for waiting in self.by_key.values()
        )

    def kind(self, key: BlockedKey) -> int:
        """What the key holds now: a command that waits for another type isn't run again."""
        index, name = key
        kind = self._keyspace.readers[index].kind(name)
        self._keyspace.log.touched = False  # no reply depends on it
        return kind


def _nothing() -> None:
    return None
