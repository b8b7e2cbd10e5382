"""The core's port `Files` on a simulated disk: slow, in order, and failing now and then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crc32c import crc32c

from kvserver.frames import Frame
from kvserver.replication.ports import Snapshot
from kvserver.storage.positions import LogGone, TooMuch
from kvserver.storage.wal_batch import WalError

if TYPE_CHECKING:
    from sim.server import Server

Done = Callable[..., None]


class Job:
    """Something slow, and who waits for it; `round` None: it can't be cancelled."""

    def __init__(self, label: str, work: Callable[[], Any], done: Done, round_: int | None) -> None:
        self.label = label
        self.work = work
        self.done = done
        self.round = round_


class Files:
    """One process's slow work."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._world = server.world
        self._jobs: deque[Job] = deque()
        self._busy = False
        self._round = 0
        self._names = 0
        self._snapshots: dict[str, dict[str, bytes]] = {}

    def _add(self, label: str, work: Callable[[], Any], done: Done, cancellable: bool) -> None:
        self._world.step(label)
        self._jobs.append(Job(label, work, done, self._round if cancellable else None))
        self._next()

    def _next(self) -> None:
        if self._busy or not self._jobs:
            return
        self._busy = True
        job = self._jobs.popleft()
        self._server.call_later(self._world.work_delay(job.label), self._finish, job)

    def _finish(self, job: Job) -> None:
        self._busy = False
        if job.round is None or job.round == self._round:
            result = job.work()
            self._world.step(job.label)
            if job.round is None or job.round == self._round:
                job.done(result)
        self._next()

    def _fails(self, label: str) -> bool:
        return self._world.fails(label)

    def cancel(self) -> None:
        self._round += 1

    # -- snapshots -----------------------------------------------------------------------------

    def make_snapshot(self, done: Done) -> None:
        seq = self._server.log.committed_seq

        def work() -> Snapshot | str:
            if self._fails("snapshot") or self._server.log.failed:
                return "no space"
            self._server.engine.flush()
            self._names += 1
            path = f"snapshot{self._names}"
            files = self._server.disk.store.files_of()
            self._snapshots[path] = files
            sizes = [(name, len(data)) for name, data in files.items()]
            return Snapshot(path, seq, self._server.now(), sizes)

        self._add("snapshot", work, done, False)

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        del self._snapshots[snapshot.path]

    def read(self, snapshot: Snapshot, name: str, offset: int, size: int, done: Done) -> None:
        def work() -> bytes:
            files = self._snapshots.get(snapshot.path)
            if files is None or self._fails("read"):
                return b""
            return files[name][offset : offset + size]

        self._add("read", work, done, False)

    def checksum(self, snapshot: Snapshot, name: str, done: Done) -> None:
        def work() -> int:
            files = self._snapshots.get(snapshot.path)
            return -1 if files is None or self._fails("read") else crc32c(files[name])

        self._add("checksum", work, done, False)

    # -- an incoming data set ------------------------------------------------------------------

    def begin_incoming(self, files: list[tuple[str, int]], done: Done) -> None:
        disk = self._server.disk

        def work() -> list[tuple[str, int]] | str:
            if self._fails("write"):
                return "no space"
            sizes = dict(files)
            keep = {n for n in disk.whole if n in sizes and len(disk.incoming[n]) == sizes[n]}
            disk.incoming = {
                name: disk.incoming[name] if name in keep else bytearray() for name in sizes
            }
            disk.whole = keep
            return [(name, crc32c(bytes(disk.incoming[name]))) for name in sorted(keep)]

        self._add("begin_incoming", work, done, True)

    def write(self, name: str, offset: int, data: bytes, done: Done) -> None:
        disk = self._server.disk

        def work() -> str:
            if self._fails("write"):
                return "no space"
            if offset == 0:
                disk.incoming[name] = bytearray()
                disk.whole.discard(name)
            file = disk.incoming[name]
            file[offset : offset + len(data)] = data
            return ""

        self._add("write", work, done, True)

    def end_file(self, name: str, crc: int, done: Done) -> None:
        disk = self._server.disk

        def work() -> str:
            if crc32c(bytes(disk.incoming[name])) != crc:
                return "a wrong checksum"
            disk.whole.add(name)
            return ""

        self._add("end_file", work, done, True)

    def install(self, done: Done) -> None:
        """As the edge does it: the files are synced while commands still run, then the directories
        change places while none does."""
        server, disk = self._server, self._server.disk

        def complete() -> str:
            if self._fails("install"):
                return "no space"
            disk.complete, disk.incoming, disk.whole = disk.incoming, {}, set()
            return ""

        def completed(failure: str) -> None:
            if failure:
                done(failure)
            else:
                server.swapping = True
                self._add("swap", change_places, changed, False)

        def change_places() -> str:
            server.engine.close()
            disk.settle()
            self._world.step("install.renamed")
            server.engine.replace(disk.store)
            server.reload()
            return ""

        def changed(failure: str) -> None:
            done(failure)
            server.swapping = False
            server.run_parked()

        self._add("install", complete, completed, False)

    # -- rewind --------------------------------------------------------------------------------

    def collect(self, start: int, fork: int, max_bytes: int, done: Done) -> None:
        def work() -> Any:
            try:
                return self._server.index.collect(start, fork, max_bytes)
            except (LogGone, TooMuch, WalError) as error:
                return str(error) or "too much"

        self._add("collect", work, done, True)

    def save_discarded(self, frames: list[Frame], done: Done) -> None:
        def work() -> str:
            if self._fails("save"):
                return "no space"
            saved = [(frame.first_seq, frame.last_seq) for frame in frames]
            self._server.disk.saved += saved
            return ""

        self._add("save_discarded", work, done, True)
