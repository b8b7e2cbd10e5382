"""Where the server listens: addresses, the unix socket, changes at run time; who may come in; the
limit of open files; command names."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from core import Client, Core
from harness import KVSERVER, Conn, Program, Server, directive_args, free_port, wait_until

import kvserver
from kvserver.edge.clients import DENIED, Clients

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(kvserver.__file__).parent.parent)}


def refusal(directory: Path, **directives: Any) -> str:
    """Start a server that must not come up: its one line on standard error."""
    named = {name.replace("_", "-"): value for name, value in directives.items()}
    options = directive_args({"dir": str(directory), "bind": "127.0.0.1", **named})
    run = subprocess.run(
        [sys.executable, "-m", "kvserver", *options],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT,
    )
    assert run.returncode == 1, run.stdout
    (line,) = run.stderr.splitlines()
    return line


def answer(host: str, port: int, family: int = socket.AF_INET) -> bytes:
    """What PING is answered with there, until the server closes or says PONG."""
    with socket.socket(family) as sock:
        sock.settimeout(10)
        sock.connect((host, port))
        return Conn(sock).ask("PING")


PONG = b"+PONG\r\n"


# -- addresses ---------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@needs_ipv6
def test_several_addresses(fresh_server: FreshServer) -> None:
    server = fresh_server(bind=["127.0.0.1", "127.0.0.2", "-::1"])
    for host, family in (
        ("127.0.0.1", socket.AF_INET),
        ("127.0.0.2", socket.AF_INET),
        ("::1", socket.AF_INET6),
    ):
        assert answer(host, server.port, family) == PONG
    with pytest.raises(ConnectionRefusedError):
        answer("127.0.0.3", server.port)
    assert server.log_text().count(f":{server.port}") == 3


@needs_ipv6
def test_wildcards_of_both_families(fresh_server: FreshServer) -> None:
    server = fresh_server(bind=["*", "-::*"])
    assert answer("127.0.0.3", server.port) == PONG
    with socket.socket(socket.AF_INET6) as sock:
        sock.connect(("::1", server.port))
        conn = Conn(sock)
        assert conn.ask("PING") == PONG
        addr = re.search(rb" addr=(\S+) laddr=(\S+) ", conn.ask("CLIENT", "INFO"))
        assert addr is not None
        assert addr[1].startswith(b"[::1]:")
        assert addr[2] == b"[::1]:%d" % server.port


#: TEST-NET-3: no machine has an address of it.
NOWHERE = "203.0.113.77"


def test_an_optional_address_may_be_missing(fresh_server: FreshServer) -> None:
    server = fresh_server(bind=["127.0.0.1", "-" + NOWHERE])
    assert answer("127.0.0.1", server.port) == PONG


def test_refused_addresses(tmp_path: Path) -> None:
    port = free_port()
    assert refusal(tmp_path, port=port, bind=["127.0.0.1", NOWHERE]) == (
        f"kvserver: can't listen on {NOWHERE} port {port}: Cannot assign requested address"
    )
    assert refusal(tmp_path, port=port, bind="-" + NOWHERE) == (
        f"kvserver: can't listen on port {port}: no address of `bind` is there"
    )
    assert "no-such-host.invalid port" in refusal(tmp_path, port=port, bind="no-such-host.invalid")
    assert refusal(tmp_path, port=0) == (
        "kvserver: nothing to listen on: set port, tls-port or unixsocket"
    )


@pytest.mark.parametrize("bind", ["127.0.0.1", "-127.0.0.1"])
def test_an_address_in_use_is_refused(tmp_path: Path, bind: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        assert refusal(tmp_path, port=port, bind=bind) == (
            f"kvserver: can't listen on 127.0.0.1 port {port}: Address already in use"
        )


# -- changes at run time -------------------------------------------------------------------------


def test_port_at_run_time(fresh_server: FreshServer) -> None:
    server = fresh_server()
    client, old, new = server.client(), server.port, free_port()
    assert client.config_set("port", new)
    assert wait_until(lambda: answer("127.0.0.1", new)) == PONG
    with pytest.raises(ConnectionRefusedError):
        answer("127.0.0.1", old)
    assert client.ping()
    assert client.config_set("port", old)
    assert answer("127.0.0.1", old) == PONG


def test_bind_at_run_time(fresh_server: FreshServer) -> None:
    server = fresh_server()
    client = server.client()
    assert client.config_set("bind", "127.0.0.1 127.0.0.2 -" + NOWHERE)
    assert answer("127.0.0.2", server.port) == PONG
    assert client.config_set("bind", "127.0.0.1")
    with pytest.raises(ConnectionRefusedError):
        answer("127.0.0.2", server.port)
    assert answer("127.0.0.1", server.port) == PONG


def test_a_port_that_is_taken_changes_nothing(fresh_server: FreshServer) -> None:
    server = fresh_server()
    client = server.client(decode_responses=True)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = other.getsockname()[1]
        with pytest.raises(redis.ResponseError, match=r"\(possibly related to argument 'port'\)"):
            client.config_set("port", taken)
    assert client.config_get("port") == {"port": str(server.port)}
    assert answer("127.0.0.1", server.port) == PONG


# -- the unix socket -----------------------------------------------------------------------------


def unix_conn(path: Path) -> Conn:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return Conn(sock)


@pytest.mark.parametrize("permissions", ["700", "770"])
def test_unix_socket(fresh_server: FreshServer, tmp_path: Path, permissions: str) -> None:
    path = tmp_path / "s"
    server = fresh_server(unixsocket=str(path), unixsocketperm=permissions)
    assert stat.S_IMODE(path.stat().st_mode) == int(permissions, 8)
    with unix_conn(path) as conn:
        assert conn.ask("PING") == PONG
        line = conn.ask("CLIENT", "INFO")
        assert b" addr=%b:0 laddr=%b:0 " % (bytes(path), bytes(path)) in line
        assert b" flags=U " in line
    assert server.client().ping()
    assert server.terminate() == 0
    assert not path.exists()


def test_a_unix_socket_left_behind_is_replaced(fresh_server: FreshServer, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = fresh_server(unixsocket=str(path))
    server.kill9()
    assert path.is_socket()
    server.start()
    with unix_conn(path) as conn:
        assert conn.ask("PING") == PONG


def test_a_path_that_is_taken_is_refused(fresh_server: FreshServer, tmp_path: Path) -> None:
    path, file = tmp_path / "s", tmp_path / "file"
    file.write_text("precious")
    fresh_server(unixsocket=str(path))
    other = tmp_path / "other"
    assert refusal(other, port=free_port(), unixsocket=str(path)) == (
        f"kvserver: can't listen on {path}: Address already in use"
    )
    assert refusal(other, port=free_port(), unixsocket=str(file)) == (
        f"kvserver: can't listen on {file}: there is a file that isn't a socket"
    )
    assert file.read_text() == "precious"
    with unix_conn(path) as conn:
        assert conn.ask("PING") == PONG


# -- who may come in -----------------------------------------------------------------------------


def other_address() -> str | None:
    """An address of this machine that isn't loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((NOWHERE, 9))
        except OSError:
            return None
        address: str = sock.getsockname()[0]
        return None if address.startswith("127.") else address


