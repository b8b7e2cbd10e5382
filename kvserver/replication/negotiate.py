"""PSYNC: how a replica can be brought to the primary's state. Pure decisions.

It must not know links. The rules are those of docs/replication.md, "PSYNC":

| the replica's position | answer |
|---|---|
| in the shared history, at the end of a frame, and the log is there | CONTINUE |
| the same, but this server has passed over positions after it | FULLRESYNC |
| beyond the shared history, and the log is there since the fork | REWIND |
| anywhere but amidst a rewind, where both sides allow padding and the log is there | PAD |
| anything else | FULLRESYNC |
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from kvserver.history import History
from kvserver.state.replication import PsyncRequest
from kvserver.storage.positions import FrameCursor, InsideFrame, LogGone

CONTINUE: Final = "CONTINUE"
REWIND: Final = "REWIND"
PAD: Final = "PAD"
FULLRESYNC: Final = "FULLRESYNC"

#: The `consistent_from` of a data set in which positions were passed over.
PADDED: Final = (1 << 64) - 1


class Answer(NamedTuple):
    """`seq`: CONTINUE: the replica's position; REWIND: the fork; PAD: the position up to which
    it is led; FULLRESYNC: 0. `reason` is for the log."""

    kind: str
    seq: int
    reason: str


class Index(Protocol):
    """What is to be known of the log (`storage.positions.PositionLog`)."""

    def open(self, seq: int) -> FrameCursor:
        """A cursor at the frame that begins with position `seq`; raises LogGone, InsideFrame."""


def negotiate(
    request: PsyncRequest,
    history: History,
    last: int,
    log: Index,
    may_pad: bool,
    gaps_end: int = 0,
) -> Answer:
    """The answer of a server with this history, last position and log. `gaps_end`: it has passed
    over positions itself, the last time up to this one (0: never). Up to there its log isn't that
    of its history, and its rows are nobody's to be rewound to."""
    if request.wants_full:
        return Answer(FULLRESYNC, 0, "the replica asks for one")
    fork = history.fork(last, request.history, request.last_seq)
    if fork is None:
        return Answer(FULLRESYNC, 0, "the data sets have nothing in common")
    if request.last_seq < gaps_end:
        return Answer(FULLRESYNC, 0, "this server has passed over the positions after that")
    reason = "the replica's position is in the shared history"
    shared = fork
    if request.padded_after is not None and request.can_rewind:
        fork = min(fork, request.padded_after)
    if fork == request.last_seq and _is_sound(request, history, last):
        gone = _gone(log, fork + 1)
        if not gone:
            return Answer(CONTINUE, fork, reason)
        reason = gone
    elif gaps_end:
        reason = "this server has passed over positions itself"
    elif request.can_rewind:
        reason = _gone(log, fork + 1)
        if not reason:
            return Answer(REWIND, fork, f"the histories part after position {fork}")
    else:
        reason = f"the histories part after position {fork}, and rewinding is not possible"
    # Who is amidst a rewind has rows of its primary of then that are ahead of its position: to be
    # led on in any other way would end with them in another data set.
    is_rewinding = request.last_seq < request.consistent_from != PADDED
    if may_pad and request.may_pad and not is_rewinding and request.last_seq <= last:
        if shared == request.last_seq and not _gone(log, shared + 1):
            return Answer(CONTINUE, shared, "it was padded before, and " + reason)
        return _pad(request.last_seq, log)
    return Answer(FULLRESYNC, 0, reason)


def _is_sound(request: PsyncRequest, history: History, last: int) -> bool:
    """Whether frames alone make the replica equal to the primary. One that is being rewound is
    equal to its primary of then only from a position on, which this primary must share; one that
    was padded never is, but goes on if it can't be rewound."""
    until = request.consistent_from
    if until <= request.last_seq or (until == PADDED and not request.can_rewind):
        return True
    return history.fork(last, request.history, until) == until


def _gone(log: Index, seq: int) -> str:
    """Why frames can't be read from `seq` on, or an empty string."""
    try:
        log.open(seq).close()
    except LogGone as error:
        return str(error)
    except InsideFrame as frame:
        return f"position {seq} is inside a frame, {frame.first_seq} to {frame.last_seq}"
    return ""


def _pad(position: int, log: Index) -> Answer:
    try:
        log.open(position + 1).close()
    except InsideFrame as frame:
        return Answer(PAD, frame.last_seq, "led to the end of a frame")
    except LogGone as error:
        return Answer(FULLRESYNC, 0, str(error))
    return Answer(PAD, position, "at the end of a frame, after another history")
