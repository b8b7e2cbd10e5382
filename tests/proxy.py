"""A TCP proxy in front of a server, to cut links and to hold up what travels on them.

It knows nothing of pytest, nor of what it carries. It runs an event loop in a thread of its own;
the methods may be called from any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

LOOPBACK = "127.0.0.1"
CHUNK = 65536


class Proxy:
    """Listens on a port of its own, `port`, and forwards to the one that `target` returns."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        #: What flows from the target, and to it, waits for these.
        self._open = {True: asyncio.Event(), False: asyncio.Event()}
        #: Bytes that were forwarded from the target, and to it.
        self.forwarded = {True: 0, False: 0}
        #: Bytes from the target that may still pass before it is held.
        self._allowed: int | None = None
        self._refusing = False
        self._server: asyncio.Server | None = None
        self.port = 0

    def start(self) -> Proxy:
        """Begin to listen."""
        self._thread.start()
        self._call(self._listen())
        self.resume()
        return self

    def close(self) -> None:
        """End everything."""
        if self._thread.is_alive():
            self._call(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def cut(self) -> None:
        """Close every connection."""
        self._loop.call_soon_threadsafe(self._abort)

    def cut_and_hold_after(self, size: int) -> None:
        """Close every connection, so that what is held is lost, and forward so many bytes from
        the target on new ones before it is held again."""
        self._call(self._cut_and_hold_after(size))

    def refuse(self, refusing: bool) -> None:
        """Close every connection, and new ones at once, until told otherwise."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def hold(self, *, downwards: bool = True, upwards: bool = True) -> None:
        """Forward nothing from the target, or to it, until `resume`. Connections stay open."""
        for direction, held in ((True, downwards), (False, upwards)):
            if held:
                self._loop.call_soon_threadsafe(self._open[direction].clear)

    def hold_after(self, size: int) -> None:
        """Forward so many bytes more from the target, then hold what comes from it."""
        self._allowed = size

    @property
    def is_holding(self) -> bool:
        """Whether nothing from the target passes."""
        return not self._open[True].is_set()

    def resume(self) -> None:
        """Forward again, what has come meanwhile first."""
        self._allowed = None
        for event in self._open.values():
            self._loop.call_soon_threadsafe(event.set)

    # -- in the loop -------------------------------------------------------------------------

    def _call(self, coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut_and_hold_after(self, size: int) -> None:
        self._abort()
        self._allowed = size
        self._open[True].set()

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._refusing:
                await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens, one end is gone, or this is the end
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, out = await asyncio.open_connection(LOOPBACK, self._target())
        self._writers.add(out)
        pumps = [
            asyncio.ensure_future(self._pump(reader, out, False)),
            asyncio.ensure_future(self._pump(theirs, writer, True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(out)
            out.transport.abort()
            for pump in pumps:
                pump.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await pump

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, downwards: bool
    ) -> None:
        while data := await reader.read(CHUNK):
            await self._open[downwards].wait()
            if downwards and self._allowed is not None:
                data = await self._rationed(data, writer)
            writer.write(data)
            self.forwarded[downwards] += len(data)
            await writer.drain()

    async def _rationed(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Forward what may pass of this, and wait; the rest."""
        allowed = self._allowed or 0
        if len(data) < allowed:
            self._allowed = allowed - len(data)
            return data
        writer.write(data[:allowed])
        self.forwarded[True] += allowed
        self._allowed = 0
        self._open[True].clear()
        await self._open[True].wait()
        return data[allowed:]
