"""Real servers for the tests: start, wait until ready, talk, kill, restart.

One class runs both programs, kvserver and the redis-server that serves as oracle, so a test
treats them alike. It knows nothing of pytest; the fixtures are in conftest.py.

Invariants: a server listens on loopback, on a port that the kernel chose; only processes that
were started here are killed, by pid; every wait has a deadline.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import kvserver

T = TypeVar("T")
Directive = str | int | bool | Sequence[str]

START_SECONDS = 20.0
STOP_SECONDS = 20.0
REPLY_SECONDS = 10.0
START_ATTEMPTS = 3
LOG_TAIL_LINES = 100
PORT_TAKEN = "already in use"
READY_REPLIES = (b"+PONG", b"-NOAUTH")


@dataclass(frozen=True)
class Program:
    """A server program: how it is started, and the directives the tests always give it."""

    name: str
    command: tuple[str, ...]
    directives: Mapping[str, Directive]


KVSERVER = Program(
    "kvserver",
    (sys.executable, "-m", "kvserver"),
    {"bind": "127.0.0.1", "enable-debug-command": True},
)
REDIS = Program(
    "redis-server",
    ("redis-server",),
    {"bind": "127.0.0.1", "save": "", "appendonly": False, "enable-debug-command": True},
)

# Servers that run now; conftest.py shows their logs when a test fails.
running: list[Server] = []


class ServerError(AssertionError):
    """A server did not start or stop as asked; the message holds the end of its log."""


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """Call `condition` until it returns something true, and return that.

    Raises AssertionError after `timeout` seconds, naming `what` and the last value.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            what = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"not within {timeout} s: {what} (last value: {value!r})")
        time.sleep(0.005)
    return value


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now, chosen by the kernel."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def directive_args(directives: Mapping[str, Directive]) -> list[str]:
    """The command line for `directives`: bools become yes or no, a sequence several words."""
    args: list[str] = []
    for name, value in directives.items():
        args.append(f"--{name}")
        if isinstance(value, bool):
            args.append("yes" if value else "no")
        elif isinstance(value, str | int):
            args.append(str(value))
        else:
            args.extend(value)
    return args


def encode_command(*args: bytes | str | int) -> bytes:
    """One command as a RESP array of bulk strings."""
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


