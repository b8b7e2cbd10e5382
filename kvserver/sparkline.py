"""A sequence of numbers as a graph of characters. It must not know what they measure.

Source: Redis 7.4's sparkline.c, with SPARKLINE_FILL: the reply of LATENCY GRAPH is the same to the
byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

#: The top of a column, from low to high; below it is FILL.
_TOPS: Final = "_o#"
_FILL: Final = "|"

#: (value, what is written below it, from top to bottom)
Sample = tuple[int, str]


def render(samples: Sequence[Sample], columns: int, rows: int) -> str:
    """The graph, `rows` high; what doesn't fit into `columns` follows below."""
    if not samples:
        return ""
    values = [value for value, _ in samples]
    low, high = min(values), max(values)
    steps = rows * len(_TOPS)
    # How many of `steps` each column is high.
    heights = [min((v - low) * steps // max(high - low, 1), steps - 1) for v in values]
    parts = []
    for start in range(0, len(samples), columns):
        labels = [label for _, label in samples[start : start + columns]]
        parts.append(_part(heights[start : start + columns], labels, rows))
    return "\n".join(parts)


def _part(heights: list[int], labels: list[str], rows: int) -> str:
    lines = []
    for row in range(rows):
        bottom = (rows - row - 1) * len(_TOPS)
        lines.append("".join(_cell(height - bottom) for height in heights))
    lines.append(" " * len(heights))
    lines += ["".join(column) for column in zip_longest(*labels, fillvalue=" ")]
    return "".join(line + "\n" for line in lines)


def _cell(above: int) -> str:
    """What a row shows of a column that rises so many steps above its bottom."""
    if above < 0:
        return " "
    return _TOPS[above] if above < len(_TOPS) else _FILL
