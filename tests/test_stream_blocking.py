"""XREAD and XREADGROUP that wait, and the keyspace events of streams."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Conn, Server, encode_command, wait_until
from pair import Command, Pair, heard, parse

ADD: Command = ("XADD", "s", "1-0", "f", "v")


def is_blocked(server: Server, count: int) -> bool:
    return bool(server.client().info("clients")["blocked_clients"] == count)


class Readers:
    """Clients that wait, the same of kvserver and of redis-server."""

    def __init__(self, pair: Pair, *commands: Command) -> None:
        self.pair = pair
        self.conns: list[list[Conn]] = [[], []]
        self.add(*commands)

    def add(self, *commands: Command) -> None:
        """They wait in this order."""
        for command in commands:
            for server, conns in zip(self.pair.servers, self.conns, strict=True):
                conn = self.pair.connect(server)
                conn.send(encode_command(*command))
                conns.append(conn)
                self.wait_for(server, len(conns))

    def wait_for(self, server: Server, count: int) -> None:
        wait_until(lambda: is_blocked(server, count), what=f"{count} blocked clients")

    def replies(self) -> list[bytes]:
        """What they get, which must be equal."""
        ours, theirs = ([conn.reply() for conn in conns] for conns in self.conns)
        assert ours == theirs
        return ours


def test_every_reader_gets_the_entry(pair: Pair) -> None:
    readers = Readers(
        pair,
        ("XREAD", "BLOCK", 0, "STREAMS", "s", "$"),
        ("XREAD", "BLOCK", 0, "STREAMS", "missing", "s", 0, 0),
        ("XREAD", "BLOCK", 0, "COUNT", 1, "STREAMS", "s", "0-1"),
    )
    pair.same([ADD])
    readers.replies()


def test_last_id_is_that_of_the_call(pair: Pair) -> None:
    pair.same([("XADD", "s", "5-0", "f", "v")])
    readers = Readers(
        pair,
        ("XREAD", "BLOCK", 0, "STREAMS", "s", "$"),
        ("XREAD", "BLOCK", 0, "STREAMS", "t", "s", "$", "$"),
    )
    # Runs them again without anything to read.
    pair.same([("XDEL", "s", "5-0"), ("XSETID", "s", "6-0"), ("XADD", "s", "6-1", "f", "v")])
    readers.replies()


def test_several_entries_at_once(pair: Pair) -> None:
    readers = Readers(pair, ("XREAD", "BLOCK", 0, "STREAMS", "s", "$"))
    pair.same([("MULTI",), ADD, ("XADD", "s", "2-0", "f", "v"), ("EXEC",)])
    readers.replies()


def test_an_entry_that_went_at_once(server: Server) -> None:
    """Since 7.2 the reader goes on waiting; 7.0 gives it an empty list."""
    admin, conn = server.conn(), server.conn()
    conn.send(encode_command("XREAD", "BLOCK", 0, "STREAMS", "s", "$"))
    wait_until(lambda: is_blocked(server, 1))
    for command in (
        ("MULTI",),
        ADD,
        ("XDEL", "s", "1-0"),
        ("EXEC",),
        ("XADD", "s", "2-0", "f", "v"),
    ):
        admin.ask(*command)
    assert b"2-0" in conn.reply()


def test_a_stream_by_rename(pair: Pair) -> None:
    readers = Readers(pair, ("XREAD", "BLOCK", 0, "STREAMS", "s", 0))
    pair.same([("SET", "s", 1), ("DEL", "s"), ("XADD", "t", "1-0", "f", "v"), ("RENAME", "t", "s")])
    readers.replies()


def test_a_large_stream_by_rename(server: Server) -> None:
    client: Any = server.client()
    with client.pipeline(transaction=False) as pipeline:
        for number in range(1, 3001):
            pipeline.execute_command("XADD", "t", f"{number}-0", "f", number)
        pipeline.execute()
    conn = server.conn()
    conn.send(encode_command("XREAD", "BLOCK", 0, "STREAMS", "s", 0))
    wait_until(lambda: is_blocked(server, 1))
    client.rename("t", "s")
    assert conn.reply().count(b"-0\r\n") == 3000
    assert conn.ask("PING") == b"+PONG\r\n"


def test_time_out(pair: Pair) -> None:
    Readers(
        pair,
        ("XREAD", "BLOCK", 200, "STREAMS", "s", "$"),
    ).replies()
    pair.same([("XGROUP", "CREATE", "s", "g", 0, "MKSTREAM")])
    Readers(pair, ("XREADGROUP", "GROUP", "g", "c", "BLOCK", 200, "STREAMS", "s", ">")).replies()
    pair.same([ADD])


GROUP = [ADD, ("XGROUP", "CREATE", "s", "g", "$")]


def reader(consumer: str, *words: bytes | str | int) -> Command:
    return ("XREADGROUP", "GROUP", "g", consumer, "BLOCK", 0, *words, "STREAMS", "s", ">")


def test_each_entry_goes_to_one_consumer(pair: Pair) -> None:
    pair.same(GROUP)
    readers = Readers(pair, reader("a"), reader("b", "COUNT", 1), reader("c", "NOACK"))
    pair.same([("XADD", "s", f"{number}-0", "n", number) for number in (2, 3, 4)])
    for number, reply in enumerate(readers.replies(), 2):
        assert b"%d-0" % number in reply
    pair.same([("XPENDING", "s", "g")])


def test_first_come_first_served(pair: Pair) -> None:
    pair.same(GROUP)
    readers = Readers(pair, reader("a", "COUNT", 1), reader("b"))
    pair.same(
        [
            ("MULTI",),
            *(("XADD", "s", f"{number}-0", "n", number) for number in (2, 3, 4)),
            ("EXEC",),
        ]
    )
    readers.replies()
    pair.same([("XPENDING", "s", "g")])


def test_readers_of_both_kinds(pair: Pair) -> None:
    pair.same([*GROUP, ("XGROUP", "CREATE", "s", "h", 0), ("XGROUP", "SETID", "s", "h", "$")])
    readers = Readers(
        pair,
        ("XREAD", "BLOCK", 0, "STREAMS", "s", "$"),
        reader("a"),
        ("XREADGROUP", "GROUP", "h", "x", "BLOCK", 0, "STREAMS", "s", ">"),
    )
    pair.same([("XADD", "s", "2-0", "f", "v")])
    readers.replies()


def test_a_consumer_deleted_meanwhile(pair: Pair) -> None:
    pair.same(GROUP)
    readers = Readers(pair, reader("a"))
    pair.same([("XGROUP", "DELCONSUMER", "s", "g", "a"), ("XADD", "s", "2-0", "f", "v")])
    readers.replies()
    pair.same([("XPENDING", "s", "g")])


GONE = {
    "del": "DEL s",
    "unlink": "UNLINK s",
    "flushall": "FLUSHALL",
    "flushdb": "FLUSHDB",
    "swapdb": "SWAPDB 0 9",
    "rename": "RENAME s t",
    "expire": "PEXPIRE s 1",
    "destroy": "XGROUP DESTROY s g",
    "in a transaction": "MULTI\nDEL s\nXADD s 9-9 f v\nEXEC",
    "other type": "SET s x",
}


@pytest.mark.parametrize("script", GONE.values(), ids=GONE)
def test_a_group_that_goes(server: Server, script: str) -> None:
    """7.0 has other words for it: since 7.2 it is the command's own answer."""
    admin, conn = server.conn(), server.conn()
    for command in GROUP:
        admin.ask(*command)
    conn.send(encode_command(*reader("a")))
    wait_until(lambda: is_blocked(server, 1))
    for command in parse(script):
        admin.ask(*command)
    reply = conn.reply()
    if script.startswith("SET"):
        assert reply.startswith(b"-WRONGTYPE ")
    else:
        assert reply == (
            b"-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n"
        )


