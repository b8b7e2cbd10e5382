"""The wire: what a real server answers to good and bad bytes, this one answers too."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest import FreshServer
from harness import Conn, Server, encode_command, wait_until

KIB, MIB = 1 << 10, 1 << 20


def ended(conn: Conn, stream: bytes) -> bytes:
    """All that the server answers to a stream which it, or then the test, ends."""
    conn.send(stream)
    conn.sock.shutdown(socket.SHUT_WR)
    return conn.read_to_end()


# -- garbage -------------------------------------------------------------------------------

STREAMS = [
    b"*1\r\n$4\r\nPING\r\n",
    b"PING\r\n",
    b"PING\n",
    b"  ping  \r\n",
    b"\r\n\r\nPING\r\n",
    b"ECHO 'a b'\r\n",
    b'ECHO "\\x41\\n"\r\n',
    b"*0\r\n*-1\r\n*-10\r\nPING\r\n",
    b"*-2147483649\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n",
    b"*1\r\n$4\r\nPING__PING\r\n",
    b"*2147483648\r\n",
    b"*9223372036854775808\r\n",
    b"*x\r\n",
    b"*\r\n",
    b"*01\r\n",
    b"*1.5\r\n",
    b"*1 \r\n",
    b"*1\r\n:5\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nPING\r\n\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$abc\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*" + b"1" * 70_000,
    b"*1\r\n$" + b"1" * 70_000,
    b"a" * 70_000,
    b'SET "unbalanced\r\n',
    b"SET 'a'b c\r\n",
    b"PING\r\nPING\r\n*1\r\n!\r\nPING\r\n",
    b"$4\r\nPING\r\n",
    b"+OK\r\n-ERR\r\n:1\r\n",
    b"\xff\xfe\r\n",
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"POST / HTTP/1.1\r\n\r\nPING\r\n",
    b"PING\r\nQUIT\r\nPING\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\ncut",
    b"*3\r\n$3\r\nSET",
    b"CLIENT REPLY OFF\r\nPING\r\n*1\r\n!\r\n",
    b"CLIENT REPLY SKIP\r\nPING\r\nPING\r\n",
    b"PING" * 40 + b"\r\n",
    b"FOO " + b"x" * 200 + b" y\r\n",
]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: repr(stream[:24]))
def test_answers_of_a_real_server(server: Server, oracle: Server, stream: bytes) -> None:
    assert ended(server.conn(), stream) == ended(oracle.conn(), stream)
    assert server.conn().ask("PING") == b"+PONG\r\n"


def test_cut_at_every_byte(server: Server) -> None:
    stream = b"SET k 'v w'\r\n" + encode_command("GET", "k") + b"*0\r\n" + encode_command("PING")
    conn = server.conn()
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cut in range(1, len(stream)):
        conn.send(stream[:cut])
        conn.send(stream[cut:])
        assert conn.reply() + conn.reply() + conn.reply() == b"+OK\r\n$3\r\nv w\r\n+PONG\r\n"


def test_slow_drip(server: Server) -> None:
    conn = server.conn()
    for byte in encode_command("ECHO", "drip"):
        conn.send(bytes([byte]))
    assert conn.reply() == b"$4\r\ndrip\r\n"


# -- limits --------------------------------------------------------------------------------


def test_proto_max_bulk_len(server: Server) -> None:
    client = server.client()
    client.config_set("proto-max-bulk-len", "1mb")
    conn = server.conn()
    conn.send(b"*2\r\n$4\r\nECHO\r\n$1048577\r\n")
    assert conn.read_to_end() == b"-ERR Protocol error: invalid bulk length\r\n"
    assert len(server.conn().ask("ECHO", bytes(MIB))) == MIB + 12


def test_proto_max_bulk_len_concerns_open_connections(server: Server) -> None:
    conn = server.conn()
    assert conn.ask("PING") == b"+PONG\r\n"
    server.client().config_set("proto-max-bulk-len", "1mb")
    conn.send(b"*2\r\n$4\r\nECHO\r\n$1048577\r\n")
    assert conn.read_to_end() == b"-ERR Protocol error: invalid bulk length\r\n"


@contextmanager
def locked(server: Server) -> Iterator[None]:
    """The server asks for the password `secret`."""
    admin = server.client()
    admin.config_set("requirepass", "secret")
    yield
    admin.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"*11\r\n", b"unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", b"unauthenticated bulk length"),
        (b"*10\r\n$16384\r\n", b""),
    ],
)
def test_limits_before_authentication(
    server: Server, oracle: Server, stream: bytes, text: bytes
) -> None:
    for each in (server, oracle):
        with locked(each):
            answer = ended(each.conn(), stream)
            assert answer == (b"-ERR Protocol error: %b\r\n" % text if text else b"")


def test_auth_and_what_it_allows_in_one_piece(server: Server) -> None:
    with locked(server):
        conn = server.conn()
        conn.send(
            encode_command("AUTH", "secret")
            + encode_command("ECHO", bytes(100_000))
            + encode_command("DEL", *map(str, range(20)))
            + b"PING\r\n"
        )
        assert conn.reply() == b"+OK\r\n"
        assert conn.reply() == b"$100000\r\n%b\r\n" % bytes(100_000)
        assert conn.reply() + conn.reply() == b":0\r\n+PONG\r\n"


def test_a_wrong_password_and_what_it_does_not_allow(server: Server) -> None:
    with locked(server):
        conn = server.conn()
        conn.send(encode_command("AUTH", "wrong") + encode_command("ECHO", bytes(100_000)))
        assert conn.reply().startswith(b"-WRONGPASS")
        assert conn.read_to_end() == b"-ERR Protocol error: unauthenticated bulk length\r\n"


def test_query_buffer_limit(server: Server) -> None:
    client = server.client(decode_responses=True)
    client.config_set("client-query-buffer-limit", "1mb")
    conn = server.conn()
    conn.send(b"*2\r\n$4\r\nECHO\r\n$4000000\r\n")
    with pytest.raises(ConnectionError):
        for _ in range(64):
            conn.send(bytes(65536))
        conn.read_line()
    assert client.info("stats")["client_query_buffer_limit_disconnections"] == 1


def test_declared_lengths_cost_nothing(server: Server) -> None:
    conns = [server.conn() for _ in range(50)]
    before = rss(server)
    for conn in conns:
        conn.send(b"*1000000\r\n$536870912\r\nx")
    assert server.conn().ask("PING") == b"+PONG\r\n"
    assert rss(server) - before < 8 * MIB


def rss(server: Server) -> int:
    with open(f"/proc/{server.pid}/status") as status:
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
    assert found is not None
    return int(found[1]) * KIB


# -- the end of a connection -----------------------------------------------------------------


def test_a_peer_that_ends_its_side_gets_its_replies(server: Server) -> None:
    assert ended(server.conn(), b"SET k v\r\n" + b"GET k\r\n" * 1000) == (
        b"+OK\r\n" + b"$1\r\nv\r\n" * 1000
    )


def test_all_that_was_sent_before_the_end_is_executed(server: Server) -> None:
    """Also when the replies had to wait for the peer to read."""
    server.client().set("big", bytes(MIB))
    answer = ended(server.conn(), b"GET big\r\n" * 20 + b"SET last 1\r\n")
    assert answer == (b"$1048576\r\n" + bytes(MIB) + b"\r\n") * 20 + b"+OK\r\n"
    assert server.client().get("last") == b"1"


def test_requests_after_quit_are_not_executed(server: Server) -> None:
    conn = server.conn()
    conn.send(b"QUIT\r\nSET k v\r\n")
    assert conn.read_to_end() == b"+OK\r\n"
    assert server.client().exists("k") == 0


# -- output that nobody reads ----------------------------------------------------------------


def test_a_client_that_does_not_read_is_held_back(server: Server) -> None:
    """Its requests aren't executed, and aren't even read, until it takes the replies."""
    client = server.client(decode_responses=True)
    client.set("big", "x" * MIB)
    before = rss(server)
    conn = server.conn()
    conn.sock.settimeout(0.3)
    requests = b"GET big\r\n" * 100_000
    with pytest.raises(TimeoutError):
        for _ in range(100):
            conn.send(requests)
    assert client.ping()
    assert rss(server) - before < 32 * MIB
    assert client.info("commandstats")["cmdstat_get"]["calls"] < 100


def test_a_client_that_reads_late_gets_everything_in_order(server: Server) -> None:
    client = server.client()
    for number in range(4):
        client.set(f"k{number}", bytes([number]) * 300_000)
    conn = server.conn()
    for _ in range(25):
        conn.send(b"GET k0\r\nINCR n\r\nGET k1\r\nGET k2\r\nGET k3\r\n")
    wait_until(lambda: int(client.get("n") or 0) > 0)
    for count in range(1, 26):
        for number in range(4):
            assert conn.reply() == b"$300000\r\n%b\r\n" % (bytes([number]) * 300_000)
            if number == 0:
                assert conn.reply() == b":%d\r\n" % count


def clog(server: Server, size: int) -> Conn:
    """A connection that asked for `size` bytes and doesn't read them."""
    server.client().set("big", bytes(size))
    conn = server.conn()
    conn.send(b"GET big\r\n")
    return conn


