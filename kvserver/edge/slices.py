"""Short time slices for the thread of the event loop, where the kernel has them.

With a shorter slice a thread that wakes is run sooner, and gets no larger share of the processor:
where all cores are busy, with RocksDB's compactions or other programs, a request doesn't wait until
somebody's whole slice is over. It needs no privilege. Source: sched_setattr(2) and Linux' 6.12
Documentation/scheduler/sched-eevdf.rst; older kernels take the call and change nothing. The C
library has no function for it before glibc 2.41.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Final

#: What the kernel gives everybody else is 0.7 to 3 ms. A turn takes about as long as this.
SLICE_NS: Final = 300_000
#: The number of sched_setattr(2), by machine (asm/unistd.h).
_SYSCALLS: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
#: struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
#: Threads that this one starts have the usual slice.
_RESET_ON_FORK: Final = 1
#: Kept: what ctypes makes for a library refers to itself, and would be left to the collector.
_LIBC: Final = ctypes.CDLL(None)


def shorten() -> bool:
    """Ask for short slices for the calling thread; returns whether the kernel took it. A scheduling
    policy that somebody chose (chrt(1)) stays."""
    number = _SYSCALLS.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    policy = (os.SCHED_OTHER, _RESET_ON_FORK, nice, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, *policy, SLICE_NS, 0, 0)
    return bool(_LIBC.syscall(number, 0, attributes, 0) == 0)
