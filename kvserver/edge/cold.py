"""Threads that read what commands wait for (state/cold.py), past the GIL.

It must not know commands. The sessions of a turn are dealt out to the threads; each session goes on
when its own rows are there. Threads are started when they are needed first, and stay.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from queue import SimpleQueue
from typing import Final

from kvserver.state.cold import ColdCommands
from kvserver.state.lookahead import Ahead, fetch
from kvserver.state.session import Session
from kvserver.storage.engine import Engine

logger = logging.getLogger("kvserver")

#: Each has an arena of malloc's, from which blocks of the cache come: more take more memory.
THREADS: Final = 4
#: Fewer sessions than these aren't dealt out: it costs a thread some time to begin.
SESSIONS_PER_JOB: Final = 4

Job = list[tuple[Session, Ahead]]


class ColdReader:
    """Fetches rows for sessions."""

    def __init__(self, cold: ColdCommands, engine: Engine) -> None:
        self._cold = cold
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        #: Jobs that aren't done.
        self._running = 0

    def start(self) -> None:
        """The turn is over: fetch what its sessions wait for."""
        work = [(session, self._cold.ahead(session)) for session in self._cold.take()]
        size = max(-(-len(work) // THREADS), SESSIONS_PER_JOB)
        for first in range(0, len(work), size):
            self._submit(work[first : first + size])

    def _submit(self, job: Job) -> None:
        self._running += 1
        if self._running > len(self._threads) < THREADS:
            thread = threading.Thread(target=self._work, name="cold reads", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                warmed = fetch(self._engine, [ahead for _, ahead in job])
                for (session, _), keys in zip(job, warmed, strict=True):
                    session.cold.warmed = keys
            except Exception:  # nobody would ever be answered
                logger.exception("rows can't be fetched; the loop reads them")
            self._loop.call_soon_threadsafe(self._done, [session for session, _ in job])

    def _done(self, sessions: list[Session]) -> None:
        self._running -= 1
        self._cold.run_again(sessions)

    async def stop(self) -> None:
        """End the threads; whoever waits for them waits no more."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await self._loop.run_in_executor(None, thread.join)
