"""A user: passwords, and selectors that each allow something.

It must not know sessions or files. A user is changed as a whole: rules are tried on a copy, which
takes the user's place when all of them are good. Source: Redis 7.4's acl.c (ACLSetUser,
ACLDescribeUser, ACLCheckAllUserCommandPerm). Invariants:
- The first selector is the root: what rules outside of parentheses change.
- Passwords are kept as the hexadecimal digits of their SHA-256.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from kvserver.acl.selector import (
    DENIED_COMMAND,
    Denial,
    KeyCache,
    RuleError,
    Selector,
)
from kvserver.quoting import split_args
from kvserver.registry import Spec

_HASH: Final = re.compile(rb"[0-9a-f]{64}")
_SPACES: Final = frozenset(b" \t\n\v\f\r\0")
#: The name of the user that every connection begins as.
DEFAULT: Final = "default"


def hash_password(password: bytes) -> bytes:
    return sha256(password).hexdigest().encode()


class User:
    """One user. `all_channels`: whether its new selectors may use all channels."""

    def __init__(self, name: str, all_channels: bool) -> None:
        self.name = name
        self.enabled = False
        self.no_password = False
        self.skip_sanitize = False
        #: Hashes; a dictionary as an ordered set.
        self.passwords: dict[bytes, None] = {}
        self.selectors = [Selector(all_channels)]
        self._new_selectors_all = all_channels

    def copy(self, all_channels: bool) -> User:
        other = User(self.name, all_channels)
        other.enabled = self.enabled
        other.no_password = self.no_password
        other.skip_sanitize = self.skip_sanitize
        other.passwords = dict(self.passwords)
        other.selectors = [selector.copy() for selector in self.selectors]
        return other

    @property
    def root(self) -> Selector:
        return self.selectors[0]

    @property
    def unrestricted(self) -> bool:
        """Whether one selector allows everything."""
        return any(selector.unrestricted for selector in self.selectors)

    # -- rules -------------------------------------------------------------------------------

    def apply(self, rule: bytes) -> None:
        """Take a rule. Raises RuleError."""
        if not rule:
            return
        word = rule.partition(b"\0")[0].lower()
        if word in (b"on", b"off"):
            self.enabled = word == b"on"
        elif word in (b"skip-sanitize-payload", b"sanitize-payload"):
            self.skip_sanitize = word == b"skip-sanitize-payload"
        elif word in (b"nopass", b"resetpass"):
            self.no_password = word == b"nopass"
            self.passwords.clear()
        elif rule[:1] in (b">", b"#"):
            self.passwords.setdefault(_hash_in(rule))
            self.no_password = False
        elif rule[:1] in (b"<", b"!"):
            self._remove_password(rule)
        elif rule[:1] == b"(" and rule[-1:] == b")":
            self.selectors.append(self._selector(rule[1:-1]))
        elif word == b"clearselectors":
            del self.selectors[1:]
        elif word == b"reset":
            self._reset()
        else:
            self.root.apply(rule)

    def apply_all(self, rules: Sequence[bytes]) -> None:
        """Take rules. Raises OffendingRule."""
        for rule in rules:
            try:
                self.apply(rule)
            except RuleError as error:
                raise OffendingRule(rule, error) from None

    def _remove_password(self, rule: bytes) -> None:
        password = _hash_in(rule)
        if password not in self.passwords:
            raise RuleError("The password you are trying to remove from the user does not exist")
        del self.passwords[password]

    def _selector(self, rules: bytes) -> Selector:
        selector = Selector(self._new_selectors_all)
        for rule in split_args(rules) or ():
            selector.apply(rule)
        return selector

    def _reset(self) -> None:
        for rule in (b"resetpass", b"resetkeys", b"resetchannels"):
            self.apply(rule)
        if self._new_selectors_all:
            self.apply(b"allchannels")
        for rule in (b"off", b"sanitize-payload", b"clearselectors", b"-@all"):
            self.apply(rule)

    # -- description -------------------------------------------------------------------------

    def flags(self) -> list[str]:
        """As GETUSER and LIST order them."""
        names = ["on" if self.enabled else "off"]
        if self.no_password:
            names.append("nopass")
        names.append("skip-sanitize-payload" if self.skip_sanitize else "sanitize-payload")
        return names

    def describe(self) -> bytes:
        """Rules that, given to a new user, make it equal to this one."""
        words = [flag.encode() for flag in self.flags()]
        words += [b"#" + password for password in self.passwords]
        words.append(self.root.describe())
        words += [b"(%b)" % selector.describe() for selector in self.selectors[1:]]
        return b" ".join(words)

    def line(self) -> bytes:
        """As in ACL LIST and in files."""
        return b"user %b %b" % (self.name.encode("utf-8", "surrogateescape"), self.describe())

    # -- checks --------------------------------------------------------------------------------

    def takes_password(self, password: bytes) -> bool:
        """Whether one may log in with it. Takes the same time whatever is wrong with it."""
        given = hash_password(password)
        same = False
        for known in self.passwords:
            same |= hmac.compare_digest(given, known)
        return self.enabled and (self.no_password or same)

    def check(self, spec: Spec, args: Sequence[bytes]) -> Denial | None:
        """Why a command is denied, if no selector allows it: of the selectors' reasons the one
        that got furthest."""
        worst = Denial(DENIED_COMMAND, 0)
        cache = KeyCache(spec, args)
        for selector in self.selectors:
            denial = selector.check(spec, args, cache)
            if denial is None:
                return None
            worst = max(worst, denial)
        return worst

    def allows_command(self, spec: Spec, args: Sequence[bytes]) -> bool:
        """Whether a command is allowed on some keys and channels."""
        return any(selector.allows_command(spec, args) for selector in self.selectors)

    def allows_channel(self, channel: bytes, is_pattern: bool) -> bool:
        return any(selector.allows_channel(channel, is_pattern) for selector in self.selectors)

    def has_every_key(self, spec: Spec, args: Sequence[bytes], access: int) -> bool:
        """Whether a selector that allows the command allows this access to every key as well
        (ACLUserCheckCmdWithUnrestrictedKeyAccess)."""
        cache = KeyCache(spec, args)
        return any(
            selector.check(spec, args, cache) is None and selector.allows_every_key(access)
            for selector in self.selectors
        )


class OffendingRule(RuleError):
    """Which of several rules can't be used, and why."""

    def __init__(self, rule: bytes, reason: RuleError) -> None:
        super().__init__(str(reason))
        self.rule = rule


