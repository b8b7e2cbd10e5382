"""BITFIELD and BITFIELD_RO: a string as an array of integers of any width.

All subcommands are read before the first is executed. Source: Redis 7.4's bitops.c,
bitfieldGeneric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from kvserver import errors
from kvserver.args import Cursor, parse_int
from kvserver.commands.bitmaps import CATEGORIES, parse_offset
from kvserver.numbers import INT64_MAX, parse_int64
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, Key, KeySpec, command, key
from kvserver.state import notify
from kvserver.state.context import Context, ReadContext, WriteContext
from kvserver.types import sparse

_GET: Final = b"GET"
_SET: Final = b"SET"
_INCRBY: Final = b"INCRBY"
_WRAP: Final = b"WRAP"
_SAT: Final = b"SAT"
_FAIL: Final = b"FAIL"

_KEY: Final = KeySpec(
    1,
    1,
    1,
    ("RW", "ACCESS", "UPDATE", "VARIABLE_FLAGS"),
    "This command allows both access and modification of the key",
)


class _Field(NamedTuple):
    """An integer within a string: its place and kind."""

    offset: int
    width: int
    signed: bool

    @property
    def start(self) -> int:
        """Its first byte."""
        return self.offset >> 3

    @property
    def end(self) -> int:
        """After its last byte."""
        return (self.offset + self.width + 7) >> 3

    @property
    def shift(self) -> int:
        """The bits after it in its last byte."""
        return -(self.offset + self.width) & 7

    @property
    def least(self) -> int:
        return -(1 << self.width - 1) if self.signed else 0

    @property
    def most(self) -> int:
        return (1 << (self.width - 1 if self.signed else self.width)) - 1

    def get(self, data: bytes) -> int:
        """Its value in the bytes [start, end), which are continued with zeros."""
        whole = int.from_bytes(data.ljust(self.end - self.start, b"\0"), "big")
        return self.wrapped(whole >> self.shift)

    def put(self, data: bytes, value: int) -> bytes:
        """These bytes with another value."""
        mask = (1 << self.width) - 1
        whole = int.from_bytes(data, "big") & ~(mask << self.shift)
        return (whole | (value & mask) << self.shift).to_bytes(len(data), "big")

    def wrapped(self, number: int) -> int:
        """What is left of a number in so many bits."""
        number &= (1 << self.width) - 1
        return number - (1 << self.width) if self.signed and number > self.most else number


class _Operation(NamedTuple):
    """A subcommand; `number` is what is to be set or added."""

    name: bytes
    field: _Field
    number: int
    overflow: bytes


def _parse(ctx: Context, words: Sequence[bytes]) -> list[_Operation]:
    operations: list[_Operation] = []
    overflow = _WRAP
    options = Cursor(words)
    while options.more():
        name = options.next().upper()
        if name == b"OVERFLOW" and options.more():
            overflow = options.next().upper()
            if overflow not in (_WRAP, _SAT, _FAIL):
                raise errors.error("Invalid OVERFLOW type specified")
            continue
        size = {_GET: 2, _SET: 3, _INCRBY: 3}.get(name)
        if size is None or options.remaining() < size:
            raise errors.syntax()
        kind, place, *rest = options.take(size)
        field = _parse_field(ctx, kind, place)
        number = parse_int(rest[0]) if rest else 0
        operations.append(_Operation(name, field, number, overflow))
    return operations


def _parse_field(ctx: Context, kind: bytes, place: bytes) -> _Field:
    """A type such as i16 or u8, up to a NUL as in C, and an offset
    (getBitfieldTypeFromArgument)."""
    sign, digits = kind[:1], kind[1:].partition(b"\0")[0]
    width = parse_int64(digits)
    signed = sign == b"i"
    if sign not in (b"i", b"u") or width is None or not 1 <= width <= (64 if signed else 63):
        raise errors.error(
            "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but "
            "i64 is."
        )
    return _Field(parse_offset(ctx, place, width), width, signed)


def _locate_key(args: Sequence[bytes]) -> list[Key]:
    """The key is only read if there is nothing but GET (db.c, bitfieldGetKeys)."""
    sizes = {b"GET": 2, b"OVERFLOW": 1}
    at = 2
    while at < len(args):
        size = sizes.get(args[at].upper())
        if size is None or len(args) - at - 1 < size:
            return [(1, ("RW", "ACCESS", "UPDATE"))]
        at += size + 1
    return [(1, ("RO", "ACCESS"))]


@command(
    "bitfield",
    -2,
    WRITE | DENYOOM,
    group="bitmap",
    since="3.2.0",
    summary="Performs arbitrary bitfield integer operations on strings.",
    complexity="O(1) for each subcommand specified",
    keys=(_KEY,),
    categories=CATEGORIES,
    locate=_locate_key,
)
def bitfield(ctx: WriteContext, name: bytes, *words: bytes) -> list[int | None]:
    operations = _parse(ctx, words)
    ends = [one.field.end for one in operations if one.name != _GET]
    if not ends:
        return _read_all(ctx, name, operations)
    target = _Target(ctx, name, max(ends))
    replies: list[int | None] = []
    for one in operations:
        if one.name == _GET:
            replies.append(target.get(one.field))
        else:
            replies.append(_change(target, one))
    target.save(ctx)
    return replies


class _Target:
    """The string that is changed: it is written only if it grows, or a value becomes another."""

    def __init__(self, ctx: WriteContext, name: bytes, end: int) -> None:
        self._db = ctx.db
        self._name = name
        self._row = ctx.db.current_string_row(name)
        self._text = sparse.Text(ctx.db, self._row)
        self._edit: sparse.Edit | None = None
        self._changed = False
        #: Redis takes every write to a string that grows for a change.
        self._grows = self._row is None or end > self._text.size
        self._end = max(end, self._text.size)
        if self._grows:
            self._edit = sparse.Edit(self._db, name, self._row, end)

    def get(self, field: _Field) -> int:
        """The value of an integer."""
        if self._edit is None:
            return field.get(self._text.read(field.start, field.end))
        return field.get(self._edit.read(field.start, min(field.end, self._end)))

    def put(self, field: _Field, value: int) -> None:
        """Set an integer."""
        if self._grows or self.get(field) != value:
            if self._edit is None:
                self._edit = sparse.Edit(self._db, self._name, self._row, field.end)
            self._edit.write(field.start, field.put(self._edit.read(field.start, field.end), value))
            self._changed = True

    def save(self, ctx: WriteContext) -> None:
        """Write what changed. What only grew, since all else failed, isn't told."""
        if self._edit is not None:
            self._edit.save()
        if self._changed:
            ctx.notify(notify.STRING, b"setbit", self._name)


