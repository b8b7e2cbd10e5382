"""`python -m benchmarks.compare REV`: the working tree beside another revision of kvserver.

Both run at the same time, and are measured in alternation (A B, B A, A B ...). Per test the
report has the median of the paired ratios with an interval of 95 % (`pairs`). The exit status is 1
if a test is slower, or takes more CPU time, by more than 5 % beyond doubt.

Revisions are exported, built as a user would, and kept in .bench/ by their commit.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import TESTS, Load
from benchmarks.pairs import Outcome, outcome
from benchmarks.report import combine, machine
from benchmarks.servers import Contender, calibrated, program, rounds, running
from tests.harness import Server

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".bench"
DEFAULT = (
    *("get:1", "set:1", "get:16", "set:16", "incr:16", "mset:16"),
    *("lpush:16", "sadd:16", "hset:16", "zadd:16", "xadd:16", "lrange_100:1"),
)
PIPELINES = (1, 16)
SECONDS = 0.3
PAIRS = 12
#: Fewer say nothing with 95 %.
FEWEST_PAIRS = 8
HEADER = (
    "| test | pipeline | ops/s before | after | after / before | CPU us/op before | after "
    "| after / before | |\n" + "|---" * 9 + "|"
)


def commit_of(revision: str) -> str:
    """The full id of a revision's commit."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", f"{revision}^{{commit}}"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"there is no revision {revision}: {run.stderr.strip()}")
    return run.stdout.strip()


def built(commit: str) -> Path:
    """The kvserver of a commit, installed and compiled; kept for the next time."""
    home = CACHE / commit
    complete = home / "complete"
    if not complete.exists():
        shutil.rmtree(home, ignore_errors=True)
        print(f"Building {commit[:12]}; compiling it takes a minute", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="kvserver-build-") as source:
            _export(commit, source)
            _run(sys.executable, "-m", "venv", str(home))
            _run(str(home / "bin/python"), "-m", "pip", "install", "-q", source)
        complete.touch()
    return home / "bin" / "kvserver"


def _export(commit: str, target: str) -> None:
    """The files of a commit; nothing in .git changes, whenever this ends."""
    with tempfile.TemporaryFile() as archive:
        subprocess.run(["git", "-C", str(ROOT), "archive", commit], stdout=archive, check=True)
        archive.seek(0)
        subprocess.run(["tar", "-x", "-C", target], stdin=archive, check=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def loads(names: list[str]) -> list[Load]:
    """`set:16` is a test with a pipeline, `set` one with both."""
    found = []
    for name in names:
        test, _, pipeline = name.partition(":")
        if test not in TESTS or not (pipeline.isdigit() or not pipeline):
            raise SystemExit(f"{name} is not a test; there are: {' '.join(TESTS)}, set:16 ...")
        found += [Load(test, each, 0) for each in ([int(pipeline)] if pipeline else PIPELINES)]
    return found


def compare(servers: list[Server], load: Load, pairs: int) -> Outcome:
    """One test; prints its row."""
    before, after = rounds(calibrated([Contender(s, load) for s in servers], SECONDS), pairs)
    found = outcome([(f.rate, f.cpu) for f in before], [(f.rate, f.cpu) for f in after])
    old, new = combine(before), combine(after)
    print(
        f"| {load.test.upper()} | {load.pipeline} | {old.rate:,.0f} | {new.rate:,.0f} "
        f"| {found.rate} | {old.cpu:.2f} | {new.cpu:.2f} | {found.cpu} | {found.verdict} |",
        flush=True,
    )
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("revision", help="what to compare with: a commit, a branch, a tag")
    parser.add_argument("--tests", nargs="+", default=list(DEFAULT), help="such as set:16 get")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--appendfsync", default="everysec")
    parser.add_argument("--kvserver", required=True, help="the working tree, installed")
    options = parser.parse_args()
    if options.pairs < FEWEST_PAIRS:
        parser.error(f"fewer than {FEWEST_PAIRS} pairs say nothing")
    return options


def main() -> int:
    """The command line."""
    options = _options()
    chosen = loads(options.tests)
    commit = commit_of(options.revision)
    programs = [program(str(built(commit))), program(options.kvserver)]
    extra = {"appendfsync": options.appendfsync}
    with running(programs, [extra, extra]) as servers:
        builds = [s.client(decode_responses=True).info("server")["kvserver_build"] for s in servers]
        print(f"{machine()}\nbefore: {commit[:12]}, {builds[0]}; after: {builds[1]}\n\n{HEADER}")
        found = [compare(servers, load, options.pairs) for load in chosen]
    failed = sum(one.failed for one in found)
    print(f"\n{failed} of {len(found)} tests failed." if failed else "\nNo test failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
