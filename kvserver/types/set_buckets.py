"""The buckets of sets: rows that hold several members, and which of them a member belongs in.

It must not know headers or commands. How buckets come and go is in sets.py.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

MEMBERS: Final = b"m"
#: After the last bucket: they are all the rows of a set.
MEMBERS_END: Final = b"n"
#: How long the type's part of the key of a bucket is.
SUB_LEN: Final = 5
#: The bucket of a set that has only one.
ONLY: Final = MEMBERS + bytes(4)

#: Bytes of a bucket on average, at most. Twice as many make every write dearer and save little.
BUCKET: Final = 256
#: What a member weighs beside its bytes. One that is as large as a bucket weighs as much.
_MEMBER: Final = 8
HASH_BITS: Final = 32
_HASH_MASK: Final = (1 << HASH_BITS) - 1
#: Fibonacci hashing: 2**32 divided by the golden ratio, in two halves. What is multiplied stays
#: below 2**30: such numbers take no memory when this is compiled (mypyc's CPyTagged_Multiply).
_FACTOR_HIGH: Final = 0x9E37
_FACTOR_LOW: Final = 0x79B1
MODULUS_BITS: Final = 30
_LONG: Final = 255
_LENGTHS: Final = [bytes((size,)) for size in range(_LONG)]


# -- buckets ---------------------------------------------------------------------------------------


def hash_of(member: bytes, modulus: int) -> int:
    """The hash of a member in a set with this modulus."""
    if len(member) > _LONG:
        key = modulus.to_bytes(4, "big")
        return int.from_bytes(blake2b(member, digest_size=4, key=key).digest(), "big")
    # Without the first byte members that differ in leading zeros would have the same hash.
    number = int.from_bytes(b"\1" + member, "big") % modulus
    return ((number * _FACTOR_HIGH & 0xFFFF) << 16) + number * _FACTOR_LOW & _HASH_MASK


def bucket_of(member: bytes, level: int, split: int, modulus: int) -> bytes:
    """The type's part of the key of a member's bucket."""
    if level == 0:  # no modulus yet
        return ONLY
    return bucket_at(hash_of(member, modulus), level, split)


def bucket_at(number: int, level: int, split: int) -> bytes:
    """The same for a hash."""
    shift = HASH_BITS - level
    if number >> shift < split:
        shift -= 1
    return sub_key(number >> shift << shift)


def start_of(sub: bytes) -> int:
    """Where a bucket begins, from the type's part of its key."""
    return int.from_bytes(sub[1:], "big")


def sub_key(start: int) -> bytes:
    """The type's part of the key of the bucket that begins at this hash."""
    return MEMBERS + start.to_bytes(4, "big")


def weigh(size: int) -> int:
    """What a member of a size counts for."""
    size += _MEMBER
    return size if size < BUCKET else BUCKET


def weight_of(members: list[bytes]) -> int:
    """What members count for together."""
    return sum([weigh(len(member)) for member in members])


# -- rows ------------------------------------------------------------------------------------------


def packed(member: bytes) -> bytes:
    """A member with its length before it."""
    size = len(member)
    if size < _LONG:
        return _LENGTHS[size] + member
    return b"\xff" + size.to_bytes(4, "big") + member


def packed_size(size: int) -> int:
    """How many bytes a member of a size takes in a row."""
    return size + (1 if size < _LONG else 5)


def bounds(row: bytes, at: int) -> tuple[int, int]:
    """Where a member begins and ends whose length is at `at`."""
    size = row[at]
    if size < _LONG:
        return at + 1, at + 1 + size
    return at + 5, at + 5 + int.from_bytes(row[at + 1 : at + 5], "big")


def _after(row: bytes, at: int) -> int:
    """The second of `bounds`."""
    size = row[at]
    return at + 1 + size if size < _LONG else bounds(row, at)[1]


def find(row: bytes, member: bytes) -> int:
    """Where a member's length is in a bucket's row; -1 if it isn't there."""
    size, at, end = len(member), 0, len(row)
    last = member[size - 1] if size else 0
    while at < end:
        begin, after = at + 1, at + 1 + row[at]
        if row[at] == _LONG:
            begin, after = bounds(row, at)
        # Few members have the last byte in common: no copy of the others is made.
        same = after - begin == size and (not size or row[after - 1] == last)
        if same and row[begin:after] == member:
            return at
        at = after
    return -1


def nth(row: bytes, number: int) -> int:
    """Where the length of the member with this index is."""
    at = 0
    for _ in range(number):
        at = _after(row, at)
    return at


def count_in(row: bytes) -> int:
    """How many members a bucket has."""
    count, at, end = 0, 0, len(row)
    while at < end:
        at = _after(row, at)
        count += 1
    return count


def unpack(row: bytes) -> list[bytes]:
    """The members of a bucket."""
    members: list[bytes] = []
    at, end = 0, len(row)
    while at < end:
        begin, at = bounds(row, at)
        members.append(row[begin:at])
    return members
