"""REPLICAOF, SLAVEOF, ROLE, FAILOVER, and what replicas send: PSYNC and REPLCONF.

What they set in motion is `server.replication.verbs`' (state/replication.py). In a MULTI no handler
waits, and all but PSYNC may stand in one, as Sentinel sends them. SYNC, which only a replica of
Redis' first versions sends, doesn't exist. Source: Redis 7.4's replication.c.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvserver import errors, history, resp
from kvserver.args import Cursor, parse_int, parse_int_in
from kvserver.numbers import parse_int64
from kvserver.registry import (
    ADMIN,
    ALLOW_BUSY,
    FAST,
    LOADING,
    NO_ASYNC_LOADING,
    NO_MULTI,
    NOSCRIPT,
    STALE,
    WALK,
    command,
)
from kvserver.state import clientinfo
from kvserver.state.context import Blocked, ReadContext
from kvserver.state.replication import (
    NO_FAILOVER,
    ONLINE,
    PsyncRequest,
    ReplicaState,
    Replication,
    ReplicationVerbs,
)
from kvserver.state.session import MONITORING, REPLICATING, Session

if TYPE_CHECKING:
    from kvserver.state.server import Server

logger = logging.getLogger("kvserver")

#: What PSYNC's third argument names.
PROTOCOL: Final = b"KV1"
_MAX_POSITION: Final = (1 << 64) - 1
#: Kinds of events are bits of 16.
_MAX_EVENTS: Final = (1 << 16) - 1
#: NET_HOST_STR_LEN of Redis.
_MAX_ADDRESS: Final = 256


def _verbs(server: Server) -> ReplicationVerbs:
    verbs = server.replication.verbs
    if verbs is None:
        raise errors.error("this server doesn't replicate")
    return verbs


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


# -- REPLICAOF ---------------------------------------------------------------------------------

_REPLICAOF_FLAGS: Final = NO_ASYNC_LOADING | ADMIN | NOSCRIPT | STALE | WALK
#: How long REPLICAOF waits for a replica's link to end.
_PROMOTION_MS: Final = 1000


@command(
    "replicaof",
    3,
    _REPLICAOF_FLAGS,
    group="server",
    since="5.0.0",
    summary="Configures a server as replica of another, or promotes it to a master.",
)
def replicaof(ctx: ReadContext, host: bytes, port: bytes) -> resp.Simple | Blocked:
    replication = ctx.server.replication
    if replication.failover_state != NO_FAILOVER:
        raise errors.error("REPLICAOF not allowed while failing over.")
    if (host.lower(), port.lower()) == (b"no", b"one"):
        if replication.is_replica:
            _verbs(ctx.server).promote()
            logger.info("MASTER MODE enabled (user request from '%s')", _name(ctx.session))
        return resp.OK
    if ctx.session.gate & (MONITORING | REPLICATING):
        raise errors.error("Command is not valid when client is a replica.")
    address = (host.decode("utf-8", "replace"), parse_int_in(port, 0, 65535, "Invalid master port"))
    if replication.primary is not None and _same(replication.primary, address):
        logger.info(
            "REPLICAOF would result into synchronization with the master we are already connected "
            "with. No operation performed."
        )
        return resp.Simple(b"OK Already connected to specified master")
    if address[1] in _own_ports(ctx) and _is_own(ctx, address[0]):
        raise errors.error(f"{address[0]}:{address[1]} is this server")
    if _is_replica(replication, address) and not ctx.deny_blocking:
        return _when_promoted(ctx.server, ctx.session, address)
    return _follow(ctx.server, ctx.session, address)


@command(
    "slaveof",
    3,
    _REPLICAOF_FLAGS,
    group="server",
    since="1.0.0",
    summary="Sets a Redis server as a replica of another, or promotes it to being a master.",
    deprecated=("5.0.0", "`REPLICAOF`"),
)
def slaveof(ctx: ReadContext, host: bytes, port: bytes) -> resp.Simple | Blocked:
    return replicaof(ctx, host, port)


def _follow(server: Server, session: Session, address: tuple[str, int]) -> resp.Simple:
    _verbs(server).follow(*address)
    logger.info("REPLICAOF %s:%d enabled (user request from '%s')", *address, _name(session))
    return resp.OK


def _name(session: Session) -> str:
    return _text(clientinfo.describe(session))


def _is_replica(replication: Replication, address: tuple[str, int]) -> bool:
    """Whether this address is one of an online replica of this server."""
    return any(
        replica.state == ONLINE and _same((replica.ip, replica.port), address)
        for replica in replication.replicas
    )


def _when_promoted(server: Server, session: Session, address: tuple[str, int]) -> Blocked:
    """To follow one's own replica makes a circle, of which nobody is the primary. But that replica
    may have been promoted a moment ago, and the end of its link not have come here yet."""
    waiters = _verbs(server).on_ack

    def look() -> None:
        if not _is_replica(server.replication, address):
            # Not at once: this is in the middle of the link's end.
            server.edge.call_later(0, go_on)

    def go_on() -> None:
        if session.blocked_on is not blocked:
            return
        server.waiting.forget_blocked(session)  # or the change of role would send it away
        reply: resp.Simple | errors.RedisError
        try:
            reply = _follow(server, session, address)
        except errors.RedisError as error:
            reply = error
        server.waiting.unblock(session, reply)

    def refuse() -> errors.RedisError:
        return errors.error(
            f"{address[0]}:{address[1]} is a replica of this server; promote it first (REPLICAOF "
            "NO ONE), or use FAILOVER"
        )

    waiters.append(look)
    blocked = Blocked(_PROMOTION_MS, refuse, lambda: waiters.remove(look))
    return blocked


def _same(one: tuple[str, int], other: tuple[str, int]) -> bool:
    return one[1] == other[1] and one[0].lower() == other[0].lower()


def _own_ports(ctx: ReadContext) -> set[int]:
    number = ctx.server.config.get_int
    return {number("port"), number("tls-port"), number("replica-announce-port")} - {0}


def _is_own(ctx: ReadContext, host: str) -> bool:
    """Whether this is a name of this machine, or the address that the caller reached it at."""
    config = ctx.server.config
    known = {"localhost", config.get_str("replica-announce-ip").lower()}
    known.add(ctx.session.laddr.rpartition(":")[0].strip("[]"))
    known |= {address.removeprefix("-") for address in config.get_list("bind")}
    try:
        return ipaddress.ip_address(host).is_loopback or host in known
    except ValueError:
        return host != "" and host.lower() in known


# -- ROLE --------------------------------------------------------------------------------------


@command(
    "role",
    1,
    NOSCRIPT | LOADING | STALE | FAST,
    group="server",
    since="2.8.12",
    summary="Returns the replication role.",
    categories=("admin", "dangerous"),
)
def role(ctx: ReadContext) -> list[object]:
    replication, seq = ctx.server.replication, ctx.server.log.committed_seq
    if replication.primary is not None:
        position = seq if replication.link_up else -1
        return [b"slave", *replication.primary, replication.link, position]
    online = [r for r in replication.replicas if r.state == ONLINE]
    return [b"master", seq, [[r.ip, str(r.port), str(r.acked_seq)] for r in online]]


# -- FAILOVER ----------------------------------------------------------------------------------


@command(
    "failover",
    -1,
    ADMIN | NOSCRIPT | STALE,
    group="server",
    since="6.2.0",
    summary="Starts a coordinated failover from a server to one of its replicas.",
)
def failover(ctx: ReadContext, *words: bytes) -> resp.Simple:
    replication = ctx.server.replication
    if len(words) == 1 and words[0].upper() == b"ABORT":
        if replication.failover_state == NO_FAILOVER:
            raise errors.error("No failover in progress.")
        _verbs(ctx.server).abort_failover()
        return resp.OK
    target, force, timeout_ms = _failover_options(words)
    if replication.failover_state != NO_FAILOVER:
        raise errors.error("FAILOVER already in progress.")
    if replication.is_replica:
        raise errors.error("FAILOVER is not valid when server is a replica.")
    if not replication.replicas:
        raise errors.error("FAILOVER requires connected replicas.")
    if force and (not timeout_ms or target is None):
        raise errors.error(
            "FAILOVER with force option requires both a timeout and target HOST and IP."
        )
    if target is not None:
        _check_target(replication.replicas, target)
    _verbs(ctx.server).failover(target, force, timeout_ms)
    return resp.OK


def _failover_options(words: tuple[bytes, ...]) -> tuple[tuple[str, int] | None, bool, int]:
    """(the target, FORCE, TIMEOUT or 0)."""
    target: tuple[str, int] | None = None
    force, timeout_ms = False, 0
    options = Cursor(words)
    while options.more():
        if not timeout_ms and (value := options.value(b"TIMEOUT")) is not None:
            timeout_ms = parse_int(value)
            if timeout_ms <= 0:
                raise errors.error("FAILOVER timeout must be greater than 0")
        elif target is None and options.remaining() > 2 and options.flag(b"TO"):
            target = (_text(options.next()), parse_int(options.next()))
        elif not force and options.flag(b"FORCE"):
            force = True
        else:
            raise errors.syntax()
    return target, force, timeout_ms


def _check_target(replicas: list[ReplicaState], target: tuple[str, int]) -> None:
    found = [r for r in replicas if _same((r.ip, r.port), target)]
    if not found:
        raise errors.error("FAILOVER target HOST and PORT is not a replica.")
    if all(r.state != ONLINE for r in found):
        raise errors.error("FAILOVER target replica is not online.")


# -- PSYNC -------------------------------------------------------------------------------------


@command(
    "psync",
    -3,
    NO_ASYNC_LOADING | ADMIN | NO_MULTI | NOSCRIPT,
    group="server",
    since="2.8.0",
    summary="An internal command used in replication.",
    complexity="",
)
def psync(ctx: ReadContext, replid: bytes, seq: bytes, *more: bytes) -> resp.Raw:
    """PSYNC replid position KV1 history consistent-from flags [FAILOVER]; docs/replication.md."""
    request = _psync_request(replid, seq, more)
    replication, session = ctx.server.replication, ctx.session
    if replication.failover_state != NO_FAILOVER and not request.failover:
        raise errors.no_master_link("failing over")
    _replica_of(session)
    _verbs(ctx.server).psync(session, request)
    session.gate |= REPLICATING
    return resp.NO_REPLY


def _psync_request(replid: bytes, seq: bytes, more: tuple[bytes, ...]) -> PsyncRequest:
    if len(more) not in (4, 5) or more[0].upper() != PROTOCOL:
        raise errors.error(
            "PSYNC: only kvserver can be a replica of kvserver, of a version that speaks "
            f"{PROTOCOL.decode()}"
        )
    flags, _, padded_after = more[3].partition(b"@")
    try:
        known = history.decode(bytes.fromhex(_text(more[1])))
    except ValueError as error:
        raise errors.error(f"PSYNC: {error}") from None
    return PsyncRequest(
        replid=_text(replid),
        last_seq=_position(seq),
        history=known,
        consistent_from=_position(more[2]),
        can_rewind=b"r" in flags,
        may_pad=b"p" in flags,
        wants_full=b"f" in flags,
        failover=_is_failover(more[4:]),
        forced=b"x" in flags,
        padded_after=_position(padded_after) if padded_after else None,
    )


def _position(word: bytes) -> int:
    """0 to 2^64-1, the value that stands for no position at all."""
    if not word.isdigit() or len(word) > 20 or int(word) > _MAX_POSITION:
        raise errors.not_integer()
    return int(word)


def _is_failover(words: tuple[bytes, ...]) -> bool:
    if words and words[0].upper() != b"FAILOVER":
        raise errors.syntax()
    return bool(words)


def _replica_of(session: Session) -> ReplicaState:
    """What is known of the replica at the other end."""
    if session.replica is None:
        host = "" if session.unix else session.addr.rpartition(":")[0].strip("[]")
        session.replica = ReplicaState(
            addr=session.addr, ip=host, session=session, last_ack=time.monotonic()
        )
    return session.replica


# -- REPLCONF ----------------------------------------------------------------------------------


@command(
    "replconf",
    -1,
    ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY,
    group="server",
    since="3.0.0",
    summary="An internal command for configuring the replication stream.",
    system=True,
)
def replconf(ctx: ReadContext, *words: bytes) -> resp.Simple | resp.Raw:
    option = words[0].upper() if words else b""
    if option == b"ACK" and len(words) > 1:
        return _acknowledge(ctx, words)
    if option in _REQUESTS and (option not in _NOTES or ctx.session.gate & REPLICATING):
        return _pass_on(ctx, option, words[1:])
    if len(words) % 2:
        raise errors.syntax()
    for name, value in zip(words[::2], words[1::2], strict=True):
        option = name.upper()
        if option == b"GETACK":
            return resp.NO_REPLY  # acknowledgements aren't waited for: each group of frames has one
        note = _NOTES.get(option)
        if note is None:
            raise errors.error("Unrecognized REPLCONF option: " + _text(name))
        note(_replica_of(ctx.session), value)
    return resp.OK


def _acknowledge(ctx: ReadContext, words: tuple[bytes, ...]) -> resp.Raw:
    """REPLCONF ACK position [FACK position]. Nobody is answered, and only a replica heard."""
    seq, synced = parse_int64(words[1]), 0
    if len(words) > 3 and words[2].upper() == b"FACK":
        synced = parse_int64(words[3]) or 0
    if ctx.session.gate & REPLICATING and seq is not None:
        _verbs(ctx.server).ack(ctx.session, seq, synced)
    return resp.NO_REPLY


#: What a replica says after PSYNC, unanswered, and the least and largest number of words.
_REQUESTS: Final = {
    b"EVENTS": (1, 1),
    b"HAVE": (2, 2),
    b"KEYS": (2, 1 << 30),
    b"RANGE": (3, 3),
    b"END": (0, 0),
}


def _pass_on(ctx: ReadContext, option: bytes, values: tuple[bytes, ...]) -> resp.Raw:
    least, most = _REQUESTS[option]
    if not least <= len(values) <= most:
        raise errors.syntax()
    if not ctx.session.gate & REPLICATING:
        raise errors.error(f"REPLCONF {option.decode()} is for replicas, after PSYNC")
    _verbs(ctx.server).replconf(ctx.session, option, list(values))
    return resp.NO_REPLY


def _note_port(replica: ReplicaState, value: bytes) -> None:
    replica.port = parse_int(value)


def _note_address(replica: ReplicaState, value: bytes) -> None:
    if len(value) >= _MAX_ADDRESS:
        raise errors.error(
            f"REPLCONF ip-address provided by replica instance is too long: {len(value)} bytes"
        )
    replica.ip = value.decode("utf-8", "replace")


def _note_run_id(replica: ReplicaState, value: bytes) -> None:
    if len(value) >= _MAX_ADDRESS:
        raise errors.error("REPLCONF run-id is too long")
    replica.run_id = value


def _note_events(replica: ReplicaState, value: bytes) -> None:
    replica.events = parse_int_in(value, 0, _MAX_EVENTS)


def _ignore(_replica: ReplicaState, _value: bytes) -> None:
    """What a replica of Redis can do is of no use here: PSYNC refuses it, in words."""


_NOTES: Final[dict[bytes, Callable[[ReplicaState, bytes], None]]] = {
    b"LISTENING-PORT": _note_port,
    b"IP-ADDRESS": _note_address,
    b"RUN-ID": _note_run_id,
    b"EVENTS": _note_events,
    b"CAPA": _ignore,
    b"VERSION": _ignore,
    b"RDB-ONLY": _ignore,
    b"RDB-FILTER-ONLY": _ignore,
}
