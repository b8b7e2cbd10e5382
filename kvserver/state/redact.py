"""What MONITOR and SLOWLOG may show of a command: its arguments without passwords.

It must not know who shows them. Source: Redis 7.4's redactClientCommandArgument and its callers
(acl.c, networking.c, config.c).
"""

from __future__ import annotations

from typing import Final

from kvserver.config import Config
from kvserver.state.table import Entry

REDACTED: Final = b"(redacted)"


def redacted(config: Config, entry: Entry, args: list[bytes]) -> list[bytes]:
    """The arguments, with all of AUTH's and ACL SETUSER's, the tokens of NAMESPACE, those of AUTH
    in HELLO and MIGRATE, and CONFIG SET's secret values hidden."""
    if entry.name == "auth":
        return [args[0]] + [REDACTED] * (len(args) - 1)
    if entry.name == "hello":
        return _without_credentials(args)
    if entry.name == "acl|setuser":
        return args[:2] + [REDACTED] * (len(args) - 2)
    if entry.name in ("namespace|add", "namespace|set"):
        return args[:3] + [REDACTED] * (len(args) - 3)
    if entry.name == "migrate":
        return _without_migrate_auth(args)
    if entry.name == "config|set":
        return _without_secrets(config, args)
    return args


def _without_credentials(args: list[bytes]) -> list[bytes]:
    shown = list(args)
    at = 2
    while at < len(args):
        option = args[at].upper()
        if option == b"AUTH":
            shown[at + 1 : at + 3] = [REDACTED] * len(args[at + 1 : at + 3])
        # A client may be named AUTH.
        at += {b"AUTH": 3, b"SETNAME": 2}.get(option, 1)
    return shown


def _without_migrate_auth(args: list[bytes]) -> list[bytes]:
    shown = list(args)
    at = 6
    while at < len(args) and args[at].upper() != b"KEYS":
        secrets = {b"AUTH": 1, b"AUTH2": 2}.get(args[at].upper(), 0)
        shown[at + 1 : at + 1 + secrets] = [REDACTED] * len(args[at + 1 : at + 1 + secrets])
        at += 1 + secrets
    return shown


def _without_secrets(config: Config, args: list[bytes]) -> list[bytes]:
    shown = list(args)
    for at in range(2, len(args) - 1, 2):
        if config.is_secret(args[at].decode("utf-8", "surrogateescape")):
            shown[at + 1] = REDACTED
    return shown