def _change(target: _Target, one: _Operation) -> int | None:
    """SET, which gives the value before, or INCRBY, which gives the one after; None: it would
    overflow, and is to fail then."""
    before = target.get(one.field)
    if one.name == _SET:
        after = _fitted(one.field, one.number, 0, one.overflow)
    else:
        after = _fitted(one.field, before, one.number, one.overflow)
    if after is None:
        return None
    target.put(one.field, after)
    return before if one.name == _SET else after


def _fitted(field: _Field, value: int, increment: int, overflow: bytes) -> int | None:
    """The sum, or what becomes of it when the integer has no room for it
    (checkSignedBitfieldOverflow, checkUnsignedBitfieldOverflow)."""
    total = value + increment
    if field.least <= total <= field.most:
        return total
    if overflow == _WRAP:
        return field.wrapped(total)
    if overflow == _FAIL:
        return None
    return field.most if total > field.most or _seems_high(field, value) else field.least


def _seems_high(field: _Field, value: int) -> bool:
    """Whether Redis, which computes in 64 bits, takes a number below the range that is to be set
    for one above it."""
    if not field.signed:
        return value < 0
    return field.width < 64 and field.most - value > INT64_MAX


@command(
    "bitfield_ro",
    -2,
    READONLY | FAST,
    group="bitmap",
    since="6.0.0",
    summary="Performs arbitrary read-only bitfield integer operations on strings.",
    complexity="O(1) for each subcommand specified",
    keys=key("RO", "ACCESS"),
    categories=CATEGORIES,
)
def bitfield_ro(ctx: ReadContext, name: bytes, *words: bytes) -> list[int | None]:
    operations = _parse(ctx, words)
    if any(one.name != _GET for one in operations):
        raise errors.error("BITFIELD_RO only supports the GET subcommand")
    return _read_all(ctx, name, operations)


def _read_all(
    ctx: ReadContext | WriteContext, name: bytes, operations: list[_Operation]
) -> list[int | None]:
    text = sparse.Text(ctx.db, ctx.db.string_row(name))
    return [one.field.get(text.read(one.field.start, one.field.end)) for one in operations]
