"""The history of a data set: which primary wrote which positions. Pure values.

It must not know frames, links or RocksDB. A data set's life is a row of eras: each promotion, and
each start after a crash, begins one, with the next epoch and a random replication id. A position
means something only together with the era that it belongs to (docs/replication.md, R4).

Invariants: epochs rise and first positions never fall; two histories that hold the same
replication id are the same up to and including its era, because an id is made once and every
history that holds it was copied from the one that made it. So histories are compared by id,
and never by epoch: two replicas promoted at once both count 2.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import Final, NamedTuple

_ERA: Final = struct.Struct(">Q20sQ")
REPLID_LEN: Final = 40
#: Older eras are forgotten: a replica that is so far behind needs a full sync anyway.
MAX_ERAS: Final = 256


class Era(NamedTuple):
    """Positions from `first_seq` on, until the next era begins, written by one primary."""

    epoch: int
    replid: str
    first_seq: int


class History:
    """The eras of a data set, oldest first; never empty."""

    __slots__ = ("eras",)

    def __init__(self, eras: tuple[Era, ...]) -> None:
        self.eras = eras

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.eras == other.eras

    def __hash__(self) -> int:
        return hash(self.eras)

    def __repr__(self) -> str:
        return f"History({', '.join(f'{e.epoch}:{e.replid[:8]}@{e.first_seq}' for e in self.eras)})"

    @property
    def current(self) -> Era:
        """The last era."""
        return self.eras[-1]

    def encode(self) -> bytes:
        """The row of the log, and what travels."""
        return b"".join(_ERA.pack(e.epoch, bytes.fromhex(e.replid), e.first_seq) for e in self.eras)

    def upto(self, last: int) -> History:
        """Without the eras that begin after position `last`. A rewound replica holds some: they
        came with the primary's present values."""
        eras = tuple(era for era in self.eras if era.first_seq <= last)
        return History(eras or self.eras[:1])

    def branched(self, replid: str, first_seq: int, shared: History | None = None) -> History:
        """With a new era, in the place of those that follow `shared`, the beginning of this one;
        None: all of it."""
        era = Era(self.current.epoch + 1, replid, first_seq)
        return History((*(shared or self).eras, era)[-MAX_ERAS:])

    def epoch_at(self, seq: int) -> int:
        """The epoch that position `seq` belongs to."""
        return self.upto(seq).current.epoch

    def fork(self, last: int, other: History, other_last: int) -> int | None:
        """The last position that two data sets share, one with this history and `last` as its
        last position, the other with `other` and `other_last`. None: they have nothing in common.
        """
        ends = other.upto(other_last)._ends(other_last)
        for replid, end in reversed(self.upto(last)._ends(last).items()):
            if replid in ends:
                return min(end, ends[replid])
        return None

    def _ends(self, last: int) -> dict[str, int]:
        """The last position of each era, in order."""
        ends = {}
        for index, era in enumerate(self.eras):
            following = self.eras[index + 1 : index + 2]
            ends[era.replid] = following[0].first_seq - 1 if following else last
        return ends


def decode(data: bytes) -> History:
    """The history that `History.encode` wrote; ValueError if these bytes are none."""
    if not data or len(data) % _ERA.size or len(data) > MAX_ERAS * _ERA.size:
        raise ValueError("not a replication history")
    eras = tuple(Era(e, replid.hex(), first) for e, replid, first in _ERA.iter_unpack(data))
    for before, after in pairwise(eras):
        if after.epoch <= before.epoch or after.first_seq < before.first_seq:
            raise ValueError("not a replication history")
    return History(eras)


def new_replid() -> str:
    """A fresh replication id, 40 hexadecimal digits."""
    return os.urandom(REPLID_LEN // 2).hex()


def genesis() -> History:
    """The history of a new data set."""
    return History((Era(1, new_replid(), 0),))
