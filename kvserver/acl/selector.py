"""A selector: a set of commands, key patterns and channels that a user may use together.

It must not know users, sessions or the configuration. Commands are those of the registry under
their own names: rules hold whatever `rename-command` calls a command. Source: Redis 7.4's acl.c
(ACLSetSelector, ACLSelectorCheckCmd, ACLDescribeSelector). Invariants:
- `rules` says again what `commands` and `first_args` allow: `+@all` or `-@all` and then the rules,
  in order, give the same selector.
- A selector is not changed after a user that has it is in use; a copy is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Final, NamedTuple

from kvserver import glob
from kvserver.registry import CATEGORIES, COMMANDS, NO_AUTH, Key, Spec

# What a key pattern allows.
READ: Final = 1
WRITE: Final = 2
READ_WRITE: Final = READ | WRITE
_PREFIXES: Final = {READ: b"%R~", WRITE: b"%W~", READ_WRITE: b"~"}

# Why something is denied; of several reasons the highest is told (server.h, ACL_DENIED_*).
DENIED_COMMAND: Final = 1
DENIED_KEY: Final = 2
DENIED_CHANNEL: Final = 4

#: The commands that name channels: whether these are patterns, and how many arguments are channels
#: (-1: all of them). Commands that unsubscribe need no permission.
CHANNEL_COMMANDS: Final = {
    "subscribe": (False, -1),
    "ssubscribe": (False, -1),
    "psubscribe": (True, -1),
    "publish": (False, 1),
    "spublish": (False, 1),
}

_SPACES: Final = frozenset(b" \t\n\v\f\r\0")
_READS: Final = "ACCESS"
_WRITES: Final = frozenset(("INSERT", "DELETE", "UPDATE"))

Matcher = Callable[[bytes], bool]


class RuleError(ValueError):
    """A rule can't be used; the text is the sentence of Redis' ACLSetUserStringError."""


class UnknownCommand(RuleError):
    """A rule names a command or a category that doesn't exist."""

    def __init__(self) -> None:
        super().__init__("Unknown command or category name in ACL")


def syntax_error() -> RuleError:
    return RuleError("Syntax error")


def _after_star(kind: str, alias: str, reset: str) -> RuleError:
    return RuleError(
        f"Adding a pattern after the * pattern (or the '{alias}' flag) is not valid and does not "
        f"have any effect. Try '{reset}' to start with an empty list of {kind}"
    )


class Denial(NamedTuple):
    """A reason, and the index of the argument that it is about (0: the command)."""

    reason: int
    at: int


class KeyPattern(NamedTuple):
    """What keys that match may be used for."""

    access: int
    matches: Matcher


class KeyCache:
    """The keys of a command, found once for all selectors."""

    def __init__(self, spec: Spec, args: Sequence[bytes]) -> None:
        self._spec = spec
        self._args = args
        self._keys: list[Key] | None = None

    def found(self) -> list[Key]:
        if self._keys is None:
            self._keys = self._spec.find_keys(self._args)
        return self._keys


