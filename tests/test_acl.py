"""Users at work: logging in, what is denied and logged, and what becomes of their connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from acl_servers import (
    acl_pair,
    both_servers,
    logged_in,
    modern,
    ours,
    servers,
    without_lengths,
)
from conftest import FreshServer
from core import Core
from harness import Conn, Server, encode_command, wait_until
from pair import Command, Pair, parse
from replies import fields, typed

from kvserver.state.acl_log import AclLog
from kvserver.state.session import RESTRICTED

__all__ = ["acl_pair", "both_servers", "ours", "servers"]

NO_GET = b"-NOPERM User u has no permissions to run the 'get' command\r\n"
NO_KEY = b"-NOPERM No permissions to access a key\r\n"
NO_CHANNEL = b"-NOPERM No permissions to access a channel\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"


def make(server: Server, rules: str, user: str = "u") -> None:
    server.client().execute_command("ACL SETUSER", user, "reset", "on", ">p", *rules.split())


def play(conn: Conn, commands: list[Command]) -> list[bytes]:
    conn.send(b"".join(encode_command(*command) for command in commands))
    return [conn.reply() for _ in commands]


def agree(pair: Pair, script: str) -> None:
    """Both answer alike, in 7.4's words."""
    commands = parse(script)
    mine, theirs = (play(conn, commands) for conn in pair.conns)
    for number, (name, *_) in enumerate(commands):
        if name == b"HELLO" and mine[number][:1] == theirs[number][:1] != b"-":
            mine[number] = theirs[number] = b"hello"
    assert [*zip(commands, map(without_lengths, mine), strict=True)] == [
        *zip(commands, map(modern, theirs), strict=True)
    ]


# -- what is denied ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [
        "+@all ~* &*",
        "+@all ~a* &n*",
        "+get +set +mget +multi +exec ~a %R~b* %W~c*",
        "+@all -@dangerous -@write ~* &*",
        "+@read %R~* (+set ~a*) (+del %W~b)",
        "+@write +@transaction ~a",
        "+@pubsub &n* resetkeys",
        "+@pubsub -psubscribe &* ",
        "+select|0 +config|get +client|id +ping",
        "nocommands allkeys allchannels",
        "+@all",
        "+copy +rename +mset +getset +append %W~a* %R~b*",
    ],
)
def test_what_a_user_may_do(rules: str, acl_pair: Pair) -> None:
    for server in acl_pair.servers:
        make(server, rules)
    agree(
        acl_pair,
        """
        AUTH u p
        GET a
        GET b
        GET z
        SET a 1
        SET b 1
        SET c 1 GET
        SET c 1
        MGET a b
        MGET b z
        MSET a 1 c 2
        DEL b
        EXISTS b a
        COPY b a
        COPY a b
        RENAME a b
        GETSET a 1
        APPEND a x
        KEYS nothing*
        SELECT 0
        SELECT 1
        SELECT 0
        CONFIG GET nothing
        CONFIG SET nothing x
        CLIENT ID x
        PUBLISH news x
        PUBLISH other x
        SPUBLISH news x
        MULTI
        SET a 1
        GET b
        EXEC
        MULTI
        SET z 1
        GET a
        EXEC
        WATCH z
        WATCH a
        UNWATCH
        FLUSHDB
        NOPE
        GET
        PING
        ECHO x
        AUTH default x
        ACL WHOAMI
        """,
    )


def test_who_has_no_permission_can_still_leave_and_log_in(ours: Server) -> None:
    make(ours, "nocommands")
    conn = logged_in(ours)
    assert conn.ask("PING").startswith(b"-NOPERM")
    assert conn.ask("HELLO", 3).startswith(b"%7")
    assert conn.ask("RESET") == b"+RESET\r\n"
    assert conn.ask("ACL", "WHOAMI") == b"$7\r\ndefault\r\n"


