"""kvserver beside redis-server: the same generated commands, and equal replies.

A hypothesis state machine with a few connections to each server, which are sent the same bytes
in the same order. After every example the databases hold the same. What may differ stands in
oracle_compare.py; the commands come from oracle_strategies.py. A failure prints the steps that
lead to it, as short as hypothesis finds them.

In both servers active expiry is off, so that a key past its time is there until somebody looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import oracle_compare as compare
import pytest
from harness import REDIS, Conn, Server, encode_command, wait_until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)
from oracle_compare import Command, Reply
from oracle_strategies import REACHED, batches, bodies, commands, keys, scan_options

#: How long before a key's time a `lapse` tells the servers that time.
LAPSE_MS = 25
CONNECTIONS = 3
#: A step in so many restarts kvserver, at least by the numbers that hypothesis picks.
RESTART_DIE = 40
STEPS = 30
QUICK_EXAMPLES = 150

numbers = st.integers(0, CONNECTIONS - 1)
Encode = Callable[[Command], bytes]


def as_array(command: Command) -> bytes:
    """A command as clients send it."""
    return encode_command(*command)


def as_line(command: Command) -> bytes:
    """A command as a line of quoted words."""
    words = [b'"' + b"".join(b"\\x%02x" % byte for byte in word) + b'"' for word in command]
    return b" ".join(words) + b"\r\n"


class Link:
    """A connection to each server: what is sent to one is sent to the other."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.conns: list[Conn] = [server.conn() for server in servers]
        self.transcript = compare.Transcript()

    def close(self) -> None:
        for conn in self.conns:
            conn.close()

    def ask(self, *batch: Command, encode: Encode = as_array) -> list[list[Reply]]:
        """The replies to commands that are sent at once: ours, and theirs."""
        request = b"".join(map(encode, batch))
        for conn in self.conns:
            conn.send(request)
        return [[compare.parse(conn.reply()) for _ in batch] for conn in self.conns]

    def check(self, *batch: Command, encode: Encode = as_array) -> list[Reply]:
        """Our replies to commands that are sent at once, with which theirs must agree."""
        ours, theirs = self.ask(*batch, encode=encode)
        for command, our, their in zip(batch, ours, theirs, strict=True):
            assert self.transcript.agrees(command, our, their), (
                f"{command}\n    kvserver: {our}\n       redis: {their}"
            )
        return ours


