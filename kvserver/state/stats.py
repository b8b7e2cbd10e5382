"""Counters that INFO shows. It must not know who counts. CONFIG RESETSTAT clears them."""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import Final

#: Samples of an instantaneous figure (server.h, STATS_METRIC_SAMPLES).
SAMPLES: Final = 16
#: Codes of errors that are told apart (server.h, ERROR_STATS_NUMBER): scripts make up their own.
ERROR_CODES: Final = 128
DISABLED: Final = "ERRORSTATS_DISABLED"

logger = logging.getLogger("kvserver")


class Rate:
    """A counter's rate over the last samples, as INFO's instantaneous_* figures."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._rates: deque[float] = deque(maxlen=SAMPLES)

    def sample(self, now: float, value: int) -> None:
        """The counter stands at `value` at `now` (monotonic seconds)."""
        if self._last is not None and now > self._last[0]:
            before, count = self._last
            self._rates.append(max(value - count, 0) / (now - before))
        self._last = (now, value)

    def per_second(self) -> float:
        """The mean of the samples."""
        return sum(self._rates) / len(self._rates) if self._rates else 0.0


class Stats:
    """What is counted outside of the commands themselves."""

    def __init__(self) -> None:
        self.ops = Rate()
        self.input = Rate()
        self.output = Rate()
        self.connections = 0
        self.net_input = 0
        self.net_output = 0
        self.reset()

    def reset(self) -> None:
        """CONFIG RESETSTAT."""
        self.connections = 0
        self.rejected_connections = 0
        self.net_input = 0
        self.net_output = 0
        #: Reads from and writes to sockets.
        self.reads = 0
        self.writes = 0
        #: Time that active expiry took, and cycles that ran out of it.
        self.expire_ns = 0
        self.expire_cut_short = 0
        self.query_buffer_disconnections = 0
        self.output_buffer_disconnections = 0
        #: What users were denied: command, key, channel or auth.
        self.acl_denied: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.errors_disabled = False
        self.total_errors = 0

    def count_error(self, code: str) -> None:
        """An error reply with this code (ERR, WRONGTYPE, ...) was sent."""
        self.total_errors += 1
        if self.errors_disabled:
            return
        self.errors[code] += 1
        if len(self.errors) > ERROR_CODES:
            logger.warning(
                "Errorstats stopped adding new errors because the number of errors reached "
                "the limit, may be misuse of lua error_reply, please check INFO ERRORSTATS, "
                "this can be re-enabled via CONFIG RESETSTAT."
            )
            self.errors_disabled = True
            self.errors = Counter({DISABLED: 1})