class Selector:
    """What is allowed together."""

    def __init__(self, all_channels: bool) -> None:
        self.all_keys = False
        self.all_channels = all_channels
        self.all_commands = False
        #: Whether the rules are to be read as beginning with +@all.
        self.from_all = False
        #: Full names.
        self.commands: set[str] = set()
        #: Commands that are allowed with these first arguments only, in lower case.
        self.first_args: dict[str, set[bytes]] = {}
        self.keys: dict[bytes, KeyPattern] = {}
        self.channels: dict[bytes, Matcher] = {}
        #: What was said of commands since +@all or -@all -> whether it allows, in order.
        self.rules: dict[bytes, bool] = {}

    def copy(self) -> Selector:
        other = Selector(self.all_channels)
        other.all_keys = self.all_keys
        other.all_commands = self.all_commands
        other.from_all = self.from_all
        other.commands = set(self.commands)
        other.first_args = {name: set(words) for name, words in self.first_args.items()}
        other.keys = dict(self.keys)
        other.channels = dict(self.channels)
        other.rules = dict(self.rules)
        return other

    @property
    def unrestricted(self) -> bool:
        """Whether nothing is denied."""
        return self.all_commands and self.all_keys and self.all_channels

    # -- rules -------------------------------------------------------------------------------

    def apply(self, rule: bytes) -> None:
        """Take a rule. Raises RuleError; then nothing is changed."""
        word = rule.partition(b"\0")[0]
        lowered = word.lower()
        if lowered in (b"allkeys", b"~*"):
            self.all_keys = True
            self.keys.clear()
        elif lowered == b"resetkeys":
            self.all_keys = False
            self.keys.clear()
        elif lowered in (b"allchannels", b"&*"):
            self.all_channels = True
            self.channels.clear()
        elif lowered == b"resetchannels":
            self.all_channels = False
            self.channels.clear()
        elif lowered in (b"allcommands", b"+@all"):
            self._set_all_commands(True)
        elif lowered in (b"nocommands", b"-@all"):
            self._set_all_commands(False)
        elif word[:1] in (b"~", b"%"):
            self._add_key_pattern(rule)
        elif word[:1] == b"&":
            self._add_channel(rule[1:])
        elif word[:1] in (b"+", b"-"):
            self._apply_to_commands(word)
        else:
            raise syntax_error()

    def _set_all_commands(self, allow: bool) -> None:
        self.all_commands = self.from_all = allow
        self.commands = {spec.name for spec in _all_specs()} if allow else set()
        self.first_args.clear()
        self.rules.clear()

    def _add_key_pattern(self, rule: bytes) -> None:
        if self.all_keys:
            raise _after_star("patterns", "allkeys", "resetkeys")
        access, pattern = _split_key_rule(rule)
        if not _SPACES.isdisjoint(pattern):
            raise syntax_error()
        known = self.keys.get(pattern)
        if known is None:
            self.keys[pattern] = KeyPattern(access, glob.compile(pattern))
        else:
            self.keys[pattern] = known._replace(access=known.access | access)

    def _add_channel(self, pattern: bytes) -> None:
        if self.all_channels:
            raise _after_star("channels", "allchannels", "resetchannels")
        if not _SPACES.isdisjoint(pattern):
            raise syntax_error()
        if pattern not in self.channels:
            self.channels[pattern] = glob.compile(pattern)

    def _apply_to_commands(self, word: bytes) -> None:
        allow, name = word[:1] == b"+", word[1:]
        if name[:1] == b"@":
            self._set_category(name, allow)
        elif allow and b"|" in name:
            self._allow_part(name)
        else:
            spec = find_command(name)
            if spec is None:
                raise UnknownCommand
            self._set_command(spec, allow)
            self._note(spec.name.encode(), allow)

    def _allow_part(self, name: bytes) -> None:
        """+command|subcommand, or +command|first-argument."""
        parent, _, part = name.rpartition(b"|")
        spec = find_command(parent)
        if spec is None:
            raise UnknownCommand
        if "|" in spec.name:
            raise RuleError("Allowing first-arg of a subcommand is not supported")
        # A space would make it two rules when it is written and read again.
        if not part or not _SPACES.isdisjoint(part):
            raise syntax_error()
        if spec.subcommands:
            sub = find_command(name)
            if sub is None:
                raise UnknownCommand
            self._set_command(sub, True)
        else:
            self.first_args.setdefault(spec.name, set()).add(part.lower())
        self._note(name, True)

    def _set_category(self, name: bytes, allow: bool) -> None:
        category = find_category(name[1:])
        if category is None:
            raise UnknownCommand
        self._note(name, allow)
        for spec in _all_specs():
            if category in spec.acl_categories():
                self._set_command(spec, allow)

    def _set_command(self, spec: Spec, allow: bool) -> None:
        """Of a container, its subcommands too (ACLChangeSelectorPerm)."""
        self.first_args.pop(spec.name, None)
        names = [spec.name, *(sub.name for sub in spec.subcommands.values())]
        if allow:
            self.commands.update(names)
        else:
            self.commands.difference_update(names)
            self.all_commands = False

    def _note(self, rule: bytes, allow: bool) -> None:
        """Remember the rule, and forget those that it overrules (ACLUpdateCommandRules)."""
        rule = rule.lower()
        part = rule + b"|"
        self.rules = {
            known: allows
            for known, allows in self.rules.items()
            if known != rule and not known.startswith(part)
        }
        self.rules[rule] = allow

    # -- description ---------------------------------------------------------------------------

    def describe_commands(self) -> bytes:
        words = [b"+@all" if self.from_all else b"-@all"]
        words += [(b"+" if allow else b"-") + rule for rule, allow in self.rules.items()]
        return b" ".join(words)

    def describe_keys(self) -> bytes:
        if self.all_keys:
            return b"~*"
        return b" ".join(_PREFIXES[known.access] + text for text, known in self.keys.items())

    def describe_channels(self) -> bytes:
        if self.all_channels:
            return b"&*"
        return b" ".join(b"&" + text for text in self.channels)

    def describe(self) -> bytes:
        """Rules that, given to a new selector, make it equal to this one."""
        channels = self.describe_channels()
        if not self.all_channels:
            channels = (b"resetchannels " + channels).strip()
        words = [self.describe_keys(), channels, self.describe_commands()]
        return b" ".join(word for word in words if word)

    # -- checks --------------------------------------------------------------------------------

    def check(self, spec: Spec, args: Sequence[bytes], cache: KeyCache) -> Denial | None:
        """Why a command is denied, if so."""
        if not self.allows_command(spec, args):
            return Denial(DENIED_COMMAND, 0)
        if not self.all_keys:
            for index, flags in cache.found():
                if not self.allows_key(args[index], needed_access(flags)):
                    return Denial(DENIED_KEY, index)
        if not self.all_channels and spec.name in CHANNEL_COMMANDS:
            is_pattern, count = CHANNEL_COMMANDS[spec.name]
            end = len(args) if count < 0 else 1 + count
            for index in range(1, end):
                if not self.allows_channel(args[index], is_pattern):
                    return Denial(DENIED_CHANNEL, index)
        return None

    def allows_command(self, spec: Spec, args: Sequence[bytes]) -> bool:
        """Whether the command itself is allowed, whatever its keys and channels."""
        if self.all_commands or spec.flags & NO_AUTH or spec.name in self.commands:
            return True
        words = self.first_args.get(spec.name)
        return words is not None and len(args) > 1 and args[1].lower() in words

    def allows_key(self, key: bytes, access: int) -> bool:
        if self.all_keys:
            return True
        for known in self.keys.values():
            if known.access & access == access and known.matches(key):
                return True
        return False

    def allows_channel(self, channel: bytes, is_pattern: bool) -> bool:
        """A pattern must be one of the selector's, literally."""
        if self.all_channels:
            return True
        if is_pattern:
            return channel in self.channels
        return any(matches(channel) for matches in self.channels.values())

    def allows_every_key(self, access: int) -> bool:
        """Whether no key is denied (ACLSelectorHasUnrestrictedKeyAccess)."""
        known = self.keys.get(b"*")
        return self.all_keys or (known is not None and known.access & access == access)


