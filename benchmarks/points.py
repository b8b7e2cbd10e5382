"""What was measured for the plots, and its JSON beside them in docs/benchmarks/."""

from __future__ import annotations

import json
from typing import NamedTuple

from benchmarks.measure import Figures
from benchmarks.report import DATA, measured


class Point(NamedTuple):
    """One load on one server. `x` is what varies: clients, bytes, keys or replicas."""

    server: str
    test: str
    pipeline: int
    x: int
    figures: Figures
    #: The most resident memory, in bytes, and the time to start, in seconds, where they were
    #: measured.
    memory: int = 0
    start: float = 0.0
    #: CPU time per operation of the last replica, in us, and how far it was behind at most, in
    #: positions, in the first half of the run and in the second.
    replica_cpu: float = 0.0
    lag: tuple[int, int] | None = None


class Part(NamedTuple):
    """All points of one plot, and the sentence that says when and where they were measured."""

    measured: str
    points: list[Point]


def save(name: str, points: list[Point]) -> None:
    """Write docs/benchmarks/<name>.json; figures are rounded to what they are worth."""
    DATA.mkdir(exist_ok=True)
    rows = [json.dumps(_rounded(point)) for point in points]
    text = f'{{"measured": {json.dumps(measured())}, "points": [\n' + ",\n".join(rows) + "\n]}\n"
    (DATA / f"{name}.json").write_text(text)


def _rounded(point: Point) -> dict[str, object]:
    fields = point._asdict()
    fields["figures"] = [float(f"{figure:.4g}") for figure in point.figures]
    for name in ("start", "replica_cpu"):
        fields[name] = float(f"{fields[name]:.3g}")
    return {name: value for name, value in fields.items() if value or name == "x"}


def load(name: str) -> Part | None:
    """What was measured last; None if nothing was."""
    path = DATA / f"{name}.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text())
    return Part(data["measured"], [_point(row) for row in data["points"]])


def _point(row: dict[str, object]) -> Point:
    figures, lag = row.pop("figures"), row.pop("lag", None)
    assert isinstance(figures, list) and (lag is None or isinstance(lag, list))
    return Point(**row, figures=Figures(*figures), lag=(lag[0], lag[1]) if lag else None)  # type: ignore[arg-type]
