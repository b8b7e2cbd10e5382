"""The request parser: any cut of a stream gives the same requests, within limits."""

from __future__ import annotations

import tracemalloc

import pytest
from harness import encode_command
from hypothesis import example, given
from hypothesis import strategies as st

from kvserver.request import (
    ARG_OVERHEAD,
    INLINE_MAX,
    UNAUTH_ARGS,
    UNAUTH_BUFFER,
    UNAUTH_BULK,
    Limits,
    ProtocolError,
    QueryBufferExceeded,
    Request,
    RequestParser,
)

MIB = 1 << 20


def parser(max_bulk: int = 512 * MIB, max_buffer: int = 1024 * MIB) -> RequestParser:
    return RequestParser(Limits(max_bulk, max_buffer))


def parse(*pieces: bytes) -> list[Request]:
    """The requests of a stream that arrives in these pieces."""
    parsing = parser()
    return [request for piece in pieces for request in parsing.feed(piece)]


def complaint(*pieces: bytes, unauthenticated: bool = False) -> str:
    """The protocol error that the stream ends with."""
    parsing = parser()
    parsing.authenticated = not unauthenticated
    with pytest.raises(ProtocolError) as error:
        for piece in pieces:
            parsing.feed(piece)
    return str(error.value)


# -- what is parsed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "requests"),
    [
        (b"*1\r\n$4\r\nPING\r\n", [[b"PING"]]),
        (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", [[b"ECHO", b""]]),
        (b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n", [[b"ECHO", b"\r\n\r\n"]]),
        (b"*1\r\n$10\r\n$4\r\nPING\r\n\r\n", [[b"$4\r\nPING\r\n"]]),
        (b"*0\r\n*-1\r\n*-2147483648\r\n*1\r\n$1\r\nx\r\n", [[b"x"]]),
        (b"PING\r\nECHO a\n\r\n \n\n*1\r\n$1\r\nx\r\n", [[b"PING"], [b"ECHO", b"a"], [b"x"]]),
        (b"SET k \"a b\\n\\x41\" 'c d'\r\n", [[b"SET", b"k", b"a b\nA", b"c d"]]),
        (b"PING\0 x\r\n", [[b"PING"]]),
        # Redis skips the two bytes after an argument whatever they are.
        (b"*1\r\n$4\r\nPINGxy*1\r\n$1\r\nx\r\n", [[b"PING"], [b"x"]]),
    ],
)
def test_requests(stream: bytes, requests: list[Request]) -> None:
    assert parse(stream) == requests
    assert parse(*[bytes([byte]) for byte in stream]) == requests


@pytest.mark.parametrize("size", [1023, 1024, 65536, 300_000])
def test_arguments_of_every_size(size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"\r" * (size % 256)
    stream = encode_command("SET", "k", value) * 3 + b"PING\r\n"
    expected = [[b"SET", b"k", value]] * 3 + [[b"PING"]]
    assert parse(stream) == expected
    for step in (1000, 1024, size, size + 1, size + 2):
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        assert parse(*pieces) == expected


def test_every_cut() -> None:
    value = b"\r\n$3\r\n*2" * 3
    stream = encode_command("SET", "k", value) + b"inline 'x y'\r\n" + encode_command("GET", "k")
    expected = parse(stream)
    assert len(expected) == 3
    for first in range(len(stream)):
        for second in range(first, len(stream), 7):
            assert parse(stream[:first], stream[first:second], stream[second:]) == expected


ARGUMENTS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\r\n", b"*1\r\n", b"$3\r\nfoo\r\n", b"x" * 1024, b"\r\n" * 600]),
)
REQUESTS = st.lists(ARGUMENTS, min_size=1, max_size=6)
INLINE = st.lists(st.from_regex(rb"[a-zA-Z0-9:*$]+", fullmatch=True), min_size=1, max_size=4)


def encoded(request: tuple[bool, Request]) -> bytes:
    inline, args = request
    return b" ".join(args) + b"\r\n" if inline else encode_command(*args)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(False), REQUESTS),
            # A first word that begins with * would be a multibulk header.
            st.tuples(st.just(True), INLINE.filter(lambda words: words[0][:1] != b"*")),
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 10_000), max_size=12),
)
@example([(False, [b"a"] * 1100)], [1, 5, 9])
def test_any_split_gives_the_same_requests(
    requests: list[tuple[bool, Request]], cuts: list[int]
) -> None:
    stream = b"".join(map(encoded, requests))
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    assert parse(*pieces) == [args for _, args in requests]


@given(st.binary(max_size=200), st.integers(1, 50))
def test_garbage_gives_requests_or_a_protocol_error(stream: bytes, step: int) -> None:
    whole = pieces = None
    try:
        whole = parse(stream)
    except ProtocolError as error:
        whole = (str(error), error.parsed)
    parsing, parsed = parser(), []
    try:
        for at in range(0, len(stream), step):
            parsed += parsing.feed(stream[at : at + step])
        pieces = parsed
    except ProtocolError as error:
        pieces = (str(error), parsed + error.parsed)
    assert whole == pieces


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"* 1\r\n", "invalid multibulk length"),
        (b"*-9223372036854775809\r\n", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n$1\r\nx\r\n", "expected '$', got '*'"),
        (b"*2\r\n$1\r\nx\r\nPING\r\n", "expected '$', got 'P'"),
        (b"*1\r\n\xff\r\n", "expected '$', got '\xff'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
        (b"*" + b"1" * INLINE_MAX, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * INLINE_MAX, "too big bulk count string"),
        (b"a" * (INLINE_MAX + 1), "too big inline request"),
        (b'SET "a\r\n', "unbalanced quotes in request"),
        (b"SET 'a'b\r\n", "unbalanced quotes in request"),
    ],
)
def test_protocol_errors(stream: bytes, text: str) -> None:
    assert complaint(stream) == text
    middle = len(stream) // 2
    assert complaint(stream[:middle], stream[middle:]) == text


