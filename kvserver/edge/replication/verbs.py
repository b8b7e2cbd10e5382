"""What commands ask of replication (`state.replication.ReplicationVerbs`), and which session is the
link to which replica.

It must not know frames. Invariant: a session that is a replica's has an entry here from its PSYNC
until its connection is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvserver import errors
from kvserver.edge.replication.links import SessionLink
from kvserver.numbers import parse_int64
from kvserver.replication.node import Node
from kvserver.replication.primary import Downstream
from kvserver.state.replication import PsyncRequest
from kvserver.state.session import Session

#: Column families.
FAMILIES: Final = 4


class Verbs:
    """The commands' side of the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._links: dict[Session, tuple[SessionLink, Downstream]] = {}

    # -- the role ------------------------------------------------------------------------------

    def follow(self, host: str, port: int) -> None:
        self._node.follow(host, port)

    def promote(self) -> None:
        self._node.promote()

    def failover(self, target: tuple[str, int] | None, force: bool, timeout_ms: int) -> None:
        address = target or self._node.followers.best()
        if address is None:
            raise errors.error("FAILOVER requires connected replicas.")
        if self._node.followers.is_padded(address) and not force:
            raise errors.error(
                "FAILOVER target replica has passed over positions and lacks their writes; FORCE "
                "promotes it all the same."
            )
        self._node.failover.begin(address, force, timeout_ms)

    def abort_failover(self) -> None:
        self._node.failover.abort("FAILOVER ABORT was called")

    def end_primary_link(self) -> bool:
        upstream = self._node.upstream
        if upstream is None or not upstream.reachable:
            return False
        upstream.fail("CLIENT KILL")
        return True

    # -- a replica's connection ------------------------------------------------------------------

    def psync(self, session: Session, request: PsyncRequest) -> None:
        state = session.replica
        if state is None:
            raise errors.error("PSYNC needs REPLCONF listening-port first")
        session.depends = 0
        found = self._links.get(session)
        if found is not None:
            self._node.psync(found[1], request)
            return
        state.session, state.addr = session, session.addr
        link = SessionLink(session)
        replica = self._node.add_replica(link, state)
        link.on_drained = replica.drained
        self._links[session] = link, replica
        try:
            self._node.psync(replica, request)
        except errors.RedisError:
            del self._links[session]
            self._node.refuse(replica)
            raise

    def ack(self, session: Session, seq: int, synced_seq: int) -> None:
        found = self._links.get(session)
        if found is not None:
            self._node.ack(found[1], seq, synced_seq)

    def replconf(self, session: Session, option: bytes, values: list[bytes]) -> None:
        found = self._links.get(session)
        if found is None:
            return
        replica = found[1]
        try:
            if option == b"EVENTS":
                replica.state.events = _number(values[0])
                self._node.wishes.update()
            else:
                _listed(replica, option, values)
        except ValueError:
            self._node.cut(replica)

    def drained(self, session: Session) -> None:
        """The connection took what was sent."""
        found = self._links.get(session)
        if found is not None:
            found[0].drained()

    def gone(self, session: Session) -> None:
        """The connection is gone."""
        found = self._links.pop(session, None)
        if found is not None:
            self._node.cut(found[1])

    # -- acknowledgements ------------------------------------------------------------------------

    def count_acked(self, seq: int) -> int:
        return self._node.followers.count_acked(seq)

    def count_synced(self, seq: int) -> int:
        return self._node.followers.count_synced(seq)

    @property
    def on_ack(self) -> list[Callable[[], None]]:
        return self._node.on_ack


def _listed(replica: Downstream, option: bytes, values: list[bytes]) -> None:
    """REPLCONF HAVE, KEYS, RANGE, END; ValueError if the values are none of these."""
    if option == b"END":
        replica.end_of_list()
    elif option == b"HAVE" and len(values) == 2:
        replica.have(values[0].decode("ascii"), _number(values[1]))
    elif option == b"KEYS" and values:
        cf = _family(values[0])
        for key in values[1:]:
            replica.want(cf, key, None)
    elif option == b"RANGE" and len(values) == 3:
        replica.want(_family(values[0]), values[1], values[2])
    else:
        raise ValueError("not what a replica sends")


def _number(word: bytes) -> int:
    number = parse_int64(word)
    if number is None:
        raise ValueError("not a number")
    return number


def _family(word: bytes) -> int:
    cf = _number(word)
    if not 0 <= cf < FAMILIES:
        raise ValueError("no column family")
    return cf
