"""What RocksDB would misread when it opens a directory: looked at first, and refused.

It must not know rocksdict. Both dangers were measured with RocksDB 9.8:

- Without CURRENT RocksDB makes an empty database, and deletes the data files it finds.
- The recovery mode that tolerates a torn tail takes damage in the middle of the newest log for
  one, and drops the intact batches after it without a word.

Each function returns why the directory is refused, in one line, or None.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import Final

from kvserver.storage.wal import WalDirectory, WalReader, archive_path, log_numbers, log_path
from kvserver.storage.wal_batch import Batch, WalCorruption, WalError, WalNotFound
from kvserver.storage.wal_file import BLOCK, FRAGMENT_HEADER, LogFile

#: What holds data. A MANIFEST alone does not: it is there before the first CURRENT.
_DATA_SUFFIXES: Final = (".sst", ".log")
#: The types of a fragment that begins a record: full, first.
_BEGINS: Final = (1, 2)


def refuse_directory(path: str) -> str | None:
    """Make the directory if it is missing, and look whether RocksDB may open it."""
    try:
        os.makedirs(path, exist_ok=True)
        names = os.listdir(path)
        archived = log_numbers(archive_path(path))
    except FileExistsError:
        return "it is not a directory"
    except OSError as error:
        return error.strerror
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return "Permission denied"
    if "CURRENT" not in names and (
        archived or any(name.endswith(_DATA_SUFFIXES) for name in names)
    ):
        return (
            "it holds data, but no file CURRENT that names the valid MANIFEST; restore that, or a "
            "backup: opening the rest would delete it"
        )
    return None


def refuse_log(path: str) -> str | None:
    """Read the live log files (some 100 MB a second) and look whether intact batches follow
    the place where recovery would stop."""
    numbers = sorted(log_numbers(path))
    if not numbers:
        return None
    try:
        file, offset, reason = _stop(path, numbers[0])
    except WalError as error:
        return f"the log can't be read: {error}"
    number = int(os.path.basename(file)[:-4])
    newer = [other for other in numbers if other > number]
    if not _intact_after(path, number, offset) and not any(_begins(path, n) for n in newer):
        return None
    remedy = f"truncate -s {offset} {file}"
    if newer:
        remedy += " && rm " + " ".join(log_path(path, other) for other in newer)
    return (
        f"{file} is damaged at offset {offset} ({reason}), and intact writes follow; restore a "
        f"backup, or give up what follows with: {remedy}"
    )


def _stop(path: str, first: int) -> tuple[str, int, str]:
    """File and offset where a reader of the live log stops, and why."""
    last: Batch | None = None
    with closing(WalReader(path, first)) as reader:
        try:
            while batch := reader.read():
                last = batch
        except WalCorruption as damage:
            return damage.file, damage.offset, damage.reason
        except WalNotFound as gap:
            raise WalCorruption(gap.reason) from None
        number = reader.file_number
    with closing(WalDirectory(path).open(number)) as log:
        if last is not None and last.file == log.path:
            log.offset = last.offset
            log.read()
        return log.path, log.offset, "a record cut short"


def _begins(path: str, number: int) -> bool:
    """Whether the file begins with a whole batch."""
    with closing(WalDirectory(path).open(number)) as log:
        return log.read() is not None


def _intact_after(path: str, number: int, offset: int) -> bool:
    """Whether a whole batch begins in the file after `offset`."""
    with closing(WalDirectory(path).open(number)) as log:
        block = offset // BLOCK
        later = range(block + 1, -(-log.size() // BLOCK))
        return _intact_in_block(log, offset) or any(map(log.first_batch_from, later))


def _intact_in_block(log: LogFile, offset: int) -> bool:
    """The same for the rest of a block, where the damage may have hidden the next header."""
    with open(log.path, "rb") as file:
        file.seek(offset)
        data = file.read(BLOCK - offset % BLOCK)
    for at in range(1, len(data) - FRAGMENT_HEADER):
        if data[at + FRAGMENT_HEADER - 1] in _BEGINS:
            log.offset = offset + at
            try:
                if log.read() is not None:
                    return True
            except WalError:
                continue
    return False
