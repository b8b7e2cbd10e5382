"""The clock and the network of a simulation: byte streams that are late, cut in pieces, or dead.

Everything that happens is an event on one heap, in the order of (time, number), so a seed always
gives the same run. A connection has two ends; each is a `Link` for its side. What one end sends
arrives in order, in pieces of any size, some time later, or never.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from kvserver import frames

#: What a frame with records begins with.
_DATA_FRAME = bytes((frames.VERSION, frames.DATA, 0, 0))

Event = Callable[..., None]


class Timer:
    """What `call_later` returns."""

    __slots__ = ("callback",)

    def __init__(self, callback: Event | None) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class Clock:
    """Virtual time, and what is due when."""

    def __init__(self) -> None:
        self.time = 0.0
        self._heap: list[tuple[float, int, Timer, tuple[Any, ...]]] = []
        self.events = 0

    def at(self, seconds: float, callback: Event, *args: Any) -> Timer:
        """Call it so many seconds from now."""
        return self.when(self.time + seconds, callback, *args)

    def when(self, time: float, callback: Event, *args: Any) -> Timer:
        """Call it at this time, after what was to be called then already."""
        timer = Timer(callback)
        self.events += 1
        heapq.heappush(self._heap, (time, self.events, timer, args))
        return timer

    def step(self, until: float) -> bool:
        """Let the next event happen; False if none is due until then."""
        heap = self._heap
        if not heap or heap[0][0] > until:
            self.time = max(self.time, until)
            return False
        self.time, _, timer, args = heapq.heappop(heap)
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback(*args)
        return True


class Peer(Protocol):
    """Who gets what arrives at an end: the core's `Dialer`, or a server's connection."""

    def received(self, data: bytes) -> None: ...

    def lost(self, reason: str) -> None: ...


class Process(Protocol):
    """Who owns an end. Nothing reaches a dead one; a stopped one gets it later."""

    alive: bool

    def run(self, callback: Event, *args: Any) -> None:
        """Call it as an event of this process."""


class End:
    """One side of a connection; a `Link`."""

    def __init__(self, wire: Wire, process: Process) -> None:
        self.wire = wire
        self.process = process
        self.peer: Peer | None = None
        self.other: End
        self.drained: Event | None = None
        #: Closed by its own side: nothing is delivered any more.
        self.closed = False
        #: The network says that the connection is over.
        self.ended = False
        self.paused = False
        #: What befalls the next frame that is sent: "lose", or "repeat": it comes again after the
        #: next one.
        self.garble = ""
        self._again = b""
        #: Sent, and not yet taken by the other end.
        self.out = bytearray()
        #: Arrived, and not delivered because reading is paused.
        self._inbox: list[bytes] = []
        self._moving = False
        self._full = False

    def send(self, data: bytes) -> None:
        self.wire.network.step("send")
        if not self.closed and not self.ended:
            self.out += self._garbled(data) if self.garble else data
            self.move()

    def _garbled(self, data: bytes) -> bytes:
        if not data.startswith(_DATA_FRAME):
            return data
        garble, self.garble = self.garble, ""
        if garble == "lose":
            return b""
        if garble == "repeat":
            self.garble, self._again = "again", data
            return data
        return data + self._again

    def buffered(self) -> int:
        size = len(self.out)
        self._full = self._full or size > 0
        return size

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            self.wire.network.clock.at(0, self.process.run, self._flush)
            self.other.move()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.wire.over(self)

    # -- what the network does -----------------------------------------------------------

    def move(self) -> None:
        """Let what was sent come nearer."""
        if not self._moving and self.out and not self.wire.dead and not self.wire.broken:
            self._moving = True
            self.wire.network.clock.at(self.wire.delay(), self._arrive)

    def _arrive(self) -> None:
        self._moving = False
        other = self.other
        if other.closed or other.paused or self.wire.dead or self.wire.broken or not self.out:
            return
        size = self.wire.piece(len(self.out))
        data = bytes(self.out[:size])
        del self.out[:size]
        other.process.run(other.deliver, data)
        self.move()
        if self._full and not self.out and self.drained is not None:
            self._full = False
            self.process.run(self._drained)

    def _drained(self) -> None:
        if self.drained is not None and not self.closed:
            self.drained()

    def deliver(self, data: bytes) -> None:
        """Bytes arrive."""
        self._inbox.append(data)
        self._flush()

    def _flush(self) -> None:
        while self._inbox and not self.paused and not self.closed:
            data = self._inbox.pop(0)
            if self.peer is not None:
                self.peer.received(data)

    def tell(self) -> None:
        """The connection is over."""
        if not self.closed and self.peer is not None:
            self.closed = True
            self.peer.lost("the connection ended")


class Wire:
    """A connection between two processes."""

    def __init__(self, network: Network, dialing: Process, listening: Process) -> None:
        self.network = network
        self.near = End(self, dialing)
        self.far = End(self, listening)
        self.near.other, self.far.other = self.far, self.near
        #: Nothing moves any more, and nobody is told.
        self.dead = False
        #: Nothing moves any more, and both will be told.
        self.broken = False
        self._slow = network.random.choice((0.0002, 0.001, 0.02, 0.1))
        self._choppy = network.random.random() < 0.3

    def delay(self) -> float:
        return self._slow * (0.5 + self.network.random.random())

    def piece(self, size: int) -> int:
        return self.network.random.randint(1, size) if self._choppy else size

    def over(self, end: End) -> None:
        """One end closed, or its process died: the other hears of it, unless it can't."""
        other = end.other
        if other.closed or self.dead:
            self.network.forget(self)
            return
        if self.network.random.random() < 0.5:
            end.out.clear()  # a reset overtakes what was sent
        self.network.clock.at(self.delay() * 3, self._tell, other)

    def _tell(self, end: End) -> None:
        if end.closed or end.ended or self.dead:
            return
        if end.other.out and not end.paused and not self.broken:
            self.network.clock.at(self.delay() * 3, self._tell, end)
            return
        end.ended = True
        self.network.forget(self)
        end.process.run(end.tell)

    def cut(self) -> None:
        """Both ends hear that it ended; what is under way is gone."""
        self.broken = True
        for end in (self.near, self.far):
            end.out.clear()
            self.network.clock.at(self.delay() * 3, self._tell, end)


