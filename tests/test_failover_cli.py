"""`kvserver failover` against groups of servers under load. redis-server stands in as well: the
command knows nothing but Redis' own interfaces."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from group import Group, Writer, caught_up, follows, info, role, writers
from harness import KVSERVER, REDIS, Program, Server, wait_until
from proxy import Proxy
from test_tls import Certificates, StartTLS, certificates, start  # noqa: F401  (fixtures)

DONE, NOT_DONE, USAGE, NOT_ALL = 0, 1, 2, 3
#: For a busy machine. Redis counts bytes, not positions.
PATIENT = ["--sync-timeout-ms", "2000", "--pause-timeout-ms", "4000", "--max-behind", "100000000"]


def command(source: Server, target: Server, *options: str) -> list[str]:
    ends = ["--from", f"127.0.0.1:{source.port}", "--to", f"localhost:{target.port}"]
    return [sys.executable, "-m", "kvserver", "failover", *ends, *options]


def run(
    source: Server, target: Server, *options: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **(env or {})}
    words = command(source, target, *options)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)


def popen(source: Server, target: Server, *options: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(source, target, *options), text=True, **pipes)


def events(output: str) -> list[str]:
    """The time line without times and details."""
    return re.findall(r"^ +[\d.]+ ms  ([^:\n]+)", output, re.MULTILINE)


@pytest.fixture(params=[KVSERVER, REDIS], ids=["kvserver", "redis"])
def program(request: pytest.FixtureRequest) -> Program:
    chosen: Program = request.param
    return chosen


@pytest.fixture
def group(program: Program, tmp_path: Path) -> Iterator[Group]:
    """A primary and two replicas."""
    group = Group(tmp_path, 3, program)
    try:
        group.start()
        yield group
    finally:
        group.close()


@pytest.fixture
def load(group: Group) -> Iterator[list[Writer]]:
    """Writers that are already at work, and what they wrote is checked in the end."""
    crowd = writers(group)
    for writer in crowd:
        writer.start()
    for writer in crowd:
        writer.await_more()
    yield crowd
    for writer in crowd:
        writer.halt()
    primary = next(server for server in group.servers if role(server) == "master")
    for writer in crowd:
        writer.history.check(primary)


def test_back_and_forth_under_load(group: Group, load: list[Writer]) -> None:
    first, second, third = group.servers
    syncs = group.full_syncs()
    for source, target in ((first, second), (second, first)):
        wait_until(lambda t=target, s=source: follows(t, s), 20)
        done = run(source, target, *PATIENT)
        assert done.returncode == DONE, done.stdout + done.stderr
        happened = events(done.stdout)
        assert happened[:2] == ["checked", "asked"]
        assert {"waiting-for-sync", "promoted", "demoted", "rejoined"} <= set(happened)
        assert "re-pointed 127.0.0.1" in happened
        assert re.search(r"^Writes waited [\d.]+ ms at most", done.stdout, re.MULTILINE)
        assert (role(target), role(source)) == ("master", "slave")
        for other in (source, third):
            wait_until(lambda o=other, t=target: follows(o, t), 20)
        for writer in load:
            writer.await_more()
    assert group.full_syncs() == syncs


@pytest.fixture
def lagging(group: Group) -> Iterator[Server]:
    """A replica that answers, but gets nothing from its primary any more."""
    first, second, _ = group.servers
    proxy = Proxy(lambda: first.port).start()
    try:
        second.client().replicaof("127.0.0.1", proxy.port)
        wait_until(lambda: info(second).get("master_link_status") == "up", 20)
        wait_until(lambda: caught_up(second, first), 20)
        proxy.hold(upwards=False)
        first.client().set("not there yet", "1")
        yield second
    finally:
        proxy.close()


def test_target_that_does_not_catch_up(group: Group, lagging: Server) -> None:
    first = group.servers[0]
    done = run(first, lagging)
    assert done.returncode == NOT_DONE, done.stdout + done.stderr
    assert "is still the primary, and takes writes" in done.stderr
    assert role(first) == "master" and role(lagging) == "slave"
    assert first.client().set("and after", "1")


def waiting(process: subprocess.Popen[str]) -> None:
    """Read its time line until writes are paused."""
    assert process.stdout is not None
    assert any("waiting-for-sync" in line for line in process.stdout)


def test_caller_is_killed(group: Group, lagging: Server) -> None:
    first = group.servers[0]
    timeouts = ("--sync-timeout-ms", "1000", "--pause-timeout-ms", "2000")
    with popen(first, lagging, *timeouts) as process:
        waiting(process)
        process.kill()
    assert info(first)["master_failover_state"] == "waiting-for-sync"
    assert first.client().set("and after", "1"), "writes wait no longer than the sync time-out"
    assert role(first) == "master"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_caller_is_interrupted(group: Group, lagging: Server, number: signal.Signals) -> None:
    first = group.servers[0]
    timeouts = ("--sync-timeout-ms", "60000", "--pause-timeout-ms", "70000")
    with popen(first, lagging, *timeouts) as process:
        waiting(process)
        process.send_signal(number)
        output, complaint = process.communicate(timeout=20)
    assert process.returncode == NOT_DONE, output + complaint
    assert "calling it off: interrupted" in output
    assert first.client().set("and after", "1")


def test_force(group: Group, lagging: Server) -> None:
    first, _, third = group.servers
    done = run(first, lagging, "--force-on-timeout")
    assert done.returncode == DONE, done.stdout + done.stderr
    assert (role(lagging), role(first)) == ("master", "slave")
    for other in (first, third):
        wait_until(lambda o=other: follows(o, lagging), 20)
    assert first.client().get("not there yet") is None
    if group.program is KVSERVER:
        listing = [sys.executable, "-m", "kvserver", "rewound", "show", "--dir"]
        shown = subprocess.run([*listing, first.directory], capture_output=True, timeout=20)
        assert b'set "not there yet" string "1"' in shown.stdout


def test_what_is_refused(group: Group) -> None:
    first, second, third = group.servers
    stranger = Server(first.directory.with_name("stranger"), program=group.program).start()
    try:
        for source, target, options, complaint in (
            (first, second, ["--sync-timeout-ms", "500"], "must be greater than --sync-timeout-ms"),
            (second, third, [], "is not a primary"),
            (first, first, [], "is not a replica"),
            (stranger, second, [], "is not among the replicas that"),
        ):
            done = run(source, target, *options)
            assert done.returncode == NOT_DONE
            assert complaint in done.stderr and not done.stdout
        stranger.kill9()
        assert "nobody listens on" in run(first, stranger).stderr
        assert [role(server) for server in group.servers] == ["master", "slave", "slave"]
    finally:
        stranger.close()


def test_usage(group: Group) -> None:
    first, second, _ = group.servers
    for options in (["--sync-timeout-ms", "0"], ["--to", "host"], ["--what"]):
        assert run(first, second, *options).returncode == USAGE


def test_replica_that_cannot_be_told(group: Group) -> None:
    first, second, third = group.servers
    third.client().config_set("requirepass", "another")
    done = run(first, second)
    assert done.returncode == NOT_ALL, done.stdout + done.stderr
    assert f"127.0.0.1:{third.port} doesn't follow the new primary yet" in done.stderr
    assert (role(second), role(first)) == ("master", "slave")


def test_password(program: Program, tmp_path: Path) -> None:
    secret = "a secret"
    group = Group(tmp_path, 2, program)
    try:
        group.start()
        for server in group.servers:
            server.client().config_set("masterauth", secret, "requirepass", secret)
        first, second = group.servers
        assert "NOAUTH" in run(first, second).stderr
        assert "WRONGPASS" in run(first, second, "-a", "wrong").stderr
        assert run(first, second, env={"REDISCLI_AUTH": secret}).returncode == DONE
        wait_until(
            lambda: first.client(password=secret).info("replication")["master_link_status"] == "up"
        )
        assert run(second, first, "--user", "default", "--pass", secret).returncode == DONE
    finally:
        group.close()


def test_tls(start: StartTLS, certificates: Certificates) -> None:  # noqa: F811
    server, port = start(tls_auth_clients="yes")
    server.port = port
    cert, key = certificates.client
    trust = ["--tls", "--cacert", certificates.ca]
    identity = ["--cert", cert, "--key", key]
    assert "is not a replica" in run(server, server, *trust, *identity).stderr
    assert "is not a replica" in run(server, server, "--tls", "--insecure", *identity).stderr
    assert "certificate verify failed" in run(server, server, "--tls", *identity).stderr
    assert run(server, server, *trust).returncode == NOT_DONE
    assert "certificates can't be loaded" in run(server, server, *trust, "--cert", "/none").stderr
