"""Argument parsing: numbers with their errors, and the option cursor."""

import pytest
from harness import Server

from kvserver import args, errors
from kvserver.args import Cursor
from kvserver.errors import RedisError
from kvserver.numbers import INT64_MAX


def message(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(RedisError) as raised:
        call(*arguments)
    return str(raised.value)


def test_integers() -> None:
    assert args.parse_int(b"-12") == -12
    assert message(args.parse_int, b"012") == "ERR value is not an integer or out of range"
    assert args.parse_int_in(b"5", 0, 5) == 5
    assert message(args.parse_int_in, b"x", 0, 5) == "ERR value is not an integer or out of range"
    assert message(args.parse_int_in, b"6", 0, 5) == (
        "ERR value is out of range, value must between 0 and 5"
    )
    assert message(args.parse_int_in, b"6", 0, 5, "no such bit") == "ERR no such bit"
    assert message(args.parse_int_in, b"x", 0, 5, "no such bit") == "ERR no such bit"


def test_refused_timeouts() -> None:
    now = 1_700_000_000_000
    assert args.parse_timeout_ms(b"250", now) == 250
    assert message(args.parse_timeout_ms, b"1.5", now) == (
        "ERR timeout is not an integer or out of range"
    )
    assert message(args.parse_timeout_ms, b"-1", now) == "ERR timeout is negative"
    assert args.parse_timeout_ms(b"%d" % (INT64_MAX - now), now) == INT64_MAX - now
    assert message(args.parse_timeout_ms, b"%d" % INT64_MAX, now) == "ERR timeout is out of range"


def test_cursor_takes_flags_and_values_in_any_order_and_case() -> None:
    options = Cursor((b"skipped", b"nx", b"Ex", b"nx", b"GET"), 1)
    seen: list[object] = []
    while options.more():
        if options.flag(b"NX"):
            seen.append("nx")
        elif (value := options.value(b"EX")) is not None:
            seen.append(value)
        elif options.flag(b"GET"):
            seen.append("get")
        else:
            raise AssertionError(options.next())
    assert seen == ["nx", b"nx", "get"]
    options.end()


def test_cursor_ends_in_syntax_errors() -> None:
    syntax = "ERR syntax error"
    options = Cursor((b"EX",))
    assert options.value(b"EX") is None
    assert options.remaining() == 1
    assert message(options.end) == syntax
    assert message(options.take, 2) == syntax
    assert options.next() == b"EX"
    assert message(options.next) == syntax
    empty = Cursor(())
    assert not empty.flag(b"")
    assert empty.value(b"") is None


def test_cursor_takes_counted_arguments() -> None:
    options = Cursor((b"k1", b"k2", b"WEIGHTS", b"1", b"2"))
    assert list(options.take(2)) == [b"k1", b"k2"]
    assert options.flag(b"WEIGHTS")
    assert list(options.take(2)) == [b"1", b"2"]
    options.end()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((b"nosuch",), "ERR unknown command 'nosuch', with args beginning with: "),
        (
            (b"no\xff", b"a b", b""),
            "ERR unknown command 'no\udcff', with args beginning with: 'a b' '' ",
        ),
        (
            (b"a\x00b", b"c\x00d", b"e"),
            "ERR unknown command 'a', with args beginning with: 'c' 'e' ",
        ),
    ],
)
def test_unknown_commands(words: tuple[bytes, ...], text: str) -> None:
    assert str(errors.unknown_command(words[0], words[1:])) == text


@pytest.mark.parametrize(
    "words",
    [
        (b"nosuch", b"x" * 200, b"y"),
        (b"n" * 200, b"x" * 60, b"y" * 62, b"z" * 60),
        (b"nosuch", b"x" * 125, b"y"),
        (b"nosuch", b"x" * 124, b"y" * 9, b"z"),
        (b"nosuch", b"x\x00y", b"z" * 126),
    ],
)
def test_unknown_commands_of_a_real_server(oracle: Server, words: tuple[bytes, ...]) -> None:
    expected = errors.unknown_command(words[0], words[1:])
    assert oracle.conn().ask(*words) == f"-{expected}\r\n".encode()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("GET list", errors.wrong_type()),
        ("SET k v BAD", errors.syntax()),
        ("INCR text", errors.not_integer()),
        ("INCRBYFLOAT text 1", errors.not_float()),
        ("LSET none 0 x", errors.no_such_key()),
        ("SETRANGE text -1 x", errors.offset_out_of_range()),
        ("SETRANGE text 600000000 x", errors.string_too_long()),
        ("INCRBY one 9223372036854775807", errors.integer_overflow()),
        ("INCRBYFLOAT one inf", errors.nan_or_infinity()),
        ("DECRBY one -9223372036854775808", errors.decrement_overflow()),
        ("SET k v EX 0", errors.invalid_expire("set")),
        ("SCAN x", errors.invalid_cursor()),
        ("SELECT 99", errors.db_index_out_of_range()),
        ("COPY text text", errors.same_object()),
        ("HELLO 9", errors.no_protocol()),
        ("GET", errors.wrong_arity("get")),
        ("CONFIG GET", errors.wrong_arity("config|get")),
        ("config nosuch", errors.unknown_subcommand(b"config", b"nosuch")),
        ("SCRIPT EXISTS", errors.wrong_arity("script|exists")),
        ("ZADD k x m", errors.not_float()),
        ("BLPOP k -1", errors.timeout_negative()),
        ("XREAD BLOCK x STREAMS k 0", errors.timeout_not_integer()),
        ("SRANDMEMBER k -9223372036854775808", errors.not_in_range(-(2**63 - 1), 2**63 - 1)),
        ("EXEC", errors.exec_without_multi()),
        ("DISCARD", errors.discard_without_multi()),
        ("AUTH nobody x", errors.wrong_password()),
    ],
    ids=str,
)
def test_texts_of_a_real_server(oracle: Server, words: str, expected: RedisError) -> None:
    conn = oracle.conn()
    for setup in ("LPUSH list 1", "SET text x", "SET one 1"):
        conn.ask(*setup.split())
    assert conn.ask(*words.split()) == f"-{expected}\r\n".encode()


def test_texts_within_a_transaction_or_subscription(oracle: Server) -> None:
    conn = oracle.conn()
    conn.ask("MULTI")
    for words, expected in [
        ("MULTI", errors.nested_multi()),
        ("WATCH k", errors.watch_inside_multi()),
        ("SUBSCRIBE", errors.wrong_arity("subscribe")),
        ("EXEC", errors.exec_abort()),
    ]:
        assert conn.ask(*words.split()) == f"-{expected}\r\n".encode()
    conn.ask("SUBSCRIBE", "channel")
    assert conn.ask("GET", "k") == f"-{errors.only_pubsub('get')}\r\n".encode()


def test_codes() -> None:
    assert errors.wrong_type().code == "WRONGTYPE"
    assert errors.error("no").code == "ERR"
    assert str(errors.exec_abort_because(errors.no_auth())) == (
        "EXECABORT Transaction discarded because of: NOAUTH Authentication required."
    )
