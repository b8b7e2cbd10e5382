"""GEO, as redis-server does it, and the arithmetic of geohashes.

Members without an order come in the order of the search, which is the same in Redis 7.0.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from harness import Server
from hypothesis import given
from hypothesis import strategies as st
from pair import Pair, heard

from kvserver import geohash
from kvserver.geohash import Box, Circle, Point

SICILY = (
    "GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania 12.758489 38.788135 edge1"
)

SCRIPTS = {
    "geoadd": """
        GEOADD g
        GEOADD g 1 2
        GEOADD g 1 2 a 3
        GEOADD g 1 2 a 3 4
        GEOADD g x 2 a
        GEOADD g 1 nan a
        GEOADD g 181 2 a
        GEOADD g 1 86 a
        GEOADD g -180.5 -85.06 a
        GEOADD g inf 0 a
        GEOADD g 1 2 a 1 90 b
        EXISTS g
        GEOADD g 180 85.05112878 ne -180 -85.05112878 sw 0 0 zero
        GEOADD g 1 2 a 1 2 a
        GEOADD g CH 1 2.5 a 3 4 b
        GEOADD g NX XX 1 2 a
        GEOADD g nx 5 6 a 7 8 c
        GEOADD g XX CH 5 6 a 7 8 d
        GEOADD g CH CH CH
        GEOADD g GT 1 2 a
        ZRANGE g 0 -1 WITHSCORES
        GEOPOS g a b c d ne sw zero
        GEOHASH g a b c d ne sw zero
        SET s 1
        GEOADD s 1 2 a
        GEOADD s x 2 a
        """,
    "geopos and geohash": f"""
        {SICILY}
        GEOPOS g Palermo none Catania
        GEOPOS g
        GEOPOS none a b
        GEOPOS none
        GEOHASH g Palermo none Catania
        GEOHASH g
        GEOHASH none a b
        ZADD odd -5 minus 1e300 huge -1e300 low inf inf 1.5 half 9223372036854775808 a -inf b
        GEOPOS odd minus huge low inf half a b
        GEOHASH odd minus huge low inf half a b
        SET s 1
        GEOPOS s a
        GEOHASH s a
        """,
    "geodist": f"""
        {SICILY}
        GEODIST g Palermo Catania
        GEODIST g Palermo Catania m
        GEODIST g Palermo Catania KM
        GEODIST g Palermo Catania ft
        GEODIST g Palermo Catania Mi
        GEODIST g Palermo Catania parsec
        GEODIST g Palermo Catania km x
        GEODIST g Palermo Palermo
        GEODIST g Palermo none
        GEODIST none a b
        GEODIST none a b foo
        GEODIST none a b m foo
        GEODIST g Palermo
        SET s 1
        GEODIST s a b
        GEODIST s a b foo
        """,
    "geosearch": f"""
        {SICILY}
        GEOADD g 17.241510 38.788135 edge2
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km DESC
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHHASH WITHDIST
        GEOSEARCH g FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHCOORD WITHDIST
        GEOSEARCH g fromlonlat 15 37 bybox 400 400 km asc withhash
        GEOSEARCH g FROMMEMBER Palermo BYRADIUS 100 mi ASC WITHDIST
        GEOSEARCH g FROMMEMBER Palermo BYBOX 0 0 ft ASC WITHDIST
        GEOSEARCH g FROMMEMBER Palermo BYRADIUS 0 m WITHDIST
        GEOSEARCH g FROMMEMBER Catania BYBOX 500 100 km DESC WITHDIST COUNT 2
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 2 ASC
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 100 DESC
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1 ANY
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ANY COUNT 100 ASC
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ANY
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 0
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT -1
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT x
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km FOO
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km STORE x
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS -1 km
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS x km
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 1 x
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS inf km ASC
        GEOSEARCH g FROMLONLAT 15 37 BYBOX 1e300 1e308 km ASC
        GEOSEARCH g FROMLONLAT 15 37 BYBOX x 1 km
        GEOSEARCH g FROMLONLAT 15 37 BYBOX 1 x km
        GEOSEARCH g FROMLONLAT 15 37 BYBOX -1 1 km
        GEOSEARCH g FROMLONLAT 15 37 BYBOX 1 1 x
        GEOSEARCH g FROMLONLAT 15 37 BYBOX 1 1
        GEOSEARCH g FROMLONLAT 15 370 BYBOX 1 1 m
        GEOSEARCH g FROMMEMBER none BYBOX 1 1 m
        GEOSEARCH g FROMMEMBER Palermo BYBOX 1 1 m BYRADIUS 1 m
        GEOSEARCH g FROMMEMBER Palermo BYRADIUS 1 m BYBOX 1 1 m
        GEOSEARCH g FROMMEMBER Palermo BYRADIUS 1 m BYRADIUS 200 km ASC
        GEOSEARCH g FROMMEMBER Palermo FROMLONLAT 1 2 BYBOX 1 1 m
        GEOSEARCH g FROMLONLAT 1 2 FROMMEMBER Palermo BYBOX 1 1 m
        GEOSEARCH g FROMMEMBER Palermo FROMMEMBER Catania BYRADIUS 1 km
        GEOSEARCH g FROMMEMBER Palermo ASC WITHDIST WITHCOORD
        GEOSEARCH g BYRADIUS 1 m ASC WITHDIST WITHCOORD
        GEOSEARCH g FROMMEMBER Palermo
        GEOSEARCH none FROMMEMBER x BYRADIUS 1 m
        GEOSEARCH none FROMLONLAT 1 2 BYRADIUS 1 m WITHDIST
        GEOSEARCH none FROMLONLAT 1 200 BYRADIUS 1 m
        GEOSEARCH none FROMMEMBER x ASC DESC WITHDIST
        GEOSEARCH none FROMMEMBER x BYRADIUS 1 m ANY
        SET s 1
        GEOSEARCH s FROMMEMBER x BYRADIUS 1 m FOO
        """,
    "geosearchstore": f"""
        {SICILY}
        GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km
        ZRANGE d 0 -1 WITHSCORES
        GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1
        ZRANGE d 0 -1 WITHSCORES
        GEOSEARCHSTORE d g FROMMEMBER Palermo BYRADIUS 0 km STOREDIST
        ZRANGE d 0 -1 WITHSCORES
        GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km WITHDIST
        GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km STORE x
        GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km ANY
        GEOSEARCHSTORE d g FROMLONLAT 15 37 WITHDIST ASC ASC ASC
        GEOSEARCHSTORE d g FROMLONLAT 15 37 ASC ASC ASC ASC
        GEOSEARCHSTORE d g FROMLONLAT 100 37 BYRADIUS 1 km
        EXISTS d
        SET s 1
        GEOSEARCHSTORE s none FROMLONLAT 100 37 BYRADIUS 1 km
        EXISTS s
        SET s 1
        EXPIRE s 1000
        GEOSEARCHSTORE s g FROMLONLAT 15 37 BYRADIUS 200 km
        TTL s
        SET s 1
        GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km
        GEOSEARCHSTORE g g FROMLONLAT 15 37 BYRADIUS 200 km
        ZRANGE g 0 -1
        """,
    "georadius": f"""
        {SICILY}
        GEORADIUS g 15 37 200 km ASC
        GEORADIUS g 15 37 200 km WITHDIST WITHCOORD WITHHASH DESC
        GEORADIUS g 15 37 200 km COUNT 1 ANY
        GEORADIUS g 15 37 200 km ANY
        GEORADIUS g 15 37 200
        GEORADIUS g x 37 200 km
        GEORADIUS g 15 370 200 km
        GEORADIUS g 15 37 x km
        GEORADIUS g 15 37 -1 km
        GEORADIUS g 15 37 200 x
        GEORADIUS g 15 37 200 km FOO
        GEORADIUS g 15 37 200 km STORE
        GEORADIUS g 15 37 200 km FROMMEMBER Palermo
        GEORADIUS g 15 37 200 km BYRADIUS 1 km
        GEORADIUS g 15 37 200 km STORE d
        ZRANGE d 0 -1 WITHSCORES
        GEORADIUS g 15 37 200 km STORE d STOREDIST e
        EXISTS e
        GEORADIUS g 15 37 200 km STORE d WITHDIST
        GEORADIUS g 15 37 0 km STORE d
        EXISTS d
        GEORADIUS none 15 37 200 km
        GEORADIUS none 15 370 200 km
        GEORADIUS none 15 37 200 km FOO
        GEORADIUS none 15 37 200 km STORE e
        EXISTS e
        GEORADIUS_RO g 15 37 200 km ASC WITHDIST
        GEORADIUS_RO g 15 37 200 km STORE d
        GEORADIUS_RO g 15 37 200 km STOREDIST d
        GEORADIUSBYMEMBER g Palermo 200 km ASC WITHDIST
        GEORADIUSBYMEMBER g none 200 km
        GEORADIUSBYMEMBER g none x km
        GEORADIUSBYMEMBER g Palermo x km
        GEORADIUSBYMEMBER g Palermo 0 km STOREDIST d
        ZRANGE d 0 -1 WITHSCORES
        GEORADIUSBYMEMBER none Palermo x y
        GEORADIUSBYMEMBER none Palermo x y STORE d
        GEORADIUSBYMEMBER none Palermo x y FOO
        EXISTS d
        GEORADIUSBYMEMBER_RO g Palermo 200 km ASC WITHDIST
        GEORADIUSBYMEMBER_RO g Palermo 200 km STORE d
        SET s 1
        GEORADIUS s 15 370 200 km
        GEORADIUSBYMEMBER s 15 x km
        """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_as_redis(pair: Pair, name: str) -> None:
    pair.same(SCRIPTS[name])


def test_events(pair: Pair) -> None:
    pair.same("CONFIG SET notify-keyspace-events KEA")
    listeners = [pair.connect(server) for server in pair.servers]
    for conn in listeners:
        conn.send(b"PSUBSCRIBE __key*__:*\r\n")
        conn.reply()
    pair.same(
        f"""
        {SICILY}
        {SICILY}
        GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km
        GEOSEARCHSTORE d g FROMLONLAT 100 37 BYRADIUS 200 km
        GEOSEARCHSTORE d g FROMLONLAT 100 37 BYRADIUS 200 km
        GEORADIUS g 15 37 200 km STORE d
        GEORADIUSBYMEMBER g Palermo 200 km STOREDIST d
        GEORADIUS none 15 37 200 km STORE d
        PUBLISH __keyevent@0__:end end
        """
    )
    ours, theirs = (heard(conn) for conn in listeners)
    assert ours == theirs


@pytest.mark.parametrize("seed", range(8))
def test_searches(pair: Pair, seed: int) -> None:
    """Searches of all sizes anywhere, the poles and the date line included."""
    chance = random.Random(seed)
    middle = chance.choice([(0, 0), (179, 10), (-179, -60), (20, 84), (-100, -84), (15, 40)])
    spread = chance.choice([0.01, 1, 30, 180])

    def anywhere() -> tuple[str, str]:
        longitude = (middle[0] + chance.uniform(-spread, spread) + 180) % 360 - 180
        latitude = middle[1] + chance.uniform(-spread, spread)
        return f"{longitude:.6f}", f"{max(min(latitude, 85), -85):.6f}"

    words = [word for n in range(700) for word in (*anywhere(), f"m{n}")]
    pair.same([("GEOADD", "g", *words)])
    commands: list[tuple[Any, ...]] = []
    for _ in range(40):
        size = f"{chance.choice([0.1, 10, 1000]) * spread * chance.random():.4f}"
        around = (
            ("FROMLONLAT", *anywhere())
            if chance.random() < 0.5
            else ("FROMMEMBER", f"m{chance.randrange(700)}")
        )
        shape = ("BYRADIUS", size, "km") if chance.random() < 0.5 else ("BYBOX", size, size, "km")
        options: list[Any] = chance.sample(["WITHDIST", "WITHCOORD", "WITHHASH"], 2)
        options += chance.choice([["ASC"], ["DESC"], ["COUNT", 5], ["COUNT", 7, "DESC"]])
        commands.append(("GEOSEARCH", "g", *around, *shape, *options))
    pair.same(commands)


def test_long_replies(client: Any) -> None:
    client.geoadd("g", [word for n in range(2000) for word in (n / 20, n / 40, f"m{n}")])
    found = client.geosearch(
        "g", longitude=0, latitude=0, radius=20000, unit="km", sort="ASC", withdist=True
    )
    assert [member for member, _ in found] == [b"m%d" % n for n in range(2000)]
    assert found == sorted(found, key=lambda one: float(one[1]))


def test_names_in_errors(server: Server) -> None:
    """Redis says the command as the client spelled it; nearly all do so in capitals."""
    reply = server.conn().ask("geosearch", "g", "ASC", "ASC", "ASC", "ASC", "ASC")
    assert reply.endswith(b" can be specified for GEOSEARCH\r\n")


# -- arithmetic ------------------------------------------------------------------------------------

#: Without the ends: there a cell's number has a bit too many, as in Redis.
points = st.tuples(
    st.floats(-geohash.LONGITUDE_MAX, geohash.LONGITUDE_MAX, exclude_max=True),
    st.floats(-geohash.LATITUDE_MAX, geohash.LATITUDE_MAX, exclude_max=True),
)
sizes = st.floats(0, 3e7)


@given(points)
def test_encoded_and_decoded(point: Point) -> None:
    bits = geohash.encode(point)
    near = geohash.decode(float(bits))
    assert math.isclose(point[0], near[0], abs_tol=360 / 2**26)
    assert math.isclose(point[1], near[1], abs_tol=171 / 2**26)


@given(points, points)
def test_distances(one: Point, other: Point) -> None:
    there, back = geohash.distance(one, other), geohash.distance(other, one)
    assert math.isclose(there, back, abs_tol=0.01)
    assert 0 <= there <= 6372797.560856 * math.pi + 1


@given(points, st.floats(0, 5e6), st.floats(0, 1), st.floats(0, 2 * math.pi))
def test_a_circle_is_searched_whole(
    center: Point, radius: float, share: float, bearing: float
) -> None:
    """A point inside the circle is in one of the ranges."""
    latitude = center[1] + math.degrees(radius * share / 6372797.560856) * math.cos(bearing)
    narrow = math.cos(math.radians(max(abs(center[1]), abs(latitude))))
    offset = math.degrees(radius * share / 6372797.560856) * math.sin(bearing) * narrow
    point = (center[0] + offset, latitude)
    if not geohash.is_valid(point) or abs(center[1]) > 75:
        return
    point = geohash.decode(float(geohash.encode(point)))
    shape = Circle(center, radius, 1.0)
    if shape.distance(point) is not None:
        bits = geohash.encode(point)
        assert any(first <= bits < end for first, end in geohash.ranges(shape))


@given(points, st.floats(0), st.floats(0))
def test_ranges_of_anything(center: Point, width: float, height: float) -> None:
    """No size is too much."""
    for shape in (Circle(center, width, 1609.34), Box(center, width, height, 1000.0)):
        assert 1 <= len(geohash.ranges(shape)) <= 9
        shape.distance((0.0, 0.0))
