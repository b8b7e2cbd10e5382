"""The configuration as a mechanism: kinds of value, rows, and the object that holds the values.

Everything there is to say of a directive is in its row (kvserver/directives.py has them all); the
parser, CONFIG GET, SET and REWRITE, redaction and conf/kvserver.conf derive from it. Behaviour and
error sentences are those of Redis 7.4, after the table in Valkey's config.c.

This module must not know files, asyncio, or who reads a value. Invariants:
- Values only change as a whole: CONFIG SET of several directives is applied and announced
  completely, or everything, listeners included, is back at the old values.
- Text from clients and files keeps foreign bytes with ``surrogateescape``.
- A kind refuses text with a ValueError whose sentence goes to the client.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar

from kvserver import errors, glob, numbers

T = TypeVar("T")
Listener = Callable[[], None]

INT_MAX: Final = (1 << 31) - 1
UINT_MAX: Final = (1 << 32) - 1
LONG_MAX: Final = (1 << 63) - 1
KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

_OCTAL: Final = re.compile(r"[+-]?[0-7]{1,20}")
_SIZE: Final = re.compile(r"([0-9]{1,20})(b|kb?|mb?|gb?|)", re.IGNORECASE | re.ASCII)
_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "kb": KIB,
    "mb": MIB,
    "gb": GIB,
}

_log = logging.getLogger(__name__)


class ConfigError(Exception):
    """The configuration can't be used; the text is one line for the person who starts the server,
    or, raised by a listener, the reason why it can't apply a value."""


def parse_size(text: str) -> int:
    """Bytes of a size as in redis.conf: 1k is 1000, 1kb is 1024, case is ignored."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("argument must be a memory value")
    return int(match[1]) * _UNITS[match[2].lower()]


def format_size(size: int) -> str:
    """The shortest exact way to write a size in a file, such as ``64mb``."""
    for unit in ("gb", "mb", "kb"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def wire(text: str) -> bytes:
    """The bytes that ``text`` stands for."""
    return text.encode("utf-8", "surrogateescape")


def _check_range(value: int, low: int, high: int, base: str = "d") -> int:
    if not low <= value <= high:
        raise ValueError(f"argument must be between {low:{base}} and {high:{base}} inclusive")
    return value


class Kind(Generic[T]):
    """How a value is read and printed; T is what the server works with."""

    #: What it takes, for people: ends the sentence "timeout takes ...".
    valid: str
    #: The value before the first line of the file, for kinds that take several words.
    initial: Any = None
    #: Takes any number of words; CONFIG SET then splits its argument at each space.
    several: ClassVar[bool] = False
    #: A line of the file changes a part of the value; earlier lines stay in force.
    merges: ClassVar[bool] = False
    #: CONFIG REWRITE removes the line of a value that is the default again.
    unwritten_default: ClassVar[bool] = False

    def parse(self, words: Sequence[str], current: T) -> T:
        """The value when ``words`` are given while it is ``current``. Raises ValueError."""
        if len(words) != 1:
            raise ValueError("wrong number of arguments")
        return self.read(words[0])

    def read(self, word: str) -> T:
        """The value of a single word. Raises ValueError."""
        raise NotImplementedError

    def words(self, value: T) -> list[str]:
        """What stands after the name in a file; one empty word for an empty value."""
        return [str(value)]

    def lines(self, value: T) -> list[list[str]]:
        """The words of each line of a file; several for kinds whose lines add up."""
        return [self.words(value)]

    def show(self, value: T) -> str:
        """What CONFIG GET answers."""
        return " ".join(self.words(value))


class Bool(Kind[bool]):
    """Yes or no, in any case."""

    valid = "yes or no"

    def read(self, word: str) -> bool:
        lowered = word.lower()
        if lowered not in ("yes", "no"):
            raise ValueError("argument must be 'yes' or 'no'")
        return lowered == "yes"

    def words(self, value: bool) -> list[str]:
        return ["yes" if value else "no"]


class Int(Kind[int]):
    """An integer. ``clamp``: a narrower range, to whose nearer end other values are moved."""

    def __init__(
        self, low: int, high: int, unit: str = "", clamp: tuple[int, int] | None = None
    ) -> None:
        self.low, self.high = low, high
        self.clamp = clamp or (low, high)
        upto = f"{low} up" if high >= INT_MAX else f"{low} to {high}"
        self.valid = f"an integer from {upto}" + (f" ({unit})" if unit else "")

    def read(self, word: str) -> int:
        value = numbers.parse_int64(wire(word))
        if value is None:
            raise ValueError("argument couldn't be parsed into an integer")
        _check_range(value, self.low, self.high)
        return min(max(value, self.clamp[0]), self.clamp[1])


class Size(Kind[int]):
    """Bytes, written with or without a unit."""

    def __init__(self, low: int = 0, high: int = LONG_MAX) -> None:
        self.low, self.high = low, high
        self.valid = f"a size from {format_size(low)} up, such as 100mb or 1gb"

    def read(self, word: str) -> int:
        return _check_range(parse_size(word), self.low, self.high)

    def words(self, value: int) -> list[str]:
        return [format_size(value)]

    def show(self, value: int) -> str:
        return str(value)


class Octal(Kind[int]):
    """File permissions."""

    def __init__(self, high: int) -> None:
        self.high = high
        self.valid = f"an octal number from 0 to {high:o}"

    def read(self, word: str) -> int:
        if not _OCTAL.fullmatch(word):
            raise ValueError("argument couldn't be parsed as an octal number")
        return _check_range(int(word, 8), 0, self.high, "o")

    def words(self, value: int) -> list[str]:
        return [f"{value:o}"]


class Enum(Kind[str]):
    """One of a few words, kept in lower case."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.valid = ("one of " if len(choices) > 1 else "only ") + ", ".join(choices)

    def read(self, word: str) -> str:
        lowered = word.lower()
        if lowered not in self.choices:
            choices = ", ".join(self.choices)
            raise ValueError(f"argument(s) must be one of the following: {choices}")
        return lowered


