"""ACL: who the users are, what they may do, and what was denied.

The rules are kvserver/acl's, the users state/acl.py's. Source: Redis 7.4's acl.c, aclCommand.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final

from kvserver import errors, resp
from kvserver.acl.selector import RuleError, Selector, commands_in, find_category
from kvserver.acl.user import OffendingRule, valid_name
from kvserver.args import parse_int
from kvserver.commands.help import help_reply
from kvserver.errors import RedisError
from kvserver.registry import ADMIN, CATEGORIES, LOADING, NOSCRIPT, STALE, command, container
from kvserver.resp import Members, Simple
from kvserver.state.acl import sentence
from kvserver.state.context import ReadContext

logger = logging.getLogger("kvserver")

_INSPECT: Final = NOSCRIPT | LOADING | STALE
_ADMIN: Final = ADMIN | _INSPECT
_OF_USERS: Final = "O(N). Where N is the number of configured users."
_EVERYWHERE: Final = ("request_policy:all_nodes", "response_policy:all_succeeded")
_DEFAULT_BITS: Final = 256
_MAX_BITS: Final = 4096
_DEFAULT_ENTRIES: Final = 10

container(
    "acl",
    group="server",
    since="6.0.0",
    summary="A container for Access List Control commands.",
)


# -- users -------------------------------------------------------------------------------------


@command(
    "acl|setuser",
    -3,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Creates and modifies an ACL user and its rules.",
    complexity="O(N). Where N is the number of rules provided.",
    tips=_EVERYWHERE,
    history=(
        ("6.2.0", "Added Pub/Sub channel patterns."),
        ("7.0.0", "Added selectors and key based permissions."),
    ),
)
def acl_setuser(ctx: ReadContext, name: bytes, *rules: bytes) -> Simple:
    if not valid_name(name):
        raise errors.error("Usernames can't contain spaces or null characters")
    try:
        ctx.server.acl.set_user(_text(name), rules, ctx.session)
    except OffendingRule as error:
        rule = _text(error.rule.partition(b"\0")[0])
        raise errors.error(f"Error in ACL SETUSER modifier '{rule}': {error}") from None
    except RuleError as error:
        raise errors.error(str(error)) from None
    return resp.OK


@command(
    "acl|deluser",
    -3,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Deletes ACL users, and terminates their connections.",
    complexity="O(1) amortized time considering the typical user.",
    tips=_EVERYWHERE,
)
def acl_deluser(ctx: ReadContext, *names: bytes) -> int:
    if b"default" in names:
        raise errors.error("The 'default' user cannot be removed")
    return ctx.server.acl.delete([_text(name) for name in names], ctx.session)


@command(
    "acl|getuser",
    3,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Lists the ACL rules of a user.",
    complexity="O(N). Where N is the number of password, command and pattern rules that the user "
    "has.",
    history=(
        ("6.2.0", "Added Pub/Sub channel patterns."),
        (
            "7.0.0",
            "Added selectors and changed the format of key and channel patterns from a list to "
            "their rule representation.",
        ),
    ),
)
def acl_getuser(ctx: ReadContext, name: bytes) -> dict[str, Any] | None:
    user = ctx.server.acl.users.get(_text(name))
    if user is None:
        return None
    return {
        "flags": Members(user.flags()),
        "passwords": list(user.passwords),
        **_selector(user.root),
        "selectors": [_selector(selector) for selector in user.selectors[1:]],
    }


def _selector(selector: Selector) -> dict[str, Any]:
    return {
        "commands": selector.describe_commands(),
        "keys": selector.describe_keys(),
        "channels": selector.describe_channels(),
    }


@command(
    "acl|list",
    2,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Dumps the effective rules in ACL file format.",
    complexity=_OF_USERS,
)
def acl_list(ctx: ReadContext) -> list[bytes]:
    return [user.line() for user in ctx.server.acl.in_order()]


@command(
    "acl|users",
    2,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Lists all ACL users.",
    complexity=_OF_USERS,
)
def acl_users(ctx: ReadContext) -> list[str]:
    return [user.name for user in ctx.server.acl.in_order()]


@command(
    "acl|whoami",
    2,
    _INSPECT,
    group="server",
    since="6.0.0",
    summary="Returns the authenticated username of the current connection.",
)
def acl_whoami(ctx: ReadContext) -> str:
    return ctx.session.user


# -- the file ----------------------------------------------------------------------------------


@command(
    "acl|load",
    2,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Reloads the rules from the configured ACL file.",
    complexity=_OF_USERS,
)
def acl_load(ctx: ReadContext) -> Simple:
    _needs_file(ctx)
    try:
        ctx.server.acl.load(ctx.session)
    except RuleError as error:
        raise errors.error(str(error)) from None
    return resp.OK


@command(
    "acl|save",
    2,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Saves the effective ACL rules in the configured ACL file.",
    complexity=_OF_USERS,
    tips=_EVERYWHERE,
)
def acl_save(ctx: ReadContext) -> Simple:
    _needs_file(ctx)
    try:
        ctx.server.acl.save()
    except OSError as error:
        logger.warning("Writing ACL file for ACL SAVE: %s", error.strerror)
        raise errors.error(
            "There was an error trying to save the ACLs. Please check the server logs for more "
            "information"
        ) from None
    return resp.OK


def _needs_file(ctx: ReadContext) -> None:
    if not ctx.server.config.get_str("aclfile"):
        raise errors.error(
            "This Redis instance is not configured to use an ACL file. You may want to specify "
            "users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have "
            "a Redis configuration file set) in order to store users in the Redis configuration."
        )


# -- what is allowed, what was denied ----------------------------------------------------------


@command(
    "acl|cat",
    -2,
    _INSPECT,
    group="server",
    since="6.0.0",
    summary="Lists the ACL categories, or the commands inside a category.",
    complexity="O(1) since the categories and commands are a fixed set.",
)
def acl_cat(_ctx: ReadContext, *name: bytes) -> list[str]:
    if len(name) > 1:
        raise errors.subcommand_syntax(b"ACL", b"CAT")
    if not name:
        return list(CATEGORIES)
    category = find_category(name[0])
    if category is None:
        raise errors.unknown_category(name[0])
    return commands_in(category)


@command(
    "acl|dryrun",
    -4,
    _ADMIN,
    group="server",
    since="7.0.0",
    summary="Simulates the execution of a command by a user, without executing the command.",
    complexity="O(1).",
)
def acl_dryrun(ctx: ReadContext, name: bytes, *words: bytes) -> Simple | str:
    user = ctx.server.acl.users.get(_text(name))
    if user is None:
        raise errors.error(f"User '{_text(name)}' not found")
    try:
        entry = ctx.server.table.find(list(words))
    except RedisError:
        raise errors.error(f"Command '{_text(words[0])}' not found") from None
    if len(words) != entry.arity and (entry.arity >= 0 or len(words) < -entry.arity):
        raise errors.wrong_arity(entry.name)
    denied = ctx.server.acl.denied(user, entry, words)
    return resp.OK if denied is None else sentence(user.name, denied)


@command(
    "acl|log",
    -2,
    _ADMIN,
    group="server",
    since="6.0.0",
    summary="Lists recent security events generated due to ACL rules.",
    complexity="O(N) with N being the number of entries shown.",
    history=(("7.2.0", "Added entry ID, timestamp created, and timestamp last updated."),),
)
def acl_log(ctx: ReadContext, *what: bytes) -> Any:
    if len(what) > 1:
        raise errors.subcommand_syntax(b"ACL", b"LOG")
    if what and what[0].upper() == b"RESET":
        ctx.server.acl.log.reset()
        return resp.OK
    return ctx.server.acl.log.latest(parse_int(what[0]) if what else _DEFAULT_ENTRIES)


@command(
    "acl|genpass",
    -2,
    _INSPECT,
    group="server",
    since="6.0.0",
    summary="Generates a pseudorandom, secure password that can be used to identify ACL users.",
)
def acl_genpass(_ctx: ReadContext, *size: bytes) -> str:
    if len(size) > 1:
        raise errors.subcommand_syntax(b"ACL", b"GENPASS")
    bits = parse_int(size[0]) if size else _DEFAULT_BITS
    if not 0 < bits <= _MAX_BITS:
        raise errors.error(
            "ACL GENPASS argument must be the number of bits for the output password, a positive "
            f"number up to {_MAX_BITS}"
        )
    digits = (bits + 3) // 4
    return secrets.token_hex((digits + 1) // 2)[:digits]


@command(
    "acl|help",
    2,
    LOADING | STALE,
    group="server",
    since="6.0.0",
    summary="Returns helpful text about the different subcommands.",
)
def acl_help(_ctx: ReadContext) -> list[Simple]:
    return help_reply(
        "acl",
        "CAT [<category>]",
        "    List all commands that belong to <category>, or all command categories",
        "    when no category is specified.",
        "DELUSER <username> [<username> ...]",
        "    Delete a list of users.",
        "DRYRUN <username> <command> [<arg> ...]",
        "    Returns whether the user can execute the given command without executing the command.",
        "GETUSER <username>",
        "    Get the user's details.",
        "GENPASS [<bits>]",
        "    Generate a secure 256-bit user password. The optional `bits` argument can",
        "    be used to specify a different size.",
        "LIST",
        "    Show users details in config file format.",
        "LOAD",
        "    Reload users from the ACL file.",
        "LOG [<count> | RESET]",
        "    Show the ACL log entries.",
        "SAVE",
        "    Save the current config to the ACL file.",
        "SETUSER <username> <attribute> [<attribute> ...]",
        "    Create or modify a user with the specified attributes.",
        "USERS",
        "    List all the registered usernames.",
        "WHOAMI",
        "    Return the current connection username.",
    )


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")
