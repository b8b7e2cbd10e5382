"""NAMESPACE: key spaces with a token of their own, and that nothing gets from one to another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from cluster import LOOPBACK
from conftest import FreshServer
from faulty_core import MISCONF, OK, Node, run
from faulty_core import node as node
from harness import Conn, Server, encode_command, wait_until

import kvserver.commands  # noqa: F401  (declares the commands)
from kvserver.registry import ADMIN, BLOCKING, COMMANDS, WALK, Spec

PASSWORD = "pwd"
NO_RIGHT = b"-ERR admin permission required to perform the command\r\n"


def admin_of(server: Server, **options: Any) -> redis.Redis:
    return server.client(password=PASSWORD, **options)


def space(server: Server, token: str, **options: Any) -> redis.Redis:
    """A client in a namespace."""
    return server.client(password=token, **options)


def tenant(server: Server, token: str, protocol: int = 2) -> Conn:
    """A raw connection in a namespace."""
    conn = server.conn()
    conn.ask("HELLO", protocol, "AUTH", "default", token)
    assert conn.ask("ECHO", "in") == b"$2\r\nin\r\n"
    return conn


def add(admin: redis.Redis, *names: str) -> None:
    """Namespaces whose token is `t-` and the name."""
    for name in names:
        assert admin.execute_command("NAMESPACE ADD", name, f"t-{name}") == b"OK"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ns") / "data", {"requirepass": PASSWORD}).start()
    yield server
    server.close()


@pytest.fixture
def server(shared: Server) -> Server:
    """Empty, without namespaces."""
    shared.close_clients()
    admin = admin_of(shared)
    admin.flushall()
    for name in admin.execute_command("NAMESPACE GET", "*")[:-2:2]:
        admin.execute_command("NAMESPACE DEL", name)
    admin.config_set("requirepass", PASSWORD, "masterauth", "", "notify-keyspace-events", "")
    admin.config_resetstat()
    admin.acl_log_reset()
    admin.slowlog_reset()
    return shared


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def admin(request: pytest.FixtureRequest, server: Server) -> redis.Redis:
    return admin_of(server, protocol=request.param)


def refused(client: redis.Redis, *words: Any) -> str:
    with pytest.raises(redis.ResponseError) as error:
        client.execute_command(*words)
    return str(error.value)


# -- NAMESPACE ---------------------------------------------------------------------------------


def test_namespaces_are_added_changed_and_deleted(admin: redis.Redis) -> None:
    run = admin.execute_command
    add(admin, "n2", "n1")
    add(admin, "n1")  # the same again
    assert run("NAMESPACE GET", "n1") == b"t-n1"
    assert run("NAMESPACE GET", "nosuch") is None
    listed = [b"n1", b"t-n1", b"n2", b"t-n2", b"__namespace", b"pwd"]
    assert run("NAMESPACE GET", "*") == listed
    assert run("NAMESPACE CURRENT") == b"__namespace"
    assert run("NAMESPACE SET", "n1", "new") == b"OK"
    assert run("NAMESPACE SET", "n1", "new") == b"OK"
    assert run("NAMESPACE SET", "n3", "t3") == b"OK"
    assert run("NAMESPACE GET", "n1") == b"new"
    assert run("NAMESPACE DEL", "n1") == b"OK"
    assert run("NAMESPACE GET", "n1") is None
    assert run("NAMESPACE GET", "*")[::2] == [b"n2", b"n3", b"__namespace"]


def test_what_is_refused(admin: redis.Redis) -> None:
    add(admin, "n1", "n2")
    admin.config_set("masterauth", "mpwd")
    duplicated = "the token is duplicated with requirepass or masterauth"
    cases: list[tuple[str, ...]] = [
        ("the namespace already exists", "ADD", "n1", "x"),
        ("the token already exists", "ADD", "n3", "t-n1"),
        ("the token already exists", "SET", "n2", "t-n1"),
        ("the namespace was not found", "DEL", "n3"),
        ("forbidden to delete the default namespace", "DEL", "__namespace"),
        ("forbidden to add the default namespace", "ADD", "__namespace", "x"),
        ("forbidden to add the default namespace", "SET", "default", "x"),
        (duplicated, "ADD", "n3", PASSWORD),
        (duplicated, "ADD", "n3", "mpwd"),
        (duplicated, "SET", "n1", ""),
        ("size exceed limit 255", "ADD", "n" * 256, "x"),
        ("namespace contain illegal letter", "ADD", "a b", "x"),
        ("namespace contain illegal letter", "ADD", "", "x"),
        ("namespace contain illegal letter", "ADD", "a\x7f", "x"),
        ("wrong number of arguments for 'namespace|add' command", "ADD", "n3"),
        ("unknown subcommand 'NOSUCH'. Try NAMESPACE HELP.", "NOSUCH"),
    ]
    for error, *words in cases:
        assert refused(admin, "NAMESPACE", *words) == error, words
    assert admin.execute_command("NAMESPACE GET", "*")[:-2:2] == [b"n1", b"n2"]
    add(admin, "n" * 255)


def test_without_a_password_there_are_no_namespaces(server: Server) -> None:
    admin = admin_of(server)
    add(admin, "n1")
    admin.config_set("requirepass", "")
    assert refused(admin, "NAMESPACE", "ADD", "n2", "x") == (
        "forbidden to add namespace when requirepass was empty"
    )
    # Whoever has a token is not let into another key space for lack of a password.
    assert tenant(server, "t-n1").ask("NAMESPACE", "CURRENT") == b"$2\r\nn1\r\n"
    conn = server.conn()
    assert conn.ask("AUTH", "t-n1") == b"+OK\r\n"
    assert conn.ask("NAMESPACE", "CURRENT") == b"$2\r\nn1\r\n"
    assert conn.ask("AUTH", "wrong").startswith(b"-ERR AUTH <password> called without")


def test_the_help(admin: redis.Redis) -> None:
    lines = admin.execute_command("NAMESPACE HELP")
    assert lines[0].startswith(b"NAMESPACE <subcommand>")


# -- who is where ------------------------------------------------------------------------------


def test_auth_chooses_the_key_space(server: Server) -> None:
    add(admin_of(server), "n1", "n2")
    conn = server.conn()
    asks = [
        ("AUTH", "nosuch"),
        ("AUTH", "t-n1"),
        ("SET", "k", "1"),
        ("AUTH", "default", "t-n2"),
        ("GET", "k"),
        ("SET", "k", "2"),
        ("AUTH", PASSWORD),
        ("GET", "k"),
        ("SELECT", "3"),
        ("SET", "k", "3"),
        ("AUTH", "wrong"),
        ("GET", "k"),
        ("AUTH", "n1", "t-n1"),
        ("AUTH", PASSWORD),
        ("GET", "k"),
        ("AUTH", "t-n1"),
        ("GET", "k"),
        ("ACL", "WHOAMI"),
        ("RESET",),
        ("GET", "k"),
    ]
    wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    ok, none, three = b"+OK\r\n", b"$-1\r\n", b"$1\r\n3\r\n"
    assert [conn.ask(*words) for words in asks] == [
        *(wrong, ok, ok, ok, none, ok, ok, none, ok, ok, wrong, three, wrong, ok, three, ok),
        *(b"$1\r\n1\r\n", b"$2\r\nn1\r\n", b"+RESET\r\n"),
        b"-NOAUTH Authentication required.\r\n",
    ]


def test_a_new_token_counts_at_once_and_leaves_who_is_there(server: Server) -> None:
    admin = admin_of(server)
    add(admin, "n1")
    conn = tenant(server, "t-n1")
    admin.execute_command("NAMESPACE SET", "n1", "new")
    assert conn.ask("SET", "k", "v") == b"+OK\r\n"
    assert server.conn().ask("AUTH", "t-n1").startswith(b"-WRONGPASS")
    assert space(server, "new").get("k") == b"v"


def test_deleting_ends_sessions_and_keeps_the_keys(server: Server) -> None:
    admin = admin_of(server)
    add(admin, "n1", "n2", "empty")
    inside, other = tenant(server, "t-n1"), tenant(server, "t-n2")
    blocked, watching = tenant(server, "t-n1"), tenant(server, "t-n1")
    assert inside.ask("SET", "k", "v") == b"+OK\r\n"
    assert watching.ask("WATCH", "k") == b"+OK\r\n"
    blocked.send(encode_command("BLPOP", "list", "0"))
    wait_until(lambda: admin.info("clients")["blocked_clients"] == 1)
    for name in ("n1", "empty"):
        admin.execute_command("NAMESPACE DEL", name)
    for conn in (inside, blocked, watching):
        conn.send(encode_command("GET", "k"))
        assert conn.read_to_end() == b""
    assert other.ask("PING") == b"+PONG\r\n"
    assert server.conn().ask("AUTH", "t-n1").startswith(b"-WRONGPASS")
    add(admin, "n3", "n4")  # one of them has the database that `empty` had, none that of n1
    for name in ("n3", "n4"):
        assert space(server, f"t-{name}").keys() == []
    add(admin, "n1")
    assert space(server, "t-n1").get("k") == b"v"
    admin.flushall()
    assert space(server, "t-n1").dbsize() == 0


def test_the_database_of_a_deleted_namespace_is_used_again_when_it_is_empty(
    server: Server,
) -> None:
    admin = admin_of(server)

    def database(name: str) -> int:
        client = space(server, f"t-{name}")
        client.set("k", "v")
        return int(client.client_info()["db"])

    add(admin, "n1", "n2")
    first = database("n1")
    admin.execute_command("NAMESPACE DEL", "n1")
    add(admin, "n3")
    assert database("n3") not in (first, database("n2"))
    admin.flushall()
    add(admin, "n4")
    assert database("n4") == first
    add(admin, "n1")
    assert space(server, "t-n1").keys() == []


# -- what one sees of others -------------------------------------------------------------------


def test_keys_are_those_of_the_namespace(server: Server) -> None:
    admin = admin_of(server)
    add(admin, "n1", "n2")
    one, two = space(server, "t-n1"), space(server, "t-n2")
    admin.set("zero", 0)
    one.mset({"a": 1, "b": 2})
    one.expire("a", 100)
    two.set("c", 3)
    assert sorted(one.keys()) == sorted(one.scan(count=100)[1]) == [b"a", b"b"]
    assert (one.dbsize(), two.dbsize(), admin.dbsize()) == (2, 1, 1)
    assert one.randomkey() in (b"a", b"b")
    keyspace = one.info("keyspace")
    assert keyspace == {"db0": {**keyspace["db0"], "keys": 2, "expires": 1}}
    assert "rocksdb" not in one.execute_command("INFO", "everything")
    shown = admin.info("keyspace")
    assert shown["db0"]["keys"] == 1
    assert shown["namespace_n1"]["keys"] == 2
    assert shown["namespace_n2"]["keys"] == 1
    one.flushdb()
    assert (one.dbsize(), two.dbsize(), admin.dbsize()) == (0, 1, 1)
    admin.flushall()
    assert two.dbsize() == 0


def test_info_of_the_administrator_stands_any_name(server: Server) -> None:
    admin = admin_of(server)
    for name in ("a:b", "x,y=z", "%", "\u00e9"):
        add(admin, name)
        space(server, f"t-{name}").set("k", "v")
    shown = admin.info("keyspace")
    assert {name: figures["keys"] for name, figures in shown.items()} == {
        "namespace_a%3Ab": 1,
        "namespace_x%2Cy%3Dz": 1,
        "namespace_%25": 1,
        "namespace_%C3%A9": 1,
    }


@pytest.mark.parametrize("protocol", [2, 3])
def test_databases_are_out_of_reach(server: Server, protocol: int) -> None:
    admin = admin_of(server)
    add(admin, "n1")
    hidden = admin.config_get("databases")["databases"]
    conn = tenant(server, "t-n1", protocol)
    out = b"-ERR DB index is out of range\r\n"
    conn.ask("SET", "k", "v")
    assert conn.ask("SELECT", "1") == b"+OK\r\n"
    assert conn.ask("GET", "k") == b"$1\r\nv\r\n"
    assert conn.ask("SELECT", hidden) == out
    assert conn.ask("SELECT", "x") == b"-ERR value is not an integer or out of range\r\n"
    assert conn.ask("MOVE", "k", "0") == conn.ask("COPY", "k", "l", "DB", "0") == out
    assert conn.ask("COPY", "k", "l") == b":1\r\n"
    assert conn.ask("SWAPDB", "0", "1") == conn.ask("FLUSHALL") == NO_RIGHT
    script = "redis.call('select', 2) return redis.call('get', 'k')"
    assert conn.ask("EVAL", script, "0") == b"$1\r\nv\r\n"
    raw = server.conn()  # and nobody else reaches a namespace
    raw.ask("AUTH", PASSWORD)
    raw.ask("SET", "k", "v")
    asks = [("SELECT", hidden), ("MOVE", "k", hidden), ("COPY", "k", "l", "DB", hidden)]
    for words in [*asks, ("SWAPDB", "0", hidden)]:
        assert raw.ask(*words) == out


def test_transactions_and_waiting(server: Server) -> None:
    admin = admin_of(server)
    add(admin, "n1", "n2")
    one, two = tenant(server, "t-n1"), tenant(server, "t-n2")
    one.ask("SET", "k", "v")
    one.ask("WATCH", "k")
    two.ask("SET", "k", "v")
    admin.set("k", "v")
    one.ask("MULTI")
    one.ask("GET", "k")
    assert one.ask("EXEC") == b"*1\r\n$1\r\nv\r\n"
    one.ask("WATCH", "k")
    tenant(server, "t-n1").ask("SET", "k", "w")
    one.ask("MULTI")
    assert one.ask("EXEC") == b"*-1\r\n"
    one.send(encode_command("BLPOP", "list", "0"))
    wait_until(lambda: admin.info("clients")["blocked_clients"] == 1)
    two.ask("RPUSH", "list", "two")
    admin.rpush("list", "zero")
    tenant(server, "t-n1").ask("RPUSH", "list", "one")
    assert one.reply() == b"*2\r\n$4\r\nlist\r\n$3\r\none\r\n"


def test_events_are_those_of_the_own_keys(server: Server) -> None:
    admin = admin_of(server)
    add(admin, "n1", "n2")
    admin.config_set("notify-keyspace-events", "KEA")
    listeners = {name: tenant(server, token) for name, token in TOKENS.items()}
    for conn in listeners.values():
        conn.ask("PSUBSCRIBE", "*")
    for name, token in TOKENS.items():
        space(server, token).set(f"key-{name}", "v")
    space(server, "t-n1").publish("end", "x")
    for name, conn in listeners.items():
        heard = b""
        while b"\r\nend\r\n" not in heard:
            heard += conn.reply()
        assert heard.count(b"__keyspace@0__:key-%b" % name.encode()) == 1
        assert heard.count(b"__keyspace@") == heard.count(b"__keyevent@0__:set") == 1


TOKENS = {"zero": PASSWORD, "n1": "t-n1", "n2": "t-n2"}


@pytest.mark.parametrize("mode", [(), ("BCAST",), ("BCAST", "NOLOOP")])
def test_tracking_tells_of_the_own_keys(server: Server, mode: tuple[str, ...]) -> None:
    add(admin_of(server), "n1", "n2")
    conns = {name: tenant(server, token, 3) for name, token in TOKENS.items()}
    for conn in conns.values():
        assert conn.ask("CLIENT", "TRACKING", "ON", *mode) == b"+OK\r\n"
        conn.ask("GET", "k")
    told = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    for writer, token in TOKENS.items():
        tenant(server, token).ask("SET", "k", "v")
        for name, conn in conns.items():
            conn.send(encode_command("PING"))
            expected = [told, b"+PONG\r\n"] if name == writer else [b"+PONG\r\n"]
            assert [conn.reply() for _ in expected] == expected
    tenant(server, "t-n1").ask("FLUSHDB")
    flushed = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
    for name, conn in conns.items():
        conn.send(encode_command("PING"))
        expected = [flushed, b"+PONG\r\n"] if name == "n1" else [b"+PONG\r\n"]
        assert [conn.reply() for _ in expected] == expected


def test_messages_are_not_redirected_to_another_namespace(server: Server) -> None:
    add(admin_of(server), "n1", "n2")
    one, two = tenant(server, "t-n1"), tenant(server, "t-n2")
    number = two.ask("CLIENT", "ID")[1:-2]
    assert one.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number) == (
        b"-ERR The client ID you want redirect to does not exist\r\n"
    )


def test_writers_of_once_are_those_of_the_namespace(server: Server) -> None:
    add(admin_of(server), "n1", "n2")
    conns = {name: tenant(server, token) for name, token in TOKENS.items()}
    for name, conn in conns.items():
        assert conn.ask("ONCE", "w", "1", "SET", "k", name) == b"+OK\r\n"
        assert conn.ask("ONCE", "w", "2", "GET", "k") == b"$%d\r\n%b\r\n" % (
            len(name),
            name.encode(),
        )
    for name, conn in conns.items():
        assert conn.ask("ONCE", "w", "2", "GET", "k").endswith(b"\r\n%b\r\n" % name.encode())
    assert conns["n1"].ask("ONCE", "x", "1", "FLUSHALL") == NO_RIGHT


def test_cursors_are_those_of_the_namespace(server: Server) -> None:
    """A place is where somebody's key is: nobody may go on from another's."""
    add(admin_of(server), "n1", "n2")
    one, two = space(server, "t-n1"), space(server, "t-n2")
    for client in (one, two):
        client.mset({f"{{tag}}{number:02}": number for number in range(20)})
    cursor, found = one.scan(count=10)
    assert cursor
    assert len(found) == 10
    assert len(one.scan(cursor, count=100)[1]) == 10
    assert len(two.scan(cursor, count=100)[1]) == 20


def test_the_administrator_sees_who_is_where(server: Server) -> None:
    admin = admin_of(server)
    add(admin, "n1")
    monitor = server.conn()
    monitor.ask("AUTH", PASSWORD)
    monitor.ask("MONITOR")
    conn = tenant(server, "t-n1")
    conn.ask("GET", "k")
    (entry,) = [each for each in admin.client_list() if each["user"] == "n1"]
    seen = b""
    while b'"GET" "k"' not in seen:
        seen += monitor.read_line()
    assert f" [{entry['db']} ".encode() in seen
    assert int(entry["db"]) >= int(admin.config_get("databases")["databases"])
    assert refused(admin, "CLIENT KILL", "USER", "n1") == "No such user 'n1'"
    admin.execute_command("ACL SETUSER", "n1", "on", ">x", "+@all", "~*")
    try:
        assert admin.execute_command("CLIENT KILL", "USER", "n1") == 0
    finally:
        admin.acl_deluser("n1")
    assert conn.ask("PING") == b"+PONG\r\n"


def test_tokens_are_not_shown(server: Server) -> None:
    admin = admin_of(server)
    admin.config_set("slowlog-log-slower-than", 0)
    try:
        add(admin, "n1")
        shown = str(admin.slowlog_get())
    finally:
        admin.config_set("slowlog-log-slower-than", 10000)
    assert "n1" in shown
    assert "t-n1" not in shown
    assert "t-n1" not in server.log_text()


# -- what one may do ---------------------------------------------------------------------------


def specs() -> list[Spec]:
    """All commands that have a handler."""
    every = [spec for top in COMMANDS.values() for spec in (top, *top.subcommands.values())]
    return [spec for spec in every if not spec.subcommands]


#: What is refused beside what Redis calls an administrator's.
REFUSED = {
    *("flushall", "swapdb", "migrate", "script|flush", "script|kill"),
    *("memory|doctor", "memory|malloc-stats", "memory|purge", "memory|stats"),
    *("function|delete", "function|flush", "function|kill", "function|load", "function|restore"),
    "function|stats",
}


def words_of(spec: Spec) -> list[bytes]:
    return [word.encode() for word in spec.name.split("|")]


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_needs_the_administrator(server: Server, protocol: int) -> None:
    admin = admin_of(server)
    add(admin, "n1")
    conn = tenant(server, "t-n1", protocol)
    for spec in specs():
        if spec.name not in REFUSED and not (spec.flags & ADMIN and spec.name != "role"):
            continue
        words = words_of(spec)
        words += [b"x"] * (abs(spec.arity) - len(words))
        assert conn.ask(*words) == NO_RIGHT, spec.name
    assert conn.ask("ROLE").startswith(b"*3\r\n$6\r\nmaster")
    assert conn.ask("MULTI") == b"+OK\r\n"
    assert conn.ask("CONFIG", "GET", "*") == NO_RIGHT
    assert conn.ask("EXEC").startswith(b"-EXECABORT")
    script = "return redis.pcall('flushall').err"
    assert conn.ask("EVAL", script, "0").endswith(NO_RIGHT[1:])
    check = "return {redis.acl_check_cmd('get', 'k'), redis.acl_check_cmd('flushall')}"
    none = b"$-1\r\n" if protocol == 2 else b"_\r\n"
    assert conn.ask("EVAL", check, "0") == b"*2\r\n:1\r\n" + none
    assert admin.acl_log()[0]["username"] == "n1"


MARK = b"SeCrEt"
#: One key of each type that a client names, and one that none does.
VICTIMS: list[tuple[Any, ...]] = [
    ("SET", "string", MARK),
    ("SET", "number", "5"),
    ("SETBIT", "bits", "2000000", "1"),
    ("HSET", "hash", MARK, MARK),
    ("RPUSH", "list", MARK, MARK),
    ("SADD", "set", MARK, MARK + b"2"),
    ("ZADD", "zset", "1", MARK, "2", MARK + b"2"),
    ("GEOADD", "geo", "13.3", "38.1", MARK),
    ("PFADD", "hll", MARK),
    ("XADD", "stream", "1-1", MARK, MARK),
    ("XGROUP", "CREATE", "stream", "group", "0"),
    ("SET", MARK + b":name", MARK, "EX", "1000"),
]
KEYS = ["string", "number", "bits", "hash", "list", "set", "zset", "geo", "hll", "stream"]
POOL = [
    *(key.encode() for key in KEYS * 4),
    *b"0 1 2 -1 100 0-0 1-1 $ > * + - ( [ inf -inf (1 nosuch group consumer".split(),
    *b"KEYS STREAMS GROUP COUNT MATCH WITHSCORES WITHVALUES LIMIT BY GET STORE BYSCORE".split(),
    *b"LEFT RIGHT MIN MAX FIELDS FROMMEMBER BYRADIUS km ASC AND XX NX REPLACE FULL".split(),
    b"return redis.call('get', KEYS[1])",
    b"*->" + MARK[:1],
]
#: They would end or change the connection that all are tried on, or take its replies away.
LEFT_OUT = {
    *("auth", "client|reply", "discard", "exec", "hello", "multi", "psubscribe", "quit", "reset"),
    *("client|setname", "ssubscribe", "subscribe", "psync", "punsubscribe", "unsubscribe"),
    *("sunsubscribe", "client|tracking", "watch", "script|load"),
}
#: What finds something when it is let at the victims.
TELLING: list[tuple[Any, ...]] = [
    ("KEYS", "*"),
    ("SCAN", "0", "COUNT", "1000"),
    ("RANDOMKEY",),
    ("GET", "string"),
    ("MGET", *KEYS),
    ("HGETALL", "hash"),
    ("LRANGE", "list", "0", "-1"),
    ("SMEMBERS", "set"),
    ("ZRANGE", "zset", "0", "-1"),
    ("GEOSEARCH", "geo", "FROMLONLAT", "13", "38", "BYRADIUS", "100", "km"),
    ("XRANGE", "stream", "-", "+"),
    ("XREADGROUP", "GROUP", "group", "c", "STREAMS", "stream", ">"),
    ("XINFO", "STREAM", "stream", "FULL"),
    ("DUMP", "string"),
    ("SORT", "list", "ALPHA", "GET", "#"),
    ("SORT", "own", "BY", "nosort", "GET", "string"),
    ("GETDEL", "string"),
    ("LPOP", "list"),
    ("SPOP", "set"),
    ("ZPOPMIN", "zset"),
    ("RENAME", "string", "mine"),
    ("COPY", "string", "mine"),
    ("EVAL", "return redis.call('keys', '*')", "0"),
    ("EVAL", "return redis.call('get', 'string')", "0"),
    ("ONCE", "w", "1", "GET", "string"),
    ("DEBUG", "OBJECT", "string"),
    ("INFO", "everything"),
    ("COMMAND", "GETKEYS", "GET", "string"),
]


def picture(client: redis.Redis) -> dict[bytes, Any]:
    """All that is in a key space."""
    return {key: (client.dump(key), client.expiretime(key)) for key in sorted(client.keys())}


@pytest.mark.parametrize("protocol", [2, 3])
def test_no_command_reaches_the_keys_of_another(server: Server, protocol: int) -> None:
    add(admin_of(server), "n1", "n2")
    victims = [admin_of(server), space(server, "t-n2")]
    for victim in victims:
        for words in VICTIMS:
            victim.execute_command(*words)
    before = [picture(victim) for victim in victims]
    assert all(len(each) == len(VICTIMS) - 1 for each in before)
    conn = tenant(server, "t-n1", protocol)
    attempts = [*TELLING, *_random_commands(random.Random(protocol))]
    for words in attempts:
        assert MARK not in _attempt(conn, *words), words
        conn.ask("FLUSHDB")
    assert [picture(victim) for victim in victims] == before


def _random_commands(rng: random.Random) -> Iterator[tuple[bytes, ...]]:
    """Every command, with arguments that may fit."""
    for spec in specs():
        if spec.name in LEFT_OUT or spec.flags & ADMIN:
            continue
        name = words_of(spec)
        for _ in range(40):
            least = max(abs(spec.arity) - len(name), 0)
            count = least if spec.arity > 0 else least + rng.randrange(4)
            yield (*name, *rng.choices(POOL, k=count))


def _attempt(conn: Conn, *words: Any) -> bytes:
    """The reply to a command, which doesn't wait."""
    spec = COMMANDS.get(str(words[0] if isinstance(words[0], str) else words[0].decode()).lower())
    if spec is None or not spec.flags & (BLOCKING | WALK):
        return conn.ask(*words)
    conn.ask("MULTI")
    conn.ask(*words)
    return conn.ask("EXEC")


