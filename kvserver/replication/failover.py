"""FAILOVER: hand the role of the primary to a replica without losing a write.

It must not know sockets. Source for states and texts: Redis 7.4's replication.c, "Coordinated
failover". The order is: connect to the target; pause writes; wait until it has acknowledged every
position; ask it, with PSYNC ... FAILOVER, to become the primary; when it answers, become its
replica; release the parked writes, which are then refused with READONLY.

Invariants:
- Writes stay paused until this server is a replica or the failover is called off: there is no
  moment with two primaries that both take writes.
- A target that can't be reached before it was asked ends the failover. One that was asked and
  didn't answer may have taken over: it is asked again, which it answers as before.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from kvserver.replication.replica import Upstream

if TYPE_CHECKING:
    from kvserver.replication.node import Node

logger = logging.getLogger("kvserver")

NONE: Final = "no-failover"
WAITING: Final = "waiting-for-sync"
IN_PROGRESS: Final = "failover-in-progress"
#: How long a target that was asked, and whose answer was lost, is asked again.
ANSWER_SECONDS: Final = 5.0
#: The pause ends with the failover: one that ran out before would let writes through that the
#: target doesn't have. (A century.)
PAUSE_SECONDS: Final = 3e9


class Failover:
    """The failover under way, if there is one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._upstream: Upstream | None = None
        self._target: tuple[str, int] = ("", 0)
        self._force = False
        self._timeout = 0.0
        self._timer: Any = None
        self._asked = False
        self._paused_at: float | None = None
        #: The target is to take over although it lacks positions.
        self.forced = False

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._upstream is not None

    def begin(self, target: tuple[str, int], force: bool, timeout_ms: int) -> None:
        """Begin; whether it may was checked before."""
        logger.info("FAILOVER requested to %s:%d.", *target)
        self._target, self._force, self._timeout = target, force, timeout_ms / 1000
        self._asked = self.forced = False
        self._set(WAITING)
        self._upstream = Upstream(self._node, *target, failover=True)
        if self._timeout:
            self._timer = self._node.timers.call_later(self._timeout, self._timed_out)
        self._upstream.start()

    def abort(self, reason: str) -> None:
        """Call it off: this server stays the primary."""
        if self._upstream is not None:
            logger.warning("Failover aborted: %s", reason)
            self._upstream.stop()
            self._end()

    # -- events ------------------------------------------------------------------------------

    def connected(self) -> None:
        """The target takes our connection: from now on writes wait."""
        if self._asked:
            self._ask()
            return
        self._node.host.pause_writes(PAUSE_SECONDS)
        self._node.host.commit()
        self.acknowledged()

    def acknowledged(self) -> None:
        """A replica acknowledged: perhaps it has everything now."""
        if self._upstream is None or self._asked or not self._upstream.reachable:
            return
        log = self._node.log
        if not log.pending and self._node.followers.acked_by(self._target) >= log.committed_seq:
            self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._set(IN_PROGRESS)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._node.timers.call_later(ANSWER_SECONDS, self._no_answer)
        if self._upstream is not None:
            self._upstream.psync()

    def _timed_out(self) -> None:
        if self._asked or self._upstream is None:
            return
        if self._force and self._upstream.reachable and self._node.host.commit():
            # (What RocksDB stalls would be committed after the target has taken over.)
            logger.warning("Failover to %s:%d time out exceeded, failing over.", *self._target)
            self.forced = True
            self._ask()
        else:
            self.abort("Replica never caught up before timeout")

    def _no_answer(self) -> None:
        self.abort("the target was asked to take over and doesn't answer; look at its role")

    def refused(self, reason: str) -> None:
        """The target answered with an error."""
        self.abort(f"Failover target rejected psync request: {reason}")

    def link_lost(self) -> None:
        """The connection to the target ended; it is opened again if the target was asked."""
        if not self._asked:
            self.abort("the target can't be reached")

    def done(self) -> None:
        """The target is the primary."""
        upstream = self._upstream
        if upstream is not None:
            logger.info("Failover target %s:%d took over.", *self._target)
            self._node.hand_over(upstream)
            self._end()

    def _end(self) -> None:
        self._upstream = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._set(NONE)
        self._node.host.unpause_writes()
        if self._paused_at is not None:
            paused = self._node.timers.now() - self._paused_at
            self._node.state.last_failover_stall_us = int(paused * 1e6)
            self._paused_at = None

    def _set(self, state: str) -> None:
        self._node.state.failover_state = state
