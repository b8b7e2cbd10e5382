"""Plots as SVG, in plain Python: a figure of panels with lines over logarithmic or linear axes.

It knows nothing of what is plotted. Lines differ by marker as well as by colour, and the figure
has a background of its own, so that it can be read in light and in dark mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

Point = tuple[float, float]

WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 34, 46
HEAD = 58
#: About the width of a letter.
LETTER = 6.2
#: A panel has about as many lines across.
LINEAR_TICKS = 5
STYLE = """
.back { fill: #ffffff } .line { fill: none; stroke-width: 2 } .axis { stroke: #57606a }
.grid { stroke: #d0d7de; stroke-width: 0.6 }
text { fill: #24292f; font: 11px system-ui, sans-serif }
.title { font-weight: 600; font-size: 13px }
.s0 { stroke: #0969da; fill: #0969da } .s1 { stroke: #bc4c00; fill: #bc4c00 }
.s2 { stroke: #1a7f37; fill: #1a7f37 } .s3 { stroke: #8250df; fill: #8250df }
.s1.line, .s3.line { stroke-dasharray: 6 3 } .line { fill: none }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } .axis { stroke: #9198a1 } .grid { stroke: #30363d } text { fill: #e6edf3 }
.s0 { stroke: #58a6ff; fill: #58a6ff } .s1 { stroke: #f0883e; fill: #f0883e }
.s2 { stroke: #3fb950; fill: #3fb950 } .s3 { stroke: #bc8cff; fill: #bc8cff } .line { fill: none }
}
"""


def plain(value: float) -> str:
    """A number for an axis: 20k, 3M, 0.5."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def size_in_bytes(value: float) -> str:
    """A number of bytes for an axis: 64 B, 4 KiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g} B"


class Axis(NamedTuple):
    """What it shows, and how."""

    label: str
    log: bool = True
    show: Callable[[float], str] = plain


class Line(NamedTuple):
    """One series."""

    name: str
    points: Sequence[Point]


class Panel(NamedTuple):
    """One diagram."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]


class Scale(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if low == high:
            return (self.start + self.end) / 2
        if self.log:
            low, high, value = log10(low), log10(high), log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def steps_below(value: float) -> float:
    """The largest of 1, 2, 5, 10, 20 ... that isn't above the value."""
    decade: float = 10.0 ** floor(log10(value))
    return max(step * decade for step in (1, 2, 5) if step * decade <= value * (1 + 1e-9))


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 ... from at or below the lowest to at or above the highest value; of many only
    the powers of ten."""
    ticks, factors = [steps_below(low)], (2.0, 2.5, 2.0)
    while ticks[-1] < high * (1 - 1e-9) or len(ticks) < 2:
        leading = round(ticks[-1] / 10.0 ** floor(log10(ticks[-1]) + 1e-9))
        ticks.append(ticks[-1] * factors[(1, 2, 5).index(leading)])
    if len(ticks) > 9:
        lowest, highest = floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9)
        return [10.0**power for power in range(lowest, highest + 1)]
    return ticks


def linear_ticks(high: float) -> list[float]:
    """From 0 to at or above the highest value."""
    high = high or 1.0
    rough = high / LINEAR_TICKS
    decade = 10.0 ** floor(log10(rough))
    step = next(f * decade for f in (1, 2, 5, 10) if f * decade >= rough)
    return [step * n for n in range(ceil(high / step - 1e-9) + 1)]


def figure(title: str, panels: Sequence[Panel], columns: int = 2) -> str:
    """The whole SVG."""
    columns = min(columns, len(panels))
    width, height = columns * WIDTH, HEAD + ceil(len(panels) / columns) * HEIGHT
    names = [line.name for line in max((panel.lines for panel in panels), key=len)]
    body = [
        f'<g transform="translate({n % columns * WIDTH} {HEAD + n // columns * HEIGHT})">'
        + "\n".join(_panel(panel))
        + "</g>"
        for n, panel in enumerate(panels)
    ]
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="back" width="{width}" height="{height}" rx="6"/>',
        _text(16, 24, title, "start", "title"),
    ]
    return "\n".join([*head, *_legend(names), *body, "</svg>\n"])


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], 16.0
    for index, name in enumerate(names):
        parts.append(f'<path class="line s{index}" d="M{x} 44h28"/>')
        parts += [_marker(index, x + 14, 44), _text(x + 34, 48, name, "start")]
        x += 60 + LETTER * len(name)
    return parts


def _panel(panel: Panel) -> list[str]:
    points = [point for line in panel.lines for point in line.points]
    xs, ys = sorted({x for x, _ in points}), [y for _, y in points]
    ticks = log_ticks(min(ys), max(ys)) if panel.y.log else linear_ticks(max(ys))
    x = Scale(xs[0], xs[-1], LEFT + 10, WIDTH - RIGHT - 10, panel.x.log)
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP, panel.y.log)
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts = [
        _text(LEFT, 20, panel.title, "start", "title"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, panel.x.label),
        f'<g transform="rotate(-90 14 {middle})">{_text(14, middle, panel.y.label)}</g>',
        f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
    ]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y(tick) + 4, panel.y.show(tick), "end"))
    parts += _x_ticks(panel.x, x, xs)
    for index, line in enumerate(panel.lines):
        parts += _line(index, [(x(px), y(py)) for px, py in line.points])
    return parts


def _x_ticks(axis: Axis, scale: Scale, values: Sequence[float]) -> list[str]:
    """A tick where something was measured; labels where there is room, the last one always."""
    parts, free = [], float("inf")
    for value in reversed(values):
        at, label = scale(value), axis.show(value)
        parts.append(f'<path class="axis" d="M{at:.1f} {HEIGHT - BOTTOM}v4"/>')
        half = len(label) * LETTER / 2
        if at + half <= free:
            parts.append(_text(at, HEIGHT - BOTTOM + 17, label))
            free = at - half - LETTER
    return parts


def _line(index: int, points: Sequence[Point]) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    markers = [_marker(index, x, y) for x, y in points]
    return [f'<path class="line s{index}" d="M{path}"/>', *markers]


def _marker(index: int, x: float, y: float) -> str:
    if index % 2:
        return f'<rect class="s{index}" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
    return f'<circle class="s{index}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", name: str = "") -> str:
    kind = f' class="{name}"' if name else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
