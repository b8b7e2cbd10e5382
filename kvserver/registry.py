"""The table of commands: one declaration each, from which all else is derived.

It must not know what a command does, clients or storage. COMMAND and its subcommands, arity
checks, the read-only Reader for handlers without WRITE, CLIENT PAUSE, MULTI, MONITOR,
SLOWLOG and docs/commands.md all read a `Spec`. Names, arities, flags, key specifications
and texts are those of Redis 7.4's src/commands/*.json.

Invariant: `handler` is the undecorated function; nothing stands between dispatch and it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

# Plain ints: testing an enum.Flag costs microseconds.
WRITE: Final = 1 << 0
READONLY: Final = 1 << 1
DENYOOM: Final = 1 << 2
ADMIN: Final = 1 << 3
PUBSUB: Final = 1 << 4
NOSCRIPT: Final = 1 << 5
BLOCKING: Final = 1 << 6
LOADING: Final = 1 << 7
STALE: Final = 1 << 8
SKIP_MONITOR: Final = 1 << 9
SKIP_SLOWLOG: Final = 1 << 10
ASKING: Final = 1 << 11
FAST: Final = 1 << 12
NO_AUTH: Final = 1 << 13
MAY_REPLICATE: Final = 1 << 14
NO_MULTI: Final = 1 << 15
ALLOW_BUSY: Final = 1 << 16
NO_ASYNC_LOADING: Final = 1 << 17
NO_MANDATORY_KEYS: Final = 1 << 18
MOVABLE_KEYS: Final = 1 << 19
# Ours: what MULTI doesn't queue (EXEC, DISCARD, MULTI, WATCH, QUIT, RESET).
NOT_QUEUED: Final = 1 << 30
# Ours: allowed to a RESP2 client that has subscriptions.
IN_PUBSUB: Final = 1 << 31
# Ours: the handler may return a generator (a long walk, done in steps) or Blocked.
WALK: Final = 1 << 32

#: Flags as COMMAND INFO spells them, in its order (server.c, addReplyFlagsForCommand). It hides
#: MAY_REPLICATE.
FLAG_NAMES: Final[tuple[tuple[int, str], ...]] = (
    (WRITE, "write"),
    (READONLY, "readonly"),
    (DENYOOM, "denyoom"),
    (ADMIN, "admin"),
    (PUBSUB, "pubsub"),
    (NOSCRIPT, "noscript"),
    (BLOCKING, "blocking"),
    (LOADING, "loading"),
    (STALE, "stale"),
    (SKIP_MONITOR, "skip_monitor"),
    (SKIP_SLOWLOG, "skip_slowlog"),
    (ASKING, "asking"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
    (NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (NO_ASYNC_LOADING, "no_async_loading"),
    (NO_MULTI, "no_multi"),
    (MOVABLE_KEYS, "movablekeys"),
    (ALLOW_BUSY, "allow_busy"),
)

#: Every ACL category, in the order of acl.c's ACLCommandCategories.
CATEGORIES: Final = (
    *("keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap"),
    *("hyperloglog", "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous"),
    *("connection", "transaction", "scripting"),
)
#: The categories that a flag implies (acl.c, setImplicitACLCategories).
_IMPLIED: Final[tuple[tuple[int, tuple[str, ...]], ...]] = (
    (WRITE, ("write",)),
    (READONLY, ("read",)),
    (ADMIN, ("admin", "dangerous")),
    (PUBSUB, ("pubsub",)),
    (FAST, ("fast",)),
    (BLOCKING, ("blocking",)),
)

Handler = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])
#: A key among the arguments: its index, and what the command does with it, as in a KeySpec.
Key = tuple[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class KeySpec:
    """Where keys stand: from argument `first` (1: right after the name) to `last` (negative:
    from the end), every `step`-th. `flags` as in COMMAND INFO: RO, RW, OW, RM, ACCESS, ...

    With a `keyword` they stand after that word, which is sought from argument `first` on
    (negative: backwards, from so far before the end), and `last` counts from the first key if it
    isn't negative. With `numbered` argument `first` is the number of keys, and they follow it.
    `limit` n: of what remains only the n-th part are keys. `unknown`: nothing tells where they
    stand but the command itself (`Spec.locate`). Source: server.c,
    getKeysUsingKeySpecs."""

    first: int
    last: int
    step: int
    flags: tuple[str, ...]
    notes: str = ""
    keyword: bytes = b""
    numbered: bool = False
    limit: int = 0
    unknown: bool = False

    def find(self, args: Sequence[bytes]) -> range | None:
        """The places of the keys, none if the keyword is missing; None: no valid command."""
        first = 0 if self.unknown else self._begin(args)
        if first == 0:
            return range(0)
        if self.numbered:
            count = _small_number(args[first]) if first < len(args) else 0
            if not 0 < count < len(args):
                return range(0) if count == 0 and first < len(args) else None
            first, last = first + 1, first + 1 + (count - 1) * self.step
        elif self.last >= 0:
            last = first + self.last if self.keyword else self.last
        elif self.limit > 1:
            last = first + (len(args) - first) // self.limit - 1
        else:
            last = len(args) + self.last
        return range(first, last + 1, self.step) if first <= last < len(args) else None

    def _begin(self, args: Sequence[bytes]) -> int:
        """The place of the first key, or of their number; 0: the keyword is missing."""
        if not self.keyword:
            return self.first
        end = len(args) - 1
        start, stop, step = (
            (self.first, end + 1, 1) if self.first > 0 else (end + 1 + self.first, 1, -1)
        )
        for at in range(start, stop, step):
            if at < end and args[at].upper() == self.keyword:
                return at + 1
        return 0


def _small_number(text: bytes) -> int:
    """A number of keys; -1 if it is none."""
    return int(text) if text.isdigit() and len(text) < 10 else -1


def unknown_keys(*flags: str, notes: str) -> KeySpec:
    """Keys that the arguments don't tell, or not where they stand."""
    return KeySpec(0, 0, 0, flags, notes, unknown=True)


