"""`python -m benchmarks`: redis-benchmark over kvserver and redis-server, in turn, in one run.

Both keep their data on disk: kvserver always, redis-server with its append-only file, with
the same appendfsync. Each figure is the median of the rounds, and in each round the two
servers are measured one right after the other.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Figures, Load, measure, prepare
from tests.harness import KVSERVER, REDIS, Program, Server

TESTS = ["set", "get", "incr", "mset"]
PIPELINES = {1: 60_000, 16: 300_000, 64: 300_000}
COLLECTIONS = [
    *("lpush", "rpop", "sadd", "spop", "hset", "zadd", "zpopmin", "xadd"),
    *("lrange_100", "lrange_300", "lrange_500", "lrange_600"),
]
#: A pipeline of ranges would be megabytes of replies at once.
COLLECTION_LOADS = [
    Load(test, pipeline, 5_000 if test.startswith("lrange") else requests)
    for pipeline, requests in ((1, 30_000), (16, 100_000))
    for test in COLLECTIONS
    if pipeline == 1 or not test.startswith("lrange")
]
DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def compare(ours: Program, fsync: str, loads: list[Load], rounds: int) -> list[report.Row]:
    """Measure both servers with this appendfsync."""
    with tempfile.TemporaryDirectory(prefix="kvserver-bench-") as directory:
        servers = [
            Server(
                Path(directory) / "kvserver",
                {"appendfsync": fsync},
                program=ours,
                env={"PYTHONPATH": ""},
            ),
            Server(
                Path(directory) / "redis",
                {"appendfsync": fsync, "appendonly": True},
                program=REDIS,
            ),
        ]
        try:
            for server in servers:
                server.start()
            build = servers[0].client(decode_responses=True).info("server")["kvserver_build"]
            print(f"appendfsync {fsync}, kvserver {build}\n{report.HEADER}", flush=True)
            return [_row(servers, load, rounds) for load in loads]
        finally:
            for server in servers:
                server.close()


def _row(servers: list[Server], load: Load, rounds: int) -> report.Row:
    samples: list[list[Figures]] = [[], []]
    for _ in range(rounds):
        for server, figures in zip(servers, samples, strict=True):
            prepare(server.port, load)
            figures.append(measure(server.port, server.pid, load))
    row = (load, report.combine(samples[0]), report.combine(samples[1]))
    print(report.line(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kvserver", required=True, help="the installed program to measure")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    options = parser.parse_args()
    ours = Program("kvserver", (options.kvserver,), KVSERVER.directives)
    loads = [Load(t, p, n) for p, n in PIPELINES.items() for t in options.tests]
    loads += [load for load in COLLECTION_LOADS if options.tests == TESTS]
    always = [Load("set", 1, 60_000), Load("set", 16, 200_000)]
    sections = []
    for fsync, chosen in (("everysec", loads), ("always", always)):
        rows = compare(ours, fsync, chosen, options.rounds)
        sections.append(report.section(f"`appendfsync {fsync}` on both", rows))
    if options.write:
        report.write(DOCUMENT, sections)


if __name__ == "__main__":
    main()
