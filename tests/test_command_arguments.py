"""COMMAND DOCS' `arguments`, held against redis-server's, and what redis-cli makes of them.

The oracle is Redis 7.0. What 7.2 and 7.4 say otherwise is listed here, and each entry of the lists
must be needed. We tell no `since` and `deprecated_since`; `display_text` is new in 7.2.
"""

from __future__ import annotations

import subprocess
from typing import Any, Final

import pytest
from harness import Server
from replies import fields, transcript, typed

from kvserver.commands.syntaxes import SYNTAX

UNTOLD: Final = {"since", "deprecated_since"}
#: Groups and options that 7.2 gave a name of their own: the name and type in 7.0, the new name.
RENAMED: Final[dict[str, dict[tuple[str, str], str]]] = {
    "client|reply": {("on_off_skip", "oneof"): "action"},
    "client|unblock": {("timeout_error", "oneof"): "unblock-type"},
    "config|set": {("parameter_value", "block"): "data"},
    "flushall": {("async", "oneof"): "flush-type"},
    "flushdb": {("async", "oneof"): "flush-type"},
    "hello": {("username_password", "block"): "auth"},
    "lcs": {("len", "integer"): "min-match-len"},
    "mset": {("key_value", "block"): "data"},
    "msetnx": {("key_value", "block"): "data"},
    "shutdown": {("nosave_save", "oneof"): "save-selector"},
}
_FULL_COMMAND: Final = "command arg?*"
_TYPES: Final = "NORMAL MASTER SLAVE REPLICA PUBSUB"
#: What 7.2 and 7.4 built otherwise, as `show` writes it.
CHANGED: Final[dict[str, str]] = {
    # 7.2: SKIPME is a choice, and what was shown as ip:port got names; 7.4: MAXAGE.
    "client|kill": "filter(old-format new-format*(ID client-id? "
    f"TYPE client-type?({_TYPES}) USER username? ADDR addr? LADDR laddr? "
    "SKIPME skipme?(YES NO) MAXAGE maxage?))",
    # 7.2: ID is one argument that repeats, no block.
    "client|list": "TYPE client-type?(NORMAL MASTER REPLICA PUBSUB) ID client-id?*",
    # 7.2: they came after 7.0.
    "client|no-touch": "enabled(ON OFF)",
    "client|setinfo": "attr(LIB-NAME libname LIB-VER libver)",
    # 7.2: 7.0 told none.
    "command|getkeys": _FULL_COMMAND,
    "command|getkeysandflags": _FULL_COMMAND,
    # 7.2: one argument that repeats, no block of one.
    "config|get": "parameter*",
    "psubscribe": "pattern*",
    # Came with 7.2.
    "waitaof": "numlocal numreplicas timeout",
    # kvserver's own.
    "once": "writer-id n command arg?*",
    "repldigest": "at?(AT position TIMEOUT milliseconds?)",
}


def docs(server: Server) -> dict[str, Any]:
    """The `arguments` of every command, typed; None without."""
    (reply,) = transcript(server, [("COMMAND", "DOCS")], 3)
    found: dict[str, Any] = {}
    take(fields(typed(reply)), found)
    return found


def take(commands: dict[str, Any], found: dict[str, Any]) -> None:
    for name, value in commands.items():
        told = fields(value)
        found[name] = told.get("arguments")
        if "subcommands" in told:
            take(fields(told["subcommands"]), found)


@pytest.fixture(scope="module")
def ours(shared_server: Any) -> dict[str, Any]:
    return docs(shared_server.server)


@pytest.fixture(scope="module")
def theirs(shared_oracle: Any) -> dict[str, Any]:
    return docs(shared_oracle.server)


def without(
    arguments: Any, left_out: set[str], names: dict[tuple[str, str], str] | None = None
) -> Any:
    """Typed arguments without the fields `left_out`, and renamed."""
    if arguments is None:
        return None
    kind, items = arguments
    return kind, [_without(fields(item), left_out, names or {}) for item in items]


def _without(
    argument: dict[str, Any], left_out: set[str], names: dict[tuple[str, str], str]
) -> dict[str, Any]:
    kept = {field: value for field, value in argument.items() if field not in left_out}
    old = kept["name"][1]
    kept["name"] = ("$", names.get((old, kept["type"][1]), old))
    if "arguments" in kept:
        kept["arguments"] = without(kept["arguments"], left_out, names)
    return kept


def show(arguments: Any) -> str:
    """Typed arguments on one line: tokens, names, flags, members."""
    return " ".join(_show(fields(item)) for item in arguments[1])


def _show(argument: dict[str, Any]) -> str:
    flags = [flag for _, flag in argument["flags"][1]] if "flags" in argument else []
    signs = "?" * ("optional" in flags) + "*" * ("multiple" in flags)
    members = f"({show(argument['arguments'])})" if "arguments" in argument else ""
    shown = [argument["token"][1]] if "token" in argument else []
    if argument["type"][1] != "pure-token":
        shown.append(argument["name"][1])
    return " ".join(shown) + signs + members


def test_arguments_are_those_of_redis(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in ours.keys() - CHANGED.keys():
        mine = without(ours[name], {"display_text"})
        assert mine == without(theirs[name], UNTOLD, RENAMED.get(name)), name
        assert list_order(ours[name]) == list_order(theirs[name]), name


def list_order(arguments: Any) -> list[list[str]]:
    """The order of the fields that both have, at the top."""
    skipped = {*UNTOLD, "display_text"}
    told = [fields(item) for item in arguments[1]] if arguments else []
    return [[field for field in argument if field not in skipped] for argument in told]


@pytest.mark.parametrize("name", RENAMED)
def test_what_was_renamed_had_another_name(
    name: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert without(ours[name], {"display_text"}) != without(theirs[name], UNTOLD)


@pytest.mark.parametrize("name", CHANGED)
def test_what_was_changed(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert show(ours[name]) == CHANGED[name]
    before = theirs.get(name)
    assert before is None or show(before) != CHANGED[name]


def test_every_command_with_a_row_tells_arguments(ours: dict[str, Any]) -> None:
    assert {name for name, arguments in ours.items() if arguments} == SYNTAX.keys()


def test_display_text_is_told_of_all_but_groups(ours: dict[str, Any]) -> None:
    (group,) = (fields(item) for item in ours["client|kill"][1])
    old, new = (fields(item) for item in group["arguments"][1])
    assert "display_text" not in group
    assert "display_text" not in new
    assert old["display_text"] == ("$", "ip:port")
    assert list(fields(ours["get"][1][0])) == ["name", "type", "display_text", "key_spec_index"]


@pytest.mark.parametrize(
    "command",
    ["SET", "MSET", "GETEX", "EXPIRE", "SCAN", "HELLO", "DEL", "CLIENT PAUSE", "CONFIG SET"],
)
def test_redis_cli_shows_them(command: str, server: Server, oracle: Server) -> None:
    assert syntax_in_redis_cli(server, command) == syntax_in_redis_cli(oracle, command)


def test_redis_cli_shows_what_changed(server: Server) -> None:
    # redis-cli has the texts of its own version too: this one isn't among them.
    assert b"command [arg [arg ...]]" in syntax_in_redis_cli(server, "COMMAND GETKEYS")


def syntax_in_redis_cli(server: Server, command: str) -> bytes:
    """The line of redis-cli's HELP that shows a command's arguments."""
    done = subprocess.run(
        ["redis-cli", "-p", str(server.port)],
        input=f"HELP {command}\n".encode(),
        capture_output=True,
        timeout=20,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if command.encode() in line]
    return line
