"""Libraries of functions: rows of the log, and what Lua has loaded of them.

It must not know sockets. Source: Redis 7.4's functions.c and function_lua.c. Layout, in the column
family `log`:

    f           what the libraries are now: 16 random bytes, other ones after each change
    f | name    the library's code

Invariants:
- The rows are the libraries. Who uses one looks first whether `f` is what was loaded, so a batch
  that fails, a full sync, a rewind and a primary's change are followed without being told of.
- A library's code was loaded before it becomes a row.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from kvserver import errors
from kvserver.codec import FUNCTIONS_KEY, prefix_end
from kvserver.errors import RedisError
from kvserver.quoting import split_args
from kvserver.scripting.runner import FLAGS, NO_WRITES, Run, Runner
from kvserver.scripting.sandbox import Registered, Sandbox
from kvserver.scripting.scripts import VERSION, VERSION_NUM, answer
from kvserver.state.context import Context
from kvserver.storage.commitlog import CommitLog

logger = logging.getLogger("kvserver")

LOAD_SECONDS: Final = 0.5
_CHUNK: Final = b"@user_function"
_NAME: Final = re.compile(rb"[A-Za-z0-9_]+")
_BAD_NAME: Final = (
    "Library names can only contain letters, numbers, or underscores(_) and must be at least one "
    "character long"
)
#: What CPython and Lua keep of a function beside its text, about.
_OVERHEAD: Final = 200


class Library:
    """A library, as Lua has loaded it."""

    def __init__(self, name: bytes, code: bytes, functions: Iterable[Registered]) -> None:
        self.name = name
        self.code = code
        self.functions = {function.name: function for function in functions}


Libraries = dict[bytes, Library]


class Functions:
    """The libraries of the data set, and the Lua state that runs their functions."""

    def __init__(self, runner: Runner, log: CommitLog) -> None:
        self._runner = runner
        self._log = log
        self._sandbox: Sandbox | None = None
        self._libraries: Libraries = {}
        #: Function name -> its library.
        self._owners: dict[bytes, Library] = {}
        #: The row `f` that all this belongs to.
        self._loaded: bytes | None = None

    # -- what there is -----------------------------------------------------------------------------

    def libraries(self) -> Libraries:
        """The libraries as they are in the running turn, by name."""
        row = self._log.meta.get(FUNCTIONS_KEY)
        if row != self._loaded:
            self._reload()
            self._loaded = row
        return self._libraries

    @property
    def loaded(self) -> Libraries:
        """The libraries as they were when one was last used."""
        return self._libraries

    def _reload(self) -> None:
        first = FUNCTIONS_KEY + b"\0"
        self._drop_sandbox()
        found: Libraries = {}
        for key, code in self._log.meta.scan(first, prefix_end(FUNCTIONS_KEY)):
            name = key[len(FUNCTIONS_KEY) :]
            try:
                found[name] = self._read(code, timed=False)
            except RedisError as error:
                text = name.decode("utf-8", "replace")
                logger.error("library %s can't be loaded, and is left out: %s", text, error)
        self._take(found)

    def _drop_sandbox(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _take(self, libraries: Libraries) -> None:
        self._libraries = libraries
        self._owners = {
            name: library for library in libraries.values() for name in library.functions
        }

    @property
    def count(self) -> int:
        """How many functions there are, as far as loaded."""
        return len(self._owners)

    @property
    def memory(self) -> int:
        """What Lua holds for them."""
        return 0 if self._sandbox is None else self._sandbox.memory

    @property
    def overhead(self) -> int:
        """About what the libraries themselves take."""
        return sum(
            len(library.code) + _OVERHEAD * (1 + len(library.functions))
            for library in self._libraries.values()
        )

    # -- changes -----------------------------------------------------------------------------------

    def load(self, code: bytes, replace: bool) -> bytes:
        """FUNCTION LOAD: the library's name. Raises RedisError; then nothing is changed."""
        before = self.libraries()
        name = read_metadata(code)
        if name in before and not replace:
            raise errors.error(f"Library '{_text(name)}' already exists")
        library = self._read(code, timed=True)
        rest = {key: other for key, other in before.items() if key != name}
        self._store(_joined(rest, [library]), [library], [])
        return name

    def delete(self, name: bytes) -> None:
        """FUNCTION DELETE."""
        before = self.libraries()
        if name not in before:
            raise errors.error("Library not found")
        self._store({key: lib for key, lib in before.items() if key != name}, [], [name])

    def flush(self) -> None:
        """FUNCTION FLUSH: no library is left, and nothing of what Lua held."""
        before = self.libraries()
        if before:
            self._store({}, [], list(before))
        self._drop_sandbox()

    def restore(self, codes: Sequence[bytes], policy: bytes) -> None:
        """FUNCTION RESTORE: load libraries beside (append), over (replace) or instead of (flush)
        those that there are. Raises RedisError; then nothing is changed."""
        before = self.libraries()
        libraries: list[Library] = []
        for code in codes:
            library = self._read(code, timed=True)
            _joined({other.name: other for other in libraries}, [library])
            libraries.append(library)
        names = {library.name for library in libraries}
        kept: Libraries = {}
        if policy != b"flush":
            kept = {k: v for k, v in before.items() if policy == b"append" or k not in names}
        after = _joined(kept, libraries)
        self._store(after, libraries, [name for name in before if name not in after])

    def _read(self, code: bytes, *, timed: bool) -> Library:
        """Load a library into Lua. Raises RedisError: it isn't valid."""
        name = read_metadata(code)
        if self._sandbox is None:
            self._sandbox = Sandbox(self._runner, VERSION, VERSION_NUM)
        _, _, body = code.partition(b"\n")
        try:
            chunk = self._sandbox.compile(b"\n" + body, _CHUNK)
        except ValueError as error:
            raise errors.error(f"Error compiling function: {error}") from None
        self._runner.load_deadline = time.monotonic() + LOAD_SECONDS if timed else 0.0
        try:
            functions = self._sandbox.load_library(chunk)
        except ValueError as error:
            raise errors.error(f"Error registering functions: {error}") from None
        finally:
            self._runner.load_deadline = 0.0
        if not functions:
            raise errors.error("No functions registered")
        return Library(name, code, functions)

    def _store(
        self, after: Libraries, changed: Sequence[Library], deleted: Sequence[bytes]
    ) -> None:
        """These are the libraries from now on."""
        meta = self._log.meta
        for name in deleted:
            meta.delete(FUNCTIONS_KEY + name)
        for library in changed:
            meta.put(FUNCTIONS_KEY + library.name, library.code)
        self._loaded = os.urandom(16)
        meta.put(FUNCTIONS_KEY, self._loaded)
        self._take(after)

    # -- FCALL -------------------------------------------------------------------------------------

    def call(
        self,
        ctx: Context,
        command: list[bytes],
        name: bytes,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        read_only: bool,
    ) -> Any:
        """Run a function."""
        function = self.find(name)
        flags = flags_of(function)
        error = self._runner.refusal(flags, read_only)
        if error is not None:
            raise error
        run = Run(
            ctx.session, name, command, flags | (NO_WRITES if read_only else 0), is_eval=False
        )
        assert self._sandbox is not None
        outcome = self._runner.run(run, self._sandbox, function.callback, keys, args)
        return answer(ctx, outcome, name, command[0])

    def find(self, name: bytes) -> Registered:
        """A function. Raises RedisError: there is none with this name."""
        self.libraries()
        owner = self._owners.get(name)
        if owner is None:
            raise errors.error("Function not found")
        return owner.functions[name]


