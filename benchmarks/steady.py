"""`python -m benchmarks.steady`: does a server stay as it is, and how long are its pauses?

A load of everything (steady_load.py) goes on for `--duration` seconds. What the server has (memory,
descriptors, threads) is sampled, and a line is laid through the second half of it: memory that
still grows then, descriptors or threads that become more, are a leak, and the exit status is 1.
Beside it a prober in a process of its own measures GET and SET (prober.py); redis-server does the
same afterwards, for five minutes at most.

Until all that is bounded is full takes some five minutes: a run of less than ten measures that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.prober import Tail, probe
from benchmarks.report import machine
from benchmarks.steady_load import connect, work
from tests.harness import KVSERVER, REDIS, Directive, Program, Server

#: Small caches are full soon, and what grows after that is a leak.
DIRECTIVES: dict[str, Directive] = {
    **KVSERVER.directives,
    "row-cache-size": "16mb",
    "rocksdb.block_cache_size": 8,
}
REDIS_SECONDS = 300.0
SAMPLES = 120
MIB = 1 << 20
#: Resident memory may differ by so much of itself, or so many bytes, in half of the run: the
#: kernel's and the allocator's doing.
FLAT, FLAT_BYTES = 0.02, 6 * MIB
#: Descriptors and threads may: files that RocksDB compacts just now, connections.
FEW = 40
#: INFO's figures that are sampled.
FIELDS = (
    *("row_cache_bytes", "rocksdb_memtables_bytes", "rocksdb_table_readers_bytes"),
    *("rocksdb_block_cache_bytes", "allocator_allocated", "allocator_active"),
    *("python_gc_objects", "python_gc_full_passes", "python_gc_garbage", "python_gc_longest_usec"),
    *("connected_clients", "tracking_total_keys"),
)
TAIL_HEADER = "| server | command | p50 ms | p99 ms | p99.9 ms | longest ms |\n" + "|---" * 6 + "|"


class Options(NamedTuple):
    """The command line."""

    kvserver: str | None
    duration: float
    pace: float
    visits: float
    probes: float
    no_redis: bool


class Sample(NamedTuple):
    """A server at one moment."""

    seconds: float
    resident: int
    descriptors: int
    threads: int
    info: dict[str, int]


def take(server: Server, begun: float) -> Sample:
    """A sample now."""
    with open(f"/proc/{server.pid}/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with connect(server.port) as conn:
        text = conn.ask("INFO", "memory", "clients", "stats").decode()
    lines = dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)
    return Sample(
        time.monotonic() - begun,
        resident,
        len(os.listdir(f"/proc/{server.pid}/fd")),
        len(os.listdir(f"/proc/{server.pid}/task")),
        {name: int(lines[name]) for name in FIELDS if name in lines},
    )


def watch(server: Server, seconds: float, done: Future[dict[str, int]]) -> list[Sample]:
    """Samples while the load goes on; some are shown."""
    begun = time.monotonic()
    samples: list[Sample] = []
    interval = min(max(seconds / SAMPLES, 0.25), 10.0)
    while not done.done():
        samples.append(take(server, begun))
        if len(samples) % (SAMPLES // 6) == 1:
            print(shown(samples[-1]), file=sys.stderr, flush=True)
        time.sleep(interval)
    return samples


def shown(sample: Sample) -> str:
    """A sample in one line; bytes in MB."""
    figures = [
        f"{name.removesuffix('_bytes')}={value / MIB:.1f}" if value > MIB else f"{name}={value}"
        for name, value in sample.info.items()
    ]
    return (
        f"{sample.seconds:6.0f} s: resident {sample.resident / MIB:.1f} MB, "
        f"{sample.descriptors} descriptors, {sample.threads} threads, {' '.join(figures)}"
    )


# -- the verdict ----------------------------------------------------------------------------------


def judge(samples: list[Sample]) -> tuple[list[str], bool]:
    """What the second half shows, in words, and whether nothing grows."""
    half = [sample for sample in samples if sample.seconds >= samples[-1].seconds / 2]
    times = [sample.seconds for sample in half]
    resident = [float(sample.resident) for sample in half]
    slope, _ = statistics.linear_regression(times, resident)
    grown = slope * (times[-1] - times[0])
    flat = grown <= max(FLAT * statistics.mean(resident), FLAT_BYTES)
    words = [
        f"resident memory: {statistics.mean(resident) / MIB:.0f} MB, "
        f"{slope * 3600 / MIB:+.1f} MB/hour in the second half ({grown / MIB:+.1f} MB): "
        f"{'flat' if flat else 'GROWS'}"
    ]
    for name in ("descriptors", "threads"):
        values = [getattr(sample, name) for sample in half]
        quarter = max(len(values) // 4, 1)
        more = statistics.median(values[-quarter:]) - statistics.median(values[:quarter])
        flat &= more <= FEW
        words.append(f"{name}: {values[-1]}, {more:+.0f}{'' if more <= FEW else ': GROWS'}")
    return words, flat


# -- runs -----------------------------------------------------------------------------------------


class Run(NamedTuple):
    """What came of one server."""

    samples: list[Sample]
    done: dict[str, int]
    tails: tuple[Tail, Tail]


def run(program: Program, directives: dict[str, Directive], options: Options) -> Run:
    """One server under the load, with the prober beside it."""
    seconds = options.duration
    with (
        tempfile.TemporaryDirectory() as directory,
        ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes,
    ):
        server = Server(Path(directory) / "data", directives, program=program)
        try:
            server.start()
            load = processes.submit(work, server.port, seconds, options.pace, options.visits)
            tails = processes.submit(probe, server.port, seconds, options.probes)
            samples = watch(server, seconds, load)
            return Run(samples, load.result(), tails.result())
        finally:
            server.close()


def tail_rows(name: str, tails: tuple[Tail, Tail]) -> list[str]:
    """A row for GET and one for SET."""
    return [
        f"| {name} | {command} | " + " | ".join(f"{value:.2f}" for value in tail) + " |"
        for command, tail in zip(("GET", "SET"), tails, strict=True)
    ]


def parse(arguments: list[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__)
    parser.add_argument("--kvserver", help="the installed program; default: the source")
    parser.add_argument("--duration", type=float, default=1800, help="seconds")
    parser.add_argument("--pace", type=float, default=10, help="rounds a second of each kind")
    parser.add_argument("--visits", type=float, default=200, help="connections a second")
    parser.add_argument("--probes", type=float, default=500, help="probes a second")
    parser.add_argument("--no-redis", action="store_true", help="kvserver alone")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and return the exit status."""
    options = parse(arguments)
    command = (options.kvserver,) if options.kvserver else KVSERVER.command
    ours = run(Program("kvserver", command, KVSERVER.directives), DIRECTIVES, options)
    words, flat = judge(ours.samples)
    print(machine(), "", *words, f"load: {ours.done}", "", TAIL_HEADER, sep="\n")
    print(*tail_rows("kvserver", ours.tails), sep="\n", flush=True)
    if not options.no_redis:
        short = options._replace(duration=min(options.duration, REDIS_SECONDS))
        print(*tail_rows("redis-server", run(REDIS, {}, short).tails), sep="\n")
    print(f"\n{'Steady.' if flat else 'NOT steady.'}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
