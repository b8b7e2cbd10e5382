"""A paced load of pipelined writes on two nodes, one of which is the primary at a time.

It must not know which servers it measures. One thread, plain sockets and select(2), commands put
together from prepared parts: at 20 MB/s it must leave the processor to the servers.

Invariants: commands of one lane are executed in the order of their numbers; one that was refused
with READONLY was not executed and is sent to the other node; one whose outcome is unknown is never
sent again. So `check` can tell lost and doubled writes from those that may be there or not.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from typing import NamedTuple

import hiredis

SLOTS = 500
RECEIVE_BYTES = 1 << 16
#: Commands that may be under way on one lane; then it waits, as an application would.
MAX_OUTSTANDING = 2000


class Shape(NamedTuple):
    """The load: commands a second, each with a value of so many bytes; how many lanes send them,
    how many at once; after each such batch comes one INCR of the lane's counter."""

    rate: int = 10_000
    value_bytes: int = 2048
    lanes: int = 8
    batch: int = 10


class Lane:
    """One application's connections, one to each node. It writes SLOTS keys in turn, and counts."""

    def __init__(self, number: int, ports: list[int], shape: Shape) -> None:
        self._name = b"lane:%02d" % number
        self._ports = ports
        self._shape = shape
        self.socks = [_connect(port) for port in ports]
        self._readers = [hiredis.Reader() for _ in ports]
        self.node = 0
        #: Numbers of commands under way at `node`, in order; a negative one is an INCR.
        self._sent: deque[int] = deque()
        self._refused: list[int] = []
        self._next = 1
        self._unsent = bytearray()
        key_size = len(self._name) + 5
        self._head = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b:" % (key_size, self._name)
        self._mid = b"\r\n$%d\r\n" % shape.value_bytes
        self._tail = b"." * (shape.value_bytes - 12) + b"\r\n"
        counter = self._name + b":n"
        self._incr = b"*2\r\n$4\r\nINCR\r\n$%d\r\n%b\r\n" % (len(counter), counter)
        # What is known: the last acknowledged number of each slot, and what came after it.
        self.acked = 0
        self.last_acked: dict[int, int] = {}
        self.unknown: dict[int, list[int]] = {}
        self.counted = 0
        self.unknown_counts = 0
        self.faults: list[str] = []

    # -- sending -----------------------------------------------------------------------------

    def send_batch(self) -> None:
        """The next commands, unless too many are under way."""
        if self._refused or len(self._sent) > MAX_OUTSTANDING:
            return
        numbers = list(range(self._next, self._next + self._shape.batch))
        self._next += len(numbers)
        self._send([*numbers, -numbers[-1]])

    def _send(self, numbers: list[int]) -> None:
        self._sent.extend(numbers)
        self._unsent += b"".join(map(self._command, numbers))
        self.flush()

    def _command(self, number: int) -> bytes:
        if number < 0:
            return self._incr
        return b"%b%04d%b%012d%b" % (self._head, number % SLOTS, self._mid, number, self._tail)

    def flush(self) -> None:
        """Send what the socket didn't take yet."""
        if not self._unsent:
            return
        try:
            size = self.socks[self.node].send(self._unsent)
            del self._unsent[:size]
        except BlockingIOError:
            pass
        except OSError:
            self.lost()

    @property
    def is_clogged(self) -> bool:
        """Whether `flush` is due when the socket takes more."""
        return bool(self._unsent)

    # -- receiving ---------------------------------------------------------------------------

    def receive(self, node: int) -> int:
        """Take what has come; the number of acknowledged writes."""
        try:
            data = self.socks[node].recv(RECEIVE_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            if node == self.node:
                self.lost()
            else:
                self._reconnect(node)
            return 0
        reader = self._readers[node]
        reader.feed(data)
        before = self.acked
        while (reply := reader.gets()) is not False:
            self._take(reply)
        if self._refused and not self._sent:
            self.switch()
        return self.acked - before

    def _take(self, reply: object) -> None:
        number = self._sent.popleft()
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith("READONLY"):
                self._refused.append(number)
            else:
                self._forget(number)
                if not text.startswith("UNBLOCKED"):
                    self.faults.append(text)
        elif number < 0:
            self._count(reply)
        else:
            self.acked += 1
            self.last_acked[number % SLOTS] = number
            self.unknown.pop(number % SLOTS, None)

    def _count(self, reply: object) -> None:
        """INCR tells at once if one was lost or done twice."""
        assert isinstance(reply, int)
        self.acked += 1
        self.counted += 1
        if not self.counted <= reply <= self.counted + self.unknown_counts:
            self.faults.append(f"{self._name!r} is {reply} after {self.counted} INCR")
            self.counted = reply

    def _forget(self, number: int) -> None:
        """The outcome of this one isn't known."""
        if number < 0:
            self.unknown_counts += 1
        else:
            self.unknown.setdefault(number % SLOTS, []).append(number)

    # -- switching ---------------------------------------------------------------------------

    def switch(self) -> None:
        """Everything under way was refused: send it to the other node, in order."""
        self.node = 1 - self.node
        self._unsent.clear()
        numbers, self._refused = self._refused, []
        self._send(numbers)

    def lost(self) -> None:
        """The connection is gone: what is under way is unknown, what was refused is not."""
        for number in self._sent:
            self._forget(number)
        self._sent.clear()
        self._unsent.clear()
        self._reconnect(self.node)
        self.switch()

    def _reconnect(self, node: int) -> None:
        self.socks[node].close()
        self.socks[node] = _connect(self._ports[node])
        self._readers[node] = hiredis.Reader()

    # -- the end -----------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._sent and not self._refused

    def check(self, port: int) -> list[str]:
        """Compare what was acknowledged with what this node holds."""
        with socket.create_connection(("127.0.0.1", port)) as sock:
            faults = [self._check_slot(sock, slot) for slot in self.last_acked]
            found = int(_ask(sock, b"GET", self._name + b":n") or 0)
        if not self.counted <= found <= self.counted + self.unknown_counts:
            faults.append(f"{self._name!r}: {found} after {self.counted} INCR")
        return [*self.faults, *filter(None, faults)]

    def _check_slot(self, sock: socket.socket, slot: int) -> str:
        key = b"%b:%04d" % (self._name, slot)
        value = _ask(sock, b"GETRANGE", key, b"0", b"11")
        expected = [self.last_acked[slot], *self.unknown.get(slot, [])]
        if value and int(value) in expected:
            return ""
        return f"{key!r} is {value!r}, not one of {expected}"


class Load:
    """All lanes, driven by one loop at a steady pace."""

    def __init__(self, ports: list[int], shape: Shape) -> None:
        self.lanes = [Lane(number, ports, shape) for number in range(shape.lanes)]
        self._interval = shape.batch / shape.rate
        self._turn = 0
        self._due = time.perf_counter()
        #: When an acknowledgement came, and the longest gap before one since `reset_gap`.
        self._last_ack = time.perf_counter()
        self.longest_gap = 0.0

    def reset_gap(self) -> None:
        """Measure gaps anew."""
        self.longest_gap = 0.0

    @property
    def acked(self) -> int:
        """Writes acknowledged since the start."""
        return sum(lane.acked for lane in self.lanes)

    def run(self, seconds: float) -> None:
        """Write for so long."""
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            if now >= self._due:
                self._tick(now)
            self._wait(max(0.0, min(self._due, end) - time.perf_counter()))

    def drain(self, seconds: float = 10.0) -> None:
        """Wait until nothing is under way."""
        end = time.perf_counter() + seconds
        while not all(lane.is_idle for lane in self.lanes) and time.perf_counter() < end:
            self._wait(0.01)

    def _tick(self, now: float) -> None:
        self.lanes[self._turn].send_batch()
        self._turn = (self._turn + 1) % len(self.lanes)
        self._due += self._interval
        if now - self._due > 0.1:  # what couldn't be sent in time is not made up for
            self._due = now

    def _wait(self, seconds: float) -> None:
        owners = {s: (lane, n) for lane in self.lanes for n, s in enumerate(lane.socks)}
        clogged = [lane.socks[lane.node] for lane in self.lanes if lane.is_clogged]
        readable, writable, _ = select.select(list(owners), clogged, [], seconds)
        for sock in readable:
            lane, node = owners[sock]
            if lane.receive(node):
                self._acknowledged()
        for sock in writable:
            owners[sock][0].flush()

    def _acknowledged(self) -> None:
        now = time.perf_counter()
        self.longest_gap = max(self.longest_gap, now - self._last_ack)
        self._last_ack = now

    def check(self, port: int) -> list[str]:
        """What was lost or doubled, in words."""
        return [fault for lane in self.lanes for fault in lane.check(port)]

    def close(self) -> None:
        for lane in self.lanes:
            for sock in lane.socks:
                sock.close()


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def _ask(sock: socket.socket, *words: bytes) -> bytes | None:
    sock.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]
    reader = hiredis.Reader()
    while (reply := reader.gets()) is False:
        reader.feed(sock.recv(RECEIVE_BYTES))
    assert reply is None or isinstance(reply, bytes), reply
    return reply
