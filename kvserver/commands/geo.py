"""GEO: places as members of sorted sets, whose scores are geohashes.

A search looks through the ranges of scores that its area can have, in steps if it is only to be
shown. Source: Redis 7.4's geo.c.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple

from kvserver import errors, geohash, numbers, resp
from kvserver.args import Cursor, parse_int
from kvserver.codec import ZSET
from kvserver.commands import replies, zset_ranges, zsets
from kvserver.geohash import Box, Circle, Point, Shape
from kvserver.registry import (
    DENYOOM,
    MOVABLE_KEYS,
    READONLY,
    WALK,
    WRITE,
    KeySpec,
    command,
    key,
)
from kvserver.state import notify
from kvserver.state.context import ReadContext, WriteContext
from kvserver.storage.overlay import Entry
from kvserver.types.zsets import MutableSortedSet, SortedSet, ordered, pair

_CATEGORIES: Final = ("geo",)
#: Metres.
_UNITS: Final = {b"M": 1.0, b"KM": 1000.0, b"FT": 0.3048, b"MI": 1609.34}
#: Elements between two steps of a search, and of a long reply.
_STEPS: Final = 256
_PARTS: Final = 64


# -- arguments and replies ------------------------------------------------------------------------


def _point(longitude: bytes, latitude: bytes) -> Point:
    """extractLongLatOrReply."""
    point = zsets.parse_score(longitude), zsets.parse_score(latitude)
    if not geohash.is_valid(point):
        raise errors.error(f"invalid longitude,latitude pair {point[0]:f},{point[1]:f}")
    return point


def _unit(word: bytes) -> float:
    """How many metres a unit has."""
    metres = _UNITS.get(word.upper())
    if metres is None:
        raise errors.error("unsupported unit provided. please use M, KM, FT, MI")
    return metres


def _number(text: bytes, name: str) -> float:
    number = numbers.parse_double(text)
    if number is None:
        raise errors.error(f"need numeric {name}")
    return number


def _radius(text: bytes, unit: bytes) -> tuple[float, float]:
    """(radius, how many metres its unit has)."""
    radius = _number(text, "radius")
    if radius < 0:
        raise errors.error("radius cannot be negative")
    return radius, _unit(unit)


def _distance(metres: float, unit: float) -> bytes:
    """A distance in a unit, with four decimals (fixedpoint_d2string)."""
    scaled = round(metres / unit * 10000)
    return b"%d.%04d" % divmod(scaled, 10000)


def _coordinates(point: Point) -> list[Any]:
    return [_human(point[0]), _human(point[1])]


def _human(value: float) -> resp.Forms:
    """A double with up to 17 decimals (addReplyHumanLongDouble)."""
    text = (b"%.17f" % value).rstrip(b"0").rstrip(b".")
    if text == b"-0":
        text = b"0"
    return resp.Forms([resp.encode(text, False)], [b",%b\r\n" % text])


# -- members --------------------------------------------------------------------------------------


@command(
    "geoadd",
    -5,
    WRITE | DENYOOM,
    group="geo",
    since="3.2.0",
    summary="Adds one or more members to a geospatial index. The key is created if it doesn't "
    "exist.",
    complexity="O(log(N)) for each item added, where N is the number of elements in the sorted "
    "set.",
    keys=key("RW", "UPDATE"),
    categories=_CATEGORIES,
    history=(("6.2.0", "Added the `CH`, `NX` and `XX` options."),),
)
def geoadd(ctx: WriteContext, name: bytes, *words: bytes) -> Any:
    at = 0
    options = set()
    while at < len(words) and words[at].upper() in (b"NX", b"XX", b"CH"):
        options.add(words[at].upper())
        at += 1
    if (len(words) - at) % 3 or {b"NX", b"XX"} <= options:
        raise errors.syntax()
    pairs: list[bytes] = []
    for first in range(at, len(words), 3):
        point = _point(words[first], words[first + 1])
        pairs += (b"%d" % geohash.encode(point), words[first + 2])
    return zsets.zadd(ctx, name, *words[:at], *pairs)


@command(
    "geopos",
    -2,
    READONLY,
    group="geo",
    since="3.2.0",
    summary="Returns the longitude and latitude of members from a geospatial index.",
    complexity="O(1) for each member requested.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def geopos(ctx: ReadContext, name: bytes, *members: bytes) -> list[Any]:
    return [
        resp.NULL_ARRAY if score is None else _coordinates(geohash.decode(score))
        for score in _scores(ctx, name, members)
    ]


@command(
    "geohash",
    -2,
    READONLY,
    group="geo",
    since="3.2.0",
    summary="Returns members from a geospatial index as geohash strings.",
    complexity="O(1) for each member requested.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def geohash_(ctx: ReadContext, name: bytes, *members: bytes) -> list[bytes | None]:
    return [None if score is None else geohash.text(score) for score in _scores(ctx, name, members)]


def _scores(ctx: ReadContext, name: bytes, members: tuple[bytes, ...]) -> list[float | None]:
    found = zsets.look_up(ctx, name)
    return [None if found is None else found.score(member) for member in members]


@command(
    "geodist",
    -4,
    READONLY,
    group="geo",
    since="3.2.0",
    summary="Returns the distance between two members of a geospatial index.",
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
)
def geodist(
    ctx: ReadContext, name: bytes, member: bytes, other: bytes, *words: bytes
) -> bytes | None:
    if len(words) > 1:
        raise errors.syntax()
    unit = _unit(words[0]) if words else 1.0
    one, two = _scores(ctx, name, (member, other))
    if one is None or two is None:
        return None
    return _distance(geohash.distance(geohash.decode(one), geohash.decode(two)), unit)


# -- searches -------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """A member in the area, and its distance from the center in metres."""

    member: bytes
    score: float
    point: Point
    distance: float


class _Search:
    """The options of a search, and what it gives."""

    def __init__(self, found: SortedSet | None, caller: str, *, stores: bool = False) -> None:
        self.found = found
        #: GEOSEARCH or GEOSEARCHSTORE; empty for the older commands.
        self.caller = caller
        #: GEOSEARCHSTORE.
        self.stores = stores
        #: The older commands' STORE and STOREDIST are allowed.
        self.may_store = False
        self.destination: bytes | None = None
        self.stores_distance = False
        self.center: Point | None = None
        #: Which of FROMMEMBER and FROMLONLAT was given.
        self._from = (False, False)
        self.radius: float | None = None
        self.box: Point | None = None
        self.metres = 1.0
        self.with_distance = self.with_hash = self.with_coordinates = False
        self.any = False
        self.order = 0
        self.count = 0

    def member_point(self, member: bytes) -> Point:
        """Where a member is."""
        score = None if self.found is None else self.found.score(member)
        if score is None:
            raise errors.error("could not decode requested zset member")
        return geohash.decode(score)

    def parse(self, words: tuple[bytes, ...]) -> None:
        """Take the options (georadiusGeneric)."""
        options = Cursor(words)
        while options.more():
            if not (
                self._shown(options)
                or self._stored(options)
                or (self.caller and self._area(options))
            ):
                raise errors.syntax()
        self._check()

    def _shown(self, options: Cursor) -> bool:
        if options.flag(b"WITHDIST"):
            self.with_distance = True
        elif options.flag(b"WITHHASH"):
            self.with_hash = True
        elif options.flag(b"WITHCOORD"):
            self.with_coordinates = True
        elif options.flag(b"ANY"):
            self.any = True
        elif options.flag(b"ASC"):
            self.order = 1
        elif options.flag(b"DESC"):
            self.order = -1
        elif (text := options.value(b"COUNT")) is not None:
            self.count = parse_int(text)
            if self.count <= 0:
                raise errors.error("COUNT must be > 0")
        else:
            return False
        return True

    def _stored(self, options: Cursor) -> bool:
        if self.stores:
            if not options.flag(b"STOREDIST"):
                return False
            self.stores_distance = True
            return True
        if not self.may_store:
            return False
        for option in (b"STORE", b"STOREDIST"):
            destination = options.value(option)
            if destination is not None:
                self.destination = destination
                self.stores_distance = option == b"STOREDIST"
                return True
        return False

    def _area(self, options: Cursor) -> bool:
        """GEOSEARCH's center and shape. A second of the same kind replaces the first, one of the
        other kind is a syntax error."""
        rest = options.remaining()
        from_member, from_point = self._from
        if not from_point and (text := options.value(b"FROMMEMBER")) is not None:
            if self.found is not None:
                self.center = self.member_point(text)
            self._from = True, False
        elif not from_member and rest > 2 and options.flag(b"FROMLONLAT"):
            self.center = _point(options.next(), options.next())
            self._from = False, True
        elif self.box is None and rest > 2 and options.flag(b"BYRADIUS"):
            self.radius, self.metres = _radius(options.next(), options.next())
        elif self.radius is None and rest > 3 and options.flag(b"BYBOX"):
            width, height = _number(options.next(), "width"), _number(options.next(), "height")
            if height < 0 or width < 0:
                raise errors.error("height or width cannot be negative")
            self.box = width, height
            self.metres = _unit(options.next())
        else:
            return False
        return True

    def _check(self) -> None:
        """The options must fit each other."""
        shown = self.with_distance or self.with_hash or self.with_coordinates
        if shown and (self.stores or self.destination is not None):
            what = "GEOSEARCHSTORE" if self.stores else "STORE option in GEORADIUS"
            raise errors.error(
                f"{what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )
        if self.caller and self._from == (False, False):
            raise errors.error(
                f"exactly one of FROMMEMBER or FROMLONLAT can be specified for {self.caller}"
            )
        if self.caller and self.radius is None and self.box is None:
            raise errors.error(
                f"exactly one of BYRADIUS and BYBOX can be specified for {self.caller}"
            )
        if self.any and not self.count:
            raise errors.error("the ANY argument requires COUNT argument")

    def _shape(self) -> Shape:
        assert self.center is not None, "checked before"
        if self.box is not None:
            return Box(self.center, *self.box, self.metres)
        assert self.radius is not None, "checked before"
        return Circle(self.center, self.radius, self.metres)

    def steps(self) -> Generator[None, None, list[_Found]]:
        """Search; gives what was found, sorted and cut as asked for."""
        if self.found is None:
            return []
        shape = self._shape()
        # All views are of the same instant.
        boxes = [_scan(self.found, box) for box in geohash.ranges(shape)]
        most = self.count if self.any else 0
        found: list[_Found] = []
        looked = 0
        for box in boxes:
            for entry in box:
                member, score = pair(entry)
                point = geohash.decode(score)
                metres = shape.distance(point)
                if metres is not None:
                    found.append(_Found(member, score, point, metres))
                    if len(found) == most:
                        return self._sorted(found)
                looked += 1
                if looked % _STEPS == 0:
                    yield
        return self._sorted(found)

    def _sorted(self, found: list[_Found]) -> list[_Found]:
        # COUNT without an order means the nearest ones.
        order = self.order or (self.count != 0 and not self.any)
        if order:
            found.sort(key=_by_distance, reverse=order < 0)
        return found[: self.count] if self.count else found

    def reply(self) -> Generator[None, None, Any]:
        """The members found, with what is to be shown of them."""
        found = yield from self.steps()
        if len(found) <= _PARTS:
            return [self._element(one) for one in found]
        array = replies.Array(plain=False)
        for first in range(0, len(found), _PARTS):
            array.add([self._element(one) for one in found[first : first + _PARTS]])
            yield
        return array.reply()

    def _element(self, one: _Found) -> Any:
        parts: list[Any] = [one.member]
        if self.with_distance:
            parts.append(_distance(one.distance, self.metres))
        if self.with_hash:
            parts.append(int(one.score))
        if self.with_coordinates:
            parts.append(_coordinates(one.point))
        return parts if len(parts) > 1 else one.member

    def store(self, ctx: WriteContext, destination: bytes) -> int:
        """Search in one go, and store what is found."""
        found = _all_steps(self.steps())
        if not found:
            ctx.store_nothing(destination)
            return 0
        target = MutableSortedSet(ctx.db.new(destination, ZSET), ctx.server.encodings.zsets)
        target.fill(
            {
                one.member: one.distance / self.metres if self.stores_distance else one.score
                for one in found
            }
        )
        target.save()
        event = b"geosearchstore" if self.stores else b"georadiusstore"
        ctx.notify(notify.ZSET, event, destination)
        return len(found)


def _scan(found: SortedSet, box: tuple[int, int]) -> Iterator[Entry]:
    return found.scan(ordered(float(box[0])), ordered(float(box[1])))


def _by_distance(one: _Found) -> float:
    return one.distance


def _all_steps(walk: Generator[None, None, list[_Found]]) -> list[_Found]:
    while True:
        try:
            next(walk)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


_SEARCH_COMPLEXITY: Final = (
    "O(N+log(M)) where N is the number of elements in the grid-aligned bounding box area around "
    "the shape provided as the filter and M is the number of items inside the shape"
)
_RADIUS_COMPLEXITY: Final = (
    "O(N+log(M)) where N is the number of elements inside the bounding box of the circular area "
    "delimited by center and radius and M is the number of items inside the index."
)
_UPPERCASE: Final = (("7.0.0", "Added support for uppercase unit names."),)
_ANY: Final = (("6.2.0", "Added the `ANY` option for `COUNT`."),)


@command(
    "geosearch",
    -7,
    READONLY | WALK,
    group="geo",
    since="6.2.0",
    summary="Queries a geospatial index for members inside an area of a box or a circle.",
    complexity=_SEARCH_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    history=_UPPERCASE,
)
def geosearch(ctx: ReadContext, name: bytes, *words: bytes) -> Any:
    search = _Search(zsets.look_up(ctx, name), "GEOSEARCH")
    search.parse(words)
    return replies.begin(search.reply())


@command(
    "geosearchstore",
    -8,
    WRITE | DENYOOM,
    group="geo",
    since="6.2.0",
    summary="Queries a geospatial index for members inside an area of a box or a circle, "
    "optionally stores the result.",
    complexity=_SEARCH_COMPLEXITY,
    keys=(KeySpec(1, 1, 1, ("OW", "UPDATE")), KeySpec(2, 2, 1, ("RO", "ACCESS"))),
    categories=_CATEGORIES,
    history=_UPPERCASE,
)
def geosearchstore(ctx: WriteContext, destination: bytes, name: bytes, *words: bytes) -> int:
    search = _Search(_source(ctx, name), "GEOSEARCHSTORE", stores=True)
    search.parse(words)
    return search.store(ctx, destination)


def _source(ctx: WriteContext, name: bytes) -> SortedSet | None:
    rows = zset_ranges.source(ctx, name)
    return None if rows is None else SortedSet(rows)


def _around(
    found: SortedSet | None,
    point: tuple[bytes, bytes],
    distance: tuple[bytes, bytes],
    words: tuple[bytes, ...],
    may_store: bool,
) -> _Search:
    """GEORADIUS: around a point."""
    search = _Search(found, "")
    search.may_store = may_store
    search.center = _point(*point)
    search.radius, search.metres = _radius(*distance)
    search.parse(words)
    return search


def _around_member(
    found: SortedSet | None,
    member: bytes,
    distance: tuple[bytes, bytes],
    words: tuple[bytes, ...],
    may_store: bool,
) -> _Search:
    """GEORADIUSBYMEMBER: around a member. Without a key only the options are looked at."""
    search = _Search(found, "")
    search.may_store = may_store
    if found is not None:
        search.center = search.member_point(member)
        search.radius, search.metres = _radius(*distance)
    search.parse(words)
    return search


def _show_or_store(ctx: WriteContext, search: _Search) -> Any:
    if search.destination is not None:
        return search.store(ctx, search.destination)
    return replies.begin(search.reply())


def _store_specs(start: int) -> tuple[KeySpec, ...]:
    return (
        KeySpec(1, 1, 1, ("RO", "ACCESS")),
        KeySpec(start, 0, 1, ("OW", "UPDATE"), keyword=b"STORE"),
        KeySpec(start, 0, 1, ("OW", "UPDATE"), keyword=b"STOREDIST"),
    )


@command(
    "georadius",
    -6,
    WRITE | DENYOOM | MOVABLE_KEYS | WALK,
    group="geo",
    since="3.2.0",
    summary="Queries a geospatial index for members within a distance from a coordinate, "
    "optionally stores the result.",
    complexity=_RADIUS_COMPLEXITY,
    keys=_store_specs(6),
    categories=_CATEGORIES,
    history=_ANY + _UPPERCASE,
    deprecated=(
        "6.2.0",
        "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument",
    ),
)
def georadius(
    ctx: WriteContext,
    name: bytes,
    longitude: bytes,
    latitude: bytes,
    radius: bytes,
    unit: bytes,
    *words: bytes,
) -> Any:
    point, distance = (longitude, latitude), (radius, unit)
    return _show_or_store(ctx, _around(_source(ctx, name), point, distance, words, True))


@command(
    "georadius_ro",
    -6,
    READONLY | WALK,
    group="geo",
    since="3.2.10",
    summary="Returns members from a geospatial index that are within a distance from a coordinate.",
    complexity=_RADIUS_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    history=_ANY,
    deprecated=("6.2.0", "`GEOSEARCH` with the `BYRADIUS` argument"),
)
def georadius_ro(
    ctx: ReadContext,
    name: bytes,
    longitude: bytes,
    latitude: bytes,
    radius: bytes,
    unit: bytes,
    *words: bytes,
) -> Any:
    point, distance = (longitude, latitude), (radius, unit)
    search = _around(zsets.look_up(ctx, name), point, distance, words, False)
    return replies.begin(search.reply())


@command(
    "georadiusbymember",
    -5,
    WRITE | DENYOOM | MOVABLE_KEYS | WALK,
    group="geo",
    since="3.2.0",
    summary="Queries a geospatial index for members within a distance from a member, optionally "
    "stores the result.",
    complexity=_RADIUS_COMPLEXITY,
    keys=_store_specs(5),
    categories=_CATEGORIES,
    history=_UPPERCASE,
    deprecated=(
        "6.2.0",
        "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments",
    ),
)
def georadiusbymember(
    ctx: WriteContext, name: bytes, member: bytes, radius: bytes, unit: bytes, *words: bytes
) -> Any:
    search = _around_member(_source(ctx, name), member, (radius, unit), words, True)
    return _show_or_store(ctx, search)


@command(
    "georadiusbymember_ro",
    -5,
    READONLY | WALK,
    group="geo",
    since="3.2.10",
    summary="Returns members from a geospatial index that are within a distance from a member.",
    complexity=_RADIUS_COMPLEXITY,
    keys=key("RO", "ACCESS"),
    categories=_CATEGORIES,
    deprecated=("6.2.0", "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments"),
)
def georadiusbymember_ro(
    ctx: ReadContext, name: bytes, member: bytes, radius: bytes, unit: bytes, *words: bytes
) -> Any:
    found = zsets.look_up(ctx, name)
    search = _around_member(found, member, (radius, unit), words, False)
    return replies.begin(search.reply())
