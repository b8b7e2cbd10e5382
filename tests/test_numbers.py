"""Numbers: reading, printing and adding them as Redis does, the oracle being redis-server."""

import math
from fractions import Fraction

import pytest
from harness import Server, encode_command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kvserver import numbers
from kvserver.errors import RedisError
from kvserver.numbers import INT64_MAX, INT64_MIN, LongDouble

with_server = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

digits = st.text("0123456789", min_size=1, max_size=25)
decimals = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    digits | st.builds("{}.{}".format, digits, digits) | st.builds(".{}".format, digits),
    st.just("")
    | st.integers(-60, 60).map("e{}".format)
    | st.integers(-5000, 5000).map("E{}".format),
)
hexadecimals = st.builds(
    "{}0x{}{}".format,
    st.sampled_from(["", "-"]),
    st.text("0123456789abcDEF.", min_size=1, max_size=22),
    st.just("") | st.integers(-70, 70).map("p{}".format),
)
# Sums of everyday prices and measures, where 64 bits of mantissa show in the last of 17 decimals.
everyday = st.decimals(-(10**9), 10**9, allow_nan=False, places=3).map(str)
number_texts = st.one_of(
    everyday,
    decimals,
    hexadecimals,
    st.integers(INT64_MIN - 5, INT64_MAX + 5).map(str),
    st.floats().map(repr),
    st.sampled_from(["inf", "-Infinity", "nan", "1e4932", "-1e4932", "3.7e-4951", "1e-4951"]),
    st.text("0123456789+-.eExXpinfa \n_", max_size=8),
).map(str.encode)


def replies(server: Server, commands: list[tuple[bytes, ...]]) -> list[bytes]:
    """The raw RESP2 replies to a pipeline."""
    with server.conn() as conn:
        conn.send(b"".join(encode_command(*command) for command in commands))
        return [conn.reply() for _ in commands]


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def incrbyfloat(text: bytes, increment: bytes) -> bytes:
    """The reply that the functions under test stand for."""
    try:
        return bulk(numbers.add_float_human(text, increment))
    except RedisError as error:
        return f"-{error}\r\n".encode()


@with_server
@given(pairs=st.lists(st.tuples(number_texts, number_texts), min_size=5, max_size=20))
@example(pairs=[(b"0.1", b"0.2"), (b"-0", b"-0"), (b"-1e-30", b"0"), (b"5.0e3", b"2.0e2")])
@example(pairs=[(b"1e4932", b"1e4932"), (b"1e4933", b"1"), (b"1e-4951", b"0"), (b"1e-4952", b"0")])
@example(pairs=[(b"0x1p16383", b"0x1p16383"), (b"0x1.fffffffffffffffep16383", b"1")])
@example(pairs=[(b"0e99999999999999999999", b"1e-99999999999999999999"), (b"1e99999999", b"1")])
@example(pairs=[(b"0" * 5000 + b"1", b"1"), (b"1" * 5119, b"1"), (b"0." + b"1" * 5118, b"0")])
@example(pairs=[(b"18446744073709551615", b"0.5"), (b"18446744073709551616", b"1")])
def test_incrbyfloat(oracle: Server, pairs: list[tuple[bytes, bytes]]) -> None:
    commands: list[tuple[bytes, ...]] = []
    for text, increment in pairs:
        commands += [(b"SET", b"k", text), (b"INCRBYFLOAT", b"k", increment)]
    for pair, reply in zip(pairs, replies(oracle, commands)[1::2], strict=True):
        assert incrbyfloat(*pair) == reply, pair


@with_server
@given(texts=st.lists(number_texts, min_size=5, max_size=20))
@example(texts=[b"1e-310", b"1e-400", b"-1e-400", b"0e-400", b"1e309", b"0x1p-1080", b"0x0p9"])
@example(texts=[b"", b" 1", b"1 ", b"1\x00", b"0x", b"0x.", b"1e", b".", b"1_0", b"0x1p", b"+.5"])
@example(texts=[b"INF", b"-infinity", b"infinit", b"NaN", b"nan(1)", b"0X1P3", b"1e0x1"])
@example(texts=[b"1p3", b"0x1e5", b"0x" + b"f" * 300, b"0x1p99999999999999999999", b"1" * 400])
def test_doubles_are_read_as_scores_are(oracle: Server, texts: list[bytes]) -> None:
    commands: list[tuple[bytes, ...]] = []
    for text in texts:
        # The first pair ends the options, one of which the text might be.
        commands += [(b"ZADD", b"z", b"0", b"a", text, b"m"), (b"ZSCORE", b"z", b"m")]
    found = replies(oracle, commands)
    for text, added, score in zip(texts, found[::2], found[1::2], strict=True):
        value = numbers.parse_double(text)
        if value is None:
            assert added == b"-ERR value is not a valid float\r\n", text
        else:
            assert (added[:1], value) == (b":", float(score.split()[1])), text


