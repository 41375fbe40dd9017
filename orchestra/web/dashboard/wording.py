"""Words for durations, instants and numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["counted", "duration", "instant"]

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def duration(of: timedelta) -> str:
    """Return a duration in its two largest units: ``3 min``, ``2 h 5 min``, ``4 d 3 h``."""
    seconds = abs(of.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = int(seconds)
    for (size, unit), (smaller, small) in zip(_UNITS, (*_UNITS[1:], (1, "s")), strict=True):
        if whole >= size:
            count, rest = divmod(whole, size)
            less = rest // smaller
            return f"{count:,} {unit}" + (f" {less} {small}" if less and count < 10 else "")
    raise AssertionError(seconds)  # pragma: no cover


def instant(at: datetime | None) -> str:
    """Return an instant in UTC, to the second."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 lap``, ``2 laps``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
