"""Both servers of the oracle tests, and the player of programs.

What is sent to kvserver is sent to redis-server: the same bytes, in the same order. Replies,
keyspace notifications, the counts of INFO and at the end all data are compared, as
oracle_compare.py says. Nothing here knows pytest or hypothesis.

In both servers active expiry is off, so that a key past its time is there until somebody looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

import datadir
import oracle_compare as compare
from harness import Conn, Server, encode_command, wait_until
from oracle_compare import Command, Event, Reply
from oracle_strategies import REACHED, Burst, Lapse, Leave, RandomKey, Restart, Scan, Send, Step

#: Reads all of a key of each type: (words before the key, words after it).
WHOLE: dict[bytes, list[tuple[Command, Command]]] = {
    b"string": [((b"GET",), ())],
    b"hash": [((b"HGETALL",), ())],
    b"list": [((b"LRANGE",), (b"0", b"-1")), ((b"LLEN",), ())],
    b"set": [((b"SMEMBERS",), ())],
    b"zset": [((b"ZRANGE",), (b"0", b"-1", b"WITHSCORES")), ((b"ZCARD",), ())],
    b"stream": [((b"XRANGE",), (b"-", b"+")), ((b"XLEN",), ())],
}
#: How many programs are played between two looks at what is on disk.
CHECKED = 10
#: How long before a key's time the servers are told it.
LAPSE_MS = 10

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

    def ask(self, *batch: Command) -> list[list[Reply]]:
        """The replies to commands that are sent at once: ours, and theirs."""
        self.send(batch)
        return self._replies(batch)

    def check(self, *batch: Command, encode: Encode = as_array) -> list[Reply]:
        """Our replies to commands that are sent at once, with which theirs must agree."""
        self.send(batch, encode)
        return self.check_replies(batch)

    def send(self, batch: Sequence[Command], encode: Encode = as_array) -> None:
        """Send commands at once; the replies are asked for later."""
        request = b"".join(map(encode, batch))
        for conn in self.conns:
            conn.send(request)

    def check_replies(self, batch: Sequence[Command]) -> list[Reply]:
        """Our replies to commands that were sent, with which theirs must agree."""
        ours, theirs = self._replies(batch)
        for command, our, their in zip(batch, ours, theirs, strict=True):
            assert self.transcript.agrees(command, our, their), (
                f"{command}\n    kvserver: {our}\n       redis: {their}"
            )
        return ours

    def _replies(self, batch: Sequence[Command]) -> list[list[Reply]]:
        return [[compare.parse(conn.reply()) for _ in batch] for conn in self.conns]


class Events:
    """What both servers tell of changes to keys: keyspace notifications, all of them."""

    MARK = b"oracle-mark"
    CONFIG = (b"CONFIG", b"SET", b"notify-keyspace-events", b"KEAmn")

    def __init__(self, observer: Link, listener: Link) -> None:
        observer.check(self.CONFIG)
        self.observer = observer
        self.listener = listener
        listener.check((b"SUBSCRIBE", self.MARK))
        listener.check((b"PSUBSCRIBE", b"__key*__:*"))

    def check(self, order: Callable[[list[Event]], list[Event]] = compare.in_order) -> None:
        """Since the last check both told the same, in this order."""
        ours, theirs = map(order, self.hear())
        assert ours == theirs, f"kvserver: {ours}\n   redis: {theirs}"

    def hear(self) -> list[list[Event]]:
        """What each told since it was last heard."""
        self.observer.check((b"PUBLISH", self.MARK, b""))
        return [self._until_mark(conn) for conn in self.listener.conns]

    def _until_mark(self, conn: Conn) -> list[Event]:
        told = []
        while True:
            *_, channel, message = compare.parse(conn.reply()).items
            if channel.data == self.MARK:
                return told
            event = channel.data, message.data
            if compare.is_compared(event):
                told.append(event)


class Arena:
    """Both servers, and what is done to them beside the programs' own connections."""

    def __init__(self, ours: Server, theirs: Server, protocol: int) -> None:
        self.ours = ours
        self.servers = (ours, theirs)
        self.protocol = protocol
        self.programs = self.commands = self.restarts = 0
        self._observe()

    def connect(self) -> Link:
        """A connection to each server that speaks this arena's protocol."""
        link = Link(self.servers)
        if self.protocol == 3:
            link.check((b"HELLO", b"3"))
        return link

    def _observe(self) -> None:
        self.observer = self.connect()
        self.observer.check((b"DEBUG", b"SET-ACTIVE-EXPIRE", b"0"))
        self.events = Events(self.observer, self.connect())
        self.reset_counts()

    def begin(self) -> None:
        """Another program: no keys, nothing counted, and no news from a program that failed."""
        self.programs += 1
        self.observer.check((b"FLUSHALL",))
        self.forget()

    def forget(self) -> None:
        """Compare nothing of what both told and counted until now."""
        self.events.hear()
        self.reset_counts()

    def reset_counts(self) -> None:
        """Let both count from now on."""
        self.observer.check((b"CONFIG", b"RESETSTAT"))

    def restart(self, *, kill: bool) -> None:
        """Stop kvserver, orderly or not, and start it again; every connection is gone."""
        self.restarts += 1
        for server in self.servers:
            server.close_clients()
        if kill:
            self.ours.kill9()
        self.ours.restart()
        self._observe()

    def lapse(self, db: int, names: Sequence[bytes]) -> None:
        """Let the time of these keys come, in both servers, while nobody looks."""
        due = int(time.time() * 1000) + LAPSE_MS
        batch = [(b"PEXPIREAT", name, b"%d" % due) for name in names]
        self.observer.check((b"SELECT", b"%d" % db))
        ours, theirs = self.observer.ask(*batch)
        if max(self._clocks()) >= due:
            # A server was so slow that PEXPIREAT may have deleted the keys: in the other, too.
            self.observer.ask((b"DEL", *names))
            self.forget()
        else:
            assert ours == theirs, batch
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
            ours, _ = scanned = [whole_scan(conn, ()) for conn in self.observer.conns]
            assert ours == names, f"SCAN gives other keys than KEYS in database {db}: {scanned}"
            assert size.number == len(names)
            for name in names:
                kind, _ = self.observer.check((b"TYPE", name), (b"PEXPIRETIME", name))
                self.observer.check(*((*words, name, *rest) for words, rest in WHOLE[kind.data]))
        if self.programs % CHECKED == 0:
            self.check_rows()

    def check_rows(self) -> None:
        """What kvserver has on disk is of one mind: elements, counts, indices."""
        datadir.check(self.ours.directory / "db")

    def check_counts(self) -> None:
        """Both counted the same keys, look-ups, calls and errors."""
        self.observer.check(*((b"INFO", section) for section in compare.COUNTS))

    def check_scan(self, db: int, options: Command) -> None:
        """Whole scans with the same options find the same."""
        self.observer.check((b"SELECT", b"%d" % db))
        ours, theirs = (whole_scan(conn, options) for conn in self.observer.conns)
        assert ours == theirs, f"SCAN in database {db} with {options}"

    def check_random_key(self, db: int) -> None:
        """RANDOMKEY gives a key if there is one."""
        self.observer.check((b"SELECT", b"%d" % db))
        ((ours,), (theirs,)) = self.observer.ask((b"RANDOMKEY",))
        assert ours.is_null == theirs.is_null, f"kvserver: {ours}, redis: {theirs}"
        if not ours.is_null:
            (found,) = self.observer.check((b"EXISTS", ours.data))
            assert found.number == 1


