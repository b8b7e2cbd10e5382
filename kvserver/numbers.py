"""Numbers as Redis reads, adds and prints them.

Three kinds: 64-bit integers (util.c string2ll), doubles (string2d, and d2string over fpconv)
and, for INCRBYFLOAT and blocking time-outs, x86's 80-bit long double (string2ld, ld2string),
which is emulated on exact integers so that every machine gives the same digits.

Parsers return None for text that is not such a number; which error that is, the caller knows.
"""

import math
import re
from decimal import Decimal
from typing import Final, NamedTuple, Self

from kvserver import errors

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
#: So many digits fit 64 bits without any doubt, and so does what is below this number: compiled, it
#: is compared without an object.
_SURE_DIGITS: Final = 18
_SURE: Final = 1 << 60

# What C's strtod takes in the C locale, without the leading blanks that Redis refuses and
# without NaN. Groups: 1 decimal mantissa, 2 its exponent, 3 hex number, 4 infinity.
_FLOAT: Final = re.compile(
    rb"[+-]?(?:"
    rb"((?:\d+\.?\d*|\.\d+))(?:e([+-]?\d+))?"
    rb"|(0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?\d+)?)"
    rb"|(inf(?:inity)?))",
    re.IGNORECASE,
)


def parse_int64(text: bytes) -> int | None:
    """The integer if ``text`` is exactly how it is printed in decimal: no ``+``, no spaces, no
    leading zeros, 64 bits."""
    size = len(text)
    if size <= _SURE_DIGITS and text.isdigit() and (text[0] != 48 or size == 1):
        return int(text)
    if size > 20:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[0] == 48 and text != b"0"):
        return None
    value = int(text)
    return value if INT64_MIN <= value <= INT64_MAX else None


def fits_int64(value: int) -> bool:
    """Whether ``value``, say the sum of two 64-bit integers, is one itself."""
    return -_SURE < value < _SURE or INT64_MIN <= value <= INT64_MAX


def parse_double(text: bytes) -> float | None:
    """A finite double or an infinity written as such; out of range in either direction is none."""
    match = _FLOAT.fullmatch(text)
    if match is None:
        return None
    mantissa, _, hexadecimal, infinity = match.groups()
    if mantissa is not None:
        value = float(text)
        significant = mantissa
    elif infinity is not None:
        return float(text)
    else:
        try:
            value = float.fromhex(text.decode("ascii"))
        except (OverflowError, ValueError):  # ValueError: an exponent beyond a C long
            return None
        significant = hexadecimal[2:].lower().partition(b"p")[0]
    if math.isinf(value) or (value == 0.0 and significant.strip(b"0.")):
        return None
    return value


def parse_strtod(text: bytes) -> float | None:
    """A double as C's strtod reads it up to a NUL: blanks may precede it, nothing is 0, what is out
    of range is infinite or 0. None for NaN, and for what isn't a number to its end."""
    text = text.partition(b"\0")[0]
    if not text:
        return 0.0
    digits = text.lstrip(b" \t\n\v\f\r")
    match = _FLOAT.fullmatch(digits)
    if match is None:
        return None
    if match.group(3) is None:
        return float(digits)
    sign = -1.0 if digits[:1] == b"-" else 1.0
    try:
        return float.fromhex(digits.decode("ascii"))
    except OverflowError:
        return math.copysign(math.inf, sign)
    except ValueError:  # an exponent beyond a C long
        mantissa, _, exponent = digits.lower().partition(b"p")
        vanishes = exponent.startswith(b"-") or not mantissa.strip(b"+-0x.")
        return math.copysign(0.0 if vanishes else math.inf, sign)


def format_double(value: float) -> bytes:
    """The shortest text that reads back as ``value``, laid out as d2string does: integers up to
    2**62 and numbers near 1 without an exponent, otherwise ``1.5e+30``."""
    if value != value:
        return b"nan"
    if value in (math.inf, -math.inf):
        return b"inf" if value > 0 else b"-inf"
    if value == 0:
        return b"-0" if math.copysign(1.0, value) < 0 else b"0"
    if -(2.0**62) <= value <= 2.0**62 and value == int(value):
        return b"%d" % int(value)
    sign = b"-" if value < 0 else b""
    return sign + _layout(*_shortest_digits(abs(value))).encode("ascii")


def _shortest_digits(value: float) -> tuple[str, int]:
    """(digits, k) with value == int(digits) * 10**k and no zero at either end of digits."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    k = int(exponent or "0") - len(fraction)
    stripped = digits.rstrip("0")
    return stripped, k + len(digits) - len(stripped)


def _layout(digits: str, k: int) -> str:
    """Where the point or exponent goes: emit_digits of Redis' deps/fpconv."""
    exponent = k + len(digits) - 1
    if k >= 0 and abs(exponent) < len(digits) + 7:
        return digits + "0" * k
    if k < 0 and (k > -7 or abs(exponent) < 4):
        point = len(digits) + k
        if point <= 0:
            return "0." + "0" * -point + digits
        return digits[:point] + "." + digits[point:]
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{exponent:+d}"


