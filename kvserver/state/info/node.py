"""INFO server, cpu, modules and cluster: which server this is."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import sys
import time
from typing import TYPE_CHECKING, Final

from kvserver import COMPILED, REDIS_VERSION, __version__
from kvserver.state import process
from kvserver.state.info.fields import Fields
from kvserver.state.info.view import View

if TYPE_CHECKING:
    from kvserver.state.server import Server

_BUILD_ID: Final = hashlib.sha1(f"kvserver {__version__}".encode()).hexdigest()[:16]


def server(view: View) -> Fields:
    """INFO server."""
    server = view.server
    config = server.config
    seconds = int(time.time() - server.started)
    system = platform.uname()
    return {
        "redis_version": REDIS_VERSION,
        "kvserver_version": __version__,
        "kvserver_build": "compiled" if COMPILED else "python",
        "python_version": platform.python_version(),
        "redis_build_id": _BUILD_ID,
        "redis_mode": "standalone",
        "os": f"{system.system} {system.release} {system.machine}",
        "arch_bits": 64 if sys.maxsize > 1 << 32 else 32,
        "monotonic_clock": "POSIX clock_gettime",
        "multiplexing_api": "epoll",
        "process_id": os.getpid(),
        "process_supervised": _supervised(config.get_str("supervised")),
        "run_id": server.run_id,
        "tcp_port": config.get_int("port") or config.get_int("tls-port"),
        "server_time_usec": time.time_ns() // 1000,
        "uptime_in_seconds": seconds,
        "uptime_in_days": seconds // 86400,
        "hz": config.get_int("hz"),
        "configured_hz": config.get_int("hz"),
        "lru_clock": int(time.time()) & 0xFFFFFF,
        "executable": os.path.abspath(sys.argv[0]),
        "config_file": config.path or "",
        "io_threads_active": 0,
        **_listeners(server),
    }


def _supervised(setting: str) -> str:
    return "systemd" if setting != "no" and os.environ.get("NOTIFY_SOCKET") else "no"


def _listeners(server: Server) -> Fields:
    """Numbered by kind as in Redis: 0 is TCP, 1 a unix socket, 2 TLS."""
    config = server.config
    addresses = [f"bind={address}" for address in config.get_list("bind")]
    port, path, tls = (
        config.get_int("port"),
        config.get_str("unixsocket"),
        config.get_int("tls-port"),
    )
    found: Fields = {}
    if port:
        found["listener0"] = ",".join(["name=tcp", *addresses, f"port={port}"])
    if path:
        found["listener1"] = f"name=unix,bind={path}"
    if tls:
        found["listener2"] = ",".join(["name=tls", *addresses, f"port={tls}"])
    return found


def cpu(view: View) -> Fields:
    """INFO cpu, in seconds. Commands run in the thread that asks."""
    found: Fields = {}
    for suffix, who in (
        ("", resource.RUSAGE_SELF),
        ("_children", resource.RUSAGE_CHILDREN),
        ("_main_thread", resource.RUSAGE_THREAD),
    ):
        times = process.cpu_times(who)
        found[f"used_cpu_sys{suffix}"] = f"{times.system:.6f}"
        found[f"used_cpu_user{suffix}"] = f"{times.user:.6f}"
    return found


def modules(view: View) -> Fields:
    """INFO modules: none can be loaded."""
    return {}


def cluster(view: View) -> Fields:
    """INFO cluster."""
    return {"cluster_enabled": 0}
