"""SORT and SORT_RO: the elements of a list, set or sorted set, by what they are or by what other
keys hold.

What only depends on the elements is sorted in steps, over a view of the beginning; what other keys
decide, or what is stored, in one go. Source: Redis 7.4's sort.c.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from kvserver import codec, errors
from kvserver.args import parse_int
from kvserver.collection import Collection
from kvserver.commands import lists as list_commands
from kvserver.commands.replies import Array, Steps, begin, collect
from kvserver.database import Reader
from kvserver.numbers import parse_double
from kvserver.registry import (
    COMMANDS,
    DENYOOM,
    MOVABLE_KEYS,
    READONLY,
    WALK,
    WRITE,
    Key,
    KeySpec,
    command,
    key,
    unknown_keys,
)
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.types import hashes, sets, zsets
from kvserver.types.lists import ListReader

#: Elements that are looked at between two yields.
STEPS: Final = 256
#: What several GETs find is at most so much. Redis sets no limit, and a client could ask for all of
#: the memory with one command.
MAX_FOUND: Final = 1 << 24
#: As many are sorted at a time; then what is sorted is merged.
_RUN: Final = 1024
#: The blanks that C's strtod skips.
_BLANKS: Final = b" \t\n\v\f\r"

_COMPLEXITY: Final = (
    "O(N+M*log(M)) where N is the number of elements in the list or set to sort, and M the number "
    "of returned elements. When the elements are not sorted, complexity is O(N)."
)
_CATEGORIES: Final = ("set", "sortedset", "list", "dangerous")
_READ: Final = ("RO", "ACCESS")
_STORED: Final = ("OW", "UPDATE")
_KEYS: Final = (
    *key(*_READ),
    unknown_keys(
        *_READ,
        notes="For the optional BY/GET keyword. It is marked 'unknown' because the key names "
        "derive from the content of the key we sort",
    ),
)
_STORE_KEYS: Final[tuple[KeySpec, ...]] = (
    *_KEYS,
    unknown_keys(
        *_STORED,
        notes="For the optional STORE keyword. It is marked 'unknown' because the keyword can "
        "appear anywhere in the argument array",
    ),
)
#: How many arguments follow an option.
_FOLLOWING: Final = {b"LIMIT": 2, b"GET": 1, b"BY": 1}

#: What an element is sorted by, and the element.
Weighed = tuple[Any, bytes]
_WEIGHT: Final = itemgetter(0)


class _Asked:
    """What is asked for."""

    def __init__(self) -> None:
        self.desc = self.alpha = False
        self.offset, self.count = 0, -1
        #: The pattern of the keys to sort by; with `unsorted` a constant.
        self.by: bytes | None = None
        self.unsorted = False
        self.get: list[bytes] = []
        self.store: bytes | None = None


def _parse(
    ctx: ReadContext | WriteContext, name: str, key: bytes, words: Sequence[bytes]
) -> _Asked:
    """The options (sortCommandGeneric)."""
    asked, at = _Asked(), 0
    while at < len(words):
        word, left = words[at].upper(), len(words) - at - 1
        if word in (b"ASC", b"DESC"):
            asked.desc = word == b"DESC"
        elif word == b"ALPHA":
            asked.alpha = True
        elif word == b"LIMIT" and left >= 2:
            asked.offset, asked.count = parse_int(words[at + 1]), parse_int(words[at + 2])
        elif word == b"STORE" and left and name == "sort":
            asked.store = words[at + 1]
            at += 1
        elif word == b"BY" and left:
            asked.by = words[at + 1]
            asked.unsorted = asked.unsorted or b"*" not in asked.by
            if b"*" in asked.by:
                _check_access(ctx, name, key, words, "BY")
        elif word == b"GET" and left:
            _check_access(ctx, name, key, words, "GET")
            asked.get.append(words[at + 1])
        else:
            raise errors.syntax()
        at += 1 + _FOLLOWING.get(word, 0)
    return asked


def _check_access(
    ctx: ReadContext | WriteContext, name: str, key: bytes, words: Sequence[bytes], option: str
) -> None:
    """A pattern may lead to any key."""
    args = [name.encode(), key, *words]
    if not ctx.server.acl.reads_every_key(ctx.session, COMMANDS[name], args):
        raise errors.error(f"{option} option of SORT denied due to insufficient ACL permissions.")


def _locate_keys(args: Sequence[bytes]) -> list[Key]:
    """The key, and the last that STORE names (sortGetKeys)."""
    found: list[Key] = [(1, _READ)]
    at = 2
    while at < len(args):
        word = args[at].upper()
        if word == b"STORE" and at + 1 < len(args):
            found[1:] = [(at + 1, _STORED)]
        at += 1 + _FOLLOWING.get(word, 0)
    return found


def _locate_key(_args: Sequence[bytes]) -> list[Key]:
    return [(1, _READ)]


# -- the commands --------------------------------------------------------------------------------


@command(
    "sort",
    -2,
    WRITE | DENYOOM | MOVABLE_KEYS | WALK,
    group="generic",
    since="1.0.0",
    summary="Sorts the elements in a list, a set, or a sorted set, optionally storing the result.",
    complexity=_COMPLEXITY,
    keys=_STORE_KEYS,
    categories=_CATEGORIES,
    locate=_locate_keys,
)
def sort(ctx: WriteContext, name: bytes, *words: bytes) -> Any:
    asked = _parse(ctx, "sort", name, words)
    if asked.store is None:
        return _sort(ctx.db, name, asked)
    values = _found(ctx.db, _all(_elements(ctx.db, name, asked)), asked)
    return _store(ctx, asked.store, [b"" if value is None else value for value in values])


@command(
    "sort_ro",
    -2,
    READONLY | MOVABLE_KEYS | WALK,
    group="generic",
    since="7.0.0",
    summary="Returns the sorted elements of a list, a set, or a sorted set.",
    complexity=_COMPLEXITY,
    keys=_KEYS,
    categories=_CATEGORIES,
    locate=_locate_key,
)
def sort_ro(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    return _sort(ctx.db, name, _parse(ctx, "sort_ro", name, words))


def _sort(db: Reader, name: bytes, asked: _Asked) -> Any:
    walk = _elements(db, name, asked)
    if asked.get or (asked.by is not None and not asked.unsorted):
        return _found(db, _all(walk), asked)
    return begin(_reply(walk))


def _reply(walk: Steps[list[bytes]]) -> Generator[None, None, Any]:
    array = Array()
    array.add((yield from collect(walk, array)))
    return array.reply()


def _all(walk: Steps[list[bytes]]) -> list[bytes]:
    """All that a walk finds, in one go."""
    found: list[bytes] = []
    while True:
        try:
            found += next(walk)
        except StopIteration as done:
            found += done.value
            return found


def _store(ctx: WriteContext, name: bytes, values: list[bytes]) -> int:
    """Replace a key with a list; an empty one deletes it."""
    if values:
        items = list_commands.new_list(ctx, name)
        items.push(values, False)
        items.grow([], ctx.server.encodings.list_node)
        items.save()
        ctx.notify(notify.LIST, b"sortstore", name)
    else:
        ctx.store_nothing(name)
    return len(values)


# -- the elements --------------------------------------------------------------------------------


def _elements(db: Reader, name: bytes, asked: _Asked) -> Steps[list[bytes]]:
    """The elements that are asked for, in order. The view is pinned by the call."""
    row = db.row(name)
    if row is None:
        return _in_steps(iter(()))
    kind = codec.row_type(row)
    if kind not in (codec.LIST, codec.SET, codec.ZSET):
        raise errors.wrong_type()
    rows = Collection(db.data, db.db.prefix, row)
    unsorted = asked.unsorted
    if unsorted and kind == codec.SET and asked.store is not None:
        # What is stored mustn't depend on chance (sort.c: "Force ALPHA sorting").
        asked.alpha, asked.by, unsorted = True, None, False
    first, count = _limits(asked, rows.count)
    if unsorted:
        return _in_steps(_natural(rows, kind, first, count, asked.desc))
    weigh = _Weights(db, asked)
    return _sorted(_natural(rows, kind, 0, rows.count, False), weigh, asked.desc, first, count)


def _limits(asked: _Asked, size: int) -> tuple[int, int]:
    """LIMIT in a collection of a size: the index of the first element, and how many."""
    first = min(max(asked.offset, 0), size)
    count = size if asked.count < 0 else min(asked.count, size)
    return first, min(count, size - first)


def _natural(rows: Collection, kind: int, first: int, count: int, desc: bool) -> Iterator[bytes]:
    """Some elements in the order that they have by themselves; a set has none to be reversed."""
    if not count:
        return iter(())
    if kind == codec.LIST:
        begin = rows.count - first - count if desc else first
        return ListReader(rows).elements(begin, count, desc)
    if kind == codec.SET:
        return islice(sets.iterate(rows), first, first + count)
    return map(_member, islice(zsets.SortedSet(rows).scan_from(first, desc), count))


def _member(entry: tuple[bytes, bytes]) -> bytes:
    return entry[0][zsets.MEMBER_AT :]


def _in_steps(elements: Iterator[bytes]) -> Steps[list[bytes]]:
    while len(found := list(islice(elements, STEPS))) == STEPS:
        yield found
    return found


def _sorted(
    elements: Iterator[bytes], weigh: Callable[[bytes], Any], desc: bool, first: int, count: int
) -> Steps[list[bytes]]:
    runs: list[list[Weighed]] = []
    while run := [(weigh(element), element) for element in islice(elements, _RUN)]:
        run.sort(key=_WEIGHT, reverse=desc)
        runs.append(run)
        if len(run) == _RUN:
            yield []
    merged = runs[0] if len(runs) == 1 else merge(*runs, key=_WEIGHT, reverse=desc)
    chosen = map(_element, islice(merged, first, first + count))
    return (yield from _in_steps(chosen))


def _element(weighed: Weighed) -> bytes:
    return weighed[1]


class _Weights:
    """What elements are sorted by (sortCompare). Those with the same number are sorted by their
    bytes."""

    def __init__(self, db: Reader, asked: _Asked) -> None:
        self._db = db
        self._by = None if asked.by is None else _Pattern(asked.by)
        self._alpha = asked.alpha

    def __call__(self, element: bytes) -> Any:
        value: bytes | None = element
        if self._by is not None:
            value = self._by.look_up(self._db, element)
        if not self._alpha:
            return (0.0 if value is None else _number(value)), element
        return value if self._by is None else (value is not None, value or b"")


def _number(text: bytes) -> float:
    """What C's strtod makes of a text."""
    text = text.partition(b"\0")[0]
    number = parse_double(text.lstrip(_BLANKS)) if text else 0.0
    if number is None:
        raise errors.error("One or more scores can't be converted into double")
    return number