# x86 long double: value = mantissa * 2**exponent, 64 bits of mantissa, exponents of a 15-bit field.
_MANTISSA_BITS: Final = 64
_MIN_EXPONENT: Final = -16445
_OVERFLOW_BITS: Final = 16384
# string2ld copies into a buffer of 5 KiB.
_MAX_TEXT: Final = 5 * 1024
# Decimal exponents beyond this overflow or vanish whatever the digits, which are under 5 KiB.
_EXPONENT_CLAMP: Final = 20_000
_HUMAN_DIGITS: Final = 17


class LongDouble(NamedTuple):
    """mantissa * 2**exponent, exact. An infinity has mantissa +-1 and an exponent too large.

    There is no NaN: nothing parses to one, and ``add_long_double`` answers None instead.
    """

    mantissa: int
    exponent: int

    @property
    def infinite(self) -> bool:
        return self.exponent == _OVERFLOW_BITS

    @classmethod
    def rounded(cls, numerator: int, denominator: int) -> Self:
        """The nearest long double to the quotient, ties to even, overflow to infinity."""
        size = abs(numerator)
        exponent = max(size.bit_length() - denominator.bit_length() - _MANTISSA_BITS, _MIN_EXPONENT)
        mantissa = _divide_half_even(size, denominator, exponent)
        if mantissa.bit_length() > _MANTISSA_BITS:
            exponent += 1
            mantissa = _divide_half_even(size, denominator, exponent)
        if mantissa.bit_length() + exponent > _OVERFLOW_BITS:
            mantissa, exponent = 1, _OVERFLOW_BITS
        return cls(-mantissa if numerator < 0 else mantissa, exponent)


def _divide_half_even(numerator: int, denominator: int, exponent: int) -> int:
    """numerator / (denominator * 2**exponent), rounded half to even."""
    if exponent >= 0:
        denominator <<= exponent
    else:
        numerator <<= -exponent
    quotient, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient & 1):
        quotient += 1
    return quotient


def parse_long_double(text: bytes) -> LongDouble | None:
    """As parse_double, in 80 bits, and for less than 5 KiB of text."""
    match = _FLOAT.fullmatch(text) if len(text) < _MAX_TEXT else None
    if match is None:
        return None
    mantissa, exponent, hexadecimal, infinity = match.groups()
    negative = text[:1] == b"-"
    if infinity is not None:
        return LongDouble(-1 if negative else 1, _OVERFLOW_BITS)
    if mantissa is not None:
        numerator, denominator = _decimal_ratio(mantissa, exponent)
    else:
        numerator, denominator = _hexadecimal_ratio(hexadecimal)
    value = LongDouble.rounded(-numerator if negative else numerator, denominator)
    if value.infinite or (value.mantissa == 0 and numerator != 0):
        return None
    return value


def _decimal_ratio(mantissa: bytes, exponent: bytes | None) -> tuple[int, int]:
    # Decimal, since int() refuses more than 4300 digits.
    power = _clamped(exponent)
    return Decimal(f"{mantissa.decode('ascii')}e{power}").as_integer_ratio()


def _hexadecimal_ratio(text: bytes) -> tuple[int, int]:
    mantissa, _, exponent = text[2:].lower().partition(b"p")
    whole, _, fraction = mantissa.partition(b".")
    shift = _clamped(exponent) - 4 * len(fraction)
    value = int(whole + fraction, 16)
    return (value << shift, 1) if shift >= 0 else (value, 1 << -shift)


def _clamped(exponent: bytes | None) -> int:
    """An exponent of any length as an integer that overflows or vanishes where it would."""
    if not exponent:
        return 0
    digits = exponent.lstrip(b"+-").lstrip(b"0")
    size = min(int(digits[:6] or b"0"), _EXPONENT_CLAMP)
    return -size if exponent[:1] == b"-" else size


def add_float_human(old: bytes, increment: bytes) -> bytes:
    """INCRBYFLOAT: the sum of two long doubles, as text.

    Raises ``value is not a valid float`` or ``increment would produce NaN or Infinity``.
    """
    left = parse_long_double(old)
    right = parse_long_double(increment)
    if left is None or right is None:
        raise errors.not_float()
    total = add_long_double(left, right)
    if total is None:
        raise errors.nan_or_infinity()
    return format_human(total)


def add_long_double(left: LongDouble, right: LongDouble) -> LongDouble | None:
    """The rounded sum; None if it is NaN or infinite."""
    if left.infinite or right.infinite:
        return None
    exponent = min(left.exponent, right.exponent)
    mantissa = (left.mantissa << left.exponent - exponent) + (
        right.mantissa << right.exponent - exponent
    )
    if exponent >= 0:
        total = LongDouble.rounded(mantissa << exponent, 1)
    else:
        total = LongDouble.rounded(mantissa, 1 << -exponent)
    return None if total.infinite else total


def format_human(value: LongDouble) -> bytes:
    """Up to 17 decimals without an exponent (ld2string with LD_STR_HUMAN); ``value`` is finite."""
    scaled = _divide_half_even(abs(value.mantissa) * 10**_HUMAN_DIGITS, 1, -value.exponent)
    # Decimal, since str() refuses integers of more than 4300 digits.
    digits = str(Decimal(scaled)).rjust(_HUMAN_DIGITS + 1, "0")
    whole, fraction = digits[:-_HUMAN_DIGITS], digits[-_HUMAN_DIGITS:].rstrip("0")
    text = f"{whole}.{fraction}" if fraction else whole
    if value.mantissa < 0 and text != "0":
        text = "-" + text
    return text.encode("ascii")
