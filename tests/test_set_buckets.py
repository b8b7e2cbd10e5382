"""Rows of several members."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from kvserver.types.set_buckets import find, packed, unpack

#: Bytes that look like lengths, so that members look like other members with theirs.
MEMBERS = st.one_of(
    st.lists(st.sampled_from([0, 1, 2, 3, 0xFF]), max_size=6).map(bytes),
    st.integers(250, 260).map(bytes),
)


@given(st.lists(MEMBERS, unique=True, max_size=12), MEMBERS)
@example([b"\1\1", b"\1"], b"\1")
@example([b"\0\0", b"\0"], b"")
@example([b"\2\1\1\1", b"\1\1"], b"\1\1")
def test_a_member_is_found_where_it_is(members: list[bytes], wanted: bytes) -> None:
    row = b"".join(map(packed, members))
    assert unpack(row) == members
    starts = [len(b"".join(map(packed, members[:at]))) for at in range(len(members))]
    for member in (*members, wanted):
        expected = starts[members.index(member)] if member in members else -1
        assert find(row, member) == expected
