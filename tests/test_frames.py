"""Frames: what travels between primary and replica."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvserver import frames
from kvserver.frames import Frame, FrameError, FrameParser

u64 = st.integers(0, (1 << 64) - 1)
u32 = st.integers(0, (1 << 32) - 1)
a_frame = st.builds(
    Frame,
    st.sampled_from((frames.DATA, frames.FILES, frames.CHUNK, frames.VALUES)),
    u64,
    u64,
    u64,
    u32,
    u64,
    st.binary(max_size=300),
)


@given(st.lists(a_frame, max_size=5), st.lists(st.integers(1, 100), max_size=40))
def test_bytes_in_any_pieces_are_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(map(frames.encode, sent))
    parser, got = FrameParser(), []
    for cut in cuts:
        got += parser.feed(data[:cut])
        data = data[cut:]
    assert got + parser.feed(data) == sent


def test_layout() -> None:
    """Another implementation relies on it (docs/replication.md)."""
    data = frames.encode(Frame(frames.DATA, 1, 2, 3, 4, 5, b"xyz"))
    assert data.hex() == (
        "01010000" + "0000000000000001" + "0000000000000002" + "0000000000000003"
        "00000004" + "0000000000000005" + "00000003" + data[44:48].hex() + b"xyz".hex()
    )
    assert frames.HEADER_LEN == 48


@given(a_frame, st.data())
def test_a_changed_byte_is_found(frame: Frame, data: st.DataObject) -> None:
    sent = bytearray(frames.encode(frame))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    parser = FrameParser()
    try:
        got = parser.feed(bytes(sent))
    except FrameError:
        return
    assert got == []  # a longer payload seems to be due


@pytest.mark.parametrize("start", [b"\x02\x01\0\0", b"\x01\x00\0\0", b"\x01\x0b\0\0", b"-ERR"])
def test_what_is_no_frame(start: bytes) -> None:
    with pytest.raises(FrameError, match="not a frame"):
        FrameParser().feed(start.ljust(frames.HEADER_LEN, b"\0"))


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_fields(fields: list[bytes]) -> None:
    assert frames.unpack_fields(frames.pack_fields(fields)) == fields


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\2x", b"\xff\xff\xff\xffx"])
def test_what_are_no_fields(data: bytes) -> None:
    with pytest.raises(FrameError, match="cut short"):
        frames.unpack_fields(data)
