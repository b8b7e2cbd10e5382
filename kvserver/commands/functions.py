"""Functions: FCALL, FUNCTION. How they run is kvserver/scripting's.

Source: Redis 7.4's functions.c.
"""

from __future__ import annotations

import time
from typing import Any, Final

from kvserver import errors, glob, numbers, resp
from kvserver.commands.help import help_reply
from kvserver.commands.scripts import ANY_KEYS, READ_KEYS
from kvserver.rdb.errors import BadFormat
from kvserver.registry import (
    ALLOW_BUSY,
    DENYOOM,
    LOADING,
    MAY_REPLICATE,
    MOVABLE_KEYS,
    NO_MANDATORY_KEYS,
    NOSCRIPT,
    READONLY,
    SKIP_MONITOR,
    STALE,
    WRITE,
    command,
    container,
)
from kvserver.scripting import payload
from kvserver.scripting.functions import Library
from kvserver.scripting.sandbox import Registered
from kvserver.state.context import ReadContext, WriteContext

_RUNS: Final = NOSCRIPT | SKIP_MONITOR | STALE | NO_MANDATORY_KEYS | MOVABLE_KEYS
_SCRIPTING: Final = ("scripting",)
_ALL_SHARDS: Final = ("request_policy:all_shards", "response_policy:all_succeeded")


@command(
    "fcall",
    -3,
    _RUNS | MAY_REPLICATE,
    group="scripting",
    since="7.0.0",
    summary="Invokes a function.",
    complexity="Depends on the function that is executed.",
    keys=ANY_KEYS,
    categories=_SCRIPTING,
)
def fcall(ctx: ReadContext, *args: bytes) -> Any:
    return _call(ctx, b"fcall", args, read_only=False)


@command(
    "fcall_ro",
    -3,
    _RUNS | READONLY,
    group="scripting",
    since="7.0.0",
    summary="Invokes a read-only function.",
    complexity="Depends on the function that is executed.",
    keys=READ_KEYS,
    categories=_SCRIPTING,
)
def fcall_ro(ctx: ReadContext, *args: bytes) -> Any:
    return _call(ctx, b"fcall_ro", args, read_only=True)


def _call(ctx: ReadContext, name: bytes, args: tuple[bytes, ...], *, read_only: bool) -> Any:
    functions = ctx.server.scripting.functions
    functions.find(args[0])
    count = numbers.parse_int64(args[1])
    if count is None:
        raise errors.error("Bad number of keys provided")
    if count > len(args) - 2:
        raise errors.error("Number of keys can't be greater than number of args")
    if count < 0:
        raise errors.error("Number of keys can't be negative")
    keys, rest = args[2 : 2 + count], args[2 + count :]
    return functions.call(ctx, [name, *args], args[0], keys, rest, read_only)


container(
    "function", group="scripting", since="7.0.0", summary="A container for function commands."
)


@command(
    "function|delete",
    3,
    NOSCRIPT | WRITE,
    group="scripting",
    since="7.0.0",
    summary="Deletes a library and its functions.",
    categories=_SCRIPTING,
    tips=_ALL_SHARDS,
)
def function_delete(ctx: WriteContext, name: bytes) -> resp.Simple:
    ctx.server.scripting.functions.delete(name)
    return resp.OK


@command(
    "function|dump",
    2,
    NOSCRIPT,
    group="scripting",
    since="7.0.0",
    summary="Dumps all libraries into a serialized binary payload.",
    complexity="O(N) where N is the number of functions",
    categories=_SCRIPTING,
)
def function_dump(ctx: ReadContext) -> bytes:
    libraries = ctx.server.scripting.functions.libraries()
    return payload.dump([library.code for library in libraries.values()])


@command(
    "function|flush",
    -2,
    NOSCRIPT | WRITE,
    group="scripting",
    since="7.0.0",
    summary="Deletes all libraries and functions.",
    complexity="O(N) where N is the number of functions deleted",
    categories=_SCRIPTING,
    tips=_ALL_SHARDS,
)
def function_flush(ctx: WriteContext, *mode: bytes) -> resp.Simple:
    if len(mode) > 1:
        raise errors.subcommand_syntax(b"function", b"FLUSH")
    if mode and mode[0].lower() not in (b"sync", b"async"):
        raise errors.error("FUNCTION FLUSH only supports SYNC|ASYNC option")
    ctx.server.scripting.functions.flush()
    return resp.OK


@command(
    "function|kill",
    2,
    NOSCRIPT | ALLOW_BUSY,
    group="scripting",
    since="7.0.0",
    summary="Terminates a function during execution.",
    categories=_SCRIPTING,
    tips=("request_policy:all_shards", "response_policy:one_succeeded"),
)
def function_kill(ctx: ReadContext) -> resp.Simple:
    ctx.server.scripting.runner.kill(is_eval=False)
    return resp.OK


@command(
    "function|list",
    -2,
    NOSCRIPT,
    group="scripting",
    since="7.0.0",
    summary="Returns information about all libraries.",
    complexity="O(N) where N is the number of functions",
    categories=_SCRIPTING,
    tips=("nondeterministic_output_order",),
)
def function_list(ctx: ReadContext, *options: bytes) -> list[dict[bytes, Any]]:
    pattern, with_code = _list_options(options)
    libraries = list(ctx.server.scripting.functions.libraries().values())
    if pattern is not None:
        matches = glob.compile(pattern)
        libraries = [lib for lib in libraries if matches(lib.name)]
    return [_described(library, with_code) for library in libraries]