def test_requests_before_an_error_are_answered() -> None:
    with pytest.raises(ProtocolError) as error:
        parse(encode_command("PING") + b"ECHO x\r\n*1\r\n!\r\n")
    assert error.value.parsed == [[b"PING"], [b"ECHO", b"x"]]


def test_a_long_argument_is_refused_by_its_header() -> None:
    parsing = parser(max_bulk=MIB)
    with pytest.raises(ProtocolError, match="invalid bulk length"):
        parsing.feed(b"*2\r\n$3\r\nGET\r\n$1048577\r\n")


@pytest.mark.parametrize(
    "header",
    [b"*2147483647\r\n", b"*2147483647\r\n$3\r\nfoo\r\n", b"*3\r\n$3\r\nSET\r\n$536870912\r\n"],
)
def test_declared_lengths_allocate_nothing(header: bytes) -> None:
    parsing = parser()
    tracemalloc.start()
    parsing.feed(header)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024
    assert parsing.buffered < 1024


def test_a_long_argument_is_copied_once() -> None:
    value = bytes(8 * MIB)
    stream = encode_command("SET", "k", value) + encode_command("PING")
    pieces = [stream[at : at + 65536] for at in range(0, len(stream), 65536)]
    parsing = parser()
    requests: list[Request] = []
    tracemalloc.start()
    for piece in pieces:
        requests += parsing.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert requests == [[b"SET", b"k", value], [b"PING"]]
    assert peak < len(value) + MIB


# -- the query buffer ----------------------------------------------------------------------


def test_query_buffer_limit() -> None:
    parsing = parser(max_buffer=MIB)
    parsing.feed(b"*2\r\n$3\r\nSET\r\n$9000000\r\n")
    with pytest.raises(QueryBufferExceeded):
        for _ in range(17):
            parsing.feed(bytes(65536))


def test_finished_arguments_count_for_the_query_buffer() -> None:
    parsing = parser(max_buffer=MIB)
    parsing.feed(b"*1000000\r\n")
    with pytest.raises(QueryBufferExceeded):
        for _ in range(MIB // ARG_OVERHEAD + 1):
            parsing.feed(b"$0\r\n\r\n")


def test_complete_requests_do_not_count_for_the_query_buffer() -> None:
    requests = parser(max_buffer=MIB).feed(encode_command("SET", "k", bytes(300_000)) * 10)
    assert len(requests) == 10


def test_buffered_counts_what_is_held() -> None:
    parsing = parser()
    assert parsing.buffered == 0
    parsing.feed(b"*2\r\n$3\r\nGET\r\n$5\r\nab")
    assert parsing.buffered == 3 + ARG_OVERHEAD + 2
    assert parsing.feed(b"cde\r\n") == [[b"GET", b"abcde"]]
    assert parsing.buffered == 0


# -- before authentication -----------------------------------------------------------------


def test_limits_before_authentication() -> None:
    assert (
        complaint(b"*%d\r\n" % (UNAUTH_ARGS + 1), unauthenticated=True)
        == "unauthenticated multibulk length"
    )
    assert (
        complaint(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n" % (UNAUTH_BULK + 1), unauthenticated=True)
        == "unauthenticated bulk length"
    )
    parsing = parser()
    parsing.authenticated = False
    most = [b"x" * UNAUTH_BULK] + [b"y"] * (UNAUTH_ARGS - 1)
    assert parsing.feed(encode_command(*most)) == [most]


def test_query_buffer_before_authentication() -> None:
    parsing = parser()
    parsing.authenticated = False
    # Ten arguments of 16 KB can't reach it; a client that wasn't limited before can.
    parsing.authenticated = True
    parsing.feed(b"*2\r\n$3\r\nSET\r\n$9000000\r\n" + bytes(UNAUTH_BUFFER))
    parsing.authenticated = False
    with pytest.raises(QueryBufferExceeded):
        parsing.feed(b"x")


LONG = encode_command("SET", "k", bytes(UNAUTH_BULK + 1))
MANY = encode_command("MGET", *["k"] * UNAUTH_ARGS)


@pytest.mark.parametrize("stream", [LONG, MANY])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_what_follows_auth_waits_for_it(stream: bytes, cut: int) -> None:
    """AUTH and what it allows may come in one piece."""
    parsing = parser()
    parsing.authenticated = False
    auth = encode_command("AUTH", "secret")
    assert parsing.feed(auth + stream[:cut] + stream[cut:]) == [[b"AUTH", b"secret"]]
    assert parsing.deferred
    parsing.authenticated = True
    assert parsing.feed(b"") == parse(stream)
    assert not parsing.deferred


def test_what_follows_a_failed_auth_is_refused() -> None:
    parsing = parser()
    parsing.authenticated = False
    assert parsing.feed(encode_command("AUTH", "wrong") + LONG) == [[b"AUTH", b"wrong"]]
    with pytest.raises(ProtocolError, match="unauthenticated bulk length"):
        parsing.feed(b"")
