"""What FUNCTION DUMP gives and FUNCTION RESTORE takes: libraries as in an RDB file, with a footer.

It must not know Lua or where libraries are kept. Source: Redis 7.4's functions.c
(functionDumpCommand, functionRestoreCommand) and rdb.c (rdbSaveFunctions, rdbFunctionLoad).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvserver.rdb import types
from kvserver.rdb.crc64 import crc64
from kvserver.rdb.errors import BadFormat
from kvserver.rdb.output import Output
from kvserver.rdb.reader import Reader

#: A library's code follows (RDB_OPCODE_FUNCTION2), or that of a release candidate of Redis 7.0.
_FUNCTION: Final = 245
_PRE_GA: Final = 246
#: What libraries may take when they are decompressed.
_MAX_BYTES: Final = 1 << 29


def dump(codes: Sequence[bytes]) -> bytes:
    """The payload of these libraries."""
    out = Output()
    for code in codes:
        out.add(bytes([_FUNCTION]))
        out.string(code)
    return out.payload(types.VERSION)


def load(data: bytes) -> list[bytes]:
    """The libraries in a payload; raises BadFormat with Redis' text."""
    end = len(data) - types.FOOTER_SIZE
    if (
        end < 0
        or int.from_bytes(data[end : end + 2], "little") > types.LATEST_VERSION
        or crc64(memoryview(data)[: end + 2]).to_bytes(8, "little") != data[end + 2 :]
    ):
        raise BadFormat("DUMP payload version or checksum are wrong")
    codes: list[bytes] = []
    pos = 0
    while pos < end:
        if data[pos] == _PRE_GA:
            raise BadFormat("Pre-GA function format not supported")
        if data[pos] != _FUNCTION:
            raise BadFormat("given type is not a function")
        reader = Reader(data, pos + 1, end, _MAX_BYTES)
        try:
            codes.append(types.run(reader.text()))
        except BadFormat:
            raise BadFormat("failed loading the given functions payload") from None
        pos = reader.position
    return codes
