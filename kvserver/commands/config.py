"""CONFIG: the directives at run time, and the counters of INFO set back to zero.

What the directives are, and what a change does, is not known here (kvserver/config.py). Source:
Redis 7.4's config.c, configGetCommand and configSetCommand.
"""

from __future__ import annotations

from kvserver import config_file, errors, resp
from kvserver.commands.help import help_reply
from kvserver.registry import ADMIN, LOADING, NOSCRIPT, STALE, command, container
from kvserver.state.context import ReadContext

_ADMIN_FLAGS = ADMIN | NOSCRIPT | LOADING | STALE

container(
    "config",
    group="server",
    since="2.0.0",
    summary="A container for server configuration commands.",
)


@command(
    "config|get",
    -3,
    _ADMIN_FLAGS,
    group="server",
    since="2.0.0",
    summary="Returns the effective values of configuration parameters.",
    complexity="O(N) when N is the number of configuration parameters provided",
    history=[("7.0.0", "Added the ability to pass multiple pattern parameters in one call")],
)
def config_get(ctx: ReadContext, *patterns: bytes) -> dict[str, str]:
    return ctx.server.config.get_matching([_text(pattern) for pattern in patterns])


@command(
    "config|set",
    -4,
    _ADMIN_FLAGS,
    group="server",
    since="2.0.0",
    summary="Sets configuration parameters in-flight.",
    complexity="O(N) when N is the number of configuration parameters provided",
    history=[("7.0.0", "Added the ability to set multiple parameters in one call.")],
    tips=["request_policy:all_nodes", "response_policy:all_succeeded"],
)
def config_set(ctx: ReadContext, *words: bytes) -> resp.Simple:
    if len(words) % 2:
        raise errors.syntax()
    names = [_text(name) for name in words[::2]]
    texts = [_text(text) for text in words[1::2]]
    ctx.server.config.set_many(list(zip(names, texts, strict=True)))
    return resp.OK


@command(
    "config|resetstat",
    2,
    _ADMIN_FLAGS,
    group="server",
    since="2.0.0",
    summary="Resets the server's statistics.",
    tips=["request_policy:all_nodes", "response_policy:all_succeeded"],
)
def config_resetstat(ctx: ReadContext) -> resp.Simple:
    server = ctx.server
    server.stats.reset()
    server.replication.reset_counters()
    for entry in server.table.all():
        entry.reset()
    server.keyspace.reset_counters()
    return resp.OK


@command(
    "config|rewrite",
    2,
    _ADMIN_FLAGS,
    group="server",
    since="2.8.0",
    summary="Persists the effective configuration to file.",
    tips=["request_policy:all_nodes", "response_policy:all_succeeded"],
)
def config_rewrite(ctx: ReadContext) -> resp.Simple:
    ctx.server.config.assign("user", ctx.server.acl.lines())
    config_file.rewrite(ctx.server.config)
    return resp.OK


@command(
    "config|help",
    2,
    LOADING | STALE,
    group="server",
    since="5.0.0",
    summary="Returns helpful text about the different subcommands.",
)
def config_help(ctx: ReadContext) -> list[resp.Simple]:
    return help_reply(
        "config",
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
    )


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")