def test_the_attempts_find_something_where_they_may(server: Server) -> None:
    """The same commands in the key space itself: so the test above can fail."""
    add(admin_of(server), "n2")
    client, conn = space(server, "t-n2"), tenant(server, "t-n2")
    telling, before = set(), b""
    for words in [*TELLING, *_random_commands(random.Random(2))]:
        name = str(words[0]).encode() if isinstance(words[0], str) else words[0]
        if name != before:
            before = name
            client.flushdb()
            for victim in VICTIMS:
                client.execute_command(*victim)
        if MARK in _attempt(conn, *words):
            telling.add(name.lower())
    assert len(telling) > 25, telling


# -- as long as the data -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["terminate", "kill9"])
def test_namespaces_survive(fresh_server: FreshServer, how: str) -> None:
    server = fresh_server(requirepass=PASSWORD, appendfsync="always")
    admin = admin_of(server)
    add(admin, "n1", "n2", "n3", "gone")
    for name in ("n1", "n2", "n3"):
        space(server, f"t-{name}").set("k", name)
    admin.execute_command("NAMESPACE SET", "n2", "new")
    admin.execute_command("NAMESPACE DEL", "n3")
    admin.execute_command("NAMESPACE DEL", "gone")
    getattr(server, how)()
    server.directives["databases"] = 20  # namespaces are not among the numbered ones
    server.start()
    admin = admin_of(server)
    listed = admin.execute_command("NAMESPACE GET", "*")
    assert listed == [b"n2", b"new", b"n1", b"t-n1", b"__namespace", b"pwd"]
    assert space(server, "t-n1").get("k") == b"n1"
    assert space(server, "new").get("k") == b"n2"
    assert space(server, "t-n1").dbsize() == 1
    for db in range(20):
        assert admin_of(server, db=db).dbsize() == 0
    add(admin, "n4", "n3")
    assert space(server, "t-n4").dbsize() == 0
    assert space(server, "t-n3").get("k") == b"n3"