def disconnections(server: Server) -> int:
    info = server.client(decode_responses=True).info("stats")
    return int(info["client_output_buffer_limit_disconnections"])


def is_cut(conn: Conn, size: int) -> bool:
    return len(conn.read_to_end()) < size


def test_hard_output_limit(server: Server) -> None:
    server.client().config_set("client-output-buffer-limit", "normal 8mb 0 0")
    conn = clog(server, 32 * MIB)
    wait_until(lambda: disconnections(server) == 1)
    assert is_cut(conn, 32 * MIB)


def test_soft_output_limit(server: Server) -> None:
    server.client().config_set("client-output-buffer-limit", "normal 0 8mb 1")
    start = time.monotonic()
    conn = clog(server, 32 * MIB)
    wait_until(lambda: disconnections(server) == 1)
    assert time.monotonic() - start > 1
    assert is_cut(conn, 32 * MIB)


def test_the_soft_limit_spares_who_reads_in_time(server: Server) -> None:
    server.client().config_set("client-output-buffer-limit", "normal 0 8mb 1")
    conn = clog(server, 32 * MIB)
    assert len(conn.reply()) == 32 * MIB + 13
    assert conn.ask("PING") == b"+PONG\r\n"
    assert disconnections(server) == 0


@pytest.mark.parametrize("limit", ["pubsub 4mb 0 0", "pubsub 0 4mb 1"])
def test_output_limit_of_subscribers(server: Server, limit: str) -> None:
    client = server.client()
    client.config_set("client-output-buffer-limit", limit)
    slow, other = server.conn(), server.conn()
    slow.ask("SUBSCRIBE", "c")
    other.ask("SUBSCRIBE", "d")
    message = bytes(MIB)

    def published() -> bool:
        client.publish("c", message)
        return disconnections(server) == 1

    wait_until(published)
    assert is_cut(slow, 100 * MIB)
    client.publish("d", "still here")
    assert b"still here" in other.reply()