def test_history_never_waits(pair: Pair) -> None:
    pair.same([*GROUP, ("XREADGROUP", "GROUP", "g", "a", "BLOCK", 0, "STREAMS", "s", 0)])


def test_unblock(pair: Pair) -> None:
    pair.same(GROUP)
    readers = Readers(pair, reader("a"), ("XREAD", "BLOCK", 0, "STREAMS", "t", "$"))
    for server in pair.servers:
        client: Any = server.client()
        for one in client.client_list():
            if one["cmd"].startswith("xread"):
                client.client_unblock(one["id"])
    readers.replies()


@pytest.mark.parametrize("name", ["xread", "xreadgroup"])
def test_scripts_do_not_wait(server: Server, name: str) -> None:
    """As Redis 7.4; 7.0 refuses BLOCK in scripts."""
    conn = server.conn()
    conn.ask("XGROUP", "CREATE", "s", "g", "0", "MKSTREAM")
    group, after = ("'GROUP', 'g', 'c', ", ">") if name == "xreadgroup" else ("", "0")
    script = f"return redis.call('{name}', {group}'BLOCK', '0', 'STREAMS', KEYS[1], '{after}')"
    assert conn.ask("EVAL", script, 1, "s") == b"$-1\r\n"


def test_waiting_survives_a_pause(server: Server) -> None:
    admin, conn = server.conn(), server.conn()
    conn.send(encode_command("XREAD", "BLOCK", 0, "STREAMS", "s", "$"))
    wait_until(lambda: is_blocked(server, 1))
    admin.ask("CLIENT", "PAUSE", 100_000, "WRITE")
    writer = server.conn()
    writer.send(encode_command(*ADD))
    admin.ask("CLIENT", "UNPAUSE")
    assert writer.reply() == b"$3\r\n1-0\r\n"
    assert b"1-0" in conn.reply()


# -- positions and watches -------------------------------------------------------------------------


def position(client: Any) -> int:
    return int(client.info("replication")["master_repl_offset"])