# -- other keys ----------------------------------------------------------------------------------


def _found(db: Reader, elements: list[bytes], asked: _Asked) -> Sequence[bytes | None]:
    """The elements, or what GET asks for of each."""
    if not asked.get:
        return elements
    if len(asked.get) > 1 and len(elements) * len(asked.get) > MAX_FOUND:
        raise errors.error(f"SORT would give more than {MAX_FOUND} values")
    patterns = [_Pattern(text) for text in asked.get]
    return [pattern.look_up(db, element) for element in elements for pattern in patterns]


class _Pattern:
    """A pattern of BY or GET: `#`, or a key with a `*`, and perhaps a field after `->`
    (lookupKeyByPattern)."""

    def __init__(self, text: bytes) -> None:
        self._itself = text == b"#"
        self._before, self._star, after = text.partition(b"*")
        self._after, _, self._field = after.partition(b"->")
        if not self._field:
            self._after = after

    def look_up(self, db: Reader, element: bytes) -> bytes | None:
        """What it means for an element."""
        if self._itself:
            return element
        if not self._star:
            return None
        row = db.row(self._before + element + self._after)
        if row is None:
            return None
        kind = codec.row_type(row)
        if not self._field:
            return db.string_of(row) if codec.is_string(row) else None
        if kind != codec.HASH:
            return None
        fields = Collection(db.data, db.db.prefix, row)
        return hashes.get(fields, self._field, db.keyspace.now)
