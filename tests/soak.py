"""The soak: writes all the time, faults of every kind all the time, and in the end, and every
minute, a comparison of everything. `make soak DURATION=600 SEED=...`.

A seed fixes which faults come in which order, and what the writers choose; the machine decides the
rest. The directory of a run that fails stays.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from datadir import check
from soak_compare import assert_equal, compare_digests
from soak_group import SoakGroup
from soak_load import Crowd

DIGEST_EVERY_SECONDS = 60.0
FAILOVER_EVERY_SECONDS = (5.0, 10.0)
PAUSE_SECONDS = (0.2, 1.5)
#: How far ahead of the primary's position a digest is asked for: about a tenth of a second.
DIGEST_AHEAD = 100
PROGRESS_SECONDS = 60.0
DIGEST_ATTEMPTS = 20
_ANSWER = re.compile(r"(CONTINUE|REWIND|PAD|FULLRESYNC) because (.*)")


class Soak:
    """One run."""

    def __init__(self, directory: Path, seconds: float, seed: str) -> None:
        self.seconds = seconds
        self._rng = random.Random(seed)
        self.group = SoakGroup(directory, self._rng)
        server = self.group.nodes[0].server
        self.crowd = Crowd(lambda: self.group.writable, server, seed)
        self.digests = 0

    def run(self) -> None:
        """All of it; AssertionError if anything was lost, doubled or differs."""
        try:
            self.group.start()
            self.crowd.start()
            self._disturb()
            self.crowd.stop()
            self._compare()
        finally:
            self.group.close()
        for node in self.group.nodes:
            check(node.server.directory / "db")
            assert "Traceback" not in node.server.log_text(), f"{node}'s log has a traceback"

    def _disturb(self) -> None:
        now = time.monotonic()
        end = now + self.seconds
        failover_at = now + self._rng.uniform(*FAILOVER_EVERY_SECONDS)
        digest_at = now + min(DIGEST_EVERY_SECONDS, self.seconds / 3)
        while (now := time.monotonic()) < end:
            if now > failover_at:
                failover_at = now + self._rng.uniform(*FAILOVER_EVERY_SECONDS)
                self.group.failover()
            elif now > digest_at:
                digest_at = now + min(DIGEST_EVERY_SECONDS, self.seconds / 3)
                self._compare_digests()
            else:
                self._fault()
            self.crowd.await_more(20, PROGRESS_SECONDS)
            time.sleep(self._rng.uniform(*PAUSE_SECONDS))

    def _fault(self) -> None:
        group = self.group
        faults = [
            (3, group.disturb_links),
            (2, group.stop_for_a_while),
            (2, group.kill_replica),
            (2, group.diverge),
            (1, group.kill_primary),
            (1, group.kill_and_restart_primary),
            (1, group.partition),
            (1, group.restart_cleanly),
            (1, group.wipe),
        ]
        weights, actions = zip(*faults, strict=True)
        self._rng.choices(actions, weights)[0]()

    def _compare_digests(self) -> None:
        """While writes go on, at a position that is still to come."""
        self.group.await_links()
        servers = [node.server for node in self.group.nodes]
        for _ in range(DIGEST_ATTEMPTS):
            if compare_digests(servers, self.group.leader.server, DIGEST_AHEAD):
                self.digests += 1
                return
        raise AssertionError("no position at which all servers could be compared")

    def _compare(self) -> None:
        self.group.await_links()
        self.crowd.settle(self.group.leader.server)
        servers = [node.server for node in self.group.nodes]
        assert_equal(servers, self.group.leader.server)

    def report(self) -> str:
        """What happened."""
        answers: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for node in self.group.nodes:
            for answer, reason in _ANSWER.findall(node.server.log_text()):
                answers[answer] += 1
                if answer == "FULLRESYNC":
                    reasons[re.sub(r"\d+", "N", reason)] += 1
        return (
            f"{self.crowd.acked} operations acknowledged, {self.digests} digests compared\n"
            f"done: {dict(self.group.done)}\n"
            f"answers to replicas: {dict(answers)}\n"
            f"full syncs because: {dict(reasons)}\n"
            f"refused: {self.crowd.errors}, ONCE sent again: "
            f"{sum(writer.retries for writer in self.crowd.once)}\n"
            f"{self.crowd.queues.report()}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=600, help="seconds")
    parser.add_argument("--seed", default=str(time.time_ns() % 1_000_000))
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="kvserver-soak-")
    print(f"soak of {options.duration:.0f} s, seed {options.seed}, in {directory}", flush=True)
    soak = Soak(Path(directory), options.duration, options.seed)
    try:
        soak.run()
    finally:
        print(soak.report(), flush=True)
        print(f"seed {options.seed}", flush=True)
    shutil.rmtree(directory)  # that of a failed run stays


if __name__ == "__main__":
    main()
