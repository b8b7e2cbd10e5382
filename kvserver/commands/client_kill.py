"""CLIENT KILL: ends connections, by their address or by filters that must all match.

Source: Redis 7.4's networking.c (clientKillCommand's part of clientCommand).
"""

from __future__ import annotations

from collections.abc import Callable

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int_in
from kvserver.commands.client import ADMIN_FLAGS, CATEGORIES, parse_type
from kvserver.numbers import INT64_MAX, INT64_MIN
from kvserver.registry import command
from kvserver.state import clientinfo
from kvserver.state.context import ReadContext
from kvserver.state.session import Session

Test = Callable[[Session], bool]


@command(
    "client|kill",
    -3,
    ADMIN_FLAGS,
    group="connection",
    since="2.4.0",
    summary="Terminates open connections.",
    complexity="O(N) where N is the number of client connections",
    categories=CATEGORIES,
    history=(
        ("2.8.12", "Added new filter format."),
        ("2.8.12", "`ID` option."),
        ("3.2.0", "Added `master` type in for `TYPE` option."),
        (
            "5.0.0",
            "Replaced `slave` `TYPE` with `replica`. `slave` still supported for backward "
            "compatibility.",
        ),
        ("6.2.0", "`LADDR` option."),
        ("7.4.0", "`MAXAGE` option."),
    ),
)
def client_kill(ctx: ReadContext, *words: bytes) -> resp.Simple | int:
    if len(words) == 1:
        if not _kill(ctx, [_address_test(words[0])], skip_me=False):
            raise errors.no_such_client()
        return resp.OK
    tests, skip_me = _kill_options(ctx, words)
    return _kill(ctx, tests, skip_me) + _end_primary_link(ctx, words)


def _kill(ctx: ReadContext, tests: list[Test], skip_me: bool) -> int:
    """End the sessions that pass every test; returns how many. The caller's own ends after the
    reply."""
    own = ctx.session
    chosen = [
        session
        for session in ctx.server.sessions.values()
        if not (skip_me and session is own) and all(test(session) for test in tests)
    ]
    for session in chosen:
        if session is own:
            session.close_after_reply()
        else:
            session.sink.abort()
    return len(chosen)


def _end_primary_link(ctx: ReadContext, words: tuple[bytes, ...]) -> int:
    """The link to the primary is no session: it has a type, and nothing else to filter by."""
    verbs = ctx.server.replication.verbs
    filters = {(words[i].upper(), words[i + 1].lower()) for i in range(0, len(words) - 1, 2)}
    filters -= {(b"SKIPME", b"yes"), (b"SKIPME", b"no")}
    if filters != {(b"TYPE", clientinfo.MASTER)} or verbs is None:
        return 0
    return int(verbs.end_primary_link())


def _kill_options(ctx: ReadContext, words: tuple[bytes, ...]) -> tuple[list[Test], bool]:
    """(what a session must pass to be killed, SKIPME)."""
    tests: list[Test] = []
    skip_me = True
    options = Cursor(words)
    while options.more():
        if (value := options.value(b"SKIPME")) is not None:
            skip_me = _yes(value)
            continue
        if (value := options.value(b"USER")) is not None:
            tests.append(_user_test(ctx, value))
            continue
        for name, make_test in _KILL_TESTS.items():
            if (value := options.value(name)) is not None:
                tests.append(make_test(value))
                break
        else:
            raise errors.syntax()
    return tests, skip_me


def _yes(word: bytes) -> bool:
    option = word.upper()
    if option not in (b"YES", b"NO"):
        raise errors.syntax()
    return option == b"YES"


def _id_test(word: bytes) -> Test:
    number = parse_int_in(word, 1, INT64_MAX, "client-id should be greater than 0")
    return lambda session: session.id == number


def _address_test(word: bytes) -> Test:
    return lambda session: session.addr.encode("utf-8", "surrogateescape") == word


def _own_address_test(word: bytes) -> Test:
    return lambda session: session.laddr.encode("utf-8", "surrogateescape") == word


def _type_test(word: bytes) -> Test:
    kind = parse_type(word)
    return lambda session: clientinfo.client_type(session) == kind


def _user_test(ctx: ReadContext, word: bytes) -> Test:
    name = word.decode("utf-8", "surrogateescape")
    if name not in ctx.server.acl.users:
        raise errors.no_such_user(word)
    return lambda session: session.user == name and not session.namespace


def _age_test(word: bytes) -> Test:
    seconds = parse_int_in(word, INT64_MIN, INT64_MAX, "maxage is not an integer or out of range")
    if seconds <= 0:
        raise errors.error("maxage should be greater than 0")
    return lambda session: clientinfo.age(session) >= seconds


_KILL_TESTS: dict[bytes, Callable[[bytes], Test]] = {
    b"ID": _id_test,
    b"MAXAGE": _age_test,
    b"TYPE": _type_test,
    b"ADDR": _address_test,
    b"LADDR": _own_address_test,
}
