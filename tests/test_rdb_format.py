"""The RDB format byte by byte: every encoding there is, and nothing else gets through."""

from __future__ import annotations

import math
import random
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvserver.numbers import format_double
from kvserver.rdb import listpack, lzf, types
from kvserver.rdb.crc64 import crc64
from kvserver.rdb.decode import decode
from kvserver.rdb.encode import encode
from kvserver.rdb.errors import BadFormat, PayloadError, WrongFooter
from kvserver.rdb.values import (
    Consumer,
    Group,
    Hash,
    List,
    Pending,
    Set,
    Stream,
    String,
    Value,
    ZSet,
)

MAX = 1 << 24


def signed_off(body: bytes, version: int = 12) -> bytes:
    """The payload of a body: with version and checksum."""
    body += version.to_bytes(2, "little")
    return body + crc64(body).to_bytes(8, "little")


def read(body: bytes, max_bytes: int = MAX) -> Value:
    return decode(signed_off(body), max_bytes)


def refused(body: bytes, max_bytes: int = MAX) -> None:
    with pytest.raises(BadFormat):
        read(body, max_bytes)


def raw(text: bytes) -> bytes:
    """A string that isn't encoded."""
    if len(text) < 64:
        return bytes([len(text)]) + text
    return b"\x80" + len(text).to_bytes(4, "big") + text


def lp(*items: bytes | int) -> bytes:
    """A listpack as a string; texts are written as texts, whatever they say."""
    entries = [listpack.integer(item) if isinstance(item, int) else lp_text(item) for item in items]
    return raw(listpack.encode(entries))


def lp_text(text: bytes) -> bytes:
    assert len(text) < 64
    return bytes([0x80 | len(text)]) + text + bytes([1 + len(text)])


def zl(*entries: bytes) -> bytes:
    """A ziplist, as a string, of entries without what is known of the one before."""
    body = b""
    before = 0
    last = 10
    for entry in entries:
        last = 10 + len(body)
        whole = (
            bytes([before]) if before < 254 else b"\xfe" + before.to_bytes(4, "little")
        ) + entry
        before = len(whole)
        body += whole
    header = struct.pack("<IIH", 10 + len(body) + 1, last, len(entries))
    return raw(header + body + b"\xff")


def zl_text(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def intset(form: str, *numbers: int) -> bytes:
    width = struct.calcsize("<" + form)
    return raw(struct.pack(f"<II{len(numbers)}{form}", width, len(numbers), *numbers))


def double(value: float) -> bytes:
    return struct.pack("<d", value)


def ms(value: int) -> bytes:
    return struct.pack("<q", value)


def node_id(ms: int, seq: int) -> bytes:
    return struct.pack(">QQ", ms, seq)


# -- footer


def test_checksum_is_that_of_crc64_c() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"56789", crc64(b"1234")) == 0xE9C6D914C4B8D9CA


GOOD = b"\x00\x03abc"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"abcdefghi",
        GOOD,
        signed_off(GOOD, version=13),
        signed_off(GOOD, version=65535),
        signed_off(GOOD)[:-1],
        signed_off(GOOD) + b"\0",
        # Redis takes a checksum of zero for none in a file, but not here.
        GOOD + b"\x0a\x00" + bytes(8),
        signed_off(GOOD).replace(b"a", b"b", 1),
    ],
    ids=repr,
)
def test_wrong_footers(payload: bytes) -> None:
    with pytest.raises(WrongFooter):
        decode(payload, MAX)


@pytest.mark.parametrize("version", [0, 6, 9, 10, 11, 12])
def test_versions(version: int) -> None:
    assert decode(signed_off(GOOD, version), MAX) == String(b"abc")


def test_versions_written() -> None:
    plain = Hash([(b"f", b"v", 0)])
    expiring = Hash([(b"f", b"v", 0), (b"g", b"w", 7)])
    assert encode(plain)[-10:-8] == b"\x0a\x00"
    assert encode(expiring)[-10:-8] == b"\x0c\x00"
    assert (encode(plain)[0], encode(expiring)[0]) == (4, 24)


def test_no_value() -> None:
    refused(b"")


@pytest.mark.parametrize("kind", [6, 7, 8, 26, 100, 246, 255])
def test_unknown_types(kind: int) -> None:
    # 6 and 7: modules' types.
    refused(bytes([kind]) + b"\x01\x01a")


# -- every encoding, in bytes

