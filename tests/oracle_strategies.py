"""What generated programs are made of: arguments, and the commands on strings, keys, expiry,
databases and transactions. Those of the other types are in modules of their own.

Times to expire are far off or past: whether a key is there must not depend on how fast a test runs.
Nothing here sends anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from oracle_compare import LATER_MS, LATER_S, Command

from kvserver.numbers import INT64_MAX, INT64_MIN

T = TypeVar("T")
#: What a part of a command becomes: one argument, or several, or none.
Part = bytes | tuple[bytes, ...]
Choice = tuple[float, SearchStrategy[T]]
Parts = SearchStrategy[bytes] | SearchStrategy[tuple[bytes, ...]] | SearchStrategy[Part]

CONNECTIONS = 3


@dataclass(frozen=True)
class Send:
    """Commands that leave on one of the connections at once, as arrays or as lines."""

    connection: int
    commands: tuple[Command, ...]
    as_lines: bool = False


@dataclass(frozen=True)
class Burst:
    """Commands that reach the servers at the same time, on new connections, each in a database of
    its own: 0, 1, 2."""

    batches: tuple[tuple[Command, ...], ...]


@dataclass(frozen=True)
class Leave:
    """A connection ends, whatever it is in the middle of."""

    connection: int


@dataclass(frozen=True)
class Lapse:
    """The time of some keys comes while nobody looks."""

    db: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True)
class Scan:
    """A walk through a database, from the beginning to the end."""

    db: int
    options: tuple[bytes, ...]


@dataclass(frozen=True)
class RandomKey:
    """RANDOMKEY in a database. A step, since Redis deletes the expired keys that it hits upon."""

    db: int


@dataclass(frozen=True)
class Restart:
    """kvserver stops, orderly or not, and starts again."""

    kill: bool


Step = Send | Burst | Leave | Lapse | Scan | RandomKey | Restart


# -- arguments ---------------------------------------------------------------------------------


def texts(*values: object) -> tuple[bytes, ...]:
    """Arguments; what isn't bytes is written as str writes it."""
    return tuple(v if isinstance(v, bytes) else str(v).encode() for v in values)


def pick(*values: object) -> SearchStrategy[bytes]:
    """One of the arguments; those named twice are twice as likely."""
    return st.sampled_from(texts(*values))


def weighted(*choices: Choice[T]) -> SearchStrategy[T]:
    """One of the strategies, by weight: `one_of` would take all their branches alike."""
    least = min(weight for weight, _ in choices)
    chosen = st.sampled_from([s for weight, s in choices for _ in range(round(weight / least))])
    # Deferred: hypothesis would print all of it, which is megabytes.
    return st.deferred(lambda: chosen.flatmap(lambda strategy: strategy))


def share(weight: float, choices: Sequence[Choice[T]]) -> list[Choice[T]]:
    """The choices, that weigh so much together. One draw of many is better than draws of draws:
    hypothesis can only leave out what took few."""
    total = sum(part for part, _ in choices)
    return [(weight * part / total, strategy) for part, strategy in choices]


KEYS = texts("a", "a", "a", "b", "b", "n", "{t}1", "{t}2", "{}x", "x{", b"\x00\xff \r\n", "")
PATTERNS = ("*", "?", "[ab]", "[^a]", "{t}*", r"\a", "", "a", b"*\xff*", "x{", "[", "\\")
#: The databases that commands can reach.
REACHED = (0, 1, 2, 15)

