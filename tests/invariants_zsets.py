"""What must be true of all rows of a sorted set, whatever was done to it."""

from __future__ import annotations

import struct
from bisect import bisect_left

from kvserver import codec
from kvserver.storage.commitlog import CommitLog
from kvserver.types import zset_blocks, zset_memory, zsets


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
    assert count <= zsets.MOST_UNCOUNTED or blocks
    assert count >= zsets.FEWEST_COUNTED or not blocks
    if blocks:
        _check_blocks(places, blocks)


def _check_blocks(places: list[bytes], rows: dict[bytes, bytes]) -> None:
    groups = sorted((sub[1:], row) for sub, row in rows.items() if sub[:1] == zset_blocks.GROUP)
    ends_of = {sub[1:]: row for sub, row in rows.items() if sub[:1] == zset_blocks.BLOCK_ENDS}
    assert groups[-1][0] == zset_blocks.LAST
    assert len(groups) == len(ends_of)
    begin = b""
    for end, row in groups:
        (elements,) = struct.unpack_from(">I", row)
        counts = struct.unpack_from(f">{(len(row) - 4) // 2}H", row, 4)
        assert elements == sum(counts)
        assert elements or end == zset_blocks.LAST
        assert all(counts[:-1])
        assert max(counts) <= zset_blocks.MOST_ELEMENTS
        first, *ends = [*_ends(ends_of[end]), end]
        assert first == begin
        assert len(ends) == len(counts) <= zset_blocks.MOST_BLOCKS
        assert len(ends) == 1 or sum(map(len, ends)) <= zset_blocks.MOST_BYTES
        for block_end, count in zip(ends, counts, strict=True):
            assert begin < block_end
            assert count == bisect_left(places, block_end) - bisect_left(places, begin)
            begin = block_end


def _ends(row: bytes) -> list[bytes]:
    found = []
    while row:
        (size,) = struct.unpack_from(">I", row)
        found.append(row[4 : 4 + size])
        row = row[4 + size :]
    return found


def check_memory(log: CommitLog) -> None:
    """What is in memory of sorted sets is what their rows say, pending ones included."""
    memory = log.derived.get(codec.ZSET)
    if memory is None:
        return
    assert isinstance(memory, zset_memory.Memory)
    sets = memory._sets
    assert len(sets) <= zset_memory.MOST_SETS
    assert memory._budget.groups == sum(len(known.groups._groups) for known in sets.values())
    for prefix, known in sets.items():
        rows = dict(log.data.scan(prefix, codec.prefix_end(prefix)))
        rows = {key[codec.ELEMENT_PREFIX_LEN :]: row for key, row in rows.items()}
        if not rows:
            continue  # it was deleted
        places = sorted(sub[1:] for sub in rows if sub[:1] == zset_blocks.INDEX)
        assert known.low.places == [place for place in places if place < known.low.bound]
        assert known.high.places == [place for place in places if place >= known.high.bound]
        assert known.groups._ends == [group.end for group in known.groups._groups]
        for group in known.groups._groups:
            row = rows[zset_blocks.GROUP + group.end]
            assert row == group.elements.to_bytes(4, "big") + group.counts
            ends = _ends(rows[zset_blocks.BLOCK_ENDS + group.end])
            assert [group.begin, *group.ends[:-1]] == ends
