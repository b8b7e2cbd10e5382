"""Fields that expire. Redis 7.0 has none: what is expected here is what t_hash.c of Redis 7.4 says,
and of Redis 8.0 for HGETEX, HSETEX and HGETDEL."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from harness import Server, wait_until
from pair import LATER, heard

Ask = Callable[..., Any]
#: The latest time that a field can have, in ms.
LAST = (1 << 46) - 1

NO_FIELDS = "Mandatory argument FIELDS is missing or not at the right position"
NOT_POSITIVE = "Number of fields must be a positive integer"
NOT_GREATER = "Parameter `numFields` should be greater than 0"
NOT_MATCHING = "The `numfields` parameter must match the number of arguments"
NEGATIVE = "invalid expire time, must be >= 0"
NOT_INTEGER = "value is not an integer or out of range"


@pytest.fixture
def ask(client: redis.Redis) -> Ask:
    """Sends a command, written as on a command line; the reply, not changed by the library."""
    client.response_callbacks.clear()

    def send(line: str, *more: Any) -> Any:
        try:
            return client.execute_command(*line.split(), *more)
        except redis.ResponseError as error:
            return str(error)

    return send


def now_ms() -> int:
    return int(time.time() * 1000)


def test_setting_and_asking(ask: Ask) -> None:
    ask("HSET h a 1 b 2 c 3")
    assert ask("HEXPIRE h 1000 FIELDS 2 a nosuch") == [1, -2]
    assert ask("HTTL h FIELDS 3 a b nosuch") == [1000, -1, -2]
    (left,) = ask("HPTTL h FIELDS 1 a")
    assert 990_000 < left <= 1_000_000
    assert ask(f"HEXPIREAT h {LATER} FIELDS 1 b") == [1]
    assert ask("HEXPIRETIME h FIELDS 2 b c") == [LATER, -1]
    assert ask(f"HPEXPIREAT h {LATER}001 FIELDS 1 b") == [1]
    assert ask("HPEXPIRETIME h FIELDS 2 b c") == [LATER * 1000 + 1, -1]
    # Rounded up.
    assert ask("HEXPIRETIME h FIELDS 1 b") == [LATER + 1]
    assert ask("HPEXPIRE h 100000 FIELDS 1 c") == [1]
    assert ask("HTTL h FIELDS 1 c") == [100]
    assert ask("HPERSIST h FIELDS 3 a a nosuch") == [1, -1, -2]
    assert ask("HTTL h FIELDS 1 a") == [-1]
    assert ask("HGET h a") == b"1"


@pytest.mark.parametrize(
    "command", ["HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME", "HPERSIST", "HEXPIRE", "HGETDEL"]
)
def test_no_such_key(ask: Ask, command: str) -> None:
    words = "HEXPIRE nosuch 10" if command == "HEXPIRE" else f"{command} nosuch"
    missing = None if command == "HGETDEL" else -2
    assert ask(f"{words} FIELDS 2 a b") == [missing, missing]
    assert ask("EXISTS nosuch") == 0


def test_conditions(ask: Ask) -> None:
    ask("HSET h a 1 b 2")
    assert ask("HEXPIRE h 100 XX FIELDS 1 a") == [0]
    assert ask("HEXPIRE h 100 GT FIELDS 1 a") == [0]
    assert ask("HEXPIRE h 100 NX FIELDS 2 a nosuch") == [1, -2]
    assert ask("HEXPIRE h 100 NX FIELDS 1 a") == [0]
    # Without a time LT is met: never is later than any time.
    assert ask("HEXPIRE h 100 lt FIELDS 1 b") == [1]
    assert ask("HEXPIRE h 200 LT FIELDS 1 b") == [0]
    assert ask("HEXPIRE h 50 LT FIELDS 1 b") == [1]
    assert ask("HEXPIRE h 40 GT FIELDS 1 b") == [0]
    assert ask("HEXPIRE h 300 gt FIELDS 1 b") == [1]
    assert ask("HEXPIRE h 30 XX FIELDS 1 b") == [1]
    assert ask(f"HPEXPIREAT h {LATER} NX FIELDS 1 b") == [0]
    assert ask("HTTL h FIELDS 2 a b") == [100, 30]
    ask(f"HPEXPIREAT h {LATER}000 FIELDS 1 b")
    for condition in ("GT", "LT"):
        assert ask(f"HPEXPIREAT h {LATER}000 {condition} FIELDS 1 b") == [0]
    # A condition that isn't met keeps a field, even if the time is past.
    assert ask("HEXPIREAT h 1 GT FIELDS 1 b") == [0]
    assert ask("HEXPIREAT h 1 LT FIELDS 1 b") == [2]
    assert ask("HKEYS h") == [b"a"]


def test_times_that_are_past(ask: Ask) -> None:
    ask("HSET h a 1 b 2 c 3 d 4")
    assert ask("HEXPIRE h 0 FIELDS 2 a nosuch") == [2, -2]
    assert ask("HPEXPIRE h 0 FIELDS 1 a") == [-2]
    assert ask("HEXPIREAT h 0 FIELDS 1 b") == [2]
    assert ask("HPEXPIREAT h 1000 FIELDS 2 c c") == [2, -2]
    assert ask("HGETALL h") in ([b"d", b"4"], {b"d": b"4"})
    assert ask("HEXPIRE h 0 FIELDS 1 d") == [2]
    assert ask("EXISTS h") == 0


def invalid(command: str) -> str:
    return f"invalid expire time in '{command}' command"


ERRORS = {
    "HEXPIRE h 10": "wrong number of arguments for 'hexpire' command",
    "HEXPIRE h 10 FIELDS 1": "wrong number of arguments for 'hexpire' command",
    "HEXPIRE h x FIELDS 1 a": NOT_INTEGER,
    "HEXPIRE h -1 FIELDS 1 a": NEGATIVE,
    "HEXPIRE h -1 FIELDS 9 a": NEGATIVE,
    f"HEXPIRE h {1 << 46} FIELDS 1 a": invalid("hexpire"),
    f"HPEXPIRE h {LAST} FIELDS 1 a": invalid("hpexpire"),
    f"HEXPIREAT h {LAST // 1000 + 1} FIELDS 1 a": invalid("hexpireat"),
    f"HPEXPIREAT h {LAST + 1} FIELDS 1 a": invalid("hpexpireat"),
    f"HPEXPIREAT nosuch {LAST + 1} FIELDS 1 a": invalid("hpexpireat"),
    "HEXPIRE h 10 bogus 1 a": NO_FIELDS,
    "HEXPIRE h 10 NX 1 a": NO_FIELDS,
    "HEXPIRE h 10 NX XX FIELDS 1 a": NO_FIELDS,
    "HEXPIRE h 10 FIELDS 0 a": NOT_GREATER,
    "HEXPIRE h 10 FIELDS -1 a": NOT_GREATER,
    "HEXPIRE h 10 FIELDS x a": NOT_GREATER,
    "HEXPIRE nosuch 10 FIELDS x a": NOT_GREATER,
    "HEXPIRE h 10 FIELDS 2 a": NOT_MATCHING,
    "HEXPIRE h 10 FIELDS 1 a b": NOT_MATCHING,
    "HEXPIRE h 10 FIELDS 9223372036854775807 a": NOT_MATCHING,
    "HEXPIRE h 10 FIELDS 9223372036854775808 a": NOT_GREATER,
    "HEXPIRE h 10 FIELDS 1 a NX": NOT_MATCHING,
    "HTTL h FIELDS 1": "wrong number of arguments for 'httl' command",
    "HTTL h bogus 1 a": NO_FIELDS,
    "HTTL h FIELDS 0 a": NOT_POSITIVE,
    "HTTL h FIELDS 2 a": NOT_MATCHING,
    "HTTL nosuch FIELDS 2 a": NOT_MATCHING,
    "HPTTL h FIELDS x a": NOT_POSITIVE,
    "HPERSIST h bogus 1 a": NO_FIELDS,
    "HPERSIST h FIELDS 0 a": NOT_POSITIVE,
    "HPERSIST h FIELDS 1 a b": NOT_MATCHING,
    "HGETDEL h bogus 1 a": NO_FIELDS,
    "HGETDEL h FIELDS 0 a": NOT_POSITIVE,
    "HGETDEL h FIELDS 2 a": NOT_MATCHING,
    "HGETEX h EX 10": "wrong number of arguments for 'hgetex' command",
    "HGETEX h bogus FIELDS 1 a": NO_FIELDS,
    "HGETEX h PERSIST EX FIELDS 1 a": NO_FIELDS,
    "HGETEX h EX x FIELDS 1 a": NOT_INTEGER,
    "HGETEX h EX -1 FIELDS 1 a": NEGATIVE,
    "HGETEX h EX FIELDS 1 a": NOT_INTEGER,
    f"HGETEX h PX {LAST} FIELDS 1 a": invalid("hgetex"),
    "HGETEX h EX 10 FIELDS": NOT_POSITIVE,
    "HGETEX h FIELDS 0 a": NOT_POSITIVE,
    "HGETEX h PERSIST FIELDS 2 a": NOT_MATCHING,
    "HSETEX h FIELDS 1 a": "wrong number of arguments for 'hsetex' command",
    "HSETEX h FXX FIELDS 2 a 1": "wrong number of arguments for 'hsetex' command",
    "HSETEX h FXX FIELDS 1 a 1 b": "wrong number of arguments for 'hsetex' command",
    "HSETEX h FXX EX 10 KEEPTTL a b": "Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be "
    "specified",
    "HSETEX h EX 10 PX 10 FIELDS 1 a 1": "Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can "
    "be specified",
    "HSETEX h FXX FNX FIELDS 1 a 1": "Only one of FXX or FNX arguments can be specified",
    "HSETEX h bogus FIELDS 1 a 1": "unknown argument: bogus",
    "HSETEX h FXX FIELDS 0 a 1": "invalid number of fields",
    "HSETEX h FXX FIELDS x a 1": "invalid number of fields",
    "HSETEX h FXX KEEPTTL FXX EX a": "Only one of FXX or FNX arguments can be specified",
    "HSETEX h FXX a b c EX": "unknown argument: a",
    "HSETEX h EX -1 FIELDS 1 a 1": NEGATIVE,
    "HSETEX h EX x FIELDS 1 a 1": NOT_INTEGER,
    f"HSETEX h PXAT {LAST + 1} FIELDS 1 a 1": invalid("hsetex"),
}


@pytest.mark.parametrize("line", ERRORS)
def test_errors(ask: Ask, line: str) -> None:
    ask("HSET h a 1")
    assert ask(line) == ERRORS[line]
    assert ask("HGETALL h") in ([b"a", b"1"], {b"a": b"1"})
    assert ask("HTTL h FIELDS 1 a") == [-1]


def test_order_of_checks(ask: Ask) -> None:
    ask("SET s v")
    wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
    for line in (
        "HEXPIRE s x FIELDS 0 a",
        "HTTL s bogus 0 a",
        "HPERSIST s bogus 0 a",
        "HGETDEL s bogus 0 a",
        "HGETEX s EX x FIELDS 0 a",
        "HSETEX s EX 10 FIELDS 1 a 1",
    ):
        assert ask(line) == wrong
    # HSETEX reads its arguments first.
    assert ask("HSETEX s EX x FIELDS 1 a 1") == NOT_INTEGER


def test_what_keeps_a_time(ask: Ask) -> None:
    ask("HSET h a 1 b 2 c 3 d 4")
    ask("HEXPIRE h 1000 FIELDS 4 a b c d")
    ask("HSET h a 1")
    ask("HINCRBY h b 1")
    ask("HINCRBYFLOAT h c 1")
    ask("HSETNX h d 1")
    assert ask("HTTL h FIELDS 4 a b c d") == [-1, 1000, 1000, 1000]
    assert ask("HMGET h a b c d") == [b"1", b"3", b"4", b"4"]
    ask("HMSET h b 1")
    assert ask("HTTL h FIELDS 1 b") == [-1]
    ask("HDEL h c")
    ask("HSET h c 5")
    assert ask("HTTL h FIELDS 1 c") == [-1]
    assert ask("RENAME h g") == b"OK"
    assert ask("COPY g h") == 1
    assert ask("HTTL h FIELDS 2 a d") == [-1, 1000]
    assert ask("PERSIST h") == 0


def test_encodings(ask: Ask) -> None:
    ask("HSET h a 1")
    assert ask("OBJECT ENCODING h") == b"listpack"
    ask("HEXPIRE h 1000 FIELDS 1 a")
    assert ask("OBJECT ENCODING h") == b"listpackex"
    ask("HPERSIST h FIELDS 1 a")
    assert ask("OBJECT ENCODING h") == b"listpackex"
    ask("HSET h b", "x" * 65)
    assert ask("OBJECT ENCODING h") == b"hashtable"
    ask("HEXPIRE h 1000 FIELDS 1 a")
    assert ask("OBJECT ENCODING h") == b"hashtable"


# -- with values -----------------------------------------------------------------------------------


def test_hgetdel(ask: Ask) -> None:
    ask("HSET h a 1 b 2 c 3")
    ask("HEXPIRE h 1000 FIELDS 1 b")
    assert ask("HGETDEL h FIELDS 3 a a nosuch") == [b"1", None, None]
    assert ask("HKEYS h") == [b"b", b"c"]
    assert ask("HGETDEL h FIELDS 2 c b") == [b"3", b"2"]
    assert ask("EXISTS h") == 0


def test_hgetex(ask: Ask) -> None:
    ask("HSET h a 1 b 2 c 3")
    assert ask("HGETEX h FIELDS 2 a nosuch") == [b"1", None]
    assert ask("HTTL h FIELDS 1 a") == [-1]
    assert ask("HGETEX h EX 1000 FIELDS 3 a nosuch b") == [b"1", None, b"2"]
    assert ask("HTTL h FIELDS 3 a b c") == [1000, 1000, -1]
    assert ask("HGETEX h persist FIELDS 2 a c") == [b"1", b"3"]
    assert ask("HTTL h FIELDS 3 a b c") == [-1, 1000, -1]
    assert ask(f"HGETEX h EXAT {LATER} FIELDS 1 a") == [b"1"]
    assert ask(f"HGETEX h PXAT {LATER}001 FIELDS 1 b") == [b"2"]
    assert ask("HPEXPIRETIME h FIELDS 2 a b") == [LATER * 1000, LATER * 1000 + 1]
    assert ask("HGETEX h PX 100000 FIELDS 1 a") == [b"1"]
    assert ask("HTTL h FIELDS 1 a") == [100]
    assert ask("HGETEX h EX 0 FIELDS 2 a a") == [b"1", None]
    assert ask("HGETEX h PXAT 1 FIELDS 2 b c") == [b"2", b"3"]
    assert ask("EXISTS h") == 0
    assert ask("HGETEX h EX 10 FIELDS 1 a") == [None]


def test_hsetex(ask: Ask) -> None:
    assert ask("HSETEX h FXX FIELDS 1 a 1") == 0
    assert ask("EXISTS h") == 0
    assert ask("HSETEX h EX 1000 FIELDS 2 a 1 b 2") == 1
    assert ask("HTTL h FIELDS 2 a b") == [1000, 1000]
    assert ask("HSETEX h FNX FIELDS 2 c 1 a 2") == 0
    assert ask("HSETEX h FXX FIELDS 2 a 2 c 1") == 0
    assert ask("HMGET h a b c") == [b"1", b"2", None]
    assert ask("HSETEX h FXX KEEPTTL FIELDS 1 a 3") == 1
    assert ask("HSETEX h fnx px 100000 FIELDS 1 c 4") == 1
    assert ask("HSETEX h KEEPTTL FIELDS 1 d 5") == 1
    assert ask("HTTL h FIELDS 4 a b c d") == [1000, 1000, 100, -1]
    assert ask("HSETEX h FXX FIELDS 1 a 6") == 1
    assert ask("HTTL h FIELDS 1 a") == [-1]
    assert ask(f"HSETEX h PXAT {LATER}001 FIELDS 2 a 7 a 8") == 1
    assert ask("HPEXPIRETIME h FIELDS 1 a") == [LATER * 1000 + 1]
    assert ask("HGET h a") == b"8"
    assert ask("HSETEX h EXAT 1 FIELDS 2 a 1 nosuch 1") == 1
    assert ask("HKEYS h") == [b"b", b"c", b"d"]
    assert ask("HSETEX new EX 0 FIELDS 1 a 1") == 1
    assert ask("EXISTS new") == 0


# -- when the time comes ---------------------------------------------------------------------------


def test_fields_go_in_time(client: redis.Redis) -> None:
    client.hset("h", mapping={"a": "1", "b": "2", "c": "3"})
    client.execute_command("HPEXPIRE", "h", "30", "FIELDS", "2", "a", "b")
    wait_until(lambda: client.hlen("h") == 1)
    assert client.hgetall("h") == {b"c": b"3"}
    client.execute_command("HPEXPIRE", "h", "30", "FIELDS", "1", "c")
    wait_until(lambda: client.exists("h") == 0)
    assert client.dbsize() == 0
    assert client.info("stats")["expired_subkeys"] == 3
    assert client.info("stats")["expired_keys"] == 0


@pytest.fixture
def overdue(client: redis.Redis) -> redis.Redis:
    """Its hash `h` has the fields a and b, past their time and not deleted, and c."""
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    client.hset("h", mapping={"a": "1", "b": "2", "c": "3"})
    client.execute_command("HPEXPIRE", "h", "20", "FIELDS", "2", "a", "b")
    wait_until(lambda: client.hget("h", "a") is None)
    yield client
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_a_field_past_its_time_reads_as_missing(overdue: redis.Redis) -> None:
    client = overdue
    assert client.hmget("h", "a", "b", "c") == [None, None, b"3"]
    assert client.hgetall("h") == {b"c": b"3"}
    assert client.hkeys("h") == [b"c"]
    assert client.hvals("h") == [b"3"]
    assert client.hexists("h", "a") == 0
    assert client.hstrlen("h", "a") == 0
    assert client.hscan("h") == (0, {b"c": b"3"})
    assert {client.hrandfield("h") for _ in range(20)} == {b"c"}
    assert client.hrandfield("h", 3) == [b"c"]
    assert client.hrandfield("h", -3) == [b"c"] * 3
    for command in ("HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME"):
        assert client.execute_command(command, "h", "FIELDS", "2", "a", "c") == [-2, -1]
    assert client.execute_command("HEXPIRE", "h", "100", "FIELDS", "1", "a") == [-2]
    assert client.execute_command("HPERSIST", "h", "FIELDS", "1", "a") == [-2]
    # As in Redis, those that aren't deleted yet count.
    assert client.hlen("h") == 3


def test_write_commands_delete_what_is_past_its_time(overdue: redis.Redis) -> None:
    client = overdue
    assert client.execute_command("HGETDEL", "h", "FIELDS", "1", "a") == [None]
    assert client.hlen("h") == 2
    assert client.execute_command("HGETEX", "h", "EX", "10", "FIELDS", "1", "b") == [None]
    assert client.hlen("h") == 1
    assert client.hgetall("h") == {b"c": b"3"}


def test_writing_over_a_field_past_its_time(overdue: redis.Redis) -> None:
    client = overdue
    assert client.hsetnx("h", "a", "5") == 1
    assert client.hincrby("h", "b", 7) == 7
    assert client.hgetall("h") == {b"a": b"5", b"b": b"7", b"c": b"3"}
    assert client.execute_command("HTTL", "h", "FIELDS", "2", "a", "b") == [-1, -1]


def test_hset_and_hdel_count_a_field_past_its_time(overdue: redis.Redis) -> None:
    # hashTypeSet and hashTypeDelete look only whether it is there.
    assert overdue.hset("h", "a", "5") == 0
    assert overdue.hdel("h", "b") == 1
    assert overdue.hgetall("h") == {b"a": b"5", b"c": b"3"}


def test_hsetex_and_a_field_past_its_time(overdue: redis.Redis) -> None:
    ask = overdue.execute_command
    assert ask("HSETEX", "h", "FXX", "FIELDS", "1", "a", "5") == 0
    assert ask("HSETEX", "h", "FNX", "FIELDS", "1", "a", "5") == 1
    assert ask("HSETEX", "h", "KEEPTTL", "FIELDS", "1", "b", "6") == 1
    assert overdue.hgetall("h") == {b"a": b"5", b"b": b"6", b"c": b"3"}


def test_a_large_hash_with_fields_past_their_time(client: redis.Redis) -> None:
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    count = 2000
    client.hset("h", mapping={f"f{number}": number for number in range(count)})
    gone = [f"f{number}" for number in range(0, count, 2)]
    client.execute_command("HPEXPIRE", "h", "1", "FIELDS", len(gone), *gone)
    wait_until(lambda: client.hget("h", "f0") is None)
    left = {f"f{number}".encode() for number in range(1, count, 2)}
    assert set(client.hkeys("h")) == set(client.hgetall("h")) == left
    assert {name for name, _ in client.hscan_iter("h", count=100)} == left
    assert client.hrandfield("h") in left
    for wanted in (5, 900, 1000, 1500, 3000):
        found = client.hrandfield("h", wanted)
        assert set(found) <= left
        assert len(found) == len(set(found)) == min(wanted, len(left))
    for wanted in (3, 5000):
        found = client.hrandfield("h", -wanted)
        assert set(found) <= left
        assert len(found) == wanted
    assert client.hlen("h") == count
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    wait_until(lambda: client.hlen("h") == len(left))


def test_nothing_is_deleted_during_a_pause(server: Server) -> None:
    client = server.client()
    client.hset("h", mapping={"a": "1", "b": "2"})
    client.execute_command("HPEXPIRE", "h", "50", "FIELDS", "2", "a", "b")
    client.client_pause(100_000, all=False)
    start = now_ms()
    wait_until(lambda: now_ms() > start + 200)
    assert client.hget("h", "a") is None
    assert client.hgetall("h") == {}
    assert client.hrandfield("h") is None
    assert client.hlen("h") == 2
    assert client.exists("h") == 1
    client.client_unpause()
    wait_until(lambda: client.exists("h") == 0)


def test_fields_are_gone_after_a_crash_and_their_entries_too(
    fresh_server: Callable[..., Server],
) -> None:
    server = fresh_server()
    client = server.client()
    client.hset("h", mapping={f"f{number}": "v" for number in range(1000)})
    odd = [f"f{number}" for number in range(1, 1000, 2)]
    client.execute_command("HPEXPIRE", "h", "1", "FIELDS", len(odd), *odd)
    client.hset("g", "a", "1")
    client.execute_command("HEXPIRE", "g", "1000", "FIELDS", "1", "a")
    server.kill9()
    server.start()
    client = server.client()
    assert client.hget("h", "f1") is None
    wait_until(lambda: client.hlen("h") == 500)
    (left,) = client.execute_command("HTTL", "g", "FIELDS", "1", "a")
    assert 900 < left <= 1000


def test_a_key_that_expires_takes_its_fields_along(client: redis.Redis) -> None:
    client.hset("h", mapping={"a": "1", "b": "2"})
    client.execute_command("HPEXPIRE", "h", "50", "FIELDS", "1", "a")
    client.pexpire("h", 40)
    wait_until(lambda: client.dbsize() == 0)
    assert client.info("stats")["expired_keys"] == 1
    client.hset("h", "a", "2")
    start = now_ms()
    wait_until(lambda: now_ms() > start + 200)
    assert client.hget("h", "a") == b"2"


def test_watch_sees_a_field_expire(server: Server) -> None:
    client = server.client()
    client.hset("h", mapping={"a": "1", "b": "2"})
    with client.pipeline() as pipeline:
        pipeline.execute_command("HPEXPIRE", "h", "20", "FIELDS", "1", "a")
        pipeline.execute()
        pipeline.watch("h")
        wait_until(lambda: server.client().hlen("h") == 1)
        pipeline.multi()
        pipeline.ping()
        with pytest.raises(redis.WatchError):
            pipeline.execute()


def test_events(server: Server) -> None:
    client, listener = server.client(), server.conn()
    client.config_set("notify-keyspace-events", "Khgn")
    listener.ask("PSUBSCRIBE", "*")
    lines = [
        "HSET h a 1 b 2 c 3",
        "HEXPIRE h 100 FIELDS 1 nosuch",
        "HEXPIRE h 100 FIELDS 2 a b",
        "HPERSIST h FIELDS 1 c",
        "HPERSIST h FIELDS 1 a",
        "HEXPIRE h 0 FIELDS 2 a nosuch",
        "HGETEX h FIELDS 1 b",
        "HGETEX h EX 10 FIELDS 1 b",
        "HGETEX h PERSIST FIELDS 1 b",
        "HGETEX h EX 0 FIELDS 1 b",
        "HGETDEL h FIELDS 1 nosuch",
        "HGETDEL h FIELDS 1 c",
        "HSETEX h EX 10 FIELDS 1 a 1",
        "HSETEX h FIELDS 1 a 1",
        "HSETEX h PX 0 FIELDS 1 a 1",
        "HSETEX h PX 20 FIELDS 2 a 1 b 2",
    ]
    for line in lines:
        client.execute_command(*line.split())
    wait_until(lambda: client.exists("h") == 0)
    client.publish("x", "end")
    events = [message.split(b"\r\n")[-2].decode() for message in heard(listener)]
    assert events == [
        *("new", "hset", "hexpire", "hpersist", "hdel"),
        *("hexpire", "hpersist", "hdel", "hdel", "del"),
        *("new", "hset", "hexpire", "hset", "hset", "hdel", "del"),
        *("new", "hset", "hexpire", "hexpired", "del"),
    ]


def test_events_of_writing_over_a_field_past_its_time(overdue: redis.Redis, server: Server) -> None:
    listener = server.conn()
    overdue.config_set("notify-keyspace-events", "Kh")
    listener.ask("PSUBSCRIBE", "*")
    overdue.hsetnx("h", "a", "1")
    overdue.hincrby("h", "b", 1)
    overdue.hincrby("h", "b", 1)
    overdue.publish("x", "end")
    events = [message.split(b"\r\n")[-2].decode() for message in heard(listener)]
    assert events == ["hexpired", "hset", "hexpired", "hincrby", "hincrby"]


def test_replicas_wait_for_the_primary(fresh_server: Callable[..., Server]) -> None:
    primary, replica = fresh_server(), fresh_server()
    client, other = primary.client(), replica.client()
    other.execute_command("REPLICAOF", "127.0.0.1", primary.port)
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    client.hset("h", mapping={"a": "1", "b": "2"})
    client.execute_command("HPEXPIRE", "h", "500", "FIELDS", "1", "a")
    wait_until(lambda: other.hlen("h") == 2)
    wait_until(lambda: other.hget("h", "a") is None)
    assert other.hgetall("h") == {b"b": b"2"}
    assert other.hlen("h") == 2
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    wait_until(lambda: other.hlen("h") == 1)
    # It goes on with them as a primary.
    client.execute_command("HPEXPIRE", "h", "1000", "FIELDS", "1", "b")
    wait_until(lambda: other.execute_command("HTTL", "h", "FIELDS", "1", "b") != [-1])
    other.execute_command("REPLICAOF", "NO", "ONE")
    wait_until(lambda: other.exists("h") == 0)
