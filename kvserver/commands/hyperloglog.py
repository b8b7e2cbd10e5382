"""HyperLogLog: PFADD, PFCOUNT, PFMERGE, and what Redis has to test them.

The values are strings in Redis' own format (kvserver/hyperloglog.py): GET gives them, and SET
takes them, also from another server. Source: Redis 7.4's hyperloglog.c.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from math import ceil, sqrt
from random import randbytes
from typing import Final

from kvserver import codec, errors, hyperloglog, resp
from kvserver.hyperloglog import REGISTERS, SparseWriter
from kvserver.registry import (
    ADMIN,
    DENYOOM,
    FAST,
    MAY_REPLICATE,
    READONLY,
    WALK,
    WRITE,
    KeySpec,
    command,
    key,
)
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext

_CATEGORIES: Final = ("hyperloglog",)
_COUNTED_KEYS: Final = KeySpec(
    1,
    -1,
    1,
    ("RW", "ACCESS"),
    "RW because it may change the internal representation of the key, and propagate to replicas",
)
#: PFSELFTEST: Redis goes to ten million elements, which would take a minute here.
_TEST_ELEMENTS: Final = 100_000
_TEST_CYCLES: Final = 100
#: Elements that are added in one step.
_TEST_STEP: Final = 50

_Test = Generator[None, None, resp.Simple]


def _max_sparse(ctx: ReadContext | WriteContext) -> int:
    return ctx.server.config.get_int("hll-sparse-max-bytes")


@command(
    "pfadd",
    -2,
    WRITE | DENYOOM | FAST,
    group="hyperloglog",
    since="2.8.9",
    summary="Adds elements to a HyperLogLog key. Creates the key if it doesn't exist.",
    complexity="O(1) to add every element.",
    keys=key("RW", "INSERT"),
    categories=_CATEGORIES,
)
def pfadd(ctx: WriteContext, key: bytes, *elements: bytes) -> int:
    old, expire = ctx.db.current_string(key)
    value = hyperloglog.empty() if old is None else bytearray(hyperloglog.checked(old))
    max_sparse = _max_sparse(ctx)
    updated = old is None
    for element in elements:
        index, count = hyperloglog.place(element)
        if hyperloglog.raise_register(value, index, count, max_sparse):
            updated = True
    if not updated:
        return 0
    _store(ctx, key, value, expire)
    return 1


def _store(ctx: WriteContext, key: bytes, value: bytearray, expire: int) -> None:
    """Set a value whose registers changed, and tell."""
    hyperloglog.forget_cardinality(value)
    ctx.db.put_string(key, bytes(value), expire)
    ctx.notify(notify.STRING, b"pfadd", key)


@command(
    "pfcount",
    -2,
    READONLY | MAY_REPLICATE,
    group="hyperloglog",
    since="2.8.9",
    summary="Returns the approximated cardinality of the set(s) observed by the HyperLogLog "
    "key(s).",
    complexity="O(1) with a very small average constant time when called with a single key. O(N) "
    "with N being the number of keys, and much bigger constant times, when called with multiple "
    "keys.",
    keys=(_COUNTED_KEYS,),
    categories=_CATEGORIES,
)
def pfcount(ctx: ReadContext, *names: bytes) -> int:
    if len(names) > 1:
        return _signed(hyperloglog.cardinality(hyperloglog.maximum(_values(ctx, names))))
    row = ctx.db.string_row(names[0])
    if row is None:
        return 0
    value = hyperloglog.checked(ctx.db.string_of(row))
    known = hyperloglog.cached(value)
    if known is not None:
        return known
    count = hyperloglog.cardinality(hyperloglog.registers(value))
    if ctx.keyspace.may_expire:
        _cache(ctx, names[0], row, value, count)
    return _signed(count)


def _cache(ctx: ReadContext, key: bytes, row: bytes, value: bytes, count: int) -> None:
    """Keep the cardinality in the value: a write, as in Redis, that a replica doesn't do."""
    kept = bytearray(value)
    hyperloglog.cache(kept, count)
    writer = ctx.keyspace.writers[ctx.session.db]
    writer.put_string(key, bytes(kept), codec.row_expire(row))


def _values(ctx: ReadContext | WriteContext, names: tuple[bytes, ...]) -> list[bytes]:
    """Those of the keys that exist; the first that holds none ends the look-ups."""
    found: list[bytes] = []
    for name in names:
        value = ctx.db.string(name)
        if value is not None:
            found.append(hyperloglog.checked(value))
    return found


def _signed(count: int) -> int:
    """The number as addReplyLongLong shows it."""
    return count - (1 << 64) if count >> 63 else count


