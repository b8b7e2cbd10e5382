"""HyperLogLog as Redis stores it in a string: sparse and dense representation, hash, estimate.

It must not know commands or keys. Byte for byte the values of Redis 7.4's hyperloglog.c, so that
they can move between servers: which opcodes a sparse value has depends on the order in which
registers were raised, so `raise_register` does what hllSparseSet does. What costs too much in
Python takes another way to the same bytes: registers are unpacked with base64, whose groups of
six bits they are, and maxima are computed on integers of 16384 bytes.

    header (16 bytes)   "HYLL" | encoding u8 | 3 unused | cardinality u64, little-endian, whose
                        highest bit says that it isn't valid
    dense               16384 registers of 6 bits, lowest bits first
    sparse              00llllll           l+1 registers are 0 (ZERO)
                        01llllll llllllll  l+1 registers are 0 (XZERO)
                        1vvvvvll           l+1 registers are v+1 (VAL)

A value is a bytearray that these functions change. Invariant: they read no further in it than
16384 registers, whatever it holds, and raise INVALIDOBJ when it holds anything else.
"""

from __future__ import annotations

import re
import struct
from binascii import a2b_base64, b2a_base64
from math import inf, sqrt
from typing import Final

from kvserver import errors

REGISTERS: Final = 1 << 14
HEADER_BYTES: Final = 16
DENSE_BYTES: Final = HEADER_BYTES + REGISTERS * 6 // 8
DENSE: Final = 0
SPARSE: Final = 1

_MAGIC: Final = b"HYLL"
_ENCODING: Final = 4
_CARDINALITY: Final = slice(8, 16)
#: The byte of the header with the bit that says that the cardinality must be computed.
_STALE_BYTE: Final = 15
_STALE: Final = 0x80

# hyperloglog.c: HLL_P, HLL_Q, and the bits of the opcodes.
_INDEX_BITS: Final = 14
_PATTERN_BITS: Final = 64 - _INDEX_BITS
_XZERO: Final = 0x40
_VAL: Final = 0x80
_KIND: Final = 0xC0
_MAX_ZERO: Final = 64
_MAX_VAL: Final = 32
_MAX_VAL_RUN: Final = 4
#: Opcodes that are looked at, from the one before the change on, for two that can be one.
_MERGE_SCAN: Final = 5

_M: Final = 0xC6A4A7935BD1E995
_U64: Final = (1 << 64) - 1
_SEED: Final = 0xADC83B19
_ALPHA: Final = 0.721347520444481703680
_TOO_LARGE: Final = 1 << 63

_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SIX_BITS: Final = bytes(range(64))
_TO_REGISTERS: Final = bytes.maketrans(_BASE64, _SIX_BITS)
_TO_BASE64: Final = bytes.maketrans(_SIX_BITS, _BASE64)
#: In each byte of 16384: the highest bit, and all others.
_HIGH: Final = int.from_bytes(b"\x80" * REGISTERS, "little")
_LOW: Final = int.from_bytes(b"\x7f" * REGISTERS, "little")

_ANY_XZERO: Final = re.compile(rb"[\x40-\x7f]")


def _span(opcode: int) -> int:
    """How many registers an opcode of one byte covers; 0 for XZERO."""
    if opcode & _VAL:
        return (opcode & 3) + 1
    return 0 if opcode & _XZERO else opcode + 1


def _run(opcode: int) -> bytes:
    """The registers that an opcode of one byte covers."""
    return bytes([(opcode >> 2 & 31) + 1 if opcode & _VAL else 0]) * _span(opcode)


#: For each opcode of one byte: how many registers it covers, and their values.
_SPANS: Final = bytes(_span(opcode) for opcode in range(256))
_RUNS: Final = [_run(opcode) for opcode in range(256)]


# -- values ----------------------------------------------------------------------------------