PAIRS = lp(b"f", b"v", b"g", 12)
FIELDS = Hash([(b"f", b"v", 0), (b"g", b"12", 0)])
AT = 1_700_000_000_000

# fmt: off
ENCODINGS: dict[str, tuple[bytes, Value]] = {
    "string": (b"\x00" + raw(b"abc"), String(b"abc")),
    "empty string": (b"\x00\x00", String(b"")),
    "string with a length of 14 bits": (b"\x00\x40\x03abc", String(b"abc")),
    "string with a length of 32 bits": (b"\x00\x80\0\0\0\x03abc", String(b"abc")),
    "string with a length of 64 bits": (b"\x00\x81\0\0\0\0\0\0\0\x03abc", String(b"abc")),
    "int8": (b"\x00\xc0\xfe", String(b"-2")),
    "int16": (b"\x00\xc1\x00\x01", String(b"256")),
    "int32": (b"\x00\xc2\xff\xff\xff\x7f", String(b"2147483647")),
    "lzf": (b"\x00\xc3\x05\x0a\x00a\xe0\x00\x00", String(b"a" * 10)),
    "lzf of distance 3": (b"\x00\xc3\x06\x0a\x02abc\xa0\x02", String(b"abcabcabca")),
    "list": (b"\x01\x02" + raw(b"a") + b"\xc0\x07", List([b"a", b"7"])),
    "set": (b"\x02\x02" + raw(b"a") + raw(b"b"), Set([b"a", b"b"])),
    "zset": (
        b"\x03\x04" + raw(b"a") + b"\x031.5" + raw(b"b") + b"\xfe" + raw(b"c") + b"\xff"
        + raw(b"d") + b"\x1517976931348623157e292",
        ZSet([(b"a", 1.5), (b"b", math.inf), (b"c", -math.inf), (b"d", 1.7976931348623157e308)]),
    ),
    "hash": (b"\x04\x01" + raw(b"f") + raw(b"v"), Hash([(b"f", b"v", 0)])),
    "zset 2": (b"\x05\x01" + raw(b"a") + double(-2.25), ZSet([(b"a", -2.25)])),
    "zipmap": (
        b"\x09" + raw(b"\x02\x01f\x01\x00v\x01g\x02\x0312---\xff"), FIELDS),
    "zipmap with many fields": (b"\x09" + raw(b"\xfe\x01f\x01\x00v\xff"), Hash([(b"f", b"v", 0)])),
    "zipmap with a long value": (
        b"\x09" + raw(b"\x01\x01f\xfe\x2c\x01\x00\x00\x00" + b"v" * 300 + b"\xff"),
        Hash([(b"f", b"v" * 300, 0)]),
    ),
    "ziplist": (
        b"\x0a" + zl(
            zl_text(b""), zl_text(b"abc"), b"\x40\x50" + b"x" * 80, b"\x41\x2c" + b"y" * 300,
            b"\x80\x00\x00\x00\x02zz", b"\xf1", b"\xfd", b"\xfe\x80", b"\xc0\x00\x80",
            b"\xf0\x00\x00\x80", b"\xd0\x00\x00\x00\x80", b"\xe0" + bytes(7) + b"\x80",
        ),
        List([
            b"", b"abc", b"x" * 80, b"y" * 300, b"zz", b"0", b"12", b"-128", b"-32768",
            b"-8388608", b"-2147483648", b"-9223372036854775808",
        ]),
    ),
    "intset of int16": (b"\x0b" + intset("h", -5, 0, 300), Set([b"-5", b"0", b"300"])),
    "intset of int32": (b"\x0b" + intset("i", -5, 70000), Set([b"-5", b"70000"])),
    "intset of int64": (b"\x0b" + intset("q", -(1 << 63), 1), Set([b"-9223372036854775808", b"1"])),
    "zset in a ziplist": (
        b"\x0c" + zl(zl_text(b"a"), b"\xf2", zl_text(b"b"), zl_text(b"1.5"), zl_text(b"c"),
                     zl_text(b"inf")),
        ZSet([(b"a", 1.0), (b"b", 1.5), (b"c", math.inf)]),
    ),
    "hash in a ziplist": (
        b"\x0d" + zl(zl_text(b"f"), zl_text(b"v"), zl_text(b"g"), b"\xfd"), FIELDS),
    "quicklist": (
        b"\x0e\x03" + zl(zl_text(b"a")) + zl() + zl(b"\xf2", zl_text(b"b")),
        List([b"a", b"1", b"b"]),
    ),
    "hash in a listpack": (b"\x10" + PAIRS, FIELDS),
    "zset in a listpack": (
        b"\x11" + lp(b"a", 1, b"b", b"1.5", b"c", b"-inf"),
        ZSet([(b"a", 1.0), (b"b", 1.5), (b"c", -math.inf)]),
    ),
    "quicklist 2": (
        b"\x12\x03\x02" + lp(b"a", -1) + b"\x01" + raw(b"plain") + b"\x02" + lp(),
        List([b"a", b"-1", b"plain"]),
    ),
    "set in a listpack": (b"\x14" + lp(b"a", 300, b"b"), Set([b"a", b"300", b"b"])),
    "hash with absolute times": (
        b"\x16\x02" + b"\x00" + raw(b"f") + raw(b"v")
        + b"\x81" + AT.to_bytes(8, "big") + raw(b"g") + raw(b"w"),
        Hash([(b"f", b"v", 0), (b"g", b"w", AT)]),
    ),
    "hash in a listpack with times, before 7.4": (
        b"\x17" + lp(b"g", b"w", AT, b"f", b"v", 0),
        Hash([(b"g", b"w", AT), (b"f", b"v", 0)]),
    ),
    "hash with times": (
        b"\x18" + ms(AT) + b"\x03" + b"\x00" + raw(b"f") + raw(b"v") + b"\x01" + raw(b"g")
        + raw(b"w") + b"\x43\xe9" + raw(b"h") + raw(b"x"),
        Hash([(b"f", b"v", 0), (b"g", b"w", AT), (b"h", b"x", AT + 1000)]),
    ),
    "hash in a listpack with times": (
        b"\x19" + ms(AT) + lp(b"g", b"w", AT, b"h", b"x", AT + 1000, b"f", b"v", 0),
        Hash([(b"g", b"w", AT), (b"h", b"x", AT + 1000), (b"f", b"v", 0)]),
    ),
}
# fmt: on


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings(name: str) -> None:
    body, value = ENCODINGS[name]
    assert read(body) == value
    assert decode(encode(value), MAX) == value


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_payload_cut_short(name: str) -> None:
    body, _ = ENCODINGS[name]
    for end in range(len(body)):
        refused(body[:end])


