"""Compiles the hot modules with mypyc when the package is built; all else is in pyproject.toml.

The modules stay ordinary Python. Without mypy or a C compiler, with KVSERVER_PURE=1 in the
environment, or when compiling fails, they are installed as they are: the same server, only
slower. `kvserver.COMPILED` and INFO's `kvserver_build` say which of the two it is.

An editable install is never compiled: an extension module beside its source would go on being
imported after the source has changed.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

#: The way of GET, SET, INCR, DEL, EXISTS, EXPIRE, MSET, MGET and MULTI from the socket's bytes to
#: RocksDB and back, and what their attributes refer to. docs/development.md says what to mind in
#: these modules.
HOT = [
    "kvserver/args.py",
    "kvserver/codec.py",
    "kvserver/collection.py",
    "kvserver/commands/counters.py",
    "kvserver/commands/expire.py",
    "kvserver/commands/hashes.py",
    "kvserver/commands/hashes_expiry.py",
    "kvserver/commands/hashes_getex.py",
    "kvserver/commands/keys.py",
    "kvserver/commands/list_blocking.py",
    "kvserver/commands/list_range.py",
    "kvserver/commands/lists.py",
    "kvserver/commands/sets.py",
    "kvserver/commands/streams.py",
    "kvserver/commands/streams_claim.py",
    "kvserver/commands/streams_groups.py",
    "kvserver/commands/strings.py",
    "kvserver/commands/transactions.py",
    "kvserver/commands/zset_bounds.py",
    "kvserver/commands/zset_pops.py",
    "kvserver/commands/zset_ranges.py",
    "kvserver/commands/zsets.py",
    "kvserver/edge/connection.py",
    "kvserver/database.py",
    "kvserver/keyspace.py",
    "kvserver/numbers.py",
    "kvserver/request.py",
    "kvserver/resp.py",
    "kvserver/state/admission.py",
    "kvserver/state/cold.py",
    "kvserver/state/context.py",
    "kvserver/state/dispatch.py",
    "kvserver/state/histogram.py",
    "kvserver/state/lookahead.py",
    "kvserver/state/notify.py",
    "kvserver/state/pause.py",
    "kvserver/state/pubsub.py",
    "kvserver/state/server.py",
    "kvserver/state/session.py",
    "kvserver/state/stats.py",
    "kvserver/state/table.py",
    "kvserver/state/tracking.py",
    "kvserver/state/turn.py",
    "kvserver/state/watch.py",
    "kvserver/storage/commitlog.py",
    "kvserver/storage/open_row.py",
    "kvserver/storage/overlay.py",
    "kvserver/storage/reads.py",
    "kvserver/storage/row_cache.py",
    "kvserver/storage/table.py",
    "kvserver/types/encodings.py",
    "kvserver/types/hashes.py",
    "kvserver/types/list_chunks.py",
    "kvserver/types/list_nodes.py",
    "kvserver/types/list_rows.py",
    "kvserver/types/list_writer.py",
    "kvserver/types/lists.py",
    "kvserver/types/set_buckets.py",
    "kvserver/types/sets.py",
    "kvserver/types/sparse.py",
    "kvserver/types/stream_groups.py",
    "kvserver/types/stream_ids.py",
    "kvserver/types/streams.py",
    "kvserver/types/zset_blocks.py",
    "kvserver/types/zset_memory.py",
    "kvserver/types/zsets.py",
]
#: mypy's options: types are checked by `make types`, with what is installed there.
MYPY_OPTIONS = [
    "--config-file=",
    "--cache-dir=build/mypy",
    "--follow-imports=silent",
    "--ignore-missing-imports",
]
#: setuptools' commands that need the extension modules; metadata and editable installs don't.
BUILDS = {"bdist_wheel", "build", "build_ext", "install"}


def extensions() -> list[Extension]:
    """The C code of the hot modules, written to build/; nothing if it is not wanted or can't be."""
    if os.environ.get("KVSERVER_PURE") == "1" or BUILDS.isdisjoint(sys.argv):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return _plain("mypy is not installed")
    try:
        return mypycify([*MYPY_OPTIONS, *HOT], group_name="kvserver")
    except SystemExit:  # mypyc has said why
        return _plain("mypyc refused it")


class AllOrNothing(build_ext):
    """Compiles the hot modules, or none: they share one library, and go nowhere without it."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # each version of setuptools has its own
            self.extensions = _plain(str(error), self.get_outputs())


def _plain(why: str, remains: list[str] | None = None) -> list[Extension]:
    """Go on without extension modules; `remains` are files of an attempt to make them."""
    print(f"kvserver is not compiled: {why}", file=sys.stderr)
    for path in remains or []:
        if os.path.exists(path):
            os.unlink(path)
    return []


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": AllOrNothing})
