"""Clients that write all the time and know what their keys may hold: for crashes and failures.

Each writer has keys of its own and keeps a model of them. An operation whose reply came is in
the model; one that was answered with an error may have happened or not; of those that a dead
connection left unanswered a prefix may have happened, since a client's commands are executed and
logged in order. `settle` compares the model with what the server holds now, whatever happened in
between. Seeds make the choice of operations replayable.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness import Conn, Server, encode_command

#: key -> (value, expiry in unix ms or -1).
State = dict[bytes, tuple[bytes, int]]
OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
FAR_MS = 3_600_000
KEYS = 6
MAX_PIPELINE = 8


class Op(NamedTuple):
    """Commands sent together; `apply` changes a state and returns the expected replies."""

    commands: list[bytes]
    apply: Callable[[State], list[bytes]]


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def op_set(key: bytes, value: bytes, expire_ms: int) -> Op:
    words = [b"SET", key, value] + ([b"PXAT", b"%d" % expire_ms] if expire_ms > 0 else [])

    def apply(state: State) -> list[bytes]:
        state[key] = (value, expire_ms)
        return [OK]

    return Op([encode_command(*words)], apply)


def op_incr(key: bytes) -> Op:
    def apply(state: State) -> list[bytes]:
        value, expire_ms = state.get(key, (b"0", -1))
        state[key] = (b"%d" % (int(value) + 1), expire_ms)
        return [integer(int(value) + 1)]

    return Op([encode_command("INCR", key)], apply)


def op_del(key: bytes) -> Op:
    def apply(state: State) -> list[bytes]:
        return [integer(state.pop(key, None) is not None)]

    return Op([encode_command("DEL", key)], apply)


def op_get(key: bytes) -> Op:
    def apply(state: State) -> list[bytes]:
        return [bulk(state[key][0] if key in state else None)]

    return Op([encode_command("GET", key)], apply)


def op_short_lived(key: bytes, value: bytes, lifetime_ms: int) -> Op:
    """A key that expires during the test; it isn't in the model."""
    return Op([encode_command("SET", key, value, "PX", lifetime_ms)], lambda _state: [OK])


def op_multi(ops: Sequence[Op]) -> Op:
    """A transaction: it happens as a whole or not at all."""

    def apply(state: State) -> list[bytes]:
        replies = [reply for op in ops for reply in op.apply(state)]
        array = b"*%d\r\n" % len(replies) + b"".join(replies)
        return [OK, *[QUEUED] * len(replies), array]

    inside = [command for op in ops for command in op.commands]
    return Op([encode_command("MULTI"), *inside, encode_command("EXEC")], apply)


