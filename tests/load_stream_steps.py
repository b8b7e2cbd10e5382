"""What commands on streams do to a model (load_model.py). Ids are n-0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from load_model import OK, Refused, Step, Tree, View, number


class Group(NamedTuple):
    """A group: what was delivered last, and who hasn't acknowledged what, how often delivered."""

    last: int = 0
    consumers: frozenset[bytes] = frozenset()
    pending: Mapping[int, tuple[bytes, int]] = MappingProxyType({})


class Stream(NamedTuple):
    """A stream whose ids are n-0."""

    entries: Mapping[int, list[bytes]] = MappingProxyType({})
    last: int = 0
    added: int = 0
    groups: Mapping[bytes, Group] = MappingProxyType({})


def entry_id(at: int) -> bytes:
    return b"%d-0" % at


def shown(stream: Stream, ids: Sequence[int]) -> Tree:
    """Entries, as XRANGE shows them."""
    return [[entry_id(at), stream.entries[at]] for at in ids]


def _trimmed(stream: Stream, length: int) -> Stream:
    kept = sorted(stream.entries)[max(len(stream.entries) - length, 0) :]
    return stream._replace(entries={at: stream.entries[at] for at in kept})


def xadd(key: bytes, at: int, fields: list[bytes], most: int = 0) -> Step:
    """`at` is higher than all ids before; `most`: MAXLEN."""

    def effect(view: View) -> Tree:
        stream = view.get(key, "stream", Stream())
        new = stream._replace(
            entries={**stream.entries, at: fields}, last=at, added=stream.added + 1
        )
        view.put(key, "stream", _trimmed(new, most) if most else new)
        return entry_id(at)

    trim = [b"MAXLEN", number(most)] if most else []
    return Step([b"XADD", key, *trim, entry_id(at), *fields], effect)


def xtrim(key: bytes, length: int) -> Step:
    def effect(view: View) -> Tree:
        stream = view.get(key, "stream", None)
        if stream is None:
            return 0
        new = _trimmed(stream, length)
        view.put(key, "stream", new)
        return len(stream.entries) - len(new.entries)

    return Step([b"XTRIM", key, b"MAXLEN", number(length)], effect)


def xdel(key: bytes, ids: Sequence[int]) -> Step:
    def effect(view: View) -> Tree:
        stream = view.get(key, "stream", None)
        if stream is None:
            return 0
        kept = {at: fields for at, fields in stream.entries.items() if at not in ids}
        view.put(key, "stream", stream._replace(entries=kept))
        return len(stream.entries) - len(kept)

    return Step([b"XDEL", key, *map(entry_id, ids)], effect)


def xrange(key: bytes) -> Step:
    def effect(view: View) -> Tree:
        stream = view.get(key, "stream", Stream())
        return shown(stream, sorted(stream.entries))

    return Step([b"XRANGE", key, b"-", b"+"], effect)


def _with_group(view: View, key: bytes, name: bytes, group: Group) -> None:
    stream = view.get(key, "stream", None)
    view.put(key, "stream", stream._replace(groups={**stream.groups, name: group}))


def _group(view: View, key: bytes, name: bytes) -> Group:
    group = view.get(key, "stream", Stream()).groups.get(name)
    if group is None:
        raise Refused(b"NOGROUP")
    return group


def group_create(key: bytes, name: bytes, at_end: bool) -> Step:
    def effect(view: View) -> Tree:
        stream = view.get(key, "stream", Stream())
        if name in stream.groups:
            raise Refused(b"BUSYGROUP")
        groups = {**stream.groups, name: Group(stream.last if at_end else 0)}
        view.put(key, "stream", stream._replace(groups=groups))
        return OK

    words = [b"XGROUP", b"CREATE", key, name, b"$" if at_end else b"0", b"MKSTREAM"]
    return Step(words, effect)


def group_destroy(key: bytes, name: bytes) -> Step:
    def effect(view: View) -> Tree:
        stream = view.get(key, "stream", None)
        if stream is None:
            raise Refused(b"ERR")
        groups = {other: group for other, group in stream.groups.items() if other != name}
        view.put(key, "stream", stream._replace(groups=groups))
        return len(stream.groups) - len(groups)

    return Step([b"XGROUP", b"DESTROY", key, name], effect)


def consumer_delete(key: bytes, name: bytes, consumer: bytes) -> Step:
    def effect(view: View) -> Tree:
        if view.get(key, "stream", None) is None:
            raise Refused(b"ERR")
        group = _group(view, key, name)
        kept = {at: owner for at, owner in group.pending.items() if owner[0] != consumer}
        new = group._replace(consumers=group.consumers - {consumer}, pending=kept)
        _with_group(view, key, name, new)
        return len(group.pending) - len(kept)

    return Step([b"XGROUP", b"DELCONSUMER", key, name, consumer], effect)


def xreadgroup(key: bytes, name: bytes, consumer: bytes, count: int) -> Step:
    def effect(view: View) -> Tree:
        group = _group(view, key, name)
        stream = view.get(key, "stream", Stream())
        fresh = [at for at in sorted(stream.entries) if at > group.last][:count]
        pending = {**group.pending, **dict.fromkeys(fresh, (consumer, 1))}
        last = fresh[-1] if fresh else group.last
        new = Group(last, group.consumers | {consumer}, pending)
        _with_group(view, key, name, new)
        return [[key, shown(stream, fresh)]] if fresh else None

    words = [b"XREADGROUP", b"GROUP", name, consumer, b"COUNT", number(count), b"STREAMS"]
    return Step([*words, key, b">"], effect)


def xack(key: bytes, name: bytes, ids: Sequence[int]) -> Step:
    def effect(view: View) -> Tree:
        group = view.get(key, "stream", Stream()).groups.get(name)
        if group is None:
            return 0
        kept = {at: owner for at, owner in group.pending.items() if at not in ids}
        _with_group(view, key, name, group._replace(pending=kept))
        return len(group.pending) - len(kept)

    return Step([b"XACK", key, name, *map(entry_id, ids)], effect)


def xclaim(key: bytes, name: bytes, consumer: bytes, ids: Sequence[int]) -> Step:
    """Of any age. What was deleted meanwhile isn't pending any more."""

    def effect(view: View) -> Tree:
        group = _group(view, key, name)
        stream = view.get(key, "stream", Stream())
        pending, claimed = dict(group.pending), []
        for at in ids:
            owner = pending.pop(at, None)
            if owner is not None and at in stream.entries:
                pending[at] = (consumer, owner[1] + 1)
                claimed.append(at)
        new = group._replace(consumers=group.consumers | {consumer}, pending=pending)
        _with_group(view, key, name, new)
        return shown(stream, claimed)

    return Step([b"XCLAIM", key, name, consumer, b"0", *map(entry_id, ids)], effect)
