"""Generated commands on strings, keys, expiry, databases and transactions, right and wrong ones.

Times to expire are far off or past: whether a key is there must not depend on how fast a test
runs. `spoiled` commands keep to that too: what it puts in is never a time soon to come.
Nothing here sends anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from oracle_compare import LATER_MS, LATER_S, Command

from kvserver.numbers import INT64_MAX, INT64_MIN

#: What a part of a command becomes: one argument, or several, or none.
Part = bytes | tuple[bytes, ...]
Parts = SearchStrategy[Part] | SearchStrategy[bytes] | SearchStrategy[tuple[bytes, ...]]


def texts(*values: object) -> tuple[bytes, ...]:
    """Arguments; what isn't bytes is written in decimal or ASCII."""
    return tuple(v if isinstance(v, bytes) else str(v).encode() for v in values)


KEYS = texts("a", "b", "n", "{t}1", "{t}2", "{}x", "x{", b"\x00\xff \r\n", "")
VALUES = texts("", "abc", "ab\0cd", b"\xff\xfe\r\n", "a" * 44, "b" * 45, "ohmytext", "mynewtext")
#: Numbers, and what looks like one.
NUMBERS = texts(
    0, 1, -1, 10, 9999, 10000, -0.5, "3.0", "1e3", "0x10", "10.50", "1e-20", "-0", "007"
)
NO_NUMBERS = texts(" 1", "1 ", "+1", "1.", "inf", "-inf", "nan", "1e400", "1e5000", "--1", "1\0")
EDGES = texts(INT64_MAX, INT64_MIN, INT64_MAX - 1, INT64_MAX + 1, INT64_MIN - 1, 1 << 64, 1 << 31)
DATABASES = texts(0, 1, 2)
NO_DATABASES = texts(15, 16, -1, "abc", "", "1.0", 1 << 31, INT64_MAX + 1)
#: The databases that any of these commands can reach.
REACHED = (0, 1, 2, 15)
WRONG_TIMES = texts(0, -1, "abc", "1.5", "", " 1", INT64_MAX, INT64_MIN, INT64_MAX + 1)
PATTERNS = texts("*", "?", "[ab]", "[^a]", "{t}*", r"\a", "", "a", b"*\xff*", "x{", "[", "\\")

keys = st.sampled_from(KEYS)
edges = st.sampled_from(EDGES)
small = st.integers(-12, 60).map(lambda n: b"%d" % n)
integers = st.integers(-(1 << 63), (1 << 63) - 1).map(lambda n: b"%d" % n)
floats = st.floats().map(lambda f: repr(f).encode())
numbers = st.one_of(st.sampled_from(NUMBERS), small, edges, integers, st.sampled_from(NO_NUMBERS))
values = st.one_of(
    st.sampled_from(VALUES),
    numbers,
    floats,
    st.binary(max_size=60),
    st.text("abc", max_size=300).map(str.encode),
)
databases = st.one_of(*[st.sampled_from(DATABASES)] * 5, st.sampled_from(NO_DATABASES))
counts = st.sampled_from(texts(1, 2, 10, 1000, 0, -1, "abc", INT64_MAX, INT64_MAX + 1))
#: Offsets: beyond the small ones only such as are refused, or reach the end.
offsets = st.one_of(small, edges, st.sampled_from(texts(2000, 1 << 29, "abc", "")))