def test_protected_mode_over_the_network(fresh_server: FreshServer) -> None:
    address = other_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    server = fresh_server(bind=["127.0.0.1", address])
    client = server.client()
    assert answer(address, server.port).startswith(b"-DENIED Redis is running in protected mode")
    assert client.info("stats")["rejected_connections"] == 1
    client.config_set("protected-mode", "no")
    assert answer(address, server.port) == PONG
    client.config_set("protected-mode", "yes")
    client.config_set("requirepass", "secret")
    assert answer(address, server.port).startswith(b"-NOAUTH")


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db") as core:
        yield core


@pytest.mark.parametrize(
    ("peer", "admitted"),
    [
        (("127.0.0.1", 1), True),
        (("127.8.9.10", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("::ffff:192.0.2.1", 1, 0, 0), False),
        (("192.0.2.1", 1), False),
        (("10.0.0.1", 1), False),
        (("2001:db8::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), False),
    ],
)
def test_protected_mode(core: Core, peer: tuple[Any, ...], admitted: bool) -> None:
    clients = Clients(core.server)
    session = clients.new_session(Client(core, 1), "peer", "here")
    assert clients.admit(session, peer) == (None if admitted else DENIED)
    assert (session.id in core.server.sessions) == admitted
    unix = clients.new_session(Client(core, 2), "/s:0", "/s:0")
    unix.unix = True
    assert clients.admit(unix, "") is None


@pytest.mark.parametrize("seconds", [0, 77])
def test_tcp_keepalive(fresh_server: FreshServer, seconds: int) -> None:
    server = fresh_server(tcp_keepalive=seconds)
    conn = server.conn()
    assert conn.ask("PING") == PONG
    assert keepalive_timer(server.port, conn.sock.getsockname()[1]) == (seconds > 0)


def keepalive_timer(local: int, remote: int) -> bool:
    """Whether the kernel's table of sockets shows a keepalive timer for a connection."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{local:04X}") and words[2].endswith(f":{remote:04X}"):
            return words[5].startswith("02:")
    raise AssertionError("no such connection")


# -- redis-cli -----------------------------------------------------------------------------------


def test_redis_cli_pipe(server: Server) -> None:
    """`redis-cli --pipe` with 100,000 commands, in the protocol and inline."""
    commands = b"".join(b"SET key:%d value:%d\r\n" % (n, n) for n in range(50_000))
    commands += b"".join(
        b"*3\r\n$3\r\nSET\r\n$%d\r\nkey:%d\r\n$1\r\nv\r\n" % (len(str(n)) + 4, n)
        for n in range(50_000, 100_000)
    )
    run = subprocess.run(
        ["redis-cli", "-p", str(server.port), "--pipe"],
        input=commands,
        capture_output=True,
        timeout=60,
    )
    assert b"errors: 0, replies: 100000" in run.stdout
    assert server.client().dbsize() == 100_000


# -- the limit of open files -----------------------------------------------------------------------


def limited(soft: int, hard: int) -> Program:
    """kvserver under a limit of open files, without the right to raise the hard one."""
    setpriv = ["setpriv", "--bounding-set=-sys_resource"] if os.geteuid() == 0 else []
    script = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    command = ("bash", "-c", script, "bash", *setpriv, *KVSERVER.command)
    return Program("kvserver", command, KVSERVER.directives)


def open_files(server: Server) -> int:
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    found = re.search(r"Max open files\s+(\d+)", limits)
    assert found is not None
    return int(found[1])


def test_the_limit_of_open_files_is_raised(fresh_server: FreshServer) -> None:
    server = fresh_server(
        program=limited(100, 5000), maxclients=1000, **{"rocksdb.max_open_files": 500}
    )
    assert 1500 < open_files(server) <= 5000
    assert server.client(decode_responses=True).config_get("maxclients") == {"maxclients": "1000"}


def test_where_it_cannot_be_raised_fewer_clients_are_let_in(fresh_server: FreshServer) -> None:
    server = fresh_server(program=limited(200, 300))
    client = server.client(decode_responses=True)
    most = int(client.config_get("maxclients")["maxclients"])
    assert 50 < most < 300
    assert "Raise `ulimit -n` for more" in server.log_text()
    conns = [server.conn() for _ in range(most)]
    assert conns[-1].read_to_end() == b"-ERR max number of clients reached\r\n"
    assert client.set("k", "v")


# -- rename-command -------------------------------------------------------------------------------


@pytest.fixture
def conf(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "kvserver.conf"
        path.write_text(text)
        return str(path)

    return write


def test_rename_command(fresh_server: FreshServer, conf: Callable[[str], str]) -> None:
    path = conf('rename-command FLUSHALL ""\nrename-command Config secret-config\n')
    conn = fresh_server(args=(path,)).conn()
    assert conn.ask("FLUSHALL").startswith(b"-ERR unknown command 'FLUSHALL'")
    assert conn.ask("CONFIG", "GET", "port").startswith(b"-ERR unknown command 'CONFIG'")
    assert conn.ask("SECRET-config", "GET", "port").startswith(b"*2\r\n$4\r\nport\r\n")
    assert conn.ask("FLUSHDB") == b"+OK\r\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("rename-command NOSUCH x", "no such command: NOSUCH"),
        ("rename-command GET set", "target command name already exists: set"),
        ("rename-command GET", "wrong number of arguments"),
    ],
)
def test_a_wrong_rename_is_refused_with_its_line(
    tmp_path: Path, conf: Callable[[str], str], line: str, reason: str
) -> None:
    path = conf(f"port 0\n{line}\n")
    run = subprocess.run(
        [sys.executable, "-m", "kvserver", path, "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"kvserver: {path} line 2: 'rename-command ...': {reason}")
