"""From the payload of DUMP to a value, as RESTORE does (rdb.c rdbLoadObject, cluster.c
verifyDumpPayload), with `sanitize-dump-payload yes`: all that Redis checks is always checked.

Stricter than Redis, which takes damaged payloads that no server has written: nothing may follow
the value, and a score or a count must be one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from kvserver import numbers
from kvserver.rdb import intset, listpack, types, ziplist
from kvserver.rdb.crc64 import crc64
from kvserver.rdb.decode_stream import decode_stream
from kvserver.rdb.distinct import Distinct
from kvserver.rdb.errors import BadFormat, WrongFooter
from kvserver.rdb.reader import Reader
from kvserver.rdb.types import STEP, Steps
from kvserver.rdb.values import Hash, List, Set, String, Value, ZSet

#: Bytes checked between two yields: some hundred microseconds.
_CRC_STEP: Final = 1 << 20
#: zzlStrtod reads no longer scores.
_MAX_SCORE_TEXT: Final = 128

_Entries = Callable[[bytes, int], Steps[list[bytes]]]


def decode(payload: bytes, max_bytes: int) -> Value:
    """The value; WrongFooter or BadFormat. It takes no more than `max_bytes`, with
    reader.ELEMENT_BYTES for each element."""
    return types.run(decode_steps(payload, max_bytes))


def decode_steps(payload: bytes, max_bytes: int) -> Steps[Value]:
    """As `decode`, yielding every few hundred microseconds."""
    yield from _check_footer(payload)
    end = len(payload) - types.FOOTER_SIZE
    if end == 0:
        raise BadFormat("there is no value")
    decoder = _DECODERS.get(payload[0])
    if decoder is None:
        raise BadFormat("the value has no known type")
    reader = Reader(payload, 1, end, max_bytes)
    value = yield from decoder(reader, payload[0])
    reader.close()
    return value


def _check_footer(payload: bytes) -> Steps[None]:
    """verifyDumpPayload; a checksum of zero counts as any other."""
    end = len(payload) - types.FOOTER_SIZE
    if end < 0 or int.from_bytes(payload[end : end + 2], "little") > types.LATEST_VERSION:
        raise WrongFooter("the version is too high")
    crc = 0
    view = memoryview(payload)[: end + 2]
    for start in range(0, len(view), _CRC_STEP):
        if start:
            yield
        crc = crc64(view[start : start + _CRC_STEP], crc)
    if crc.to_bytes(8, "little") != payload[end + 2 :]:
        raise WrongFooter("the checksum is another")


def _string(reader: Reader, _kind: int) -> Steps[Value]:
    value = yield from reader.text()
    return String(value)


# -- lists


def _list(reader: Reader, _kind: int) -> Steps[Value]:
    elements: list[bytes] = []
    for _ in range(reader.elements(1)):
        element = reader.string()
        if element is None:
            element = yield from reader.expand()
        elements.append(element)
        if reader.tired():
            yield
    return List(elements)


def _list_ziplist(reader: Reader, _kind: int) -> Steps[Value]:
    elements = yield from _packed(reader, ziplist.decode)
    return List(elements)


def _quicklist(reader: Reader, kind: int) -> Steps[Value]:
    """A list of nodes; some may be empty, but not all of them."""
    elements: list[bytes] = []
    for _ in range(reader.elements(1)):
        if kind == types.LIST_QUICKLIST:
            elements += yield from _unpack(reader, ziplist.decode)
        else:
            yield from _node(reader, elements)
        if reader.tired():
            yield
    if not elements:
        raise BadFormat("the value is empty")
    return List(elements)


def _node(reader: Reader, elements: list[bytes]) -> Steps[None]:
    """Append a node's elements: those of a listpack, or a single one that is too long for that."""
    container = reader.length()
    if container == types.NODE_PACKED:
        elements += yield from _unpack(reader, listpack.decode)
        return
    element = yield from reader.text()
    if container != types.NODE_PLAIN or not element:
        raise BadFormat("a list's node has no known container, or is empty")
    elements.append(element)


# -- sets


def _set(reader: Reader, _kind: int) -> Steps[Value]:
    members: list[bytes] = []
    count = reader.elements(1)
    seen = Distinct(count)
    for _ in range(count):
        member = reader.string()
        if member is None:
            member = yield from reader.expand()
        members.append(member)
        seen.add(member)
        if reader.tired():
            yield
    yield from seen.check()
    return Set(members)


def _set_packed(reader: Reader, kind: int) -> Steps[Value]:
    entries: _Entries = intset.decode if kind == types.SET_INTSET else listpack.decode
    members = yield from _packed(reader, entries)
    seen = Distinct(len(members))
    for index, member in enumerate(members, 1):
        seen.add(member)
        if index % STEP == 0:
            yield
    yield from seen.check()
    return Set(members)


# -- sorted sets


def _zset(reader: Reader, kind: int) -> Steps[Value]:
    members: list[tuple[bytes, float]] = []
    binary = kind == types.ZSET_2
    count = reader.elements(9 if binary else 2)
    seen = Distinct(count)
    for _ in range(count):
        member = reader.string()
        if member is None:
            member = yield from reader.expand()
        score = reader.double() if binary else _old_double(reader)
        if math.isnan(score):
            raise BadFormat("a score is no number")
        members.append((member, score))
        seen.add(member)
        if reader.tired():
            yield
    yield from seen.check()
    return ZSet(members)


def _old_double(reader: Reader) -> float:
    """A double as text behind its length (rdbLoadDoubleValue)."""
    size = reader.byte()
    if size == 255:
        return -math.inf
    if size == 254:
        return math.inf
    if size == 253:
        return math.nan
    return _score(reader.take(size))


