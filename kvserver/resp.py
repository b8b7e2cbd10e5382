"""Replies: Python values to RESP2 or RESP3 bytes.

It must not know commands or sockets. Source: the RESP specification
(https://redis.io/docs/latest/develop/reference/protocol-spec/) and Redis 7.4's networking.c
for what each type becomes under RESP2.

    int -> :     bytes, str -> $     None -> $-1 or _     Simple -> +     RedisError -> -
    list, tuple -> *     dict -> * or %     set -> * or ~     float -> $ or ,     bool -> : or #
    Verbatim -> $ or =     Push -> * or >     NullArray -> *-1 or _     Raw, Forms -> as it is
    Replies -> each of its values, one after the other     Pairs -> * flat or * of *
"""

from __future__ import annotations

from typing import Any, Final

from kvserver.errors import RedisError
from kvserver.numbers import format_double
from kvserver.reply import (
    NO_REPLY,
    NULL_ARRAY,
    OK,
    PONG,
    QUEUED,
    Forms,
    Members,
    NullArray,
    Pairs,
    Push,
    Raw,
    Replies,
    Simple,
    Verbatim,
)

__all__ = [
    "NO_REPLY",
    "NULL_ARRAY",
    "OK",
    "PONG",
    "QUEUED",
    "Forms",
    "Members",
    "NullArray",
    "Pairs",
    "Push",
    "Raw",
    "Replies",
    "Simple",
    "Verbatim",
    "encode",
    "encode_error",
]

CRLF: Final = b"\r\n"
_SMALL: Final = 1024
#: `$n` headers and `:n` replies of small numbers, made once.
BULK_HEADERS: Final[list[bytes]] = [b"$%d\r\n" % n for n in range(_SMALL)]
SMALL_INTS: Final[list[bytes]] = [b":%d\r\n" % n for n in range(_SMALL)]
OK_LINE: Final = b"+OK\r\n"
NULL2: Final = b"$-1\r\n"
NULL3: Final = b"_\r\n"

_LINE_BREAKS: Final = str.maketrans("\r\n", "  ")


def encode_error(error: RedisError) -> bytes:
    """`-CODE text`, on one line whatever the text holds."""
    line = str(error).translate(_LINE_BREAKS)
    return b"-" + line.encode("utf-8", "surrogateescape") + CRLF


def encode(value: Any, resp3: bool) -> bytes:
    """The reply's bytes. Raises TypeError for a value that is no reply."""
    kind = type(value)
    if kind is bytes:
        data: bytes = value
        size = len(data)
        header = BULK_HEADERS[size] if size < _SMALL else b"$%d\r\n" % size
        return b"%b%b\r\n" % (header, data)
    if kind is int:
        number: int = value
        return SMALL_INTS[number] if 0 <= number < _SMALL else b":%d\r\n" % number
    if value is None:
        return NULL3 if resp3 else NULL2
    if value is OK:
        return OK_LINE
    if kind is Simple:
        line: bytes = value
        return b"+" + line + CRLF
    parts: list[bytes] = []
    _add(parts, value, resp3)
    return b"".join(parts)


def _add(parts: list[bytes], value: Any, resp3: bool) -> None:
    kind = type(value)
    if kind is list or kind is tuple:
        parts.append(b"*%d\r\n" % len(value))
        _add_each(parts, value, resp3)
    elif kind is dict:
        _add_map(parts, value, resp3)
    elif kind is Push:
        parts.append(b"%b%d\r\n" % (b">" if resp3 else b"*", len(value)))
        _add_each(parts, value, resp3)
    elif kind is Replies:
        _add_each(parts, value, resp3)
    elif kind is Pairs:
        _add_pairs(parts, value, resp3)
    elif kind is Forms:
        parts.extend(value.resp3 if resp3 else value.resp2)
    elif kind is set or kind is frozenset or kind is Members:
        parts.append(b"%b%d\r\n" % (b"~" if resp3 else b"*", len(value)))
        _add_each(parts, value, resp3)
    else:
        parts.append(_scalar(value, resp3))


def _add_each(parts: list[bytes], values: Any, resp3: bool) -> None:
    for value in values:
        kind = type(value)
        if kind is bytes or kind is int or value is None:
            parts.append(encode(value, resp3))
        else:
            _add(parts, value, resp3)


def _add_map(parts: list[bytes], value: dict[Any, Any], resp3: bool) -> None:
    parts.append(b"%%%d\r\n" % len(value) if resp3 else b"*%d\r\n" % (2 * len(value)))
    for name, item in value.items():
        _add(parts, name, resp3)
        _add(parts, item, resp3)


def _add_pairs(parts: list[bytes], value: list[tuple[Any, Any]], resp3: bool) -> None:
    parts.append(b"*%d\r\n" % (len(value) if resp3 else 2 * len(value)))
    for pair in value:
        if resp3:
            parts.append(b"*2\r\n")
        _add_each(parts, pair, resp3)


def _scalar(value: Any, resp3: bool) -> bytes:
    kind = type(value)
    if kind is bytes or kind is int or value is None or kind is Simple:
        return encode(value, resp3)
    if kind is str:
        return encode(value.encode("utf-8", "surrogateescape"), resp3)
    if kind is bool:
        return (b"#t\r\n" if value else b"#f\r\n") if resp3 else SMALL_INTS[int(value)]
    if kind is float:
        text = format_double(value)
        return b"," + text + CRLF if resp3 else encode(text, resp3)
    if kind is Verbatim:
        return (
            b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value) if resp3 else encode(bytes(value), False)
        )
    if isinstance(value, RedisError):
        return encode_error(value)
    if kind is Raw:
        return bytes(value)
    if kind is NullArray:
        return NULL3 if resp3 else b"*-1\r\n"
    raise TypeError(f"no reply: {kind.__name__}")
