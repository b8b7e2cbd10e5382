"""A Lua 5.1 state that is closed to everything but what Redis shows its scripts.

It must not know sessions, commands or sockets: what a script asks of the server is behind `Host`.
What scripts see is built by the files in kvserver/scripting/lua.

Invariants:
- No object of Python's reaches a script. Only strings and numbers cross, both ways, and what Lua
  calls here doesn't raise: an exception would arrive as an object.
- Nothing large is handed to Lua without room for it: Lua reports a lack of memory by a long jump,
  and across Python's frames that would be the end of the process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol

from lupa.lua51 import LuaError, LuaRuntime  # type: ignore[import-untyped]

from kvserver.resp import encode
from kvserver.scripting import libraries
from kvserver.scripting.bytecode import without_tail_calls

logger = logging.getLogger("kvserver")

#: What all scripts of one state may hold at a time.
MAX_MEMORY: Final = 1 << 30
#: Room that is always left when something is handed to Lua.
_ROOM: Final = 1 << 20
#: Above this much a script ends with a full collection: Lua 5.1 has none when memory is short.
_COLLECT_ABOVE: Final = 64 << 20

_FILES: Final = ("sandbox.lua", "redis.lua", "cjson.lua", "libraries.lua", "functions.lua")
NO_MEMORY: Final = b"ERR not enough memory"

# How a command's reply is handed to Lua.
AS_IS: Final = 0
AS_RESP: Final = 1
AS_ERROR: Final = 2
AS_STATUS: Final = 3

Callback = Callable[..., Any]


class Host(Protocol):
    """What scripts ask of the server."""

    def call(self, words: Sequence[bytes | int | float]) -> tuple[Any, ...]:
        """Run a command: (AS_IS, number or string or nil), (AS_RESP, its reply's bytes),
        (AS_STATUS, text), (AS_ERROR, text, whether it is counted already)."""

    def acl_check(self, words: Sequence[bytes | int | float]) -> bool | None:
        """Whether the user may run a command; None if there is no such command."""

    def setresp(self, resp3: bool) -> None:
        """The protocol of what commands reply from now on."""

    def log(self, level: int, text: bytes) -> None:
        """redis.log."""

    def tick(self) -> bytes | None:
        """Called every now and then while a script runs; the error that it must end with."""


class Outcome(NamedTuple):
    """How a script ended: with a reply in both protocols, or with an error."""

    resp2: bytes = b""
    resp3: bytes = b""
    error: bytes = b""
    #: Where the error arose: the chunk's name and the line, if that is known.
    source: bytes | None = None
    line: int = -1
    #: The error is a command's, which was counted where it arose.
    counted: bool = False


class Registered(NamedTuple):
    """A function as its library registered it."""

    name: bytes
    callback: Any
    #: The names of its flags.
    flags: list[bytes]
    description: bytes | None


class Sandbox:
    """One Lua state."""

    def __init__(self, host: Host, version: bytes, version_num: int) -> None:
        self._host = host
        self._lua: Any = LuaRuntime(
            encoding=None,
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_no_attributes,
            max_memory=MAX_MEMORY,
        )
        kept: Any = self._lua.table()
        kept[b"host"] = self._host_table()
        kept[b"version"], kept[b"version_num"] = version, version_num
        self._kept = kept
        for name in _FILES:
            self._load(name)
        self._lua.execute(b"python, debug, io, os, package, require, module = nil")
        self._compile, self._execute = kept[b"compile"], kept[b"execute"]
        self._collect = kept[b"collect"]

    def _load(self, name: str) -> None:
        """Run one of the files that make the sandbox."""
        text = (resources.files("kvserver.scripting") / "lua" / name).read_bytes()
        self._lua.compile(text, name=b"=kvserver")(self._kept)

    def _host_table(self) -> Any:
        host = self._host
        bit = self._lua.table()
        for name, operation in libraries.BIT.items():
            bit[name] = _Safe(operation, 0)
        table = self._lua.table()
        callbacks: dict[bytes, tuple[Callback, Any]] = {
            b"call": (self._call, (AS_ERROR, NO_MEMORY, False)),
            b"acl_check": (self._acl_check, None),
            b"setresp": (host.setresp, None),
            b"log": (self._log, None),
            b"tick": (host.tick, None),
            b"untail": (self._untail, None),
            b"sha1hex": (libraries.sha1hex, b""),
            b"double": (libraries.double_text, b"0"),
            b"tohex": (libraries.tohex, b""),
            b"pack_int64": (libraries.pack_int64, b""),
            b"unpack_int64": (libraries.unpack_int64, 0),
            b"pack_double": (libraries.pack_double, b""),
            b"unpack_double": (libraries.unpack_double, 0),
            b"struct_pack": (self._struct_pack, (NO_MEMORY, b"")),
            b"struct_unpack": (self._struct_unpack, (NO_MEMORY,)),
            b"struct_size": (libraries.struct_size, (NO_MEMORY, 0)),
        }
        for name, (callback, otherwise) in callbacks.items():
            table[name] = _Safe(callback, otherwise)
        table[b"bit"] = bit
        return table

    # -- what Lua calls ------------------------------------------------------------------------

    def _has_room(self, size: int) -> bool:
        used: int = self._lua.get_memory_used()
        return used + size + _ROOM < MAX_MEMORY

    def _call(self, *words: bytes | int | float) -> tuple[Any, ...]:
        result = self._host.call(words)
        value = result[1]
        if isinstance(value, bytes) and not self._has_room(len(value)):
            return AS_ERROR, NO_MEMORY, False
        return result

    def _acl_check(self, *words: bytes | int | float) -> bool | None:
        return self._host.acl_check(words)

    def _log(self, level: float, text: bytes) -> None:
        self._host.log(int(level), text)

    def _untail(self, dumped: bytes) -> bytes:
        return without_tail_calls(dumped) if self._has_room(len(dumped)) else dumped

    def _struct_pack(self, *words: Any) -> tuple[Any, ...]:
        result: tuple[Any, ...] = libraries.struct_pack(*words)
        return result if self._has_room(len(result[1])) else (NO_MEMORY, b"")

    def _struct_unpack(self, *words: Any) -> tuple[Any, ...]:
        size = sum(len(word) for word in words if isinstance(word, bytes))
        return libraries.struct_unpack(*words) if self._has_room(2 * size) else (NO_MEMORY,)

    # -- what the server calls -----------------------------------------------------------------

    @property
    def memory(self) -> int:
        """Bytes that the state holds, without its libraries."""
        return int(self._lua.get_memory_used())

    def close(self) -> None:
        """Let go of the state, which is freed when nobody holds a function of it any more. Lua and
        this object hold each other, and the collector of cycles comes seldom."""
        self._lua = self._kept = self._compile = self._execute = self._collect = None

    def compile(self, body: bytes, name: bytes) -> Any:
        """A function made of a text; raises ValueError with Lua's message."""
        if not self._has_room(8 * len(body)):
            raise ValueError("not enough memory")
        try:
            found = self._compile(body, name)
        except LuaError as error:
            raise ValueError(str(error)) from None
        if isinstance(found, tuple):
            raise ValueError(found[1].decode("utf-8", "surrogateescape"))
        return found

    def run(
        self, function: Any, keys: Sequence[bytes], args: Sequence[bytes], *, as_globals: bool
    ) -> Outcome:
        """Call a function, with keys and arguments as its arguments or as KEYS and ARGV."""
        first, second = encode(list(keys), False), encode(list(args), False)
        try:
            if not self._has_room(3 * (len(first) + len(second))):
                return Outcome(error=NO_MEMORY)
            return _outcome(self._execute(function, first, second, as_globals))
        except LuaError:
            return Outcome(error=NO_MEMORY)
        finally:
            if self.memory > _COLLECT_ABOVE:
                self._collect()

    def load_library(self, chunk: Any) -> list[Registered]:
        """Run a library's chunk; raises ValueError with the error's text."""
        try:
            found, about = self._kept[b"load_library"](chunk)
        except LuaError:
            raise ValueError("ERR not enough memory") from None
        if found is None:
            raise ValueError(about.decode("utf-8", "surrogateescape"))
        return [_registered(found[index]) for index in range(1, about + 1)]


def _outcome(found: tuple[Any, ...]) -> Outcome:
    if found[0]:
        return Outcome(found[1], found[2] or found[1])
    _, message, source, line, counted = found
    return Outcome(error=message, source=source, line=line or -1, counted=bool(counted))


def _registered(entry: Any) -> Registered:
    flags = entry[b"flags"]
    return Registered(
        entry[b"name"],
        entry[b"callback"],
        flags.split(b",") if flags else [],
        entry[b"description"] or None,
    )


class _Safe:
    """A callback that doesn't raise: what Lua gets then is `otherwise`."""

    __slots__ = ("_callback", "_otherwise")

    def __init__(self, callback: Callback, otherwise: Any) -> None:
        self._callback = callback
        self._otherwise = otherwise

    def __call__(self, *args: Any) -> Any:
        try:
            return self._callback(*args)
        except Exception:
            logger.exception("a callback of a script failed")
            return self._otherwise


def _no_attributes(_object: object, _name: object, _setting: bool) -> None:
    raise AttributeError("access denied")
