"""What commands on sets and sorted sets do to a model (load_model.py)."""

from __future__ import annotations

from collections.abc import Sequence

from load_model import FOR_EVER, Bag, Step, Tree, View, number

# -- sets: frozensets ------------------------------------------------------------------------------

NONE: frozenset[bytes] = frozenset()


def sadd(key: bytes, members: Sequence[bytes]) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "set", NONE)
        new = old | set(members)
        view.put(key, "set", new)
        return len(new) - len(old)

    return Step([b"SADD", key, *members], effect)


def srem(key: bytes, members: Sequence[bytes]) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "set", NONE)
        new = old - set(members)
        view.put(key, "set", new)
        return len(old) - len(new)

    return Step([b"SREM", key, *members], effect)


def smove(source: bytes, target: bytes, member: bytes) -> Step:
    """Between different keys."""

    def effect(view: View) -> Tree:
        if view.entry(source) is None:
            return 0
        old, there = view.get(source, "set", NONE), view.get(target, "set", NONE)
        if member not in old:
            return 0
        view.put(source, "set", old - {member})
        view.put(target, "set", there | {member})
        return 1

    return Step([b"SMOVE", source, target, member], effect)


def spop_all(key: bytes) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "set", NONE)
        view.put(key, "set", NONE)
        return Bag(list(old))

    return Step([b"SPOP", key, b"100000"], effect)


def store_sets(verb: bytes, target: bytes, first: bytes, second: bytes) -> Step:
    """SUNIONSTORE and its kin."""

    def effect(view: View) -> Tree:
        a, b = view.get(first, "set", NONE), view.get(second, "set", NONE)
        new = {b"SUNIONSTORE": a | b, b"SINTERSTORE": a & b, b"SDIFFSTORE": a - b}[verb]
        view.replace(target, ("set", FOR_EVER, new))
        return len(new)

    return Step([verb, target, first, second], effect)


def smembers(key: bytes) -> Step:
    return Step([b"SMEMBERS", key], lambda view: Bag(list(view.get(key, "set", NONE))))


# -- sorted sets: {member: score} ------------------------------------------------------------------


def ordered(scores: dict[bytes, int]) -> list[tuple[int, bytes]]:
    """In the order of a sorted set."""
    return sorted((score, member) for member, score in scores.items())


def flat(pairs: Sequence[tuple[int, bytes]]) -> list[bytes]:
    """As WITHSCORES shows them."""
    return [word for score, member in pairs for word in (member, number(score))]


def zadd(key: bytes, option: bytes, pairs: Sequence[tuple[int, bytes]]) -> Step:
    """`option` is NX, XX, GT, LT, or none; each member is there once."""

    def takes(old: int | None, score: int) -> bool:
        if old is None:
            return option != b"XX"
        return {b"NX": False, b"GT": score > old, b"LT": score < old}.get(option, True)

    def effect(view: View) -> Tree:
        old = view.get(key, "zset", {})
        taken = {member: score for score, member in pairs if takes(old.get(member), score)}
        view.put(key, "zset", {**old, **taken})
        return sum(old.get(member) != score for member, score in taken.items())

    options = [option] if option else []
    words = [word for score, member in pairs for word in (number(score), member)]
    return Step([b"ZADD", key, *options, b"CH", *words], effect)


def zincrby(key: bytes, by: int, member: bytes) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "zset", {})
        score = old.get(member, 0) + by
        view.put(key, "zset", {**old, member: score})
        return number(score)

    return Step([b"ZINCRBY", key, number(by), member], effect)


def _zdrop(view: View, key: bytes, gone: Sequence[tuple[int, bytes]]) -> int:
    names = {member for _, member in gone}
    old = view.get(key, "zset", {})
    view.put(key, "zset", {member: score for member, score in old.items() if member not in names})
    return len(names)


def zpop(key: bytes, count: int, least: bool) -> Step:
    def effect(view: View) -> Tree:
        pairs = ordered(view.get(key, "zset", {}))
        taken = (pairs if least else pairs[::-1])[:count]
        _zdrop(view, key, taken)
        return flat(taken)

    return Step([b"ZPOPMIN" if least else b"ZPOPMAX", key, number(count)], effect)


def zrem(key: bytes, members: Sequence[bytes]) -> Step:
    def effect(view: View) -> Tree:
        old = view.get(key, "zset", {})
        return _zdrop(view, key, [(0, member) for member in members if member in old])

    return Step([b"ZREM", key, *members], effect)


def zdrop_ranks(key: bytes, start: int, stop: int) -> Step:
    def effect(view: View) -> Tree:
        return _zdrop(view, key, ordered(view.get(key, "zset", {}))[start : stop + 1])

    return Step([b"ZREMRANGEBYRANK", key, number(start), number(stop)], effect)


def zdrop_scores(key: bytes, least: int, most: int) -> Step:
    def effect(view: View) -> Tree:
        pairs = ordered(view.get(key, "zset", {}))
        return _zdrop(view, key, [pair for pair in pairs if least <= pair[0] <= most])

    return Step([b"ZREMRANGEBYSCORE", key, number(least), number(most)], effect)


def zunionstore(target: bytes, first: bytes, second: bytes) -> Step:
    def scores(view: View, key: bytes) -> dict[bytes, int]:
        entry = view.entry(key)
        if entry is not None and entry[0] == "set":
            return dict.fromkeys(entry[2], 1)
        found: dict[bytes, int] = view.get(key, "zset", {})
        return found

    def effect(view: View) -> Tree:
        new = dict(scores(view, first))
        for member, score in scores(view, second).items():
            new[member] = new.get(member, 0) + score
        view.replace(target, ("zset", FOR_EVER, new))
        return len(new)

    return Step([b"ZUNIONSTORE", target, b"2", first, second], effect)


def zrangestore(target: bytes, source: bytes, start: int, stop: int) -> Step:
    def effect(view: View) -> Tree:
        taken = ordered(view.get(source, "zset", {}))[start : stop + 1]
        view.replace(target, ("zset", FOR_EVER, {member: score for score, member in taken}))
        return len(taken)

    return Step([b"ZRANGESTORE", target, source, number(start), number(stop)], effect)


def zrange(key: bytes) -> Step:
    def effect(view: View) -> Tree:
        return flat(ordered(view.get(key, "zset", {})))

    return Step([b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], effect)