class Listener(Process, Protocol):
    """A server: takes connections."""

    name: str

    def accept(self, end: End) -> None: ...


class Network:
    """Who can reach whom."""

    def __init__(self, clock: Clock, random: Random, step: Callable[[str], None]) -> None:
        self.clock = clock
        self.random = random
        self.step = step
        self.listeners: dict[str, Listener] = {}
        #: Pairs of names between which nothing gets through.
        self.blocked: set[frozenset[str]] = set()
        self.wires: list[Wire] = []

    def dial(self, who: Listener, host: str, dialer: Any) -> None:
        """Open a connection; `dialer` hears of it."""
        pair = frozenset((who.name, host))
        target = self.listeners.get(host)
        if pair in self.blocked:
            self.clock.at(3.0, who.run, dialer.lost, "timed out")
        elif target is None or not target.alive:
            self.clock.at(0.001, who.run, dialer.lost, "connection refused")
        else:
            self.clock.at(0.001 * (1 + self.random.random()), self._open, who, host, dialer)

    def _open(self, who: Listener, host: str, dialer: Any) -> None:
        target = self.listeners.get(host)
        if not who.alive:
            return
        if target is None or not target.alive:
            who.run(dialer.lost, "connection refused")
            return
        wire = Wire(self, who, target)
        self.wires.append(wire)
        wire.near.peer = dialer
        target.accept(wire.far)
        who.run(dialer.connected, wire.near)

    def forget(self, wire: Wire) -> None:
        if wire in self.wires:
            self.wires.remove(wire)

    def between(self, first: str, second: str) -> list[Wire]:
        """The connections between these two."""
        names = {first, second}
        return [
            wire
            for wire in self.wires
            if {getattr(wire.near.process, "name", ""), getattr(wire.far.process, "name", "")}
            == names
        ]

    def died(self, process: Process, silently: bool) -> None:
        """A process is gone: the others hear of it, or (its host is gone too) they don't."""
        for wire in list(self.wires):
            for end in (wire.near, wire.far):
                if end.process is process and not end.closed:
                    if silently:
                        wire.dead = True
                        end.closed = True
                        self.forget(wire)
                    else:
                        end.close()
