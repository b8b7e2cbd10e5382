"""What a reply of INFO is made from: the server, and the figures that more than one section needs.

A pass over the clients takes about half a millisecond for a thousand of them, so there is one for
each reply that needs it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from kvserver.state import clientinfo
from kvserver.state.context import Blocked
from kvserver.state.session import BLOCKED

if TYPE_CHECKING:
    from kvserver.state.server import Server


class Census(NamedTuple):
    """How many clients do what, and the bytes that they sent and that weren't executed yet
    (input), and that they were sent and didn't take yet (output)."""

    blocked: int
    timed: int
    subscribed: int
    watching: int
    largest_input: int
    largest_output: int
    buffered: int


class View:
    """A server at one moment. `namespace`: whose it is shown to, as `Session.namespace`."""

    def __init__(self, server: Server, namespace: int = 0) -> None:
        self.server = server
        self.namespace = namespace

    @cached_property
    def census(self) -> Census:
        """The clients now."""
        blocked = timed = subscribed = watching = largest_input = largest_output = total = 0
        for session in self.server.sessions.values():
            # Most clients only wait for their next command: look closer at the others alone.
            if session.stop & BLOCKED:
                wait = session.blocked_on
                blocked += clientinfo.is_blocked(session)
                timed += type(wait) is Blocked and wait.timer is not None
            if session.channels or session.patterns or session.shard_channels:
                subscribed += 1
            if session.watching:
                watching += 1
            sink = session.sink
            received, unsent = sink.query_buffered, sink.buffered() + session.held_bytes
            if received or unsent:
                largest_input = max(largest_input, received)
                largest_output = max(largest_output, unsent)
                total += received + unsent
        return Census(blocked, timed, subscribed, watching, largest_input, largest_output, total)
