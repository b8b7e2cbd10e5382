"""The notation of commands' arguments, and the table of them."""

from __future__ import annotations

import pytest

import kvserver.commands  # noqa: F401  (declares the commands)
from kvserver.commands.syntaxes import SYNTAX
from kvserver.registry import COMMANDS, Spec
from kvserver.syntax import Argument, parse

SPECS = {spec.name: spec for top in COMMANDS.values() for spec in (top, *top.subcommands.values())}
#: Commands that take more than their arity tells and have no row.
UNTOLD = {"debug"}


def show(arguments: tuple[Argument, ...]) -> str:
    """A tree on one line: name:type, the flags' initials, the token, the members."""
    return " ".join(map(_show, arguments))


def _show(argument: Argument) -> str:
    flags = "".join("?" * argument.optional + "*" * argument.multiple)
    token = f"={argument.token}" * bool(argument.token) + "@" * argument.multiple_token
    members = f"({show(argument.arguments)})" * bool(argument.arguments)
    return f"{argument.name}:{argument.type}{flags}{token}{members}"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", ""),
        ("key value", "key:key value:string"),
        ("[count]", "count:integer?"),
        ("increment(double)", "increment:double"),
        ("key [key ...]", "key:key*"),
        ("[channel [channel ...]]", "channel:string?*"),
        ("a b [pair: a b ...]", "pair:block*(a:string b:string)"),
        ("x a b [pair: a b ...] y", "x:string pair:block*(a:string b:string) y:string"),
        ("LEN", "len:pure-token=LEN"),
        ("[NOW] [FORCE]", "now:pure-token?=NOW force:pure-token?=FORCE"),
        ("[change=CH]", "change:pure-token?=CH"),
        ("[MATCH pattern]", "pattern:pattern?=MATCH"),
        ("[ID client-id [client-id ...]]", "client-id:integer?*=ID"),
        ("[GET pattern [GET pattern ...]]", "pattern:pattern?*=GET@"),
        ("<mode: ON | OFF>", "mode:oneof(on:pure-token=ON off:pure-token=OFF)"),
        ("[how: EX seconds | NX]", "how:oneof?(seconds:integer=EX nx:pure-token=NX)"),
        ("[TYPE <type: A | B>]", "type:oneof?=TYPE(a:pure-token=A b:pure-token=B)"),
        ("[AUTH <auth: user name>]", "auth:block?=AUTH(user:string name:string)"),
        ("[all: x [y]]", "all:block?(x:string y:string?)"),
        ("<f: a | <pair: b c>>", "f:oneof(a:string pair:block(b:string c:string))"),
        ("<f: [a] | [b]> [...]", "f:oneof*(a:string? b:string?)"),
    ],
)
def test_parse(text: str, tree: str) -> None:
    assert show(parse(text, 1)) == tree


@pytest.mark.parametrize(
    "text",
    [
        *("[", "]", "[a", "<a", "a]", "a>", "[a>", "[]", "<>", "|", "a | b", "[a | b]", "[a b]"),
        *("[x: a]", "[x: a |]", "[...]", "...", "a [b ...]", "a b [a b ...]", "b [p: a b ...]"),
        *("[x: a b | c]", "a(", "a()", "a=", "condition: NX", "TOKEN <", "a [a ... b]"),
    ],
)
def test_what_is_not_well_formed_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text, 1)


def test_what_is_shown() -> None:
    addr, pure, group = parse("addr=ip:port [NOW] <x: A | B>", 0)
    assert (addr.name, addr.display, addr.type) == ("addr", "ip:port", "string")
    assert (pure.display, group.display) == ("now", "")


@pytest.mark.parametrize(
    ("text", "key_specs", "numbers"),
    [
        ("key1 key2", 2, [0, 1]),
        ("key1 key2", 1, [0, 0]),
        ("source value destination", 2, [0, None, 1]),
        ("key [key ...] destination", 2, [0, 1]),
        ("key", 0, [None]),
    ],
)
def test_keys_belong_to_key_specifications(
    text: str, key_specs: int, numbers: list[int | None]
) -> None:
    assert [argument.key_spec for argument in parse(text, key_specs)] == numbers


def test_flags_in_the_order_of_redis() -> None:
    (argument,) = parse("[GET pattern [GET pattern ...]]", 0)
    assert argument.flags() == ["optional", "multiple", "multiple_token"]
    assert parse("key", 0)[0].flags() == []


# -- the table ---------------------------------------------------------------------------------


def test_rows_are_of_commands_that_are_there() -> None:
    assert SYNTAX.keys() <= SPECS.keys()


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_row_fits_the_arity(spec: Spec) -> None:
    """At least as many arguments as the arity asks for, and more only if it allows them."""
    if spec.name in UNTOLD or spec.subcommands:
        assert spec.name not in SYNTAX
        return
    arguments = parse(SYNTAX.get(spec.name, ""), len(spec.key_specs))
    words = 2 if "|" in spec.name else 1
    required = words + sum(fewest(argument) for argument in arguments)
    open_ended = any(argument.optional or argument.multiple for argument in arguments)
    if spec.arity >= 0:
        assert (required, open_ended) == (spec.arity, False)
    elif spec.name in SYNTAX:
        assert required >= -spec.arity
    else:
        assert required == -spec.arity


def fewest(argument: Argument) -> int:
    """How many words an argument takes at least."""
    if argument.optional:
        return 0
    if argument.type == "pure-token":
        return 1
    members = [fewest(member) for member in argument.arguments]
    if not members:
        return 1 + bool(argument.token)
    # CLIENT KILL's filters are optional each, but there must be one.
    enough = max(1, min(members)) if argument.type == "oneof" else sum(members)
    return bool(argument.token) + enough
