"""Time that stands still until the simulation moves it."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["MachineClock", "VirtualTime"]


class VirtualTime:
    """The true time of a simulated world, in microseconds."""

    moves: ClassVar[int] = 0
    """How often any world's time has moved on in this process."""

    def __init__(self, begin: int = 1_700_000_000_000_000) -> None:
        self.begin = begin
        self.now: int = begin

    def skip(self, seconds: float) -> None:
        """Move on."""
        assert seconds >= 0
        self.now += round(seconds * 1e6)
        VirtualTime.moves += 1


class MachineClock:
    """One machine's clocks. The wall may be hours off (protocol rule 25); the monotonic one begins
    anywhere.
    """

    def __init__(self, time: VirtualTime, *, off: int = 0, origin: float = 0.0) -> None:
        self._time = time
        self._off = off
        self._origin = origin

    def now(self) -> int:
        return self._time.now + self._off

    def monotonic(self) -> float:
        return self._origin + (self._time.now - self._time.begin) / 1e6
