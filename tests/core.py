"""The server's core in this process, without sockets: for what only a look inside can show, and
for an engine that fails on demand. RocksDB is real.

Several commands are one turn until `end_turn` is called, as they are on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from kvserver import commands, config_file
from kvserver.edge import settings
from kvserver.state.dispatch import Dispatcher
from kvserver.state.server import Server
from kvserver.state.session import Session
from kvserver.state.turn import Turn
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.engine import Engine, EngineError

assert commands.__all__  # importing them declares them


class Client:
    """A session and what it was sent."""

    reading = True
    query_buffered = 0

    def __init__(self, core: Core, number: int) -> None:
        self._core = core
        self.sent = b""
        self.closed = False
        self.resumed = 0
        self.session = Session(number, self, core.turn, f"client:{number}", "server:0")

    def call(self, *args: bytes) -> None:
        """Execute a command; its reply comes when the turn ends."""
        self._core.dispatcher.execute(self.session, list(args))

    def ask(self, *args: bytes) -> bytes:
        """A command in a turn of its own: everything that the session was sent in it."""
        self.call(*args)
        self._core.end_turn()
        return self.take()

    def take(self) -> bytes:
        """What was sent since the last call."""
        sent, self.sent = self.sent, b""
        return sent

    # What a session asks of its connection.

    def write(self, data: bytes) -> None:
        self.sent += data

    def buffered(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def resume(self) -> None:
        self.resumed += 1

    def upcoming(self, most: int) -> list[list[bytes]]:
        return []


class Core:
    """A server without an edge, and its engine."""

    def __init__(self, path: Path, **directives: str) -> None:
        words = [w for name, value in directives.items() for w in ("--" + name, value)]
        config = config_file.load([w.replace("_", "-") for w in words], lambda: "")
        self.engine = Engine(str(path), config)
        self.log = CommitLog(self.engine)
        self.log.cache.resize(1 << 20)
        self.log.reads.slow_ns = 1 << 62  # there are no threads to wait for (state/cold.py)
        self.turn = Turn(self.log, lambda: None)
        self.server = Server(config, self.log, self.turn, self)  # type: ignore[arg-type]
        self.dispatcher = self.server.dispatcher = Dispatcher(self.server)
        settings.follow(config, self.server)
        self._clients = 0

    def __enter__(self) -> Core:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.engine.close()

    def client(self, resp3: bool = False) -> Client:
        """A new client."""
        self._clients += 1
        client = Client(self, self._clients)
        client.session.resp3 = resp3
        self.server.sessions[self._clients] = client.session
        return client

    def end_turn(self) -> None:
        """Commit and send."""
        self.turn.end()

    def fail_writes(self) -> None:
        """From now on RocksDB refuses every batch."""

        def refuse(_batch: Any) -> None:
            raise EngineError("No space left on device")

        self.engine.write = refuse  # type: ignore[method-assign]

    def call_later(self, seconds: float, callback: Any, *args: Any) -> Any:
        """The edge's timers: nothing here waits."""
        raise AssertionError(f"a timer of {seconds} s")


class LaterCore(Core):
    """A core whose timers go off when the test says so."""

    def __init__(self, path: Path, **directives: str) -> None:
        self._later: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        super().__init__(path, **directives)

    def call_later(self, seconds: float, callback: Any, *args: Any) -> Any:
        entry = (callback, args)
        self._later.append(entry)
        return SimpleNamespace(cancel=lambda: entry in self._later and self._later.remove(entry))

    def run_later(self) -> None:
        """Let every timer go off."""
        later, self._later = self._later, []
        for callback, args in later:
            callback(*args)
        self.end_turn()