class Arena:
    """Both servers, and what is done to them beside the example's own connections."""

    def __init__(self, ours: Server, theirs: Server, protocol: int) -> None:
        self.ours = ours
        self.servers = (ours, theirs)
        self.protocol = protocol
        self.examples = self.commands = self.restarts = 0
        self.observer = self._observe()

    def begin(self) -> None:
        """A new example."""
        self.examples += 1
        self.observer.check((b"FLUSHALL",))

    def connect(self) -> Link:
        """A connection to each server that speaks this arena's protocol."""
        link = Link(self.servers)
        if self.protocol == 3:
            link.check((b"HELLO", b"3"))
        return link

    def _observe(self) -> Link:
        link = self.connect()
        link.check((b"DEBUG", b"SET-ACTIVE-EXPIRE", b"0"))
        return link

    def restart(self, *, kill: bool) -> None:
        """Stop kvserver, orderly or not, and start it again; every connection is gone."""
        self.restarts += 1
        for server in self.servers:
            server.close_clients()
        if kill:
            self.ours.kill9()
        self.ours.restart()
        self.observer = self._observe()

    def lapse(self, db: int, names: Sequence[bytes]) -> None:
        """Let the time of these keys come, in both servers, while nobody looks."""
        due = int(time.time() * 1000) + LAPSE_MS
        expirations = [(b"PEXPIREAT", name, b"%d" % due) for name in names]
        self.observer.check((b"SELECT", b"%d" % db), *expirations)
        if max(self._clocks()) >= due:
            # A server was so slow that PEXPIREAT may have deleted the keys: in the other, too.
            self.observer.ask((b"DEL", *names))
        wait_until(lambda: min(self._clocks()) > due)

    def _clocks(self) -> list[int]:
        """Unix ms in each server."""
        clocks = []
        for (reply,) in self.observer.ask((b"TIME",)):
            seconds, microseconds = (int(item.data) for item in reply.items)
            clocks.append(seconds * 1000 + microseconds // 1000)
        return clocks

    def look_at(self, names: Sequence[bytes]) -> None:
        """Look these keys up everywhere, so that those past their time are deleted."""
        for db in REACHED:
            self.observer.check((b"SELECT", b"%d" % db), (b"EXISTS", *names))

    def check_data(self) -> None:
        """The databases hold the same, and each of ours is of one mind about its keys."""
        for db in REACHED:
            self.observer.check((b"SELECT", b"%d" % db))
            size, listed = self.observer.check((b"DBSIZE",), (b"KEYS", b"*"))
            names = sorted(item.data for item in listed.items)
            ours, _ = scanned = [self._scan(conn, ()) for conn in self.observer.conns]
            assert ours == names, f"SCAN gives other keys than KEYS in database {db}: {scanned}"
            assert size.number == len(names)
            for name in names:
                self.observer.check((b"TYPE", name), (b"GET", name), (b"PEXPIRETIME", name))
        self.observer.check((b"INFO", b"keyspace"))

    def check_scan(self, db: int, options: Command) -> None:
        """Whole scans with the same options find the same."""
        self.observer.check((b"SELECT", b"%d" % db))
        ours, theirs = (self._scan(conn, options) for conn in self.observer.conns)
        assert ours == theirs, f"SCAN {options}"

    @staticmethod
    def _scan(conn: Conn, options: Command) -> list[bytes]:
        found: set[bytes] = set()
        cursor = b"0"
        while True:
            at, page = compare.parse(conn.ask("SCAN", cursor, *options)).items
            found.update(item.data for item in page.items)
            cursor = at.data
            if cursor == b"0":
                return sorted(found)


class Machine(RuleBasedStateMachine):
    """Connections to both servers, and what their clients do."""

    arena: Arena

    def __init__(self) -> None:
        super().__init__()
        self.arena.begin()
        self.links: dict[int, Link] = {}
        self.seen: set[bytes] = set()
        self.agreed = True

    def teardown(self) -> None:
        try:
            if self.agreed:
                self.arena.look_at(sorted(self.seen) or [b"k"])
                self.arena.check_data()
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        for link in self.links.values():
            link.close()
        self.links.clear()

    def _ask(self, number: int, *batch: Command, encode: Encode = as_array) -> None:
        """Send commands at once on one of the connections, and compare the replies."""
        if number not in self.links:
            self.links[number] = self.arena.connect()
        self.seen.update(argument for command in batch for argument in command)
        self.arena.commands += len(batch)
        self.agreed = False
        self.links[number].check(*batch, encode=encode)
        self.agreed = True

    @rule(number=numbers, batch=batches, encode=st.sampled_from([as_array, as_line]))
    def send(self, number: int, batch: list[Command], encode: Encode) -> None:
        """Somebody sends commands."""
        self._ask(number, *batch, encode=encode)

    @rule(
        number=numbers,
        watched=st.lists(keys, max_size=2),
        other=numbers,
        meanwhile=st.lists(commands, max_size=2),
        body=bodies,
        end=st.sampled_from([b"EXEC", b"exec", b"EXEC", b"DISCARD"]),
    )
    def transact(
        self,
        number: int,
        watched: list[bytes],
        other: int,
        meanwhile: list[Command],
        body: list[Command],
        end: bytes,
    ) -> None:
        """A transaction, in which somebody, maybe the same client, interferes."""
        if watched:
            self._ask(number, (b"WATCH", *watched))
        self._ask(other, *meanwhile, (b"PING",))
        self._ask(number, (b"MULTI",), *body, (end,))

    @rule(number=numbers)
    def leave(self, number: int) -> None:
        """Somebody's connection ends, whatever it is in the middle of."""
        if number in self.links:
            self.links.pop(number).close()

    @rule(db=st.sampled_from(REACHED), names=st.lists(keys, min_size=1, max_size=3))
    def lapse(self, db: int, names: list[bytes]) -> None:
        """The time of some keys comes."""
        self.arena.lapse(db, names)

    @rule(db=st.sampled_from(REACHED), options=scan_options)
    def scan(self, db: int, options: Command) -> None:
        """Somebody walks through a database."""
        self.arena.check_scan(db, options)

    @rule(die=st.integers(1, RESTART_DIE), kill=st.booleans())
    def restart(self, die: int, kill: bool) -> None:
        """Once in a while kvserver stops and starts."""
        if die == RESTART_DIE:
            self._disconnect()
            self.arena.restart(kill=kill)
            self.arena.look_at(sorted(self.seen) or [b"k"])


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def arena(request: pytest.FixtureRequest, fresh_server: Callable[..., Server]) -> Arena:
    ours = fresh_server(enable_debug_command=True)
    return Arena(ours, fresh_server(program=REDIS), request.param)


def run(arena: Arena, profile: settings) -> None:
    """Run the machine on the arena's servers, and print how much was done."""
    machine = type("Machine", (Machine,), {"arena": arena})
    began = time.monotonic()
    try:
        run_state_machine_as_test(machine, settings=profile)
    finally:
        print(
            f"{arena.examples} examples, {arena.commands} commands, {arena.restarts} restarts "
            f"in {time.monotonic() - began:.0f} s"
        )


def profile(examples: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        derandomize=derandomize,
        deadline=None,
        print_blob=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def test_replies_are_equal(arena: Arena) -> None:
    run(arena, profile(QUICK_EXAMPLES, derandomize=True))
