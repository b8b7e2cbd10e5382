"""A core without sockets whose replication's state is set by the test, and verbs that note what
commands ask for: what the tests of replication's commands, gates and figures share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core import LaterCore

from kvserver.errors import RedisError
from kvserver.state.info import sections
from kvserver.state.replication import PRIMARY, REPLICA, PsyncRequest, ReplicaState
from kvserver.state.session import Session

OK = b"+OK\r\n"


class Verbs:
    """What commands asked for. Roles change as the real core changes them; nothing is sent."""

    def __init__(self, core: LaterCore) -> None:
        self._core = core
        self.state = core.server.replication
        self.asked: list[tuple[object, ...]] = []
        self.on_ack: list[Callable[[], None]] = []
        self.refuse: RedisError | None = None

    def _ask(self, *words: object) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.asked.append(words)

    def follow(self, host: str, port: int) -> None:
        self._ask("follow", host, port)
        was_primary = self.state.role == PRIMARY
        self.state.role, self.state.primary_host, self.state.primary_port = REPLICA, host, port
        if was_primary:
            self._core.server.waiting.demoted()
        self._core.dispatcher.role_changed()

    def promote(self) -> None:
        self._ask("promote")
        self.state.role = PRIMARY
        self._core.dispatcher.role_changed()

    def psync(self, session: Session, request: PsyncRequest) -> None:
        self._ask("psync", session.id, request)
        session.send(b"+CONTINUE\r\n")

    def replconf(self, session: Session, option: bytes, values: list[bytes]) -> None:
        self._ask("replconf", session.id, option, values)

    def ack(self, session: Session, seq: int, synced_seq: int) -> None:
        self._ask("ack", session.id, seq, synced_seq)

    def failover(self, target: tuple[str, int] | None, force: bool, timeout_ms: int) -> None:
        self._ask("failover", target, force, timeout_ms)

    def abort_failover(self) -> None:
        self._ask("abort_failover")

    def end_primary_link(self) -> bool:
        self._ask("end_primary_link")
        return self.state.role == REPLICA

    def count_acked(self, seq: int) -> int:
        return sum(r.acked_seq >= seq for r in self.state.replicas)

    def count_synced(self, seq: int) -> int:
        return sum(r.synced_seq >= seq for r in self.state.replicas)

    def acknowledge(self, replica: ReplicaState, seq: int, synced: int = 0) -> None:
        replica.acked_seq, replica.synced_seq = seq, synced
        for callback in list(self.on_ack):
            callback()


class ReplicatedCore(LaterCore):
    """A core with replication's state, and a client."""

    def __init__(self, path: Path, **directives: str) -> None:
        self._slow: list[object] = []
        super().__init__(path, **directives)
        self.state = self.server.replication
        self.verbs = Verbs(self)
        self.state.verbs = self.verbs

    def call_later(self, seconds: float, callback: Any, *args: Any) -> Any:
        handle = super().call_later(seconds, callback, *args)
        if seconds:
            self._slow.append(self._later[-1])
        return handle

    def run_soon(self) -> None:
        """Let what is due at once go off, and no time-out."""
        waiting = [entry for entry in self._later if entry in self._slow]
        self._later = [entry for entry in self._later if entry not in self._slow]
        self.run_later()
        self._later = waiting + self._later

    def add_replica(self, port: int = 7001, state: str = "online") -> ReplicaState:
        replica = ReplicaState(
            addr=f"127.0.0.1:{port + 40000}",
            ip="127.0.0.1",
            port=port,
            state=state,
            last_ack=time.monotonic(),
        )
        self.state.replicas.append(replica)
        self.dispatcher.role_changed()
        return replica

    def become_replica(self, port: int = 7000) -> None:
        self.verbs.follow("127.0.0.1", port)
        self.verbs.asked.clear()

    def info(self) -> dict[str, str]:
        lines = sections.render(self.server, ["replication"], 0).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)