@command(
    "pfmerge",
    -2,
    WRITE | DENYOOM,
    group="hyperloglog",
    since="2.8.9",
    summary="Merges one or more HyperLogLog values into a single key.",
    complexity="O(N) to merge N HyperLogLogs, but with high constant times.",
    keys=(
        KeySpec(1, 1, 1, ("RW", "ACCESS", "INSERT")),
        KeySpec(2, -1, 1, ("RO", "ACCESS")),
    ),
    categories=_CATEGORIES,
)
def pfmerge(ctx: WriteContext, key: bytes, *sources: bytes) -> resp.Simple:
    values = _values(ctx, (key, *sources))
    merged = hyperloglog.maximum(values)
    old, expire = ctx.db.current_string(key)
    value = hyperloglog.empty() if old is None else bytearray(old)
    if any(hyperloglog.is_dense(one) for one in values):
        hyperloglog.put_registers(value, merged)
    else:
        _raise_all(value, merged, _max_sparse(ctx))
    _store(ctx, key, value, expire)
    return resp.OK


def _raise_all(value: bytearray, wanted: bytes, max_sparse: int) -> None:
    """Raise the registers of a sparse value one after the other, as Redis does: it decides which
    opcodes there will be."""
    before = hyperloglog.registers(value)
    writer = SparseWriter(value, max_sparse)
    for index, count in enumerate(wanted):
        if count > before[index]:
            writer.raise_register(index, count)
            if hyperloglog.is_dense(value):
                hyperloglog.put_registers(value, wanted)
                return


# -- tests -----------------------------------------------------------------------------------


@command(
    "pfdebug",
    3,
    WRITE | DENYOOM | ADMIN,
    group="hyperloglog",
    since="2.8.9",
    summary="Internal commands for debugging HyperLogLog values.",
    complexity="N/A",
    keys=key("RW", "ACCESS", at=2),
    categories=_CATEGORIES,
    system=True,
)
def pfdebug(
    ctx: WriteContext, subcommand: bytes, key: bytes
) -> resp.Simple | bytes | list[int] | int:
    found, expire = ctx.db.current_string(key)
    if found is None:
        raise errors.error("The specified key does not exist")
    value = hyperloglog.checked(found)
    word = subcommand.lower()
    if word == b"getreg":
        registers = list(hyperloglog.registers(value))
        _make_dense(ctx, key, value, expire)
        return registers
    if word == b"decode":
        if hyperloglog.is_dense(value):
            raise errors.error("HLL encoding is not sparse")
        return hyperloglog.opcodes(value).encode()
    if word == b"encoding":
        return resp.Simple(b"dense" if hyperloglog.is_dense(value) else b"sparse")
    if word == b"todense":
        return int(_make_dense(ctx, key, value, expire))
    raise errors.unknown_pfdebug(subcommand)


def _make_dense(ctx: WriteContext, key: bytes, value: bytes, expire: int) -> bool:
    """Store a value in the dense representation; returns whether it was sparse."""
    if hyperloglog.is_dense(value):
        return False
    dense = bytearray(value)
    hyperloglog.to_dense(dense)
    ctx.db.put_string(key, bytes(dense), expire)
    return True


@command(
    "pfselftest",
    1,
    ADMIN | WALK,
    group="hyperloglog",
    since="2.8.9",
    summary="An internal command for testing HyperLogLog values.",
    complexity="N/A",
    categories=_CATEGORIES,
    system=True,
)
def pfselftest(ctx: ReadContext) -> _Test:
    return _self_test(_max_sparse(ctx))


def _self_test(max_sparse: int) -> _Test:
    """Registers can be packed and unpacked; both representations agree, and count well."""
    for _ in range(_TEST_CYCLES):
        _test_registers()
        yield
    dense, sparse = hyperloglog.empty(), hyperloglog.empty()
    hyperloglog.to_dense(dense)
    seed = int.from_bytes(os.urandom(8), "little")
    checkpoint = 1
    for number in range(1, _TEST_ELEMENTS + 1):
        index, count = hyperloglog.place((number ^ seed).to_bytes(8, "little"))
        hyperloglog.raise_register(dense, index, count, max_sparse)
        hyperloglog.raise_register(sparse, index, count, max_sparse)
        if number == checkpoint:
            _test_count(dense, sparse, number, max_sparse)
            checkpoint *= 10
        if not number % _TEST_STEP:
            yield
    return resp.OK


def _test_registers() -> None:
    expected = bytes(byte & 63 for byte in randbytes(REGISTERS))
    value = hyperloglog.empty()
    hyperloglog.put_registers(value, expected)
    found = hyperloglog.registers(value)
    for index in range(REGISTERS):
        if found[index] != expected[index]:
            raise errors.error(
                f"TESTFAILED Register {index} should be {expected[index]} but is {found[index]}"
            )


def _test_count(dense: bytearray, sparse: bytearray, number: int, max_sparse: int) -> None:
    if number < max_sparse // 2 and hyperloglog.is_dense(sparse):
        raise errors.error("TESTFAILED sparse encoding not used")
    count = hyperloglog.cardinality(hyperloglog.registers(dense))
    if count != hyperloglog.cardinality(hyperloglog.registers(sparse)):
        raise errors.error("TESTFAILED dense/sparse disagree")
    # With ten elements one collision is more than six standard errors.
    allowed = 1 if number == 10 else ceil(1.04 / sqrt(REGISTERS) * 6 * number)
    if abs(number - count) > allowed:
        raise errors.error(f"TESTFAILED Too big error. card:{number} abserr:{abs(number - count)}")
