"""Users from text: the lines `user <name> <rule> ...` of a configuration or of an ACL file.

It must not know files. Nothing is loaded from a text with a mistake in it. Source: Redis 7.4's
acl.c (ACLAppendUserForLoading, ACLLoadConfiguredUsers, ACLLoadFromFile).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvserver.acl.selector import RuleError, UnknownCommand
from kvserver.acl.user import (
    DEFAULT,
    OffendingRule,
    User,
    default_user,
    merge_selectors,
    valid_name,
)

Users = dict[str, User]

_BLANKS: Final = b" \t\r\n"


def configured_user(words: Sequence[bytes], all_channels: bool) -> User:
    """The user of a configuration's line, `words` being what follows `user`. Raises RuleError with
    a sentence that shows no password."""
    if not words:
        raise RuleError("a user needs a name")
    if not valid_name(words[0]):
        raise RuleError("Spaces not allowed in ACL usernames")
    user = User(_text(words[0]), all_channels)
    try:
        user.apply_all(merge_selectors(words[1:]))
    except OffendingRule as error:
        raise RuleError(f"Error in ACL rule '{_without_password(error.rule)}': {error}") from None
    return user


def _without_password(rule: bytes) -> str:
    return rule[:1].decode() + "..." if rule[:1] in (b">", b"<", b"#", b"!") else _text(rule)


def parse_file(text: bytes, path: str, all_channels: bool) -> Users:
    """The users of an ACL file; the default user is among them, whether the file has it or not.
    Raises RuleError with all that is wrong, in one line."""
    users: Users = {}
    mistakes: list[str] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        words = line.strip(_BLANKS).split(b" ")
        if words != [b""]:
            _add_line(users, words, f"{path}:{number}", number, all_channels, mistakes)
    if mistakes:
        raise RuleError(
            "".join(mistakes)
            + "WARNING: ACL errors detected, no change to the previously active ACL rules was "
            "performed"
        )
    users.setdefault(DEFAULT, default_user())
    return users


def _add_line(
    users: Users,
    words: list[bytes],
    where: str,
    number: int,
    all_channels: bool,
    mistakes: list[str],
) -> None:
    if words[0] != b"user" or len(words) < 2:
        mistakes.append(f"{where} should start with user keyword followed by the username. ")
        return
    name = _text(words[1])
    if not valid_name(words[1]):
        mistakes.append(f"'{where}: username '{name}' contains invalid characters. ")
        return
    if name in users:
        mistakes.append(f"WARNING: Duplicate user '{name}' found on line {number}. ")
        return
    user = users[name] = User(name, all_channels)
    try:
        rules = merge_selectors(words[2:])
    except RuleError:
        mistakes.append(f"{where}: Unmatched parenthesis in selector definition.")
        return
    mistakes += _mistakes_in(user, [rule.strip(b"\t\r\n") for rule in rules], where)


def _mistakes_in(user: User, rules: list[bytes], where: str) -> list[str]:
    """Apply rules; all unknown commands, and the first mistake of another sort."""
    mistakes: list[str] = []
    first = True
    for rule in rules:
        try:
            user.apply(rule)
        except UnknownCommand as error:
            mistakes.append(f"{where}: Error in applying operation '{_text(rule)}': {error}. ")
        except RuleError as error:
            if first:
                mistakes.append(f"{where}: {error}. ")
            first = False
    return mistakes


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")
