"""The notation of the Redis manual for a command's arguments, read into the tree that COMMAND DOCS
tells of.

    key value [condition: NX | XX] [GET] [expiration: EX seconds | PX milliseconds | KEEPTTL]

It must not know any command. Beyond what the manual writes:
- A choice (`a | b`) or a sequence in brackets begins with its name and a colon, as COMMAND DOCS
  names every argument; brackets around a single argument have no name.
- A type follows in parentheses where `_TYPES` doesn't tell it from the name, and what to show
  after `=` where that isn't the name: `increment(double)`, `addr=ip:port`.
- A token alone has the name before its `=`: `change=CH`; otherwise its own in lower case.
- A token before `<` belongs to the whole choice or sequence: `AUTH <auth: username password>`.
- `x [x ...]` repeats; `x y [name: x y ...]` repeats and names the pair; `[...]` repeats what is
  before it.

Invariant: what isn't well-formed raises ValueError, whatever it is.

Source: Redis 7.4's server.c, addReplyCommandArgList, and utils/generate-command-code.py.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

ONEOF: Final = "oneof"
BLOCK: Final = "block"
KEY: Final = "key"
_PURE_TOKEN: Final = "pure-token"
#: A pattern that elements make a key of; all of a command have one key specification.
_KEY_PATTERN: Final = "key-pattern"
_DOTS: Final = "..."
#: Tokens that aren't words.
_SYMBOLS: Final = ("=", "~", "*", "$", '""')
_MARKS: Final = ("[", "]", "<", ">", "|", _DOTS, "")
_WORD: Final = re.compile(r"[\[\]<>|]|[^\s\[\]<>|]+")
_LEAF: Final = re.compile(r"([a-z][a-z0-9-]*)(?:=([a-z:-]+))?(?:\(([a-z-]+)\))?")

#: The types of arguments by their names; all others are strings.
_TYPES: Final[dict[str, str]] = {
    name: kind
    for kind, names in {
        KEY: "key key1 key2 newkey source destination",
        "integer": "client-id count cursor db decrement destination-db end increment index "
        "index1 index2 maxage milliseconds min-match-len numreplicas offset protover seconds start "
        "timeout version",
        "unix-time": "unix-time-seconds unix-time-milliseconds",
        "pattern": "pattern",
    }.items()
    for name in names.split()
}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, or a group of them: `type` is ONEOF or BLOCK, and `arguments` are its members.
    `key_spec` is the number of the key specification that finds a key."""

    name: str
    type: str
    token: str = ""
    display: str = ""
    optional: bool = False
    multiple: bool = False
    multiple_token: bool = False
    key_spec: int | None = None
    arguments: tuple[Argument, ...] = ()

    def flags(self) -> list[str]:
        """As COMMAND DOCS spells them, in its order."""
        flags = {
            "optional": self.optional,
            "multiple": self.multiple,
            "multiple_token": self.multiple_token,
        }
        return [name for name, is_set in flags.items() if is_set]


@cache
def parse(text: str, key_specs: int) -> tuple[Argument, ...]:
    """The arguments of a command that has `key_specs` key specifications: the first key belongs to
    the first one, and so on; further keys belong to the last one."""
    return _Parser(text, key_specs).whole()


class _Parser:
    """One reading of one text."""

    def __init__(self, text: str, key_specs: int) -> None:
        self._words = deque(_WORD.findall(text))
        self._last_spec = key_specs - 1
        self._keys = 0
        self._pattern_spec: int | None = None

    def whole(self) -> tuple[Argument, ...]:
        choices = self._choices("")
        if len(choices) != 1:
            raise ValueError("a choice outside brackets")
        return tuple(choices[0])

    def _next(self) -> str:
        """The next word; empty at the end."""
        return self._words.popleft() if self._words else ""

    def _peek(self) -> str:
        return self._words[0] if self._words else ""

    def _choices(self, closing: str) -> list[list[Argument]]:
        """The sequences between bars, up to `closing`, which is taken."""
        choices: list[list[Argument]] = [[]]
        while (word := self._next()) != closing:
            if word == "|":
                choices.append([])
            elif word == "[":
                self._bracket(choices[-1])
            else:
                choices[-1].append(self._argument(word))
        return choices

    def _argument(self, word: str) -> Argument:
        if word == "<":
            return _group(self._name(), self._choices(">"))
        token = word.partition("=")[2]
        if token.isupper() or token in _SYMBOLS:
            return Argument(word[: -len(token) - 1], _PURE_TOKEN, token, word[: -len(token) - 1])
        if not word.isupper():
            return self._leaf(word)
        following = self._peek()
        if following == "<" or not (following in _MARKS or following.isupper()):
            return replace(self._argument(self._next()), token=word)
        name = word.lower()
        return Argument(name, _PURE_TOKEN, word, name)

    def _leaf(self, word: str) -> Argument:
        match = _LEAF.fullmatch(word)
        if match is None:
            raise ValueError(f"not an argument: {word!r}")
        name, display, kind = match.groups()
        kind = kind or _TYPES.get(name, "string")
        key_spec = self._key_spec() if kind == KEY else None
        if kind == _KEY_PATTERN:
            if self._pattern_spec is None:
                self._pattern_spec = self._key_spec()
            kind, key_spec = "pattern", self._pattern_spec
        return Argument(name, kind, display=display or name, key_spec=key_spec)

    def _key_spec(self) -> int | None:
        self._keys += 1
        return min(self._keys - 1, self._last_spec) if self._last_spec >= 0 else None

    def _name(self) -> str:
        """The name at the beginning of a group; empty if it has none."""
        return self._next()[:-1] if self._peek().endswith(":") else ""

    def _bracket(self, before: list[Argument]) -> None:
        """What follows `[`: appended to `before`, or the repetition of its end."""
        name = self._name()
        again = self._repeated()
        if again is None:
            before.append(replace(_group(name, self._choices("]")), optional=True))
            return
        size = len(again) or 1
        repeated = before[-size:]
        shown = [word for one in repeated for word in (one.token, one.name) if word]
        names = [one.name for one in repeated]
        if not repeated or again not in ([], names, shown):
            raise ValueError(f"[{' '.join(again)} ...] repeats something else")
        with_token = again == shown != names
        one = _group(name, [repeated])
        before[-size:] = [replace(one, multiple=True, multiple_token=with_token)]

    def _repeated(self) -> list[str] | None:
        """The words of `x y ...]`, taken with the bracket; None if what follows isn't that."""
        if not (_DOTS in self._words and "]" in self._words):
            return None
        end = self._words.index("]")
        words = [self._words[number] for number in range(end)]
        if not words or words[-1] != _DOTS or not set(words[:-1]).isdisjoint(_MARKS):
            return None
        for _ in range(end + 1):
            self._next()
        return words[:-1]


def _group(name: str, choices: list[list[Argument]]) -> Argument:
    """The choice between sequences, or the only one; a single argument stays what it is."""
    if len(choices) > 1:
        return _named(name, ONEOF, [_group("", [choice]) for choice in choices])
    (sequence,) = choices
    if len(sequence) == 1 and not name:
        return sequence[0]
    return _named(name, BLOCK, sequence)


def _named(name: str, kind: str, members: list[Argument]) -> Argument:
    if not name or len(members) < 2:
        raise ValueError(f"a {kind} needs a name and two arguments or more")
    return Argument(name, kind, arguments=tuple(members))
