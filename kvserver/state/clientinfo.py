"""What CLIENT LIST, INFO and KILL say of a session: type, flags, memory, the line of fields.

It must not know commands or sockets. Source: Redis 7.4's networking.c (catClientInfoString,
getClientType, getClientMemoryUsage). Figures of buffers that kvserver doesn't have, such as
the static reply buffer (rbs, rbp, obl), are 0.
"""

from __future__ import annotations

import time
from typing import Final

from kvserver.state.context import Blocked
from kvserver.state.session import CLOSING, IN_MULTI, REPLICATING, Session

#: What a connected session that does nothing takes: measured as growth of the process.
SESSION_BYTES: Final = 5 * 1024

NORMAL: Final = b"normal"
PUBSUB: Final = b"pubsub"
REPLICA: Final = b"replica"
MASTER: Final = b"master"
#: What CLIENT LIST TYPE and CLIENT KILL TYPE take.
TYPES: Final = {
    b"normal": NORMAL,
    b"pubsub": PUBSUB,
    b"replica": REPLICA,
    b"slave": REPLICA,
    b"master": MASTER,
}


def client_type(session: Session) -> bytes:
    """One of TYPES' values; monitors count as normal. The link to the primary is no session, so
    none is MASTER."""
    if session.gate & REPLICATING:
        return REPLICA
    return PUBSUB if is_subscribed(session) else NORMAL


def is_subscribed(session: Session) -> bool:
    """Whether the session listens to any channel or pattern."""
    return bool(session.channels or session.patterns or session.shard_channels)


def is_blocked(session: Session) -> bool:
    """Whether the session's command waits: for data, or for the end of a pause."""
    return session.parked is not None or type(session.blocked_on) is Blocked


def age(session: Session) -> int:
    """Whole seconds since the client connected."""
    return int(time.monotonic() - session.created)


def flags(session: Session) -> str:
    """The letters of the field `flags`; N: none."""
    mode = session.tracking
    letters = {
        "S": session.gate & REPLICATING,
        "O": session.monitor,
        "P": is_subscribed(session),
        "x": session.gate & IN_MULTI,
        "b": is_blocked(session),
        "t": mode is not None,
        "R": mode is not None and mode.broken,
        "B": mode is not None and mode.bcast,
        "d": session.cas_dirty,
        "c": session.stop & CLOSING,
        "U": session.unix,
        "e": session.no_evict,
        "T": session.no_touch,
    }
    return "".join(letter for letter, on in letters.items() if on) or "N"


def redirection(session: Session) -> int:
    """The id of the client that invalidations go to, 0 for itself; -1: tracking is off."""
    return -1 if session.tracking is None else session.tracking.redirect


def output_bytes(session: Session) -> int:
    """Bytes of replies and messages that the client didn't take yet."""
    return session.sink.buffered() + session.held_bytes + sum(map(len, session.out))


def argv_bytes(session: Session) -> int:
    """Bytes of the arguments of a command that waits for the end of a pause."""
    return sum(map(len, session.parked or ()))


def queued_bytes(session: Session) -> int:
    """Bytes of the arguments that MULTI queued."""
    return sum(len(arg) for _, args in session.queue for arg in args)


def memory(session: Session) -> int:
    """About how many bytes the server holds for a session."""
    received = session.sink.query_buffered
    return (
        SESSION_BYTES
        + received
        + output_bytes(session)
        + argv_bytes(session)
        + queued_bytes(session)
    )


def describe(session: Session) -> bytes:
    """The line of CLIENT LIST, without a line break."""
    now = time.monotonic()
    events = "r" * session.sink.reading + "w" * (session.sink.buffered() > 0)
    waiting = len(session.out) + sum(len(out) for _, out in session.held)
    text = (
        f"id={session.id} addr={session.addr} laddr={session.laddr} fd={session.fd} "
        f"name={session.name.decode()} age={age(session)} "
        f"idle={int(now - session.last_active)} flags={flags(session)} db={session.db} "
        f"sub={len(session.channels)} psub={len(session.patterns)} "
        f"ssub={len(session.shard_channels)} "
        f"multi={len(session.queue) if session.in_multi else -1} watch={len(session.watching)} "
        f"qbuf={session.sink.query_buffered} qbuf-free=0 argv-mem={argv_bytes(session)} "
        f"multi-mem={queued_bytes(session)} rbs=0 rbp=0 obl=0 oll={waiting} "
        f"omem={output_bytes(session)} tot-mem={memory(session)} events={events} "
        f"cmd={session.last_command} user={session.user} redir={redirection(session)} "
        f"resp={3 if session.resp3 else 2} lib-name={session.lib_name.decode()} "
        f"lib-ver={session.lib_ver.decode()}"
    )
    return text.encode("utf-8", "surrogateescape")
