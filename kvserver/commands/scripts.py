"""Scripts: EVAL and its kin, SCRIPT. How they run is kvserver/scripting's.

Source: Redis 7.4's eval.c.
"""

from __future__ import annotations

from typing import Any, Final

from kvserver import errors, resp
from kvserver.commands.help import help_reply
from kvserver.registry import (
    ALLOW_BUSY,
    LOADING,
    MAY_REPLICATE,
    MOVABLE_KEYS,
    NO_MANDATORY_KEYS,
    NOSCRIPT,
    READONLY,
    SKIP_MONITOR,
    STALE,
    KeySpec,
    command,
    container,
    numbered_keys,
)
from kvserver.state.context import ReadContext

_RUNS: Final = NOSCRIPT | SKIP_MONITOR | STALE | NO_MANDATORY_KEYS | MOVABLE_KEYS
_WRITES: Final = _RUNS | MAY_REPLICATE
_READS: Final = _RUNS | READONLY
_SCRIPTING: Final = ("scripting",)
_WORST: Final = "We cannot tell how the keys will be used so we assume the worst, "

#: The keys behind their number, used in any way.
ANY_KEYS: Final = (
    KeySpec(2, -1, 1, ("RW", "ACCESS", "UPDATE"), _WORST + "RW and UPDATE", numbered=True),
)
READ_KEYS: Final = (KeySpec(2, -1, 1, ("RO", "ACCESS"), _WORST + "RO and ACCESS", numbered=True),)
#: The same of EVALSHA, which Redis says nothing about.
_SHA_KEYS: Final = numbered_keys("RW", "ACCESS", "UPDATE", at=2)
_SHA_READ_KEYS: Final = numbered_keys("RO", "ACCESS", at=2)


@command(
    "eval",
    -3,
    _WRITES,
    group="scripting",
    since="2.6.0",
    summary="Executes a server-side Lua script.",
    complexity="Depends on the script that is executed.",
    keys=ANY_KEYS,
    categories=_SCRIPTING,
)
def eval_(ctx: ReadContext, *args: bytes) -> Any:
    return ctx.server.scripting.scripts.eval(ctx, b"eval", args, read_only=False)


@command(
    "eval_ro",
    -3,
    _READS,
    group="scripting",
    since="7.0.0",
    summary="Executes a read-only server-side Lua script.",
    complexity="Depends on the script that is executed.",
    keys=READ_KEYS,
    categories=_SCRIPTING,
)
def eval_ro(ctx: ReadContext, *args: bytes) -> Any:
    return ctx.server.scripting.scripts.eval(ctx, b"eval_ro", args, read_only=True)


@command(
    "evalsha",
    -3,
    _WRITES,
    group="scripting",
    since="2.6.0",
    summary="Executes a server-side Lua script by SHA1 digest.",
    complexity="Depends on the script that is executed.",
    keys=_SHA_KEYS,
    categories=_SCRIPTING,
)
def evalsha(ctx: ReadContext, *args: bytes) -> Any:
    return ctx.server.scripting.scripts.evalsha(ctx, b"evalsha", args, read_only=False)


@command(
    "evalsha_ro",
    -3,
    _READS,
    group="scripting",
    since="7.0.0",
    summary="Executes a read-only server-side Lua script by SHA1 digest.",
    complexity="Depends on the script that is executed.",
    keys=_SHA_READ_KEYS,
    categories=_SCRIPTING,
)
def evalsha_ro(ctx: ReadContext, *args: bytes) -> Any:
    return ctx.server.scripting.scripts.evalsha(ctx, b"evalsha_ro", args, read_only=True)


container(
    "script",
    group="scripting",
    since="2.6.0",
    summary="A container for Lua scripts management commands.",
)


@command(
    "script|exists",
    -3,
    NOSCRIPT,
    group="scripting",
    since="2.6.0",
    summary="Determines whether server-side Lua scripts exist in the script cache.",
    complexity="O(N) with N being the number of scripts to check (so checking a single script is "
    "an O(1) operation).",
    categories=_SCRIPTING,
    tips=("request_policy:all_shards", "response_policy:agg_logical_and"),
)
def script_exists(ctx: ReadContext, *digests: bytes) -> list[int]:
    return [int(ctx.server.scripting.scripts.exists(digest)) for digest in digests]


@command(
    "script|flush",
    -2,
    NOSCRIPT,
    group="scripting",
    since="2.6.0",
    summary="Removes all server-side Lua scripts from the script cache.",
    complexity="O(N) with N being the number of scripts in cache",
    categories=_SCRIPTING,
    tips=("request_policy:all_nodes", "response_policy:all_succeeded"),
    history=(("6.2.0", "Added the `ASYNC` and `SYNC` flushing mode modifiers."),),
)
def script_flush(ctx: ReadContext, *mode: bytes) -> resp.Simple:
    if len(mode) > 1 or (mode and mode[0].lower() not in (b"sync", b"async")):
        raise errors.error("SCRIPT FLUSH only support SYNC|ASYNC option")
    ctx.server.scripting.scripts.flush()
    return resp.OK


@command(
    "script|kill",
    2,
    NOSCRIPT | ALLOW_BUSY,
    group="scripting",
    since="2.6.0",
    summary="Terminates a server-side Lua script during execution.",
    categories=_SCRIPTING,
    tips=("request_policy:all_shards", "response_policy:one_succeeded"),
)
def script_kill(ctx: ReadContext) -> resp.Simple:
    ctx.server.scripting.runner.kill(is_eval=True)
    return resp.OK


@command(
    "script|load",
    3,
    NOSCRIPT | STALE,
    group="scripting",
    since="2.6.0",
    summary="Loads a server-side Lua script to the script cache.",
    complexity="O(N) with N being the length in bytes of the script body.",
    categories=_SCRIPTING,
    tips=("request_policy:all_nodes", "response_policy:all_succeeded"),
)
def script_load(ctx: ReadContext, body: bytes) -> bytes:
    return ctx.server.scripting.scripts.load(body)


@command(
    "script|help",
    2,
    LOADING | STALE,
    group="scripting",
    since="5.0.0",
    summary="Returns helpful text about the different subcommands.",
    categories=_SCRIPTING,
)
def script_help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "script",
        "EXISTS <sha1> [<sha1> ...]",
        "    Return information about the existence of the scripts in the script cache.",
        "FLUSH [ASYNC|SYNC]",
        "    Flush the Lua scripts cache. Very dangerous on replicas.",
        "    When called without the optional mode argument, the behavior is determined by the",
        "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
        "    * ASYNC: Asynchronously flush the scripts cache.",
        "    * SYNC: Synchronously flush the scripts cache.",
        "KILL",
        "    Kill the currently executing Lua script.",
        "LOAD <script>",
        "    Load a script into the scripts cache without executing it.",
    )