class Writer:
    """One client, in a thread from `start` to `halt` or until its connection is lost. After an
    error reply it settles its model and waits until writes work again."""

    def __init__(self, server: Server, number: int, seed: str) -> None:
        self.server = server
        self.name = f"writer {number}"
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self.acked = 0
        self.errors: list[bytes] = []
        self.slowest = 0.0
        self.problem: BaseException | None = None
        self._possible: list[State] = [{}]
        self._value = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # -- running ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or go on where the model was settled."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.server.conn() as conn:
                while not self._stop.is_set():
                    if not self._burst(conn):
                        self._await_recovery(conn)
        except (ConnectionError, TimeoutError, OSError):
            pass  # the server was killed; `settle` sees what it made of it
        except BaseException as problem:
            self.problem = problem

    def halt(self) -> None:
        """End the thread, and raise what went wrong in it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive(), f"{self.name} hangs"
        if self.problem is not None:
            raise self.problem

    def _burst(self, conn: Conn) -> bool:
        """One pipeline; False if a reply was an error."""
        ops = [self._choose() for _ in range(self.random.choice((1, 1, 1, MAX_PIPELINE)))]
        began = time.monotonic()
        answered = 0
        refused = len(self.errors)
        try:
            conn.send(b"".join(command for op in ops for command in op.commands))
            for op in ops:
                replies = [conn.reply() for _ in op.commands]
                answered += 1
                self._answered(op, replies)
        finally:
            self._unanswered(ops[answered:])
        self.slowest = max(self.slowest, time.monotonic() - began)
        return len(self.errors) == refused

    def _answered(self, op: Op, replies: list[bytes]) -> None:
        changed = [dict(state) for state in self._possible]
        expected = [op.apply(state) for state in changed]
        possible = [s for s, reply in zip(changed, expected, strict=True) if reply == replies]
        refusals = [] if possible else self._refusals(replies)
        if refusals:
            self.errors += refusals
            self._possible += changed
            return
        assert possible, f"{self.name}: {op.commands} answered {replies}, not one of {expected}"
        self.acked += 1
        self._possible = possible

    def _refusals(self, replies: Sequence[bytes]) -> list[bytes]:
        """Errors that no model can predict."""
        return [reply for reply in replies if reply.startswith(b"-")]

    def _unanswered(self, ops: Sequence[Op]) -> None:
        states = self._possible
        for op in ops:
            states = [dict(state) for state in states]
            for state in states:
                op.apply(state)
            self._possible = self._possible + states

    def _await_recovery(self, conn: Conn) -> None:
        self.settle(conn)
        probe = self._key(b"probe")
        while not self._stop.is_set() and conn.ask("SET", probe, "1") != OK:
            self._stop.wait(0.02)

    # -- what to do ------------------------------------------------------------------------

    def _choose(self) -> Op:
        choice = self.random.random()
        if choice < 0.15:
            return op_multi([self._simple() for _ in range(self.random.randint(1, 5))])
        if choice < 0.25:
            self._value += 1
            key = self._key(b"short%d" % self.random.randrange(KEYS))
            lifetime = self.random.choice((1, 20, 100))
            return op_short_lived(key, b"%d" % self._value, lifetime)
        return self._simple()

    def _simple(self) -> Op:
        choice = self.random.random()
        key = self._key(b"%d" % self.random.randrange(KEYS))
        if choice < 0.15:
            return op_del(key)
        if choice < 0.3:
            return op_get(key)
        if choice < 0.5:
            return op_incr(self._key(b"counter%d" % self.random.randrange(2)))
        self._value += 1
        value = b"%d-%d" % (self.number, self._value)
        if self.random.random() < 0.1:
            value = value.ljust(self.random.choice((300, 5000, 70_000)), b".")
        expire_ms = int(time.time() * 1000) + FAR_MS if choice < 0.7 else -1
        return op_set(key, value, expire_ms)

    def _key(self, name: bytes) -> bytes:
        return b"w%d:" % self.number + name

    # -- comparing -------------------------------------------------------------------------

    def settle(self, conn: Conn) -> None:
        """The server's state of this writer's keys must be one that the replies allow."""
        held = self._held(conn)
        if held not in self._possible:
            raise AssertionError(f"{self.name}: {self._differences(held)}")
        self._possible = [held]

    def _held(self, conn: Conn) -> State:
        names = [b"%d" % number for number in range(KEYS)] + [b"counter0", b"counter1"]
        held: State = {}
        for key in map(self._key, names):
            value = conn.ask("GET", key)
            if value != bulk(None):
                expire_ms = int(conn.ask("PEXPIRETIME", key)[1:])
                held[key] = (value.partition(b"\r\n")[2][:-2], expire_ms)
        return held

    def _differences(self, held: State) -> str:
        last = self._possible[-1]
        keys = sorted(key for key in held.keys() | last.keys() if held.get(key) != last.get(key))
        lines = [
            f"{key!r} is {_short(held.get(key))}, could be "
            + " or ".join(sorted({_short(state.get(key)) for state in self._possible}))
            for key in keys
        ]
        return "; ".join(lines) or "no single key, but no state that the replies allow as a whole"


def _short(entry: tuple[bytes, int] | None) -> str:
    return "missing" if entry is None else f"{entry[0][:20]!r} (expires {entry[1]})"


class Load:
    """Writers that run together."""

    def __init__(self, server: Server, seed: str, count: int = 4) -> None:
        self.server = server
        self.writers = [Writer(server, number, seed) for number in range(count)]

    def start(self) -> None:
        """Start the writers, also again after a `settle`."""
        for writer in self.writers:
            writer.start()

    def stop(self) -> None:
        """End the writers; raises what they noticed."""
        for writer in self.writers:
            writer.halt()

    def settle(self) -> None:
        """Compare every writer's keys with its model."""
        with self.server.conn() as conn:
            for writer in self.writers:
                writer.settle(conn)

    @property
    def acked(self) -> int:
        """Operations acknowledged since the start."""
        return sum(writer.acked for writer in self.writers)

    @property
    def errors(self) -> list[bytes]:
        """Error replies since the start."""
        return [error for writer in self.writers for error in writer.errors]

    @property
    def slowest(self) -> float:
        """Seconds that the slowest pipeline took."""
        return max(writer.slowest for writer in self.writers)
