"""Active expiry: delete what is due, a little at a time. It must not know timers or clients.

The expiry index is ordered by time, so a cycle reads what is due and nothing else, where
Redis samples keys (expire.c). A hash stands in it once, however many of its fields expire; which
ones are due its own rows say.
"""

from __future__ import annotations

from itertools import islice
from time import perf_counter_ns
from typing import Final

from kvserver import codec
from kvserver.database import Database
from kvserver.keyspace import Keyspace
from kvserver.types import hashes

#: Keys or fields deleted at one position, and between two looks at the clock.
CHUNK: Final = 64


def expire_cycle(keyspace: Keyspace, budget_ns: int) -> bool:
    """Delete due keys, and due fields of hashes, of all databases for about `budget_ns`; each chunk
    takes one position. Returns whether time ran out before what is due did."""
    if not keyspace.may_expire:
        return False
    deadline = perf_counter_ns() + budget_ns
    more = False
    for db in keyspace.databases:
        if db.keys and (_expire(keyspace, db, deadline) or _expire_fields(keyspace, db, deadline)):
            more = True
            break
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


def _expire_fields(keyspace: Keyspace, db: Database, deadline: int) -> bool:
    """Delete the due fields of a database's hashes; returns whether it must stop before the end."""
    for due_ms, row_key in keyspace.due_fields(db):
        db.fields_floor = due_ms
        if _expire_hash(keyspace, db, codec.user_key(row_key), deadline):
            return True
    db.fields_floor = keyspace.now + 1
    return False


def _expire_hash(keyspace: Keyspace, db: Database, key: bytes, deadline: int) -> bool:
    """Delete the due fields of a hash; returns whether time ran out."""
    fields = keyspace.writers[db.index].mutable(key, codec.HASH)
    if fields is None:  # the key itself was due, and is gone
        return _pause(keyspace, deadline)
    due = hashes.due(fields, keyspace.now, db.fields_at)
    while True:
        rows = list(islice(due, CHUNK))
        hashes.remove_due(fields, rows)
        if len(rows) < CHUNK:
            hashes.settle_due(fields, keyspace.now)
        else:
            db.fields_at = rows[-1][0]
        if rows:
            fields.save()
            keyspace.expired_fields += len(rows)
            keyspace.on_fields_expired(db.index, key, fields.count == 0)
        else:
            fields.save_quietly()
        late = _pause(keyspace, deadline)
        if late or len(rows) < CHUNK or not fields.count:
            return late


def _pause(keyspace: Keyspace, deadline: int) -> bool:
    """Give what was deleted a position; returns whether the cycle must stop here."""
    cut = keyspace.log.changed and keyspace.log.advance()
    return cut or perf_counter_ns() > deadline
