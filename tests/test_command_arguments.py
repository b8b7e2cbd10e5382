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
_GROUP_NAMES: Final = {("groupname", "string"): "group", ("consumername", "string"): "consumer"}
_GROUP_ID: Final = {
    **_GROUP_NAMES,
    ("id", "oneof"): "id-selector",
    ("new_id", "pure-token"): "new-id",
    ("entries_read", "integer"): "entriesread",
}
#: Groups and options that 7.2 gave a name of their own: the name and type in 7.0, the new name.
RENAMED: Final[dict[str, dict[tuple[str, str], str]]] = {
    "acl|cat": {("categoryname", "string"): "category"},
    "bitcount": {("index", "block"): "range", ("index_unit", "oneof"): "unit"},
    "bitfield": {
        ("encoding_offset", "block"): "get-block",
        ("wrap_sat_fail", "oneof"): "overflow-block",
        ("write_operation", "oneof"): "write-operation",
        ("encoding_offset_value", "block"): "set-block",
        ("encoding_offset_increment", "block"): "incrby-block",
    },
    "bitfield_ro": {("encoding_offset", "block"): "get-block"},
    "bitpos": {
        ("index", "block"): "range",
        ("end_index", "block"): "end-unit-block",
        ("index_unit", "oneof"): "unit",
    },
    "client|reply": {("on_off_skip", "oneof"): "action"},
    "client|unblock": {("timeout_error", "oneof"): "unblock-type"},
    "config|set": {("parameter_value", "block"): "data"},
    "flushall": {("async", "oneof"): "flush-type"},
    "flushdb": {("async", "oneof"): "flush-type"},
    "function|flush": {("async", "oneof"): "flush-type"},
    "geoadd": {("longitude_latitude_member", "block"): "data"},
    "georadius_ro": {("count", "block"): "count-block"},
    "georadiusbymember_ro": {("count", "block"): "count-block"},
    "geosearch": {("longitude_latitude", "block"): "fromlonlat", ("count", "block"): "count-block"},
    "geosearchstore": {
        ("longitude_latitude", "block"): "fromlonlat",
        ("count", "block"): "count-block",
    },
    "hello": {("username_password", "block"): "auth"},
    "hmset": {("field_value", "block"): "data"},
    "hset": {("field_value", "block"): "data"},
    "lcs": {("len", "integer"): "min-match-len"},
    "mset": {("key_value", "block"): "data"},
    "msetnx": {("key_value", "block"): "data"},
    "script|flush": {("async", "oneof"): "flush-type"},
    "shutdown": {("nosave_save", "oneof"): "save-selector"},
    "xadd": {
        ("id_or_auto", "oneof"): "id-selector",
        ("auto_id", "pure-token"): "auto-id",
        ("field_value", "block"): "data",
    },
    "xgroup|create": _GROUP_ID,
    "xgroup|createconsumer": _GROUP_NAMES,
    "xgroup|delconsumer": _GROUP_NAMES,
    "xgroup|destroy": _GROUP_NAMES,
    "xgroup|setid": _GROUP_ID,
    "xinfo|consumers": _GROUP_NAMES,
    "xreadgroup": {("group_consumer", "block"): "group-block"},
    "xsetid": {
        ("entries_added", "integer"): "entries-added",
        ("max_deleted_entry_id", "string"): "max-deleted-id",
    },
    "zadd": {("score_member", "block"): "data"},
    "zrange": {("offset_count", "block"): "limit"},
    "zrangebylex": {("offset_count", "block"): "limit"},
    "zrangebyscore": {("offset_count", "block"): "limit"},
    "zrangestore": {("offset_count", "block"): "limit"},
    "zrevrangebylex": {("offset_count", "block"): "limit"},
    "zrevrangebyscore": {("offset_count", "block"): "limit"},
}
_SORT: Final = (
    "key BY by-pattern? LIMIT limit?(offset count) GET get-pattern?* order?(ASC DESC) ALPHA?"
)
_FULL_COMMAND: Final = "command arg?*"
_RADIUS: Final = (
    "radius unit(M KM FT MI) WITHCOORD? WITHDIST? WITHHASH? count-block?(COUNT count ANY?) "
    "order?(ASC DESC) store?(STORE storekey STOREDIST storedistkey)"
)
_TYPES: Final = "NORMAL MASTER SLAVE REPLICA PUBSUB"
_CONDITION: Final = "condition?(NX XX GT LT)"
_FIELDS: Final = "FIELDS fields(numfields field*)"
_TIMES: Final = "EX seconds PX milliseconds EXAT unix-time-seconds PXAT unix-time-milliseconds"
#: What 7.2 and 7.4 built otherwise, as `show` writes it.
CHANGED: Final[dict[str, str]] = {
    # 7.2: the operation is a choice.
    "bitop": "operation(AND OR XOR NOT) destkey key*",
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
    # 7.2: the sources may be left out.
    "pfmerge": "destkey sourcekey?*",
    # 7.2: no member need be named.
    "geohash": "key member?*",
    "geopos": "key member?*",
    # 7.2: STORE and STOREDIST are a choice.
    "georadius": f"key longitude latitude {_RADIUS}",
    "georadiusbymember": f"key member {_RADIUS}",
    # 7.2: WITHSCORE came.
    "zrank": "key member WITHSCORE?",
    "zrevrank": "key member WITHSCORE?",
    # 7.4 and 8.0: fields that expire.
    "hexpire": f"key seconds {_CONDITION} {_FIELDS}",
    "hexpireat": f"key unix-time-seconds {_CONDITION} {_FIELDS}",
    "hexpiretime": f"key {_FIELDS}",
    "hgetdel": f"key {_FIELDS}",
    "hgetex": f"key expiration?({_TIMES} PERSIST) {_FIELDS}",
    "hpersist": f"key {_FIELDS}",
    "hpexpire": f"key milliseconds {_CONDITION} {_FIELDS}",
    "hpexpireat": f"key unix-time-milliseconds {_CONDITION} {_FIELDS}",
    "hpexpiretime": f"key {_FIELDS}",
    "hpttl": f"key {_FIELDS}",
    "hsetex": f"key condition?(FNX FXX) expiration?({_TIMES} KEEPTTL) "
    "FIELDS fields(numfields data*(field value))",
    "httl": f"key {_FIELDS}",
    # 7.2: most got other names, and what stands for the key is shown as it is sent.
    "migrate": 'host port key-selector(key "") destination-db timeout COPY? REPLACE? '
    "authentication?(AUTH auth AUTH2 auth2(username password)) KEYS keys?*",
    # 7.2: the patterns have names of their own.
    "sort": f"{_SORT} STORE destination?",
    "sort_ro": _SORT,
    # 7.4: NOVALUES came.
    "hscan": "key cursor MATCH pattern? COUNT count? NOVALUES?",
    # Came with 7.2.
    "waitaof": "numlocal numreplicas timeout",
    # 7.2: the second id has a name of its own.
    "xclaim": "key group consumer min-idle-time id* IDLE ms? TIME unix-time-milliseconds? "
    "RETRYCOUNT count? FORCE? JUSTID? LASTID lastid?",
    # 7.2: FULL is an argument of its own.
    "xinfo|stream": "key full-block?(FULL COUNT count?)",
    # kvserver's own.
    "cad": "key value",
    "cas": "key old-value new-value expiration?(EX seconds PX milliseconds "
    "EXAT unix-time-seconds PXAT unix-time-milliseconds)",
    "once": "writer-id n command arg?*",
    "namespace|add": "namespace token",
    "namespace|del": "namespace",
    "namespace|get": "namespace",
    "namespace|set": "namespace token",
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
        assert mine == without(theirs.get(name), UNTOLD, RENAMED.get(name)), name
        assert list_order(ours[name]) == list_order(theirs.get(name)), name


def list_order(arguments: Any) -> list[list[str]]:
    """The order of the fields that both have, at the top."""
    skipped = {*UNTOLD, "display_text"}
    told = [fields(item) for item in arguments[1]] if arguments else []
    return [[field for field in argument if field not in skipped] for argument in told]


@pytest.mark.parametrize("name", RENAMED)
def test_what_was_renamed_had_another_name(
    name: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert without(ours[name], {"display_text"}) != without(theirs.get(name), UNTOLD)


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
