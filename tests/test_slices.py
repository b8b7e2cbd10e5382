"""The thread of the event loop has short time slices, and no other thread has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Server

from kvserver.edge.slices import SLICE_NS

FreshServer = Callable[..., Server]

#: The first kernel that has slices of a thread's own.
SINCE = (6, 12)
SHORTEN = "from kvserver.edge import slices; print(slices.shorten())"


def slice_of(pid: int, thread: int) -> int | None:
    """A thread's slice in ns; None where the kernel doesn't tell (CONFIG_SCHED_DEBUG)."""
    try:
        text = Path(f"/proc/{pid}/task/{thread}/sched").read_text()
    except OSError:
        return None
    found = re.search(r"se\.slice +: +(\d+)", text)
    return int(found[1]) if found else None


def test_only_the_loop_has_short_slices(fresh_server: FreshServer) -> None:
    major, minor = map(int, re.findall(r"\d+", os.uname().release)[:2])
    if (major, minor) < SINCE or slice_of(os.getpid(), os.getpid()) is None:
        pytest.skip("the kernel has no such slices, or doesn't tell")
    server = fresh_server()
    server.client().set("k", "v")
    usual = slice_of(os.getpid(), os.getpid())
    threads = [int(name) for name in os.listdir(f"/proc/{server.pid}/task")]
    assert len(threads) > 1
    for thread in threads:
        expected = SLICE_NS if thread == server.pid else usual
        assert slice_of(server.pid, thread) == expected


def test_a_chosen_policy_and_nice_value_stay() -> None:
    def ask(*prefix: str) -> str:
        command = [*prefix, sys.executable, "-c", SHORTEN + "; import os; print(os.nice(0))"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    before = os.nice(0)
    assert ask("nice", "-n", "3").split()[1] == str(min(before + 3, 19))
    assert ask("chrt", "--batch", "0").split()[0] == "False"