def _score(text: bytes) -> float:
    score = numbers.parse_double(text) if len(text) <= _MAX_SCORE_TEXT else None
    if score is None:
        raise BadFormat("a score is no number")
    return score


def _zset_packed(reader: Reader, kind: int) -> Steps[Value]:
    entries: _Entries = ziplist.decode if kind == types.ZSET_ZIPLIST else listpack.decode
    items = yield from _packed(reader, entries, 2)
    members: list[tuple[bytes, float]] = []
    seen = Distinct(len(items) // 2)
    for index in range(0, len(items), 2):
        seen.add(items[index])
        members.append((items[index], _score(items[index + 1])))
        if index % STEP == 0:
            yield
    yield from seen.check()
    return ZSet(members)


# -- hashes


def _hash(reader: Reader, _kind: int) -> Steps[Value]:
    fields: list[tuple[bytes, bytes, int]] = []
    count = reader.elements(2)
    seen = Distinct(count)
    for _ in range(count):
        field = reader.string()
        if field is None:
            field = yield from reader.expand()
        value = reader.string()
        if value is None:
            value = yield from reader.expand()
        fields.append((field, value, 0))
        seen.add(field)
        if reader.tired():
            yield
    yield from seen.check()
    return Hash(fields)


def _hash_metadata(reader: Reader, kind: int) -> Steps[Value]:
    """Each field behind its time: from the earliest on, counted from 1, or absolute."""
    earliest = 1 if kind == types.HASH_METADATA_PRE_GA else reader.milliseconds()
    fields: list[tuple[bytes, bytes, int]] = []
    count = reader.elements(3)
    seen = Distinct(count)
    for _ in range(count):
        time = reader.length()
        expire_ms = _expire(time + earliest - 1) if time else 0
        field = yield from reader.text()
        value = yield from reader.text()
        fields.append((field, value, expire_ms))
        seen.add(field)
        if reader.tired():
            yield
    yield from seen.check()
    return Hash(fields)


def _hash_packed(reader: Reader, kind: int) -> Steps[Value]:
    entries: _Entries = listpack.decode
    if kind == types.HASH_ZIPMAP:
        entries = ziplist.decode_zipmap
    elif kind == types.HASH_ZIPLIST:
        entries = ziplist.decode
    items = yield from _packed(reader, entries, 2)
    fields: list[tuple[bytes, bytes, int]] = []
    seen = Distinct(len(items) // 2)
    for index in range(0, len(items), 2):
        seen.add(items[index])
        fields.append((items[index], items[index + 1], 0))
        if index % STEP == 0:
            yield
    yield from seen.check()
    return Hash(fields)


def _hash_listpack_ex(reader: Reader, kind: int) -> Steps[Value]:
    """Field, value and absolute time in turn, by time; fields that don't expire come last."""
    if kind == types.HASH_LISTPACK_EX:
        reader.milliseconds()  # the earliest time, which Redis doesn't use either
    items = yield from _packed(reader, listpack.decode, 3)
    fields: list[tuple[bytes, bytes, int]] = []
    seen = Distinct(len(items) // 3)
    last = -1
    for index in range(0, len(items), 3):
        time = numbers.parse_int64(items[index + 2])
        if time is None or (time and (last == 0 or time < last)):
            raise BadFormat("a field's time is no number, or before the last one")
        last = _expire(time)
        seen.add(items[index])
        fields.append((items[index], items[index + 1], last))
        if index % STEP == 0:
            yield
    yield from seen.check()
    return Hash(fields)


def _expire(time: int) -> int:
    if not 0 <= time <= types.MAX_FIELD_EXPIRE:
        raise BadFormat("a field's time is out of range")
    return time


# -- what several types share


def _packed(reader: Reader, entries: _Entries, each: int = 1) -> Steps[list[bytes]]:
    """The entries of the one string that is the whole value: `each` for an element."""
    items = yield from _unpack(reader, entries)
    if not items or len(items) % each:
        raise BadFormat("the value is empty, or its last element not whole")
    return items


def _unpack(reader: Reader, entries: _Entries) -> Steps[list[bytes]]:
    """The entries of a string that holds some."""
    blob = yield from reader.large()
    items = yield from entries(blob, reader.room())
    reader.charge(len(blob), len(items))
    reader.work += len(items)
    return items


_DECODERS: Final[dict[int, Callable[[Reader, int], Steps[Value]]]] = {
    types.STRING: _string,
    types.LIST: _list,
    types.LIST_ZIPLIST: _list_ziplist,
    types.LIST_QUICKLIST: _quicklist,
    types.LIST_QUICKLIST_2: _quicklist,
    types.SET: _set,
    types.SET_INTSET: _set_packed,
    types.SET_LISTPACK: _set_packed,
    types.ZSET: _zset,
    types.ZSET_2: _zset,
    types.ZSET_ZIPLIST: _zset_packed,
    types.ZSET_LISTPACK: _zset_packed,
    types.HASH: _hash,
    types.HASH_ZIPMAP: _hash_packed,
    types.HASH_ZIPLIST: _hash_packed,
    types.HASH_LISTPACK: _hash_packed,
    types.HASH_METADATA: _hash_metadata,
    types.HASH_METADATA_PRE_GA: _hash_metadata,
    types.HASH_LISTPACK_EX: _hash_listpack_ex,
    types.HASH_LISTPACK_EX_PRE_GA: _hash_listpack_ex,
    types.STREAM_LISTPACKS: decode_stream,
    types.STREAM_LISTPACKS_2: decode_stream,
    types.STREAM_LISTPACKS_3: decode_stream,
}
