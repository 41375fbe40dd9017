"""The time of an execution, and its timers."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final, Protocol

from orchestra.events import CommandEvent

__all__ = ["ExecutionTime"]

_PUT_BACKS: Final = 8
_TOLERANCE: Final = 1_000_000
"""How many microseconds a turn's time may lie behind the execution's: nodes know the store's time
to a reply.
"""


class _Pending(Protocol):
    @property
    def event(self) -> CommandEvent: ...


class ExecutionTime:
    """The time of an execution, in microseconds. It never goes back.

    If the store's clock is put back while the execution is under way, the execution is *ahead* of
    the store from then on, and its time goes on (rule 25).

    Args:
        pending: the commands without a result, timers among them.
    """

    __slots__ = ("_instants", "_pending", "ahead", "now", "put_backs", "timers")

    def __init__(self, pending: Mapping[int, _Pending]) -> None:
        self._pending = pending
        self.now: int = 0
        self.ahead: int = 0
        """By how much its time is ahead of the store's."""
        self.put_backs: tuple[tuple[int, int], ...] = ()
        """By how much the store's clock was put back since the execution began, and since when, on
        its own time, the clock was wrong.
        """
        self.timers: list[tuple[int, int]] = []
        """When timers fire, on its own time, and their event ids: a heap."""
        self._instants: dict[int, None] = {}
        """The timers until an instant. They fire by the store's time, whatever its own time."""

    def add(self, due: int, event_id: int, *, is_instant: bool) -> None:
        """Add a timer."""
        if is_instant:
            self._instants[event_id] = None
            due += self.ahead
        heapq.heappush(self.timers, (due, event_id))

    def pop(self) -> tuple[int, int]:
        """Remove the next timer. Return when it is due on the store's clock, and its event id."""
        due, event_id = heapq.heappop(self.timers)
        self._instants.pop(event_id, None)
        return due - self.ahead, event_id

    @property
    def next_timer(self) -> int | None:
        """When the next pending timer is due, on its own time."""
        while self.timers and self.timers[0][1] not in self._pending:
            self._instants.pop(heapq.heappop(self.timers)[1], None)
        return self.timers[0][0] if self.timers else None

    @property
    def next_due(self) -> int | None:
        """When the next pending timer is due, on the store's clock."""
        due = self.next_timer
        return None if due is None else due - self.ahead

    def go_on(self, now: int) -> None:
        """Go on to a time of the store's clock, also if that was put back."""
        moment = now + self.ahead
        if moment < self.now - _TOLERANCE:
            # It was put back by this at least. Timers that lie in its future came from the wrong
            # clock.
            self.put_back(self.now - moment, moment)
        self.now = max(self.now, now + self.ahead)

    def put_back(self, by: int, since: int) -> None:
        """Take in that the store's clock was put back.

        Timers that were set before ``since``, on its own time, come from the clock as it is now.
        They fire as much later on its own time, and so do timers until an instant.
        """
        self.put_backs = (*self.put_backs, (by, since))[-_PUT_BACKS:]
        self.ahead += by
        for number, (at, source) in enumerate(self.timers):
            command = self._pending.get(source)
            if source in self._instants or (command is not None and command.event.at < since):
                self.timers[number] = at + by, source
        heapq.heapify(self.timers)
