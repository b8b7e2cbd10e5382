"""A load of everything for a server that shall stay as it is: every type, transactions, scripts,
messages, clients that wait, and connections that come and go.

It must not know which server gets it. What it leaves is bounded: the keys are always the same,
lists, sets and streams are cut to their length.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random

from tests.harness import Conn, encode_command

KEYS = 5000
COLLECTIONS = 100
MOST = 500
LARGE_VALUE = b"x" * 200_000

Words = Sequence[bytes | str | int]
#: The commands of one round.
Round = Callable[[Random], list[Words]]


class Load(threading.Thread, ABC):
    """Does something at a pace, until `over`, on its own connection; a new one if it ends."""

    def __init__(self, port: int, over: threading.Event, per_second: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.port, self.over, self.per_second = port, over, per_second
        self.random = Random(seed)
        self.faults = 0
        self.commands = 0

    def run(self) -> None:
        due = time.monotonic()
        while not self.over.is_set():
            try:
                self.once()
            except OSError:
                self.faults += 1
            due = max(due + 1 / self.per_second, time.monotonic() - 1)
            self.over.wait(max(0.0, due - time.monotonic()))

    @abstractmethod
    def once(self) -> None:
        """One round."""

    def connect(self) -> Conn:
        return connect(self.port)


def connect(port: int) -> Conn:
    """A raw connection, which the caller closes."""
    return Conn(socket.create_connection(("127.0.0.1", port), 10))


class Rounds(Load):
    """Pipelines of commands."""

    def __init__(
        self, port: int, over: threading.Event, per_second: float, seed: int, make: Round
    ) -> None:
        super().__init__(port, over, per_second, seed)
        self._make = make
        self._conn: Conn | None = None

    def once(self) -> None:
        if self._conn is None:
            self._conn = self.connect()
        commands = self._make(self.random)
        try:
            self._conn.send(b"".join(encode_command(*words) for words in commands))
            for _ in commands:
                self._conn.reply()
        except OSError:
            self._conn.close()
            self._conn = None
            raise
        self.commands += len(commands)


# -- rounds ---------------------------------------------------------------------------------------


def strings(random: Random) -> list[Words]:
    """Values of 10 to 2000 bytes; half of them expire."""
    commands: list[Words] = []
    for _ in range(8):
        key = f"string:{random.randrange(KEYS)}"
        value = b"x" * random.randrange(10, 2000)
        commands += [
            ("GET", key),
            ("SET", key, value, "EX", random.randrange(1, 60)),
            ("SET", f"string:{random.randrange(KEYS)}", value),
            ("INCR", f"counter:{random.randrange(KEYS)}"),
        ]
    key = f"string:{random.randrange(KEYS)}"
    commands += [("SETRANGE", key, 5, "abc"), ("DEL", key), ("SETBIT", "bits", 100, 1)]
    commands.append(("MGET", *(f"string:{random.randrange(KEYS)}" for _ in range(20))))
    return commands


def hashes(random: Random) -> list[Words]:
    key = f"hash:{random.randrange(COLLECTIONS)}"
    commands: list[Words] = []
    for _ in range(10):
        field = f"field:{random.randrange(MOST)}"
        commands += [("HSET", key, field, random.random()), ("HGET", key, field)]
    commands += [
        ("HPEXPIRE", key, random.randrange(100, 5000), "FIELDS", 1, field),
        ("HINCRBY", key, "n", 1),
        ("HDEL", key, f"field:{random.randrange(MOST)}"),
        ("HGETALL", key),
        ("HSCAN", key, 0),
    ]
    return commands


def lists(random: Random) -> list[Words]:
    key, other = (f"list:{random.randrange(COLLECTIONS)}" for _ in range(2))
    commands: list[Words] = [("RPUSH", key, *range(10)) for _ in range(2)]
    commands += [("LPOP", key)] * 10
    commands += [
        ("LMOVE", key, other, "LEFT", "RIGHT"),
        ("LINSERT", key, "BEFORE", 5, "new"),
        ("LREM", key, 1, 7),
        ("LRANGE", key, 0, 50),
        ("LTRIM", key, 0, MOST),
    ]
    return commands


def sets(random: Random) -> list[Words]:
    key, other = (f"set:{random.randrange(COLLECTIONS)}" for _ in range(2))
    commands: list[Words] = []
    for _ in range(10):
        commands += [("SADD", key, random.randrange(MOST)), ("SREM", key, random.randrange(MOST))]
    commands += [("SPOP", key), ("SINTER", key, other), ("SUNIONSTORE", "union", key, other)]
    return commands


def zsets(random: Random) -> list[Words]:
    key = f"zset:{random.randrange(COLLECTIONS)}"
    commands: list[Words] = []
    for _ in range(10):
        member = random.randrange(10 * MOST)
        commands += [("ZADD", key, random.random(), member), ("ZRANK", key, member)]
    commands += [
        ("ZPOPMIN", key, 3),
        ("ZINCRBY", key, 1, random.randrange(10 * MOST)),
        ("ZRANGE", key, 0, 20, "WITHSCORES"),
        ("ZREMRANGEBYRANK", key, MOST, -1),
    ]
    return commands


def streams(random: Random) -> list[Words]:
    key = f"stream:{random.randrange(COLLECTIONS // 10)}"
    commands: list[Words] = [("XGROUP", "CREATE", key, "group", "$", "MKSTREAM")]
    commands += [("XADD", key, "MAXLEN", MOST, "*", "field", random.random()) for _ in range(10)]
    consumer = f"consumer:{random.randrange(10)}"
    commands += [
        ("XREADGROUP", "GROUP", "group", consumer, "COUNT", 8, "STREAMS", key, ">"),
        ("XAUTOCLAIM", key, "group", consumer, 10, "0", "COUNT", 10, "JUSTID"),
        ("EVAL", ACKNOWLEDGE, 1, key, consumer),
        ("XRANGE", key, "-", "+", "COUNT", 10),
        ("XTRIM", key, "MINID", "~", 1),
    ]
    return commands


ACKNOWLEDGE = """
for _, entry in ipairs(redis.call('XPENDING', KEYS[1], 'group', '-', '+', 100)) do
    redis.call('XACK', KEYS[1], 'group', entry[1])