def empty() -> bytearray:
    """A new sparse value: createHLLObject."""
    header = _MAGIC + bytes([SPARSE]) + bytes(HEADER_BYTES - len(_MAGIC) - 1)
    return bytearray(header + _zeros(REGISTERS))


def checked(value: bytes) -> bytes:
    """The value, if its header is that of a HyperLogLog (isHLLObjectOrReply)."""
    if len(value) < HEADER_BYTES or value[:4] != _MAGIC or value[_ENCODING] > SPARSE:
        raise errors.not_hyperloglog()
    if value[_ENCODING] == DENSE and len(value) != DENSE_BYTES:
        raise errors.not_hyperloglog()
    return value


def is_dense(value: bytes | bytearray) -> bool:
    """Whether the representation is the dense one."""
    return value[_ENCODING] == DENSE


def cached(value: bytes | bytearray) -> int | None:
    """The cardinality that the header has; None when it must be computed."""
    if value[_STALE_BYTE] & _STALE:
        return None
    return int.from_bytes(value[_CARDINALITY], "little")


def cache(value: bytearray, cardinality: int) -> None:
    """Keep the cardinality in the header."""
    value[_CARDINALITY] = cardinality.to_bytes(8, "little")


def forget_cardinality(value: bytearray) -> None:
    """Registers changed."""
    value[_STALE_BYTE] |= _STALE


def registers(value: bytes | bytearray) -> bytes:
    """The 16384 registers, one byte each."""
    if is_dense(value):
        packed = bytes(value[: HEADER_BYTES - 1 : -1])
        return b2a_base64(packed, newline=False).translate(_TO_REGISTERS)[::-1]
    return _sparse_registers(value)


def _sparse_registers(value: bytes | bytearray) -> bytes:
    parts = []
    count, at, end = 0, HEADER_BYTES, len(value)
    while at < end and count <= REGISTERS:
        opcode = value[at]
        if opcode & _KIND == _XZERO:
            run = bytes(_xzero_span(value, at))
            at += 2
        else:
            run = _RUNS[opcode]
            at += 1
        count += len(run)
        parts.append(run)
    if count != REGISTERS:
        raise errors.corrupt_hyperloglog()
    return b"".join(parts)


def to_dense(value: bytearray) -> None:
    """Make a value dense, if it isn't: hllSparseToDense."""
    if not is_dense(value):
        put_registers(value, _sparse_registers(value))


def put_registers(value: bytearray, found: bytes) -> None:
    """Make a value dense, with these registers; the rest of its header stays."""
    value[HEADER_BYTES:] = a2b_base64(found[::-1].translate(_TO_BASE64))[::-1]
    value[_ENCODING] = DENSE


def maximum(values: list[bytes]) -> bytes:
    """The registers of the union of all values: the larger one of each (hllMerge)."""
    merged = 0
    for value in values:
        other = int.from_bytes(registers(value), "little")
        # In each byte 0x7f where `merged` isn't smaller: the borrow of a subtraction says so.
        not_smaller = ((merged | _HIGH) - other) & _HIGH
        mask = not_smaller - (not_smaller >> 7)
        merged = (merged & mask) | (other & (_LOW ^ mask))
    return merged.to_bytes(REGISTERS, "little")


def opcodes(value: bytes | bytearray) -> str:
    """A sparse value for a person: PFDEBUG DECODE."""
    words = []
    at, end = HEADER_BYTES, len(value)
    while at < end:
        opcode = value[at]
        at += 1
        if opcode & _VAL:
            words.append(f"v:{(opcode >> 2 & 31) + 1},{_SPANS[opcode]}")
        elif opcode & _XZERO:
            words.append(f"Z:{_xzero_span(value, at - 1)}")
            at += 1
        else:
            words.append(f"z:{_SPANS[opcode]}")
    return " ".join(words)


# -- elements --------------------------------------------------------------------------------


