"""What must hold of a set's rows."""

from __future__ import annotations

from headers import of_header

from kvserver.types import sets
from kvserver.types.set_buckets import MEMBERS, unpack, weight_of
from kvserver.types.sets import Set


def check_rows(header: bytes, rows: dict[bytes, bytes]) -> None:
    """Each member is once there, in the bucket of its hash; count, weight and buckets fit."""
    found = Set(of_header(header))
    assert found.encoding < len(sets.ENCODINGS)
    members: list[bytes] = []
    for sub, row in rows.items():
        bucket = unpack(row)
        assert bucket, "a bucket without members"
        for member in bucket:
            assert found.bucket_of(member) == sub, "a member in a bucket of others"
        members += bucket
    assert len(set(members)) == len(members) == found.count > 0
    assert weight_of(members) == found.weight
    assert 0 <= found.split < 1 << found.level
    assert sum(sub.startswith(MEMBERS) for sub in rows) <= found.buckets
    assert found.buckets == 1 or found.modulus > 0