@pytest.mark.parametrize(
    ("channels", "refused", "allowed"),
    [
        ("&news.*", ["SUBSCRIBE other", "PSUBSCRIBE news.1", "PSUBSCRIBE *", "SSUBSCRIBE x",
                     "SUBSCRIBE news.1 other"],
         ["SUBSCRIBE news.1", "PSUBSCRIBE news.*", "SSUBSCRIBE news.2"]),
        ("", ["SUBSCRIBE x", "PSUBSCRIBE *", "SSUBSCRIBE x", "PUBLISH x y", "SPUBLISH x y"],
         ["UNSUBSCRIBE x", "PUNSUBSCRIBE x", "SUNSUBSCRIBE x"]),
        ("&*", [], ["SUBSCRIBE x", "PSUBSCRIBE *", "SSUBSCRIBE x"]),
    ],
)  # fmt: skip
def test_channels(channels: str, refused: list[str], allowed: list[str], ours: Server) -> None:
    make(ours, "+@all " + channels)
    for command in refused:
        assert logged_in(ours).ask(*command.split()) == NO_CHANNEL, command
    for command in allowed:
        assert not logged_in(ours).ask(*command.split()).startswith(b"-"), command


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_library_sees_the_denial(protocol: int, ours: Server) -> None:
    make(ours, "+@all -@dangerous ~mine:* &mine")
    client = ours.client(protocol=protocol, username="u", password="p")
    assert client.set("mine:1", "x") and client.get("mine:1") == b"x"
    for refused in (
        lambda: client.get("yours"),
        lambda: client.flushall(),
        lambda: client.publish("yours", "x"),
    ):
        with pytest.raises(Exception, match="permission"):
            refused()
    with pytest.raises(Exception, match="permission"), client.pipeline() as pipe:
        pipe.get("mine:1").get("yours").execute()
    assert client.acl_whoami() in (b"u", "u")


# -- transactions and ONCE ---------------------------------------------------------------------


def test_a_denied_command_spoils_the_transaction(acl_pair: Pair) -> None:
    for server in acl_pair.servers:
        make(server, "+@all -@pubsub ~a")
    agree(
        acl_pair,
        """
        AUTH u p
        MULTI
        SET a 1
        PUBLISH x y
        EXEC
        MULTI
        GET z
        DISCARD
        GET a
        """,
    )


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("-set", b"no permission to execute the command or subcommand"),
        ("resetkeys ~b", b"no permission to touch the specified keys"),
        ("resetchannels", b"no permission to access one of the channels used as arguments"),
    ],
)  # fmt: skip
def test_permissions_are_looked_at_again_by_exec(
    after: str, reason: bytes, servers: tuple[Server, Server]
) -> None:
    for server in servers:
        make(server, "+@all ~a ~c &*")
        conn = logged_in(server)
        for command in ("MULTI", "SET a 1", "PUBLISH c x", "GET c", "EXEC")[:-1]:
            conn.ask(*command.split())
        server.client().execute_command("ACL SETUSER u", *after.split())
        reply = conn.ask("EXEC")
        lost = (
            b"-NOPERM ACLs rules changed between the moment the transaction was accumulated and "
            b"the EXEC call. This command is no longer allowed for the following reason: "
        )
        assert lost + reason in reply
        assert reply.startswith(b"*3\r\n") and reply.count(lost) in (1, 2)
        entry = server.client(decode_responses=True).acl_log()[0]
        assert entry["context"] == "multi"


def test_a_transaction_that_takes_away_its_own_permission(acl_pair: Pair) -> None:
    agree(
        acl_pair,
        """
        ACL SETUSER u on >p +@all ~*
        AUTH u p
        MULTI
        SET a 1
        ACL SETUSER u -get
        GET a
        ACL SETUSER u +get
        GET a
        EXEC
        """,
    )


def test_the_command_of_once_is_looked_at(fresh_server: FreshServer) -> None:
    server = fresh_server(rename_command=["append", "add"])
    make(server, "+once +set +exec +multi +append ~a &*")
    conn = logged_in(server)
    assert conn.ask("ONCE", "w", 1, "SET", "a", "1") == b"+OK\r\n"
    assert conn.ask("ONCE", "w", 2, "SET", "b", "1") == NO_KEY
    assert conn.ask("ONCE", "w", 2, "GET", "a") == NO_GET
    assert conn.ask("ONCE", "w", 2, "ADD", "b", "1") == NO_KEY
    assert conn.ask("ONCE", "w", 2, "ADD", "a", "1") == b":2\r\n"
    assert conn.ask("ONCE", "w", 3, "NOPE").startswith(b"-ERR unknown command")
    assert conn.ask("MULTI") == b"+OK\r\n"
    assert conn.ask("SET", "a", "2") == b"+QUEUED\r\n"
    admin = server.client(decode_responses=True)
    admin.execute_command("ACL SETUSER u -set")
    assert b"NOPERM" in conn.ask("ONCE", "w", 3, "EXEC")
    assert admin.get("a") == "11"
    assert admin.execute_command("ACL DRYRUN", "u", "ONCE", "w", 1, "ADD", "b", 1) == (
        "User u has no permissions to access the 'b' key"
    )
    # ONCE and the command may be allowed by different selectors.
    admin.execute_command("ACL SETUSER u resetkeys (+append ~a)")
    assert conn.ask("ONCE", "w", 4, "ADD", "a", "1") == b":3\r\n"
    admin.execute_command("ACL SETUSER u -once +get")
    assert conn.ask("ONCE", "w", 5, "GET", "a") == (
        b"-NOPERM User u has no permissions to run the 'once' command\r\n"
    )


