"""How many instances give up their place, while others are due for which this node has none."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from orchestra.engine.owned import OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.stepping import HANDED_OVER

__all__ = ["Pressure"]


class Pressure:
    """The places that are given up in one step: one at first, and twice as many each time while
    that is not enough.

    An instance that is stepped anyway gives up its place in the write of this step. Only where
    these are too few, instances that wait are stepped for it: first those that have been here for
    the longest, last those for which many activities run.

    Args:
        most: how many give up their place in one step, at most.
    """

    def __init__(self, run_queue: RunQueue, most: int) -> None:
        self._run_queue = run_queue
        self._most = most
        self._places = 0
        self.left: int = 0
        """How many more are to give up their place in this step."""

    def begin(self, *, is_pressed: bool) -> None:
        """Begin a step, and choose who gives up a place."""
        if not is_pressed:
            self._places = self.left = 0
            return
        self._places = self.left = min(self._most, 2 * self._places or 1)
        wanted = self._places - self._run_queue.ready_count
        if wanted <= 0:
            return
        chosen = list(islice(self._light(), wanted))
        if not chosen and not self._run_queue.ready_count:
            chosen = list(islice(self._run_queue.waiting(), wanted))
        for instance in chosen:
            instance.yielding = True
            self._run_queue.make_ready(instance.instance_id)

    def _light(self) -> Iterable[OwnedInstance]:
        return (
            instance
            for instance in self._run_queue.waiting()
            if instance.attempts.running_count <= HANDED_OVER
        )

    def given_up(self) -> None:
        """Take note that an instance leaves."""
        self.left = max(0, self.left - 1)
