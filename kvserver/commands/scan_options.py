"""The arguments of the SCAN family: the cursor, and MATCH, COUNT, TYPE and NOVALUES.

Source: Redis 7.4's db.c, parseScanCursorOrReply and scanGenericCommand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvserver import codec, errors
from kvserver.args import Cursor, parse_int

_MAX_CURSOR: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Options:
    """`kind` is a type's name, None: any."""

    pattern: bytes
    count: int
    kind: bytes | None
    novalues: bool


def parse_cursor(text: bytes) -> int:
    """A cursor: an unsigned 64-bit integer in decimal."""
    if not text.isdigit() or len(text) > 20 or (number := int(text)) > _MAX_CURSOR:
        raise errors.invalid_cursor()
    return number


def parse(words: tuple[bytes, ...], kind: int) -> Options:
    """`kind` is the type of the collection that is walked, codec.MISSING for a database."""
    pattern, count, novalues = b"*", 10, False
    wanted: bytes | None = None
    options = Cursor(words)
    while options.more():
        if (text := options.value(b"COUNT")) is not None:
            count = parse_int(text)
            if count < 1:
                raise errors.syntax()
        elif (text := options.value(b"MATCH")) is not None:
            pattern = text
        elif kind == codec.MISSING and (text := options.value(b"TYPE")) is not None:
            wanted = text.lower()
        elif options.flag(b"NOVALUES"):
            if kind != codec.HASH:
                raise errors.error("NOVALUES option can only be used in HSCAN")
            novalues = True
        else:
            raise errors.syntax()
    return Options(pattern, count, wanted, novalues)