def murmur_hash_64a(data: bytes, seed: int) -> int:
    """MurmurHash64A, by Austin Appleby, for little-endian words."""
    size = len(data)
    whole = size & ~7
    found = seed ^ (size * _M & _U64)
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        word = word * _M & _U64
        word = (word ^ word >> 47) * _M & _U64
        found = (found ^ word) * _M & _U64
    if whole < size:
        found = (found ^ int.from_bytes(data[whole:], "little")) * _M & _U64
    found = (found ^ found >> 47) * _M & _U64
    return found ^ found >> 47


def place(element: bytes) -> tuple[int, int]:
    """(register, the value that it has at least) after the element was added: hllPatLen."""
    found = murmur_hash_64a(element, _SEED)
    pattern = found >> _INDEX_BITS | 1 << _PATTERN_BITS
    return found & (REGISTERS - 1), (pattern & -pattern).bit_length()


def raise_register(value: bytearray, index: int, count: int, max_sparse: int) -> bool:
    """Set a register, unless it is as large already; returns whether it was. A sparse value that
    would grow above `max_sparse` bytes becomes dense."""
    if is_dense(value):
        return _raise_dense(value, index, count)
    return SparseWriter(value, max_sparse).raise_register(index, count)


def _raise_dense(value: bytearray, index: int, count: int) -> bool:
    at, shift = divmod(index * 6, 8)
    at += HEADER_BYTES
    # The last register ends with its byte.
    word = int.from_bytes(value[at : at + 2], "little")
    old = word >> shift & 63
    if count <= old:
        return False
    word ^= (old ^ count) << shift
    size = min(2, DENSE_BYTES - at)
    value[at : at + size] = word.to_bytes(size, "little")
    return True


# -- the sparse representation -----------------------------------------------------------------


def _xzero_span(value: bytes | bytearray, at: int) -> int:
    low = value[at + 1] if at + 1 < len(value) else 0
    return ((value[at] & 63) << 8 | low) + 1


def _zeros(count: int) -> bytes:
    """The opcode of so many registers that are 0; none for none."""
    if count > _MAX_ZERO:
        return bytes([_XZERO | (count - 1) >> 8, (count - 1) & 0xFF])
    return bytes([count - 1]) if count else b""


def _vals(value: int, count: int) -> bytes:
    """The opcode of up to four registers with this value; none for none."""
    return bytes([_VAL | (value - 1) << 2 | (count - 1)]) if count else b""


