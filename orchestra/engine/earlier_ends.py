"""Ends of background children that an earlier lap has received.

No message tells them again. So where code awaits a handle of an earlier lap, and its end is not in
the inbox, the child's own row is read: once for each wait, and never while a message can come.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestra.engine.owned import OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.steps.step import Step
from orchestra.errors import ErrorInfo, StoreError
from orchestra.events import ChildAwaited, ChildEnded, error_from_bytes
from orchestra.levels import Unknown
from orchestra.replay import GONE
from orchestra.store.changes import Write
from orchestra.store.kinds import Status
from orchestra.store.messages import EndName
from orchestra.store.port import Directory

__all__ = ["EarlierEnds"]

_AGAIN: Final = 1_000_000
"""Microseconds until a child is looked up again that could not be read."""


class EarlierEnds:
    """Finds the ends that are awaited and that no message will tell.

    Args:
        directory: what the children's rows are read from.
        run_queue: the instances of this node.
    """

    def __init__(self, directory: Directory, run_queue: RunQueue) -> None:
        self._directory = directory
        self._run_queue = run_queue
        self._found: list[tuple[OwnedInstance, list[ChildEnded]]] = []

    @property
    def has_any(self) -> bool:
        """Whether ends were found that code has not got yet. The news must be read before."""
        return bool(self._found)

    def look(self, instance: OwnedInstance, write: Write | None, step: Step) -> Write | None:
        """Read the children whose ends an earlier lap may have received. Return the write of the
        step: with ends that were found, the instance stays on this node.

        A child that ends later tells it by a message.
        """
        execution = instance.execution
        if execution is None or not execution.unsure_ends or step.hold is not None:
            return write
        if step.status is not Status.OPEN or instance.releasing or instance.to_read:
            return write
        try:
            found = [
                end
                for wait in execution.unsure_ends
                if _started_in(wait) < step.first and (end := self._end_of(wait))
            ]
        except StoreError:  # the next steps look again
            again = step.now + _AGAIN
            step.wake_at = again if step.wake_at is None else min(step.wake_at, again)
        else:
            execution.forget_unsure_ends()
            if not found:
                return write
            self._found.append((instance, found))
        step.retain = True
        if write is None:
            return None
        return replace(write, state=replace(write.state, owner=write.owner))

    def give(self) -> None:
        """Give ends that were found to the code that awaits them, unless a message tells them: the
        news were read since.
        """
        found, self._found = self._found, []
        for instance, ends in found:
            execution = instance.execution
            if execution is None or not self._run_queue.holds(instance):
                continue  # who loads it looks again
            for end in ends:
                if instance.inbox.head(EndName(end.link)) is None:
                    execution.find_end(end)
            self._run_queue.make_ready(instance.instance_id)

    def _end_of(self, wait: ChildAwaited) -> ChildEnded | None:
        """Return the end of a child, as a wait without a message gets it; ``None``: it has not
        ended.
        """
        end = ChildEnded(0, 0, wait.id, wait.child_id, wait.link, GONE, 0)
        child = self._directory.get(wait.child_id)
        if child is None or str(child.row.parent) != wait.link:
            return end
        status, closed = child.status, child.execution
        if status is Status.OPEN or isinstance(status, Unknown):
            return None
        name = status.name.lower()
        if status is Status.COMPLETED and closed.output is not None:
            return replace(end, status=name, result=closed.output)
        cause = (
            error_from_bytes(closed.error) if closed.error else ErrorInfo(f"orchestra.{name}", "")
        )
        return replace(end, status=name, cause=cause)


def _started_in(wait: ChildAwaited) -> int:
    """Return the execution that has started a child. If that is in the step's own write, the child
    is not there yet, and no lap can have received its end.
    """
    return int(wait.link.rsplit("/", 2)[1])