def test_rules_know_commands_by_their_own_names(fresh_server: FreshServer) -> None:
    server = fresh_server(rename_command=["get", "fetch"])
    make(server, "+get ~a")
    conn = logged_in(server)
    assert conn.ask("FETCH", "a") == b"$-1\r\n"
    assert conn.ask("FETCH", "b") == NO_KEY
    assert conn.ask("GET", "a").startswith(b"-ERR unknown command")
    admin = server.client(decode_responses=True)
    assert "get" in admin.acl_cat("string")
    with pytest.raises(Exception, match="Unknown command or category"):
        admin.execute_command("ACL SETUSER u +fetch")


# -- commands that wait, scripts -----------------------------------------------------------------


@pytest.mark.parametrize("rules", ["-blpop", "resetkeys ~b"])
def test_who_waits_may_lose_the_permission(rules: str, ours: Server) -> None:
    """7.2 looks again when the command goes on."""
    make(ours, "+@all ~*")
    admin = ours.client()
    conn = logged_in(ours)
    conn.send(encode_command("BLPOP", "list", 0))
    wait_until(lambda: admin.info("clients")["blocked_clients"] == 1)
    admin.execute_command("ACL SETUSER u", *rules.split())
    assert admin.rpush("list", "x") == 1
    assert conn.reply().startswith(b"-NOPERM")
    assert admin.llen("list") == 1
    assert [entry["object"] for entry in entries(ours)] == [
        "blpop" if rules == "-blpop" else "list"
    ]
    assert admin.info("commandstats")["cmdstat_blpop"]["rejected_calls"] == 1


def test_scripts_may_do_what_their_caller_may(servers: tuple[Server, Server]) -> None:
    told = []
    for server in servers:
        make(server, "+@all -incr ~a &x")
        conn = logged_in(server)
        replies = [
            conn.ask("EVAL", f"return {{pcall(redis.call, {call})}}", 0)[:5]
            for call in ("'get', 'a'", "'get', 'b'", "'incr', 'a'", "'publish', 'y', 'm'")
        ]
        log = [
            (entry["reason"], entry["context"], entry["object"], entry["username"])
            for entry in entries(server)
        ]
        told.append((replies, log))
        error = conn.ask("EVAL", "return redis.pcall('incr', 'a')", 0)
        assert b"NOPERM" in error or server is not servers[0]
    assert told[0] == told[1]
    assert {context for _, context, _, _ in told[0][1]} == {"lua"}
    conn = logged_in(servers[0])
    assert conn.ask("EVAL", "return redis.pcall('incr', 'a')", 0) == (
        b"-NOPERM ACL failure in script: User u has no permissions to run the 'incr' command\r\n"
    )


# -- logging in --------------------------------------------------------------------------------


def test_logging_in(acl_pair: Pair) -> None:
    agree(
        acl_pair,
        """
        AUTH x
        AUTH default x
        AUTH nope x
        ACL SETUSER u on >p >q +@all
        AUTH u x
        AUTH u q
        ACL WHOAMI
        AUTH u nope
        ACL WHOAMI
        ACL SETUSER u <q
        AUTH u q
        AUTH u p
        ACL SETUSER u off
        AUTH u p
        ACL WHOAMI
        ACL SETUSER u on nopass
        AUTH u whatever
        ACL SETUSER u resetpass
        AUTH u p
        ACL SETUSER v on >v +acl|whoami
        HELLO 3 AUTH v x
        HELLO 2 AUTH v v
        ACL WHOAMI
        RESET
        ACL WHOAMI
        """,
    )


def ask_each(conns: dict[str, Conn], *command: str) -> dict[str, bytes]:
    return {name: conn.ask(*command) for name, conn in conns.items()}


