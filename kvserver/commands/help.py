"""HELP of a container command, as Redis formats it. It must not know any command.

Source: Redis 7.4's networking.c, addReplyHelp.
"""

from __future__ import annotations

from kvserver.resp import Simple


def help_reply(container: str, *lines: str) -> list[Simple]:
    """The reply to `<container> HELP`; `lines` are what stands between its first and last lines.

    A line is a subcommand with its arguments, or, indented by four spaces, what it does.
    """
    head = f"{container.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    text = [head, *lines, "HELP", "    Print this help."]
    return [Simple(line.encode()) for line in text]
