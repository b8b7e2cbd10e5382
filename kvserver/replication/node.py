"""One server's part in replication: its role, the link to its primary, the links to its replicas.

It must not know asyncio, sockets or files: `Host`, `Files` and `Timers` (ports.py) do what it
asks. Invariants:
- A primary that begins, by promotion or after a failure, begins a new era before it writes.
- Whoever is not equal to some primary's state at its position (a rewind under way) serves no
  replica and is not promoted.
- Links to replicas end when positions go back or the data set is replaced under them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvserver import codec, errors, frames
from kvserver.config import Config
from kvserver.replication import negotiate
from kvserver.replication.consistency import Consistency
from kvserver.replication.failover import Failover
from kvserver.replication.followers import Followers
from kvserver.replication.handshake import Answered
from kvserver.replication.ports import Files, Host, Outlet, Timers
from kvserver.replication.primary import Downstream
from kvserver.replication.replica import ONLINE, REWINDING, SYNC, Upstream
from kvserver.replication.snapshots import Snapshots
from kvserver.replication.wishes import Wishes
from kvserver.state.replication import (
    PRIMARY,
    REPLICA,
    PsyncRequest,
    ReplicaState,
    Replication,
)
from kvserver.storage.commitlog import CommitLog
from kvserver.storage.positions import PositionLog

if TYPE_CHECKING:
    from kvserver.replication.incoming import Incoming

logger = logging.getLogger("kvserver")


class Node:
    """The composition of the core."""

    def __init__(
        self,
        config: Config,
        log: CommitLog,
        index: PositionLog,
        state: Replication,
        host: Host,
        files: Files,
        timers: Timers,
        run_id: str,
    ) -> None:
        self.config = config
        self.log = log
        self.index = index
        self.state = state
        self.host = host
        self.files = files
        self.timers = timers
        self.run_id = run_id
        self.consistency = Consistency(log)
        #: The history when `consistency` was last read for a frame.
        self._history = log.history
        self.snapshots = Snapshots(config, log, index, files, timers)
        self.failover = Failover(self)
        self.upstream: Upstream | None = None
        self.followers = Followers(log, index)
        self.replicas = self.followers.links
        self.wishes = Wishes(self)
        #: What to call after an acknowledgement or fsync: those who WAIT.
        self.on_ack: list[Callable[[], None]] = []
        #: A received data set is being put in place.
        self.installing = False
        #: An era began in spite of gaps, and may not be written yet.
        self._is_leaving_gaps = False
        self._last_ping = timers.now()
        self._show_consistency()

    # -- roles -------------------------------------------------------------------------------

    def follow(self, host: str, port: int) -> None:
        """Become the replica of this server."""
        self.failover.abort("REPLICAOF was called")
        self._leave_primary()
        upstream = Upstream(self, host, port)
        self._take_upstream(upstream)
        self.timers.call_later(0, upstream.start)

    def hand_over(self, upstream: Upstream) -> None:
        """The target of a failover answered: become its replica, on the link that is there."""
        self._take_upstream(upstream)

    def _take_upstream(self, upstream: Upstream) -> None:
        was_primary = self.state.role == PRIMARY
        self.upstream = upstream
        self.state.role = REPLICA
        self.state.primary_host, self.state.primary_port = upstream.host, upstream.port
        self.state.link_down_since = self.timers.now()
        if was_primary:
            self.host.demoted()
        self.upstream_changed()

    def _leave_primary(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.stop()

    def credentials_changed(self) -> None:
        """`masterauth` or `masteruser` has a new value."""
        if self.upstream is not None:
            self.upstream.retry_soon()

    def promote(self) -> None:
        """Become a primary, with a new era."""
        if self.state.role == PRIMARY:
            return
        if self.consistency.until:
            raise errors.error(
                f"this replica is being rewound and {self.consistency.unequal}; promote another one"
            )
        if self.installing:
            raise errors.error("a full sync's data set is being put in place; try again soon")
        self._leave_primary()
        self.state.role = PRIMARY
        self.state.primary_host, self.state.primary_port = "", 0
        self.begin_era()
        logger.info("This server is a primary now")
        self.upstream_changed()

    def begin_era(self) -> None:
        """From here on positions are this server's own. Without effect while a rewind is under way,
        which a start without the primary that it needs may find: nothing can be written then."""
        if self.consistency.until:
            return
        if self.consistency.padded:
            # Nobody else has this data set: whoever shares what it began with is to be rewound.
            logger.warning("A primary in spite of positions that were passed over")
            self.log.meta.delete(codec.PADDED_KEY)
            self.leave_position()  # they ask anew, and are rewound
            self._is_leaving_gaps = True
        self.log.begin_epoch(self.consistency.shared)
        logger.info("Epoch %d begins at position %d", self.log.epoch, self.log.last_seq)
        self.host.commit()
        self.consistency.load()
        self._show_consistency()

    def _has_left_gaps(self) -> bool:
        """Whether the era that began in spite of gaps is written, if one did. RocksDB may stall:
        its gaps are forgotten then already, and its history is still that of others."""
        if self._is_leaving_gaps and not self.log.pending:
            self._is_leaving_gaps = False
            self.consistency.load()
            self._show_consistency()
        return not self._is_leaving_gaps

    # -- what commands ask ---------------------------------------------------------------------

    def psync(self, replica: Downstream, request: PsyncRequest) -> None:
        """PSYNC from a replica; raises the error to be answered."""
        if replica.is_framed:
            logger.warning("Replica %s sends PSYNC amidst frames", replica.state.addr)
            self.cut(replica)
            return
        if request.failover:
            self._take_over(request)
        if replica.state.run_id in (self.run_id.encode(), *self._above()):
            raise errors.error("refusing to replicate in a circle: you are my primary, or myself")
        self._cut_former(replica)
        if self.consistency.until or self._is_leaving_its_state() or not self._has_left_gaps():
            raise errors.no_master_link("not connected with my master")
        replica.psync(request)
        self.replicas_changed()

    def _is_leaving_its_state(self) -> bool:
        """Whether a full sync or a rewind is under way. Of two servers, or more in a circle, that
        rewind to each other one must not serve: each would throw away what the other one copies,
        and none would ever be equal to a primary. A received data set is put in place even if its
        link has ended meanwhile, under whoever were served the old one."""
        leaving = self.upstream is not None and self.upstream.phase in (SYNC, REWINDING)
        return leaving or self.installing

    def _cut_former(self, replica: Downstream) -> None:
        """It has connected anew: end the link that it had before."""
        for other in list(self.replicas):
            if (
                other is not replica
                and other.state.run_id
                and other.state.run_id == replica.state.run_id
            ):
                self.cut(other)

    def _take_over(self, request: PsyncRequest) -> None:
        """PSYNC FAILOVER: the primary hands over. One that asks again has been answered before,
        and the answer was lost."""
        log = self.log
        if self.state.role == PRIMARY:
            fork = log.history.fork(log.committed_seq, request.history, request.last_seq)
            if fork is None or (fork != request.last_seq and not request.forced):
                raise errors.error("PSYNC FAILOVER can't be sent to a master.")
            return
        current = log.history.upto(log.committed_seq).current
        if current.replid != request.replid:
            raise errors.error("PSYNC FAILOVER replid must match my replid.")
        if log.committed_seq != request.last_seq and not request.forced:
            # It believes an acknowledgement that came before this server lost its unsynced end.
            raise errors.error(
                f"PSYNC FAILOVER: I am at {log.committed_seq}, not at your position."
            )
        if log.failed or (self.consistency.padded and log.engine.stopped()):
            raise errors.error("PSYNC FAILOVER: I can't write now.")
        logger.info("Failover request received for replid %s.", request.replid)
        self.promote()

    def add_replica(self, link: Outlet, state: ReplicaState) -> Downstream:
        """A connection turns out to be a replica's."""
        replica = Downstream(self, link, state)
        state.last_ack = self.timers.now()
        self.replicas.append(replica)
        self.wishes.update()
        return replica

    def refuse(self, replica: Downstream) -> None:
        """Its first PSYNC was answered with an error: the connection is any client's again."""
        self.replicas.remove(replica)
        self.wishes.update()
        replica.leave()

    def cut(self, replica: Downstream) -> None:
        """End the link to a replica, or note that it ended."""
        if replica in self.replicas:
            self.replicas.remove(replica)
            self.wishes.left(replica.state)
            replica.close()
            self.replicas_changed()

    def cut_all(self) -> None:
        """End the links to all replicas: they come back and ask anew."""
        for replica in list(self.replicas):
            self.cut(replica)

    def ack(self, replica: Downstream, seq: int, synced: int) -> None:
        """REPLCONF ACK from a replica. Until it is online its positions may be of another lineage:
        then it only says that it is there."""
        state = replica.state
        state.last_ack = self.timers.now()
        if not replica.is_online:
            return
        state.acked_seq = min(max(seq, 0), self.log.committed_seq)
        state.synced_seq = min(max(synced, 0), state.acked_seq)
        self._acknowledged()

    def _acknowledged(self) -> None:
        if self.log.quorum:
            self.log.acknowledged(self.followers.acked_by_quorum(self.log.quorum))
            self.host.acknowledged()
        if self.failover.running:
            self.failover.acknowledged()
        for callback in list(self.on_ack):
            callback()

    # -- events of this server -------------------------------------------------------------------

    def pump(self) -> None:
        """There may be new frames for the replicas."""
        for replica in list(self.replicas):
            replica.pump()

    def synced(self) -> None:
        """The log was fsynced."""
        if self.upstream is not None:
            self.upstream.acknowledge()
        for callback in list(self.on_ack):
            callback()

    def tick(self) -> None:
        """Once a second."""
        now = self.timers.now()
        timeout = self.config.get_int("repl-timeout")
        for replica in list(self.replicas):
            if now - replica.state.last_ack > timeout:
                logger.warning("Disconnecting timedout replica: %s", replica.state.addr)
                self.cut(replica)
        due = now - self._last_ping >= self.config.get_int("repl-ping-replica-period")
        if due:
            self._last_ping = now
        self._ping([replica for replica in self.replicas if due or not replica.is_online])
        if self.upstream is not None:
            self.upstream.tick()
        self._has_left_gaps()
        self.snapshots.tick()
        self.wishes.tick()
        self.host.role_changed()

    def _ping(self, replicas: list[Downstream]) -> None:
        """Tell them that this server is there. Those that wait for a checkpoint or for their turn
        hear it each second, as in Redis: they may wait for longer than `repl-timeout`."""
        payload = frames.pack_fields([self.run_id.encode(), *self._above()])
        for replica in replicas:
            replica.heartbeat(payload)

    def greet(self, replica: Downstream) -> None:
        """A replica is online: it must know at once who is above it."""
        replica.heartbeat(frames.pack_fields([self.run_id.encode(), *self._above()]))

    def _above(self) -> list[bytes]:
        return self.upstream.above if self.upstream is not None else []

    def publish(self, kind: bytes, channel: bytes, message: bytes) -> None:
        """A message was published here: the replicas' subscribers get it too (R6)."""
        if self.replicas:
            payload = frames.pack_fields([kind, channel, message])
            for replica in self.replicas:
                replica.publish(payload)

    def write_failed(self, reason: str) -> None:
        """RocksDB refused a frame."""
        self.host.write_failed(reason)

    def before_reopen(self) -> None:
        """RocksDB is about to be closed: nothing may hold an iterator. Links come back."""
        self.cut_all()
        if self.upstream is not None and self.upstream.reachable:
            self.upstream.fail("RocksDB is opened again")

    def reopened(self) -> None:
        """RocksDB was opened again after a failure; what it lost, replicas may have (R5)."""
        self.snapshots.forget()
        self.index.forget()
        self.consistency.load()
        if self.state.role == PRIMARY:
            self.begin_era()

    def stop(self) -> None:
        """The server stops: nothing comes in any more."""
        self.failover.abort("the server stops")
        if self.upstream is not None:
            self.upstream.stop()

    # -- events of the link to the primary -------------------------------------------------------

    @property
    def consistent_from(self) -> int:
        """The position from which on this data set is its primary's, for PSYNC."""
        return self.consistency.consistent_from

    def rewind_start(self, fork: int) -> int:
        """The RocksDB sequence from which on a rewind to `fork` must read; raises LogGone."""
        state = self.consistency
        start = self.index.sequence_of(fork + 1)
        if state.until:
            start = min(start, state.start)
        if state.shared is not None:
            start = min(start, self.index.sequence_of(state.shared + 1))
        return start

    def answered(self, answer: Answered) -> None:
        """The primary answered PSYNC."""
        if answer.kind == negotiate.FULLRESYNC:
            self.state.sync_in_progress = True

    def applied(self, upstream: Upstream) -> None:
        """A frame was applied."""
        self.state.upstream_seq = upstream.primary_seq
        if self.log.history is not self._history:
            # A new era, or positions that were passed over above: both come with a history.
            self._history, gaps = self.log.history, self.consistency.padded
            self.consistency.load()
            if self.consistency.padded != gaps:
                self._leave_history()
            self.upstream_changed()
        if self.state.consistent_from:
            self._show_consistency()
            if not self.state.consistent_from:
                logger.info("Rewind: equal to the primary at %d", self.log.committed_seq)
                self.host.role_changed()
        self.host.installed()

    def heard(self) -> None:
        """The primary sent its position."""
        self.upstream_changed()

    def deliver(self, payload: bytes) -> None:
        """The primary sent a message for subscribers, here and below."""
        fields = frames.unpack_fields(payload)
        if len(fields) != 3:
            raise frames.FrameError("a message that is none")
        self.host.deliver(*fields)
        self.publish(*fields)

    def upstream_changed(self) -> None:
        """The link or what it does changed: show it."""
        state, upstream = self.state, self.upstream
        was_up = state.link_up
        state.link_up = upstream is not None and upstream.phase == ONLINE
        if was_up and not state.link_up:
            state.link_down_since = self.timers.now()
        if upstream is not None:
            state.link = "sync" if upstream.phase == REWINDING else upstream.phase
            state.last_io = upstream.last_io
            state.upstream_seq = upstream.primary_seq
            state.sync_in_progress = upstream.phase == SYNC
        self._show_consistency()
        self.host.role_changed()

    def replicas_changed(self) -> None:
        """A replica came or went."""
        self.state.replicas = [replica.state for replica in self.replicas]
        self.wishes.update()
        self._acknowledged()
        self.host.role_changed()

    def _show_consistency(self) -> None:
        self.state.consistent_from = self.consistency.until
        self.state.padded = [entry[1:] for entry in self.consistency.padded]

    def sync_progress(self, incoming: Incoming) -> None:
        """Bytes of a full sync came."""
        self.state.sync_bytes_total = incoming.bytes_total
        self.state.sync_bytes_done = incoming.bytes_done
        self.state.sync_last_io = self.timers.now()

    def before_install(self) -> None:
        """The data set is about to be replaced."""
        self.installing = True
        self.cut_all()
        self.snapshots.forget()

    def after_install(self, failure: str) -> None:
        """It was, or not."""
        self.installing = False
        self.index.forget()
        self.consistency.load()
        self.state.sync_in_progress = False
        self.upstream_changed()

    def leave_position(self) -> None:
        """Positions are about to go back: nobody may depend on what was there."""
        self.cut_all()
        self.snapshots.forget()

    def went_back(self, lost: int) -> None:
        """They did, by so many."""
        self.index.forget()
        self.consistency.load()
        self.state.rewinds += 1
        self.state.rewound_positions += lost
        self.host.rewound()
        self.upstream_changed()

    def rewound(self) -> None:
        """The last piece of a rewind was written."""
        self.consistency.load()
        self.upstream_changed()

    def passed_over(self) -> None:
        """Positions were passed over here."""
        self._history = self.log.history
        self.index.forget()
        self.consistency.load()
        self._leave_history()
        self.host.installed()
        self.upstream_changed()

    def _leave_history(self) -> None:
        """Positions were passed over here, or above: this data set isn't what its history says any
        more. Whoever is being copied from it, or rewound to it, would begin with the one and end
        with the other: they ask anew. Those that are sent frames are told in them."""
        self.snapshots.forget()
        for replica in list(self.replicas):
            if replica.is_framed and not replica.is_online:
                self.cut(replica)

    # -- figures ---------------------------------------------------------------------------------

    def count(self, answer: negotiate.Answer, request: PsyncRequest) -> None:
        """INFO's sync_full, sync_partial_ok, sync_partial_err."""
        if answer.kind != negotiate.FULLRESYNC:
            self.state.sync_partial_ok += 1
            return
        self.state.sync_full += 1
        if request.last_seq > 0:
            self.state.sync_partial_err += 1

    def pinned_file(self) -> int | None:
        """The oldest log file that a replica or a full sync needs; None: none is."""
        kept = self.snapshots.pinned()
        return self.followers.pinned_file(None if kept is None else kept + 1)
