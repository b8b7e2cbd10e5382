"""Fields of a hash at random, for HRANDFIELD. It must not know RESP or commands.

Every field is as likely as any other where all are looked at: in a hash of at most EXACT fields,
and when many are wanted of a larger one. For a few of a large hash that would be dear: `_near`
seeks a place between the first and the last field, narrowed byte by byte to what is there, and
takes one of the fields that follow. Where fields lie unevenly, some come up more often than others.

Fields past their time are never given, so there may be fewer than wanted. What takes long is a
generator that gives pairs of field and value in steps.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from itertools import islice
from typing import Final

from kvserver.codec import ELEMENT_PREFIX_LEN, prefix_end
from kvserver.collection import Collection
from kvserver.scan import STEPS
from kvserver.types import hashes
from kvserver.types.hashes import FIELD, FIELD_AT, FIELD_END

Pair = tuple[bytes, bytes]
Pairs = Generator[list[Pair], None, None]

#: In a hash with more fields one is looked for, and not counted off.
EXACT: Final = 512
#: As many can be drawn with repetitions: Redis sends them as it draws, here they are in memory.
MAX_DRAWN: Final = 10_000_000
#: And as many at a time.
_CHUNK: Final = 1 << 16
#: To look for a field costs as much as so many steps of a walk.
_SEEK_STEPS: Final = 200
#: A search gives way after so many fields.
_SEARCHES: Final = 4
#: How far from the place that was found the field is, and how often the place is narrowed.
_FAR: Final = 64
_DEPTH: Final = 32
#: How many fields in a row may be past their time before it gives up.
_EXPIRED: Final = 1000


def one(fields: Collection, now: int) -> Pair | None:
    """A field; None if none was found that isn't past its time."""
    if fields.count > EXACT:
        return _near(fields, now)
    entry = next(islice(hashes.scan(fields), random.randrange(fields.count), None), None)
    if entry is not None:
        value = hashes.value_of(entry[1], now)
        if value is not None:
            return entry[0][FIELD_AT:], value
    live = hashes.pairs(fields, now)
    return random.choice(live) if live else None


def draw(fields: Collection, now: int, count: int) -> Pairs:
    """So many fields, some perhaps more than once, in random order."""
    small = hashes.pairs(fields, now) if fields.count <= EXACT else []
    while count > 0:
        chunk = min(count, _CHUNK)
        count -= chunk
        if fields.count <= EXACT:
            if not small:
                return
            for done in range(0, chunk, STEPS):
                yield random.choices(small, k=min(STEPS, chunk - done))
        elif chunk * _SEEK_STEPS >= fields.count:
            yield from _counted_off(fields, now, chunk)
        else:
            yield from _sought(fields, now, chunk)


def choose(fields: Collection, now: int, count: int) -> Pairs:
    """So many different fields, all if there are no more."""
    if fields.count <= EXACT:
        live = hashes.pairs(fields, now)
        yield live if count >= fields.count else random.sample(live, min(count, len(live)))
    elif count >= fields.count:
        yield from _all(fields, now)
    elif count * _SEEK_STEPS >= fields.count:
        yield from _reservoir(fields, now, count, {})
    else:
        yield from _sought_once(fields, now, count)


def _all(fields: Collection, now: int) -> Pairs:
    found: list[Pair] = []
    for number, (key, row) in enumerate(hashes.scan(fields), 1):
        value = hashes.value_of(row, now)
        if value is not None:
            found.append((key[FIELD_AT:], value))
        if number % STEPS == 0:
            yield found
            found = []
    yield found


def _counted_off(fields: Collection, now: int, count: int) -> Pairs:
    """Fields at random places of a walk through all."""
    places = sorted(random.choices(range(fields.count), k=count))
    found: list[Pair] = []
    at = 0
    for number, (key, row) in enumerate(hashes.scan(fields)):
        while at < count and places[at] == number:
            value = hashes.value_of(row, now)
            if value is not None:
                found.append((key[FIELD_AT:], value))
            at += 1
        if number % STEPS == 0:
            yield []
    if found:
        # Instead of those that hit on a field past its time.
        found += random.choices(found, k=count - len(found))
    random.shuffle(found)
    for start in range(0, len(found), STEPS):
        yield found[start : start + STEPS]


def _reservoir(fields: Collection, now: int, count: int, taken: dict[bytes, bytes]) -> Pairs:
    """Different fields that aren't taken, of a walk through all (Vitter's algorithm R)."""
    found: list[Pair] = []
    seen = 0
    for number, (key, row) in enumerate(hashes.scan(fields)):
        field, value = key[FIELD_AT:], hashes.value_of(row, now)
        if value is not None and field not in taken:
            seen += 1
            if len(found) < count:
                found.append((field, value))
            elif (place := random.randrange(seen)) < count:
                found[place] = (field, value)
        if number % STEPS == 0:
            yield []
    for start in range(0, len(found), STEPS):
        yield found[start : start + STEPS]


def _sought(fields: Collection, now: int, count: int) -> Pairs:
    for done in range(0, count, _SEARCHES):
        found = [_near(fields, now) for _ in range(min(_SEARCHES, count - done))]
        yield [pair for pair in found if pair is not None]


def _sought_once(fields: Collection, now: int, count: int) -> Pairs:
    taken: dict[bytes, bytes] = {}
    for _ in range(3 * count):
        pair = _near(fields, now)
        if pair is not None and pair[0] not in taken:
            taken[pair[0]] = pair[1]
            yield [pair]
            if len(taken) == count:
                return
    yield from _reservoir(fields, now, count - len(taken), taken)


# -- near a place --------------------------------------------------------------------------------


def _near(fields: Collection, now: int) -> Pair | None:
    """A field of a large hash."""
    walk = fields.walk(FIELD, FIELD_END)
    walk.seek(fields.prefix + _place(fields))
    steps = random.randrange(_FAR)
    found: Pair | None = None
    for _ in range(_EXPIRED):
        key = walk.key()
        if key is None:
            walk.check()
            walk.seek(fields.prefix + FIELD)  # after the last comes the first
            key = walk.key()
            if key is None:
                return None
        value = hashes.value_of(walk.value(), now)
        if value is not None:
            found = key[FIELD_AT:], value
            if steps <= 0:
                return found
        steps -= 1
        walk.next()
    return found


def _place(fields: Collection) -> bytes:
    """The part of the key of a field at random."""
    walk = fields.walk(FIELD, FIELD_END)
    prefix = FIELD
    for _ in range(_DEPTH):
        first = walk.key()
        last = _last(fields, prefix)
        if first is None or last is None:
            walk.check()
            return prefix
        first = first[ELEMENT_PREFIX_LEN:]
        if first == last:
            return first
        prefix = _common_prefix(first, last)
        if first == prefix:  # it is the beginning of all others
            walk.next()
            following = walk.key()
            first = last if following is None else following[ELEMENT_PREFIX_LEN:]
        depth = len(prefix)
        low, high = first[depth], last[depth]
        walk.seek(fields.prefix + prefix + bytes((random.randint(low, high),)))
        found = walk.key()
        if found is None:
            return prefix
        prefix = found[ELEMENT_PREFIX_LEN : ELEMENT_PREFIX_LEN + depth + 1]
    return prefix


def _common_prefix(first: bytes, last: bytes) -> bytes:
    for at, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:at]
    return first if len(first) < len(last) else last


def _last(fields: Collection, prefix: bytes) -> bytes | None:
    """The part of the key of the last field that begins so."""
    for key, _ in fields.scan(prefix, prefix_end(prefix), reverse=True):
        return key[ELEMENT_PREFIX_LEN:]
    return None
