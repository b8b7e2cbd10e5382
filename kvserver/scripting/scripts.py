"""The scripts of EVAL: compiled once, known by their SHA1, forgotten when the server stops.

It must not know sockets. Source: Redis 7.4's eval.c. Invariant: a script that only EVAL brought is
evicted when there are more than MAX_EVAL_SCRIPTS of them, the least recently used first; one of
SCRIPT LOAD stays until SCRIPT FLUSH.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from kvserver import errors
from kvserver.args import parse_int
from kvserver.errors import RedisError
from kvserver.quoting import split_args
from kvserver.reply import Forms
from kvserver.scripting.runner import COMPATIBLE, FLAGS, NO_WRITES, Run, Runner
from kvserver.scripting.sandbox import Outcome, Sandbox
from kvserver.state.context import Context

MAX_EVAL_SCRIPTS: Final = 500
#: What Redis 7.4 tells scripts of itself.
VERSION: Final = b"7.4.0"
VERSION_NUM: Final = 0x00070400
_CHUNK: Final = b"@user_script"
_SHA1_LENGTH: Final = 40
#: What CPython and Lua keep of a script beside its text, about.
_OVERHEAD: Final = 200


class Script:
    """A script that can be run."""

    __slots__ = ("body", "evictable", "flags", "function")

    def __init__(self, body: bytes, flags: int, function: Any) -> None:
        self.body = body
        self.flags = flags
        self.function = function
        self.evictable = False


def sha1(body: bytes) -> bytes:
    """The name of a script."""
    return hashlib.sha1(body).hexdigest().encode()


class Scripts:
    """The cache of scripts, and the Lua state that runs them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._sandbox: Sandbox | None = None
        self._scripts: dict[bytes, Script] = {}
        #: Those that only EVAL brought, the least recently used first.
        self._evictable: dict[bytes, None] = {}
        self.evicted = 0

    # -- the cache ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._scripts)

    @property
    def memory(self) -> int:
        """What Lua holds for scripts."""
        return 0 if self._sandbox is None else self._sandbox.memory

    @property
    def overhead(self) -> int:
        """About what the cache itself takes."""
        return sum(len(script.body) + _OVERHEAD for script in self._scripts.values())

    def exists(self, digest: bytes) -> bool:
        return digest.lower() in self._scripts

    def flush(self) -> None:
        """Forget all scripts, and what their state holds."""
        self._scripts.clear()
        self._evictable.clear()
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def load(self, body: bytes) -> bytes:
        """SCRIPT LOAD: the script's SHA1. Raises RedisError: it isn't valid."""
        digest = sha1(body)
        self._find_or_compile(digest, body)
        self._scripts[digest].evictable = False
        self._evictable.pop(digest, None)
        return digest

    def _find_or_compile(self, digest: bytes, body: bytes) -> Script:
        script = self._scripts.get(digest)
        if script is not None:
            return script
        flags, text = read_shebang(body)
        if self._sandbox is None:
            self._sandbox = Sandbox(self._runner, VERSION, VERSION_NUM)
        try:
            function = self._sandbox.compile(text, _CHUNK)
        except ValueError as error:
            raise errors.error(f"Error compiling script (new function): {error}") from None
        script = self._scripts[digest] = Script(body, flags, function)
        return script

    def _note_eval(self, digest: bytes, script: Script, new: bool) -> None:
        """EVAL used a script: keep the number of those that only it knows."""
        if new:
            script.evictable = True
        if not script.evictable:
            return
        self._evictable.pop(digest, None)
        self._evictable[digest] = None
        if len(self._evictable) > MAX_EVAL_SCRIPTS:
            oldest = next(iter(self._evictable))
            del self._evictable[oldest], self._scripts[oldest]
            self.evicted += 1

    # -- running -----------------------------------------------------------------------------------

    def eval(self, ctx: Context, command: bytes, args: Sequence[bytes], *, read_only: bool) -> Any:
        """EVAL: run a script, which is kept for EVALSHA."""
        body = args[0]
        keys, rest = split_keys(args[1:])
        digest = sha1(body)
        new = digest not in self._scripts
        script = self._find_or_compile(digest, body)
        self._note_eval(digest, script, new)
        return self._run(ctx, [command, *args], digest, script, keys, rest, read_only)

    def evalsha(
        self, ctx: Context, command: bytes, args: Sequence[bytes], *, read_only: bool
    ) -> Any:
        """EVALSHA."""
        digest = args[0].lower()
        if len(digest) != _SHA1_LENGTH:
            raise _no_script()
        keys, rest = split_keys(args[1:])
        script = self._scripts.get(digest)
        if script is None:
            raise _no_script()
        self._note_eval(digest, script, False)
        return self._run(ctx, [command, *args], digest, script, keys, rest, read_only)

    def _run(
        self,
        ctx: Context,
        command: list[bytes],
        digest: bytes,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        read_only: bool,
    ) -> Any:
        error = self._runner.refusal(script.flags, read_only)
        if error is not None:
            raise error
        assert self._sandbox is not None
        flags = script.flags | (NO_WRITES if read_only else 0)
        run = Run(ctx.session, digest, command, flags, is_eval=True)
        outcome = self._runner.run(run, self._sandbox, script.function, keys, args)
        return answer(ctx, outcome, digest, command[0])


def _no_script() -> RedisError:
    return RedisError("NOSCRIPT No matching script. Please use EVAL.")


def split_keys(args: Sequence[bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The keys and the arguments behind their number."""
    count = parse_int(args[0])
    if count > len(args) - 1:
        raise errors.error("Number of keys can't be greater than number of args")
    if count < 0:
        raise errors.error("Number of keys can't be negative")
    return args[1 : 1 + count], args[1 + count :]


def read_shebang(body: bytes) -> tuple[int, bytes]:
    """A script's flags, and its text without the first line's words (evalExtractShebangFlags)."""
    if not body.startswith(b"#!"):
        return COMPATIBLE, body
    line, newline, rest = body.partition(b"\n")
    if not newline:
        raise errors.error("Invalid script shebang")
    words = split_args(line)
    if not words:
        raise errors.error("Invalid engine in script shebang")
    if words[0] != b"#!lua":
        raise errors.error(f"Unexpected engine in script shebang: {_text(words[0])}")
    flags = 0
    for word in words[1:]:
        name, equals, value = word.partition(b"=")
        if name != b"flags" or not equals:
            raise errors.error(f"Unknown lua shebang option: {_text(word)}")
        for flag in value.split(b",") if value else ():
            if flag not in FLAGS:
                raise errors.error(f"Unexpected flag in script shebang: {_text(flag)}")
            flags |= FLAGS[flag]
    return flags, b"\n" + rest


def answer(ctx: Context, outcome: Outcome, name: bytes, command: bytes) -> Any:
    """The reply to who called the script or function."""
    if not outcome.error:
        return Forms([outcome.resp2], [outcome.resp3])
    text = outcome.error
    if outcome.source is not None:
        text += b" script: %b, on %b:%d." % (name, outcome.source, outcome.line)
    error = RedisError(_text(text))
    if not outcome.counted:
        raise error
    entry = ctx.server.table.entries.get(command)
    if entry is not None:
        entry.failed += 1
    return error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