class Text(Kind[str]):
    """Any text; empty stands for none."""

    def __init__(self, valid: str) -> None:
        self.valid = valid

    def read(self, word: str) -> str:
        return word


class Directory(Kind[str]):
    """A directory, kept as an absolute path."""

    valid = "the path of a directory"

    def read(self, word: str) -> str:
        if not word:
            raise ValueError("argument can't be empty")
        return os.path.abspath(word)


class Fixed(Kind[str]):
    """A fact that tools ask for and sometimes set: the true value is accepted, any other refused
    with the reason."""

    several = True
    initial = ""

    def __init__(self, text: str, reason: str) -> None:
        self.text, self.reason = text, reason
        self.valid = f'only "{text}"'

    def parse(self, words: Sequence[str], current: str) -> str:
        if " ".join(words).lower() != self.text:
            raise ValueError(f"argument must be '{self.text}': {self.reason}")
        return self.text


class Lines(Kind[tuple[tuple[str, ...], ...]]):
    """Lines of ``width`` words; every line of the file adds one."""

    several = True
    merges = True
    initial = ()

    def __init__(self, width: int, valid: str) -> None:
        self.width, self.valid = width, valid

    def parse(
        self, words: Sequence[str], current: tuple[tuple[str, ...], ...]
    ) -> tuple[tuple[str, ...], ...]:
        if len(words) != self.width:
            raise ValueError("wrong number of arguments")
        return (*current, tuple(words))


@dataclass(frozen=True, slots=True)
class Row:
    """One directive. ``default`` is written as in a file, ``doc`` is one sentence."""

    name: str
    kind: Kind[Any]
    default: str
    doc: str
    #: Older names: valid everywhere, and listed by CONFIG GET.
    aliases: tuple[str, ...] = ()
    #: Only the file and the command line set it.
    immutable: bool = False
    #: The value must not appear in logs, MONITOR, SLOWLOG or error messages.
    secret: bool = False
    #: Setting the present value again is a change: the file that it names may be a new one.
    reload: bool = False
    #: For the file and the command line; CONFIG GET and SET don't know it, and REWRITE only if it
    #: is `rewritten`.
    file_only: bool = False
    rewritten: bool = False
    #: What conf/kvserver.conf shows, commented out, when there is no default.
    example: str = ""

    def initial(self) -> Any:
        """The value of the default."""
        words = self.default.split() if self.kind.several else [self.default]
        return self.kind.parse(words, self.kind.initial) if words else self.kind.initial


