"""How fast instances start and end: from summaries that pages have read, kept for a while."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fastapi import Request

from orchestra.client.summaries import StoreSummary

__all__ = ["Rate", "Rates", "rates_of"]

_KEPT: Final = timedelta(minutes=15)
_APART: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Rate:
    """How many instances have started and ended within a time. Deleted ones count for neither."""

    over: timedelta
    started: int
    ended: int

    @property
    def ended_a_minute(self) -> float:
        """Instances that ended, per minute."""
        return self.ended / self.over.total_seconds() * 60

    @property
    def started_a_minute(self) -> float:
        """Instances that started, per minute."""
        return self.started / self.over.total_seconds() * 60


class Rates:
    """Remembers the numbers of the last quarter of an hour, one every five seconds at most."""

    def __init__(self) -> None:
        self._samples: deque[tuple[datetime, int, int]] = deque()

    def after(self, summary: StoreSummary) -> Rate | None:
        """Take a summary into account, and return the rate up to it; ``None``: it is the first for
        a while.
        """
        ended = sum(summary.ended.values())
        samples, now = self._samples, summary.at
        while samples and (now - samples[0][0] > _KEPT or now < samples[0][0]):
            samples.popleft()
        if not samples or now - samples[-1][0] >= _APART:
            samples.append((now, summary.total, ended))
        at, total, ended_then = samples[0]
        if now - at < _APART:
            return None
        return Rate(now - at, max(0, summary.total - total), max(0, ended - ended_then))


def rates_of(request: Request) -> Rates:
    """Return what the application remembers."""
    state = request.app.state
    if not hasattr(state, "rates"):
        state.rates = Rates()
    rates: Rates = state.rates
    return rates