@pytest.mark.parametrize(
    "lock",
    ["CONFIG SET requirepass x", "ACL SETUSER default >x", "ACL SETUSER default off",
     "ACL SETUSER default resetpass"],
)  # fmt: skip
def test_who_must_log_in(lock: str, servers: tuple[Server, Server]) -> None:
    """Who came while nobody had to log in stays in; who was asked to is let in when that ends, and
    asked again when it begins again."""
    told = []
    for server in servers:
        make(server, "+@all ~*")
        admin = logged_in(server)
        conns = {"before": server.conn()}
        conns["before"].ask("PING")
        seen = [admin.ask(*lock.split())]
        conns["locked"] = server.conn()
        seen += [ask_each(conns, "PING"), ask_each(conns, "HELLO"), admin.ask("GET", "k")]
        seen = [str(each)[:40] if isinstance(each, bytes) else {
            name: reply[:14] for name, reply in each.items()
        } for each in seen]  # fmt: skip
        seen.append(admin.ask("ACL", "SETUSER", "default", "on", "nopass"))
        seen.append(ask_each(conns, "PING"))
        seen.append({name: reply[:14] for name, reply in ask_each(conns, "HELLO").items()})
        conns["again"] = server.conn()
        seen.append(ask_each(conns, "PING"))
        seen.append(admin.ask("CONFIG", "SET", "requirepass", "y"))
        seen.append(ask_each(conns, "PING"))
        seen.append(ask_each(conns, "AUTH", "x"))
        seen.append(ask_each(conns, "AUTH", "y"))
        seen.append(ask_each(conns, "PING"))
        told.append(seen)
        admin.ask("CONFIG", "SET", "requirepass", "")
    assert told[0] == told[1]


def test_requirepass_is_the_default_users_password(acl_pair: Pair) -> None:
    acl_pair.same(
        """
        CONFIG SET requirepass one
        CONFIG GET requirepass
        AUTH default two
        AUTH one
        AUTH default one
        ACL SETUSER default >two
        AUTH two
        CONFIG GET requirepass
        CONFIG SET requirepass one
        AUTH two
        CONFIG SET requirepass three
        AUTH two
        AUTH three
        CONFIG SET requirepass ""
        AUTH three
        AUTH default whatever
        """
    )


def test_a_locked_server_lets_a_user_in(ours: Server) -> None:
    make(ours, "+@all ~*")
    admin = logged_in(ours)
    admin.ask("ACL", "SETUSER", "default", "off")
    conn = ours.conn()
    assert conn.ask("GET", "k") == NOAUTH
    assert conn.ask("ACL", "WHOAMI") == NOAUTH
    assert conn.ask("AUTH", "default", "") == WRONGPASS
    assert conn.ask("HELLO", 3, "AUTH", "u", "p").startswith(b"%7")
    assert conn.ask("GET", "k") == b"_\r\n"
    assert conn.ask("RESET") == b"+RESET\r\n"
    assert conn.ask("GET", "k") == NOAUTH
    admin.ask("ACL", "SETUSER", "default", "on")


# -- the log -----------------------------------------------------------------------------------


def entries(server: Server) -> list[dict[str, Any]]:
    conn = server.conn()
    conn.ask("HELLO", 3)
    found = [fields(entry) for entry in typed(conn.ask("ACL", "LOG"))[1]]
    return [{name: value[1] for name, value in entry.items()} for entry in found]


def test_what_is_denied_is_logged(servers: tuple[Server, Server]) -> None:
    told = []
    for server in servers:
        make(server, "+@all -get -config|set ~a &a")
        conn = server.conn()
        for command in (
            "AUTH u wrong", "AUTH nobody p", "HELLO 3 AUTH u no", "AUTH u p", "GET a", "get a",
            "SET b 1", "MGET a c", "PUBLISH b x", "CONFIG SET x y", "MULTI", "SET b 2", "DISCARD",
            "SET b 3", "SUBSCRIBE a b",
        ):  # fmt: skip
            conn.ask(*command.split())
        log = entries(server)
        told.append(
            [{n: e[n] for n in ("count", "reason", "context", "object", "username")} for e in log]
        )
        assert all(f"addr=127.0.0.1:{conn.sock.getsockname()[1]} " in e["client-info"] for e in log)
        assert all(0 <= float(entry["age-seconds"]) < 60 for entry in log)
    assert told[0] == told[1]
    assert {entry["context"] for entry in told[0]} == {"toplevel", "multi"}
    # 7.2 numbers them, and tells when they began and were seen last.
    log = entries(servers[0])
    numbers = [int(entry["entry-id"]) for entry in log]
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + len(log)))
    for entry in log:
        assert int(entry["timestamp-created"]) <= int(entry["timestamp-last-updated"])
    stats = servers[0].client().info("stats")
    assert (stats["acl_access_denied_auth"], stats["acl_access_denied_key"]) == (3, 4)
    assert (stats["acl_access_denied_cmd"], stats["acl_access_denied_channel"]) == (3, 2)


