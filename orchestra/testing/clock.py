"""A clock that is set by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestra.clock import from_micros, micros

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self._start = now
        self._now = now

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start) / 1_000_000

    @property
    def moment(self) -> datetime:
        """The time that it shows."""
        return from_micros(self._now)

    def advance(self, duration: timedelta) -> None:
        """Move the clock, forward or back, as a machine's wall clock may."""
        self._now += micros(duration)
