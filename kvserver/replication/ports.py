"""What the replication core asks of the world around it; the edge answers, or a simulation.

Invariant: a `done` callback is called later, never within the call that it was given to, on the
loop's own thread, exactly once unless the caller has `cancel`led; a failure comes as a str.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from kvserver.frames import Frame
from kvserver.storage.positions import Touched


class Outlet(Protocol):
    """Where the bytes for a replica go."""

    def send(self, data: bytes) -> None:
        """Send; buffers what the peer doesn't take yet."""

    def buffered(self) -> int:
        """Bytes not yet taken by the peer."""

    def close(self) -> None:
        """Close at once; nothing is delivered any more, and no `lost` follows."""


class Link(Outlet, Protocol):
    """A byte stream to a primary."""

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver again, what has come meanwhile first."""


class Timers(Protocol):
    """The clock."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_later(self, seconds: float, callback: Callable[..., None], *args: Any) -> Any:
        """Call it later; the returned handle's `cancel()` undoes that."""


class Snapshot(NamedTuple):
    """A checkpoint to be sent. `seq` is the primary's position before it was begun: the stamp
    inside is that or a later one, and the log is needed from there on."""

    path: str
    seq: int
    made: float
    files: list[tuple[str, int]]


class Files(Protocol):
    """Files and other slow work, one thing after the other in the order of the calls."""

    def make_snapshot(self, done: Callable[[Snapshot | str], None]) -> None:
        """Flush, and make a checkpoint."""

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        """Delete it."""

    def read(
        self, snapshot: Snapshot, name: str, offset: int, size: int, done: Callable[[bytes], None]
    ) -> None:
        """A piece of one of its files; b"" if that can't be read."""

    def checksum(self, snapshot: Snapshot, name: str, done: Callable[[int], None]) -> None:
        """The crc32c of one of its files; -1 if that can't be read."""

    def begin_incoming(
        self, files: list[tuple[str, int]], done: Callable[[list[tuple[str, int]] | str], None]
    ) -> None:
        """Prepare to receive these files; (name, crc32c) of those that an interrupted transfer
        has left whole."""

    def write(self, name: str, offset: int, data: bytes, done: Callable[[str], None]) -> None:
        """Write a piece of an incoming file; "" or why that failed."""

    def end_file(self, name: str, crc: int, done: Callable[[str], None]) -> None:
        """An incoming file is whole: check it; "" or what is wrong."""

    def install(self, done: Callable[[str], None]) -> None:
        """Put the received data set in the place of the present one, which is closed; the commit
        log is reloaded when this is done. "" or why that failed."""

    def collect(
        self, start: int, fork: int, max_bytes: int, done: Callable[[Touched | str], None]
    ) -> None:
        """`PositionLog.collect`."""

    def save_discarded(self, frames: list[Frame], done: Callable[[str], None]) -> None:
        """Save frames that a rewind takes back, durably; "" or why that failed."""

    def cancel(self) -> None:
        """Forget what is under way for an incoming data set or a rewind: its `done` is not called
        any more. An `install` that has begun is finished, and its `done` called."""


class Host(Protocol):
    """The server around the core."""

    def dial(self, host: str, port: int, peer: Dialer) -> None:
        """Open a connection; the peer hears of it."""

    def commit(self) -> bool:
        """Commit what is pending; whether it is committed."""

    def role_changed(self) -> None:
        """Role, link or consistency changed: set the gates, and run parked commands later."""

    def demoted(self) -> None:
        """This server was a primary: answer those who wait for what may never be released."""

    def rewound(self) -> None:
        """Positions went back: nothing cached or waiting may depend on what was there."""

    def installed(self) -> None:
        """A frame was applied: fsync it as configured."""

    def write_failed(self, reason: str) -> None:
        """RocksDB refused a batch: recover."""

    def acknowledged(self) -> None:
        """A replica acknowledged, or went: release what waited for that."""

    def want_events(self, kinds: int) -> None:
        """Replicas want keyspace events of these kinds: let them travel."""

    def deliver(self, kind: bytes, channel: bytes, message: bytes) -> None:
        """A message from the primary for this server's subscribers."""

    def pause_writes(self, seconds: float) -> None:
        """Park writes for a failover, at most so long."""

    def unpause_writes(self) -> None:
        """Let them go on."""


class Dialer(Protocol):
    """Who asked for a connection."""

    def connected(self, link: Link) -> None:
        """It is open."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def lost(self, reason: str) -> None:
        """It couldn't be opened, or has ended."""