keys = st.sampled_from(KEYS)
several_keys = st.lists(keys, min_size=1, max_size=3).map(tuple)
distinct_keys = st.lists(keys, min_size=1, max_size=3, unique=True).map(tuple)
patterns = pick(*PATTERNS)
edges = pick(INT64_MAX, INT64_MIN, INT64_MAX - 1, INT64_MAX + 1, INT64_MIN - 1, 1 << 64, 1 << 31)
small = st.integers(-12, 60).map(lambda n: b"%d" % n)
integers = st.integers(INT64_MIN, INT64_MAX).map(lambda n: b"%d" % n)
no_numbers = pick(
    *(" 1", "1 ", "+1", "1.", "inf", "-inf", "nan", "1e400", "1e5000", "--1", "1\0", "-0", "007")
)
floats = weighted(
    (2, pick("0.1", "-0.5", "3.0", "1e3", "0x10", "10.50", "1e-20", "5e-5000")),
    (1, st.floats().map(lambda f: repr(f).encode())),
)
numbers = weighted((6, small), (1, edges), (1, integers), (1, no_numbers), (1, floats))
values = weighted(
    (3, pick("", "abc", "ab\0cd", b"\xff\xfe\r\n", "a" * 44, "b" * 45, "ohmytext", "mynewtext")),
    (3, numbers),
    (1, st.binary(max_size=60)),
    (1, st.text("abc", max_size=300).map(str.encode)),
)
databases = weighted(
    (9, pick(0, 0, 0, 1, 1, 2)), (1, pick(15, 16, -1, "abc", "", "1.0", 1 << 31, INT64_MAX + 1))
)
counts = pick(1, 2, 10, 1000, 0, -1, "abc", INT64_MAX, INT64_MAX + 1)
#: Beyond the small ones only such as are refused, or would be cut off.
offsets = weighted((6, small), (1, edges), (1, pick(2000, 1 << 29, "abc", "")))