def test_a_batch_that_fails_takes_a_namespace_back(node: Node) -> None:
    admin, inside, later = node.client(), node.client(), node.client()
    admin.ask(b"CONFIG", b"SET", b"requirepass", PASSWORD.encode())
    run(admin, "NAMESPACE", "ADD", "n1", "t1")
    run(inside, "AUTH", "t1")
    run(inside, "SET", "k", "v")
    node.fail()
    node.end()
    assert admin.take() == MISCONF
    assert inside.closed
    assert set(inside.take().split(b"\r\n")[:-1]) == {MISCONF[:-2]}
    assert later.ask(b"AUTH", b"t1").startswith(b"-WRONGPASS")
    node.dispatcher.gate = 0
    assert admin.ask(b"NAMESPACE", b"ADD", b"n2", b"t2") == OK
    assert later.ask(b"AUTH", b"t2") == OK
    assert later.ask(b"DBSIZE") == b":0\r\n"


def test_nobody_enters_a_namespace_that_may_be_lost(node: Node) -> None:
    """A token that isn't on the disk: the reply to AUTH waits with that to NAMESPACE."""
    admin, inside = node.client(), node.client()
    admin.ask(b"CONFIG", b"SET", b"requirepass", PASSWORD.encode())
    node.log.set_wait_for_sync(True)
    run(admin, "NAMESPACE", "ADD", "n1", "t1")
    node.end()
    run(inside, "AUTH", "t1")
    run(admin, "NAMESPACE", "GET", "*")
    node.end()
    assert inside.take() == admin.take() == b""
    node.sync()()
    assert inside.take() == OK
    assert admin.take().startswith(OK + b"*4\r\n")


