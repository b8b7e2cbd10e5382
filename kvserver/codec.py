"""How keys and rows look on disk: pure functions from values to bytes and back.

It must not know RocksDB, commands or clients. Invariants: a row key orders by
(database id, slot, user key), an expiry key by (database id, time, slot, user key), so that
one database is one contiguous range in each column family and can be dropped with one
`delete_range`; a row's first byte says its type and whether 8 bytes of expiry follow. A
collection's elements have an id in their keys that no other collection ever has, so that dropping
them is one `delete_range`, and renaming the collection touches none of them.

Layouts (all integers big-endian, so that byte order is numeric order):

    row key     db_id u32 | slot u16 | user key
    row         type u8 (bit 7: has expiry) [| expire_ms u64] | value
    header      the value of a collection's row: id u64 | count u64 | what its type adds
    element     db_id u32 | id u64 | what its type adds              (column family `data`)
    expiry key  db_id u32 | expire_ms u64 | slot u16 | user key      (value empty)
    field due   db_id u32 | bit 63 and ms u64 | slot u16 | user key  (value empty): not before this
                time a field of the hash expires
    database    db_id u32 | keys u64 | expires u64 | sum of expire_ms u128
    stamp       epoch u64 | first_seq u64 | last_seq u64 | unix_ms u64
    until       the data is a primary's from position u64 on | rocksdb_sequence u64 | its history
    namespace   slot u16 | whether it has a token u8 | token

Keys of the log column family: a batch's stamp under STAMP_KEY, the history (kvserver/history.py),
each database under DATABASE_KEY and its number, the next database id, the ranges of positions that
were passed over, the writers of ONCE (kvserver/state/writers.py), libraries of functions
(kvserver/scripting/functions.py), each namespace under NAMESPACE_KEY and its name, and under
EVENTS_KEY keyspace events on their way to replicas (kvserver/state/notify.py), which no data set
keeps: the batch that puts them deletes them. All of them are replicated, except those that begin
with LOCAL_PREFIX. The number of a namespace's database is LAST_DATABASE minus its slot: numbered
databases count upwards, those of namespaces downwards.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from typing import Final

SLOTS: Final = 16384
#: The types, numbered as in RDB files (rdb.h) as far as these have one number for each.
STRING: Final = 0
LIST: Final = 1
SET: Final = 2
ZSET: Final = 3
HASH: Final = 4
STREAM: Final = 6
#: What stands for the type of a key that isn't there.
MISSING: Final = -1
#: A string whose bytes are elements: long ones that are changed in part (kvserver/types/sparse.py).
SPARSE: Final = 8
TYPE_NAMES: Final = {
    STRING: b"string",
    LIST: b"list",
    SET: b"set",
    ZSET: b"zset",
    HASH: b"hash",
    STREAM: b"stream",
    SPARSE: b"string",
}
HAS_EXPIRE: Final = 0x80
TYPE_MASK: Final = 0x7F

DB_PREFIX_LEN: Final = 4
ROW_PREFIX_LEN: Final = 6
#: What precedes a type's own part in the key of an element, and in a header.
ELEMENT_PREFIX_LEN: Final = 12
HEADER_LEN: Final = 16
#: Shorter is no row of a hash with fields that expire (`field_due`).
DUE_ROW_LEN: Final = 1 + HEADER_LEN + 8

STRING_HEADER: Final = bytes([STRING])
_EXPIRING: Final = bytes([STRING | HAS_EXPIRE])

#: "{" as a number, which `in` finds at once; for bytes CPython first fails to read them as one.
BRACE: Final = 0x7B

#: The two bytes of every slot, made once: cheaper than packing for each key.
SLOT_BYTES: Final[list[bytes]] = [slot.to_bytes(2, "big") for slot in range(SLOTS)]

STAMP_KEY: Final = b"s"
HISTORY_KEY: Final = b"h"
DATABASE_KEY: Final = b"d"
NEXT_ID_KEY: Final = b"n"
PADDED_KEY: Final = b"p"
WRITER_KEY: Final = b"w"
WRITER_REPLY_KEY: Final = b"r"
FUNCTIONS_KEY: Final = b"f"
NAMESPACE_KEY: Final = b"k"
EVENTS_KEY: Final = b"e"
#: What begins with it is this node's own: never sent, and never asked for.
LOCAL_PREFIX: Final = b"~"
REWINDS_KEY: Final = b"~r"
UNTIL_KEY: Final = b"~u"

STAMP: Final = struct.Struct(">QQQQ")
UNTIL: Final = struct.Struct(">QQ")
#: The highest number of a database, and how many namespaces there may be: the numbered databases
#: (the directive `databases`) have the lower half.
LAST_DATABASE: Final = 0xFFFF
MAX_NAMESPACES: Final = 1 << 15
_DATABASE: Final = struct.Struct(">IQQQQ")
_NAMESPACE: Final = struct.Struct(">HB")
_U64: Final = (1 << 64) - 1
_HEADER: Final = struct.Struct(">QQ")
_FIELD_DUE: Final = 1 << 63


def slot_of(key: bytes) -> int:
    """The key's hash slot, 0..16383; hash tags as in the Redis Cluster specification."""
    if BRACE in key:
        start = key.index(b"{") + 1
        end = key.find(b"}", start)
        if end > start:
            return crc_hqx(key[start:end], 0) & 0x3FFF
    return crc_hqx(key, 0) & 0x3FFF


def db_prefix(db_id: int) -> bytes:
    """The 4 bytes that every row and expiry key of this database begins with."""
    return db_id.to_bytes(4, "big")


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key greater than every key that begins with `prefix` (not all 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])


