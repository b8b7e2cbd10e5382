"""Active expiry: delete what is due, a little at a time. It must not know timers or clients.

The expiry index is ordered by time, so a cycle reads what is due and nothing else, where
Redis samples keys (expire.c).
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Final

from kvserver.keyspace import Database, Keyspace

#: Keys deleted at one position, and between two looks at the clock.
CHUNK: Final = 64


def expire_cycle(keyspace: Keyspace, budget_ns: int) -> bool:
    """Delete due keys of all databases for about `budget_ns`; each chunk takes one position.
    Returns whether time ran out before the due keys did."""
    if not keyspace.may_expire:
        return False
    deadline = perf_counter_ns() + budget_ns
    more = any(_expire(keyspace, db, deadline) for db in keyspace.databases)
    keyspace.log.touched = False  # no reply depends on it
    return more


def _expire(keyspace: Keyspace, db: Database, deadline: int) -> bool:
    """Delete what is due in one database; returns whether it must stop before the end."""
    deleted = 0
    for expire_ms, row_key in keyspace.due(db):
        keyspace.delete_expired(db, row_key)
        db.expiry_floor = expire_ms
        deleted += 1
        if deleted % CHUNK == 0 and (keyspace.log.advance() or perf_counter_ns() > deadline):
            return True
    if deleted % CHUNK:
        keyspace.log.advance()
    db.expiry_floor = keyspace.now + 1
    return False