@pytest.mark.parametrize("name", ENCODINGS)
def test_nothing_may_follow(name: str) -> None:
    refused(ENCODINGS[name][0] + b"\x00")


def test_a_hash_with_times_in_bytes() -> None:
    """As Redis 7.4 writes it: times count from the earliest one."""
    value = Hash([(b"f", b"v", 0), (b"g", b"w", AT + 1000), (b"h", b"x", AT)])
    expected = b"\x18" + ms(AT) + b"\x03\x00\x01f\x01v" + b"\x43\xe9\x01g\x01w" + b"\x01\x01h\x01x"
    assert encode(value) == signed_off(expected, 12)


def test_the_earliest_time_of_fields_that_do_not_expire() -> None:
    body = b"\x18" + ms(1 << 48) + b"\x01\x00" + raw(b"f") + raw(b"v")
    assert read(body) == Hash([(b"f", b"v", 0)])


# -- streams

ENTRIES = lp(
    2, 1, 2, b"a", b"b", 0,
    2, 0, 0, b"1x", b"2x", 5,
    3, 1, -1, b"gone", b"gone", 5,
    0, 2, -5, 1, b"c", 9, 6,
)  # fmt: skip


def group(name: bytes, read: bytes, active: bytes) -> bytes:
    """A group with two pending entries of one consumer, and a consumer without any."""
    return (
        raw(name) + b"\x0a\x05" + read
        + b"\x02" + node_id(10, 5) + ms(AT) + b"\x01" + node_id(12, 0) + ms(AT + 1) + b"\x43\xe8"
        + b"\x02" + raw(b"alice") + ms(AT + 2) + active + b"\x02" + node_id(10, 5) + node_id(12, 0)
        + raw(b"bob") + ms(AT + 3) + active + b"\x00"
    )  # fmt: skip


def stream_body(kind: int, groups: bytes = b"\x00", entries: bytes = ENTRIES) -> bytes:
    ids = b"" if kind == types.STREAM_LISTPACKS else b"\x0a\x05\x0b\x04\x03"
    return bytes([kind]) + b"\x01" + raw(node_id(10, 5)) + entries + b"\x02\x0c\x00" + ids + groups


LIVE = [(10, 5, [b"a", b"1x", b"b", b"2x"]), (12, 0, [b"c", b"9"])]


