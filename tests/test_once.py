"""ONCE: what is answered, what counts as a reply, and what is refused.

What survives a crash, and docs/exactly-once.md's recipe, are in test_once_crash.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import redis
from conftest import FreshServer
from faulty_core import MISCONF, OK, Node, bulk
from faulty_core import node as node
from harness import Server, encode_command
from once import out_of_order
from once import w as w
from replies import Command, transcript

from kvserver.commands.once import MAX_READ

# -- what it answers -------------------------------------------------------------------------------


def test_executes_the_next_and_repeats_the_last_five(client: redis.Redis, w: str) -> None:
    def once(n: int) -> Any:
        return client.execute_command("ONCE", w, n, "INCR", "a")

    for n in range(1, 9):
        assert once(n) == n
        for back in range(max(n - 4, 1), n + 1):
            assert once(back) == back
        for refused in {n + 2, n + 100, 1 << 62} | ({n - 5} if n > 5 else set()):
            with pytest.raises(redis.ResponseError, match=f"^OUTOFORDER expected {n + 1}$"):
                once(refused)
    assert client.get("a") == b"8"


def test_a_new_writer_begins_with_one(server: Server, w: str) -> None:
    calls: list[Command] = [("ONCE", w, n, "INCR", "a") for n in (2, 7, 1)]
    assert transcript(server, calls) == [out_of_order(1), out_of_order(1), b":1\r\n"]


def test_writers_are_independent(server: Server, w: str) -> None:
    ids = [w + "x", w + "y", w + "x", w + "xy", w + "\0"]
    calls: list[Command] = [("ONCE", name, 1, "INCR", "a") for name in ids]
    numbers = [1, 2, 1, 3, 4]
    assert transcript(server, calls) == [b":%d\r\n" % number for number in numbers]


@pytest.mark.parametrize("n", ["0", "-1", "x", "", "1.0", "01", str(1 << 63)])
def test_numbers_are_positive_and_of_64_bits(server: Server, w: str, n: str) -> None:
    (reply,) = transcript(server, [("ONCE", w, n, "INCR", "a")])
    assert reply in (
        b"-ERR n must be positive\r\n",
        b"-ERR value is not an integer or out of range\r\n",
    )


def test_writer_ids_have_1_to_512_bytes(server: Server, w: str) -> None:
    ids = ("", w.ljust(513), w.ljust(512))
    calls: list[Command] = [("ONCE", name, 1, "INCR", "a") for name in ids]
    refused = b"-ERR writer id must have 1 to 512 bytes\r\n"
    assert transcript(server, calls) == [refused, refused, b":1\r\n"]


#: Commands whose replies are of every kind, with what must be there before.
REPLIES: list[Command] = [
    ("SET", "new", "1"),
    ("SET", "text", "x", "NX"),
    ("INCR", "text"),
    ("INCRBYFLOAT", "number", "0.5"),
    ("GET", "text"),
    ("GETDEL", "text"),
    ("GETDEL", "none"),
    ("MGET", "text", "none"),
    ("DEL", "none", "none2"),
    ("LCS", "text", "text2", "IDX"),
    ("KEYS", "te*"),
    ("SCAN", "0", "COUNT", "100"),
    ("OBJECT", "ENCODING", "number"),
    ("object", "encoding", "none"),
    ("PUBLISH", "nobody", "x"),
    ("SET", "a"),
    ("SET", "a", "1", "WRONG"),
]


@pytest.mark.parametrize("words", REPLIES, ids=lambda words: " ".join(words))
@pytest.mark.parametrize("protocol", [2, 3])
def test_replies_are_those_of_the_command(
    server: Server, words: Command, protocol: int, w: str
) -> None:
    """First as it is when sent alone; then through ONCE, repeated under both protocols."""

    def prepare() -> None:
        setting = [("FLUSHALL",), ("MSET", "text", "abc", "text2", "abd", "number", "1")]
        transcript(server, setting)

    alone = {}
    for asked in (2, 3):
        prepare()
        alone[asked] = transcript(server, [words], asked)
    prepare()
    once: Command = ("ONCE", w, 1, *words)
    assert transcript(server, [once], protocol) == alone[protocol]
    transcript(server, [("FLUSHALL",)])
    if alone[2][0].startswith(b"-ERR wrong number"):
        return
    for asked in (2, 3, protocol):
        assert transcript(server, [once], asked) == alone[asked]


def test_a_pipeline_and_its_repetition(server: Server, w: str) -> None:
    calls = b"".join(encode_command("ONCE", w, n, "INCRBY", "a", n) for n in range(1, 6))
    for _ in range(2):
        with server.conn() as conn:
            conn.send(calls)
            assert [conn.reply() for _ in range(5)] == [b":%d\r\n" % n for n in (1, 3, 6, 10, 15)]
    with server.conn() as conn:
        conn.send(encode_command("ONCE", w, 6, "GET", "a") * 2)
        assert [conn.reply() for _ in range(2)] == [bulk(b"15")] * 2


def test_a_reply_that_is_muted_is_kept(server: Server, w: str) -> None:
    with server.conn() as conn:
        conn.send(encode_command("CLIENT", "REPLY", "OFF"))
        conn.send(encode_command("ONCE", w, 1, "INCR", "a") * 2)
        conn.send(encode_command("CLIENT", "REPLY", "ON"))
        assert conn.reply() == OK
        assert conn.ask("ONCE", w, 1, "INCR", "a") == b":1\r\n"


# -- refusals --------------------------------------------------------------------------------------


REFUSED: list[Command] = [
    *[("PING",), ("ECHO", "x"), ("SELECT", "1"), ("HELLO", "3"), ("RESET",), ("QUIT",), ("INFO",)],
    *[("SUBSCRIBE", "c"), ("UNSUBSCRIBE",), ("CLIENT", "REPLY", "OFF"), ("CONFIG", "GET", "hz")],
    *[("WAIT", "1", "0"), ("MULTI",), ("DISCARD",), ("WATCH", "a"), ("MONITOR",), ("SAVE",)],
    *[("SHUTDOWN",), ("DEBUG", "SLEEP", "0"), ("ONCE", "x", "1", "INCR", "a"), ("COMMAND",)],
]


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[0])
def test_what_concerns_no_data_is_refused(server: Server, w: str, words: Command) -> None:
    refused, next_one = transcript(server, [("ONCE", w, 1, *words), ("ONCE", w, 1, "GET", "a")])
    assert refused.endswith(b"can't be executed by ONCE: it reads and writes no data\r\n")
    assert next_one == b"$-1\r\n"


def test_unknown_commands_and_wrong_arities_are_refused(server: Server, w: str) -> None:
    alone: list[Command] = [("NOPE", "x"), ("GET",), ("GET", "a", "b"), ("OBJECT",)]
    alone += [("OBJECT", "NOPE"), ("EXEC",)]
    calls: list[Command] = [("ONCE", w, 1, *words) for words in alone]
    assert transcript(server, calls) == transcript(server, alone)
    for short in (("ONCE",), ("ONCE", w), ("ONCE", w, 1)):
        (reply,) = transcript(server, [short])
        assert reply == b"-ERR wrong number of arguments for 'once' command\r\n"
    assert transcript(server, [("ONCE", w, 1, "INCR", "a")]) == [b":1\r\n"]


def test_checks_come_in_the_order_of_the_command_alone(fresh_server: FreshServer) -> None:
    server = fresh_server(requirepass="secret")
    calls = [("GET",), ("NOPE",), ("GET", "a")]
    alone = transcript_without_login(server, calls)
    assert transcript_without_login(server, [("ONCE", "w", 1, *words) for words in calls]) == alone
    with server.conn() as conn:
        conn.ask("AUTH", "secret")
        assert conn.ask("ONCE", "w", 1, "INCR", "a") == b":1\r\n"


def transcript_without_login(server: Server, calls: list[tuple[Any, ...]]) -> list[bytes]:
    with server.conn() as conn:
        return [conn.ask(*call) for call in calls]


def test_a_subscriber_of_resp2_can_not_use_it(server: Server, w: str) -> None:
    with server.conn() as conn:
        conn.ask("SUBSCRIBE", "c")
        assert b"Can't execute 'once'" in conn.ask("ONCE", w, 1, "INCR", "a")


def test_a_long_reply_of_a_read_is_refused_and_of_a_write_kept(server: Server, w: str) -> None:
    value = b"x" * MAX_READ
    with server.conn() as conn:
        conn.ask("SET", "a", value)
        reply = conn.ask("ONCE", w, 1, "GET", "a")
        assert reply.startswith(b"-ERR the reply is too long to be kept")
        for _ in range(2):
            assert conn.ask("ONCE", w, 1, "GETDEL", "a") == bulk(value)


# -- transactions ----------------------------------------------------------------------------------


def transaction(w: str, *commands: Command, n: int = 1) -> list[Command]:
    return [("MULTI",), *commands, ("ONCE", w, n, "EXEC")]


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_transaction_is_one_command(server: Server, w: str, protocol: int) -> None:
    calls = transaction(w, ("INCR", "a"), ("GET", "none"), ("INCR", "a"), ("SET", "b", "x"))
    null, other = (b"$-1\r\n", b"_\r\n") if protocol == 2 else (b"_\r\n", b"$-1\r\n")
    for _ in range(3):
        *queued, reply = transcript(server, calls, protocol)
        assert queued == [OK] + [b"+QUEUED\r\n"] * 4
        assert reply == b"*4\r\n:1\r\n" + null + b":2\r\n" + OK
    assert transcript(server, calls, 5 - protocol)[-1] == reply.replace(null, other)
    # The reply alone can be had without the transaction.
    assert transcript(server, calls[-1:], protocol) == [reply]
    assert transcript(server, [("GET", "a"), ("ONCE", w, 2, "GET", "b")]) == [
        bulk(b"2"),
        bulk(b"x"),
    ]


def test_a_repeated_transaction_is_over(server: Server, w: str) -> None:
    calls = transaction(w, ("INCR", "a"))
    again = [*calls, ("EXEC",), ("INCR", "a"), *transaction(w, ("INCR", "a"), n=9), ("EXEC",)]
    transcript(server, calls)
    without_multi = b"-ERR EXEC without MULTI\r\n"
    replies = transcript(server, again)
    assert replies[2:5] == [b"*1\r\n:1\r\n", without_multi, b":2\r\n"]
    assert replies[-2:] == [out_of_order(2), without_multi]


def test_a_watched_key_that_changed_is_a_reply(server: Server, w: str) -> None:
    watched = [("WATCH", "a"), ("SET", "a", "1")]
    calls = transaction(w, ("INCR", "b"))
    assert transcript(server, [*watched, *calls])[-1] == b"*-1\r\n"
    assert transcript(server, calls, 3)[-1] == b"_\r\n"
    assert transcript(server, [*watched, *transaction(w, ("INCR", "b"), n=2)])[-1] == b"*-1\r\n"
    assert transcript(server, [("EXISTS", "b"), ("ONCE", w, 3, "GET", "a")])[0] == b":0\r\n"


def test_an_aborted_transaction_leaves_the_number(server: Server, w: str) -> None:
    aborted = transcript(server, transaction(w, ("NOPE",)))[-1]
    assert aborted == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    assert transcript(server, transaction(w, ("INCR", "a")))[-1] == b"*1\r\n:1\r\n"
    # Once it was executed, what is wrong with the repetition doesn't matter.
    assert transcript(server, transaction(w, ("NOPE",)))[-1] == b"*1\r\n:1\r\n"


def test_inside_a_transaction_only_exec(server: Server, w: str) -> None:
    calls = [("MULTI",), ("ONCE", w, 1, "INCR", "a"), ("EXEC",), ("ONCE", w, 1, "INCR", "a")]
    _, refused, aborted, executed = transcript(server, calls)
    assert refused == b"-ERR Command not allowed inside a transaction\r\n"
    assert aborted.startswith(b"-EXECABORT")
    assert executed == b":1\r\n"


def test_errors_inside_a_transaction_are_kept(server: Server, w: str) -> None:
    calls = transaction(w, ("SET", "a", "x"), ("INCR", "a"), ("SET", "a", "1"))
    first = transcript(server, calls)[-1]
    assert b"-ERR value is not an integer" in first
    assert transcript(server, calls)[-1] == first


def test_exec_refused_by_the_state_ends_the_transaction(node: Node) -> None:
    client = node.client()
    node.fail()
    assert client.ask(b"SET", b"a", b"1") == MISCONF
    for words in ((b"MULTI",), (b"GET", b"a")):
        client.ask(*words)
    refused = client.ask(b"ONCE", b"w", b"1", b"exec")
    assert refused.startswith(b"-EXECABORT Transaction discarded because of: MISCONF")
    assert not client.session.in_multi
    assert client.ask(b"ONCE", b"w", b"1", b"GET", b"a") == MISCONF
