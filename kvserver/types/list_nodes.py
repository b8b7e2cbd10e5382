"""How large the nodes of a list would be in Redis: what OBJECT ENCODING depends on.

It must not know how lists are kept. Sources: Redis 7.4's listpack.c and quicklist.c.
"""

from __future__ import annotations

from typing import Final

from kvserver.numbers import parse_int64

#: Beside its entries a listpack has so many bytes.
_LISTPACK_BYTES: Final = 7
#: Bytes of a node for list-max-listpack-size -1 .. -5 (optimization_level).
_NODE_BYTES: Final = (4096, 8192, 16384, 32768, 65536)
#: And for any that counts elements (SIZE_SAFETY_LIMIT).
_SAFE_BYTES: Final = 8192
_UNLIMITED: Final = 1 << 63
#: A list of more bytes is never small.
MOST_SMALL_BYTES: Final = 32768


def entry_bytes(value: bytes) -> int:
    """What an element takes in a listpack (listpack.c)."""
    size = len(value)
    if 0 < size <= 20 and value[0] < 58:
        number = parse_int64(value)
        if number is not None:
            return _integer_bytes(number)
    if size < 64:
        return size + 2
    size += 2 if size < 4096 else 5
    back = 1
    rest = size >> 7
    while rest and back < 5:
        back += 1
        rest >>= 7
    return size + back


def _integer_bytes(number: int) -> int:
    if 0 <= number < 128:
        return 2
    if -4096 <= number < 4096:
        return 3
    size = 2
    while size < 8 and not -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
        size += 1 if size < 4 else 4
    return size + 2


def _limits(limit: int) -> tuple[int, int]:
    """Bytes and elements of a node for list-max-listpack-size (quicklistNodeLimit)."""
    if limit >= 0:
        return _UNLIMITED, max(limit, 1)
    return _NODE_BYTES[min(-limit, len(_NODE_BYTES)) - 1], _UNLIMITED


def exceeds(limit: int, size: int, count: int) -> bool:
    """Whether elements of a size are too large for a node, or too many
    (quicklistNodeExceedsLimit)."""
    most_bytes, most = _limits(limit)
    if most_bytes != _UNLIMITED:
        return _LISTPACK_BYTES + size > most_bytes
    return _LISTPACK_BYTES + size > _SAFE_BYTES or count > most


def is_small(limit: int, size: int, count: int) -> bool:
    """Whether they fill not more than half a node (listTypeTryConvertQuicklist)."""
    most_bytes, most = _limits(limit)
    most_bytes = _SAFE_BYTES if most_bytes == _UNLIMITED else most_bytes // 2
    return _LISTPACK_BYTES + size <= most_bytes and count <= most // 2
