"""CLIENT PAUSE: what waits, in which order it goes on, and that nothing expires meanwhile."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from core import LaterCore
from harness import Conn, Server, encode_command, wait_until

from kvserver.expiry import expire_cycle
from kvserver.state.pause import ALL, NONE, WRITES, Pauses

# -- which pause is in force -------------------------------------------------------------------


class Timer:
    """What `call_later` gives."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due, self.callback = due, callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """Time that stands still until it is told to pass, with timers."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.timers: list[Timer] = []

    def __call__(self) -> int:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds * 1000, callback))
        return self.timers[-1]

    def armed(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, milliseconds: int) -> None:
        """Let time pass, and the timers go off that are due."""
        self.now += milliseconds
        for timer in self.armed():
            if timer.due <= self.now:
                timer.cancelled = True
                timer.callback()


class Scene:
    """Pauses under a clock, and the changes that they told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pauses = Pauses(self.clock.call_later, self.clock)
        self.changes: list[tuple[int, int]] = []
        self.pauses.on_change = lambda before, mode: self.changes.append((before, mode))

    def pause(self, purpose: str, milliseconds: int, mode: int) -> None:
        self.pauses.pause(purpose, self.clock.now + milliseconds, mode)

    def mode_after(self, milliseconds: int) -> int:
        self.clock.advance(milliseconds)
        return self.pauses.mode


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_pause_ends_by_a_timer(scene: Scene) -> None:
    assert scene.pauses.mode == NONE
    scene.pause("client", 100, WRITES)
    assert scene.mode_after(99) == WRITES
    assert scene.mode_after(1) == NONE
    assert scene.changes == [(NONE, WRITES), (WRITES, NONE)]
    assert not scene.clock.armed()


def test_the_later_end_wins(scene: Scene) -> None:
    scene.pause("client", 100, WRITES)
    scene.pause("client", 10, WRITES)
    assert scene.mode_after(99) == WRITES
    scene.pause("client", 50, WRITES)
    assert scene.mode_after(49) == WRITES
    assert scene.mode_after(1) == NONE


def test_the_stricter_mode_wins(scene: Scene) -> None:
    scene.pause("client", 100, ALL)
    scene.pause("client", 200, WRITES)
    assert scene.mode_after(199) == ALL
    assert scene.mode_after(1) == NONE
    scene.pause("client", 10, WRITES)
    assert scene.pauses.mode == WRITES


def test_purposes_are_kept_apart(scene: Scene) -> None:
    scene.pause("failover", 100, WRITES)
    scene.pause("client", 50, ALL)
    assert scene.pauses.in_force() == {"failover": (1_000_100, WRITES), "client": (1_000_050, ALL)}
    assert scene.mode_after(50) == WRITES
    scene.pauses.unpause("client")
    assert scene.pauses.mode == WRITES
    scene.pauses.unpause("failover")
    assert scene.pauses.mode == NONE
    assert scene.changes == [(NONE, WRITES), (WRITES, ALL), (ALL, WRITES), (WRITES, NONE)]


def test_an_end_in_the_past_is_no_pause(scene: Scene) -> None:
    scene.pause("client", 0, ALL)
    assert scene.pauses.mode == NONE
    assert scene.changes == []
    assert not scene.clock.armed()


def test_a_pause_that_ended_leaves_no_mode_behind(scene: Scene) -> None:
    """Also when its timer is late."""
    scene.pause("client", 10, ALL)
    scene.clock.now += 20
    scene.pause("client", 10, WRITES)
    assert scene.pauses.mode == WRITES


def test_a_timer_that_comes_too_early_is_set_again(scene: Scene) -> None:
    scene.pause("client", 100, ALL)
    [timer] = scene.clock.armed()
    timer.cancelled = True
    scene.clock.now += 90
    timer.callback()
    assert scene.pauses.mode == ALL
    assert scene.mode_after(10) == NONE


def test_a_pause_of_centuries_has_a_timer_of_a_day(scene: Scene) -> None:
    scene.pause("client", 1 << 60, ALL)
    [timer] = scene.clock.armed()
    assert timer.due - scene.clock.now == 86_400_000


# -- what waits --------------------------------------------------------------------------------


def blocked(server: Server) -> int:
    info = server.client(decode_responses=True).info("clients")
    return int(info["blocked_clients"])


def wait_for_blocked(server: Server, count: int) -> None:
    wait_until(lambda: blocked(server) == count)


def ready(conn: Conn) -> bool:
    return bool(select.select([conn.sock], [], [], 0)[0])


def waits(admin: redis.Redis, conn: Conn, *command: str) -> bool:
    """Whether the command is set aside; if not, its reply is taken."""
    conn.send(encode_command(*command))
    wait_until(lambda: ready(conn) or admin.info("clients")["blocked_clients"])
    if admin.info("clients")["blocked_clients"]:
        return True
    conn.reply()
    return False


COMMANDS = [
    *["GET k", "EXISTS k", "PING", "SET k v", "DEL k", "FLUSHALL", "PUBLISH c m", "SPUBLISH c m"],
    *["SUBSCRIBE c", "WATCH k", "UNWATCH", "MULTI", "EXEC", "DISCARD", "EXPIRE k 10", "GETEX k"],
    *["CONFIG SET timeout 0", "CLIENT ID", "HELLO 3", "INFO", "SELECT 1", "FOO", "SET k"],
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pause_of_writes_holds_back_what_redis_holds_back(
    command: str, server: Server, oracle: Server
) -> None:
    found = []
    for each in (server, oracle):
        admin = each.client(decode_responses=True)
        admin.client_pause(100_000, all=False)
        found.append(waits(admin, each.conn(), *command.split()))
        admin.client_unpause()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "queue", [[], ["GET k"], ["GET k", "SET k v"], ["PUBLISH c m"], ["CLIENT UNPAUSE"]], ids=str
)
def test_exec_waits_if_it_writes(queue: list[str], server: Server, oracle: Server) -> None:
    found = []
    for each in (server, oracle):
        admin, conn = each.client(decode_responses=True), each.conn()
        for command in ["MULTI", *queue]:
            conn.ask(*command.split())
        admin.client_pause(100_000, all=False)
        found.append(waits(admin, conn, "EXEC"))
        admin.client_unpause()
    assert found[0] == found[1]


def test_queueing_a_write_waits_too(server: Server, oracle: Server) -> None:
    for each in (server, oracle):
        admin, conn = each.client(decode_responses=True), each.conn()
        admin.client_pause(100_000, all=False)
        conn.ask("MULTI")
        assert conn.ask("GET", "k") == b"+QUEUED\r\n"
        assert waits(admin, conn, "SET", "k", "v")
        admin.client_unpause()
        assert conn.reply() == b"+QUEUED\r\n"
        assert conn.ask("EXEC") == b"*2\r\n$-1\r\n+OK\r\n"


def test_a_pause_of_all_holds_back_everything(server: Server) -> None:
    """Its own end included, as in Redis: it comes with time."""
    conn, other = server.conn(), server.conn()
    start = time.monotonic()
    assert conn.ask("CLIENT", "PAUSE", 300) == b"+OK\r\n"
    other.send(b"CLIENT UNPAUSE\r\n")
    conn.send(b"PING\r\nGET k\r\n")
    assert other.reply() == b"+OK\r\n"
    assert time.monotonic() - start > 0.29
    assert conn.reply() + conn.reply() == b"+PONG\r\n$-1\r\n"


def test_a_pause_ends_by_itself(server: Server) -> None:
    conn = server.conn()
    start = time.monotonic()
    conn.ask("CLIENT", "PAUSE", 200, "WRITE")
    assert conn.ask("SET", "k", "v") == b"+OK\r\n"
    assert 0.19 < time.monotonic() - start < 2


def test_a_shorter_pause_does_not_shorten(server: Server) -> None:
    conn = server.conn()
    start = time.monotonic()
    conn.ask("CLIENT", "PAUSE", 300, "WRITE")
    conn.ask("CLIENT", "PAUSE", 10, "WRITE")
    assert conn.ask("SET", "k", "v") == b"+OK\r\n"
    assert time.monotonic() - start > 0.29


# -- what is seen of it --------------------------------------------------------------------------


def test_who_waits_is_shown(server: Server) -> None:
    admin, conn = server.client(decode_responses=True), server.conn()
    number = int(conn.ask("CLIENT", "ID")[1:-2])
    admin.client_pause(100_000, all=False)
    assert waits(admin, conn, "SET", "k", "value")
    [line] = admin.client_list(client_id=[number])
    assert (line["flags"], line["cmd"], line["argv-mem"]) == ("b", "set", "9")
    assert admin.execute_command("CLIENT", "UNBLOCK", number) == 0
    admin.client_unpause()
    assert conn.reply() == b"+OK\r\n"
    assert blocked(server) == 0
    [line] = admin.client_list(client_id=[number])
    assert line["flags"] == "N"


@pytest.mark.parametrize("end", ["close", "kill"])
def test_who_leaves_is_forgotten(end: str, server: Server) -> None:
    admin, conn = server.client(decode_responses=True), server.conn()
    number = int(conn.ask("CLIENT", "ID")[1:-2])
    admin.client_pause(100_000, all=False)
    assert waits(admin, conn, "SET", "k", "v")
    if end == "close":
        conn.close()
    else:
        admin.client_kill_filter(_id=number)
    wait_until(lambda: not blocked(server))
    admin.client_unpause()
    assert admin.exists("k") == 0


# -- how it goes on ------------------------------------------------------------------------------


def test_commands_run_in_the_order_of_their_arrival(server: Server) -> None:
    admin = server.client(decode_responses=True)
    admin.client_pause(100_000, all=False)
    conns = [server.conn() for _ in range(10)]
    for number, conn in enumerate(conns):
        conn.send(encode_command("APPEND", "k", number) + encode_command("APPEND", "l", number))
        wait_for_blocked(server, number + 1)
    admin.client_unpause()
    assert [conn.reply() for conn in conns] == [b":%d\r\n" % (n + 1) for n in range(10)]
    assert admin.get("k") == "0123456789"
    assert sorted(admin.get("l")) == list("0123456789")


def test_what_was_pipelined_behind_stays_in_order(server: Server) -> None:
    admin, conn = server.client(decode_responses=True), server.conn()
    admin.client_pause(100_000, all=False)
    conn.send(b"PING 1\r\nSET k a\r\nGET k\r\nSET k b\r\nGET k\r\nPING 2\r\n")
    assert conn.reply() == b"$1\r\n1\r\n"
    wait_until(lambda: blocked(server))
    assert not ready(conn)
    admin.client_unpause()
    replies = [conn.reply() for _ in range(5)]
    assert replies == [b"+OK\r\n", b"$1\r\na\r\n", b"+OK\r\n", b"$1\r\nb\r\n", b"$1\r\n2\r\n"]


def test_a_transaction_may_end_the_pause(server: Server) -> None:
    """What waits runs after the whole of it."""
    admin, conn = server.client(decode_responses=True), server.conn()
    admin.set("k", "before")
    admin.client_pause(100_000, all=False)
    assert waits(admin, conn, "SET", "k", "after")
    transaction = server.conn()
    for command in ("MULTI", "CLIENT UNPAUSE", "GET k", "CONFIG SET timeout 0", "GET k"):
        transaction.ask(*command.split())
    before = b"$6\r\nbefore\r\n"
    assert transaction.ask("EXEC") == b"*4\r\n+OK\r\n" + before + b"+OK\r\n" + before
    assert conn.reply() == b"+OK\r\n"
    assert admin.get("k") == "after"


def test_much_that_waits_does_not_grow_without_bound(server: Server) -> None:
    """Behind a command that is held back only so much is read."""
    admin, conn = server.client(decode_responses=True), server.conn()
    admin.client_pause(100_000, all=False)
    conn.sock.settimeout(0.3)
    request = encode_command("SET", "k", bytes(1000)) * 1000
    sent = 0
    with pytest.raises(TimeoutError):
        for _ in range(100):
            sent += conn.sock.send(request)
    [line] = [line for line in admin.client_list() if line["flags"] == "b"]
    assert int(line["tot-mem"]) < 4 << 20
    conn.close()


# -- nothing expires -----------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[LaterCore]:
    with LaterCore(tmp_path / "db") as core:
        yield core


def test_a_pause_raises_the_gate_and_its_end_lowers_it(core: LaterCore) -> None:
    client = core.client()
    client.ask(b"CLIENT", b"PAUSE", b"100000", b"WRITE")
    assert core.dispatcher.gate
    client.ask(b"CLIENT", b"UNPAUSE")
    assert not core.dispatcher.gate


@pytest.mark.parametrize("mode", [b"WRITE", b"ALL"])
def test_nobody_deletes_expired_keys(core: LaterCore, mode: bytes) -> None:
    keyspace = core.server.keyspace
    client = core.client()
    client.ask(b"SET", b"k", b"v", b"PX", b"1000")
    core.server.pauses.pause("client", keyspace.now + 100_000, ALL if mode == b"ALL" else WRITES)
    keyspace.now += 2000
    assert keyspace.readers[0].row(b"k") is None
    expire_cycle(keyspace, 1_000_000)
    assert keyspace.total_keys() == 1
    core.server.pauses.unpause("client")
    expire_cycle(keyspace, 1_000_000)
    assert keyspace.total_keys() == 0


def test_an_expired_key_is_missing_while_paused(server: Server) -> None:
    client = server.client()
    client.set("k", "v", px=30)
    client.client_pause(100_000, all=False)
    wait_until(lambda: client.get("k") is None)
    assert client.dbsize() == 1
    client.client_unpause()
    wait_until(lambda: client.dbsize() == 0)
