"""OBJECT: how Redis would hold a value, and how long it was not used.

There are no such objects here: ENCODING and REFCOUNT answer what Redis would for the same value
written by SET, IDLETIME what the row cache knows. Source: Redis 7.4's object.c.
"""

from __future__ import annotations

from typing import Final

from kvserver import codec, errors, resp
from kvserver.commands.help import help_reply
from kvserver.numbers import parse_int64
from kvserver.registry import LOADING, READONLY, STALE, command, container, key
from kvserver.state.context import ReadContext
from kvserver.types import hashes, lists, sets, sparse, zsets

#: The longest string that Redis keeps in one piece with its object
#: (OBJ_ENCODING_EMBSTR_SIZE_LIMIT).
_EMBEDDED_BYTES: Final = 44
#: The longest integer in decimal.
_INTEGER_BYTES: Final = 20
#: Redis shares the objects of the integers below this (OBJ_SHARED_INTEGERS), which then have
#: this many references (OBJ_SHARED_REFCOUNT).
_SHARED_INTEGERS: Final = 10_000
_SHARED_REFERENCES: Final = (1 << 31) - 1

_KEY: Final = key("RO", at=2)
_CATEGORIES: Final = ("keyspace",)
_TIPS: Final = ("nondeterministic_output",)

container(
    "object",
    group="generic",
    since="2.2.3",
    summary="A container for object introspection commands.",
)


def _look(ctx: ReadContext, name: bytes) -> tuple[bytes | None, float]:
    """(row, seconds since it was used): counted as a look-up, but nobody is told of a miss
    (objectCommandLookup)."""
    row, idle = ctx.db.look(name)
    if row is None:
        ctx.db.misses += 1
    else:
        ctx.db.hits += 1
    return row, idle


@command(
    "object|encoding",
    3,
    READONLY,
    group="generic",
    since="2.2.3",
    summary="Returns the internal encoding of a Redis object.",
    keys=_KEY,
    categories=_CATEGORIES,
    tips=_TIPS,
)
def object_encoding(ctx: ReadContext, name: bytes) -> bytes | None:
    row, _ = _look(ctx, name)
    return None if row is None else encoding(row)


def encoding(row: bytes) -> bytes:
    """The name of the encoding that Redis would choose for a row's value."""
    kind = codec.row_type(row)
    if kind == codec.SET:
        return sets.ENCODINGS[sets.encoding(codec.collection_extras(row))]
    if kind == codec.HASH:
        return hashes.ENCODINGS[hashes.encoding(codec.collection_extras(row))]
    if kind == codec.LIST:
        return lists.encoding(codec.collection_extras(row))
    if kind == codec.ZSET:
        return b"skiplist" if zsets.is_skiplist(codec.collection_extras(row)) else b"listpack"
    if kind == codec.STREAM:
        return b"stream"
    if kind == codec.SPARSE:
        return b"raw"
    if _integer(row) is not None:
        return b"int"
    return b"embstr" if sparse.size(row) <= _EMBEDDED_BYTES else b"raw"


@command(
    "object|refcount",
    3,
    READONLY,
    group="generic",
    since="2.2.3",
    summary="Returns the reference count of a value of a key.",
    keys=_KEY,
    categories=_CATEGORIES,
    tips=_TIPS,
)
def object_refcount(ctx: ReadContext, name: bytes) -> int | None:
    row, _ = _look(ctx, name)
    return None if row is None else references(row)


def references(row: bytes) -> int:
    """How many references the object of a row's value would have in Redis."""
    number = _integer(row)
    shared = number is not None and 0 <= number < _SHARED_INTEGERS
    return _SHARED_REFERENCES if shared else 1


def _integer(row: bytes) -> int | None:
    """The integer that a row holds, if it is one."""
    if codec.row_type(row) != codec.STRING or sparse.size(row) > _INTEGER_BYTES:
        return None
    return parse_int64(codec.row_value(row))


@command(
    "object|idletime",
    3,
    READONLY,
    group="generic",
    since="2.2.3",
    summary="Returns the time since the last access to a Redis object.",
    keys=_KEY,
    categories=_CATEGORIES,
    tips=_TIPS,
)
def object_idletime(ctx: ReadContext, name: bytes) -> int | None:
    row, idle = _look(ctx, name)
    return None if row is None else int(idle)


@command(
    "object|freq",
    3,
    READONLY,
    group="generic",
    since="4.0.0",
    summary="Returns the logarithmic access frequency counter of a Redis object.",
    keys=_KEY,
    categories=_CATEGORIES,
    tips=_TIPS,
)
def object_freq(ctx: ReadContext, name: bytes) -> None:
    if _look(ctx, name)[0] is not None:
        raise errors.error(
            "An LFU maxmemory policy is not selected, access frequency not tracked. Please note "
            "that when switching between policies at runtime LRU and LFU data will take some time "
            "to adjust."
        )


@command(
    "object|help",
    2,
    LOADING | STALE,
    group="generic",
    since="6.2.0",
    summary="Returns helpful text about the different subcommands.",
    categories=_CATEGORIES,
)
def object_help(_ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "object",
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
    )
