"""`python -m benchmarks`: kvserver and redis-server under the same loads, in turn, in one run.

Both keep their data on disk: kvserver always, redis-server with its append-only file, with the
same appendfsync. Each figure is the median of short rounds, and in each round the two servers are
measured one right after the other.
"""

from __future__ import annotations

import argparse
from time import perf_counter

from benchmarks import report
from benchmarks.measure import TESTS, Load
from benchmarks.servers import Contender, both, compared, program
from tests.harness import Program

PIPELINES = {"everysec": (1, 16, 64), "always": (1, 16)}
#: With `always` the fsync is what matters, and not the type.
ALWAYS = ("set", "get", "mixed", "incr", "mset", "lpush", "rpop", "sadd", "hset", "zadd", "xadd")
#: A run as short as this is measured as well as a longer one, and there can be more of them.
SECONDS = 0.2
ROUNDS = 5
#: Ranges take long even when they are few, and vary little.
RANGE_ROUNDS = 3


def loads(fsync: str, tests: tuple[str, ...], pipelines: tuple[int, ...]) -> list[Load]:
    """What is measured with this appendfsync; the numbers of requests follow."""
    chosen = [test for test in tests if fsync != "always" or test in ALWAYS]
    return [
        Load(test, pipeline, 0)
        for pipeline in PIPELINES[fsync]
        if pipeline in pipelines
        for test in chosen
    ]


def compare(ours: Program, fsync: str, chosen: list[Load], rounds: int) -> list[report.Row]:
    """Measure both servers with this appendfsync, and print the table."""
    with both(ours, {"appendfsync": fsync}) as servers:
        build = servers[0].client(decode_responses=True).info("server")["kvserver_build"]
        print(f"\nappendfsync {fsync}, kvserver {build}\n\n{report.HEADER}", flush=True)
        rows = []
        for load in chosen:
            count = min(rounds, RANGE_ROUNDS) if load.test.startswith("lrange") else rounds
            rows.append(compared([Contender(s, load) for s in servers], SECONDS, count))
            print(report.line(rows[-1]), flush=True)
        return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tests", nargs="+", default=list(TESTS), choices=TESTS, metavar="TEST")
    parser.add_argument("--pipelines", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--fsync", nargs="+", choices=list(PIPELINES), default=list(PIPELINES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--kvserver", help="the installed program to measure; default: the source")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    return parser.parse_args()


def main() -> None:
    """The command line."""
    options = _options()
    ours, began = program(options.kvserver), perf_counter()
    print(report.measured(), flush=True)
    sections, rows = [], []
    for fsync in options.fsync:
        chosen = loads(fsync, tuple(options.tests), tuple(options.pipelines))
        found = compare(ours, fsync, chosen, options.rounds)
        sections.append(report.section(f"`appendfsync {fsync}` on both", found))
        rows += [(fsync, row) for row in found]
    goals = report.summary(rows)
    print(f"\n{goals}\nIt took {perf_counter() - began:.0f} s.", flush=True)
    if options.write:
        report.write("bench", "\n".join([report.measured(), "", goals, *sections]))


if __name__ == "__main__":
    main()
