"""What must hold of the rows of a string in fragments."""

from __future__ import annotations

from kvserver import codec
from kvserver.types import sparse


def check_rows(header: bytes, rows: dict[bytes, bytes]) -> None:
    """Fragments are counted, none is empty or ends with a zero, and all lie within the length."""
    length = codec.collection_count(header)
    assert length > sparse.LIMIT
    assert len(codec.collection_extras(header)) == 4
    assert sparse.fragment_count(header) == len(rows)
    for sub, row in rows.items():
        assert len(sub) == 4
        assert 0 < len(row) <= sparse.FRAGMENT
        assert row[-1:] != b"\0"
        assert int.from_bytes(sub, "big") * sparse.FRAGMENT + len(row) <= length
