"""Hostile input: thousands of mutated requests. The server lives, its memory is bounded, and
every other client goes on unhurt.

`HOSTILE_SEED=n` repeats the run of seed n, which each run prints.
"""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Conn, Server, encode_command, wait_until

SEED = int(os.environ.get("HOSTILE_SEED", "20240729"))
REQUESTS = 6000
CONNECTIONS = 40
MIB = 1 << 20

COMMANDS = [
    *["PING", "ECHO hello", "SET k{} value", "GET k{}", "DEL k{}", "APPEND k{} x", "INCR n{}"],
    *["MGET k{} k{} k{}", "MSET k{} a k{} b", "EXPIRE k{} 100", "TTL k{}", "TYPE k{}"],
    *["MULTI", "EXEC", "DISCARD", "WATCH k{}", "SUBSCRIBE c{}", "PUBLISH c{} m", "RESET"],
    *["HELLO 3", "HELLO 2", "CLIENT INFO", "CLIENT SETNAME n{}", "CLIENT REPLY SKIP", "SELECT 1"],
    *["AUTH default x", "SCAN 0 COUNT 10", "EXISTS k{}", "GETEX k{} PERSIST", "COMMAND COUNT"],
    *["PSUBSCRIBE p*", "OBJECT ENCODING k{}", "SET k{} v PX 100 NX GET", "INFO server", "QUIT"],
]

Mutation = Callable[[random.Random, bytes], bytes]


def request(rng: random.Random) -> bytes:
    """A valid request, in the protocol or inline."""
    words = [word.replace("{}", str(rng.randrange(50))) for word in rng.choice(COMMANDS).split()]
    if rng.random() < 0.1:
        words.append("x" * rng.randrange(5000))
    if rng.random() < 0.15:
        return " ".join(words).encode() + b"\r\n"
    return encode_command(*words)


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_out(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 10) :]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 20)) + data[at:]


def repeat(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start:] * rng.randint(2, 50)


LENGTHS = [-1, -2, 0, 1, 2, 7, 1023, 1024, 16385, 65536, 1 << 20, (1 << 29) - 1, 1 << 29]
LENGTHS += [(1 << 29) + 1, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 10**30]


def wrong_length(rng: random.Random, data: bytes) -> bytes:
    """Another number, maybe a huge one, after one of the * and $."""
    marks = [at for at, byte in enumerate(data) if byte in b"*$"]
    if not marks:
        return b"*%d\r\n" % rng.choice(LENGTHS) + data
    at = rng.choice(marks) + 1
    end = data.find(b"\r\n", at)
    return data[:at] + b"%d" % rng.choice(LENGTHS) + data[end if end >= 0 else len(data) :]


def nest(rng: random.Random, data: bytes) -> bytes:
    return b"*%d\r\n" % rng.randint(1, 5) * rng.randint(1, 100) + data


def another_type(rng: random.Random, data: bytes) -> bytes:
    """An argument that isn't a bulk string: null, number, map, push, boolean, big number."""
    other = rng.choice(
        [b"$-1\r\n", b":7\r\n", b"+OK\r\n", b"_\r\n", b"%1\r\n", b">1\r\n", b"#t\r\n"]
    )
    return data.replace(b"$", other + b"$", 1)


def other_line_breaks(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b"\r\n", rng.choice([b"\n", b"\r", b"\n\r", b"\r\n\r\n", b"\0"]))


def endless(rng: random.Random, data: bytes) -> bytes:
    """A line without an end."""
    return rng.choice([b"*", b"$", b"", b'"', b"\0"]) + rng.choice([b"1", b"a", b" "]) * 70_000


def noise(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(len(data))


def unchanged(rng: random.Random, data: bytes) -> bytes:
    return data


MUTATIONS: dict[Mutation, int] = {
    flip_bits: 20,
    cut: 10,
    cut_out: 10,
    insert: 10,
    repeat: 5,
    wrong_length: 20,
    nest: 5,
    another_type: 10,
    other_line_breaks: 5,
    endless: 1,
    noise: 5,
    unchanged: 10,
}


class Attacker:
    """One hostile connection, opened again when the server closes it."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        self.server, self.rng = server, rng
        self.sock = self._open()
        self.answered = 0

    def _open(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.server.port), 10)
        sock.setblocking(False)
        return sock

    def attack(self) -> None:
        """Send a mutated request, whole or in drips, and take what came back meanwhile."""
        [mutation] = self.rng.choices(list(MUTATIONS), MUTATIONS.values())
        data = mutation(self.rng, request(self.rng))
        step = self.rng.choice([1, 3, 17]) if self.rng.random() < 0.1 else len(data) or 1
        try:
            for at in range(0, min(len(data), 100 * step), step):
                self._send(data[at : at + step])
            self._take()
        except OSError:
            self.close()
            self.sock = self._open()
        if self.rng.random() < 0.02:
            self.close()
            self.sock = self._open()

    def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                select.select([self.sock], [self.sock], [], 1.0)
                self._take()

    def _take(self) -> None:
        try:
            while data := self.sock.recv(65536):
                self.answered += len(data)
        except BlockingIOError:
            return
        raise ConnectionError("closed")

    def close(self) -> None:
        self.sock.close()


class Witness:
    """An ordinary client among them: each of its replies must be right, and come in time."""

    def __init__(self, conn: Conn) -> None:
        self.conn = conn
        self.count = 0
        self.slowest = 0.0

    def look(self) -> None:
        start = time.perf_counter()
        self.count += 1
        assert self.conn.ask("INCR", "witness") == b":%d\r\n" % self.count
        self.slowest = max(self.slowest, time.perf_counter() - start)


def resident(server: Server) -> int:
    """Bytes of memory of the process."""
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("password", ["", "secret"])
def test_mutated_requests(server: Server, password: str) -> None:
    print("HOSTILE_SEED", SEED)
    admin = server.client(decode_responses=True)
    witness = Witness(server.conn())
    witness.look()
    admin.config_set("requirepass", password)
    before = resident(server)
    rng = random.Random(f"{SEED} {password}")
    attackers = [Attacker(server, rng) for _ in range(CONNECTIONS)]
    for number in range(REQUESTS):
        attackers[number % CONNECTIONS].attack()
        if not number % 20:
            witness.look()
    assert resident(server) - before < 128 * MIB
    for attacker in attackers:
        attacker.close()
    assert sum(attacker.answered for attacker in attackers) > REQUESTS
    assert server.conn().ask("PING")[:5] == (b"-NOAU" if password else b"+PONG")
    wait_until(lambda: admin.info("clients")["connected_clients"] < 5)
    assert witness.slowest < 2
    admin.config_set("requirepass", "")
    assert server.log_text(server.log_mark).count("Traceback") == 0