wrong_times = pick(0, -1, "abc", "1.5", "", " 1", INT64_MAX, INT64_MIN, INT64_MAX + 1)
seconds = weighted(
    (3, pick(1000, 100_000, 9223370000000000)), (1, pick(INT64_MAX // 1000 + 1)), (1, wrong_times)
)
milliseconds = weighted((4, pick(1_000_000, 10**10, 9223370000000000000)), (1, wrong_times))
unix_seconds = weighted(
    (3, pick(LATER_S, LATER_S + 1, 1, INT64_MAX // 1000)),
    (1, pick(INT64_MAX // 1000 + 1)),
    (1, wrong_times),
)
unix_milliseconds = weighted((4, pick(LATER_MS, LATER_MS + 1, 1, INT64_MAX - 1)), (1, wrong_times))


# -- making commands from parts ------------------------------------------------------------------


def word(name: str) -> SearchStrategy[bytes]:
    """A command's or option's name as somebody may spell it."""
    mixed = "".join(c.lower() if i % 2 else c for i, c in enumerate(name))
    return pick(name, name, name, name.lower(), mixed)


def flatten(parts: Iterable[Part]) -> Command:
    """The parts one after the other."""
    flat: list[bytes] = []
    for part in parts:
        if isinstance(part, bytes):
            flat.append(part)
        else:
            flat.extend(part)
    return tuple(flat)


def command(names: str, *parts: Parts) -> SearchStrategy[Command]:
    """One of the commands in `names`, or the one with its subcommand: `OBJECT|FREQ`."""
    spelled = [st.tuples(*map(word, name.split("|"))) for name in names.split()]
    return st.tuples(st.one_of(spelled), *parts).map(flatten)


def several(part: Parts, least: int = 0, most: int = 3) -> SearchStrategy[Command]:
    """The part some times over."""
    return st.lists(part, min_size=least, max_size=most).map(flatten)


def option(names: str, *parts: Parts) -> SearchStrategy[Command]:
    """One of the words, followed by the parts."""
    return st.tuples(st.one_of(*map(word, names.split())), *parts).map(flatten)


def options(*choices: SearchStrategy[Command], most: int = 2) -> SearchStrategy[Command]:
    """Some of the options, in any order, perhaps the same twice or two that exclude each other."""
    return several(st.one_of(*choices), 0, most)


# -- the commands --------------------------------------------------------------------------------

Choices = list[Choice[Command]]

times = (
    option("EX", seconds),
    option("PX", milliseconds),
    option("EXAT", unix_seconds),
    option("PXAT", unix_milliseconds),
)
strings: Choices = [
    (3, command("GET", keys)),
    (3, command("SET", keys, values)),
    (2, command("SET", keys, values, st.one_of(times))),
    (3, command("SET", keys, values, options(*times, option("NX XX GET KEEPTTL"), most=3))),
    (2, command("SETNX GETSET", keys, values)),
    (1, command("SETEX", keys, seconds, values)),
    (1, command("PSETEX", keys, milliseconds, values)),
    (1, command("GETDEL", keys)),
    (2, command("GETEX", keys, options(*times, option("PERSIST")))),
    (1, command("MGET", several_keys)),
    (3, command("MSET MSETNX", several(st.tuples(keys, values), 1))),
    (2, command("APPEND", keys, values)),
    (1, command("STRLEN", keys)),
    (2, command("SETRANGE", keys, offsets, st.binary(max_size=20))),
    (2, command("GETRANGE SUBSTR", keys, offsets, offsets)),
    (
        1,
        command(
            *("LCS", keys, keys),
            options(option("LEN IDX WITHMATCHLEN"), option("MINMATCHLEN", counts)),
        ),
    ),
]
counters: Choices = [
    (2, command("SET", keys, numbers)),
    (3, command("INCR DECR", keys)),
    (3, command("INCRBY DECRBY", keys, numbers)),
    (2, command("INCRBYFLOAT", keys, weighted((1, numbers), (1, floats)))),
]
scan_options = options(
    option("MATCH", patterns),
    option("COUNT", pick(1, 2, 3, 1000)),
    option("TYPE", pick("string", "STRING", "hash")),
)
#: In one step, so that it meets all the expired keys there are, which it deletes; and with no
#: cursor that Redis 7.0 takes and 7.4 doesn't, such as an empty or negative one.
scans = command(
    "SCAN",
    pick(0, 0, 0, "abc", 1 << 64),
    option("COUNT", pick(1000, 1000, 100_000, 0, -1, "abc", INT64_MAX + 1)),
    options(option("MATCH", patterns), option("NX")),
)
generic: Choices = [
    (4, command("DEL UNLINK EXISTS TOUCH", several_keys)),
    (2, command("TYPE", keys)),
    (4, command("RENAME RENAMENX", keys, keys)),
    (1, command("COPY", keys, keys, options(option("REPLACE")))),
    (1, command("DBSIZE")),
    (1, command("KEYS", patterns)),
    (1, scans),
    (2, command("OBJECT|ENCODING OBJECT|REFCOUNT OBJECT|IDLETIME OBJECT|FREQ", keys)),
    (1, command("WAIT", pick(0, -1, "abc"), pick(0, 1, -1, "abc"))),
]
across: Choices = [
    (2, command("COPY", keys, keys, option("DB", databases), options(option("REPLACE")))),
    (2, command("MOVE", keys, databases)),
    (4, command("SELECT", databases)),
    (2, command("SWAPDB", databases, databases)),
    (1, command("FLUSHALL", options(option("ASYNC SYNC NOW"), most=1))),
    (1, command("RESET")),
]
conditions = options(option("NX XX GT LT"))
expiry: Choices = [
    (1, command("EXPIRE", keys, seconds, conditions)),
    (1, command("PEXPIRE", keys, milliseconds, conditions)),
    (1, command("EXPIREAT", keys, unix_seconds, conditions)),
    (1, command("PEXPIREAT", keys, unix_milliseconds, conditions)),
    (4, command("TTL PTTL EXPIRETIME PEXPIRETIME PERSIST", keys)),
]
talk: Choices = [
    (1, command("PING", several(values, 0, 1))),
    (1, command("ECHO", values)),
    (1, command("HELLO", several(pick(2, 3, 3, 4, "abc"), 0, 1))),
    (1, command("HELLO", pick(3), option("SETNAME", pick("me", "a b")))),
    (1, command("CLIENT|SETNAME", pick("me", "", "a b", "a\n"))),
    (1, command("CLIENT|GETNAME CLIENT|ID TIME NOSUCH OBJECT|NOSUCH")),
]
transactions: Choices = [
    (2, command("MULTI")),
    (3, command("EXEC")),
    (2, command("DISCARD")),
    (1, command("UNWATCH")),
    (3, command("WATCH", several_keys)),
]
