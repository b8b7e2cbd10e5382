"""What must hold of a set's rows."""

from __future__ import annotations

from kvserver import codec
from kvserver.types import sets


def check_rows(header: bytes, rows: dict[bytes, bytes]) -> None:
    """The indices are exactly 0 .. count - 1, and members and indices are each other's inverse."""
    count = codec.collection_count(header)
    assert codec.collection_extras(header) in sets.ENCODINGS
    members = {sub[1:]: row for sub, row in rows.items() if sub[:1] == sets.MEMBER}
    indices = {sub[1:]: row for sub, row in rows.items() if sub[:1] == sets.INDEX}
    assert len(members) + len(indices) == len(rows), "a row that is neither"
    assert count > 0
    assert indices.keys() == {n.to_bytes(8, "big") for n in range(count)}
    assert {member: index for index, member in indices.items()} == members