def _list_options(options: tuple[bytes, ...]) -> tuple[bytes | None, bool]:
    """The pattern of names, and whether code is wanted."""
    pattern: bytes | None = None
    with_code = False
    rest = list(options)
    while rest:
        word = rest.pop(0)
        if not with_code and word.lower() == b"withcode":
            with_code = True
        elif pattern is None and word.lower() == b"libraryname":
            if not rest:
                raise errors.error("library name argument was not given")
            pattern = rest.pop(0)
        else:
            raise errors.error(f"Unknown argument {word.decode('utf-8', 'surrogateescape')}")
    return pattern, with_code


def _described(library: Library, with_code: bool) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {
        b"library_name": library.name,
        b"engine": b"LUA",
        b"functions": [_function(function) for function in library.functions.values()],
    }
    if with_code:
        found[b"library_code"] = library.code
    return found


def _function(function: Registered) -> dict[bytes, Any]:
    flags = resp.Members(resp.Simple(flag) for flag in function.flags)
    return {b"name": function.name, b"description": function.description, b"flags": flags}


@command(
    "function|load",
    -3,
    NOSCRIPT | WRITE | DENYOOM,
    group="scripting",
    since="7.0.0",
    summary="Creates a library.",
    complexity="O(1) (considering compilation time is redundant)",
    categories=_SCRIPTING,
    tips=_ALL_SHARDS,
)
def function_load(ctx: WriteContext, *args: bytes) -> bytes:
    for option in args[:-1]:
        if option.lower() != b"replace":
            text = option.decode("utf-8", "surrogateescape")
            raise errors.error(f"Unknown option given: {text}")
    return ctx.server.scripting.functions.load(args[-1], replace=len(args) > 1)


@command(
    "function|restore",
    -3,
    NOSCRIPT | WRITE | DENYOOM,
    group="scripting",
    since="7.0.0",
    summary="Restores all libraries from a payload.",
    complexity="O(N) where N is the number of functions on the payload",
    categories=_SCRIPTING,
    tips=_ALL_SHARDS,
)
def function_restore(ctx: WriteContext, data: bytes, *policy: bytes) -> resp.Simple:
    if len(policy) > 1:
        raise errors.subcommand_syntax(b"function", b"RESTORE")
    how = policy[0].lower() if policy else b"append"
    if how not in (b"append", b"flush", b"replace"):
        raise errors.error(
            "Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE."
        )
    try:
        codes = payload.load(data)
    except BadFormat as problem:
        raise errors.error(str(problem)) from None
    ctx.server.scripting.functions.restore(codes, how)
    return resp.OK


@command(
    "function|stats",
    2,
    NOSCRIPT | ALLOW_BUSY,
    group="scripting",
    since="7.0.0",
    summary="Returns information about a function during execution.",
    categories=_SCRIPTING,
    tips=("nondeterministic_output", "request_policy:all_shards", "response_policy:special"),
)
def function_stats(ctx: ReadContext) -> dict[bytes, Any]:
    scripting = ctx.server.scripting
    run = scripting.runner.running
    running: dict[bytes, Any] | None = None
    if run is not None:
        if run.is_eval:
            raise scripting.runner.busy_error()
        elapsed = int((time.monotonic() - run.started) * 1000)
        running = {b"name": run.name, b"command": run.command, b"duration_ms": elapsed}
        libraries = scripting.functions.loaded
    else:
        libraries = scripting.functions.libraries()
    counts = {b"libraries_count": len(libraries), b"functions_count": scripting.functions.count}
    return {b"running_script": running, b"engines": {b"LUA": counts}}


@command(
    "function|help",
    2,
    LOADING | STALE,
    group="scripting",
    since="7.0.0",
    summary="Returns helpful text about the different subcommands.",
    categories=_SCRIPTING,
)
def function_help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "function",
        "LOAD [REPLACE] <FUNCTION CODE>",
        "    Create a new library with the given library name and code.",
        "DELETE <LIBRARY NAME>",
        "    Delete the given library.",
        "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
        "    Return general information on all the libraries:",
        "    * Library name",
        "    * The engine used to run the Library",
        "    * Library description",
        "    * Functions list",
        "    * Library code (if WITHCODE is given)",
        "    It also possible to get only function that matches a pattern using LIBRARYNAME"
        " argument.",
        "STATS",
        "    Return information about the current function running:",
        "    * Function name",
        "    * Command used to run the function",
        "    * Duration in MS that the function is running",
        "    If no function is running, return nil",
        "    In addition, returns a list of available engines.",
        "KILL",
        "    Kill the current running function.",
        "FLUSH [ASYNC|SYNC]",
        "    Delete all the libraries.",
        "    When called without the optional mode argument, the behavior is determined by the",
        "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
        "    * ASYNC: Asynchronously flush the libraries.",
        "    * SYNC: Synchronously flush the libraries.",
        "DUMP",
        "    Return a serialized payload representing the current libraries, can be restored using"
        " FUNCTION RESTORE command",
        "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
        "    Restore the libraries represented by the given payload, it is possible to give a"
        " restore policy to",
        "    control how to handle existing libraries (default APPEND):",
        "    * FLUSH: delete all existing libraries.",
        "    * APPEND: appends the restored libraries to the existing libraries. On collision,"
        " abort.",
        "    * REPLACE: appends the restored libraries to the existing libraries, On collision,"
        " replace the old",
        "      libraries with the new libraries (notice that even on this option there is a chance"
        " of failure",
        "      in case of functions name collision with another library).",
    )