# -- long pipelines and large values ---------------------------------------------------------


def test_pipeline_of_a_hundred_thousand(server: Server) -> None:
    client = server.client()
    pipeline = client.pipeline(transaction=False)
    for _ in range(100_000):
        pipeline.incr("n")
    assert pipeline.execute() == list(range(1, 100_001))


def test_large_values_pass_and_the_memory_comes_back(fresh_server: FreshServer) -> None:
    """Eight clients set and get 64 MB each at once."""
    size, count = 64 * MIB, 8
    server = fresh_server(appendfsync="no")
    start = rss(server)

    def set_and_get(number: int) -> bool:
        conn, value = server.conn(), bytes([65 + number]) * size
        conn.sock.settimeout(60)
        assert conn.ask("SET", number, value) == b"+OK\r\n"
        conn.send(encode_command("GET", number))
        assert conn.read_line() == b"$%d\r\n" % size
        return conn.read_exactly(size) == value and conn.read_exactly(2) == b"\r\n"

    with ThreadPoolExecutor(count) as threads:
        assert all(threads.map(set_and_get, range(count)))
    assert server.client().flushall()
    # What may stay: RocksDB's caches and write buffers, a little of the allocator's.
    wait_until(lambda: rss(server) - start < 300 * MIB, 30)


@pytest.mark.parametrize("ends", [False, True], ids=["stays", "ends its side"])
def test_many_requests_at_once_do_not_keep_others_waiting(server: Server, ends: bool) -> None:
    """Each takes longer than a client has at once; all came in one packet."""
    rounds = 40
    script = "local n = 0; while n < 300000 do n = n + 1 end; return redis.call('INCR', KEYS[1])"
    other = server.client(decode_responses=True)
    other.delete("n")
    with server.conn() as conn:
        conn.send(encode_command("EVAL", script, "1", "n") * rounds)
        if ends:
            conn.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: other.get("n"), what="it has begun")
        assert int(other.get("n")) < rounds
        conn.send(b"PING\r\n") if not ends else None
        replies = [conn.reply() for _ in range(rounds)]
        assert replies == [b":%d\r\n" % number for number in range(1, rounds + 1)]
        assert ends or conn.reply() == b"+PONG\r\n"
