"""The effects of granted writes besides their hot rows, gathered so that one statement serves many
writes.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from orchestra.store.changes import NO_EXTRAS, Publish, Start, Write, WriteExtras
from orchestra.store.decoding import (
    activity_values,
    answer_values,
    closing_values,
    event_values,
    execution_values,
    hold_to_bytes,
    message_values,
    nudge_to_bytes,
    opening_values,
    operator_hold_to_bytes,
    patches_values,
    payload_values,
    pin_to_bytes,
    report_values,
)
from orchestra.store.executions import ExecutionDelta, ExecutionRow, Prune
from orchestra.store.facts import ActivityId
from orchestra.store.instances import Nudge, OperatorHold
from orchestra.store.kinds import Dialect, Status
from orchestra.store.streams import Bounds, Published
from orchestra.store.tasks import ActivityRow

__all__ = ["NOTHING_ELSE", "Effects", "EffectsExtras", "Pruning", "Publication"]

_Values = list[tuple[Any, ...]]


class Pruning(NamedTuple):
    """The executions of an instance to delete. ``current`` always stays (I3)."""

    instance_id: str
    current: int
    prune: Prune


class Publication(NamedTuple):
    """What one change publishes."""

    instance_id: str
    incarnation: str
    items: tuple[Published, ...]
    bounds: Bounds


class EffectsExtras:
    """The values of statements that few groups need. Groups without them share
    :data:`NOTHING_ELSE`.

    The statements run in this order before the messages of :class:`Effects` are consumed; those of
    operators, which are ``operator_holds``, ``resumed`` and ``pins``, once new instances are there;
    the last two behind all others.

    Attributes:
        patched: the marks of patches, and the execution, which must be there.
        stopped: :data:`~orchestra.store.tables.REPORT` and the activity, for each new stop mark or
            first step.
        set_aside: the reason, the instance and the number of messages that are kept apart. They are
            among the consumed ones.
        unkept: messages that were set aside, by instance and number, to delete.
        answers: :data:`~orchestra.store.tables.ANSWER` and the request, unless it is answered.
            They come before ``ended``.
        answered: the messages of these requests, by instance and number, if they are there.
        custom_statuses: the status, its encoding and the instance.
        labels: :data:`~orchestra.store.tables.LABEL`, added or replaced.
        unlabelled: labels to remove, by instance and key.
        nudges: the stored nudge and the instance.
        operator_holds: likewise. No node may run the activities of these instances.
        resumed: instances whose activities nodes may run again.
        pins: the pin and the instance.
        restored: :data:`~orchestra.store.tables.MESSAGE`, to be added at their old numbers.
        publications: what is added to streams, in order. The streams are then cut.
    """

    def __init__(self) -> None:
        self.patched: _Values = []
        self.stopped: _Values = []
        self.set_aside: _Values = []
        self.unkept: list[tuple[str, int]] = []
        self.answers: _Values = []
        self.answered: list[tuple[str, int]] = []
        self.custom_statuses: _Values = []
        self.labels: _Values = []
        self.unlabelled: list[tuple[str, str]] = []
        self.nudges: _Values = []
        self.operator_holds: _Values = []
        self.resumed: list[str] = []
        self.pins: _Values = []
        self.restored: _Values = []
        self.publications: list[Publication] = []


NOTHING_ELSE: Final = EffectsExtras()


class Effects:
    """The values of each statement. The fields have the order in which the statements must run.

    Attributes:
        dialect: how kinds are stored.
        created: :data:`~orchestra.store.tables.EXECUTION`, to be added.
        opened: :data:`~orchestra.store.tables.OPENING` and the id; each must be there, neither
            opened nor closed.
        closed: :data:`~orchestra.store.tables.CLOSING` and the id; each must be there and open.
        events: :data:`~orchestra.store.tables.EVENT`, to be added.
        forgotten: instances whose activities are all deleted.
        completed: activities to delete.
        activities: :data:`~orchestra.store.tables.ACTIVITY`, added or replaced. Its former node
            loses it.
        consumed: messages by instance and number; each must be there. An event leaves a tombstone.
        dropped: instances whose inboxes lose all ends of children and receipts: they belong to the
            execution that asked for them (I9).
        holds: the stored hold and the instance.
        pruned: executions to delete.
        families: instances, from which lap on, and how many of their ended children expire at once.
            It comes last of all, once the hot rows are written.
        ended: instances whose inboxes are emptied, without tombstones: a repeated message then
            learns that it was not read (rule 19). What was set aside goes as well. The number of
            messages of each name that are deleted by that is kept.
        extras: what few groups do; see :class:`EffectsExtras`.
    """

    # Written out: each group makes one, and factories of a dataclass would call for each field.
    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.instances: set[str] = set()
        self.created: _Values = []
        self.opened: _Values = []
        self.closed: _Values = []
        self.events: _Values = []
        self.forgotten: list[str] = []
        self.completed: list[ActivityId] = []
        self.activities: _Values = []
        self.consumed: list[tuple[str, int]] = []
        self.dropped: list[str] = []
        self.holds: _Values = []
        self.pruned: list[Pruning] = []
        self.families: list[tuple[str, int, int]] = []
        self.ended: list[str] = []
        self.extras: EffectsExtras = NOTHING_ELSE

    def can_take(self, write: Write) -> bool:
        """Return whether a write's effects may join these.

        A second write of one instance may build on the first, and statements are not ordered by
        write.
        """
        return write.instance_id not in self.instances

    def further(self) -> EffectsExtras:
        """Return what few groups do, to add to it."""
        if self.extras is NOTHING_ELSE:
            self.extras = EffectsExtras()
        return self.extras

    def add(self, write: Write, unmade: ExecutionRow | None = None) -> None:
        """Gather the effects of a granted write.

        Args:
            unmade: the first execution of an instance that the group starts. The write adds it.
        """
        instance_id = write.instance_id
        self.instances.add(instance_id)
        drops = False
        if unmade is not None and not _opens(write, unmade):
            self.create(instance_id, unmade)
            unmade = None
        for delta in write.executions:
            self._add_delta(instance_id, delta, delta.create or unmade)
            unmade = None
            if delta.closed is not None:
                drops = drops or delta.receipts or delta.children or write.owner is None
        for sequence in write.consumed:
            self.consumed.append((instance_id, sequence))
        if write.extras is not NO_EXTRAS:
            self._add_extras(write, write.extras)
        if write.hold is not None:
            self.holds.append((hold_to_bytes(write.hold, self.dialect), instance_id))
        if write.prune is not None:
            self.pruned.append(Pruning(instance_id, write.state.execution, write.prune))
            if write.prune.children:
                family = instance_id, write.prune.children_from, write.prune.children
                self.families.append(family)
        if write.state.status is not Status.OPEN:
            self.ended.append(instance_id)
            return
        if drops:
            self.dropped.append(instance_id)
        for event_id in write.completed:
            self.completed.append(ActivityId(instance_id, write.state.execution, event_id))
        for activity in write.activities:
            self.activities.append(activity_values(instance_id, activity))

    def _add_extras(self, write: Write, extras: WriteExtras) -> None:
        """Gather what few writes do to their own instance."""
        instance_id, gathered = write.instance_id, self.further()
        for aside in extras.set_aside:
            gathered.set_aside.append((aside.reason, instance_id, aside.sequence))
        for sequence in extras.unkept:
            gathered.unkept.append((instance_id, sequence))
        for answer in extras.answers:
            gathered.answers.append(answer_values(instance_id, answer))
            gathered.answered.append((instance_id, answer.sequence))
        for key, value in extras.labels:
            if value is None:
                gathered.unlabelled.append((instance_id, key))
            else:
                gathered.labels.append((instance_id, key, value))
        if extras.custom_status is not None:
            gathered.custom_statuses.append((*payload_values(extras.custom_status), instance_id))
        for message in extras.restored:
            gathered.restored.append(message_values(instance_id, message, self.dialect))
        if extras.pin is not None:
            gathered.pins.append((pin_to_bytes(extras.pin), instance_id))
        if extras.published:
            gathered.publications.append(
                Publication(instance_id, write.incarnation, extras.published, extras.stream_bounds)
            )

    def can_publish(self, publish: Publish) -> bool:
        """Return whether items of an attempt may join these: one publication an instance, so that
        every store cuts streams alike.
        """
        return publish.instance_id not in self.instances

    def publish(self, publish: Publish, items: tuple[Published, ...]) -> None:
        """Gather the items of an attempt."""
        self.instances.add(publish.instance_id)
        self.further().publications.append(
            Publication(publish.instance_id, publish.incarnation, items, publish.bounds)
        )

    def keep(self, key: ActivityId, activity: ActivityRow) -> None:
        """Gather the row of an activity that had none."""
        self.activities.append(activity_values(key.instance_id, activity))

    def stop(self, key: ActivityId, activity: ActivityRow) -> None:
        """Gather an activity that a granted write has stopped, or that has got its first step."""
        self.further().stopped.append((*report_values(activity), *key))

    def suspend(self, instance_id: str, hold: OperatorHold) -> None:
        """Gather an operator's hold."""
        self.further().operator_holds.append((operator_hold_to_bytes(hold), instance_id))

    def restore(self, start: Start) -> None:
        """Gather the messages that a start puts back."""
        for message in start.restored:
            self.further().restored.append(message_values(start.instance_id, message, self.dialect))

    def nudge(self, instance_id: str, nudge: Nudge) -> None:
        """Gather a nudge of an instance's execution."""
        self.further().nudges.append((nudge_to_bytes(nudge), instance_id))

    def create(self, instance_id: str, execution: ExecutionRow) -> None:
        """Gather the first execution of a new instance."""
        self.created.append(execution_values(instance_id, execution, self.dialect))

    def _add_delta(
        self, instance_id: str, delta: ExecutionDelta, created: ExecutionRow | None
    ) -> None:
        if created is not None:
            self.created.append(execution_values(instance_id, created, self.dialect, delta))
        elif (opening := opening_values(instance_id, delta, self.dialect)) is not None:
            self.opened.append(opening)
        if delta.patches:
            self.further().patched.append(patches_values(instance_id, delta))
        for event in delta.events:
            self.events.append(event_values(instance_id, delta.number, event))
        if (closing := closing_values(instance_id, delta, self.dialect)) is not None:
            self.closed.append(closing)
            self.forgotten.append(instance_id)


def _opens(write: Write, unmade: ExecutionRow) -> bool:
    """Return whether a write opens an execution that the group has not made yet."""
    first = write.executions[0] if write.executions else None
    return first is not None and first.opened is not None and first.number == unmade.number
