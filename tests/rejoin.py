"""Two servers that part and meet again: what both hold before, what only one writes, and how.

It knows nothing of pytest. Invariants: a line of a script is what one write to the socket carries,
commands separated by `;`, so each line is a batch of its own; every reply is awaited, and none may
be an error.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from cluster import LOOPBACK, follow, promote, replication, wait_synced
from digests import assert_same, counter, discarded, full_syncs
from harness import Server, encode_command, wait_until

from kvserver.quoting import split_args


@dataclass(frozen=True)
class Shape:
    """What is written before the servers part, and then by the old and by the new primary."""

    name: str
    before: str
    old: str
    new: str


def play(server: Server, script: str) -> int:
    """Run a script; returns how many positions it took."""
    start = counter(server, "master_repl_offset")
    with server.conn() as conn:
        for line in filter(None, map(str.strip, script.splitlines())):
            commands = [split_args(words.encode()) for words in line.split(";")]
            conn.send(b"".join(encode_command(*words) for words in commands if words))
            for words in commands:
                reply = conn.reply()
                assert not reply.startswith(b"-"), (words, reply)
    return counter(server, "master_repl_offset") - start


class Couple:
    """An old and a new primary, who change places with each rejoin."""

    def __init__(self, old: Server, new: Server) -> None:
        self.old = old
        self.new = new

    def part(self) -> int:
        """Promote the replica while its primary goes on; returns the last position they share."""
        wait_synced(self.old, self.new)
        fork = counter(self.new, "master_repl_offset")
        promote(self.new)
        return fork

    def rejoin(self) -> None:
        """The old primary follows the new one, and ends as its copy, without a full sync. What
        it had alone is in a file."""
        before = full_syncs(self.old, self.new)
        rewinds, files = counter(self.old, "rewinds"), len(discarded(self.old))
        fork = counter(self.new, "second_repl_offset") - 1
        last = counter(self.old, "master_repl_offset")
        follow(self.old, self.new)
        assert_same(self.new, self.old)
        assert full_syncs(self.old, self.new) == before
        rewound = counter(self.old, "rewinds") - rewinds
        # A key that expired meanwhile took a position more.
        assert rewound == 1 or (rewound == 0 and last <= fork)
        saved = discarded(self.old)
        assert len(saved) == files + rewound
        if rewound:
            frames = [entry.frame for entry in saved[-1]]
            assert frames[0].first_seq == fork + 1 and frames[-1].last_seq >= last
            for one, other in pairwise(frames):
                assert other.first_seq == one.last_seq + 1
        self.old, self.new = self.new, self.old

    def run(self, shape: Shape) -> None:
        """Both write what the shape says; then the old primary rejoins."""
        play(self.old, shape.before)
        self.part()
        play(self.old, shape.old)
        play(self.new, shape.new)
        self.rejoin()


def is_loading(server: Server) -> bool:
    """Whether reads are refused since the data set equals no primary's."""
    with server.conn() as conn:
        return conn.ask("GET", "any").startswith(b"-LOADING ")


def start_loading(server: Server) -> None:
    """Start a server whose rewind was interrupted: it answers PING with LOADING."""

    def answers() -> bool:
        try:
            return is_loading(server)
        except OSError:
            return False

    server.spawn()
    wait_until(answers, 20, f"{server} is loading")


def stands_before_m(server: Server) -> bool:
    """Whether a rewind was written, and its position M not reached."""
    return replication(server).get("dataset_consistent") == "no"


def directive(primary: Server | None) -> list[str]:
    """The value of `replicaof`."""
    return ["no", "one"] if primary is None else [LOOPBACK, str(primary.port)]


KEYS = 12
VERBS = (
    "SET k{a} {n}",
    "SET k{a} {n} PX 86400000",
    "DEL k{a} k{b}",
    "APPEND k{a} {n}",
    "RENAME k{a} k{b}",
    "COPY k{a} k{b} REPLACE",
    "MOVE k{a} 1",
    "PEXPIRE k{a} 86400000",
    "PEXPIRE k{a} 15",
    "PERSIST k{a}",
    "GETDEL k{a}",
    "MSET k{a} {n} k{b} {n} other{n} {n}",
    "SWAPDB 0 1",
    "FLUSHDB",
    "ONCE writer{a} {m} SET k{b} {n}",
)
WEIGHTS = (20, 8, 8, 8, 8, 4, 4, 6, 3, 3, 3, 8, 2, 1, 6)


def scribble(server: Server, chance: random.Random, lines: int) -> None:
    """Random commands in random batches, some of them transactions. Whatever they answer."""
    with server.conn() as conn:
        for _ in range(lines):
            batch: list[list[bytes] | None] = []
            size = chance.choice((1, 1, 2, 3, 7, 20))
            for verb in chance.choices(VERBS, WEIGHTS, k=size):
                a, b = chance.sample(range(KEYS), 2)
                text = verb.format(a=a, b=b, n=chance.randrange(10**6), m=chance.randrange(1, 4))
                batch.append(split_args(text.encode()))
            if chance.random() < 0.3:
                batch = [[b"MULTI"], *batch, [b"EXEC"]]
            batch.insert(0, [b"SELECT", b"%d" % chance.randrange(2)])
            conn.send(b"".join(encode_command(*words) for words in batch if words))
            for _ in batch:
                conn.reply()
