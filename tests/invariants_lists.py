"""What must hold of a list's rows."""

from __future__ import annotations

from kvserver import codec
from kvserver.types import lists
from kvserver.types.list_chunks import CHUNK, CHUNK_BITS, FLAG, LARGE, MASK, MOST_ENTRIES
from kvserver.types.list_nodes import entry_bytes
from kvserver.types.lists import BLOCK, BLOCK_BITS, CHUNKS, LARGE_ROWS, PLAIN, START, UNEVEN


def entries_of(sub: bytes, row: bytes) -> list[bytes]:
    """A chunk's entries, read in another way than list_chunks does it."""
    first, count = row[0] & ~FLAG, row[1]
    assert count > 0
    assert first + count <= CHUNK or (first == 0 and count <= MOST_ENTRIES)
    lengths, at = row[2 : 2 + count], 2 + count
    found = []
    for length in lengths:
        found.append(row[at : at + length])
        at += length
    assert at == len(row), "the lengths aren't those of the entries"
    for entry in found:
        if entry[:1] == b"@":
            assert row[0] & FLAG, "a marker in a chunk that should have none"
            assert len(entry) == 13
        else:
            size, value = entry[1:].split(b"\r\n", 1)
            assert entry[:1] == b"$"
            assert int(size) == len(value) - 2 < LARGE
            assert value[-2:] == b"\r\n"
    return found


class Header:
    """What a list's header says."""

    def __init__(self, row: bytes) -> None:
        extras = codec.collection_extras(row)
        if len(extras) == lists.EXTRAS.size:
            extras += bytes(8)
        unpacked = lists.EXTRAS_LARGE.unpack(extras)
        self.encoding, self.head, self.tail, self.size, self.blocks, self.large = unpacked
        self.count = codec.collection_count(row)
        self.first, self.last = self.head >> CHUNK_BITS, (self.tail - 1) >> CHUNK_BITS

    def positions(self, number: int) -> range:
        """The positions of a number, as indices, that are in [head, tail)."""
        begin = self.head & MASK if number == self.first else 0
        return range(begin, (self.tail - 1 & MASK) + 1 if number == self.last else CHUNK)

    def live(self, sub: bytes, row: bytes) -> list[bytes]:
        """The entries of a chunk that aren't dead; there is one at least."""
        found, number = entries_of(sub, row), lists.number_of(sub)
        if len(sub) == PLAIN and number in (self.first, self.last):
            first, indices = row[0] & MASK, self.positions(number)
            assert first <= indices.start < indices.stop <= first + len(found)
            return found[indices.start - first : indices.stop - first]
        assert row[0] & MASK == 0, "a chunk in the middle that doesn't begin at its first index"
        return found


def check_rows(row: bytes, rows: dict[bytes, bytes], exact: bool = False) -> None:
    """Head and tail are those of the elements, the rows of blocks tell what is uneven in them, each
    large element has its row, and all is counted. The size is `exact` unless LTRIM took many
    elements and left many."""
    header = Header(row)
    chunks = {sub: row for sub, row in sorted(rows.items()) if sub[:1] == CHUNKS}
    large = {sub: row for sub, row in rows.items() if sub[:1] == LARGE_ROWS}
    uneven = {sub[1:]: UNEVEN.unpack(row) for sub, row in rows.items() if sub[:1] == BLOCK}
    assert len(chunks) + len(large) + len(uneven) == len(rows), "a row that is none of them"
    assert min(chunks) == lists.sub_of(header.first)
    assert max(chunks) == lists.sub_of(header.last)
    live = {sub: header.live(sub, row) for sub, row in chunks.items()}
    assert header.count == sum(map(len, live.values()))
    values = [value for sub, found in live.items() for value in _values(sub, found, large, header)]
    assert not large, "rows of large elements without a marker"
    assert not exact or header.size == sum(map(entry_bytes, values))
    assert header.encoding in lists.ENCODINGS
    assert header.blocks == len(uneven)
    assert uneven == _uneven(header, live)


def _values(
    sub: bytes, found: list[bytes], large: dict[bytes, bytes], header: Header
) -> list[bytes]:
    """The elements of a chunk; the rows of large ones are taken out."""
    values = []
    for entry in found:
        if entry[:1] != b"@":
            values.append(entry.split(b"\r\n", 1)[1][:-2])
            continue
        ident, size = int.from_bytes(entry[1:9], "big"), int.from_bytes(entry[9:], "big")
        assert 0 < abs(ident - START) <= header.large
        value = large.pop(LARGE_ROWS + sub[1:PLAIN] + entry[1:9])
        assert len(value) == size >= LARGE
        values.append(value)
    return values


def _uneven(header: Header, live: dict[bytes, list[bytes]]) -> dict[bytes, tuple[int, int]]:
    """What the rows of blocks must be."""
    uneven: dict[int, list[int]] = {}
    for number in range(header.first + 1, header.last):
        has = len(live.get(lists.sub_of(number), []))
        if has != CHUNK:
            uneven.setdefault(number >> BLOCK_BITS, []).append(has - CHUNK)
    for sub, found in live.items():
        if len(sub) > PLAIN:
            assert sub[-1] != 0
            assert header.first <= lists.number_of(sub) < header.last
            uneven.setdefault(lists.number_of(sub) >> BLOCK_BITS, []).append(len(found))
    return {block.to_bytes(8, "big"): (len(told), sum(told)) for block, told in uneven.items()}
