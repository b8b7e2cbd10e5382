"""MIGRATE: moves keys to another server.

What is under way is in state/migrations.py, and what is sent in edge/migrate.py. Source: Redis
7.4's cluster.c, migrateCommand. It differs in what the rest of the server does meanwhile: only
those wait who might change one of the keys. So it can't be part of a transaction or a script,
which nothing may interrupt. Connections aren't kept for the next MIGRATE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int
from kvserver.registry import MOVABLE_KEYS, WALK, WRITE, Key, KeySpec, command
from kvserver.state.context import WriteContext
from kvserver.state.migrations import Migration, Target

_FLAGS: Final = ("RW", "ACCESS", "DELETE")
#: Where the key and the first option stand among the arguments, the name being the first.
_KEY: Final = 3
_OPTIONS: Final = 6
#: Options with arguments, and how many.
_SKIPPED: Final = {b"AUTH": 1, b"AUTH2": 2}

_DEFAULT_TIMEOUT_MS: Final = 1000
_MAX_TIMEOUT_MS: Final = 10**9


def _locate_keys(args: Sequence[bytes]) -> list[Key]:
    """migrateGetKeys."""
    at = _OPTIONS
    while at < len(args):
        word = args[at].upper()
        if word == b"KEYS":
            return [(place, _FLAGS) for place in range(at + 1, len(args))] if not args[_KEY] else []
        at += 1 + _SKIPPED.get(word, 0)
    return [(_KEY, _FLAGS)]


@command(
    "migrate",
    -6,
    WRITE | MOVABLE_KEYS | WALK,
    group="generic",
    since="2.6.0",
    summary="Atomically transfers a key from one Redis instance to another.",
    complexity="This command actually executes a DUMP+DEL in the source instance, and a RESTORE "
    "in the target instance. See the pages of these commands for time complexity. Also an O(N) "
    "data transfer between the two instances is performed.",
    keys=(
        KeySpec(3, 3, 1, _FLAGS),
        KeySpec(-2, -1, 1, (*_FLAGS, "INCOMPLETE"), keyword=b"KEYS"),
    ),
    categories=("keyspace", "dangerous"),
    tips=("nondeterministic_output",),
    history=(
        ("3.0.0", "Added the `COPY` and `REPLACE` options."),
        ("3.0.6", "Added the `KEYS` option."),
        ("4.0.7", "Added the `AUTH` option."),
        ("6.0.0", "Added the `AUTH2` option."),
    ),
    locate=_locate_keys,
)
def migrate(
    ctx: WriteContext,
    host: bytes,
    port: bytes,
    name: bytes,
    db: bytes,
    timeout: bytes,
    *words: bytes,
) -> Any:
    options = _parse(name, words)
    timeout_ms = parse_int(timeout)
    number = parse_int(db)
    keys = [key for key in options.keys if ctx.db.row(key) is not None]
    if not keys:
        return resp.Simple(b"NOKEY")
    if ctx.deny_blocking:
        raise errors.not_in_transaction()
    target = Target(
        host.decode("utf-8", "surrogateescape"),
        _port(port),
        b"%d" % number,
        min(timeout_ms, _MAX_TIMEOUT_MS) if timeout_ms > 0 else _DEFAULT_TIMEOUT_MS,
        options.credentials,
    )
    migration = Migration(
        ctx.server, ctx.session, keys, target, keep=options.keep, replace=options.replace
    )
    return ctx.server.migrations.begin(migration)


class _Options(NamedTuple):
    keys: tuple[bytes, ...]
    keep: bool
    replace: bool
    credentials: tuple[bytes, ...]


def _parse(name: bytes, words: tuple[bytes, ...]) -> _Options:
    keys: tuple[bytes, ...] = (name,)
    keep = replace = False
    credentials: tuple[bytes, ...] = ()
    user: tuple[bytes, ...] = ()
    options = Cursor(words)
    while options.more():
        if options.flag(b"COPY"):
            keep = True
        elif options.flag(b"REPLACE"):
            replace = True
        elif (password := options.value(b"AUTH")) is not None:
            credentials = (*user, password)
        elif options.flag(b"AUTH2"):
            user = tuple(options.take(1))
            credentials = (*user, *options.take(1))
        elif options.flag(b"KEYS"):
            if name:
                raise errors.error(
                    "When using MIGRATE KEYS option, the key argument must be set to the empty "
                    "string"
                )
            keys = tuple(options.take(options.remaining()))
        else:
            raise errors.syntax()
    return _Options(keys, keep, replace, credentials)


def _port(text: bytes) -> int:
    """As C's atoi reads it, as far as it makes sense; 0: nobody listens there."""
    digits = text.strip()
    return int(digits) if digits.isdigit() and len(digits) < 6 and int(digits) < 1 << 16 else 0