def test_the_log_has_a_length(acl_pair: Pair) -> None:
    acl_pair.same(
        """
        CONFIG SET acllog-max-len 2
        AUTH a x
        AUTH b x
        AUTH c x
        CONFIG GET acllog-max-len
        """
    )
    names = [[e["username"] for e in entries(server)] for server in acl_pair.servers]
    assert names == [["c", "b"]] * 2
    for server in acl_pair.servers:
        client = server.client()
        assert len(client.execute_command("ACL LOG 1")) == 1
        client.config_set("acllog-max-len", 0)
        assert len(client.acl_log()) == 2
        assert server.conn().ask("AUTH", "d", "x") == WRONGPASS
        assert client.acl_log() == []
        client.config_set("acllog-max-len", 128)


def test_what_secrets_slowlog_and_monitor_show(servers: tuple[Server, Server]) -> None:
    told = []
    for server in servers:
        client = server.client(decode_responses=True)
        client.config_set("slowlog-log-slower-than", 0)
        client.slowlog_reset()
        client.execute_command("ACL", "SETUSER", "u", "on", ">secret")
        client.execute_command("ACL", "GETUSER", "u")
        told.append([entry["command"] for entry in client.slowlog_get()][:-1])
        client.config_set("slowlog-log-slower-than", 10000)
    assert told[0] == told[1]
    assert any(b"(redacted)" in command for command in told[0])
    assert not any(b"secret" in command for command in told[0])


# -- connections of users who change -----------------------------------------------------------


def is_closed(conn: Conn) -> bool:
    try:
        conn.ask("PING")
    except (ConnectionError, TimeoutError):
        return True
    return False


def test_deleted_users_are_disconnected(servers: tuple[Server, Server]) -> None:
    for server in servers:
        make(server, "+@all ~*", "u")
        make(server, "+@all ~*", "v")
        mine, other, own = logged_in(server), logged_in(server, "v"), logged_in(server)
        assert mine.ask("SET", "k", "v") == b"+OK\r\n"
        assert own.ask("ACL", "DELUSER", "u", "nobody") == b":1\r\n"
        assert is_closed(own) and is_closed(mine) and not is_closed(other)


def test_rules_hold_at_once(ours: Server) -> None:
    make(ours, "+@all ~* &*")
    conn = logged_in(ours)
    admin = ours.client()
    assert conn.ask("GET", "k") == b"$-1\r\n"
    admin.execute_command("ACL SETUSER u -get")
    assert conn.ask("GET", "k") == NO_GET
    admin.execute_command("ACL SETUSER u +get resetkeys")
    assert conn.ask("GET", "k") == NO_KEY
    admin.execute_command("ACL SETUSER u off +@all allkeys")
    assert conn.ask("GET", "k") == b"$-1\r\n"


LISTENERS = {
    "a": ["SUBSCRIBE", "a.1"],
    "b": ["SUBSCRIBE", "b.1"],
    "pattern": ["PSUBSCRIBE", "a.*"],
    "shard": ["SSUBSCRIBE", "b.1"],
    "none": ["PING"],
}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("&*", "+get"),
        ("&*", "resetchannels &a.*"),
        ("&*", "resetchannels &b.*"),
        ("&*", "resetchannels"),
        ("&*", "resetchannels (&a.*) (&b.1)"),
        ("&a.* &b.*", "&c"),
        ("&a.* &b.*", "allchannels"),
        ("&a.* &b.*", "resetchannels &a.1"),
        ("&a.* &b.*", "resetchannels &? &*.1"),
        ("&a.* (&b.1)", "clearselectors"),
        ("(&a.*) (&b.1)", "clearselectors &a.*"),
    ],
)
def test_listeners_who_no_longer_may_are_disconnected(
    before: str, after: str, servers: tuple[Server, Server]
) -> None:
    closed = []
    for server in servers:
        make(server, "+@all " + before)
        conns = {name: logged_in(server) for name in LISTENERS}
        refused = {
            name for name, conn in conns.items() if conn.ask(*LISTENERS[name]).startswith(b"-")
        }
        server.client().execute_command("ACL", "SETUSER", "u", *after.split())
        gone = {name for name, conn in conns.items() if is_closed(conn)}
        closed.append((refused, gone))
    assert closed[0] == closed[1]