class SparseWriter:
    """Raises registers of a value that is sparse when it begins: hllSparseSet.

    Where registers are raised in ascending order it doesn't search from the beginning each time.
    """

    def __init__(self, value: bytearray, max_bytes: int) -> None:
        self._value = value
        self._max_bytes = max_bytes
        #: Where the search begins: an opcode, and the first register that it covers.
        self._start = HEADER_BYTES
        self._start_first = 0

    def raise_register(self, index: int, count: int) -> bool:
        """Set a register, unless it is as large already; returns whether it was."""
        value = self._value
        if is_dense(value):
            return _raise_dense(value, index, count)
        if count > _MAX_VAL:
            return self._promote(index, count)
        at, first, previous = self._find(index)
        opcode = value[at]
        if opcode & _KIND == _XZERO:
            size, span = 2, _xzero_span(value, at)
        else:
            size, span = 1, _SPANS[opcode]
        before, after = index - first, first + span - 1 - index
        if opcode & _VAL:
            old = (opcode >> 2 & 31) + 1
            if old >= count:
                return False
            new = _vals(old, before) + _vals(count, 1) + _vals(old, after)
        else:
            new = _zeros(before) + _vals(count, 1) + _zeros(after)
        growth = len(new) - size
        if growth > 0 and len(value) + growth > self._max_bytes:
            return self._promote(index, count)
        value[at : at + size] = new
        self._merge(previous)
        forget_cardinality(value)
        return True

    def _promote(self, index: int, count: int) -> bool:
        to_dense(self._value)
        return _raise_dense(self._value, index, count)

    def _find(self, index: int) -> tuple[int, int, int]:
        """(place of the opcode that covers the register, the first register that it covers, place
        of the opcode before it or of itself)."""
        if index < self._start_first:
            self._start, self._start_first = HEADER_BYTES, 0
        start = self._start
        found = self._find_from(start, self._start_first, index)
        if found[0] == start != HEADER_BYTES:
            # The opcode before it isn't known.
            found = self._find_from(HEADER_BYTES, 0, index)
        return found

    def _find_from(self, at: int, first: int, index: int) -> tuple[int, int, int]:
        value, end = self._value, len(self._value)
        previous, previous_first = at, first
        while at < end:
            # All opcodes before the next XZERO are of one byte.
            mark = _ANY_XZERO.search(value, at, min(end, at + REGISTERS))
            stop = mark.start() if mark else min(end, at + REGISTERS)
            if stop > at:
                spans = value[at:stop].translate(_SPANS)
                steps, covered = _bisect(spans, index - first)
                if steps < len(spans):
                    if steps:
                        previous = at + steps - 1
                        previous_first = first + covered - spans[steps - 1]
                    self._start, self._start_first = previous, previous_first
                    return at + steps, first + covered, previous
                previous, previous_first = stop - 1, first + covered - spans[-1]
                at, first = stop, first + covered
            else:
                span = _xzero_span(value, at)
                if index < first + span and at + 1 < end:
                    self._start, self._start_first = previous, previous_first
                    return at, first, previous
                previous, previous_first = at, first
                at, first = at + 2, first + span
        raise errors.corrupt_hyperloglog()

    def _merge(self, at: int) -> None:
        """Make one of neighbours with the same value, near the change."""
        value = self._value
        for _ in range(_MERGE_SCAN):
            if at + 1 >= len(value):
                return
            opcode, following = value[at], value[at + 1]
            if not opcode & _VAL:
                at += 2 if opcode & _XZERO else 1
                continue
            length = _SPANS[opcode] + _SPANS[following]
            if opcode ^ following < 4 and length <= _MAX_VAL_RUN:
                value[at : at + 2] = bytes([opcode & ~3 | (length - 1)])
            else:
                at += 1


def _bisect(spans: bytearray, target: int) -> tuple[int, int]:
    """(how many spans end at or before `target`, their sum)."""
    low, high, covered = 0, len(spans), 0
    total = sum(spans)
    if total <= target:
        return high, total
    while high - low > 1:
        middle = (low + high) // 2
        part = sum(spans[low:middle])
        if covered + part <= target:
            low, covered = middle, covered + part
        else:
            high = middle
    return low, covered


# -- the estimate --------------------------------------------------------------------------------


def cardinality(found: bytes) -> int:
    """About how many elements made these registers: hllCount, after Otmar Ertl, "New cardinality
    estimation algorithms for HyperLogLog sketches" (arXiv:1702.01284)."""
    histogram = _histogram(found)
    size = float(REGISTERS)
    z = size * _tau((size - histogram[_PATTERN_BITS + 1]) / size)
    for value in range(_PATTERN_BITS, 0, -1):
        z += histogram[value]
        z *= 0.5
    z += size * _sigma(histogram[0] / size)
    return _rounded(_ALPHA * size * size / z if z else inf)


def _rounded(estimate: float) -> int:
    """The nearest integer; what is too large for 63 bits becomes what llroundl makes of it."""
    if estimate >= _TOO_LARGE:
        return _TOO_LARGE
    whole = int(estimate)
    return whole + 1 if estimate - whole >= 0.5 else whole


def _histogram(found: bytes) -> list[int]:
    """How many registers have each value."""
    counts = []
    for value in range(64):
        rest = found.translate(None, bytes([value]))
        counts.append(len(found) - len(rest))
        found = rest
    return counts


def _sigma(x: float) -> float:
    if x == 1.0:
        return inf
    y, z, before = 1.0, x, -1.0
    while before != z:
        x *= x
        before = z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while before != z:
        x = sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) ** 2 * y
    return z / 3
