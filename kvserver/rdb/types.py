"""The numbers of the RDB format (rdb.h): types of values, lengths, encodings of strings."""

from collections.abc import Generator
from typing import Final, TypeVar

STRING: Final = 0
LIST: Final = 1
SET: Final = 2
ZSET: Final = 3
HASH: Final = 4
ZSET_2: Final = 5
HASH_ZIPMAP: Final = 9
LIST_ZIPLIST: Final = 10
SET_INTSET: Final = 11
ZSET_ZIPLIST: Final = 12
HASH_ZIPLIST: Final = 13
LIST_QUICKLIST: Final = 14
STREAM_LISTPACKS: Final = 15
HASH_LISTPACK: Final = 16
ZSET_LISTPACK: Final = 17
LIST_QUICKLIST_2: Final = 18
STREAM_LISTPACKS_2: Final = 19
SET_LISTPACK: Final = 20
STREAM_LISTPACKS_3: Final = 21
HASH_METADATA_PRE_GA: Final = 22
HASH_LISTPACK_EX_PRE_GA: Final = 23
HASH_METADATA: Final = 24
HASH_LISTPACK_EX: Final = 25

#: The first byte of a length: the two highest bits, or all of it. Zero bits: the other six are it.
LENGTH_14BIT: Final = 1
LENGTH_32BIT: Final = 0x80
LENGTH_64BIT: Final = 0x81
#: The two highest bits of a string that isn't raw; the others say how it is encoded.
ENCODED: Final = 3
INT8: Final = 0
INT16: Final = 1
INT32: Final = 2
LZF: Final = 3

#: The nodes of a quicklist (quicklist.h).
NODE_PLAIN: Final = 1
NODE_PACKED: Final = 2

#: The latest version of RDB that Redis 7.4 reads, and knows expiring fields in.
LATEST_VERSION: Final = 12
#: That of Redis 7.0, for payloads that need no later one.
VERSION: Final = 10
#: Of a payload: version u16, CRC-64 of all before it, both little-endian.
FOOTER_SIZE: Final = 10

#: Times when fields expire have 48 bits (ebuckets.h, EB_EXPIRE_TIME_MAX).
MAX_FIELD_EXPIRE: Final = (1 << 48) - 1

#: The flags of an entry in a stream's listpack (stream.h).
ITEM_DELETED: Final = 1
ITEM_SAMEFIELDS: Final = 2

#: Elements between two yields: some hundred microseconds.
STEP: Final = 256
#: So many bytes (4096) are as much work as an element.
WORK_SHIFT: Final = 12

T = TypeVar("T")
#: Work that gives way (yields) every few hundred elements, and its result.
Steps = Generator[None, None, T]


def run(steps: Steps[T]) -> T:
    """All steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
