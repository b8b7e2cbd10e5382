"""The limit of open files: enough for every client and every data file, or fewer of both.

It must not know sockets. Source: Redis 7.4's server.c, adjustOpenFilesLimit.
"""

from __future__ import annotations

import logging
import resource
from typing import Final

from kvserver.config import Config, ConfigError

logger = logging.getLogger("kvserver")

#: For the log, RocksDB's own files, listening sockets, backups.
RESERVED: Final = 96


def adjust_limit(config: Config) -> None:
    """Before anything is opened: raise the limit to what `maxclients` and
    `rocksdb.max_open_files` need; where the system doesn't allow it, lower these."""
    clients, files = config.get_int("maxclients"), config.get_int("rocksdb.max_open_files")
    limit = _raise_to(RESERVED + clients + max(files, 0))
    room = limit - RESERVED
    if files < 0 or clients + files <= room:
        return
    files = min(files, max(room // 2, room - clients))
    allowed = min(clients, room - files)
    if allowed < 1:
        raise ConfigError(f"the limit of open files, {limit}, is too low: raise `ulimit -n`")
    logger.warning(
        "The limit of open files is %d: at most %d clients (maxclients) and %d data files "
        "(rocksdb.max_open_files) are open at once. Raise `ulimit -n` for more.",
        limit,
        allowed,
        files,
    )
    _set(config, "maxclients", allowed)
    _set(config, "rocksdb.max_open_files", files)


def check_clients(config: Config) -> None:
    """After CONFIG SET maxclients: raise the limit again. Raises ConfigError."""
    files = max(config.get_int("rocksdb.max_open_files"), 0)
    room = _raise_to(RESERVED + config.get_int("maxclients") + files) - RESERVED - files
    if room < config.get_int("maxclients"):
        raise ConfigError(
            "The operating system is not able to handle the specified number of clients, "
            f"try with {room}"
        )


def _raise_to(wanted: int) -> int:
    """Raise the soft limit, and the hard one if we may; returns how many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft >= wanted:
        return soft
    enough = hard == resource.RLIM_INFINITY or hard >= wanted
    for limits in ((wanted, hard if enough else wanted), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, OSError):
            continue
        return limits[0]
    return soft


def _set(config: Config, name: str, value: int) -> None:
    row = config.find(name)
    assert row is not None
    config.set_at_startup(row, [str(value)])
