"""Lists, counts, sizes and durations as findings show them."""

from __future__ import annotations

from orchestra.store.diagnosis import LISTED

__all__ = ["activities_of", "ago", "count_of", "duration_of", "first_of", "size_of"]


def first_of(lines: list[str]) -> tuple[str, ...]:
    """Return the first lines, and how many more there are."""
    more = [f"and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return (*lines[:LISTED], *more)


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun: ``3 instances``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def activities_of(number: int) -> str:
    """Return a number of activities."""
    return f"{number:,} {'activity' if number == 1 else 'activities'}"


def size_of(size: int) -> str:
    """Return a number of bytes in a unit that fits it."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def ago(micros: int) -> str:
    """Return how long ago something was; a negative number is in the future."""
    return f"{duration_of(micros)} ago" if micros >= 0 else f"{duration_of(-micros)} in the future"


def duration_of(micros: int) -> str:
    """Return a duration in a unit that fits it."""
    seconds = micros / 1e6
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} days"
