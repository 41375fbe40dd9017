"""The store's time, as a node knows it between replies (protocol rule 25)."""

from __future__ import annotations

from orchestra.clock import Clock

__all__ = ["StoreTime"]


class StoreTime:
    """The last time that the store has told, and the monotonic time since it arrived. In microseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = 0
        self._heard_at = 0.0

    @property
    def now(self) -> int:
        """A lower bound of the store's time, so that no timer is early (I7)."""
        return self._told + int((self._clock.monotonic() - self._heard_at) * 1e6)

    def hear(self, told: int) -> None:
        """Take note of a time that the store has told; the lower bound never goes back."""
        if told > self.now:
            self._told = told
            self._heard_at = self._clock.monotonic()
