"""CLIENT TRACKING: every message that redis-server sends, and no other, in the same order."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from core import Client, Core
from harness import Conn, Server, encode_command, wait_until
from redis.cache import CacheConfig

from kvserver.quoting import split_args

PONG = b"$3\r\nend\r\n"


class Actor:
    """A connection, and how to ask it for what it heard without changing anything."""

    def __init__(self, server: Server, protocol: int) -> None:
        self.conn = server.conn()
        self.protocol = protocol
        self.conn.ask("HELLO", protocol)
        self.number = self.conn.ask("CLIENT", "ID")[1:-2]
        self.in_multi = self.subscribed = False

    def ask(self, words: list[bytes]) -> bytes:
        name = words[0].upper()
        self.in_multi = name == b"MULTI" or (self.in_multi and name != b"EXEC")
        self.subscribed = name == b"SUBSCRIBE" or (self.subscribed and name != b"UNSUBSCRIBE")
        return self.conn.ask(*words)

    def heard(self) -> list[bytes]:
        """The messages that it got already; none inside MULTI."""
        if self.in_multi:
            return []
        end = b":%b\r\n" % self.number
        # CLIENT takes nothing from CLIENT CACHING; a RESP2 subscriber may only send PING.
        if self.subscribed and self.protocol == 2:
            self.conn.send(encode_command("PING", "end"))
            end = b"*2\r\n$4\r\npong\r\n" + PONG
        else:
            self.conn.send(encode_command("CLIENT", "ID"))
        messages = []
        while (message := self.conn.reply()) != end:
            messages.append(message)
        return messages


class Actors:
    """Named connections to one server."""

    def __init__(self, server: Server, protocols: dict[str, int]) -> None:
        self.actors = {name: Actor(server, protocol) for name, protocol in protocols.items()}
        self.numbers = {name: actor.number for name, actor in self.actors.items()}
        self.admin = server.client()

    def run(self, line: str) -> list[tuple[str, bytes]]:
        """Let one of them send a command; (who, what) of all that any of them receives then."""
        name, _, text = line.strip().partition(": ")
        for who, number in self.numbers.items():
            text = text.replace(f"<{who}>", number.decode())
        words = split_args(text.encode())
        assert words
        if words == [b"CLOSE"]:
            self.actors.pop(name).conn.close()
            wait_until(lambda: len(self.admin.client_list(client_id=[self.numbers[name]])) == 0)
            return []
        received = [(name, self.masked(self.actors[name].ask(words)))]
        for who, actor in self.actors.items():
            received += [(who, self.masked(message)) for message in actor.heard()]
        return received

    def masked(self, message: bytes) -> bytes:
        for name, number in self.numbers.items():
            message = message.replace(b":%b\r\n" % number, b":<%b>\r\n" % name.encode())
        return message


def same(server: Server, oracle: Server, script: str, **protocols: int) -> list[Any]:
    """Run a script with both servers; returns what was received."""
    actors = [Actors(one, protocols) for one in (server, oracle)]
    log = []
    for line in script.strip().splitlines():
        ours, theirs = (one.run(line) for one in actors)
        assert ours == theirs, line
        log += ours
    return log


def messages(log: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [one for one in log if re.match(rb"[>*]\d\r\n\$\d+\r\n(invalidate|message)", one[1])]


SCRIPTS = {
    "a change is told once": """
        a: CLIENT TRACKING ON
        a: GET k
        b: SET k 1
        b: SET k 2
        a: GET k
        a: MGET k l m
        b: MSET l 1 m 1 k 3
        b: DEL k
        a: EXISTS k
        b: SET k 3
        a: TTL k
        b: EXPIRE k 100
        a: GET k
        b: PERSIST k
        a: GET k
        b: RENAME k n
        a: MGET n k
        b: COPY n k
        a: GET n
        b: APPEND n x
        a: GETRANGE n 0 1
        b: GETSET n y
        a: STRLEN n
        b: GETDEL n
        """,
    "what doesn't change isn't told": """
        a: CLIENT TRACKING ON
        a: MGET k l
        b: DEL k
        b: SET k 1 XX
        b: EXPIRE k 10
        b: PERSIST l
        b: GET k
        b: SET l 1
        a: GET l
        b: SETNX l 2
        b: TOUCH l
        b: SET m 1
        """,
    "writes aren't remembered": """
        a: CLIENT TRACKING ON
        a: SET k 1
        b: SET k 2
        a: INCR k
        b: SET k 3
        a: GETEX k
        b: SET k 4
        """,
    "own changes": """
        a: CLIENT TRACKING ON
        a: GET k
        a: SET k 1
        a: GET k
        a: MULTI
        a: SET k 2
        a: GET k
        a: SET k 3
        a: EXEC
        b: SET k 4
        a: GET k
        a: FLUSHALL
        a: GET k
        b: FLUSHDB
        """,
    "noloop": """
        a: CLIENT TRACKING ON NOLOOP
        a: GET k
        a: SET k 1
        b: SET k 2
        a: GET k
        b: SET k 3
        a: MGET k l
        a: MULTI
        a: SET k 1
        a: EXEC
        b: SET l 1
        a: FLUSHALL
        """,
    "all databases": """
        a: CLIENT TRACKING ON
        a: GET k
        b: SELECT 3
        b: SET k 1
        a: SELECT 3
        a: GET k
        b: SELECT 0
        b: SET k 1
        a: GET k
        b: FLUSHDB
        a: GET k
        b: SELECT 3
        b: MOVE k 4
        a: GET k
        b: SWAPDB 3 4
        """,
    "several clients": """
        a: CLIENT TRACKING ON
        b: CLIENT TRACKING ON
        a: GET k
        b: GET k
        c: SET k 1
        a: GET k
        b: GET k
        a: CLIENT TRACKING OFF
        c: SET k 2
        a: CLIENT TRACKING ON
        a: GET k
        b: GET k
        b: RESET
        c: SET k 3
        """,
    "optin": """
        a: CLIENT TRACKING ON OPTIN
        a: GET k
        b: SET k 1
        a: CLIENT CACHING YES
        a: CLIENT TRACKINGINFO
        a: GET k
        a: CLIENT TRACKINGINFO
        a: GET l
        b: SET l 1
        b: SET k 1
        a: CLIENT CACHING YES
        a: PING
        a: GET k
        b: SET k 1
        a: CLIENT CACHING YES
        a: MULTI
        a: GET k
        a: GET l
        a: EXEC
        a: GET m
        b: MSET k 1 l 1 m 1
        a: CLIENT CACHING YES
        a: NOSUCH
        a: GET k
        b: SET k 1
        a: CLIENT CACHING YES
        a: GET
        a: GET k
        b: SET k 1
        a: CLIENT CACHING NO
        a: CLIENT CACHING MAYBE
        """,
    "optout": """
        a: CLIENT TRACKING ON OPTOUT
        a: GET k
        b: SET k 1
        a: CLIENT CACHING NO
        a: CLIENT TRACKINGINFO
        a: GET k
        a: GET l
        b: MSET k 1 l 1
        a: CLIENT CACHING NO
        a: MULTI
        a: GET k
        a: EXEC
        a: GET l
        b: MSET k 1 l 1
        a: CLIENT CACHING YES
        """,
    "bcast": """
        a: CLIENT TRACKING ON BCAST
        a: CLIENT TRACKINGINFO
        b: SET k 1
        b: MSET c 1 a 1 b 1
        a: SET k 2
        a: GET k
        a: CLIENT TRACKING ON BCAST PREFIX x
        b: DEL k
        b: DEL k
        a: MULTI
        a: SET k 1
        a: SET l 1
        a: EXEC
        b: FLUSHALL
        a: CLIENT TRACKING OFF
        b: SET k 1
        """,
    "prefixes": """
        a: CLIENT TRACKING ON BCAST PREFIX a PREFIX b
        b: CLIENT TRACKING ON BCAST PREFIX a: PREFIX c
        a: CLIENT TRACKINGINFO
        c: SET a 1
        c: SET a:1 1
        c: MSET b 1 c 1 d 1
        c: MSET a:1 1 a:2 1
        a: CLIENT TRACKING ON BCAST PREFIX c
        a: CLIENT TRACKINGINFO
        c: SET c 2
        a: CLIENT TRACKING ON BCAST PREFIX ab
        a: CLIENT TRACKING ON BCAST PREFIX ""
        a: CLIENT TRACKING ON BCAST
        a: CLIENT TRACKINGINFO
        c: SET a 1
        a: CLOSE
        c: SET a 1
        """,
    "bcast noloop": """
        a: CLIENT TRACKING ON BCAST NOLOOP
        b: CLIENT TRACKING ON BCAST
        a: SET k 1
        b: SET k 1
        c: SET k 1
        a: MSET k 1 l 2
        a: FLUSHALL
        """,
    "redirect": """
        a: CLIENT TRACKING ON REDIRECT <c>
        a: CLIENT GETREDIR
        a: CLIENT TRACKINGINFO
        a: GET k
        b: SET k 1
        c: SUBSCRIBE __redis__:invalidate
        a: GET k
        b: SET k 2
        a: GET k
        a: SET k 3
        a: GET k
        b: FLUSHALL
        a: CLIENT TRACKING ON REDIRECT <c> NOLOOP
        a: GET k
        a: SET k 3
        b: SET k 4
        a: GET k
        c: UNSUBSCRIBE
        b: SET k 4
        a: GET k
        c: CLOSE
        b: SET k 4
        a: CLIENT TRACKINGINFO
        a: GET k
        b: SET k 5
        a: CLIENT TRACKING ON
        a: CLIENT TRACKINGINFO
        a: CLIENT GETREDIR
        a: GET k
        b: SET k 5
        """,
    "redirected bcast": """
        c: SUBSCRIBE __redis__:invalidate
        a: CLIENT TRACKING ON REDIRECT <c> BCAST PREFIX k PREFIX l
        b: MSET k 1 k2 1 l 1 m 1
        b: FLUSHALL
        """,
    "refused": """
        a: CLIENT TRACKING
        a: CLIENT TRACKING MAYBE
        a: CLIENT TRACKING ON NOPE
        a: CLIENT TRACKING OFF NOPE
        a: CLIENT TRACKING ON REDIRECT
        a: CLIENT TRACKING ON REDIRECT x
        a: CLIENT TRACKING ON REDIRECT 999999999
        a: CLIENT TRACKING ON REDIRECT <b> REDIRECT <b>
        a: CLIENT TRACKING ON REDIRECT 0
        a: CLIENT TRACKING ON PREFIX
        a: CLIENT TRACKING ON PREFIX a
        a: CLIENT TRACKING ON BCAST OPTIN
        a: CLIENT TRACKING ON BCAST OPTOUT
        a: CLIENT TRACKING ON OPTIN OPTOUT
        a: CLIENT TRACKING ON BCAST PREFIX a PREFIX ab
        a: CLIENT TRACKING ON BCAST PREFIX a PREFIX a
        a: CLIENT TRACKINGINFO
        a: CLIENT CACHING YES
        a: CLIENT CACHING
        a: CLIENT CACHING YES NO
        a: CLIENT GETREDIR
        a: CLIENT GETREDIR x
        a: CLIENT TRACKINGINFO x
        a: CLIENT TRACKING ON OPTIN
        a: CLIENT TRACKING ON OPTOUT
        a: CLIENT TRACKING ON BCAST
        a: CLIENT CACHING NO
        a: CLIENT TRACKING ON
        a: CLIENT CACHING NO
        a: CLIENT CACHING YES
        a: CLIENT TRACKING off prefix x
        a: client tracking on bcast prefix a
        a: CLIENT TRACKING ON
        a: CLIENT TRACKING ON BCAST PREFIX ab
        a: CLIENT TRACKING ON BCAST PREFIX ""
        a: CLIENT TRACKING OFF
        a: CLIENT TRACKING OFF
        a: CLIENT GETREDIR
        """,
    "time": """
        a: CLIENT TRACKING ON
        b: SET k 1 PXAT 1
        a: GET k
        b: SET k 1
        a: GET k
        b: EXPIREAT k 1
        a: GET k
        b: SET k 1
        """,
    "cached cardinalities": """
        a: CLIENT TRACKING ON
        a: GET k
        b: SET k 1
        a: PFADD h x
        a: PFCOUNT h
        b: PFADD h y
        a: PFCOUNT h
        """,
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", SCRIPTS)
def test_messages(server: Server, oracle: Server, name: str, protocol: int) -> None:
    log = same(server, oracle, SCRIPTS[name], a=protocol, b=protocol, c=protocol)
    told = name not in ("refused", "writes aren't remembered")
    assert bool(messages(log)) == (told and (protocol == 3 or "redirect" in name))


@pytest.mark.parametrize(("reader", "listener"), [(2, 3), (3, 2)])
def test_redirection_between_protocols(
    server: Server, oracle: Server, reader: int, listener: int
) -> None:
    script = """
        c: SUBSCRIBE other
        a: CLIENT TRACKING ON REDIRECT <c>
        a: GET k
        b: SET k 1
        a: GET k
        a: SET k 1
        """
    assert len(messages(same(server, oracle, script, a=reader, b=2, c=listener))) == 2


def test_scripts(server: Server) -> None:
    """7.0 remembers the keys that a script declares; since 7.2 those that it reads count."""
    actors = Actors(server, {"a": 3, "b": 3})
    script = """
        a: CLIENT TRACKING ON
        a: EVAL "redis.call('GET', 'l'); return redis.call('GET', KEYS[1])" 1 k
        b: MSET k 1 l 1 m 1
        a: EVAL_RO "return redis.call('GET', KEYS[1])" 2 k l
        b: MSET k 1 l 1 m 1
        a: GET k
        a: EVAL "return redis.call('SET', KEYS[1], 'x')" 1 k
        a: CLIENT TRACKING ON NOLOOP
        a: GET k
        a: EVAL "return redis.call('SET', KEYS[1], 'x')" 1 k
        """
    log = [one for line in script.strip().splitlines() for one in actors.run(line)]
    assert [data.split(b"\r\n")[-2] for _, data in messages(log)] == [b"k", b"l", b"k", b"k"]


def fields(conn: Conn) -> list[bytes]:
    return [line for line in conn.ask("INFO").splitlines() if line.startswith(b"tracking_")]


def test_info_counts_what_redis_counts(server: Server, oracle: Server) -> None:
    script = """
        a: CLIENT TRACKING ON
        b: CLIENT TRACKING ON
        c: CLIENT TRACKING ON BCAST PREFIX a PREFIX b
        a: MGET a b c
        a: MGET b c d
        b: MGET b c
        c: GET b
        d: SET b 1
        a: CLIENT TRACKING OFF
        d: SET c 1
        b: CLIENT TRACKING OFF
        c: CLOSE
        d: FLUSHALL
        """
    actors = [Actors(one, dict.fromkeys("abcd", 3)) for one in (server, oracle)]
    for line in script.strip().splitlines():
        for one in actors:
            one.run(line)
        wait_until(
            lambda: len({tuple(fields(one.actors["d"].conn)) for one in actors}) == 1, what=line
        )
    assert fields(actors[0].actors["d"].conn)


def test_client_list_shows_the_mode(server: Server, oracle: Server) -> None:
    seen = []
    for one in (server, oracle):
        conn, gone = one.conn(), one.conn()
        conn.ask("HELLO", 3)
        shown = []
        number = gone.ask("CLIENT", "ID")[1:-2].decode()
        for words in ("ON BCAST", "OFF", f"ON REDIRECT {number}", "ON"):
            conn.ask("CLIENT", "TRACKING", *words.split())
            line = conn.ask("CLIENT", "INFO").decode()
            found = re.findall(r"(?:flags|redir)=\S*", line.replace(f"={number}", "=n"))
            shown.append(found)
        gone.close()
        wait_until(lambda one=one: len(one.client().client_list()) <= 2)
        conn.ask("CLIENT", "TRACKING", "ON", "REDIRECT", conn.ask("CLIENT", "ID")[1:-2])
        seen.append(shown)
    assert seen[0] == seen[1]


def test_an_expired_key_is_told(server: Server) -> None:
    reader, writer = server.conn(), server.conn()
    reader.ask("HELLO", 3)
    reader.ask("CLIENT", "TRACKING", "ON")
    writer.ask("SET", "k", "v", "PX", 50)
    reader.ask("GET", "k")
    assert reader.reply() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    assert writer.ask("GET", "k") == b"$-1\r\n"


def test_the_table_is_limited(server: Server) -> None:
    reader = server.conn()
    reader.ask("HELLO", 3)
    reader.ask("CONFIG", "SET", "tracking-table-max-keys", 10)
    reader.ask("CLIENT", "TRACKING", "ON")
    received = []
    for number in range(12):
        reader.send(encode_command("GET", f"k{number}"))
    while len([message for message in received if message[:1] == b">"]) < 2:
        received.append(reader.reply())
    assert b"tracking_total_keys:10\r\n" in reader.ask("INFO", "stats")
    # It goes on until all of a lower limit is reached.
    reader.ask("MGET", *(f"x{number}" for number in range(500)))
    reader.ask("CONFIG", "SET", "tracking-table-max-keys", 3)
    wait_until(lambda: b"tracking_total_keys:3\r\n" in conn_info(server))


def conn_info(server: Server) -> bytes:
    with server.conn() as conn:
        return conn.ask("INFO", "stats")


def test_a_message_waits_for_the_log(fresh_server: FreshServer) -> None:
    server = fresh_server(appendfsync="always")
    reader, writer = server.conn(), server.conn()
    reader.ask("HELLO", 3)
    reader.ask("CLIENT", "TRACKING", "ON")
    for number in range(20):
        reader.ask("GET", "k")
        writer.send(encode_command("SET", "k", f"{number:02}"))
        assert reader.reply().startswith(b">2")
        assert reader.ask("GET", "k") == b"$2\r\n%02d\r\n" % number
        assert writer.reply() == b"+OK\r\n"


def test_a_blocked_reader_is_told_after_its_reply(server: Server) -> None:
    blocked, writer = server.conn(), server.conn()
    blocked.ask("HELLO", 3)
    blocked.ask("CLIENT", "TRACKING", "ON")
    blocked.ask("LRANGE", "dst", 0, -1)
    blocked.send(encode_command("BRPOPLPUSH", "src", "dst", 0))
    wait_until(lambda: b"blocked_clients:1" in writer.ask("INFO", "clients"))
    writer.ask("RPUSH", "src", "v")
    assert blocked.reply() == b"$1\r\nv\r\n"
    assert blocked.reply() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\ndst\r\n"


# -- turns -------------------------------------------------------------------------------------

TOLD = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path / "db") as core:
        yield core


def tracked(core: Core, *options: bytes) -> Client:
    client = core.client(resp3=True)
    assert client.ask(b"CLIENT", b"TRACKING", b"ON", *options) == b"+OK\r\n"
    return client


def test_a_message_leaves_with_the_commit(core: Core) -> None:
    reader, writer = tracked(core), core.client()
    reader.ask(b"GET", b"k")
    writer.call(b"SET", b"k", b"1")
    assert reader.take() == b""
    core.end_turn()
    assert reader.take() == TOLD and writer.take() == b"+OK\r\n"


def test_a_message_is_sent_if_the_write_fails(core: Core) -> None:
    # The table has forgotten the reader: he would never hear of the next change.
    readers, writer = [tracked(core), tracked(core, b"BCAST")], core.client()
    readers[0].ask(b"GET", b"k")
    core.fail_writes()
    assert writer.ask(b"SET", b"k", b"1").startswith(b"-MISCONF")
    assert [reader.take() for reader in readers] == [TOLD, TOLD]


def test_a_message_is_sent_if_the_command_crashes(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = tracked(core)
    reader.ask(b"GET", b"k")

    def crash(ctx: Any, key: bytes) -> None:
        ctx.db.put_string(key, b"half")
        raise ZeroDivisionError

    entry = core.server.table.entries[b"getdel"]
    monkeypatch.setattr(entry, "handler", crash)
    reply = reader.ask(b"GETDEL", b"k")
    assert reply.startswith(b"-ERR internal error") and reply.endswith(TOLD)
    assert reader.ask(b"GET", b"k") == b"_\r\n"


def test_broadcasts_of_a_turn_are_one_message(core: Core) -> None:
    listener, writer = tracked(core, b"BCAST", b"PREFIX", b"k"), core.client()
    for key in (b"k2", b"k1", b"l", b"k2"):
        writer.call(b"SET", key, b"1")
    core.end_turn()
    assert listener.take() == b">2\r\n$10\r\ninvalidate\r\n*2\r\n$2\r\nk1\r\n$2\r\nk2\r\n"


def test_a_change_during_a_long_read_is_told_after_its_reply(core: Core) -> None:
    reader, writer = tracked(core), core.client()
    fields = [word for number in range(5000) for word in (b"f%d" % number, b"1")]
    writer.ask(b"HSET", b"k", *fields)
    reader.call(b"HGETALL", b"k")
    core.end_turn()
    assert reader.take() == b""
    writer.ask(b"HSET", b"k", b"f0", b"2")
    while core.server.waiting.step_walks(10**9):
        pass
    core.end_turn()
    reply = reader.take()
    assert reply.startswith(b"%5000\r\n") and reply.endswith(TOLD)
    # The next one isn't held back.
    reader.ask(b"HGET", b"k", b"f0")
    writer.ask(b"HSET", b"k", b"f0", b"3")
    assert reader.take() == TOLD


def test_a_muted_client_is_told(core: Core) -> None:
    reader = tracked(core)
    reader.ask(b"GET", b"k")
    reader.ask(b"CLIENT", b"REPLY", b"OFF")
    core.client().ask(b"SET", b"k", b"1")
    assert reader.take() == TOLD


def test_nothing_is_observed_when_nobody_tracks(core: Core) -> None:
    reader, writer = tracked(core), core.client()
    assert core.server.keyspace.observed
    reader.ask(b"GET", b"k")
    core.server.tracking.disable(reader.session)
    assert core.server.keyspace.observed, "the reader may turn it on again"
    writer.ask(b"SET", b"k", b"1")
    assert not core.server.keyspace.observed and reader.take() == b""


# -- replicas ---------------------------------------------------------------------------------


def test_readers_of_a_replica_are_told(fresh_server: FreshServer) -> None:
    primary, replica = fresh_server(), fresh_server()
    replica.client().replicaof("127.0.0.1", primary.port)
    writer = primary.client()
    writer.set("k", 0)
    wait_until(lambda: replica.client().get("k") == b"0")
    reader, listener = replica.conn(), replica.conn()
    for conn in (reader, listener):
        conn.ask("HELLO", 3)
    reader.ask("CLIENT", "TRACKING", "ON")
    listener.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "k")
    reader.ask("MGET", "k", "l")
    writer.set("k", 1)
    told = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    assert reader.reply() == listener.reply() == told
    assert reader.ask("GET", "k") == b"$1\r\n1\r\n"
    writer.flushall()
    everything = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
    assert reader.reply() == listener.reply() == everything
    # What it was told before it became a primary holds no longer.
    replica.client().replicaof("NO", "ONE")
    reader.ask("GET", "k")
    replica.client().set("k", 2)
    assert reader.reply() == told


def test_a_changed_element_is_told_by_a_replica(fresh_server: FreshServer) -> None:
    primary, replica = fresh_server(), fresh_server()
    replica.client().replicaof("127.0.0.1", primary.port)
    writer = primary.client()
    writer.hset("h", "field", "value")
    wait_until(lambda: replica.client().exists("h"))
    reader, listener = replica.conn(), replica.conn()
    for conn in (reader, listener):
        conn.ask("HELLO", 3)
    reader.ask("CLIENT", "TRACKING", "ON")
    listener.ask("CLIENT", "TRACKING", "ON", "BCAST")
    for conn in (reader, listener):
        conn.ask("HGET", "h", "field")
    writer.hset("h", "field", "other")
    told = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nh\r\n"
    assert reader.reply() == listener.reply() == told
    assert reader.ask("HGET", "h", "field") == b"$5\r\nother\r\n"


# -- redis-py ---------------------------------------------------------------------------------


def test_redis_py_caches(server: Server) -> None:
    cached = redis.Redis(
        host="127.0.0.1", port=server.port, protocol=3, cache_config=CacheConfig(max_size=100)
    )
    writer = server.client()
    writer.set("k", "1")
    assert cached.get("k") == b"1"
    before = writer.info("commandstats")["cmdstat_get"]["calls"]
    assert [cached.get("k") for _ in range(5)] == [b"1"] * 5
    assert writer.info("commandstats")["cmdstat_get"]["calls"] == before
    writer.set("k", "2")
    deadline = time.monotonic() + 10
    while cached.get("k") != b"2":
        assert time.monotonic() < deadline, "the copy wasn't invalidated"
    writer.flushall()
    wait_until(lambda: cached.get("k") is None)
    cached.close()
