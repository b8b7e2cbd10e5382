"""SHUTDOWN and the signals: the wait for replicas before the server stops.

It must not know commands. Source: Redis 7.4's server.c (prepareForShutdown, isReadyToShutdown,
cancelShutdown). While replicas lag behind, writes are paused and `shutdown-timeout` runs; the stop
begins when every replica has everything, or when the time is up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from kvserver.state import pause
from kvserver.state.server import Server

logger = logging.getLogger("kvserver")

#: The purpose of the pause (state/pause.py).
SHUTDOWN: Final = "shutdown"

Aborted = Callable[[], None]


class Shutdown:
    """The stop that was asked for, if one was. `stopping` is its outcome: whether to flush."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.stopping: asyncio.Future[bool] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._flush = True
        #: Who is told when it is called off.
        self._aborted: list[Aborted] = []

    @property
    def waits(self) -> bool:
        """Whether a stop waits for replicas."""
        return self._timer is not None

    def begin(self, *, flush: bool, now: bool, aborted: Aborted) -> None:
        """Stop, at once when `now` or when no replica lags behind. The last word about `flush`
        counts."""
        self._flush = flush
        self._aborted.append(aborted)
        timeout = self._server.config.get_int("shutdown-timeout")
        if now or not timeout or self._ready():
            self._stop()
        elif not self.waits:
            logger.info("Waiting for replicas before shutting down.")
            self._timer = self._loop.call_later(timeout, self._time_is_up)
            pauses = self._server.pauses
            pauses.pause(SHUTDOWN, pause.unix_ms() + 1000 * timeout + 1000, pause.WRITES)
            self._watch(True)

    def abort(self) -> bool:
        """SHUTDOWN ABORT; False if there is nothing to call off."""
        if not self.waits:
            return False
        logger.warning("Shutdown manually aborted.")
        self._end_wait()
        self._server.pauses.unpause(SHUTDOWN)
        told, self._aborted = self._aborted, []
        for callback in told:
            callback()
        return True

    def _ready(self) -> bool:
        """Whether every replica has everything that was written."""
        log = self._server.log
        last = log.last_seq
        return all(replica.acked_seq >= last for replica in self._server.replication.replicas)

    def _acknowledged(self) -> None:
        if self.waits and self._ready():
            self._stop()

    def _time_is_up(self) -> None:
        replicas = self._server.replication.replicas
        synced = sum(r.acked_seq >= self._server.log.last_seq for r in replicas)
        logger.warning("%d of %d replicas are in sync when shutting down.", synced, len(replicas))
        self._stop()

    def _stop(self) -> None:
        self._end_wait()
        if not self.stopping.done():
            self.stopping.set_result(self._flush)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._watch(False)

    def _watch(self, begin: bool) -> None:
        """Hear of acknowledgements, or don't any more."""
        verbs = self._server.replication.verbs
        if verbs is not None:
            (verbs.on_ack.append if begin else verbs.on_ack.remove)(self._acknowledged)
