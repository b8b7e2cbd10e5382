"""COMMAND: every command of ours described as redis-server describes it.

The oracle is Redis 7.0; what 7.4 says otherwise is listed here, and each entry of the lists must
be needed. Summaries were all rewritten in 7.2 and aren't compared.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
import redis
from conftest import FreshServer
from harness import Server
from replies import Command, fields, transcript, typed

import kvserver.commands  # noqa: F401  (declares the commands)
from kvserver import registry
from kvserver.registry import KeySpec, Spec

NAMES: Final = sorted(
    spec.name for top in registry.COMMANDS.values() for spec in (top, *top.subcommands.values())
)
#: The elements of COMMAND INFO before the subcommands.
ELEMENTS: Final = (
    *("name", "arity", "flags", "first", "last", "step", "categories", "tips", "keys"),
)
#: Fields of COMMAND DOCS that are compared.
DOCS: Final = (
    *("since", "group", "complexity", "doc_flags", "deprecated_since", "replaced_by", "history"),
)

_ALL_SUCCEEDED: Final = ["request_policy:all_nodes", "response_policy:all_succeeded"]
_DEPRECATED: Final = {"doc_flags": ["deprecated"], "deprecated_since": "2.6.12"}
#: What 7.4 says, where 7.0 said something else.
CHANGED: Final[dict[str, dict[str, Any]]] = {
    "acl|deluser": {"tips": _ALL_SUCCEEDED},
    "acl|save": {"tips": _ALL_SUCCEEDED},
    "acl|setuser": {"tips": _ALL_SUCCEEDED},
    "blmove": {"flags": ["blocking", "denyoom", "write"]},
    "blpop": {"flags": ["blocking", "write"]},
    "brpop": {"flags": ["blocking", "write"]},
    "brpoplpush": {"flags": ["blocking", "denyoom", "write"]},
    "bzpopmax": {"flags": ["blocking", "fast", "write"]},
    "bzpopmin": {"flags": ["blocking", "fast", "write"]},
    "client|pause": {"since": "3.0.0"},
    "command|getkeys": {"arity": "-3"},
    "command|getkeysandflags": {"arity": "-3"},
    "config|resetstat": {"tips": _ALL_SUCCEEDED},
    "config|rewrite": {"tips": _ALL_SUCCEEDED},
    "geodist": {"complexity": "O(1)"},
    "geohash": {"complexity": "O(1) for each member requested."},
    "geopos": {"complexity": "O(1) for each member requested."},
    "hscan": {"complexity": registry.COMMANDS["scan"].complexity},
    "msetnx": {"tips": []},
    "psetex": {**_DEPRECATED, "replaced_by": "`SET` with the `PX` argument"},
    "psubscribe": {"complexity": "O(N) where N is the number of patterns to subscribe to."},
    "punsubscribe": {"complexity": "O(N) where N is the number of patterns to unsubscribe."},
    "quit": {
        "doc_flags": ["deprecated"],
        "deprecated_since": "7.2.0",
        "replaced_by": "just closing the connection",
    },
    "randomkey": {
        "tips": [
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ]
    },
    "scan": {
        "tips": ["nondeterministic_output", "request_policy:special", "response_policy:special"]
    },
    "setex": {**_DEPRECATED, "replaced_by": "`SET` with the `EX` argument"},
    "setnx": {**_DEPRECATED, "replaced_by": "`SET` with the `NX` argument"},
    "sscan": {"complexity": registry.COMMANDS["scan"].complexity},
    "sunsubscribe": {"complexity": "O(N) where N is the number of shard channels to unsubscribe."},
    "unsubscribe": {"complexity": "O(N) where N is the number of channels to unsubscribe."},
    "wait": {"flags": ["blocking"], "categories": ["@blocking", "@connection", "@slow"]},
    "xread": {"complexity": None},
    "zrandmember": {"complexity": "O(N) where N is the number of members returned"},
    "zrank": {"arity": "-3"},
    "zrevrank": {"arity": "-3"},
    "zscan": {"complexity": registry.COMMANDS["scan"].complexity},
}
#: Commands that came after 7.0, and those that only kvserver has, with its version.
NEW: Final = {
    "cad": "0.1.0",
    "cas": "0.1.0",
    "client|no-touch": "7.2.0",
    "client|setinfo": "7.2.0",
    "hexpire": "7.4.0",
    "hexpireat": "7.4.0",
    "hexpiretime": "7.4.0",
    "hgetdel": "8.0.0",
    "hgetex": "8.0.0",
    "hpersist": "7.4.0",
    "hpexpire": "7.4.0",
    "hpexpireat": "7.4.0",
    "hpexpiretime": "7.4.0",
    "hpttl": "7.4.0",
    "hsetex": "8.0.0",
    "httl": "7.4.0",
    "waitaof": "7.2.0",
    "repldigest": "0.1.0",
    "namespace": "0.1.0",
    "namespace|add": "0.1.0",
    "namespace|current": "0.1.0",
    "namespace|del": "0.1.0",
    "namespace|get": "0.1.0",
    "namespace|help": "0.1.0",
    "namespace|set": "0.1.0",
    "once": "0.1.0",
}


def plain(value: Any) -> Any:
    """A typed reply without the types; sets, and what RESP2 calls arrays of names, sorted."""
    kind, content = value
    if kind in "~":
        return sorted((plain(item) for item in content), key=repr)
    if kind == "*":
        return [plain(item) for item in content]
    if kind == "%":
        return {plain(k): plain(v) for k, v in zip(content[::2], content[1::2], strict=True)}
    return content


def ask(server: Server, command: Command) -> Any:
    (reply,) = transcript(server, [command], 3)
    return typed(reply)


class Described:
    """What a server says of all its commands."""

    def __init__(self, server: Server) -> None:
        self.info: dict[str, list[Any]] = {}
        self.docs: dict[str, dict[str, Any]] = {}
        for details in ask(server, ("COMMAND",))[1]:
            self._take_info(details[1])
        self._take_docs(fields(ask(server, ("COMMAND", "DOCS"))))

    def _take_info(self, elements: list[Any]) -> None:
        self.info[plain(elements[0])] = elements
        for details in elements[9][1]:
            self._take_info(details[1])

    def _take_docs(self, docs: dict[str, Any]) -> None:
        for name, value in docs.items():
            self.docs[name] = fields(value)
            if "subcommands" in self.docs[name]:
                self._take_docs(fields(self.docs[name]["subcommands"]))


@pytest.fixture(scope="module")
def ours(shared_server: Any) -> Described:
    return Described(shared_server.server)


@pytest.fixture(scope="module")
def theirs(shared_oracle: Any) -> Described:
    return Described(shared_oracle.server)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEW])
def test_info_is_that_of_redis(name: str, ours: Described, theirs: Described) -> None:
    for number, element in enumerate(ELEMENTS):
        mine, theirs_here = ours.info[name][number], theirs.info[name][number]
        if element in CHANGED.get(name, {}):
            assert plain(mine) == CHANGED[name][element]
            assert plain(mine) != plain(theirs_here), f"{element} hasn't changed"
        else:
            assert mine[0] == theirs_here[0]
            assert plain(mine) == plain(theirs_here), element


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEW])
def test_docs_are_those_of_redis(name: str, ours: Described, theirs: Described) -> None:
    mine, theirs_here = ours.docs[name], theirs.docs[name]
    for field in DOCS:
        here, there = (plain(d[field]) if field in d else None for d in (mine, theirs_here))
        if field in CHANGED.get(name, {}):
            assert here == CHANGED[name][field]
            assert here != there, f"{field} hasn't changed"
        elif field == "history" and here is not None:
            later = [change for change in here if change not in (there or [])]
            assert len(here) == len(there or []) + len(later)
            assert all(since > "7.0.15" for since, _ in later)
        else:
            assert here == there, field
    assert mine["summary"][1].strip(), "no summary"
    common = [field for field in theirs_here if field in mine]
    assert common == [field for field in mine if field in theirs_here], "order of the fields"


def test_new_commands_are_not_in_the_oracle(ours: Described, theirs: Described) -> None:
    assert not NEW.keys() & theirs.info.keys()
    assert {name: plain(ours.docs[name]["since"]) for name in NEW} == NEW


def test_lists_name_only_commands_that_are_there(ours: Described) -> None:
    assert CHANGED.keys() <= ours.info.keys()
    assert set(NAMES) == ours.info.keys() == ours.docs.keys()


# -- names -------------------------------------------------------------------------------------


def names(server: Server, *filters: str) -> set[str]:
    return {name for _, name in ask(server, ("COMMAND", "LIST", *filters))[1]}


@pytest.mark.parametrize(
    "filters",
    [
        [],
        ["FILTERBY", "ACLCAT", "transaction"],
        ["filterby", "aclcat", "STRING"],
        ["FILTERBY", "ACLCAT", "dangerous"],
        ["FILTERBY", "ACLCAT", "nothing"],
        ["FILTERBY", "PATTERN", "CONFIG*"],
        ["FILTERBY", "PATTERN", "*|get*"],
        ["FILTERBY", "PATTERN", "[gs]et"],
        ["FILTERBY", "PATTERN", "none"],
        ["FILTERBY", "MODULE", "none"],
    ],
)
def test_list(filters: list[str], server: Server, oracle: Server) -> None:
    expected = {name for name in names(oracle, *filters) if name in NAMES}
    assert {name for name in names(server, *filters) if name not in NEW} == expected


def test_count_is_of_commands_without_their_subcommands(client: redis.Redis) -> None:
    assert client.command_count() == len(registry.COMMANDS)


@pytest.mark.parametrize(
    "command",
    [
        ("COMMAND", "INFO", "nope", "get|x", "config|nope", "PUBSUB|numpat"),
        ("COMMAND", "INFO", "GET", "get", "config|"),
        ("COMMAND", "DOCS", "nope"),
        ("COMMAND", "FOO"),
        ("COMMAND", "COUNT", "x"),
        ("COMMAND", "LIST", "x"),
        ("COMMAND", "LIST", "FILTERBY"),
        ("COMMAND", "LIST", "FILTERBY", "PATTERN"),
        ("COMMAND", "LIST", "FILTERBY", "NOPE", "x"),
        ("COMMAND", "LIST", "FILTERBY", "PATTERN", "a", "FILTERBY", "PATTERN", "b"),
        ("COMMAND", "HELP", "x"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_answers_are_those_of_redis(
    command: Command, protocol: int, server: Server, oracle: Server
) -> None:
    ours, theirs = (transcript(one, [command], protocol) for one in (server, oracle))
    assert ours == theirs


def test_help(server: Server, oracle: Server) -> None:
    (ours,), (theirs,) = (transcript(one, [("COMMAND", "HELP")]) for one in (server, oracle))
    assert ours == theirs.replace(b"Prints this help", b"Print this help")


def test_redis_py_reads_it(client: redis.Redis) -> None:
    described = client.command()
    assert described["get"]["first_key_pos"] == 1
    assert set(described["get"]["flags"]) == {"readonly", "fast"}


def test_a_renamed_command_keeps_its_description(fresh_server: FreshServer) -> None:
    server = fresh_server(rename_command=("flushall", "wipe"))
    replies = transcript(server, [("COMMAND", "INFO", "flushall"), ("COMMAND", "INFO", "wipe")])
    assert replies[0] == b"*1\r\n$-1\r\n"
    assert typed(replies[1])[1][0][1][0] == ("$", "flushall")


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "a"),
        ("GET", "a", "b"),
        ("SET", "a", "1"),
        ("SET", "a", "1", "get"),
        ("SET", "a", "1", "EX", "10", "GET"),
        ("SET", "a", "GET"),
        ("MSET", "a", "1", "b", "2"),
        ("MSET", "a", "1", "b"),
        ("DEL", "a", "b", "a"),
        ("RENAME", "a", "b"),
        ("COPY", "a", "b", "REPLACE"),
        ("LCS", "a", "b", "IDX"),
        ("MEMORY", "USAGE", "a"),
        ("MEMORY", "USAGE", "a", "SAMPLES", "5"),
        ("MEMORY", "STATS"),
        ("MEMORY", "NOPE"),
        ("WATCH", "a", "b"),
        ("PING", "a"),
        ("PUBLISH", "a", "b"),
        ("SPUBLISH", "a", "b"),
        ("SUNSUBSCRIBE", "a"),
        ("NOPE", "a"),
        ("CONFIG", "GET", "x"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_keys_are_those_of_redis(
    command: Command, protocol: int, server: Server, oracle: Server
) -> None:
    asked = [("COMMAND", sub, *command) for sub in ("GETKEYS", "GETKEYSANDFLAGS")]
    ours, theirs = (transcript(one, asked, protocol) for one in (server, oracle))
    assert ours == theirs


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (("COMMAND", "GETKEYS"), b"-ERR wrong number of arguments for 'command|getkeys' command"),
        # 7.0 asked for one argument more.
        (("COMMAND", "GETKEYS", "GET"), b"-ERR Invalid number of arguments specified for command"),
        (("COMMAND", "GETKEYS", "MEMORY"), b"-ERR The command has no key arguments"),
    ],
)
def test_arity_of_getkeys(command: Command, error: bytes, server: Server) -> None:
    assert transcript(server, [command]) == [error + b"\r\n"]


def spec(*key_specs: KeySpec) -> Spec:
    return Spec("x", -2, 0, "g", "1", "", "", key_specs, (), (), (), None, False, None, None)


def test_key_range_of_several_specifications() -> None:
    first, second = registry.key("RW", at=1), registry.key("OW", at=2)
    assert spec(*first, *second).key_range() == (1, 2, 1)
    assert spec(*registry.keys("RW", step=2)).key_range() == (1, -1, 2)
    assert spec().key_range() == (0, 0, 0)


def test_find_keys() -> None:
    pairs = spec(*registry.keys("RW", step=2))
    assert pairs.find_keys([b"x", b"a", b"1", b"b", b"2"]) == [(1, ("RW",)), (3, ("RW",))]
    far = spec(*registry.key("RO", at=3))
    assert far.find_keys([b"x", b"a"]) == []  # too short: no valid command
    channel = spec(*registry.key("NOT_KEY", at=1))
    assert channel.find_keys([b"x", b"a"]) == []
    assert not channel.has_keys()