@with_server
@given(texts=st.lists(number_texts, min_size=5, max_size=20))
@example(texts=[b"", b" ", b" 1", b"\t\v-1", b"1 ", b"1\x00x", b"\x001", b" \x001", b"\xa01"])
@example(texts=[b"1e400", b"-1e400", b"1e-400", b"0x1p99999", b"-0x1p99999", b"0x1p-99999"])
@example(texts=[b"0x1p99999999999999999999", b"-0x1p-99999999999999999999", b"NaN", b"-inf"])
def test_doubles_are_read_as_bounds_are(oracle: Server, texts: list[bytes]) -> None:
    commands: list[tuple[bytes, ...]] = []
    values = [numbers.parse_strtod(text) for text in texts]
    for text, value in zip(texts, values, strict=True):
        score = b"0" if value is None else repr(value).encode()
        commands += [(b"ZADD", b"z", score, b"m"), (b"ZCOUNT", b"z", text, text)]
    counts = replies(oracle, commands)[1::2]
    for text, value, count in zip(texts, values, counts, strict=True):
        if value is None:
            assert count == b"-ERR min or max is not a float\r\n", text
        else:
            assert count == b":1\r\n", text


@with_server
@given(texts=st.lists(st.integers().map(str) | st.text("-+ 0129", max_size=21), min_size=5))
@example(texts=["0", "-0", "00", "+1", " 1", "1 ", "", "-", "1_0", "٣", str(INT64_MIN)])
@example(texts=[str(INT64_MAX), str(INT64_MAX + 1), str(INT64_MIN - 1), "1" * 5000, "1\n"])
def test_integers_are_read_as_incrby_does(oracle: Server, texts: list[str]) -> None:
    commands: list[tuple[bytes, ...]] = []
    for text in texts:
        commands += [(b"SET", b"k", b"0"), (b"INCRBY", b"k", text.encode())]
    for text, reply in zip(texts, replies(oracle, commands)[1::2], strict=True):
        value = numbers.parse_int64(text.encode())
        if value is None:
            assert reply == b"-ERR value is not an integer or out of range\r\n", text
        else:
            assert reply == b":%d\r\n" % value, text


@settings(max_examples=1000, deadline=None)
@given(value=st.floats(allow_nan=False))
def test_printed_doubles_read_back(value: float) -> None:
    text = numbers.format_double(value)
    assert numbers.parse_double(text) == value
    assert len(text) <= 25


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (3.0, "3"),
        (-1234.5, "-1234.5"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-7, "1.5e-7"),
        (0.00123456, "0.00123456"),
        (0.000123456, "1.23456e-4"),
        (0.00012, "0.00012"),
        (1e17, "100000000000000000"),
        (2.0**62, "4611686018427387904"),
        (5e18, "5e+18"),
        (1e21, "1e+21"),
        (12345678901234567e4, "123456789012345670000"),
        (-1.7976931348623157e308, "-1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_doubles_are_laid_out_as_fpconv_does(value: float, text: str) -> None:
    assert numbers.format_double(value) == text.encode()


@given(value=st.fractions())
def test_long_doubles_are_the_nearest(value: Fraction) -> None:
    rounded = LongDouble.rounded(value.numerator, value.denominator)
    exact = Fraction(rounded.mantissa) * Fraction(2) ** rounded.exponent
    assert abs(exact - value) <= Fraction(2) ** rounded.exponent / 2
    assert rounded.mantissa == 0 or abs(rounded.mantissa).bit_length() in (64, 65)


def test_int64_bounds() -> None:
    assert numbers.fits_int64(INT64_MAX)
    assert numbers.fits_int64(INT64_MIN)
    assert not numbers.fits_int64(INT64_MAX + 1)
    assert not numbers.fits_int64(INT64_MIN - 1)
