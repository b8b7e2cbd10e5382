"""What a handler may return beside plain Python values: the kinds of reply that RESP has names for.

It must not know how they are encoded (resp.py does) or who sends them. A module of its own,
because mypyc compiles resp.py and can't compile subclasses of bytes and list.
"""

from __future__ import annotations

from typing import Any, Final


class Simple(bytes):
    """A simple string: `+OK`."""


class Raw(bytes):
    """Bytes that are a reply already."""


class Forms:
    """A reply, or an element of one, that is encoded already for both protocols, in parts, which
    they may share: one of many megabytes is built step by step, and sent as it is."""

    __slots__ = ("resp2", "resp3")

    def __init__(self, resp2: list[bytes], resp3: list[bytes]) -> None:
        self.resp2 = resp2
        self.resp3 = resp3


class Verbatim(bytes):
    """Text for a person: `=` with the format txt under RESP3, bulk under RESP2."""


class Push(list[Any]):
    """An out-of-band message: `>` under RESP3, an array under RESP2."""


class Replies(list[Any]):
    """Several replies to one command, as SUBSCRIBE gives one for each channel."""


class Members(list[Any]):
    """A set with an order, or of values that can't be hashed: `~` under RESP3, an array under
    RESP2."""


class Pairs(list[tuple[Any, Any]]):
    """Pairs, such as members and scores: an array of arrays under RESP3, flat under RESP2."""


class NullArray:
    """The null array, which RESP2 tells from the null bulk string."""


OK: Final = Simple(b"OK")
QUEUED: Final = Simple(b"QUEUED")
PONG: Final = Simple(b"PONG")
NULL_ARRAY: Final = NullArray()
#: A handler's "nothing to send": it replied by itself, or will.
NO_REPLY: Final = Raw(b"")