def groups_of(read: int, active: int | None) -> list[Group]:
    pel = [Pending((10, 5), AT, 1, b"alice"), Pending((12, 0), AT + 1, 1000, b"alice")]
    consumers = [
        Consumer(b"alice", AT + 2, AT + 2 if active is None else active),
        Consumer(b"bob", AT + 3, AT + 3 if active is None else active),
    ]
    return [Group(b"g", (10, 5), read, pel, consumers)]


def test_streams_of_5_0() -> None:
    """Counters are those of a stream from which nothing was deleted."""
    body = stream_body(types.STREAM_LISTPACKS, b"\x01" + group(b"g", b"", b""))
    assert read(body) == Stream(LIVE, (12, 0), (10, 5), (0, 0), 2, groups_of(1, None))


@pytest.mark.parametrize(
    ("last_id", "entries_read"),
    [(b"\x0a\x04", 0), (b"\x0a\x05", 1), (b"\x0b\x00", -1), (b"\x0c\x00", 2), (b"\x0d\x00", -1)],
)
def test_entries_read_of_5_0(last_id: bytes, entries_read: int) -> None:
    value = read(stream_body(types.STREAM_LISTPACKS, b"\x01" + raw(b"g") + last_id + b"\x00\x00"))
    assert isinstance(value, Stream)
    assert value.groups[0].entries_read == entries_read


def test_streams_of_7_0() -> None:
    body = stream_body(types.STREAM_LISTPACKS_2, b"\x01" + group(b"g", b"\x02", b""))
    value = Stream(LIVE, (12, 0), (10, 5), (11, 4), 3, groups_of(2, None))
    assert read(body) == value
    assert decode(encode(value), MAX) == value


def test_streams_of_7_2() -> None:
    unknown = b"\x81" + b"\xff" * 8
    body = stream_body(types.STREAM_LISTPACKS_3, b"\x01" + group(b"g", unknown, ms(-1)))
    assert read(body) == Stream(LIVE, (12, 0), (10, 5), (11, 4), 3, groups_of(-1, -1))


@pytest.mark.parametrize("kind", [15, 19, 21])
def test_a_stream_cut_short(kind: int) -> None:
    active = ms(AT) if kind == types.STREAM_LISTPACKS_3 else b""
    read_counter = b"" if kind == types.STREAM_LISTPACKS else b"\x02"
    body = stream_body(kind, b"\x01" + group(b"g", read_counter, active))
    read(body)
    for end in range(len(body)):
        refused(body[:end])
    refused(body + b"\x00")


MASTER = (1, 0, 1, b"a", 0)
#: The items of a node's listpack that aren't one entry 10-5 with the field `a`.
WRONG_NODES = {
    "empty": (),
    "no entry": MASTER,
    "one too few": (2, 0, 1, b"a", 0, 2, 0, 0, b"v", 4),
    "one too many": (*MASTER, 2, 0, 0, b"v", 4, 2, 0, 1, b"v", 4),
    "one is said to be deleted": (0, 1, 1, b"a", 0, 2, 0, 0, b"v", 4),
    "one is deleted": (*MASTER, 3, 0, 0, b"v", 4),
    "negative number of fields": (1, 0, -1, 0, 2, 0, 0, 3),
    "number of fields beyond the end": (1, 0, 1 << 62, b"a", 0, 2, 0, 0, b"v", 4),
    "number of fields in text": (1, 0, b"x", b"a", 0, 2, 0, 0, b"v", 4),
    "no end of the master entry": (1, 0, 1, b"a", 1, 2, 0, 0, b"v", 4),
    "wrong size": (*MASTER, 2, 0, 0, b"v", 5),
    "wrong size with fields": (*MASTER, 0, 0, 0, 1, b"b", b"v", 5),
    "negative fields": (*MASTER, 0, 0, 0, -1, 2),
    "fields beyond the end": (*MASTER, 0, 0, 0, 1 << 62, b"b", b"v", 6),
    "flags in text": (*MASTER, b"x", 0, 0, b"v", 4),
    "id in text": (*MASTER, 2, b"x", 0, b"v", 4),
    "cut short": (*MASTER, 2, 0, 0),
    "ids equal": (2, 0, 1, b"a", 0, 2, 0, 0, b"v", 4, 2, 0, 0, b"v", 4),
    "ids descend": (2, 0, 1, b"a", 0, 2, 0, 0, b"v", 4, 2, -1, 0, b"v", 4),
    "after the last id": (*MASTER, 2, 3, 0, b"v", 4),
}


