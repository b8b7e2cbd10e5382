"""The rules of users: what each changes, how it is refused, and how a user is told again."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import pytest
from acl_servers import acl_pair, both_servers, modern, ours, servers, without_lengths
from harness import Server, encode_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pair import Pair

import kvserver.commands  # noqa: F401  (declares the commands)
from kvserver.acl.loading import parse_file
from kvserver.acl.selector import READ, RuleError
from kvserver.acl.user import User, default_user, merge_selectors
from kvserver.registry import COMMANDS

__all__ = ["acl_pair", "both_servers", "ours", "servers"]

HASH: Final = sha256(b"pw").hexdigest()

RULES: Final = [
    *("on", "off", "ON", "nopass", "resetpass", "reset", "clearselectors", "skip-sanitize-payload"),
    *("sanitize-payload", ">pw", "<pw", ">other", "<other", f"#{HASH}", f"!{HASH}", "#abc", "!abc"),
    *("allkeys", "~*", "resetkeys", "~a*", "~b:[1-3]", "%R~a*", "%W~a*", "%RW~c", "%rw~c", "%w~r?"),
    *("%~a", "%X~a", "%RR~a", "%R", "~with space", "~"),
    *("allchannels", "&*", "resetchannels", "&news.*", "&x", "&with space", "&"),
    *("allcommands", "nocommands", "+@all", "-@all", "+get", "-get", "+GET", "+set", "-set"),
    *(
        "+config",
        "-config",
        "+config|get",
        "-config|get",
        "-config|set",
        "+CONFIG|Set",
        "+client|id",
    ),
    *("+select|0", "+select|1", "-select|0", "+select", "-select", "+mget|k1", "-mget"),
    *(
        "+@read",
        "-@read",
        "+@write",
        "-@write",
        "+@fast",
        "-@fast",
        "+@slow",
        "-@slow",
        "+@keyspace",
    ),
    *(
        "+@admin",
        "-@admin",
        "+@dangerous",
        "-@dangerous",
        "+@connection",
        "-@connection",
        "+@PubSub",
    ),
    *("-@transaction", "+@string", "-@string"),
    *("+nope", "-nope", "+@nope", "-@nope", "+config|nope", "+config|get|x", "+nope|x", "+get|"),
    *("+select|0|1", "foo", "+", "-", "+@", ")", "", "(", "(+get", "()", "(+get ~z*)", "(-@all)"),
    *(
        "(+@read %R~q* &x)",
        "(+nope)",
        "(~with ~*)",
        "(~* ~a)",
        "(>pw)",
        "(+set) x",
        "(+@all allkeys)",
    ),
]
#: Of two parentheses that are opened, 7.0 forgets the first.
WHOLE: Final = [rule for rule in RULES if rule[:1] != "(" or rule[-1:] == ")"]
#: Rules that make sense, most often.
GOOD: Final = [rule for rule in WHOLE if rule[:1] in ("+", "-", "~", "%", "&", "(")]

#: Commands that came after 7.0, that only kvserver has, or that changed since.
NOT_IN_ORACLE: Final = {
    spec.name
    for top in COMMANDS.values()
    for spec in (top, *top.subcommands.values())
    if not "1.0" <= spec.since <= "7.0.9" or spec.name == "wait" or "|getkeys" in spec.name
}
#: All other commands with arguments that fit, and some that name keys and channels.
CALLS: Final = [
    (*spec.name.split("|"), *["k1"] * (abs(spec.arity) - 1 - ("|" in spec.name)))
    for top in COMMANDS.values()
    for spec in (top, *top.subcommands.values())
    if not spec.subcommands and spec.name not in NOT_IN_ORACLE
] + [
    *(("get", key) for key in ("a1", "b:2", "c", "r1", "z", "q", "")),
    *(("set", key, "v") for key in ("a1", "b:2", "c", "r1", "z", "q", "")),
    *(("getset", "a1", "v"), ("rename", "a1", "r1"), ("mget", "a1", "q", "z"), ("copy", "r1", "c")),
    *(("exists", "a1", "r1"), ("msetnx", "c", "v", "z", "v"), ("select", "0"), ("select", "1")),
    *(("publish", "x", "m"), ("publish", "news.1", "m"), ("subscribe", "news.1", "x")),
    *(
        ("psubscribe", "news.*"),
        ("psubscribe", "news.1"),
        ("ssubscribe", "y"),
        ("unsubscribe", "y"),
    ),
    *(("set", "a1", "v", "get"), ("mget", "k1"), ("spublish", "x", "m"), ("nope",), ("get",)),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("before", ["reset", "on >pw +@all ~* &*", "+@read -get ~a* %R~b &x (~z)"])
def test_a_rule_is_taken_or_refused_as_redis_does(
    before: str, rule: str, servers: tuple[Server, Server]
) -> None:
    pair = Pair(*servers, 2)
    pair.same([("ACL", "SETUSER", "u", *before.split()), ("ACL", "SETUSER", "u", rule)])
    assert described(pair, 0) == described(pair, 1)


def described(pair: Pair, number: int) -> list[bytes]:
    """What GETUSER and DRYRUN say of the user, commands' rules left out: 7.0 makes up a short way
    to say them, 7.4 remembers them."""
    conn = pair.conns[number]
    user = conn.ask("ACL", "GETUSER", "u").split(b"\r\n")
    at = [index for index, line in enumerate(user) if line == b"commands"]
    told = [line for index, line in enumerate(user) if index - 2 not in at]
    told = [line for line in told if line[:1] != b"$" and line != b"sanitize-payload"]
    told = [line for line in told if not line.startswith(b"*")]
    conn.send(b"".join(encode_command("ACL", "DRYRUN", "u", *call) for call in CALLS))
    replies = [conn.reply() for _ in CALLS]
    return told + [modern(reply) if number else without_lengths(reply) for reply in replies]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rules=st.lists(st.sampled_from(GOOD) | st.sampled_from(WHOLE), min_size=2, max_size=12),
    at_once=st.booleans(),
)
def test_rules_say_the_same_as_in_redis(
    rules: list[str], at_once: bool, both_servers: tuple[Server, Server]
) -> None:
    pair = Pair(*both_servers, 2)
    commands = [("ACL", "DELUSER", "u"), ("ACL", "SETUSER", "u", "on")]
    if at_once:
        commands.append(("ACL", "SETUSER", "u", *rules))
    else:
        commands += [("ACL", "SETUSER", "u", rule) for rule in rules]
    pair.same(commands)
    mine = described(pair, 0)
    assert mine == described(pair, 1)
    # What LIST says makes the same user, here and there.
    line = next(
        user
        for user in both_servers[0].client(decode_responses=True).acl_list()
        if user.startswith("user u ")
    )
    again = ("ACL", "SETUSER", "u", "reset", *line.split(" ")[2:])
    pair.same([again])
    assert mine == described(pair, 0) == described(pair, 1)
    listed = both_servers[0].client(decode_responses=True).acl_list()
    assert line in listed
    for conn in pair.conns:
        conn.close()


# -- how commands are told again (7.4: as they were said) --------------------------------------


@pytest.mark.parametrize(
    ("rules", "commands"),
    [
        ("", "-@all"),
        ("+@all", "+@all"),
        ("+@all -get", "+@all -get"),
        ("+@all -get +get", "+@all +get"),
        ("+get +SET -get", "-@all +set -get"),
        ("+@read -@Write +@read", "-@all -@write +@read"),
        ("+config|get +config|set -config", "-@all -config"),
        ("+config -config|SET", "-@all +config -config|set"),
        ("+config|get +config -config|get", "-@all +config -config|get"),
        ("+select|0 +select|1 +SELECT|0", "-@all +select|1 +select|0"),
        ("+select|0 +select", "-@all +select"),
        ("+get +set allcommands", "+@all"),
        ("+get nocommands", "-@all"),
        ("+@all -@dangerous +keys -@all +ping", "-@all +ping"),
        ("+get +getset -get", "-@all +getset -get"),
    ],
)
def test_commands_are_told_as_they_were_said(rules: str, commands: str) -> None:
    user = User("u", False)
    user.apply_all([rule.encode() for rule in rules.split()])
    assert user.root.describe_commands() == commands.encode()


def test_a_user_in_one_line() -> None:
    user = User("u", False)
    rules = [b"on", b">pw", b"~a", b"%R~b", b"&c", b"+get", b"(~z +@read)", b"(allkeys &*)"]
    user.apply_all(rules)
    assert user.line().decode() == (
        f"user u on sanitize-payload #{HASH} ~a %R~b resetchannels &c -@all +get "
        "(~z resetchannels -@all +@read) (~* &* -@all)"
    )
    assert default_user().line() == b"user default on nopass sanitize-payload ~* &* +@all"


def test_a_new_user_may_use_all_channels_if_the_server_says_so() -> None:
    user = User("u", True)
    assert user.line() == b"user u off sanitize-payload &* -@all"
    user.apply_all([b"resetchannels", b"(+get)", b"reset"])
    assert user.line() == b"user u off sanitize-payload &* -@all"


@pytest.mark.parametrize("rule", [b"+get\0x", b"~a\0b", b"&a\0", b"+select|a b", b"\xff", b"+\xff"])
def test_odd_bytes_are_refused_or_end_the_word(rule: bytes) -> None:
    user = User("u", False)
    if rule == b"+get\0x":  # a C string ends there
        user.apply(rule)
        assert user.root.describe_commands() == b"-@all +get"
    else:
        with pytest.raises(RuleError):
            user.apply(rule)


@pytest.mark.parametrize(
    ("rules", "every_key"),
    [
        ("+get ~*", True),
        ("+get %R~*", True),
        ("+get %W~*", False),
        ("+get ~?*", False),
        ("~* (+get ~k*)", False),
        ("+get ~k* (%R~* +get)", True),
    ],
)
def test_who_may_read_every_key(rules: str, every_key: bool) -> None:
    user = User("u", False)
    user.apply_all(merge_selectors([rule.encode() for rule in rules.split()]))
    assert user.has_every_key(COMMANDS["get"], [b"get", b"k"], READ) is every_key


def test_a_copy_is_independent() -> None:
    user = User("u", False)
    user.apply_all([b"+get", b"~a", b">pw", b"(+set)", b"+select|0"])
    before = user.line()
    other = user.copy(False)
    other.apply_all([b"+@all", b"allkeys", b"resetpass", b"clearselectors", b"&x", b"off"])
    assert user.line() == before


@pytest.mark.parametrize(
    ("rules", "merged"),
    [
        ([b"+get", b"(~a", b"+set)", b"on"], [b"+get", b"(~a +set)", b"on"]),
        ([b"(", b"+get", b")"], [b"( +get )"]),
        ([b"()", b"(a)"], [b"()", b"(a)"]),
        ([b"", b")"], [b"", b")"]),
    ],
)
def test_selectors_over_several_words(rules: list[bytes], merged: list[bytes]) -> None:
    assert merge_selectors(rules) == merged


def test_password_hashes() -> None:
    user = User("u", False)
    user.apply_all([b"on", b">one", b"#" + HASH.encode(), b">one"])
    assert len(user.passwords) == 2
    assert user.takes_password(b"one") and user.takes_password(b"pw")
    assert not user.takes_password(b"One") and not user.takes_password(b"")
    user.apply(b"nopass")
    assert user.takes_password(b"anything") and not user.passwords
    user.apply(b"off")
    assert not user.takes_password(b"anything")


# -- files -------------------------------------------------------------------------------------

_WRONG = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("# a comment", "f:1 should start with user keyword followed by the username. "),
        ("user", "f:1 should start with user keyword followed by the username. "),
        ("\n \nuser a +nope", "f:3: Error in applying operation '+nope': Unknown command or "
         "category name in ACL. "),
        ("user a foo bar", "f:1: Syntax error. "),
        ("user a on\nuser a off", "WARNING: Duplicate user 'a' found on line 2. "),
        ("user a\tb on", "'f:1: username 'a\tb' contains invalid characters. "),
        ("user a (+get", "f:1: Unmatched parenthesis in selector definition."),
        ("user a foo +nope\nx", "f:1: Syntax error. f:1: Error in applying operation '+nope': "
         "Unknown command or category name in ACL. f:2 should start with user keyword followed by "
         "the username. "),
    ],
)  # fmt: skip
def test_all_mistakes_in_a_file_are_told(text: str, mistakes: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_file(text.encode(), "f", False)
    assert str(caught.value) == mistakes + _WRONG


def test_a_file_of_users() -> None:
    users = parse_file(b"\nuser a on  nopass\t\r\n  user b (+get ~x) +set\n\n", "f", False)
    assert {name: user.describe() for name, user in users.items()} == {
        "a": b"on nopass sanitize-payload resetchannels -@all",
        "b": b"off sanitize-payload resetchannels -@all +set (~x resetchannels -@all +get)",
        "default": b"on nopass sanitize-payload ~* &* +@all",
    }


def test_replies_of_acl_are_those_of_redis(acl_pair: Pair) -> None:
    acl_pair.same(SCRIPT)


def test_which_channels_a_new_user_has(acl_pair: Pair) -> None:
    acl_pair.same(
        """
        CONFIG SET acl-pubsub-default allchannels
        ACL SETUSER u on +publish
        ACL DRYRUN u publish x y
        ACL SETUSER u &x
        ACL SETUSER u resetchannels (+publish)
        ACL DRYRUN u publish x y
        ACL SETUSER u reset +publish
        ACL DRYRUN u publish x y
        CONFIG SET acl-pubsub-default resetchannels
        ACL DRYRUN u publish x y
        ACL SETUSER u reset +publish &y
        ACL DRYRUN u publish y y
        CONFIG SET acl-pubsub-default nope
        CONFIG GET acl-pubsub-default
        """
    )


SCRIPT: Final = """
    ACL
    ACL NOPE
    ACL SETUSER
    ACL SETUSER "with space" on
    ACL SETUSER "with\\x00nul" on
    ACL SETUSER u (+get ~a
    ACL SETUSER u +get "~a b"
    ACL SETUSER u on +nope
    ACL GETUSER u
    ACL GETUSER
    ACL USERS
    ACL USERS x
    ACL SETUSER b
    ACL SETUSER \\xff
    ACL SETUSER ""
    ACL SETUSER a
    ACL USERS
    ACL DELUSER a default
    ACL DELUSER default
    ACL DELUSER b b nope "" \\xff
    ACL USERS
    ACL DELUSER
    ACL WHOAMI
    ACL WHOAMI x
    ACL CAT
    ACL CAT nope
    ACL CAT read write
    ACL GENPASS 0
    ACL GENPASS -1
    ACL GENPASS x
    ACL GENPASS 4097
    ACL GENPASS 1 2
    ACL LOG
    ACL LOG 0
    ACL LOG -1
    ACL LOG x
    ACL LOG reset
    ACL LOG RESET x
    ACL LOAD
    ACL SAVE
    ACL LOAD x
    ACL DRYRUN u
    ACL DRYRUN u get
    ACL DRYRUN nope get k
    ACL DRYRUN a nope
    ACL DRYRUN a get
    ACL DRYRUN a config
    ACL DRYRUN a config nope
    ACL DRYRUN a config get
    ACL DRYRUN default get k
    AUTH
    AUTH x
    AUTH a b c
    AUTH nope x
    AUTH a x
    HELLO 3 AUTH a x
    ACL SETUSER a on nopass
    CLIENT KILL USER nope
    AUTH a anything
"""


def test_help_is_that_of_7_4(ours: Server, servers: tuple[Server, Server]) -> None:
    mine, theirs = (server.conn().ask("ACL", "HELP") for server in servers)
    assert mine == theirs.replace(b"Prints this help", b"Print this help")


@pytest.mark.parametrize("bits", [1, 4, 5, 255, 256, 4096])
def test_passwords_are_as_long_as_asked(bits: int, ours: Server) -> None:
    client = ours.client(decode_responses=True)
    words = {client.acl_genpass(bits) for _ in range(3)}
    assert all(len(word) == (bits + 3) // 4 and int(word, 16) >= 0 for word in words)
    assert bits < 200 or len(words) == 3


def test_categories_have_the_commands_of_redis(servers: tuple[Server, Server]) -> None:
    mine, theirs = (server.client(decode_responses=True) for server in servers)
    assert mine.acl_cat() == theirs.acl_cat()
    known = {spec.name for top in COMMANDS.values() for spec in (top, *top.subcommands.values())}
    for category in mine.acl_cat():
        here, there = (set(client.acl_cat(category)) for client in (mine, theirs))
        assert here - NOT_IN_ORACLE == there & known - NOT_IN_ORACLE, category
