"""`kvserver failover`: hand the role of the primary to a replica, and supervise that.

The old primary does it itself, by FAILOVER: it pauses writes, waits for the target, switches and
answers the parked writes. So whatever happens to this process, the pause ends. What remains here:
to check before, to call it off in time, to tell what happened, and to point the other replicas
at the new primary. Source for the states: Redis 7.4's replication.c, "Coordinated failover".

Invariants:
- Nothing is changed before everything was checked.
- A failover is called off only while the target hasn't been asked to take over, or can't be: one
  that was asked may have taken over, and then there would be two primaries.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from kvserver.admin import topology
from kvserver.admin.client import (
    Access,
    Address,
    AdminError,
    Connection,
    Info,
    Refused,
    ReplyError,
    Unreachable,
    add_options,
    address,
    parse_info,
)

# Exit codes.
DONE: Final = 0
NOT_DONE: Final = 1  # nothing has changed (argparse's errors are 2)
NOT_ALL: Final = 3  # the target is the primary, but somebody doesn't follow it yet
UNKNOWN: Final = 4  # look at the roles

WAITING: Final = "waiting-for-sync"
IN_PROGRESS: Final = "failover-in-progress"

#: ROLE is cheap and asked often; INFO, which isn't, whenever the polls are slow.
POLL_SECONDS: Final = 0.001
SLOW_POLL_SECONDS: Final = 0.02
#: When to poll slowly: by then it isn't a matter of milliseconds any more.
SLOW_AFTER_SECONDS: Final = 0.02
#: How long to watch after the pause time-out: servers ask a target again for 5 s.
OUTCOME_SECONDS: Final = 10.0
#: How long the old primary may take to get its link up.
REJOIN_SECONDS: Final = 5.0

EPILOG: Final = """\
exit status: 0 done; 1 not done, nothing has changed; 2 usage; 3 done, but not every server
follows the new primary yet; 4 the outcome is not known, look at the roles.
"""


def main(argv: Sequence[str]) -> int:
    """Run the sub-command; its exit status."""
    options = _parser().parse_args(argv)
    if options.pause_timeout_ms <= options.sync_timeout_ms:
        _complain("--pause-timeout-ms must be greater than --sync-timeout-ms")
        return NOT_DONE
    line = TimeLine()
    try:
        return Switch(options, Access(options), line).run()
    except AdminError as error:
        _complain(str(error))
        return NOT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvserver failover",
        description="Hand the role of the primary to one of its replicas, without losing a write.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option, name, what in (
        ("--from", "source", "the primary"),
        ("--to", "target", "the replica that takes over"),
    ):
        parser.add_argument(
            option, dest=name, required=True, type=address, metavar="HOST:PORT", help=what
        )
    parser.add_argument(
        "--sync-timeout-ms",
        type=_positive,
        default=100,
        metavar="MS",
        help="how long the target may take to get every write while writes wait (%(default)s)",
    )
    parser.add_argument(
        "--pause-timeout-ms",
        type=_positive,
        default=500,
        metavar="MS",
        help="after how long to call it off if the target was not asked to take over (%(default)s)",
    )
    parser.add_argument(
        "--force-on-timeout",
        action="store_true",
        help="switch even if the target hasn't every write in time: THE OTHERS ARE LOST "
        "(the old primary saves them in DIR/rewound)",
    )
    parser.add_argument(
        "--max-behind",
        type=_positive,
        default=10_000,
        metavar="N",
        help="refuse if the target is more positions behind when it begins (%(default)s)",
    )
    add_options(parser)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(text)
    return int(text)


class TimeLine:
    """What happened when, on standard output; in ms since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seen: set[str] = set()

    def now(self) -> float:
        """Milliseconds since the start."""
        return (time.monotonic() - self._start) * 1000

    def add(self, event: str, details: str = "") -> None:
        """Print an event, the first time that it is added."""
        if event not in self._seen:
            self._seen.add(event)
            print(f"{self.now():10.1f} ms  {event}{details and ': '}{details}", flush=True)