end
"""


def transactions(random: Random) -> list[Words]:
    key = f"string:{random.randrange(KEYS)}"
    return [
        *[("WATCH", key), ("MULTI",), ("SET", key, "a"), ("GET", key), ("EXEC",)],
        *[("MULTI",), ("LPUSH", key, "wrong"), ("NOSUCH",), ("EXEC",)],
        *[("WATCH", key), ("MULTI",), ("INCR", "counter:0"), ("DISCARD",)],
    ]


def scripts(random: Random) -> list[Words]:
    """Some that come again, and each time one that doesn't."""
    key = f"string:{random.randrange(KEYS)}"
    again = f"return redis.call('get', KEYS[1]) or {random.randrange(20)}"
    new = f"local t = {{}} for i = 1, 100 do t[i] = i end return #t + {random.getrandbits(60)}"
    failing = "return redis.pcall('lpush', KEYS[1], 1)"
    return [("EVAL", again, 1, key)] * 5 + [("EVAL", new, 0), ("EVAL", failing, 1, "counter:1")]


def messages(random: Random) -> list[Words]:
    """What `waiters` and `subscribers` wait for."""
    commands: list[Words] = [("PUBLISH", f"channel:{n}", b"x" * 100) for n in range(10)]
    commands += [("RPUSH", f"queue:{n}", 1) for n in range(5)]
    commands += [("ZADD", f"jobs:{n}", 1, "job") for n in range(5)]
    return [*commands, ("INFO",), ("CLIENT", "LIST"), ("SCAN", random.getrandbits(10))]


ROUNDS: list[Round] = [
    *[strings, hashes, lists, sets, zsets, streams, transactions, scripts, messages]
]


# -- clients that are sent what they wait for -----------------------------------------------------


class Listener(Load):
    """A connection that asks once and reads what comes."""

    def __init__(self, port: int, over: threading.Event, words: list[Words]) -> None:
        super().__init__(port, over, 1.0, 0)
        self._words = words

    def once(self) -> None:
        with self.connect() as conn:
            conn.sock.settimeout(0.5)
            conn.send(b"".join(encode_command(*words) for words in self._words))
            while not self.over.is_set():
                with contextlib.suppress(TimeoutError):
                    conn.reply()
                    self.commands += 1


