"""CLIENT TRACKING and its relatives: a client asks to be told when keys that it read change.

What it is told, and when, is in kvserver/state/tracking.py. Source: Redis 7.4's networking.c
(clientCommand) and tracking.c (checkPrefixCollisionsOrReply).
"""

from __future__ import annotations

from kvserver import errors, resp
from kvserver.args import Cursor, parse_int
from kvserver.commands.client import CATEGORIES, FLAGS
from kvserver.registry import command
from kvserver.state import clientinfo
from kvserver.state.context import ReadContext
from kvserver.state.tracking import ClientTracking

_SWITCH = (
    "before disabling tracking for this client, and then re-enabling it with a different mode."
)


@command(
    "client|tracking",
    -3,
    FLAGS,
    group="connection",
    since="6.0.0",
    summary="Controls server-assisted client-side caching for the connection.",
    complexity="O(1). Some options may introduce additional complexity.",
    categories=CATEGORIES,
)
def client_tracking(ctx: ReadContext, status: bytes, *options: bytes) -> resp.Simple:
    mode, prefixes = _parse_options(ctx, options)
    word = status.upper()
    if word == b"ON":
        before = ctx.session.tracking
        if prefixes and not mode.bcast:
            raise errors.error("PREFIX option requires BCAST mode to be enabled")
        _check_mode(mode, before)
        if mode.bcast:
            _check_prefixes(prefixes, sorted(before.prefixes) if before else [])
            mode.prefixes = dict.fromkeys(prefixes or [b""])
        ctx.server.tracking.enable(ctx.session, mode)
    elif word == b"OFF":
        ctx.server.tracking.disable(ctx.session)
    else:
        raise errors.syntax()
    return resp.OK


def _parse_options(
    ctx: ReadContext, words: tuple[bytes, ...]
) -> tuple[ClientTracking, list[bytes]]:
    """The mode, and the prefixes as they were given."""
    mode = ClientTracking()
    prefixes = []
    options = Cursor(words)
    while options.more():
        if (number := options.value(b"REDIRECT")) is not None:
            if mode.redirect:
                raise errors.error("A client can only redirect to a single other client")
            mode.redirect = parse_int(number)
            target = ctx.server.sessions.get(mode.redirect)
            if target is None or target.namespace != ctx.session.namespace:
                raise errors.error("The client ID you want redirect to does not exist")
        elif (prefix := options.value(b"PREFIX")) is not None:
            prefixes.append(prefix)
        elif options.flag(b"BCAST"):
            mode.bcast = True
        elif options.flag(b"OPTIN"):
            mode.optin = True
        elif options.flag(b"OPTOUT"):
            mode.optout = True
        elif options.flag(b"NOLOOP"):
            mode.noloop = True
        else:
            raise errors.syntax()
    return mode, prefixes


def _check_mode(mode: ClientTracking, before: ClientTracking | None) -> None:
    """The options must fit each other, and the mode that is on."""
    if before and mode.bcast != before.bcast:
        raise errors.error(f"You can't switch BCAST mode on/off {_SWITCH}")
    if mode.bcast and (mode.optin or mode.optout):
        raise errors.error("OPTIN and OPTOUT are not compatible with BCAST")
    if mode.optin and mode.optout:
        raise errors.error("You can't specify both OPTIN mode and OPTOUT mode")
    if before and ((mode.optin and before.optout) or (mode.optout and before.optin)):
        raise errors.error(f"You can't switch OPTIN/OPTOUT mode {_SWITCH}")


def _check_prefixes(prefixes: list[bytes], existing: list[bytes]) -> None:
    """No key may begin with two of a client's prefixes."""
    for index, prefix in enumerate(prefixes):
        for other in existing:
            if _overlap(prefix, other):
                raise errors.prefix_overlaps(prefix, "an existing", other)
        for other in prefixes[index + 1 :]:
            if _overlap(prefix, other):
                raise errors.prefix_overlaps(prefix, "another provided", other)


def _overlap(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


@command(
    "client|caching",
    3,
    FLAGS,
    group="connection",
    since="6.0.0",
    summary="Instructs the server whether to track the keys in the next request.",
    categories=CATEGORIES,
)
def client_caching(ctx: ReadContext, word: bytes) -> resp.Simple:
    mode = ctx.session.tracking
    if mode is None:
        raise errors.error(
            "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or "
            "OPTOUT mode enabled"
        )
    option = word.upper()
    if option not in (b"YES", b"NO"):
        raise errors.syntax()
    if option == b"YES" and not mode.optin:
        raise errors.error(
            "CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."
        )
    if option == b"NO" and not mode.optout:
        raise errors.error(
            "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."
        )
    mode.caching = True
    return resp.OK


@command(
    "client|getredir",
    2,
    FLAGS,
    group="connection",
    since="6.0.0",
    summary="Returns the client ID to which the connection's tracking notifications are "
    "redirected.",
    categories=CATEGORIES,
)
def client_getredir(ctx: ReadContext) -> int:
    return clientinfo.redirection(ctx.session)


@command(
    "client|trackinginfo",
    2,
    FLAGS,
    group="connection",
    since="6.2.0",
    summary="Returns information about server-assisted client-side caching for the connection.",
    categories=CATEGORIES,
)
def client_trackinginfo(ctx: ReadContext) -> dict[str, object]:
    mode = ctx.session.tracking
    flags = ["off"] if mode is None else ["on", *_flags(mode)]
    return {
        "flags": resp.Members(flags),
        "redirect": clientinfo.redirection(ctx.session),
        "prefixes": sorted(mode.prefixes) if mode is not None else [],
    }


def _flags(mode: ClientTracking) -> list[str]:
    flags = {
        "bcast": mode.bcast,
        "optin": mode.optin,
        "caching-yes": mode.optin and mode.caching,
        "optout": mode.optout,
        "caching-no": mode.optout and mode.caching,
        "noloop": mode.noloop,
        "broken_redirect": mode.broken,
    }
    return [name for name, is_set in flags.items() if is_set]
