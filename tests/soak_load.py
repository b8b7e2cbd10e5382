"""Writers for the soak: each knows what its keys may hold, whatever happens to the servers.

It must not know which faults there are. A writer asks for the primary, settles its model with what
it finds there (load.py), and writes until its connection ends or it is refused. With
`replica-ack-quorum` what was acknowledged, or read, is on a replica, so a promotion of the most
advanced one keeps it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from group import PATIENCE_SECONDS
from harness import Conn, Server, encode_command
from load import OK, Op, State, Writer, bulk, integer
from load_collections import CollectionWriter
from load_queues import Queues

Primary = Callable[[], Server | None]

#: Longer than any fault lasts: a connection that is silent for so long is given up, though.
ANSWER_SECONDS = 60.0
DATABASES = (5, 6, 7)
DATABASE_KEYS = 4
#: Operations of a writer that a failure shows.
RECENT = 60


class PatientConn(Conn):
    """A connection on which a reply may take as long as the faults do. Commands that `ask` sends
    end with it if the server doesn't answer questions now."""

    def __init__(self, server: Server) -> None:
        super().__init__(socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS))
        self.sock.settimeout(ANSWER_SECONDS)

    def ask(self, *args: bytes | str | int) -> bytes:
        reply = super().ask(*args)
        if reply.startswith((b"-LOADING", b"-MASTERDOWN", b"-UNBLOCKED")):
            raise ConnectionError(reply)
        return reply


