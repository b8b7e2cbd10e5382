"""What commands on keys of any type, hashes, lists and strings do to a model (load_model.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from load_model import FOR_EVER, OK, Refused, Step, Tree, View, number, place

_SET_BYTES = re.compile(rb"[^\0]")


# -- keys of any type ------------------------------------------------------------------------------


def delete(*keys: bytes) -> Step:
    def effect(view: View) -> Tree:
        return sum(view.pop(key) is not None for key in keys)

    return Step([b"DEL", *keys], effect)


def rename(source: bytes, target: bytes) -> Step:
    def effect(view: View) -> Tree:
        entry = view.pop(source)
        if entry is None:
            raise Refused(b"ERR")
        view.replace(target, entry)
        return OK

    return Step([b"RENAME", source, target], effect)


def copy(source: bytes, target: bytes, replace: bool) -> Step:
    def effect(view: View) -> Tree:
        entry = view.entry(source)
        if entry is None or (view.entry(target) and not replace):
            return 0
        view.replace(target, entry)
        return 1

    return Step([b"COPY", source, target] + [b"REPLACE"] * replace, effect)


def move(key: bytes, db: int) -> Step:
    def effect(view: View) -> Tree:
        if view.entry(key) is None or view.entry(key, db) is not None:
            return 0
        view.state[place(db, key)] = view.pop(key)
        return 1

    return Step([b"MOVE", key, number(db)], effect)


def expire_at(key: bytes, at_ms: int) -> Step:
    def effect(view: View) -> Tree:
        entry = view.entry(key)
        if entry is not None:
            view.replace(key, (entry[0], at_ms, entry[2]))
        return int(entry is not None)

    return Step([b"PEXPIREAT", key, number(at_ms)], effect)


def persist(key: bytes) -> Step:
    def effect(view: View) -> Tree:
        entry = view.entry(key)
        if entry is None or entry[1] == FOR_EVER:
            return 0
        view.replace(key, (entry[0], FOR_EVER, entry[2]))
        return 1

    return Step([b"PERSIST", key], effect)


def flush() -> Step:
    def effect(view: View) -> Tree:
        for at in [at for at in view.state if at.startswith(place(view.db, b""))]:
            del view.state[at]
        return OK

    return Step([b"FLUSHDB"], effect)


def swap(first: int, second: int) -> Step:
    def effect(view: View) -> Tree:
        a, b = place(first, b""), place(second, b"")
        for at in [at for at in view.state if at.startswith((a, b))]:
            entry = view.state.pop(at)
            view.state[b"swapped:" + at] = entry
        for at in [at for at in view.state if at.startswith(b"swapped:")]:
            old = at.removeprefix(b"swapped:")
            new = b + old[len(a) :] if old.startswith(a) else a + old[len(b) :]
            view.state[new] = view.state.pop(at)
        return OK

    return Step([b"SWAPDB", number(first), number(second)], effect)


# -- hashes: {field: (value, expiry)} --------------------------------------------------------------


def hset(key: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "hash", {})
        new = {**old, **{field: (value, FOR_EVER) for field, value in pairs}}
        view.put(key, "hash", new)
        return len(new) - len(old)

    return Step([b"HSET", key, *(word for pair in pairs for word in pair)], effect)


def hdel(key: bytes, fields: Sequence[bytes]) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "hash", {})
        new = {field: value for field, value in old.items() if field not in fields}
        view.put(key, "hash", new)
        return len(old) - len(new)

    return Step([b"HDEL", key, *fields], effect)


def hincrby(key: bytes, field: bytes, by: int) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "hash", {})
        value, expire_ms = old.get(field, (b"0", FOR_EVER))
        result = int(value) + by
        view.put(key, "hash", {**old, field: (number(result), expire_ms)})
        return result

    return Step([b"HINCRBY", key, field, number(by)], effect)


def hexpire_at(key: bytes, at_ms: int, fields: Sequence[bytes]) -> Step:
    def effect(view: View) -> Tree:
        new = dict(view.get(key, "hash", {}))
        replies = [1 if field in new else -2 for field in fields]
        for field in new.keys() & set(fields):
            new[field] = (new[field][0], at_ms)
        view.put(key, "hash", new)
        return replies

    words = [b"HPEXPIREAT", key, number(at_ms), b"FIELDS", number(len(fields)), *fields]
    return Step(words, effect)


def hpersist(key: bytes, fields: Sequence[bytes]) -> Step:
    def effect(view: View) -> Tree:
        new = dict(view.get(key, "hash", {}))
        replies = []
        for field in fields:
            value, expire_ms = new.get(field, (b"", -2))
            replies.append({-2: -2, FOR_EVER: -1}.get(expire_ms, 1))
            if field in new:
                new[field] = (value, FOR_EVER)
        view.put(key, "hash", new)
        return replies

    return Step([b"HPERSIST", key, b"FIELDS", number(len(fields)), *fields], effect)


def hget(key: bytes, field: bytes) -> Step:
    def effect(view: View) -> Tree:
        return view.get(key, "hash", {}).get(field, (None,))[0]

    return Step([b"HGET", key, field], effect)


def hlen(key: bytes) -> Step:
    return Step([b"HLEN", key], lambda view: len(view.get(key, "hash", {})))


# -- lists: tuples ---------------------------------------------------------------------------------


def push(key: bytes, values: Sequence[bytes], left: bool) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "list", ())
        new = (*reversed(values), *old) if left else (*old, *values)
        view.put(key, "list", new)
        return len(new)

    return Step([b"LPUSH" if left else b"RPUSH", key, *values], effect)


def pop(key: bytes, count: int, left: bool) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "list", ())
        taken, rest = (old[:count], old[count:]) if left else (old[::-1][:count], old[:-count])
        view.put(key, "list", rest)
        return list(taken) or None

    return Step([b"LPOP" if left else b"RPOP", key, number(count)], effect)


def linsert(key: bytes, pivot: bytes, value: bytes, before: bool) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "list", ())
        if not old:
            return 0
        if pivot not in old:
            return -1
        at = old.index(pivot) + (not before)
        view.put(key, "list", (*old[:at], value, *old[at:]))
        return len(old) + 1

    return Step([b"LINSERT", key, b"BEFORE" if before else b"AFTER", pivot, value], effect)


def lrem(key: bytes, count: int, value: bytes) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "list", ())
        found = [at for at, element in enumerate(old) if element == value]
        gone = set(found[count:] if count < 0 else found[:count] if count else found)
        view.put(key, "list", tuple(v for at, v in enumerate(old) if at not in gone))
        return len(gone)

    return Step([b"LREM", key, number(count), value], effect)


def ltrim(key: bytes, start: int, stop: int) -> Step:
    """`start` and `stop` count from the front."""

    def effect(view: View) -> Tree:
        view.put(key, "list", view.get(key, "list", ())[start : stop + 1])
        return OK

    return Step([b"LTRIM", key, number(start), number(stop)], effect)


def lset(key: bytes, at: int, value: bytes) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "list", ())
        if at >= len(old):
            raise Refused(b"ERR")
        view.put(key, "list", (*old[:at], value, *old[at + 1 :]))
        return OK

    return Step([b"LSET", key, number(at), value], effect)


def lmove(source: bytes, target: bytes, left: bool, to_left: bool) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(source, "list", ())
        if not old:
            return None
        value, rest = (old[0], old[1:]) if left else (old[-1], old[:-1])
        there = rest if source == target else view.get(target, "list", ())
        if source != target:
            view.put(source, "list", rest)
        view.put(target, "list", (value, *there) if to_left else (*there, value))
        return value

    ends = (b"RIGHT", b"LEFT")
    return Step([b"LMOVE", source, target, ends[left], ends[to_left]], effect)


def lrange(key: bytes, start: int, stop: int) -> Step:
    def effect(view: View) -> Tree:
        return list(view.get(key, "list", ())[start : stop + 1])

    return Step([b"LRANGE", key, number(start), number(stop)], effect)


# -- strings: the bits that are set, and the length ------------------------------------------------


def bits_of(text: bytes) -> frozenset[int]:
    """The offsets of the bits that are set."""
    found = set()
    for match in _SET_BYTES.finditer(text):
        byte, at = match[0][0], match.start() * 8
        found.update(at + bit for bit in range(8) if byte & 0x80 >> bit)
    return frozenset(found)


EMPTY: tuple[int, frozenset[int]] = (0, frozenset())


def setbit(key: bytes, offset: int, bit: int) -> Step:
    def effect(view: View) -> Tree:
        size, bits = view.get(key, "string", EMPTY)
        new = bits | {offset} if bit else bits - {offset}
        view.put(key, "string", (max(size, offset // 8 + 1), new))
        return int(offset in bits)

    return Step([b"SETBIT", key, number(offset), number(bit)], effect)


def setrange(key: bytes, at: int, size: int) -> Step:
    """Eight bits of each of `size` bytes."""

    def effect(view: View) -> Tree:
        length, bits = view.get(key, "string", EMPTY)
        length = max(length, at + size)
        view.put(key, "string", (length, bits | set(range(at * 8, (at + size) * 8))))
        return length

    return Step([b"SETRANGE", key, number(at), b"\xff" * size], effect)


def bitcount(key: bytes) -> Step:
    return Step([b"BITCOUNT", key], lambda view: len(view.get(key, "string", EMPTY)[1]))


def strlen(key: bytes) -> Step:
    return Step([b"STRLEN", key], lambda view: view.get(key, "string", EMPTY)[0])


# -- several at once -------------------------------------------------------------------------------

#: Runs the commands that its arguments hold as JSON, and returns their replies.
RUN_ALL = (
    b"local replies = {} for i, words in ipairs(cjson.decode(ARGV[1])) do "
    b"replies[i] = redis.pcall(unpack(words)) end return replies"
)


def library(name: bytes, version: int) -> bytes:
    """The code of a library whose function `name` does what RUN_ALL does."""
    return b"#!lua name=%b\nredis.register_function('%b', function(KEYS, ARGV) %b end)\n-- %d" % (
        name,
        name,
        RUN_ALL,
        version,
    )
