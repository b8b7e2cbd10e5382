"""Up to where Redis would use its small encodings, as the configuration has it now.

It must not know commands. Every command that adds an element looks at one of these, so they are
made when a directive changes and not when a command runs.
"""

from __future__ import annotations

from kvserver.config import Config
from kvserver.types import hashes, sets, streams, zsets

_DIRECTIVES = (
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "list-max-listpack-size",
    "set-max-intset-entries",
    "set-max-listpack-entries",
    "set-max-listpack-value",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
)


class Encodings:
    """The limits of each type."""

    def __init__(self, config: Config) -> None:
        self._config = config
        config.on_change(_DIRECTIVES, self._read)
        self._read()

    def _read(self) -> None:
        number = self._config.get_int
        self.hashes = hashes.Limits(
            number("hash-max-listpack-entries"), number("hash-max-listpack-value")
        )
        #: list-max-listpack-size: so many elements, or from -1 to -5 for so many bytes.
        self.list_node = number("list-max-listpack-size")
        self.sets = sets.Limits(
            number("set-max-intset-entries"),
            number("set-max-listpack-entries"),
            number("set-max-listpack-value"),
        )
        self.streams = streams.Limits(
            number("stream-node-max-bytes"), number("stream-node-max-entries")
        )
        self.zsets = zsets.Limits(
            number("zset-max-listpack-entries"), number("zset-max-listpack-value")
        )
