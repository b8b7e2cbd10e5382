"""Disks that fail on demand: full ones, and a preloaded library that breaks fsync and write.

Every fault can be switched on and off while a server runs; fixtures are at the end.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from harness import Server

SOURCE = Path(__file__).with_name("fault_shim.c")
TMPFS_MB = 48


class Fault(Protocol):
    """Something that keeps a server from writing."""

    def begin(self, server: Server) -> None: ...

    def end(self, server: Server) -> None: ...


class FileSizeLimit:
    """RLIMIT_FSIZE just above the log's present size: the next writes fail with EFBIG."""

    def begin(self, server: Server) -> None:
        sizes = [log.stat().st_size for log in (server.directory / "db").glob("*.log")]
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (max(sizes) + 3000, hard))

    def end(self, server: Server) -> None:
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))


class FullDisk:
    """A small tmpfs that is filled up: the next writes fail with ENOSPC."""

    def begin(self, server: Server) -> None:
        self._filler = server.directory.parent / "filler"
        block = bytes(1 << 16)
        with self._filler.open("wb", buffering=0) as file:
            try:
                while file.write(block) == len(block):
                    pass
            except OSError:
                pass

    def end(self, server: Server) -> None:
        self._filler.unlink()


class Shim:
    """fault_shim.c, compiled, with its control file."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._control = directory / "fault"
        self._synced = directory / "synced"
        self.env = {
            "LD_PRELOAD": str(library),
            "FAULT_CONTROL": str(self._control),
            "FAULT_SYNCED": str(self._synced),
        }

    def set(self, fault: str, suffix: str) -> None:
        """Begin a fault; it replaces the one before."""
        whole = self._control.with_suffix(".new")
        whole.write_text(f"{fault} {suffix}\n")
        whole.rename(self._control)

    def clear(self) -> None:
        """End it."""
        self._control.unlink(missing_ok=True)

    def synced_sizes(self) -> dict[str, int]:
        """path -> how many of the file's bytes are on the disk for certain."""
        sizes: dict[str, int] = {}
        for line in self._synced.read_text().splitlines():
            size, path = line.split(" ", 1)
            sizes[path] = max(int(size), sizes.get(path, 0))
        return sizes


class ShimFault:
    """One of the shim's faults."""

    def __init__(self, shim: Shim, fault: str, suffix: str) -> None:
        self._shim, self._fault, self._suffix = shim, fault, suffix

    def begin(self, server: Server) -> None:
        self._shim.set(self._fault, self._suffix)

    def end(self, server: Server) -> None:
        self._shim.clear()


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        # These tests must not vanish from CI unnoticed.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no C compiler")
    command = [compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


@pytest.fixture
def shim(shim_library: Path, tmp_path: Path) -> Shim:
    return Shim(shim_library, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a tmpfs of its own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "tmpfs", mount]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no permission to mount a tmpfs")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True, timeout=10)
