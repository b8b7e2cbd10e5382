"""How keys and rows look on disk: pure functions from values to bytes and back.

It must not know RocksDB, commands or clients. Invariants: a row key orders by
(database id, slot, user key), an expiry key by (database id, time, slot, user key), so that
one database is one contiguous range in both column families and can be dropped with one
`delete_range`; a row's first byte says its type and whether 8 bytes of expiry follow.

Layouts (all integers big-endian, so that byte order is numeric order):

    row key     db_id u32 | slot u16 | user key
    row         type u8 (bit 7: has expiry) [| expire_ms u64] | value
    expiry key  db_id u32 | expire_ms u64 | slot u16 | user key      (value empty)
    database    db_id u32 | keys u64 | expires u64 | sum of expire_ms u128
    stamp       epoch u64 | first_seq u64 | last_seq u64 | unix_ms u64
    until       the data is a primary's from position u64 on | rocksdb_sequence u64

Keys of the log column family: a batch's stamp under STAMP_KEY, the history (kvserver/history.py),
each database under DATABASE_KEY and its number, the next database id, the ranges of positions that
were passed over, the writers of ONCE (kvserver/state/writers.py). All of them are replicated,
except those that begin with LOCAL_PREFIX.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from typing import Final

SLOTS: Final = 16384
STRING: Final = 0
TYPE_NAMES: Final = {STRING: b"string"}
HAS_EXPIRE: Final = 0x80
TYPE_MASK: Final = 0x7F

DB_PREFIX_LEN: Final = 4
ROW_PREFIX_LEN: Final = 6
EXPIRY_PREFIX_LEN: Final = 14
MAX_EXPIRE_MS: Final = (1 << 63) - 1

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
#: What begins with it is this node's own: never sent, and never asked for.
LOCAL_PREFIX: Final = b"~"
REWINDS_KEY: Final = b"~r"
UNTIL_KEY: Final = b"~u"

STAMP: Final = struct.Struct(">QQQQ")
UNTIL: Final = struct.Struct(">QQ")
_DATABASE: Final = struct.Struct(">IQQQQ")
_U64: Final = (1 << 64) - 1


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
