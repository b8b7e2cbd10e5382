"""A client's session: what the server remembers of one connection.

It must not know sockets (a `Sink` takes the bytes) or commands. Invariants:
- `out` holds the replies of the running turn; they leave at its end, through `Turn.release`,
  when the position that they depend on is released.
- While `stop` is set nothing of the session's input is executed.
- `gate` is zero in the common case; each bit makes dispatch look closer.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from kvserver.state.replication import ReplicaState
    from kvserver.state.table import Entry
    from kvserver.state.tracking import ClientTracking
    from kvserver.state.turn import Mark, Turn

# Bits of `gate`: dispatch's slow path must look at the command.
IN_MULTI: Final = 1
NEEDS_AUTH: Final = 2
RESP2_SUBSCRIBED: Final = 4
REPLY_OFF: Final = 8
REPLY_SKIP: Final = 16
REPLY_SKIP_NEXT: Final = 32
RESP3_SUBSCRIBED: Final = 64
MONITORING: Final = 128
#: PSYNC was called: the connection is a replica's.
REPLICATING: Final = 256
#: Its user may not do everything (state/acl.py).
RESTRICTED: Final = 512
#: CLIENT TRACKING is on.
TRACKING: Final = 1024
#: CLIENT REPLY hides replies.
MUTES: Final = REPLY_OFF | REPLY_SKIP | REPLY_SKIP_NEXT

# Bits of `stop`: the connection executes nothing now.
BLOCKED: Final = 1
CLOSING: Final = 2
OUTPUT_FULL: Final = 4
#: Its command needs rows from the disk (state/cold.py).
COLD: Final = 8
#: It sent many requests at once: others have their turn (edge/connection.py).
GIVES_WAY: Final = 16

#: Replies of one turn above this size let the others have their turn first.
TURN_OUTPUT_BYTES: Final = 1 << 20
#: A reply larger than this is counted towards it.
COUNTED_REPLY: Final = 512


class Sink(Protocol):
    """Where a session's bytes go."""

    def write(self, data: bytes) -> None:
        """Send; buffers what the peer doesn't take yet."""

    def buffered(self) -> int:
        """Bytes not yet taken by the peer."""

    @property
    def query_buffered(self) -> int:
        """Bytes received and not yet executed."""

    @property
    def reading(self) -> bool:
        """Whether input is being read."""

    def close(self) -> None:
        """Close once everything written has left."""

    def abort(self) -> None:
        """Close at once."""

    def resume(self) -> None:
        """The session isn't stopped any more: execute what was received meanwhile."""

    def upcoming(self, most: int) -> list[list[bytes]]:
        """The first requests of those that were received meanwhile."""


class NoSink:
    """What a session without a connection has: takes everything, and keeps nothing. That of
    scripts has none. Nor has one whose connection is gone: if it went on referring to that, which
    refers to it, both would be left to the cyclic collector (state/collector.py)."""

    query_buffered = 0
    reading = False

    def write(self, data: bytes) -> None:
        return None

    def buffered(self) -> int:
        return 0

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None

    def resume(self) -> None:
        return None

    def upcoming(self, most: int) -> list[list[bytes]]:
        return []


NO_SINK: Final = NoSink()


class Session:
    """One connected client."""

    def __init__(self, session_id: int, sink: Sink, turn: Turn, addr: str, laddr: str) -> None:
        self.id = session_id
        self.sink = sink
        self.turn = turn
        self.addr = addr
        self.laddr = laddr
        self.fd = -1
        self.unix = False
        self.created = self.last_active = time.monotonic()
        self.db = 0
        self.resp3 = False
        #: Its user's name, and whether it proved to be that user. In a namespace the name is the
        #: namespace's, and nobody in `Acl.users`.
        self.user = "default"
        #: The index of its namespace's database; 0: it is in none.
        self.namespace = 0
        self.authenticated = True
        self.name = b""
        self.lib_name = b""
        self.lib_ver = b""
        self.last_command = "NULL"
        self.no_evict = False
        self.no_touch = False
        self.gate = 0
        self.stop = 0
        # Output
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.dirty = False
        self.depends = 0
        #: The last mark of `Turn.mark` in `out`.
        self.mark: Mark | None = None
        #: The position of the session's last write, for WAIT.
        self.written_seq = 0
        self.held: deque[tuple[int, list[bytes]]] = deque()
        self.held_bytes = 0
        self.soft_limit_since = 0.0
        # Commands set aside
        self.parked: list[bytes] | None = None
        self.blocked_on: Any = None
        #: Its command that waits for rows (state/cold.py), and what was fetched with them.
        self.cold: Any = None
        # Transactions
        self.queue: list[tuple[Entry, list[bytes]]] = []
        self.queue_flags = 0
        #: About how much memory the queue takes.
        self.queue_bytes = 0
        self.queue_error = False
        self.cas_dirty = False
        #: (database index, key) -> whether the key was missing, or expired, when WATCH was called.
        self.watching: dict[tuple[int, bytes], bool] = {}
        #: What REPLCONF said of the replica at the other end.
        self.replica: ReplicaState | None = None
        #: What CLIENT TRACKING asked for, while it is on.
        self.tracking: ClientTracking | None = None
        # Publish/subscribe
        # (dictionaries as ordered sets)
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.shard_channels: dict[bytes, None] = {}

    @property
    def in_multi(self) -> bool:
        """Whether MULTI was called and neither EXEC nor DISCARD yet."""
        return self.gate & IN_MULTI != 0

    @property
    def subscriptions(self) -> int:
        """Channels and patterns, shard channels not counted (as in SUBSCRIBE's reply)."""
        return len(self.channels) + len(self.patterns)

    @property
    def monitor(self) -> bool:
        """Whether MONITOR was called."""
        return self.gate & MONITORING != 0

    def mutes_reply(self) -> bool:
        """CLIENT REPLY: whether the reply of the command that ends now is hidden; SKIP hides that
        of the command after it."""
        hidden = self.gate & (REPLY_OFF | REPLY_SKIP) != 0
        self.gate &= ~REPLY_SKIP
        if self.gate & REPLY_SKIP_NEXT:
            self.gate ^= REPLY_SKIP_NEXT | REPLY_SKIP
        return hidden

    def send(self, data: bytes) -> None:
        """Add bytes to the turn's output."""
        self.out.append(data)
        size = len(data)
        if size > COUNTED_REPLY:
            self.out_bytes += size
            if self.out_bytes > TURN_OUTPUT_BYTES:
                self.stop |= OUTPUT_FULL
        if not self.dirty:
            self.turn.touch(self)

    def discard_transaction(self) -> None:
        """Forget MULTI's queue; WATCH is left to the caller."""
        self.gate &= ~IN_MULTI
        self.queue = []
        self.queue_flags = self.queue_bytes = 0
        self.queue_error = False

    def close_after_reply(self) -> None:
        """Execute nothing more, send what is to be sent, close."""
        self.stop |= CLOSING
        if not self.dirty:
            self.turn.touch(self)