seconds = st.sampled_from(texts(1000, 100_000, 9223370000000000, 9223372036854776, *WRONG_TIMES))
milliseconds = st.sampled_from(texts(1_000_000, 10**10, 9223370000000000000, *WRONG_TIMES))
unix_seconds = st.sampled_from(
    texts(LATER_S, LATER_S + 1, 1, INT64_MAX // 1000, INT64_MAX // 1000 + 1, *WRONG_TIMES)
)
unix_milliseconds = st.sampled_from(texts(LATER_MS, LATER_MS + 1, 1, INT64_MAX - 1, *WRONG_TIMES))


# -- making commands from parts ------------------------------------------------------------------


def word(name: str) -> SearchStrategy[bytes]:
    """A command's or option's name as somebody may spell it."""
    mixed = "".join(c.lower() if i % 2 else c for i, c in enumerate(name))
    return st.sampled_from(texts(name, name, name.lower(), mixed))


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


def several(part: Parts, least: int = 0, most: int = 3) -> SearchStrategy[Part]:
    """The part some times over."""
    return st.lists(part, min_size=least, max_size=most).map(flatten)


def option(names: str, *parts: Parts) -> SearchStrategy[Part]:
    """One of the words, followed by the parts."""
    return st.tuples(st.one_of(*map(word, names.split())), *parts).map(flatten)


def options(*choices: SearchStrategy[Part], most: int = 2) -> SearchStrategy[Part]:
    """Some of the options, in any order, perhaps the same twice or two that exclude each other."""
    return several(st.one_of(*choices), 0, most)


def weighted(*choices: tuple[int, SearchStrategy[Command]]) -> SearchStrategy[Command]:
    """One of the strategies, by weight: `one_of` would take all their branches alike."""
    chosen = st.sampled_from([strategy for weight, strategy in choices for _ in range(weight)])
    # Deferred: hypothesis would print all of it, which is megabytes.
    return st.deferred(lambda: chosen.flatmap(lambda strategy: strategy))


times = (
    option("EX", seconds),
    option("PX", milliseconds),
    option("EXAT", unix_seconds),
    option("PXAT", unix_milliseconds),
)

strings = st.one_of(
    command("GET", keys),
    command("SET", keys, values),
    command("SET", keys, values, st.one_of(times)),
    command("SET", keys, values, options(*times, option("NX XX GET KEEPTTL"), most=3)),
    command("SETNX GETSET", keys, values),
    command("SETEX", keys, seconds, values),
    command("PSETEX", keys, milliseconds, values),
    command("GETDEL", keys),
    command("GETEX", keys, options(*times, option("PERSIST"))),
    command("MGET", several(keys, 1)),
    command("MSET MSETNX", several(st.tuples(keys, values), 1)),
    command("APPEND", keys, values),
    command("STRLEN", keys),
    command("SETRANGE", keys, offsets, st.one_of(st.just(b""), st.binary(max_size=20))),
    command("GETRANGE SUBSTR", keys, offsets, offsets),
    command(
        "LCS", keys, keys, options(option("LEN IDX WITHMATCHLEN"), option("MINMATCHLEN", counts))
    ),
)
counters = st.one_of(
    command("SET", keys, numbers),
    command("INCR DECR", keys),
    command("INCRBY DECRBY", keys, numbers),
    command("INCRBYFLOAT", keys, st.one_of(numbers, floats)),
)
generic = st.one_of(
    command("DEL UNLINK EXISTS TOUCH", several(keys, 1)),
    command("TYPE PERSIST", keys),
    command("RENAME RENAMENX", keys, keys),
    command("COPY", keys, keys, options(option("REPLACE"), option("DB", databases))),
    command("MOVE", keys, databases),
    command("RANDOMKEY DBSIZE"),
    command("KEYS", st.sampled_from(PATTERNS)),
    command(
        "SCAN",
        st.sampled_from(texts(0, 0, "abc", "", -1, (1 << 64) - 1, 1 << 64)),
        options(
            option("MATCH", st.sampled_from(PATTERNS)),
            option("COUNT", counts),
            option("TYPE", st.sampled_from(texts("string", "STRING", "hash"))),
        ),
    ),
    command("OBJECT|ENCODING OBJECT|REFCOUNT OBJECT|IDLETIME OBJECT|FREQ", keys),
    command("WAIT", st.sampled_from(texts(0, -1, "abc")), st.sampled_from(texts(0, 1, -1, "abc"))),
)
#: What a whole scan may be limited to.
scan_options = options(
    option("MATCH", st.sampled_from(PATTERNS)),
    option("COUNT", st.sampled_from(texts(1, 2, 3, 1000))),
    option("TYPE", st.just(b"string")),
)
expiry = st.one_of(
    command("EXPIRE", keys, seconds, options(option("NX XX GT LT"))),
    command("PEXPIRE", keys, milliseconds, options(option("NX XX GT LT"))),
    command("EXPIREAT", keys, unix_seconds, options(option("NX XX GT LT"))),
    command("PEXPIREAT", keys, unix_milliseconds, options(option("NX XX GT LT"))),
    command("TTL PTTL EXPIRETIME PEXPIRETIME PERSIST", keys),
)
talk = st.one_of(
    command("PING", several(values, 0, 1)),
    command("ECHO", values),
    command("HELLO", several(st.sampled_from(texts(2, 3, 3, 4, "abc")), 0, 1)),
    command("HELLO", st.just(b"3"), option("SETNAME", st.sampled_from(texts("me", "a b")))),
    command("CLIENT|SETNAME", st.sampled_from(texts("me", "", "a b", "a\n"))),
    command("CLIENT|GETNAME CLIENT|ID TIME NOSUCH OBJECT|NOSUCH"),
)
moves = weighted(
    (4, command("SELECT", databases)),
    (2, command("SWAPDB", databases, databases)),
    (1, command("FLUSHDB FLUSHALL", options(option("ASYNC SYNC NOW"), most=1))),
    (1, command("RESET")),
)
transactions = weighted(
    (2, command("MULTI")),
    (3, command("EXEC")),
    (2, command("DISCARD")),
    (1, command("UNWATCH")),
    (3, command("WATCH", several(keys, 1))),
)

#: What is put in a place where it may not belong.
junk = st.sampled_from(texts("", "abc", -1, 0, "NX", "GET", "KEEPTTL", "EX", "DB", "*", INT64_MAX))


@st.composite
def spoiled(draw: st.DrawFn, sound: SearchStrategy[Command]) -> Command:
    """A command with an argument too many, too few or replaced."""
    args = list(draw(sound))
    at = draw(st.integers(1, len(args)))
    if draw(st.booleans()):
        del args[at : at + 1]
    if draw(st.booleans()):
        args.insert(at, draw(junk))
    return tuple(args)


sound = weighted(
    (9, strings), (4, counters), (8, generic), (6, expiry), (1, talk), (2, moves), (2, transactions)
)
#: Any command.
commands = weighted((11, sound), (1, spoiled(sound)))
#: Commands that are sent at once.
batches = st.lists(commands, min_size=1, max_size=8)
#: What stands between MULTI and EXEC.
bodies = st.lists(weighted((9, sound), (1, commands)), max_size=6)