def one_entry(node: bytes, length: int = 1) -> bytes:
    return b"\x13\x01" + raw(node_id(10, 5)) + node + bytes([length]) + b"\x0c\x00" + bytes(6)


@pytest.mark.parametrize("name", WRONG_NODES)
def test_wrong_nodes_of_streams(name: str) -> None:
    read(one_entry(lp(*MASTER, 2, 0, 0, b"v", 4)))
    for length in (0, 1, 2):
        refused(one_entry(lp(*WRONG_NODES[name]), length))


def test_integers_of_a_stream_may_be_texts() -> None:
    assert read(one_entry(lp(b"1", b"0", 1, b"a", 0, b"2", 0, 0, b"v", b"4"))) == Stream(
        [(10, 5, [b"a", b"v"])], (12, 0), (0, 0), (0, 0), 0
    )


def test_wrong_length_of_a_stream() -> None:
    node = lp(*MASTER, 2, 0, 0, b"v", 4)
    refused(one_entry(node, 0))
    refused(one_entry(node, 2))


def test_nodes_of_streams_ascend() -> None:
    node = lp(*MASTER, 2, 0, 0, b"v", 4)
    first, second = raw(node_id(10, 5)) + node, raw(node_id(10, 6)) + node
    tail = b"\x02\x0c\x00" + bytes(6)
    read(b"\x13\x02" + first + second + tail)
    refused(b"\x13\x02" + second + first + tail)
    refused(b"\x13\x02" + first + first + tail)
    refused(b"\x13\x01" + raw(node_id(10, 0) + b"\x05") + node + b"\x01\x0c\x00" + bytes(6))


def with_groups(*groups: bytes) -> bytes:
    return stream_body(types.STREAM_LISTPACKS_2, bytes([len(groups)]) + b"".join(groups))


PEL = node_id(10, 5) + ms(AT) + b"\x01"
HEAD = raw(b"g") + b"\x0a\x05\x00"


@pytest.mark.parametrize(
    "groups",
    [
        (group(b"g", b"\x00", b""),) * 2,
        (HEAD + b"\x02" + PEL + PEL + b"\x01" + raw(b"c") + ms(1) + b"\x01" + node_id(10, 5),),
        (HEAD + b"\x01" + PEL + b"\x00",),
        (HEAD + b"\x01" + PEL + b"\x01" + raw(b"c") + ms(1) + b"\x01" + node_id(10, 6),),
        (HEAD + b"\x01" + PEL + b"\x02" + (raw(b"c") + ms(1) + b"\x00") * 2,),
        (
            HEAD + b"\x01" + PEL + b"\x02"
            + raw(b"c") + ms(1) + b"\x01" + node_id(10, 5)
            + raw(b"d") + ms(1) + b"\x01" + node_id(10, 5),
        ),
        (HEAD + b"\x00\x02" + (raw(b"c") + ms(1) + b"\x00") * 2,),
    ],
    ids=[
        "group twice", "pending twice", "no owner", "not pending", "nobody owns it",
        "two owners", "consumer twice",
    ],
)  # fmt: skip
def test_wrong_groups(groups: tuple[bytes, ...]) -> None:
    read(with_groups(HEAD + b"\x01" + PEL + b"\x01" + raw(b"c") + ms(1) + b"\x01" + node_id(10, 5)))
    refused(with_groups(*groups))


# -- what is refused

A = raw(b"a")

