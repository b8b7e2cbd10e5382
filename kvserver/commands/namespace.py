"""NAMESPACE: adds, changes, deletes and lists key spaces that have their own token for AUTH.

After Apache Kvrocks (src/commands/cmd_server.cc, CommandNamespace, and src/server/namespace.cc):
replies, checks and their order. What a namespace is, is in state/namespaces.py.
"""

from __future__ import annotations

import hmac
from typing import Final

from kvserver import errors, resp
from kvserver.commands.help import help_reply
from kvserver.config import wire
from kvserver.registry import ADMIN, FAST, LOADING, NOSCRIPT, STALE, WRITE, command, container
from kvserver.state.context import Context, ReadContext, WriteContext
from kvserver.state.namespaces import DEFAULT_NAMESPACE, MAX_NAME, legal_name

_CHANGES: Final = WRITE | ADMIN | NOSCRIPT
#: Names that mean the key space of those who are in no namespace.
_DEFAULTS: Final = (DEFAULT_NAMESPACE, b"default")

container(
    "namespace",
    group="server",
    since="0.1.0",
    summary="A container for namespace commands.",
)


@command(
    "namespace|add",
    4,
    _CHANGES,
    group="server",
    since="0.1.0",
    summary="Creates a namespace.",
    complexity="O(N) where N is the number of namespaces",
)
def namespace_add(ctx: WriteContext, name: bytes, token: bytes) -> resp.Simple:
    known = ctx.server.namespaces.get(name)
    if known is not None:
        if hmac.compare_digest(known.token, token):
            return resp.OK
        raise errors.error("the namespace already exists")
    if ctx.server.namespaces.of_token(token) is not None:
        raise errors.error("the token already exists")
    return _put(ctx, name, token)


@command(
    "namespace|set",
    4,
    _CHANGES,
    group="server",
    since="0.1.0",
    summary="Changes the token of a namespace, or creates one.",
    complexity="O(N) where N is the number of namespaces",
)
def namespace_set(ctx: WriteContext, name: bytes, token: bytes) -> resp.Simple:
    return _put(ctx, name, token)


def _put(ctx: WriteContext, name: bytes, token: bytes) -> resp.Simple:
    _check(ctx, name, token)
    owner = ctx.server.namespaces.of_token(token)
    if owner is not None:
        if owner.name == name:
            return resp.OK
        raise errors.error("the token already exists")
    if not ctx.server.namespaces.put(name, token):
        raise errors.error("there are too many namespaces")
    return resp.OK


def _check(ctx: Context, name: bytes, token: bytes) -> None:
    """Whether a namespace may have this name and this token."""
    if len(name) > MAX_NAME:
        raise errors.error(f"size exceed limit {MAX_NAME}")
    if not legal_name(name):
        raise errors.error("namespace contain illegal letter")
    if ctx.server.acl.is_open:
        raise errors.error("forbidden to add namespace when requirepass was empty")
    if name in _DEFAULTS:
        raise errors.error("forbidden to add the default namespace")
    taken = [wire(ctx.server.config.get_str(name)) for name in ("requirepass", "masterauth")]
    if not token or token in taken or ctx.server.acl.default.takes_password(token):
        raise errors.error("the token is duplicated with requirepass or masterauth")


@command(
    "namespace|del",
    3,
    _CHANGES,
    group="server",
    since="0.1.0",
    summary="Deletes a namespace, without its keys.",
    complexity="O(N) where N is the number of namespaces and connections",
)
def namespace_del(ctx: WriteContext, name: bytes) -> resp.Simple:
    if name in _DEFAULTS:
        raise errors.error("forbidden to delete the default namespace")
    if not ctx.server.namespaces.delete(name):
        raise errors.error("the namespace was not found")
    return resp.OK


@command(
    "namespace|get",
    3,
    ADMIN | NOSCRIPT | LOADING | STALE,
    group="server",
    since="0.1.0",
    summary="Returns the token of a namespace, or all namespaces and their tokens.",
    complexity="O(N) where N is the number of namespaces",
)
def namespace_get(ctx: ReadContext, name: bytes) -> bytes | list[bytes] | None:
    if name != b"*":
        found = ctx.server.namespaces.get(name)
        return None if found is None else found.token
    words: list[bytes] = []
    for each in ctx.server.namespaces.all():
        words += (each.name, each.token)
    return [*words, DEFAULT_NAMESPACE, wire(ctx.server.config.get_str("requirepass"))]


@command(
    "namespace|current",
    2,
    NOSCRIPT | LOADING | STALE | FAST,
    group="server",
    since="0.1.0",
    summary="Returns the name of the connection's namespace.",
)
def namespace_current(ctx: ReadContext) -> bytes:
    session = ctx.session
    return wire(session.user) if session.namespace else DEFAULT_NAMESPACE


@command(
    "namespace|help",
    2,
    LOADING | STALE,
    group="server",
    since="0.1.0",
    summary="Returns helpful text about the different subcommands.",
)
def namespace_help(_ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "namespace",
        "ADD <namespace> <token>",
        "    Create a namespace, which is entered by AUTH <token>.",
        "CURRENT",
        "    Return the name of the connection's namespace.",
        "DEL <namespace>",
        "    Delete a namespace. Its keys are kept, and are there again when it is added again.",
        "GET (<namespace>|*)",
        "    Return the token of a namespace, or all namespaces with their tokens.",
        "SET <namespace> <token>",
        "    Change the token of a namespace, or create it.",
    )
