"""What holds of the rows of a hash at any time (kvserver/types/hashes.py)."""

from __future__ import annotations

from kvserver import codec
from kvserver.rdb.types import MAX_FIELD_EXPIRE
from kvserver.types import hashes


def check_rows(header: bytes, rows: dict[bytes, bytes]) -> None:
    """`header` is the row of the key, `rows` are all rows under its prefix, by the type's part."""
    due_ms, expiring, encoding = hashes.unpack(codec.collection_extras(header))
    fields = {sub[1:]: row for sub, row in rows.items() if sub[:1] == hashes.FIELD}
    due = {sub for sub in rows if sub[:1] == hashes.DUE}
    assert len(fields) + len(due) == len(rows), "rows of no known kind"
    assert len(fields) == codec.collection_count(header) > 0
    times = {field: hashes.expire_of(row) for field, row in fields.items()}
    expected = {
        hashes.DUE + time.to_bytes(8, "big") + field for field, time in times.items() if time
    }
    assert due == expected
    assert all(rows[sub] == b"" for sub in due)
    assert expiring == len(due)
    assert codec.field_due(header) == due_ms
    assert (due_ms > 0) == (expiring > 0)
    assert all(time == 0 or due_ms <= time <= MAX_FIELD_EXPIRE for time in times.values())
    assert encoding < len(hashes.ENCODINGS)
    assert encoding != hashes.LISTPACK or not expiring
