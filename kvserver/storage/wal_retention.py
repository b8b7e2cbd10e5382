"""Deletes archived log files, oldest first, by kvserver's own policy.

RocksDB would delete them without knowing who still reads them, so it is told to keep them for
ever (ROCKSDB_WAL_TTL_SECONDS), and this module decides. It knows files, sizes and times, not
replicas: the caller says which file is the oldest that anyone needs. Invariants:

- The archive stays without holes: a file goes only after all older ones.
- Only the size limit overrides a reader's need, so that a stuck replica can't fill the disk.
- Live files are RocksDB's; they are neither counted nor touched.

It blocks on the disk, so it belongs in a worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, NamedTuple

from kvserver.storage.wal import archive_path, log_numbers, log_path

#: RocksDB archives log files only while it has a TTL for them, and this one never passes. Any less
#: would not do, not even years: db/wal_manager.cc (PurgeObsoleteWALFiles) subtracts unsigned, so
#: a file that seems to come from the future, by a clock that was set back or by the fraction of a
#: second that the clocks of files and processes differ, is older than every other TTL.
ROCKSDB_WAL_TTL_SECONDS: Final = (1 << 64) - 1

_MIB: Final = 1 << 20


class ArchivedLog(NamedTuple):
    """An archived file: its number, bytes, and time of the last write (seconds since the epoch)."""

    number: int
    size: int
    modified: float


class Limits(NamedTuple):
    """What the archive may hold; 0 is no limit."""

    wal_size_limit_mb: int
    wal_ttl_seconds: int


def surplus(
    logs: Iterable[ArchivedLog], limits: Limits, now: float, pinned: int | None = None
) -> list[int]:
    """The numbers of the files to delete, in the order to delete them.

    `pinned` is the lowest number that a reader needs: the age limit spares it and all newer
    files, the size limit does not.
    """
    ordered = sorted(logs)
    limit = limits.wal_size_limit_mb * _MIB
    excess = sum(log.size for log in ordered) - limit if limit else 0
    numbers = []
    for log in ordered:
        needed = pinned is not None and log.number >= pinned
        expired = 0 < limits.wal_ttl_seconds < now - log.modified and not needed
        if excess <= 0 and not expired:
            break
        numbers.append(log.number)
        excess -= log.size
    return numbers


def archived_logs(db_path: str) -> list[ArchivedLog]:
    """The archive of a database, oldest first."""
    archive = archive_path(db_path)
    logs = []
    for number in sorted(log_numbers(archive)):
        status = os.stat(log_path(archive, number))
        logs.append(ArchivedLog(number, status.st_size, status.st_mtime))
    return logs


def trim_archive(
    db_path: str, limits: Limits, now: float, pinned: int | None = None
) -> list[ArchivedLog]:
    """Deletes what is surplus and returns it. OSError: what is older has been deleted."""
    archive = archive_path(db_path)
    logs = {log.number: log for log in archived_logs(db_path)}
    numbers = surplus(logs.values(), limits, now, pinned)
    for number in numbers:
        os.unlink(log_path(archive, number))
    return [logs[number] for number in numbers]
