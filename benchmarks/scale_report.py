"""Plots and tables of what `scale` measured, for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks import report
from benchmarks.plot import Axis, Line, Panel, figure, plain, size_in_bytes
from benchmarks.points import Part, Point, load

SERVERS = ("kvserver", "redis-server")
RATE = Axis("operations a second")
MEMORY = Axis("MiB resident")
MIB = 1 << 20


class Topic(NamedTuple):
    """One plot with its table: what varies, and what is shown of it."""

    name: str
    title: str
    x: Axis
    panels: Callable[[Topic, list[Point]], list[Panel]]
    columns: tuple[str, ...] = ()


def _lines(points: Iterable[Point], value: Callable[[Point], float]) -> list[Line]:
    found = list(points)
    return [Line(s, [(p.x, value(p)) for p in found if p.server == s]) for s in SERVERS]


def _rates(topic: Topic, points: list[Point], *, y: Axis = RATE) -> list[Panel]:
    """One panel per test and pipeline."""
    kinds = list(dict.fromkeys((p.pipeline, p.test) for p in points))
    return [
        Panel(
            f"{test.upper()}, pipeline {pipeline}",
            topic.x,
            y,
            _lines(
                (p for p in points if (p.pipeline, p.test) == (pipeline, test)),
                lambda point: point.figures.rate,
            ),
        )
        for pipeline, test in kinds
    ]


def _peaks(points: list[Point]) -> list[Point]:
    """Of the points with the same x and server the one with the most memory."""
    most: dict[tuple[str, int], Point] = {}
    for point in points:
        key = (point.server, point.x)
        if key not in most or most[key].memory < point.memory:
            most[key] = point
    return list(most.values())


def _with_memory(topic: Topic, points: list[Point]) -> list[Panel]:
    memory = _lines(_peaks(points), lambda point: point.memory / MIB)
    return [*_rates(topic, points), Panel("Memory, at most", topic.x, MEMORY, memory)]


def _with_start(topic: Topic, points: list[Point]) -> list[Panel]:
    start = _lines(_peaks(points), lambda point: point.start)
    panel = Panel("Start-up time", topic.x, Axis("seconds"), start)
    return [*_with_memory(topic, points), panel]


def _linear(topic: Topic, points: list[Point]) -> list[Panel]:
    return _rates(topic, points, y=Axis("operations a second", log=False))


CLIENTS = Topic("clients", "Clients", Axis("clients"), _with_memory, ("memory",))
VALUES = Topic(
    "values", "Length of values", Axis("bytes", show=size_in_bytes), _with_memory, ("memory",)
)
KEYS = Topic("keys", "Number of keys", Axis("keys"), _with_start, ("memory", "start"))
REPLICAS = Topic(
    "replicas", "Replicas", Axis("replicas", log=False), _linear, ("replica CPU us/op", "lag")
)
TOPICS = (CLIENTS, VALUES, KEYS, REPLICAS)


def table(topic: Topic, points: list[Point]) -> str:
    """All points, both servers in one row."""
    cases = list(dict.fromkeys((p.pipeline, p.test, p.x) for p in points))
    by_case = {(p.pipeline, p.test, p.x, p.server): p for p in points}
    more = [f"{name}{server}" for name in topic.columns for server in ("", ", redis")]
    head = ["test", "pipeline", topic.x.label, "kvserver ops/s", "redis-server ops/s", "ratio"]
    head += ["CPU us/op", "redis CPU us/op", "p99 ms", "redis p99", *more]
    lines = [_cells(head), "|---" * len(head) + "|"]
    for case in cases:
        ours, theirs = (by_case[(*case, server)] for server in SERVERS)
        extra = [_extra(name, point) for name in topic.columns for point in (ours, theirs)]
        lines.append(_cells([*_case(topic, ours), *_figures(ours, theirs), *extra]))
    return "\n".join(lines)


def _case(topic: Topic, point: Point) -> list[str]:
    x = topic.x.show(point.x) if topic.x.show is not plain else f"{point.x:,}"
    return [point.test.upper(), str(point.pipeline), x]


def _figures(ours: Point, theirs: Point) -> list[str]:
    a, b = ours.figures, theirs.figures
    rates = [f"{a.rate:,.0f}", f"{b.rate:,.0f}", f"**{a.rate / b.rate:.2f}**"]
    return [*rates, f"{a.cpu:.1f}", f"{b.cpu:.1f}", f"{a.p99:.2f}", f"{b.p99:.2f}"]


def _extra(name: str, point: Point) -> str:
    """What only some plots have."""
    if name == "memory":
        return f"{point.memory / MIB:,.0f} MiB"
    if name == "start":
        return f"{point.start:.2f} s"
    if name == "lag":
        return " / ".join(f"{most:,}" for most in point.lag) if point.lag else ""
    return f"{point.replica_cpu:.1f}" if point.replica_cpu else ""


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def body(topic: Topic, part: Part) -> str:
    """What stands in docs/benchmarks.md."""
    image = f"![{topic.title}: kvserver and redis-server](benchmarks/{topic.name}.svg)"
    details = (
        f"<details><summary>The numbers</summary>\n\n{table(topic, part.points)}\n\n</details>"
    )
    held = f"{_held(part.points)}\n\n" if topic is KEYS else ""
    return f"{image}\n\n{part.measured}\n\n{held}{details}"


def _held(points: list[Point]) -> str:
    """What is left of the rate with the most keys."""
    rates: dict[str, list[float]] = {}
    for point in sorted(points, key=lambda point: point.x):
        if point.server == SERVERS[0]:
            name = f"{point.test.upper()}, pipeline {point.pipeline}"
            rates.setdefault(name, []).append(point.figures.rate)
    parts = [f"{name}: **{found[-1] / found[0]:.2f}**" for name, found in rates.items()]
    return f"kvserver's rate with the most keys by that with the fewest: {'; '.join(parts)}."


def write() -> None:
    """Make the plots and tables of everything that was measured once."""
    for topic in TOPICS:
        part = load(topic.name)
        if part is not None:
            panels = topic.panels(topic, part.points)
            (report.DATA / f"{topic.name}.svg").write_text(figure(topic.title, panels))
            report.write(f"scale-{topic.name}", body(topic, part))
