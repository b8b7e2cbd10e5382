"""What must hold of a list's rows."""

from __future__ import annotations

from collections import defaultdict

from kvserver import codec
from kvserver.types import lists
from kvserver.types.list_nodes import entry_bytes
from kvserver.types.lists import BLOCK, BLOCK_BITS, ELEMENT, PLAIN, UNEVEN


def check_rows(header: bytes, rows: dict[bytes, bytes], exact: bool = False) -> None:
    """Head and tail are those of the elements, the rows of blocks tell what is uneven in them, and
    all is counted. The size is `exact` unless LTRIM took many elements and left many."""
    count = codec.collection_count(header)
    extras = codec.collection_extras(header)
    head, tail, size, blocks, encoding = lists.EXTRAS.unpack(extras)
    elements = {sub: row for sub, row in rows.items() if sub[:1] == ELEMENT}
    uneven = {sub[1:]: UNEVEN.unpack(row) for sub, row in rows.items() if sub[:1] == BLOCK}
    assert len(elements) + len(uneven) == len(rows), "a row that is neither"
    assert count == len(elements) > 0
    positions = sorted(lists.position_of(sub) for sub in elements)
    assert (positions[0], positions[-1]) == (head, tail - 1)
    assert not exact or size == sum(map(entry_bytes, elements.values()))
    assert blocks == len(uneven)
    assert encoding in lists.ENCODINGS
    plain, inserted = defaultdict(int), defaultdict(int)
    for sub in elements:
        assert len(sub) == PLAIN or sub[-1] != 0
        (plain if len(sub) == PLAIN else inserted)[lists.position_of(sub) >> BLOCK_BITS] += 1
    expected = {}
    for block in range(head >> BLOCK_BITS, (tail - 1 >> BLOCK_BITS) + 1):
        begin, end = block << BLOCK_BITS, (block + 1) << BLOCK_BITS
        holes = min(end, tail) - max(begin, head) - plain[block]
        if holes or inserted[block]:
            expected[block.to_bytes(8, "big")] = (holes, inserted[block])
    assert uneven == expected
