"""What every node must hold: for each position of each era, the data set that its primary had.

It knows rows and not nodes: epoch, position and history are read from the rows themselves, so that
a core that is wrong about where it stands is found out. A primary's batch defines the state at its
position; by induction that is the state of its lineage, because each state that a node is in, that
from which the batch starts included, is compared when it comes about.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import NamedTuple

from kvserver import codec, history
from kvserver.history import History
from sim import elements
from sim.engine import LOG, Rows

_UNTIL = struct.Struct(">QQ")


class Violation(AssertionError):
    """An invariant doesn't hold."""


class Place(NamedTuple):
    """Where a data set says that it stands."""

    replid: str
    seq: int
    epoch: int
    first: int
    until: int
    padded: bool

    @property
    def sound(self) -> bool:
        """Whether it claims to be what a primary had."""
        return not self.padded and self.until <= self.seq


_histories: dict[bytes, History] = {}


def history_of(rows: Rows) -> History:
    """The history in these rows."""
    row = rows[LOG][codec.HISTORY_KEY]
    found = _histories.get(row)
    if found is None:
        if len(_histories) > 10_000:
            _histories.clear()
        found = _histories[row] = history.decode(row)
    return found


def place_of(rows: Rows) -> Place:
    """Where these rows stand."""
    log = rows[LOG]
    epoch, first, last, _ = codec.STAMP.unpack(log[codec.STAMP_KEY])
    era = history_of(rows).upto(last).current
    until = _UNTIL.unpack_from(log[codec.UNTIL_KEY])[0] if codec.UNTIL_KEY in log else 0
    return Place(era.replid, last, epoch, first, until, codec.PADDED_KEY in log)


def is_genesis(rows: Rows) -> bool:
    """Whether nothing but the first batch of a new data set is there."""
    return codec.STAMP.unpack(rows[LOG][codec.STAMP_KEY])[1:3] == (0, 0)


class Model:
    """The states that primaries have been in."""

    def __init__(self) -> None:
        #: (replication id, position) -> (digest, epoch).
        self.states: dict[tuple[str, int], tuple[int, int]] = {}
        #: Positions were passed over somewhere: what was acknowledged may be gone.
        self.padded = False
        self.checked = 0

    def wrote(self, name: str, rows: Rows, digest: int) -> None:
        """A primary committed a batch."""
        place = place_of(rows)
        if place.until and place.until >= place.first:
            raise Violation(f"{name} writes at {place}, but isn't equal to any primary yet")
        key = (place.replid, place.seq)
        state = (digest, place.epoch)
        problem = "" if self.padded else elements.problem(rows)
        if problem:
            raise Violation(f"{name} writes {key}: {problem}")
        if self.states.setdefault(key, state) != state:
            raise Violation(f"{name} writes {key} anew, with other data")

    def holds(self, name: str, rows: Rows, digest: int) -> None:
        """A node is in this state."""
        place = place_of(rows)
        self.padded = self.padded or place.padded
        if not place.sound:
            return
        self.checked += 1
        state = self.states.get((place.replid, place.seq))
        if state is None:
            raise Violation(f"{name} is at {place}, where no primary has been")
        if state[0] != digest:
            raise Violation(f"{name} is at {place} with other data than its primary had")
        if state[1] != place.epoch:
            raise Violation(f"{name} is at {place}, where the epoch is {state[1]}")


def check_counts(name: str, rows: Rows) -> None:
    """Counts of databases and the expiry index against the rows."""
    counts: dict[int, list[int]] = {}
    index = set()
    for key, row in rows[0].items():
        expire = codec.row_expire(row)
        entry = counts.setdefault(int.from_bytes(key[:4], "big"), [0, 0, 0])
        entry[0] += 1
        if expire:
            entry[1] += 1
            entry[2] += expire
            index.add(codec.expiry_key(key, expire))
    if index != rows[2].keys():
        raise Violation(f"{name}: the expiry index doesn't match the rows")
    for key, record in rows[LOG].items():
        if key.startswith(codec.DATABASE_KEY):
            db_id, *figures = codec.unpack_database(record)
            if counts.pop(db_id, [0, 0, 0]) != figures:
                raise Violation(f"{name}: database {db_id} counts {figures} wrongly")
    if counts:
        raise Violation(f"{name}: rows of databases that nobody has: {counts}")


class Tokens:
    """Unique marks that clients append to keys: which were acknowledged, and what is there."""

    def __init__(self) -> None:
        self.sent = 0
        self.acked: set[bytes] = set()

    def new(self) -> bytes:
        """A token."""
        self.sent += 1
        return b"%d;" % self.sent

    def check(self, name: str, rows: Rows, all_acked: bool) -> None:
        """Nothing twice; everything acknowledged is there if that was promised."""
        found: Counter[bytes] = Counter()
        for key, row in rows[0].items():
            if codec.user_key(key).startswith(b"tokens"):
                found.update(part + b";" for part in codec.row_value(row).split(b";") if part)
        twice = [token for token, count in found.items() if count > 1]
        if twice:
            raise Violation(f"{name}: applied twice: {twice[:5]}")
        missing = self.acked - found.keys()
        if all_acked and missing:
            raise Violation(f"{name}: acknowledged and lost: {sorted(missing)[:5]}")
