"""COMMAND: what commands there are and how they are called, told from the registry.

In COMMAND DOCS, arguments lack `since` and `deprecated_since`; clients don't need them for hints.
Source: Redis 7.4's server.c, commandCommand and what follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from kvserver import errors, glob, syntax
from kvserver.commands.help import help_reply
from kvserver.commands.syntaxes import SYNTAX
from kvserver.errors import RedisError
from kvserver.registry import (
    FLAG_NAMES,
    LOADING,
    NO_MANDATORY_KEYS,
    STALE,
    Key,
    KeySpec,
    Spec,
    command,
)
from kvserver.resp import Members, Simple
from kvserver.state.context import Context, ReadContext
from kvserver.state.table import Entry

_FLAGS: Final = LOADING | STALE
_UNORDERED: Final = ("nondeterministic_output_order",)
_OF_ALL: Final = "O(N) where N is the total number of Redis commands"
_OF_ASKED: Final = "O(N) where N is the number of commands to look up"
#: The flags of a key that COMMAND INFO writes in capitals; the others in small letters.
_ACCESS: Final = ("RO", "RW", "OW", "RM")

_Filter = Callable[[Spec], bool]


# -- details -----------------------------------------------------------------------------------


@command(
    "command",
    -1,
    _FLAGS,
    group="server",
    since="2.8.13",
    summary="Returns detailed information about all commands.",
    complexity=_OF_ALL,
    categories=("connection",),
    tips=_UNORDERED,
)
def command_(ctx: ReadContext) -> list[Any]:
    return _details_of_all(ctx)


@command(
    "command|info",
    -2,
    _FLAGS,
    group="server",
    since="2.8.13",
    summary="Returns information about one, multiple or all commands.",
    complexity=_OF_ASKED,
    categories=("connection",),
    tips=_UNORDERED,
    history=(("7.0.0", "Allowed to be called with no argument to get info on all commands."),),
)
def command_info(ctx: ReadContext, *names: bytes) -> list[Any]:
    if not names:
        return _details_of_all(ctx)
    found = (_named(ctx, name) for name in names)
    return [entry and _details(entry.spec) for entry in found]


def _details_of_all(ctx: Context) -> list[Any]:
    return [_details(entry.spec) for entry in ctx.server.table.entries.values()]


def _details(spec: Spec) -> list[Any]:
    """The ten elements that tell of a command."""
    return [
        spec.name,
        spec.arity,
        Members(_status(name) for flag, name in FLAG_NAMES if spec.flags & flag),
        *spec.key_range(),
        Members(_status("@" + name) for name in spec.acl_categories()),
        Members(spec.tips),
        Members(_key_details(key_spec) for key_spec in spec.key_specs),
        Members(_details(sub) for sub in spec.subcommands.values()),
    ]


def _key_details(spec: KeySpec) -> dict[str, Any]:
    return {
        **({"notes": spec.notes} if spec.notes else {}),
        "flags": _key_flags(spec.flags),
        "begin_search": _begin_search(spec),
        "find_keys": _find_keys(spec),
    }


def _begin_search(spec: KeySpec) -> dict[str, Any]:
    if spec.unknown:
        return {"type": "unknown", "spec": {}}
    if not spec.keyword:
        return {"type": "index", "spec": {"index": spec.first}}
    where = {"keyword": spec.keyword, "startfrom": spec.first}
    return {"type": "keyword", "spec": where}


def _find_keys(spec: KeySpec) -> dict[str, Any]:
    if spec.unknown:
        return {"type": "unknown", "spec": {}}
    if spec.numbered:
        where = {"keynumidx": 0, "firstkey": 1, "keystep": spec.step}
        return {"type": "keynum", "spec": where}
    last = spec.last
    if last >= 0 and not spec.keyword:
        last -= spec.first
    where = {"lastkey": last, "keystep": spec.step, "limit": spec.limit}
    return {"type": "range", "spec": where}


def _key_flags(flags: Iterable[str]) -> Members:
    return Members(_status(flag if flag in _ACCESS else flag.lower()) for flag in flags)


def _status(text: str) -> Simple:
    return Simple(text.encode())


# -- documentation -----------------------------------------------------------------------------


@command(
    "command|docs",
    -2,
    _FLAGS,
    group="server",
    since="7.0.0",
    summary="Returns documentary information about one, multiple or all commands.",
    complexity=_OF_ASKED,
    categories=("connection",),
    tips=_UNORDERED,
)
def command_docs(ctx: ReadContext, *names: bytes) -> dict[str, Any]:
    """Names that no command has are left out."""
    found = [_named(ctx, name) for name in names] or ctx.server.table.entries.values()
    return {entry.spec.name: _docs(entry.spec) for entry in found if entry is not None}


def _docs(spec: Spec) -> dict[str, Any]:
    docs: dict[str, Any] = {"summary": spec.summary, "since": spec.since, "group": spec.group}
    if spec.complexity:
        docs["complexity"] = spec.complexity
    if spec.system:
        docs["doc_flags"] = Members([_status("syscmd")])
    if spec.deprecated is not None:
        since, replaced_by = spec.deprecated
        docs["doc_flags"] = Members([_status("deprecated")])
        docs["deprecated_since"] = since
        docs["replaced_by"] = replaced_by
    if spec.history:
        docs["history"] = Members(list(change) for change in spec.history)
    if spec.name in SYNTAX:
        arguments = syntax.parse(SYNTAX[spec.name], len(spec.key_specs))
        docs["arguments"] = [_argument(argument) for argument in arguments]
    if spec.subcommands:
        docs["subcommands"] = {sub.name: _docs(sub) for sub in spec.subcommands.values()}
    return docs


def _argument(argument: syntax.Argument) -> dict[str, Any]:
    docs: dict[str, Any] = {"name": argument.name, "type": argument.type}
    if argument.display:
        docs["display_text"] = argument.display
    if argument.key_spec is not None:
        docs["key_spec_index"] = argument.key_spec
    if argument.token:
        docs["token"] = argument.token
    if flags := argument.flags():
        docs["flags"] = Members(_status(flag) for flag in flags)
    if argument.arguments:
        docs["arguments"] = [_argument(member) for member in argument.arguments]
    return docs


# -- names -------------------------------------------------------------------------------------


@command(
    "command|count",
    2,
    _FLAGS,
    group="server",
    since="2.8.13",
    summary="Returns a count of commands.",
    categories=("connection",),
)
def command_count(ctx: ReadContext) -> int:
    return len(ctx.server.table.entries)


@command(
    "command|list",
    -2,
    _FLAGS,
    group="server",
    since="7.0.0",
    summary="Returns a list of command names.",
    complexity=_OF_ALL,
    categories=("connection",),
    tips=_UNORDERED,
)
def command_list(ctx: ReadContext, *words: bytes) -> list[str]:
    wanted = _filter(words)
    return [entry.name for entry in ctx.server.table.all() if wanted(entry.spec)]


def _filter(words: tuple[bytes, ...]) -> _Filter:
    """What FILTERBY asks for."""
    if not words:
        return lambda spec: True
    if len(words) != 3 or words[0].upper() != b"FILTERBY":
        raise errors.syntax()
    kind, arg = words[1].upper(), words[2]
    if kind == b"MODULE":
        return lambda spec: False  # there are no modules
    if kind == b"ACLCAT":
        category = arg.lower().decode("utf-8", "surrogateescape")
        return lambda spec: category in spec.acl_categories()
    if kind == b"PATTERN":
        matches = glob.compile(arg, nocase=True)
        return lambda spec: matches(spec.name.encode())
    raise errors.syntax()


def _named(ctx: Context, name: bytes) -> Entry | None:
    """The command of a name as COMMAND INFO takes it, `get` or `config|get`."""
    parent, bar, sub = name.lower().partition(b"|")
    entry = ctx.server.table.entries.get(parent)
    if entry is None or not bar:
        return entry
    return entry.subcommands.get(sub) if entry.subcommands else None


# -- keys --------------------------------------------------------------------------------------


@command(
    "command|getkeys",
    -3,
    _FLAGS,
    group="server",
    since="2.8.13",
    summary="Extracts the key names from an arbitrary command.",
    complexity="O(N) where N is the number of arguments to the command",
    categories=("connection",),
)
def command_getkeys(ctx: ReadContext, *args: bytes) -> list[bytes]:
    return [args[index] for index, _ in _keys(ctx, args)]


@command(
    "command|getkeysandflags",
    -3,
    _FLAGS,
    group="server",
    since="7.0.0",
    summary="Extracts the key names and access flags for an arbitrary command.",
    complexity="O(N) where N is the number of arguments to the command",
    categories=("connection",),
)
def command_getkeysandflags(ctx: ReadContext, *args: bytes) -> list[Any]:
    return [[args[index], _key_flags(flags)] for index, flags in _keys(ctx, args)]


def _keys(ctx: Context, args: tuple[bytes, ...]) -> list[Key]:
    """The keys of a whole command."""
    try:
        entry = ctx.server.table.find(list(args))
    except RedisError:
        raise errors.error("Invalid command specified") from None
    if not entry.spec.has_keys():
        raise errors.error("The command has no key arguments")
    if len(args) != entry.arity and (entry.arity >= 0 or len(args) < -entry.arity):
        raise errors.error("Invalid number of arguments specified for command")
    found = entry.spec.find_keys(args)
    if not found and not entry.flags & NO_MANDATORY_KEYS:
        raise errors.error("Invalid arguments specified for command")
    return found


@command(
    "command|help",
    2,
    _FLAGS,
    group="server",
    since="5.0.0",
    summary="Returns helpful text about the different subcommands.",
    categories=("connection",),
)
def command_help(ctx: ReadContext) -> list[Simple]:
    return help_reply(
        "command",
        "(no subcommand)",
        "    Return details about all Redis commands.",
        "COUNT",
        "    Return the total number of commands in this Redis server.",
        "LIST",
        "    Return a list of all commands in this Redis server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full Redis command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full Redis command.",
    )
