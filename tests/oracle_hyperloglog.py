"""Generated commands on HyperLogLogs, for the oracle tests. Their keys are mostly their own: a
string that another command changed is seldom one."""

from __future__ import annotations

from oracle_strategies import Choices, command, pick, several, weighted
from oracle_strategies import keys as any_keys

keys = weighted((9, pick("h1", "h2", "h3")), (1, any_keys))
elements = pick(*range(40), "", b"\x00\xff\r\n", "e" * 70)

CHOICES: Choices = [
    (6, command("PFADD", keys, several(elements, 0, 4))),
    (3, command("PFCOUNT", keys)),
    (2, command("PFCOUNT", several(keys, 1, 3))),
    (3, command("PFMERGE", keys, several(keys, 0, 3))),
    (1, command("PFDEBUG|ENCODING PFDEBUG|DECODE PFDEBUG|TODENSE PFDEBUG|NOPE", keys)),
    (3, command("GET STRLEN DEL", keys)),
]
