"""Whether a command may run now: the checks that only matter in some state of the server or of
the session, in the order of Redis 7.4's server.c, processCommand.

It must not know sockets or what a command does. Invariant: nothing here has an effect; dispatch
answers, parks or queues.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from kvserver import errors
from kvserver.errors import RedisError
from kvserver.registry import (
    IN_PUBSUB,
    LOADING,
    MAY_REPLICATE,
    NO_AUTH,
    NO_MULTI,
    READONLY,
    STALE,
    WRITE,
)
from kvserver.state import pause
from kvserver.state.session import (
    MONITORING,
    NEEDS_AUTH,
    REPLICATING,
    RESP2_SUBSCRIBED,
    RESTRICTED,
    Session,
)
from kvserver.state.table import Entry

if TYPE_CHECKING:
    from kvserver.state.server import Server

# Bits of the dispatcher's `gate`.
PAUSED: Final = 1
STALLED: Final = 2
FAILED: Final = 4
#: Everything waits: RocksDB is being opened again, or the server stops.
SUSPENDED: Final = 8
#: min-replicas-to-write isn't reached.
FEW_REPLICAS: Final = 16
#: This server is a replica.
READ_ONLY: Final = 32
#: Its link is down, and replica-serve-stale-data says no.
STALE_DATA: Final = 64
#: Its data set isn't what its primary had at any position.
SYNCING: Final = 128
#: Keys are on their way to another server (state/migrations.py).
MIGRATING: Final = 256
#: What `replication_gates` decides.
REPLICATION: Final = FEW_REPLICAS | READ_ONLY | STALE_DATA | SYNCING

#: The directives that it reads.
DIRECTIVES: Final = ("replica-serve-stale-data", "min-replicas-to-write", "min-replicas-max-lag")

#: They run in any state of the data set: one whose primary is gone in the middle of a rewind has to
#: be pointed at another.
ROLE_COMMANDS: Final = ("replicaof", "slaveof")


def refusal(server: Server, session: Session, entry: Entry, args: list[bytes]) -> RedisError | None:
    """Why the command can't run, if so."""
    flags, gate, state = entry.flags, session.gate, server.dispatcher.gate
    if gate & NEEDS_AUTH and not flags & NO_AUTH:
        return errors.no_auth()
    if session.in_multi and flags & NO_MULTI:
        return errors.not_in_transaction()
    if gate & RESTRICTED:
        denial = server.acl.check(session, entry, args)
        if denial is not None:
            return denial
    writes = effective_flags(session, entry)
    if state & FAILED and (writes & WRITE or entry.name == "ping"):
        return errors.misconf(server.dispatcher.failure)
    if state & (FEW_REPLICAS | READ_ONLY) and writes & WRITE:
        return errors.no_replicas() if state & FEW_REPLICAS else errors.readonly()
    if gate & RESP2_SUBSCRIBED and not flags & IN_PUBSUB:
        return errors.only_pubsub(entry.name)
    if state & STALE_DATA and _lacks(session, entry, STALE):
        return errors.master_down()
    if state & SYNCING and _lacks(session, entry, LOADING):
        return errors.loading()
    if gate & (MONITORING | REPLICATING) and writes & (WRITE | READONLY | MAY_REPLICATE):
        return errors.replica_keyspace()
    return None


def effective_flags(session: Session, entry: Entry) -> int:
    """The command's flags; for EXEC those of what is queued."""
    return session.queue_flags if entry.name == "exec" else entry.flags


def _lacks(session: Session, entry: Entry, flag: int) -> bool:
    """Whether the command, or for EXEC any that is queued, doesn't have a flag."""
    entries = [entry]
    if entry.name == "exec":
        entries += [queued for queued, _ in session.queue]
    return any(not e.flags & flag and e.name not in ROLE_COMMANDS for e in entries)


def must_wait(server: Server, session: Session, entry: Entry, args: list[bytes]) -> bool:
    """Whether the command must be set aside until a pause or stall is over."""
    state = server.dispatcher.gate
    if state & SUSPENDED:
        return True
    if session.gate & REPLICATING:
        return False  # a replica's acknowledgements aren't paused (processCommand: CLIENT_SLAVE)
    writes = effective_flags(session, entry) & (WRITE | MAY_REPLICATE)
    if state & STALLED and writes:  # a script may write
        return True
    if state & MIGRATING and writes and server.migrations.concern(session, entry, args):
        return True
    mode = server.pauses.mode
    return mode == pause.ALL or (mode == pause.WRITES and writes != 0)


def replication_gates(server: Server) -> int:
    """The bits that follow from role, links and consistency now."""
    config, replication = server.config, server.replication
    bits = 0
    if replication.is_replica:
        bits |= READ_ONLY
        if not replication.link_up and not config.get_bool("replica-serve-stale-data"):
            bits |= STALE_DATA
    else:
        wanted = config.get_int("min-replicas-to-write")
        lag = config.get_int("min-replicas-max-lag")
        if wanted and lag and replication.good_replicas(time.monotonic(), lag) < wanted:
            bits |= FEW_REPLICAS
    if replication.consistent_from > server.log.committed_seq:
        bits |= SYNCING
    return bits