class Switch:
    """One failover, from the checks to the other replicas."""

    def __init__(self, options: argparse.Namespace, access: Access, line: TimeLine) -> None:
        self._options = options
        self._access = access
        self._line = line
        self._from: Address = options.source
        self._to: Address = options.target
        self._asked_at = 0.0
        self._demoted_at = 0.0
        self._interrupted = False

    def run(self) -> int:
        """Do it all; the exit status."""
        source = self._access.connect(self._from)
        target = self._access.connect(self._to)
        primary = source.info()
        known = self._check(primary, target.info())
        others = [r.address for r in topology.replicas(primary) if r.address != known]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        self._begin(source, known)
        try:
            outcome = self._supervise(source, target)
        except Unreachable as error:
            _complain(f"{error}; the old primary goes on by itself")
            return UNKNOWN
        if outcome != DONE:
            return outcome
        repointed = self._repoint(others, known)
        rejoined = self._await_rejoin(source)
        self._report(source)
        return DONE if repointed and rejoined else NOT_ALL

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True

    # -- before ------------------------------------------------------------------------------

    def _check(self, primary: Info, replica: Info) -> Address:
        """The target's address as its primary knows it; AdminError if it may not take over."""
        found = topology.check(self._from, primary, self._to, replica)
        behind = topology.check_distance(primary, replica, self._options.max_behind)
        details = f"{self._to} is an online replica of {self._from}, {behind} positions behind"
        self._line.add("checked", details)
        return found.address

    def _begin(self, source: Connection, known: Address) -> None:
        """Ask the old primary."""
        options = self._options
        words: list[str | int] = ["FAILOVER", "TO", known.host, known.port]
        words += ["FORCE"] if options.force_on_timeout else []
        words += ["TIMEOUT", options.sync_timeout_ms]
        self._asked_at = self._line.now()
        _, info = source.ask_all(tuple(words), ("INFO", "replication"))
        self._line.add("asked")
        self._follow(parse_info(info))

    # -- meanwhile ---------------------------------------------------------------------------

    def _supervise(self, source: Connection, target: Connection) -> int:
        """Watch until it is over, and call it off when it takes too long."""
        limit = self._asked_at + self._options.pause_timeout_ms
        last = limit + OUTCOME_SECONDS * 1000
        called_off = False
        while self._line.now() < last:
            slowly = self._line.now() - self._asked_at > SLOW_AFTER_SECONDS * 1000
            if slowly or _role(source) == "slave":
                state = self._follow(source.info())
                if state == topology.NO_FAILOVER:
                    return self._outcome(source, target, called_off)
                overdue = self._interrupted or self._line.now() > limit
                if overdue and not called_off:
                    called_off = self._call_off(source, state)
            time.sleep(SLOW_POLL_SECONDS if slowly else POLL_SECONDS)
        _complain("the failover doesn't end; FAILOVER ABORT would end it")
        return UNKNOWN

    def _follow(self, info: Info) -> str:
        """Add what the old primary's INFO says to the time line; the state of the failover."""
        state = info["master_failover_state"]
        if state != topology.NO_FAILOVER:
            self._line.add(state)
        elif info["role"] == "slave":
            self._demoted_at = self._demoted_at or self._line.now()
            self._line.add("demoted", str(self._from))
        return state

    def _call_off(self, source: Connection, state: str) -> bool:
        """Abort, unless the target may have taken over; whether that was asked for."""
        if state == IN_PROGRESS and not self._is_gone():
            self._line.add("the target was asked to take over: waiting for it")
            return False
        reason = "interrupted" if self._interrupted else "it takes too long"
        self._line.add("calling it off", reason)
        with contextlib.suppress(ReplyError):  # it has just ended by itself
            source.ask("FAILOVER", "ABORT")
        return True

    def _is_gone(self) -> bool:
        """Whether nobody listens at the target: then nobody can write to it."""
        try:
            self._access.connect(self._to).close()
        except Refused:
            return True
        except AdminError:
            pass
        return False

    def _outcome(self, source: Connection, target: Connection, called_off: bool) -> int:
        """The failover has ended: who is the primary?"""
        demoted = source.info()["role"] == "slave"
        try:
            promoted = _role(target) == "master"
        except Unreachable:
            promoted = demoted  # its new replica has just talked to it
        if promoted:
            self._line.add("promoted", str(self._to))
        if promoted and demoted:
            return DONE
        if promoted:
            _complain(f"both are primaries: {self._from} must become a replica of {self._to}")
            return UNKNOWN
        if demoted:
            _complain(f"{self._from} follows {self._to}, which is not a primary")
            return UNKNOWN
        why = "called off" if called_off else "aborted by the primary (its log says why)"
        _complain(f"{why}; {self._from} is still the primary, and takes writes")
        return NOT_DONE

    # -- after -------------------------------------------------------------------------------

    def _repoint(self, others: list[Address], primary: Address) -> bool:
        """Point the other replicas at the new primary; whether all of them were reached."""
        fine = True
        for other in others:
            try:
                connection = self._access.connect(other)
                connection.ask("REPLICAOF", primary.host, primary.port)
                self._line.add(f"re-pointed {other}")
            except AdminError as error:
                fine = False
                _complain(f"{other} doesn't follow the new primary yet: {error}")
        return fine

    def _await_rejoin(self, source: Connection) -> bool:
        """Whether the old primary's link to the new one comes up."""

        def is_up() -> bool:
            return source.info().get("master_link_status") == "up"

        if _wait(is_up, REJOIN_SECONDS):
            self._line.add("rejoined", str(self._from))
            return True
        _complain(f"the link of {self._from} to the new primary is not up yet")
        return False

    def _report(self, source: Connection) -> None:
        """How long writes waited."""
        text = (
            f"Writes waited {self._demoted_at - self._asked_at:.1f} ms at most, as seen from here"
        )
        measured = source.info().get("last_failover_stall_us")  # redis-server doesn't say
        if measured is not None:
            text += f"; {int(measured) / 1000:.1f} ms as the old primary measured it"
        print(f"{text}.", flush=True)


def _role(connection: Connection) -> str:
    return str(connection.ask("ROLE")[0])


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(SLOW_POLL_SECONDS)
    return False


def _complain(text: str) -> None:
    print(f"kvserver failover: {text}", file=sys.stderr, flush=True)
