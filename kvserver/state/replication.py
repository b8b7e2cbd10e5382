"""Replication as INFO, ROLE, dispatch and the commands see it, and what commands may ask of it.

It must not know links, frames or who fills it in: `kvserver.replication` does that, and
implements `ReplicationVerbs`. A server has a `Replication` from the start; until the verbs are
set it is a primary without replicas.

Invariants: times are monotonic seconds unless a name says otherwise; positions are log positions
(docs/replication.md); only `kvserver.replication` changes what is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from kvserver.history import History

if TYPE_CHECKING:
    from kvserver.state.session import Session
    from kvserver.storage.positions import PositionLog

# Roles.
PRIMARY: Final = 0
REPLICA: Final = 1

# What a replica is being brought to the primary's state by: Redis' words, and `rewind`.
WAIT_BGSAVE: Final = "wait_bgsave"
SEND_BULK: Final = "send_bulk"
REWIND: Final = "rewind"
ONLINE: Final = "online"

NO_FAILOVER: Final = "no-failover"

#: (first, last, unix ms, peer, reason): positions that were passed over.
Padded = tuple[int, int, int, str, str]


def not_behind() -> tuple[int, int]:
    """`ReplicaState.behind` of who isn't sent frames."""
    return 0, 0


@dataclass
class ReplicaState:
    """A replica, or who introduced itself as one with REPLCONF and hasn't sent PSYNC yet."""

    #: The connection's address, for logs and CLIENT LIST.
    addr: str = ""
    #: Where the replica can be reached, as it announced it; the address is the connection's
    #: unless it says otherwise.
    ip: str = ""
    port: int = 0
    #: Its run id, so that a circle is found.
    run_id: bytes = b""
    session: Session | None = None
    state: str = WAIT_BGSAVE
    sent_seq: int = 0
    acked_seq: int = 0
    synced_seq: int = 0
    last_ack: float = 0.0
    sync_bytes_done: int = 0
    sync_bytes_total: int = 0
    #: The kinds of keyspace events that it wants (state/notify.py).
    events: int = 0
    #: About how many bytes of log it lacks, and the unix time in ms of the oldest write that it
    #: lacks; 0: it lacks none, -1: the log has it no more. Set while it is online.
    behind: Callable[[], tuple[int, int]] = not_behind


@dataclass(frozen=True)
class PsyncRequest:
    """PSYNC of a replica: what it has, and what it can do."""

    replid: str
    last_seq: int
    history: History
    #: The position from which on it is equal to a primary; 0: it is (docs/replication.md).
    consistent_from: int
    can_rewind: bool
    may_pad: bool
    wants_full: bool
    #: The primary asks us to take over.
    failover: bool
    #: Even if we lack positions that it has (FAILOVER ... FORCE).
    forced: bool = False
    #: The replica has passed over positions after this one; None: over none.
    padded_after: int | None = None


class ReplicationVerbs(Protocol):
    """What commands may ask. Nothing here waits: what takes time goes on after the call. What
    can't be done is raised as a RedisError."""

    def follow(self, host: str, port: int) -> None:
        """REPLICAOF host port."""

    def promote(self) -> None:
        """REPLICAOF NO ONE. Nothing happens on a primary."""

    def psync(self, session: Session, request: PsyncRequest) -> None:
        """PSYNC on this connection, whose `session.replica` says who it is: from now on it is a
        replica's. The answer is written to the connection by this call or later, behind the
        replies that the session's output holds already."""

    def replconf(self, session: Session, option: bytes, values: list[bytes]) -> None:
        """REPLCONF HAVE, KEYS, RANGE, END, EVENTS of a session that sent PSYNC; `option` in
        capitals."""

    def ack(self, session: Session, seq: int, synced_seq: int) -> None:
        """REPLCONF ACK seq FACK synced_seq of a session that sent PSYNC."""

    def failover(self, target: tuple[str, int] | None, force: bool, timeout_ms: int) -> None:
        """FAILOVER, checked already; without a target the first replica that has everything
        takes over. `timeout_ms` 0: without end."""

    def abort_failover(self) -> None:
        """FAILOVER ABORT while one is under way."""

    def end_primary_link(self) -> bool:
        """CLIENT KILL TYPE master: end the connection to the primary, which is opened again;
        whether there was one."""

    def count_acked(self, seq: int) -> int:
        """How many replicas have this position."""

    def count_synced(self, seq: int) -> int:
        """How many replicas have it on disk."""

    @property
    def on_ack(self) -> list[Callable[[], None]]:
        """What to call after acknowledgements and fsyncs, here or on a replica."""


@dataclass
class Replication:
    """This server's role, its link to the primary, its replicas, and counters."""

    role: int = PRIMARY
    # The link to the primary.
    primary_host: str = ""
    primary_port: int = 0
    #: ROLE's words: connect, connecting, sync, connected.
    link: str = "connect"
    link_up: bool = False
    link_down_since: float = 0.0
    last_io: float = 0.0
    #: The primary's last known position.
    upstream_seq: int = 0
    sync_in_progress: bool = False
    sync_bytes_total: int = 0
    sync_bytes_done: int = 0
    sync_last_io: float = 0.0
    # The data set.
    #: Commands get LOADING while the committed position is below it; 0: the data set is sound.
    consistent_from: int = 0
    padded: list[Padded] = field(default_factory=list)
    # Those below.
    replicas: list[ReplicaState] = field(default_factory=list)
    failover_state: str = NO_FAILOVER
    #: How long the last failover that this server was asked for paused writes; -1: none has.
    last_failover_stall_us: int = -1
    # Counters.
    sync_full: int = 0
    sync_partial_ok: int = 0
    sync_partial_err: int = 0
    rewinds: int = 0
    rewound_positions: int = 0
    padding_events: int = 0
    padded_sequences: int = 0
    #: Set by the composition root.
    verbs: ReplicationVerbs | None = None
    index: PositionLog | None = None

    @property
    def is_replica(self) -> bool:
        """Whether this server follows a primary."""
        return self.role == REPLICA

    @property
    def primary(self) -> tuple[str, int] | None:
        """The address of the primary; None: this server is one."""
        return (self.primary_host, self.primary_port) if self.is_replica else None

    def good_replicas(self, now: float, max_lag: int) -> int:
        """How many replicas are online and acknowledged within the last `max_lag` seconds
        (refreshGoodSlavesCount)."""
        return sum(r.state == ONLINE and int(now - r.last_ack) <= max_lag for r in self.replicas)

    def reset_counters(self) -> None:
        """CONFIG RESETSTAT."""
        self.sync_full = self.sync_partial_ok = self.sync_partial_err = 0
