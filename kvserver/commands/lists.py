"""Commands on lists that answer at once: all but LRANGE, LPOS and those that wait.

How a list is kept is in types/lists.py. Source: Redis 7.4's t_list.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvserver import errors, resp
from kvserver.args import parse_int, parse_int_in
from kvserver.codec import LIST
from kvserver.numbers import INT64_MAX
from kvserver.registry import DENYOOM, FAST, READONLY, WRITE, KeySpec, command, key
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types.list_writer import ListWriter
from kvserver.types.lists import LISTPACK, ListReader

_OF_ENDS: Final = (
    "O(1) for each element added, so O(N) to add N elements when the command is "
    "called with multiple arguments."
)


def find(ctx: ReadContext | WriteContext, name: bytes) -> ListReader | None:
    """A list to be read."""
    rows = ctx.db.collection(name, LIST)
    return None if rows is None else ListReader(rows)


def current(ctx: WriteContext, name: bytes) -> ListWriter | None:
    """A list to be changed."""
    rows = ctx.db.mutable(name, LIST)
    return None if rows is None else ListWriter(rows)


def _current_or_opened(ctx: WriteContext, name: bytes) -> ListWriter | None:
    """The same, perhaps as the command before left it: for commands that save what they change."""
    found = ctx.db.opened(name, LIST)
    if found is None:
        return current(ctx, name)
    assert isinstance(found, ListWriter)
    return found


def new_list(ctx: WriteContext, name: bytes) -> ListWriter:
    """A list that replaces what is there, to be saved when it has elements."""
    return ListWriter(ctx.db.new(name, LIST))


def side(text: bytes) -> bool:
    """Whether an argument says LEFT, and not RIGHT (getListPositionFromObjectOrReply)."""
    word = text.upper()
    if word == b"LEFT":
        return True
    if word == b"RIGHT":
        return False
    raise errors.syntax()


def removed(ctx: WriteContext, items: ListWriter, event: bytes) -> None:
    """Elements went: write what is left, and tell (listElementsRemoved)."""
    if items.count and items.may_shrink():
        items.shrink(ctx.server.encodings.list_node)
    items.save()
    name = items.changing.key
    ctx.notify(notify.LIST, event, name)
    if not items.count:
        ctx.notify(notify.GENERIC, b"del", name)


# -- pushing -------------------------------------------------------------------------------------


def push(ctx: WriteContext, items: ListWriter, values: Sequence[bytes], front: bool) -> None:
    """Add elements at an end, write, and tell."""
    if items.encoding == LISTPACK:
        items.grow(values, ctx.server.encodings.list_node)
    items.push(values, front)
    items.save()
    ctx.notify(notify.LIST, b"lpush" if front else b"rpush", items.changing.key)


def _push(ctx: WriteContext, name: bytes, values: tuple[bytes, ...], front: bool) -> int:
    items = _current_or_opened(ctx, name) or new_list(ctx, name)
    push(ctx, items, values, front)
    return items.count


def _push_if_there(ctx: WriteContext, name: bytes, values: tuple[bytes, ...], front: bool) -> int:
    items = _current_or_opened(ctx, name)
    if items is None:
        return 0
    push(ctx, items, values, front)
    return items.count


@command(
    "lpush",
    -3,
    WRITE | DENYOOM | FAST,
    group="list",
    since="1.0.0",
    summary="Prepends one or more elements to a list. Creates the key if it doesn't exist.",
    complexity=_OF_ENDS,
    keys=key("RW", "INSERT"),
    categories=("list",),
    history=(("2.4.0", "Accepts multiple `element` arguments."),),
)
def lpush(ctx: WriteContext, name: bytes, *values: bytes) -> int:
    return _push(ctx, name, values, True)


@command(
    "rpush",
    -3,
    WRITE | DENYOOM | FAST,
    group="list",
    since="1.0.0",
    summary="Appends one or more elements to a list. Creates the key if it doesn't exist.",
    complexity=_OF_ENDS,
    keys=key("RW", "INSERT"),
    categories=("list",),
    history=(("2.4.0", "Accepts multiple `element` arguments."),),
)
def rpush(ctx: WriteContext, name: bytes, *values: bytes) -> int:
    return _push(ctx, name, values, False)


@command(
    "lpushx",
    -3,
    WRITE | DENYOOM | FAST,
    group="list",
    since="2.2.0",
    summary="Prepends one or more elements to a list only when the list exists.",
    complexity=_OF_ENDS,
    keys=key("RW", "INSERT"),
    categories=("list",),
    history=(("4.0.0", "Accepts multiple `element` arguments."),),
)
def lpushx(ctx: WriteContext, name: bytes, *values: bytes) -> int:
    return _push_if_there(ctx, name, values, True)


@command(
    "rpushx",
    -3,
    WRITE | DENYOOM | FAST,
    group="list",
    since="2.2.0",
    summary="Appends an element to a list only when the list exists.",
    complexity=_OF_ENDS,
    keys=key("RW", "INSERT"),
    categories=("list",),
    history=(("4.0.0", "Accepts multiple `element` arguments."),),
)
def rpushx(ctx: WriteContext, name: bytes, *values: bytes) -> int:
    return _push_if_there(ctx, name, values, False)


# -- popping -------------------------------------------------------------------------------------


def pop(ctx: WriteContext, items: ListWriter, count: int, front: bool) -> list[bytes]:
    """Remove elements from an end, write, and tell: those, the outermost first."""
    values = items.pop(min(count, items.count), front)
    removed(ctx, items, b"lpop" if front else b"rpop")
    return values


def _pop(
    ctx: WriteContext, name: bytes, words: tuple[bytes, ...], front: bool
) -> bytes | list[bytes] | resp.NullArray | None:
    if not words:
        items = _current_or_opened(ctx, name)
        if items is None:
            return None
        value = items.pop_one(front)
        removed(ctx, items, b"lpop" if front else b"rpop")
        return value
    if len(words) > 1:
        raise errors.wrong_arity("lpop" if front else "rpop")
    count = parse_int_in(words[0], 0, INT64_MAX, "value is out of range, must be positive")
    items = current(ctx, name)
    if items is None:
        return resp.NULL_ARRAY
    return pop(ctx, items, count, front) if count else []


@command(
    "lpop",
    -2,
    WRITE | FAST,
    group="list",
    since="1.0.0",
    summary="Returns the first elements in a list after removing it. Deletes the list if the last "
    "element was popped.",
    complexity="O(N) where N is the number of elements returned",
    keys=key("RW", "ACCESS", "DELETE"),
    categories=("list",),
    history=(("6.2.0", "Added the `count` argument."),),
)
def lpop(
    ctx: WriteContext, name: bytes, *words: bytes
) -> bytes | list[bytes] | resp.NullArray | None:
    return _pop(ctx, name, words, True)


@command(
    "rpop",
    -2,
    WRITE | FAST,
    group="list",
    since="1.0.0",
    summary="Returns and removes the last elements of a list. Deletes the list if the last "
    "element was popped.",
    complexity="O(N) where N is the number of elements returned",
    keys=key("RW", "ACCESS", "DELETE"),
    categories=("list",),
    history=(("6.2.0", "Added the `count` argument."),),
)
def rpop(
    ctx: WriteContext, name: bytes, *words: bytes
) -> bytes | list[bytes] | resp.NullArray | None:
    return _pop(ctx, name, words, False)


# -- from one list to another --------------------------------------------------------------------


def move(
    ctx: WriteContext, source: bytes, destination: bytes, from_front: bool, to_front: bool
) -> bytes | None:
    """Take an element from an end of a list, and add it at an end of another, or of the same
    (lmoveGenericCommand)."""
    items = current(ctx, source)
    if items is None:
        return None
    if source == destination:
        return _rotate(ctx, items, from_front, to_front)
    target = current(ctx, destination) or new_list(ctx, destination)
    value = items.pop_one(from_front)
    push(ctx, target, [value], to_front)
    removed(ctx, items, b"lpop" if from_front else b"rpop")
    return value


def _rotate(ctx: WriteContext, items: ListWriter, from_front: bool, to_front: bool) -> bytes:
    if from_front != to_front and items.count > 1:
        value = items.pop_one(from_front)
        items.push([value], to_front)
    else:
        value = items.at(0 if from_front else items.count - 1)
    items.save()
    name = items.changing.key
    ctx.notify(notify.LIST, b"lpush" if to_front else b"rpush", name)
    ctx.notify(notify.LIST, b"lpop" if from_front else b"rpop", name)
    return value


MOVED_KEYS: Final = (
    KeySpec(1, 1, 1, ("RW", "ACCESS", "DELETE")),
    KeySpec(2, 2, 1, ("RW", "INSERT")),
)


@command(
    "lmove",
    5,
    WRITE | DENYOOM,
    group="list",
    since="6.2.0",
    summary="Returns an element after popping it from one list and pushing it to another. Deletes "
    "the list if the last element was moved.",
    keys=MOVED_KEYS,
    categories=("list",),
)
def lmove(
    ctx: WriteContext, source: bytes, destination: bytes, wherefrom: bytes, whereto: bytes
) -> bytes | None:
    from_front, to_front = side(wherefrom), side(whereto)
    return move(ctx, source, destination, from_front, to_front)


@command(
    "rpoplpush",
    3,
    WRITE | DENYOOM,
    group="list",
    since="1.2.0",
    summary="Returns the last element of a list after removing and pushing it to another list. "
    "Deletes the list if the last element was popped.",
    keys=MOVED_KEYS,
    categories=("list",),
    deprecated=("6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments"),
)
def rpoplpush(ctx: WriteContext, source: bytes, destination: bytes) -> bytes | None:
    return move(ctx, source, destination, False, True)


# -- by index ------------------------------------------------------------------------------------


@command(
    "llen",
    2,
    READONLY | FAST,
    group="list",
    since="1.0.0",
    summary="Returns the length of a list.",
    keys=key("RO"),
    categories=("list",),
)
def llen(ctx: ReadContext, name: bytes) -> int:
    rows = ctx.db.collection(name, LIST)
    return 0 if rows is None else rows.count


@command(
    "lindex",
    3,
    READONLY,
    group="list",
    since="1.0.0",
    summary="Returns an element from a list by its index.",
    complexity="O(N) where N is the number of elements to traverse to get to the element at index. "
    "This makes asking for the first or the last element of the list O(1).",
    keys=key("RO", "ACCESS"),
    categories=("list",),
)
def lindex(ctx: ReadContext, name: bytes, text: bytes) -> bytes | None:
    items = find(ctx, name)
    if items is None:
        return None
    index = _index(items, text)
    return None if index is None else items.at(index)


def _index(items: ListReader, text: bytes) -> int | None:
    """The index that an argument means, negative ones from the end; None if there is none."""
    index = parse_int(text)
    if index < 0:
        index += items.count
    return index if 0 <= index < items.count else None


@command(
    "lset",
    4,
    WRITE | DENYOOM,
    group="list",
    since="1.0.0",
    summary="Sets the value of an element in a list by its index.",
    complexity="O(N) where N is the length of the list. Setting either the first or the last "
    "element of the list is O(1).",
    keys=key("RW", "UPDATE"),
    categories=("list",),
)
def lset(ctx: WriteContext, name: bytes, text: bytes, value: bytes) -> resp.Simple:
    items = current(ctx, name)
    if items is None:
        raise errors.no_such_key()
    index = _index(items, text)
    if index is None:
        raise errors.error("index out of range")
    limit = ctx.server.encodings.list_node
    items.grow([value], limit)
    items.replace(index, value)
    items.shrink(limit)
    items.save()
    ctx.notify(notify.LIST, b"lset", name)
    return resp.OK


def bounds(start: int, stop: int, count: int) -> tuple[int, int]:
    """[first, end) of the indices `start` .. `stop`, negative ones from the end, of a list with
    `count` elements."""
    first = max(start + count if start < 0 else start, 0)
    end = min(stop + count if stop < 0 else stop, count - 1) + 1
    return first, max(first, end)


@command(
    "ltrim",
    4,
    WRITE,
    group="list",
    since="1.0.0",
    summary="Removes elements from both ends a list. Deletes the list if all elements were "
    "trimmed.",
    complexity="O(N) where N is the number of elements to be removed by the operation.",
    keys=key("RW", "DELETE"),
    categories=("list",),
)
def ltrim(ctx: WriteContext, name: bytes, start: bytes, stop: bytes) -> resp.Simple:
    low, high = parse_int(start), parse_int(stop)
    items = current(ctx, name)
    if items is None:
        return resp.OK
    first, end = bounds(low, high, items.count)
    if first >= end:
        items.clear()
    elif end - first < items.count:
        items.trim(first, items.count - end)
    removed(ctx, items, b"ltrim")
    return resp.OK


# -- by value ------------------------------------------------------------------------------------


@command(
    "lrem",
    4,
    WRITE,
    group="list",
    since="1.0.0",
    summary="Removes elements from a list. Deletes the list if the last element was removed.",
    complexity="O(N+M) where N is the length of the list and M is the number of elements removed.",
    keys=key("RW", "DELETE"),
    categories=("list",),
)
def lrem(ctx: WriteContext, name: bytes, text: bytes, value: bytes) -> int:
    count = parse_int_in(text, -INT64_MAX, INT64_MAX)
    items = current(ctx, name)
    if items is None:
        return 0
    found = items.equal(value, abs(count), count < 0)
    if found:
        gone = items.remove(found, value)
        removed(ctx, items, b"lrem")
        return gone
    return 0


@command(
    "linsert",
    5,
    WRITE | DENYOOM,
    group="list",
    since="2.2.0",
    summary="Inserts an element before or after another element in a list.",
    complexity="O(N) where N is the number of elements to traverse before seeing the value pivot. "
    "This means that inserting somewhere on the left end on the list (head) can be considered O(1) "
    "and inserting somewhere on the right end (tail) is O(N).",
    keys=key("RW", "INSERT"),
    categories=("list",),
)
def linsert(ctx: WriteContext, name: bytes, where: bytes, pivot: bytes, value: bytes) -> int:
    """-1 if there is no such pivot."""
    word = where.upper()
    if word not in (b"BEFORE", b"AFTER"):
        raise errors.syntax()
    items = current(ctx, name)
    if items is None:
        return 0
    place = items.around(pivot, word == b"BEFORE")
    if place is None:
        return -1
    items.grow([value], ctx.server.encodings.list_node)
    items.insert(place[0], place[1], value)
    items.save()
    ctx.notify(notify.LIST, b"linsert", name)
    return items.count
