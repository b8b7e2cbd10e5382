"""Keyspace notifications: from what happened to a key to messages on two channels.

It must not know commands or sockets. Source: Redis 7.4's notify.c and
https://redis.io/docs/latest/develop/use/keyspace-notifications/. The flags' letters are
those of `notify-keyspace-events`.

A replica executes no commands, so its events are its primary's: they travel in the batch of the
writes that they tell of, if a replica asked for some (replication/wishes.py), and each server
publishes those that its own configuration asks for.
"""

from __future__ import annotations

import struct
from typing import Final

from kvserver.frames import FrameError, unpack_fields
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


#: What travels to replicas. Not what reads miss: a replica's own reads tell of that there.
_TRAVELS: Final = LETTERS["A"] | NEW
#: An event's first field: its kind, and the number of the database on disk.
_EVENT: Final = struct.Struct(">HI")


def wanted_by(letters: str) -> int:
    """The kinds that a server with this `notify-keyspace-events` wants of its primary."""
    flags = parse_flags(letters)
    return flags & _TRAVELS if flags & (KEYSPACE | KEYEVENT) else 0


class Notifier:
    """Publishes what the configuration asks for, and lets travel what replicas want."""

    def __init__(self, pubsub: PubSub, keyspace: Keyspace) -> None:
        self._pubsub = pubsub
        self._keyspace = keyspace
        #: What is looked at: the kinds that somebody wants, here or on a replica.
        self.flags = 0
        self._own = self._wanted = 0

    def configure(self, letters: str) -> None:
        """Take `notify-keyspace-events` over."""
        self._own = parse_flags(letters)
        self.flags = self._own | self._wanted

    def want(self, kinds: int) -> None:
        """What replicas want."""
        self._wanted = kinds & _TRAVELS
        self.flags = self._own | self._wanted

    def notify(self, kind: int, event: bytes, key: bytes, index: int) -> None:
        """An event of a kind (one of the flags) happened to a key of database `index`."""
        if not self.flags & kind:
            return
        if self._wanted & kind:
            number = self._keyspace.databases[index].number
            self._keyspace.log.events += [_EVENT.pack(kind, number), event, key]
        if self._own & kind:
            self._publish(event, key, index)

    def _publish(self, event: bytes, key: bytes, index: int) -> None:
        """Those who share the database, or one without a namespace, are told; to a namespace its
        own database is the one that it knows, number 0."""
        namespace = self._keyspace.namespace_of(index)
        if namespace:
            index = 0
        if self._own & KEYSPACE:
            self._pubsub.publish(b"__keyspace@%d__:%b" % (index, key), event, namespace)
        if self._own & KEYEVENT:
            self._pubsub.publish(b"__keyevent@%d__:%b" % (index, event), key, namespace)

    def replay(self, row: bytes) -> None:
        """Events of a primary came with its writes. Those of databases that this server doesn't
        have are nobody's. Raises FrameError."""
        if not self._own:
            return
        fields = unpack_fields(row)
        if len(fields) % 3 or any(len(head) != _EVENT.size for head in fields[::3]):
            raise FrameError("events that are none")
        databases = len(self._keyspace.databases)
        for head, event, key in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
            kind, number = _EVENT.unpack(head)
            index = self._keyspace.index_of(number)
            if self._own & kind and index < databases:
                self._publish(event, key, index)
