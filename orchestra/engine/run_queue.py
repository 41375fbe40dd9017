"""The instances that a node owns, and which of them is to be looked at when."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from orchestra.engine.owned import OwnedInstance

__all__ = ["RunQueue"]

_SPARE_TIMERS: Final = 64


class RunQueue:
    """Desks by instance id; those that are ready, in order; and timers for the others. Instants are
    microseconds.
    """

    def __init__(self) -> None:
        self._instances: dict[str, OwnedInstance] = {}
        self._ready: dict[str, None] = {}
        self._timers: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[OwnedInstance]:
        return iter(list(self._instances.values()))

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._instances

    def get(self, instance_id: str) -> OwnedInstance | None:
        """Return the desk of an instance, if it is owned."""
        return self._instances.get(instance_id)

    def holds(self, instance: OwnedInstance) -> bool:
        """Return whether this very desk is on the agenda: not forgotten since, and not claimed
        anew.
        """
        return self._instances.get(instance.instance_id) is instance

    def put(self, instance: OwnedInstance) -> None:
        """Take an instance on."""
        self._instances[instance.instance_id] = instance

    def remove(self, instance_id: str) -> None:
        """Take an instance off."""
        self._instances.pop(instance_id, None)
        self._ready.pop(instance_id, None)

    def clear(self) -> None:
        """Take all off."""
        self._instances.clear()
        self._ready.clear()
        self._timers.clear()

    # --- what is to be stepped ---

    @property
    def has_ready(self) -> bool:
        """Whether an instance is to be stepped now."""
        return bool(self._ready)

    def make_ready(self, instance_id: str) -> None:
        """Have an instance stepped, after those that are ready already."""
        self._ready[instance_id] = None

    def next_ready(self) -> OwnedInstance | None:
        """Return the desk that is to be stepped next. It is ready no more."""
        while self._ready:
            instance_id = next(iter(self._ready))
            del self._ready[instance_id]
            instance = self._instances.get(instance_id)
            if instance is not None:
                return instance
        return None

    @property
    def ready_count(self) -> int:
        """How many instances are to be stepped now."""
        return len(self._ready)

    @property
    def has_any(self) -> bool:
        """Whether this node owns an instance."""
        return bool(self._instances)

    @property
    def has_waiting(self) -> bool:
        """Whether an owned instance waits for something."""
        return len(self._ready) < len(self._instances)

    def waiting(self) -> Iterator[OwnedInstance]:
        """Yield the desks that wait for something; the one that came first comes first."""
        return (
            instance
            for instance_id, instance in self._instances.items()
            if instance_id not in self._ready
        )

    # --- what is to be stepped later ---

    @property
    def next_timer(self) -> int | None:
        """The earliest instant at which an instance is to be looked at."""
        return self._timers[0][0] if self._timers else None

    def arm(self, instance: OwnedInstance, instant: int) -> None:
        """Have the desk looked at by then. A desk has few entries in the heap, however often it is
        stepped.
        """
        if instance.armed is not None and instance.armed <= instant:
            return  # it is looked at before, and armed again then
        instance.armed = instant
        heapq.heappush(self._timers, (instant, instance.instance_id))
        if len(self._timers) > 2 * len(self._instances) + _SPARE_TIMERS:
            armed = (
                (instance.armed, instance.instance_id) for instance in self._instances.values()
            )
            self._timers = [(at, instance_id) for at, instance_id in armed if at is not None]
            heapq.heapify(self._timers)

    def put_back(self, by: int, since: int, now: int) -> None:
        """Take note that the store's clock was put back: what is to be looked at later is looked at
        as much earlier.
        """
        self._timers = [(instant - by, instance_id) for instant, instance_id in self._timers]
        for instance in self._instances.values():
            instance.put_back(by, since, now)

    def wake_due(self, now: int) -> None:
        """Make ready whose time has come."""
        while self._timers and self._timers[0][0] <= now:
            instant, instance_id = heapq.heappop(self._timers)
            instance = self._instances.get(instance_id)
            if instance is not None:
                self._ready[instance_id] = None
                if instance.armed == instant:
                    instance.armed = None
