"""Lua 5.1 bytecode: taking the tail calls out of a function that was just compiled.

It must not know scripts or the runtime. Lua forgets the frame of a function whose last act is
`return f(x)` when f is written in Lua, and much of what scripts call is (redis.call, cjson); in
Redis that is C, and the frame stays. An error then says where it arose only if the call is no tail
call.
Invariant: what comes in is what string.dump made on this machine, never what a client sent.
Source: Lua 5.1.5's lundump.c, lopcodes.h and lparser.c (retstat).
"""

from __future__ import annotations

import struct
import sys
from typing import Final

#: Signature, version, format, byte order, sizes of int, size_t, Instruction, lua_Number, integral.
_HEADER: Final = b"\x1bLua\x51\x00\x01\x04\x08\x04\x08\x00"
_ORDER: Final = sys.byteorder
_INT: Final = struct.Struct("=i")
_SIZE: Final = struct.Struct("=Q")
_INSTRUCTION: Final = 4
_OPCODE_BITS: Final = 0x3F
_CALL: Final = 28
_TAILCALL: Final = 29
#: A constant's type -> its size; strings have their own length.
_CONSTANTS: Final = {0: 0, 1: 1, 3: 8}
_STRING: Final = 4


def without_tail_calls(dumped: bytes) -> bytes:
    """The same function with a plain call for each tail call: a RETURN of all its results follows
    either of them."""
    if not dumped.startswith(_HEADER):
        raise ValueError("not Lua 5.1 bytecode of this machine")
    code = bytearray(dumped)
    _function(code, len(_HEADER))
    return bytes(code)


def _int(code: bytearray, at: int) -> int:
    value: int = _INT.unpack_from(code, at)[0]
    return value


def _after_string(code: bytearray, at: int) -> int:
    size: int = _SIZE.unpack_from(code, at)[0]
    return at + _SIZE.size + size


def _function(code: bytearray, at: int) -> int:
    """Change a function and those within; returns the place after it."""
    at = _after_string(code, at) + 2 * _INT.size + 4
    count = _int(code, at)
    at += _INT.size
    low = at if _ORDER == "little" else at + _INSTRUCTION - 1
    for place in range(low, low + count * _INSTRUCTION, _INSTRUCTION):
        if code[place] & _OPCODE_BITS == _TAILCALL:
            code[place] += _CALL - _TAILCALL
    at = _constants(code, at + count * _INSTRUCTION)
    functions = _int(code, at)
    at += _INT.size
    for _ in range(functions):
        at = _function(code, at)
    return _debug(code, at)


def _constants(code: bytearray, at: int) -> int:
    count = _int(code, at)
    at += _INT.size
    for _ in range(count):
        kind = code[at]
        at += 1
        at = _after_string(code, at) if kind == _STRING else at + _CONSTANTS[kind]
    return at


def _debug(code: bytearray, at: int) -> int:
    """Lines, local variables with their ranges, upvalues' names."""
    at += _INT.size * (1 + _int(code, at))
    for extra in (2 * _INT.size, 0):
        count = _int(code, at)
        at += _INT.size
        for _ in range(count):
            at = _after_string(code, at) + extra
    return at
