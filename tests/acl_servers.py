"""A kvserver and a redis-server for tests of users: both are as at their start before each test.

The oracle is Redis 7.0. What 7.4 says otherwise is put into 7.4's words by `modern`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest
from harness import KVSERVER, REDIS, Conn, Server
from pair import Pair

#: Sentences of 7.0, and those of 7.4 with the user `u`.
SENTENCES: Final = (
    (rb"this user has no permissions to run the", rb"User u has no permissions to run the"),
    (rb"This user has no permissions to (run|access) the", rb"User u has no permissions to \1 the"),
    (
        rb"this user has no permissions to access one of the keys used as arguments",
        rb"No permissions to access a key",
    ),
    (
        rb"this user has no permissions to access one of the channels used as arguments",
        rb"No permissions to access a channel",
    ),
)


def modern(reply: bytes) -> bytes:
    """A reply of 7.0 as 7.4 gives it to the user `u`, without the lengths of its strings."""
    for old, new in SENTENCES:
        reply = re.sub(old, new, reply)
    return without_lengths(reply)


def without_lengths(reply: bytes) -> bytes:
    return re.sub(rb"\$\d+\r\n", b"$\r\n", reply)


def renew(server: Server) -> None:
    """Only the default user, who may do everything; no keys, an empty log."""
    server.close_clients()
    admin = server.client(decode_responses=True)
    for user in admin.acl_users():
        if user != "default":
            admin.acl_deluser(user)
    admin.execute_command("ACL SETUSER default reset on nopass ~* &* +@all")
    admin.config_set("requirepass", "", "acl-pubsub-default", "resetchannels")
    admin.acl_log_reset()
    admin.flushall()
    admin.config_resetstat()
    server.close_clients()


@pytest.fixture(scope="module")
def both_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    directory = tmp_path_factory.mktemp("acl")
    ours = Server(directory / "ours", program=KVSERVER).start()
    theirs = Server(directory / "theirs", program=REDIS).start()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def servers(both_servers: tuple[Server, Server]) -> tuple[Server, Server]:
    for server in both_servers:
        renew(server)
    return both_servers


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def acl_pair(request: pytest.FixtureRequest, servers: tuple[Server, Server]) -> Pair:
    """Raw connections to both, to compare replies byte for byte."""
    return Pair(*servers, request.param)


@pytest.fixture
def ours(servers: tuple[Server, Server]) -> Server:
    return servers[0]


def logged_in(server: Server, user: str = "u", password: str = "p") -> Conn:
    """A connection of a user."""
    conn = server.conn()
    assert conn.ask("AUTH", user, password) == b"+OK\r\n"
    return conn