class Waiter(Load):
    """Waits for elements, or a moment."""

    def once(self) -> None:
        with self.connect() as conn:
            for _ in range(100):
                if self.over.is_set():
                    return
                conn.ask("BLPOP", *(f"queue:{n}" for n in range(5)), 0.1)
                conn.ask("BZPOPMIN", *(f"jobs:{n}" for n in range(5)), 0.1)
                conn.ask("XREAD", "COUNT", 5, "BLOCK", 50, "STREAMS", "stream:0", "$")
                self.commands += 3


class Tracker(Load):
    """Caches what it reads: it is told of changes, and reads anew."""

    def once(self) -> None:
        with self.connect() as conn:
            conn.ask("HELLO", 3)
            conn.ask("CLIENT", "TRACKING", "ON", *(["BCAST"] if self.random.random() < 0.2 else []))
            for _ in range(300):
                if self.over.wait(0.01):
                    return
                conn.send(encode_command("GET", f"string:{self.random.randrange(KEYS)}"))
                while conn.reply().startswith(b">"):
                    pass
                self.commands += 1


# -- connections that come and go -----------------------------------------------------------------


def _stays_for_a_reply(conn: Conn, random: Random) -> None:
    conn.ask("GET", f"string:{random.randrange(KEYS)}")


def _quits(conn: Conn, random: Random) -> None:
    conn.ask("QUIT")


def _in_the_middle(conn: Conn, random: Random) -> None:
    command = encode_command("SET", f"string:{random.randrange(KEYS)}", LARGE_VALUE)
    conn.send(command[: random.randrange(len(command))])


def _reads_nothing(conn: Conn, random: Random) -> None:
    conn.ask("SET", "large", LARGE_VALUE)
    conn.send(encode_command("GET", "large") * 40)


def _resets(conn: Conn, random: Random) -> None:
    conn.send(encode_command("INCR", "counter:2"))
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _leaves_a_transaction(conn: Conn, random: Random) -> None:
    for words in (("WATCH", "counter:3"), ("MULTI",), ("INCR", "counter:3")):
        conn.ask(*words)


def _waits(conn: Conn, random: Random) -> None:
    conn.send(encode_command("BLPOP", "never", 0))


def _subscribes(conn: Conn, random: Random) -> None:
    conn.ask("SUBSCRIBE", f"channel:{random.randrange(10)}", f"channel:{random.getrandbits(40)}")


def _tracks(conn: Conn, random: Random) -> None:
    conn.ask("HELLO", 3)
    conn.ask("CLIENT", "TRACKING", "ON")
    conn.ask("GET", f"string:{random.randrange(KEYS)}")


def _monitors(conn: Conn, random: Random) -> None:
    conn.ask("MONITOR")


def _talks_nonsense(conn: Conn, random: Random) -> None:
    conn.send(b"*1\r\n!\r\n")
    conn.read_to_end()


VISITS = [
    *[_stays_for_a_reply, _quits, _in_the_middle, _reads_nothing, _resets, _leaves_a_transaction],
    *[_waits, _subscribes, _tracks, _monitors, _talks_nonsense],
]


class Visitors(Load):
    """Connections, one after the other, that end in every way."""

    def once(self) -> None:
        with self.connect() as conn:
            self.random.choice(VISITS)(conn, self.random)
        self.commands += 1


def everything(port: int, over: threading.Event, pace: float, visits: float) -> list[Load]:
    """All of the load, not yet started: `pace` rounds a second of each kind, and so many
    connections a second."""
    loads: list[Load] = [Rounds(port, over, pace, n, make) for n, make in enumerate(ROUNDS)]
    loads.append(Listener(port, over, [("SUBSCRIBE", *(f"channel:{n}" for n in range(10)))]))
    loads.append(Listener(port, over, [("HELLO", 3), ("PSUBSCRIBE", "channel:*")]))
    loads += [Waiter(port, over, 100.0, n) for n in range(3)]
    loads += [Tracker(port, over, 100.0, n) for n in range(2)]
    loads += [Visitors(port, over, visits / 2, n) for n in range(2)]
    return loads


def work(port: int, seconds: float, pace: float, visits: float) -> dict[str, int]:
    """All of the load for so long, in this process: how much was done."""
    over = threading.Event()
    loads = everything(port, over, pace, visits)
    for load in loads:
        load.start()
    over.wait(seconds)
    over.set()
    for load in loads:
        load.join(15)
    return {
        "commands": sum(load.commands for load in loads),
        "connections": sum(load.commands for load in loads if isinstance(load, Visitors)),
        "failures": sum(load.faults for load in loads),
    }
