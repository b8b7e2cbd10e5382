"""Fixtures: servers to test against, and clients that speak RESP2 and RESP3 to them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
import redis
from harness import REDIS, Directive, Program, Server
from pair import Pair

FreshServer = Callable[..., Server]


def pytest_configure() -> None:
    # Teardown must run when `timeout` or a CI runner ends the tests, or servers stay behind.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", returncode=143))


#: Files that take long begin first, or the last of them would run alone.
LONG_FILES = (
    *("test_soak", "test_simulation", "test_sentinel", "test_simulation_mutations", "test_oracle"),
    *("test_crash", "test_fullsync", "test_rejoin", "test_replication", "test_recovery"),
    *("test_replication_faults", "test_replication_hostile_replica"),
    *("test_replicated_types", "test_fullsync_failures", "test_dump", "test_migrate"),
)


#: `make test-compiled` has all tests but these, unless they are named: what they look at is the
#: same whether or not modules are compiled (the tree, documents, configuration, what setup.py
#: doesn't name), or they kill processes for minutes, and what is compiled is tested elsewhere too.
#: The simulation patches functions.
SAME_COMPILED = {
    *("test_commands_md", "test_compose", "test_config", "test_layers", "test_syntax"),
    *("test_config_redis", "test_config_files", "test_config_rewrite"),
    *("test_acl_files", "test_failover_cli", "test_glob", "test_logs", "test_rewound_cli"),
    *("test_lifecycle", "test_listeners", "test_startup", "test_steady", "test_systemd"),
    *("test_positions", "test_wal_file", "test_wal_retention", "test_wal_rocksdb"),
    *("test_fullsync_failures", "test_once_crash", "test_quorum", "test_recovery", "test_rejoin"),
    *("test_replication", "test_replication_faults", "test_replication_roles"),
    *("test_replication_hostile", "test_replication_hostile_replica", "test_sentinel"),
    *("test_soak", "test_stalls"),
    *("test_rdb_format", "test_simulation", "test_simulation_mutations"),
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if os.environ.get("KVSERVER_TEST_COMPILED") != "1":
        return None
    named = {Path(arg.partition("::")[0]).stem for arg in config.args}
    return collection_path.stem in SAME_COMPILED - named or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG_FILES)  # stable


def pytest_runtest_setup() -> None:
    for server in harness.running:
        server.mark_log()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Show the logs of the servers that run when a test fails."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for server in harness.running:
            report.sections.append((f"log of {server!r}", server.log_tail()))


class SharedServer:
    """A server that many tests use: as good as new for each of them, without a restart."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.defaults: dict[Any, Any] = {}

    def start(self) -> None:
        self.server.restart()
        self.defaults = self.server.client(decode_responses=True).config_get("*")

    def renew(self) -> None:
        """Take away its clients and keys, put back its first configuration, zero its counters.

        Raises AssertionError if it died, hangs or is locked; then it runs anew.
        """
        self.server.close_clients()
        try:
            self._reset()
        except redis.RedisError as error:
            self.server.close()
            self.start()
            raise AssertionError(
                f"the test left {self.server!r} unusable: {error} "
                "(a test that means to break a server takes fresh_server)"
            ) from error

    def _reset(self) -> None:
        admin = self.server.client(decode_responses=True)
        admin.client_unpause()
        changed = dict(self.defaults.items() - admin.config_get("*").items())
        for name, value in changed.items():  # one by one: a directive may have two names
            admin.config_set(name, value)
        admin.flushall()
        admin.config_resetstat()
        self.server.close_clients()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    shared = SharedServer(Server(tmp_path_factory.mktemp("shared") / "data"))
    shared.start()
    yield shared
    shared.server.close()


@pytest.fixture
def server(shared_server: SharedServer) -> Iterator[Server]:
    """The kvserver that tests share: empty, and configured as at its start."""
    yield shared_server.server
    shared_server.renew()


@pytest.fixture(scope="session")
def shared_oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    if shutil.which("redis-server") is None:
        # The oracle tests must not vanish from CI unnoticed.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    shared = SharedServer(Server(tmp_path_factory.mktemp("oracle") / "data", program=REDIS))
    shared.start()
    yield shared
    shared.server.close()


@pytest.fixture
def oracle(shared_oracle: SharedServer) -> Iterator[Server]:
    """A real redis-server, empty and configured as at its start."""
    yield shared_oracle.server
    shared_oracle.renew()


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[FreshServer]:
    """A factory of servers that the test has for itself.

    `fresh_server(appendfsync="always", directory=path, args=[...], env={...})` starts one;
    underscores in directive names stand for hyphens, except after `rocksdb.`.
    """
    servers: list[Server] = []

    def start(
        *,
        directory: Path | None = None,
        args: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        program: Program = harness.KVSERVER,
        **directives: Directive,
    ) -> Server:
        where = directory or tmp_path / f"server-{len(servers)}"
        named = {directive_name(name): value for name, value in directives.items()}
        server = Server(where, named, args=args, env=env, program=program)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


def directive_name(name: str) -> str:
    """The directive that a keyword argument stands for."""
    return name if name.startswith("rocksdb.") else name.replace("_", "-")


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(request: pytest.FixtureRequest, server: Server) -> redis.Redis:
    """A client of the shared server; each test runs with RESP2 and with RESP3."""
    return server.client(protocol=request.param)


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def both(request: pytest.FixtureRequest, server: Server, oracle: Server) -> tuple[Any, Any]:
    """Clients of kvserver and of the oracle that speak the same protocol."""
    return server.client(protocol=request.param), oracle.client(protocol=request.param)


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def pair(request: pytest.FixtureRequest, server: Server, oracle: Server) -> Pair:
    """Raw connections to kvserver and to the oracle, to compare replies byte for byte."""
    return Pair(server, oracle, request.param)