def flags_of(function: Registered) -> int:
    """A function's flags as bits."""
    bits = 0
    for flag in function.flags:
        bits |= FLAGS[flag]
    return bits


def _joined(libraries: Libraries, more: Iterable[Library]) -> Libraries:
    """Libraries and others beside them; raises RedisError when a name is taken (libraryJoin)."""
    found = dict(libraries)
    taken = {name for library in libraries.values() for name in library.functions}
    for library in more:
        if library.name in found:
            raise errors.error(f"Library {_text(library.name)} already exists")
        for name in library.functions:
            if name in taken:
                raise errors.error(f"Function {_text(name)} already exists")
        taken.update(library.functions)
        found[library.name] = library
    return found


def read_metadata(code: bytes) -> bytes:
    """The library's name, from its first line (functionExtractLibMetaData)."""
    if not code.startswith(b"#!"):
        raise errors.error("Missing library metadata")
    line, newline, _ = code.partition(b"\n")
    words = split_args(line) if newline else None
    if not words:
        raise errors.error("Invalid library metadata")
    name: bytes | None = None
    for word in words[1:]:
        key, equals, value = word.partition(b"=")
        if key.lower() != b"name" or not equals:
            raise errors.error(f"Invalid metadata value given: {_text(word)}")
        if name is not None:
            raise errors.error("Invalid metadata value, name argument was given multiple times")
        name = value
    if name is None:
        raise errors.error("Library name was not given")
    if _NAME.fullmatch(name) is None:
        raise errors.error(_BAD_NAME)
    if words[0][2:].lower() != b"lua":
        raise errors.error(f"Engine '{_text(words[0][2:])}' not found")
    return name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
