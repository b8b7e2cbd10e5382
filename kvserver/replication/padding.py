"""Padding: positions are passed over without their writes (replication-enable-sequence-padding).

It must not know links. Invariant: a data set that has left its history like this says so in the row
`p`, in the same batch (storage/gaps.py).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from kvserver import codec
from kvserver.frames import Frame
from kvserver.history import History
from kvserver.replication.taken_back import stamp
from kvserver.storage.commitlog import LOG
from kvserver.storage.gaps import Range
from kvserver.storage.wal_batch import PUT, Record

if TYPE_CHECKING:
    from kvserver.replication.node import Node

logger = logging.getLogger("kvserver")


def pass_over(node: Node, frame: Frame, theirs: History, peer: str) -> None:
    """Take a padding frame of a primary with this history. It may pass over nothing, and only lead
    from one history into another."""
    log = node.log
    fork = log.history.fork(log.committed_seq, theirs, frame.last_seq)
    shared = min(fork or 0, log.committed_seq)
    entry: Range = (
        shared,
        shared + 1,
        frame.last_seq,
        time.time_ns() // 1_000_000,
        peer,
        "diverged" if fork is None or fork < log.committed_seq else "inside a frame",
    )
    records: list[Record] = [
        (PUT, LOG, codec.HISTORY_KEY, theirs.upto(frame.last_seq).encode()),
        (PUT, LOG, codec.PADDED_KEY, node.consistency.with_range(entry)),
        stamp(frame.epoch, frame.first_seq, frame.last_seq),
    ]
    log.install(records)
    skipped = frame.last_seq - shared
    node.state.padding_events += 1
    node.state.padded_sequences += skipped
    logger.warning("%d positions from %d on are passed over", skipped, shared + 1)
    node.passed_over()
    if frame.first_seq > frame.last_seq:
        # A frame that has no position and gets lost is missed by nobody: replicas ask anew.
        node.cut_all()
