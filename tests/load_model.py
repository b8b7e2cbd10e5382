"""A model of what keys hold, and of commands on them: each is a `Step`, words and their effect.

It must not know sockets, nor who sends what. A state maps database and key to (type, expiry,
value); a step changes a copy of it and returns the reply that it predicts, as a tree of Python
values. Invariants: values in a state are replaced, never changed, since states share them; every
reply is predicted to the byte, except for the order of what has none (`Bag`), and errors (by
their first word).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: What a model holds: (type, expiry in unix ms or -1, value).
Entry = tuple[str, int, Any]
State = dict[bytes, Any]
Tree = Any
FOR_EVER = -1


class Failure(NamedTuple):
    """An error; a predicted one has its first word only."""

    text: bytes


class Status(NamedTuple):
    """+OK and its like."""

    text: bytes


class Bag(NamedTuple):
    """An array whose order isn't promised."""

    items: list[bytes]


class Refused(Exception):
    """The command is answered with this error."""


OK = Status(b"OK")


# -- replies ---------------------------------------------------------------------------------------


def parse(raw: bytes) -> Tree:
    """A whole RESP2 reply."""
    tree, end = _parse(raw, 0)
    assert end == len(raw), raw
    return tree


def _parse(raw: bytes, at: int) -> tuple[Tree, int]:
    end = raw.index(b"\r\n", at)
    kind, rest, end = raw[at : at + 1], raw[at + 1 : end], end + 2
    if kind == b"+":
        return Status(rest), end
    if kind == b"-":
        return Failure(rest), end
    if kind == b":":
        return int(rest), end
    size = int(rest)
    if size < 0:
        return None, end
    if kind == b"$":
        return raw[end : end + size], end + size + 2
    items = []
    for _ in range(size):
        item, end = _parse(raw, end)
        items.append(item)
    return items, end


class Expected:
    """A predicted reply, to be compared with the bytes that came."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __eq__(self, raw: object) -> bool:
        return isinstance(raw, bytes) and matches(self.tree, parse(raw))

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self.tree)


def matches(expected: Tree, found: Tree) -> bool:
    """Whether a reply is the predicted one."""
    if isinstance(expected, Bag):
        return isinstance(found, list) and sorted(found) == sorted(expected.items)
    if isinstance(expected, Failure):
        return isinstance(found, Failure) and found.text.split()[0] == expected.text
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(map(matches, expected, found))
        )
    return type(expected) is type(found) and bool(expected == found)


# -- states ----------------------------------------------------------------------------------------


def place(db: int, key: bytes) -> bytes:
    """A key of a state."""
    return b"%d/%b" % (db, key)


class View:
    """One database of a state, as commands see it."""

    def __init__(self, state: State, db: int) -> None:
        self.state = state
        self.db = db

    def entry(self, key: bytes, db: int = -1) -> Entry | None:
        """Type, expiry and value."""
        return self.state.get(place(self.db if db < 0 else db, key))

    def get(self, key: bytes, kind: str, default: Any) -> Any:
        """The value, which must be of this type, or `default`."""
        entry = self.entry(key)
        if entry is None:
            return default
        if entry[0] != kind:
            raise Refused(b"WRONGTYPE")
        return entry[2]

    def put(self, key: bytes, kind: str, value: Any) -> None:
        """Change the value; an empty collection is none, except a stream."""
        entry = self.entry(key)
        self.replace(key, (kind, entry[1] if entry else FOR_EVER, value))

    def replace(self, key: bytes, entry: Entry) -> None:
        """Whatever was there."""
        at = place(self.db, key)
        if entry[2] or entry[0] == "stream":
            self.state[at] = entry
        else:
            self.state.pop(at, None)

    def pop(self, key: bytes) -> Entry | None:
        """The key goes."""
        return self.state.pop(place(self.db, key), None)


class Step(NamedTuple):
    """A command; `effect` changes a view and returns the reply."""

    words: Sequence[bytes]
    effect: Callable[[View], Tree]

    def run(self, view: View) -> Tree:
        """The effect, or the error."""
        try:
            return self.effect(view)
        except Refused as error:
            return Failure(error.args[0])


def number(value: int) -> bytes:
    return b"%d" % value
