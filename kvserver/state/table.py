"""The commands of one server: the registry flattened for dispatch, with names and counters.

It must not know sessions or sockets. `rename-command` changes names here; statistics
(INFO commandstats) live here because they belong to one server, not to the declaration.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvserver import errors, registry
from kvserver.registry import Handler, Spec
from kvserver.state.histogram import Histogram


class Entry:
    """A command as dispatch uses it."""

    __slots__ = (
        "arity",
        "calls",
        "failed",
        "flags",
        "handler",
        "latency",
        "name",
        "nanoseconds",
        "rejected",
        "skip",
        "spec",
        "subcommands",
    )

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.name = spec.name
        self.arity = spec.arity
        self.flags = spec.flags
        #: How many leading arguments are the name.
        self.skip = 2 if "|" in spec.name else 1
        self.handler: Handler = spec.handler or _no_handler
        self.subcommands: dict[bytes, Entry] | None = None
        if spec.subcommands:
            self.subcommands = {n.encode(): Entry(s) for n, s in spec.subcommands.items()}
        self.latency = Histogram()
        self.reset()

    def reset(self) -> None:
        """CONFIG RESETSTAT."""
        self.calls = self.nanoseconds = self.rejected = self.failed = 0
        if self.latency.tracking:
            self.latency.reset()


def _no_handler(*_args: object) -> None:
    raise AssertionError("a container command has no handler")


class CommandTable:
    """Names to entries. `names` also holds the spellings seen, so that the usual look-up
    needs no lower()."""

    def __init__(self) -> None:
        self.entries = {name.encode(): Entry(s) for name, s in registry.COMMANDS.items()}
        self.names: dict[bytes, Entry] = {}
        self._respell()

    def _respell(self) -> None:
        self.names = dict(self.entries)
        self.names.update({name.upper(): entry for name, entry in self.entries.items()})

    def rename(self, old: str, new: str) -> None:
        """rename-command; an empty new name removes it. Raises ValueError for an unknown or
        taken name."""
        source, target = old.lower().encode(), new.lower().encode()
        if source not in self.entries:
            raise ValueError(f"no such command: {old}")
        if target and target in self.entries:
            raise ValueError(f"target command name already exists: {new}")
        entry = self.entries.pop(source)
        if target:
            self.entries[target] = entry
        self._respell()

    def find(self, args: list[bytes]) -> Entry:
        """The entry of an argument vector, a subcommand's where there is one. Raises
        RedisError: unknown command, unknown subcommand."""
        name = args[0]
        entry = self.names.get(name) or self.entries.get(name.lower())
        if entry is None:
            raise errors.unknown_command(name, args[1:])
        if entry.subcommands is None or len(args) == 1:
            return entry
        sub = entry.subcommands.get(args[1].lower())
        if sub is None:
            raise errors.unknown_subcommand(name, args[1])
        return sub

    def all(self) -> Iterator[Entry]:
        """Every entry, subcommands included."""
        for entry in self.entries.values():
            yield entry
            if entry.subcommands:
                yield from entry.subcommands.values()

    def track_latency(self, track: bool) -> None:
        """Begin or end counting how long commands take; both forget what was counted."""
        for entry in self.all():
            if not track:
                entry.latency.ignore()
            elif not entry.latency.tracking:
                entry.latency.reset()