def test_a_poll_takes_no_position(server: Server) -> None:
    client: Any = server.client()
    client.execute_command(*ADD)
    client.xgroup_create("s", "g", 0)
    client.xreadgroup("g", "c", {"s": ">"})
    client.xack("s", "g", "1-0")
    before = position(client)
    assert not client.xreadgroup("g", "c", {"s": ">"})
    assert client.xack("s", "g", "1-0") == 0
    assert client.xclaim("s", "g", "c", 0, ["1-0"]) == []
    assert client.xautoclaim("s", "g", "c", 0)[1] == []
    assert client.xtrim("s", maxlen=5) == 0
    assert client.xdel("s", "9-9") == 0
    client.xgroup_createconsumer("s", "g", "c")
    assert position(client) == before
    client.xreadgroup("g", "d", {"s": ">"})  # a new consumer
    assert position(client) == before + 1


WATCHED = {
    "xadd": ("XADD", "s", "9-0", "f", "v"),
    "xdel": ("XDEL", "s", "1-0"),
    "xdel of nothing": ("XDEL", "s", "8-8"),
    "xtrim": ("XTRIM", "s", "MAXLEN", 0),
    "xack": ("XACK", "s", "g", "1-0"),
    "xreadgroup": ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"),
    "xclaim": ("XCLAIM", "s", "g", "d", 0, "1-0"),
    "xgroup create": ("XGROUP", "CREATE", "s", "new", 0),
    "xgroup destroy": ("XGROUP", "DESTROY", "s", "g"),
}


@pytest.mark.parametrize("change", WATCHED.values(), ids=WATCHED)
def test_watch(pair: Pair, change: Command) -> None:
    pair.same(
        [
            *GROUP[:1],
            ("XADD", "s", "2-0", "f", "v"),
            ("XGROUP", "CREATE", "s", "g", 0),
            ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "s", ">"),
            ("WATCH", "s"),
            change,
            ("MULTI",),
            ("PING",),
            ("EXEC",),
        ]
    )


# -- events ----------------------------------------------------------------------------------------

EVENTS = """
    XADD s NOMKSTREAM 1-0 f v
    XADD s 1-0 f v
    XADD s MAXLEN 5 2-0 f v
    XADD s MAXLEN 2 3-0 f v
    XADD s 3-0 f v
    XTRIM s MAXLEN 2
    XTRIM s MAXLEN 1
    XDEL s 9
    XDEL s 3-0
    XSETID s 3-0
    XADD s 4-0 f v
    XADD s 5-0 f v
    XGROUP CREATE s g 0
    XGROUP CREATE s g 0
    XGROUP CREATE t g $ MKSTREAM
    XGROUP SETID s g 0
    XGROUP CREATECONSUMER s g c
    XGROUP CREATECONSUMER s g c
    XREADGROUP GROUP g c COUNT 1 STREAMS s >
    XREADGROUP GROUP g d STREAMS s >
    XREADGROUP GROUP g d STREAMS s >
    XREADGROUP GROUP g d STREAMS s 0
    XCLAIM s g d 0 4-0
    XCLAIM s g e 0 4-0
    XAUTOCLAIM s g f 0 -
    XACK s g 4-0
    XGROUP DELCONSUMER s g c
    XGROUP DELCONSUMER s g c
    XGROUP DESTROY s g
    XGROUP DESTROY s g
    DEL s
    """


def test_events(pair: Pair) -> None:
    listeners = [pair.connect(server) for server in pair.servers]
    for listener in listeners:
        listener.ask("PSUBSCRIBE", "__key*", "end")
        listener.reply()
    pair.same([("CONFIG", "SET", "notify-keyspace-events", "KEAn")])
    pair.same(EVENTS)
    for conn in pair.conns:
        conn.ask("PUBLISH", "end", "end")
    ours, theirs = (heard(listener) for listener in listeners)
    assert ours == theirs
    assert len(ours) > 40


def test_a_reader_becomes_a_consumer_before_it_waits(server: Server) -> None:
    """7.0 makes it one when it is given something."""
    admin, conn, listener = server.conn(), server.conn(), server.conn()
    for command in [*GROUP, ("CONFIG", "SET", "notify-keyspace-events", "EA")]:
        admin.ask(*command)
    listener.ask("PSUBSCRIBE", "__key*", "end")
    listener.reply()
    conn.send(encode_command(*reader("a")))
    wait_until(lambda: is_blocked(server, 1))
    admin.ask("XADD", "s", "2-0", "f", "v")
    conn.reply()
    admin.ask("XREADGROUP", "GROUP", "g", "b", "STREAMS", "s", ">")
    admin.ask("PUBLISH", "end", "end")
    events = [message.split(b"\r\n")[6] for message in heard(listener)]
    assert events == [
        b"__keyevent@0__:" + event
        for event in (b"xgroup-createconsumer", b"xadd", b"xgroup-createconsumer")
    ]
    assert server.client().xinfo_groups("s")[0]["consumers"] == 2
