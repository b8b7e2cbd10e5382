"""What must be true of all rows of a sorted set, whatever was done to it."""

from __future__ import annotations

import struct

from kvserver import codec
from kvserver.types import zset_blocks, zsets


def check_rows(header: bytes, rows: dict[bytes, bytes]) -> None:
    """`rows`: the type's part of the key -> row, of all rows under the collection's prefix."""
    count = codec.collection_count(header)
    extras = codec.collection_extras(header)
    flags = extras[0] if extras else 0
    low, high = (extras[2 : 2 + extras[1]], extras[2 + extras[1] :]) if extras[1:] else (b"", b"")
    members = {sub[1:]: row for sub, row in rows.items() if sub[:1] == zsets.MEMBER}
    places = sorted(sub[1:] for sub in rows if sub[:1] == zset_blocks.INDEX)
    blocks = {sub: row for sub, row in rows.items() if sub[:1] in (b"C", b"c")}
    assert len(rows) == len(members) + len(places) + len(blocks)
    assert count == len(members) == len(places) > 0
    for member, row in members.items():
        (score,) = struct.unpack(">d", row)
        index = rows[zset_blocks.INDEX + zsets.ordered(score) + member]
        assert index == (b"-" if row == struct.pack(">d", -0.0) else b"")
        assert flags & zsets.SKIPLIST or row != struct.pack(">d", -0.0)
    assert low <= places[0]
    assert not high or places[-1] < high
    assert bool(blocks) == bool(flags & zsets.BLOCKS)
    assert count <= zset_blocks.MOST_ELEMENTS or blocks
    assert count >= zsets.FEW_ELEMENTS or not blocks
    if blocks:
        _check_blocks(places, blocks)


def _check_blocks(places: list[bytes], rows: dict[bytes, bytes]) -> None:
    groups = sorted((sub[1:], row) for sub, row in rows.items() if sub[:1] == zset_blocks.GROUP)
    blocks = sorted((sub[1:], row) for sub, row in rows.items() if sub[:1] == zset_blocks.BLOCK)
    assert groups[-1][0] == blocks[-1][0] == zset_blocks.LAST
    begin = b""
    for end, row in groups:
        elements, number = struct.unpack_from(">IH", row)
        assert row[6:] == begin
        inside = [block for block in blocks if begin < block[0] <= end]
        assert elements == sum(int.from_bytes(block[1][:4], "big") for block in inside)
        assert number == len(inside) <= zset_blocks.MOST_BLOCKS
        assert inside[-1][0] == end
        assert elements or end == zset_blocks.LAST
        assert all(int.from_bytes(row[:4], "big") for _, row in inside[:-1])
        begin = end
    begin = b""
    for end, row in blocks:
        counted = sum(begin <= place < end for place in places)
        assert counted == int.from_bytes(row[:4], "big") <= zset_blocks.MOST_ELEMENTS
        assert row[4:] == begin
        begin = end
