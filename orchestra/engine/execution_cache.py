"""Executions that are kept in memory although their instance was released: a wake-up costs a step,
and not a replay.

What leaves memory is closed later, where code may run: its ``finally`` blocks are code, and may
block.
"""

from __future__ import annotations

from collections import OrderedDict

from orchestra.engine.owned import OwnedInstance
from orchestra.replay import Execution

__all__ = ["ExecutionCache"]


class ExecutionCache:
    """At most ``limit`` executions; the least recently released ones leave first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[str, int, Execution]] = OrderedDict()
        self._discarded: list[Execution] = []

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, instance: OwnedInstance) -> None:
        """Keep the execution of a released instance, as its last acknowledged write has left it."""
        execution = instance.execution
        if execution is None or execution.ending is not None:
            return
        self._kept[instance.instance_id] = instance.incarnation, instance.revision, execution
        self._kept.move_to_end(instance.instance_id)
        if len(self._kept) > self._limit:
            _, (_, _, oldest) = self._kept.popitem(last=False)
            self._discarded.append(oldest)

    def take(self, instance: OwnedInstance) -> Execution | None:
        """Return the execution for an instance that was just claimed, if it is still the one that
        was kept.
        """
        kept = self._kept.pop(instance.instance_id, None)
        if kept is None:
            return None
        incarnation, revision, execution = kept
        # Valid only if nothing but the claim has happened since this node's own acknowledged write
        # (rule 3).
        mine = incarnation, revision + 1, execution.execution_id
        if instance.opened and mine == (
            instance.incarnation,
            instance.revision,
            instance.current.number,
        ):
            return execution
        self._discarded.append(execution)
        return None

    def put_back(self, by: int, since: int) -> None:
        """Take note that the store's clock was put back, which was wrong ``since``: the time of
        executions goes on.
        """
        for _, _, execution in self._kept.values():
            execution.put_back(by, since + execution.ahead)

    def discard(self, instance: OwnedInstance) -> None:
        """Have the execution of a desk closed that is thrown away."""
        if instance.execution is not None:
            self._discarded.append(instance.execution)

    @property
    def has_discarded(self) -> bool:
        """Whether something is to be closed."""
        return bool(self._discarded)

    def take_discarded(self) -> Execution | None:
        """Return the next execution that is to be closed."""
        return self._discarded.pop() if self._discarded else None

    def clear(self) -> None:
        """Drop all of them."""
        for _, _, execution in self._kept.values():
            self._discarded.append(execution)
        self._kept.clear()
