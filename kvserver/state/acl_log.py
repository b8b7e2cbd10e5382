"""ACL LOG: what was denied, the latest first; the same again within a minute is counted.

It must not know who denied it. Source: Redis 7.4's acl.c (addACLLogEntry, ACLLogMatchEntry).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

#: Denials that are alike and further apart than this (ms) have entries of their own.
GROUPING_MS: Final = 60_000
#: The latest entries among which one that is alike is looked for.
LOOKED_AT: Final = 10


class Denials:
    """One entry: the same denial, once or several times."""

    __slots__ = (
        "client",
        "context",
        "count",
        "created",
        "entry_id",
        "kind",
        "updated",
        "user",
        "word",
    )

    def __init__(
        self, kind: str, context: str, word: bytes, user: bytes, now: int, entry_id: int
    ) -> None:
        self.kind = kind
        self.context = context
        self.word = word
        self.user = user
        self.created = self.updated = now
        self.entry_id = entry_id
        self.count = 0
        #: The line of CLIENT LIST of the session that was denied last.
        self.client = b""

    def describe(self, now: int) -> dict[str, object]:
        """As ACL LOG has it."""
        return {
            "count": self.count,
            "reason": self.kind,
            "context": self.context,
            "object": self.word,
            "username": self.user,
            "age-seconds": (now - self.updated) / 1000,
            "client-info": self.client,
            "entry-id": self.entry_id,
            "timestamp-created": self.created,
            "timestamp-last-updated": self.updated,
        }


class AclLog:
    """The entries, the latest first."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now`: unix ms."""
        self._now = now
        self._entries: deque[Denials] = deque()
        self._max_length = 0
        self._next_id = 0

    def resize(self, max_length: int) -> None:
        """acllog-max-len; what is too much goes with the next entry."""
        self._max_length = max_length

    def add(self, kind: str, context: str, word: bytes, user: bytes, client: bytes) -> None:
        """Something was denied: `kind` is command, key, channel or auth."""
        now = self._now()
        entry = self._alike(kind, context, word, user, now)
        if entry is None:
            entry = Denials(kind, context, word, user, now, self._next_id)
            self._next_id += 1
        else:
            self._entries.remove(entry)
        entry.count += 1
        entry.client = client
        entry.updated = now
        self._entries.appendleft(entry)
        while len(self._entries) > self._max_length:
            self._entries.pop()

    def _alike(self, kind: str, context: str, word: bytes, user: bytes, now: int) -> Denials | None:
        for entry in islice(self._entries, LOOKED_AT):
            if (entry.kind, entry.context, entry.word, entry.user) == (
                kind,
                context,
                word,
                user,
            ) and abs(now - entry.updated) <= GROUPING_MS:
                return entry
        return None

    def latest(self, count: int) -> list[dict[str, object]]:
        """Up to so many entries."""
        now = self._now()
        return [entry.describe(now) for entry in islice(self._entries, max(count, 0))]

    def reset(self) -> None:
        """ACL LOG RESET."""
        self._entries.clear()
