"""Kinds of value that only one directive has (kvserver/directives.py has the rows).

They must not know who reads a value; what a kind is, is in kvserver/config.py.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from kvserver import numbers
from kvserver.config import INT_MAX, Int, Kind, Size, format_size, parse_size, wire

#: A host and a port.
Address = tuple[str, int]


class Primary(Kind[Address | None]):
    """The server that this one follows; `no one` is none. Redis shows that as nothing, and its
    CONFIG REWRITE takes the line away."""

    several = True
    unwritten_default = True
    valid = 'the host and port of a primary, or "no one"'

    def parse(self, words: Sequence[str], current: Address | None) -> Address | None:
        if len(words) != 2:
            raise ValueError("wrong number of arguments")
        host, port = words
        if (host.lower(), port.lower()) == ("no", "one"):
            return None
        number = numbers.parse_int64(wire(port))
        if number is None or not 0 <= number <= 65535:
            raise ValueError("Invalid master port")
        return host, number

    def words(self, value: Address | None) -> list[str]:
        return ["no", "one"] if value is None else [value[0], str(value[1])]

    def show(self, value: Address | None) -> str:
        return "" if value is None else f"{value[0]} {value[1]}"


class Addresses(Kind[tuple[str, ...]]):
    """Addresses to listen on; with a ``-`` before it, one that may be missing."""

    several = True
    initial = ()
    limit: ClassVar[int] = 16
    valid = (
        f"up to {limit} addresses; * and ::* are all of IPv4 and IPv6, and -address may be missing"
    )

    def parse(self, words: Sequence[str], current: tuple[str, ...]) -> tuple[str, ...]:
        if len(words) > self.limit:
            raise ValueError("Too many bind addresses specified.")
        return () if list(words) == [""] else tuple(words)

    def words(self, value: tuple[str, ...]) -> list[str]:
        return list(value) or [""]


class Percentiles(Kind[tuple[float, ...]]):
    """Numbers, printed without zeros that say nothing."""

    several = True
    initial = ()
    valid = "numbers from 0 to 100"

    def parse(self, words: Sequence[str], current: tuple[float, ...]) -> tuple[float, ...]:
        values = [] if list(words) == [""] else [numbers.parse_double(wire(w)) for w in words]
        found = tuple(value for value in values if value is not None)
        if len(found) < len(values):
            raise ValueError("Invalid latency-tracking-info-percentiles parameters")
        if not all(0.0 <= value <= 100.0 for value in found):
            raise ValueError(
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"
            )
        return found

    def words(self, value: tuple[float, ...]) -> list[str]:
        return [f"{p:f}".rstrip("0").rstrip(".") for p in value] or [""]


class EventFlags(Kind[str]):
    """Classes of keyspace events in the order of keyspaceEventsFlagsToString (Redis, notify.c).
    A stands for all that concern a key, but not for n (new key) and m (key miss)."""

    valid = "any of the characters Ag$lshzxeKEtmdn"
    _ALL: ClassVar[str] = "g$lshzxetd"
    _ORDER: ClassVar[str] = _ALL + "nKEm"

    def read(self, word: str) -> str:
        flags = set(word.replace("A", self._ALL))
        if not flags <= set(self._ORDER):
            raise ValueError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
        return "".join(f for f in self._ORDER if f in flags).replace(self._ALL, "A")

    def show(self, value: str) -> str:
        # notify.c forgets an n after the A; the answer is the same here, but the value is whole.
        return value.replace("An", "A")


class BufferLimit(NamedTuple):
    """Close a client above ``hard`` bytes, or above ``soft`` bytes for ``soft_seconds``; 0: no
    limit."""

    hard: int
    soft: int
    soft_seconds: int


class BufferLimits(Kind[tuple[BufferLimit, ...]]):
    """A BufferLimit for each class of client; a class that is not mentioned keeps its own."""

    several = True
    merges = True
    initial = (BufferLimit(0, 0, 0),) * 3
    valid = "one or more of: normal|replica|pubsub <hard size> <soft size> <soft seconds>"
    #: The index in the value.
    CLASSES: ClassVar[dict[str, int]] = {"normal": 0, "slave": 1, "replica": 1, "pubsub": 2}

    def parse(
        self, words: Sequence[str], current: tuple[BufferLimit, ...]
    ) -> tuple[BufferLimit, ...]:
        if len(words) % 4:
            raise ValueError("Wrong number of arguments in buffer limit configuration.")
        limits = list(current)
        for i in range(0, len(words), 4):
            index = self.CLASSES.get(words[i].lower())
            if index is None:
                raise ValueError("Invalid client class specified in buffer limit configuration.")
            limits[index] = self._limit(words[i + 1], words[i + 2], words[i + 3])
        return tuple(limits)

    @staticmethod
    def _limit(hard: str, soft: str, seconds: str) -> BufferLimit:
        try:
            return BufferLimit(parse_size(hard), parse_size(soft), Int(0, INT_MAX).read(seconds))
        except ValueError:
            raise ValueError(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration."
            ) from None

    def words(self, value: tuple[BufferLimit, ...]) -> list[str]:
        found: list[str] = []
        for name, limit in zip(("normal", "replica", "pubsub"), value, strict=True):
            found += [name, format_size(limit.hard), format_size(limit.soft)]
            found.append(str(limit.soft_seconds))
        return found

    def show(self, value: tuple[BufferLimit, ...]) -> str:
        named = zip(("normal", "slave", "pubsub"), value, strict=True)
        return " ".join(f"{name} {hard} {soft} {time}" for name, (hard, soft, time) in named)


class Users(Kind[tuple[tuple[str, ...], ...]]):
    """Users: a name and rules (kvserver/acl), one user a line."""

    valid = "a name and rules, as ACL SETUSER does"
    several = True
    merges = True
    unwritten_default = True
    initial = ()

    def parse(
        self, words: Sequence[str], current: tuple[tuple[str, ...], ...]
    ) -> tuple[tuple[str, ...], ...]:
        if not words:
            raise ValueError("wrong number of arguments")
        if any(user[0] == words[0] for user in current):
            raise ValueError(
                "Duplicate user found. A user can only be defined once in config files"
            )
        return (*current, tuple(words))

    def lines(self, value: tuple[tuple[str, ...], ...]) -> list[list[str]]:
        return [list(words) for words in value]


class MemorySize(Size):
    """Bytes, or a share of the memory there is, such as 25%, which is kept as -25 (as Redis keeps
    that of maxmemory-clients)."""

    def __init__(self) -> None:
        super().__init__()
        self.valid += ", or a share of the memory, such as 25%"

    def read(self, word: str) -> int:
        if not word.endswith("%"):
            return super().read(word)
        percent = numbers.parse_int64(wire(word[:-1]))
        if percent is None or not 0 <= percent <= 100:
            raise ValueError("argument must be a memory or percent value")
        return -percent

    def words(self, value: int) -> list[str]:
        return [f"{-value}%"] if value < 0 else super().words(value)

    def show(self, value: int) -> str:
        return f"{-value}%" if value < 0 else super().show(value)
