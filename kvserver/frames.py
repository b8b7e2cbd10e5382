"""What travels from a primary to its replica once PSYNC was answered: bytes to frames and back.

It must not know links, the log or what records mean. docs/replication.md describes the protocol.
Layout, big-endian; the checksum is of the header before it and of the payload:

    version u8 | kind u8 | zero u16 | epoch u64 | first_seq u64 | last_seq u64 | records u32
    | unix_ms u64 | payload size u32 | crc32c u32 | payload

Invariants: a frame is whole or not there at all; nothing is allocated because a header says so.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from crc32c import crc32c

VERSION: Final = 1

# Kinds of frames.
#: One batch of the log as it is: RocksDB's tagged entries, the stamp last.
DATA: Final = 1
#: Positions that the replica passes over without their writes; payload: the primary's history.
PADDING: Final = 2
#: The primary's last position and time; payload: fields, the run ids of the primaries above.
HEARTBEAT: Final = 3
#: Messages for the replica's subscribers; payload: fields kind, channel, message.
PUBSUB: Final = 4
#: A full sync's files; payload: fields name, size (u64), alternating. last_seq: the primary's
#: position when the snapshot was begun.
FILES: Final = 5
#: A piece of the file whose index is `first_seq`, at the offset `last_seq`.
CHUNK: Final = 6
#: The file with the index `first_seq` is whole; `last_seq` is its crc32c.
FILE_END: Final = 7
#: Every file was sent.
SYNC_END: Final = 8
#: Rows for a rewind; payload: fields cf (u8) + key, then b"" or b"=" + value, alternating.
VALUES: Final = 9
#: All rows asked for were sent; last_seq: the primary's position when the last was read.
VALUES_END: Final = 10

_KINDS: Final = VALUES_END
_HEADER: Final = struct.Struct(">BBHQQQIQI")
_CRC: Final = struct.Struct(">I")
_SIZE: Final = struct.Struct(">I")
HEADER_LEN: Final = _HEADER.size + _CRC.size
#: The largest payload of those kinds that have one; rows and records are as large as clients
#: make them.
_LIMITS: Final = {
    PADDING: 1 << 16,
    HEARTBEAT: 1 << 16,
    FILES: 1 << 24,
    CHUNK: 1 << 20,
    FILE_END: 0,
    SYNC_END: 0,
    VALUES_END: 1 << 16,
}
MAX_U64: Final = (1 << 64) - 1


class FrameError(Exception):
    """These bytes are not a frame, or not one that may come now; the link must end."""


class Frame(NamedTuple):
    """`records`: how many RocksDB counts; positions `first_seq`..`last_seq`, none when
    the first is after the last."""

    kind: int
    epoch: int
    first_seq: int
    last_seq: int
    records: int
    unix_ms: int
    payload: bytes


def encode(frame: Frame) -> bytes:
    """The frame's bytes."""
    kind, epoch, first_seq, last_seq, records, unix_ms, payload = frame
    header = _HEADER.pack(
        VERSION, kind, 0, epoch, first_seq, last_seq, records, unix_ms, len(payload)
    )
    return b"".join((header, _CRC.pack(crc32c(payload, crc32c(header))), payload))


def control(kind: int, first_seq: int = 0, last_seq: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a frame that carries no records."""
    return encode(Frame(kind, 0, first_seq, last_seq, 0, 0, payload))


class FrameParser:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now. Raises FrameError; then the link can only be closed."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        pos = 0
        while len(buffer) - pos >= HEADER_LEN:
            size = _check_header(buffer, pos)
            end = pos + HEADER_LEN + size
            if len(buffer) < end:
                break
            frames.append(_frame(bytes(buffer[pos:end])))
            pos = end
        if pos:
            del buffer[:pos]
        return frames


def _check_header(buffer: bytearray, pos: int) -> int:
    """The size of the payload."""
    version, kind, zero, _, _, _, _, _, size = _HEADER.unpack_from(buffer, pos)
    if version != VERSION or not 0 < kind <= _KINDS or zero:
        raise FrameError(f"not a frame of version {VERSION}: version {version}, kind {kind}")
    if size > _LIMITS.get(kind, size):
        raise FrameError(f"a frame of kind {kind} with {size} bytes")
    return int(size)


def _frame(data: bytes) -> Frame:
    _, kind, _, epoch, first_seq, last_seq, records, unix_ms, _ = _HEADER.unpack_from(data)
    payload = data[HEADER_LEN:]
    if crc32c(payload, crc32c(data[: _HEADER.size])) != _CRC.unpack_from(data, _HEADER.size)[0]:
        raise FrameError("a frame with a wrong checksum")
    return Frame(kind, epoch, first_seq, last_seq, records, unix_ms, payload)


def pack_fields(fields: list[bytes]) -> bytes:
    """Fields, each with its size before it."""
    parts = []
    for field in fields:
        parts.append(_SIZE.pack(len(field)))
        parts.append(field)
    return b"".join(parts)


def unpack_fields(data: bytes) -> list[bytes]:
    """The fields that `pack_fields` joined; FrameError if these bytes are none."""
    fields = []
    pos, end = 0, len(data)
    while pos < end:
        if end - pos < _SIZE.size:
            raise FrameError("a field cut short")
        (size,) = _SIZE.unpack_from(data, pos)
        pos += _SIZE.size
        if end - pos < size:
            raise FrameError("a field cut short")
        fields.append(data[pos : pos + size])
        pos += size
    return fields
