"""The connections of MIGRATE: sends keys to another server and reads what it says of each.

It must not know rows or how values are encoded. Source: Redis 7.4's cluster.c, migrateCommand.
Replies are read while requests are sent, so that neither side waits for the other to read; each
chunk and each reply has the whole time-out. A key without a positive reply counts as not taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from kvserver import errors
from kvserver.errors import RedisError
from kvserver.state.admission import PAUSED, STALLED, SUSPENDED
from kvserver.state.migrations import Migration, encode
from kvserver.state.server import Server

logger = logging.getLogger("kvserver")

_CHUNK: Final = 1 << 16
#: How often a migration looks whether it may go on.
_LOOK_SECONDS: Final = 0.001
#: A longer reply is none (syncReadLine reads 1024 bytes).
_LINE_BYTES: Final = 1 << 16

#: What a reply belongs to: a key, or (empty) what precedes them; None: no more will come.
_Sent = asyncio.Queue[tuple[bytes, ...] | None]


class Migrator:
    """All migrations that are under way."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, migration: Migration) -> None:
        """Begin to send."""
        task = asyncio.get_running_loop().create_task(self._run(migration))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """The server stops: what isn't over is given up, and nothing of it is deleted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, migration: Migration) -> None:
        try:
            await self._transfer(migration)
        except Exception as problem:  # the keys mustn't stay locked
            logger.exception("MIGRATE failed unexpectedly")
            migration.failed(errors.InternalError(str(problem)))
        while self._server.dispatcher.gate & (PAUSED | STALLED | SUSPENDED):
            await asyncio.sleep(_LOOK_SECONDS)
        self._server.migrations.finish(migration)

    async def _transfer(self, migration: Migration) -> None:
        target = migration.target
        timeout = target.timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout):
                while not migration.settled:
                    await asyncio.sleep(_LOOK_SECONDS)
                reader, writer = await asyncio.open_connection(
                    target.host, target.port, limit=_LINE_BYTES
                )
        except ConnectionError:  # refused: Redis finds out when it writes
            migration.failed(errors.migration_failed("writing"))
            return
        except (OSError, ValueError):  # too slow, or no such host
            migration.failed(errors.migration_not_connected())
            return
        try:
            await self._exchange(migration, reader, writer, timeout)
        finally:
            writer.transport.abort()

    async def _exchange(
        self,
        migration: Migration,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timeout: float,
    ) -> None:
        sent: _Sent = asyncio.Queue()
        replies = asyncio.create_task(_receive(migration, reader, sent, timeout))
        try:
            await self._send(migration, writer, sent, timeout)
        except OSError:
            replies.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await replies
            migration.failed(errors.migration_failed("writing"))
        else:
            sent.put_nowait(None)
            await replies
        finally:
            replies.cancel()

    async def _send(
        self, migration: Migration, writer: asyncio.StreamWriter, sent: _Sent, timeout: float
    ) -> None:
        target = migration.target
        first = [[b"SELECT", target.db]]
        if target.credentials:
            first.insert(0, [b"AUTH", *target.credentials])
        for words in first:
            writer.write(encode(words))
            sent.put_nowait(())
        for key, steps in migration.requests():
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    request: bytes | None = done.value
                    break
                await asyncio.sleep(0)
            if request is None:
                continue
            for start in range(0, len(request), _CHUNK):
                writer.write(request[start : start + _CHUNK])
                async with asyncio.timeout(timeout):
                    await writer.drain()
            sent.put_nowait((key,))


async def _receive(
    migration: Migration, reader: asyncio.StreamReader, sent: _Sent, timeout: float
) -> None:
    """Take the replies to what was sent. An error to AUTH or SELECT stands for all that follow."""
    refused: RedisError | None = None
    while (item := await sent.get()) is not None:
        try:
            async with asyncio.timeout(timeout):
                line = await reader.readline()
        except (OSError, ValueError):  # too slow, or too long
            line = b""
        if not line.endswith(b"\n"):
            migration.failed(errors.migration_failed("reading"))
            return
        error = errors.target_replied(line.rstrip(b"\r\n")[1:]) if line[:1] == b"-" else None
        if not item:
            refused = refused or error
        elif error or refused:
            migration.failed(refused or error or errors.migration_failed("reading"))
        else:
            migration.taken.append(item[0])
