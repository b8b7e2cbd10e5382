"""`python -m benchmarks.scale`: how throughput, start-up time and memory grow, in plots.

With clients from 1 to 5,000, values from 16 bytes to 1 MB, keys from 10^4 to 3 x 10^7, and 0 to 2
replicas; redis-server beside kvserver, appendfsync everysec. What is measured goes to
docs/benchmarks/*.json, plots and tables are made from that. All of it takes a quarter of an hour:
`--parts` chooses, and `--parts` alone only makes plots and tables again.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable
from time import perf_counter

from benchmarks import replicas, scale_report, workload
from benchmarks.admin import ask
from benchmarks.measure import Load, forget_peak, measure, peak_bytes, sized, trial
from benchmarks.points import Point, save
from benchmarks.report import combine
from benchmarks.servers import START_SECONDS, Contender, both, calibrated, program, rounds, settle
from tests.harness import Program, Server

CLIENTS = (1, 10, 50, 200, 1000, 5000)
VALUE_BYTES = (16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
KEYS = (10_000, 100_000, 1_000_000, 10_000_000, 30_000_000)
TESTS = ("get", "set")
#: The values of one size are this many bytes together, with so many keys at most.
DATA_BYTES, MOST_KEYS = 128 << 20, 100_000
KEYS_VALUE_BYTES = 16
#: GETs of a server that has just started: kvserver has no row in its cache.
FIRST_GET = "first get"
EVERYSEC = {"appendfsync": "everysec"}
SECONDS = 0.7
ROUNDS = 3
STOP_SECONDS = 120.0


def _points(servers: list[Server], load: Load, x: int) -> list[Point]:
    """The load on both servers."""
    for one in servers:
        settle(one)
        forget_peak(one.pid)
    contenders = calibrated([Contender(one, load) for one in servers], SECONDS)
    return [
        Point(one.program.name, load.test, load.pipeline, x, combine(found), peak_bytes(one.pid))
        for one, found in zip(servers, rounds(contenders, ROUNDS), strict=True)
    ]


def measure_clients(ours: Program, limit: int) -> list[Point]:
    """From one client to thousands."""
    points = []
    with both(ours, EVERYSEC) as servers:
        for clients in CLIENTS:
            for test in TESTS:
                points += _points(servers, Load(test, 1, 0, clients=clients), clients)
    return points


def measure_values(ours: Program, limit: int) -> list[Point]:
    """From short values to long ones."""
    points = []
    with both(ours, EVERYSEC) as servers:
        for size in VALUE_BYTES:
            for one in servers:
                ask(one.port, "FLUSHALL")
            keys = min(MOST_KEYS, DATA_BYTES // size)
            for test in TESTS:
                points += _points(servers, Load(test, 1, 0, value_bytes=size, keys=keys), size)
    return points


def measure_keys(ours: Program, limit: int) -> list[Point]:
    """From few keys to many; the servers start with each number of them."""
    points, before = [], 0
    with both(ours, EVERYSEC) as servers:
        for keys in (count for count in KEYS if count <= limit):
            for one in servers:
                workload.fill_keys(one.port, before, keys, KEYS_VALUE_BYTES)
            for one in servers:
                points += _restarted(one, keys)
            before = keys
    return points


def _restarted(one: Server, keys: int) -> list[Point]:
    """A server that starts with so many keys, reads some, then all of them, and works on. One by
    one: whoever waits would have its data pushed out of the page cache by the other."""
    settle(one)
    one.terminate(STOP_SECONDS)
    began = perf_counter()
    one.start(START_SECONDS)
    start = perf_counter() - began
    settle(one)
    points = [_on_keys(one, "get", 1, keys)._replace(test=FIRST_GET, start=start)]
    workload.touch_keys(one.port, keys)
    for pipeline in (1, 16):
        for test in TESTS:
            points.append(_on_keys(one, test, pipeline, keys)._replace(start=start))
    return points


def _on_keys(one: Server, test: str, pipeline: int, keys: int) -> Point:
    load = Load(test, pipeline, 0, value_bytes=KEYS_VALUE_BYTES, keys=keys)
    rate = measure(one.port, one.pid, trial(load)).rate
    load = sized(load, [rate], SECONDS)
    found = combine([measure(one.port, one.pid, load) for _ in range(ROUNDS)])
    return Point(one.program.name, test, pipeline, keys, found, peak_bytes(one.pid))


def measure_replicas(ours: Program, limit: int) -> list[Point]:
    """From none to two."""
    return replicas.scaled(ours)


PARTS: dict[str, Callable[[Program, int], list[Point]]] = {
    "clients": measure_clients,
    "values": measure_values,
    "keys": measure_keys,
    "replicas": measure_replicas,
}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--kvserver", help="the installed program to measure; default: the source")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--max-keys", type=int, default=KEYS[-1])
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # children inherit it
    for part in options.parts:
        print(f"Measuring {part}", file=sys.stderr, flush=True)
        began = perf_counter()
        save(part, PARTS[part](program(options.kvserver), options.max_keys))
        print(f"{part} took {perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    scale_report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
