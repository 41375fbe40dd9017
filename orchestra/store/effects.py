"""What granted writes do besides their hot rows, gathered so that a provider runs each statement
once for many of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestra.store.changes import Write
from orchestra.store.decoding import (
    activity_values,
    closing_values,
    event_values,
    execution_values,
    hold_to_bytes,
    opening_values,
    payload_values,
    report_values,
)
from orchestra.store.executions import ExecutionDelta, ExecutionRow, Prune
from orchestra.store.facts import ActivityId
from orchestra.store.kinds import Dialect, Status
from orchestra.store.tasks import ActivityRow

__all__ = ["Effects", "Pruning"]

_Values = list[tuple[Any, ...]]


class Pruning(NamedTuple):
    """Which executions of an instance go; ``current`` is the one that stays in any case (I3)."""

    instance_id: str
    current: int
    prune: Prune


@dataclass(slots=True)
class Effects:
    """The values of each statement. The fields stand in the order in which the statements must run.

    Attributes:
        dialect: how kinds are stored.
        created: :data:`~orchestra.store.tables.EXECUTION`, to be added.
        opened: :data:`~orchestra.store.tables.OPENING` and the id; each must be there, neither
            opened nor closed.
        closed: :data:`~orchestra.store.tables.CLOSING` and the id; each must be there and open.
        events: :data:`~orchestra.store.tables.EVENT`, to be added.
        forgotten: instances whose activities all go.
        settled: activities that go.
        activities: :data:`~orchestra.store.tables.ACTIVITY`, added or replaced. The node that had
            one before loses it.
        stopped: :data:`~orchestra.store.tables.REPORT` and the activity, of those that get the stop
            mark.
        consumed: messages by instance and number; each must be there. An event leaves a tombstone.
        dropped: instances from whose inboxes all ends of children go: those belong to the execution
            that asked for them (I9).
        custom_statuses: the status, its encoding and the instance.
        holds: the stored hold and the instance.
        pruned: executions that go.
        ended: instances whose inboxes are emptied, without tombstones: who sends one of these again
            is told the truth, that it was not read (rule 19). How many of each name were unread is
            kept.
    """

    dialect: Dialect
    instances: set[str] = field(default_factory=set[str])
    created: _Values = field(default_factory=lambda: [])
    opened: _Values = field(default_factory=lambda: [])
    closed: _Values = field(default_factory=lambda: [])
    events: _Values = field(default_factory=lambda: [])
    forgotten: list[str] = field(default_factory=lambda: [])
    settled: list[ActivityId] = field(default_factory=lambda: [])
    activities: _Values = field(default_factory=lambda: [])
    stopped: _Values = field(default_factory=lambda: [])
    consumed: list[tuple[str, int]] = field(default_factory=lambda: [])
    dropped: list[str] = field(default_factory=lambda: [])
    custom_statuses: _Values = field(default_factory=lambda: [])
    holds: _Values = field(default_factory=lambda: [])
    pruned: list[Pruning] = field(default_factory=lambda: [])
    ended: list[str] = field(default_factory=lambda: [])

    def can_take(self, write: Write) -> bool:
        """Return whether the effects of a write may join these.

        A second write of one instance may build on what the first has done, and statements are not
        ordered by write.
        """
        return write.instance_id not in self.instances

    def add(self, write: Write) -> None:
        """Gather what a granted write does."""
        instance_id = write.instance_id
        self.instances.add(instance_id)
        for delta in write.executions:
            self._add_delta(instance_id, delta)
        for sequence in write.consumed:
            self.consumed.append((instance_id, sequence))
        if write.custom_status is not None:
            self.custom_statuses.append((*payload_values(write.custom_status), instance_id))
        if write.hold is not None:
            self.holds.append((hold_to_bytes(write.hold, self.dialect), instance_id))
        if write.prune is not None:
            self.pruned.append(Pruning(instance_id, write.state.execution, write.prune))
        if write.state.status is not Status.OPEN:
            self.ended.append(instance_id)
            return
        if write.closed_with_children:
            self.dropped.append(instance_id)
        for event_id in write.settled:
            self.settled.append(ActivityId(instance_id, write.state.execution, event_id))
        for activity in write.activities:
            self.activities.append(activity_values(instance_id, activity))

    def stop(self, key: ActivityId, activity: ActivityRow) -> None:
        """Gather an activity that a granted write stops, as it is then."""
        self.stopped.append((*report_values(activity), *key))

    def create(self, instance_id: str, execution: ExecutionRow) -> None:
        """Gather the first execution of a new instance."""
        self.created.append(execution_values(instance_id, execution, self.dialect))

    def _add_delta(self, instance_id: str, delta: ExecutionDelta) -> None:
        if delta.create is not None:
            self.created.append(execution_values(instance_id, delta.create, self.dialect, delta))
        elif (opening := opening_values(instance_id, delta, self.dialect)) is not None:
            self.opened.append(opening)
        for event in delta.events:
            self.events.append(event_values(instance_id, delta.number, event))
        if (closing := closing_values(instance_id, delta, self.dialect)) is not None:
            self.closed.append(closing)
            self.forgotten.append(instance_id)
