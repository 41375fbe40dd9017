"""Ends of background children that an earlier lap has received.

No message tells them again. So where code awaits a handle of an earlier lap, and its end is not in
the inbox, the child's own row is read: once for each wait, and never while a message can come.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from orchestra.codec import EMPTY, as_payload
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.steps.step import Step
from orchestra.errors import StoreError
from orchestra.events import ChildAwaited
from orchestra.levels import Unknown
from orchestra.store.changes import Write
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import EndName, MessageRow
from orchestra.store.port import Directory

__all__ = ["EarlierEnds"]

_AGAIN: Final = 1_000_000
"""Microseconds until a child is looked up again that could not be read."""


_Ends = dict[str, MessageRow | None]
"""Ends by the links of the children; ``None``: not stored any more."""


class _StillOpen(Exception):
    """A child has not ended. When it does, a message tells it."""


class EarlierEnds:
    """Finds the ends that are awaited and that no message will tell.

    Args:
        directory: what the children's rows are read from.
        run_queue: the instances of this node.
    """

    def __init__(self, directory: Directory, run_queue: RunQueue) -> None:
        self._directory = directory
        self._run_queue = run_queue
        self._found: list[tuple[OwnedInstance, _Ends]] = []

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
            found = self._ends_of(execution.unsure_ends, step.first)
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
            for link, end in ends.items():
                if instance.inbox.head(EndName(link)) is None:
                    execution.find_end(link, end)
            self._run_queue.make_ready(instance.instance_id)

    def _ends_of(self, waits: Iterable[ChildAwaited], first: int) -> _Ends:
        found: _Ends = {}
        for wait in waits:
            if _started_in(wait) < first:
                with suppress(_StillOpen):
                    found[wait.link] = self._end_of(wait)
        return found

    def _end_of(self, wait: ChildAwaited) -> MessageRow | None:
        """Return the end of a child, as it was told once; ``None``: it is not stored any more.

        Raises:
            _StillOpen: it has not ended.
            StoreError: it cannot be read now.
        """
        child = self._directory.get(wait.child_id)
        if child is None or str(child.row.parent) != wait.link:
            return None
        status, closed = child.status, child.execution
        if status is Status.OPEN or isinstance(status, Unknown):
            raise _StillOpen
        end = closed.output if status is Status.COMPLETED else as_payload(closed.error or b"")
        kind = MessageKind.BACKGROUND_CHILD_ENDED
        return MessageRow(0, wait.link, wait.child_id, end or EMPTY, 0, kind, status.value)


def _started_in(wait: ChildAwaited) -> int:
    """Return the execution that has started a child. If that is in the step's own write, the child
    is not there yet, and no lap can have received its end.
    """
    return int(wait.link.rsplit("/", 2)[1])
