"""Writers of collections who know what their keys may hold: load.py's, with every type.

A writer has two databases of its own, in which nobody else writes, so what it finds there must be
what its model says, and no key more. All keys meet all commands: after a RENAME a hash's command
may find a list, and is refused as the model predicts.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import load_set_steps as set_steps
import load_steps as steps
import load_stream_steps as stream_steps
from harness import Conn, Server, encode_command
from load import FAR_MS, OK, QUEUED, Load, Op, State, Writer
from load_model import Entry, Expected, Step, View, parse, place
from load_queues import Queues
from load_stream_steps import Group, Stream

FIRST_DATABASE = 8
#: Writers whose numbers differ by less have different databases.
WRITERS = 4
KEYS = [b"%b%d" % (kind, n) for kind in (b"h", b"l", b"s", b"z", b"x", b"b") for n in (0, 1)]
FIELDS = [b"f%d" % n for n in range(8)]
COUNTER = b"counter"
GROUPS = (b"g0", b"g0", b"g0", b"g1")
CONSUMERS = (b"alice", b"bob")
#: Elements that a command adds at times, so that there are ranges to be dropped.
MANY = 150
#: A bit that makes a long string.
FAR_BIT = 1 << 22
#: What a server answers that can't execute, or can't tell; no model predicts it.
_REFUSAL = re.compile(
    rb"-(?:MISCONF|READONLY|UNBLOCKED|NOREPLICAS|LOADING|MASTERDOWN|EXECABORT|BUSY) [^\r]*"
)


class CollectionWriter(Writer):
    """One client; `number` chooses its databases."""

    #: Where a MOVE goes.
    _elsewhere = 0
    #: The id of the last entry of a stream.
    _entry = 0

    @property
    def databases(self) -> tuple[int, int]:
        """Those that are this writer's own."""
        first = FIRST_DATABASE + 2 * (self.number % WRITERS)
        return first, first + 1

    def _refusals(self, replies: Sequence[bytes]) -> list[bytes]:
        return [found for reply in replies for found in _REFUSAL.findall(reply)]

    # -- what to do ------------------------------------------------------------------------

    def _choose(self) -> Op:
        choice = self.random.random()
        db, self._elsewhere = self.random.choices((self.databases, self.databases[::-1]), (9, 1))[0]
        if choice < 0.12:
            return _transaction(db, self._several())
        if choice < 0.2:
            return _script(db, self._several())
        if choice < 0.26:
            self._value += 1
            return _function(db, b"run%d" % self.number, self._value, self._several())
        return _single(db, self._step())

    def _several(self) -> list[Step]:
        return [self._step() for _ in range(self.random.randint(2, 6))]

    def _step(self) -> Step:
        families = (
            (16, b"h", self._hash),
            (18, b"l", self._list),
            (14, b"s", self._set),
            (16, b"z", self._zset),
            (18, b"x", self._stream),
            (6, b"b", self._string),
        )
        choice = self.random.random()
        if choice < 0.12:
            return self._generic()
        weights = [weight for weight, _, _ in families]
        _, kind, family = self.random.choices(families, weights)[0]
        keys = [b"%b%d" % (kind, n) for n in (0, 1)]
        self.random.shuffle(keys)
        return family(*keys)

    def _far(self) -> int:
        return int(time.time() * 1000) + FAR_MS

    def _new(self) -> bytes:
        self._value += 1
        return b"%d-%d" % (self.number, self._value)

    def _some(self, names: Sequence[bytes], most: int = 3) -> list[bytes]:
        return self.random.sample(names, self.random.randint(1, most))

    def _many(self) -> bool:
        return self.random.random() < 0.06

    def _generic(self) -> Step:
        a, b = self.random.sample(KEYS, 2)
        if self.random.random() < 0.6:
            b = a[:1] + (b"1" if a[1:] == b"0" else b"0")
        first, second = self.databases
        make: Callable[[], Step] = self.random.choices(
            [
                lambda: steps.delete(a, b),
                lambda: steps.delete(a),
                lambda: steps.rename(a, b),
                lambda: steps.copy(a, b, self.random.random() < 0.6),
                lambda: steps.move(a, self._elsewhere),
                lambda: steps.expire_at(a, self._far()),
                lambda: steps.persist(a),
                lambda: steps.flush(),
                lambda: steps.swap(first, second),
            ],
            (8, 12, 12, 12, 6, 8, 4, 1, 2),
        )[0]
        return make()

    def _hash(self, key: bytes, _other: bytes) -> Step:
        fields = self._some(FIELDS)
        if self._many():
            return steps.hset(key, [(b"m%d" % n, self._new()) for n in range(MANY)])
        make: Callable[[], Step] = self.random.choices(
            [
                lambda: steps.hset(key, [(field, self._new()) for field in fields]),
                lambda: steps.hdel(key, fields),
                lambda: steps.hdel(key, [b"m%d" % n for n in range(MANY)]),
                lambda: steps.hincrby(key, COUNTER, self.random.randint(-3, 9)),
                lambda: steps.hexpire_at(key, self._far(), [*fields, COUNTER]),
                lambda: steps.hpersist(key, fields),
                lambda: steps.hget(key, fields[0]),
                lambda: steps.hlen(key),
            ],
            (10, 7, 1, 6, 5, 3, 2, 1),
        )[0]
        return make()

    def _list(self, key: bytes, other: bytes) -> Step:
        left, to_left = self.random.random() < 0.5, self.random.random() < 0.5
        values = [b"v%d" % self.random.randrange(6) for _ in range(self.random.randint(1, 3))]
        at = self.random.randrange(8)
        if self._many():
            return steps.push(key, [self._new() for _ in range(MANY)], left)
        make: Callable[[], Step] = self.random.choices(
            [
                lambda: steps.push(key, [*values, self._new()], left),
                lambda: steps.pop(key, self.random.choice((1, 1, 2, 40)), left),
                lambda: steps.linsert(key, values[0], self._new(), left),
                lambda: steps.lrem(key, self.random.randint(-2, 2), values[0]),
                lambda: steps.ltrim(key, at // 2, at // 2 + self.random.choice((5, 20, 100))),
                lambda: steps.lset(key, at, self._new()),
                lambda: steps.lmove(key, self.random.choice((key, other)), left, to_left),
                lambda: steps.lrange(key, at, 2 * at),
            ],
            (10, 8, 8, 7, 3, 4, 6, 2),
        )[0]
        return make()

    def _set(self, key: bytes, other: bytes) -> Step:
        members = self._some(FIELDS)
        if self._many():
            return set_steps.sadd(key, [b"m%d" % n for n in range(MANY)])
        verb = self.random.choice((b"SUNIONSTORE", b"SINTERSTORE", b"SDIFFSTORE"))
        target = self.random.choice((key, other, b"s2"))
        make: Callable[[], Step] = self.random.choices(
            [
                lambda: set_steps.sadd(key, [*members, self._new()]),
                lambda: set_steps.srem(key, members),
                lambda: set_steps.smove(key, other, members[0]),
                lambda: set_steps.spop_all(key),
                lambda: set_steps.store_sets(verb, target, key, other),
                lambda: set_steps.smembers(key),
            ],
            (10, 7, 6, 2, 4, 2),
        )[0]
        return make()

    def _zset(self, key: bytes, other: bytes) -> Step:
        members = self._some(FIELDS)
        chance = self.random
        scored = [(chance.randint(-9, 9), member) for member in members]
        option = chance.choice((b"", b"", b"NX", b"XX", b"GT", b"LT"))
        low = chance.randint(-9, 9)
        if self._many():
            return set_steps.zadd(key, option, [(n, b"m%d" % n) for n in range(MANY)])
        make: Callable[[], Step] = chance.choices(
            [
                lambda: set_steps.zadd(key, option, scored),
                lambda: set_steps.zincrby(key, low, members[0]),
                lambda: set_steps.zpop(key, chance.choice((1, 2, 50)), chance.random() < 0.5),
                lambda: set_steps.zrem(key, members),
                lambda: set_steps.zdrop_ranks(key, abs(low), abs(low) + chance.choice((1, 100))),
                lambda: set_steps.zdrop_scores(key, low, low + chance.choice((3, 100))),
                lambda: set_steps.zunionstore(chance.choice((key, b"z2")), key, other),
                lambda: set_steps.zunionstore(b"z2", key, b"s0"),
                lambda: set_steps.zrangestore(other, key, 0, 20),
                lambda: set_steps.zrange(key),
            ],
            (12, 8, 5, 5, 4, 4, 3, 2, 2, 2),
        )[0]
        return make()

    def _stream(self, key: bytes, _other: bytes) -> Step:
        chance = self.random
        name, consumer = chance.choice(GROUPS), chance.choice(CONSUMERS)
        self._entry += 1
        at = self._entry
        ids = [max(at - n, 1) for n in chance.sample(range(16), 8)]
        ids = list(dict.fromkeys(ids))
        make: Callable[[], Step] = chance.choices(
            [
                lambda: stream_steps.xadd(key, at, [b"n", b"%d" % at], chance.choice((0, 0, 30))),
                lambda: stream_steps.xtrim(key, chance.choice((0, 5, 40))),
                lambda: stream_steps.xdel(key, ids),
                lambda: stream_steps.group_create(key, name, chance.random() < 0.3),
                lambda: stream_steps.group_destroy(key, name),
                lambda: stream_steps.consumer_delete(key, name, consumer),
                lambda: stream_steps.xreadgroup(key, name, consumer, chance.choice((1, 3, 100))),
                lambda: stream_steps.xack(key, name, ids),
                lambda: stream_steps.xclaim(key, name, consumer, ids),
                lambda: stream_steps.xrange(key),
            ],
            (16, 2, 3, 7, 1, 1, 14, 6, 5, 1),
        )[0]
        return make()

    def _string(self, key: bytes, _other: bytes) -> Step:
        offset = self.random.choice((200, 200_000, FAR_BIT))
        offset = self.random.randrange(offset // 2, offset)
        make: Callable[[], Step] = self.random.choices(
            [
                lambda: steps.setbit(key, offset, self.random.randrange(2)),
                lambda: steps.setrange(key, offset // 8, self.random.randint(1, 9)),
                lambda: steps.bitcount(key),
                lambda: steps.strlen(key),
            ],
            (6, 2, 1, 1),
        )[0]
        return make()

    # -- comparing -------------------------------------------------------------------------

    def _held(self, conn: Conn) -> State:
        held: State = {}
        probe = self._key(b"probe")
        for db in self.databases:
            conn.ask("SELECT", db)
            keys = [key for key in parse(conn.ask("KEYS", "*")) if key != probe]
            for key in keys:
                held[place(db, key)] = read_entry(conn, key)
        listed = parse(
            conn.ask("FUNCTION", "LIST", "LIBRARYNAME", b"run%d" % self.number, "WITHCODE")
        )
        if listed:
            held[b"library"] = listed[0][listed[0].index(b"library_code") + 1]
        return held

    def _differences(self, held: State) -> str:
        last = self._possible[-1]
        keys = sorted(key for key in held.keys() | last.keys() if held.get(key) != last.get(key))
        lines = [
            f"{key!r} is {held.get(key)!r:.3000}, could be "
            + " or ".join(sorted({f"{state.get(key)!r:.3000}" for state in self._possible}))
            for key in keys
        ]
        return "\n".join(lines) or "no single key, but no state that the replies allow as a whole"


# -- operations ------------------------------------------------------------------------------------


def _single(db: int, step: Step) -> Op:
    def apply(state: State) -> list[Any]:
        return [OK, Expected(step.run(View(state, db)))]

    return Op([encode_command("SELECT", db), encode_command(*step.words)], apply)


def _run(state: State, db: int, several: Sequence[Step]) -> list[Any]:
    view = View(state, db)
    return [step.run(view) for step in several]


def _transaction(db: int, several: Sequence[Step]) -> Op:
    def apply(state: State) -> list[Any]:
        return [OK, OK, *[QUEUED] * len(several), Expected(_run(state, db, several))]

    words: list[Sequence[Any]] = [["SELECT", db], ["MULTI"], *(step.words for step in several)]
    return Op([encode_command(*command) for command in [*words, ["EXEC"]]], apply)


def _as_json(several: Sequence[Step]) -> str:
    return json.dumps([[word.decode("latin-1") for word in step.words] for step in several])


def _script(db: int, several: Sequence[Step]) -> Op:
    """The steps in one EVAL. Words that aren't ASCII don't survive JSON: they are left out."""
    several = [step for step in several if all(word.isascii() for word in step.words)]

    def apply(state: State) -> list[Any]:
        return [OK, Expected(_run(state, db, several))]

    words = encode_command("EVAL", steps.RUN_ALL, 0, _as_json(several))
    return Op([encode_command("SELECT", db), words], apply)


def _function(db: int, name: bytes, version: int, several: Sequence[Step]) -> Op:
    """A new version of the writer's library, and the steps in a call of it."""
    several = [step for step in several if all(word.isascii() for word in step.words)]
    code = steps.library(name, version)

    def apply(state: State) -> list[Any]:
        state[b"library"] = code
        replies = Expected([name, _run(state, db, several)])
        return [OK, OK, QUEUED, QUEUED, replies]

    words: list[Sequence[Any]] = [["SELECT", db], ["MULTI"]]
    words += [["FUNCTION", "LOAD", "REPLACE", code], ["FCALL", name, 0, _as_json(several)]]
    return Op([encode_command(*command) for command in [*words, ["EXEC"]]], apply)


# -- what a server holds ---------------------------------------------------------------------------


def read_entry(conn: Conn, key: bytes) -> Entry:
    """A key as the model has it."""
    kind = parse(conn.ask("TYPE", key)).text.decode()
    return kind, parse(conn.ask("PEXPIRETIME", key)), READERS[kind](conn, key)


def _read_hash(conn: Conn, key: bytes) -> dict[bytes, tuple[bytes, int]]:
    words = parse(conn.ask("HGETALL", key))
    fields = words[::2]
    times = parse(conn.ask("HPEXPIRETIME", key, "FIELDS", len(fields), *fields))
    return dict(zip(fields, zip(words[1::2], times, strict=True), strict=True))


def _read_list(conn: Conn, key: bytes) -> tuple[bytes, ...]:
    return tuple(parse(conn.ask("LRANGE", key, 0, -1)))


def _read_set(conn: Conn, key: bytes) -> frozenset[bytes]:
    return frozenset(parse(conn.ask("SMEMBERS", key)))


def _read_zset(conn: Conn, key: bytes) -> dict[bytes, int]:
    words = parse(conn.ask("ZRANGE", key, 0, -1, "WITHSCORES"))
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def _read_string(conn: Conn, key: bytes) -> tuple[int, frozenset[int]]:
    text = parse(conn.ask("GET", key))
    return len(text), steps.bits_of(text)


def _pairs(words: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(words[::2], words[1::2], strict=True))


def _number(text: bytes) -> int:
    first, _, second = text.partition(b"-")
    assert second == b"0", text
    return int(first)


def _read_stream(conn: Conn, key: bytes) -> Stream:
    entries = {_number(at): fields for at, fields in parse(conn.ask("XRANGE", key, "-", "+"))}
    about = _pairs(parse(conn.ask("XINFO", "STREAM", key)))
    assert about[b"length"] == len(entries)
    groups = {}
    for words in parse(conn.ask("XINFO", "GROUPS", key)):
        group = _pairs(words)
        name = group[b"name"]
        consumers = [_pairs(some) for some in parse(conn.ask("XINFO", "CONSUMERS", key, name))]
        rows = parse(conn.ask("XPENDING", key, name, "-", "+", 100_000))
        pending = {_number(at): (owner, count) for at, owner, _, count in rows}
        assert group[b"pending"] == len(pending) == sum(c[b"pending"] for c in consumers)
        names = frozenset(consumer[b"name"] for consumer in consumers)
        groups[name] = Group(_number(group[b"last-delivered-id"]), names, pending)
    last = _number(about[b"last-generated-id"])
    return Stream(entries, last, about[b"entries-added"], groups)


READERS: dict[str, Callable[[Conn, bytes], Any]] = {
    "hash": _read_hash,
    "list": _read_list,
    "set": _read_set,
    "zset": _read_zset,
    "string": _read_string,
    "stream": _read_stream,
}


# -- all of them -----------------------------------------------------------------------------------


class FullLoad(Load):
    """Writers of strings, writers of collections, and job queues."""

    def __init__(self, server: Server, seed: str, strings: int = 2, collections: int = 2) -> None:
        super().__init__(server, seed, strings)
        numbers = range(strings, strings + collections)
        self.writers += [CollectionWriter(server, number, seed) for number in numbers]
        self.queues = Queues(lambda: server)

    def start(self) -> None:
        super().start()
        self.queues.start()

    def stop(self) -> None:
        super().stop()
        self.queues.halt()

    def settle(self) -> None:
        super().settle()
        with self.server.conn() as conn:
            self.queues.settle(conn)
