"""This process as the operating system and the allocator see it: memory and CPU time.

It must not know the server. Sources: proc(5), mallinfo(3), malloc_trim(3). A C library without
the GNU functions (musl) has no allocator figures: they read as zero, and trimming does nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import PurePosixPath
from typing import Final, NamedTuple

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


class Allocator(NamedTuple):
    """Bytes that malloc has handed out, and bytes that it got from the kernel for them. Python's
    objects up to 512 bytes are beside it: CPython gets their arenas from the kernel itself."""

    allocated: int
    active: int


class CpuTimes(NamedTuple):
    """Seconds of CPU time."""

    system: float
    user: float


def resident_bytes() -> int:
    """What the process has in memory now."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def peak_resident_bytes() -> int:
    """The most that it ever had. getrusage's maximum can be that of the parent process."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return resident_bytes()


def system_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES


def memory_bytes(own: str = "/proc/self/cgroup", groups: str = "/sys/fs/cgroup") -> int:
    """What the process may use: the machine's memory, or less if a control group limits it
    (the kernel's admin-guide/cgroup-v2.rst, "Memory Interface Files", and cgroup-v1/memory.rst)."""
    limit = system_bytes()
    for line in _lines(own):
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = f"{groups}/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the group's path may be that outside of it: its root is always there.
        for path in (group, *PurePosixPath(group).parents):
            for text in _lines(f"{root}/{path}/{name}"):
                if text.isdecimal():
                    limit = min(limit, int(text))
    return limit


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def share_of_memory(size: int) -> int:
    """The bytes of a `config.MemorySize`."""
    return memory_bytes() * -size // 100 if size < 0 else size


def memory_map() -> bytes:
    """The kernel's account of the address space, as text: how much of it is resident, shared,
    dirty, swapped."""
    with open("/proc/self/smaps_rollup", "rb") as file:
        return file.read()


def huge_page_bytes() -> int:
    """What the kernel gave the process as transparent huge pages."""
    for line in memory_map().splitlines():
        if line.startswith(b"AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return 0


def allocator() -> Allocator:
    """malloc's figures now."""
    if not hasattr(_libc, "mallinfo2"):
        return Allocator(0, 0)
    function = _libc.mallinfo2
    function.restype = _MallInfo
    info = function()
    return Allocator(info.uordblks + info.hblkhd, info.arena + info.hblkhd)


def allocator_report() -> bytes | None:
    """malloc's own report on its arenas, in XML; None if it gives none."""
    if not hasattr(_libc, "malloc_info"):
        return None
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    _libc.open_memstream.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(_libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    if not stream:
        return None
    _libc.malloc_info(0, stream)
    _libc.fclose(stream)
    report = ctypes.string_at(text, size.value)
    _libc.free(text)
    return report


def trim_allocator() -> None:
    """Give the kernel back what malloc holds and nobody uses."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))


def cpu_times(who: int = resource.RUSAGE_SELF) -> CpuTimes:
    """CPU time so far; `who` is one of resource.RUSAGE_*."""
    usage = resource.getrusage(who)
    return CpuTimes(usage.ru_stime, usage.ru_utime)