def test_keys_of_a_namespace_expire(server: Server) -> None:
    add(admin_of(server), "n1")
    client = space(server, "t-n1")
    client.set("k", "v", px=1)
    wait_until(lambda: client.dbsize() == 0)


# -- replicas ----------------------------------------------------------------------------------


def replica_of(fresh_server: FreshServer, primary: Server, **directives: Any) -> Server:
    return fresh_server(
        requirepass=PASSWORD,
        masterauth=PASSWORD,
        replicaof=[LOOPBACK, str(primary.port)],
        **directives,
    )


def caught_up(primary: Server, *replicas: Server) -> None:
    """Wait until the replicas have all that the primary has."""
    offset = admin_of(primary).info("replication")["master_repl_offset"]
    for replica in replicas:
        client = admin_of(replica)
        wait_until(
            lambda client=client: (
                client.info("replication")["master_repl_offset"] == offset
                and client.info("replication").get("master_link_status") == "up"
            )
        )


def test_replicas_have_the_same_namespaces(fresh_server: FreshServer) -> None:
    primary = fresh_server(requirepass=PASSWORD)
    admin = admin_of(primary)
    add(admin, "before")
    space(primary, "t-before").set("k", "before")
    # Other numbered databases: what is sent doesn't depend on them.
    replicas = [replica_of(fresh_server, primary, databases=number) for number in (16, 3)]
    caught_up(primary, *replicas)
    add(admin, "after", "gone")
    for name in ("after", "gone"):
        space(primary, f"t-{name}").set("k", name)
    caught_up(primary, *replicas)
    inside = [tenant(replica, "t-gone") for replica in replicas]
    admin.execute_command("NAMESPACE DEL", "gone")
    admin.execute_command("NAMESPACE SET", "after", "new")
    space(primary, "new").flushdb()
    space(primary, "new").set("l", "again")
    caught_up(primary, *replicas)
    digests = [admin_of(s).execute_command("REPLDIGEST")[3] for s in (primary, *replicas)]
    assert len(set(digests)) == 1
    for replica, conn in zip(replicas, inside, strict=True):
        conn.send(encode_command("GET", "k"))
        assert conn.read_to_end() == b""
        assert space(replica, "t-before").get("k") == b"before"
        assert space(replica, "new").keys() == [b"l"]
        assert admin_of(replica).execute_command("NAMESPACE GET", "gone") is None
        for words in (("ADD", "x", "x"), ("SET", "after", "x"), ("DEL", "after")):
            assert "read only replica" in refused(admin_of(replica), "NAMESPACE", *words)
        assert admin_of(replica).keys() == []