class Config:
    """The values of all directives.

    Getters take a directive's own name and are typed; a wrong name or type is a programming
    error (KeyError, TypeError). Hot paths keep the value and follow it with ``on_change``.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        #: The absolute path of the file that CONFIG REWRITE writes, if there is one.
        self.path: str | None = None
        self.rows: tuple[Row, ...] = tuple(rows)
        self._by_name = {name: r for r in self.rows for name in (r.name, *r.aliases)}
        self._values: dict[str, Any] = {row.name: row.initial() for row in self.rows}
        self._listeners: dict[str, list[Listener]] = {row.name: [] for row in self.rows}

    def find(self, name: str) -> Row | None:
        """The row of a name or alias, in any case."""
        return self._by_name.get(name.lower())

    def value(self, name: str) -> Any:
        """The value, as its kind has it."""
        return self._values[name]

    def get_int(self, name: str) -> int:
        """An integer, a size in bytes, or permissions."""
        value = self._values[name]
        if type(value) is not int:
            raise TypeError(name)
        return value

    def get_bool(self, name: str) -> bool:
        value = self._values[name]
        if not isinstance(value, bool):
            raise TypeError(name)
        return value

    def get_str(self, name: str) -> str:
        value = self._values[name]
        if not isinstance(value, str):
            raise TypeError(name)
        return value

    def get_list(self, name: str) -> tuple[str, ...]:
        """The words of a list, such as the addresses of ``bind``."""
        return self._get_tuple(name, str)

    def get_floats(self, name: str) -> tuple[float, ...]:
        return self._get_tuple(name, float)

    def get_lines(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The lines of a directive that may stand several times, such as ``rename-command``."""
        return self._get_tuple(name, tuple)

    def _get_tuple(self, name: str, of: type[T]) -> tuple[T, ...]:
        value = self._values[name]
        if not isinstance(value, tuple) or not all(isinstance(item, of) for item in value):
            raise TypeError(name)
        return value

    def is_default(self, row: Row) -> bool:
        return bool(self._values[row.name] == row.initial())

    def is_secret(self, name: str) -> bool:
        """Whether the value given with this name, of any case, must not be shown."""
        row = self.find(name)
        return row is not None and row.secret

    def on_change(self, names: str | Iterable[str], listener: Listener) -> None:
        """Call ``listener`` after CONFIG SET changed any of the directives, once for all of them.

        It reads the new values from here. If it can't apply them it raises ConfigError (or
        OSError); then the old values are back, and each listener that was called, itself
        included, is called again to apply those.
        """
        for name in [names] if isinstance(names, str) else names:
            self._listeners[name].append(listener)

    def set_at_startup(self, row: Row, words: Sequence[str]) -> None:
        """Take a line of the file or command line. Raises ValueError."""
        self._values[row.name] = row.kind.parse(words, self._values[row.name])

    def assign(self, name: str, value: Any) -> None:
        """Take a value that something else than CONFIG SET decided, such as REPLICAOF; for CONFIG
        GET and REWRITE. Nobody is told."""
        self._values = {**self._values, name: value}

    # -- CONFIG GET and SET ------------------------------------------------------------

    def get_matching(self, patterns: Sequence[str]) -> dict[str, str]:
        """CONFIG GET: names and values, for globs in the order of the table. A name without a
        glob character is answered as it is spelled. Patterns ignore case."""
        spelled: dict[str, str] = {}
        for pattern in patterns:
            if any(char in pattern for char in "[*?"):
                matches = glob.compile(wire(pattern), True)
                for name in self._by_name:
                    if matches(name.encode()):
                        spelled.setdefault(name, name)
            elif self.find(pattern) is not None:
                spelled.setdefault(pattern.lower(), pattern)
        rows = {shown: self._by_name[name] for name, shown in spelled.items()}
        return {
            shown: row.kind.show(self._values[row.name])
            for shown, row in rows.items()
            if not row.file_only
        }

    def set_many(self, pairs: Sequence[tuple[str, str]]) -> None:
        """CONFIG SET: all or nothing. Raises RedisError; what a listener raises beside
        ConfigError and OSError comes out as it is, when the old values are back."""
        changed = self._parse_all(self._find_all(pairs))
        before = self._values
        self._values = {**before, **{row.name: value for row, value in changed}}
        called: list[Listener] = []
        for row, _ in changed:
            for listener in self._listeners[row.name]:
                if listener in called:
                    continue
                called.append(listener)
                try:
                    listener()
                except Exception as error:
                    self._roll_back(before, called)
                    if not isinstance(error, ConfigError | OSError):
                        raise
                    reason = error.strerror if isinstance(error, OSError) else None
                    raise _set_failed(row.name, reason or str(error)) from None

    def _find_all(self, pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[Row, str]]:
        """Row name -> row and text; the checks that come before any value is looked at."""
        found: dict[str, tuple[Row, str]] = {}
        for name, text in pairs:
            row = self.find(name)
            if row is None or row.file_only:
                raise errors.error(
                    f"Unknown option or number of arguments for CONFIG SET - '{name}'"
                )
            if row.immutable:
                raise _set_failed(name, "can't set immutable config")
            if row.name in found:
                raise _set_failed(name, "duplicate parameter")
            found[row.name] = (row, text)
        return found

    def _parse_all(self, found: dict[str, tuple[Row, str]]) -> list[tuple[Row, Any]]:
        """The rows that change and their new values."""
        changed: list[tuple[Row, Any]] = []
        for row, text in found.values():
            current = self._values[row.name]
            words = [text]
            if row.kind.several:
                words = text.split(" ") if text else []  # sdssplitlen: "a  b" has an empty word
            try:
                value = row.kind.parse(words, current)
            except ValueError as error:
                raise _set_failed(row.name, str(error)) from None
            if value != current or row.reload:
                changed.append((row, value))
        return changed

    def _roll_back(self, before: dict[str, Any], called: list[Listener]) -> None:
        self._values = before
        for listener in called:
            try:
                listener()
            except Exception:  # the other listeners must still get their old values
                _log.warning("A listener refused the restored configuration", exc_info=True)


def _set_failed(name: str, reason: str) -> errors.RedisError:
    return errors.error(f"CONFIG SET failed (possibly related to argument '{name}') - {reason}")
