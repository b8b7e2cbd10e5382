"""Writes WAL files as RocksDB's db/log_writer.cc and db/write_batch.cc do, for the tests."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from crc32c import crc32c

from kvserver.storage.wal import WalReader
from kvserver.storage.wal_batch import (
    DELETE,
    DELETE_RANGE,
    LOG_DATA,
    MERGE,
    NOOP,
    PUT,
    SINGLE_DELETE,
    Batch,
    Record,
)
from kvserver.storage.wal_file import BLOCK

# The tags without and with a column family; None where RocksDB has none.
TAGS = {
    DELETE: (0x0, 0x4),
    PUT: (0x1, 0x5),
    MERGE: (0x2, 0x6),
    LOG_DATA: (0x3, None),
    SINGLE_DELETE: (0x7, 0x8),
    NOOP: (0xD, None),
    DELETE_RANGE: (0xF, 0xE),
}
KEYED = (DELETE, PUT, MERGE, SINGLE_DELETE, DELETE_RANGE)
VALUED = (PUT, MERGE, DELETE_RANGE, LOG_DATA)


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def encode_record(record: Record) -> bytes:
    op, cf_id, key, value = record
    plain, with_cf = TAGS[op]
    parts = [bytes([with_cf]) + varint(cf_id) if cf_id else bytes([plain])]
    parts += [varint(len(key)) + key] if op in KEYED else []
    parts += [varint(len(value)) + value] if op in VALUED else []
    return b"".join(parts)


def encode_batch(sequence: int, records: Iterable[Record]) -> bytes:
    records = list(records)
    count = sum(record[0] in KEYED for record in records)
    return struct.pack("<QI", sequence, count) + b"".join(map(encode_record, records))


def encode_fragment(kind: int, body: bytes, extra: bytes = b"") -> bytes:
    crc = crc32c(bytes([kind]) + extra + body)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<IHB", masked, len(body), kind) + extra + body


def encode_log(payloads: Iterable[bytes], start: int = 0) -> bytes:
    """The bytes that RocksDB appends to a log of `start` bytes for these records."""
    log = bytearray()
    for payload in payloads:
        rest, first = payload, True
        while rest or first:
            room = BLOCK - (start + len(log)) % BLOCK
            if room < 7:
                log += bytes(room)
                continue
            body, rest = rest[: room - 7], rest[room - 7 :]
            kind = {(1, 1): 1, (1, 0): 2, (0, 0): 3, (0, 1): 4}[first, not rest]
            log += encode_fragment(kind, body)
            first = False
    return bytes(log)


def put(size: int, cf_id: int = 0) -> Record:
    return (PUT, cf_id, b"key", bytes(range(256)) * (size // 256) + b"x" * (size % 256))


def batches(first: int, *sizes: int) -> list[bytes]:
    """One batch of two records for each size, with sequences from `first` on."""
    return [
        encode_batch(first + 2 * index, [put(size), (DELETE, 1, b"k", b"")])
        for index, size in enumerate(sizes)
    ]


class Log:
    """A directory of log files that a test writes byte by byte."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.readers: list[WalReader] = []

    def path(self, number: int) -> Path:
        return self.directory / f"{number:06d}.log"

    def write(self, number: int, data: bytes) -> None:
        self.path(number).write_bytes(data)

    def append(self, number: int, data: bytes) -> None:
        with self.path(number).open("ab") as file:
            file.write(data)

    def reader(self, start_file: int | None = None) -> WalReader:
        self.readers.append(WalReader(str(self.directory), start_file))
        return self.readers[-1]

    def payloads(self) -> list[bytes]:
        with closing(WalReader(str(self.directory))) as reader:
            return [batch.payload for batch in drain(reader)]


def drain(reader: WalReader) -> list[Batch]:
    return list(iter(reader.read, None))


# A batch of `batches` has this many bytes more than its value, for values of 16 to 128 KiB; with
# the fragment's header it fills a block up to `left` bytes.
OVERHEAD = len(batches(1, 20000)[0]) - 20000


def size_leaving(left: int) -> int:
    return BLOCK - 7 - OVERHEAD - left
