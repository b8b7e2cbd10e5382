"""A primary's side of the link to one replica: frames, a full sync's files, rows for a rewind.

It must not know what a position's records mean. Invariants:
- Only frames of committed positions are sent, each once and in order.
- Nothing is sent while the peer hasn't taken what was sent before: memory is bounded by
  HIGH_WATER and one frame.
- From the answer to PSYNC until the link ends, the log that the replica needs is pinned.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from crc32c import crc32c

from kvserver import frames
from kvserver.replication import negotiate
from kvserver.replication.lag import Lag
from kvserver.replication.ports import Outlet, Snapshot
from kvserver.state.replication import (
    ONLINE,
    REWIND,
    SEND_BULK,
    WAIT_BGSAVE,
    PsyncRequest,
    ReplicaState,
    not_behind,
)
from kvserver.storage.commitlog import LOCAL_PREFIX, LOG, STAMP_KEY, EngineError
from kvserver.storage.positions import WANTED_BYTES, FrameCursor, LogGone
from kvserver.storage.wal_batch import WalError

if TYPE_CHECKING:
    from kvserver.replication.node import Node

logger = logging.getLogger("kvserver")

#: Bytes that wait in the link before it is left alone until it has drained.
HIGH_WATER: Final = 1 << 20
#: Bytes of frames that are read in one go; then others have their turn.
PUMP_BYTES: Final = 1 << 18
#: A piece of a file.
CHUNK_BYTES: Final = 1 << 18
#: Rows, or bytes of them, that are read for a rewind in one go.
ROWS_AT_ONCE: Final = 500
ROW_BYTES_AT_ONCE: Final = 1 << 18

#: A key or a range of a column family: (cf, begin, end); end None for a key.
Wanted = tuple[int, bytes, bytes | None]


class Downstream:
    """One replica, from its first REPLCONF to the end of its connection."""

    def __init__(self, node: Node, link: Outlet, state: ReplicaState) -> None:
        self._node = node
        self._link = link
        self.state = state
        #: Whether the peer expects frames now, and not the answer to a PSYNC.
        self._framed = False
        self._cursor: FrameCursor | None = None
        self._pin: int | None = None
        self._pumping = False
        self._snapshot: Snapshot | None = None
        self._names: set[str] = set()
        self._have: dict[str, int] = {}
        #: (index, name, size) of the files that are still to be sent.
        self._files: list[tuple[int, str, int]] = []
        self._offset = 0
        self._crc = 0
        self._reading = False
        self._wanted: list[Wanted] = []
        self._wanted_bytes = 0
        self._rows: Iterator[tuple[bytes, bytes]] | None = None
        self._wanted_all = False
        self._lag = Lag(node.log.engine, 0)
        #: Before this position it isn't equal to any primary: what it has counts for nobody.
        self._equal_from = 0
        self.closed = False

    # -- PSYNC -----------------------------------------------------------------------------

    def psync(self, request: PsyncRequest) -> None:
        """Answer, and begin what the answer says."""
        node = self._node
        self.leave()
        self._equal_from = request.consistent_from
        if node.consistency.padded and request.padded_after is not None:
            # We lack what it lacks, or it got its gaps from us: a rewind would close none.
            request = replace(request, padded_after=None)
            if request.consistent_from == negotiate.PADDED:
                request = replace(request, consistent_from=0)
        log = node.log
        may_pad = node.config.get_bool("replication-enable-sequence-padding")
        answer = negotiate.negotiate(
            request,
            log.history,
            log.committed_seq,
            node.index,
            may_pad,
            node.consistency.gaps_end,
        )
        node.count(answer, request)
        who = self.state.addr
        logger.info("Replica %s asks to go on after %d: %s", who, request.last_seq, answer.kind)
        logger.info("%s because %s", answer.kind, answer.reason)
        replid = log.history.upto(log.committed_seq).current.replid
        at = log.committed_seq if answer.kind == negotiate.FULLRESYNC else answer.seq
        self._link.send(f"+{answer.kind} {replid} {at}\r\n".encode())
        self._framed = True
        if answer.kind == negotiate.FULLRESYNC:
            self._begin_full()
        elif answer.kind == negotiate.REWIND:
            self.state.state = REWIND
            self._pin = answer.seq + 1
        else:
            if answer.kind == negotiate.PAD:
                self._equal_from = negotiate.PADDED
                self._send_padding(request.last_seq + 1, answer.seq)
            self._go_online(answer.seq + 1)

    def leave(self) -> None:
        """End what an earlier PSYNC began."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        self.state.behind = not_behind  # which referred to this object
        if self._snapshot is not None or self.state.state == WAIT_BGSAVE:
            self._node.snapshots.release(self)
            self._snapshot = None
        self._files, self._have, self._names = [], {}, set()
        self._wanted, self._rows, self._wanted_all = [], None, False
        self._wanted_bytes = 0

    def close(self) -> None:
        """The connection ended, or is to end."""
        if not self.closed:
            self.closed = True
            self.leave()
            self._pin = None
            self._link.close()

    @property
    def is_framed(self) -> bool:
        """Whether PSYNC may not be sent now: its answer would be in the midst of frames."""
        return self._framed

    @property
    def is_online(self) -> bool:
        """Whether it is sent frames as they are made."""
        return self._cursor is not None

    @property
    def is_good(self) -> bool:
        """Whether it has what it acknowledges: it is no rewind under way, and has passed over no
        positions."""
        return self.is_online and self.state.acked_seq >= self._equal_from

    @property
    def is_padded(self) -> bool:
        """Whether it has passed over positions."""
        return self.is_online and self._equal_from == negotiate.PADDED

    def pinned_file(self) -> int | None:
        """The log file from which on an online replica reads."""
        return None if self._cursor is None else self._cursor.file_number

    def pinned_position(self) -> int | None:
        """The position from which on the replica will need the log; None: see `pinned_file`."""
        return self._pin

    # -- frames ----------------------------------------------------------------------------

    def _go_online(self, seq: int) -> None:
        index = self._node.index
        self._cursor = index.open(seq)
        self._lag = Lag(self._node.log.engine, index.bytes_after(seq - 1))
        self.state.behind = self._behind
        self._pin = None
        self.state.state = ONLINE
        self.state.acked_seq = seq - 1
        self.state.last_ack = self._node.timers.now()
        self._node.replicas_changed()
        self._node.greet(self)
        self.pump()

    def _send_padding(self, first: int, last: int) -> None:
        log = self._node.log
        history = log.history
        padding = frames.Frame(
            frames.PADDING, history.epoch_at(last), first, last, 0, 0, history.encode()
        )
        self._link.send(frames.encode(padding))

    def pump(self) -> None:
        """Send frames that are there, while the peer takes them."""
        if self._cursor is None or self._pumping:
            return
        left = PUMP_BYTES
        try:
            while self._cursor is not None and self._link.buffered() < HIGH_WATER:
                frame = self._cursor.read()
                if frame is None:
                    self._lag.sent_all()
                    return
                self._link.send(frames.encode(frame))
                self.state.sent_seq = frame.last_seq
                self._lag.sent(frame, self.state.acked_seq)
                left -= len(frame.payload)
                if left < 0:
                    self._pumping = True
                    self._node.timers.call_later(0, self._pump_on)
                    return
        except (LogGone, WalError) as error:
            logger.warning("Replica %s is cut off: %s", self.state.addr, error)
            self._node.cut(self)

    def _behind(self) -> tuple[int, int]:
        """`ReplicaState.behind`."""
        acked, cursor = self.state.acked_seq, self._cursor
        if cursor is None or acked >= self._node.log.committed_seq:
            return 0, 0
        if acked < cursor.next_seq - 1:
            return self._lag.unacknowledged(acked)
        try:
            frame = cursor.peek()
        except LogGone:
            return self._lag.unsent, -1
        return self._lag.unsent, 0 if frame is None else frame.unix_ms

    def _pump_on(self) -> None:
        self._pumping = False
        self.pump()

    def drained(self) -> None:
        """The peer took what was sent."""
        self.pump()
        self._send_file()
        self._send_rows()

    def heartbeat(self, payload: bytes) -> None:
        """Tell where the primary is, so that a silent link can be told from a dead one."""
        if self._framed and self._link.buffered() < HIGH_WATER:
            seq = self._node.log.committed_seq
            self._link.send(frames.control(frames.HEARTBEAT, seq, seq, payload))

    def publish(self, payload: bytes) -> None:
        """A message for the replica's subscribers."""
        if self._cursor is not None:
            self._link.send(frames.control(frames.PUBSUB, payload=payload))

    # -- full sync -------------------------------------------------------------------------

    def _begin_full(self) -> None:
        self.state.state = WAIT_BGSAVE
        self._pin = self._node.log.committed_seq + 1
        self._node.snapshots.request(self)

    def snapshot_ready(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._pin = snapshot.seq + 1
        self.state.state = SEND_BULK
        self.state.sync_bytes_total = sum(size for _, size in snapshot.files)
        self.state.sync_bytes_done = 0
        fields: list[bytes] = []
        for name, size in snapshot.files:
            fields += [name.encode(), size.to_bytes(8, "big")]
        self._names = {name for name, _ in snapshot.files}
        payload = frames.pack_fields(fields)
        self._link.send(frames.control(frames.FILES, 0, snapshot.seq, payload))

    def snapshot_failed(self, reason: str) -> None:
        logger.warning("Full sync with replica %s is called off: %s", self.state.addr, reason)
        self._node.cut(self)

    def have(self, name: str, crc: int) -> None:
        """REPLCONF HAVE: the replica has this file already, if the checksum agrees."""
        if name not in self._names or self._wanted_all:
            raise ValueError("a file that the list doesn't have, or too late")
        self._have[name] = crc

    def _begin_files(self, snapshot: Snapshot) -> None:
        """The replica said which files it has: check them one by one, then send the others."""
        listed = [(i, name, size) for i, (name, size) in enumerate(snapshot.files)]
        self._files = [file for file in listed if file[1] not in self._have]
        self._reading = True  # nothing is sent before the last one was checked
        self._verify([file for file in listed if file[1] in self._have], snapshot)

    def _verify(self, claimed: list[tuple[int, str, int]], snapshot: Snapshot) -> None:
        if not claimed:
            self._reading = False
            self._offset = self._crc = 0
            self._send_file()
            return
        index, name, size = claimed.pop()

        def checked(crc: int) -> None:
            if self._snapshot is not snapshot:
                return
            if crc == self._have[name]:
                self.state.sync_bytes_done += size
            else:
                self._files.append((index, name, size))
            self._verify(claimed, snapshot)

        self._node.files.checksum(snapshot, name, checked)

    def _send_file(self) -> None:
        """Read the next piece, when the link takes it and `max-replication-mb` allows it."""
        snapshot = self._snapshot
        if snapshot is None or self._reading or not self._wanted_all:
            return
        if self._link.buffered() >= HIGH_WATER:
            return
        if not self._files:
            self._end_files()
            return
        self._reading = True
        _, name, size = self._files[0]
        piece = min(CHUNK_BYTES, size - self._offset)
        delay = self._node.snapshots.delay(piece)
        self._node.timers.call_later(delay, self._read_piece, snapshot, name, piece)

    def _read_piece(self, snapshot: Snapshot, name: str, piece: int) -> None:
        if piece:
            self._node.files.read(
                snapshot, name, self._offset, piece, lambda data: self._read(snapshot, data, piece)
            )
        else:
            self._read(snapshot, b"", 0)

    def _read(self, snapshot: Snapshot, data: bytes, expected: int) -> None:
        self._reading = False
        if self._snapshot is not snapshot:
            return
        if len(data) != expected:
            self.snapshot_failed("a file of the checkpoint can't be read")
            return
        index, _, size = self._files[0]
        if data:
            self._link.send(frames.control(frames.CHUNK, index, self._offset, data))
            self._offset += len(data)
            self._crc = crc32c(data, self._crc)
            self.state.sync_bytes_done += len(data)
        if self._offset == size:
            self._link.send(frames.control(frames.FILE_END, index, self._crc))
            self._files.pop(0)
            self._offset = self._crc = 0
        self._send_file()

    def _end_files(self) -> None:
        self._link.send(frames.control(frames.SYNC_END))
        self._framed = False  # PSYNC comes next, and a line is expected for an answer
        self._wanted_all = False
        self._node.snapshots.release(self)
        self._snapshot = None

    # -- rows for a rewind -----------------------------------------------------------------

    def want(self, cf: int, begin: bytes, end: bytes | None) -> None:
        """REPLCONF KEYS and RANGE: the replica needs this row, or these."""
        if self.state.state != REWIND or self._wanted_all:
            raise ValueError("rows that no rewind asks for")
        self._wanted.append((cf, begin, end))
        self._wanted_bytes += max(len(begin) + len(end or b""), WANTED_BYTES)
        if self._wanted_bytes > self._node.config.get_int("replication-rewind-max-bytes"):
            logger.warning("Replica %s asks for too much", self.state.addr)
            self._node.cut(self)

    def end_of_list(self) -> None:
        """REPLCONF END: what the replica has or wants is complete."""
        if self._wanted_all or not self._framed:
            raise ValueError("the end of a list that nobody asked for")
        self._wanted_all = True
        if self._snapshot is not None:
            self._begin_files(self._snapshot)
        elif self.state.state == REWIND:
            self._send_rows()

    def _send_rows(self) -> None:
        """Send the committed rows that are there, a part of them at a time."""
        if self.state.state != REWIND or not self._wanted_all or self._reading:
            return
        if self._link.buffered() >= HIGH_WATER:
            return
        try:
            fields = self._read_rows()
        except EngineError as error:
            logger.error("Replica %s can't be rewound: %s", self.state.addr, error)
            self._node.cut(self)
            return
        if fields:
            self._link.send(frames.control(frames.VALUES, payload=frames.pack_fields(fields)))
        if self._wanted or self._rows is not None:
            self._reading = True
            self._node.timers.call_later(0, self._rows_on)
            return
        self._wanted_all = False
        log = self._node.log
        history = log.history.encode()
        self._link.send(frames.control(frames.VALUES_END, 0, log.committed_seq, history))
        self._framed = False

    def _rows_on(self) -> None:
        self._reading = False
        self._send_rows()

    def _read_rows(self) -> list[bytes]:
        """Fields of a VALUES frame; takes what it answers from the list of what is wanted."""
        fields: list[bytes] = []
        size = 0
        for _ in range(ROWS_AT_ONCE):  # rows that are not there take their time, too
            if not self._wanted or size >= ROW_BYTES_AT_ONCE:
                break
            cf, begin, end = self._wanted[-1]
            if end is None:
                row = None if _is_own(cf, begin) else self._node.log.engine.get(cf, begin)
                self._wanted.pop()
                entry = (begin, row)
            else:
                entry = self._next_of_range(cf, begin, end)
            key, row = entry
            if row is not None:
                fields += [bytes([cf]) + key, row]
                size += len(key) + len(row)
        return fields

    def _next_of_range(self, cf: int, begin: bytes, end: bytes) -> tuple[bytes, bytes | None]:
        if self._rows is None:
            self._rows = self._node.log.engine.scan(cf, begin, end)
        for key, row in self._rows:
            if not _is_own(cf, key):
                return key, row
        self._rows = None
        self._wanted.pop()
        return b"", None


def _is_own(cf: int, key: bytes) -> bool:
    """Rows that say something of this node only, or of the moment."""
    return cf == LOG and (key == STAMP_KEY or key.startswith(LOCAL_PREFIX))
