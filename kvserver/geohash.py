"""Places on Earth as 52-bit numbers whose order keeps neighbours together, distances, and which
ranges of numbers an area can be in.

Pure functions on numbers. Source: Redis 7.4's geohash.c and geohash_helper.c, whose arithmetic is
followed step by step: results are equal to the last bit. Longitude comes before latitude, in
degrees; a *hash* of `step` steps has so many bits of each, latitude in the even ones.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

LONGITUDE_MAX: Final = 180.0
LATITUDE_MAX: Final = 85.05112878
#: The steps of the hashes that are stored.
STEPS: Final = 26
_BITS: Final = 2 * STEPS

_EARTH_RADIUS: Final = 6372797.560856
_MERCATOR_MAX: Final = 20037726.37
_RADIAN: Final = math.pi / 180.0
_ALPHABET: Final = b"0123456789bcdefghjkmnpqrstuvwxyz"
_U32: Final = (1 << 32) - 1
_U64: Final = (1 << 64) - 1
_EVEN: Final = 0x5555555555555555
_ODD: Final = 0xAAAAAAAAAAAAAAAA

#: Longitude and latitude.
Point = tuple[float, float]
#: A hash and its steps.
Hash = tuple[int, int]


class Area(NamedTuple):
    """What a hash stands for."""

    west: float
    south: float
    east: float
    north: float


def is_valid(point: Point) -> bool:
    """Whether the point can be encoded."""
    longitude, latitude = point
    return abs(longitude) <= LONGITUDE_MAX and abs(latitude) <= LATITUDE_MAX


def encode(point: Point, step: int = STEPS, latitude_max: float = LATITUDE_MAX) -> int:
    """The hash of a point."""
    longitude, latitude = point
    y = (latitude - -latitude_max) / (latitude_max - -latitude_max) * (1 << step)
    x = (longitude - -LONGITUDE_MAX) / (LONGITUDE_MAX - -LONGITUDE_MAX) * (1 << step)
    return _spread(int(y)) | _spread(int(x)) << 1


def _spread(number: int) -> int:
    """The bits of a number of 32 bits at the even places of one of 64."""
    number = (number | number << 16) & 0x0000FFFF0000FFFF
    number = (number | number << 8) & 0x00FF00FF00FF00FF
    number = (number | number << 4) & 0x0F0F0F0F0F0F0F0F
    number = (number | number << 2) & 0x3333333333333333
    return (number | number << 1) & _EVEN


def _gather(number: int) -> int:
    """The bits at the even places."""
    number &= _EVEN
    number = (number | number >> 1) & 0x3333333333333333
    number = (number | number >> 2) & 0x0F0F0F0F0F0F0F0F
    number = (number | number >> 4) & 0x00FF00FF00FF00FF
    number = (number | number >> 8) & 0x0000FFFF0000FFFF
    return (number | number >> 16) & 0x00000000FFFFFFFF


def area(bits: int, step: int = STEPS) -> Area:
    """What a hash stands for."""
    y, x = _gather(bits), _gather(bits >> 1)
    scale = 1 << step
    width, height = LONGITUDE_MAX - -LONGITUDE_MAX, LATITUDE_MAX - -LATITUDE_MAX
    return Area(
        -LONGITUDE_MAX + (x / scale) * width,
        -LATITUDE_MAX + (y / scale) * height,
        -LONGITUDE_MAX + ((x + 1 & _U32) / scale) * width,
        -LATITUDE_MAX + ((y + 1 & _U32) / scale) * height,
    )


def decode(score: float) -> Point:
    """The middle of what a score stands for, whatever it is."""
    found = area(_bits(score))
    longitude = (found.west + found.east) / 2
    latitude = (found.south + found.north) / 2
    return (
        max(min(longitude, LONGITUDE_MAX), -LONGITUDE_MAX),
        max(min(latitude, LATITUDE_MAX), -LATITUDE_MAX),
    )


def _bits(score: float) -> int:
    """A score as an unsigned integer, as x86-64 converts it."""
    if score >= 2.0**63:
        return int(score) if score < 2.0**64 else 0
    return int(score) & _U64 if score >= -(2.0**63) else 1 << 63


def text(score: float) -> bytes:
    """The geohash that others know: of eleven characters, the last of which is always 0."""
    bits = encode(decode(score), latitude_max=90.0)
    return bytes(_ALPHABET[bits >> _BITS - 5 * n & 0x1F] for n in range(1, 11)) + b"0"


# -- distances ------------------------------------------------------------------------------------


def distance(one: Point, other: Point) -> float:
    """Metres between two points (haversine)."""
    v = math.sin((other[0] * _RADIAN - one[0] * _RADIAN) / 2)
    if v == 0.0:
        return _latitude_distance(one[1], other[1])
    latitude, other_latitude = one[1] * _RADIAN, other[1] * _RADIAN
    u = math.sin((other_latitude - latitude) / 2)
    a = u * u + math.cos(latitude) * math.cos(other_latitude) * v * v
    return 2.0 * _EARTH_RADIUS * math.asin(min(math.sqrt(a), 1.0))


def _latitude_distance(one: float, other: float) -> float:
    return _EARTH_RADIUS * abs(other * _RADIAN - one * _RADIAN)


class Circle(NamedTuple):
    """All within `radius` around a point, which is in units of `metres`."""

    center: Point
    radius: float
    metres: float

    def reach(self) -> float:
        """Metres from the center to the farthest point."""
        return self.radius * self.metres

    def extent(self) -> Point:
        """Half of its width and height, in metres."""
        return self.metres * self.radius, self.metres * self.radius

    def distance(self, point: Point) -> float | None:
        """Metres from the center; None if the point is outside."""
        found = distance(self.center, point)
        return None if found > self.radius * self.metres else found


class Box(NamedTuple):
    """All within `width` and `height` around a point."""

    center: Point
    width: float
    height: float
    metres: float

    def reach(self) -> float:
        """Metres from the center to a corner."""
        width, height = self.width / 2, self.height / 2
        return math.sqrt(width * width + height * height) * self.metres

    def extent(self) -> Point:
        """Half of its width and height, in metres."""
        return self.metres * (self.width / 2), self.metres * (self.height / 2)

    def distance(self, point: Point) -> float | None:
        """Metres from the center; None if the point is outside."""
        longitude, latitude = self.center
        if _latitude_distance(point[1], latitude) > self.height * self.metres / 2:
            return None
        if distance(point, (longitude, point[1])) > self.width * self.metres / 2:
            return None
        return distance(self.center, point)


Shape = Circle | Box


# -- where to look --------------------------------------------------------------------------------


def ranges(shape: Shape) -> list[tuple[int, int]]:
    """The ranges [first, end) of hashes that points of the shape can have, in the order in which
    they are to be searched (geohashCalculateAreasByShapeWGS84, membersOfAllNeighbors)."""
    bounds = _bounding_box(shape)
    step = _steps_for(shape.reach(), shape.center[1])
    bits = encode(shape.center, step)
    if step > 1 and not _is_covered(bounds, bits, step):
        step -= 1
        bits = encode(shape.center, step)
    found = [bits]
    last = -1
    for east, north in _useful(bounds, bits, step):
        near = _moved(bits, step, east, north)
        # With a huge shape neighbours are the same. Only those in a row are left out, and Redis
        # doesn't compare with the middle.
        if near != last:
            found.append(near)
        last = near
    shift = _BITS - 2 * step
    return [(near << shift, (near + 1) << shift) for near in found]


#: The neighbours, (steps to the east, steps to the north), in the order of the search.
_NEIGHBOURS: Final = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


def _useful(bounds: Area, bits: int, step: int) -> list[tuple[int, int]]:
    """The neighbours that the shape can reach into."""
    if step < 2:
        return list(_NEIGHBOURS)
    middle = area(bits, step)
    return [
        (east, north)
        for east, north in _NEIGHBOURS
        if not (north < 0 and middle.south < bounds.south)
        and not (north > 0 and middle.north > bounds.north)
        and not (east < 0 and middle.west < bounds.west)
        and not (east > 0 and middle.east > bounds.east)
    ]


def _is_covered(bounds: Area, bits: int, step: int) -> bool:
    """Whether the neighbours reach as far as the shape."""
    return not (
        area(_moved(bits, step, 0, 1), step).north < bounds.north
        or area(_moved(bits, step, 0, -1), step).south > bounds.south
        or area(_moved(bits, step, 1, 0), step).east < bounds.east
        or area(_moved(bits, step, -1, 0), step).west > bounds.west
    )


def _moved(bits: int, step: int, east: int, north: int) -> int:
    """The hash some steps away, around the world."""
    if east:
        bits = _move(bits & _ODD, step, east, _EVEN) & _ODD >> 64 - 2 * step | bits & _EVEN
    if north:
        bits = _move(bits & _EVEN, step, north, _ODD) & _EVEN >> 64 - 2 * step | bits & _ODD
    return bits


def _move(bits: int, step: int, by: int, others: int) -> int:
    """One step in the bits that aren't `others` (geohash_move_x, geohash_move_y)."""
    filler = others >> 64 - 2 * step
    if by > 0:
        return bits + filler + 1 & _U64
    return (bits | filler) - filler - 1 & _U64


def _steps_for(metres: float, latitude: float) -> int:
    """How many steps a hash may have whose area and neighbours hold a shape."""
    if metres == 0:
        return STEPS
    step = 1
    while metres < _MERCATOR_MAX:
        metres *= 2
        step += 1
    step -= 2
    if abs(latitude) > 66:
        step -= 1
        if abs(latitude) > 80:
            step -= 1
    return max(1, min(step, STEPS))


def _bounding_box(shape: Shape) -> Area:
    longitude, latitude = shape.center
    width, height = shape.extent()
    delta = height / _EARTH_RADIUS / _RADIAN
    top = _degrees(width, latitude + delta)
    bottom = _degrees(width, latitude - delta)
    half = bottom if latitude < 0 else top
    return Area(longitude - half, latitude - delta, longitude + half, latitude + delta)


def _degrees(metres: float, latitude: float) -> float:
    """Degrees of longitude that so many metres are at a latitude."""
    if math.isinf(latitude):
        return math.nan
    return metres / _EARTH_RADIUS / math.cos(latitude * _RADIAN) / _RADIAN
