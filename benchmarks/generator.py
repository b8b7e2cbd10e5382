"""A load generator for what redis-benchmark can't do: mixed commands, and WAIT after each write.

It must not know which server it loads. Everything that is sent is put together before the clock
starts, and replies are not parsed but their lines counted, so that one thread of Python keeps up
with a server on the other core. Its figures compare with each other, not with redis-benchmark's.

Invariants: a client has one batch under way, as with redis-benchmark, and sends the next when it
has all of its replies; an error among them ends the run.
"""

from __future__ import annotations

import gc
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import NamedTuple

RECEIVE_BYTES = 1 << 17
PATIENCE_SECONDS = 60.0


class Batch(NamedTuple):
    """What is sent at once, and how many lines its replies have."""

    data: bytes
    lines: int


class Run(NamedTuple):
    """How long it took, and the latency of each batch, in seconds."""

    seconds: float
    latencies: list[float]

    def percentile(self, share: float) -> float:
        """The latency in ms that this share of the batches didn't exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


class Client:
    """One connection."""

    __slots__ = ("recv", "send", "sent_at", "sock", "wanted")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Blocking: with one batch under way there is room for all of the next.
        self.send: Callable[[bytes], None] = self.sock.sendall
        self.recv: Callable[[int], bytes] = self.sock.recv
        self.sent_at = 0.0
        self.wanted = 0

    def begin(self, batch: Batch, now: float) -> None:
        """Send a batch."""
        self.sent_at = now
        self.wanted = batch.lines
        self.send(batch.data)


def drive(port: int, batches: Iterable[Batch], clients: int = 50) -> Run:
    """Send all batches, each by the client that is free first."""
    crowd = [Client(port) for _ in range(clients)]
    source = iter(batches)
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _drive(crowd, source)
    finally:
        if collecting:
            gc.enable()
        for client in crowd:
            client.sock.close()


def _drive(crowd: list[Client], source: Iterator[Batch]) -> Run:
    poll = select.epoll()
    began = perf_counter()
    by_fd = {}
    for client, batch in zip(crowd, source):  # noqa: B905 - fewer batches than clients is fine
        by_fd[client.sock.fileno()] = client
        poll.register(client.sock, select.EPOLLIN)
        client.begin(batch, perf_counter())
    latencies = _exchange(poll, by_fd, len(by_fd), source)
    poll.close()
    return Run(perf_counter() - began, latencies)


def _exchange(
    poll: select.epoll, by_fd: dict[int, Client], active: int, source: Iterator[Batch]
) -> list[float]:
    latencies: list[float] = []
    while active:
        events = poll.poll(PATIENCE_SECONDS)
        if not events:
            raise TimeoutError("the server doesn't answer")
        for fd, _ in events:
            client = by_fd[fd]
            data = client.recv(RECEIVE_BYTES)
            if not data or data[0] == 45 or b"\n-" in data:
                raise ConnectionError(f"the server said {data[:200]!r}")
            client.wanted -= data.count(b"\n")
            if client.wanted > 0:
                continue
            now = perf_counter()
            latencies.append(now - client.sent_at)
            batch = next(source, None)
            if batch is None:
                active -= 1
            else:
                client.begin(batch, now)
    return latencies
