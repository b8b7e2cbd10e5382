"""Generated programs: what some clients send, right and wrong, and what else happens.

A program is mostly about one family of commands, with those on strings and on any type of key among
them. Spoiled commands keep to what oracle_strategies.py says of times: what is put into them is
never a time soon to come. Nothing here sends anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import oracle_bitmaps
import oracle_hashes
import oracle_hyperloglog
import oracle_lists
import oracle_sets
import oracle_streams
import oracle_zsets
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from oracle_compare import Command
from oracle_strategies import (
    CONNECTIONS,
    REACHED,
    Burst,
    Choice,
    Choices,
    Lapse,
    Leave,
    RandomKey,
    Restart,
    Scan,
    Send,
    Step,
    across,
    command,
    counters,
    distinct_keys,
    expiry,
    generic,
    option,
    options,
    pick,
    scan_options,
    several_keys,
    share,
    strings,
    talk,
    transactions,
    weighted,
)

from kvserver.numbers import INT64_MAX

#: The commands of each family, by its name.
FAMILIES: dict[str, Choices] = {
    "bitmaps": oracle_bitmaps.CHOICES,
    "hashes": oracle_hashes.CHOICES,
    "hyperloglog": oracle_hyperloglog.CHOICES,
    "lists": oracle_lists.CHOICES,
    "sets": oracle_sets.CHOICES,
    "streams": oracle_streams.CHOICES,
    "strings": [*share(9, strings), *share(4, counters)],
    "zsets": oracle_zsets.CHOICES,
}

#: What is put in a place where it may not belong.
junk = pick("", "abc", -1, 0, "NX", "GET", "KEEPTTL", "EX", "DB", "*", INT64_MAX)
connections = st.integers(0, CONNECTIONS - 1)
reached = st.sampled_from(REACHED[:3])


def local_commands(family: Choices) -> Choices:
    """Those that concern the selected database only."""
    return [
        *share(13, family),
        *share(1, strings),
        *share(7, generic),
        *share(6, expiry),
        *share(2, transactions),
        (0.2, command("FLUSHDB", options(option("ASYNC SYNC NOW"), most=1))),
    ]


@st.composite
def spoiled(draw: st.DrawFn, sound: SearchStrategy[Command]) -> Command:
    """A command with an argument too many, too few or replaced. Not those of the SCAN family, which
    must take one step, nor those that Redis 7.0 reads in another order than 7.4, nor XADD, whose id
    could become one of the clock, nor XGROUP, whose error has the client's spelling in Redis."""
    kept = (b"SCAN", b"BITCOUNT", b"BITPOS", b"XADD", b"XGROUP")
    args = list(draw(sound.filter(lambda command: not command[0].upper().endswith(kept))))
    at = draw(st.integers(1, len(args)))
    if draw(st.booleans()):
        del args[at : at + 1]
    if draw(st.booleans()):
        args.insert(at, draw(junk))
    return tuple(args)


class _Commands:
    """The strategies of one family's programs."""

    def __init__(self, family: Choices) -> None:
        local = local_commands(family)
        mixture = [*local, *share(1, talk), *share(3, across)]
        self.commands = weighted(*share(14, mixture), (1, spoiled(weighted(*mixture))))
        bursts = st.lists(st.lists(weighted(*local), max_size=8).map(tuple), min_size=2, max_size=3)
        batches = st.lists(self.commands, min_size=1, max_size=8).map(tuple)
        #: The first is what hypothesis makes of all that doesn't matter, on the way to leaving it
        #: out.
        self.singles: list[Choice[Step]] = [
            (1, st.builds(Leave, connections)),
            (20, st.builds(Send, connections, batches, st.booleans())),
            (2, st.builds(Burst, bursts.map(tuple))),
            (2, st.builds(Lapse, reached, distinct_keys)),
            (2, st.builds(Scan, reached, scan_options)),
            (1, st.builds(RandomKey, reached)),
        ]


@st.composite
def transaction(draw: st.DrawFn, parts: _Commands) -> list[Step]:
    """MULTI to EXEC, maybe with WATCH before it and somebody interfering."""
    connection = draw(connections)
    steps: list[Step] = []
    if draw(st.booleans()):
        steps.append(Send(connection, ((b"WATCH", *draw(several_keys)),)))
        steps.extend(draw(st.lists(weighted(*parts.singles), max_size=2)))
    body = draw(st.lists(parts.commands, max_size=6))
    end = draw(pick("EXEC", "EXEC", "exec", "DISCARD"))
    steps.append(Send(connection, ((b"MULTI",), *body, (end,))))
    return steps


def alone(choices: Sequence[Choice[Step]]) -> list[Choice[list[Step]]]:
    """The same, each step as a list."""
    return [(weight, step.map(lambda step: [step])) for weight, step in choices]


def programs(family: str, *, restarts: bool) -> SearchStrategy[list[Step]]:
    """Some thirty steps; `restarts`: kvserver's among them, which take long."""
    parts = _Commands(FAMILIES[family])
    restart = st.builds(Restart, st.booleans())
    singles = [*parts.singles, (0.5, restart)] if restarts else parts.singles
    step = weighted(*alone(singles), (12, transaction(parts)))
    # One list would seldom be long: hypothesis prefers few elements.
    lists = st.tuples(*[st.lists(step)] * 4)
    return lists.map(lambda lists: [s for part in lists for steps in part for s in steps])