REFUSED = {
    "empty list": b"\x01\x00",
    "empty set": b"\x02\x00",
    "empty sorted set": b"\x05\x00",
    "empty hash": b"\x04\x00",
    "empty hash with times": b"\x18" + ms(AT) + b"\x00",
    "empty ziplist": b"\x0a" + zl(),
    "empty quicklist": b"\x12\x00",
    "quicklist of empty nodes": b"\x12\x02\x02" + lp() + b"\x02" + lp(),
    "old quicklist of empty nodes": b"\x0e\x01" + zl(),
    "empty set in a listpack": b"\x14" + lp(),
    "empty hash in a listpack": b"\x10" + lp(),
    "empty sorted set in a listpack": b"\x11" + lp(),
    "empty zipmap": b"\x09" + raw(b"\x00\xff"),
    "empty intset": b"\x0b" + intset("h"),
    "plain node that is empty": b"\x12\x02\x01\x00\x02" + lp(b"a"),
    "node without a container": b"\x12\x01\x03" + lp(b"a"),
    "member twice": b"\x02\x02" + A + A,
    "member twice, as text and number": b"\x02\x02\xc0\x05" + raw(b"5"),
    "member twice in a listpack": b"\x14" + lp(b"5", 5),
    "field twice": b"\x04\x02" + A + A + A + A,
    "field twice in a ziplist": b"\x0d" + zl(b"\xf2", b"\xf2", zl_text(b"1"), b"\xf2"),
    "field twice in a zipmap": b"\x09" + raw(b"\x02\x01f\x01\x00v\x01f\x01\x00v\xff"),
    "field twice with times": b"\x18" + ms(AT) + b"\x02" + (b"\x00" + A + A) * 2,
    "field twice in a listpack with times": b"\x19" + ms(AT) + lp(b"a", b"a", 0, b"a", b"b", 0),
    "scored twice": b"\x05\x02" + (A + double(1)) * 2,
    "scored twice in a listpack": b"\x11" + lp(b"a", 1, b"a", 2),
    "score that is no number": b"\x05\x01" + A + double(math.nan),
    "old score that is no number": b"\x03\x01" + A + b"\xfd",
    "old score that is a word": b"\x03\x01" + A + b"\x03one",
    "score in a listpack that is no number": b"\x11" + lp(b"a", b"nan"),
    "score in a listpack that is empty": b"\x11" + lp(b"a", b""),
    "field without a value": b"\x10" + lp(b"f", b"v", b"g"),
    "member without a score": b"\x0c" + zl(zl_text(b"a")),
    "field without a time": b"\x19" + ms(AT) + lp(b"f", b"v"),
    "time in text": b"\x19" + ms(AT) + lp(b"f", b"v", b"x"),
    "negative time": b"\x19" + ms(AT) + lp(b"f", b"v", -1),
    "time of 49 bits": b"\x19" + ms(AT) + lp(b"f", b"v", 1 << 48),
    "times not in order": b"\x19" + ms(AT) + lp(b"f", b"v", AT + 1, b"g", b"v", AT),
    "time behind none": b"\x19" + ms(AT) + lp(b"f", b"v", 0, b"g", b"v", AT),
    "earliest time negative": b"\x18" + ms(-1) + b"\x01\x01" + A + A,
    "earliest time of 50 bits": b"\x18" + ms(1 << 49) + b"\x01\x01" + A + A,
    "sum of times of 49 bits": b"\x18" + ms((1 << 48) - 1) + b"\x01\x02" + A + A,
    "absolute time of 49 bits": b"\x16\x01\x81" + (1 << 48).to_bytes(8, "big") + A + A,
    "more elements than there are": b"\x01\x03" + A + A,
    "elements beyond all measure": b"\x01\x81" + b"\xff" * 8 + A,
    "members beyond all measure": b"\x02\x81\x7f" + b"\xff" * 7 + A,
    "scores beyond all measure": b"\x05\x81\x7f" + b"\xff" * 7 + A + double(1),
    "fields beyond all measure": b"\x04\x81\x7f" + b"\xff" * 7 + A + A,
    "string beyond all measure": b"\x00\x81" + b"\xff" * 8 + b"abc",
    "length with an encoding": b"\x01\xc1\x01" + A,
    "length of an unknown kind": b"\x01\x82\x00\x00\x00\x01" + A,
    "string of an unknown encoding": b"\x00\xc4\x01a",
    "intset of another width": b"\x0b" + raw(struct.pack("<IIb", 1, 1, 5)),
    "intset that is longer": b"\x0b" + raw(struct.pack("<IIhh", 2, 1, 5, 6)),
    "intset that is shorter": b"\x0b" + raw(struct.pack("<IIh", 2, 2, 5)),
    "intset that descends": b"\x0b" + intset("h", 2, 1),
    "intset with a member twice": b"\x0b" + intset("h", 1, 1),
    "lzf longer than it says": b"\x00\xc3\x05\x09\x00a\xe0\x00\x00",
    "lzf shorter than it says": b"\x00\xc3\x05\x0b\x00a\xe0\x00\x00",
    "lzf from before the beginning": b"\x00\xc3\x05\x0a\x00a\xe0\x00\x01",
    "lzf from a byte before the beginning": b"\x00\xc3\x04\x03\x00a\x20\x01",
    "lzf cut in a run": b"\x00\xc3\x02\x02\x01a",
    "lzf cut in a reference": b"\x00\xc3\x03\x0a\x00a\x20",
    "lzf cut in a long reference": b"\x00\xc3\x04\x0a\x00a\xe0\x00",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    refused(REFUSED[name])


def broken(packed: bytes, at: int, value: int) -> bytes:
    """A packed string (of under 64 bytes) with another byte, counted from its own first one."""
    changed = bytearray(packed)
    changed[at + 1 if at >= 0 else at] = value
    return bytes(changed)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 99), (0, 0), (4, 1), (4, 3), (-1, 0), (6, 0x83), (6, 0xF5), (6, 0xFF), (8, 3), (8, 0x82)],
)
def test_broken_listpacks(at: int, value: int) -> None:
    packed = lp(b"a", b"b")
    read(b"\x14" + packed)
    refused(b"\x14" + broken(packed, at, value))


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 99), (4, 10), (4, 14), (8, 1), (8, 3), (-1, 0), (10, 1), (13, 2), (11, 0xC1), (14, 60)],
)
def test_broken_ziplists(at: int, value: int) -> None:
    packed = zl(zl_text(b"a"), zl_text(b"b"))
    read(b"\x0a" + packed)
    refused(b"\x0a" + broken(packed, at, value))


