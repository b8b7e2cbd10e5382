"""Which keyspace events replicas want, and what this server therefore wants of its primary.

It must not know what an event is. Nobody who has no replica that wants events pays for them: only
what is wanted when a batch is committed travels with it. Invariants:
- What a replica wants counts from before its PSYNC is answered.
- A replica that left is remembered for LINGER_SECONDS: what is written until it comes back it is
  sent from the log, and its subscribers are to be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvserver.state.notify import wanted_by
from kvserver.state.replication import ReplicaState

if TYPE_CHECKING:
    from kvserver.replication.node import Node

#: As long as Redis keeps its backlog without replicas (repl-backlog-ttl).
LINGER_SECONDS: Final = 3600.0


class Wishes:
    """What those below want."""

    def __init__(self, node: Node) -> None:
        self._node = node
        #: (kinds, until when) of replicas that are away, by run id.
        self._away: dict[bytes, tuple[int, float]] = {}
        self.below = 0

    @property
    def total(self) -> int:
        """What this server wants of its primary: for its own subscribers, and for those below."""
        return wanted_by(self._node.config.get_str("notify-keyspace-events")) | self.below

    def update(self) -> None:
        """Replicas came, or want something else, or the configuration has changed."""
        below = 0
        for replica in self._node.replicas:
            below |= replica.state.events
            self._away.pop(replica.state.run_id, None)
        for kinds, _ in self._away.values():
            below |= kinds
        if below != self.below:
            self.below = below
            self._node.host.want_events(below)
        if self._node.upstream is not None:
            self._node.upstream.tell_wishes()

    def left(self, replica: ReplicaState) -> None:
        """A replica's link ended."""
        if replica.events:
            until = self._node.timers.now() + LINGER_SECONDS
            self._away[replica.run_id] = (replica.events, until)
        else:
            self._away.pop(replica.run_id, None)

    def tick(self) -> None:
        """Once a second: forget who doesn't come back."""
        now = self._node.timers.now()
        gone = [run_id for run_id, (_, until) in self._away.items() if until < now]
        for run_id in gone:
            del self._away[run_id]
        if gone:
            self.update()