def test_a_listener_who_takes_it_from_himself(ours: Server) -> None:
    make(ours, "+@all &*")
    conn = logged_in(ours)
    conn.ask("HELLO", 3)
    conn.ask("SUBSCRIBE", "x")
    assert conn.ask("ACL", "SETUSER", "u", "resetchannels") == b"+OK\r\n"
    assert is_closed(conn)


def test_client_list_and_kill_know_users(acl_pair: Pair) -> None:
    for server in acl_pair.servers:
        make(server, "+@all ~*")
        conn, other = logged_in(server), server.conn()
        other.ask("PING")
        client = server.client(decode_responses=True)
        users = [entry["user"] for entry in client.client_list()]
        assert users.count("u") == 1
        assert client.execute_command("CLIENT KILL USER u") == 1
        wait_until(lambda conn=conn: is_closed(conn))
        assert not is_closed(other)
        assert client.execute_command("CLIENT KILL USER u") == 0
    acl_pair.same("CLIENT KILL USER nope")


def test_a_replica_logs_in_as_a_user(fresh_server: FreshServer) -> None:
    primary = fresh_server()
    make(primary, "+psync +replconf +ping", "replica")
    admin = primary.client(decode_responses=True)
    admin.set("k", "v")
    replica = fresh_server(masteruser="replica", masterauth="p")
    follower = replica.client(decode_responses=True)
    admin.execute_command("ACL SETUSER default >x")
    follower.replicaof("127.0.0.1", primary.port)
    wait_until(lambda: follower.get("k") == "v")
    assert [entry["user"] for entry in admin.client_list(_type="replica")] == ["replica"]
    # Users aren't replicated.
    assert follower.acl_users() == ["default"]
    admin.acl_deluser("replica")
    wait_until(lambda: follower.info("replication")["master_link_status"] == "down")


# -- inside ------------------------------------------------------------------------------------


def test_who_may_do_everything_isnt_checked(tmp_path: Path) -> None:
    """Only sessions of restricted users are looked at by dispatch's slow path."""
    with Core(tmp_path) as core:
        admin, client = core.client(), core.client()
        rules = (b"on", b"nopass", b"-@all", b"(+@all ~* &*)")
        assert admin.ask(b"ACL", b"SETUSER", b"u", *rules) == b"+OK\r\n"
        assert client.ask(b"AUTH", b"u", b"x") == b"+OK\r\n"
        assert client.session.gate == 0
        for rule, gate in (
            (b"clearselectors", RESTRICTED),
            (b"+@all", RESTRICTED),
            (b"allkeys", RESTRICTED),
            (b"allchannels", 0),
            (b"-get", RESTRICTED),
            (b"+@all", 0),
        ):
            assert admin.ask(b"ACL", b"SETUSER", b"u", rule) == b"+OK\r\n"
            assert client.session.gate == gate, rule
        assert admin.session.gate == 0
        admin.ask(b"CONFIG", b"SET", b"requirepass", b"x")
        assert (admin.session.gate, client.session.gate) == (0, 0)


def test_alike_denials_are_one_entry_for_a_minute() -> None:
    now = 1_000_000
    log = AclLog(lambda: now)
    log.resize(20)

    def deny(word: bytes = b"get", user: bytes = b"u", context: str = "toplevel") -> None:
        log.add("command", context, word, user, b"client at %d" % now)

    deny()
    now += 60_000
    deny()
    assert [entry["count"] for entry in log.latest(10)] == [2]
    (entry,) = log.latest(10)
    assert entry["timestamp-created"] == 1_000_000
    assert entry["timestamp-last-updated"] == now == 1_060_000
    assert (entry["age-seconds"], entry["client-info"]) == (0.0, b"client at 1060000")
    now += 60_001
    deny()
    deny(user=b"v")
    deny(context="multi")
    deny(b"set")
    deny()
    told = [(entry["object"], entry["count"], entry["entry-id"]) for entry in log.latest(10)]
    assert told == [(b"get", 2, 1), (b"set", 1, 4), (b"get", 1, 3), (b"get", 1, 2), (b"get", 2, 0)]
    for number in range(10):
        deny(b"%d" % number)
    deny()  # ten others came since
    assert [entry["count"] for entry in log.latest(1)] == [1]
    assert len(log.latest(100)) == 16 and log.latest(-1) == []
    log.reset()
    assert log.latest(100) == []