@pytest.mark.parametrize(
    ("at", "value"), [(0, 2), (0, 0), (1, 2), (1, 0xFF), (1, 254), (3, 9), (4, 1), (-1, 0)]
)
def test_broken_zipmaps(at: int, value: int) -> None:
    packed = raw(b"\x01\x01f\x01\x00v\xff")
    read(b"\x09" + packed)
    refused(b"\x09" + broken(packed, at, value))


def test_counts_that_must_be_counted() -> None:
    """65535 stands for more than the header has room for, and is allowed for fewer too."""
    assert read(b"\x14" + broken(broken(lp(b"a"), 4, 255), 5, 255)) == Set([b"a"])
    assert read(b"\x0a" + broken(broken(zl(zl_text(b"a")), 8, 255), 9, 255)) == List([b"a"])
    members = [b"%d" % i for i in range(70_000)]
    packed = listpack.encode([listpack.entry(member) for member in members])
    assert read(b"\x14" + raw(packed)) == Set(members)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 126, 127, 4095, 4096, 16382, 16383, 2097152])
def test_texts_in_listpacks(size: int) -> None:
    texts = [b"x" * size, b"after"]
    packed = listpack.encode([listpack.entry(text) for text in texts])
    assert types.run(listpack.decode(packed, 2)) == texts


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_integers_in_listpacks(numbers: list[int]) -> None:
    packed = listpack.encode([listpack.integer(number) for number in numbers])
    assert types.run(listpack.decode(packed, len(numbers))) == [b"%d" % n for n in numbers]
    assert packed == listpack.encode([listpack.entry(b"%d" % number) for number in numbers])


# -- limits


def test_a_bomb_of_compressed_strings() -> None:
    bomb = b"\x00a" + b"\xe0\xff\x00" * 100_000  # of 264 bytes each
    size = 1 + 264 * 100_000
    compressed = b"\xc3\x80" + len(bomb).to_bytes(4, "big") + b"\x80" + size.to_bytes(4, "big")
    assert allocated(lambda: refused(b"\x00" + compressed + bomb)) < 4 << 20
    assert read(b"\x00" + compressed + bomb, 1 << 25) == String(b"a" * size)
    assert allocated(lambda: expand(bomb, 1000)) < 1 << 20


def expand(compressed: bytes, size: int) -> None:
    with pytest.raises(BadFormat):
        types.run(lzf.decompress(compressed, size))


def test_a_bomb_of_small_elements() -> None:
    packed = listpack.encode([listpack.entry(b"ab")] * 1_000_000)
    assert allocated(lambda: refused(b"\x12\x01\x02" + raw(packed), 1 << 22)) < 16 << 20


def test_a_bomb_of_names_of_fields() -> None:
    """Each entry of a stream has a name that is written once."""
    name = b"n" * 100_000
    items = [listpack.integer(item) for item in (1000, 0, 1)]
    items += [listpack.entry(name), listpack.integer(0)]
    for seq in range(1000):
        items += map(listpack.integer, (2, 0, seq, 7, 4))
    body = b"\x13\x01" + raw(node_id(1, 1)) + raw(listpack.encode(items))
    body += b"\x43\xe8\x01\x43\xe8" + bytes(6)
    refused(body)
    value = read(body, 1 << 27)
    assert isinstance(value, Stream)
    assert value.entries == [(1, seq, [name, b"7"]) for seq in range(1, 1001)]