@cache
def needed_access(flags: tuple[str, ...]) -> int:
    """What a pattern must allow for a key with these flags; 0: any pattern that matches will do."""
    access = READ if _READS in flags else 0
    return access if _WRITES.isdisjoint(flags) else access | WRITE


def _split_key_rule(rule: bytes) -> tuple[int, bytes]:
    """(access, pattern) of `~pattern`, `%R~pattern`, ... Raises RuleError."""
    if rule[:1] == b"~":
        return READ_WRITE, rule[1:]
    letters, _, pattern = rule[1:].partition(b"~")
    letters = letters.upper()
    if letters not in (b"R", b"W", b"RW", b"WR"):
        raise syntax_error()
    access = (READ if b"R" in letters else 0) | (WRITE if b"W" in letters else 0)
    return access, pattern


# -- the registry ------------------------------------------------------------------------------


def find_command(name: bytes) -> Spec | None:
    """The command of a name in any case, `get` or `config|get`."""
    words = [word.decode("utf-8", "surrogateescape") for word in name.lower().split(b"|")]
    spec = COMMANDS.get(words[0])
    if spec is None or len(words) == 1:
        return spec
    return spec.subcommands.get(words[1]) if len(words) == 2 else None


def find_category(name: bytes) -> str | None:
    """The category of a name in any case."""
    text = name.lower().decode("utf-8", "surrogateescape")
    return text if text in CATEGORIES else None


def _all_specs() -> Iterator[Spec]:
    for spec in COMMANDS.values():
        yield spec
        yield from spec.subcommands.values()


def commands_in(category: str) -> list[str]:
    """The full names of a category's commands, subcommands included."""
    return [spec.name for spec in _all_specs() if category in spec.acl_categories()]