class Conn:
    """A raw connection: bytes out, bytes in, for tests of the wire itself."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(REPLY_SECONDS)
        self._buffer = bytearray()

    def __enter__(self) -> Conn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send `data` as it is."""
        self.sock.sendall(data)

    def ask(self, *args: bytes | str | int) -> bytes:
        """Send one command and return the bytes of its reply."""
        self.send(encode_command(*args))
        return self.reply()

    def reply(self) -> bytes:
        """The bytes of one whole RESP2 or RESP3 reply."""
        line = self.read_line()
        kind, rest = line[:1], line[1:-2]
        if kind in b"$=!" and rest != b"-1":
            return line + self.read_exactly(int(rest) + 2)
        if kind in b"*~>%|" and rest != b"-1":
            count = int(rest) * (2 if kind in b"%|" else 1) + (kind == b"|")
            return line + b"".join(self.reply() for _ in range(count))
        return line

    def read_line(self) -> bytes:
        """Everything up to and including the next CRLF."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill()
        return self._take(end + 2)

    def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self._buffer) < size:
            self._fill()
        return self._take(size)

    def read_to_end(self) -> bytes:
        """What the server sends until it closes; a reset counts as closing."""
        try:
            while True:
                self._fill()
        except ConnectionError:
            return self._take(len(self._buffer))

    def _fill(self) -> None:
        """Receive more; EOFError's socket kin, ConnectionError, when the server has closed."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError(f"closed by the server, unread: {bytes(self._buffer[-200:])!r}")
        self._buffer += data

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class Server:
    """One server process with its own directory and port.

    `directory` becomes the program's `dir`; a restart keeps directory, port and directives.
    `args` come before the directives on the command line (a configuration file, say).
    """

    def __init__(
        self,
        directory: Path,
        directives: Mapping[str, Directive] | None = None,
        *,
        args: Sequence[str] = (),
        program: Program = KVSERVER,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.program = program
        self.directory = directory
        self.directives: dict[str, Directive] = {**program.directives, **(directives or {})}
        self.args = args
        self.env = env or {}
        self.port = 0
        self.log_path = directory.with_name(directory.name + ".log")
        self.log_mark = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []
        self._conns: list[Conn] = []

    def __repr__(self) -> str:
        return f"<{self.program.name} port {self.port}>"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self!r} was never started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # Starting and stopping

    def start(self, timeout: float = START_SECONDS) -> Server:
        """Start the process and wait until it answers PING; ServerError if it does not."""
        assert not self.alive, f"{self!r} runs already"
        for attempt in range(1, START_ATTEMPTS + 1):
            port, log_start = self.port or free_port(), self._log_size()
            self._spawn(port)
            try:
                self._await_ready(port, timeout)
                break
            except ServerError:
                # Somebody else may have taken the port since the kernel gave it to us.
                taken = PORT_TAKEN in self.log_text(log_start)
                if self.port or not taken or attempt == START_ATTEMPTS:
                    raise
        self.port = port
        if self not in running:
            running.append(self)
        return self

    def terminate(self, timeout: float = STOP_SECONDS) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        return self.stop(signal.SIGTERM, timeout)

    def kill9(self) -> None:
        """Send SIGKILL and wait until the process is gone."""
        self.stop(signal.SIGKILL)

    def stop(self, sig: signal.Signals, timeout: float = STOP_SECONDS) -> int:
        """Send `sig`, wait for the exit, and return the exit code (minus the signal's number)."""
        self.process.send_signal(sig)
        return self.wait_exit(timeout)

    def wait_exit(self, timeout: float = STOP_SECONDS) -> int:
        """Wait until the process ends, and return its exit code; ServerError if it does not."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise ServerError(self._explain(f"had to be killed after {timeout} s")) from None
        finally:
            self._forget()
        return code

    def restart(self) -> Server:
        """Stop with SIGTERM if it runs, and start again on the same port and directory."""
        if self.alive:
            self.terminate()
        return self.start()

    def close(self) -> None:
        """Close the clients and end the process, however it stands."""
        self.close_clients()
        if self.alive:
            self.kill9()

    # Talking to it

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client with its own connection pool; it is closed with the server.

        It does not retry unless told: a connection that the server drops must be seen.
        """
        options.setdefault("socket_timeout", REPLY_SECONDS)
        options.setdefault("retry", Retry(NoBackoff(), 0))
        client = redis.Redis(host="127.0.0.1", port=self.port, **options)
        self._clients.append(client)
        return client

    def conn(self) -> Conn:
        """A raw connection; it is closed with the server."""
        conn = Conn(socket.create_connection(("127.0.0.1", self.port), REPLY_SECONDS))
        self._conns.append(conn)
        return conn

    def close_clients(self) -> None:
        """Close every client and connection that was handed out."""
        while self._clients:
            self._clients.pop().close()
        while self._conns:
            self._conns.pop().close()

    # Its log

    def log_text(self, start: int = 0) -> str:
        """What the process wrote on stdout and stderr, from byte `start` on."""
        if not self.log_path.exists():
            return ""
        return self.log_path.read_bytes()[start:].decode(errors="replace")

    def mark_log(self) -> None:
        """Let `log_tail` begin here."""
        self.log_mark = self._log_size()

    def log_tail(self) -> str:
        """The last lines of the log since `mark_log`."""
        return "\n".join(self.log_text(self.log_mark).splitlines()[-LOG_TAIL_LINES:])

    def spawn(self) -> None:
        """Start the process and don't wait: for a server that is killed while it starts."""
        self._spawn(self.port or free_port())

    # Inside

    def _spawn(self, port: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        options = {"port": port, "dir": str(self.directory), **self.directives}
        command = [*self.program.command, *self.args, *directive_args(options)]
        # The package that the tests import is the one that runs, installed or not.
        package_root = str(Path(kvserver.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": package_root, **self.env}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def _await_ready(self, port: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not answers_ping(port):
            if not self.alive:
                raise ServerError(self._explain(f"exited with code {self.process.returncode}"))
            if time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise ServerError(self._explain(f"did not answer PING within {timeout} s"))
            time.sleep(0.01)

    def _explain(self, what: str) -> str:
        return f"{self.program.name} {what}; its log ends:\n{self.log_tail()}"

    def _log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def _forget(self) -> None:
        if self in running:
            running.remove(self)


def answers_ping(port: int) -> bool:
    """Whether a server on loopback `port` answers PING now; a password it asks for counts."""
    try:
        with Conn(socket.create_connection(("127.0.0.1", port), 1.0)) as conn:
            return conn.ask("PING").startswith(READY_REPLIES)
    except OSError:
        return False