def allocated(function: Callable[[], None]) -> int:
    """The most memory that Python had while it ran."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# -- any value, and any payload

texts = st.one_of(
    st.binary(max_size=80),
    st.integers(-(1 << 64), 1 << 64).map(lambda number: b"%d" % number),
)
scores = st.floats(allow_nan=False)
times = st.one_of(st.just(0), st.integers(1, types.MAX_FIELD_EXPIRE))
ids = st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))


def distinct(names: st.SearchStrategy[bytes], *others: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(
        st.tuples(names, *others), min_size=1, max_size=20, unique_by=lambda one: one[0]
    )


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    keys = sorted(draw(st.sets(ids, max_size=20)))
    names = draw(st.lists(texts, min_size=1, max_size=3))
    entries = []
    for key in keys:
        if draw(st.booleans()):
            names = draw(st.lists(texts, min_size=1, max_size=3))
        entries.append((*key, [part for name in names for part in (name, draw(texts))]))
    groups = [draw(groups_named(name)) for name in draw(st.sets(texts, max_size=2))]
    last = keys[-1] if keys else draw(ids)
    added = draw(st.integers(0, (1 << 63) - 1))
    return Stream(entries, last, draw(ids), draw(ids), added, groups)


@st.composite
def groups_named(draw: st.DrawFn, name: bytes) -> Group:
    consumers = [Consumer(one, AT, AT) for one in draw(st.sets(texts, min_size=1, max_size=3))]
    names = st.sampled_from([consumer.name for consumer in consumers])
    counts = st.integers(0, (1 << 64) - 1)
    pel = [
        Pending(entry, draw(st.integers(-1, 1 << 60)), draw(counts), draw(names))
        for entry in sorted(draw(st.sets(ids, max_size=5)))
    ]
    return Group(name, draw(ids), draw(st.integers(-1, 1 << 62)), pel, consumers)


values = st.one_of(
    texts.map(String),
    st.lists(texts, min_size=1, max_size=20).map(List),
    st.lists(texts, min_size=1, max_size=20, unique=True).map(Set),
    distinct(texts, scores).map(ZSet),
    distinct(texts, texts, times).map(Hash),
    streams(),
)


@given(values)
def test_any_value_comes_back(value: Value) -> None:
    assert repr(decode(encode(value), MAX)) == repr(value)


BODIES = [body for body, _ in ENCODINGS.values()] + [
    stream_body(types.STREAM_LISTPACKS, b"\x01" + group(b"g", b"", b"")),
    stream_body(types.STREAM_LISTPACKS_2, b"\x01" + group(b"g", b"\x02", b"")),
    stream_body(types.STREAM_LISTPACKS_3, b"\x01" + group(b"g", b"\x02", ms(AT))),
]
bodies = st.one_of(st.sampled_from(BODIES), values.map(lambda value: encode(value)[:-10]))
#: (where, what to do there, bytes to do it with)
changes = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from("rid"), st.binary(min_size=1, max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1500, deadline=None)
@given(bodies, changes)
def test_damaged_payloads(body: bytes, how: list[tuple[int, str, bytes]]) -> None:
    """What gets through is a whole value, which can be written and read again."""
    data = bytearray(body)
    for where, what, piece in how:
        at = where % (len(data) + 1)
        if what == "r":
            data[at : at + len(piece)] = piece
        elif what == "i":
            data[at:at] = piece
        else:
            del data[at : at + len(piece)]
    check_survivor(bytes(data))


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 25), st.binary(max_size=60))
def test_noise(kind: int, noise: bytes) -> None:
    check_survivor(bytes([kind]) + noise)


@pytest.mark.parametrize("seed", range(len(BODIES)))
def test_every_byte_replaced(seed: int) -> None:
    body = BODIES[seed]
    some = random.Random(seed)
    for at in range(len(body)):
        for value in {0, 1, 0x7F, 0x80, 0xFE, 0xFF, body[at] ^ 1, some.randrange(256)}:
            check_survivor(body[:at] + bytes([value]) + body[at + 1 :])


def check_survivor(body: bytes) -> None:
    try:
        value = read(body)
    except PayloadError:
        return
    again = decode(encode(value), MAX)
    if isinstance(value, Stream):
        assert isinstance(again, Stream)
        assert again.entries == value.entries
    else:
        assert repr(again) == repr(value)


@given(scores)
def test_scores_as_text(score: float) -> None:
    assert repr(read(b"\x11" + lp(b"a", format_double(score)))) == repr(ZSet([(b"a", score)]))
