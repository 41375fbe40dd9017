"""The instances that a node owns, and which of them it steps when."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from orchestra.engine.owned import OwnedInstance

__all__ = ["Pressure", "RunQueue"]

_SPARE_TIMERS: Final = 64


class RunQueue:
    """The owned instances by id: the ready ones in order, and timers for the others.

    Instants are microseconds.
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
        """Return an instance, if this node owns it."""
        return self._instances.get(instance_id)

    def holds(self, instance: OwnedInstance) -> bool:
        """Return whether this very object is in the queue: not dropped, and not claimed anew."""
        return self._instances.get(instance.instance_id) is instance

    def put(self, instance: OwnedInstance) -> None:
        """Add an instance."""
        self._instances[instance.instance_id] = instance

    def remove(self, instance_id: str) -> None:
        """Remove an instance."""
        self._instances.pop(instance_id, None)
        self._ready.pop(instance_id, None)

    def clear(self) -> None:
        """Remove all instances."""
        self._instances.clear()
        self._ready.clear()
        self._timers.clear()

    # --- ready instances ---

    @property
    def has_ready(self) -> bool:
        """Whether an instance is ready."""
        return bool(self._ready)

    def make_ready(self, instance_id: str) -> None:
        """Put an instance behind those that are ready already."""
        self._ready[instance_id] = None

    def next_ready(self) -> OwnedInstance | None:
        """Pop the next instance to step."""
        while self._ready:
            instance_id = next(iter(self._ready))
            del self._ready[instance_id]
            instance = self._instances.get(instance_id)
            if instance is not None:
                return instance
        return None

    @property
    def ready_count(self) -> int:
        """How many instances are ready."""
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
        """Yield the instances that are not ready, the longest owned first."""
        return (
            instance
            for instance_id, instance in self._instances.items()
            if instance_id not in self._ready
        )

    # --- timers ---

    @property
    def next_timer(self) -> int | None:
        """When the earliest timer fires."""
        return self._timers[0][0] if self._timers else None

    def arm(self, instance: OwnedInstance, instant: int) -> None:
        """Make an instance ready at that instant at the latest.

        An instance has few entries in the heap, however often it is stepped.
        """
        if instance.armed is not None and instance.armed <= instant:
            return  # it is stepped before, and armed again then
        instance.armed = instant
        heapq.heappush(self._timers, (instant, instance.instance_id))
        if len(self._timers) > 2 * len(self._instances) + _SPARE_TIMERS:
            armed = (
                (instance.armed, instance.instance_id) for instance in self._instances.values()
            )
            self._timers = [(at, instance_id) for at, instance_id in armed if at is not None]
            heapq.heapify(self._timers)

    def put_back(self, by: int, since: int, now: int) -> None:
        """Correct all timers and instances after the store's clock was put back."""
        self._timers = [(instant - by, instance_id) for instant, instance_id in self._timers]
        for instance in self._instances.values():
            instance.put_back(by, since, now)

    def wake_due(self, now: int) -> None:
        """Make the instances ready whose timers are due."""
        while self._timers and self._timers[0][0] <= now:
            instant, instance_id = heapq.heappop(self._timers)
            instance = self._instances.get(instance_id)
            if instance is not None:
                self._ready[instance_id] = None
                if instance.armed == instant:
                    instance.armed = None


class Pressure:
    """Makes instances give up their places while others are due and this node has no place for
    them.

    One gives up its place in the first cycle, and twice as many in each cycle after that, until
    they are enough. An instance that is stepped anyway gives up its place in the write of that
    step. If these are too few, waiting instances are stepped for it: the longest owned first, those
    with many activities last.

    Args:
        most: how many give up their place in one cycle, at most.
    """

    def __init__(self, run_queue: RunQueue, most: int) -> None:
        self._run_queue = run_queue
        self._most = most
        self._places = 0
        self.left: int = 0
        """How many more should give up their place in this cycle."""

    def begin(self, *, is_pressed: bool) -> None:
        """Begin a cycle, and choose the instances that give up their places."""
        if not is_pressed:
            self._places = self.left = 0
            return
        self._places = self.left = min(self._most, 2 * self._places or 1)
        missing = self._places - self._run_queue.ready_count
        if missing <= 0:
            return
        chosen = list(islice(self._light(), missing))
        if not chosen and not self._run_queue.ready_count:
            chosen = list(islice(self._run_queue.waiting(), missing))
        for instance in chosen:
            instance.yielding = True
            self._run_queue.make_ready(instance.instance_id)

    def _light(self) -> Iterable[OwnedInstance]:
        return (instance for instance in self._run_queue.waiting() if instance.attempts.few_running)

    def given_up(self) -> None:
        """Count a place that was given up."""
        self.left = max(0, self.left - 1)
