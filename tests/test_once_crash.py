"""ONCE across crashes: a command that was sent again after kill -9 counts once; and the recipe of
docs/exactly-once.md does what it says.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datadir
import pytest
import redis
from harness import KVSERVER, Server, encode_command, wait_until
from test_crash import STEPS, crashing_at

DOCUMENT = Path(__file__).parent.parent / "docs" / "exactly-once.md"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Server]:
    """A server that is about to crash."""
    server = Server(tmp_path / "data", {"appendfsync": "always"})
    yield server
    server.close()


def recipe() -> dict[str, Any]:
    """The names that the document's program defines."""
    (program,) = re.findall(
        r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(compile(program, str(DOCUMENT), "exec"), names)
    return names


# -- one command, killed at each step ------------------------------------------------------------


@pytest.mark.parametrize("label", STEPS)
@pytest.mark.parametrize("protocol", [2, 3])
def test_killed_between_write_and_reply(victim: Server, label: str, protocol: int) -> None:
    """The reply never came; the repetition is answered as the first would have been, whether that
    was executed or not, and counts once."""
    victim.start()
    client = victim.client(protocol=protocol)
    assert client.execute_command("ONCE", "w", 1, "INCR", "a") == 1
    client.close()
    victim.terminate()
    victim.program = crashing_at(label, 2)  # the first is the SET below
    victim.start()
    client = victim.client(protocol=protocol)
    client.set("b", "x")
    with pytest.raises(redis.ConnectionError):
        client.execute_command("ONCE", "w", 2, "INCR", "a")
    assert victim.wait_exit() == -9
    datadir.check(victim.directory / "db")
    written = log_rows(victim)[b"w" + b"w"][:8]
    executed = label in ("commit.written", "sync.begin", "sync.done")
    assert int.from_bytes(written, "big") == 1 + executed
    victim.program = KVSERVER
    victim.start()
    client = victim.client(protocol=protocol)
    for _ in range(3):
        assert client.execute_command("ONCE", "w", 2, "INCR", "a") == 2
        assert client.execute_command("ONCE", "w", 1, "INCR", "a") == 1
    assert client.get("a") == b"2"


def log_rows(server: Server) -> dict[bytes, bytes]:
    """The rows of the log in a stopped server's directory."""
    return datadir.read(server.directory / "db")["log"]


def test_killed_after_the_reply_left(victim: Server) -> None:
    """A pipeline whose replies nobody read, a transaction among them."""
    victim.directives["appendfsync"] = "no"
    victim.start()
    calls = b"".join(
        encode_command(*words)
        for words in (
            ("ONCE", "w", 1, "SET", "a", "5"),
            ("MULTI",),
            ("INCR", "a"),
            ("GET", "none"),
            ("ONCE", "w", 2, "EXEC"),
            ("ONCE", "w", 3, "GETDEL", "a"),
        )
    )
    conn = victim.conn()
    conn.send(calls)
    reader = victim.client()
    wait_until(lambda: reader.info("commandstats").get("cmdstat_getdel"))
    victim.kill9()
    victim.start()
    with victim.conn() as conn:
        conn.send(calls)
        replies = [conn.reply() for _ in range(6)]
    assert replies[0] == b"+OK\r\n"
    assert replies[4] == b"*2\r\n:6\r\n$-1\r\n"
    assert replies[5] == b"$1\r\n6\r\n"
    assert victim.client().exists("a") == 0


# -- the recipe ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_recipe(server: Server, protocol: int) -> None:
    names = recipe()
    client = server.client(protocol=protocol)
    writer = names["Writer"](client)
    assert [names["count_visit"](writer, "home") for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert writer.transaction(("INCR", "visits:home"), ("GET", "none")) == [8, None]
    client.set("text", "x")
    for wrong in (("INCR", "text"), ("NOPE",), ("PING",)):
        with pytest.raises(redis.ResponseError):
            writer.execute(*wrong)
    assert writer.execute("INCR", "visits:home") == 9


def test_the_recipe_gives_up(victim: Server) -> None:
    victim.start()
    writer = recipe()["Writer"](victim.client(), seconds=0.2)
    victim.kill9()
    with pytest.raises(redis.ConnectionError):
        writer.execute("INCR", "a")
    victim.start()
    assert writer.execute("INCR", "a") == 1


class Counters(threading.Thread):
    """A client that counts by the recipe until it is told to stop."""

    def __init__(self, server: Server, name: str, protocol: int) -> None:
        super().__init__()
        self.writer = recipe()["Writer"](server.client(protocol=protocol), seconds=60)
        self.counter = name
        self.counted = 0
        self.ended = threading.Event()
        self.wrong: list[Any] = []

    def run(self) -> None:
        while not self.ended.is_set():
            if self.counted % 3:
                replies = [self.writer.execute("INCR", self.counter)]
            else:
                replies = self.writer.transaction(("INCR", self.counter))
            self.counted += 1
            if replies != [self.counted]:
                self.wrong.append((replies, self.counted))


@pytest.mark.parametrize("label", ["commit.write", "commit.written", "sync.done"])
def test_counting_through_crashes(victim: Server, label: str) -> None:
    """The server kills itself again and again; no INCR is lost, none counts twice."""
    victim.start()
    counters = [Counters(victim, f"c{protocol}", protocol) for protocol in (2, 3)]
    for counter in counters:
        counter.start()
    try:
        for number in (3, 17, 40):
            counted = [counter.counted for counter in counters]
            wait_until(
                lambda c=counted: all(x.counted > n for x, n in zip(counters, c, strict=True))
            )
            restart_crashing(victim, label, number)
    finally:
        for counter in counters:
            counter.ended.set()
        with contextlib.suppress(AssertionError):
            if not victim.alive:
                victim.program = KVSERVER
                victim.start()
        for counter in counters:
            counter.join(90)
    client = victim.client()
    for counter in counters:
        assert counter.wrong == []
        assert int(client.get(counter.counter) or 0) == counter.counted


def restart_crashing(server: Server, label: str, number: int) -> None:
    """Start anew as a server that will crash while it is written to, see that happen, start."""
    server.kill9()
    server.program = crashing_at(label, number)
    server.spawn()  # clients write to it as soon as it listens: it may be gone before a PING
    assert server.wait_exit() == -9
    server.program = KVSERVER
    server.start()
