"""Decoding of batches."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wal_logs import (
    KEYED,
    encode_batch,
    encode_record,
    put,
)

from kvserver.storage import wal_batch
from kvserver.storage.wal_batch import (
    BATCH_HEADER,
    DELETE,
    DELETE_RANGE,
    LOG_DATA,
    MERGE,
    NOOP,
    PUT,
    SINGLE_DELETE,
    Batch,
    Record,
    WalCorruption,
    WalError,
    WalUnsupported,
)

short = st.binary(max_size=300)
records = st.one_of(
    st.tuples(st.sampled_from((PUT, MERGE, DELETE_RANGE)), st.integers(0, 2**32 - 1), short, short),
    st.tuples(st.sampled_from((DELETE, SINGLE_DELETE)), st.integers(0, 300), short, st.just(b"")),
    st.tuples(st.just(LOG_DATA), st.just(0), st.just(b""), short),
    st.just((NOOP, 0, b"", b"")),
)
STAMP = (PUT, 3, b"s", struct.pack(">QQQQ", 1, 2, 3, 4))


def decode(payload: bytes) -> list[Record]:
    (count,) = struct.unpack_from("<I", payload, 8)
    return Batch(1, count, payload, "file", 7).records()


@given(st.lists(records))
def test_records_round_trip(batch: list[Record]) -> None:
    assert decode(encode_batch(1, batch)) == batch


@given(st.lists(records, max_size=5), records)
def test_a_batch_cut_short_is_corrupt(batch: list[Record], last: Record) -> None:
    whole = encode_batch(1, [*batch, (PUT, 1, b"k", b"v"), last])
    uncounted = b"" if last[0] in KEYED else encode_record(last)
    for end in range(BATCH_HEADER, len(whole) - len(uncounted)):
        with pytest.raises(WalCorruption):
            decode(whole[:end])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_count_must_match(count: int) -> None:
    entries = (
        encode_record(put(1)) + encode_record((LOG_DATA, 0, b"", b"x")) + encode_record(put(2))
    )
    with pytest.raises(WalCorruption, match=f"2 records in a batch that counts {count}"):
        wal_batch.decode_records(entries, count)


@pytest.mark.parametrize(
    ("entry", "error", "reason"),
    [
        (b"\x09", WalUnsupported, r"record tag 0x09 \(transaction\) is not supported"),
        (b"\x11\x01k\x01v", WalUnsupported, "blob index"),
        (b"\x17\x01\x01k\x01v", WalUnsupported, "wide-column entity"),
        (b"\x1a", WalCorruption, "unknown record tag 0x1a"),
        (b"\xff", WalCorruption, "unknown record tag 0xff"),
        (b"\x01\xff\xff\xff\xff\x0fkey\x01v", WalCorruption, "past the end"),
        (b"\x00\xff\xff\xff\xff\xff\x01k", WalCorruption, "more than 5 bytes"),
    ],
)
def test_bad_entries(entry: bytes, error: type[WalError], reason: str) -> None:
    with pytest.raises(error, match=reason) as caught:
        decode(encode_batch(1, []) + entry)
    assert (caught.value.file, caught.value.offset) == ("file", 7)
    assert str(caught.value).startswith("file at offset 7: ")


@given(st.lists(records))
def test_tail_record_is_the_last_one(batch: list[Record]) -> None:
    payload = encode_batch(1, [*batch, STAMP])
    assert wal_batch.tail_record(payload, 1, 32) == STAMP == decode(payload)[-1]


@pytest.mark.parametrize(
    "last",
    [
        [],
        [(PUT, 0, b"s", bytes(32))],
        [(PUT, 3, b"st", bytes(32))],
        [(PUT, 3, b"s", bytes(31))],
        [(PUT, 128, b"s", bytes(32))],
        [(MERGE, 3, b"s", bytes(32))],
        [STAMP, (DELETE, 3, b"s", b"")],
    ],
)
def test_tail_record_of_another_kind(last: list[Record]) -> None:
    assert wal_batch.tail_record(encode_batch(1, last), 1, 32) is None
