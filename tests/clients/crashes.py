"""A server that is killed again and again while applications work.

It knows nothing of the applications. `kill -9` and an immediate restart on the same port is the
fault: what kvserver acknowledged must be there when it answers again (`appendfsync everysec`).
"""

from __future__ import annotations

import threading
from types import TracebackType

from harness import Server


class Crashes:
    """While the context lasts, kill and restart `server` each `interval` seconds, `times` times.

    Leaving the context waits until the last restart is done, so at least one crash happened.
    """

    def __init__(self, server: Server, times: int = 3, interval: float = 1.5) -> None:
        self.server = server
        self.times = times
        self.interval = interval
        self.done = 0
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crashes")

    def __enter__(self) -> Crashes:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stop.set()
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while self.done < self.times and not self._stop.wait(self.interval):
                self.server.kill9()
                self.server.start()
                self.done += 1
        except BaseException as error:
            self._error = error