def whole_scan(conn: Conn, options: Command) -> list[bytes]:
    """The keys that SCAN gives, in order."""
    found: set[bytes] = set()
    cursor = b"0"
    while True:
        at, page = compare.parse(conn.ask("SCAN", cursor, *options)).items
        found.update(item.data for item in page.items)
        cursor = at.data
        if cursor == b"0":
            return sorted(found)


class Player:
    """Plays a program on connections of its own, and compares every reply."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.links: dict[int, Link] = {}
        #: Whatever may have become the name of a key.
        self.seen: set[bytes] = {b"k"}

    def __enter__(self) -> Player:
        self.arena.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        while self.links:
            self.links.popitem()[1].close()

    def step(self, step: Step) -> None:
        """One step, whatever it is."""
        match step:
            case Send():
                self._send(step)
            case Burst(batches):
                self._burst(batches)
            case Leave(number) if number in self.links:
                self.links.pop(number).close()
            case Lapse(db, names):
                self.arena.lapse(db, names)
            case Scan(db, options):
                self._scan(db, options)
            case RandomKey(db):
                self._look_at_seen()
                self.arena.check_random_key(db)
            case Restart(kill):
                self._disconnect()
                self.arena.restart(kill=kill)
                # For a moment active expiry was on.
                self._look_at_seen()
                self.arena.forget()

    def _scan(self, db: int, options: Command) -> None:
        if b"TYPE" not in map(bytes.upper, options):
            self.arena.check_scan(db, options)
            return
        # Redis 7.0 looks the keys up for that: it tells of misses and counts hits.
        self._look_at_seen()
        self.arena.check_scan(db, options)
        self.arena.reset_counts()

    def _look_at_seen(self) -> None:
        self.arena.look_at(sorted(self.seen))

    def _send(self, step: Send) -> None:
        if step.connection not in self.links:
            self.links[step.connection] = self.arena.connect()
        self._note(step.commands)
        encode = as_line if step.as_lines else as_array
        self.links[step.connection].check(*step.commands, encode=encode)

    def _burst(self, batches: Sequence[Sequence[Command]]) -> None:
        links = [self.arena.connect() for _ in batches]
        for db, (link, batch) in enumerate(zip(links, batches, strict=True)):
            self._note(batch)
            link.check((b"SELECT", b"%d" % db))
        for link, batch in zip(links, batches, strict=True):
            link.send(batch)
        for link, batch in zip(links, batches, strict=True):
            link.check_replies(batch)
            link.close()
        self.arena.events.check(compare.in_order_of_databases)

    def _note(self, batch: Sequence[Command]) -> None:
        self.arena.commands += len(batch)
        for command in batch:
            self.seen.update(command)

    def end(self) -> None:
        """What is left must be the same."""
        self._look_at_seen()
        self.arena.check_data()
        self.arena.check_counts()


def play(arena: Arena, program: Sequence[Step]) -> None:
    """Play a program on the empty servers. AssertionError where they differ."""
    with Player(arena) as player:
        for step in program:
            player.step(step)
            arena.events.check()
        player.end()
