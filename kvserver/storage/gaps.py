"""Positions that were passed over (replication-enable-sequence-padding): the row `p`. Pure values.

It is JSON, a list of [fork, first, last, unix_ms, peer, reason], in the order in which it came to
that. The row is replicated: whoever copies a data set has the same gaps. It must not know links.

Invariant: of the ranges that are kept one has the lowest fork of all that there were, and one the
highest last position: up to that fork, and from behind that position on, frames say what the rows
are.
"""

from __future__ import annotations

import json
from typing import Final

from kvserver.frames import FrameError
from kvserver.storage.wal_batch import PUT, Record

#: Ranges that are kept. One tells where to rewind to, the others are for people.
MAX_RANGES: Final = 100

#: (fork, first, last, unix_ms, peer, reason): positions first..last were passed over, and the
#: data sets had parted after position fork.
Range = tuple[int, int, int, int, str, str]


def decode(row: bytes | None) -> list[Range]:
    """The ranges of a row; none if there is no row."""
    return [tuple(entry) for entry in json.loads(row)] if row else []


def encode(ranges: list[Range]) -> bytes:
    """The row of these ranges."""
    lowest = min(ranges, key=lambda entry: entry[0])
    kept = ranges[1 - MAX_RANGES :]
    return json.dumps(kept if lowest in kept else [lowest, *kept]).encode()


def shared(ranges: list[Range]) -> int | None:
    """The last position that no range is after: what follows isn't what the history says. None:
    there are no ranges. A later one may go back further: to another primary's history."""
    return min((entry[0] for entry in ranges), default=None)


def end(ranges: list[Range]) -> int:
    """The last position that was passed over, or that was of another history; 0: none was."""
    return max((entry[2] for entry in ranges), default=0)


def with_own(told: list[Record], own: bytes) -> list[Record]:
    """What a primary's frame says of its gaps, for a data set that has the gaps `own`: these stay.
    That they went at the primary is nothing to this one, and is left out. FrameError if a row is
    none."""
    return [(op, cf, key, _joined(own, row)) for op, cf, key, row in told if op == PUT]


def _joined(own: bytes, theirs: bytes) -> bytes:
    # Theirs count, too, here and for whoever gets this frame from here: it may lead into another
    # history, and that has parted from what they have at the fork that the primary tells.
    ours = decode(own)
    try:
        ranges = decode(theirs)
        more = [*ours, *(entry for entry in ranges if entry not in ours)]
        row = encode(sorted(more, key=lambda entry: entry[2]))
    except (ValueError, TypeError, IndexError):
        raise FrameError("gaps that are no list of ranges") from None
    is_copy = all(entry in ranges for entry in ours)
    return theirs if is_copy else row  # a copy stays one, byte for byte
