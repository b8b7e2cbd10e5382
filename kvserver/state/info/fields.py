"""What a section of INFO is made of, and how its values are written."""

from __future__ import annotations

from collections.abc import Iterable

#: Name -> value, without whatever would break the line.
Fields = dict[str, int | str]

_UNITS = "BKMGTP"


def zeros(*names: str) -> Fields:
    """Fields of Redis for what doesn't exist here, and so is never more than zero."""
    return dict.fromkeys(names, 0)


def ratio(part: float, whole: float) -> float:
    """A quotient; 0 when there is nothing to divide by."""
    return part / whole if whole else 0.0


def human(size: int) -> str:
    """Bytes with a unit, as bytesToHuman() of Redis writes them: 1.50M."""
    if abs(size) < 1024:
        return f"{size}B"
    power = min((abs(size).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size / 1024**power:.2f}{_UNITS[power]}"


def pairs(items: Iterable[tuple[str, int | str]]) -> str:
    """Several figures in one value: `calls=1,usec=2`."""
    return ",".join(f"{name}={value}" for name, value in items)
