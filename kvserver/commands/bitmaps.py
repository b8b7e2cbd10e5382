"""Bits of strings: SETBIT, GETBIT, BITOP, BITCOUNT, BITPOS.

What is counted or sought is walked in steps; types/bitmaps.py does it. BITFIELD is in bitfield.py.
Source: Redis 7.4's bitops.c.
"""

from __future__ import annotations

from typing import Any, Final

from kvserver import errors
from kvserver.args import parse_int
from kvserver.commands.replies import begin
from kvserver.numbers import parse_int64
from kvserver.registry import DENYOOM, FAST, READONLY, WALK, WRITE, KeySpec, command, key
from kvserver.state import notify
from kvserver.state.context import Context, ReadContext, WriteContext
from kvserver.types import bitmaps, sparse

CATEGORIES: Final = ("bitmap",)
_UNITS: Final = (("7.0.0", "Added the `BYTE|BIT` option."),)


def parse_offset(ctx: Context, text: bytes, width: int = 0) -> int:
    """The offset of a bit. With a `width` it may be written as `#n`: the n-th number of so many
    bits (getBitOffsetFromArgument)."""
    by_width = width > 0 and text[:1] == b"#"
    offset = parse_int64(text[1:] if by_width else text)
    if offset is None:
        raise errors.bit_offset_out_of_range()
    if by_width:
        offset *= width
    if offset < 0 or offset >> 3 >= ctx.server.config.get_int("proto-max-bulk-len"):
        raise errors.bit_offset_out_of_range()
    return offset


@command(
    "setbit",
    4,
    WRITE | DENYOOM,
    group="bitmap",
    since="2.2.0",
    summary="Sets or clears the bit at offset of the string value. Creates the key if it doesn't "
    "exist.",
    complexity="O(1)",
    keys=key("RW", "ACCESS", "UPDATE"),
    categories=CATEGORIES,
)
def setbit(ctx: WriteContext, name: bytes, offset: bytes, value: bytes) -> int:
    place = parse_offset(ctx, offset)
    bit = parse_int64(value)
    if bit is None or bit & ~1:
        raise errors.error("bit is not an integer or out of range")
    row = ctx.db.current_string_row(name)
    text = sparse.Text(ctx.db, row)
    at = place >> 3
    byte = text.byte(at)
    before = bitmaps.bit_of(byte, place)
    if row is not None and at < text.size and bit == before:
        return before
    mask = 0x80 >> (place & 7)
    edit = sparse.Edit(ctx.db, name, row, at + 1)
    edit.write(at, bytes((byte | mask if bit else byte & ~mask,)))
    edit.save()
    ctx.notify(notify.STRING, b"setbit", name)
    return before


@command(
    "getbit",
    3,
    READONLY | FAST,
    group="bitmap",
    since="2.2.0",
    summary="Returns a bit value by offset.",
    complexity="O(1)",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
)
def getbit(ctx: ReadContext, name: bytes, offset: bytes) -> int:
    place = parse_offset(ctx, offset)
    text = sparse.Text(ctx.db, ctx.db.string_row(name))
    return bitmaps.bit_of(text.byte(place >> 3), place)


@command(
    "bitop",
    -4,
    WRITE | DENYOOM,
    group="bitmap",
    since="2.6.0",
    summary="Performs bitwise operations on multiple strings, and stores the result.",
    complexity="O(N)",
    keys=(KeySpec(2, 2, 1, ("OW", "UPDATE")), KeySpec(3, -1, 1, ("RO", "ACCESS"))),
    categories=CATEGORIES,
)
def bitop(ctx: WriteContext, operation: bytes, destination: bytes, *names: bytes) -> int:
    """Holds up the loop until all is stored, as in Redis."""
    wanted = operation.upper()
    if wanted not in bitmaps.OPERATIONS:
        raise errors.syntax()
    if wanted == bitmaps.NOT and len(names) != 1:
        raise errors.error("BITOP NOT must be called with a single source key.")
    texts = [sparse.Text(ctx.db, ctx.db.string_row(name)) for name in names]
    if any(text.size for text in texts):
        length = bitmaps.combine(ctx.db, destination, wanted, texts)
        ctx.notify(notify.STRING, b"set", destination)
        return length
    ctx.store_nothing(destination)
    return 0


# -- ranges ----------------------------------------------------------------------------------------


def _by_bits(word: bytes) -> bool:
    """Whether a range is counted in bits: the unit is BIT, and not BYTE."""
    unit = word.upper()
    if unit not in (b"BIT", b"BYTE"):
        raise errors.syntax()
    return unit == b"BIT"


def _range(size: int, start: int, end: int, by_bits: bool) -> tuple[int, int]:
    """The first and last bit of a range in a string of so many bytes, both within it, as Redis
    understands it; the first is after the last if there is none."""
    total = size * 8 if by_bits else size
    first = max(start + total, 0) if start < 0 else start
    last = min(max(end + total, 0) if end < 0 else end, total - 1)
    return (first, last) if by_bits else (first * 8, last * 8 + 7)


@command(
    "bitcount",
    -2,
    READONLY | WALK,
    group="bitmap",
    since="2.6.0",
    summary="Counts the number of set bits (population counting) in a string.",
    complexity="O(N)",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    history=_UNITS,
)
def bitcount(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    start, end, by_bits = 0, -1, False
    if words:
        if len(words) not in (2, 3):
            raise errors.syntax()
        start, end = parse_int(words[0]), parse_int(words[1])
        by_bits = len(words) == 3 and _by_bits(words[2])
    text = sparse.Text(ctx.db, ctx.db.string_row(name))
    if 0 > start > end:
        return 0
    first, last = _range(text.size, start, end, by_bits)
    return begin(bitmaps.count(text, first, last)) if first <= last else 0


@command(
    "bitpos",
    -3,
    READONLY | WALK,
    group="bitmap",
    since="2.8.7",
    summary="Finds the first set (1) or clear (0) bit in a string.",
    complexity="O(N)",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
    history=_UNITS,
)
def bitpos(ctx: ReadContext, name: bytes, wanted: bytes, *words: bytes) -> Any:
    bit = parse_int(wanted)
    if bit not in (0, 1):
        raise errors.error("The bit argument must be 1 or 0.")
    if len(words) > 3:
        raise errors.syntax()
    start = parse_int(words[0]) if words else 0
    by_bits = len(words) == 3 and _by_bits(words[2])
    end = parse_int(words[1]) if len(words) > 1 else -1
    row = ctx.db.string_row(name)
    if row is None:
        return -1 if bit else 0
    text = sparse.Text(ctx.db, row)
    first, last = _range(text.size, start, end, by_bits)
    if first > last:
        return -1
    return begin(_position(text, bit, first, last, len(words) < 2))


def _position(text: sparse.Text, bit: int, first: int, last: int, open_end: bool) -> bitmaps.Steps:
    """Without an end in the command, a string goes on with zeros."""
    found = yield from bitmaps.find(text, bit, first, last)
    return last + 1 if found < 0 and not bit and open_end else found