def user_key(row_key: bytes) -> bytes:
    """The user's key inside a row key."""
    return row_key[ROW_PREFIX_LEN:]


def expiry_key(row_key: bytes, expire_ms: int) -> bytes:
    """The expiry index's key for a row key that expires at `expire_ms`."""
    return row_key[:DB_PREFIX_LEN] + expire_ms.to_bytes(8, "big") + row_key[DB_PREFIX_LEN:]


def split_expiry_key(key: bytes) -> tuple[int, bytes]:
    """(expire_ms, row key) of an expiry key."""
    return int.from_bytes(key[4:12], "big"), key[:DB_PREFIX_LEN] + key[12:]


def string_row(value: bytes, expire_ms: int = 0) -> bytes:
    """A string's row; `expire_ms` 0 means that it doesn't expire."""
    if expire_ms:
        return _EXPIRING + expire_ms.to_bytes(8, "big") + value
    return STRING_HEADER + value


def row_type(row: bytes) -> int:
    """The type code of a row."""
    return row[0] & TYPE_MASK


def is_string(row: bytes) -> bool:
    """Whether the row is a string's, in one piece or in fragments."""
    return row[0] & TYPE_MASK in (STRING, SPARSE)


def row_expire(row: bytes) -> int:
    """When the row expires, in unix ms; 0: never."""
    return int.from_bytes(row[1:9], "big") if row[0] & HAS_EXPIRE else 0


def value_offset(row: bytes) -> int:
    """Where the value begins in a row."""
    return 9 if row[0] & HAS_EXPIRE else 1


def row_value(row: bytes) -> bytes:
    """What follows type and expiry: a string's value."""
    return row[9:] if row[0] & HAS_EXPIRE else row[1:]


def with_expire(row: bytes, expire_ms: int) -> bytes:
    """The same row with another expiry (0: none)."""
    kind = row[0] & TYPE_MASK
    if expire_ms:
        return bytes([kind | HAS_EXPIRE]) + expire_ms.to_bytes(8, "big") + row_value(row)
    return bytes([kind]) + row_value(row)


def collection_row(
    kind: int, expire_ms: int, collection_id: int, count: int, extras: bytes = b""
) -> bytes:
    """The row of a collection; `extras` is what its type adds to the header."""
    header = _HEADER.pack(collection_id, count)
    if expire_ms:
        return bytes((kind | HAS_EXPIRE,)) + expire_ms.to_bytes(8, "big") + header + extras
    return bytes((kind,)) + header + extras


def collection_id(row: bytes) -> bytes:
    """The 8 bytes of a collection's id, from its row."""
    return row[9:17] if row[0] & HAS_EXPIRE else row[1:9]


def collection_count(row: bytes) -> int:
    """How many elements a collection has, from its row."""
    return number_at(row, 17 if row[0] & HAS_EXPIRE else 9)


def number_at(row: bytes, at: int) -> int:
    """The eight bytes from `at` on as a number. Compiled, a small one takes a third of the time
    that slicing and `int.from_bytes` do."""
    if row[at] | row[at + 1]:
        return int.from_bytes(row[at : at + 8], "big")
    high = row[at + 2] * 256 + row[at + 3]
    low = ((row[at + 4] * 256 + row[at + 5]) * 256 + row[at + 6]) * 256 + row[at + 7]
    return (high << 32) + low if high else low


def collection_extras(row: bytes) -> bytes:
    """What the type adds to the header, from a collection's row."""
    return row[25:] if row[0] & HAS_EXPIRE else row[17:]


def field_due(row: bytes) -> int:
    """Not before when, in unix ms, a field of a hash expires, from its row; 0: none does, or the
    row isn't a hash's. The first 8 bytes that a hash adds to its header, if it adds any."""
    if row[0] & TYPE_MASK != HASH:
        return 0
    at = value_offset(row) + HEADER_LEN
    return int.from_bytes(row[at : at + 8], "big") if len(row) >= at + 8 else 0


def field_due_key(row_key: bytes, due_ms: int) -> bytes:
    """The expiry index's key for a hash with fields that expire."""
    return expiry_key(row_key, due_ms | _FIELD_DUE)


def split_field_due_key(key: bytes) -> tuple[int, bytes]:
    """(due_ms, row key) of such a key."""
    due_ms, row_key = split_expiry_key(key)
    return due_ms ^ _FIELD_DUE, row_key


def pack_database(db_id: int, keys: int, expires: int, expire_sum: int) -> bytes:
    """The record of a database's id and counts. They fall below zero only in a data set with
    padding, whose rows and counts are of different moments."""
    if keys < 0 or expires < 0 or expire_sum < 0:
        keys, expires, expire_sum = max(keys, 0), max(expires, 0), max(expire_sum, 0)
    return _DATABASE.pack(db_id, keys, expires, expire_sum >> 64, expire_sum & _U64)


def unpack_database(record: bytes) -> tuple[int, int, int, int]:
    """(db_id, keys, expires, sum of expire_ms)."""
    db_id, keys, expires, high, low = _DATABASE.unpack(record)
    return db_id, keys, expires, high << 64 | low


def pack_namespace(slot: int, token: bytes | None) -> bytes:
    """A namespace's row; without a token nobody can enter it."""
    return _NAMESPACE.pack(slot, token is not None) + (token or b"")


def unpack_namespace(row: bytes) -> tuple[int, bytes | None]:
    """(slot, token). Raises ValueError for a slot that can't be."""
    slot, has_token = _NAMESPACE.unpack_from(row)
    if slot >= MAX_NAMESPACES:
        raise ValueError(f"a namespace with slot {slot}")
    return slot, row[_NAMESPACE.size :] if has_token else None
