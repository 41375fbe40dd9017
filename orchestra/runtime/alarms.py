"""Calls functions at given times, from one task on the event loop."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Final

import anyio

from orchestra.clock import Clock

__all__ = ["Alarm", "Alarms"]

_FEW: Final = 64


class Alarm:
    """A time in monotonic seconds, and the function to call then. :class:`Alarms` moves or stops
    it.
    """

    __slots__ = ("call", "live", "moment", "order")

    def __init__(self, moment: float, order: int, call: Callable[[], None]) -> None:
        self.moment: float = moment
        self.order: int = order
        self.call: Callable[[], None] = call
        self.live: bool = True

    def __lt__(self, other: Alarm) -> bool:
        return (self.moment, self.order) < (other.moment, other.order)


class Alarms:
    """The alarms of a runtime. It calls every function on the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[Alarm] = []
        self._order = count()
        self._stopped_ones = 0
        self._awake_at = math.inf
        self._sooner = anyio.Event()
        self._scope = anyio.CancelScope(shield=True)

    def at(self, moment: float, call: Callable[[], None]) -> Alarm:
        """Call a function at a time."""
        alarm = Alarm(moment, next(self._order), call)
        heapq.heappush(self._heap, alarm)
        if moment < self._awake_at:
            self._sooner.set()
        return alarm

    def stop_alarm(self, alarm: Alarm) -> None:
        """Cancel an alarm. Stopped alarms leave memory early, not only at their time."""
        if alarm.live:
            alarm.live = False
            self._stopped_ones += 1
            if self._stopped_ones > _FEW and self._stopped_ones > len(self._heap) // 2:
                self._heap = [entry for entry in self._heap if entry.live]
                heapq.heapify(self._heap)
                self._stopped_ones = 0

    async def run(self) -> None:
        """Call due functions, until it is stopped."""
        with self._scope:
            while True:
                self.call_due()
                self._awake_at = self.next_moment
                self._sooner = anyio.Event()
                wait = self._awake_at - self._clock.monotonic()
                with anyio.CancelScope(deadline=anyio.current_time() + wait):
                    await self._sooner.wait()

    def stop(self) -> None:
        """End the task."""
        self._scope.cancel()

    @property
    def next_moment(self) -> float:
        """When the next one is due; infinity: never."""
        while self._heap and not self._heap[0].live:
            heapq.heappop(self._heap)
            self._stopped_ones -= 1
        return self._heap[0].moment if self._heap else math.inf

    def call_due(self) -> None:
        """Call the functions whose time has come, in its order."""
        now = self._clock.monotonic()
        while self._heap and self._heap[0].moment <= now:
            alarm = heapq.heappop(self._heap)
            if alarm.live:
                alarm.live = False
                alarm.call()
            else:
                self._stopped_ones -= 1
