"""The files of a full sync that comes in, on disk. Everything here blocks: worker thread.

It must not know links or frames. Invariants: files that a transfer left whole are kept for the next
one, except those that RocksDB names alike in every checkpoint; a file counts as received when its
size and checksum are what the primary says.
"""

from __future__ import annotations

import os
import shutil
from typing import Final

from crc32c import crc32c

#: What is read at once for a checksum.
PIECE_BYTES: Final = 1 << 20
#: These have the same names in checkpoints that differ, and are small.
_VOLATILE: Final = ("CURRENT", "MANIFEST", "OPTIONS", "IDENTITY")


class IncomingFiles:
    """The directory that receives them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sizes: dict[str, int] = {}
        #: The file that is written now: its name, descriptor, and the checksum so far.
        self._name = ""
        self._fd = -1
        self._crc = 0

    def begin(self, files: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Prepare for these files (name, size); (name, crc32c) of those that are there."""
        self._close()
        self._sizes = dict(files)
        os.makedirs(self._path, exist_ok=True)
        found = []
        for name in sorted(os.listdir(self._path)):
            path = os.path.join(self._path, name)
            if not os.path.isfile(path):
                shutil.rmtree(path)
            elif not _may_stay(name) or os.stat(path).st_size != self._sizes.get(name):
                os.unlink(path)
            else:
                found.append((name, file_checksum(path)))
        return found

    def write(self, name: str, offset: int, data: bytes) -> None:
        """A piece; pieces of a file come in order, from its beginning."""
        if name != self._name or not offset:
            self._open(name)
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            offset += written
            rest = rest[written:]
        self._crc = crc32c(data, self._crc)

    def end(self, name: str, crc: int) -> str:
        """The file is whole; what is wrong with it, or an empty string."""
        if name != self._name:
            self._open(name)  # it is empty
        size = os.fstat(self._fd).st_size
        found = self._crc
        self._close()
        if size == self._sizes[name] and found == crc:
            return ""
        os.unlink(os.path.join(self._path, name))
        return f"{name}: {size} bytes with checksum {found}, instead of {crc}"

    def _open(self, name: str) -> None:
        self._close()
        path = os.path.join(self._path, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        self._name, self._crc = name, 0

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._name, self._fd, self._crc = "", -1, 0


def _may_stay(name: str) -> bool:
    return not name.startswith(_VOLATILE) and not name.endswith(".log")


def file_checksum(path: str) -> int:
    """The crc32c of a file."""
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            crc = crc32c(piece, crc)
    return crc