class ModelWriter(Writer):
    """load.py's writer (strings, counters, expiry, MULTI), which follows the primary."""

    def __init__(self, primary: Primary, server: Server, number: int, seed: str) -> None:
        super().__init__(server, number, seed)
        self._primary = primary
        #: What was sent and answered last, to explain a failure.
        self.recent: deque[str] = deque(maxlen=RECENT)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                server = self._primary()
                if server is not None:
                    self._write_to(server)
                self._stop.wait(0.01)
        except BaseException as problem:
            problem.add_note("\n".join(self.recent))
            self.problem = problem

    def _answered(self, op: Op, replies: list[bytes]) -> None:
        self._note(op, replies)
        super()._answered(op, replies)

    def _unanswered(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self._note(op, "unanswered")
        super()._unanswered(ops)

    def _note(self, op: Op, what: object) -> None:
        now = time.strftime("%H:%M:%S")
        commands = b" ; ".join(b" ".join(c.split(b"\r\n")[2::2]) for c in op.commands)
        self.recent.append(f"{now} {commands[:100]!r} {what!r:.100}")

    def _write_to(self, server: Server) -> None:
        """Until the connection is lost or the server refuses."""
        try:
            with PatientConn(server) as conn:
                if not conn.ask("ROLE").startswith(b"*3\r\n$6\r\nmaster"):
                    return
                self.recent.append(f"settled with {server}")
                self.settle(conn)
                while not self._stop.is_set() and self._burst(conn):
                    self._stop.wait(0.001)
        except OSError:
            pass  # the server is gone, or the link to it


class DatabaseWriter(ModelWriter):
    """Has some databases for itself: writes to them, empties, swaps and moves between them."""

    def _choose(self) -> Op:
        choice = self.random.random()
        first, second = self.random.sample(DATABASES, 2)
        if choice < 0.1:
            return self._flush(first)
        if choice < 0.2:
            return self._swap(first, second)
        key = self._key(b"%d" % self.random.randrange(DATABASE_KEYS))
        if choice < 0.35:
            return self._move(key, first, second)
        self._value += 1
        return self._set(key, first, b"%d" % self._value)

    def _set(self, key: bytes, db: int, value: bytes) -> Op:
        def apply(state: State) -> list[bytes]:
            state[_at(db, key)] = (value, -1)
            return [OK, OK]

        return Op([encode_command("SELECT", db), encode_command("SET", key, value)], apply)

    def _flush(self, db: int) -> Op:
        def apply(state: State) -> list[bytes]:
            for name in [name for name in state if name.startswith(_at(db, b""))]:
                del state[name]
            return [OK, OK]

        return Op([encode_command("SELECT", db), encode_command("FLUSHDB")], apply)

    def _swap(self, first: int, second: int) -> Op:
        def apply(state: State) -> list[bytes]:
            a, b = _at(first, b""), _at(second, b"")
            exchanged = {
                {a: b, b: a}.get(name[: len(a)], name[: len(a)]) + name[len(a) :]: entry
                for name, entry in state.items()
            }
            state.clear()
            state.update(exchanged)
            return [OK]

        return Op([encode_command("SWAPDB", first, second)], apply)

    def _move(self, key: bytes, source: int, target: int) -> Op:
        def apply(state: State) -> list[bytes]:
            old, new = _at(source, key), _at(target, key)
            possible = old in state and new not in state
            if possible:
                state[new] = state.pop(old)
            return [OK, integer(possible)]

        commands = [encode_command("SELECT", source), encode_command("MOVE", key, target)]
        return Op(commands, apply)

    def _held(self, conn: Conn) -> State:
        held: State = {}
        for db in DATABASES:
            conn.ask("SELECT", db)
            for number in range(DATABASE_KEYS):
                key = self._key(b"%d" % number)
                value = conn.ask("GET", key)
                if value != bulk(None):
                    held[_at(db, key)] = (value.partition(b"\r\n")[2][:-2], -1)
        return held


class CollectionModel(CollectionWriter, ModelWriter):
    """load_collections.py's writer, which follows the primary."""


def _at(db: int, key: bytes) -> bytes:
    return b"db%d/" % db + key


class OnceWriter:
    """Appends 1, 2, 3 ... to a list of its own by ONCE, and sends each until it is answered: every
    number must be there once, whatever was cut or killed meanwhile."""

    def __init__(self, primary: Primary, number: int) -> None:
        self._primary = primary
        self._id = f"once-{number}"
        self._key = f"once:{number}"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: BaseException | None = None
        self.acked = 0
        self.retries = 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """End it; raises what went wrong."""
        self._stop.set()
        assert self._thread is not None
        self._thread.join(ANSWER_SECONDS + 10)
        assert not self._thread.is_alive(), f"{self._id} hangs"
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                server = self._primary()
                if server is not None:
                    self._write_to(server)
                self._stop.wait(0.01)
        except BaseException as problem:
            self.problem = problem

    def _write_to(self, server: Server) -> None:
        try:
            with PatientConn(server) as conn:
                while not self._stop.is_set() and self._append(conn):
                    self._stop.wait(0.002)
        except OSError:
            self.retries += 1

    def _append(self, conn: Conn) -> bool:
        number = self.acked + 1
        reply = conn.ask("ONCE", self._id, number, "APPEND", self._key, f"{number},")
        if reply.startswith(b"-"):
            assert b"OUTOFORDER" not in reply, f"{self._id}: {reply!r} for {number}"
            self.retries += 1
            return False
        length = sum(len(str(n)) + 1 for n in range(1, number + 1)) if number < 50 else None
        assert length is None or reply == integer(length), f"{self._id}: {reply!r} for {number}"
        self.acked = number
        return True

    def settle(self, conn: Conn) -> None:
        """Everything once. The last one may be there although its reply was lost."""
        text = conn.ask("GET", self._key).partition(b"\r\n")[2][:-2].decode()
        found = [int(n) for n in text.split(",") if n]
        count = len(found)
        assert found == list(range(1, count + 1)), f"{self._id}: not once each: {found}"
        assert count in (self.acked, self.acked + 1), f"{self._id}: {count}, acked {self.acked}"


class Crowd:
    """All writers of a soak."""

    def __init__(
        self, primary: Primary, server: Server, seed: str, models: int = 3, collections: int = 3
    ) -> None:
        self.models: list[ModelWriter] = [
            ModelWriter(primary, server, number, seed) for number in range(models)
        ]
        self.models.append(DatabaseWriter(primary, server, models, seed))
        numbers = range(models + 1, models + 1 + collections)
        self.models += [CollectionModel(primary, server, number, seed) for number in numbers]
        self.queues = Queues(primary)
        self.once = [OnceWriter(primary, number) for number in range(2)]

    @property
    def _all(self) -> Sequence[ModelWriter | OnceWriter | Queues]:
        return [*self.models, *self.once, self.queues]

    def start(self) -> None:
        for writer in self._all:
            writer.start()

    def stop(self) -> None:
        """End them; raises what they noticed."""
        for writer in self._all:
            writer.halt()

    def check(self) -> None:
        """Raise what a writer has noticed already."""
        self.queues.check()
        for writer in (*self.models, *self.once):
            if writer.problem is not None:
                raise writer.problem

    def settle(self, primary: Server) -> None:
        """Compare what the writers know with what the primary holds."""
        with PatientConn(primary) as conn:
            for writer in self._all:
                conn.ask("SELECT", 0)
                writer.settle(conn)

    @property
    def acked(self) -> int:
        return sum(writer.acked for writer in self._all)

    @property
    def errors(self) -> dict[str, int]:
        """How often which error came."""
        found: dict[str, int] = {}
        for model in self.models:
            for error in model.errors:
                word = error[1:].split(None, 1)[0].decode()
                found[word] = found.get(word, 0) + 1
        return found

    def await_more(self, count: int, timeout: float) -> None:
        """Wait until so many more operations were acknowledged."""
        goal, deadline = self.acked + count, time.monotonic() + timeout
        while self.acked < goal:
            self.check()
            assert time.monotonic() < deadline, f"writes stopped: {self.acked} of {goal}"
            time.sleep(0.01)
