"""Starting and stopping: the command line, signals, SHUTDOWN, backups, systemd, the pid file."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from harness import Server, encode_command, wait_until

import kvserver

FreshServer = Callable[..., Server]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(kvserver.__file__).parent.parent)}


def run_cli(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "kvserver", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_version(flag: str) -> None:
    run = run_cli(flag)
    assert (run.returncode, run.stdout) == (0, f"kvserver v={kvserver.__version__}\n")


def test_help_names_the_ways_to_start() -> None:
    run = run_cli("--help")
    assert run.returncode == 0
    assert "kvserver [/path/to/kvserver.conf] [--directive value ...]" in run.stdout


def assert_refused(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 1, and one line on standard error with these words."""
    assert run.returncode == 1
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in lines[0]


def test_an_unknown_directive_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "my.conf"
    path.write_text("# comment\nprt 6379\n")
    assert_refused(run_cli(str(path)), "my.conf", "2", "prt", "port")


def test_a_bad_value_is_refused_with_what_is_valid() -> None:
    assert_refused(run_cli("--appendfsync", "sometimes"), "appendfsync", "everysec")


def test_configuration_from_standard_input_is_read() -> None:
    assert_refused(run_cli("-", stdin="hz maybe\n"), "standard input", "hz")


def test_a_log_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "kvserver.log"
    assert_refused(run_cli("--logfile", str(path)), "logfile", str(path))


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = run_cli("--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path / "d"))
    assert run.returncode == 1
    assert f"127.0.0.1 port {port}" in run.stderr
    assert "Traceback" not in run.stderr + run.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_and_the_data_stays(
    fresh_server: FreshServer, number: signal.Signals
) -> None:
    server = fresh_server()
    server.client().set("a", "1")
    assert server.stop(number) == 0
    server.start()
    assert server.client().get("a") == b"1"


def test_a_hangup_is_ignored(fresh_server: FreshServer) -> None:
    server = fresh_server()
    os.kill(server.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(0.5)
    assert server.client().ping()


@pytest.mark.parametrize("words", [(), ("NOSAVE",), ("SAVE",), ("NOW",), ("SAVE", "FORCE")])
def test_shutdown_closes_the_connection_and_exits_with_0(
    fresh_server: FreshServer, words: tuple[str, ...]
) -> None:
    server = fresh_server()
    server.client().set("a", "1")
    conn = server.conn()
    conn.send(encode_command("SHUTDOWN", *words))
    assert conn.read_to_end() == b""
    assert server.wait_exit() == 0
    server.start()
    assert server.client().get("a") == b"1"


def test_shutdown_refuses_what_redis_refuses(client: redis.Redis, oracle: Server) -> None:
    reference = oracle.client()
    for words in (["NOSUCH"], ["SAVE", "NOSAVE"], ["ABORT"], ["ABORT", "NOW"]):
        with pytest.raises(redis.ResponseError) as ours:
            client.execute_command("SHUTDOWN", *words)
        with pytest.raises(redis.ResponseError) as theirs:
            reference.execute_command("SHUTDOWN", *words)
        assert str(ours.value) == str(theirs.value)


def test_replies_before_shutdown_in_a_pipeline_still_arrive(fresh_server: FreshServer) -> None:
    server = fresh_server(appendfsync="always")
    conn = server.conn()
    conn.send(encode_command("SET", "a", "1") + encode_command("SHUTDOWN"))
    assert conn.read_to_end() == b"+OK\r\n"
    assert server.wait_exit() == 0


def test_a_backup_is_restored_by_pointing_dir_at_it(fresh_server: FreshServer) -> None:
    server = fresh_server()
    client = server.client()
    client.set("kept", "1", ex=1000)
    assert client.save()
    client.set("kept", "2")
    (backup,) = (server.directory / "backups").iterdir()
    restored = fresh_server(directory=backup).client()
    assert restored.get("kept") == b"1"
    assert 0 < restored.ttl("kept") <= 1000
    assert restored.dbsize() == 1


def test_bgsave_reports_and_leaves_only_whole_backups(fresh_server: FreshServer) -> None:
    server = fresh_server()
    client = server.client()
    before = client.lastsave()
    client.mset({f"k{i}": i for i in range(1000)})
    assert client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0)
    assert client.info("persistence")["rdb_last_bgsave_status"] == "ok"
    assert client.lastsave() >= before
    names = [path.name for path in (server.directory / "backups").iterdir()]
    assert len(names) == 1 and re.fullmatch(r"\d{8}-\d{6}", names[0])


def test_a_backup_that_fails_says_so(fresh_server: FreshServer) -> None:
    server = fresh_server()
    (server.directory / "backups").write_text("in the way")
    client = server.client()
    with pytest.raises(redis.ResponseError):
        client.save()
    assert client.info("persistence")["rdb_last_bgsave_status"] == "err"
    assert client.ping()


def test_the_pid_file_is_there_while_the_server_runs(
    fresh_server: FreshServer, tmp_path: Path
) -> None:
    path = tmp_path / "kvserver.pid"
    server = fresh_server(pidfile=str(path))
    assert path.read_text() == f"{server.pid}\n"
    server.terminate()
    assert not path.exists()


def test_systemd_is_told_when_the_server_is_ready(
    fresh_server: FreshServer, tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(10)
        server = fresh_server(env={"NOTIFY_SOCKET": str(path)})
        assert listener.recv(100) == b"READY=1"
        server.terminate()
        assert listener.recv(100) == b"STOPPING=1"


def test_json_log_lines(fresh_server: FreshServer) -> None:
    server = fresh_server(log_format="json")
    assert '"message": "Ready to accept connections' in server.log_text()
