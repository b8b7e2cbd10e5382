"""Keyspace notifications: from what happened to a key to messages on two channels.

It must not know commands or sockets. Source: Redis 7.4's notify.c and
https://redis.io/docs/latest/develop/use/keyspace-notifications/. The flags' letters are
those of `notify-keyspace-events`.
"""

from __future__ import annotations

from typing import Final

from kvserver.keyspace import Keyspace
from kvserver.state.pubsub import PubSub

KEYSPACE: Final = 1 << 0  # K
KEYEVENT: Final = 1 << 1  # E
GENERIC: Final = 1 << 2  # g
STRING: Final = 1 << 3  # $
LIST: Final = 1 << 4  # l
SET: Final = 1 << 5  # s
HASH: Final = 1 << 6  # h
ZSET: Final = 1 << 7  # z
EXPIRED: Final = 1 << 8  # x
EVICTED: Final = 1 << 9  # e
STREAM: Final = 1 << 10  # t
KEY_MISS: Final = 1 << 11  # m
MODULE: Final = 1 << 13  # d
NEW: Final = 1 << 14  # n

LETTERS: Final[dict[str, int]] = {
    "K": KEYSPACE,
    "E": KEYEVENT,
    "g": GENERIC,
    "$": STRING,
    "l": LIST,
    "s": SET,
    "h": HASH,
    "z": ZSET,
    "x": EXPIRED,
    "e": EVICTED,
    "t": STREAM,
    "m": KEY_MISS,
    "d": MODULE,
    "n": NEW,
    "A": GENERIC | STRING | LIST | SET | HASH | ZSET | EXPIRED | EVICTED | STREAM | MODULE,
}


def parse_flags(letters: str) -> int:
    """The flags that `notify-keyspace-events` sets."""
    flags = 0
    for letter in letters:
        flags |= LETTERS[letter]
    return flags


class Notifier:
    """Publishes what the configuration asks for."""

    def __init__(self, pubsub: PubSub, keyspace: Keyspace) -> None:
        self._pubsub = pubsub
        self._keyspace = keyspace
        self.flags = 0

    def notify(self, kind: int, event: bytes, key: bytes, index: int) -> None:
        """An event of a kind (one of the flags) happened to a key of database `index`. Those who
        share the database, or one without a namespace, are told; to a namespace its own database
        is the one that it knows, number 0."""
        flags = self.flags
        if not flags & kind:
            return
        namespace = self._keyspace.namespace_of(index)
        if namespace:
            index = 0
        if flags & KEYSPACE:
            self._pubsub.publish(b"__keyspace@%d__:%b" % (index, key), event, namespace)
        if flags & KEYEVENT:
            self._pubsub.publish(b"__keyevent@%d__:%b" % (index, event), key, namespace)
