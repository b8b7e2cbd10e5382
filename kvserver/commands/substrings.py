"""Parts of strings: APPEND, GETRANGE, SETRANGE, STRLEN, SUBSTR.

What is changed in part may come to be kept in fragments (types/sparse.py). Source: Redis 7.4's
t_string.c. No string grows beyond `proto-max-bulk-len`; that is checked
before anything of the new size is allocated.
"""

from __future__ import annotations

from kvserver import errors
from kvserver.args import parse_int
from kvserver.codec import SPARSE, row_type
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, command, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import sparse

_RANGE_COMPLEXITY = (
    "O(N) where N is the length of the returned string. The complexity is ultimately determined "
    "by the returned length, but because creating a substring from an existing string is very "
    "cheap, it can be considered O(1) for small strings."
)


def _check_size(ctx: WriteContext, size: int) -> None:
    if size > ctx.server.config.get_int("proto-max-bulk-len"):
        raise errors.string_too_long()


@command(
    "append",
    3,
    WRITE | DENYOOM | FAST,
    group="string",
    since="2.0.0",
    summary="Appends a string to the value of a key. Creates the key if it doesn't exist.",
    complexity="O(1). The amortized time complexity is O(1) assuming the appended value is small "
    "and the already present value is of any size, since the dynamic string library used by "
    "Redis will double the free space available on every reallocation.",
    keys=key("RW", "INSERT"),
    categories=("string",),
)
def append(ctx: WriteContext, key: bytes, value: bytes) -> int:
    row = ctx.db.current_string_row(key)
    if row is None:
        size = len(value)
        ctx.db.put_string(key, value)
    else:
        before = sparse.size(row)
        size = before + len(value)
        _check_size(ctx, size)
        if row_type(row) == SPARSE:
            edit = sparse.Edit(ctx.db, key, row, size)
            edit.write(before, value)
            edit.save()
        else:
            ctx.db.put(key, row + value)
    ctx.notify(notify.STRING, b"append", key)
    return size


@command(
    "setrange",
    4,
    WRITE | DENYOOM,
    group="string",
    since="2.2.0",
    summary="Overwrites a part of a string value with another by an offset. Creates the key if "
    "it doesn't exist.",
    complexity="O(1), not counting the time taken to copy the new string in place. Usually, this "
    "string is very small so the amortized complexity is O(1). Otherwise, complexity is O(M) "
    "with M being the length of the value argument.",
    keys=key("RW", "UPDATE"),
    categories=("string",),
)
def setrange(ctx: WriteContext, key: bytes, offset: bytes, value: bytes) -> int:
    start = parse_int(offset)
    if start < 0:
        raise errors.offset_out_of_range()
    row = ctx.db.current_string_row(key)
    size = 0 if row is None else sparse.size(row)
    if not value:
        return size
    end = start + len(value)
    _check_size(ctx, end)
    edit = sparse.Edit(ctx.db, key, row, end)
    edit.write(start, value)
    edit.save()
    ctx.notify(notify.STRING, b"setrange", key)
    return max(size, end)


@command(
    "getrange",
    4,
    READONLY,
    group="string",
    since="2.4.0",
    summary="Returns a substring of the string stored at a key.",
    complexity=_RANGE_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=("string",),
)
def getrange(ctx: ReadContext, key: bytes, start: bytes, end: bytes) -> bytes:
    first, last = parse_int(start), parse_int(end)
    row = ctx.db.string_row(key)
    if row is None or first > last >= 0 or 0 > first > last:
        return b""
    text = sparse.Text(ctx.db, row)
    size = text.size
    # A place before the beginning counts as the beginning, the end of the range too.
    if first < 0:
        first = max(size + first, 0)
    if last < 0:
        last = max(size + last, 0)
    return text.read(first, last + 1)


@command(
    "substr",
    4,
    READONLY,
    group="string",
    since="1.0.0",
    summary="Returns a substring from a string value.",
    deprecated=("2.0.0", "`GETRANGE`"),
    complexity=_RANGE_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=("string",),
)
def substr(ctx: ReadContext, key: bytes, start: bytes, end: bytes) -> bytes:
    return getrange(ctx, key, start, end)


@command(
    "strlen",
    2,
    READONLY | FAST,
    group="string",
    since="2.2.0",
    summary="Returns the length of a string value.",
    keys=key("RO"),
    categories=("string",),
)
def strlen(ctx: ReadContext, key: bytes) -> int:
    row = ctx.db.string_row(key)
    return 0 if row is None else sparse.size(row)
