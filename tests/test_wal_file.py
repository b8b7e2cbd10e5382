"""One log file: blocks, torn tails, damage, other types of fragment."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wal_logs import (
    Log,
    batches,
    drain,
    encode_fragment,
    encode_log,
    size_leaving,
)

from kvserver.storage.wal_batch import (
    WalCorruption,
    WalUnsupported,
)
from kvserver.storage.wal_file import BLOCK


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    for reader in log.readers:
        reader.close()


@given(st.lists(st.sampled_from([0, 1, 100, 5000, BLOCK, 3 * BLOCK]) | st.integers(0, 70000)))
@example([size_leaving(left) for left in range(10)])
def test_log_round_trip(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    expected = batches(1, *sizes)
    log.write(4, encode_log(expected))
    assert log.payloads() == expected
    shutil.rmtree(log.directory)


@pytest.mark.parametrize("left", range(9))
def test_block_boundaries(log: Log, left: int) -> None:
    """A trailer of up to 6 bytes, and a `first` fragment without a body at 7."""
    first, *others = batches(1, size_leaving(left), 100, 2 * BLOCK, 10)
    log.write(4, encode_log([first]))
    reader = log.reader()
    assert [batch.payload for batch in drain(reader)] == [first]
    log.append(4, encode_log(others, start=BLOCK - left))
    found = drain(reader)
    assert [batch.payload for batch in found] == others
    assert found[0].offset == BLOCK - left if left >= 7 else BLOCK


def spanning_tail() -> tuple[bytes, int]:
    """A log of three batches, the last one over a block's end, and where the last one begins."""
    sizes = (10, size_leaving(0) - len(encode_log(batches(1, 10))) - 50, 100)
    return encode_log(batches(1, *sizes)), len(encode_log(batches(1, *sizes[:2])))


def test_a_torn_tail_in_the_newest_file_is_no_more_yet(log: Log) -> None:
    data, start = spanning_tail()
    assert len(data) - start > BLOCK - start  # it does span
    for end in range(start, len(data)):
        log.write(4, data[:end])
        reader = log.reader()
        assert [batch.sequence for batch in drain(reader)] == [1, 3]
        assert reader.read() is None
        log.append(4, data[end:])
        assert [batch.payload for batch in drain(reader)] == batches(5, 100)


def test_a_torn_tail_is_legal_if_the_next_file_begins_with_the_sequence_due(log: Log) -> None:
    data, start = spanning_tail()
    log.write(9, encode_log(batches(5, 1, 1)))
    for end in range(start, len(data)):
        log.write(4, data[:end])
        assert [payload[0] for payload in log.payloads()] == [1, 3, 5, 7]


def test_a_torn_tail_is_corruption_if_the_next_file_begins_with_another(log: Log) -> None:
    data, start = spanning_tail()
    log.write(9, encode_log(batches(7, 1)))
    for end in range(start, len(data)):
        log.write(4, data[:end])
        reader = log.reader()
        assert [reader.read().sequence, reader.read().sequence] == [1, 3]
        with pytest.raises(WalCorruption, match="begins with sequence 7, not 5") as caught:
            reader.read()
        assert caught.value.file == str(log.path(4))
        assert start <= caught.value.offset <= end


def test_allocated_space_is_no_more_yet(log: Log) -> None:
    first, second = batches(1, 10, 10)
    data = encode_log([first])
    log.write(4, data + bytes(2 * BLOCK))
    reader = log.reader()
    assert reader.read().payload == first  # and what it has buffered now changes
    with log.path(4).open("r+b") as file:
        file.seek(len(data))
        file.write(encode_log([second]))
    assert [batch.payload for batch in drain(reader)] == [second]
    log.write(9, encode_log(batches(5, 10)))
    assert reader.read().sequence == 5


def test_a_flipped_bit_is_found(log: Log) -> None:
    before, after = encode_log(batches(1, 5)), encode_log(batches(9, 5))
    data = encode_log(batches(3, 10, 20, 30))
    log.write(3, before)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        log.write(4, flipped)
        # In the newest file, a longer length may look like a record that is being written.
        try:
            assert len(log.payloads()) < 4
        except WalCorruption as error:
            assert error.offset <= bit // 8
        log.write(9, after)
        with pytest.raises(WalCorruption) as caught:
            log.payloads()
        assert caught.value.file == str(log.path(4))
        assert caught.value.offset <= bit // 8
        log.path(9).unlink()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (5, "recyclable full"),
        (8, "recyclable last"),
        (9, "set compression type"),
        (10, "user-defined timestamp size"),
        (11, "recyclable user-defined timestamp size"),
        (33, "predecessor WAL information"),
        (77, "unknown"),
    ],
)
def test_other_types_are_refused_by_name(log: Log, kind: int, name: str) -> None:
    good = encode_log(batches(1, 10))
    number = b"\x04\0\0\0" if name.startswith("recyclable") else b""
    log.write(4, good + encode_fragment(kind, b"body", number))
    reader = log.reader()
    assert reader.read().sequence == 1
    with pytest.raises(WalUnsupported, match=rf"record type {kind} \({name}\)") as caught:
        reader.read()
    assert (caught.value.file, caught.value.offset) == (str(log.path(4)), len(good))


@pytest.mark.parametrize(
    ("fragments", "reason"),
    [
        ([(3, b"x")], "a fragment out of order"),
        ([(4, b"x")], "a fragment out of order"),
        ([(2, b"x"), (1, b"x")], "a fragment out of order"),
        ([(2, b"x"), (2, b"x")], "a fragment out of order"),
        ([(1, b"x" * 11)], "shorter than a batch's header"),
    ],
)
def test_impossible_records(log: Log, fragments: list[tuple[int, bytes]], reason: str) -> None:
    log.write(4, b"".join(encode_fragment(kind, body) for kind, body in fragments))
    with pytest.raises(WalCorruption, match=reason):
        log.reader().read()


def test_a_fragment_never_leaves_its_block(log: Log) -> None:
    log.write(4, encode_log(batches(1, 10)) + struct.pack("<IHB", 1, BLOCK, 1) + bytes(BLOCK))
    with pytest.raises(WalCorruption, match="longer than its block"):
        log.payloads()
