"""How long a command takes while others load the server: an open loop, at a fixed rate.

A command that is due is sent whether or not the last one was answered, and its time counts from
when it was due. So a pause of the server shows in all commands that it held up, and not in one
alone (what is called coordinated omission).
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections import deque
from typing import NamedTuple

from tests.harness import encode_command

KEYS = 1000
VALUE = b"x" * 100
SHARES = (0.5, 0.99, 0.999)


class Tail(NamedTuple):
    """Milliseconds."""

    p50: float
    p99: float
    p999: float
    longest: float

    @classmethod
    def of(cls, latencies: array[float]) -> Tail:
        """The percentiles of these seconds."""
        ordered = sorted(latencies) or [0.0]
        last = len(ordered) - 1
        found = [ordered[min(int(share * len(ordered)), last)] * 1e3 for share in SHARES]
        return cls(*found, ordered[-1] * 1e3)


class Prober:
    """GET and SET in turn, on one connection."""

    def __init__(self, port: int, per_second: float) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setblocking(False)
        self._interval = 1 / per_second
        self._sent: deque[tuple[float, int]] = deque()
        self._number = 0
        self._received = b""
        #: Latencies of GET and of SET.
        self.latencies = array("d"), array("d")

    def run(self, seconds: float) -> None:
        """Send and receive for so long, and wait for the last replies."""
        begun = due = time.perf_counter()
        while due < begun + seconds or self._sent:
            now = time.perf_counter()
            while due <= now and due < begun + seconds:
                self._send(due)
                due += self._interval
            if now > begun + seconds + 10:
                raise TimeoutError("the server doesn't answer")
            wait = max(0.0, due - time.perf_counter()) if due < begun + seconds else 0.1
            if select.select([self._sock], [], [], wait)[0]:
                self._receive()
        self._sock.close()

    def _send(self, due: float) -> None:
        self._number += 1
        kind = self._number % 2
        key = f"probe:{self._number // 2 % KEYS}"
        self._sent.append((due, kind))
        self._sock.send(encode_command("SET", key, VALUE) if kind else encode_command("GET", key))

    def _receive(self) -> None:
        """A reply of GET is `$-1`, or two lines; of SET it is one."""
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionError("closed by the server")
        now = time.perf_counter()
        self._received += data
        while self._sent:
            due, kind = self._sent[0]
            size = self._reply_size(kind)
            if not size:
                return
            self._received = self._received[size:]
            self._sent.popleft()
            self.latencies[kind].append(now - due)

    def _reply_size(self, kind: int) -> int:
        """Bytes of the first reply; 0: it isn't whole."""
        end = self._received.find(b"\r\n") + 2
        if end < 2 or kind or self._received.startswith(b"$-1"):
            return max(end, 0) if end >= 2 else 0
        size = end + len(VALUE) + 2
        return size if len(self._received) >= size else 0


def probe(port: int, seconds: float, per_second: float) -> tuple[Tail, Tail]:
    """Of GET and of SET."""
    prober = Prober(port, per_second)
    prober.run(seconds)
    return Tail.of(prober.latencies[0]), Tail.of(prober.latencies[1])
