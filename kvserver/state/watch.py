"""WATCH: which sessions watch which keys. It must not know commands or rows.

Source: Redis 7.4's multi.c. A change of a watched key marks its watchers, which then watch
nothing more; EXEC looks at the mark. A key that was expired when WATCH was called counts as
missing: that it is deleted later is no change. Nothing tells when a key's time comes, so EXEC
looks for itself whether a key that was there still is.
"""

from __future__ import annotations

from kvserver.keyspace import WATCHED, Keyspace
from kvserver.state.session import Session

WatchedKey = tuple[int, bytes]


class Watches:
    """(database index, key) -> the sessions that watch it."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self.by_key: dict[WatchedKey, set[Session]] = {}

    def watch(self, session: Session, key: WatchedKey, missing: bool) -> None:
        """From now on a change of the key fails the session's next EXEC. `missing`: there is no
        such key now, or it is past its time. A key watched already stays as it is."""
        if key in session.watching:
            return
        session.watching[key] = missing
        self.by_key.setdefault(key, set()).add(session)
        self._keyspace.observe(WATCHED, True)

    def unwatch(self, session: Session) -> None:
        """Forget all that the session watches, and what happened to it."""
        self._forget(session)
        session.cas_dirty = False

    def touch(self, index: int, key: bytes) -> None:
        """The key changed."""
        for session in list(self.by_key.get((index, key), ())):
            self._spoil(session)

    def vanish(self, index: int, key: bytes) -> None:
        """The key, if there is one, goes because its time has come or its database is emptied."""
        for session in list(self.by_key.get((index, key), ())):
            if not session.watching[index, key]:
                self._spoil(session)

    def _spoil(self, session: Session) -> None:
        session.cas_dirty = True
        self._forget(session)

    def _forget(self, session: Session) -> None:
        for key in session.watching:
            watchers = self.by_key[key]
            watchers.discard(session)
            if not watchers:
                del self.by_key[key]
        session.watching.clear()
        if not self.by_key:
            self._keyspace.observe(WATCHED, False)
