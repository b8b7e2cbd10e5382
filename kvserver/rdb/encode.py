"""From a value to the payload of DUMP (rdb.c rdbSaveObject, cluster.c createDumpPayload).

Of the encodings there are, those that Redis 7.0 and all later versions read: they choose the one
they keep in memory themselves. Only a hash with fields that expire needs Redis 7.4.
"""

from __future__ import annotations

import struct
from typing import Final

from kvserver.rdb import types
from kvserver.rdb.encode_stream import encode_stream
from kvserver.rdb.output import Output, length
from kvserver.rdb.types import STEP, Steps
from kvserver.rdb.values import Hash, List, Set, Stream, String, Value, ZSet

_DOUBLE: Final = struct.Struct("<d")


def encode(value: Value) -> bytes:
    """The payload."""
    return types.run(encode_steps(value))


def encode_steps(value: Value) -> Steps[bytes]:
    """As `encode`, yielding every few hundred microseconds."""
    out = Output()
    version = types.VERSION
    if isinstance(value, String):
        out.add(_kind(types.STRING))
        out.string(value.value)
    elif isinstance(value, List):
        yield from _strings(out, types.LIST, value.elements)
    elif isinstance(value, Set):
        yield from _strings(out, types.SET, value.members)
    elif isinstance(value, ZSet):
        yield from _zset(out, value)
    elif isinstance(value, Stream):
        yield from encode_stream(out, value)
    elif (earliest := (yield from _earliest(value))) is None:
        yield from _hash(out, value)
    else:
        version = types.LATEST_VERSION
        yield from _hash_metadata(out, value, earliest)
    return out.payload(version)


def _kind(kind: int) -> bytes:
    return bytes([kind])


def _strings(out: Output, kind: int, elements: list[bytes]) -> Steps[None]:
    """A list or a set."""
    out.add(_kind(kind) + length(len(elements)))
    for element in elements:
        out.string(element)
        if out.tired():
            yield


def _zset(out: Output, value: ZSet) -> Steps[None]:
    out.add(_kind(types.ZSET_2) + length(len(value.members)))
    for member, score in value.members:
        out.string(member)
        out.add(_DOUBLE.pack(score))
        if out.tired():
            yield


def _hash(out: Output, value: Hash) -> Steps[None]:
    out.add(_kind(types.HASH) + length(len(value.fields)))
    for field, text, _ in value.fields:
        out.string(field)
        out.string(text)
        if out.tired():
            yield


def _hash_metadata(out: Output, value: Hash, earliest: int) -> Steps[None]:
    """Times count from the earliest one on, and from 1: 0 is a field that doesn't expire."""
    out.add(_kind(types.HASH_METADATA) + earliest.to_bytes(8, "little"))
    out.add(length(len(value.fields)))
    for field, text, expire_ms in value.fields:
        out.add(length(expire_ms - earliest + 1 if expire_ms else 0))
        out.string(field)
        out.string(text)
        if out.tired():
            yield


def _earliest(value: Hash) -> Steps[int | None]:
    """When the first field expires; None if none does."""
    earliest: int | None = None
    for start in range(0, len(value.fields), STEP):
        for _, _, expire_ms in value.fields[start : start + STEP]:
            if expire_ms and (earliest is None or expire_ms < earliest):
                earliest = expire_ms
        if start:
            yield
    return earliest
