"""What the libraries of scripts can't do in Lua 5.1: integers of 32 and 64 bits, binary formats.

It must not know scripts or commands. Every function here is called by Lua with strings (bytes) and
numbers alone, and must not raise: an exception would reach the script as an object of Python's.
Source: Redis 7.4's deps/lua/src: lua_struct.c, lua_bit.c, lua_cmsgpack.c.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from typing import Final

from kvserver.numbers import format_double

Number = int | float
Value = bytes | int | float
#: Lua's error text (None: none), then the results.
Results = tuple[bytes | None, *tuple[Value, ...]]

_U32: Final = 0xFFFFFFFF
_U64: Final = (1 << 64) - 1
_I64_MIN: Final = -(1 << 63)
#: Results that fit Lua's stack with room to spare.
_MAX_RESULTS: Final = 7000
#: What one call may allocate.
MAX_BYTES: Final = 1 << 29
#: A script can't be killed while a format is read: a longer one would take more than 50 ms.
_MAX_FORMAT: Final = 1 << 15


def to_int64(number: Number) -> int:
    """A C cast from double to long long, as x86 does it."""
    if isinstance(number, float):
        if math.isnan(number) or math.isinf(number):
            return _I64_MIN
        number = int(number)
    return number if _I64_MIN <= number <= -_I64_MIN - 1 else _I64_MIN


def sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text).hexdigest().encode()


def double_text(number: Number) -> bytes:
    """A number as RESP writes it."""
    return format_double(float(number))


# -- bit -----------------------------------------------------------------------------------------


def _bits(number: Number) -> int:
    """barg: to the nearest integer, modulo 2^32."""
    if isinstance(number, float):
        if math.isnan(number) or math.isinf(number):
            return 0
        number = round(number)
    return number & _U32


def _signed(bits: int) -> int:
    bits &= _U32
    return bits - (1 << 32) if bits & 0x80000000 else bits


def _tobit(a: Number) -> int:
    return _signed(_bits(a))


def _bnot(a: Number) -> int:
    return _signed(~_bits(a))


def _bswap(a: Number) -> int:
    return _signed(int.from_bytes(_bits(a).to_bytes(4, "little"), "big"))


def _band(a: Number, b: Number | None = None) -> int:
    return _signed(_bits(a) if b is None else _bits(a) & _bits(b))


def _bor(a: Number, b: Number | None = None) -> int:
    return _signed(_bits(a) if b is None else _bits(a) | _bits(b))


def _bxor(a: Number, b: Number | None = None) -> int:
    return _signed(_bits(a) if b is None else _bits(a) ^ _bits(b))


def _lshift(a: Number, n: Number) -> int:
    return _signed(_bits(a) << (_bits(n) & 31))


def _rshift(a: Number, n: Number) -> int:
    return _signed(_bits(a) >> (_bits(n) & 31))


def _arshift(a: Number, n: Number) -> int:
    return _signed(_signed(_bits(a)) >> (_bits(n) & 31))


def _rol(a: Number, n: Number) -> int:
    bits, places = _bits(a), _bits(n) & 31
    return _signed(bits << places | bits >> (32 - places))


def _ror(a: Number, n: Number) -> int:
    bits, places = _bits(a), _bits(n) & 31
    return _signed(bits >> places | bits << (32 - places))


BIT: Final[dict[bytes, Callable[..., int]]] = {
    b"arshift": _arshift,
    b"band": _band,
    b"bnot": _bnot,
    b"bor": _bor,
    b"bswap": _bswap,
    b"bxor": _bxor,
    b"lshift": _lshift,
    b"rol": _rol,
    b"ror": _ror,
    b"rshift": _rshift,
    b"tobit": _tobit,
}


def tohex(number: Number, digits: Number) -> bytes:
    """The lowest digits in hexadecimal; a negative count means capitals."""
    count = _signed(_bits(digits))
    text = f"{_bits(number):08x}"
    if count < 0:
        text, count = text.upper(), -count
    return text[8 - min(count, 8) :].encode()


# -- cmsgpack ------------------------------------------------------------------------------------


def pack_int64(number: Number) -> bytes:
    return (to_int64(number) & _U64).to_bytes(8, "big")


def unpack_int64(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def pack_double(number: Number) -> bytes:
    """A float of 32 bits where it is exact, else one of 64."""
    value = float(number)
    try:
        short = struct.pack(">f", value)
    except OverflowError:
        return b"\xcb" + struct.pack(">d", value)
    if struct.unpack(">f", short)[0] == value:
        return b"\xca" + short
    return b"\xcb" + struct.pack(">d", value)


def unpack_double(data: bytes) -> float:
    value: float = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
    return value


# -- struct --------------------------------------------------------------------------------------


class _Problem(Exception):
    """What struct says of its arguments."""


class _BadArgument(_Problem):
    """What it says of one of them."""

    def __init__(self, index: int, text: str) -> None:
        super().__init__()
        self.index = index
        self.text = text


def _sentence(problem: _Problem, function: str) -> bytes:
    text = str(problem)
    if isinstance(problem, _BadArgument):
        text = f"bad argument #{problem.index} to '{function}' ({problem.text})"
    return text.encode("latin-1", "replace")


_MAX_INTEGER: Final = 32
_NATIVE: Final = {"b": 1, "h": 2, "l": 8, "t": 8, "f": 4, "d": 8, "x": 1}


class _Format:
    """A format string, read option by option."""

    def __init__(self, text: bytes) -> None:
        if len(text) > _MAX_FORMAT:
            raise _Problem("format too long")
        self._text = text.partition(b"\0")[0].decode("latin-1")
        self._at = 0
        self.big = False
        self._align = 1

    def next(self, total: int) -> tuple[str, int, int] | None:
        """(option, its size, bytes of padding before it); None at the end. `total`: where it
        begins. Options without a size change the state and are (option, 0, 0)."""
        if self._at >= len(self._text):
            return None
        option = self._text[self._at]
        self._at += 1
        size = self._size(option)
        pad = 0
        if size and option != "c":
            align = min(size, self._align)
            pad = (align - (total & (align - 1))) & (align - 1)
        if size == 0 and option != "s" and option != "c":
            self._control(option)
        return option, size, pad

    def _size(self, option: str) -> int:
        if option == "c":
            return self._number(1)
        if option in "iI":
            size = self._number(4)
            if size > _MAX_INTEGER:
                raise _Problem(f"integral size {size} is larger than limit of {_MAX_INTEGER}")
            return size
        return _NATIVE.get(option.lower() if option in "BHLT" else option, 0)

    def _number(self, default: int) -> int:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] in "0123456789":
            self._at += 1
        if self._at == start:
            return default
        digits = self._text[start : self._at]
        if len(digits) > 10 or int(digits) > 0x7FFFFFFF:
            raise _Problem("integral size overflow")
        return int(digits)

    def _control(self, option: str) -> None:
        if option == " ":
            return
        if option == ">":
            self.big = True
        elif option in "<=":
            self.big = False
        elif option == "!":
            align = self._number(8)
            if align == 0 or align & (align - 1):
                raise _Problem(f"alignment {align} is not a power of 2")
            self._align = align
        else:
            raise _BadArgument(1, f"invalid format option '{option}'")


def struct_pack(text: bytes, *values: Value) -> Results:
    try:
        return None, _pack(_Format(text), values)
    except _Problem as problem:
        return _sentence(problem, "pack"), b""


def _pack(form: _Format, values: tuple[Value, ...]) -> bytes:
    parts: list[bytes] = []
    total = used = 0
    while (step := form.next(total)) is not None:
        option, size, pad = step
        data = bytes(pad)
        if option == "x":
            data += b"\0"
        elif option in "cs" or size:
            if used == len(values):
                kind = "string" if option in "cs" else "number"
                raise _BadArgument(used + 2, f"{kind} expected, got nil")
            data += _field(form, option, size, values[used], used + 2)
            used += 1
        parts.append(data)
        total += len(data)
        if total > MAX_BYTES:
            raise _Problem("not enough memory")
    return b"".join(parts)


def _field(form: _Format, option: str, size: int, value: Value, index: int) -> bytes:
    if option in "cs":
        data = value if isinstance(value, bytes) else _number_text(value)
        if option == "s":
            return data + b"\0"
        if size == 0:
            return data
        if len(data) < size:
            raise _BadArgument(index + 1, "string too short")
        return data[:size]
    number = _as_number(value, index)
    if option in "fd":
        return _float(form, option, number)
    bits = to_int64(number) & _U64
    return (bits & ((1 << 8 * size) - 1)).to_bytes(size, "big" if form.big else "little")


def _float(form: _Format, option: str, number: Number) -> bytes:
    order = ">" if form.big else "<"
    try:
        return struct.pack(order + option, float(number))
    except OverflowError:
        return struct.pack(order + option, math.inf if number > 0 else -math.inf)


def _number_text(number: Number) -> bytes:
    """tostring of a number: %.14g."""
    return b"%.14g" % number


def _as_number(value: Value, index: int) -> Number:
    if not isinstance(value, bytes):
        return value
    try:
        return float(value)
    except ValueError:
        raise _BadArgument(index, "number expected, got string") from None


def struct_unpack(text: bytes, data: Value, position: Value = 1, *_more: Value) -> Results:
    """The values, and where the next would begin."""
    if not isinstance(data, bytes):
        data = _number_text(data)
    try:
        return None, *_unpack(_Format(text), data, position)
    except _Problem as problem:
        return (_sentence(problem, "unpack"),)


def _unpack(form: _Format, data: bytes, position: Value) -> list[Value]:
    at = to_int64(_as_number(position, 3)) - 1
    if at < 0:
        raise _BadArgument(3, "offset must be 1 or greater")
    found: list[Value] = []
    while (step := form.next(at)) is not None:
        option, size, pad = step
        at += pad
        if at + size > len(data):
            raise _BadArgument(2, "data string too short")
        if option == "c" and size == 0:
            size = _previous_size(found)
            if at + size > len(data):
                raise _BadArgument(2, "data string too short")
            found.append(data[at : at + size])
        elif option == "s":
            end = data.find(b"\0", at)
            if end < 0:
                raise _Problem("unfinished string in data")
            found.append(data[at:end])
            size = end - at + 1
        elif size and option != "x":
            found.append(_value(form, option, data[at : at + size]))
        at += size
        if len(found) > _MAX_RESULTS:
            raise _Problem("too many results to unpack")
    return [*found, at + 1]


def _previous_size(found: list[Value]) -> int:
    size = found.pop() if found else b""
    if isinstance(size, bytes):
        raise _Problem("format 'c0' needs a previous size")
    size = to_int64(size)
    if size < 0:
        raise _BadArgument(2, "data string too short")
    return size


def _value(form: _Format, option: str, field: bytes) -> Value:
    if option == "c":
        return field
    if option in "fd":
        number: float = struct.unpack((">" if form.big else "<") + option, field)[0]
        return number
    bits = int.from_bytes(field, "big" if form.big else "little") & _U64
    if option.islower() and len(field) <= 8:
        limit = 1 << (8 * len(field))
        bits -= limit if bits >= limit >> 1 else 0
    return bits if -(1 << 63) <= bits < 1 << 63 else float(bits)


def struct_size(text: bytes) -> Results:
    total = 0
    try:
        form = _Format(text)
        while (step := form.next(total)) is not None:
            option, size, pad = step
            if option == "s":
                raise _BadArgument(1, "option 's' has no fixed size")
            if option == "c" and size == 0:
                raise _BadArgument(1, "option 'c0' has no fixed size")
            total += pad + size
    except _Problem as problem:
        return _sentence(problem, "size"), 0
    return None, total
