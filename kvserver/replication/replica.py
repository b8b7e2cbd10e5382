"""A replica's side of the link to its primary: handshake, frames, full sync, rewind.

It must not know sockets or files. Invariants:
- R1, R2: a frame is applied as one batch with the primary's stamp, and only if it begins right
  after the last position; an older one is skipped; a gap ends the link.
- A rewind and a full sync end with a PSYNC on the same link, as if the replica had just come.
- When the link is lost it is opened again: at once the first time, then after 1, 2, 4 ... 60 s
  while the primary takes connections but nothing comes of them; every second while it takes none.
  Changed credentials are tried at once.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from kvserver import frames, history
from kvserver.frames import Frame, FrameError, FrameParser
from kvserver.replication.handshake import Handshake, request
from kvserver.replication.incoming import Incoming
from kvserver.replication.padding import pass_over
from kvserver.replication.ports import Link
from kvserver.replication.rewind import Rewind
from kvserver.storage.commitlog import EngineError, EngineStalled

if TYPE_CHECKING:
    from kvserver.replication.node import Node

logger = logging.getLogger("kvserver")

FIRST_RETRY_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 60.0
STALL_RETRY_SECONDS: Final = 0.003
#: After so many rewinds in a row that came to nothing a full sync is asked for.
MAX_LOST_REWINDS: Final = 5
#: Frames that are applied in one go; then clients have their turn.
APPLY_BYTES: Final = 1 << 18

# What the link is busy with.
CONNECTING: Final = "connect"
HANDSHAKE: Final = "connecting"
SYNC: Final = "sync"
REWINDING: Final = "rewind"
ONLINE: Final = "connected"


class Upstream:
    """The link to one primary, over as many connections as it takes."""

    def __init__(self, node: Node, host: str, port: int, failover: bool = False) -> None:
        self.node = node
        self.host = host
        self.port = port
        #: PSYNC asks the other side to become the primary.
        self.failover = failover
        self.phase = CONNECTING
        #: The primary's last known position, and when something last came from it.
        self.primary_seq = 0
        self.last_io = node.timers.now()
        #: Run ids of the primary and those above it: who may not become our replica.
        self.above: list[bytes] = []
        self.stopped = False
        #: Whether the next PSYNC may lead to a rewind; one that was lost too often may not.
        self.may_rewind = True
        self._link: Link | None = None
        self._handshake = Handshake()
        self._parser = FrameParser()
        self._frames: deque[Frame] = deque()
        self._applying = False
        self._acked = (-1, -1)
        self._delay = 0.0
        #: Set while it is waited before the next attempt.
        self._pause: Any = None
        #: There is no connection, and `start` or the end of a dial will come.
        self._waiting = True
        self._progress = False
        #: Where we stood when PSYNC was sent: the answer is good for there only.
        self._asked_at = (0, "")
        #: Rewinds in a row that came to nothing.
        self._rewinds_lost = 0
        self._incoming: Incoming | None = None
        self._rewind: Rewind | None = None

    # -- the connection --------------------------------------------------------------------

    def start(self) -> None:
        """Connect."""
        self._pause = None
        if self.stopped or self._link is not None:
            return
        node = self.node
        if node.log.failed or node.installing or not node.host.commit():
            self._start_in(RETRY_SECONDS)
            return
        self.phase = CONNECTING
        self._progress = False
        self.last_io = self.node.timers.now()
        self.node.host.dial(self.host, self.port, self)

    def _start_in(self, seconds: float) -> None:
        self._pause = self.node.timers.call_later(seconds, self.start)

    def retry_soon(self) -> None:
        """What the primary is told when the link begins has changed: an attempt that failed says
        nothing any more, nor will one that is under way."""
        self._delay = 0.0
        if self._pause is not None:
            self._pause.cancel()
            self._start_in(0)
        elif self.phase == HANDSHAKE:
            self._progress = True

    def stop(self) -> None:
        """End, for good."""
        self.stopped = True
        self._drop()

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self.node.files.cancel()
        self._incoming = self._rewind = None
        self._frames.clear()

    def fail(self, reason: str) -> None:
        """The link is of no use any more: end it, and try again later. Without effect while there
        is none: to try twice would make two."""
        if self.stopped or self._waiting:
            return
        was = self.phase
        self._drop()
        if was == REWINDING:
            self._rewinds_lost += 1
            self.may_rewind = self.may_rewind and self._rewinds_lost < MAX_LOST_REWINDS
        if was != CONNECTING:
            logger.warning("The link to the primary %s:%d ends: %s", self.host, self.port, reason)
        self._retry(was)

    def ask_anew(self, reason: str) -> None:
        """Send PSYNC again, soon, on a new link."""
        self._progress = True
        self.fail(reason)

    def lost(self, reason: str) -> None:
        """The connection ended, or couldn't be opened."""
        self._waiting = False
        self.fail(reason)

    def _retry(self, was: str) -> None:
        if self.failover:
            self.node.failover.link_lost()
        if self._progress:
            self._delay = FIRST_RETRY_SECONDS
        elif was == CONNECTING:
            self._delay = RETRY_SECONDS
        else:
            self._delay = min(max(2 * self._delay, RETRY_SECONDS), MAX_RETRY_SECONDS)
        self.phase = CONNECTING
        self._waiting = True
        self.node.upstream_changed()
        self._start_in(self._delay)

    def connected(self, link: Link) -> None:
        """The connection is open: say who we are and what we have."""
        if self.stopped or self._link is not None:
            link.close()
            return
        self._link = link
        self.primary_seq = 0
        self._waiting = False
        self._parser = FrameParser()
        self._handshake = Handshake()
        self._acked = (-1, -1)
        self.phase = HANDSHAKE
        self.last_io = self.node.timers.now()
        link.send(self._handshake.greeting(self.node))
        if self.failover:
            self.node.failover.connected()
        else:
            self.psync()

    def psync(self) -> None:
        """Ask to be brought to the primary's state."""
        self.phase = HANDSHAKE
        self._incoming = self._rewind = None
        self._asked_at = self._place()
        self._send(self._handshake.psync(self.node, self.may_rewind, self.failover))
        self.node.upstream_changed()

    def _place(self) -> tuple[int, str]:
        """Where this server stands, and in whose era."""
        log = self.node.log
        return log.committed_seq, log.history.upto(log.committed_seq).current.replid

    def _send(self, data: bytes) -> None:
        if self._link is not None:
            self._link.send(data)

    def send_command(self, *args: bytes) -> None:
        """A command to the primary, which doesn't answer."""
        self._send(request(b"REPLCONF", *args))

    def tell_wishes(self) -> None:
        """Tell the primary which events are wanted, if that has changed since it was told. Before
        it has answered PSYNC it would take that for a command to be answered."""
        told, total = self._handshake.wishes, self.node.wishes.total
        if self.phase in (SYNC, REWINDING, ONLINE) and told is not None and told != total:
            self._handshake.wishes = total
            self.send_command(b"EVENTS", b"%d" % total)

    def progressed(self) -> None:
        """A file of a full sync is whole, and will not be sent again: trying is worth it."""
        self._delay = 0.0

    def pause_reading(self) -> None:
        """Let nothing come in."""
        if self._link is not None:
            self._link.pause_reading()

    def resume_reading(self) -> None:
        """Let it come again."""
        if self._link is not None and not self._applying and not self._is_our_turn:
            self._link.resume_reading()

    @property
    def _is_our_turn(self) -> bool:
        """Whether a full sync waits for this server's disk, and nothing is read."""
        return self._incoming is not None and self._incoming.is_behind

    @property
    def reachable(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    @property
    def online(self) -> bool:
        """Whether frames come."""
        return self.phase == ONLINE

    def tick(self) -> None:
        """Once a second: end a link that is silent, and say that we are there."""
        if self.stopped or self._link is None:
            return
        timeout = self.node.config.get_int("repl-timeout")
        if self._is_our_turn or (self._rewind is not None and self._rewind.is_writing):
            self.last_io = self.node.timers.now()
        if self.node.timers.now() - self.last_io > timeout:
            self.fail("nothing came for longer than repl-timeout")
            return
        self._acked = (-1, -1)
        self.acknowledge()

    # -- input -----------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes from the primary."""
        if self._link is None:
            return
        self.last_io = self.node.state.last_io = self.node.timers.now()
        try:
            if self.phase == HANDSHAKE:
                data = self._handshaken(data)
            if data and self._link is not None:
                self._frames.extend(self._parser.feed(data))
                self._work()
        except FrameError as error:
            self.fail(str(error))

    def _handshaken(self, data: bytes) -> bytes:
        """Take the handshake's replies; what follows them."""
        answer, rest = self._handshake.feed(data)
        if answer is None:
            return b""
        if answer.kind == "ERROR":
            self._refused(answer.replid)
            return b""
        if self.failover:
            self.failover = False
            self.node.failover.done()
        if self.node.log.pending or self._place() != self._asked_at:
            # A frame is taken for an older one by its position alone: it must be of this lineage.
            self._progress = True
            raise FrameError("this server has gone on since it sent PSYNC")
        self.node.answered(answer)
        logger.info("The primary answers PSYNC with %s at %d", answer.kind, answer.seq)
        if answer.kind == "CONTINUE" and answer.seq != self._asked_at[0]:
            raise FrameError(f"it goes on after {answer.seq}, we are at {self._asked_at[0]}")
        if answer.kind == "FULLRESYNC":
            self.phase = SYNC
            self._incoming = Incoming(self)
        elif answer.kind == "REWIND":
            self.phase = REWINDING
            self._rewind = Rewind(self, answer.seq)
            self._rewind.begin()
        else:
            self._go_online()
        self.tell_wishes()
        self.node.upstream_changed()
        return rest

    def _refused(self, reason: str) -> None:
        if self.failover:
            self.node.failover.refused(reason)
        self.fail(f"it answers: {reason}")

    def _go_online(self) -> None:
        self.phase = ONLINE
        self.may_rewind = True
        self._rewinds_lost = 0
        self.acknowledge()

    # -- frames ----------------------------------------------------------------------------

    def _work(self) -> None:
        """Take frames, until there are none or it is somebody else's turn."""
        size = 0
        while self._frames and not self._applying and self._link is not None:
            frame = self._frames[0]
            try:
                self._take(frame)
            except EngineStalled:
                self._wait(STALL_RETRY_SECONDS)
                break
            except EngineError as error:
                self.node.write_failed(str(error))
                self.fail(f"a frame can't be written: {error}")
                return
            if self._frames:
                self._frames.popleft()
            size += len(frame.payload)
            if size > APPLY_BYTES and self._frames:
                self._wait(0)
        self.acknowledge()
        self.node.pump()

    def _wait(self, seconds: float) -> None:
        """Go on later; meanwhile nothing comes in."""
        self._applying = True
        self.pause_reading()
        self.node.timers.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._applying = False
        if self._link is None:
            return
        try:
            self._work()
        except FrameError as error:
            self.fail(str(error))
            return
        self.resume_reading()

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == frames.DATA and self.phase == ONLINE:
            self._apply(frame)
        elif kind == frames.HEARTBEAT:
            self.primary_seq = max(self.primary_seq, frame.last_seq)
            self.above = frames.unpack_fields(frame.payload)
            self.node.heard()
        elif kind == frames.PUBSUB:
            self.node.deliver(frame.payload)
        elif kind == frames.PADDING and self.phase == ONLINE:
            self._pad(frame)
        elif self._incoming is not None:
            self._incoming.take(frame)
        elif self._rewind is not None:
            self._rewind.take(frame)
        else:
            raise FrameError(f"a frame of kind {kind} that nobody asked for")

    def _apply(self, frame: Frame) -> None:
        log = self.node.log
        last = log.committed_seq
        if frame.last_seq <= last and frame.first_seq <= last:
            return
        if frame.first_seq != last + 1:
            raise FrameError(f"a gap: position {last + 1} was due, {frame.first_seq} came")
        if frame.last_seq < last:
            raise FrameError(f"a frame that leads back from position {last} to {frame.last_seq}")
        log.apply(frame)
        self._progress = True
        self.primary_seq = max(self.primary_seq, frame.last_seq)
        self.node.applied(self)

    def _pad(self, frame: Frame) -> None:
        if not self.node.config.get_bool("replication-enable-sequence-padding"):
            raise FrameError("padding, which replication-enable-sequence-padding doesn't allow")
        last = self.node.log.committed_seq
        if frame.first_seq != last + 1 or frame.last_seq < last:
            raise FrameError(f"padding from {frame.first_seq} to {frame.last_seq} after {last}")
        try:
            primary_history = history.decode(frame.payload)
        except ValueError as error:
            raise FrameError(str(error)) from None
        pass_over(self.node, frame, primary_history, f"{self.host}:{self.port}")
        self._progress = True

    def acknowledge(self) -> None:
        """Tell the primary what is applied and what is fsynced; before frames come, that we are
        there."""
        log = self.node.log
        figures = (log.committed_seq, min(log.synced_seq, log.committed_seq))
        if figures != self._acked and self.phase != CONNECTING:
            self._acked = figures
            seq, synced = b"%d" % figures[0], b"%d" % figures[1]
            self.send_command(b"ACK", seq, b"FACK", synced)

    def rewinding(self, rewind: Rewind) -> bool:
        """Whether this is the rewind under way."""
        return rewind is self._rewind

    # -- figures ---------------------------------------------------------------------------

    @property
    def incoming(self) -> Incoming | None:
        """The full sync under way."""
        return self._incoming