def key(*flags: str, at: int = 1) -> tuple[KeySpec, ...]:
    """One key at argument `at`."""
    return (KeySpec(at, at, 1, flags),)


def keys(*flags: str, first: int = 1, last: int = -1, step: int = 1) -> tuple[KeySpec, ...]:
    """Several keys."""
    return (KeySpec(first, last, step, flags),)


def numbered_keys(*flags: str, at: int = 1) -> tuple[KeySpec, ...]:
    """Keys after their number, which is argument `at`."""
    return (KeySpec(at, -1, 1, flags, numbered=True),)


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known of a command without running it."""

    name: str
    arity: int
    flags: int
    group: str
    since: str
    summary: str
    complexity: str
    key_specs: tuple[KeySpec, ...]
    categories: tuple[str, ...]
    tips: tuple[str, ...]
    history: tuple[tuple[str, str], ...]
    deprecated: tuple[str, str] | None
    system: bool
    locate: Callable[[Sequence[bytes]], list[Key]] | None
    handler: Handler | None
    subcommands: dict[str, Spec] = field(default_factory=dict)

    def acl_categories(self) -> list[str]:
        """Those declared and those that the flags imply, in the order of CATEGORIES."""
        found = set(self.categories)
        for flag, names in _IMPLIED:
            # Scripts that only read aren't reading commands.
            if self.flags & flag and not (flag == READONLY and "scripting" in found):
                found.update(names)
        if "fast" not in found:
            found.add("slow")
        return [name for name in CATEGORIES if name in found]

    def key_range(self) -> tuple[int, int, int]:
        """First key, last key and step, as COMMAND told before there were key specifications;
        zeros without keys (server.c, populateCommandLegacyRangeSpec)."""
        plain = [s for s in self.key_specs if not (s.keyword or s.numbered or s.unknown)]
        if not plain:
            return 0, 0, 0
        if len(self.key_specs) == 1:
            return plain[0].first, plain[0].last, plain[0].step
        first = last = 0
        for spec in plain:
            if spec.step == 1 and (not last or last == spec.first - 1):
                first, last = first or spec.first, spec.last
        return (first, last, 1) if first else (0, 0, 0)

    def has_keys(self) -> bool:
        """Whether any argument may be a key."""
        return any("NOT_KEY" not in spec.flags for spec in self.key_specs)

    def find_keys(self, args: Sequence[bytes]) -> list[Key]:
        """The keys of an argument vector, the name included, whose length fits the arity. Empty
        also when the arguments are no valid command."""
        if self.locate is not None:
            return self.locate(args)
        found: list[Key] = []
        for spec in self.key_specs:
            if "NOT_KEY" in spec.flags:
                continue
            places = spec.find(args)
            if places is None:
                return []
            found += [(index, spec.flags) for index in places]
        return found


#: Every declared command by its lower-case name; containers hold their subcommands.
COMMANDS: Final[dict[str, Spec]] = {}


def command(
    name: str,
    arity: int,
    flags: int,
    *,
    group: str,
    since: str,
    summary: str,
    complexity: str = "O(1)",
    keys: Sequence[KeySpec] = (),
    categories: Sequence[str] = (),
    tips: Sequence[str] = (),
    history: Sequence[tuple[str, str]] = (),
    deprecated: tuple[str, str] | None = None,
    system: bool = False,
    locate: Callable[[Sequence[bytes]], list[Key]] | None = None,
) -> Callable[[F], F]:
    """Declare the function below as a command; a `container|sub` name declares a subcommand of
    a container declared before. `categories` are ACL categories beyond the derived ones;
    `deprecated` is (since, what to use instead); `system` commands are for Redis itself and its
    developers; `locate` finds the keys where the specifications in `keys` don't tell all."""

    def declare(handler: F) -> F:
        spec = Spec(
            name,
            arity,
            flags,
            group,
            since,
            summary,
            complexity,
            tuple(keys),
            tuple(categories),
            tuple(tips),
            tuple(history),
            deprecated,
            system,
            locate,
            handler,
        )
        _add(spec)
        return handler

    return declare


def container(
    name: str, *, group: str, since: str, summary: str, complexity: str = "Depends on subcommand."
) -> None:
    """Declare a command that only has subcommands."""
    _add(
        Spec(
            name, -2, 0, group, since, summary, complexity, (), (), (), (), None, False, None, None
        )
    )


def _add(spec: Spec) -> None:
    parent, _, sub = spec.name.partition("|")
    table = COMMANDS[parent].subcommands if sub else COMMANDS
    name = sub or parent
    if name in table:
        raise ValueError(f"command declared twice: {spec.name}")
    table[name] = spec
