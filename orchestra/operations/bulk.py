"""One act on one of many instances: conditional and idempotent, so that a job that was cut off can
be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from orchestra.codec import UserText
from orchestra.errors import InstanceCompleted, InstanceNotFound, InstanceNotHeld, InvalidArgument
from orchestra.ids import digest
from orchestra.operations.delete import delete
from orchestra.operations.hold import hold, release
from orchestra.operations.lookup import open_instance
from orchestra.operations.nudge import nudge
from orchestra.operations.retarget import follow_pin
from orchestra.operations.rewind import Rewinding, rewind
from orchestra.operations.steps import FindExecutions, Get, Operation, SetPin, Step, Submit
from orchestra.operations.terminate import terminate
from orchestra.store.audit import Record
from orchestra.store.changes import Cancel
from orchestra.store.kinds import Library
from orchestra.store.outcomes import Appended
from orchestra.store.queries import InstanceRecord

__all__ = ["Bulk", "Order", "act_on"]

_PAGE: Final = 100
"""Executions that are read at once, from the newest back."""


class Bulk(StrEnum):
    """What can be done to many instances at once. Each act is that of the client's method."""

    CANCEL = "cancel"
    TERMINATE = "terminate"
    HOLD = "hold"
    RELEASE = "release"
    PIN = "pin"
    UNPIN = "unpin"
    NUDGE = "nudge"
    REWIND = "rewind"
    RERUN = "rerun"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Order:
    """What to do to each instance, who asks for it, and why.

    ``request_id`` names the job: a rewind or a rerun of the same job is done once to an instance.
    ``version`` is that of a pin, a rewind or a rerun.
    """

    act: Bulk
    by: str
    reason: str
    library: Library
    request_id: str
    version: str | None = None

    def id_for(self, record: InstanceRecord) -> str:
        """Return the id of the job's request to an instance."""
        return digest(f"{self.act}/{self.request_id}/{record.row.instance_id}")


def act_on(order: Order, record: InstanceRecord) -> Operation[bool]:
    """Do to an instance what is asked, if it is still the one that was found. Return whether this
    has changed it.

    It has not if the act had been done before, or if it makes no sense any more: the instance has
    ended, is gone, or is not held.

    Raises:
        InvalidArgument: a rewind or a version does not fit it.
        InstanceStillOpen, NewerLibraryNeeded, LevelTooLow, StoreError: as the single act.
    """
    try:
        return (yield from _only(record, _ACTS[order.act](order, record)))
    except (InstanceCompleted, InstanceNotFound, InstanceNotHeld):
        return False


def _only(record: InstanceRecord, operation: Operation[bool]) -> Operation[bool]:
    """Perform an operation; another life under the same id is none to it."""
    row, answer = record.row, None
    error: Exception | None = None
    while True:
        try:
            step: Step[Any] = operation.send(answer) if error is None else operation.throw(error)
        except StopIteration as end:
            return end.value
        answer = error = None
        try:
            answer = yield step
        except Exception as raised:  # noqa: BLE001 - the operation decides what it means
            error = raised
        if (
            isinstance(step, Get)
            and isinstance(answer, InstanceRecord)
            and answer.row.incarnation != row.incarnation
        ):
            answer = None


def _cancel(order: Order, record: InstanceRecord) -> Operation[bool]:
    row = record.row
    entry = Record(order.by, "cancel", row.instance_id, reason=UserText(order.reason))
    change = Cancel(
        row.instance_id,
        UserText(order.reason),
        order.by,
        incarnation=row.incarnation,
        record=entry,
    )
    outcome = yield from Submit(change)
    return isinstance(outcome, Appended) and outcome.fresh


def _terminate(order: Order, record: InstanceRecord) -> Operation[bool]:
    yield from terminate(record.row.instance_id, order.reason, order.by, order.library)
    return True


def _hold(order: Order, record: InstanceRecord) -> Operation[bool]:
    instance_id = record.row.instance_id
    held = yield from hold(instance_id, order.library, by=order.by, reason=order.reason)
    return held is not None


def _release(order: Order, record: InstanceRecord) -> Operation[bool]:
    instance_id = record.row.instance_id
    released = yield from release(instance_id, order.library, by=order.by, reason=order.reason)
    return released is not None


def _pin(order: Order, record: InstanceRecord) -> Operation[bool]:
    instance_id, version = record.row.instance_id, order.version
    yield from open_instance(instance_id)
    step = SetPin(instance_id, version, order.by, order.reason, unless_same=True)
    is_done = yield from step
    # Also where a job that was cut off has set the pin, and did not come to this.
    yield from follow_pin(instance_id, order.by)
    return is_done


def _nudge(order: Order, record: InstanceRecord) -> Operation[bool]:
    row = record.row
    # The execution that was selected: the next one may not be drifting any more (rule 40).
    return (
        yield from nudge(row.instance_id, execution=row.execution, by=order.by, reason=order.reason)
    )


def _rewind(order: Order, record: InstanceRecord) -> Operation[bool]:
    row, version = record.row, order.version
    after = max(0, row.execution - _PAGE)
    latest = yield from FindExecutions(row.instance_id, after, _PAGE)
    if any(one.request_id == order.id_for(record) for one in latest):
        return False  # by this job, before it was cut off
    execution = row.execution
    if version is not None:
        if record.execution.version == version:
            return False
        last = yield from _last_on(version, record)
        execution = last + 1
    asked = Rewinding(
        row.instance_id,
        execution,
        version,
        True,
        "abandon",
        order.by,
        order.reason,
        order.id_for(record),
        digest(f"life/{order.id_for(record)}"),
    )
    return not (yield from rewind(asked, order.library)).is_repeated


def _last_on(version: str, record: InstanceRecord) -> Operation[int]:
    """Return the last execution of an instance that ran a version."""
    before = record.row.execution
    while before > 0:
        after = max(0, before - _PAGE)
        rows = yield from FindExecutions(record.row.instance_id, after, before - after)
        for row in reversed(rows):
            if row.version == version:
                return row.number
        if not rows:
            break
        before = after
    raise InvalidArgument(
        f"no lap of {record.row.instance_id!r} that is kept ran version {version}; rewind it by "
        "itself, to an execution that you choose"
    )


def _delete(order: Order, record: InstanceRecord) -> Operation[bool]:
    yield from delete(record.row.instance_id, order.library, by=order.by, reason=order.reason)
    return True


_ACTS: Final[Mapping[Bulk, Callable[[Order, InstanceRecord], Operation[bool]]]] = {
    Bulk.CANCEL: _cancel,
    Bulk.TERMINATE: _terminate,
    Bulk.HOLD: _hold,
    Bulk.RELEASE: _release,
    Bulk.PIN: _pin,
    Bulk.UNPIN: _pin,
    Bulk.NUDGE: _nudge,
    Bulk.REWIND: _rewind,
    Bulk.DELETE: _delete,
}
"""A rerun is a start, which the client makes."""
