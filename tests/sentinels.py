"""Real redis-sentinel processes around a group of servers, and writers that ask them for the
primary, as an application with redis-py does.

It knows nothing of pytest. Invariant: a writer sends no write twice, so it doesn't retry.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import redis
from group import LOOPBACK, Group, History
from harness import Program, Server, wait_until
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

SENTINEL = Program("redis-sentinel", ("redis-sentinel",), {"bind": LOOPBACK})
NAME = "mymaster"
DOWN_AFTER_MS = 1000
FAILOVER_TIMEOUT_MS = 10_000
WAIT_MS = 300
QUORUM = 2


class Sentinels:
    """Three of them that watch the group's first server."""

    def __init__(self, directory: Path, group: Group, count: int = 3) -> None:
        self.group = group
        self.processes = [self._process(directory, number) for number in range(count)]

    def _process(self, directory: Path, number: int) -> Server:
        path = directory / f"sentinel-{number}.conf"
        path.write_text(
            f"sentinel monitor {NAME} {LOOPBACK} {self.group.servers[0].port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}\n"
            f"sentinel parallel-syncs {NAME} 2\n"
        )
        where = directory / f"sentinel-{number}"
        return Server(where, args=(str(path),), program=SENTINEL)

    def start(self) -> None:
        """Start them, and wait until they know all servers and each other."""
        for process in self.processes:
            process.start()
        wait_until(self.know_all, 30, "the sentinels know all servers and each other")

    def close(self) -> None:
        for process in self.processes:
            process.close()

    def know_all(self) -> bool:
        """Whether each knows the other sentinels and all replicas, as healthy."""
        return all(self._knows_all(process) for process in self.processes)

    def _knows_all(self, process: Server) -> bool:
        primary = self.primary_as_seen(process)
        replicas = self.replicas_as_seen(process)
        return (
            int(primary["num-other-sentinels"]) == len(self.processes) - 1
            and len(replicas) == len(self.group.servers) - 1
            and all(r["flags"] == "slave" for r in replicas)
            and all(r["master-link-status"] == "ok" for r in replicas)
        )

    def primary_as_seen(self, process: Server) -> dict[str, str]:
        """SENTINEL MASTER."""
        return _fields(_ask(process, "SENTINEL", "MASTER", NAME))

    def replicas_as_seen(self, process: Server) -> list[dict[str, str]]:
        """SENTINEL REPLICAS."""
        return [_fields(row) for row in _ask(process, "SENTINEL", "REPLICAS", NAME)]

    def primary_ports(self) -> set[int]:
        """The primary's port, as each of the sentinels says it."""
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return {int(_ask(process, *command)[1]) for process in self.processes}

    def failover(self) -> None:
        """SENTINEL FAILOVER, once there isn't one under way any more."""

        def asked() -> bool:
            try:
                return bool(_ask(self.processes[0], "SENTINEL", "FAILOVER", NAME) == "OK")
            except redis.ResponseError as error:
                assert "INPROG" in str(error) or "NOGOODSLAVE" in str(error), error
                return False

        wait_until(asked, 30, "SENTINEL FAILOVER is taken")

    def client(self) -> redis.Redis:
        """redis-py's client of the primary."""
        fast = {"socket_timeout": 1.0, "retry": Retry(NoBackoff(), 0)}
        ports = [(LOOPBACK, process.port) for process in self.processes]
        found = Sentinel(ports, sentinel_kwargs=fast, **fast)  # type: ignore[arg-type]
        client: redis.Redis = found.master_for(NAME)
        return client


class SentinelWriter:
    """Appends unique values to one key, each followed by WAIT, in a thread. Those that `replicas`
    have are acknowledged; any other may be lost when the primary dies."""

    def __init__(self, sentinels: Sentinels, name: str, replicas: int) -> None:
        self.history = History(f"history:{name}")
        self.written = 0
        self._replicas = replicas
        self._client = sentinels.client()
        self._stop = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def halt(self) -> None:
        """End it; raises what went wrong."""
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the writer hangs"
        self._client.close()
        if self._problem is not None:
            raise self._problem

    def await_more(self, count: int = 20) -> None:
        """Wait until so many more writes were answered."""
        goal = self.written + count
        wait_until(lambda: self.written >= goal, 60, "answered writes")

    def _run(self) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                try:
                    self._write(str(number))
                except redis.RedisError:
                    self._stop.wait(0.02)
        except BaseException as problem:
            self._problem = problem

    def _write(self, value: str) -> None:
        history = self.history
        history.unknown.add(value)
        with self._client.pipeline(transaction=False) as pipe:
            pipe.append(history.key, value + ",")
            pipe.wait(self._replicas, WAIT_MS)
            _, have_it = pipe.execute()
        self.written += 1
        if have_it >= self._replicas:
            history.unknown.discard(value)
            history.acked.append(value)


def _ask(process: Server, *words: str) -> Any:
    client = process.client(decode_responses=True, protocol=2)
    try:
        # Without redis-py's own parsing of SENTINEL's replies.
        client.response_callbacks.clear()
        return client.execute_command(*words)
    finally:
        client.close()


def _fields(row: list[str]) -> dict[str, str]:
    return dict(zip(row[::2], row[1::2], strict=True))
