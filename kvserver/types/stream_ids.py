"""Ids of stream entries: 16 bytes, milliseconds and sequence number, so that bytes order as ids do.

It must not know streams or commands. Source: Redis 7.4's t_stream.c, streamGenericParseIDOrReply
and those that call it.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from kvserver import errors
from kvserver.codec import number_at
from kvserver.numbers import parse_int64

SIZE: Final = 16
ZERO: Final = bytes(SIZE)
LAST: Final = b"\xff" * SIZE

_U64_MAX: Final = (1 << 64) - 1
_ID_MAX: Final = (1 << 128) - 1
_PARTS: Final = struct.Struct(">QQ")
_BYTES: Final = [bytes((byte,)) for byte in range(256)]
#: The longest text that is looked at at all.
_LONGEST: Final = 127
#: What C's strtoull takes beyond plain digits.
_LOOSE: Final = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")


def make(ms: int, seq: int) -> bytes:
    """The id of these parts."""
    return _PARTS.pack(ms, seq)


def parts(entry_id: bytes) -> tuple[int, int]:
    """(milliseconds, sequence number)."""
    return number_at(entry_id, 0), number_at(entry_id, 8)


def text(entry_id: bytes) -> bytes:
    """As clients see it."""
    ms, seq = parts(entry_id)
    return b"%d-%d" % (ms, seq)


def after(entry_id: bytes) -> bytes | None:
    """The next id; None after the last one."""
    last = entry_id[SIZE - 1]
    if last != 0xFF:
        return entry_id[: SIZE - 1] + _BYTES[last + 1]
    number = int.from_bytes(entry_id, "big")
    return None if number == _ID_MAX else (number + 1).to_bytes(SIZE, "big")


def before(entry_id: bytes) -> bytes | None:
    """The id before; None before the first one."""
    number = int.from_bytes(entry_id, "big")
    return None if number == 0 else (number - 1).to_bytes(SIZE, "big")


# -- reading -------------------------------------------------------------------------------------


def parse(word: bytes, missing_seq: int = 0) -> bytes:
    """An id, perhaps without a sequence number; not `-` or `+` (streamParseStrictIDOrReply)."""
    found = try_parse(word, missing_seq)
    if found is None:
        raise errors.invalid_stream_id()
    return found


def try_parse(word: bytes, missing_seq: int = 0) -> bytes | None:
    """The same; None if it is no id."""
    if len(word) > _LONGEST:
        return None
    ms_text, dash, seq_text = _halves(word)
    ms = _number(ms_text)
    seq = _number(seq_text) if dash else missing_seq
    return None if ms is None or seq is None else make(ms, seq)


def parse_loose(word: bytes, missing_seq: int = 0) -> bytes:
    """The same; `-` is the first id of all, and `+` the last one (streamParseIDOrReply)."""
    shown = word.partition(b"\0")[0]
    if shown == b"-":
        return ZERO
    if shown == b"+":
        return LAST
    return parse(word, missing_seq)


def parse_new(word: bytes) -> tuple[bytes, bool]:
    """(id, whether its sequence number is given) of an entry to be added: `ms-*` gives none."""
    ms_text, _, seq_text = _halves(word)
    if seq_text != b"*" or len(word) > _LONGEST:
        return parse(word), True
    ms = _number(ms_text)
    if ms is None:
        raise errors.invalid_stream_id()
    return make(ms, 0), False


def parse_start(word: bytes) -> bytes:
    """The first id of an interval; `(` leaves out the one that follows."""
    if len(word) < 2 or not word.startswith(b"("):
        return parse_loose(word)
    start = after(parse(word[1:]))
    if start is None:
        raise errors.error("invalid start ID for the interval")
    return start


def parse_end(word: bytes) -> bytes:
    """The last id of an interval."""
    if len(word) < 2 or not word.startswith(b"("):
        return parse_loose(word, _U64_MAX)
    end = before(parse(word[1:], _U64_MAX))
    if end is None:
        raise errors.error("invalid end ID for the interval")
    return end


def _halves(word: bytes) -> tuple[bytes, bytes, bytes]:
    """(milliseconds, dash, sequence number), read as the C string that Redis makes of a word."""
    return word.partition(b"\0")[0].partition(b"-")


def _number(digits: bytes) -> int | None:
    """64 bits without a sign (string2ull)."""
    if digits.isdigit():
        value = int(digits)
        return value if value <= _U64_MAX else None
    if parse_int64(digits) is not None:
        return None  # negative, as usually written
    match = _LOOSE.fullmatch(digits)
    if match is None:
        return None
    value = int(match[2])
    if value > _U64_MAX:
        return None
    return -value & _U64_MAX if match[1] == b"-" else value
