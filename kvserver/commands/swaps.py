"""CAS and CAD, which Redis doesn't have: compare a string, and set or delete it if it is equal.

After Apache Kvrocks (src/types/redis_string.cc, String::CAS and String::CAD), which has them from
Alibaba's TairString. Keyspace events are those of SET and DEL.
"""

from __future__ import annotations

from typing import Final

from kvserver.commands.strings import expire_option, store
from kvserver.registry import DENYOOM, FAST, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import WriteContext

_MISSING: Final = -1
_DIFFERENT: Final = 0
_DONE: Final = 1


@command(
    "cas",
    -4,
    WRITE | DENYOOM | FAST,
    group="string",
    since="0.1.0",
    summary="Sets the string value of a key if it is equal to another value.",
    keys=key("RW", "ACCESS", "UPDATE"),
    categories=("string",),
)
def cas(ctx: WriteContext, key: bytes, old: bytes, new: bytes, *options: bytes) -> int:
    """-1: there is no such key; 0: its value is another one; 1: it was set, and expires only if
    an option says so."""
    expire = expire_option("cas", options, ctx.now)
    value = ctx.db.string(key)
    if value is None:
        return _MISSING
    if value != old:
        return _DIFFERENT
    store(ctx, key, new, expire)
    return _DONE


@command(
    "cad",
    3,
    WRITE | FAST,
    group="string",
    since="0.1.0",
    summary="Deletes a key if its string value is equal to another value.",
    keys=key("RW", "ACCESS", "DELETE"),
    categories=("string",),
)
def cad(ctx: WriteContext, key: bytes, expected: bytes) -> int:
    """-1: there is no such key; 0: its value is another one; 1: it was deleted."""
    value = ctx.db.string(key)
    if value is None:
        return _MISSING
    if value != expected:
        return _DIFFERENT
    ctx.db.delete(key)
    ctx.notify(notify.GENERIC, b"del", key)
    return _DONE