def _hash_in(rule: bytes) -> bytes:
    """The hash of `>password`, `<password`, `#hash` or `!hash`. Raises RuleError."""
    if rule[:1] in (b">", b"<"):
        return hash_password(rule[1:])
    if not _HASH.fullmatch(rule[1:]):
        raise RuleError(
            "The password hash must be exactly 64 characters and contain only lowercase "
            "hexadecimal characters"
        )
    return rule[1:]


# -- users from rules --------------------------------------------------------------------------


def default_user() -> User:
    """The user that every connection begins as, which may do everything."""
    user = User(DEFAULT, True)
    user.apply_all([b"+@all", b"~*", b"on", b"nopass"])
    return user


def valid_name(name: bytes) -> bool:
    """Whether a user may have it."""
    return _SPACES.isdisjoint(name)


def merge_selectors(rules: Sequence[bytes]) -> list[bytes]:
    """Rules in which each selector is one, though it may be spread over several words. Raises
    RuleError: a parenthesis isn't closed."""
    merged: list[bytes] = []
    opened: list[bytes] = []
    for rule in rules:
        if not opened and not (rule[:1] == b"(" and rule[-1:] != b")"):
            merged.append(rule)
            continue
        opened.append(rule)
        if rule[-1:] == b")":
            merged.append(b" ".join(opened))
            opened = []
    if opened:
        raise UnmatchedParenthesis(opened[0])
    return merged


class UnmatchedParenthesis(RuleError):
    """A selector has no end."""

    def __init__(self, start: bytes) -> None:
        shown = start.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        super().__init__(f"Unmatched parenthesis in acl selector starting at '{shown}'.")
