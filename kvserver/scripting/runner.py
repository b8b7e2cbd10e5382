"""The script that runs: what it may call, how long it has run, how it ends.

It must not know where scripts come from or sockets. Source: Redis 7.4's script.c (scriptCall,
scriptPrepareForRun, scriptInterrupt, scriptKill) and script_lua.c.

Invariants:
- One script runs at a time, and nothing else does meanwhile: only commands with ALLOW_BUSY are let
  in, when it has run for `busy-reply-threshold`, and none of these reads or writes data.
- When a command fails unexpectedly (InternalError), the pending batch is gone and with it what the
  script wrote: it runs no further command, and ends with that error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kvserver import errors, resp
from kvserver.errors import InternalError, RedisError
from kvserver.numbers import format_double
from kvserver.registry import MAY_REPLICATE, NOSCRIPT, STALE, WRITE
from kvserver.scripting.sandbox import AS_ERROR, AS_IS, AS_RESP, AS_STATUS, Outcome, Sandbox
from kvserver.state import acl, admission, monitor
from kvserver.state.session import NO_SINK, RESTRICTED, Session
from kvserver.storage.commitlog import EngineError

if TYPE_CHECKING:
    from kvserver.state.server import Server
    from kvserver.state.table import Entry

logger = logging.getLogger("kvserver")

# The flags of a script (#!lua flags=...) and of a function.
NO_WRITES: Final = 1
ALLOW_OOM: Final = 2
ALLOW_STALE: Final = 4
NO_CLUSTER: Final = 8
ALLOW_CROSS_SLOT: Final = 16
#: A script without a shebang line: what it may do is only known when it does it.
COMPATIBLE: Final = 32

FLAGS: Final[dict[bytes, int]] = {
    b"no-writes": NO_WRITES,
    b"allow-oom": ALLOW_OOM,
    b"allow-stale": ALLOW_STALE,
    b"no-cluster": NO_CLUSTER,
    b"allow-cross-slot-keys": ALLOW_CROSS_SLOT,
}

_SLOW_NEVER: Final = 1 << 62
_LEVELS: Final = (logging.DEBUG, logging.DEBUG, logging.INFO, logging.WARNING)
_HALF_INT64: Final = (1 << 62) - 1
_LINE_BREAKS: Final = str.maketrans("\r\n", "  ")

#: It says SCRIPT KILL of functions too.
_KILLED: Final = b"ERR Script killed by user with SCRIPT KILL..."

Word = bytes | int | float


class Run:
    """A script under way."""

    def __init__(
        self, caller: Session, name: bytes, command: list[bytes], flags: int, *, is_eval: bool
    ) -> None:
        self.caller = caller
        #: The script's SHA1, or the function's name.
        self.name = name
        self.command = command
        self.read_only = flags & NO_WRITES != 0
        self.allow_stale = flags & ALLOW_STALE != 0
        self.is_eval = is_eval
        self.started = time.monotonic()
        self.wrote = False
        self.killed = False
        #: It was killed to stop the server: what it wrote is to be forgotten.
        self.abandoned = False
        self.crash: InternalError | None = None


class Runner:
    """Runs scripts and functions: the `Host` of their sandboxes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.session = Session(0, NO_SINK, server.turn, "lua", "")
        self.running: Run | None = None
        #: The running script was reported to be slow.
        self.busy = False
        #: Monotonic time when a library that is being loaded has taken too long; 0: none is.
        self.load_deadline = 0.0
        #: Called now and then while it is (serves who may be served), and when it ended.
        self.serve: Callable[[], None] = _nothing
        self.ended: Callable[[], None] = _nothing

    # -- a run -----------------------------------------------------------------------------------

    def run(
        self,
        run: Run,
        sandbox: Sandbox,
        function: Any,
        keys: Sequence[bytes],
        args: Sequence[bytes],
    ) -> Outcome:
        """Run a script to its end. Raises InternalError when a command of it failed so."""
        dispatcher = self._server.dispatcher
        session, caller = self.session, run.caller
        session.db, session.user, session.resp3 = caller.db, caller.user, False
        session.namespace = caller.namespace
        session.gate = caller.gate & RESTRICTED  # for commands that look at more than their keys
        slow_ns, dispatcher.slow_ns = dispatcher.slow_ns, _SLOW_NEVER
        pubsub = self._server.pubsub
        holds = not pubsub.holding
        if holds:
            pubsub.hold()  # the script may write after it published
        self._show(run)
        self.running = run
        try:
            outcome = sandbox.run(function, keys, args, as_globals=run.is_eval)
        finally:
            self.running = None
            dispatcher.slow_ns = slow_ns
            if holds:
                pubsub.release()
            if self.busy:
                self.busy = False
                self.ended()
        if run.abandoned:
            raise dispatcher.crashed("shutdown", EngineError("the server was told to stop"))
        if run.crash is not None:
            raise run.crash
        return outcome

    def _show(self, run: Run) -> None:
        """Monitors see the script before what it calls."""
        server = self._server
        if server.monitors:
            entry = server.table.names.get(run.command[0])
            if entry is not None:
                monitor.show(server, run.caller, entry, run.command)

    def refusal(self, flags: int, read_only: bool) -> RedisError | None:
        """Why a script with these flags can't run now (scriptPrepareForRun)."""
        gate = self._server.dispatcher.gate
        if flags & COMPATIBLE:
            return errors.master_down() if gate & admission.STALE_DATA else None
        if gate & admission.STALE_DATA and not flags & ALLOW_STALE:
            return RedisError(
                "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and "
                "'allow-stale' flag is not set on the script."
            )
        if flags & NO_WRITES:
            return None
        if gate & admission.READ_ONLY:
            return RedisError("READONLY Can not run script with write flag on readonly replica.")
        if gate & admission.FAILED:
            return errors.misconf(self._server.dispatcher.failure)
        if read_only:
            return errors.error("Can not execute a script with write flag using *_ro command.")
        return errors.no_replicas() if gate & admission.FEW_REPLICAS else None

    # -- Host --------------------------------------------------------------------------------------

    def call(self, words: Sequence[Word]) -> tuple[Any, ...]:
        run = self.running
        if run is None:
            return _error("redis.call/pcall can only be called inside a script invocation")
        if run.crash is not None:
            return AS_ERROR, str(run.crash).encode("utf-8", "surrogateescape"), True
        args = [_argument(word) for word in words]
        entry, error = self._checked(run, args)
        if entry is None or error is not None:
            return self._reject(entry, error or errors.error("unknown command"))
        if entry.flags & WRITE:
            run.wrote = True
        dispatcher = self._server.dispatcher
        dispatcher.clock = time.perf_counter_ns()
        reply = dispatcher.call_now(self.session, entry, args)
        if type(reply) is InternalError:
            run.crash = reply
        return self._converted(reply)

    def _checked(self, run: Run, args: list[bytes]) -> tuple[Entry | None, RedisError | None]:
        """The command, and why it may not be called here (scriptCall)."""
        try:
            entry = self._server.table.find(args)
        except RedisError:
            return None, errors.error("Unknown Redis command called from script")
        count = len(args)
        if entry.subcommands or (
            count != entry.arity and (entry.arity >= 0 or count < -entry.arity)
        ):
            return entry, errors.error("Wrong number of args calling Redis command from script")
        if entry.flags & NOSCRIPT:
            return entry, errors.error("This Redis command is not allowed from script")
        gate = self._server.dispatcher.gate
        if gate & admission.STALE_DATA and not entry.flags & STALE:
            return entry, errors.error("Can not execute the command on a stale replica")
        error = self._server.acl.check(run.caller, entry, args, acl.LUA)
        return entry, error or self._write_refusal(run, entry, gate)

    def _write_refusal(self, run: Run, entry: Entry, gate: int) -> RedisError | None:
        """scriptVerifyWriteCommandAllow."""
        if run.read_only and entry.flags & (WRITE | MAY_REPLICATE):
            return errors.error("Write commands are not allowed from read-only scripts.")
        if not entry.flags & WRITE:
            return None
        if gate & admission.READ_ONLY:
            return errors.readonly()
        if run.wrote:  # it can't fail half-way for a reason that comes and goes
            return None
        if gate & admission.FAILED:
            return errors.misconf(self._server.dispatcher.failure)
        return errors.no_replicas() if gate & admission.FEW_REPLICAS else None

    def _reject(self, entry: Entry | None, error: RedisError) -> tuple[Any, ...]:
        if entry is not None:
            entry.rejected += 1
        self._server.stats.count_error(error.code)
        return AS_ERROR, _line(error), True

    def _converted(self, reply: Any) -> tuple[Any, ...]:
        """A reply as it is handed to Lua."""
        kind = type(reply)
        if kind is bytes or kind is int:
            return AS_IS, reply
        resp3 = self.session.resp3
        if reply is None:
            return AS_IS, None if resp3 else False
        if kind is resp.Simple:
            return AS_STATUS, bytes(reply)
        if isinstance(reply, RedisError):
            return AS_ERROR, _line(reply), True
        return AS_RESP, resp.encode(reply, resp3)

    def acl_check(self, words: Sequence[Word]) -> bool | None:
        args = [_argument(word) for word in words]
        table, users = self._server.table, self._server.acl
        try:
            entry = table.find(args)
        except RedisError:
            return None
        if self.running is None:
            return None
        return users.denied(users.user_of(self.running.caller), entry, args) is None

    def setresp(self, resp3: bool) -> None:
        self.session.resp3 = resp3

    def log(self, level: int, text: bytes) -> None:
        logger.log(_LEVELS[level], "%s", text.decode("utf-8", "backslashreplace"))

    def tick(self) -> bytes | None:
        run = self.running
        if run is None:
            late = self.load_deadline and time.monotonic() > self.load_deadline
            return b"ERR FUNCTION LOAD timeout" if late else None
        if not self.busy:
            self._look_at_clock(run)
        if self.busy:
            self.serve()
        return _KILLED if run.killed else None

    def _look_at_clock(self, run: Run) -> None:
        threshold = self._server.config.get_int("busy-reply-threshold")
        elapsed = int((time.monotonic() - run.started) * 1000)
        if not threshold or elapsed < threshold:
            return
        self.busy = True
        kind = "SCRIPT" if run.is_eval else "FUNCTION"
        logger.warning(
            "Slow script detected: still in execution after %d milliseconds. You can try killing "
            "the script using the %s KILL command. Script name is: %s.",
            elapsed,
            kind,
            run.name.decode("utf-8", "replace"),
        )

    # -- who waits for it --------------------------------------------------------------------------

    def busy_error(self) -> RedisError:
        """What everybody is told while a script is slow."""
        return _busy(self.running is None or self.running.is_eval)

    def abandon(self) -> None:
        """End the script, whatever it did."""
        if self.running is not None:
            self.running.killed = self.running.abandoned = True

    def kill(self, *, is_eval: bool) -> None:
        """SCRIPT KILL and FUNCTION KILL; raises RedisError when there is nothing to kill."""
        run = self.running
        if run is None:
            raise RedisError("NOTBUSY No scripts in execution right now.")
        if run.wrote:
            raise RedisError(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. "
                "You can either wait the script termination or kill the server in a hard way using "
                "the SHUTDOWN NOSAVE command."
            )
        if run.is_eval != is_eval:
            raise _busy(run.is_eval)
        run.killed = True


def _busy(is_eval: bool) -> RedisError:
    kind = "SCRIPT" if is_eval else "FUNCTION"
    return RedisError(
        f"BUSY Redis is busy running a script. You can only call {kind} KILL or SHUTDOWN NOSAVE."
    )


def _argument(word: Word) -> bytes:
    """An argument as a string (scriptCall's callers: luaArgsToRedisArgv)."""
    if isinstance(word, bytes):
        return word
    if isinstance(word, int) and -_HALF_INT64 <= word <= _HALF_INT64:
        return b"%d" % word
    return format_double(float(word))


def _line(error: RedisError) -> bytes:
    return str(error).translate(_LINE_BREAKS).encode("utf-8", "surrogateescape")


def _error(text: str) -> tuple[Any, ...]:
    return AS_ERROR, b"ERR " + text.encode(), False


def _nothing() -> None:
    return None