def test_a_replica_wakes_and_tells_its_own(fresh_server: FreshServer) -> None:
    primary = fresh_server(requirepass=PASSWORD)
    replica = replica_of(fresh_server, primary)
    caught_up(primary, replica)
    add(admin_of(primary), "n1", "n2")
    caught_up(primary, replica)
    conns = {name: tenant(replica, token, 3) for name, token in TOKENS.items()}
    for conn in conns.values():
        conn.ask("CLIENT", "TRACKING", "ON")
        conn.ask("GET", "k")
        conn.ask("WATCH", "k")
    space(primary, "t-n1").set("k", "v")
    caught_up(primary, replica)
    for name, conn in conns.items():
        told = [conn.reply()] if name == "n1" else []
        assert all(b"invalidate" in each for each in told)
        assert conn.ask("MULTI") == b"+OK\r\n"
        assert conn.ask("EXEC") == (b"_\r\n" if name == "n1" else b"*0\r\n")


def test_a_rewind_takes_a_namespace_back(fresh_server: FreshServer) -> None:
    """What the old primary added alone is gone, and so is who was in it."""
    old = fresh_server(requirepass=PASSWORD, masterauth=PASSWORD)
    new = replica_of(fresh_server, old)
    add(admin_of(old), "n1")
    space(old, "t-n1").set("k", "both")
    caught_up(old, new)
    admin_of(new).replicaof("NO", "ONE")
    add(admin_of(old), "lost")
    space(old, "t-lost").set("k", "lost")
    admin_of(old).execute_command("NAMESPACE DEL", "n1")
    add(admin_of(new), "kept")  # it takes the same database as `lost`
    space(new, "t-kept").set("k", "kept")
    inside = tenant(old, "t-lost")
    admin_of(old).replicaof(LOOPBACK, new.port)
    caught_up(new, old)
    inside.send(encode_command("GET", "k"))
    assert inside.read_to_end() == b""
    names = [admin_of(s).execute_command("NAMESPACE GET", "*")[:-2:2] for s in (old, new)]
    assert names == [[b"kept", b"n1"]] * 2
    assert space(old, "t-kept").get("k") == b"kept"
    assert space(old, "t-n1").get("k") == b"both"
